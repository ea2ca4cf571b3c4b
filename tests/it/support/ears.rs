//! What the tests hear of a gateway: whatever a client of theirs reads passes here, and is kept for the search
//! for secrets.
//!
//! Invariant: no test opens a connection, builds a client or reads a body in another way; `tidy` holds it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::gateway::Answer;
use super::secrets;

/// The bytes of one connection or output, told as one text once it is over.
#[derive(Debug, Default)]
pub(crate) struct Ear(Vec<u8>);

impl Ear {
    /// Takes the next bytes.
    pub(crate) fn hear(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        secrets::read(&String::from_utf8_lossy(&self.0));
    }
}

/// A connection whose every byte from the other side is heard.
#[derive(Debug)]
pub(crate) struct Tapped<S> {
    stream: S,
    ear: Ear,
}

impl<S> Tapped<S> {
    /// The connection below.
    pub(crate) fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tapped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        self.ear.hear(&into.filled()[before..]);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tapped<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A connection without TLS.
pub(crate) async fn connect(address: SocketAddr) -> std::io::Result<Tapped<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    Ok(Tapped { stream, ear: Ear::default() })
}

/// A connection with TLS; what is heard is what was said inside.
pub(crate) async fn connect_tls(
    address: SocketAddr,
    config: rustls::ClientConfig,
    name: &'static str,
) -> std::io::Result<Tapped<TlsStream<TcpStream>>> {
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name).expect("a name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await?;
    Ok(Tapped { stream, ear: Ear::default() })
}

/// A client to be set up further.
pub(crate) fn client_with(
    set_up: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
) -> reqwest::Client {
    set_up(reqwest::Client::builder().no_proxy()).build().expect("a client")
}

/// A client without TLS.
pub(crate) fn plain_client() -> reqwest::Client {
    client_with(|builder| builder)
}

/// A client of whoever may use this socket.
pub(crate) fn socket_client(socket: PathBuf) -> reqwest::Client {
    client_with(|builder| builder.unix_socket(socket))
}

/// Reads an answer to its end.
pub(crate) async fn read(response: reqwest::Response) -> Answer {
    try_read(response).await.expect("a body")
}

/// Reads an answer to its end, if it has one.
pub(crate) async fn try_read(response: reqwest::Response) -> reqwest::Result<Answer> {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let url = response.url().to_string();
    secrets::asked(&url);
    let text = response.text().await?;
    secrets::read(&format!("an answer {status}: {headers:?} {text}\n"));
    let json = serde_json::from_str(&text).unwrap_or(serde_json::Value::Null);
    Ok(Answer { status, headers, json, text })
}

/// An answer whose body is read as it comes.
#[derive(Debug)]
pub(crate) struct Opened {
    response: reqwest::Response,
    ear: Ear,
}

impl Opened {
    /// Of this answer.
    pub(crate) fn new(response: reqwest::Response) -> Self {
        secrets::asked(response.url().as_str());
        let mut ear = Ear::default();
        ear.hear(format!("{:?} ", response.headers()).as_bytes());
        Opened { response, ear }
    }

    /// Its status.
    pub(crate) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// The next bytes; `None` at a clean end.
    pub(crate) async fn next(&mut self) -> reqwest::Result<Option<Vec<u8>>> {
        let chunk = self.response.chunk().await?.map(|bytes| bytes.to_vec());
        self.ear.hear(chunk.as_deref().unwrap_or_default());
        Ok(chunk)
    }

    /// The rest, however it ends.
    pub(crate) async fn rest(mut self) -> String {
        let mut all = Vec::new();
        while let Ok(Some(chunk)) = self.next().await {
            all.extend(chunk);
        }
        String::from_utf8_lossy(&all).into_owned()
    }
}
