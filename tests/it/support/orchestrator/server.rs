//! The listening half: accepts, routes, and stops as abruptly as a crash.
//!
//! Invariant: while it is stopped or refusing, every connect is refused and the port stays ours; a stop
//! leaves no task behind.

use std::{io, net::SocketAddr, sync::Arc};

use serde_json::json;
use tokio::{net::TcpListener, sync::Mutex};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    creates::answer_create,
    http::{Answer, Connection, percent_decode, split_target},
    port::HeldPort,
    reply::{Next, Reply},
    state::Shared,
    statuses::{answer_cancel, answer_status},
    stream::serve_events,
    truth::RequestSeen,
};

/// The server, running or not.
pub(super) struct Server {
    port: HeldPort,
    shared: Arc<Shared>,
    running: Mutex<Running>,
}

/// What one start made; cancelled tokens say that it is over.
struct Running {
    /// Ends every connection.
    life: CancellationToken,
    /// Ends the listener and the connections between two requests.
    accepting: CancellationToken,
    acceptor: TaskTracker,
    connections: TaskTracker,
}

/// What a request is for.
enum Route {
    Create { agent_id: String },
    Status { run_id: String },
    Cancel { run_id: String },
    Events { run_id: String },
    Health,
    Unknown,
}

impl Server {
    /// Listens on a fresh port.
    pub(super) fn start(shared: Arc<Shared>) -> Self {
        let port = HeldPort::reserve();
        let running = Running::new(&shared);
        running.accept(port.listen(), &shared);
        Self { port, shared, running: Mutex::new(running) }
    }

    /// The address, the same over all restarts.
    pub(super) fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Closes the listener and every connection, in the middle of whatever it does.
    pub(super) async fn stop(&self) {
        self.running.lock().await.stop().await;
    }

    /// Stops if need be, and listens again.
    pub(super) async fn restart(&self) {
        let mut running = self.running.lock().await;
        running.stop().await;
        *running = Running::new(&self.shared);
        running.accept(self.port.listen(), &self.shared);
    }

    /// Closes the listener; requests being served and open streams go on.
    pub(super) async fn refuse(&self) {
        self.running.lock().await.refuse().await;
    }

    /// Opens the listener again, unless it is open or the server stopped.
    pub(super) async fn accept(&self) {
        let mut running = self.running.lock().await;
        if running.accepting.is_cancelled() && !running.life.is_cancelled() {
            running.accepting = running.life.child_token();
            running.acceptor = TaskTracker::new();
            running.accept(self.port.listen(), &self.shared);
        }
    }
}

impl Running {
    fn new(shared: &Shared) -> Self {
        let life = shared.life.child_token();
        let accepting = life.child_token();
        Self { life, accepting, acceptor: TaskTracker::new(), connections: TaskTracker::new() }
    }

    fn accept(&self, listener: TcpListener, shared: &Arc<Shared>) {
        let (shared, life, accepting) = (Arc::clone(shared), self.life.clone(), self.accepting.clone());
        let connections = self.connections.clone();
        self.acceptor.spawn(async move {
            while let Some(Ok((socket, _))) = accepting.run_until_cancelled(listener.accept()).await {
                shared.change(|state| state.truth.connections += 1);
                let (shared, accepting) = (Arc::clone(&shared), accepting.clone());
                let life = life.clone();
                connections.spawn(async move {
                    let connection = Connection::new(socket);
                    let _broken = life.run_until_cancelled(converse(&shared, connection, &accepting)).await;
                });
            }
        });
    }

    async fn refuse(&self) {
        self.accepting.cancel();
        self.acceptor.close();
        self.acceptor.wait().await;
    }

    async fn stop(&self) {
        self.life.cancel();
        self.refuse().await;
        self.connections.close();
        self.connections.wait().await;
    }
}

/// Serves one connection, request by request; an error means that the client broke it, which is no news.
async fn converse(
    shared: &Arc<Shared>,
    mut connection: Connection,
    accepting: &CancellationToken,
) -> io::Result<()> {
    while let Some(Ok(true)) = accepting.run_until_cancelled(connection.begins()).await {
        let request = connection.read_request().await?;
        shared.change(|state| state.truth.requests.push(Arc::clone(&request)));
        if answer(shared, &mut connection, &request).await? == Next::Close {
            break;
        }
    }
    Ok(())
}

async fn answer(
    shared: &Arc<Shared>,
    connection: &mut Connection,
    request: &Arc<RequestSeen>,
) -> io::Result<Next> {
    let reply = match Route::of(request) {
        Route::Health => Reply::Whole(Answer::json(
            200,
            &json!({"status": "ok", "service": "agent-orchestrator", "version": "1.0.2"}),
        )),
        Route::Unknown => Reply::refusal(404, request),
        _ if let Some(refusal) = refusal_at_the_door(shared, request) => Reply::Whole(refusal),
        Route::Create { agent_id } => answer_create(shared, request, &agent_id).await,
        Route::Status { run_id } => answer_status(shared, request, &run_id),
        Route::Cancel { run_id } => answer_cancel(shared, request, &run_id),
        Route::Events { run_id } => return serve_events(shared, connection, request, &run_id).await,
    };
    reply.send(connection).await
}

/// Who may not come in, by the rules: a wrong credential, an unknown tenant.
fn refusal_at_the_door(shared: &Shared, request: &RequestSeen) -> Option<Answer> {
    shared.look(|state| {
        let rules = &state.script.rules;
        let demanded = rules.authorization.as_deref();
        if demanded.is_some_and(|demanded| request.header("authorization") != Some(demanded)) {
            return Some(Answer::refusal(401, request));
        }
        let tenant_id = tenant_of(request);
        let unknown = rules.tenants.as_ref().is_some_and(|known| known.iter().all(|name| name != tenant_id));
        unknown.then(|| Answer::error(403, "tenant_unknown", request))
    })
}

/// The tenant a request speaks for: `X-Tenant-Id`, else `tnt_demo`.
pub(super) fn tenant_of(request: &RequestSeen) -> &str {
    request.header("x-tenant-id").unwrap_or("tnt_demo")
}

impl Route {
    fn of(request: &RequestSeen) -> Self {
        let (path, _) = split_target(&request.target);
        let segments: Vec<String> = path.split('/').skip(1).map(percent_decode).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (request.method.as_str(), segments.as_slice()) {
            ("GET", ["v1", "health"]) => Self::Health,
            ("POST", ["v1", "agents", agent_id, "runs"]) => Self::Create { agent_id: (*agent_id).to_owned() },
            ("GET", ["v1", "runs", run_id]) => Self::Status { run_id: (*run_id).to_owned() },
            ("GET", ["v1", "runs", run_id, "events"]) => Self::Events { run_id: (*run_id).to_owned() },
            ("POST", ["v1", "runs", run_id]) => run_id
                .strip_suffix(":cancel")
                .map_or(Self::Unknown, |run_id| Self::Cancel { run_id: run_id.to_owned() }),
            _ => Self::Unknown,
        }
    }
}
