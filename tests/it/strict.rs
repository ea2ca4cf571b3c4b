//! Requests that the document calls wrong are refused, and those it calls good are not: what schemathesis found.

use reqwest::{Client, Method};

use crate::support::prod::{Prod, prod_config};

#[tokio::test]
async fn a_refused_caller_is_not_told_methods_that_no_document_knows() {
    let prod = Prod::start(prod_config(), Vec::new()).await;
    let client = Client::builder().no_proxy().build().expect("a client");
    for path in ["/v1/federation/peers/stk_b", "/v1/runs/run_x", "/v1/federation/peers/stk_b:revoke"] {
        let url = format!("{}{path}", prod.gateway.base_url());
        let answer = client.request(Method::OPTIONS, url).send().await.expect("an answer");
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.headers().get("allow"), None, "{path}");
    }
}
