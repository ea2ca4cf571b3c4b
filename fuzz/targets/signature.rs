//! Request signatures: whatever a stranger sends, only the one request that was signed is taken as signed.

use causeway::domain::key::SigningKey;
use causeway::protocol::signature::{self, SignedParts, When};
use http::{HeaderMap, HeaderName, HeaderValue};

const BODY: &[u8] = b"{\"run\":1}";
const TARGET: (&str, &str, &str) = ("POST", "/v1/federation/runs:forward", "a=b");

/// A request: a line of method, path and query, lines of headers, an empty line, the body. A line
/// `+signed` stands for the headers of the request that was really signed.
pub(crate) fn run(data: &[u8]) {
    let end = data.windows(2).position(|pair| pair == b"\n\n").unwrap_or(data.len());
    let (head, body) = (&data[..end], data.get(end + 2..).unwrap_or_default());
    let Ok(head) = std::str::from_utf8(head) else { return };
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or("").splitn(3, ' ');
    let (method, path, query) = (words.next().unwrap_or(""), words.next().unwrap_or(""), words.next());
    let key = SigningKey::from_seed(&[7; 32]);
    let mut headers = HeaderMap::new();
    for line in lines {
        if line == "+signed" {
            headers.extend(signed(&key));
        } else if let Some((name, value)) = line.split_once(": ")
            && let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value))
        {
            headers.append(name, value);
        }
    }
    let parts = SignedParts { method, path, query, headers: &headers };
    let Ok(claim) = signature::parse(&parts) else { return };
    if claim.verify(key.public()).is_ok() && claim.check_digest(body).is_ok() {
        assert_eq!((method, path, query.unwrap_or(""), body), (TARGET.0, TARGET.1, TARGET.2, BODY));
        let original = signed(&key);
        for name in ["causeway-origin", "causeway-destination", "content-type", "idempotency-key"] {
            assert_eq!(headers.get(name), original.get(name), "{name}");
        }
    }
}

/// The headers of the one signed request.
fn signed(key: &SigningKey) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("causeway-origin", "stk_a"),
        ("causeway-destination", "stk_b"),
        ("content-type", "application/json"),
        ("idempotency-key", "k1"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let when = When { created_s: 1_800_000_000, lifetime_s: 60, nonce: [9; 16] };
    let (method, path, query) = TARGET;
    signature::sign(method, path, Some(query), &mut headers, Some(BODY), key, &when)
        .expect("it can be signed");
    headers
}
