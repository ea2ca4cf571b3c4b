//! The accept loop: our own, because the framework's has no timeout on a request's head, no cap on
//! connections, and no bound on a client that stops reading.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::guard::Guarded;
use super::options::ServerOptions;
use crate::metrics::Metrics;
use crate::tasks::Tasks;

/// Headers of one request; more are 431.
const MAX_HEADERS: usize = 64;
/// Bytes of a head that one connection buffers before it is 431; what was read at once may be twice this. A
/// smaller head that is still too large gets a full answer from the layers.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// Pause after a failed accept: out of file descriptors is no reason to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener at work.
#[derive(Debug)]
pub struct Listening {
    /// Where it listens; the port is real.
    pub address: SocketAddr,
    /// Cancelled once every connection of it has ended after the drain began.
    pub drained: CancellationToken,
}

/// Binds `address` and serves `router` there until the gateway drains; connections then end at their next
/// boundary.
pub async fn serve(
    address: SocketAddr,
    router: Router,
    options: &ServerOptions,
    metrics: Arc<Metrics>,
    tasks: &Tasks,
) -> std::io::Result<Listening> {
    let listener = TcpListener::bind(address).await?;
    let listening = Listening { address: listener.local_addr()?, drained: CancellationToken::new() };
    let acceptor = Acceptor {
        listener,
        router,
        options: options.clone(),
        metrics,
        tasks: tasks.clone(),
        drained: listening.drained.clone(),
    };
    tasks.spawn(acceptor.run());
    Ok(listening)
}

struct Acceptor {
    listener: TcpListener,
    router: Router,
    options: ServerOptions,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    drained: CancellationToken,
}

impl Acceptor {
    async fn run(self) {
        let graceful = GracefulShutdown::new();
        let places = Arc::new(Semaphore::new(self.options.max_connections));
        let draining = self.tasks.draining().clone();
        loop {
            // At the cap no further connection is accepted until one closes.
            let place = tokio::select! {
                place = Arc::clone(&places).acquire_owned() => place,
                () = draining.cancelled() => break,
            };
            let Ok(place) = place else { break };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = draining.cancelled() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    self.metrics.connections_refused.inc();
                    tracing::warn!(error = %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Frames leave when they are written, not when a packet is full.
            let _ = stream.set_nodelay(true);
            let io = TokioIo::new(Guarded::new(stream, self.options.write_stall));
            let service = TowerToHyperService::new(self.router.clone());
            let connection = graceful.watch(self.builder().serve_connection(io, service));
            let (metrics, stopping) = (Arc::clone(&self.metrics), self.tasks.stopping().clone());
            metrics.connections_open.inc();
            self.tasks.spawn(async move {
                let _place = place;
                tokio::select! {
                    // How a client ends its connection is its own affair.
                    _ = connection => {}
                    () = stopping.cancelled() => {}
                }
                metrics.connections_open.dec();
            });
        }
        drop(self.listener);
        graceful.shutdown().await;
        self.drained.cancel();
    }

    fn builder(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.options.header_timeout)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES);
        builder
    }
}
