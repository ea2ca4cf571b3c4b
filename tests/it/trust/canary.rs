//! What is secret stays so: planted secrets are looked for wherever a gateway writes anything.

use causeway::domain::peer::PeerKind;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::client_tls::{TLS13, connect, tls_config, write_certificate};
use crate::support::ears::{Opened, plain_client};
use crate::support::forwards::FORWARD;
use crate::support::gateway::{TestGateway, events_path, forward_body, peer};
use crate::support::log::beside;
use crate::support::orchestrator::{CreateFault, RunStatus, ScriptedOrchestrator};
use crate::support::pair::{Operator, Plan};
use crate::support::raw;
use crate::support::secrets::{self, Watch};
use crate::support::sse_client::{Follower, SseClient};

/// Every value of every record of the audit, as the database holds it.
fn audit_table(gateway: &TestGateway) -> String {
    let database = beside(&gateway.data_dir());
    let mut statement = database.prepare("SELECT * FROM audit").expect("the audit");
    let columns = statement.column_count();
    let row = |row: &rusqlite::Row<'_>| {
        let value = |at| {
            row.get_ref(at).map(|value| match value.data_type() {
                rusqlite::types::Type::Text => value.as_str().unwrap_or("not UTF-8").to_owned(),
                _ => format!("{value:?}"),
            })
        };
        (0..columns).map(value).collect::<Result<Vec<_>, _>>()
    };
    let rows = statement.query_map([], row).expect("records");
    rows.map(|row| row.expect("a record").join(" ") + "\n").collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

// The search that every gateway under test ends with does fail.
#[tokio::test]
#[should_panic(expected = "a secret is in")]
async fn a_secret_that_is_written_fails_the_test_that_let_it_be() {
    let gateway = TestGateway::start(Vec::new()).await;
    let secret = format!("canary-that-is-written-{}", std::process::id());
    secrets::keep(&secret);
    std::fs::write(gateway.data_dir().join("a-note"), secret).expect("written");
}

// Whichever client of the tests reads it, and by whichever door.
#[tokio::test]
async fn whatever_is_read_is_searched() {
    let home = ScriptedOrchestrator::start().await;
    let files = tempfile::tempdir().expect("a directory");
    let root = write_certificate(files.path());
    let plain = TestGateway::with_orchestrator(&home.base_url()).await;
    let entry = peer("stk_b", &home.base_url(), PeerKind::Orchestrator);
    let with_tls = TestGateway::start_with(tls_config(files.path()), vec![entry]).await;
    let run_for = async |reader: &str| {
        let run = plain.forward_run("stk_b").await;
        home.emit(&run, "agentos.run.step.completed", json!({ "text": format!("read-by-{reader}") }));
        home.finish(&run, RunStatus::Completed);
        plain.until_run(&run, |run| run["status"] == "completed").await;
        events_path(&run)
    };
    let (whole, piecewise) = (run_for("the-client").await, run_for("a-client-of-streams").await);
    let (strict, bytes) = (run_for("the-strict-client").await, run_for("bytes").await);
    plain.get(&whole).await.expect(200);
    let url = format!("{}{piecewise}", plain.base_url());
    Opened::new(plain_client().get(url).send().await.expect("an answer")).rest().await;
    SseClient::connect(plain.address(), &strict, &[]).await.collect_until_end().await;
    raw::send(plain.address(), &raw::request("GET", &bytes, &[], b"")).await;
    let mut inside = connect(&with_tls, &root, TLS13, &[]).await.expect("a handshake");
    let asked = [("x-request-id", "read-by-bytes-inside-tls")];
    inside.write_all(&raw::request("GET", "/livez", &asked, b"")).await.expect("sent");
    raw::read_to_end(inside).await;
    for reader in ["the-client", "a-client-of-streams", "the-strict-client", "bytes", "bytes-inside-tls"] {
        let found = plain.watch().findings_of(&format!("read-by-{reader}"));
        assert!(found.iter().any(|place| place.contains("in what was read")), "{reader}: {found:?}");
    }
}

