//! Two real gateways that are enrolled with each other by key, speak mutual TLS and sign; their operators; and
//! a client that signs with any key and shows any certificate.
//!
//! Invariant: each side has its own orchestrator (`orc_a`, `orc_b`), marked local, so that work goes both ways.

use std::sync::Arc;

use causeway::app::CONTROL_SOCKET;
use causeway::clock::Clock;
use causeway::config::Config;
use causeway::domain::grants::Operation;
use causeway::domain::key::{PublicKey, SigningKey};
use causeway::domain::peer::PeerKind;
use causeway::entropy::Entropy;
use causeway::keyring::Keyring;
use causeway::protocol::signature::{self, When};
use causeway::services::options::Profile;
use causeway::services::peer_options::PeerOptions;
use causeway::tls::{Credentials, Expectation, Identity, SpkiPin, toward_peer};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::address::steady_address;
use super::ears::{Opened, client_with, plain_client, read, socket_client};
use super::gateway::{Answer, TENANT, TestGateway, peer, test_config};
use super::orchestrator::ScriptedOrchestrator;

/// Where a peer creates runs.
pub(crate) const CREATE: &str = "/v1/agents/agt_test/runs";

/// One gateway before it starts.
pub(crate) struct Side {
    /// What it is started with.
    pub(crate) config: Config,
    /// How the other side enrols it.
    pub(crate) entry: PeerOptions,
    /// Its own orchestrator's entry.
    pub(crate) local: PeerOptions,
    /// Its key.
    pub(crate) key: Arc<SigningKey>,
    home: ScriptedOrchestrator,
    data: TempDir,
}

/// Two gateways before they start.
pub(crate) struct Plan {
    /// The time of both.
    pub(crate) clock: Clock,
    /// `stk_a`.
    pub(crate) a: Side,
    /// `stk_b`.
    pub(crate) b: Side,
}

/// Two gateways at work.
pub(crate) struct Pair {
    /// `stk_a`.
    pub(crate) a: TestGateway,
    /// `stk_b`.
    pub(crate) b: TestGateway,
    /// The orchestrator of `stk_a`.
    pub(crate) home_a: ScriptedOrchestrator,
    /// The orchestrator of `stk_b`.
    pub(crate) home_b: ScriptedOrchestrator,
    /// The key of `stk_a` at the start.
    pub(crate) key_a: Arc<SigningKey>,
    /// The key of `stk_b` at the start.
    pub(crate) key_b: Arc<SigningKey>,
    /// The time of both.
    pub(crate) clock: Clock,
}

/// A gateway entry as both sides of a pair have it.
pub(crate) fn gateway_entry(id: &str, base: &str, key: &PublicKey) -> PeerOptions {
    let mut entry = peer(id, base, PeerKind::Gateway);
    entry.public_key = Some(*key);
    entry.operations = vec![Operation::ForwardIn, Operation::ForwardOut];
    entry.tenants = vec!["*".to_owned()];
    entry.allowed_addresses = vec!["127.0.0.0/8".parse().expect("a range")];
    entry
}

/// An orchestrator's entry that holds under both profiles.
pub(crate) fn orchestrator_entry(id: &str, base: &str) -> PeerOptions {
    let mut entry = peer(id, base, PeerKind::Orchestrator);
    entry.tenants = vec!["*".to_owned()];
    entry.allowed_addresses = vec!["127.0.0.0/8".parse().expect("a range")];
    entry
}

/// A key nobody knows.
pub(crate) fn some_key() -> Arc<SigningKey> {
    let mut seed = [0; 32];
    Entropy::from_os().fill(&mut seed);
    Arc::new(SigningKey::from_seed(&seed))
}

