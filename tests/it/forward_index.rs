//! The AgentOS forward index file: read at start, kept as a snapshot, never damaged and never replaced
//! unread.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use causeway::config::Config;
use causeway::domain::peer::PeerKind;
use causeway::services::peer_options::PeerOptions;
use serde_json::{Value, json};

use crate::support::gateway::{TENANT, TestGateway, peer, test_config};
use crate::support::orchestrator::{RunStatus, ScriptedOrchestrator};
use crate::support::sse_client::Follower;

fn config_with(file: &Path) -> Config {
    let mut config = test_config();
    config.gateway.forward_index_file = Some(file.to_owned());
    config
}

fn peers(home: &ScriptedOrchestrator) -> Vec<PeerOptions> {
    vec![peer("stk_b", &home.base_url(), PeerKind::Orchestrator)]
}

fn read(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).expect("the index file")).expect("JSON")
}

//
#[tokio::test]
async fn the_snapshot_has_the_shape_of_the_origin_and_is_private() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("federation/forward-index.json");
    let home = ScriptedOrchestrator::start().await;
    let mut gateway = TestGateway::start_with(config_with(&file), peers(&home)).await;
    assert_eq!(read(&file), json!([]), "an empty index is a file, too");
    let mut runs = [gateway.forward_run("stk_b").await, gateway.forward_run("stk_b").await];
    runs.sort();
    gateway.stop().await;
    let base = home.base_url();
    let record = |run: &String| {
        json!({
            "tenant_id": TENANT,
            "run_id": run,
            "remote_stack_id": "stk_b",
            "remote_events_url": format!("{base}/v1/runs/{run}/events"),
        })
    };
    assert_eq!(read(&file), Value::from_iter(runs.iter().map(record)));
    let mode = fs::metadata(&file).expect("the index file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let names: Vec<_> = fs::read_dir(file.parent().expect("a parent")).expect("a directory").collect();
    assert_eq!(names.len(), 1, "nothing half written is left: {names:?}");
}

//
#[tokio::test]
async fn runs_of_the_file_are_followed_by_a_gateway_that_never_forwarded_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("forward-index.json");
    let home = ScriptedOrchestrator::start().await;
    let mut first = TestGateway::start_with(config_with(&file), peers(&home)).await;
    let run = first.forward_run("stk_b").await;
    first.stop().await;
    home.emit_steps(&run, 3);
    home.finish(&run, RunStatus::Completed);
    let mut second = TestGateway::start_with(config_with(&file), peers(&home)).await;
    let path = format!("/v1/federation/runs/{run}/events");
    let mut follower = Follower::new(second.address(), &path);
    follower.follow_to_end().await;
    assert_eq!(follower.sequences(), [1, 2, 3, 4]);
    // Importing it again changes nothing.
    second.restart().await;
    let listed = second.get("/v1/federation/runs").await.expect(200);
    assert_eq!(listed.json["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(home.truth().creates().len(), 1);
}

//
#[tokio::test]
async fn a_forwarded_run_is_followed_after_a_restart() {
    let home = ScriptedOrchestrator::start().await;
    let mut gateway = TestGateway::start(peers(&home)).await;
    let run = gateway.forward_run("stk_b").await;
    home.emit_steps(&run, 2);
    let path = format!("/v1/federation/runs/{run}/events");
    Follower::new(gateway.address(), &path).follow_events(2).await;
    gateway.stop().await;
    home.emit_steps(&run, 2);
    home.finish(&run, RunStatus::Failed);
    gateway.start_again().await.expect("it starts again");
    let mut follower = Follower::new(gateway.address(), &path);
    follower.follow_to_end().await;
    assert_eq!(follower.sequences(), [1, 2, 3, 4, 5]);
}

// defect 7
#[tokio::test]
async fn a_damaged_file_stops_the_start_and_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("forward-index.json");
    let home = ScriptedOrchestrator::start().await;
    let mut gateway = TestGateway::start(peers(&home)).await;
    gateway.forward_run("stk_b").await;
    gateway.stop().await;
    gateway.config.gateway.forward_index_file = Some(file.clone());
    let good = format!("[{{\"tenant_id\":\"{TENANT}\",\"run_id\":\"r\",\"remote_stack_id\":\"stk_b\"}},\n");
    let damaged = [
        ("[\n {\"tenant_id\": \"t\",\n  \"run_id\": ]".to_owned(), "line 3, column"),
        (good.clone() + "{\"tenant_id\":\"t\"}]", "line 2, column"),
        (good + "{\"tenant_id\":\"a b\",\"run_id\":\"r\",\"remote_stack_id\":\"s\"}]", "line 2, column"),
        (String::new(), "line 1, column"),
    ];
    for (text, place) in damaged {
        fs::write(&file, &text).expect("written");
        let error = gateway.start_again().await.expect_err("it does not start").to_string();
        assert!(error.contains(place) && error.contains("forward-index.json"), "{error}");
        assert_eq!(fs::read_to_string(&file).expect("the file"), text);
    }
    fs::remove_file(&file).expect("moved away");
    gateway.start_again().await.expect("it starts");
    assert_eq!(read(&file).as_array().map(Vec::len), Some(1), "what the database holds is kept");
}
