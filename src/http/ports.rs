//! Where connections come from: the machine's ports, or those of a simulated network.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Connections of a simulated network, each with the address of the other side.
pub type Arrivals = mpsc::Receiver<(DuplexStream, SocketAddr)>;

/// Gives connections in place of the machine's ports.
pub trait PortMaker: Send + Sync {
    /// Opens a port.
    fn open(&self, address: SocketAddr) -> Arrivals;
}

/// The ports of one gateway.
#[derive(Clone, Default)]
pub enum Ports {
    /// The machine's.
    #[default]
    System,
    /// Those of a simulated network.
    Simulated(Arc<dyn PortMaker>),
}

/// An open port.
pub(super) trait Port: Send + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection, and where it comes from. Dropping the future loses none.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;
}

impl Port for TcpListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, address) = TcpListener::accept(self).await?;
        // Frames leave when they are written, not when a packet is full.
        let _ = stream.set_nodelay(true);
        Ok((stream, address))
    }
}

impl Port for Arrivals {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
        self.recv().await.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}
