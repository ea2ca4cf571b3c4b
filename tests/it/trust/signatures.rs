//! Signed requests: each thing that may be wrong with one, and that none of it has an effect.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use causeway::domain::id::PeerId;
use reqwest::Method;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::support::ears::{plain_client, read};
use crate::support::gateway::{TestGateway, test_config};
use crate::support::pair::{Operator, Pair, Plan, Signed, Signer, gateway_entry, some_key};

/// `Signature-Input` without one of its parameters.
fn without(signed: Signed, parameter: &str) -> Signed {
    let input = signed.headers["signature-input"].to_str().expect("text").to_owned();
    let from = input.find(&format!(";{parameter}=")).expect("the parameter");
    let to = input[from + 1..].find(';').map_or(input.len(), |end| from + 1 + end);
    let text = input[from..to].to_owned();
    signed.alter("signature-input", &text, "")
}

/// `Signature-Input` with a parameter of this value.
fn with_parameter(signed: Signed, parameter: &str, value: i64) -> Signed {
    let input = signed.headers["signature-input"].to_str().expect("text").to_owned();
    let from = input.find(&format!(";{parameter}=")).expect("the parameter") + parameter.len() + 2;
    let to = input[from..].find(';').map_or(input.len(), |end| from + end);
    let text = format!(";{parameter}={}", &input[from..to]);
    signed.alter("signature-input", &text, &format!(";{parameter}={value}"))
}

fn digest_of(body: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)))
}

// reliability 4d.36: found by the simulator
#[tokio::test]
async fn a_request_that_is_heard_again_does_not_bring_its_process_back() {
    let mut pair = Pair::start_prod().await;
    let before = Signer { instance: Some("ins_before".to_owned()), ..pair.as_a() };
    pair.a.stop().await; // whose calls to see whether the other is well come from a process of its own
    let captured = before.create("key-1");
    captured.send_to(&pair.b).await.expect(201);
    let present = Signer { instance: Some("ins_present".to_owned()), ..before };
    present.create("key-2").send_to(&pair.b).await.expect(201);
    pair.b.restart().await; // and it has forgotten who came before whom
    present.create("key-3").send_to(&pair.b).await.expect(201);
    captured.send_to(&pair.b).await.expect(401);
    present.create("key-4").send_to(&pair.b).await.expect(201);
}

// reliability 4d.36: found by the simulator
#[tokio::test]
async fn what_a_peer_sent_while_it_was_revoked_is_not_taken_once_it_is_reinstated() {
    let pair = Pair::start().await;
    let captured = pair.as_a().create("key-1");
    let nothing = json!({});
    pair.b.post("/v1/federation/peers/stk_a:revoke", &nothing).await.expect(200);
    captured.send_to(&pair.b).await.expect(403);
    pair.b.post("/v1/federation/peers/stk_a:reinstate", &nothing).await.expect(200);
    captured.send_to(&pair.b).await.expect(401);
    pair.as_a().create("key-1").send_to(&pair.b).await.expect(201);
}

