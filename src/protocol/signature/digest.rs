//! `Content-Digest` (RFC 9530) with SHA-256, the one algorithm that counts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sfv::ListEntry;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{SignatureError, fields};

const NAME: &str = "sha-256";

/// The header's value for a body.
pub(super) fn content_digest(body: &[u8]) -> String {
    format!("{NAME}=:{}:", STANDARD.encode(Sha256::digest(body)))
}

/// The digest a header's value names; other algorithms beside it are not looked at.
pub(super) fn read(value: &str) -> Result<[u8; 32], SignatureError> {
    let member = fields::member(value, NAME).map_err(|_| SignatureError::Digest)?;
    let Some((_, ListEntry::Item(item))) = member else { return Err(SignatureError::Digest) };
    let bytes = item.bare_item.as_byte_sequence().filter(|_| item.params.is_empty());
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(SignatureError::Digest)
}

/// True when `body` has this digest.
pub(super) fn matches(digest: &[u8; 32], body: &[u8]) -> bool {
    bool::from(Sha256::digest(body).as_slice().ct_eq(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sample body of RFC 9530 without and with its line break, and nothing.
    const VECTORS: [(&[u8], &str); 3] = [
        (b"{\"hello\": \"world\"}", "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"),
        (b"{\"hello\": \"world\"}\n", "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"),
        (b"", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"),
    ];

    #[test]
    fn digests_are_those_of_the_rfc() {
        for (body, value) in VECTORS {
            assert_eq!(content_digest(body), value);
            let digest = read(value).expect("a digest");
            assert!(matches(&digest, body));
            for at in 0..32 {
                let mut other = digest;
                other[at] ^= 1;
                assert!(!matches(&other, body));
            }
        }
    }

    #[test]
    fn other_algorithms_count_for_nothing() {
        let sha512 = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:";
        assert!(read(&format!("{sha512}, {}", VECTORS[0].1)).is_ok());
        // reliability 4d.34
        for bad in [
            sha512,
            "sha=:qqlAJmTxpB9A67xSyZk+tmrrNmYClY/fqig7ceZNsSM=:",
            "md5=:rL0Y20zC+Fzt72VPzMSk2A==:",
            "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE:",
            "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBP==:",
            "sha-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=",
            "sha-256=:AAAA:, sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:",
            "sha-256=:AAAA:",
            "sha-256",
            "SHA-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:",
            "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:;x",
            "",
        ] {
            assert_eq!(read(bad), Err(SignatureError::Digest), "{bad:?}");
        }
    }
}
