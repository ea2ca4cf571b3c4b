//! Serves a gateway for tools outside: run it by name, with the file its address goes to.
//!
//! `CAUSEWAY_SERVE_ADDRESS=/tmp/address cargo test --test it -- --ignored serve_until_the_file_is_gone`

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::support::gateway::{TestGateway, envelope};
use crate::support::orchestrator::ScriptedOrchestrator;

#[tokio::test]
#[ignore = "serves for tools outside, for as long as the file with its address exists"]
async fn serve_until_the_file_is_gone() {
    let Some(file) = std::env::var_os("CAUSEWAY_SERVE_ADDRESS").map(PathBuf::from) else { return };
    let home = ScriptedOrchestrator::start().await;
    home.auto_events(3, Duration::ZERO);
    let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    let events = [
        envelope("run_01JH9YZZ", "evt_1", Some(1), "note"),
        envelope("run_01JH9YZZ", "evt_2", Some(2), "agentos.run.completed"),
    ];
    gateway.post("/v1/federation/events:ingest", &json!({ "events": events })).await.expect(200);
    std::fs::write(&file, gateway.base_url()).expect("the address is written");
    while file.exists() {
        tokio::time::sleep(Duration::from_millis(200)).await; // why: another process says when
    }
}
