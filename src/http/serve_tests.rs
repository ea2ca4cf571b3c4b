//! Who may connect, by address. Every address of a test machine may be loopback, so each connection is real and
//! the address it comes from is the test's.

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::http::options::TlsMode;

/// An acceptor, and a port to connect to it.
struct Lobby {
    acceptor: Arc<Acceptor>,
    listener: TcpListener,
}

impl Lobby {
    async fn open(door: Door, change: impl FnOnce(&mut ServerOptions)) -> Self {
        let mut options = ServerOptions::default();
        change(&mut options);
        let networks = Networks::new(options.max_connections_per_network);
        let places = Arc::new(Semaphore::new(options.max_connections));
        let (metrics, tasks) = (Arc::new(Metrics::default()), Tasks::default());
        let house = House { options, metrics, clock: Clock::system(), tasks, ports: Ports::System };
        let router = Router::new().route("/", get(async || "welcome"));
        let entrance = Entrance::plain(door);
        let connections = TaskTracker::new();
        let acceptor = Arc::new(Acceptor { router, entrance, networks, house, places, connections });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Lobby { acceptor, listener }
    }

    /// A connection that seems to come from `address`.
    async fn connect(&self, address: &str) -> TcpStream {
        let to = self.listener.local_addr().expect("an address");
        let (client, accepted) = tokio::join!(TcpStream::connect(to), self.listener.accept());
        let place = Arc::clone(&self.acceptor.places).acquire_owned().await.expect("a place");
        let (stream, _) = accepted.expect("a connection");
        self.acceptor.take_in(stream, address.parse().expect("an address"), place);
        client.expect("a connection")
    }

    /// How many were turned away.
    fn refused(&self) -> u64 {
        self.acceptor.house.metrics.connections_refused.get()
    }
}

/// Asks on an open connection; false when it was closed without a byte.
async fn is_served(stream: &mut TcpStream) -> bool {
    // The other side may have closed it already.
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: g\r\n\r\n").await;
    let mut answer = [0; 256];
    let count = stream.read(&mut answer).await.unwrap_or(0);
    assert!(count == 0 || answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    count > 0
}

//
#[tokio::test]
async fn one_network_has_so_many_connections_and_leaves_room_for_others() {
    let lobby = Lobby::open(Door::Public, |options| options.max_connections_per_network = 2).await;
    let mut first = lobby.connect("198.51.100.7").await;
    let mut second = lobby.connect("198.51.100.8").await;
    assert!(is_served(&mut first).await && is_served(&mut second).await);
    for more in ["198.51.100.7", "198.51.100.200", "::ffff:198.51.100.9"] {
        assert!(!is_served(&mut lobby.connect(more).await).await, "{more}");
    }
    assert_eq!(lobby.refused(), 3);
    let mut others = Vec::new();
    for other in
        ["198.51.101.7", "2001:db8::1", "2001:db8:0:ff::1", "127.0.0.1", "::1", "127.0.0.1", "127.0.0.1"]
    {
        let mut stream = lobby.connect(other).await;
        assert!(is_served(&mut stream).await, "{other}");
        others.push(stream);
    }
    // A /56 of IPv6 is one network.
    assert!(!is_served(&mut lobby.connect("2001:db8:0:1::1").await).await);
    // Whoever goes gives the place back, and the last one of a network leaves nothing behind.
    drop((first, others));
    let mut again = lobby.connect("198.51.100.9").await;
    for _ in 0..500 {
        if is_served(&mut again).await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await; // why: the server sees the end of a connection in its time
        again = lobby.connect("198.51.100.9").await;
    }
    assert!(is_served(&mut again).await);
    drop((second, again));
    for _ in 0..500 {
        if lobby.acceptor.networks.open.lock().expect("the networks").is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await; // why: as above
    }
    panic!("networks without a connection are remembered");
}

// Z-41
#[tokio::test]
async fn behind_a_proxy_only_the_proxy_may_connect() {
    let behind = |options: &mut ServerOptions| {
        options.tls = TlsMode::TerminatedUpstream;
        options.trusted_proxies = vec!["203.0.113.0/28".parse().expect("a range")];
        options.max_connections_per_network = 1;
    };
    let public = Lobby::open(Door::Public, behind).await;
    let mut open = Vec::new();
    for (address, is_let_in) in [
        ("203.0.113.15", true),
        ("203.0.113.15", true), // all its clients come from there
        ("::ffff:203.0.113.1", true),
        ("127.0.0.1", true),
        ("203.0.113.16", false),
        ("198.51.100.7", false),
        ("10.0.0.1", false),
        ("2001:db8::1", false),
    ] {
        let mut stream = public.connect(address).await;
        assert_eq!(is_served(&mut stream).await, is_let_in, "{address}");
        open.push(stream);
    }
    assert_eq!(public.refused(), 4);
    // Peers end TLS with the gateway itself.
    let peers = Lobby::open(Door::Peers, behind).await;
    assert!(is_served(&mut peers.connect("198.51.100.7").await).await);
}
