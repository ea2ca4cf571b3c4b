//! Who is revoked is gone within a second: open streams, idle connections, new requests, readers; and whoever
//! is let in again has lost nothing.

use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncRead;
use tokio::time::Instant;

use crate::support::ears::{Opened, connect_tls, plain_client};
use crate::support::forwards::FORWARD;
use crate::support::gateway::{TestGateway, events_path, forward_body, test_config};
use crate::support::orchestrator::{RunStatus, ScriptedOrchestrator};
use crate::support::pair::{Operator, Pair, orchestrator_entry};
use crate::support::sse_client::{Follower, Response, SseClient};

/// What a revocation may take, on any machine.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The code of the last frame of a stream.
#[track_caller]
fn last_code(text: &str) -> String {
    let last = text.trim_end().rsplit("\n\n").next().unwrap_or("");
    let data =
        last.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or_else(|| panic!("{text:?}"));
    assert!(last.contains("event: stream_error"), "the last frame is {last:?}");
    let data: Value = serde_json::from_str(data).expect("JSON");
    data["error"]["code"].as_str().expect("a code").to_owned()
}

// R-11, reliability 4d.29, 4d.61
#[tokio::test]
pub(crate) async fn a_revoked_peer_is_cut_off_within_a_second_and_loses_nothing_by_it() {
    let pair = Pair::start().await;
    let out = pair.a.forward_run("stk_b").await; // `stk_a` reads from `stk_b`
    let back = pair.b.forward_run("stk_a").await; // `stk_b` reads from `stk_a`
    pair.home_b.emit_steps(&out, 2);
    pair.home_a.emit_steps(&back, 2);
    pair.a.until_run(&out, |run| run["high_water"] == 2).await;
    pair.b.until_run(&back, |run| run["high_water"] == 2).await;
    pair.b.until_metric("sse_streams_open ", |count| count == 1.0).await;
    pair.a.until_metric("sse_streams_open ", |count| count == 1.0).await;
    // A stream and an idle connection of our own, as `stk_a`.
    let (http, known) = (pair.tls_as_a(), pair.as_a());
    let stream = known.get(&format!("/v1/runs/{out}/events")).open(&http, &pair.door_b()).await;
    let mut stream = stream.expect("a stream");
    assert_eq!(stream.status(), 200);
    stream.next().await.expect("bytes").expect("the first events");
    let mut idle = idle_connection(&pair).await;

    let begun = Instant::now();
    let why = serde_json::json!({ "reason": "drill" });
    let revoked = pair.b.post("/v1/federation/peers/stk_a:revoke", &why).await;
    assert_eq!(revoked.expect(200).json["peer"]["standing"], "revoked");
    let text = stream.rest().await;
    let ended = begun.elapsed();
    let silent = tokio::io::AsyncReadExt::read(&mut idle, &mut [0_u8; 64]).await;
    let closed = begun.elapsed();
    assert_eq!(last_code(&text), "forbidden");
    assert!(matches!(silent, Ok(0) | Err(_)), "{silent:?}");
    assert!(ended < AT_ONCE && closed < AT_ONCE, "{ended:?} {closed:?}");
    pair.b.until_metric("sse_streams_open ", |count| count == 0.0).await;
    pair.a.until_metric("sse_streams_open ", |count| count == 0.0).await;
    pair.b.until_metric("upstream_readers ", |count| count == 1.0).await; // the one of its own orchestrator
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());

    // Nothing new comes in, by either door, nor goes out.
    let refused = known.get("/v1/federation/peer").try_send(&http, &pair.door_b()).await;
    assert!(refused.is_err(), "the handshake is refused: {refused:?}");
    let refused = known.get("/v1/federation/peer").send_to(&pair.b).await.expect(403);
    assert_eq!(refused.code(), "peer_not_allowed");
    let refused = known.create("k1").send_to(&pair.b).await.expect(403);
    assert_eq!(refused.code(), "peer_not_allowed");
    let refused = pair.b.post(FORWARD, &forward_body("stk_a")).await.expect(403);
    assert_eq!(refused.code(), "peer_not_allowed", "{}", refused.text);
    Operator::of(&pair.a).until_health("stk_b", "failing").await;

    pair.home_b.emit_steps(&out, 2);
    pair.home_a.emit_steps(&back, 2);
    pair.b.until_run(&out, |run| run["high_water"] == 4).await;
    pair.a.until_run(&back, |run| run["high_water"] == 4).await;
    assert_eq!(pair.a.until_run(&out, |_| true).await["high_water"], 2);
    let waiting = pair.b.until_run(&back, |run| run["follow"]["state"] == "waiting").await;
    assert_eq!(waiting["high_water"], 2);

    let restored = pair.b.post("/v1/federation/peers/stk_a:reinstate", &serde_json::json!({})).await;
    assert_eq!(restored.expect(200).json["peer"]["standing"], "active");
    pair.home_b.finish(&out, RunStatus::Completed);
    pair.home_a.finish(&back, RunStatus::Completed);
    for (gateway, run) in [(&pair.a, &out), (&pair.b, &back)] {
        let mut follower = Follower::new(gateway.address(), &events_path(run));
        follower.follow_to_end().await;
        assert_eq!(follower.sequences(), [1, 2, 3, 4, 5]);
        assert_eq!(follower.gaps(), []);
    }
    pair.until_healthy().await;
    pair.a.forward_run("stk_b").await;
}

