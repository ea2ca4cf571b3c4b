//! Why a signature is refused: sentences that say what to send. None repeats what the request held.

use super::fields::{MAX_MEMBERS, MAX_VALUE_BYTES};
use super::{ALGORITHM, LABEL, MAX_LIFETIME_S, MAX_SKEW_S, TAG};

/// Why a request's signature is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No signature under our label.
    #[error(
        "the request is not signed: send `Signature-Input` and `Signature`, both with the label `{LABEL}`"
    )]
    Missing,
    /// More labels than are read.
    #[error("`Signature-Input` and `Signature` may hold at most {MAX_MEMBERS} labels each")]
    TooManyLabels,
    /// Not the shape the profile has.
    #[error("the signature is malformed: {0}")]
    Malformed(&'static str),
    /// A covered value that cannot be signed.
    #[error("`{0}` must be at most {MAX_VALUE_BYTES} bytes of printable ASCII")]
    Value(&'static str),
    /// A header that may be there once.
    #[error("`{0}` must be sent once")]
    Repeated(&'static str),
    /// A component the signature must cover and does not, or that must be there and is not.
    #[error("the signature must cover `{0}`")]
    Coverage(&'static str),
    /// More components than the profile has and the request carries, or another order.
    #[error(
        "the signature must cover the components of the profile that the request carries, each once, \
         in the order of the profile, and nothing else; none may be removed on the way"
    )]
    Components,
    /// `alg` is not ours.
    #[error("`alg` must be \"{ALGORITHM}\"")]
    Algorithm,
    /// `tag` is not ours.
    #[error("`tag` must be \"{TAG}\"")]
    Tag,
    /// The span from `created` to `expires` is none.
    #[error(
        "`created` and `expires` must be whole seconds since the epoch, `expires` 0 to {MAX_LIFETIME_S} s \
         after `created`"
    )]
    Lifetime,
    /// Not now: too old, over, or from the future.
    #[error(
        "the signature holds from {created_s} to {expires_s} and it is {now_s} here (seconds since the epoch): \
         sign again; clocks may differ by {MAX_SKEW_S} s"
    )]
    Expired {
        /// `created`.
        created_s: i64,
        /// `expires`.
        expires_s: i64,
        /// The receiver's clock.
        now_s: i64,
    },
    /// The signature is not this key's signature of this request.
    #[error("the signature does not belong to this request and key: sign the request exactly as it is sent")]
    Invalid,
    /// `Content-Digest` cannot be used.
    #[error("`Content-Digest` must hold one `sha-256` (RFC 9530), written `sha-256=:<base64>:`")]
    Digest,
    /// The body is not the one that was signed.
    #[error("the body does not have the signed `Content-Digest`: send the bytes that were signed")]
    DigestMismatch,
}
