//! Peers that a hub introduces: nothing is granted, nobody is called, and an operator decides. // R-14

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use causeway::clock::Clock;
use causeway::config::Config;
use causeway::domain::key::SigningKey;
use causeway::domain::peer::PeerKind;
use causeway::domain::rate::Rate;
use causeway::services::introductions::HubOptions;
use serde_json::{Value, json};

use crate::support::fault_proxy::FaultProxy;
use crate::support::forwards::FORWARD;
use crate::support::gateway::{Answer, TENANT, TestGateway, forward_body, peer, test_config};
use crate::support::pair::{Operator, Plan, Signer, some_key};
use crate::support::prod::{CLIENT_SCOPES, Prod, prod_config};

const INTRODUCE: &str = "/v1/federation/peers:introduce";
/// Seconds of a manual clock at its start.
const NOW_S: i64 = 1_790_000_000;

/// A hub, as `introductions.hubs` names it.
pub(crate) fn hub_options(name: &str, key: &SigningKey, domain: &str) -> HubOptions {
    HubOptions { name: name.to_owned(), public_key: *key.public(), domains: vec![domain.to_owned()] }
}

/// A JWT of these parts, whoever signs it.
fn jwt(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

/// A hub's JWT.
pub(crate) fn signed(key: &SigningKey, claims: &Value) -> String {
    jwt(&json!({ "alg": "EdDSA", "typ": "JWT" }), claims, |message| key.sign(message).to_vec())
}

/// What `hub` says of a peer that nobody knows, to the gateway `audience`.
pub(crate) fn claims(audience: &str, now_s: i64, peer_id: &str) -> Value {
    json!({ "iss": "hub", "aud": audience, "iat": now_s, "exp": now_s + 300, "jti": format!("of_{peer_id}"),
        "peer_id": peer_id, "base_url": "http://127.0.0.1:9", "domain": "default", "region": "eu-west",
        "public_key": some_key().public() })
}

async fn introduce(gateway: &TestGateway, token: &str) -> Answer {
    gateway.post(INTRODUCE, &json!({ "introduction": token })).await
}

/// A gateway that takes the word of two hubs.
struct Site {
    gateway: TestGateway,
    hub: Arc<SigningKey>,
    lab: Arc<SigningKey>,
}

impl Site {
    async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let (hub, lab) = (some_key(), some_key());
        let mut config = test_config();
        config.limits.failed_logins = None;
        config.introductions.hubs =
            vec![hub_options("hub", &hub, "default"), hub_options("lab", &lab, "lab")];
        change(&mut config);
        let known = peer("stk_known", "http://127.0.0.1:9", PeerKind::Orchestrator);
        let gateway = TestGateway::start_at(Clock::manual(NOW_S * 1000), config, vec![known]).await;
        Site { gateway, hub, lab }
    }

    /// Good claims about a peer, with these over them.
    fn claims(&self, peer_id: &str, over: &Value) -> Value {
        let mut all = claims(self.gateway.config.gateway.stack_id.as_str(), NOW_S, peer_id);
        for (name, value) in over.as_object().expect("claims") {
            all[name] = value.clone();
        }
        all
    }

    fn token(&self, peer_id: &str, over: &Value) -> String {
        signed(&self.hub, &self.claims(peer_id, over))
    }

    async fn refused(&self, token: &str) -> (u16, String) {
        let answer = introduce(&self.gateway, token).await;
        assert!(!answer.text.contains("hostile"), "{}", answer.text);
        (answer.status, answer.code().to_owned())
    }
}

//
#[tokio::test]
async fn no_peer_is_introduced_unless_hubs_are_named() {
    let gateway = TestGateway::start(Vec::new()).await;
    let said = claims(gateway.config.gateway.stack_id.as_str(), Clock::system().now_ms() / 1000, "stk_new");
    let answer = introduce(&gateway, &signed(&some_key(), &said)).await.expect(404);
    assert!(answer.text.contains("introductions.hubs"), "{}", answer.text);
    assert_eq!(gateway.count_rows("peers"), 0);
}

