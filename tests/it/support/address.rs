//! An address for a server that binds it later, or again.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports of one process of tests; another has others, more likely than not.
const PORTS: u16 = 120;

/// An address of loopback that this process has given to nobody: below the ports that the kernel gives to
/// connections and to listeners on port 0, so that none of them takes it before it is bound.
pub(crate) fn steady_address() -> SocketAddr {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 100) as u16 * PORTS;
    let next = || SocketAddr::from(([127, 0, 0, 1], first + TAKEN.fetch_add(1, Ordering::Relaxed) % PORTS));
    let found = std::iter::repeat_with(next).take(PORTS.into()).find(|at| TcpListener::bind(at).is_ok());
    found.expect("a port")
}
