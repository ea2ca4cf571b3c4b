//! The contract as a test reads it, and a client that holds every answer against it.
//!
//! Invariant: nothing a client of this kind gets goes unchecked: status, headers, content type, body, code.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use causeway::clock::Clock;
use causeway::domain::key::SigningKey;
use causeway::entropy::Entropy;
use causeway::protocol::signature::{self, When};
use jsonschema::Validator;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::ears::{plain_client, read};
use super::gateway::Answer;
use super::secrets;

/// The OpenAPI document.
pub(crate) struct Document {
    /// All of it.
    pub(crate) root: Value,
}

/// One documented operation.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    /// Its `operationId`.
    pub(crate) id: String,
    /// In capitals.
    pub(crate) method: String,
    /// Its path, with placeholders.
    pub(crate) path: String,
    /// What the document says of it.
    pub(crate) value: Value,
}

impl Operation {
    /// True when it needs no credential.
    pub(crate) fn is_open(&self) -> bool {
        self.value["security"].as_array().is_some_and(Vec::is_empty)
    }

    /// True when callers of this kind may call it.
    pub(crate) fn calls(&self, kind: &str) -> bool {
        self.value["x-callers"].as_array().is_some_and(|kinds| kinds.iter().any(|one| one == kind))
    }
}

impl Document {
    /// The document as the gateway serves it.
    pub(crate) fn load() -> Self {
        let root = serde_json::from_str(causeway::http::openapi::json()).expect("the document is JSON");
        Document { root }
    }

