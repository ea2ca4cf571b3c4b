//! A TCP proxy that misbehaves on command.
//!
//! Invariant: the mode may change at any time and holds at once, for the connections there are and for those
//! to come. Bytes are never altered or reordered; they are passed on, withheld or cut off. Byte counts start
//! when a connection is opened or a mode is set, whichever is later.

mod pump;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use self::pump::{Pump, Stop, shut_down, until_heard};
use crate::support::orchestrator::HeldPort;

/// The proxy; dropping it closes everything.
pub(crate) struct FaultProxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _life: DropGuard,
}

/// What the proxy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProxyMode {
    /// Passes everything on.
    Pass,
    /// Has no listener: connects are refused. Connections there are pass on.
    Refuse,
    /// Accepts, then neither reads nor writes nor dials the target. What was withheld passes on in a later
    /// mode.
    Silence,
    /// Passes this many bytes in that direction, then ends the connection so.
    CutAfter {
        /// The direction whose bytes count.
        direction: Direction,
        /// How many still pass. The cut comes right after the last of them; with 0, when a byte comes at all.
        bytes: usize,
        /// How the end looks.
        ending: Ending,
        /// Whether the proxy passes again after the first cut.
        times: Times,
    },
    /// Passes one byte at a time with this pause.
    Dribble(Duration),
    /// Waits this long before each piece it passes on.
    Delay(Duration),
    /// Passes the head of the first response, then swallows what the target sends; the connection stays open.
    BlackholeAfterHeaders,
    /// Resets every connection, also each new one once it is accepted.
    Reset,
}

/// Where bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the client to the target: requests.
    ToTarget,
    /// From the target to the client: answers.
    ToClient,
}

/// How a cut connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With FIN to both sides.
    Close,
    /// With RST to both sides.
    Reset,
    /// With FIN in the direction that was cut; the other one goes on.
    HalfClose,
}

/// How often a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Times {
    /// Once, then the proxy passes.
    Once,
    /// On each connection.
    EachConnection,
}

struct Shared {
    port: HeldPort,
    target: Mutex<SocketAddr>,
    setting: watch::Sender<Setting>,
    /// Whether there is a listener.
    listening: watch::Sender<bool>,
    accepted: watch::Sender<usize>,
    open: AtomicUsize,
    tasks: TaskTracker,
    life: CancellationToken,
}

/// A mode, told from the same mode set again.
#[derive(Debug, Clone, Copy)]
struct Setting {
    number: usize,
    mode: ProxyMode,
}

impl FaultProxy {
    /// A proxy to this address that passes everything on.
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let life = CancellationToken::new();
        let port = HeldPort::reserve();
        let addr = port.addr();
        let listener = port.listen();
        let shared = Arc::new(Shared {
            port,
            target: Mutex::new(target),
            setting: watch::Sender::new(Setting { number: 0, mode: ProxyMode::Pass }),
            listening: watch::Sender::new(true),
            accepted: watch::Sender::new(0),
            open: AtomicUsize::new(0),
            tasks: TaskTracker::new(),
            life: life.clone(),
        });
        shared.spawn(accept(Arc::clone(&shared), listener));
        Self { addr, shared, _life: life.drop_guard() }
    }

    /// Its own address.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:<port>`
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Changes the mode; returns when the listener is there or gone accordingly.
    pub(crate) async fn set(&self, mode: ProxyMode) {
        self.shared.setting.send_modify(|setting| *setting = Setting { number: setting.number + 1, mode });
        let listens = mode != ProxyMode::Refuse;
        let mut listening = self.shared.listening.subscribe();
        listening.wait_for(|now| *now == listens).await.expect("the acceptor lives as long as the proxy");
    }

    /// Dials this address from the next connection on.
    pub(crate) fn retarget(&self, target: SocketAddr) {
        *self.shared.target.lock().expect("nobody panics with an address in hand") = target;
    }

    /// How many connections were ever accepted.
    pub(crate) fn connections(&self) -> usize {
        *self.shared.accepted.borrow()
    }

    /// How many connections are open.
    pub(crate) fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Waits until this many connections were accepted in all.
    pub(crate) async fn until_connections(&self, count: usize) {
        let mut accepted = self.shared.accepted.subscribe();
        let waited = tokio::time::timeout(Duration::from_secs(20), accepted.wait_for(|seen| *seen >= count));
        let seen = waited.await.map(|seen| seen.is_ok());
        assert_eq!(seen, Ok(true), "{} of {count} connections", self.connections());
    }

    /// Closes the listener and every connection.
    pub(crate) async fn stop(self) {
        self.shared.life.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Shared {
    /// Runs it until it ends or the proxy does.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let life = self.life.clone();
        self.tasks.spawn(async move {
            life.run_until_cancelled(task).await;
        });
    }

    /// Whether the fault of this setting may strike; a fault that strikes once gives way to `Pass`.
    fn strikes(&self, number: usize, times: Times) -> bool {
        let Times::Once = times else { return true };
        self.setting.send_if_modified(|setting| {
            let first = setting.number == number;
            if first {
                *setting = Setting { number: number + 1, mode: ProxyMode::Pass };
            }
            first
        })
    }
}

