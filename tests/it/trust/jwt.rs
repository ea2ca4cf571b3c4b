//! Clients that bear a JWT: what it says holds, for as long as it holds.

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use causeway::clock::Clock;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::gateway::{TENANT, TestGateway, events_path, test_config};
use crate::support::sse_client::{Follower, RunEnd};

/// Seconds of the test's clock at its start.
const NOW_S: i64 = 1_790_000_000;

/// Writes the public half to a file, as a whole.
fn write_key(path: &Path, key: &Ed25519KeyPair) {
    let der: PublicKeyX509Der<'_> = key.public_key().as_der().expect("DER");
    let text = STANDARD.encode(der.as_ref());
    std::fs::write(path, format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n"))
        .expect("the key's file");
}

/// A gateway that believes the tokens of one issuer.
struct Site {
    gateway: TestGateway,
    clock: Clock,
    key: Ed25519KeyPair,
    files: TempDir,
}

impl Site {
    async fn start() -> Self {
        let key = Ed25519KeyPair::generate().expect("a key");
        let files = tempfile::tempdir().expect("a directory");
        let path = files.path().join("issuer.pem");
        write_key(&path, &key);
        let mut config = test_config();
        config.gateway.default_tenant = None;
        config.jwt.public_key_file = Some(path);
        config.jwt.issuer = "https://id.example".to_owned();
        config.jwt.audience = "causeway".to_owned();
        let clock = Clock::manual(NOW_S * 1000);
        let gateway = TestGateway::start_at(clock.clone(), config, Vec::new()).await;
        Site { gateway, clock, key, files }
    }

    /// A token with these claims over the usual ones.
    fn token(&self, claims: &Value) -> String {
        let mut all = json!({ "iss": "https://id.example", "aud": "causeway", "sub": "alice", "tenant_id": TENANT,
            "scope": "runs:read events:read events:ingest", "exp": NOW_S + 60 });
        for (name, value) in claims.as_object().expect("claims") {
            all[name] = value.clone();
        }
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","typ":"JWT"}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(all.to_string()));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()).as_ref());
        format!("{signed}.{signature}")
    }

    async fn status(&self, token: &str, path: &str) -> (u16, String) {
        let bearer = format!("Bearer {token}");
        let answer = self.gateway.get_with(path, &[("authorization", &bearer)]).await;
        (answer.status, answer.code().to_owned())
    }
}

// Z-47, reliability 4d.7, 4d.8
#[tokio::test]
async fn a_jwt_opens_what_it_says_and_only_while_it_holds() {
    let site = Site::start().await;
    let runs = "/v1/federation/runs";
    let refused = || (401, "unauthorized".to_owned());
    assert_eq!(site.status(&site.token(&json!({})), runs).await, (200, String::new()));
    for wrong in [
        json!({ "exp": NOW_S - 31 }),
        json!({ "nbf": NOW_S + 31 }),
        json!({ "iss": "https://evil.example" }),
        json!({ "aud": "other" }),
        json!({ "tenant_id": null }),
        json!({ "sub": "peer:stk_b/alice" }),
        json!({ "sub": "operator:root" }),
    ] {
        assert_eq!(site.status(&site.token(&wrong), runs).await, refused(), "{wrong}");
    }
    let token = site.token(&json!({}));
    let forged = format!("{}A", &token[..token.len() - 1]);
    assert!(forged == token || site.status(&forged, runs).await == refused());
    let lesser = site.token(&json!({ "scope": "events:read" }));
    assert_eq!(site.status(&lesser, runs).await, (403, "insufficient_scope".to_owned()));
    let admin = site.token(&json!({ "scope": "admin:*" }));
    assert_eq!(site.status(&admin, "/v1/federation/tokens").await.0, 403, "no JWT makes an operator");
    site.clock.advance(Duration::from_secs(91));
    assert_eq!(site.status(&token, runs).await, refused());
}

#[tokio::test]
async fn the_tenant_of_a_jwt_is_the_tenant_of_its_bearer() {
    let site = Site::start().await;
    let bearer = format!("Bearer {}", site.token(&json!({})));
    let other = [("authorization", bearer.as_str()), ("x-tenant-id", "tnt_other")];
    let answer = site.gateway.get_with("/v1/federation/runs", &other).await.expect(400);
    assert_eq!(answer.code(), "tenant_mismatch");
}

#[tokio::test]
async fn a_stream_ends_with_the_jwt_that_opened_it() {
    let site = Site::start().await;
    let bearer = format!("Bearer {}", site.token(&json!({ "exp": NOW_S + 1 })));
    let event = crate::support::gateway::envelope("r1", "e1", Some(1), "agentos.run.step.completed");
    let sent = [("authorization", bearer.as_str())];
    let body = json!({ "events": [event] });
    site.gateway.post_with("/v1/federation/events:ingest", &body, &sent).await.expect(200);
    let mut follower =
        Follower::new(site.gateway.address(), &events_path("r1")).with_header("authorization", &bearer);
    follower.follow_events(1).await;
    site.clock.advance(Duration::from_secs(2));
    // Nothing moves on the stream: the end of the credential alone ends it.
    let end = tokio::time::timeout(Duration::from_secs(5), follower.follow_to_end()).await;
    assert!(matches!(&end, Ok(RunEnd::Error(code)) if code == "unauthorized"), "{end:?}");
}

// Z-47: an issuer that rotates its key needs no restart of the gateway.
#[tokio::test]
async fn the_issuers_keys_are_read_again_when_their_file_changes() {
    let mut site = Site::start().await;
    let (path, runs) = (site.files.path().join("issuer.pem"), "/v1/federation/runs");
    let before = site.token(&json!({}));
    assert_eq!(site.status(&before, runs).await.0, 200);
    // A file that holds no key changes nothing.
    std::fs::write(&path, "no key").expect("written");
    let said = "the changed keys of JWTs are not used";
    site.gateway.until("/livez", |_| site.gateway.watch().written().contains(said)).await;
    assert_eq!(site.status(&before, runs).await.0, 200);
    site.key = Ed25519KeyPair::generate().expect("a key");
    write_key(&path, &site.key);
    let after = site.token(&json!({}));
    let bearer = [("authorization", &*format!("Bearer {after}"))];
    for _ in 0..250 {
        if site.gateway.get_with(runs, &bearer).await.status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await; // why: polling another party's HTTP API
    }
    assert_eq!(site.status(&after, runs).await.0, 200);
    assert_eq!(site.status(&before, runs).await, (401, "unauthorized".to_owned()));
}
