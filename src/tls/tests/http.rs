//! The HTTP client of the gateway over these configurations.

use tokio::net::TcpListener;

use super::*;

/// Answers one request on a peer listener, or says why the handshake failed.
async fn answer_one(listener: &TcpListener, server: &Arc<ServerConfig>) -> Result<(), HandshakeError> {
    let (socket, _) = listener.accept().await.unwrap();
    let mut stream = handshake(socket, Arc::clone(server), LIMIT).await?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await.unwrap();
    stream.shutdown().await.unwrap();
    Ok(())
}

async fn get(client: ClientConfig, url: String) -> Result<String, reqwest::Error> {
    let http = reqwest::Client::builder().tls_backend_preconfigured(client).no_proxy().build()?;
    http.get(url).send().await?.text().await
}

#[tokio::test]
async fn the_http_client_reaches_a_pinned_peer_and_no_other() {
    let (gateway, peer, other) = (own("stk_b"), own("stk_a"), own("stk_c"));
    let table = Table::of_pins(&[&peer]);
    let server = peer_facing(Arc::clone(&gateway), None, table, &clock()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());

    let good = pinning(&gateway, Some(&peer));
    let (ours, theirs) = tokio::join!(answer_one(&listener, &server), get(good, url.clone()));
    assert_eq!(ours, Ok(())); // Z-41
    assert_eq!(theirs.unwrap(), "ok");

    let wrong = pinning(&other, Some(&peer));
    let (ours, theirs) = tokio::join!(answer_one(&listener, &server), get(wrong, url.clone()));
    let error = theirs.unwrap_err();
    assert!(error.is_connect(), "nothing was sent: {error:?}");
    assert_eq!(HandshakeError::find(&error), Some(HandshakeError::NotEnrolled));
    assert!(matches!(ours, Err(HandshakeError::Alert(_))));

    let stranger = pinning(&gateway, Some(&other));
    let (ours, theirs) = tokio::join!(answer_one(&listener, &server), get(stranger, url));
    assert_eq!(ours, Err(HandshakeError::NotEnrolled));
    let refusal = HandshakeError::find(&theirs.unwrap_err());
    assert_eq!(refusal, Some(HandshakeError::Alert(rustls::AlertDescription::AccessDenied)));
}

#[tokio::test]
async fn a_peer_with_a_private_certificate_is_no_public_server() {
    let gateway = own("peer-b.example");
    let server = client_facing(Arc::clone(&gateway), &clock()).unwrap();
    let Ok(client) = toward_peer(None, Expectation::PublicRoots, &clock()) else {
        return; // a system without any roots of its own
    };
    assert_eq!(meet(&server, &Arc::new(client)).await.1.unwrap_err(), HandshakeError::Foreign);
}
