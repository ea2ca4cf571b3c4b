//! Keys against RFC 8032, RFC 8410 and RFC 9421, and signatures built to slip through a lenient verifier.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use ed25519_dalek::{Signature, Verifier, VerifyingKey};
use proptest::prelude::*;
use sha2::{Digest, Sha512};

use super::key::{InvalidKey, KeyId, PublicKey, SigningKey};

/// RFC 9421, B.1.4.
const RFC_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n\
    -----END PRIVATE KEY-----\n";
const RFC_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=\n\
    -----END PUBLIC KEY-----\n";
const RFC_TEXT: &str = "ed25519:JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs";

/// The order of the group, little endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

/// Field prime 2^255 - 19 plus `n`, little endian: an encoding above the field for n < 19.
fn prime_plus(n: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = 0xed + n;
    bytes[31] = 0x7f;
    bytes
}

fn challenge(r: &[u8; 32], key: &[u8; 32], message: &[u8]) -> Scalar {
    let digest = Sha512::new().chain_update(r).chain_update(key).chain_update(message).finalize();
    Scalar::from_bytes_mod_order_wide(&digest.into())
}

fn joined(r: [u8; 32], s: [u8; 32]) -> [u8; 64] {
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&r);
    signature[32..].copy_from_slice(&s);
    signature
}

/// `a + b` of 32-byte little endian numbers; the carry out is lost.
fn plus(a: &[u8], b: &[u8]) -> [u8; 32] {
    let mut carry = 0;
    std::array::from_fn(|at| {
        carry += u16::from(a[at]) + u16::from(b[at]);
        let byte = carry as u8;
        carry >>= 8;
        byte
    })
}

#[test]
fn a_seed_makes_the_key_and_signature_of_rfc_8032() {
    let seed: [u8; 32] =
        hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").try_into().unwrap();
    let key = SigningKey::from_seed(&seed);
    let public = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    let signature = hex("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bac\
                         c61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b");
    assert_eq!(key.public().as_bytes().as_slice(), public);
    assert_eq!(key.sign(b"").as_slice(), signature);
    assert!(key.public().verify(b"", &signature));
    assert!(!key.public().verify(b"x", &signature));
}

#[test]
fn text_pem_and_der_are_one_key() {
    let (secret, public) =
        (SigningKey::from_pkcs8_pem(RFC_PRIVATE).unwrap(), PublicKey::from_pem(RFC_PUBLIC).unwrap());
    assert_eq!(*secret.public(), public);
    assert_eq!(*secret.to_pkcs8_pem(), *RFC_PRIVATE);
    assert_eq!(public.to_string(), RFC_TEXT);
    assert_eq!(RFC_TEXT.parse(), Ok(public));
    assert_eq!(PublicKey::from_bytes(public.as_bytes()), Ok(public));
    assert_eq!(public.spki_der().len(), 44);
    assert!(RFC_PUBLIC.contains(&STANDARD.encode(public.spki_der())));
    let json = serde_json::to_string(&public).unwrap();
    assert_eq!(json, format!("\"{RFC_TEXT}\""));
    assert_eq!(serde_json::from_str::<PublicKey>(&json).unwrap(), public);
}

#[test]
fn a_key_id_is_the_start_of_the_keys_hash() {
    let public = PublicKey::parse(RFC_TEXT).unwrap();
    // openssl pkey -pubin -outform DER | tail -c 32 | openssl dgst -sha256 -binary | base64
    assert_eq!(public.key_id().to_string(), "sWwtG-rRJiY5dk_b");
    assert_eq!(KeyId::parse("sWwtG-rRJiY5dk_b"), Ok(public.key_id()));
    assert_eq!(serde_json::to_string(&public.key_id()).unwrap(), "\"sWwtG-rRJiY5dk_b\"");
    for bad in
        ["", "sWwtG-rRJiY5dk_", "sWwtG-rRJiY5dk_bx", "sWwtG-rRJiY5dk/b", "sWwtG-rRJiY5 k_b", "sWwtG-rRJiéY5d"]
    {
        assert_eq!(KeyId::parse(bad), Err(InvalidKey::KeyId), "{bad:?}");
        assert!(serde_json::from_value::<KeyId>(bad.into()).is_err());
    }
}

