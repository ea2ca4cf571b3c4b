//! How a gateway proves itself to one that asks: it signs the nonce of the request, and for whom.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::domain::key::{PublicKey, SigningKey};

/// The signature of `from`, who was asked, for `to`, who asked with this nonce.
pub fn make(key: &SigningKey, (from, to): (&str, &str), nonce: &str) -> String {
    URL_SAFE_NO_PAD.encode(key.sign(text(from, to, nonce).as_bytes()))
}

/// True when `signature` is such a proof.
pub fn holds(key: &PublicKey, (from, to): (&str, &str), nonce: &str, signature: &str) -> bool {
    URL_SAFE_NO_PAD
        .decode(signature)
        .is_ok_and(|signature| key.verify(text(from, to, nonce).as_bytes(), &signature))
}

fn text(from: &str, to: &str, nonce: &str) -> String {
    format!("causeway-peer-proof-v1\n{from}\n{to}\n{nonce}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_for_one_request_between_two_gateways() {
        //
        let (key, other) = (SigningKey::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32]));
        let proof = make(&key, ("b", "a"), "n1");
        assert!(holds(key.public(), ("b", "a"), "n1", &proof));
        assert!(!holds(other.public(), ("b", "a"), "n1", &proof));
        assert!(!holds(key.public(), ("b", "c"), "n1", &proof));
        assert!(!holds(key.public(), ("a", "b"), "n1", &proof));
        assert!(!holds(key.public(), ("b", "a"), "n2", &proof));
        assert!(!holds(key.public(), ("b", "a"), "n1", "é"));
    }
}