// reliability 4d.32, 4d.33, 4d.34, 4d.35, 4d.37
#[tokio::test]
pub(crate) async fn a_signature_that_is_not_exactly_right_is_refused_and_does_nothing() {
    let pair = Pair::start_prod().await;
    let known = pair.as_a();
    let evil = some_key();
    let stranger = Signer::new(&evil, "stk_evil", "stk_b", &pair.clock);
    let made = || known.create("key-1");
    let key_id = pair.key_a.public().key_id();
    let mut twice = made();
    let digest = twice.headers["content-digest"].clone();
    twice.headers.append("content-digest", digest);
    let mut no_value = made();
    no_value.headers.remove("signature");
    let mut no_input = made();
    no_input.headers.remove("signature-input");
    let mut flipped = made();
    flipped.body = flipped.body.map(|mut body| {
        body[3] ^= 1;
        body
    });
    let mut elsewhere = made();
    elsewhere.target = "/v1/agents/agt_other/runs".to_owned();
    let mut queried = made();
    queried.target.push_str("?wait=true");
    let mut renamed = known.get("/v1/federation/peer");
    renamed.method = Method::POST;
    let labels = |count: usize| {
        let many = |text: &str| (1..count).map(|n| format!("l{n}={text}, ")).collect::<String>();
        let signed = made();
        let input = signed.headers["signature-input"].to_str().expect("text").to_owned();
        let value = signed.headers["signature"].to_str().expect("text").to_owned();
        let signed = signed.with("signature-input", &format!("{}{input}", many("(\"@method\");created=1")));
        signed.with("signature", &format!("{}{value}", many(":AAAA:")))
    };
    let late = Signer { skew_s: -62, ..known.clone() };
    let early = Signer { skew_s: 90, ..known.clone() };
    let posing = Signer { origin: "orc_b".to_owned(), ..known.clone() };
    let other_place = Signer { destination: "stk_c".to_owned(), ..known.clone() };
    let own_name = Signer { origin: "stk_b".to_owned(), ..stranger.clone() };
    let my_name = Signer { origin: "stk_a".to_owned(), ..stranger.clone() };
    let get = known.get("/v1/federation/peer");
    let mut table: Vec<(&str, Signed, u16, &str)> = vec![
        ("half a signature", no_value, 401, "signature_missing"),
        ("the other half", no_input, 401, "signature_missing"),
        ("another label", made().alter("signature-input", "causeway=", "other="), 401, "signature_missing"),
        ("no base64", made().alter("signature", "=:", "=:@"), 401, "signature_malformed"),
        ("no bytes", made().with("signature", "causeway=::"), 401, "signature_malformed"),
        ("no dictionary", made().with("signature-input", "causeway=("), 401, "signature_malformed"),
        (
            "not of ours",
            made().alter("signature-input", "causeway-v1", "other-v1"),
            401,
            "signature_malformed",
        ),
        ("no nonce", without(made(), "nonce"), 401, "signature_malformed"),
        ("no key", without(made(), "keyid"), 401, "signature_malformed"),
        ("an unknown key", stranger.create("key-1"), 401, "unknown_key"),
        (
            "another's key id",
            stranger.create("key-1").alter(
                "signature-input",
                evil.public().key_id().as_str(),
                key_id.as_str(),
            ),
            403,
            "peer_identity_mismatch",
        ),
        (
            "another's key id and name",
            my_name.create("key-1").alter(
                "signature-input",
                evil.public().key_id().as_str(),
                key_id.as_str(),
            ),
            401,
            "signature_invalid",
        ),
        ("an enrolled name with another key", my_name.create("key-1"), 409, "peer_id_conflict"),
        ("our own name", own_name.create("key-1"), 409, "peer_id_conflict"),
        ("another peer's name", posing.create("key-1"), 403, "peer_identity_mismatch"),
        (
            "another algorithm",
            made().alter("signature-input", "\"ed25519\"", "\"hmac-sha256\""),
            401,
            "signature_algorithm",
        ),
        ("no algorithm", without(made(), "alg"), 401, "signature_algorithm"),
        ("a flipped body", flipped, 400, "digest_mismatch"),
        ("another digest", made().with("content-digest", &digest_of(b"{}")), 401, "signature_invalid"),
        ("two digests", twice, 401, "signature_malformed"),
        (
            "a weak digest",
            made().with("content-digest", "sha=:qqlAJmTxpB9A67xSyZk+tmrrNmYClY/fqig7ceZNsSM=:"),
            400,
            "digest_mismatch",
        ),
        ("another path", elsewhere, 401, "signature_invalid"),
        ("another query", queried, 401, "signature_invalid"),
        ("another method", renamed, 405, "method_not_allowed"),
        ("another tenant", made().with("x-tenant-id", "tnt_other"), 401, "signature_invalid"),
        ("another principal", made().with("x-principal-id", "mallory"), 401, "signature_invalid"),
        ("another key of the run", made().with("idempotency-key", "key-2"), 401, "signature_invalid"),
        (
            "a header that was not there",
            get.clone().with("x-principal-id", "mallory"),
            401,
            "signature_coverage",
        ),
        ("a way that was not there", get.clone().with("causeway-via", "stk_x/1"), 401, "signature_coverage"),
        ("a cursor that was not there", get.clone().with("last-event-id", "7"), 401, "signature_coverage"),
        ("too old", late.create("key-1"), 401, "signature_expired"),
        ("from the future", early.create("key-1"), 401, "signature_expired"),
        ("no time", without(made(), "created"), 401, "signature_expired"),
        ("no end", without(made(), "expires"), 401, "signature_expired"),
        ("an end before the beginning", with_parameter(made(), "expires", 1), 401, "signature_expired"),
        (
            "too long a life",
            with_parameter(made(), "expires", pair.clock.now_ms() / 1000 + 600),
            401,
            "signature_expired",
        ),
        ("for another gateway", other_place.create("key-1"), 401, "wrong_destination"),
        ("five labels", labels(5), 400, "invalid_request"),
        ("fifty labels", labels(50), 400, "invalid_request"),
    ];
    for component in [
        "@method",
        "@path",
        "@query",
        "content-type",
        "content-digest",
        "causeway-origin",
        "causeway-destination",
        "idempotency-key",
        "x-tenant-id",
        "x-principal-id",
    ] {
        let signed = made();
        let input = signed.headers["signature-input"].to_str().expect("text").to_owned();
        let after = format!("\"{component}\" ");
        let part = if input.contains(&after) { after } else { format!(" \"{component}\"") };
        table.push(("less covered", signed.alter("signature-input", &part, ""), 401, "signature_coverage"));
    }
    for (what, signed, status, code) in table {
        let answer = signed.send_to(&pair.b).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{what}: {}", answer.text);
        if ["too old", "from the future"].contains(&what) {
            let here = answer.json["error"]["details"]["server_time"].as_i64().expect("our time");
            assert!((here - pair.clock.now_ms() / 1000).abs() < 60, "the skew can be seen: {}", answer.text);
        }
        assert!(!answer.header("date").is_empty());
    }
    assert!(pair.home_b.truth().creates().is_empty(), "nothing of it was done");
    // The right one is right, also among others.
    labels(4).send_to(&pair.b).await.expect(201);
    assert_eq!(pair.home_b.truth().runs_created().len(), 1);
}

