//! Identities from keys and files, and their exchange while the gateway runs.

use std::fs;

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::*;

#[test]
fn a_self_issued_certificate_bears_the_key_and_the_name() {
    for (name, dns) in [("stk_a", "stk_a"), ("gw.example", "gw.example"), ("peer/1!", "causeway.invalid")] {
        let identity = Identity::self_issued(KEY, name, NOW).unwrap();
        let public = [
            0x19, 0xbf, 0x44, 0x09, 0x69, 0x84, 0xcd, 0xfe, 0x85, 0x41, 0xba, 0xc1, 0x67, 0xdc, 0x3b, 0x96,
            0xc8, 0x50, 0x86, 0xaa, 0x30, 0xb6, 0xb6, 0xcb, 0x0c, 0x5c, 0x38, 0xad, 0x70, 0x31, 0x66, 0xe1,
        ];
        assert_eq!(identity.pin(), SpkiPin::of_ed25519(&public), "one value enrols a gateway");
        assert_eq!(identity.not_after_ms(), NOW + 3652 * DAY);
        let (rest, parsed) = X509Certificate::from_der(&identity.chain()[0]).unwrap();
        assert!(rest.is_empty());
        assert_eq!(parsed.validity().not_before.timestamp() * 1000, NOW - DAY);
        assert_eq!(parsed.subject().iter_common_name().next().unwrap().as_str(), Ok(name));
        let names = parsed.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
        assert_eq!(format!("{names:?}"), format!("[DNSName({dns:?})]"));
        let usage = parsed.extended_key_usage().unwrap().unwrap().value.clone();
        assert!(usage.client_auth && usage.server_auth);
    }
}

#[test]
fn a_name_of_any_length_and_any_date_is_no_panic() {
    assert!(Identity::self_issued(KEY, &"x".repeat(128), NOW).is_ok());
    assert!(Identity::self_issued(KEY, "", 0).is_ok());
    assert!(Identity::self_issued(KEY, "stk_a", i64::MIN).is_ok());
    assert!(Identity::self_issued(KEY, "stk_a", 253_402_300_799_000).is_ok(), "the last day of 9999");
    assert!(matches!(Identity::self_issued(KEY, "stk_a", i64::MAX), Err(TlsError::Issue(_))));
}

#[test]
fn only_an_ed25519_key_issues_a_certificate() {
    let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
    for bad in [other.as_str(), "", "not PEM", &KEY[..60]] {
        assert_eq!(Identity::self_issued(bad, "stk_a", NOW).unwrap_err(), TlsError::NotEd25519);
    }
}

#[test]
fn nothing_private_is_shown() {
    let credentials = Arc::new(Credentials::fixed(Identity::self_issued(KEY, "stk_a", NOW).unwrap()));
    let peer = toward_peer(
        Some(Arc::clone(&credentials)),
        Expectation::pins(vec![credentials.current().pin()]),
        &clock(),
    );
    let server = peer_facing(Arc::clone(&credentials), None, Table::of_pins(&[]), &clock()).unwrap();
    let der = PrivatePkcs8KeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let secret = &der.secret_pkcs8_der()[16..];
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let numbers = format!("{:?}", &secret[..4]);
    for shown in [
        format!("{:?}", credentials.current()),
        format!("{credentials:#?}"),
        format!("{:?}", peer.unwrap()),
        format!("{server:?}"),
    ] {
        assert!(shown.contains("sha256:"), "{shown}");
        let plain = shown.replace(char::is_whitespace, "");
        for part in [&hex[..8], "MC4CAQ", "1NTuctv5", numbers.trim_matches(['[', ']'])] {
            assert!(!plain.contains(&part.replace(' ', "")), "{part}: {shown}");
        }
    }
}

