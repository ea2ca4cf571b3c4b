//! Tokens that hold, and all that do not.

use aws_lc_rs::hmac;
use proptest::prelude::*;
use serde_json::json;

use super::super::jwt_samples::{Issuer, unsigned};
use super::*;

const NOW_S: i64 = 1_800_000_000;
const NOW_MS: i64 = NOW_S * 1000;

fn options() -> JwtOptions {
    JwtOptions { issuer: "https://issuer.test".into(), audience: "causeway".into(), ..JwtOptions::default() }
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer.test", "aud": "causeway", "exp": NOW_S + 600, "nbf": NOW_S - 60,
        "tenant_id": "acme", "sub": "alice", "scope": "runs:forward events:read openid",
    })
}

fn with(member: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[member] = value;
    claims
}

fn without(member: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().expect("an object").remove(member);
    claims
}

fn verifier(issuer: &Issuer) -> JwtVerifier {
    JwtVerifier::new(options(), Some(&issuer.pem()), None).expect("a verifier")
}

fn claim(name: &str) -> JwtError {
    JwtError::Claim(name.to_owned())
}

/// An issuer, its verifier, and what the verifier says of given claims now.
struct Desk {
    issuer: Issuer,
    verifier: JwtVerifier,
}

impl Desk {
    fn new() -> Self {
        Self::with(options())
    }

    fn with(options: JwtOptions) -> Self {
        let issuer = Issuer::ed25519();
        let verifier = JwtVerifier::new(options, Some(&issuer.pem()), None).expect("a verifier");
        Desk { issuer, verifier }
    }

    fn verify(&self, claims: &Value) -> Result<Claims, JwtError> {
        self.verify_at(claims, NOW_MS)
    }

    fn verify_at(&self, claims: &Value, now_ms: i64) -> Result<Claims, JwtError> {
        self.verifier.verify(&self.issuer.sign(&json!({"alg": "EdDSA"}), claims), now_ms)
    }
}

#[test]
fn good_tokens_of_each_algorithm_are_believed() {
    for issuer in [Issuer::ed25519(), Issuer::p256(), Issuer::rsa()] {
        let jwks = json!({"keys": [Issuer::ed25519().jwk("other"), issuer.jwk("this")]}).to_string();
        let by_set = JwtVerifier::new(options(), None, Some(&jwks)).expect("a verifier");
        let token = issuer.sign(&json!({"alg": issuer.algorithm(), "typ": "JWT", "kid": "this"}), &claims());
        for verifier in [verifier(&issuer), by_set] {
            assert_eq!(
                verifier.verify(&token, NOW_MS),
                Ok(Claims {
                    tenant: TenantId::parse("acme").expect("an id"),
                    principal: PrincipalId::parse("alice").expect("an id"),
                    scopes: [Scope::RunsForward, Scope::EventsRead].into_iter().collect(),
                    expires_at_ms: NOW_MS + 600_000,
                })
            );
        }
    }
}

#[test]
fn a_token_cannot_choose_its_algorithm() {
    // reliability 4d.7: garbled credentials of every kind
    let issuers = [Issuer::ed25519(), Issuer::p256(), Issuer::rsa()];
    for issuer in &issuers {
        let verifier = verifier(issuer);
        let pem = issuer.pem();
        for secret in [pem.as_bytes(), pem.trim_end().as_bytes(), &issuer.spki(), b""] {
            let message = unsigned(&json!({"alg": "HS256"}), &claims());
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
            let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag));
            assert_eq!(verifier.verify(&token, NOW_MS), Err(JwtError::Algorithm));
        }
        for alg in ["none", "None", "NONE", "", "eddsa", "ES256K"] {
            let message = unsigned(&json!({"alg": alg}), &claims());
            assert_eq!(verifier.verify(&format!("{message}."), NOW_MS), Err(JwtError::Malformed), "{alg}");
        }
        for alg in ["EdDSA", "ES256", "ES384", "RS256", "RS512", "PS256", "HS512"] {
            let token = issuer.sign(&json!({"alg": alg}), &claims());
            let expected = if alg == issuer.algorithm() { None } else { Some(JwtError::Algorithm) };
            assert_eq!(verifier.verify(&token, NOW_MS).err(), expected, "{alg}");
        }
    }
}

