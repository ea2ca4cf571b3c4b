//! Versions, protocols, tickets, and what is no TLS at all.

use rustls::AlertDescription;
use rustls::client::Resumption;
use rustls::server::ServerSessionMemoryCache;
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A listener of peers, its clone that gives tickets away, and a client that collects them.
fn tempted() -> (Arc<ServerConfig>, Arc<ServerConfig>, Arc<ClientConfig>, Arc<Table>) {
    let (gateway, peer) = (own("stk_b"), own("stk_a"));
    let table = Table::of_pins(&[&peer]);
    let strict = peer_facing(Arc::clone(&gateway), None, Arc::clone(&table) as _, &clock()).unwrap();
    let mut lax = (*strict).clone();
    lax.session_storage = ServerSessionMemoryCache::new(8);
    lax.send_tls13_tickets = 2;
    lax.max_early_data_size = 1024;
    let mut client = pinning(&gateway, Some(&peer));
    client.resumption = Resumption::in_memory_sessions(8);
    client.enable_early_data = true;
    (strict, Arc::new(lax), Arc::new(client), table)
}

async fn kinds(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> [HandshakeKind; 2] {
    let (ours, theirs) = meet(server, client).await;
    [ours.unwrap().kind, theirs.unwrap().kind]
}

#[tokio::test]
async fn every_handshake_is_a_full_one() {
    let full = [HandshakeKind::Full; 2];
    let (strict, lax, client, table) = tempted();
    // reliability 4d.30: no ticket is given, and one from elsewhere is not taken
    assert_eq!(kinds(&strict, &client).await, full);
    assert_eq!(kinds(&strict, &client).await, full);
    assert_eq!(kinds(&lax, &client).await, full);
    assert_eq!(kinds(&strict, &client).await, full);

    // What would happen otherwise: the verifier is skipped, and a revoked peer comes back.
    table.revoke_all();
    assert_eq!(kinds(&lax, &client).await, [HandshakeKind::Resumed; 2]);
    assert_eq!(meet(&strict, &client).await.0.unwrap_err(), HandshakeError::NotEnrolled);
}

#[tokio::test]
async fn our_client_never_resumes() {
    let (_, lax, collecting, _) = tempted();
    let mut client = (*collecting).clone();
    client.resumption = pinning(&own("stk_b"), None).resumption;
    let client = Arc::new(client);
    for _ in 0..2 {
        assert_eq!(kinds(&lax, &client).await, [HandshakeKind::Full; 2]);
    }
}

#[tokio::test]
async fn a_client_of_tls_1_2_is_refused() {
    let gateway = own("stk_b");
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap();
    let old = Arc::new(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth());
    for server in [
        client_facing(Arc::clone(&gateway), &clock()).unwrap(),
        peer_facing(gateway, None, Table::of_pins(&[]), &clock()).unwrap(),
    ] {
        let (ours, theirs) = meet(&server, &old).await; // reliability 4d.30
        assert_eq!(ours.unwrap_err(), HandshakeError::NoTls13);
        assert_eq!(theirs.unwrap_err(), HandshakeError::Alert(AlertDescription::ProtocolVersion));
    }
}

#[tokio::test]
async fn a_server_of_tls_1_2_is_refused() {
    let gateway = own("stk_b");
    let old = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&gateway) as _);
    let (_, theirs) = meet(&Arc::new(old), &Arc::new(pinning(&gateway, None))).await;
    assert_eq!(theirs.unwrap_err(), HandshakeError::Alert(AlertDescription::ProtocolVersion));
}

#[tokio::test]
async fn alpn_decides_the_protocol() {
    let gateway = own("stk_b");
    let server = client_facing(Arc::clone(&gateway), &clock()).unwrap();
    let with = |names: &[&str]| {
        let mut client = pinning(&gateway, None);
        client.alpn_protocols = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(client)
    };
    for (offered, chosen) in
        [(&["http/1.1", "h2"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)]
    {
        let (ours, theirs) = meet(&server, &with(offered)).await;
        assert_eq!(ours.unwrap().alpn.as_deref(), chosen, "{offered:?}");
        assert_eq!(theirs.unwrap().alpn.as_deref(), chosen);
    }
    let (ours, theirs) = meet(&server, &with(&["smtp"])).await; // reliability 4d.30
    assert_eq!(ours.unwrap_err(), HandshakeError::NoProtocol);
    assert_eq!(theirs.unwrap_err(), HandshakeError::Alert(AlertDescription::NoApplicationProtocol));
    let ours = pinning(&gateway, None).alpn_protocols;
    assert_eq!(ours, [b"http/1.1"], "the HTTP client speaks nothing else");
}

#[tokio::test]
async fn plain_http_on_the_tls_port_ends_cleanly() {
    let server = client_facing(own("stk_b"), &clock()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = async { handshake(listener.accept().await.unwrap().0, server, LIMIT).await.unwrap_err() };
    let calling = async {
        let mut plain = TcpStream::connect(address).await.unwrap();
        let mut request = b"POST /v1/runs HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n".to_vec();
        request.resize(request.len() + 30_000, b'{');
        plain.write_all(&request).await.unwrap();
        let mut answer = Vec::new();
        plain.read_to_end(&mut answer).await.map(|_| answer)
    };
    let (ours, theirs) = tokio::join!(serving, calling);
    assert_eq!(ours, HandshakeError::NotTls); // Z-41
    assert_eq!(theirs.unwrap()[0], 21, "an alert, then the end, and no reset");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_stalls_or_breaks_off_ends() {
    let server = client_facing(own("stk_b"), &clock()).unwrap();
    let (near, mut far) = tokio::io::duplex(1024);
    far.write_all(&[0x16, 3, 1]).await.unwrap();
    let start = tokio::time::Instant::now();
    assert_eq!(handshake(near, Arc::clone(&server), LIMIT).await.unwrap_err(), HandshakeError::Timeout);
    assert_eq!(start.elapsed(), LIMIT);

    let (near, far) = tokio::io::duplex(1024);
    drop(far);
    assert_eq!(handshake(near, server, LIMIT).await.unwrap_err(), HandshakeError::Closed);
}

#[tokio::test(start_paused = true)]
async fn one_refused_cannot_hold_the_socket() {
    let server = client_facing(own("stk_b"), &clock()).unwrap();
    let (near, mut far) = tokio::io::duplex(1024);
    far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let start = tokio::time::Instant::now();
    assert_eq!(handshake(near, server, LIMIT).await.unwrap_err(), HandshakeError::NotTls);
    assert!(start.elapsed() <= Duration::from_millis(200));
    assert!(far.write_all(b"more").await.is_err(), "closed although the other side stayed");
}