#[test]
fn nothing_of_a_secret_is_shown() {
    let secret = SigningKey::from_pkcs8_pem(RFC_PRIVATE).unwrap();
    assert_eq!(format!("{secret:?}"), "SigningKey(sWwtG-rRJiY5dk_b)");
    assert_eq!(secret.clone().public(), secret.public());
}

#[test]
fn what_is_not_a_key_is_refused_and_the_form_is_said() {
    let encoded = &RFC_TEXT["ed25519:".len()..];
    for bad in [
        "",
        encoded,
        &format!("ED25519:{encoded}"),
        &format!("ed25519:{encoded}="),
        &format!("ed25519: {encoded}"),
        &RFC_TEXT[..50],
        &RFC_TEXT.replace('_', "/"),
        // the last character holds two bits that belong to no byte
        &RFC_TEXT.replace("D0bs", "D0bt"),
        "ed25519:éééééééééééééééééééééé",
    ] {
        assert_eq!(PublicKey::parse(bad), Err(InvalidKey::Text), "{bad:?}");
    }
    assert!(InvalidKey::Text.to_string().contains("`ed25519:` and 43 characters"));
    for bad in [
        "",
        RFC_PRIVATE,
        &RFC_PUBLIC.replace("PUBLIC", "RSA PUBLIC"),
        &RFC_PUBLIC.replace("K2Vw", "K2Vu"), // X25519
        &RFC_PUBLIC[..80],
        &format!("{RFC_PUBLIC}{}", "\n".repeat(5000)),
    ] {
        assert_eq!(PublicKey::from_pem(bad), Err(InvalidKey::PublicPem), "{bad:?}");
        assert_eq!(
            SigningKey::from_pkcs8_pem(&bad.replace("PRIVATE", "X")).err(),
            Some(InvalidKey::PrivatePem)
        );
    }
    // PKCS#8 version 2 whose public key is another secret's
    let mut der = hex("3051020101300506032b657004220420");
    der.extend([7; 32]);
    der.extend(hex("812100"));
    let pem = |public: &[u8]| {
        let der = [der.as_slice(), public].concat();
        format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            wrapped(&STANDARD.encode(der))
        )
    };
    assert!(SigningKey::from_pkcs8_pem(&pem(key().public().as_bytes())).is_ok());
    let other = SigningKey::from_seed(&[8; 32]);
    assert_eq!(
        SigningKey::from_pkcs8_pem(&pem(other.public().as_bytes())).err(),
        Some(InvalidKey::PrivatePem)
    );
}

fn wrapped(text: &str) -> String {
    text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect::<Vec<_>>().join("\n")
}

#[test]
fn keys_with_which_anybody_signs_are_refused() {
    // reliability 4d.38
    for point in EIGHT_TORSION {
        let bytes = point.compress().to_bytes();
        assert_eq!(PublicKey::from_bytes(&bytes), Err(InvalidKey::Weak), "{point:?}");
        // the signature (R = S = 0) that a lenient verifier takes from this key for one message in eight or more
        let lenient = VerifyingKey::from_bytes(&bytes).unwrap();
        let forged = Signature::from_bytes(&joined(EIGHT_TORSION[0].compress().to_bytes(), [0; 32]));
        assert!((0..100_u8).any(|n| lenient.verify(&[n], &forged).is_ok()));
    }
    // a good key with a part of small order: two encodings of one secret
    for point in &EIGHT_TORSION[1..] {
        let mixed = VerifyingKey::from_bytes(key().public().as_bytes()).unwrap().to_edwards() + point;
        assert_eq!(PublicKey::from_bytes(&mixed.compress().to_bytes()), Err(InvalidKey::Weak));
    }
    // every encoding above the field, with either sign; and zero with a sign
    for n in 0..19 {
        let mut bytes = prime_plus(n);
        assert_eq!(PublicKey::from_bytes(&bytes), Err(InvalidKey::NotAPoint));
        bytes[31] |= 0x80;
        assert_eq!(PublicKey::from_bytes(&bytes), Err(InvalidKey::NotAPoint));
    }
    let mut signed_one = [0; 32];
    (signed_one[0], signed_one[31]) = (1, 0x80);
    assert_eq!(PublicKey::from_bytes(&signed_one), Err(InvalidKey::NotAPoint));
    assert_eq!(PublicKey::from_bytes(&[2; 32]), Err(InvalidKey::NotAPoint));
}