// reliability 4d.36
#[tokio::test]
pub(crate) async fn a_signed_request_is_taken_once_by_one_gateway() {
    let mut pair = Pair::start_prod().await;
    let (create, read) = (pair.as_a().create("key-1"), pair.as_a().get("/v1/federation/peer"));
    create.send_to(&pair.b).await.expect(201);
    read.send_to(&pair.b).await.expect(200);
    let again = |signed: Signed| {
        let (http, base) = (plain_client(), pair.b.base_url());
        async move { signed.send(&http, &base).await }
    };
    for signed in [&create, &read] {
        assert_eq!(again(signed.clone()).await.expect(401).code(), "signature_replayed");
    }
    // By the other door it is the same request.
    let by_door = create.send(&pair.tls_as_a(), &pair.door_b()).await.expect(401);
    assert_eq!(by_door.code(), "signature_replayed");
    // Twenty at once are taken once.
    let burst = pair.as_a().create("key-2");
    let all = futures_util::future::join_all((0..20).map(|_| again(burst.clone()))).await;
    let taken = all.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(taken, 1, "{:?}", all.iter().map(|answer| answer.status).collect::<Vec<_>>());
    pair.b.restart().await;
    for signed in [&create, &read, &burst] {
        assert_eq!(signed.send_to(&pair.b).await.expect(401).code(), "signature_replayed");
    }
    assert_eq!(pair.home_b.truth().creates().len(), 2);

    // Another gateway that knows the same peer is not meant.
    let mut config = test_config();
    config.gateway.stack_id = PeerId::parse("stk_c").expect("an id");
    config.gateway.profile = causeway::services::options::Profile::Prod;
    let entry = gateway_entry("stk_a", "https://127.0.0.1:1", pair.key_a.public());
    let third = TestGateway::start_with(config, vec![entry]).await;
    assert_eq!(create.send_to(&third).await.expect(401).code(), "wrong_destination");
    let meant = Signer { destination: "stk_c".to_owned(), ..pair.as_a() };
    meant.get("/v1/federation/peer").send_to(&third).await.expect(200);
}

