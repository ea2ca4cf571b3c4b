//! Row 39: what a peer may say of itself that is absurd, too large, slow, or not true.

use std::net::SocketAddr;
use std::time::Duration;

use causeway::domain::peer::PeerKind;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::forwards::FORWARD;
use crate::support::gateway::{TestGateway, forward_body, peer, test_config};
use crate::support::orchestrator::ScriptedOrchestrator;
use crate::support::pair::Operator;

/// A gateway that answers whatever it is asked with the same bytes, and then with more of them if there are.
struct Liar {
    address: SocketAddr,
    _connections: JoinSet<()>,
}

/// What a liar says.
#[derive(Clone)]
struct Said {
    bytes: Vec<u8>,
    /// Said again and again, at this pace.
    drip: Option<(Vec<u8>, Duration)>,
}

impl Liar {
    async fn start(said: Said) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.spawn(answer(stream, said.clone()));
            }
        });
        Liar { address, _connections: connections }
    }
}

async fn answer(mut stream: TcpStream, said: Said) {
    let mut asked = [0_u8; 4096];
    let _ = stream.read(&mut asked).await;
    let mut heard = stream.write_all(&said.bytes).await;
    while let (Some((more, pace)), Ok(())) = (&said.drip, &heard) {
        tokio::time::sleep(*pace).await; // why: the pace is the attack
        heard = stream.write_all(more).await;
    }
}

fn document(body: &Value) -> Said {
    whole(body.to_string().into_bytes())
}

fn whole(body: Vec<u8>) -> Said {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    Said { bytes: [head.into_bytes(), body].concat(), drip: None }
}

fn endless(piece: &[u8], pace: Duration) -> Said {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"capabilities\":[".to_vec();
    Said { bytes: head, drip: Some((piece.to_vec(), pace)) }
}

/// What is said, how the peer stands then, and a part of the reason.
fn hellos() -> Vec<(&'static str, Said, &'static str, &'static str)> {
    let names = |count: usize| (0..count).map(|n| format!("capability.{n}")).collect::<Vec<_>>();
    let good = json!(["runs.forward"]);
    let never = Duration::from_secs(3600);
    let deep = |levels: usize| format!("{{\"capabilities\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    vec![
        (
            "a million capabilities",
            document(&json!({ "capabilities": names(1_000_000) })),
            "degraded",
            "cannot be read",
        ),
        ("many of them", document(&json!({ "capabilities": names(20_000) })), "healthy", ""),
        ("no document", whole(b"<html>".to_vec()), "degraded", "cannot be read"),
        ("another kind of document", document(&json!([1, 2])), "degraded", "cannot be read"),
        ("nothing of itself", document(&json!({ "version": 0 })), "degraded", "cannot be read"),
        ("too deep", whole(deep(100_000).into_bytes()), "degraded", "cannot be read"),
        ("half of it", whole(b"{\"capabilities\":[\"runs.for".to_vec()), "degraded", "cannot be read"),
        (
            "numbers nobody can mean",
            document(&json!({
                "capabilities": good, "version": 0, "idempotency_retention_ms": -1, "time": "2999-01-01T00:00:00Z",
                "policy_digest": 7, "key_succession": "soon", "instance_id": { "a": 1 },
            })),
            "healthy",
            "",
        ),
        (
            "another's name",
            document(&json!({ "capabilities": good, "peer_id": "stk_other\u{1b}[2J\r\n" })),
            "degraded",
            "calls itself `stk_other",
        ),
        (
            "another domain",
            document(&json!({ "capabilities": good, "domain": "x".repeat(100_000) })),
            "degraded",
            "it is enrolled in",
        ),
        ("without end", endless(&[b'['; 65_536], Duration::ZERO), "degraded", "cannot be read"),
        ("one byte and then none", endless(b"\"", never), "degraded", "cannot be read"),
        ("a byte at a time", endless(b"\"", Duration::from_millis(20)), "degraded", "cannot be read"),
    ]
}

#[tokio::test]
pub(crate) async fn what_a_peer_says_of_itself_is_bounded_and_not_believed_blindly() {
    let home = ScriptedOrchestrator::start().await;
    let table = hellos();
    let mut liars = Vec::new();
    let mut peers = vec![peer("stk_good", &home.base_url(), PeerKind::Orchestrator)];
    for (number, (_, said, ..)) in table.iter().enumerate() {
        let liar = Liar::start(said.clone()).await;
        let base = format!("http://{}", liar.address);
        peers.push(peer(&format!("stk_{number}"), &base, PeerKind::Gateway));
        liars.push(liar);
    }
    let mut config = test_config();
    config.outbound.body_timeout = Duration::from_millis(500);
    let gateway = TestGateway::start_with(config, peers).await;
    let operator = Operator::of(&gateway);
    for (number, (what, _, state, reason)) in table.iter().enumerate() {
        let peer = operator.until_health(&format!("stk_{number}"), state).await;
        let said = peer["health"]["reason"].as_str().unwrap_or("");
        assert!(said.contains(reason), "{what}: {said}");
        assert!(said.len() < 1024 && !said.chars().any(char::is_control), "{what}: {said}");
        let known = peer["capabilities"].as_array().expect("capabilities").len();
        assert!(known <= 256, "{what}: {known} capabilities");
    }
    // Whatever they said, the others are served.
    operator.until_health("stk_good", "healthy").await;
    gateway.post(FORWARD, &forward_body("stk_good")).await.expect(200);
    gateway.get("/readyz").await.expect(200);
}

// A promise shorter than ours is the one that counts; a bound of nothing is a bound.
#[tokio::test]
pub(crate) async fn a_peer_that_takes_nothing_is_sent_nothing() {
    let limits = json!({ "supports": { "runs_forward": true }, "limits": { "max_body_bytes": 0 } });
    let liar =
        Liar::start(document(&json!({ "capabilities": limits, "idempotency_retention_ms": 1000 }))).await;
    let entry = peer("stk_liar", &format!("http://{}", liar.address), PeerKind::Gateway);
    let gateway = TestGateway::start(vec![entry]).await;
    Operator::of(&gateway).until_health("stk_liar", "healthy").await;
    let refused = gateway.post(FORWARD, &forward_body("stk_liar")).await.expect(413);
    assert_eq!(refused.code(), "payload_too_large", "{}", refused.text);
    assert_eq!(refused.json["error"]["details"]["outcome"], "not_started", "{}", refused.text);
}
