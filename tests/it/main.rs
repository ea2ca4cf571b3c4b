//! The one integration-test binary: behaviour of real gateways against a scripted orchestrator.

mod config;
mod contract;
mod environment;
mod peers_file;
mod smoke;
mod sse;
mod support;
mod tidy;
