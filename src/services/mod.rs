//! What the gateway does; one file per act. A file names only files above it in this list.

pub mod options;
pub mod refusal;

pub mod jwt_keys;
pub mod peer_options;
mod rate_cells;
mod replay;
pub mod trust_options;

pub mod audit_log;
pub mod enrolment;
pub mod frames;
pub mod jwt;
mod line;
pub mod rates;
mod turns;

pub mod peer;

pub mod identity;
pub mod peers;

pub mod tickets;
pub mod tokens;

mod credentials;

pub mod admission;

mod attempt;
pub mod hub;
pub mod index_file;
mod outcome;
mod pages;
mod read;

pub mod follow;
pub mod ingest;
pub mod page;
pub mod pull;

pub mod drive;
pub mod forward;
pub mod runs;

mod health;
pub mod own_keys;
pub mod reconcile;
pub mod sweep;

pub mod roster;

#[cfg(test)]
mod jwt_samples;
