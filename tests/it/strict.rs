//! Requests that the document calls wrong are refused, and those it calls good are not: what schemathesis found.

use reqwest::{Client, Method};

use crate::support::document::{Ask, Checked, Document};
use crate::support::gateway::{TENANT, TestGateway};
use crate::support::prod::{CLIENT_SCOPES, Prod, prod_config};

#[tokio::test]
async fn a_malformed_principal_is_refused_whoever_names_it() {
    let (document, seen) = (Document::load(), Default::default());
    let prod = Prod::start(prod_config(), Vec::new()).await;
    let token = prod.token(Some(TENANT), &CLIENT_SCOPES).await.text;
    let dev = TestGateway::start(Vec::new()).await;
    let at = |gateway: &TestGateway| Checked::new(&document, gateway.address(), &seen);
    let (proven, believed) = (at(&prod.gateway), at(&dev));
    let list = |principal: &str| Ask::of("listFederatedRuns").header("x-principal-id", principal);
    for principal in ["", "a b", &"x".repeat(129)] {
        proven.ask(list(principal).bearer(&token)).await.expect_error(400, "invalid_request");
        believed.ask(list(principal)).await.expect_error(400, "invalid_request");
    }
    proven.ask(list("svc_web").bearer(&token)).await.expect(200);
    believed.ask(list("svc_web")).await.expect(200);
}

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
