//! Calls to peers: one attempt per call, never a retry. reqwest lives here and nowhere else.

mod client;
mod events;
pub mod options;

pub use self::client::{Answer, BuildError, CallContext, CallFailure, PeerClient};
pub use self::events::{EventStream, OpenFailure, StreamEnd};