impl Side {
    async fn new(letter: char) -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let mut seed = [0; 32];
        Entropy::from_os().fill(&mut seed);
        let ring = Keyring::open(&data.path().join("data"), None, &seed).expect("a keyring");
        let key = Arc::clone(&ring.keys().present);
        let door = steady_address();
        let id = format!("stk_{letter}");
        let mut config = test_config();
        config.gateway.stack_id = causeway::domain::id::PeerId::parse(&id).expect("an id");
        config.peering.listen = Some(door);
        let home = ScriptedOrchestrator::start().await;
        let mut local = orchestrator_entry(&format!("orc_{letter}"), &home.base_url());
        local.local = true;
        let entry = gateway_entry(&id, &format!("https://{door}"), key.public());
        Side { config, entry, local, key, home, data }
    }
}

impl Plan {
    /// Both in profile dev.
    pub(crate) async fn new() -> Self {
        Plan { clock: Clock::system(), a: Side::new('a').await, b: Side::new('b').await }
    }

    /// Both in profile prod: every caller proves who it is.
    pub(crate) async fn prod() -> Self {
        let mut plan = Self::new().await;
        for side in [&mut plan.a, &mut plan.b] {
            side.config.gateway.profile = Profile::Prod;
            side.config.gateway.default_tenant = None;
        }
        plan
    }

    /// Starts both, and neither knows of the other.
    pub(crate) async fn strangers(self) -> Pair {
        self.begin(false).await
    }

    /// Starts both.
    pub(crate) async fn start(self) -> Pair {
        self.begin(true).await
    }

    async fn begin(self, enrolled: bool) -> Pair {
        let Plan { clock, a, b } = self;
        let entries = |local: &PeerOptions, other: &PeerOptions| {
            let other = enrolled.then(|| other.clone());
            std::iter::once(local.clone()).chain(other).collect::<Vec<_>>()
        };
        let (of_a, of_b) = (entries(&a.local, &b.entry), entries(&b.local, &a.entry));
        let (key_a, key_b) = (Arc::clone(&a.key), Arc::clone(&b.key));
        let at_a = TestGateway::start_in(a.data, clock.clone(), a.config, of_a).await;
        let at_b = TestGateway::start_in(b.data, clock.clone(), b.config, of_b).await;
        Pair { a: at_a, b: at_b, home_a: a.home, home_b: b.home, key_a, key_b, clock }
    }
}

impl Pair {
    /// Both in profile dev, at work, and sure of each other.
    pub(crate) async fn start() -> Self {
        let pair = Plan::new().await.start().await;
        pair.until_healthy().await;
        pair
    }

    /// Both in profile prod, at work, and sure of each other.
    pub(crate) async fn start_prod() -> Self {
        let pair = Plan::prod().await.start().await;
        pair.until_healthy().await;
        pair
    }

    /// Waits until each side has proven itself to the other.
    pub(crate) async fn until_healthy(&self) {
        Operator::of(&self.a).until_health("stk_b", "healthy").await;
        Operator::of(&self.b).until_health("stk_a", "healthy").await;
    }

    /// `stk_a` itself, as far as `stk_b` can tell.
    pub(crate) fn as_a(&self) -> Signer {
        Signer::new(&self.key_a, "stk_a", "stk_b", &self.clock)
    }

    /// A client with the certificate of `stk_a`, for the peers' door of `stk_b`.
    pub(crate) fn tls_as_a(&self) -> reqwest::Client {
        let shown = self_issued(&self.key_a, "stk_a", &self.clock);
        tls_client(Some(&shown), self.key_b.public(), &self.clock)
    }

    /// The base of the peers' door of `stk_b`.
    pub(crate) fn door_b(&self) -> String {
        format!("https://{}", self.b.peer_address())
    }
}

/// Whoever may use a gateway's data directory.
pub(crate) struct Operator {
    http: reqwest::Client,
}

impl Operator {
    /// The operator of this gateway, by its control socket.
    pub(crate) fn of(gateway: &TestGateway) -> Self {
        let socket = gateway.data_dir().join(CONTROL_SOCKET);
        Operator { http: socket_client(socket) }
    }

