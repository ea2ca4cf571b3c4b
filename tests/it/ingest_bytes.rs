//! The bytes of a push: what is too much, what is no JSON, and what comes out exactly as it went in.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::ears::connect;
use crate::support::gateway::{TestGateway, test_config};
use crate::support::log::{INGEST, counts, event_text, outcomes, page, push, sequences, step};

async fn gateway() -> TestGateway {
    TestGateway::start(Vec::new()).await
}

/// Sends a head and then chunks without end; answers what came back.
async fn send_for_ever(address: SocketAddr, head: &str, chunk: &[u8]) -> String {
    let stream = connect(address).await.expect("the gateway listens");
    let (mut read, mut write) = tokio::io::split(stream);
    let sending = async {
        let mut sent = write.write_all(head.as_bytes()).await;
        while sent.is_ok() && !chunk.is_empty() {
            sent = write.write_all(chunk).await;
        }
        std::future::pending::<()>().await;
    };
    let reading = async {
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = read.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..count]);
            if answer.ends_with(b"}") {
                break;
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    };
    tokio::select! {
        () = sending => unreachable!("sending never ends"),
        answer = reading => answer,
    }
}

// L12
#[tokio::test]
async fn a_body_is_bounded_in_events_and_in_bytes() {
    let mut config = test_config();
    config.server.max_ingest_body = 256 * 1024;
    let gateway = TestGateway::start_with(config, Vec::new()).await;
    let many: Vec<String> = (1..=501).map(|sequence| step("r", sequence)).collect();
    for refused in [&many[..0], &many[..]] {
        let answer = push(&gateway, refused).await.expect(400);
        assert_eq!(answer.code(), "invalid_request");
        assert!(answer.text.contains("1 to 500"), "{}", answer.text);
    }
    gateway.post_raw(INGEST, "application/x-ndjson", many.join("\n").into_bytes()).await.expect(400);
    gateway.post_raw(INGEST, "application/x-ndjson", b"\n\n".to_vec()).await.expect(400);
    page(&gateway, "r", 0).await.expect(404);
    assert_eq!(counts(&push(&gateway, &many[..500]).await), (500, 0, 0, 0));

    let large = event_text("r", "evt_large", "", &format!("\"{}\"", "x".repeat(256 * 1024)));
    let answer = push(&gateway, &[large]).await.expect(413);
    assert_eq!(answer.code(), "payload_too_large");
    let head = format!(
        "POST {INGEST} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let chunk = format!("1000\r\n{}\r\n", "[".repeat(0x1000));
    let answer = send_for_ever(gateway.address(), &head, chunk.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("payload_too_large"), "{answer}");
    assert_eq!(outcomes(&push(&gateway, &[step("r", 501)]).await), ["stored"], "others are served on");
}

#[tokio::test]
async fn a_body_says_that_it_is_json_and_is_not_packed() {
    let gateway = gateway().await;
    let body = format!("{{\"events\":[{}]}}", step("r", 1));
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
        let answer = gateway.post_raw(INGEST, kind, body.clone().into_bytes()).await.expect(415);
        assert_eq!(answer.code(), "unsupported_media_type", "{kind}");
        assert!(answer.text.contains("application/x-ndjson"), "says what is allowed: {}", answer.text);
    }
    let head = format!("POST {INGEST} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let answer = send_for_ever(gateway.address(), &head, b"").await;
    assert!(answer.starts_with("HTTP/1.1 415 "), "{answer}");
    let packed = serde_json::from_str(&body).expect("JSON");
    let answer = gateway.post_with(INGEST, &packed, &[("content-encoding", "gzip")]).await.expect(415);
    assert!(answer.text.contains("content-encoding"), "{}", answer.text);
    page(&gateway, "r", 0).await.expect(404);
    for kind in ["application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"] {
        gateway.post_raw(INGEST, kind, body.clone().into_bytes()).await.expect(200);
    }
}

// L12
#[tokio::test]
async fn a_body_that_is_no_json_is_refused_whole() {
    let gateway = gateway().await;
    let good = step("r", 1);
    let bodies = [
        format!("{{\"events\":[{good}]"),
        format!("{{\"events\":[{good},{}]}}", event_text("r", "evt_nan", "2", "{\"x\":NaN}")),
        format!("\u{feff}{{\"events\":[{good}]}}"),
        format!("{{\"events\":[{good}]}} trailing"),
        String::new(),
    ];
    for body in bodies {
        let answer =
            gateway.post_raw(INGEST, "application/json", body.clone().into_bytes()).await.expect(400);
        assert_eq!(answer.code(), "invalid_json", "{body}");
    }
    let list = format!("[null,[{good}]]");
    let twice = format!("{{\"events\":[{good}],\"events\":7}}");
    for body in [
        "[]",
        &list,
        "7",
        "{}",
        "{\"events\":{}}",
        "{\"events\":null}",
        &twice,
        "{\"auth\":7,\"events\":[{}]}",
    ] {
        let answer = gateway.post_raw(INGEST, "application/json", body.as_bytes().to_vec()).await.expect(400);
        assert_eq!(answer.code(), "invalid_request", "{body}");
    }
    page(&gateway, "r", 0).await.expect(404);
}

// A-15, defect 16
#[tokio::test]
async fn an_event_comes_out_byte_for_byte_as_it_went_in() {
    let gateway = gateway().await;
    let deep = "[".repeat(60) + &"]".repeat(60);
    let payload = format!(
        "{{\"big\":123456789012345678901234567890,\"number\":1.50,\"huge\":1e400,\"zero\":-0.0E+00,\
         \"z\":1,\"a\":2,\"escaped\":\"\\u0041\\/\\n\",\"plain\":\"é😀\",\"deep\":{deep},\"nan\":\"NaN\"}}"
    );
    let event = event_text("r", "evt_1", "1", &payload);
    assert_eq!(outcomes(&push(&gateway, std::slice::from_ref(&event)).await), ["stored"]);
    let as_page = page(&gateway, "r", 0).await;
    let path = "/v1/federation/runs/r/events?follow=false";
    let as_stream = gateway.get(path).await.expect(200);
    let as_lines = gateway.get_with(path, &[("accept", "application/x-ndjson")]).await.expect(200);
    for served in [as_page, as_stream, as_lines] {
        assert!(served.text.contains(&format!("{{\"event\":{event},\"federation\":")), "{}", served.text);
    }
}

// A-15
#[tokio::test]
async fn only_line_separators_and_white_space_change_and_only_once() {
    let gateway = gateway().await;
    let sent = event_text("r", "evt_1", "1", "{ \"s\" : \"a\u{2028}b\u{2029}c\u{85}d e\" }");
    let kept = event_text("r", "evt_1", "1", "{\"s\":\"a\\u2028b\\u2029c\\u0085d e\"}");
    assert_eq!(outcomes(&push(&gateway, std::slice::from_ref(&sent)).await), ["stored"]);
    let served = page(&gateway, "r", 0).await;
    assert!(served.text.contains(&kept), "{}", served.text);
    assert_eq!(counts(&push(&gateway, &[sent, kept]).await), (1, 1, 2, 0), "both are the event that is held");
}

// L12: what one gateway takes, the next one takes too, so the bound is on the form that travels.
#[tokio::test]
async fn an_event_is_bounded_as_it_is_stored() {
    const LIMIT: usize = 1024 * 1024;
    let gateway = gateway().await;
    let padded = |id: &str, sequence: &str, length: usize| {
        let bare = event_text("r", id, sequence, "\"\"").len();
        event_text("r", id, sequence, &format!("\"{}\"", "x".repeat(length - bare)))
    };
    let largest = format!(" {{ \"event\" : {} ,\n\"federation\":{{}} }}", padded("evt_1", "1", LIMIT));
    let one_more = padded("evt_2", "2", LIMIT + 1);
    let grows = event_text("r", "evt_3", "3", &format!("\"{}\"", "\u{2028}".repeat(LIMIT / 5)));
    assert!(grows.len() < LIMIT);
    let answer = push(&gateway, &[largest, one_more, grows, step("r", 2)]).await.expect(200);
    let too_large = "rejected payload_too_large";
    assert_eq!(outcomes(&answer), ["stored", too_large, too_large, "stored"]);
    assert_eq!(answer.json["results"][1]["event_id"], "evt_2");
    assert_eq!(sequences(&page(&gateway, "r", 1).await), [2]);
}
