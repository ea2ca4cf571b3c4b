//! The one integration-test binary: behaviour of real gateways against a scripted orchestrator.

mod agentos;
mod config;
mod environment;
mod follow;
mod frames;
mod peers_file;
mod reader;
mod smoke;
mod sse;
mod support;