    /// A `GET`.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    /// A `POST` of JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, Some(body)).await
    }

    /// A `POST` of nothing in particular.
    pub(crate) async fn act(&self, path: &str) -> Answer {
        self.post(path, &json!({})).await
    }

    /// A `PUT` of JSON.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, Some(body)).await
    }

    /// A `DELETE`.
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None).await
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let request = self.http.request(method, format!("http://gateway{path}"));
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(body.to_string()),
            None => request,
        };
        read(request.send().await.expect("the gateway answers its operator")).await
    }

    /// Makes a token for a principal of the usual tenant; answers its id and its text.
    pub(crate) async fn token(&self, principal: &str, scopes: &[&str]) -> (String, String) {
        self.token_of(TENANT, principal, scopes).await
    }

    /// Makes a token; answers its id and its text.
    pub(crate) async fn token_of(&self, tenant: &str, principal: &str, scopes: &[&str]) -> (String, String) {
        let body = json!({ "tenant_id": tenant, "principal_id": principal, "scopes": scopes });
        let made = self.post("/v1/federation/tokens", &body).await.expect(201);
        let text = |name: &str| made.json["token"][name].as_str().expect("a token").to_owned();
        (text("token_id"), text("token"))
    }

    /// A peer as this gateway sees it.
    pub(crate) async fn peer(&self, id: &str) -> Value {
        self.get(&format!("/v1/federation/peers/{id}")).await.expect(200).json["peer"].clone()
    }

    /// Waits until a peer's health is so, and answers the peer.
    pub(crate) async fn until_health(&self, id: &str, state: &str) -> Value {
        self.until_peer(id, |peer| peer["health"]["state"] == state).await
    }

    /// Waits until a peer is so, and answers it.
    pub(crate) async fn until_peer(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        for _ in 0..500 {
            last = self.peer(id).await;
            if wanted(&last) {
                return last;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await; // why: polling another party's HTTP API
        }
        panic!("peer {id} never was as wanted; last: {last}");
    }

    /// The newest audit records, oldest first.
    pub(crate) async fn audit(&self) -> Vec<Value> {
        let page = self.get("/v1/federation/audit?limit=500").await.expect(200);
        let mut items = page.json["items"].as_array().expect("records").clone();
        items.reverse();
        items
    }

    /// Waits for an audit record that is so.
    pub(crate) async fn until_audited(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut records = Vec::new();
        for _ in 0..250 {
            records = self.audit().await;
            if let Some(found) = records.iter().find(|record| wanted(record)) {
                return found.clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await; // why: refusals are written in groups
        }
        panic!("{what} was never audited; there is: {records:#?}");
    }
}

/// The certificate a gateway issues to itself for its key.
pub(crate) fn self_issued(key: &SigningKey, name: &str, clock: &Clock) -> Arc<Credentials> {
    let identity = Identity::self_issued(&key.to_pkcs8_pem(), name, clock.now_ms()).expect("a certificate");
    Arc::new(Credentials::fixed(identity))
}

/// A client that shows this certificate, or none, to a server with this key.
pub(crate) fn tls_client(
    shown: Option<&Arc<Credentials>>,
    server: &PublicKey,
    clock: &Clock,
) -> reqwest::Client {
    let pins = Expectation::pins(vec![SpkiPin::of_ed25519(server.as_bytes())]);
    let config = toward_peer(shown.cloned(), pins, clock).expect("a client configuration");
    client_with(|builder| builder.tls_backend_preconfigured(config))
}

/// Signs requests as a gateway does, with any key and any names.
#[derive(Clone)]
pub(crate) struct Signer {
    /// What it signs with.
    pub(crate) key: Arc<SigningKey>,
    /// Who it says it is.
    pub(crate) origin: String,
    /// Whom the request is for.
    pub(crate) destination: String,
    /// Which process it says it is.
    pub(crate) instance: Option<String>,
    /// How far its clock is off, in seconds.
    pub(crate) skew_s: i64,
    /// Its clock.
    pub(crate) clock: Clock,
}

/// A signed request; change it before it is sent.
#[derive(Clone)]
pub(crate) struct Signed {
    /// Its method.
    pub(crate) method: Method,
    /// Its path and query.
    pub(crate) target: String,
    /// Its headers, the signature among them.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: Option<Vec<u8>>,
}

impl Signer {
    /// Signs with `key` as `origin`, for `destination`.
    pub(crate) fn new(key: &Arc<SigningKey>, origin: &str, destination: &str, clock: &Clock) -> Self {
        Signer {
            key: Arc::clone(key),
            origin: origin.to_owned(),
            destination: destination.to_owned(),
            instance: None,
            skew_s: 0,
            clock: clock.clone(),
        }
    }

    /// A signed `GET`.
    pub(crate) fn get(&self, target: &str) -> Signed {
        self.sign(Method::GET, target, &[("x-tenant-id", TENANT)], None)
    }

    /// A signed create of a run under this key.
    pub(crate) fn create(&self, key: &str) -> Signed {
        let body = json!({ "input": { "type": "text", "text": "hello" } });
        let fields = [
            ("content-type", "application/json"),
            ("idempotency-key", key),
            ("x-tenant-id", TENANT),
            ("x-principal-id", "alice"),
        ];
        self.sign(Method::POST, CREATE, &fields, Some(body.to_string().into_bytes()))
    }

    /// A signed request.
    pub(crate) fn sign(
        &self,
        method: Method,
        target: &str,
        fields: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Signed {
        let mut headers = HeaderMap::new();
        let own = [("causeway-origin", &*self.origin), ("causeway-destination", &*self.destination)];
        let instance = self.instance.as_deref().map(|instance| ("causeway-instance", instance));
        for (name, value) in own.into_iter().chain(instance).chain(fields.iter().copied()) {
            let name = HeaderName::try_from(name).expect("a header name");
            headers.append(name, HeaderValue::from_str(value).expect("a header value"));
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let mut nonce = [0; 16];
        Entropy::from_os().fill(&mut nonce);
        let created_s = self.clock.now_ms().div_euclid(1000) + self.skew_s;
        let when = When { created_s, lifetime_s: 60, nonce };
        let parts = (method.as_str(), path, query);
        signature::sign(parts.0, parts.1, parts.2, &mut headers, body.as_deref(), &self.key, &when)
            .expect("it can be signed");
        Signed { method, target: target.to_owned(), headers, body }
    }
}

impl Signed {
    /// Replaces text in a header; panics when it is not there.
    pub(crate) fn alter(mut self, name: &'static str, from: &str, to: &str) -> Self {
        let before = self.headers[name].to_str().expect("text").to_owned();
        assert!(before.contains(from), "{name}: {before} has no {from}");
        self.headers.insert(name, HeaderValue::from_str(&before.replacen(from, to, 1)).expect("a value"));
        self
    }

    /// Sets a header that the signature may or may not cover.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, HeaderValue::from_str(value).expect("a value"));
        self
    }

    /// Sends it; `None` when the connection came to nothing.
    pub(crate) async fn try_send(&self, http: &reqwest::Client, base: &str) -> reqwest::Result<Answer> {
        Ok(read(self.request(http, base).send().await?).await)
    }

    /// Sends it and reads the answer.
    pub(crate) async fn send(&self, http: &reqwest::Client, base: &str) -> Answer {
        self.try_send(http, base).await.unwrap_or_else(|error| panic!("{}: {error:?}", self.target))
    }

    /// Sends it without TLS and reads the answer.
    pub(crate) async fn send_to(&self, gateway: &TestGateway) -> Answer {
        self.send(&plain_client(), &gateway.base_url()).await
    }

    /// Sends it and leaves the body open.
    pub(crate) async fn open(&self, http: &reqwest::Client, base: &str) -> reqwest::Result<Opened> {
        Ok(Opened::new(self.request(http, base).send().await?))
    }

    fn request(&self, http: &reqwest::Client, base: &str) -> reqwest::RequestBuilder {
        let request = http.request(self.method.clone(), format!("{base}{}", self.target));
        let request = request.headers(self.headers.clone());
        match &self.body {
            Some(body) => request.body(body.clone()),
            None => request,
        }
    }
}
