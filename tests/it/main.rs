//! The one integration-test binary: behaviour of real gateways against a scripted orchestrator.

mod config;
mod contract;
mod environment;
mod hostile;
mod peers_file;
mod serve;
mod smoke;
mod sse;
mod support;
mod tidy;
