//! The one integration-test binary: behaviour of real gateways against a scripted orchestrator.

mod config;
mod environment;
mod face;
mod forward;
mod forward_index;
mod idempotency;
mod peers_file;
mod pressure;
mod reconcile;
mod selection;
mod smoke;
mod sse;
mod support;
