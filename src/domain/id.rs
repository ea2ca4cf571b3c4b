//! Identifiers: opaque strings of 1 to 128 visible ASCII characters, checked once at the edge.
//!
//! Everything that reaches SQL, a log line, a header or an SSE frame has gone through `parse` here,
//! so no control character can be smuggled in by an id.

use std::fmt;
use std::sync::Arc;

/// The longest id accepted anywhere, in bytes.
pub const MAX_ID_BYTES: usize = 128;

/// Why a text is not an id. The text itself is not repeated: it may hold anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {MAX_ID_BYTES} visible ASCII characters (! to ~)")]
pub struct InvalidId;

/// True when `text` may serve as an id.
pub fn is_id(text: &str) -> bool {
    // Without a branch for each byte, so that the compiler compares many at once.
    (1..=MAX_ID_BYTES).contains(&text.len())
        && text.bytes().fold(true, |all, byte| all & byte.is_ascii_graphic())
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and keeps it.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                if is_id(text) { Ok(Self(Arc::from(text))) } else { Err(InvalidId) }
            }

            /// As `parse`, but an id that is the same as the last one shares its memory.
            pub fn parse_after(last: &mut Option<Self>, text: &str) -> Result<Self, InvalidId> {
                match last {
                    Some(last) if last.as_str() == text => Ok(last.clone()),
                    _ => Ok(last.insert(Self::parse(text)?).clone()),
                }
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{}({})", stringify!($name), self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    )*};
}

ids! {
    /// The isolation boundary; first column of every key.
    TenantId;
    /// The authenticated user or service inside a tenant.
    PrincipalId;
    /// A peer's stable id, on the wire also `stack_id`.
    PeerId;
    /// One invocation of an agent, as this gateway names it.
    RunId;
    /// The named target of runs.
    AgentId;
    /// An event's id, unique within its stream.
    EventId;
    /// One forward of a run-create to its home.
    ForwardId;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_hold_visible_ascii_only() {
        for good in ["a", "run_01JH9Y", "run@stk_b", "!~", &"x".repeat(128)] {
            assert!(RunId::parse(good).is_ok(), "{good:?}");
        }
        // reliability 4d.43: ids that would break a frame, a header or a log line
        for bad in ["", " ", "a b", "a\nb", "a\rb", "a\0", "é", "\u{2028}", &"x".repeat(129)] {
            assert_eq!(RunId::parse(bad), Err(InvalidId), "{bad:?}");
        }
    }
}
