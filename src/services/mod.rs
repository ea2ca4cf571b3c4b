//! What the gateway does; one file per act. A file names only files above it in this list.

pub mod options;
pub mod refusal;

pub mod admission;
mod attempt;
pub mod follow;
pub mod forward;
pub mod frames;
pub mod health;
pub mod hub;
pub mod index_file;
pub mod ingest;
mod line;
pub mod peers;
pub mod pull;
mod read;
pub mod reconcile;
pub mod runs;
pub mod sweep;