    /// What a `$ref` points at, or the value itself.
    pub(crate) fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => self.root.pointer(&reference[1..]).unwrap_or_else(|| panic!("{reference}")),
            None => value,
        }
    }

    /// Every operation.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        let mut found = Vec::new();
        for (path, item) in self.root["paths"].as_object().expect("paths") {
            for (method, value) in item.as_object().expect("a path item") {
                if method != "parameters" {
                    found.push(Operation {
                        id: value["operationId"].as_str().expect("an operationId").to_owned(),
                        method: method.to_uppercase(),
                        path: path.clone(),
                        value: value.clone(),
                    });
                }
            }
        }
        found
    }

    /// Every status of an operation, with its response.
    pub(crate) fn responses<'a>(&'a self, operation: &'a Operation) -> BTreeMap<u16, &'a Value> {
        let responses = operation.value["responses"].as_object().expect("responses");
        responses
            .iter()
            .map(|(status, response)| (status.parse().expect("a status"), self.resolve(response)))
            .collect()
    }

    /// A validator of one schema of the document.
    pub(crate) fn validator(&self, schema: &Value) -> Validator {
        let whole = json!({ "allOf": [schema], "components": self.root["components"] });
        jsonschema::options().should_validate_formats(true).build(&whole).expect("a schema")
    }

    /// Panics unless the value is what the schema says.
    #[track_caller]
    pub(crate) fn assert_valid(&self, schema: &Value, value: &Value, what: &str) {
        let errors: Vec<String> = self
            .validator(schema)
            .iter_errors(value)
            .map(|error| format!("{} at {}", error, error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{what}: {errors:#?}\n{value:#}");
    }

    /// Panics unless the value is what the named schema says.
    #[track_caller]
    pub(crate) fn assert_is(&self, name: &str, value: &Value, what: &str) {
        self.assert_valid(&json!({ "$ref": format!("#/components/schemas/{name}") }), value, what);
    }

    /// Panics unless every frame of an SSE body is one of the documented ones.
    #[track_caller]
    pub(crate) fn assert_frames(&self, text: &str, what: &str) {
        assert!(text.ends_with("\n\n"), "{what}: {text:?}");
        for frame in text.split("\n\n") {
            let lines = frame.lines().filter(|line| !line.starts_with(':'));
            let fields: BTreeMap<&str, &str> = lines.filter_map(|line| line.split_once(": ")).collect();
            let Some(name) = fields.get("event") else { continue };
            let schema = match *name {
                "agentos.event" => "EventEnvelope",
                "caught_up" => "CaughtUp",
                "gap" => "Gap",
                "end" => "StreamEnd",
                "stream_error" => "Problem",
                other => panic!("{what}: {other} is no documented frame"),
            };
            assert_eq!(fields.contains_key("id"), *name == "agentos.event", "{what}: {frame}");
            self.assert_is(schema, &serde_json::from_str(fields["data"]).expect("data is JSON"), what);
        }
    }

    /// Panics unless every line of an NDJSON body is one of the documented ones.
    #[track_caller]
    pub(crate) fn assert_lines(&self, text: &str, what: &str) {
        for line in text.lines().filter(|line| !line.is_empty()) {
            let value: Value = serde_json::from_str(line).expect("a line is JSON");
            let object = value.as_object().expect("an object");
            let control = [
                ("caught_up", "CaughtUp"),
                ("gap", "Gap"),
                ("end", "StreamEnd"),
                ("stream_error", "Problem"),
            ];
            match control.iter().find(|(name, _)| object.contains_key(*name)) {
                Some((name, schema)) => {
                    assert_eq!(object.len(), 1, "{what}: {line}");
                    self.assert_is(schema, &value[*name], what);
                }
                None => self.assert_is("EventEnvelope", &value, what),
            }
        }
    }
}

/// One request, by the name of its operation.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    operation: String,
    path: Vec<(String, String)>,
    query: String,
    headers: Vec<(String, String)>,
    body: Option<(String, Vec<u8>)>,
    /// A body that never comes.
    stalled: bool,
    signer: Option<Arc<Signer>>,
}

/// A peer that signs what it sends.
#[derive(Debug)]
pub(crate) struct Signer {
    /// Its key.
    pub(crate) key: SigningKey,
    /// Its id.
    pub(crate) origin: String,
    /// The gateway it calls.
    pub(crate) destination: String,
}

impl Signer {
    fn sign(&self, ask: &Ask, method: &str, path: &str, sent: &mut HeaderMap) {
        for (name, value) in [("causeway-origin", &self.origin), ("causeway-destination", &self.destination)]
        {
            sent.insert(name, HeaderValue::from_str(value).expect("a header value"));
        }
        let mut nonce = [0; 16];
        Entropy::from_os().fill(&mut nonce);
        let when = When { created_s: Clock::system().now_ms() / 1000, lifetime_s: 60, nonce };
        let body = ask.body.as_ref().map(|(_, body)| body.as_slice());
        let query = ask.query.strip_prefix('?');
        signature::sign(method, path, query, sent, body, &self.key, &when).expect("it can be signed");
    }
}

impl Ask {
    /// A request without parameters.
    pub(crate) fn of(operation: &str) -> Self {
        let operation = operation.to_owned();
        Ask {
            operation,
            path: Vec::new(),
            query: String::new(),
            headers: Vec::new(),
            body: None,
            stalled: false,
            signer: None,
        }
    }

    /// An API token.
    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// A peer's signature, made when it is sent.
    pub(crate) fn signed(mut self, signer: &Arc<Signer>) -> Self {
        self.signer = Some(Arc::clone(signer));
        self
    }

    /// A path parameter, as it stands in the URI.
    pub(crate) fn at(mut self, name: &str, value: &str) -> Self {
        self.path.push((format!("{{{name}}}"), value.to_owned()));
        self
    }

    /// The query, as it stands in the URI.
    pub(crate) fn query(mut self, query: &str) -> Self {
        self.query = format!("?{query}");
        self
    }

    /// A header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A JSON body.
    pub(crate) fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string().as_bytes())
    }

    /// A JSON body of which nothing ever comes.
    pub(crate) fn stalled(mut self) -> Self {
        self.stalled = true;
        self
    }

    /// Any body.
    pub(crate) fn body(mut self, kind: &str, body: &[u8]) -> Self {
        self.body = Some((kind.to_owned(), body.to_vec()));
        self
    }
}

/// A checked answer.
#[derive(Debug)]
pub(crate) struct Heard {
    /// Its status.
    pub(crate) status: u16,
    /// Its body, `Null` when it is no JSON.
    pub(crate) json: Value,
    /// Its body.
    pub(crate) text: String,
    /// Its headers.
    pub(crate) headers: reqwest::header::HeaderMap,
}

impl Heard {
    /// Panics unless it has this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// Panics unless it is this error.
    #[track_caller]
    pub(crate) fn expect_error(self, status: u16, code: &str) -> Self {
        let heard = self.expect(status);
        assert_eq!(heard.json["error"]["code"], code, "{}", heard.text);
        heard
    }

    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap_or(""))
    }
}

/// A client of one gateway that holds every answer against the document.
pub(crate) struct Checked<'a> {
    document: &'a Document,
    operations: BTreeMap<String, Operation>,
    base: String,
    http: Client,
    seen: &'a Mutex<BTreeSet<(String, u16)>>,
}

impl<'a> Checked<'a> {
    /// For the gateway at `address`; what was checked is added to `seen`.
    pub(crate) fn new(
        document: &'a Document,
        address: SocketAddr,
        seen: &'a Mutex<BTreeSet<(String, u16)>>,
    ) -> Self {
        let operations = document.operations().into_iter().map(|one| (one.id.clone(), one)).collect();
        let http = plain_client();
        Checked { document, operations, base: format!("http://{address}"), http, seen }
    }