// A file is found out whatever form the secret has, and a key where no key belongs.
#[tokio::test]
async fn what_a_gateway_hears_says_and_stores_is_what_is_searched() {
    let mut gateway = TestGateway::start(Vec::new()).await;
    let address = gateway.address().to_string();
    gateway.get("/v1/federation/runs/run_that_is_heard_of").await.expect(404);
    gateway.get("/metrics").await.expect(200);
    let heard = gateway.watch().written();
    assert!(
        heard.lines().any(|line| line.contains("the gateway listens") && line.contains(&address)),
        "logs"
    );
    assert!(gateway.watch().read().contains("an answer 404: "), "answers");
    gateway.stop().await;
    assert!(gateway.watch().written().contains("http_connections_open "), "metrics");
    gateway.start_again().await.expect("the gateway starts again");
    gateway.push_steps("run_that_is_stored", [1]).await;
    let stored = |(_, bytes): &(String, Vec<u8>)| holds(bytes, "run_that_is_stored");
    assert!(gateway.watch().files().iter().any(stored), "the database");
    assert_eq!(gateway.watch().findings(), Vec::<String>::new());

    let misplaced = gateway.data_dir().join("a-copy");
    let key = std::fs::read_dir(gateway.data_dir().join("keys")).expect("the keys").flatten().next();
    std::fs::copy(key.expect("a key").path(), &misplaced).expect("a copy");
    let found = gateway.watch().findings();
    assert!(found.len() == 1 && found[0].contains("a-copy"), "{found:?}");
    std::fs::remove_file(misplaced).expect("removed");
}

