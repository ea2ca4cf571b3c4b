//! What the gateway does; one file per act. A file names only files above it in this list.

pub mod options;
pub mod refusal;

pub mod admission;
pub mod frames;
mod line;
pub mod peers;

mod attempt;
pub mod health;
pub mod hub;
pub mod index_file;
mod outcome;
mod read;

pub mod follow;
pub mod ingest;
pub mod page;
pub mod pull;

pub mod drive;
pub mod forward;
pub mod runs;

pub mod reconcile;
pub mod sweep;