#[test]
fn a_signature_has_one_form() {
    // reliability 4d.38
    let (key, message) = (key(), b"run".as_slice());
    let good = key.sign(message);
    let refused = |signature: &[u8]| !key.public().verify(message, signature);
    assert!(!refused(&good));
    let mut s: [u8; 32] = good[32..].try_into().unwrap();
    for _ in 0..15 {
        s = plus(&s, &ORDER); // S + n·ℓ: the same number to who does not look
        assert!(refused(&joined(good[..32].try_into().unwrap(), s)));
    }
    for length in [0, 1, 31, 32, 63] {
        assert!(refused(&good[..length]));
    }
    assert!(refused(&[good.as_slice(), &[0]].concat()));
    let mut minus = good;
    minus[31] ^= 0x80;
    assert!(refused(&minus));
}

#[test]
fn a_small_order_r_is_refused() {
    // reliability 4d.38: S = k·a with R of small order; the holder of a key can make it fit any verifier
    let secret = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    let (key, a) = (key(), secret.to_scalar());
    let lenient = secret.verifying_key();
    let mut accepted_by_lenient = 0;
    for point in EIGHT_TORSION {
        let r = point.compress().to_bytes();
        let s = challenge(&r, key.public().as_bytes(), b"run") * a;
        let signature = joined(r, s.to_bytes());
        assert!(!key.public().verify(b"run", &signature));
        accepted_by_lenient +=
            usize::from(lenient.verify(b"run", &Signature::from_bytes(&signature)).is_ok());
    }
    assert_eq!(accepted_by_lenient, 1, "the neutral element fits the plain equation");
}

#[test]
fn r_must_be_canonical_and_of_the_large_order_alone() {
    // reliability 4d.38
    let (key, message) = (key(), b"run");
    let a = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).to_scalar();
    let nonce = Scalar::from(12_345_u64);
    let signed =
        |r: [u8; 32]| joined(r, (nonce + challenge(&r, key.public().as_bytes(), message) * a).to_bytes());
    let r: EdwardsPoint = nonce * ED25519_BASEPOINT_POINT;
    assert!(key.public().verify(message, &signed(r.compress().to_bytes())));
    for point in &EIGHT_TORSION[1..] {
        assert!(!key.public().verify(message, &signed((r + point).compress().to_bytes())));
    }
    for n in 0..19 {
        assert!(!key.public().verify(message, &signed(prime_plus(n))));
    }
    // all pairs of special values
    let specials = [
        [0; 32],
        plus(&[0; 32], &[&[1_u8], [0_u8; 31].as_slice()].concat()),
        ORDER,
        prime_plus(0),
        [0xff; 32],
    ];
    for (r, s) in specials.iter().flat_map(|r| specials.iter().map(move |s| (*r, *s))) {
        assert!(!key.public().verify(message, &joined(r, s)));
    }
}

proptest! {
    #[test]
    fn any_flipped_bit_is_refused(seed: [u8; 32], message in proptest::collection::vec(any::<u8>(), 1..64), at: usize) {
        let key = SigningKey::from_seed(&seed);
        let signature = key.sign(&message);
        prop_assert!(key.public().verify(&message, &signature));
        let (mut other, mut forged, mut public) = (message.clone(), signature, *key.public().as_bytes());
        other[at / 8 % message.len()] ^= 1 << (at % 8);
        forged[at / 8 % 64] ^= 1 << (at % 8);
        public[at / 8 % 32] ^= 1 << (at % 8);
        prop_assert!(!key.public().verify(&other, &signature));
        prop_assert!(!key.public().verify(&message, &forged));
        prop_assert!(!PublicKey::from_bytes(&public).is_ok_and(|key| key.verify(&message, &signature)));
    }

    /// Whatever is read is written the same, in every form.
    #[test]
    fn every_key_reads_back(seed: [u8; 32]) {
        let key = SigningKey::from_seed(&seed);
        let read = SigningKey::from_pkcs8_pem(&key.to_pkcs8_pem()).unwrap();
        prop_assert_eq!(read.public(), key.public());
        prop_assert_eq!(PublicKey::parse(&key.public().to_string()), Ok(*key.public()));
        prop_assert_eq!(KeyId::parse(key.public().key_id().as_str()), Ok(key.public().key_id()));
    }

    #[test]
    fn bytes_that_read_as_a_key_are_its_only_form(bytes: [u8; 32]) {
        if let Ok(key) = PublicKey::from_bytes(&bytes) {
            prop_assert_eq!(key.as_bytes(), &bytes);
        }
    }
}
