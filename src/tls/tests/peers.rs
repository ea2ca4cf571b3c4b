//! Who comes in, who does not, and what each side is told.

use rustls::AlertDescription;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::*;

/// A listener of peers with an authority, who knows `names`.
fn with_authority(ca: &Ca, table: &Arc<Table>) -> (Arc<ServerConfig>, Arc<Credentials>) {
    let gateway = own("stk_b");
    let table = Arc::clone(table) as Arc<dyn PeerDirectory>;
    let server = peer_facing(Arc::clone(&gateway), Some(ca.authority()), table, &clock()).unwrap();
    (server, gateway)
}

async fn refused(server: &Arc<ServerConfig>, client: ClientConfig) -> (HandshakeError, AlertDescription) {
    let (ours, theirs) = meet(server, &Arc::new(client)).await;
    let HandshakeError::Alert(alert) = theirs.unwrap_err() else { panic!("no alert reached the client") };
    (ours.unwrap_err(), alert)
}

#[tokio::test]
async fn a_peer_known_by_its_key_comes_in_and_a_revoked_one_does_not_come_back() {
    let (gateway, peer) = (own("stk_b"), own("stk_a"));
    let table = Table::of_pins(&[&peer]);
    let server = peer_facing(Arc::clone(&gateway), None, Arc::clone(&table) as _, &clock()).unwrap();
    let client = Arc::new(pinning(&gateway, Some(&peer)));

    let (ours, theirs) = meet(&server, &client).await;
    assert_eq!((ours.unwrap().shown, theirs.unwrap().shown), (1, 1));
    let expected = Presented { pin: peer.current().pin(), names: Vec::new(), by_authority: false };
    assert_eq!(*table.asked.lock().unwrap(), [expected], "no one vouches for the name it gave itself");

    table.revoke_all(); // at once, and the very same client
    let (ours, theirs) = meet(&server, &client).await;
    assert_eq!(ours.unwrap_err(), HandshakeError::NotEnrolled);
    assert_eq!(theirs.unwrap_err(), HandshakeError::Alert(AlertDescription::AccessDenied));
}

#[tokio::test]
async fn a_peer_known_by_its_name_comes_in_and_a_revoked_one_does_not_come_back() {
    let ca = Ca::new();
    let table = Table::of_names(&["peer-a.example"]);
    let (server, gateway) = with_authority(&ca, &table);
    let peer = ca.issue(&Leaf::client("Peer-A.example"));
    let client = Arc::new(pinning(&gateway, Some(&peer)));
    assert!(meet(&server, &client).await.0.is_ok());
    let seen = table.asked.lock().unwrap().pop().unwrap();
    assert!(seen.by_authority);
    assert_eq!(seen.names, ["peer-a.example"]);

    table.revoke_all();
    let (ours, alert) = refused(&server, (*client).clone()).await;
    assert_eq!((ours, alert), (HandshakeError::NotEnrolled, AlertDescription::AccessDenied));
}

#[tokio::test]
async fn a_peer_without_a_certificate_is_refused() {
    let gateway = own("stk_b");
    let server = peer_facing(Arc::clone(&gateway), None, Table::of_pins(&[]), &clock()).unwrap();
    let answer = refused(&server, pinning(&gateway, None)).await; // reliability 4d.28
    assert_eq!(answer, (HandshakeError::NoCertificate, AlertDescription::CertificateRequired));
}

