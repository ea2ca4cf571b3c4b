//! Calls to peers: one attempt per call, never a retry. reqwest lives here and nowhere else.

mod client;
mod connections;
mod events;
mod failure;
mod identity;
mod network;
pub mod options;
mod resolver;
mod way;
mod webhook;

pub use self::client::{Answer, BuildError, CallContext, Dialled, PeerClient};
pub use self::events::{EventStream, OpenFailure, StreamEnd};
pub use self::failure::CallFailure;
pub use self::identity::OwnIdentity;
pub use self::network::{Carried, Carrier, Network};
pub use self::webhook::{Taken, WebhookClient};
