//! What the tests stand on: a real gateway, a scripted orchestrator with a truth log, a strict SSE client,
//! a faulty network, and a watch on secrets.

pub(crate) mod address;
pub(crate) mod document;
pub(crate) mod ears;
pub(crate) mod fault_proxy;
pub(crate) mod forwards;
pub(crate) mod gateway;
pub(crate) mod h2_frames;
pub(crate) mod log;
pub(crate) mod orchestrator;
pub(crate) mod pair;
pub(crate) mod prod;
pub(crate) mod raw;
pub(crate) mod secrets;
pub(crate) mod sse_client;