/// A TLS connection of `stk_a` that has answered one request and waits for the next.
async fn idle_connection(pair: &Pair) -> impl AsyncRead + Unpin {
    use causeway::tls::{Expectation, SpkiPin, toward_peer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let shown = crate::support::pair::self_issued(&pair.key_a, "stk_a", &pair.clock);
    let pins = Expectation::pins(vec![SpkiPin::of_ed25519(pair.key_b.public().as_bytes())]);
    let config = toward_peer(Some(shown), pins, &pair.clock).expect("a configuration");
    let mut stream = connect_tls(pair.b.peer_address(), config, "stk-b").await.expect("a handshake");
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: b\r\n\r\n").await.expect("it is sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        answer.push(stream.read_u8().await.expect("an answer"));
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    stream
}

// R-11, reliability 4d.61
#[tokio::test]
async fn the_revoker_stops_reading_the_revoked_and_goes_on_later() {
    let pair = Pair::start().await;
    let run = pair.a.forward_run("stk_b").await;
    pair.home_b.emit_steps(&run, 2);
    let mut follower = Follower::new(pair.a.address(), &events_path(&run));
    follower.follow_events(2).await;
    let begun = Instant::now();
    pair.a.post("/v1/federation/peers/stk_b:revoke", &serde_json::json!({})).await.expect(200);
    pair.b.until_metric("sse_streams_open ", |count| count == 0.0).await;
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    let shown = pair.a.get("/v1/federation/peers/stk_b").await.expect(200);
    assert_eq!(shown.json["peer"]["standing"], "revoked");
    pair.home_b.emit_steps(&run, 2);
    pair.b.until_run(&run, |run| run["high_water"] == 4).await;
    assert_eq!(pair.a.until_run(&run, |_| true).await["high_water"], 2);
    // Neither does a restart bring it back.
    let mut pair = pair;
    pair.a.restart().await;
    let shown = pair.a.get("/v1/federation/peers/stk_b").await.expect(200);
    assert_eq!(shown.json["peer"]["standing"], "revoked");
    assert_eq!(pair.a.post(FORWARD, &forward_body("stk_b")).await.expect(403).code(), "peer_not_allowed");
    pair.a.post("/v1/federation/peers/stk_b:reinstate", &serde_json::json!({})).await.expect(200);
    pair.home_b.finish(&run, RunStatus::Completed);
    follower.follow_to_end().await;
    assert_eq!(follower.sequences(), [1, 2, 3, 4, 5]);
}

/// A gateway in profile prod with one orchestrator, `orc`.
async fn guarded() -> (TestGateway, ScriptedOrchestrator) {
    let home = ScriptedOrchestrator::start().await;
    let mut config = test_config();
    config.gateway.profile = causeway::services::options::Profile::Prod;
    config.gateway.default_tenant = None;
    let mut local = orchestrator_entry("orc", &home.base_url());
    local.local = true;
    (TestGateway::start_with(config, vec![local]).await, home)
}

// R-11, reliability 4d.61
#[tokio::test]
pub(crate) async fn fifty_streams_of_a_revoked_token_end_within_a_second_and_say_why() {
    let (gateway, home) = guarded().await;
    let operator = Operator::of(&gateway);
    let scopes = ["runs:forward", "runs:read", "events:read"];
    let (id, token) = operator.token("alice", &scopes).await;
    let (_, other) = operator.token("bob", &scopes).await;
    let bearer = format!("Bearer {token}");
    let made =
        gateway.post_with(FORWARD, &forward_body("orc"), &[("authorization", &bearer)]).await.expect(200);
    let run = made.json["forwarded"]["run_id"].as_str().expect("a run").to_owned();
    home.emit_steps(&run, 1);
    let mut streams: Vec<Response> = Vec::new();
    for _ in 0..50 {
        let mut stream =
            SseClient::connect(gateway.address(), &events_path(&run), &[("authorization", &bearer)]).await;
        stream.next_event().await;
        streams.push(stream);
    }
    let theirs = format!("Bearer {other}");
    let mut kept = Follower::new(gateway.address(), &events_path(&run)).with_header("authorization", &theirs);
    kept.follow_events(1).await;

    let begun = Instant::now();
    operator.delete(&format!("/v1/federation/tokens/{id}")).await.expect(200);
    let ends = futures_util::future::join_all(streams.iter_mut().map(Response::collect_until_end)).await;
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    for frames in ends {
        let last = frames.last().expect("a last frame");
        assert!(last.is("stream_error"), "{last:?}");
        assert_eq!(last.data["error"]["code"], "forbidden");
    }
    let refused = gateway.get_with("/v1/federation/runs", &[("authorization", &bearer)]).await.expect(401);
    assert_eq!(refused.code(), "unauthorized");
    // Another's stream goes on.
    home.finish(&run, RunStatus::Completed);
    kept.follow_to_end().await;
    assert_eq!((kept.sequences(), kept.connects()), (vec![1, 2], 1));
    assert_eq!(
        operator.delete(&format!("/v1/federation/tokens/{id}")).await.expect(200).json["token"]["token_id"],
        id
    );
}

// the ticket of a revoked token is none, used or not.
#[tokio::test]
async fn a_revoked_token_takes_its_tickets_with_it() {
    let (gateway, home) = guarded().await;
    let operator = Operator::of(&gateway);
    let (id, token) = operator.token("alice", &["runs:forward", "events:read"]).await;
    let bearer = format!("Bearer {token}");
    let known = [("authorization", bearer.as_str())];
    let made = gateway.post_with(FORWARD, &forward_body("orc"), &known).await.expect(200);
    let run = made.json["forwarded"]["run_id"].as_str().expect("a run").to_owned();
    home.emit_steps(&run, 1);
    let mut urls = Vec::new();
    for _ in 0..2 {
        let body = serde_json::json!({ "run_id": run });
        let ticket = gateway.post_with("/v1/federation/stream-tickets", &body, &known).await.expect(201);
        urls.push(ticket.json["stream_ticket"]["events_url"].as_str().expect("a URL").to_owned());
    }
    let mut stream = SseClient::connect(gateway.address(), &urls[0], &[]).await;
    stream.next_event().await;
    let begun = Instant::now();
    operator.delete(&format!("/v1/federation/tokens/{id}")).await.expect(200);
    let frames = stream.collect_until_end().await;
    assert!(begun.elapsed() < AT_ONCE);
    assert!(frames.last().is_some_and(|frame| frame.is("stream_error")), "{frames:?}");
    // The one that was not used yet shows nothing either.
    let late =
        plain_client().get(format!("{}{}", gateway.base_url(), urls[1])).send().await.expect("an answer");
    let late = Opened::new(late);
    let (status, text) = (late.status(), late.rest().await);
    assert!(status == 401 || !text.contains("agentos.event"), "{status}: {text}");
    assert!(status == 401 || last_code(&text) == "forbidden", "{status}: {text}");
}
