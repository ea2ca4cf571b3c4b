//! The one integration-test binary: behaviour of real gateways against a scripted orchestrator.

mod agentos;
mod cli;
mod config;
mod contract;
mod crash;
mod environment;
mod follow;
mod frames;
mod hostile;
mod ingest;
mod ingest_bytes;
mod log_kept;
mod log_model;
mod peers_file;
mod reader;
mod serve;
mod smoke;
mod sse;
mod storage;
mod support;
mod tidy;
