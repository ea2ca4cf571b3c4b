//! A key's announcement of the one that follows it, which whoever trusts the old key can check.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::key::{PublicKey, SigningKey};

/// What the old key says of the new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Succession {
    /// The key that speaks.
    pub public_key: PublicKey,
    /// The key that follows.
    pub next: PublicKey,
    /// When the gateway begins to use it, in milliseconds since the Unix epoch.
    pub activates_at_ms: i64,
    /// From then on the old key counts no more.
    pub expires_at_ms: i64,
    /// The old key's signature over all of it, in hex.
    pub signature: String,
}

impl Succession {
    /// Announces `next` as `peer_id`'s key.
    pub fn sign(
        peer_id: &str,
        old: &SigningKey,
        next: &PublicKey,
        (activates_at_ms, expires_at_ms): (i64, i64),
    ) -> Self {
        let mut succession = Succession {
            public_key: *old.public(),
            next: *next,
            activates_at_ms,
            expires_at_ms,
            signature: String::new(),
        };
        succession.signature = to_hex(&old.sign(succession.text(peer_id).as_bytes()));
        succession
    }

    /// The key that follows, if `trusted` is the key that speaks and it truly does.
    pub fn verify(&self, peer_id: &str, trusted: &PublicKey) -> Option<PublicKey> {
        let signature = from_hex(&self.signature)?;
        let in_order = self.activates_at_ms <= self.expires_at_ms;
        let is_signed =
            *trusted == self.public_key && trusted.verify(self.text(peer_id).as_bytes(), &signature);
        (in_order && is_signed).then_some(self.next)
    }

    /// As one header field.
    pub fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads what [`Succession::to_text`] wrote; anything else says nothing.
    pub fn from_text(text: &str) -> Option<Self> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }

    fn text(&self, peer_id: &str) -> String {
        let Succession { public_key, next, activates_at_ms, expires_at_ms, .. } = self;
        format!(
            "causeway-key-succession-v1\n{peer_id}\n{public_key}\n{next}\n{activates_at_ms}\n{expires_at_ms}\n"
        )
    }
}

/// Bytes as lower-case hex.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes from hex.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_trusted_key_names_its_successor() {
        //
        let (old, new, other) = (
            SigningKey::from_seed(&[1; 32]),
            SigningKey::from_seed(&[2; 32]),
            SigningKey::from_seed(&[3; 32]),
        );
        let said = Succession::sign("stk_a", &old, new.public(), (10, 20));
        assert_eq!(said.verify("stk_a", old.public()), Some(*new.public()));
        assert_eq!(said.verify("stk_b", old.public()), None);
        assert_eq!(said.verify("stk_a", other.public()), None);
        assert_eq!(Succession::from_text(&said.to_text()), Some(said.clone()));
        assert_eq!(Succession::from_text("e30"), None);
        let longer = Succession { expires_at_ms: 21, ..said.clone() };
        assert_eq!(longer.verify("stk_a", old.public()), None);
        let swapped = Succession { next: *other.public(), ..said.clone() };
        assert_eq!(swapped.verify("stk_a", old.public()), None);
        let garbage = Succession { signature: "é".to_owned(), ..said };
        assert_eq!(garbage.verify("stk_a", old.public()), None);
    }
}
