//! The profile against RFC 9421, and the table of refusals.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue};

use super::components::base;
use super::*;
use crate::domain::key::PublicKey;

/// A request as it stands on the wire.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

pub(super) const NOW_S: i64 = 1_766_182_536;
pub(super) const WHEN: When = When { created_s: NOW_S, lifetime_s: 60, nonce: [9; 16] };

impl Request {
    /// A forward with every header of the profile.
    pub(super) fn full() -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "application/json"),
            ("causeway-origin", "gw_a"),
            ("causeway-destination", "gw_b"),
            ("causeway-instance", "ins_1"),
            ("idempotency-key", "\"fwd_1\""),
            ("x-tenant-id", "acme"),
            ("x-principal-id", "alice"),
            ("causeway-via", "gw_x"),
            ("last-event-id", "41"),
            ("host", "gw-b.example"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.append("causeway-via", HeaderValue::from_static("gw_y"));
        Request {
            method: "POST".into(),
            path: "/v1/runs/a%2Fb".into(),
            query: Some("after_sequence=3&x=%20".into()),
            headers,
            body: b"{\"task\":\"go\"}".to_vec(),
        }
    }

    /// A read with nothing but what is always there.
    pub(super) fn bare() -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("causeway-origin", HeaderValue::from_static("gw_a"));
        headers.insert("causeway-destination", HeaderValue::from_static("gw_b"));
        Request { method: "GET".into(), path: "/v1/peer".into(), query: None, headers, body: Vec::new() }
    }

    pub(super) fn sign(mut self, key: &SigningKey, when: &When) -> Self {
        let body = (!self.body.is_empty()).then_some(self.body.as_slice());
        sign(&self.method, &self.path, self.query.as_deref(), &mut self.headers, body, key, when).unwrap();
        self
    }

    pub(super) fn parts(&self) -> SignedParts<'_> {
        SignedParts {
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
        }
    }

    /// Every check, as a server makes them.
    pub(super) fn check(&self, key: &PublicKey) -> Result<Claim, SignatureError> {
        let claim = parse(&self.parts())?;
        claim.check_time(NOW_S * 1000)?;
        claim.verify(key)?;
        claim.check_digest(&self.body)?;
        Ok(claim)
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, HeaderValue::from_str(value).unwrap());
        self
    }

    pub(super) fn and(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    pub(super) fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    /// Rewrites a header.
    fn edit(self, name: &'static str, change: impl Fn(&str) -> String) -> Self {
        let value = change(self.headers[name].to_str().unwrap());
        self.with(name, &value)
    }

    /// Rewrites `Signature-Input` and signs again, as a peer with its own idea of the profile would.
    fn resign(self, key: &SigningKey, change: impl Fn(&str) -> String) -> Self {
        let signed = self.edit("signature-input", change);
        let text = signed.headers["signature-input"].to_str().unwrap().strip_prefix("causeway=").unwrap();
        let all = components::covered(&signed.parts()).unwrap();
        let listed: Vec<_> =
            all.into_iter().filter(|(name, _)| text.contains(&format!("\"{name}\""))).collect();
        let signature = key.sign(base(&listed, text).as_bytes());
        signed.with("signature", &format!("causeway=:{}:", STANDARD.encode(signature)))
    }
}

pub(super) fn key() -> SigningKey {
    SigningKey::from_seed(&[3; 32])
}

pub(super) fn signed() -> Request {
    static SIGNED: LazyLock<Request> = LazyLock::new(|| Request::full().sign(&key(), &WHEN));
    SIGNED.clone()
}

pub(super) fn refusal(request: &Request) -> SignatureError {
    request.check(key().public()).expect_err("a refusal")
}

#[test]
fn the_base_and_the_signature_are_those_of_rfc_9421() {
    // B.2.6 with the key of B.1.4
    let covered = [
        ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
        ("@method", "POST"),
        ("@path", "/foo"),
        ("@authority", "example.com"),
        ("content-type", "application/json"),
        ("content-length", "18"),
    ];
    let params = "(\"date\" \"@method\" \"@path\" \"@authority\" \"content-type\" \"content-length\")\
                  ;created=1618884473;keyid=\"test-key-ed25519\"";
    let expected = format!(
        "\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n\"@method\": POST\n\"@path\": /foo\n\
         \"@authority\": example.com\n\"content-type\": application/json\n\"content-length\": 18\n\
         \"@signature-params\": {params}"
    );
    let text = base(&covered.map(|(name, value)| (name, value.to_owned())), params);
    assert_eq!(text, expected);

    let key = PublicKey::parse("ed25519:JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs").unwrap();
    let signature =
        "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==";
    assert!(key.verify(text.as_bytes(), &STANDARD.decode(signature).unwrap()));

    // the member of the same header reads back as that text
    let header = format!("sig-b26={params}, sig-b27=(\"date\");created=1");
    let (found, _) = fields::member(&header, "sig-b26").unwrap().unwrap();
    assert_eq!(found, params);
}

