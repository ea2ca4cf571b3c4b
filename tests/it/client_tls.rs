//! TLS for clients, ended by the gateway itself: HTTP/1.1 and HTTP/2, a renewed certificate, and what is refused.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use causeway::config::Config;
use causeway::domain::peer::PeerKind;
use causeway::http::options::TlsMode;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::ears::{Tapped, connect_tls, plain_client};
use crate::support::gateway::{TENANT, TestGateway, events_path, peer, test_config};
use crate::support::orchestrator::ScriptedOrchestrator;

/// Writes a certificate for `localhost` and its key; answers the certificate.
pub(crate) fn write_certificate(directory: &Path) -> CertificateDer<'static> {
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    fs::write(directory.join("tls.key"), issued.signing_key.serialize_pem()).expect("the key");
    fs::write(directory.join("tls.crt"), issued.cert.pem()).expect("the certificate");
    CertificateDer::from_pem_slice(issued.cert.pem().as_bytes()).expect("a certificate")
}

/// A configuration whose public door shows that certificate.
pub(crate) fn tls_config(directory: &Path) -> Config {
    let mut config = test_config();
    config.server.tls = TlsMode::Own;
    config.server.tls_cert_file = Some(directory.join("tls.crt"));
    config.server.tls_key_file = Some(directory.join("tls.key"));
    config
}

async fn gateway(directory: &Path, home: &ScriptedOrchestrator) -> TestGateway {
    TestGateway::start_with(
        tls_config(directory),
        vec![peer("stk_b", &home.base_url(), PeerKind::Orchestrator)],
    )
    .await
}

/// A handshake with the public door.
pub(crate) async fn connect(
    gateway: &TestGateway,
    root: &CertificateDer<'static>,
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> std::io::Result<Tapped<TlsStream<TcpStream>>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    connect_tls(gateway.address(), config, "localhost").await
}

fn request(path: &str) -> hyper::Request<Empty<bytes::Bytes>> {
    hyper::Request::get(format!("https://localhost{path}"))
        .header("host", "localhost")
        .header("x-tenant-id", TENANT)
        .body(Empty::new())
        .expect("a request")
}

/// A whole answer over one HTTP/2 connection.
pub(crate) async fn get_h2(stream: Tapped<TlsStream<TcpStream>>, path: &str) -> (u16, String) {
    assert_eq!(stream.get_ref().get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let io = TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    let response = sender.send_request(request(path)).await.expect("an answer");
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// A whole answer over one HTTP/1.1 connection.
async fn get_h1(stream: Tapped<TlsStream<TcpStream>>, path: &str) -> (u16, String) {
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP/1.1");
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    let response = sender.send_request(request(path)).await.expect("an answer");
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// What the gateway speaks.
pub(crate) const TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

// Z-41
#[tokio::test]
async fn clients_speak_http_1_and_2_over_tls_1_3() {
    let files = tempfile::tempdir().expect("a directory");
    let root = write_certificate(files.path());
    let home = ScriptedOrchestrator::start().await;
    let gateway = gateway(files.path(), &home).await;

    let h2 = connect(&gateway, &root, TLS13, &[b"h2", b"http/1.1"]).await.expect("a handshake");
    let (status, body) = get_h2(h2, "/v1/federation/peers/stk_b").await;
    assert_eq!(status, 200, "{body}");
    for alpn in [&[b"http/1.1".as_slice()][..], &[]] {
        let h1 = connect(&gateway, &root, TLS13, alpn).await.expect("a handshake");
        let (status, body) = get_h1(h1, "/v1/federation/peers/stk_b").await;
        assert_eq!(status, 200, "{body}");
    }
}

#[tokio::test]
async fn an_event_stream_is_the_same_over_http_1_and_2() {
    let files = tempfile::tempdir().expect("a directory");
    let root = write_certificate(files.path());
    let home = ScriptedOrchestrator::start().await;
    let gateway = gateway(files.path(), &home).await;
    let body = r#"{"events":[{"event":{"event_id":"e1","time":"2025-12-19T22:15:36Z","type":"agentos.run.completed",
        "tenant_id":"tnt_demo","run_id":"r1","sequence":1,"payload":{}}}]}"#;
    let io = TokioIo::new(connect(&gateway, &root, TLS13, &[b"h2"]).await.expect("a handshake"));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    let push = hyper::Request::post("https://localhost/v1/federation/events:ingest")
        .header("content-type", "application/json")
        .body(http_body_util::Full::new(bytes::Bytes::from(body)))
        .expect("a request");
    assert_eq!(sender.send_request(push).await.expect("an answer").status(), 200);

    let over_h2 = connect(&gateway, &root, TLS13, &[b"h2"]).await.expect("a handshake");
    let over_h1 = connect(&gateway, &root, TLS13, &[b"http/1.1"]).await.expect("a handshake");
    let without_retry = |(status, body): (u16, String)| {
        let rest = body.split_once('\n').map(|(_, rest)| rest.to_owned()).expect("a first line");
        (status, rest)
    };
    let (h2, h1) = (get_h2(over_h2, &events_path("r1")).await, get_h1(over_h1, &events_path("r1")).await);
    assert!(h2.1.contains("event: end") && h2.1.contains("\"e1\""), "{}", h2.1);
    assert_eq!(without_retry(h2), without_retry(h1));
}

// R-13
#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart_and_a_broken_one_is_not() {
    let files = tempfile::tempdir().expect("a directory");
    let first = write_certificate(files.path());
    let home = ScriptedOrchestrator::start().await;
    let gateway = gateway(files.path(), &home).await;
    connect(&gateway, &first, TLS13, &[]).await.expect("the first certificate");

    fs::write(files.path().join("tls.crt"), "no certificate").expect("a file");
    tokio::time::sleep(Duration::from_millis(1200)).await; // why: two looks of the gateway at its files
    connect(&gateway, &first, TLS13, &[]).await.expect("the certificate before stays");

    let second = write_certificate(files.path());
    for attempt in 0.. {
        if connect(&gateway, &second, TLS13, &[]).await.is_ok() {
            break;
        }
        assert!(attempt < 200, "the renewed certificate is never shown");
        tokio::time::sleep(Duration::from_millis(50)).await; // why: the gateway looks at its files now and then
    }
    assert!(connect(&gateway, &first, TLS13, &[]).await.is_err(), "the old one is shown no more");
}

// reliability 4d.30
#[tokio::test]
pub(crate) async fn what_is_not_tls_1_3_is_refused_and_the_gateway_goes_on() {
    let files = tempfile::tempdir().expect("a directory");
    let root = write_certificate(files.path());
    let home = ScriptedOrchestrator::start().await;
    let gateway = gateway(files.path(), &home).await;
    assert!(connect(&gateway, &root, &[&rustls::version::TLS12], &[]).await.is_err());
    assert!(connect(&gateway, &root, TLS13, &[b"spdy/3"]).await.is_err());
    let plain = plain_client().get(format!("http://{}/livez", gateway.address())).send().await;
    assert!(plain.is_err(), "plain HTTP is no TLS");
    let h2 = connect(&gateway, &root, TLS13, &[b"h2"]).await.expect("a handshake");
    assert_eq!(get_h2(h2, "/livez").await.0, 200);
}
