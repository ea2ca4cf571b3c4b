//! The accept loop: our own, because the framework's has no timeout on a request's head, no cap on
//! connections, no bound on a client that stops reading, and no way to cut a peer off.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::ALLOW;
use axum::response::Response;
use axum::routing::future::RouteFuture;
use futures_util::FutureExt;
use futures_util::future::Map;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::guard::Guarded;
use super::networks::{NetworkPlace, Networks};
use super::options::ServerOptions;
use super::ports::{Port, Ports};
use crate::clock::Clock;
use crate::metrics::{Metrics, Reason};
use crate::seldom::Seldom;
use crate::services::identity::{Arrival, Door};
use crate::services::peers::Peers;
use crate::tasks::Tasks;
use crate::tls::{self, Authority, HandshakeError};

/// Headers of one request; more are 431.
const MAX_HEADERS: usize = 64;
/// Bytes of a head that one connection buffers before it is 431; what was read at once may be twice this. A
/// smaller head that is still too large gets a full answer from the layers.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// Requests of one HTTP/2 connection at the same time.
const MAX_H2_STREAMS: u32 = 100;
/// Resets of its own that an HTTP/2 connection may cause before it is closed.
const MAX_H2_RESETS: usize = 128;
/// Silence after which an HTTP/2 connection is asked whether it lives, and how long it may take to say so.
const H2_PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
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

/// What a listener is.
#[derive(Clone)]
pub struct Entrance {
    /// Which door its requests come in by.
    pub door: Door,
    /// TLS, where it is ours to end.
    pub tls: Option<Arc<ServerConfig>>,
    /// On the peers' door: who may come in, and who vouches for them.
    pub peers: Option<(Peers, Option<Arc<Authority>>)>,
}

/// What every listener shares.
#[derive(Clone)]
pub struct House {
    /// Inbound bounds.
    pub options: ServerOptions,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Clock,
    /// Drain and stop.
    pub tasks: Tasks,
    /// Where connections come from.
    pub ports: Ports,
}

impl Entrance {
    /// Plain HTTP by this door.
    pub fn plain(door: Door) -> Self {
        Entrance { door, tls: None, peers: None }
    }
}

/// Binds `address` and serves `router` there until the gateway drains; connections then end at their next
/// boundary.
pub async fn serve(
    address: SocketAddr,
    router: Router,
    entrance: Entrance,
    house: &House,
) -> std::io::Result<Listening> {
    let acceptor = Arc::new(Acceptor {
        router,
        entrance,
        networks: Networks::new(house.options.max_connections_per_network),
        house: house.clone(),
        places: Arc::new(Semaphore::new(house.options.max_connections)),
        connections: TaskTracker::new(),
    });
    let drained = CancellationToken::new();
    let address = match &house.ports {
        Ports::System => {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            house.tasks.spawn(acceptor.run(listener, drained.clone()));
            address
        }
        Ports::Simulated(ports) => {
            house.tasks.spawn(acceptor.run(ports.open(address), drained.clone()));
            address
        }
    };
    Ok(Listening { address, drained })
}

/// Serves `router` to whoever may use the data directory.
pub fn serve_control(listener: UnixListener, router: Router, house: &House) {
    let house = house.clone();
    let tasks = house.tasks.clone();
    tasks.clone().spawn(async move {
        let draining = tasks.draining().clone();
        loop {
            let accepted = tokio::select! {
                biased;
                () = draining.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let arrival = Arrival { door: Door::Control, address: None, certificate: None };
            let service = Entering { router: router.clone(), arrival: Arc::new(arrival) };
            let (house, stopping) = (house.clone(), tasks.stopping().clone());
            tasks.spawn(async move {
                let connection = http1_builder(&house).serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    biased;
                    _ = connection => {}
                    () = stopping.cancelled() => {}
                }
            });
        }
    });
}

