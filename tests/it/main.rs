//! The one integration-test binary: behaviour of real gateways against a scripted orchestrator.

mod config;
mod environment;
mod ingest;
mod ingest_bytes;
mod log_kept;
mod log_model;
mod peers_file;
mod smoke;
mod sse;
mod storage;
mod support;
