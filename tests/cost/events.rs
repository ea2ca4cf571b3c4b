//! What one more event costs: taken, delivered, replayed, read at a peer; and one more request that brings one.
//!
//! The bounds lie just above what was measured when they were set: two more allocations for each event that
//! comes in, or one for each event that goes out, show. A change that raises one for a good reason says so.

use std::net::SocketAddr;

use causeway::domain::id::PeerId;
use causeway::domain::peer::PeerKind;
use causeway::services::peer_options::PeerOptions;
use causeway::tasks::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{Counter, Pusher, TENANT, allocations, alone, body, event, post, push, start};

/// Panics unless `more` units cost at most `bound` allocations each above what fewer of them cost.
#[track_caller]
fn assert_each(what: &str, (fewer, more): (u64, u64), units: usize, bound: f64) {
    let each = (more as f64 - fewer as f64) / units as f64;
    eprintln!("{what}: {each:.3} allocations each, of at most {bound}");
    assert!(each <= bound, "{what} costs {each:.3} allocations, of at most {bound}");
}

#[tokio::test]
async fn an_event_that_is_pushed_costs_a_few_allocations() {
    let (_alone, data) = (alone().await, tempfile::tempdir().expect("a directory"));
    let gateway = start(data.path(), Vec::new()).await;
    let address = gateway.address();
    push(address, &body("run_push", 1, 10)).await; // caches are warm
    let (few, many) = (body("run_push", 11, 50), body("run_push", 61, 500));
    let fewer = allocations(push(address, &few)).await;
    let more = allocations(push(address, &many)).await;
    assert_each("a pushed event", (fewer, more), 450, 6.0);
    gateway.shutdown().await;
}

#[tokio::test]
async fn a_request_that_pushes_one_event_costs_some_dozens_of_allocations() {
    let (_alone, data) = (alone().await, tempfile::tempdir().expect("a directory"));
    let gateway = start(data.path(), Vec::new()).await;
    let mut pusher = Pusher::connect(gateway.address()).await;
    let bodies: Vec<String> = (1..=700).map(|number| body("run_single", number, 1)).collect();
    let mut counted = Vec::new();
    // The first are to warm caches.
    for bodies in [&bodies[..100], &bodies[100..200], &bodies[200..]] {
        let pushed = async {
            for body in bodies {
                pusher.push(body).await;
            }
        };
        counted.push(allocations(pushed).await);
    }
    assert_each("a request of one event", (counted[1], counted[2]), 400, 83.0);
    gateway.shutdown().await;
}

#[tokio::test]
async fn a_delivery_costs_less_than_an_allocation() {
    const BATCH: usize = 32;
    const PUSHES: usize = 10;
    let (_alone, data) = (alone().await, tempfile::tempdir().expect("a directory"));
    let gateway = start(data.path(), Vec::new()).await;
    let address = gateway.address();
    push(address, &body("run_out", 1, 1)).await;
    let bodies: Vec<String> = (0..2 * PUSHES).map(|at| body("run_out", 2 + at * BATCH, BATCH)).collect();
    let mut followers = Vec::new();
    let mut counted = Vec::new();
    for (size, bodies) in [5, 55].into_iter().zip(bodies.chunks(PUSHES)) {
        while followers.len() < size {
            followers.push(Counter::follow(address, "run_out").await);
        }
        // Frames so far: the events, and the one that says that history ends.
        let held = 1 + counted.len() * PUSHES * BATCH;
        for follower in &mut followers {
            follower.read_to(held + 1).await;
        }
        let work = async {
            for (at, body) in bodies.iter().enumerate() {
                push(address, body).await;
                for follower in &mut followers {
                    follower.read_to(held + 1 + (at + 1) * BATCH).await;
                }
            }
        };
        counted.push(allocations(work).await);
    }
    assert_each("a delivery", (counted[0], counted[1]), 50 * PUSHES * BATCH, 0.1);
    drop(followers);
    gateway.shutdown().await;
}