struct Acceptor {
    router: Router,
    entrance: Entrance,
    networks: Networks,
    house: House,
    places: Arc<Semaphore>,
    /// Those that are served.
    connections: TaskTracker,
}

impl Acceptor {
    async fn run(self: Arc<Self>, mut listener: impl Port, drained: CancellationToken) {
        let draining = self.house.tasks.draining().clone();
        loop {
            // At the cap no further connection is accepted until one closes.
            let place = tokio::select! {
                biased;
                () = draining.cancelled() => break,
                place = Arc::clone(&self.places).acquire_owned() => place,
            };
            let Ok(place) = place else { break };
            let accepted = tokio::select! {
                biased;
                () = draining.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.house.metrics.connections_refused.inc();
                    tracing::warn!(error = %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            self.take_in(stream, address.ip(), place);
        }
        drop(listener);
        self.connections.close();
        self.connections.wait().await;
        drained.cancel();
    }

    /// Serves a connection from `address`, or closes it at once.
    fn take_in(
        self: &Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        address: IpAddr,
        place: OwnedSemaphorePermit,
    ) {
        let address = address.to_canonical();
        let Some(network) = self.admit_network(address) else {
            self.house.metrics.connections_refused.inc();
            return;
        };
        let this = Arc::clone(self);
        self.house.tasks.spawn(async move {
            this.house.metrics.connections_open.inc();
            this.connection(stream, address).await;
            this.house.metrics.connections_open.dec();
            drop((place, network));
        });
    }

    /// Only proxies where a proxy ends TLS; so many from one network elsewhere.
    fn admit_network(&self, address: IpAddr) -> Option<Option<NetworkPlace>> {
        let options = &self.house.options;
        let is_proxy = options.is_trusted_proxy(address);
        let behind_proxy = options.tls == super::options::TlsMode::TerminatedUpstream;
        if behind_proxy && self.entrance.door == Door::Public && !is_proxy && !address.is_loopback() {
            return None;
        }
        if is_proxy || address.is_loopback() {
            return Some(None);
        }
        self.networks.enter(address).map(Some)
    }

    async fn connection(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        address: IpAddr,
    ) {
        let guarded = Guarded::new(stream, self.house.options.write_stall);
        let arrival = Arrival { door: self.entrance.door, address: Some(address), certificate: None };
        match self.entrance.tls.clone() {
            None => self.serve(guarded, Protocol::Http1, (arrival, None)).await,
            // Apart, so that a connection without TLS does not carry the room for it.
            Some(config) => Box::pin(self.secured(guarded, config, (arrival, address))).await,
        }
    }

    async fn secured(
        &self,
        stream: Guarded<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>,
        config: Arc<ServerConfig>,
        (mut arrival, address): (Arrival, IpAddr),
    ) {
        let stopping = self.house.tasks.stopping();
        let shaken = tokio::select! {
            biased;
            shaken = tls::handshake(stream, config, self.house.options.handshake_timeout) => shaken,
            () = stopping.cancelled() => return,
        };
        let stream = match shaken {
            Ok(stream) => stream,
            Err(error) => return self.refused(&error, address),
        };
        let mut gone = None;
        if let Some((peers, authority)) = &self.entrance.peers {
            let now_ms = self.house.clock.now_ms();
            arrival.certificate = tls::presented(stream.get_ref().1, authority.as_deref(), now_ms);
            let peer = arrival.certificate.as_ref().and_then(|shown| peers.find_by_certificate(shown));
            // Revoked between the handshake and here.
            let Some(peer) = peer.filter(|peer| peer.takes_part()) else {
                return self.refused(&HandshakeError::NotEnrolled, address);
            };
            gone = Some(peer.gone().clone());
        }
        let protocol = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Protocol::Http2,
            _ => Protocol::Http1,
        };
        self.serve(stream, protocol, (arrival, gone)).await;
    }

    fn refused(&self, error: &HandshakeError, address: IpAddr) {
        self.house.metrics.tls_failures.get_or_create(&Reason { reason: error.reason() }).inc();
        tracing::info!(client = %address, reason = %error, "a TLS handshake failed");
    }

    /// Serves one connection until it ends, the gateway stops, or its peer is cut off.
    async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        protocol: Protocol,
        (arrival, gone): (Arrival, Option<CancellationToken>),
    ) {
        let _served = self.connections.token();
        let (draining, stopping) = (self.house.tasks.draining(), self.house.tasks.stopping());
        if draining.is_cancelled() {
            return; // nobody waits for it any more
        }
        let calls = Calls { draining: Some(draining.clone()), stopping: stopping.clone(), gone };
        let service = Entering { router: self.router.clone(), arrival: Arc::new(arrival) };
        let io = TokioIo::new(stream);
        match protocol {
            Protocol::Http1 => {
                attend(Box::pin(http1_builder(&self.house).serve_connection(io, service)), calls).await;
            }
            Protocol::Http2 => {
                attend(Box::pin(http2_builder().serve_connection(io, service)), calls).await;
            }
        }
    }
}

