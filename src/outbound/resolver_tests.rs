//! What the resolver lets through, over real connections.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::domain::address::AddressKind;

fn rule(granted: &[&str]) -> AddressRule {
    AddressRule::new(granted.iter().map(|text| text.parse().expect(text)).collect())
}

/// A server on loopback that gives every connection one answer and closes it.
struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Server {
    fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&connections);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                seen.fetch_add(1, Ordering::SeqCst);
                let mut stream = stream.expect("a connection");
                let mut request = [0_u8; 4096];
                if stream.read(&mut request).is_ok() {
                    stream.write_all(answer.as_bytes()).expect("an answer");
                }
            }
        });
        Server { port, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn url(&self, host: &str) -> Url {
        Url::parse(&format!("http://{host}:{}/", self.port)).expect("a URL")
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

fn client(resolver: PeerResolver) -> reqwest::Client {
    reqwest::Client::builder()
        .dns_resolver(resolver)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .tls_certs_only([])
        .build()
        .expect("a client")
}

/// Answers each lookup with the next entry, and the last one for ever.
fn scripted(
    rule: AddressRule,
    script: &'static [&'static [&'static str]],
) -> (PeerResolver, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let resolver = PeerResolver::with_lookup(rule, move |_| {
        let turn = count.fetch_add(1, Ordering::SeqCst).min(script.len() - 1);
        let found = script[turn].iter().map(|text| SocketAddr::new(text.parse().expect(text), 0)).collect();
        Box::pin(std::future::ready(Ok(found)))
    });
    (resolver, asked)
}

async fn resolved(resolver: &PeerResolver, name: &str) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
    let name = name.parse().expect("a name");
    Ok(resolver.resolve(name).await?.map(|address| address.ip().to_string()).collect())
}

#[tokio::test]
async fn a_name_of_a_local_address_is_dialled_only_with_a_grant() {
    // reliability 4d.48
    let server = Server::start(OK);
    let refused = client(PeerResolver::system(rule(&[])));
    let error = refused.get(server.url("localhost")).send().await.expect_err("refused");
    let denied = denied_address(&error).expect("the reason");
    assert_eq!(denied.kind, AddressKind::Loopback);
    assert!(error.is_connect(), "no byte of the request left");
    assert_eq!(server.connections(), 0);

    let granted = client(PeerResolver::system(rule(&["127.0.0.0/8"])));
    let answer = granted.get(server.url("localhost")).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn every_local_answer_of_a_name_server_is_refused() {
    // reliability 4d.48
    for address in [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "fd00::1",
        "fe80::1",
        "64:ff9b::7f00:1",
        "169.254.169.254",
        "fd00:ec2::254",
    ] {
        let found = vec![SocketAddr::new(address.parse().expect(address), 0)];
        let resolver =
            PeerResolver::with_lookup(rule(&[]), move |_| Box::pin(std::future::ready(Ok(found.clone()))));
        let error = client(resolver).get("http://peer.example/").send().await.expect_err(address);
        let denied = denied_address(&error).expect(address);
        assert_eq!(denied.address.to_string(), address);
    }
}

#[tokio::test]
async fn a_name_that_changes_its_address_after_the_check_is_refused() {
    // reliability 4d.49
    let server = Server::start(OK);
    let (resolver, asked) = scripted(rule(&[]), &[&["203.0.114.7"], &["127.0.0.1"]]);
    assert_eq!(resolved(&resolver, "peer.example").await.expect("public"), ["203.0.114.7"]);
    let error = client(resolver).get(server.url("peer.example")).send().await.expect_err("refused");
    assert!(denied_address(&error).is_some());
    assert_eq!((asked.load(Ordering::SeqCst), server.connections()), (2, 0));
}

#[tokio::test]
async fn each_connection_asks_again_and_dials_what_it_was_told() {
    // reliability 4d.49
    let server = Server::start(OK);
    let (resolver, asked) = scripted(rule(&["127.0.0.1"]), &[&["127.0.0.2", "127.0.0.1"], &["127.0.0.2"]]);
    let client = client(resolver);
    let answer = client.get(server.url("peer.example")).send().await.expect("the granted one is dialled");
    assert_eq!(answer.text().await.expect("a body"), "ok");
    let error = client.get(server.url("peer.example")).send().await.expect_err("refused");
    assert_eq!(denied_address(&error).map(|denied| denied.address.to_string()).as_deref(), Some("127.0.0.2"));
    assert_eq!((asked.load(Ordering::SeqCst), server.connections()), (2, 1));
}

#[tokio::test]
async fn a_mixed_answer_loses_what_is_denied_and_keeps_its_order() {
    let (resolver, _) = scripted(rule(&[]), &[&["10.0.0.1", "2606:4700::2", "127.0.0.1", "1.1.1.1", "::1"]]);
    assert_eq!(resolved(&resolver, "peer.example").await.expect("public"), ["2606:4700::2", "1.1.1.1"]);
}

#[tokio::test]
async fn a_failed_lookup_is_not_a_denial() {
    let (nowhere, _) = scripted(rule(&[]), &[&[]]);
    let broken = PeerResolver::with_lookup(rule(&[]), |_| {
        Box::pin(std::future::ready(Err(io::Error::other("no name server"))))
    });
    for (resolver, reason) in [(nowhere, "the name has no address"), (broken, "no name server")] {
        let error = client(resolver).get("http://peer.example/").send().await.expect_err("no address");
        assert!(error.is_connect() && denied_address(&error).is_none());
        let mut cause: &dyn Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        assert_eq!(cause.to_string(), reason);
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_a_way() {
    // reliability 4d.47: the resolver would never be asked about this target
    let server = Server::start(
        "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    );
    let (resolver, asked) = scripted(rule(&["127.0.0.1"]), &[&["127.0.0.1"]]);
    let answer = client(resolver).get(server.url("peer.example")).send().await.expect("an answer");
    assert_eq!(answer.status(), 302);
    assert_eq!((asked.load(Ordering::SeqCst), server.connections()), (1, 1));
}

#[tokio::test]
async fn a_literal_is_dialled_without_the_resolver_and_so_is_checked_apart() {
    let server = Server::start(OK);
    let (resolver, asked) = scripted(rule(&[]), &[&["127.0.0.1"]]);
    client(resolver).get(server.url("127.0.0.1")).send().await.expect("an answer");
    assert_eq!((asked.load(Ordering::SeqCst), server.connections()), (0, 1));
    assert!(check_literal(&server.url("127.0.0.1"), &rule(&[])).is_err());
}

#[test]
fn odd_literals_are_the_addresses_they_mean() {
    for odd in [
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://017700000001/",
        "http://127.1/",
        "http://127.0.0.1./",
        "http://%31%32%37.0.0.1/",
        "http://①②⑦.0.0.1/",
        "http://127。0。0。1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[0:0:0:0:0:ffff:127.0.0.1]:80/",
        "http://[::127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://user@127.0.0.1/",
        "http:\\\\127.0.0.1\\",
        "gopher://127.0.0.1/",
    ] {
        let url = Url::parse(odd).expect(odd);
        let denied = check_literal(&url, &rule(&[])).expect_err(odd);
        assert_eq!(denied.kind, AddressKind::Loopback, "{odd}");
        assert_eq!(
            check_literal(&url, &rule(&["127.0.0.1", "::1", "64:ff9b::/96", "::/96"])),
            Ok(()),
            "{odd}"
        );
    }
    let metadata = Url::parse("http://0xa9fea9fe/latest").expect("a URL");
    assert_eq!(
        check_literal(&metadata, &rule(&["169.254.0.0/16"])).map_err(|denied| denied.kind),
        Err(AddressKind::Metadata)
    );
    for fine in ["http://8.8.8.8/", "http://[2606:4700::1]/", "https://localhost/", "https://peer.example/"] {
        assert_eq!(check_literal(&Url::parse(fine).expect(fine), &rule(&[])), Ok(()), "{fine}");
    }
}
