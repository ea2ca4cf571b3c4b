//! Row 4: floods of HTTP/2 frames against the gateway's own TLS door.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::client_tls::{TLS13, connect, get_h2, tls_config, write_certificate};
use crate::support::gateway::TestGateway;
use crate::support::h2_frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    frame, request, send,
};

/// The code with which a connection is given up because of what it costs.
const ENHANCE_YOUR_CALM: u32 = 11;
const CREATE: &str = "/v1/agents/agt_x/runs";

/// Frames of so many streams, one piece for each.
fn streams(count: u32, piece: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..count).flat_map(|number| piece(2 * number + 1)).collect()
}

/// A create that goes on after its head.
fn open(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request("POST", CREATE))
}

/// Each ends its connection, and nothing else.
fn floods() -> Vec<(&'static str, Vec<u8>)> {
    let reset = |stream| {
        let asked = frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", "/livez"));
        [asked, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    };
    // A window that overflows makes the server reset the stream.
    let overflow = 0x7fff_ffff_u32.to_be_bytes();
    let made_you_reset = |stream| [open(stream), frame(WINDOW_UPDATE, 0, stream, &overflow)].concat();
    let continued = [
        frame(HEADERS, END_STREAM, 1, &request("GET", "/livez")),
        frame(CONTINUATION, 0, 1, &[b"\0\x01a\x7f\xfe\x01".as_slice(), &[b'a'; 381]].concat()).repeat(400),
    ];
    vec![
        ("rapid reset", streams(400, reset)),
        ("streams made to be reset", streams(400, made_you_reset)),
        ("more streams than are taken", streams(400, open)),
        ("a head that never ends", continued.concat()),
        (
            "a head in pieces of nothing",
            [continued[0].clone(), frame(CONTINUATION, 0, 1, &[]).repeat(400)].concat(),
        ),
        ("data of nothing", [open(1), frame(DATA, 0, 1, &[]).repeat(100_000)].concat()),
    ]
}

#[tokio::test]
pub(crate) async fn a_flood_of_frames_costs_its_own_connection_and_no_other() {
    let files = tempfile::tempdir().expect("a directory");
    let root = write_certificate(files.path());
    let gateway = TestGateway::start_with(tls_config(files.path()), Vec::new()).await;
    for (what, bytes) in floods() {
        let stream = connect(&gateway, &root, TLS13, &[b"h2"]).await.expect("a handshake");
        let heard = send(stream, &[PREFACE, &bytes].concat()).await;
        assert_eq!(heard.goaway, Some(ENHANCE_YOUR_CALM), "{what}: {heard:?}");
        let other = connect(&gateway, &root, TLS13, &[b"h2"]).await.expect("a handshake");
        assert_eq!(get_h2(other, "/livez").await.0, 200, "{what}");
    }
    assert_eq!(gateway.count_rows("runs") + gateway.count_rows("forwards"), 0);
}

#[tokio::test]
pub(crate) async fn whoever_asks_for_answers_and_takes_none_is_not_listened_to() {
    let files = tempfile::tempdir().expect("a directory");
    let root = write_certificate(files.path());
    let mut config = tls_config(files.path());
    config.server.write_stall = Duration::from_millis(500);
    let gateway = TestGateway::start_with(config, Vec::new()).await;
    for (what, frame) in [("settings", frame(SETTINGS, 0, 0, &[])), ("pings", frame(PING, 0, 0, b"howdeepq"))]
    {
        let mut stream = connect(&gateway, &root, TLS13, &[b"h2"]).await.expect("a handshake");
        stream.write_all(PREFACE).await.expect("sent");
        let piece = frame.repeat(4096);
        let flood = async {
            // More than any socket buffers on the way: whoever kept answers in memory would take it all.
            for _ in 0..1024 {
                if stream.write_all(&piece).await.is_err() {
                    return true;
                }
            }
            false
        };
        let cut_off = tokio::time::timeout(Duration::from_secs(60), flood).await.expect("it ends");
        assert!(cut_off, "{what} were taken without end");
        let other = connect(&gateway, &root, TLS13, &[b"h2"]).await.expect("a handshake");
        assert_eq!(get_h2(other, "/livez").await.0, 200, "{what}");
    }
}