#[test]
fn a_key_in_the_token_is_never_used() {
    let (ours, theirs) = (Issuer::ed25519(), Issuer::ed25519());
    let header = json!({"alg": "EdDSA", "jwk": theirs.jwk("k"), "kid": "k"});
    assert_eq!(verifier(&ours).verify(&theirs.sign(&header, &claims()), NOW_MS), Err(JwtError::Signature));
}

#[test]
fn another_key_or_a_changed_token_is_refused() {
    let desk = Desk::new();
    let header = json!({"alg": "EdDSA"});
    let stranger = Issuer::ed25519().sign(&header, &claims());
    assert_eq!(desk.verifier.verify(&stranger, NOW_MS), Err(JwtError::Signature));

    let token = desk.issuer.sign(&header, &claims());
    let (_, signature) = token.rsplit_once('.').expect("a token");
    let forged = format!("{}.{signature}", unsigned(&header, &with("tenant_id", json!("other"))));
    assert_eq!(desk.verifier.verify(&forged, NOW_MS), Err(JwtError::Signature));
    let cut = token.trim_end_matches(signature);
    assert_eq!(desk.verifier.verify(cut, NOW_MS), Err(JwtError::Signature));
}

#[test]
fn an_unknown_kid_is_refused() {
    let (one, two) = (Issuer::ed25519(), Issuer::ed25519());
    let jwks = json!({"keys": [one.jwk("one"), two.jwk("two")]}).to_string();
    let verifier = JwtVerifier::new(options(), None, Some(&jwks)).expect("a verifier");
    let verify = |header: Value| verifier.verify(&one.sign(&header, &claims()), NOW_MS).err();
    assert_eq!(verify(json!({"alg": "EdDSA", "kid": "one"})), None);
    assert_eq!(verify(json!({"alg": "EdDSA", "kid": "two"})), Some(JwtError::Signature));
    assert_eq!(verify(json!({"alg": "EdDSA", "kid": "three"})), Some(JwtError::UnknownKey));
    assert_eq!(verify(json!({"alg": "EdDSA"})), Some(JwtError::UnknownKey));
    assert_eq!(verify(json!({"alg": "EdDSA", "kid": 1})), Some(JwtError::Malformed));
}

#[test]
fn a_token_lives_from_nbf_to_exp_with_leeway_on_both_ends() {
    // reliability 4d.7: an expired credential
    let desk = Desk::new();
    let claims = with("nbf", json!(NOW_S));
    let end_ms = NOW_MS + 600_000;
    for (now_ms, expected) in [
        (NOW_MS - 30_001, Some(JwtError::NotYet)),
        (NOW_MS - 30_000, None),
        (end_ms + 29_999, None),
        (end_ms + 30_000, Some(JwtError::Expired)),
        (i64::MAX, Some(JwtError::Expired)),
        (i64::MIN, Some(JwtError::NotYet)),
    ] {
        assert_eq!(desk.verify_at(&claims, now_ms).err(), expected, "{now_ms}");
    }
    let strict = Desk::with(JwtOptions { leeway: Duration::ZERO, ..options() });
    assert_eq!(strict.verify_at(&claims, end_ms - 1).err(), None);
    assert_eq!(strict.verify_at(&claims, end_ms), Err(JwtError::Expired));
}

