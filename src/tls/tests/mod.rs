//! A small authority, a table of peers and a meeting of one client with one server, in memory.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::*;

mod files;
mod http;
mod peers;
mod sessions;

/// When the tests take place.
const NOW: i64 = 1_790_000_000_000;
const DAY: i64 = 86_400_000;
const LIMIT: Duration = Duration::from_secs(5);

/// The example key of RFC 8410, section 10.3.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
    -----END PRIVATE KEY-----\n";

fn clock() -> Clock {
    Clock::manual(NOW)
}

/// A gateway with a fresh key and a certificate of its own making.
fn own(name: &str) -> Arc<Credentials> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
    Arc::new(Credentials::fixed(Identity::self_issued(&key, name, NOW).unwrap()))
}

/// A private authority, its files in a directory that goes with it.
struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

/// What an issued certificate says.
struct Leaf {
    name: &'static str,
    usage: ExtendedKeyUsagePurpose,
    from_ms: i64,
    until_ms: i64,
}

impl Leaf {
    fn client(name: &'static str) -> Self {
        Leaf { name, usage: ExtendedKeyUsagePurpose::ClientAuth, from_ms: NOW - DAY, until_ms: NOW + DAY }
    }

    fn server(name: &'static str) -> Self {
        Leaf { usage: ExtendedKeyUsagePurpose::ServerAuth, ..Leaf::client(name) }
    }
}

fn date(unix_ms: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(unix_ms / 1000).unwrap()
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Ca { issuer, dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        let path = self.dir.path().join("ca.pem");
        std::fs::write(&path, self.issuer.pem()).unwrap();
        path
    }

    fn authority(&self) -> Arc<Authority> {
        Arc::new(Authority::from_file(&self.file()).unwrap())
    }

    /// Certificate and key, in PEM.
    fn issue_pem(&self, leaf: &Leaf) -> (String, String) {
        let mut params = CertificateParams::new(vec![leaf.name.to_owned()]).unwrap();
        params.not_before = date(leaf.from_ms);
        params.not_after = date(leaf.until_ms);
        params.extended_key_usages = vec![leaf.usage.clone()];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn write(&self, leaf: &Leaf) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.issue_pem(leaf);
        let paths = (self.dir.path().join("cert.pem"), self.dir.path().join("key.pem"));
        std::fs::write(&paths.0, certificate).unwrap();
        std::fs::write(&paths.1, key).unwrap();
        paths
    }

    fn issue(&self, leaf: &Leaf) -> Arc<Credentials> {
        let (certificate, key) = self.write(leaf);
        Arc::new(Credentials::fixed(Identity::from_files(&certificate, &key).unwrap()))
    }
}

/// The peers enrolled, and every question asked.
#[derive(Debug, Default)]
struct Table {
    pins: Mutex<Vec<SpkiPin>>,
    names: Mutex<Vec<String>>,
    asked: Mutex<Vec<Presented>>,
}

impl Table {
    fn of_pins(peers: &[&Credentials]) -> Arc<Self> {
        let pins = peers.iter().map(|peer| peer.current().pin()).collect();
        Arc::new(Table { pins: Mutex::new(pins), ..Table::default() })
    }

    fn of_names(names: &[&str]) -> Arc<Self> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Arc::new(Table { names: Mutex::new(names), ..Table::default() })
    }

    fn revoke_all(&self) {
        self.pins.lock().unwrap().clear();
        self.names.lock().unwrap().clear();
    }
}

impl PeerDirectory for Table {
    fn knows(&self, presented: &Presented) -> bool {
        self.asked.lock().unwrap().push(presented.clone());
        let names = self.names.lock().unwrap();
        self.pins.lock().unwrap().contains(&presented.pin)
            || presented.names.iter().any(|name| names.contains(name))
    }
}

/// One side's view of a connection that came about.
#[derive(Debug, PartialEq)]
struct Seen {
    kind: HandshakeKind,
    alpn: Option<String>,
    /// The certificates the other side showed.
    shown: usize,
}

fn text(protocol: Option<&[u8]>) -> Option<String> {
    protocol.map(|name| String::from_utf8(name.to_vec()).unwrap())
}

type Views = (Result<Seen, HandshakeError>, Result<Seen, HandshakeError>);

/// Lets a client meet a server; returns the server's view and the client's, who reads one byte.
async fn meet_as(name: &str, server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> Views {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let serving = async {
        let mut stream = handshake(near, Arc::clone(server), LIMIT).await?;
        stream.write_all(b"x").await.unwrap();
        stream.flush().await.unwrap();
        let connection = stream.get_ref().1;
        Ok(Seen {
            kind: connection.handshake_kind().unwrap(),
            alpn: text(connection.alpn_protocol()),
            shown: connection.peer_certificates().map_or(0, <[_]>::len),
        })
    };
    let calling = async {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut stream = TlsConnector::from(Arc::clone(client)).connect(name, far).await?;
        stream.read_exact(&mut [0]).await?;
        let connection = stream.get_ref().1;
        Ok(Seen {
            kind: connection.handshake_kind().unwrap(),
            alpn: text(connection.alpn_protocol()),
            shown: connection.peer_certificates().map_or(0, <[_]>::len),
        })
    };
    tokio::join!(serving, calling)
}

async fn meet(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> Views {
    meet_as("peer-b.example", server, client).await
}

/// A client that shows `credentials` and pins `server`.
fn pinning(server: &Credentials, credentials: Option<&Arc<Credentials>>) -> ClientConfig {
    let expectation = Expectation::pins(vec![server.current().pin()]);
    toward_peer(credentials.cloned(), expectation, &clock()).unwrap()
}
