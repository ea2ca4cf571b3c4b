//! What the gateway does; one file per act. A file names only files above it in this list.

pub mod options;
pub mod refusal;
mod secret_file;

pub mod alert_options;
pub mod jwt_keys;
mod list_cursor;
pub mod peer_options;
pub mod quota_gate;
mod rate_cells;
mod replay;
mod step;
pub mod trust_options;

pub mod audit_log;
pub mod doing;
pub mod enrolment;
pub mod frames;
pub mod jwt;
mod line;
pub mod rates;
mod turns;

pub mod peer;
mod pulse;

pub mod identity;
pub mod peers;

pub mod recall;

pub mod tickets;
pub mod tokens;

mod credentials;

pub mod admission;

mod attempt;
pub mod hub;
pub mod index_file;
mod outcome;
mod pages;
pub mod readers;

mod read;

pub mod follow;
pub mod ingest;
pub mod page;
pub mod pull;

pub mod deliveries;
pub mod drive;
pub mod forward;
pub mod links;
pub mod runs;

mod health;
pub mod own_keys;
pub mod reconcile;
pub mod sweep;

mod webhook;

pub mod alerts;

pub mod roster;

pub mod introductions;

#[cfg(test)]
mod jwt_samples;
