//! Requests that the document calls wrong are refused, and those it calls good are not: what schemathesis found.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::document::{Ask, Checked, Document};
use crate::support::ears::plain_client;
use crate::support::gateway::{TENANT, TestGateway, envelope};
use crate::support::prod::{ADMIN, CLIENT_SCOPES, Prod, prod_config};

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
    let client = plain_client();
    for path in ["/v1/federation/peers/stk_b", "/v1/runs/run_x", "/v1/federation/peers/stk_b:revoke"] {
        let url = format!("{}{path}", prod.gateway.base_url());
        let answer = client.request(Method::OPTIONS, url).send().await.expect("an answer");
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.headers().get("allow"), None, "{path}");
    }
}

#[tokio::test]
async fn a_cursor_is_at_most_what_every_reader_of_the_document_can_hold() {
    let (document, seen) = (Document::load(), Default::default());
    let prod = Prod::start(prod_config(), Vec::new()).await;
    let token = prod.token(Some(TENANT), &CLIENT_SCOPES).await.text;
    let client = Checked::new(&document, prod.gateway.address(), &seen);
    let push = json!({ "events": [envelope("run_x", "evt_1", None, "note")] });
    client.ask(Ask::of("ingestFederatedEvents").bearer(&token).json(&push)).await.expect(200);
    let (most, beyond) = (i64::MAX.unsigned_abs(), i64::MAX.unsigned_abs() + 1);
    let ticket = |cursor: u64| {
        let body = json!({ "run_id": "run_x", "from_sequence": cursor });
        Ask::of("createStreamTicket").bearer(&token).json(&body)
    };
    client.ask(ticket(most)).await.expect(201);
    client.ask(ticket(beyond)).await.expect_error(400, "invalid_request");
    let page = |cursor: u64| {
        let query = format!("from_sequence={cursor}&follow=false");
        Ask::of("streamFederatedRunEvents").at("run_id", "run_x").query(&query).bearer(&token)
    };
    client.ask(page(most)).await.expect(200);
    client.ask(page(beyond)).await.expect_error(400, "invalid_cursor");
}

/// An empty lifetime would be one without an end.
#[tokio::test]
async fn an_empty_duration_is_a_mistake() {
    let (document, seen) = (Document::load(), Default::default());
    let prod = Prod::start(prod_config(), Vec::new()).await;
    let admin = prod.token(None, &[ADMIN]).await.text;
    let client = Checked::new(&document, prod.gateway.address(), &seen);
    let token = |lifetime: Value| {
        let body = json!({ "tenant_id": TENANT, "principal_id": "svc", "scopes": ["runs:read"], "lifetime": lifetime });
        Ask::of("createToken").bearer(&admin).json(&body)
    };
    client.ask(token(json!(""))).await.expect_error(400, "invalid_request");
    client.ask(token(json!("90d"))).await.expect(201);
    client.ask(token(Value::Null)).await.expect(201);
    let rotate = Ask::of("rotateKey").bearer(&admin).json(&json!({ "overlap": "" }));
    client.ask(rotate).await.expect_error(400, "invalid_request");
}

/// The document counts characters, as JSON Schema does.
#[tokio::test]
async fn what_is_written_for_people_is_counted_in_characters() {
    let (document, seen) = (Document::load(), Default::default());
    let prod = Prod::start(prod_config(), Vec::new()).await;
    let admin = prod.token(None, &[ADMIN]).await.text;
    let client = Checked::new(&document, prod.gateway.address(), &seen);
    let labelled = |label: &str| {
        let body =
            json!({ "tenant_id": TENANT, "principal_id": "svc", "scopes": ["runs:read"], "label": label });
        Ask::of("createToken").bearer(&admin).json(&body)
    };
    let kept = client.ask(labelled(&"請".repeat(128))).await.expect(201);
    assert_eq!(kept.json["token"]["label"], "請".repeat(128));
    for label in ["請".repeat(129), "two\nlines".to_owned()] {
        client.ask(labelled(&label)).await.expect_error(400, "invalid_request");
    }
}

/// The schema of a request is a promise: what it lets through is not refused for its form.
#[test]
fn the_document_knows_which_requests_are_refused_for_their_form() {
    let document = Document::load();
    let is_good = |name: &str, value: &Value| {
        let schema = json!({ "$ref": format!("#/components/schemas/{name}") });
        document.validator(&schema).is_valid(value)
    };
    for selector in
        [json!({}), json!({ "region": null }), json!({ "stack_id": "", "required_capabilities": [] })]
    {
        assert!(!is_good("TargetSelector", &selector), "{selector}");
    }
    assert!(is_good("TargetSelector", &json!({ "stack_id": "", "region": "west" })));
    let token =
        |tenant: Value, scopes: Value| json!({ "tenant_id": tenant, "principal_id": "p", "scopes": scopes });
    assert!(is_good("TokenRequest", &token(json!("t"), json!(["runs:read"]))));
    assert!(is_good("TokenRequest", &token(Value::Null, json!([ADMIN]))));
    for (tenant, scopes) in [
        (Value::Null, json!(["runs:read"])),
        (json!("t"), json!([ADMIN])),
        (Value::Null, json!([ADMIN, "runs:read"])),
    ] {
        assert!(!is_good("TokenRequest", &token(tenant, scopes)));
    }
    let entry = json!({ "peer_id": "stk_b", "base_url": "https://b.example" });
    assert!(is_good("PeerEntry", &entry));
    let mut both = entry;
    both["stack_id"] = json!("stk_b");
    assert!(!is_good("PeerEntry", &both));
}
