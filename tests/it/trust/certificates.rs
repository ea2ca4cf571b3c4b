//! The peers' door: who gets through a handshake, and how the certificates of either side may change.

use std::path::Path;
use std::sync::Arc;

use causeway::clock::Clock;
use causeway::domain::key::PublicKey;
use causeway::tls::{Credentials, Expectation, Identity, SpkiPin, toward_peer};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::HandshakeKind;
use rustls::client::Resumption;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::ears::connect_tls;
use crate::support::forwards::FORWARD;
use crate::support::gateway::{TestGateway, forward_body};
use crate::support::pair::{Operator, Pair, Plan, self_issued, some_key, tls_client};
use crate::support::raw;

const DAY_MS: i64 = 86_400_000;

/// How often handshakes failed for this reason.
async fn failures(gateway: &TestGateway, reason: &str) -> f64 {
    gateway.metric(&format!("tls_handshakes_failed_total{{reason=\"{reason}\"}}")).await
}

/// A client that shows these credentials.
fn showing(pair: &Pair, credentials: &Arc<Credentials>) -> reqwest::Client {
    tls_client(Some(credentials), pair.key_b.public(), &pair.clock)
}

// reliability 4d.28, 4d.29, 4d.30
#[tokio::test]
pub(crate) async fn whoever_does_not_show_an_enrolled_certificate_gets_no_answer() {
    let pair = Pair::start().await;
    let late = Clock::manual(pair.clock.now_ms() - 20 * 366 * DAY_MS);
    let soon = Clock::manual(pair.clock.now_ms() + 3 * DAY_MS);
    let table: Vec<(&str, reqwest::Client, &str)> = vec![
        ("none", tls_client(None, pair.key_b.public(), &pair.clock), "no_certificate"),
        ("a stranger's", showing(&pair, &self_issued(&some_key(), "stk_a", &pair.clock)), "not_enrolled"),
        ("an old one", showing(&pair, &self_issued(&pair.key_a, "stk_a", &late)), "expired"),
        ("one of tomorrow", showing(&pair, &self_issued(&pair.key_a, "stk_a", &soon)), "not_yet_valid"),
    ];
    for (what, http, reason) in table {
        let before = failures(&pair.b, reason).await;
        let answer = pair.as_a().get("/v1/federation/peer").try_send(&http, &pair.door_b()).await;
        assert!(answer.is_err(), "{what}: {answer:?}");
        assert!(failures(&pair.b, reason).await > before, "{what} was counted as something else");
    }
    // The wrong server is never told anything.
    let other = tls_client(None, some_key().public(), &pair.clock);
    let error = pair.as_a().get("/v1/federation/peer").try_send(&other, &pair.door_b()).await;
    assert!(error.expect_err("another key").is_connect());
    let right = showing(&pair, &self_issued(&pair.key_a, "any name at all", &pair.clock));
    pair.as_a().get("/v1/federation/peer").send(&right, &pair.door_b()).await.expect(200);
}

// reliability 4d.30
#[tokio::test]
pub(crate) async fn the_door_speaks_tls_13_and_nothing_else() {
    let pair = Pair::start().await;
    let before = failures(&pair.b, "not_tls").await;
    let answer = raw::send(pair.b.peer_address(), b"GET /livez HTTP/1.1\r\nhost: b\r\n\r\n").await;
    assert!(!answer.text.contains("HTTP/1.1"), "{}", answer.text);
    assert!(failures(&pair.b, "not_tls").await > before);

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let old = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("TLS 1.2")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let refused = connect_tls(pair.b.peer_address(), old, "stk-b").await.expect_err("too old");
    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
    assert!(failures(&pair.b, "no_tls13").await > 0.0);
}

// reliability 4d.30: a resumed session would skip the verifier.
#[tokio::test]
pub(crate) async fn no_session_is_resumed() {
    let pair = Pair::start().await;
    let shown = self_issued(&pair.key_a, "stk_a", &pair.clock);
    let pins = Expectation::pins(vec![SpkiPin::of_ed25519(pair.key_b.public().as_bytes())]);
    let mut config = toward_peer(Some(shown), pins, &pair.clock).expect("a configuration");
    config.resumption = Resumption::in_memory_sessions(8);
    config.enable_early_data = true;
    for round in 0..3 {
        let mut stream =
            connect_tls(pair.b.peer_address(), config.clone(), "stk-b").await.expect("a handshake");
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n").await.expect("sent");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        let connection = stream.get_ref().get_ref().1;
        assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full), "round {round}");
        assert_eq!(connection.tls13_tickets_received(), 0);
    }
}

// A peer must come with both when the operator says so.
#[tokio::test]
async fn a_signature_alone_is_not_enough_where_mutual_tls_is_required() {
    let mut plan = Plan::prod().await;
    plan.b.config.peering.require_mtls = true;
    let pair = plan.start().await;
    let refused = pair.as_a().create("key-1").send_to(&pair.b).await.expect(403);
    assert_eq!(refused.code(), "peer_not_allowed");
    pair.as_a().create("key-1").send(&pair.tls_as_a(), &pair.door_b()).await.expect(201);
    pair.until_healthy().await;
}

