//! The wire: what bytes mean, in both directions. No SQL, no I/O.

pub mod capabilities;
pub mod envelope;
pub mod error_code;
pub mod forward_request;
pub mod headers;
pub mod index_file;
pub mod json_fields;
pub mod paths;
pub mod problem;
pub mod proof;
pub mod run;
pub mod signature;
pub mod sse;
pub mod tenant_field;
pub mod trace;
pub mod webhook;
