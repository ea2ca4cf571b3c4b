//! Keys as operators give them, good and bad.

use aws_lc_rs::signature::KeyPair;
use base64::Engine;
use jsonwebtoken::Algorithm;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::jwt_samples::{Issuer, pem};
use super::*;

fn set(keys: &[Value]) -> Result<KeySet, KeyError> {
    KeySet::from_jwks(&json!({"keys": keys}).to_string())
}

fn changed(mut jwk: Value, member: &str, value: Value) -> Value {
    jwk[member] = value;
    jwk
}

fn algorithm(keys: &KeySet, kid: Option<&str>) -> Option<Algorithm> {
    keys.select(kid).map(|key| key.algorithm)
}

fn error(keys: Result<KeySet, KeyError>) -> KeyError {
    keys.expect_err("no key")
}

#[test]
fn the_key_alone_decides_the_algorithm() {
    for (issuer, expected) in [
        (Issuer::ed25519(), Algorithm::EdDSA),
        (Issuer::p256(), Algorithm::ES256),
        (Issuer::rsa(), Algorithm::RS256),
    ] {
        let from_pem = KeySet::from_pem(&issuer.pem()).expect("a key");
        assert_eq!(algorithm(&from_pem, None), Some(expected));
        assert_eq!(algorithm(&from_pem, Some("any")), Some(expected), "the key of a PEM file has no name");
        let from_jwks = set(&[issuer.jwk("k")]).expect("a key");
        assert_eq!(algorithm(&from_jwks, Some("k")), Some(expected));
    }
    let Issuer::Rsa(key) = Issuer::rsa() else { unreachable!() };
    let pkcs1 = pem("RSA PUBLIC KEY", key.public_key().as_ref());
    assert_eq!(algorithm(&KeySet::from_pem(&pkcs1).expect("a key"), None), Some(Algorithm::RS256));
}

#[test]
fn a_kid_selects_and_an_unknown_one_selects_nothing() {
    let keys = set(&[Issuer::ed25519().jwk("new"), Issuer::p256().jwk("old")]).expect("keys");
    assert_eq!(algorithm(&keys, Some("new")), Some(Algorithm::EdDSA));
    assert_eq!(algorithm(&keys, Some("old")), Some(Algorithm::ES256));
    assert_eq!(algorithm(&keys, Some("other")), None);
    assert_eq!(algorithm(&keys, None), None, "two keys and no kid: there is nothing to choose by");
    let single = set(&[changed(Issuer::ed25519().jwk(""), "kid", Value::Null)]).expect("a key");
    assert_eq!(algorithm(&single, None), Some(Algorithm::EdDSA));
    assert_eq!(algorithm(&single, Some("other")), None);
}

#[test]
fn keys_of_a_set_that_are_for_something_else_are_passed_over() {
    let other = Issuer::rsa().jwk("rsa");
    let passed_over = [
        json!({"kty": "oct", "kid": "hmac", "k": "c2VjcmV0"}),
        json!({"kty": "EC", "crv": "P-384", "kid": "p384", "x": "AA", "y": "AA"}),
        json!({"kty": "OKP", "crv": "X25519", "kid": "x", "x": "AA"}),
        changed(other.clone(), "use", json!("enc")),
        changed(other.clone(), "alg", json!("PS256")),
        changed(other.clone(), "alg", json!("HS256")),
        changed(other, "key_ops", json!(["encrypt"])),
    ];
    assert_eq!(error(set(&passed_over)), KeyError::NoKey);
    assert_eq!(error(set(&[])), KeyError::NoKey);
    let keys = set(&[&passed_over[..], &[Issuer::ed25519().jwk("ed")]].concat()).expect("keys");
    assert_eq!(algorithm(&keys, None), Some(Algorithm::EdDSA));
}

