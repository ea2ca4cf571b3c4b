//! API tokens: `cw_<id>_<secret>_<crc>`, 66 characters, each part at a fixed place.
//!
//! The id finds the record, SHA-256 of the secret proves it, and the CRC-32 tells a typo before any look-up
//! and a real token to secret scanners. The secret itself is shown once and never stored or printed.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// What every token starts with.
pub const PREFIX: &str = "cw_";
/// Random bytes one token is made of: 8 for its id, 32 for its secret.
pub const RANDOM_BYTES: usize = 40;

const ID_CHARS: usize = 12;
const SECRET_CHARS: usize = 43;
const CRC_CHARS: usize = 6;
const ID_AT: usize = PREFIX.len();
const SECRET_AT: usize = ID_AT + ID_CHARS + 1;
const CRC_AT: usize = SECRET_AT + SECRET_CHARS + 1;
const TOKEN_CHARS: usize = CRC_AT + CRC_CHARS;

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A token's public name: 12 characters of `a-z2-7`. It may be logged and listed.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(String);

/// Why a text is not a token id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token id is {ID_CHARS} characters of a-z and 2-7")]
pub struct InvalidTokenId;

impl TokenId {
    /// Checks `text` and keeps it.
    pub fn parse(text: &str) -> Result<Self, InvalidTokenId> {
        let good = text.len() == ID_CHARS && text.bytes().all(|byte| BASE32.contains(&byte));
        if good { Ok(Self(text.to_owned())) } else { Err(InvalidTokenId) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "TokenId({})", self.0)
    }
}

impl serde::Serialize for TokenId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A new token, for the one place that shows it. Wiped from memory when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct ApiToken {
    text: String,
}

impl ApiToken {
    /// Makes a token of random bytes, which the caller draws and wipes.
    pub fn mint(random: &[u8; RANDOM_BYTES]) -> Self {
        let (id, secret) = random.split_at(RANDOM_BYTES - 32);
        let bits = id.iter().fold(0_u64, |bits, byte| (bits << 8) | u64::from(*byte));
        let mut text = String::with_capacity(TOKEN_CHARS);
        text.push_str(PREFIX);
        text.extend((0..ID_CHARS).map(|at| char::from(BASE32[((bits >> (5 * at)) & 31) as usize])));
        text.push('_');
        text.push_str(&Zeroizing::new(URL_SAFE_NO_PAD.encode(secret)));
        text.push('_');
        let crc = checksum(text.as_bytes());
        text.extend(crc.map(char::from));
        ApiToken { text }
    }

    /// The token, to be shown once.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The token's public name.
    pub fn id(&self) -> TokenId {
        TokenId(self.text[ID_AT..ID_AT + ID_CHARS].to_owned())
    }

    /// What is stored instead of the secret.
    pub fn secret_hash(&self) -> [u8; 32] {
        hash(&self.text)
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ApiToken({}, [redacted])", self.id())
    }
}

/// A token as a caller presents it, well-formed but not yet known to be one of ours.
#[derive(Clone, PartialEq, Eq)]
pub struct PresentedToken {
    /// Which record to look up.
    pub id: TokenId,
    /// SHA-256 of the presented secret, to compare by [`matches()`].
    pub secret_hash: [u8; 32],
}

impl PresentedToken {
    /// Takes a token apart; none when its form or its checksum is wrong.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let in_form = bytes.len() == TOKEN_CHARS
            && text.is_ascii()
            && text.starts_with(PREFIX)
            && bytes[SECRET_AT - 1] == b'_'
            && bytes[CRC_AT - 1] == b'_'
            && bytes[SECRET_AT..CRC_AT - 1].iter().all(|byte| is_base64url(*byte));
        if !in_form || bytes[CRC_AT..] != checksum(&bytes[..CRC_AT]) {
            return None;
        }
        let id = TokenId::parse(&text[ID_AT..ID_AT + ID_CHARS]).ok()?;
        Some(PresentedToken { id, secret_hash: hash(text) })
    }
}

impl fmt::Debug for PresentedToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PresentedToken({}, [redacted])", self.id)
    }
}

/// Compares two hashes of secrets in constant time.
pub fn matches(stored_hash: &[u8; 32], presented: &[u8; 32]) -> bool {
    stored_hash.ct_eq(presented).into()
}

/// SHA-256 of the secret's 43 characters in a token of the right length.
fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(&token.as_bytes()[SECRET_AT..SECRET_AT + SECRET_CHARS]).into()
}

