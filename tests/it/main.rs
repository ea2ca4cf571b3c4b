//! The one integration-test binary: behaviour of real gateways against a scripted orchestrator.

mod cli;
mod config;
mod contract;
mod crash;
mod environment;
mod hostile;
mod peers_file;
mod serve;
mod smoke;
mod sse;
mod support;
mod tidy;