// R-31, F-26: a server with another key is never believed, and the operator hears why.
#[tokio::test]
async fn a_gateway_that_shows_another_key_than_it_is_enrolled_with_is_failing() {
    let mut plan = Plan::new().await;
    plan.b.entry.public_key = Some(*some_key().public());
    let pair = plan.start().await;
    let says_why = |peer: &Value| {
        let said = peer["health"]["reason"].as_str().unwrap_or("");
        peer["health"]["state"] == "failing" && said.contains("certificate of no enrolled peer")
    };
    Operator::of(&pair.a).until_peer("stk_b", says_why).await;
    let refused = pair.a.post(FORWARD, &forward_body("stk_b")).await.expect(502);
    assert_eq!(refused.json["error"]["details"]["outcome"], "not_started", "{}", refused.text);
    assert!(pair.home_b.truth().creates().is_empty());
}

/// A private authority.
struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        Ca(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// Writes a certificate for peers with this name, and its key.
    fn issue(&self, name: &str, directory: &Path) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        // The key first: a reload in between sees a pair that does not fit and keeps the one before.
        std::fs::write(directory.join("key.pem"), key.serialize_pem()).expect("written");
        std::fs::write(directory.join("cert.pem"), certificate.pem()).expect("written");
    }

    /// A client with a certificate of this name.
    fn client(&self, name: &str, server: &PublicKey, clock: &Clock) -> reqwest::Client {
        let directory = tempfile::tempdir().expect("a directory");
        self.issue(name, directory.path());
        let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
        let identity = Identity::from_files(&certificate, &key).expect("an identity");
        tls_client(Some(&Arc::new(Credentials::fixed(identity))), server, clock)
    }
}

/// `stk_a` shows a certificate of an authority and is enrolled at `stk_b` by its name.
async fn named(ca: &Ca, files: &Path, name: &str) -> Plan {
    let mut plan = Plan::new().await;
    ca.issue(name, files);
    std::fs::write(files.join("ca.pem"), ca.0.pem()).expect("written");
    plan.a.config.peering.cert_file = Some(files.join("cert.pem"));
    plan.a.config.peering.cert_key_file = Some(files.join("key.pem"));
    plan.b.config.peering.ca_file = Some(files.join("ca.pem"));
    plan.a.entry.tls_name = "a.example".to_owned();
    plan.a.entry.public_key = None;
    // What `stk_b` calls is proven by this certificate.
    plan.a.entry.operations = vec![causeway::domain::grants::Operation::ForwardIn];
    plan
}

// reliability 4d.28, R-13
#[tokio::test]
pub(crate) async fn a_peer_enrolled_by_name_comes_in_with_a_certificate_of_our_authority() {
    let files = tempfile::tempdir().expect("a directory");
    let (ca, foreign) = (Ca::new(), Ca::new());
    let pair = named(&ca, files.path(), "a.example").await.start().await;
    Operator::of(&pair.a).until_health("stk_b", "healthy").await;
    let run = pair.a.forward_run("stk_b").await;
    assert_eq!(pair.home_b.truth().runs_created()[0].run_id, run);
    let table = [
        ("a foreign authority", foreign.client("a.example", pair.key_b.public(), &pair.clock), "foreign"),
        ("another name", ca.client("b.example", pair.key_b.public(), &pair.clock), "not_enrolled"),
        (
            "its own word",
            tls_client(
                Some(&self_issued(&some_key(), "a.example", &pair.clock)),
                pair.key_b.public(),
                &pair.clock,
            ),
            "foreign",
        ),
    ];
    for (what, http, reason) in table {
        let before = failures(&pair.b, reason).await;
        let answer = pair.as_a().get("/v1/federation/peer").try_send(&http, &pair.door_b()).await;
        assert!(answer.is_err(), "{what}: {answer:?}");
        assert!(failures(&pair.b, reason).await > before, "{what}");
    }
    // Revoked, the right certificate opens nothing.
    let right = ca.client("a.example", pair.key_b.public(), &pair.clock);
    let asked = pair.as_a().get("/v1/federation/peer");
    asked.send(&right, &pair.door_b()).await.expect(200);
    pair.b.post("/v1/federation/peers/stk_a:revoke", &json!({})).await.expect(200);
    let again = ca.client("a.example", pair.key_b.public(), &pair.clock);
    assert!(pair.as_a().get("/v1/federation/peer").try_send(&again, &pair.door_b()).await.is_err());
}

//
#[tokio::test]
async fn certificates_and_authorities_are_read_again_without_a_restart() {
    let files = tempfile::tempdir().expect("a directory");
    let (ca, next) = (Ca::new(), Ca::new());
    let pair = named(&ca, files.path(), "wrong.example").await.start().await;
    let operator = Operator::of(&pair.a);
    operator.until_health("stk_b", "failing").await;
    ca.issue("a.example", files.path());
    operator.until_health("stk_b", "healthy").await;
    pair.a.forward_run("stk_b").await;
    // The authority changes: the certificate of the old one opens nothing new, that of the next does.
    std::fs::write(files.path().join("ca.pem"), next.0.pem()).expect("written");
    let mut refused = false;
    for _ in 0..250 {
        let old = ca.client("a.example", pair.key_b.public(), &pair.clock);
        refused = pair.as_a().get("/v1/federation/peer").try_send(&old, &pair.door_b()).await.is_err();
        if refused {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await; // why: polling another party's TLS door
    }
    assert!(refused, "the old authority still counts");
    next.issue("a.example", files.path());
    let new = next.client("a.example", pair.key_b.public(), &pair.clock);
    pair.as_a().get("/v1/federation/peer").send(&new, &pair.door_b()).await.expect(200);
    operator.until_health("stk_b", "healthy").await;
}
