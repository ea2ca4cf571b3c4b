//! What these tests share with `tests/it`, by path.

#![expect(dead_code, reason = "tests/it uses what is not used here")]

#[path = "../it/support/address.rs"]
pub(crate) mod address;
#[path = "../it/support/ears.rs"]
pub(crate) mod ears;
#[path = "../it/support/fault_proxy/mod.rs"]
pub(crate) mod fault_proxy;
#[path = "../it/support/gateway.rs"]
pub(crate) mod gateway;
#[path = "../it/support/orchestrator/mod.rs"]
pub(crate) mod orchestrator;
#[path = "../it/support/pair.rs"]
pub(crate) mod pair;
#[path = "../it/support/secrets.rs"]
pub(crate) mod secrets;
#[path = "../it/support/sse_client/mod.rs"]
pub(crate) mod sse_client;