/// Accepts while the mode has a listener.
async fn accept(shared: Arc<Shared>, mut listener: TcpListener) {
    let mut setting = shared.setting.subscribe();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                shared.accepted.send_modify(|accepted| *accepted += 1);
                shared.spawn(carry(Arc::clone(&shared), client));
                continue;
            }
            _ = setting.wait_for(|setting| setting.mode == ProxyMode::Refuse) => {}
        }
        drop(listener);
        shared.listening.send_replace(false);
        drop(setting.wait_for(|setting| setting.mode != ProxyMode::Refuse).await);
        listener = shared.port.listen();
        shared.listening.send_replace(true);
    }
}

/// Carries one connection from its acceptance to its end.
async fn carry(shared: Arc<Shared>, mut client: TcpStream) {
    let _open = OpenConnection::count(&shared);
    let mut setting = shared.setting.subscribe();
    until_heard(&mut setting).await;
    if setting.borrow().mode == ProxyMode::Reset {
        client.set_zero_linger().expect("SO_LINGER");
        return;
    }
    let addr = *shared.target.lock().expect("nobody panics with an address in hand");
    let Ok(mut target) = TcpStream::connect(addr).await else { return };
    for socket in [&client, &target] {
        socket.set_nodelay(true).expect("TCP_NODELAY");
    }
    let ending = tokio::select! {
        ending = carry_both(&shared, &mut client, &mut target) => ending,
        () = until_reset(&mut setting) => Ending::Reset,
    };
    match ending {
        Ending::Reset => {
            for socket in [&client, &target] {
                socket.set_zero_linger().expect("SO_LINGER");
            }
        }
        Ending::Close | Ending::HalfClose => {
            tokio::join!(linger(&mut client), linger(&mut target));
        }
    }
}

/// Runs both directions until both ended or one took the other with it.
async fn carry_both(shared: &Arc<Shared>, client: &mut TcpStream, target: &mut TcpStream) -> Ending {
    let (from_client, to_client) = client.split();
    let (from_target, to_target) = target.split();
    let mut up = pin!(Pump::new(shared, Direction::ToTarget).run(from_client, to_target));
    let mut down = pin!(Pump::new(shared, Direction::ToClient).run(from_target, to_client));
    let (first, other) = tokio::select! {
        stop = &mut up => (stop, Direction::ToClient),
        stop = &mut down => (stop, Direction::ToTarget),
    };
    let last = match (first, other) {
        (Stop::Whole(_), _) => first,
        (Stop::Half, Direction::ToClient) => down.await,
        (Stop::Half, Direction::ToTarget) => up.await,
    };
    match last {
        Stop::Whole(ending) => ending,
        Stop::Half => Ending::Close,
    }
}

/// Counts one open connection for as long as it lives.
struct OpenConnection(Arc<Shared>);

impl OpenConnection {
    fn count(shared: &Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(shared))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits for the mode that resets.
async fn until_reset(setting: &mut watch::Receiver<Setting>) {
    drop(setting.wait_for(|setting| setting.mode == ProxyMode::Reset).await);
}

/// Sends FIN and discards what the other side still sends, so that no RST follows.
async fn linger(socket: &mut TcpStream) {
    shut_down(socket).await;
    let mut discarded = [0; 1024];
    while matches!(socket.read(&mut discarded).await, Ok(1..)) {}
}