#[test]
fn damaged_or_weak_keys_of_a_set_are_named() {
    let (ed, ec, rsa) = (Issuer::ed25519().jwk("k"), Issuer::p256().jwk("k"), Issuer::rsa().jwk("k"));
    let small = URL_SAFE_NO_PAD.encode([0xff; 128]);
    for (jwk, expected) in [
        (changed(ed.clone(), "x", json!("AAAA")), KeyError::Member("x")),
        (changed(ed.clone(), "x", json!("=+/")), KeyError::Member("x")),
        (changed(ed.clone(), "d", json!("c2VjcmV0")), KeyError::Private),
        (changed(ec, "y", Value::Null), KeyError::Member("y")),
        (changed(rsa.clone(), "n", json!(small)), KeyError::RsaSize(1024)),
        (changed(rsa.clone(), "n", json!("")), KeyError::RsaSize(0)),
        (changed(rsa.clone(), "e", json!("AQ")), KeyError::RsaExponent),
        (changed(rsa.clone(), "e", json!("AQAA")), KeyError::RsaExponent),
        (changed(rsa, "e", Value::Null), KeyError::Member("e")),
    ] {
        let error = error(set(&[jwk]));
        assert_eq!(error, KeyError::InSet("k".to_owned(), Box::new(expected)));
        assert!(!error.to_string().contains("c2VjcmV0"), "{error}");
    }
    assert_eq!(error(set(&[ed.clone(), ed.clone()])), KeyError::Kid("k".to_owned()));
    let unnamed = changed(ed.clone(), "kid", Value::Null);
    assert_eq!(error(set(&[ed, unnamed])), KeyError::Kid(String::new()));
    for text in
        ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[{"k":"c2VjcmV0"}]}"#, r#"{"keys":["c2VjcmV0"]}"#]
    {
        let error = error(KeySet::from_jwks(text));
        assert!(matches!(error, KeyError::NotJwks { .. }), "{text}");
        assert!(!error.to_string().contains("c2VjcmV0"), "{error}");
    }
}

#[test]
fn what_is_not_one_public_key_of_an_allowed_kind_is_refused() {
    let good = Issuer::ed25519().pem();
    let spki = Issuer::p256().spki();
    let label = |text: &str| KeyError::Label(text.to_owned());
    for (text, expected) in [
        (String::new(), KeyError::NotPem),
        ("ssh-ed25519 AAAA".to_owned(), KeyError::NotPem),
        (good.replace("-----END", "----END"), KeyError::NotPem),
        (format!("{good}{good}"), KeyError::NotPem),
        (good.replace('M', "*"), KeyError::NotPem),
        (pem("PRIVATE KEY", &spki), label("PRIVATE KEY")),
        (pem("EC PRIVATE KEY", &spki), label("EC PRIVATE KEY")),
        (pem("CERTIFICATE", &spki), label("CERTIFICATE")),
        (pem("PUBLIC KEY", &spki[..spki.len() - 1]), KeyError::Unsupported),
        (pem("PUBLIC KEY", b"\x30\x00"), KeyError::Unsupported),
        (pem("PUBLIC KEY", b""), KeyError::Unsupported),
        (pem("RSA PUBLIC KEY", &spki), KeyError::Unsupported),
        (P384.to_owned(), KeyError::Unsupported),
        (RSA_1024.to_owned(), KeyError::RsaSize(1024)),
    ] {
        assert_eq!(error(KeySet::from_pem(&text)), expected, "{text}");
    }
    assert!(KeySet::from_pem(&format!("issuer's key, 2026\r\n{}", good.replace('\n', "\r\n"))).is_ok());
    assert!(KeyError::Unsupported.to_string().contains("Ed25519"));
}

proptest! {
    #[test]
    fn any_text_is_keys_or_an_error(text in any::<String>(), der in any::<Vec<u8>>()) {
        prop_assert!(KeySet::from_pem(&text).is_err());
        prop_assert!(KeySet::from_jwks(&text).is_err());
        prop_assert!(KeySet::from_pem(&pem("PUBLIC KEY", &der)).is_err());
    }
}

const P384: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAESILfTcLuxlKN9RM6p2UAW1RGIX+1EZkU\n\
kvhQ21UaQfENMVufiZB1YdejKCQNNe4Vj26shjI2V9zba6F+qoFQ8sOQWH9tlUaX\n\
8IswpruBnWyfodDqJEB2cMvNIjhRlfi+\n\
-----END PUBLIC KEY-----\n\
";
const RSA_1024: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCa9S+MjGUpNdzdniPjPXz9R2F+\n\
mQeQHx2hcrfMiQjeMEHO7VLh835rglwSb14pVI8suoXWIWO/G/O8CSo2LLx0qT25\n\
11cjGu5jbbRK69Xbtla+If8iw3Toq1EVjg+hf6LQAyINreX2gUpLXzxDY/MypRtr\n\
E9mIXVOXi1KLy5cQ4wIDAQAB\n\
-----END PUBLIC KEY-----\n\
";
