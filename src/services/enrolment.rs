//! What an operator decided of a peer, and the keys that follow from it.

use super::peer_options::PeerOptions;
use crate::domain::grants::Grants;
use crate::domain::key::PublicKey;
use crate::domain::policy::Standing;
use crate::tls::SpkiPin;

/// What an operator decided of a peer, as it stands now.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// Its entry.
    pub options: PeerOptions,
    /// The domain it belongs to.
    pub domain: String,
    /// Where its runs run; empty: nobody said.
    pub region: String,
    /// What it may do.
    pub grants: Grants,
    /// Whether it takes part.
    pub standing: Standing,
    /// Why, when it does not.
    pub reason: String,
    /// Keys it may use besides the one of its entry: it announced them, signed with one it had.
    pub learned: Vec<LearnedKey>,
    /// Named by the configuration: the operator API cannot change its entry.
    pub is_configured: bool,
}

/// A key that a peer announced.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LearnedKey {
    /// The key.
    pub public_key: PublicKey,
    /// From then on the key before it counts no more, if this one is in use, in milliseconds since the Unix epoch.
    pub replaces_at_ms: i64,
    /// The peer has proven itself with it: an announcement that was taken back replaces nothing.
    #[serde(default)]
    pub in_use: bool,
}

/// The entry's key and those it led to; a key that was replaced in the past is none.
pub(super) fn accepted_keys(first: Option<PublicKey>, learned: &[LearnedKey], now_ms: i64) -> Vec<PublicKey> {
    let mut keys: Vec<PublicKey> = first.into_iter().collect();
    for learned in learned.iter().filter(|_| first.is_some()) {
        if learned.in_use && learned.replaces_at_ms <= now_ms {
            keys.clear();
        }
        keys.push(learned.public_key);
    }
    keys
}

/// The public keys a peer's certificate may have.
pub(super) fn pins(enrolment: &Enrolment, now_ms: i64) -> Vec<SpkiPin> {
    let keys = accepted_keys(enrolment.options.public_key, &enrolment.learned, now_ms);
    let of_keys = keys.iter().map(|key| SpkiPin::of_ed25519(key.as_bytes()));
    of_keys.chain(enrolment.options.certificate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::key::SigningKey;

    #[test]
    fn a_key_is_replaced_only_by_one_that_is_in_use() {
        //
        let key = |seed| *SigningKey::from_seed(&[seed; 32]).public();
        let learned = |seed, in_use| LearnedKey { public_key: key(seed), replaces_at_ms: 100, in_use };
        let accepted = |learned: &[LearnedKey], now_ms| accepted_keys(Some(key(1)), learned, now_ms);
        assert_eq!(accepted(&[learned(2, true)], 99), [key(1), key(2)]);
        assert_eq!(accepted(&[learned(2, true)], 100), [key(2)]);
        assert_eq!(accepted(&[learned(2, false)], 100), [key(1), key(2)], "taken back, or never used");
        assert_eq!(accepted(&[learned(2, true), learned(3, false)], 100), [key(2), key(3)]);
        assert_eq!(accepted_keys(None, &[learned(2, true)], 99), []);
    }
}