#[test]
fn dates_are_numbers_of_any_size_and_exp_is_required() {
    let desk = Desk::new();
    let expires = |exp: Value| desk.verify(&with("exp", exp)).map(|claims| claims.expires_at_ms);
    assert_eq!(expires(json!(NOW_S as f64 + 1.5)), Ok(NOW_MS + 1500));
    assert_eq!(expires(json!(u64::MAX)), Ok(i64::MAX));
    assert_eq!(expires(json!(1e300)), Ok(i64::MAX));
    for past in [json!(0), json!(-1), json!(-1e300), json!(i64::MIN)] {
        assert_eq!(expires(past), Err(JwtError::Expired));
    }
    for bad in [json!("1900000000"), json!(null), json!([1]), json!(true)] {
        assert_eq!(expires(bad.clone()), Err(claim("exp")), "{bad}");
        assert_eq!(desk.verify(&with("nbf", bad)), Err(claim("nbf")));
    }
    assert_eq!(desk.verify(&without("exp")), Err(claim("exp")));
    assert!(desk.verify(&without("nbf")).is_ok());
}

#[test]
fn issuer_and_audience_must_be_ours() {
    let desk = Desk::new();
    for bad in [json!("https://issuer.test/"), json!(["https://issuer.test"]), json!(null), json!("")] {
        assert_eq!(desk.verify(&with("iss", bad)), Err(JwtError::Issuer));
    }
    assert_eq!(desk.verify(&without("iss")), Err(JwtError::Issuer));
    for bad in
        [json!("other"), json!([]), json!(["other", 1]), json!(null), json!({"causeway": 1}), json!("caus")]
    {
        assert_eq!(desk.verify(&with("aud", bad)), Err(JwtError::Audience));
    }
    assert_eq!(desk.verify(&without("aud")), Err(JwtError::Audience));
    assert!(desk.verify(&with("aud", json!(["other", "causeway"]))).is_ok());
}

#[test]
fn tenant_and_principal_must_be_ids() {
    let desk = Desk::new();
    for name in ["tenant_id", "sub"] {
        assert_eq!(desk.verify(&without(name)), Err(claim(name)));
        for bad in
            [json!(""), json!("a b"), json!("a\r\nb"), json!(7), json!(["acme"]), json!("x".repeat(129))]
        {
            assert_eq!(desk.verify(&with(name, bad)), Err(claim(name)));
        }
    }
}

#[test]
fn claims_may_have_other_names() {
    let desk = Desk::with(JwtOptions {
        tenant_claim: "https://acme.test/org".into(),
        principal_claim: "client_id".into(),
        scopes_claim: "scp".into(),
        ..options()
    });
    let mut claims = claims();
    claims["https://acme.test/org"] = json!("blue");
    claims["client_id"] = json!("robot");
    claims["scp"] = json!(["runs:read", "profile"]);
    let claims = desk.verify(&claims).expect("claims");
    assert_eq!((claims.tenant.as_str(), claims.principal.as_str()), ("blue", "robot"));
    assert_eq!(claims.scopes.to_string(), "runs:read");
}

#[test]
fn scopes_are_words_or_a_list_and_nothing_is_granted_by_default() {
    // reliability 4d.8
    let desk = Desk::new();
    let granted = |claims: Value| desk.verify(&claims).map(|claims| claims.scopes.to_string());
    assert_eq!(granted(without("scope")), Ok(String::new()));
    for (scope, expected) in [
        (json!(""), ""),
        (json!(null), ""),
        (json!([]), ""),
        (json!("openid email"), ""),
        (json!("runs:cancel runs:read"), "runs:read runs:cancel"),
        (json!(["events:ingest", "runs:write"]), "events:ingest"),
        (json!(["runs:read runs:cancel"]), ""),
        (json!("admin:* runs:read"), "runs:read"),
        (json!(["admin:*"]), ""),
    ] {
        assert_eq!(granted(with("scope", scope)), Ok(expected.to_owned()));
    }
    for bad in [json!(1), json!({}), json!(["runs:read", 1]), json!(true)] {
        assert_eq!(granted(with("scope", bad)), Err(claim("scope")));
    }
}

#[test]
fn what_is_no_jwt_is_malformed() {
    // reliability 4d.7: garbled
    let desk = Desk::new();
    let good = desk.issuer.sign(&json!({"alg": "EdDSA"}), &claims());
    let critical = desk.issuer.sign(&json!({"alg": "EdDSA", "crit": ["b64"], "b64": false}), &claims());
    let list = desk.issuer.sign(&json!({"alg": "EdDSA"}), &json!([1]));
    let bad = [
        String::new(),
        ".".into(),
        "..".into(),
        "a.b.c".into(),
        format!("{good}.x"),
        format!("{good}="),
        format!(" {good}"),
        good.replace('.', " "),
        critical,
        list,
    ];
    for token in bad {
        assert_eq!(desk.verifier.verify(&token, NOW_MS), Err(JwtError::Malformed), "{token}");
    }
}

