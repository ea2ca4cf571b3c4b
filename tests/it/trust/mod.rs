//! The trust boundary, over a pair of real gateways and against whoever attacks them.

pub(crate) mod attacks;
mod audit;
pub(crate) mod canary;
pub(crate) mod certificates;
pub(crate) mod identity;
pub(crate) mod introductions;
mod jwt;
pub(crate) mod limits;
mod peers;
mod policy;
pub(crate) mod pushes;
mod rebinding;
mod regions;
pub(crate) mod revocation;
mod rotation;
pub(crate) mod signatures;
mod tenant_names;
