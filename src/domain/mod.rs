//! Pure values and decisions: no async, no I/O; time and chance are arguments.

pub mod address;
pub mod alert;
mod alert_code;
pub mod api_token;
pub mod audit;
mod audit_finding;
pub mod backoff;
pub mod base_url;
pub mod breaker;
pub mod cursor;
pub mod event;
pub mod forward;
#[cfg(test)]
mod forward_model;
pub mod grants;
pub mod holes;
#[cfg(test)]
mod holes_model;
pub mod id;
pub mod json_equal;
#[cfg(test)]
mod json_samples;
pub mod json_text;
#[cfg(test)]
mod json_text_tests;
pub mod key;
#[cfg(test)]
mod key_tests;
pub mod limits;
pub mod link;
pub mod peer;
pub mod policy;
pub mod rate;
pub mod retry_budget;
pub mod run;
pub mod scope;
pub mod secret;
pub mod stream;
pub mod succession;
pub mod tenant_names;
pub mod units;