/// What a connection is called by, other than its bytes.
#[derive(Clone)]
struct Calls {
    /// Until it is told to finish.
    draining: Option<CancellationToken>,
    stopping: CancellationToken,
    /// Its peer is cut off.
    gone: Option<CancellationToken>,
}

enum Call {
    /// To end at its next boundary.
    Finish,
    /// To end at once.
    Leave,
}

impl Calls {
    async fn next(self) -> Call {
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => Call::Leave,
            // Its streams hear why before the connection goes.
            () = cut_off(self.gone.as_ref()) => Call::Leave,
            () = cancelled(self.draining.as_ref()) => Call::Finish,
        }
    }
}

/// Sees a connection to its end: its own, or the one it is called to.
async fn attend(mut connection: Pin<Box<impl GracefulConnection>>, mut calls: Calls) {
    let mut call = Seldom::new(Box::pin(calls.clone().next()));
    loop {
        tokio::select! {
            biased;
            // How a client ends its connection is its own affair.
            _ = &mut connection => return,
            call = &mut call => match call {
                Call::Finish => connection.as_mut().graceful_shutdown(),
                Call::Leave => return,
            },
        }
        calls.draining = None;
        call = Seldom::new(Box::pin(calls.clone().next()));
    }
}

/// Waits for a token, or for ever.
async fn cancelled(token: Option<&CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

/// A moment after a peer was cut off, so that its open streams can say so.
async fn cut_off(gone: Option<&CancellationToken>) {
    cancelled(gone).await;
    tokio::time::sleep(Duration::from_millis(250)).await;
}

/// What is spoken on a connection; TLS agrees on it before the first byte.
#[derive(Clone, Copy)]
enum Protocol {
    Http1,
    Http2,
}

fn http1_builder(house: &House) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(house.options.header_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES);
    builder
}

fn http2_builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_H2_STREAMS)
        .max_local_error_reset_streams(MAX_H2_RESETS)
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .keep_alive_interval(H2_PING.0)
        .keep_alive_timeout(H2_PING.1);
    builder
}

/// What the router answers.
type Entered = Result<Response, Infallible>;

/// The router, told where each request came in.
#[derive(Clone)]
struct Entering {
    router: Router,
    arrival: Arc<Arrival>,
}

impl hyper::service::Service<Request<Incoming>> for Entering {
    type Response = Response;
    type Error = Infallible;
    type Future = Map<RouteFuture<Infallible>, fn(Entered) -> Entered>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(Arc::clone(&self.arrival));
        tower::Service::call(&mut self.router.clone(), request.map(Body::new)).map(without_methods)
    }
}

/// The framework names the methods it has handlers for in whatever answers another one, a 401 too; a path's own list
/// is in the 405.
fn without_methods(answer: Entered) -> Entered {
    answer.map(|mut response| {
        if response.status() != StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().remove(ALLOW);
        }
        response
    })
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
