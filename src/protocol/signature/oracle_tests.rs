//! The profile against `httpsig`, another implementation of RFC 9421 with another Ed25519 underneath.

use http::{HeaderName, HeaderValue};
use httpsig::prelude::message_component::{HttpMessageComponent, HttpMessageComponentId};
use httpsig::prelude::{
    AlgorithmName, HttpSignatureBase, HttpSignatureHeaders, HttpSignatureParams, PublicKey as TheirPublicKey,
    SecretKey, VerifyingKey,
};
use proptest::prelude::*;

use super::tests::{NOW_S, Request, WHEN, key};
use super::*;

const NAMES: [&str; 13] = [
    "@method",
    "@path",
    "@query",
    "content-type",
    "content-digest",
    "causeway-origin",
    "causeway-destination",
    "causeway-instance",
    "idempotency-key",
    "x-tenant-id",
    "x-principal-id",
    "causeway-via",
    "last-event-id",
];

/// What the request holds of a component, drawn from it without our code.
fn values(request: &Request, name: &str) -> Vec<String> {
    match name {
        "@method" => vec![request.method.clone()],
        "@path" => vec![request.path.clone()],
        "@query" => vec![format!("?{}", request.query.clone().unwrap_or_default())],
        _ => {
            request.headers.get_all(name).iter().map(|value| value.to_str().unwrap().trim().into()).collect()
        }
    }
}

fn components(request: &Request) -> Vec<HttpMessageComponent> {
    let present =
        NAMES.iter().map(|name| (*name, values(request, name))).filter(|(_, values)| !values.is_empty());
    present
        .map(|(name, values)| {
            let id = HttpMessageComponentId::try_from(name).unwrap();
            HttpMessageComponent::try_from((&id, values.as_slice())).unwrap()
        })
        .collect()
}

fn they_accept(request: &Request) -> bool {
    let text = |name: &str| request.headers[name].to_str().unwrap().to_owned();
    let all = HttpSignatureHeaders::try_parse(&text("signature"), &text("signature-input")).unwrap();
    let ours = &all["causeway"];
    let Ok(base) = HttpSignatureBase::try_new(&components(request), ours.signature_params()) else {
        return false;
    };
    let key = TheirPublicKey::from_pem(&AlgorithmName::Ed25519, &public_pem()).unwrap();
    let encoded = ours.signature().to_string();
    let signature = base64::Engine::decode(&STANDARD, encoded).unwrap();
    key.verify(&base.as_bytes(), &signature).is_ok()
}

fn public_pem() -> String {
    let der = STANDARD.encode(key().public().spki_der());
    format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n")
}

fn signed_by_them(mut request: Request) -> Request {
    if !request.body.is_empty() {
        let digest = digest::content_digest(&request.body);
        request.headers.insert("content-digest", HeaderValue::try_from(digest).unwrap());
    }
    let lines = components(&request);
    let ids: Vec<HttpMessageComponentId> = lines.iter().map(|line| line.id.clone()).collect();
    let mut params = HttpSignatureParams::try_new(&ids).unwrap();
    params
        .set_created(NOW_S.try_into().unwrap())
        .set_expires((NOW_S + 60).try_into().unwrap())
        .set_nonce("AAECAwQFBgcICQoLDA0ODw")
        .set_alg(&AlgorithmName::Ed25519)
        .set_keyid(key().public().key_id().as_str())
        .set_tag(TAG);
    let secret = SecretKey::from_pem(&AlgorithmName::Ed25519, &key().to_pkcs8_pem()).unwrap();
    let base = HttpSignatureBase::try_new(&lines, &params).unwrap();
    let signed = base.build_signature_headers(&secret, Some(LABEL)).unwrap();
    let value = |text: String| HeaderValue::try_from(text).unwrap();
    request.headers.insert("signature-input", value(signed.signature_input_header_value()));
    request.headers.insert("signature", value(signed.signature_header_value()));
    request
}

fn requests() -> impl Strategy<Value = Request> {
    let header = prop::sample::select(NAMES[3..].to_vec());
    let value = "([!-~]([ -~]{0,30}[!-~])?)?";
    (
        "[A-Z]{3,7}",
        "/[!-~&&[^?#]]{0,30}",
        prop::option::of("[!-~&&[^#]]{0,30}"),
        prop::collection::vec((header, value), 0..8),
        "[!-~]{1,20}",
        prop::collection::vec(any::<u8>(), 0..40),
    )
        .prop_map(|(method, path, query, headers, via, body)| {
            let mut request = Request { method, path, query, headers: http::HeaderMap::new(), body };
            for (name, value) in headers.into_iter().filter(|(name, _)| *name != "content-digest") {
                request.headers.insert(HeaderName::from_static(name), HeaderValue::try_from(value).unwrap());
            }
            for name in ["causeway-origin", "causeway-destination"] {
                request.headers.insert(name, HeaderValue::from_static("gw"));
            }
            request.headers.append("causeway-via", HeaderValue::try_from(via).unwrap());
            request
        })
}

proptest! {
    #[test]
    fn each_accepts_what_the_other_signs(request in requests()) {
        let ours = request.clone().sign(&key(), &WHEN);
        prop_assert!(they_accept(&ours));
        let theirs = signed_by_them(request);
        prop_assert!(they_accept(&theirs));
        let claim = theirs.check(key().public());
        prop_assert!(claim.is_ok(), "{:?} {:?}", claim, theirs.headers);
        prop_assert_eq!(claim.unwrap().nonce, "AAECAwQFBgcICQoLDA0ODw");
    }

    #[test]
    fn neither_accepts_another_path(request in requests(), more in "[a-z]{1,5}") {
        let mut ours = request.sign(&key(), &WHEN);
        ours.path.push_str(&more);
        prop_assert!(!they_accept(&ours));
        prop_assert_eq!(ours.check(key().public()).err(), Some(SignatureError::Invalid));
    }
}
