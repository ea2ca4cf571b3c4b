//! The contract, served as it is written.

use std::sync::LazyLock;

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

static JSON: LazyLock<String> = LazyLock::new(|| {
    let document: serde_json::Value =
        serde_saphyr::from_str(yaml()).expect("the contract is valid YAML: a test reads it");
    document.to_string()
});

/// The contract as YAML.
pub fn yaml() -> &'static str {
    include_str!("../../openapi/causeway.v1.yaml")
}

/// The contract as JSON.
pub fn json() -> &'static str {
    &JSON
}

pub(super) async fn serve_yaml() -> Response {
    ([(CONTENT_TYPE, "application/yaml")], yaml()).into_response()
}

pub(super) async fn serve_json() -> Response {
    ([(CONTENT_TYPE, "application/json")], json()).into_response()
}
