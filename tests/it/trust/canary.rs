//! What is secret stays so: planted secrets are looked for wherever a gateway writes anything.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, span};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::support::forwards::FORWARD;
use crate::support::gateway::{events_path, forward_body};
use crate::support::orchestrator::{CreateFault, RunStatus};
use crate::support::pair::{Operator, Plan};
use crate::support::sse_client::Follower;

/// Everything that any gateway of this process logs, at every level, and what its libraries say from INFO on.
fn log() -> &'static Mutex<String> {
    static LOG: OnceLock<Arc<Mutex<String>>> = OnceLock::new();
    LOG.get_or_init(|| {
        let text = Arc::new(Mutex::new(String::new()));
        let heard = filter_fn(|of| of.target().starts_with("causeway") || *of.level() <= Level::INFO);
        let subscriber = tracing_subscriber::registry().with(Capture(Arc::clone(&text)).with_filter(heard));
        tracing::subscriber::set_global_default(subscriber).expect("the one subscriber of this process");
        text
    })
}

struct Capture(Arc<Mutex<String>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl<S: Subscriber> Layer<S> for Capture {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line(format!("{} {}", event.metadata().level(), event.metadata().target()));
        event.record(&mut line);
        line.0.push('\n');
        self.0.lock().expect("the log").push_str(&line.0);
    }

    fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        let mut line = Line("span".to_owned());
        attributes.record(&mut line);
        self.0.lock().expect("the log").push_str(&line.0);
    }
}

/// Every byte below a directory, but for the private keys' own files.
fn files(directory: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "keys") {
                files(&path, found);
            }
        } else if let Ok(bytes) = std::fs::read(&path) {
            found.push((path.display().to_string(), bytes));
        }
    }
}

fn holds(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}

// reliability 4d.62
#[tokio::test]
async fn no_secret_is_written_anywhere() {
    let log = log();
    let mut plan = Plan::prod().await;
    let secrets_dir = tempfile::tempdir().expect("a directory");
    let token_file = secrets_dir.path().join("token");
    std::fs::write(&token_file, "canary-of-the-orchestrator-7001").expect("written");
    plan.b.local.token_file = Some(token_file);
    plan.b.local.read_token().expect("a token");
    let sink = secrets_dir.path().join("audit.jsonl");
    plan.b.config.audit.sink = format!("file:{}", sink.display());
    let seeds: Vec<String> = [&plan.a.key, &plan.b.key]
        .into_iter()
        .flat_map(|key| {
            key.to_pkcs8_pem()
                .lines()
                .filter(|line| !line.starts_with('-'))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
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
        ] {
            seen.push_str(&operator.get(path).await.expect(200).text);
        }
    }
    let (of_a, of_b) = (pair.a.data_dir(), pair.b.data_dir());
    let mut written = Vec::new();
    for directory in [&of_a, &of_b, &secrets_dir.path().to_owned()] {
        files(directory, &mut written); // with what the write-ahead log still holds
    }
    pair.a.stop().await;
    pair.b.stop().await;
    for directory in [&of_a, &of_b] {
        files(directory, &mut written);
    }
    written.retain(|(name, _)| !name.ends_with("/token"));
    let logged = log.lock().expect("the log").clone();
    written.push(("the log".to_owned(), logged.clone().into_bytes()));
    written.push(("an answer".to_owned(), seen.into_bytes()));

    let mut secrets = vec![
        token.clone(),
        wrong,
        late,
        ticket,
        jwt.to_owned(),
        "canary-of-the-orchestrator-7001".to_owned(),
        "Y2FuYXJ5LTcwMDY=".to_owned(),
        "PRIVATE KEY".to_owned(),
    ];
    secrets.push(token.split('_').nth(2).expect("a secret").to_owned());
    secrets.extend(seeds);
    for secret in &secrets {
        let line = logged.lines().find(|line| line.contains(secret.as_str()));
        assert_eq!(line, None, "{secret} was logged");
        for (name, bytes) in &written {
            assert!(!holds(bytes, secret), "{secret} is in {name}");
        }
    }
    // Content is content: it is in the log of events and nowhere that operators look.
    for (name, bytes) in written.iter().filter(|(name, _)| ["the log", "an answer"].contains(&name.as_str()))
    {
        assert!(!holds(bytes, "canary-of-an-event-7003"), "a payload is in {name}");
        assert!(!holds(bytes, "canary-of-the-input-7002"), "an input is in {name}");
    }
    assert!(logged.contains("the gateway listens"), "the log was captured");
    assert!(!logged.contains('\u{1b}'), "an escape sequence reached the log");
    let of_database = |name: &str| name.ends_with(".db") || name.ends_with("-wal");
    let found =
        |(name, bytes): &(String, Vec<u8>)| of_database(name) && holds(bytes, "canary-of-an-event-7003");
    assert!(written.iter().any(found), "the search does not find what is there");
}