/// CRC-32 in base 62, most significant digit first.
fn checksum(bytes: &[u8]) -> [u8; CRC_CHARS] {
    let mut rest = crc32fast::hash(bytes) as usize;
    let mut digits = [b'0'; CRC_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[rest % 62];
        rest /= 62;
    }
    digits
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_checksum(body: &str) -> String {
        let crc = checksum(body.as_bytes());
        format!("{body}{}", crc.map(char::from).iter().collect::<String>())
    }

    #[test]
    fn a_token_has_one_fixed_form() {
        let token = ApiToken::mint(&[0xff; RANDOM_BYTES]);
        assert_eq!(token.expose().len(), TOKEN_CHARS);
        assert!(token.expose().starts_with("cw_777777777777________"), "{}", token.expose());
        assert_eq!(TOKEN_CHARS, 66);
        let other = ApiToken::mint(&[0; RANDOM_BYTES]);
        assert_eq!(other.expose(), with_checksum(&format!("cw_{}_{}_", "a".repeat(12), "A".repeat(43))));
    }

    #[test]
    fn the_secret_prints_nothing_of_itself() {
        let token = ApiToken::mint(&std::array::from_fn(|at| at as u8));
        let presented = PresentedToken::parse(token.expose()).expect("a token");
        let secret = &token.expose()[SECRET_AT..CRC_AT - 1];
        for shown in [format!("{token:?}"), format!("{presented:?}")] {
            assert!(shown.contains(token.id().as_str()) && shown.contains("[redacted]"), "{shown}");
            assert!((0..SECRET_CHARS - 4).all(|at| !shown.contains(&secret[at..at + 4])), "{shown}");
        }
    }

    #[test]
    fn a_dropped_token_is_wiped() {
        let mut token = ApiToken::mint(&[7; RANDOM_BYTES]);
        token.zeroize();
        assert_eq!(token.expose(), "");
    }

    #[test]
    fn what_has_another_form_is_no_token() {
        // reliability 4d.7: no, garbled, wrong-prefix token
        let good = ApiToken::mint(&[9; RANDOM_BYTES]);
        let good = good.expose();
        let id = &good[ID_AT..ID_AT + ID_CHARS];
        let secret = &good[SECRET_AT..CRC_AT - 1];
        let bad = [
            String::new(),
            "cw_".to_owned(),
            format!(" {good}"),
            format!("{good}\n"),
            good.to_uppercase(),
            good.replacen("cw_", "sk_", 1),
            good[..good.len() - 1].to_owned(),
            with_checksum(&format!("xx_{id}_{secret}_")),
            with_checksum(&format!("cw_{}_{secret}_", id.to_uppercase())),
            with_checksum(&format!("cw_{}1_{secret}_", &id[1..])),
            with_checksum(&format!("cw_{id}-{secret}_")),
            with_checksum(&format!("cw_{id}_{secret}-")),
            with_checksum(&format!("cw_{id}_{}+_", &secret[1..])),
            with_checksum(&format!("cw_{id}_{}é_", &secret[2..])),
        ];
        for text in bad {
            assert_eq!(PresentedToken::parse(&text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_minted_token_reads_back(random in any::<[u8; RANDOM_BYTES]>()) {
            let token = ApiToken::mint(&random);
            let presented = PresentedToken::parse(token.expose()).expect("a token");
            prop_assert_eq!(&presented.id, &token.id());
            prop_assert!(matches(&token.secret_hash(), &presented.secret_hash));
        }

        /// A CRC-32 finds every error within one character; a typo costs no look-up.
        #[test]
        fn one_changed_character_is_no_token(random in any::<[u8; RANDOM_BYTES]>(), at in 0..TOKEN_CHARS, to in "[ -~]") {
            let token = ApiToken::mint(&random);
            let mut typo = token.expose().to_owned();
            typo.replace_range(at..=at, &to);
            prop_assert_eq!(PresentedToken::parse(&typo).is_some(), typo == token.expose());
        }

        /// Even with a checksum that fits, another secret is never taken for the stored one.
        #[test]
        fn another_secret_never_matches(random in any::<[u8; RANDOM_BYTES]>(), at in 8..RANDOM_BYTES, bit in 0_u8..8) {
            let token = ApiToken::mint(&random);
            let mut forged = random;
            forged[at] ^= 1 << bit;
            let forged = ApiToken::mint(&forged);
            let presented = PresentedToken::parse(forged.expose()).expect("well-formed");
            prop_assert_eq!(&presented.id, &token.id());
            prop_assert!(!matches(&token.secret_hash(), &presented.secret_hash));
        }

        #[test]
        fn any_text_is_a_token_or_none(text in any::<String>(), form in "cw_[a-zé]{12}_[-_a-zA-Z0-9é]{42,43}_[0-9a-zA-Z]{6}") {
            prop_assert_eq!(PresentedToken::parse(&text), None);
            prop_assert_eq!(PresentedToken::parse(&form), None);
        }

        #[test]
        fn a_hash_matches_only_itself(left in any::<[u8; 32]>(), at in 0_usize..32, bit in 0_u8..8) {
            let mut right = left;
            right[at] ^= 1 << bit;
            prop_assert!(matches(&left, &left) && !matches(&left, &right));
        }
    }
}