#[test]
fn values_are_those_of_rfc_9421() {
    // 2.1: trimmed, joined, empty; 2.2.7: a lone `?`
    let request = Request::bare()
        .with("causeway-via", "  gw_1 \t")
        .and("causeway-via", "")
        .and("causeway-via", "gw_2,  gw_3")
        .with("x-tenant-id", "");
    let covered = components::covered(&request.parts()).unwrap();
    let value = |name| covered.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str());
    assert_eq!(value("causeway-via"), Some("gw_1, , gw_2,  gw_3"));
    assert_eq!(value("x-tenant-id"), Some(""));
    assert_eq!(value("@query"), Some("?"));
    assert_eq!(value("@path"), Some("/v1/peer"));
}

#[test]
fn what_is_signed_passes() {
    //
    let full = signed();
    assert!(is_signed(&full.headers) && !is_signed(&Request::full().headers));
    let claim = full.check(key().public()).unwrap();
    assert_eq!(claim.key_id, key().public().key_id());
    assert_eq!((claim.created_s, claim.expires_s), (NOW_S, NOW_S + 60));
    assert_eq!(claim.nonce, "CQkJCQkJCQkJCQkJCQkJCQ");
    assert_eq!(
        full.headers["signature-input"],
        format!(
            "causeway=(\"@method\" \"@path\" \"@query\" \"content-type\" \"content-digest\" \"causeway-origin\" \
             \"causeway-destination\" \"causeway-instance\" \"idempotency-key\" \"x-tenant-id\" \
             \"x-principal-id\" \"causeway-via\" \"last-event-id\");created=1766182536;expires=1766182596;\
             nonce=\"CQkJCQkJCQkJCQkJCQkJCQ\";alg=\"ed25519\";keyid=\"{}\";tag=\"causeway-v1\"",
            key().public().key_id()
        )
    );
    assert!(Request::bare().sign(&key(), &WHEN).check(key().public()).is_ok());
}

#[test]
fn a_proxy_may_rewrite_the_host_and_add_what_is_not_ours() {
    let passed = signed().with("host", "inner").with("x-forwarded-for", "192.0.2.1").without("user-agent");
    assert!(passed.check(key().public()).is_ok());
    // RFC 9421, 4.3: a proxy adds its own signature
    let passed = passed
        .edit("signature-input", |ours| format!("proxy=( \"x\"  );a=\", causeway=\" , {ours}"))
        .edit("signature", |ours| format!("proxy=:AA:,{ours}"));
    assert!(passed.check(key().public()).is_ok());
}

#[test]
fn only_what_can_be_signed_is_signed() {
    let sign = |request: &Request, when: &When| {
        let mut headers = request.headers.clone();
        sign(&request.method, &request.path, request.query.as_deref(), &mut headers, None, &key(), when)
    };
    let bare = Request::bare();
    assert_eq!(sign(&bare, &WHEN), Ok(()));
    for (created_s, lifetime_s) in [(NOW_S, 61), (NOW_S, -1), (-1, 1), (i64::MAX, 1), (NOW_S, i64::MAX)] {
        assert_eq!(sign(&bare, &When { created_s, lifetime_s, ..WHEN }), Err(SignatureError::Lifetime));
    }
    assert_eq!(
        sign(&bare.clone().without("causeway-destination"), &WHEN),
        Err(SignatureError::Coverage("causeway-destination"))
    );
    let path = |path: &str| sign(&Request { path: path.into(), ..bare.clone() }, &WHEN);
    assert_eq!(path("/a\n\"@query\": ?"), Err(SignatureError::Value("@path")));
    assert_eq!(path("/é"), Err(SignatureError::Value("@path")));
    assert!(matches!(path("a"), Err(SignatureError::Malformed(_))));
    let query = Request { query: Some("a b".into()), ..bare.clone() };
    assert_eq!(sign(&query, &WHEN), Err(SignatureError::Value("@query")));
    let umlaut = bare.clone().with("x-principal-id", "é");
    assert_eq!(sign(&umlaut, &WHEN), Err(SignatureError::Value("x-principal-id")));
    let twice = bare.and("causeway-origin", "gw_c");
    assert_eq!(sign(&twice, &WHEN), Err(SignatureError::Repeated("causeway-origin")));
}

/// Which refusals a row of the table allows.
type Refused = fn(SignatureError) -> bool;

