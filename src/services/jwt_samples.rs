//! Issuers for tests: fresh key pairs that sign tokens and write their public keys as PEM and JWK.

use std::sync::OnceLock;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// Someone who signs tokens.
pub(super) enum Issuer {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(&'static RsaKeyPair),
}

impl Issuer {
    pub(super) fn ed25519() -> Self {
        Issuer::Ed25519(Ed25519KeyPair::generate().expect("a key"))
    }

    pub(super) fn p256() -> Self {
        Issuer::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"))
    }

    /// Always the same key of one process: making one takes long.
    pub(super) fn rsa() -> Self {
        static KEY: OnceLock<RsaKeyPair> = OnceLock::new();
        Issuer::Rsa(KEY.get_or_init(|| RsaKeyPair::generate(KeySize::Rsa2048).expect("a key")))
    }

    pub(super) fn algorithm(&self) -> &'static str {
        match self {
            Issuer::Ed25519(_) => "EdDSA",
            Issuer::P256(_) => "ES256",
            Issuer::Rsa(_) => "RS256",
        }
    }

    /// A token with a header and claims of the test's choice.
    pub(super) fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = unsigned(header, claims);
        let signature = match self {
            Issuer::Ed25519(key) => key.sign(message.as_bytes()).as_ref().to_vec(),
            Issuer::P256(key) => {
                key.sign(&SystemRandom::new(), message.as_bytes()).expect("signed").as_ref().to_vec()
            }
            Issuer::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                let random = SystemRandom::new();
                key.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).expect("signed");
                signature
            }
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The public key as SubjectPublicKeyInfo.
    pub(super) fn spki(&self) -> Vec<u8> {
        let der: PublicKeyX509Der<'static> = match self {
            Issuer::Ed25519(key) => key.public_key().as_der(),
            Issuer::P256(key) => key.public_key().as_der(),
            Issuer::Rsa(key) => key.public_key().as_der(),
        }
        .expect("der");
        der.as_ref().to_vec()
    }

    pub(super) fn pem(&self) -> String {
        pem("PUBLIC KEY", &self.spki())
    }

    pub(super) fn jwk(&self, kid: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Issuer::Ed25519(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": text(key.public_key().as_ref())})
            }
            Issuer::P256(key) => {
                let point = key.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "alg": "ES256",
                    "x": text(&point[1..33]), "y": text(&point[33..])})
            }
            Issuer::Rsa(key) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(key.public_key());
                json!({"kty": "RSA", "kid": kid, "key_ops": ["verify"],
                    "n": text(&public.n), "e": text(&public.e)})
            }
        }
    }
}

/// Header and claims as they are signed.
pub(super) fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// A PEM block as OpenSSL writes it.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("text")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
