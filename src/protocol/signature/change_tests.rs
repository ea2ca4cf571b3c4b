//! What happens to a signed request when anything of it is changed, added, taken away or made up.

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::tests::{Request, WHEN, key, refusal, signed};
use super::*;

const PROFILE: [&str; 10] = [
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

#[test]
fn a_header_added_or_taken_after_signing_is_refused() {
    //
    let bare = Request::bare().sign(&key(), &WHEN);
    for name in PROFILE {
        let added = bare.clone().and(name, "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:");
        let present = bare.headers.contains_key(name);
        let expected = if present { SignatureError::Repeated(name) } else { SignatureError::Coverage(name) };
        assert_eq!(refusal(&added), expected);

        let doubled = signed().and(name, "x");
        let many = name == "causeway-via";
        let expected = if many { SignatureError::Invalid } else { SignatureError::Repeated(name) };
        assert_eq!(refusal(&doubled), expected);

        let always = matches!(name, "causeway-origin" | "causeway-destination");
        let expected = if always { SignatureError::Coverage(name) } else { SignatureError::Components };
        assert_eq!(refusal(&signed().without(name)), expected);
    }
}

/// A place in a signed request.
#[derive(Debug, Clone, Copy)]
enum Place {
    Method,
    Path,
    Query,
    Body,
    Header(&'static str),
}

fn places() -> impl Strategy<Value = Place> {
    let headers = prop::sample::select([PROFILE.as_slice(), &["signature", "signature-input"]].concat());
    prop_oneof![
        1 => Just(Place::Method),
        1 => Just(Place::Path),
        1 => Just(Place::Query),
        1 => Just(Place::Body),
        6 => headers.prop_map(Place::Header),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// one changed byte, anywhere that counts, refuses.
    #[test]
    fn any_changed_byte_is_refused(place in places(), at: prop::sample::Index, mask in 1..=255_u8) {
        let mut request = signed();
        let change = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= mask;
            bytes
        };
        let text = |text: &str| String::from_utf8(change(text.as_bytes()));
        let (method, path) = (text(&request.method), text(&request.path));
        let query = text(request.query.as_deref().unwrap());
        match place {
            Place::Body => request.body = change(&request.body),
            Place::Method => { prop_assume!(method.is_ok()); request.method = method.unwrap() }
            Place::Path => { prop_assume!(path.is_ok()); request.path = path.unwrap() }
            Place::Query => { prop_assume!(query.is_ok()); request.query = query.ok() }
            Place::Header(name) => {
                let value = HeaderValue::from_bytes(&change(request.headers[name].as_bytes()));
                prop_assume!(value.is_ok());
                let second = request.headers.get_all(name).iter().nth(1).cloned();
                request.headers.insert(name, value.unwrap());
                if let Some(second) = second { request.headers.append(name, second); }
            }
        }
        prop_assert!(request.check(key().public()).is_err(), "{place:?}");
    }

    /// A good header with pieces cut, doubled or put in is refused or means the same; nothing panics.
    #[test]
    fn a_spliced_header_is_refused_or_the_same(
        name in prop::sample::select(vec!["signature", "signature-input", "content-digest"]),
        from: prop::sample::Index, to: prop::sample::Index,
        piece in prop_oneof![
            "[ -~\t]{0,12}",
            prop::sample::select(vec![
                "", " ", ",", ", ", ";", "\"", "\\\"", "(", ")", ":", "=", "causeway=", ";created=1", ", a=1",
                ";tag=\"causeway-v1\"", ";nonce=\"AAAAAAAAAAAAAAAAAAAAAA\"", " \"@path\"",
            ]).prop_map(str::to_owned),
        ],
    ) {
        let good = signed();
        let value = good.headers[name].to_str().unwrap();
        let (from, to) = (from.index(value.len() + 1), to.index(value.len() + 1));
        let (from, to) = if name == "signature-input" { (from.min(to), from.max(to)) } else { (from, from) };
        let spliced = format!("{}{piece}{}", &value[..from], &value[to..]);
        let request = good.clone().with(name, &spliced);
        if let Ok(claim) = request.check(key().public()) {
            let same = good.check(key().public()).unwrap();
            prop_assert_eq!(claim.nonce, same.nonce);
            prop_assert!(spliced.contains(value), "{}", spliced);
        }
    }

    /// Bytes of any kind in any header: an answer, never a panic, and never a pass.
    #[test]
    fn no_header_is_too_strange(
        headers in prop::collection::vec(
            (
                prop::sample::select([PROFILE.as_slice(), &["signature", "signature-input"]].concat()),
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..40),
                    "[ -~\t]{0,60}".prop_map(String::into_bytes),
                    "(causeway|a)=(\\((\"@?[a-z]{1,6}\" ?){0,3}\\)|:[A-Za-z0-9+/]{0,8}=?:|-?[0-9]{1,17})(;[a-z]{1,3}(=[0-9\"?.]{1,4})?){0,3},? ?"
                        .prop_map(String::into_bytes),
                ],
            ),
            1..6,
        ),
        method in "\\PC{0,8}", path in "\\PC{0,20}", query in prop::option::of("\\PC{0,20}"), fresh: bool,
    ) {
        let mut request = if fresh { Request::bare() } else { signed() };
        for (name, value) in headers {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                request.headers.insert(HeaderName::from_static(name), value);
            }
        }
        if fresh {
            request = Request { method, path, query, ..request };
        }
        let untouched = PROFILE.iter().chain(&["signature", "signature-input"]).all(|name| {
            request.headers.get_all(*name).iter().eq(signed().headers.get_all(*name).iter())
        });
        prop_assert!(untouched || request.check(key().public()).is_err());
    }
}