#[test]
fn errors_name_the_file_and_the_reason() {
    let ca = Ca::new();
    let (certificate, key) = ca.write(&Leaf::server("gw.example"));
    let spare = ca.dir.path().join("spare.pem");
    let fault = |certificate: &PathBuf, key: &PathBuf| {
        Identity::from_files(certificate, key).unwrap_err().to_string()
    };
    let missing = ca.dir.path().join("missing.pem");
    assert!(fault(&missing, &key).contains("missing.pem: No such file"));

    fs::write(&spare, "nothing").unwrap();
    assert!(fault(&spare, &key).ends_with("spare.pem: holds no certificate in PEM"));
    assert!(fault(&certificate, &spare).contains("spare.pem: holds no unencrypted private key"));
    let ca_error = Authority::from_file(&spare).unwrap_err().to_string();
    assert!(ca_error.ends_with("spare.pem: holds no certificate in PEM"), "{ca_error}");

    fs::write(&spare, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert!(fault(&spare, &key).contains("spare.pem: its first certificate is malformed"));
    let ca_error = Authority::from_file(&spare).unwrap_err().to_string();
    assert!(ca_error.ends_with("spare.pem: its certificate no. 1 is malformed"), "{ca_error}");

    fs::write(&spare, KEY).unwrap();
    let mismatch = fault(&certificate, &spare);
    assert!(mismatch.contains("spare.pem: does not belong to the certificate in"), "{mismatch}");
    assert!(mismatch.ends_with("cert.pem"), "{mismatch}");

    fs::write(&spare, "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n").unwrap();
    let malformed = fault(&certificate, &spare);
    assert!(malformed.contains("malformed or of a kind not supported") && !malformed.contains("c2Vj"));
}

#[test]
fn an_expired_certificate_is_taken_and_its_end_can_be_read() {
    let ca = Ca::new();
    let (certificate, key) = ca.write(&Leaf { until_ms: NOW - DAY, ..Leaf::server("gw.example") });
    let identity = Identity::from_files(&certificate, &key).unwrap();
    assert_eq!(identity.not_after_ms(), NOW - DAY);
}

#[tokio::test]
async fn a_new_certificate_counts_from_the_next_handshake() {
    let ca = Ca::new();
    let (certificate, key) = ca.write(&Leaf::server("gw.example"));
    let credentials = Arc::new(Credentials::from_files(&certificate, &key).unwrap());
    let server = client_facing(Arc::clone(&credentials), &clock()).unwrap();
    let before = Arc::new(pinning(&credentials, None));
    assert!(meet(&server, &before).await.1.is_ok());
    assert_eq!(credentials.reload(), Ok(false), "nothing changed");

    ca.write(&Leaf::server("gw.example")); // the same listener, no restart
    assert!(meet(&server, &before).await.1.is_ok(), "not before it is told");
    assert_eq!(credentials.reload(), Ok(true));
    assert_eq!(meet(&server, &before).await.1.unwrap_err(), HandshakeError::NotEnrolled);
    assert!(meet(&server, &Arc::new(pinning(&credentials, None))).await.1.is_ok());
    assert_eq!(credentials.reload(), Ok(false));
}

#[tokio::test]
async fn a_bad_new_file_keeps_the_old_one_until_it_is_mended() {
    let ca = Ca::new();
    let (certificate, key) = ca.write(&Leaf::server("gw.example"));
    let credentials = Arc::new(Credentials::from_files(&certificate, &key).unwrap());
    let server = client_facing(Arc::clone(&credentials), &clock()).unwrap();
    let client = Arc::new(pinning(&credentials, None));
    let (new_certificate, new_key) = ca.issue_pem(&Leaf::server("gw.example"));

    fs::write(&certificate, &new_certificate).unwrap(); // half of a renewal
    for _ in 0..2 {
        let error = credentials.reload().unwrap_err().to_string();
        assert!(error.contains("does not belong"), "{error}");
    }
    fs::remove_file(&key).unwrap();
    assert!(credentials.reload().unwrap_err().to_string().contains("No such file"));
    assert!(meet(&server, &client).await.1.is_ok());

    fs::write(&key, &new_key).unwrap();
    assert_eq!(credentials.reload(), Ok(true));
    assert!(meet(&server, &client).await.1.is_err());
}

#[tokio::test]
async fn a_new_authority_counts_from_the_next_handshake() {
    let (old, new) = (Ca::new(), Ca::new());
    let authority = old.authority();
    let gateway = own("stk_b");
    let table = Table::of_names(&["peer-a.example"]);
    let server = peer_facing(Arc::clone(&gateway), Some(Arc::clone(&authority)), table, &clock()).unwrap();
    let first = Arc::new(pinning(&gateway, Some(&old.issue(&Leaf::client("peer-a.example")))));
    let second = Arc::new(pinning(&gateway, Some(&new.issue(&Leaf::client("peer-a.example")))));
    assert!(meet(&server, &first).await.0.is_ok());
    assert_eq!(meet(&server, &second).await.0.unwrap_err(), HandshakeError::Foreign);

    fs::write(old.dir.path().join("ca.pem"), new.issuer.pem()).unwrap();
    assert_eq!(authority.reload(), Ok(true));
    assert_eq!(meet(&server, &first).await.0.unwrap_err(), HandshakeError::Foreign);
    assert!(meet(&server, &second).await.0.is_ok());
}