#[test]
fn a_huge_token_is_not_looked_at() {
    let desk = Desk::new();
    let fits = |n: usize| desk.verify(&with("pad", json!("x".repeat(n)))).err();
    assert_eq!(fits(5_000), None);
    assert_eq!(fits(8_192), Some(JwtError::Malformed));
}

#[test]
fn no_error_repeats_the_token() {
    let desk = Desk::new();
    let mut claims = with("tenant_id", json!("s3cret tenant"));
    for (name, value) in [("scope", json!({"s3cret": 1})), ("aud", json!("s3cret")), ("iss", json!("s3cret"))]
    {
        claims[name] = value;
        let error = desk.verify(&claims).expect_err("refused");
        assert!(!format!("{error} {error:?} {}", error.reason()).contains("s3cret"));
    }
    let header = json!({"alg": "s3cret", "kid": "s3cret"});
    let error = desk.verifier.verify(&desk.issuer.sign(&header, &claims), NOW_MS).expect_err("refused");
    assert!(!format!("{error} {error:?}").contains("s3cret"));
}

#[test]
fn a_setup_that_would_believe_too_much_is_refused() {
    let pem = Issuer::ed25519().pem();
    let setup = |options: JwtOptions| JwtVerifier::new(options, Some(&pem), None).expect_err("refused");
    assert_eq!(setup(JwtOptions::default()), JwtSetupError::Empty { option: "issuer" });
    assert_eq!(
        setup(JwtOptions { audience: String::new(), ..options() }),
        JwtSetupError::Empty { option: "audience" }
    );
    assert_eq!(setup(JwtOptions { leeway: Duration::from_secs(301), ..options() }), JwtSetupError::Leeway);
    let sources = |pem, jwks| JwtVerifier::new(options(), pem, jwks).expect_err("refused");
    assert_eq!(sources(None, None), JwtSetupError::OneSource);
    assert_eq!(sources(Some(&*pem), Some("{}")), JwtSetupError::OneSource);
    assert_eq!(
        sources(Some("x"), None).to_string(),
        "`public_key_file`: holds no PEM public key: exactly one block is allowed, `-----BEGIN PUBLIC KEY-----` \
         or `-----BEGIN RSA PUBLIC KEY-----`"
    );
}

#[test]
fn options_read_back_as_written_and_unknown_keys_are_refused() {
    let options = JwtOptions { jwks_file: Some("/etc/causeway/jwks.json".into()), ..options() };
    let text = toml::to_string(&options).expect("toml");
    assert_eq!(toml::from_str::<JwtOptions>(&text).expect("options"), options);
    assert!(options.is_on() && !JwtOptions::default().is_on());
    assert!(toml::from_str::<JwtOptions>("algorithms = ['HS256']").is_err());
}

proptest! {
    #[test]
    fn any_text_is_refused_without_a_panic(text in any::<String>(), parts in "[-_a-zA-Z0-9.]{0,200}") {
        let desk = Desk::new();
        prop_assert!(desk.verifier.verify(&text, NOW_MS).is_err());
        prop_assert!(desk.verifier.verify(&parts, NOW_MS).is_err());
    }

    #[test]
    fn one_changed_character_is_refused(at in any::<prop::sample::Index>(), to in "[-_a-zA-Z0-9.]") {
        let desk = Desk::new();
        let token = desk.issuer.sign(&json!({"alg": "EdDSA"}), &claims());
        let mut changed = token.clone();
        let at = at.index(token.len());
        changed.replace_range(at..=at, &to);
        prop_assert_eq!(desk.verifier.verify(&changed, NOW_MS).is_ok(), changed == token);
    }
}