#[test]
fn reliability_4d_32_to_38() {
    use SignatureError as E;
    let malformed: Refused = |error| matches!(error, E::Malformed(_));
    let replaced = |name: &'static str, from: &str, to: &str| {
        let edited = signed().edit(name, |value| value.replace(from, to));
        assert_ne!(edited.headers[name], signed().headers[name], "{from} is not there");
        edited
    };
    let resigned = |from: &str, to: &str| signed().resign(&key(), |value| value.replace(from, to));
    let at =
        |created_s: i64, lifetime_s| Request::full().sign(&key(), &When { created_s, lifetime_s, ..WHEN });
    let rows: Vec<(&str, Request, Refused)> = vec![
        ("32 no signature", Request::full(), |e| e == E::Missing),
        ("32 no Signature", signed().without("signature"), |e| e == E::Missing),
        ("32 no Signature-Input", signed().without("signature-input"), |e| e == E::Missing),
        ("32 another label", replaced("signature-input", "causeway=(", "sig1=("), |e| e == E::Missing),
        ("32 bad base64", replaced("signature", "=:", "=:*"), malformed),
        ("32 no bytes", signed().with("signature", "causeway=\"AA\""), malformed),
        (
            "32 63 bytes",
            signed().with("signature", &format!("causeway=:{}:", STANDARD.encode([1; 63]))),
            malformed,
        ),
        ("32 a parameter", signed().edit("signature", |value| format!("{value};x")), malformed),
        ("32 key id of another form", resigned("keyid=\"", "keyid=\"x"), malformed),
        ("32 no key id", resigned(";keyid=", ";key="), malformed),
        ("32 another key's id", resigned(key().public().key_id().as_str(), "AAAAAAAAAAAAAAAA"), |e| {
            e == E::Invalid
        }),
        ("32 rsa", resigned("ed25519", "rsa-v1_5-sha256"), |e| e == E::Algorithm),
        ("32 hmac", resigned("\"ed25519\"", "\"hmac-sha256\""), |e| e == E::Algorithm),
        ("32 alg as a token", resigned("\"ed25519\"", "ed25519"), |e| e == E::Algorithm),
        ("32 no alg", resigned(";alg=\"ed25519\"", ""), |e| e == E::Algorithm),
        ("32 another tag", resigned("causeway-v1", "causeway-v2"), |e| e == E::Tag),
        ("32 an unknown parameter", resigned(";tag=", ";x=1;tag="), malformed),
        ("33 no digest", resigned(" \"content-digest\"", ""), |e| e == E::Coverage("content-digest")),
        ("33 no query", resigned(" \"@query\"", ""), |e| e == E::Coverage("@query")),
        ("33 no method", resigned("\"@method\" ", ""), |e| e == E::Coverage("@method")),
        ("33 no destination", resigned(" \"causeway-destination\"", ""), |e| {
            e == E::Coverage("causeway-destination")
        }),
        ("33 no tenant", resigned(" \"x-tenant-id\"", ""), |e| e == E::Coverage("x-tenant-id")),
        ("33 too much", resigned("\"@method\"", "\"@method\" \"@authority\""), |e| e == E::Components),
        ("33 twice", resigned("\"@method\"", "\"@method\" \"@method\""), |e| e == E::Components),
        ("33 another order", resigned("\"@method\" \"@path\"", "\"@path\" \"@method\""), |e| {
            e == E::Components
        }),
        ("33 a component's parameter", resigned("\"@path\"", "\"@path\";req"), malformed),
        ("33 no list", signed().with("signature-input", "causeway=1"), malformed),
        (
            "33 body without digest",
            {
                let mut request = Request::bare().sign(&key(), &WHEN);
                request.body = b"{}".to_vec();
                request
            },
            |e| e == E::Coverage("content-digest"),
        ),
        ("34 body", Request { body: b"{\"task\":\"no\"}".to_vec(), ..signed() }, |e| e == E::DigestMismatch),
        ("34 no body", Request { body: Vec::new(), ..signed() }, |e| e == E::DigestMismatch),
        ("34 another digest", signed().with("content-digest", &digest::content_digest(b"x")), |e| {
            e == E::Invalid
        }),
        ("34 two digests", signed().and("content-digest", &digest::content_digest(b"x")), |e| {
            e == E::Repeated("content-digest")
        }),
        ("34 sha-1", signed().with("content-digest", "sha=:qqlAJmTxpB9A67xSyZk+tmrrNmY=:"), |e| {
            e == E::Digest
        }),
        ("34 md5", signed().with("content-digest", "md5=:rL0Y20zC+Fzt72VPzMSk2A==:"), |e| e == E::Digest),
        ("35 61 s old", at(NOW_S - 61, 60), |e| matches!(e, E::Expired { now_s: NOW_S, .. })),
        ("35 61 s ahead", at(NOW_S + 61, 60), |e| matches!(e, E::Expired { .. })),
        ("35 over", at(NOW_S - 11, 10), |e| matches!(e, E::Expired { .. })),
        ("35 no created", resigned(";created=1766182536", ""), |e| e == E::Lifetime),
        ("35 no expires", resigned(";expires=1766182596", ""), |e| e == E::Lifetime),
        ("35 created as text", resigned("1766182536", "\"1766182536\""), |e| e == E::Lifetime),
        ("35 created as decimal", resigned("1766182536", "1766182536.0"), |e| e == E::Lifetime),
        ("35 ends before it starts", resigned("1766182596", "1766182535"), |e| e == E::Lifetime),
        ("35 holds 61 s", resigned("1766182596", "1766182597"), |e| e == E::Lifetime),
        ("35 far past", resigned("1766182536", "-999999999999999"), |e| e == E::Lifetime),
        ("36 to another gateway", signed().with("causeway-destination", "gw_c"), |e| e == E::Invalid),
        ("36 another nonce", replaced("signature-input", "CQkJ", "CgkJ"), |e| e == E::Invalid),
        ("36 no nonce", resigned(";nonce=\"CQkJCQkJCQkJCQkJCQkJCQ\"", ""), malformed),
        ("36 a short nonce", resigned("CQkJCQkJCQkJCQkJCQkJCQ", "CQkJ"), malformed),
        ("36 a loose nonce", resigned("CQkJCQkJCQkJCQkJCQkJCQ", "CQkJCQkJCQkJCQkJCQkJCR"), malformed),
        (
            "37 a good one elsewhere",
            {
                let bad = signed().edit("signature-input", |ours| format!("good={}, {ours}", &ours[9..]));
                let forged = format!("causeway=:{}:", STANDARD.encode([1; 64]));
                bad.edit("signature", |ours| format!("good={}, {forged}", &ours[9..]))
            },
            |e| e == E::Invalid,
        ),
        ("37 our label twice", signed().edit("signature-input", |ours| format!("{ours}, {ours}")), malformed),
        ("37 our label in two lines", signed().and("signature", "causeway=:AA==:"), malformed),
        ("37 five labels", signed().and("signature", "a=1, b=2, c=3, d=4"), |e| e == E::TooManyLabels),
        ("37 50 labels", signed().and("signature-input", &vec!["a=()"; 50].join(",")), |e| {
            e == E::TooManyLabels
        }),
        ("37 9 KiB", signed().with("signature", &"a".repeat(9000)), |e| e == E::Value("signature")),
        ("38 S not reduced", signed().edit("signature", with_order_added), |e| e == E::Invalid),
    ];
    for (row, request, allowed) in rows {
        let error = refusal(&request);
        assert!(allowed(error), "{row}: {error:?}");
        assert!(!error.to_string().is_empty());
    }
    // the same, good to the edge
    for (created_s, lifetime_s) in [(NOW_S - 60, 60), (NOW_S + 60, 60), (NOW_S, 0), (NOW_S + 60, 0)] {
        assert!(at(created_s, lifetime_s).check(key().public()).is_ok(), "{created_s}+{lifetime_s}");
    }
    assert!(
        resigned(";created=1766182536;expires=1766182596", ";expires=1766182596;created=1766182536")
            .check(key().public())
            .is_ok()
    );
    assert_eq!(signed().check(SigningKey::from_seed(&[4; 32]).public()).err(), Some(E::Invalid));
}

fn with_order_added(signature: &str) -> String {
    const ORDER: [u8; 16] =
        [0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14];
    let text = signature.trim_start_matches("causeway=:").trim_end_matches(':');
    let mut bytes = STANDARD.decode(text).unwrap();
    let mut carry = 0;
    for at in 0..32 {
        let add = if at == 31 { 0x10 } else { ORDER.get(at).copied().unwrap_or(0) };
        carry += u16::from(bytes[32 + at]) + u16::from(add);
        bytes[32 + at] = carry as u8;
        carry >>= 8;
    }
    format!("causeway=:{}:", STANDARD.encode(bytes))
}

#[test]
fn times_never_overflow() {
    let claim = parse(&signed().parts()).unwrap();
    for now_ms in [i64::MIN, -1, 0, NOW_S * 1000 + 60_001, NOW_S * 1000 - 60_001, i64::MAX] {
        assert!(matches!(claim.check_time(now_ms), Err(SignatureError::Expired { .. })), "{now_ms}");
    }
    for now_ms in [NOW_S * 1000 + 60_000, NOW_S * 1000 - 60_000] {
        assert_eq!(claim.check_time(now_ms), Ok(()));
    }
}