//
#[tokio::test]
async fn an_introduced_peer_takes_part_only_once_an_operator_accepts_it() {
    let hub = some_key();
    let mut plan = Plan::new().await;
    plan.a.config.introductions.hubs = vec![hub_options("hub", &hub, "default")];
    let entry_of_a = serde_json::to_value(&plan.a.entry).expect("JSON");
    let mut pair = plan.strangers().await;
    let proxy = FaultProxy::start(pair.b.peer_address()).await;
    let mut said = claims("stk_a", pair.clock.now_ms() / 1000, "stk_b");
    said["base_url"] = json!(format!("https://{}", proxy.addr()));
    said["public_key"] = json!(pair.key_b.public());
    let made = introduce(&pair.a, &signed(&hub, &said)).await.expect(201);
    let shown = json!({ "peer_id": "stk_b", "standing": "introduced", "vouched_by": "hub" });
    assert_eq!(made.json["introduced"], shown);

    let at_a = Operator::of(&pair.a);
    let record = at_a.until_audited("the introduction", |record| record["action"] == "peer.introduce").await;
    assert_eq!(
        (&record["subject"], &record["object"], &record["outcome"]),
        (&json!("hub:hub"), &json!("stk_b"), &json!("introduced"))
    );
    for _ in 0..2 {
        let waiting = at_a.peer("stk_b").await;
        assert_eq!((&waiting["standing"], &waiting["vouched_by"]), (&json!("introduced"), &json!("hub")));
        assert_eq!(waiting["grants"]["operations"], json!([]));
        // It comes in and is refused, by signature; nothing goes out to it, whatever is asked for.
        let as_b = Signer::new(&pair.key_b, "stk_b", "stk_a", &pair.clock);
        for signed in [as_b.get("/v1/federation/peer"), as_b.create("k1")] {
            assert_eq!(signed.send_to(&pair.a).await.expect(403).code(), "peer_not_allowed");
        }
        let refused = pair.a.post(FORWARD, &forward_body("stk_b")).await.expect(403);
        assert_eq!(refused.json["error"]["details"]["rule"], "peer_introduced", "{}", refused.text);
        for verb in ["drain", "reinstate"] {
            let refused = at_a.act(&format!("/v1/federation/peers/stk_b:{verb}")).await.expect(409);
            assert_eq!(refused.code(), "conflict", "{}", refused.text);
        }
        at_a.act("/v1/federation/peers/stk_b:verify").await.expect(200);
        // Two rounds of health calls go by.
        let mut last = at_a.until_health("orc_a", "healthy").await["health"]["checked_at"].take();
        for _ in 0..2 {
            let other = |peer: &Value| peer["health"]["checked_at"] != last;
            last = at_a.until_peer("orc_a", other).await["health"]["checked_at"].take();
        }
        assert_eq!(proxy.connections(), 0, "an address that a stranger chose was called");
        pair.a.restart().await;
    }

    let mut entry = at_a.peer("stk_b").await["entry"].take();
    let path = "/v1/federation/peers/stk_b";
    let nothing = at_a.put(path, &entry).await.expect(400);
    assert_eq!(nothing.json["error"]["details"]["field"], "operations");
    entry["operations"] = json!(["forward_out"]);
    entry["tenants"] = json!([TENANT]);
    entry["vouched_by"] = json!("somebody else");
    let accepted = at_a.put(path, &entry).await.expect(200).json["peer"].take();
    assert_eq!((&accepted["standing"], &accepted["vouched_by"]), (&json!("active"), &json!("hub")));
    at_a.until_audited("the acceptance", |record| record["action"] == "peer.accept").await;
    Operator::of(&pair.b).post("/v1/federation/peers", &entry_of_a).await.expect(201);
    pair.a.restart().await;
    let kept = at_a.until_health("stk_b", "healthy").await;
    assert_eq!((&kept["standing"], &kept["vouched_by"]), (&json!("active"), &json!("hub")));
    pair.a.forward_run("stk_b").await;
    assert_eq!(pair.home_b.truth().runs_created().len(), 1);
    assert!(proxy.connections() > 0);
}

