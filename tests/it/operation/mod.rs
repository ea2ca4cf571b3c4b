//! What operators watch: topology, links, deliveries, alerts, and who is told of them.

mod alerts;
mod deliveries;
mod receiver;
mod rules;
mod topology;
mod webhooks;

use serde_json::Value;

use crate::support::gateway::{Answer, TestGateway};

/// Where the alerts are.
const ALERTS: &str = "/v1/federation/alerts";

/// The ids of the alerts in an answer.
fn ids(answer: &Answer) -> Vec<&str> {
    let items = answer.json["items"].as_array().unwrap_or_else(|| panic!("{}", answer.text));
    items.iter().map(|alert| alert["alert_id"].as_str().expect("an id")).collect()
}

/// Waits until the gateway has this alert, and answers it.
async fn until_alert(gateway: &TestGateway, id: &str) -> Value {
    let answer = gateway.until(ALERTS, |answer| answer.status == 200 && ids(answer).contains(&id)).await;
    let items = answer.json["items"].as_array().expect("items");
    items.iter().find(|alert| alert["alert_id"] == id).expect("the alert").clone()
}

/// Waits until the gateway has no alert of this id.
async fn until_over(gateway: &TestGateway, id: &str) {
    gateway.until(ALERTS, |answer| answer.status == 200 && !ids(answer).contains(&id)).await;
}