#[tokio::test]
async fn a_certificate_of_a_foreign_authority_is_refused_whatever_name_it_bears() {
    let (ours, foreign) = (Ca::new(), Ca::new());
    let table = Table::of_names(&["peer-a.example"]);
    let (server, gateway) = with_authority(&ours, &table);
    // reliability 4d.28
    for stranger in [foreign.issue(&Leaf::client("peer-a.example")), own("peer-a.example")] {
        let answer = refused(&server, pinning(&gateway, Some(&stranger))).await;
        assert_eq!(answer, (HandshakeError::Foreign, AlertDescription::UnknownCA));
        assert_eq!(table.asked.lock().unwrap().pop().unwrap().names, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_certificate_out_of_date_is_refused_although_its_key_and_name_are_known() {
    let ca = Ca::new();
    let (gone, early) = (NOW - 2000, NOW + 2000);
    for (leaf, reason) in [
        (Leaf { until_ms: gone, ..Leaf::client("peer-a.example") }, HandshakeError::Expired),
        (Leaf { from_ms: early, ..Leaf::client("peer-a.example") }, HandshakeError::NotYetValid),
    ] {
        let peer = ca.issue(&leaf);
        let table = Table::of_pins(&[&peer]);
        table.names.lock().unwrap().push("peer-a.example".to_owned());
        let (server, gateway) = with_authority(&ca, &table);
        let answer = refused(&server, pinning(&gateway, Some(&peer))).await; // reliability 4d.28
        assert_eq!(answer, (reason, AlertDescription::CertificateExpired));
    }
}

#[tokio::test]
async fn dates_follow_the_gateways_clock() {
    let (gateway, peer) = (own("stk_b"), own("stk_a"));
    let clock = clock();
    let table = Table::of_pins(&[&peer]);
    let server = peer_facing(Arc::clone(&gateway), None, table, &clock).unwrap();
    let client = Arc::new(pinning(&gateway, Some(&peer)));
    assert!(meet(&server, &client).await.0.is_ok());
    clock.advance(Duration::from_secs(11 * 366 * 86_400));
    assert_eq!(meet(&server, &client).await.0.unwrap_err(), HandshakeError::Expired);
}

#[tokio::test]
async fn a_certificate_meant_for_servers_lets_no_client_in_unless_its_key_is_pinned() {
    let ca = Ca::new();
    let table = Table::of_names(&["peer-a.example"]);
    let (server, gateway) = with_authority(&ca, &table);
    let peer = ca.issue(&Leaf::server("peer-a.example"));
    let answer = refused(&server, pinning(&gateway, Some(&peer))).await; // reliability 4d.28
    assert_eq!(answer, (HandshakeError::WrongUsage, AlertDescription::UnsupportedCertificate));
    table.pins.lock().unwrap().push(peer.current().pin());
    assert!(meet(&server, &Arc::new(pinning(&gateway, Some(&peer)))).await.0.is_ok());
}

#[tokio::test]
async fn anothers_certificate_cannot_be_shown_without_its_key() {
    let (gateway, peer, thief) = (own("stk_b"), own("stk_a"), own("stk_c"));
    let forged = |of: &Credentials| {
        let chain = of.current().chain().to_vec();
        let key = Arc::clone(&thief.current().certified_key().key);
        Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)))
    };
    let table = Table::of_pins(&[&peer]);
    let server = peer_facing(Arc::clone(&gateway), None, table, &clock()).unwrap();
    let mut client = pinning(&gateway, None);
    client.client_auth_cert_resolver = forged(&peer);
    let answer = refused(&server, client).await;
    assert_eq!(answer, (HandshakeError::BadCertificate, AlertDescription::DecryptError));

    let mut impostor = (*client_facing(Arc::clone(&gateway), &clock()).unwrap()).clone();
    impostor.cert_resolver = forged(&gateway);
    let (_, theirs) = meet(&Arc::new(impostor), &Arc::new(pinning(&gateway, None))).await;
    assert_eq!(theirs.unwrap_err(), HandshakeError::BadCertificate);
}