//
#[tokio::test]
async fn only_a_hubs_own_fresh_word_for_this_gateway_introduces_a_peer() {
    let site = Site::start(|_| {}).await;
    let good = site.claims("stk_new", &json!({}));
    let by_hmac = |secret: &[u8]| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        jwt(&json!({ "alg": "HS256" }), &good, |message| hmac::sign(&key, message).as_ref().to_vec())
    };
    let by_hub = |header: Value| jwt(&header, &good, |message| site.hub.sign(message).to_vec());
    let text = site.hub.public().to_string();
    let of_hub = signed(&site.hub, &good);
    let mut forged = good.clone();
    forged["peer_id"] = json!("stk_other");
    let other = signed(&some_key(), &forged);
    let swapped = format!(
        "{}.{}",
        other.rsplit_once('.').expect("a signature").0,
        of_hub.rsplit_once('.').expect("a signature").1
    );
    for (what, token) in [
        ("no token", "hostile".to_owned()),
        ("too long a token", "a.".repeat(4200)),
        ("alg none", jwt(&json!({ "alg": "none" }), &good, |_| Vec::new())),
        ("the public key as a secret", by_hmac(site.hub.public().as_bytes())),
        ("the written public key as a secret", by_hmac(text.as_bytes())),
        ("a good signature under another alg", by_hub(json!({ "alg": "ES256" }))),
        ("an extension nobody knows", by_hub(json!({ "alg": "EdDSA", "crit": ["hostile"], "hostile": 1 }))),
        ("a key of nobody", signed(&some_key(), &good)),
        ("another's claims", swapped),
        ("the key of another hub", signed(&site.lab, &good)),
        ("an unknown hub", site.token("stk_new", &json!({ "iss": "hostile" }))),
        ("no hub", site.token("stk_new", &json!({ "iss": null }))),
    ] {
        assert_eq!(site.refused(&token).await, (401, "signature_invalid".to_owned()), "{what}");
    }
    let table = [
        (json!({ "aud": "stk_hostile" }), 401, "wrong_destination"),
        (json!({ "aud": null }), 401, "wrong_destination"),
        (json!({ "iat": NOW_S - 331, "exp": NOW_S - 31 }), 401, "signature_expired"),
        (json!({ "iat": NOW_S + 31 }), 401, "signature_expired"),
        (json!({ "exp": NOW_S + 601 }), 401, "signature_expired"),
        (json!({ "exp": i64::MAX }), 401, "signature_expired"),
        (json!({ "iat": null }), 400, "invalid_request"),
        (json!({ "exp": "hostile" }), 400, "invalid_request"),
        (json!({ "jti": null }), 400, "invalid_request"),
        (json!({ "jti": "hostile\n" }), 400, "invalid_request"),
        (json!({ "domain": "lab" }), 403, "policy_denied"),
        (json!({ "domain": "" }), 403, "policy_denied"),
        (json!({ "peer_id": "hostile id" }), 400, "invalid_request"),
        (json!({ "peer_id": "hostile\"};" }), 400, "invalid_request"),
        (json!({ "peer_id": "h".repeat(129) }), 400, "invalid_request"),
        (json!({ "peer_id": ["hostile"] }), 400, "invalid_request"),
        (json!({ "base_url": "file:///etc/hostile" }), 400, "invalid_request"),
        (json!({ "base_url": "https://u:hostile@h" }), 400, "invalid_request"),
        (json!({ "public_key": "ed25519:hostile" }), 400, "invalid_request"),
        (json!({ "region": "hostile\u{1b}[2J" }), 400, "invalid_request"),
    ];
    for (over, status, code) in table {
        assert_eq!(site.refused(&site.token("stk_new", &over)).await, (status, code.to_owned()), "{over}");
    }
    assert_eq!(site.gateway.count_rows("peers"), 0);
    assert_eq!(site.gateway.count_rows("nonces"), 0);
    let abroad = site.claims("stk_lab", &json!({ "iss": "lab", "domain": "lab" }));
    let abroad = site.refused(&signed(&site.lab, &abroad)).await;
    assert_eq!(abroad, (403, "federation_boundary".to_owned()), "a hub opens no boundary");
    introduce(&site.gateway, &of_hub).await.expect(201);
}