// reliability 4d.62
#[tokio::test]
pub(crate) async fn no_secret_is_written_anywhere() {
    let mut plan = Plan::prod().await;
    let secrets_dir = tempfile::tempdir().expect("a directory");
    let token_file = secrets_dir.path().join("token");
    std::fs::write(&token_file, "canary-of-the-orchestrator-7001").expect("written");
    plan.b.local.token_file = Some(token_file);
    plan.b.local.read_token().expect("a token");
    let sinks = tempfile::tempdir().expect("a directory");
    let sink = sinks.path().join("audit.jsonl");
    plan.b.config.audit.sink = format!("file:{}", sink.display());
    let sunk = Watch::over(vec![sink.clone()]);
    let mut pair = plan.start().await;
    pair.until_healthy().await;
    let (at_a, at_b) = (Operator::of(&pair.a), Operator::of(&pair.b));
    let mut seen = String::new();

    let (id, token) = at_a.token("alice", &["runs:forward", "runs:read", "events:read"]).await;
    let known = [("x-api-key", token.as_str())];
    let mut body = forward_body("stk_b");
    body["forward"]["run_request"]["input"]["text"] = json!("canary-of-the-input-7002");
    let made = pair.a.post_with(FORWARD, &body, &known).await.expect(200);
    let run = made.json["forwarded"]["run_id"].as_str().expect("a run").to_owned();
    pair.home_b.emit(&run, "agentos.run.step.completed", json!({ "text": "canary-of-an-event-7003" }));
    let ticket = pair
        .a
        .post_with("/v1/federation/stream-tickets", &json!({ "run_id": run }), &known)
        .await
        .expect(201);
    let ticket = ticket.json["stream_ticket"]["ticket"].as_str().expect("a ticket").to_owned();
    let path = format!("{}?ticket={ticket}&follow=false", events_path(&run));
    pair.a.get(&path).await.expect(200);
    seen.push_str(&pair.a.get(&path).await.expect(401).text);
    // Each refused for another reason.
    let jwt = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJjYW5hcnktNzAwNCJ9.Y2FuYXJ5LTcwMDUtY2FuYXJ5";
    let wrong = format!("{token}x");
    for (name, value) in [
        ("x-api-key", wrong.as_str()),
        ("authorization", &format!("Bearer {jwt}")),
        ("authorization", "Basic Y2FuYXJ5LTcwMDY="),
    ] {
        seen.push_str(&pair.a.get_with("/v1/federation/runs", &[(name, value)]).await.expect(401).text);
    }
    seen.push_str(&pair.a.get(&format!("/v1/federation/runs?access_token={token}")).await.expect(401).text);
    seen.push_str(&pair.a.get(&format!("/v1/nothing/{token}?token={token}")).await.expect(404).text);
    // What an orchestrator says is data: no terminal obeys it.
    let said = json!({ "error": { "code": "bad\u{1b}[2J", "message": "no\u{1b}[2J\r\nx-evil: 1\u{7}" } });
    pair.home_b.next_creates([CreateFault::Status { code: 400, retry_after: None, body: Some(said) }]);
    let refused = pair.a.post_with(FORWARD, &body, &known).await;
    assert!(refused.status >= 400 && refused.headers.get("x-evil").is_none());
    let message = refused.json["error"]["message"].as_str().expect("a message");
    assert!(!message.chars().any(char::is_control), "{message:?}");
    seen.push_str(&refused.text);
    at_a.post("/v1/federation/keys:rotate", &json!({ "overlap": "1h" })).await.expect(200);
    at_a.delete(&format!("/v1/federation/tokens/{id}")).await.expect(200);
    pair.home_b.finish(&run, RunStatus::Completed);
    let (_, late) = at_a.token("late", &["events:read"]).await;
    Follower::new(pair.a.address(), &events_path(&run)).with_header("x-api-key", &late).follow_to_end().await;
    for operator in [&at_a, &at_b] {
        for path in [
            "/metrics",
            "/v1/federation/audit?limit=500",
            "/v1/federation/tokens",
            "/v1/federation/keys",
            "/v1/federation/peers",
            "/v1/federation/policy",
            "/v1/federation/topology",
            "/v1/federation/links",
            "/v1/federation/deliveries",
            "/v1/federation/alerts",
        ] {
            seen.push_str(&operator.get(path).await.expect(200).text);
        }
    }
    // With what the write-ahead logs still hold; and again without, when the gateways go.
    for watch in [pair.a.watch(), pair.b.watch(), &sunk] {
        assert_eq!(watch.findings(), Vec::<String>::new());
    }
    let audit = format!("{}{}", audit_table(&pair.a), audit_table(&pair.b));
    let files = pair.a.watch().files();
    pair.a.stop().await;
    pair.b.stop().await;
    let logged = pair.a.watch().written();
    let sunk = std::fs::read_to_string(sink).expect("the sink");
    for action in ["runs.forward", "key.rotate", "authenticate"] {
        assert!(audit.contains(action), "{action} is in no record: {audit}");
    }
    assert!(sunk.lines().count() > 1, "{sunk}");
    // What is searched for is known: made, sent or configured.
    for secret in [&token, &wrong, &late, &ticket, jwt, "canary-of-the-orchestrator-7001"] {
        assert!(secrets::is_known(secret), "{secret}");
    }
    // Content is content: it is in the log of events and nowhere that operators look.
    for (name, text) in
        [("the log", &logged), ("an answer", &seen), ("the audit", &audit), ("the sink", &sunk)]
    {
        for content in ["canary-of-an-event-7003", "canary-of-the-input-7002"] {
            assert!(!text.contains(content), "{content} is in {name}");
        }
        assert!(!text.contains('\u{1b}'), "an escape sequence reached {name}");
    }
    let stored = |(name, bytes): &(String, Vec<u8>)| {
        (name.ends_with(".db") || name.ends_with("-wal")) && holds(bytes, "canary-of-an-event-7003")
    };
    assert!(files.iter().any(stored), "the search does not find what is there");
}
