//! What the tests of forwarding share: keyed bodies, forwards as the API shows them, the audit.

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::task::JoinHandle;

use crate::support::ears::{plain_client, read};
use crate::support::gateway::{Answer, TestGateway, forward_body};

/// Where forwards are posted.
pub(crate) const FORWARD: &str = "/v1/federation/runs:forward";

/// The smallest forward, with a key in its body.
pub(crate) fn keyed_body(stack_id: &str, key: &str) -> Value {
    let mut body = forward_body(stack_id);
    body["forward"]["run_request"]["idempotency_key"] = Value::from(key);
    body
}

/// Posts a forward from a task of its own, which a test may abort or outlive.
#[expect(
    clippy::disallowed_methods,
    reason = "the caller is no part of the gateway, whose tasks are tracked"
)]
pub(crate) fn spawn_forward(gateway: &TestGateway, body: &Value) -> JoinHandle<reqwest::Result<Answer>> {
    let post = plain_client().post(format!("{}{FORWARD}", gateway.base_url()));
    let sent = post.header("content-type", "application/json").body(body.to_string()).send();
    tokio::spawn(async { Ok(read(sent.await?).await) })
}

/// The run id of a forward's answer.
#[track_caller]
pub(crate) fn run_id(answer: &Answer) -> String {
    answer.json["forwarded"]["run_id"].as_str().expect("a run id").to_owned()
}

/// The forward an answer names: a success, a 202, or an error with its `details.forward_id`.
#[track_caller]
pub(crate) fn forward_id(answer: &Answer) -> String {
    let body = &answer.json;
    let places = [&body["forwarded"], &body["forward"], &body["error"]["details"]];
    let found = places.iter().find_map(|place| place["forward_id"].as_str());
    found.unwrap_or_else(|| panic!("no forward id in {}", answer.text)).to_owned()
}

/// The forward as it stands.
pub(crate) async fn forward_now(gateway: &TestGateway, id: &str) -> Value {
    gateway.get(&format!("/v1/federation/forwards/{id}")).await.expect(200).json["forward"].clone()
}

/// The forward once it is in this state.
pub(crate) async fn forward_once(gateway: &TestGateway, id: &str, state: &str) -> Value {
    let path = format!("/v1/federation/forwards/{id}");
    gateway.until(&path, |answer| answer.json["forward"]["state"] == state).await.json["forward"].clone()
}

/// The reasons of the audit records with this outcome, oldest first.
pub(crate) fn audit(gateway: &TestGateway, outcome: &str) -> Vec<String> {
    let file = gateway.data_dir().join(causeway::store::DATABASE_FILE);
    let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the database");
    let sql = "SELECT reason FROM audit WHERE outcome = ?1 ORDER BY audit_id";
    let mut statement = database.prepare(sql).expect("the audit table");
    let rows = statement.query_map([outcome], |row| row.get(0)).expect("rows");
    rows.map(|row| row.expect("a reason")).collect()
}

/// A time as the API writes it.
#[track_caller]
pub(crate) fn time_of(value: &Value) -> OffsetDateTime {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no time"));
    OffsetDateTime::parse(text, &Rfc3339).expect("an RFC 3339 time")
}