//
#[tokio::test]
async fn an_introduction_is_heard_once_and_changes_nobody_who_is_known() {
    let mut site = Site::start(|config| config.introductions.max_pending = 2).await;
    let operator = Operator::of(&site.gateway);
    let own = site.gateway.config.gateway.stack_id.to_string();
    let key = some_key();
    let first = site.token("stk_one", &json!({ "public_key": key.public() }));
    introduce(&site.gateway, &first).await.expect(201);
    // Under profile dev a peer without tenants is for all of them, and this one is for nobody yet.
    let (_, alice) = operator.token("alice", &["runs:read"]).await;
    let bearer = [("authorization", &*format!("Bearer {alice}"))];
    site.gateway.get_with("/v1/federation/peers/stk_known", &bearer).await.expect(200);
    site.gateway.get_with("/v1/federation/peers/stk_one", &bearer).await.expect(404);
    let before = operator.get("/v1/federation/peers?limit=100").await.expect(200).json["items"].take();
    for (what, token) in [
        ("a configured peer", site.token("stk_known", &json!({}))),
        ("an introduced peer", site.token("stk_one", &json!({ "jti": "again" }))),
        ("the gateway itself", site.token(&own, &json!({}))),
        ("another's key", site.token("stk_two", &json!({ "jti": "twin", "public_key": key.public() }))),
    ] {
        assert_eq!(site.refused(&token).await, (409, "peer_id_conflict".to_owned()), "{what}");
        assert_eq!(site.refused(&token).await.1, "signature_replayed", "{what}, again");
    }
    let after = operator.get("/v1/federation/peers?limit=100").await.expect(200).json["items"].take();
    assert_eq!(before, after);
    introduce(&site.gateway, &site.token("stk_two", &json!({}))).await.expect(201);
    let third = site.token("stk_three", &json!({}));
    let full = introduce(&site.gateway, &third).await.expect(503);
    assert!(full.code() == "busy" && full.text.contains("operator"), "{}", full.text);
    // What an operator has turned down does not come back with the same words, over a restart too.
    operator.delete("/v1/federation/peers/stk_one").await.expect(204);
    site.gateway.restart().await;
    assert_eq!(site.refused(&first).await, (401, "signature_replayed".to_owned()));
    introduce(&site.gateway, &third).await.expect(201);
    // One that is revoked waits no more, and its id is taken.
    operator.act("/v1/federation/peers/stk_two:revoke").await.expect(200);
    operator.act("/v1/federation/peers/stk_two:reinstate").await.expect(409);
    let again = site.token("stk_two", &json!({ "jti": "later" }));
    assert_eq!(site.refused(&again).await.1, "peer_id_conflict");
}

//
#[tokio::test]
async fn who_is_refused_too_often_is_heard_no_more() {
    let rate = Rate::parse("2/h").expect("a rate");
    let site = Site::start(|config| config.limits.failed_logins = Some(rate)).await;
    for _ in 0..2 {
        assert_eq!(site.refused("hostile").await.1, "signature_invalid");
    }
    let good = site.token("stk_new", &json!({}));
    assert_eq!(site.refused(&good).await, (429, "rate_limited".to_owned()));
    let operator = Operator::of(&site.gateway);
    let is_it = |record: &Value| record["action"] == "peer.introduce";
    let record = operator.until_audited("the refusal", is_it).await;
    assert_eq!(
        (&record["subject"], &record["outcome"], &record["reason"]),
        (&json!("address:127.0.0.1"), &json!("refused"), &json!("signature_invalid"))
    );
}

//
#[tokio::test]
async fn under_profile_prod_clients_do_not_see_it_and_it_is_accepted_by_the_rules_of_prod() {
    let hub = some_key();
    let mut config = prod_config();
    config.introductions.hubs = vec![hub_options("hub", &hub, "default")];
    let prod = Prod::start(config, Vec::new()).await;
    let now_s = Clock::system().now_ms() / 1000;
    let token = signed(&hub, &claims(prod.gateway.config.gateway.stack_id.as_str(), now_s, "stk_new"));
    introduce(&prod.gateway, &token).await.expect(201);
    let client = prod.token(Some(TENANT), &CLIENT_SCOPES).await;
    let bearer = [("authorization", &*format!("Bearer {}", client.text))];
    prod.gateway.get_with("/v1/federation/peers/stk_new", &bearer).await.expect(404);
    let (operator, path) = (Operator::of(&prod.gateway), "/v1/federation/peers/stk_new");
    let mut entry = operator.peer("stk_new").await["entry"].take();
    entry["operations"] = json!(["forward_in"]);
    for (field, value) in [("tenants", json!([TENANT])), ("base_url", json!("https://gateway.example"))] {
        let refused = operator.put(path, &entry).await.expect(400);
        assert_eq!(refused.json["error"]["details"]["field"], field, "{}", refused.text);
        assert_eq!(operator.peer("stk_new").await["standing"], "introduced");
        entry[field] = value;
    }
    operator.put(path, &entry).await.expect(200);
    prod.gateway.get_with(path, &bearer).await.expect(200);
}