#[tokio::test]
async fn a_replayed_event_costs_less_than_an_allocation() {
    const EVENTS: usize = 10_000;
    let (_alone, data) = (alone().await, tempfile::tempdir().expect("a directory"));
    let gateway = start(data.path(), Vec::new()).await;
    let address = gateway.address();
    for at in 0..EVENTS / 500 {
        push(address, &body("run_long", 1 + at * 500, 500)).await;
    }
    push(address, &body("run_short", 1, 500)).await;
    let mut counted = Vec::new();
    for (run, frames) in [("run_short", 500), ("run_long", EVENTS)] {
        Counter::follow(address, run).await.read_to(frames).await; // caches are warm
        let replay = async { Counter::follow(address, run).await.read_to(frames).await };
        counted.push(allocations(replay).await);
    }
    assert_each("a replayed event", (counted[0], counted[1]), EVENTS - 500, 0.05);
    gateway.shutdown().await;
}

#[tokio::test]
async fn an_event_that_is_read_at_a_peer_costs_a_few_allocations() {
    let (_alone, data) = (alone().await, tempfile::tempdir().expect("a directory"));
    let base = format!("http://{}", origin().await);
    let mut peer = PeerOptions::new(PeerId::parse("stk_o").expect("an id"), base.parse().expect("a URL"));
    (peer.kind, peer.local) = (PeerKind::Orchestrator, true);
    let gateway = start(data.path(), vec![peer]).await;
    let address = gateway.address();
    let mut counted = Vec::new();
    for events in [10, 200, 2000] {
        let through = async {
            let answer = post(
                address,
                &format!("/v1/agents/agt_{events}/runs"),
                "{\"input\":{\"type\":\"text\",\"text\":\"\"}}",
            )
            .await;
            assert!(answer.contains(" 201 "), "{answer}");
            Counter::follow(address, &format!("run_{events}")).await.read_to(events).await;
        };
        counted.push(allocations(through).await);
    }
    assert_each("an event read at a peer", (counted[1], counted[2]), 1800, 14.0);
    gateway.shutdown().await;
}

/// An orchestrator whose agent `agt_<N>` makes the run `run_<N>`, of N events, ten in a chunk.
async fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let tasks = Tasks::default();
    let each = tasks.clone();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            each.spawn(async move {
                let mut piece = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = stream.read(&mut piece).await {
                    let asked = String::from_utf8_lossy(&piece[..count]).into_owned();
                    if stream.write_all(&answer(&asked)).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn answer(asked: &str) -> Vec<u8> {
    let number = |after: &str| {
        let rest = asked.split_once(after).map_or("", |(_, rest)| rest);
        rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or("").to_owned()
    };
    if asked.starts_with("GET") && asked.contains("/events") {
        let run = format!("run_{}", number("/v1/runs/run_"));
        let events: usize = number("/v1/runs/run_").parse().expect("a number of events");
        let frames: Vec<String> = (1..=events)
            .map(|at| {
                let kind = if at == events { "completed" } else { "step.completed" };
                format!("id: {at}\ndata: {}\n\n", event(&run, at, kind))
            })
            .collect();
        let chunks = frames.chunks(10).map(<[String]>::concat);
        let chunked: String = chunks.map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
        return format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{chunked}0\r\n\r\n"
        )
        .into_bytes();
    }
    let run = format!(
        "run_{}",
        if asked.starts_with("POST") { number("/v1/agents/agt_") } else { number("/v1/runs/run_") }
    );
    let body = format!(
        "{{\"run\":{{\"run_id\":\"{run}\",\"tenant_id\":\"{TENANT}\",\"status\":\"running\",\
         \"events_url\":\"/v1/runs/{run}/events\"}}}}"
    );
    let status = if asked.starts_with("POST") { "201 Created" } else { "200 OK" };
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
