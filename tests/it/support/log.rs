//! Pushing events as text, so that a test decides on every byte, and reading the log beside the gateway.

use std::path::Path;

use causeway::store::DATABASE_FILE;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use super::gateway::{Answer, TestGateway};

/// Where events are pushed.
pub(crate) const INGEST: &str = "/v1/federation/events:ingest";

/// A flat event of [`super::gateway::TENANT`]; `sequence` and `payload` are JSON texts, an empty `sequence`
/// leaves the member out.
pub(crate) fn event_text(run: &str, id: &str, sequence: &str, payload: &str) -> String {
    typed_event(run, id, sequence, "agentos.run.step.started", payload)
}

/// The same, of a type.
pub(crate) fn typed_event(run: &str, id: &str, sequence: &str, kind: &str, payload: &str) -> String {
    let sequence = if sequence.is_empty() { String::new() } else { format!("\"sequence\":{sequence},") };
    format!(
        "{{\"event_id\":\"{id}\",{sequence}\"time\":\"2025-12-19T22:15:36Z\",\"type\":\"{kind}\",\
         \"tenant_id\":\"tnt_demo\",\"agent_id\":\"agt_test\",\"run_id\":\"{run}\",\"step_id\":null,\
         \"trace\":{{}},\"payload\":{payload}}}"
    )
}

/// A plain event, whose id names its run and sequence.
pub(crate) fn step(run: &str, sequence: u64) -> String {
    event_text(run, &format!("evt_{run}_{sequence}"), &sequence.to_string(), "{}")
}

/// The event that ends a run.
pub(crate) fn last_step(run: &str, sequence: u64) -> String {
    let id = format!("evt_{run}_{sequence}");
    typed_event(run, &id, &sequence.to_string(), "agentos.run.completed", "{}")
}

/// Pushes entries, each a JSON text, in one request.
pub(crate) async fn push(gateway: &TestGateway, entries: &[String]) -> Answer {
    let body = format!("{{\"events\":[{}]}}", entries.join(","));
    gateway.post_raw(INGEST, "application/json", body.into_bytes()).await
}

/// `(accepted, rejected, duplicates, conflicts)`.
pub(crate) fn counts(answer: &Answer) -> (u64, u64, u64, u64) {
    let count = |name: &str| answer.json[name].as_u64().unwrap_or_else(|| panic!("{name}: {}", answer.text));
    (count("accepted"), count("rejected"), count("duplicates"), count("conflicts"))
}

/// `status`, or `status code`, of each entry, in order.
pub(crate) fn outcomes(answer: &Answer) -> Vec<String> {
    let results = answer.json["results"].as_array().unwrap_or_else(|| panic!("{}", answer.text));
    let text = |result: &Value, name: &str| result[name].as_str().unwrap_or("").to_owned();
    results
        .iter()
        .map(|one| format!("{} {}", text(one, "status"), text(one, "code")).trim().to_owned())
        .collect()
}

/// A page of a run's events after `from`.
pub(crate) async fn page(gateway: &TestGateway, run: &str, from: u64) -> Answer {
    let path = format!("/v1/federation/runs/{run}/events?from_sequence={from}&limit=1000");
    gateway.get_with(&path, &[("accept", "application/json")]).await
}

/// The sequences of a page.
pub(crate) fn sequences(page: &Answer) -> Vec<u64> {
    let events = page.json["events"].as_array().unwrap_or_else(|| panic!("{}", page.text));
    events.iter().map(|one| one["event"]["sequence"].as_u64().expect("a sequence")).collect()
}

/// A second connection to a database, beside whoever has it open.
pub(crate) fn beside(data_dir: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    Connection::open_with_flags(data_dir.join(DATABASE_FILE), flags).expect("the database opens")
}

/// Flips the lowest bit of a byte in the database's file: that many bytes behind where `found` begins.
pub(crate) fn flip_bit(data_dir: &Path, found: &[u8], behind: usize) {
    let database = beside(data_dir);
    database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("a checkpoint");
    drop(database);
    let file = data_dir.join(DATABASE_FILE);
    let mut bytes = std::fs::read(&file).expect("the database");
    let at = bytes.windows(found.len()).position(|window| window == found).expect("it is in the file");
    bytes[at + behind] ^= 1;
    std::fs::write(&file, bytes).expect("the database");
}

/// A number out of the database.
pub(crate) fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// How many events of a run the database holds.
pub(crate) fn rows_of(connection: &Connection, run: &str) -> i64 {
    let sql = "SELECT count(*) FROM events WHERE position >> 32 =
                   (SELECT stream_no FROM streams WHERE stream_id = 'run/' || ?1)";
    connection.query_row(sql, [run], |row| row.get(0)).expect("a count")
}
