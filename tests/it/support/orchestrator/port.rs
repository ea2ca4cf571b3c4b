//! A TCP port that stays ours while nothing listens on it.
//!
//! Invariant: from `reserve` until the value is dropped, no other process or test can be given this port, and
//! while no listener exists every connect is refused at once. Tests that stop, refuse and restart a server on
//! one address depend on both.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

/// A loopback port, bound for as long as this value lives; see the file header.
pub(crate) struct HeldPort {
    addr: SocketAddr,
    /// Bound and never listening: the kernel answers a connect with RST, and gives the port to nobody else.
    _reservation: TcpSocket,
}

impl HeldPort {
    /// Reserves a free port on 127.0.0.1.
    pub(crate) fn reserve() -> Self {
        let socket = bind_shared(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let addr = socket.local_addr().expect("a bound socket has an address");
        Self { addr, _reservation: socket }
    }

    /// The address, the same over all listeners.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Starts to listen; dropping the listener refuses connections again.
    pub(crate) fn listen(&self) -> TcpListener {
        bind_shared(self.addr).listen(1024).expect("the reserved port can be listened on")
    }
}

/// A socket bound with `SO_REUSEPORT`, so that reservation and listener can share the port. Without
/// `SO_REUSEADDR`: with it on both sides, anyone could bind the port while nothing listens.
fn bind_shared(addr: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("an IPv4 socket");
    socket.set_reuseport(true).expect("SO_REUSEPORT");
    socket.bind(addr).expect("a loopback port to bind");
    socket
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_held_port_refuses_at_once_and_listens_again_on_the_same_address() {
        let port = HeldPort::reserve();
        for _ in 0..3 {
            let refused = TcpStream::connect(port.addr()).await.expect_err("nothing listens");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            let taken = std::net::TcpListener::bind(port.addr()).expect_err("the port is ours");
            assert_eq!(taken.kind(), ErrorKind::AddrInUse);
            let listener = port.listen();
            let (accepted, dialled) = tokio::join!(listener.accept(), TcpStream::connect(port.addr()));
            assert_eq!(
                accepted.expect("accepted").1,
                dialled.expect("dialled").local_addr().expect("address")
            );
        }
    }
}
