//! The server: axum lives here and nowhere else. Handlers extract, call one service, shape the answer.

mod accept;
mod error;
mod events;
mod extract;
mod forwards;
mod guard;
mod ingest;
mod layers;
pub mod openapi;
mod ops;
pub mod options;
mod orchestrator;
mod peers;
mod reply;
mod router;
mod runs;
mod serve;
mod state;
mod streams;

pub use self::router::{ROUTES, admin_router, router};
pub use self::serve::{Listening, serve};
pub use self::state::{GatewayIdentity, Services};