    /// Sends it and checks the answer.
    pub(crate) async fn ask(&self, ask: Ask) -> Heard {
        let heard = self.send(&ask).await;
        let operation = self.operation(&ask);
        self.check(operation, &ask, &heard);
        self.seen.lock().expect("no panic").insert((operation.id.clone(), heard.status));
        heard
    }

    /// Sends it; whoever sends what is known already need not have it checked again.
    pub(crate) async fn send(&self, ask: &Ask) -> Heard {
        let operation = self.operation(ask);
        let mut path = operation.path.clone();
        for (name, value) in &ask.path {
            path = path.replace(name, value);
        }
        let method = Method::from_bytes(operation.method.as_bytes()).expect("a method");
        let mut sent = HeaderMap::new();
        for (name, value) in &ask.headers {
            secrets::carried(name, value);
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
            sent.append(name, HeaderValue::from_str(value).expect("a header value"));
        }
        if let Some((kind, _)) = &ask.body {
            sent.insert("content-type", HeaderValue::from_str(kind).expect("a media type"));
        }
        if let Some(signer) = &ask.signer {
            signer.sign(ask, method.as_str(), &path, &mut sent);
        }
        let mut request =
            self.http.request(method, format!("{}{path}{}", self.base, ask.query)).headers(sent);
        if let Some((_, body)) = &ask.body {
            request = request.body(body.clone());
        }
        if ask.stalled {
            let nothing = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
            request = request.header("content-type", "application/json");
            request = request.body(reqwest::Body::wrap_stream(nothing));
        }
        let Answer { status, headers, json, text } =
            read(request.send().await.expect("the gateway answers")).await;
        Heard { status, json, text, headers }
    }

    fn operation(&self, ask: &Ask) -> &Operation {
        self.operations.get(&ask.operation).unwrap_or_else(|| panic!("{}", ask.operation))
    }

    fn check(&self, operation: &Operation, ask: &Ask, heard: &Heard) {
        let what = format!("{} {}", operation.id, heard.status);
        let responses = self.document.responses(operation);
        let response = responses
            .get(&heard.status)
            .unwrap_or_else(|| panic!("{what} is not documented: {}", heard.text));
        self.check_headers(response, heard, &what);
        if let (200..300, Some((kind, body))) = (heard.status, &ask.body) {
            let schema = &operation.value["requestBody"]["content"][kind]["schema"];
            assert!(schema.is_object(), "{what}: requests of type {kind} are not documented");
            if kind == "application/json" {
                let body = serde_json::from_slice(body).expect("JSON was sent");
                self.document.assert_valid(schema, &body, &format!("{what}: the accepted request"));
            }
        }
        let Some(content) = response["content"].as_object() else {
            assert!(heard.text.is_empty(), "{what} is documented without a body: {}", heard.text);
            return;
        };
        let kind = heard.header("content-type").split(';').next().unwrap_or("").to_owned();
        let media = content.get(&kind).unwrap_or_else(|| panic!("{what}: {kind} is not documented"));
        match kind.as_str() {
            "text/event-stream" => self.document.assert_frames(&heard.text, &what),
            "application/x-ndjson" => self.document.assert_lines(&heard.text, &what),
            "application/json" | "application/problem+json" => {
                self.document.assert_valid(&media["schema"], &heard.json, &what);
                if operation.id != "openapiJson" {
                    assert_eq!(heard.json["correlation_id"], heard.header("x-request-id"), "{what}");
                }
            }
            _ => assert!(!heard.text.is_empty(), "{what}"),
        }
        if heard.status >= 400 {
            let code = &heard.json["error"]["code"];
            let codes = response["x-codes"].as_array().expect("x-codes");
            assert!(codes.contains(code), "{what}: {code} is not among {codes:?}: {}", heard.text);
            assert_eq!(heard.json["status"], heard.status, "{what}");
            assert_eq!(heard.json["detail"], heard.json["error"]["message"], "{what}");
        }
    }

    fn check_headers(&self, response: &Value, heard: &Heard, what: &str) {
        assert!(!heard.header("x-request-id").is_empty(), "{what}: X-Request-Id");
        for (name, header) in response["headers"].as_object().expect("headers") {
            let header = self.document.resolve(header);
            let Some(value) = heard.headers.get(name.as_str()) else {
                assert_ne!(header["required"], true, "{what}: {name} is missing");
                continue;
            };
            let text = value.to_str().expect("a header is text");
            let value = text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from);
            let value = if header["schema"]["type"] == "string" { Value::from(text) } else { value };
            self.document.assert_valid(&header["schema"], &value, &format!("{what}: {name}"));
        }
    }
}
