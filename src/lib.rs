//! Causeway: an HTTP/SSE federation gateway for runs and their event streams.
//!
//! # The map
//!
//! ```text
//! main, cli, app, demo, bench   put it together; nothing names them
//! config                    gathers each layer's options
//! http                      the server: axum
//! services                  what the gateway does; one file per act
//! outbound                  the client: reqwest
//! store | protocol          SQL | the wire
//! domain                    pure values and decisions
//! clock | entropy | metrics | seldom | tasks
//! failpoint | mutants       faults on demand, for tests; nothing in a release
//! ```
//!
//! Imports point strictly down; `tests/it/tidy.rs` holds it.
//!
//! # The event's way
//!
//! [`outbound`] `events` → [`protocol`] `envelope` → [`services`] `read`/`pull` (or [`http`] `ingest` →
//! [`services`] `ingest`) → [`store`] `append` → `writer` → `event_log` → [`services`] `hub` → `follow` →
//! [`http`] `events`.
//!
//! # The run's way
//!
//! [`http`] `forwards` → [`services`] `admission` → `forward` → [`store`] `forwards` (the intent) →
//! [`services`] `attempt` → [`outbound`] `client` → [`domain`] `forward` (classify, decide) → `backoff` →
//! [`store`] `forwards` (settle) → [`services`] `pull`.
//!
//! # What always holds
//!
//! - Events enter the log through `store::append` and leave it through `services::follow`: a proxied stream
//!   and a stored one are the same thing.
//! - Nobody sees an event or an acknowledgement that a power cut could take back: answers and wake-ups come
//!   after the commit.
//! - One `(stream, event id)` is stored once; what contradicts the log is set aside.
//! - What one subscriber sees of a stream strictly increases; a hole is held briefly, then announced.
//! - A run is created once per key: the intent is on disk before the first byte leaves, with the one key all
//!   attempts carry. What cannot be known is called unknown.
//! - Every queue, body, batch, buffer, retry and wait has a named bound (`domain::limits`, or an option).
//!
//! Deliberately absent: a second way in or out, an in-memory event store, retries below `services`,
//! redirects, and credentials of callers on any outbound call.

pub mod app;
pub mod bench;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod domain;
pub mod entropy;
pub mod failpoint;
pub mod http;
pub mod keyring;
pub mod metrics;
pub mod mutants;
pub mod outbound;
pub mod protocol;
pub mod seldom;
pub mod services;
pub mod store;
pub mod tasks;
pub mod tls;
