//! The one integration-test binary: behaviour of real gateways against a scripted orchestrator.

mod config;
mod environment;
mod face;
mod forward_index;
mod peers_file;
mod smoke;
mod sse;
mod support;
