//! The server: axum lives here and nowhere else. Handlers extract, call one service, shape the answer.

mod accept;
mod authenticate;
mod error;
mod events;
mod extract;
mod forwards;
mod guard;
mod ingest;
mod introductions;
mod layers;
mod monitoring;
mod networks;
pub mod openapi;
mod operators;
mod ops;
pub mod options;
mod orchestrator;
mod peers;
mod ports;
mod reply;
mod router;
mod runs;
mod serve;
mod state;
mod streams;

pub use axum::Router;

pub use self::ports::{Arrivals, PortMaker, Ports};
pub use self::router::{ROUTES, admin_router, control_router, peer_router, router};
pub use self::serve::{Entrance, House, Listening, serve, serve_control};
pub use self::state::{GatewayIdentity, Services};
pub use self::streams::StreamSlots;