#[tokio::test]
async fn a_server_must_show_the_pinned_key_in_date() {
    let (gateway, peer, other) = (own("stk_b"), own("stk_a"), own("stk_c"));
    let server = peer_facing(Arc::clone(&gateway), None, Table::of_pins(&[&peer]), &clock()).unwrap();
    let (ours, theirs) = meet(&server, &Arc::new(pinning(&other, Some(&peer)))).await;
    assert_eq!(theirs.unwrap_err(), HandshakeError::NotEnrolled);
    assert_eq!(ours.unwrap_err(), HandshakeError::Alert(AlertDescription::AccessDenied));

    let both = Expectation::pins(vec![other.current().pin(), gateway.current().pin()]);
    let rotating = toward_peer(Some(Arc::clone(&peer)), both, &clock()).unwrap();
    assert!(meet(&server, &Arc::new(rotating)).await.1.is_ok(), "a second pin serves a change of keys");

    let later = Clock::manual(NOW + 11 * 366 * DAY);
    let pins = Expectation::pins(vec![gateway.current().pin()]);
    let late = toward_peer(Some(peer), pins, &later).unwrap();
    assert_eq!(meet(&server, &Arc::new(late)).await.1.unwrap_err(), HandshakeError::Expired);

    let none = toward_peer(None, Expectation::pins(Vec::new()), &clock());
    assert_eq!(none.unwrap_err(), TlsError::NoPins);
}

#[tokio::test]
async fn a_server_must_show_the_name_we_call_and_the_right_usage() {
    let (ca, foreign) = (Ca::new(), Ca::new());
    let peer = own("stk_a");
    let expecting = |name: &'static str| {
        let name = ServerName::try_from(name).unwrap();
        let expectation = Expectation::Authority(ca.authority(), name);
        Arc::new(toward_peer(Some(Arc::clone(&peer)), expectation, &clock()).unwrap())
    };
    let client = expecting("peer-b.example");
    let facing = |credentials| peer_facing(credentials, None, Table::of_pins(&[&peer]), &clock()).unwrap();

    let good = facing(ca.issue(&Leaf::server("peer-b.example")));
    assert!(meet(&good, &client).await.1.is_ok());
    // reliability 4d.28: SAN of another peer
    let (ours, theirs) = meet(&good, &expecting("peer-c.example")).await;
    assert_eq!(theirs.unwrap_err(), HandshakeError::WrongName);
    assert_eq!(ours.unwrap_err(), HandshakeError::Alert(AlertDescription::BadCertificate));

    for (credentials, reason) in [
        (ca.issue(&Leaf::client("peer-b.example")), HandshakeError::WrongUsage),
        (foreign.issue(&Leaf::server("peer-b.example")), HandshakeError::Foreign),
        (own("peer-b.example"), HandshakeError::Foreign),
        (ca.issue(&Leaf { until_ms: NOW - 2000, ..Leaf::server("peer-b.example") }), HandshakeError::Expired),
    ] {
        assert_eq!(meet(&facing(credentials), &client).await.1.unwrap_err(), reason);
    }
}

#[tokio::test]
async fn clients_are_asked_for_no_certificate() {
    let (gateway, peer) = (own("stk_b"), own("stk_a"));
    let server = client_facing(Arc::clone(&gateway), &clock()).unwrap();
    let (ours, _) = meet(&server, &Arc::new(pinning(&gateway, Some(&peer)))).await;
    assert_eq!(ours.unwrap().shown, 0);
}

#[tokio::test]
async fn what_a_peer_presented_can_be_read_from_its_connection() {
    let ca = Ca::new();
    let (gateway, authority) = (own("stk_b"), ca.authority());
    let peer = ca.issue(&Leaf::client("peer-a.example"));
    let table = Table::of_names(&["peer-a.example"]);
    let server = peer_facing(Arc::clone(&gateway), Some(Arc::clone(&authority)), table, &clock()).unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let connector = TlsConnector::from(Arc::new(pinning(&gateway, Some(&peer))));
    let name = ServerName::try_from("peer-b.example").unwrap();
    let (ours, theirs) = tokio::join!(handshake(near, server, LIMIT), connector.connect(name, far));
    let (ours, _open) = (ours.unwrap(), theirs.unwrap());
    let connection = ours.get_ref().1;

    let seen = presented(connection, Some(&authority), NOW).unwrap();
    assert_eq!(seen.names, ["peer-a.example"]);
    assert!(seen.by_authority);
    assert_eq!(seen.pin, peer.current().pin());
    let alone = presented(connection, None, NOW).unwrap();
    assert!(!alone.by_authority && alone.names.is_empty());
    assert_eq!(presented(connection, Some(&authority), NOW + 2 * DAY), None, "expired meanwhile");
}
