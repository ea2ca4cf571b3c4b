//! How requests leave: over the machine's network, or over a simulated one.

use std::pin::Pin;
use std::sync::Arc;

use reqwest::{Request, Response};

use super::failure::CallFailure;

/// The answer's head, with its body still on the way; or what the lack of it proves.
pub type Carried = Pin<Box<dyn Future<Output = Result<Response, CallFailure>> + Send>>;

/// Carries requests in place of the machine's network.
pub trait Carrier: Send + Sync {
    /// Sends one request once.
    fn carry(&self, request: Request) -> Carried;
}

/// The network of one gateway.
#[derive(Clone, Default)]
pub enum Network {
    /// The machine's.
    #[default]
    System,
    /// A simulated one.
    Simulated(Arc<dyn Carrier>),
}
