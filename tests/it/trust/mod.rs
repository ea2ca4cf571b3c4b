//! The trust boundary, over a pair of real gateways and against whoever attacks them.

mod attacks;
mod audit;
mod canary;
mod certificates;
mod identity;
mod jwt;
mod limits;
mod peers;
mod policy;
mod pushes;
mod rebinding;
mod regions;
mod revocation;
mod rotation;
mod signatures;
mod tenant_names;