// F-03: over mutual TLS the certificate and the signature are of one peer.
#[tokio::test]
pub(crate) async fn a_certificate_and_a_signature_of_two_peers_admit_nobody() {
    let mut plan = Plan::prod().await;
    let key_c = some_key();
    plan.b.config.peers.push(gateway_entry("stk_c", "https://127.0.0.1:1", key_c.public()));
    let pair = plan.start().await;
    let http = pair.tls_as_a();
    let third = Signer::new(&key_c, "stk_c", "stk_b", &pair.clock);
    let refused = third.create("key-1").send(&http, &pair.door_b()).await.expect(403);
    assert_eq!(refused.code(), "peer_identity_mismatch");
    // Half a proof is none.
    let bare = http.get(format!("{}/v1/federation/peer", pair.door_b())).send().await.expect("an answer");
    let bare = read(bare).await.expect(401);
    assert_eq!(bare.code(), "signature_missing");
    pair.as_a().create("key-1").send(&http, &pair.door_b()).await.expect(201);
    assert_eq!(pair.home_b.truth().creates().len(), 1);
}

/// The order of the group: S and S + ℓ are one number to whoever does not look.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// The signed request with another signature, made of the 64 bytes of its own.
fn resigned(signed: Signed, change: impl FnOnce(&mut [u8])) -> Signed {
    let value = signed.headers["signature"].to_str().expect("text").to_owned();
    let (label, encoded) = value.split_once("=:").expect("a label");
    let mut bytes = STANDARD.decode(encoded.trim_end_matches(':')).expect("base64");
    assert_eq!(bytes.len(), 64);
    change(&mut bytes);
    signed.with("signature", &format!("{label}=:{}:", STANDARD.encode(bytes)))
}

// reliability 4d.38: the corpus is in the unit tests of the key; here it comes over the wire.
#[tokio::test]
pub(crate) async fn a_signature_or_a_key_with_a_second_form_is_refused() {
    let pair = Pair::start_prod().await;
    let made = || pair.as_a().create("key-1");
    let plus_order = |bytes: &mut [u8]| {
        let mut carry = 0;
        for (byte, add) in bytes[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            (*byte, carry) = ((sum & 0xff) as u8, sum >> 8);
        }
        assert_eq!(carry, 0);
    };
    let neutral = |bytes: &mut [u8]| {
        bytes.fill(0);
        bytes[0] = 1;
    };
    let table = [
        ("S and the order", resigned(made(), plus_order)),
        ("R with its other sign", resigned(made(), |bytes| bytes[31] ^= 0x80)),
        ("nothing", resigned(made(), |bytes| bytes.fill(0))),
        ("the neutral element", resigned(made(), neutral)),
        ("all ones", resigned(made(), |bytes| bytes.fill(0xff))),
    ];
    for (what, signed) in table {
        let answer = signed.send_to(&pair.b).await;
        assert_eq!((answer.status, answer.code()), (401, "signature_invalid"), "{what}: {}", answer.text);
    }
    // With a key of small order anybody signs anything: nobody is enrolled with one.
    let operator = Operator::of(&pair.b);
    let peers = pair.b.count_rows("peers");
    let mut identity = [0; 32];
    identity[0] = 1;
    let mut above_the_field = [0xff; 32];
    above_the_field[0] = 0xee;
    for weak in [[0; 32], identity, above_the_field, [2; 32]] {
        let key = format!("ed25519:{}", URL_SAFE_NO_PAD.encode(weak));
        let entry = json!({ "peer_id": "stk_weak", "base_url": "https://127.0.0.1:1", "kind": "gateway",
            "public_key": key, "operations": ["forward_in"], "tenants": ["*"] });
        let answer = operator.post("/v1/federation/peers", &entry).await;
        assert_eq!((answer.status, answer.code()), (400, "invalid_request"), "{key}: {}", answer.text);
        assert!(answer.text.contains("is not a public key"), "{}", answer.text);
    }
    assert_eq!(pair.b.count_rows("peers"), peers);
    assert!(pair.home_b.truth().creates().is_empty());
    made().send_to(&pair.b).await.expect(201);
}
