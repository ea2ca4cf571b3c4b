//! Calls to peers: one attempt per call, never a retry. reqwest lives here and nowhere else.

mod client;
mod connections;
mod events;
mod identity;
mod network;
pub mod options;
mod resolver;

pub use self::client::{Answer, BuildError, CallContext, CallFailure, Dialled, PeerClient};
pub use self::events::{EventStream, OpenFailure, StreamEnd};
pub use self::identity::OwnIdentity;
pub use self::network::{Carried, Carrier, Network};
