//! A webhook's other end: it keeps what comes, checks signatures on its own, and misbehaves as it is told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// What it answers once.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// A status, with `Retry-After` where one is given.
    Status(u16, Option<u64>),
    /// A redirect to this place.
    Redirect(String),
    /// Nothing.
    Hang,
}

/// What came.
#[derive(Debug, Clone)]
pub(super) struct Post {
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Post {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap_or(""))
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// `type alert_id`.
    pub(super) fn told(&self) -> String {
        let body = self.json();
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
        format!("{} {}", text("/type"), text("/data/alert_id"))
    }

    /// Whether it was signed with this secret, as the specification says.
    pub(super) fn is_signed_with(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").expect("a secret")).expect("base64");
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let mut signed =
            format!("{}.{}.", self.header("webhook-id"), self.header("webhook-timestamp")).into_bytes();
        signed.extend_from_slice(&self.body);
        let signature = self.header("webhook-signature").strip_prefix("v1,").unwrap_or("");
        STANDARD.decode(signature).is_ok_and(|tag| hmac::verify(&key, &signed, &tag).is_ok())
    }
}

#[derive(Default)]
struct Kept {
    posts: Vec<Post>,
    replies: VecDeque<Reply>,
}

/// The receiver.
pub(super) struct Receiver {
    address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
}

impl Receiver {
    /// Listens on loopback.
    #[expect(
        clippy::disallowed_methods,
        reason = "the receiver is no part of the gateway, whose tasks are tracked"
    )]
    pub(super) async fn start() -> Self {
        let kept: Arc<Mutex<Kept>> = Arc::default();
        let router = axum::Router::new().fallback(take).with_state(Arc::clone(&kept));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Receiver { address, kept }
    }

    /// Where it is.
    pub(super) fn url(&self) -> String {
        format!("http://{}/hook?of=tests", self.address)
    }

    /// Answers what comes next so, one after another, then 204.
    pub(super) fn next(&self, replies: impl IntoIterator<Item = Reply>) {
        self.kept.lock().expect("no panic").replies.extend(replies);
    }

    /// Everything that came.
    pub(super) fn posts(&self) -> Vec<Post> {
        self.kept.lock().expect("no panic").posts.clone()
    }

    /// Waits until so many came, and answers them.
    pub(super) async fn until(&self, what: &str, wanted: impl Fn(&[Post]) -> bool) -> Vec<Post> {
        for _ in 0..500 {
            let posts = self.posts();
            if wanted(&posts) {
                return posts;
            }
            tokio::time::sleep(Duration::from_millis(20)).await; // why: waiting for another party's requests
        }
        panic!("{what} never came; there is: {:#?}", self.posts().iter().map(Post::told).collect::<Vec<_>>());
    }
}

async fn take(State(kept): State<Arc<Mutex<Kept>>>, headers: HeaderMap, body: Bytes) -> Response {
    let reply = {
        let mut kept = kept.lock().expect("no panic");
        kept.posts.push(Post { headers, body: body.to_vec() });
        kept.replies.pop_front()
    };
    match reply {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(Reply::Hang) => std::future::pending().await,
        Some(Reply::Redirect(place)) => {
            (StatusCode::TEMPORARY_REDIRECT, [("location", place)]).into_response()
        }
        Some(Reply::Status(status, wait)) => {
            let mut response = StatusCode::from_u16(status).expect("a status").into_response();
            if let Some(wait) = wait {
                response.headers_mut().insert("retry-after", wait.into());
            }
            response
        }
    }
}
