//! A public key's fingerprint: SHA-256 over its SubjectPublicKeyInfo, written `sha256:<64 lower hex>`.
//!
//! It names a key, not a certificate: a certificate renewed from the same key keeps its pin.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

const SCHEME: &str = "sha256:";

/// What precedes the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410).
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The fingerprint of one public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpkiPin([u8; 32]);

/// A text that is no pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a pin must be `sha256:` followed by 64 lower-case hex digits")]
pub struct InvalidPin;

impl SpkiPin {
    /// The pin of a SubjectPublicKeyInfo in DER.
    pub fn of_spki(der: &[u8]) -> Self {
        SpkiPin(Sha256::digest(der).into())
    }

    /// The pin of an Ed25519 public key.
    pub fn of_ed25519(key: &[u8; 32]) -> Self {
        SpkiPin(Sha256::new().chain_update(ED25519_SPKI).chain_update(key).finalize().into())
    }

    /// The digest itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for SpkiPin {
    type Err = InvalidPin;

    fn from_str(text: &str) -> Result<Self, InvalidPin> {
        let digits = text.strip_prefix(SCHEME).ok_or(InvalidPin)?.as_bytes();
        let mut digest = [0_u8; 32];
        if digits.len() != 2 * digest.len() {
            return Err(InvalidPin);
        }
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(SpkiPin(digest))
    }
}

fn nibble(digit: u8) -> Result<u8, InvalidPin> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(InvalidPin),
    }
}

impl fmt::Display for SpkiPin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(SCHEME)?;
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for SpkiPin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SpkiPin({self})")
    }
}

impl Serialize for SpkiPin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SpkiPin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_reads_back_as_it_is_written() {
        let pin = SpkiPin::of_ed25519(&[7; 32]);
        let text = pin.to_string();
        assert_eq!(text.len(), 71);
        assert_eq!(text.parse(), Ok(pin));
        let json = serde_json::to_string(&pin).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<SpkiPin>(&json).unwrap(), pin);
    }

    #[test]
    fn an_ed25519_key_has_the_pin_of_its_spki() {
        let mut spki = ED25519_SPKI.to_vec();
        spki.extend([7; 32]);
        assert_eq!(SpkiPin::of_spki(&spki), SpkiPin::of_ed25519(&[7; 32]));
        assert_ne!(SpkiPin::of_ed25519(&[7; 32]), SpkiPin::of_ed25519(&[8; 32]));
    }

    #[test]
    fn what_is_no_pin_is_refused() {
        let hex = "ab".repeat(32);
        let bad = [
            String::new(),
            hex.clone(),
            format!("sha256:{}", hex.to_uppercase()),
            format!("SHA256:{hex}"),
            format!("sha256:{hex}0"),
            format!("sha256:{}", &hex[1..]),
            format!("sha256: {}", &hex[1..]),
            format!("sha256:{}", "é".repeat(32)),
            format!("sha1:{hex}"),
        ];
        for text in bad {
            assert_eq!(text.parse::<SpkiPin>(), Err(InvalidPin), "{text:?}");
        }
    }
}
