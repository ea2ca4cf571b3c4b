//! The matrix: every operation of the document × whose object it is aimed at × which credential is shown,
//! under profile prod.
//!
//! Invariant: rows are made of the document. An operation that has none here fails the test; none is skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use causeway::domain::api_token::{ApiToken, RANDOM_BYTES};
use causeway::domain::grants::Operation as Grant;
use causeway::domain::key::SigningKey;
use causeway::domain::peer::PeerKind;
use causeway::services::peer_options::PeerOptions;
use serde_json::{Value, json};

use crate::support::address::steady_address;
use crate::support::document::{Ask, Checked, Document, Heard, Operation, Signer};
use crate::support::gateway::{TENANT, envelope, forward_body, peer};
use crate::support::orchestrator::ScriptedOrchestrator;
use crate::support::prod::{ADMIN, CLIENT_SCOPES, Prod, Token, prod_config};

/// The tenant whose things nobody but it may see.
const OTHER: &str = "tnt_other";
/// The peer that only the other tenant may use.
const THEIRS: &str = "stk_theirs";
/// The correlation id of requests whose answers are compared byte for byte.
const SAME: (&str, &str) = ("x-correlation-id", "req_matrix");
/// The three kinds of callers.
const KINDS: [&str; 3] = ["client", "peer", "operator"];

/// What an operation is aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Aim {
    Run,
    Forward,
    Peer,
    Token,
    /// Nothing that has an owner.
    Nothing,
}

/// Whose object it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Own,
    Other,
    Absent,
}

/// What an operation is aimed at: its path says it, else this list does.
fn aim(operation: &Operation) -> Aim {
    let in_path = [
        ("{run_id}", Aim::Run),
        ("{forward_id}", Aim::Forward),
        ("{peer_id}", Aim::Peer),
        ("{token_id}", Aim::Token),
    ];
    if let Some((_, aim)) = in_path.iter().find(|(name, _)| operation.path.contains(name)) {
        return *aim;
    }
    match operation.id.as_str() {
        "createStreamTicket" => Aim::Run,
        "forwardRun" | "evaluatePolicy" => Aim::Peer,
        "createRun"
        | "ingestFederatedEvents"
        | "listFederatedRuns"
        | "getPeerInfo"
        | "getPeerInfoShort"
        | "getPeerCapabilities"
        | "getPeerCapabilitiesShort"
        | "listPeers"
        | "enrolPeer"
        | "getPolicy"
        | "listTokens"
        | "createToken"
        | "listKeys"
        | "rotateKey"
        | "cancelKeyRotation"
        | "drainGateway"
        | "resumeGateway"
        | "listAudit"
        | "getTopology"
        | "listLinks"
        | "listDeliveries"
        | "listAlerts"
        | "metrics" => Aim::Nothing,
        unknown => panic!("{unknown} has no row in the matrix: say what it is aimed at"),
    }
}

/// A good request of an operation, aimed at `id`, without a credential.
fn row(operation: &Operation, id: &str) -> Ask {
    let ask = Ask::of(&operation.id).at("agent_id", "agt_one").header("accept", "application/json");
    let ask =
        ["run_id", "forward_id", "peer_id", "token_id"].into_iter().fold(ask, |ask, name| ask.at(name, id));
    let token = json!({ "tenant_id": TENANT, "principal_id": "svc_new", "scopes": ["runs:read"] });
    let body = match operation.id.as_str() {
        "forwardRun" => forward_body(id),
        "createRun" => json!({ "input": "hello" }),
        "ingestFederatedEvents" => json!({ "events": [envelope(id, &format!("evt_{id}"), None, "note")] }),
        "createStreamTicket" => json!({ "run_id": id }),
        "enrolPeer" | "updatePeer" => entry(id),
        "evaluatePolicy" => json!({ "peer_id": id, "action": "run.create", "direction": "out" }),
        "createToken" => token,
        "introducePeer" => json!({ "introduction": "none" }),
        known => {
            let needs = operation.value["requestBody"]["required"] == true;
            assert!(!needs, "{known} has no body in the matrix: say what it takes");
            return ask;
        }
    };
    ask.json(&body)
}

/// A peer that an operator enrols.
fn entry(id: &str) -> Value {
    json!({ "peer_id": id, "base_url": "http://127.0.0.1:9", "tenants": [TENANT], "allowed_addresses": ["127.0.0.0/8"] })
}

/// A gateway with two tenants, an operator and a peer, and a thing of each kind.
struct World<'a> {
    prod: &'a Prod,
    client: &'a Checked<'a>,
    home: &'a ScriptedOrchestrator,
    own: Token,
    other: Token,
    operator: Token,
    signer: Arc<Signer>,
    objects: BTreeMap<(Aim, Whose), String>,
    made: Mutex<usize>,
}

fn peers(home: &ScriptedOrchestrator, caller: &SigningKey) -> Vec<PeerOptions> {
    let near = |id: &str, base: &str, kind: PeerKind, tenants: &[&str]| {
        let mut options = peer(id, base, kind);
        options.tenants = tenants.iter().map(|&tenant| tenant.to_owned()).collect();
        options.allowed_addresses = vec!["127.0.0.0/8".parse().expect("a range")];
        options
    };
    let mut local = near("stk_b", &home.base_url(), PeerKind::Orchestrator, &["*"]);
    local.local = true;
    let theirs = near(THEIRS, &home.base_url(), PeerKind::Orchestrator, &[OTHER]);
    let mut calls = near("stk_caller", "http://127.0.0.1:9", PeerKind::Gateway, &[TENANT]);
    calls.public_key = Some(*caller.public());
    calls.operations = Grant::ALL.to_vec();
    vec![local, theirs, calls]
}

impl<'a> World<'a> {
    async fn new(
        prod: &'a Prod,
        client: &'a Checked<'a>,
        home: &'a ScriptedOrchestrator,
        caller: SigningKey,
    ) -> Self {
        let own = prod.token(Some(TENANT), &CLIENT_SCOPES).await;
        let other = prod.token(Some(OTHER), &CLIENT_SCOPES).await;
        let operator = prod.token(None, &[ADMIN]).await;
        let destination = prod.gateway.config.gateway.stack_id.to_string();
        let signer = Arc::new(Signer { key: caller, origin: "stk_caller".to_owned(), destination });
        let made = Mutex::new(0);
        let mut world =
            World { prod, client, home, own, other, operator, signer, objects: BTreeMap::new(), made };
        for whose in [Whose::Own, Whose::Other] {
            let token = if whose == Whose::Own { &world.own } else { &world.other };
            let forward = Ask::of("forwardRun").json(&forward_body("stk_b")).bearer(&token.text);
            let done = client.ask(forward).await.expect(200).json["forwarded"].take();
            let text = |name: &str| done[name].as_str().expect("an id").to_owned();
            world.objects.insert((Aim::Run, whose), text("run_id"));
            world.objects.insert((Aim::Forward, whose), text("forward_id"));
        }
        for (aim, whose, id) in [
            (Aim::Peer, Whose::Own, "stk_b"),
            (Aim::Peer, Whose::Other, THEIRS),
            (Aim::Peer, Whose::Absent, "stk_absent"),
            (Aim::Run, Whose::Absent, "run_absent"),
            (Aim::Forward, Whose::Absent, "fwd_absent"),
            (Aim::Token, Whose::Own, &prod.token(Some(TENANT), &["runs:read"]).await.id),
            (Aim::Token, Whose::Absent, "abcdefghijkl"),
            (Aim::Nothing, Whose::Own, "stk_unmade"),
        ] {
            world.objects.insert((aim, whose), id.to_owned());
        }
        world
    }

    /// Every object an operation can be aimed at, by those who may call it. Operators have no tenant.
    fn objects(&self, operation: &Operation) -> Vec<(Whose, &str)> {
        let of_tenants = operation.calls("client");
        let whose = [Whose::Own, Whose::Other, Whose::Absent];
        let whose = whose.into_iter().filter(|whose| of_tenants || *whose != Whose::Other);
        whose
            .filter_map(|whose| Some((whose, self.objects.get(&(aim(operation), whose))?.as_str())))
            .collect()
    }

    fn next(&self) -> usize {
        let mut made = self.made.lock().expect("no panic");
        *made += 1;
        *made
    }

    fn shown(&self, kind: &str, ask: Ask) -> Ask {
        match kind {
            "client" => ask.bearer(&self.own.text),
            "operator" => ask.bearer(&self.operator.text),
            _ => ask.header("x-tenant-id", TENANT).signed(&self.signer),
        }
    }

    async fn operate(&self, ask: Ask) -> Heard {
        let heard = self.client.ask(ask.bearer(&self.operator.text)).await;
        assert!(heard.status < 300, "{}", heard.text);
        heard
    }

    /// An object for an operation that uses it up.
    async fn fresh(&self, operation: &Operation, kind: &str) -> String {
        let new = format!("stk_n{}", self.next());
        match operation.id.as_str() {
            "revokeToken" => self.prod.token(Some(TENANT), &["runs:read"]).await.id,
            "cancelKeyRotation" => {
                self.operate(Ask::of("rotateKey")).await;
                String::new()
            }
            "updatePeer" | "removePeer" | "revokePeer" | "drainPeer" | "reinstatePeer" | "verifyPeer" => {
                self.operate(Ask::of("enrolPeer").json(&entry(&new))).await;
                new
            }
            "enrolPeer" | "ingestFederatedEvents" => new,
            "getPeer" if kind == "peer" => self.signer.origin.clone(),
            _ if operation.value["x-scope"] == "runs:cancel" => {
                let forward = Ask::of("forwardRun").json(&forward_body("stk_b")).bearer(&self.own.text);
                let done = self.client.ask(forward).await.expect(200);
                done.json["forwarded"]["run_id"].as_str().expect("a run").to_owned()
            }
            _ => self.objects[&(aim(operation), Whose::Own)].clone(),
        }
    }

    /// Takes back what would change the answers of others.
    async fn restore(&self, operation: &Operation) {
        match operation.id.as_str() {
            "drainGateway" => drop(self.operate(Ask::of("resumeGateway")).await),
            "rotateKey" => drop(self.operate(Ask::of("cancelKeyRotation")).await),
            _ => {}
        }
    }

    /// Everything that a refused request must leave as it is.
    async fn snapshot(&self) -> Vec<String> {
        let tables = [
            "tokens",
            "tokens WHERE revoked_at IS NOT NULL",
            "peers",
            "runs",
            "forwards",
            "idempotency",
            "streams",
            "events",
            "nonces",
        ];
        let rows = tables.map(|table| format!("{table}: {}", self.prod.gateway.count_rows(table)));
        let mut all = rows.to_vec();
        for operation in ["listKeys", "getPolicy", "resumeGateway"] {
            let mut json = self.operate(Ask::of(operation).header(SAME.0, SAME.1)).await.json;
            if let Some(intake) = json.get_mut("intake") {
                *intake = intake["draining"].take();
            }
            all.push(json.to_string());
        }
        let peers = self.operate(Ask::of("listPeers")).await.json;
        let standing = |peer: &Value| format!("{} {} {}", peer["peer_id"], peer["standing"], peer["entry"]);
        all.extend(peers["items"].as_array().expect("items").iter().map(standing));
        let truth = self.home.truth();
        let asked: usize =
            truth.runs_created().iter().map(|run| truth.cancel_requests(&run.run_id).len()).sum();
        all.push(format!("{} creates, {asked} cancels at the home", truth.creates().len()));
        all
    }

    /// Every refusal in the audit with this action, over all pages, and how many were counted only.
    async fn audited(&self, query: &str) -> (Vec<Value>, u64) {
        let (mut records, mut suppressed, mut query_now) = (Vec::new(), 0, query.to_owned());
        loop {
            let page = self.operate(Ask::of("listAudit").query(&query_now)).await.json;
            for record in page["items"].as_array().expect("items") {
                suppressed += record["meta"]["suppressed"].as_u64().unwrap_or(0);
                records.push(record.clone());
            }
            let Some(before) = page["next_before"].as_i64() else { return (records, suppressed) };
            query_now = format!("{query}&before={before}");
        }
    }
}

type Shown = Box<dyn Fn(Ask) -> Ask>;

/// Credentials that do not hold, each a way of its own. // reliability 4d.7
async fn worthless(world: &World<'_>, scope: &str) -> Vec<(&'static str, Shown)> {
    let (tenant, scopes) =
        if scope == ADMIN { (None, vec![ADMIN]) } else { (Some(TENANT), CLIENT_SCOPES.to_vec()) };
    let good = world.prod.token(tenant, &scopes).await.text;
    let revoked = world.prod.token(tenant, &scopes).await;
    world.prod.revoke(&revoked).await;
    let expired = world.prod.token_for(tenant, &scopes, Some("1ms")).await;
    // It is over once the clock has moved on by a millisecond.
    tokio::time::sleep(Duration::from_millis(2)).await; // why: polling another party's clock
    let unknown = ApiToken::mint(&[7; RANDOM_BYTES]).expose().to_owned();
    let header =
        |name: &'static str, value: String| -> Shown { Box::new(move |ask| ask.header(name, &value)) };
    let bearer = |token: &str| header("authorization", format!("Bearer {token}"));
    let query = format!("access_token={good}&token={good}");
    vec![
        ("none", Box::new(|ask| ask)),
        ("garbled", bearer("cw_garbled_here")),
        ("cut", bearer(&good[..good.len() - 1])),
        ("of another prefix", bearer(&good.replacen("cw_", "sk_", 1))),
        ("never made", bearer(&unknown)),
        ("expired", bearer(&expired.text)),
        ("revoked", bearer(&revoked.text)),
        ("revoked, as a key", header("x-api-key", revoked.text.clone())),
        ("a JWT nobody asked for", bearer("eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.")),
        ("of another scheme", header("authorization", format!("Basic {good}"))),
        ("twice", {
            let good = good.clone();
            Box::new(move |ask| ask.bearer(&good).header("x-api-key", &good))
        }),
        ("in the query", Box::new(move |ask| ask.query(&query))),
        (
            "headers of profile dev",
            Box::new(|ask| ask.header("x-tenant-id", TENANT).header("x-principal-id", "svc_test")),
        ),
    ]
}

// reliability 4d.7, 4d.8, 4d.20, 4d.64; Z-43, Z-47
#[tokio::test]
pub(crate) async fn every_operation_is_refused_to_all_but_those_the_document_names() {
    let document = Document::load();
    let seen = Mutex::new(BTreeSet::new());
    let home = ScriptedOrchestrator::start().await;
    let caller = SigningKey::from_seed(&[5; 32]);
    let prod = Prod::start(prod_config(), peers(&home, &caller)).await;
    let client = Checked::new(&document, prod.gateway.address(), &seen);
    let world = World::new(&prod, &client, &home, caller).await;
    let (open, guarded): (Vec<_>, Vec<_>) = document.operations().into_iter().partition(Operation::is_open);
    assert!(open.len() >= 6 && guarded.len() >= 39, "{} open, {} guarded", open.len(), guarded.len());
    for operation in &guarded {
        let kinds = operation.value["x-callers"].as_array().unwrap_or_else(|| panic!("{}", operation.id));
        assert!(kinds.iter().all(|kind| KINDS.iter().any(|known| kind == known)), "{}", operation.id);
    }

    unknown_callers(&world, &guarded).await;
    lesser_callers(&world, &guarded).await;
    absent_objects(&world, &guarded).await;
    tickets(&world, &guarded).await;
    for operation in &guarded {
        for kind in KINDS {
            right_callers(&world, operation, kind).await;
        }
    }
    open_operations(&world, &open).await;
}

/// Whoever shows nothing that holds hears the same, byte for byte, whatever is there. // reliability 4d.7
async fn unknown_callers(world: &World<'_>, guarded: &[Operation]) {
    let credentials =
        BTreeMap::from([(true, worthless(world, ADMIN).await), (false, worthless(world, "").await)]);
    let first = Ask::of("getPeerInfo").header(SAME.0, SAME.1);
    let reference = world.client.ask(first).await.expect_error(401, "unauthorized").text;
    let before = world.snapshot().await;
    let mut refused = 1;
    for operation in guarded {
        for (whose, id) in world.objects(operation) {
            for (name, credential) in &credentials[&(operation.value["x-scope"] == ADMIN)] {
                let ask = credential(row(operation, id)).header(SAME.0, SAME.1);
                let heard = world.client.send(&ask).await;
                let what = format!("{} of {whose:?}, credential {name}", operation.id);
                assert_eq!((heard.status, heard.text.as_str()), (401, reference.as_str()), "{what}");
                assert!(heard.header("www-authenticate").starts_with("Bearer"), "{what}");
                refused += 1;
            }
        }
    }
    assert_eq!(world.snapshot().await, before, "a refused request changed something");
    // Each is in the audit, or counted in it. A count is written with the refusal that follows it.
    let query = "action=authenticate&outcome=refused&limit=500";
    for _ in 0..500 {
        let (records, suppressed) = world.audited(query).await;
        assert!(
            records
                .iter()
                .all(|one| one["reason"] == "unauthorized" && one["subject"] == "address:127.0.0.1")
        );
        if records.len() as u64 + suppressed == refused {
            return;
        }
        world.client.send(&Ask::of("getPeerInfo")).await;
        refused += 1;
        tokio::time::sleep(Duration::from_millis(20)).await; // why: polling another party's HTTP API
    }
    panic!("of {refused} refusals only so many are in the audit: {:?}", world.audited(query).await.1);
}

/// Every scope but the needed one is not enough. // reliability 4d.8
async fn lesser_callers(world: &World<'_>, guarded: &[Operation]) {
    let mut lacking = BTreeMap::new();
    for scope in CLIENT_SCOPES.into_iter().chain([ADMIN]) {
        let rest: Vec<&str> = CLIENT_SCOPES.into_iter().filter(|other| *other != scope).collect();
        lacking.insert(scope, world.prod.token(Some(TENANT), &rest).await.text);
    }
    let before = world.snapshot().await;
    let mut refused = BTreeSet::new();
    for operation in guarded {
        let scope = operation.value["x-scope"].as_str().expect("a scope");
        for (whose, id) in world.objects(operation) {
            let correlation = format!("req_{}_{whose:?}", operation.id);
            let ask = row(operation, id).bearer(&lacking[scope]).header("x-correlation-id", &correlation);
            let heard = world.client.ask(ask).await.expect_error(403, "insufficient_scope");
            let said = heard.json["error"]["message"].as_str().expect("a message");
            assert!(said.ends_with(&format!("the scope {scope}")), "{} {said}", operation.id);
            refused.insert(correlation);
        }
    }
    assert_eq!(world.snapshot().await, before, "a refused request changed something");
    for _ in 0..500 {
        let (records, _) = world.audited("subject=svc_test&outcome=refused&limit=500").await;
        let of = |record: &Value| record["correlation_id"].as_str().expect("text").to_owned();
        let is_scope = |record: &&Value| {
            record["reason"].as_str().is_some_and(|reason| reason.starts_with("insufficient_scope: "))
        };
        let audited: BTreeSet<String> = records.iter().filter(is_scope).map(of).collect();
        if audited.is_superset(&refused) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await; // why: polling another party's HTTP API
    }
    panic!("refusals are missing from the audit");
}

/// What is another tenant's is not there. // reliability 4d.12, 4d.20
async fn absent_objects(world: &World<'_>, guarded: &[Operation]) {
    let before = world.snapshot().await;
    let mut compared = BTreeSet::new();
    for operation in guarded.iter().filter(|operation| aim(operation) != Aim::Nothing) {
        let kind = if operation.calls("client") { "client" } else { "operator" };
        let mut heard = Vec::new();
        for (whose, id) in world.objects(operation).into_iter().filter(|(whose, _)| *whose != Whose::Own) {
            let ask = world.shown(kind, row(operation, id)).header(SAME.0, SAME.1);
            let answer = world.client.ask(ask).await.expect(404);
            // What was asked for may be repeated, and nothing else.
            heard.push((whose, answer.text.replace(id, "…")));
        }
        assert_eq!(heard.len(), if kind == "client" { 2 } else { 1 }, "{}", operation.id);
        assert!(heard.iter().all(|(_, text)| *text == heard[0].1), "{}: {heard:?}", operation.id);
        compared.insert(operation.id.as_str());
    }
    assert!(compared.len() >= 20, "{compared:?}");
    assert_eq!(world.snapshot().await, before, "a refused request changed something");
    // A push cannot reach another's run either: what names another tenant is turned away, entry by entry.
    let mut event = envelope(&world.objects[&(Aim::Run, Whose::Other)], "evt_theirs", None, "note");
    event["event"]["tenant_id"] = json!(OTHER);
    let push = Ask::of("ingestFederatedEvents").json(&json!({ "events": [event] }));
    let heard = world.client.ask(push.bearer(&world.own.text)).await.expect(200);
    assert_eq!(
        (&heard.json["accepted"], &heard.json["results"][0]["code"]),
        (&json!(0), &json!("origin_mismatch"))
    );
    assert_eq!(world.snapshot().await, before, "an event of another tenant was stored");
}

/// A ticket opens one stream of one run once, and nothing else. // reliability 4d.26
async fn tickets(world: &World<'_>, guarded: &[Operation]) {
    let run = |whose| world.objects[&(Aim::Run, whose)].as_str();
    let before = world.snapshot().await;
    for operation in guarded {
        let streams = operation.value["x-scope"] == "events:read" && operation.method == "GET";
        for (whose, id) in world.objects(operation) {
            let ask = Ask::of("createStreamTicket").json(&json!({ "run_id": run(Whose::Own) }));
            let made = world.client.ask(ask.bearer(&world.own.text)).await.expect(201);
            let query =
                format!("ticket={}", made.json["stream_ticket"]["ticket"].as_str().expect("a ticket"));
            let heard = world.client.ask(row(operation, id).query(&query)).await;
            match (streams, whose) {
                (true, Whose::Own) => drop(heard.expect(200)),
                (true, _) => drop(heard.expect_error(401, "ticket_invalid")),
                (false, _) => drop(heard.expect(403)),
            }
            let again = world.client.ask(row(operation, id).query(&query)).await;
            again.expect_error(401, "ticket_invalid");
        }
    }
    assert_eq!(world.snapshot().await, before, "a refused request changed something");
}

/// Those the document names are served, the others are not, whatever else they may do.
async fn right_callers(world: &World<'_>, operation: &Operation, kind: &str) {
    let id = world.fresh(operation, kind).await;
    let heard = world.client.ask(world.shown(kind, row(operation, &id))).await;
    let what = format!("{} for a {kind}", operation.id);
    if !operation.calls(kind) {
        let code = if kind == "peer" { "policy_denied" } else { "insufficient_scope" };
        assert_eq!(
            (heard.status, heard.json["error"]["code"].as_str()),
            (403, Some(code)),
            "{what}: {}",
            heard.text
        );
        if operation.id == "cancelKeyRotation" {
            world.operate(Ask::of("cancelKeyRotation")).await;
        }
        return;
    }
    assert!((200..300).contains(&heard.status), "{what}: {} {}", heard.status, heard.text);
    if kind != "operator" {
        let theirs = [&world.objects[&(Aim::Run, Whose::Other)], OTHER, THEIRS];
        assert!(theirs.iter().all(|name| !heard.text.contains(*name)), "{what}: {}", heard.text);
    }
    if kind == "client" {
        assert!(!heard.text.contains("allowed_addresses"), "{what}: {}", heard.text);
    }
    world.restore(operation).await;
}

/// Health, the document: to anybody, the same with any credential, and nothing of whom the gateway knows.
async fn open_operations(world: &World<'_>, open: &[Operation]) {
    let (asked, told): (Vec<_>, Vec<_>) = open.iter().partition(|operation| operation.method == "GET");
    assert!(told.iter().all(|operation| operation.id == "introducePeer"), "{told:?}");
    // Without hubs nobody is introduced, whoever asks. // R-14
    for operation in told {
        let ask = || row(operation, "").header(SAME.0, SAME.1);
        let plain = world.client.ask(ask()).await.expect_error(404, "not_found");
        for kind in KINDS {
            let heard = world.client.ask(world.shown(kind, ask())).await.expect(404);
            assert_eq!(heard.text, plain.text, "for a {kind}");
        }
    }
    for operation in &asked {
        let plain = world.client.ask(Ask::of(&operation.id).header(SAME.0, SAME.1)).await.expect(200);
        let garbled = Ask::of(&operation.id).header(SAME.0, SAME.1).bearer("cw_garbled_here");
        assert_eq!(world.client.ask(garbled).await.expect(200).text, plain.text, "{}", operation.id);
        let names = [THEIRS, OTHER, "stk_caller", "127.0.0.1:9"];
        let of_document = operation.id.starts_with("openapi");
        assert!(of_document || names.iter().all(|name| !plain.text.contains(name)), "{}", operation.id);
    }
    // reliability 4d.64
    for path in asked.iter().map(|operation| operation.path.as_str()).chain(["/metrics"]) {
        let refused = world.prod.gateway.post(path, &json!({})).await.expect(405);
        assert_eq!(refused.header("allow"), "GET, HEAD", "{path}");
    }
}

// reliability 4d.60
#[tokio::test]
async fn with_a_listener_of_their_own_operators_are_served_nowhere_else() {
    let document = Document::load();
    let seen = Mutex::new(BTreeSet::new());
    let address = steady_address();
    let mut config = prod_config();
    config.server.admin_listen = Some(address);
    let prod = Prod::start(config, Vec::new()).await;
    let operator = prod.token(None, &[ADMIN]).await.text;
    let front = Checked::new(&document, prod.gateway.address(), &seen);
    let admin = Checked::new(&document, address, &seen);
    for operation in document.operations().iter().filter(|operation| operation.value["x-scope"] == ADMIN) {
        let heard = front.send(&row(operation, "stk_absent").bearer(&operator)).await;
        // What a client reads at the same path is served here.
        match (operation.path.as_str(), operation.method.as_str()) {
            ("/v1/federation/peers" | "/v1/federation/peers/{peer_id}", _) => {
                let heard = heard.expect(405);
                assert_eq!(heard.header("allow"), "GET, HEAD", "{}", operation.id);
            }
            _ => drop(heard.expect_error(404, "not_found")),
        }
        let unknown = admin.send(&row(operation, "stk_absent")).await;
        assert_eq!(unknown.status, if operation.id == "metrics" { 200 } else { 401 }, "{}", operation.id);
        let known = admin.ask(row(operation, "stk_absent").bearer(&operator)).await;
        assert!(![401, 403, 405].contains(&known.status), "{}: {}", operation.id, known.text);
        if operation.id == "drainGateway" {
            admin.ask(Ask::of("resumeGateway").bearer(&operator)).await.expect(200);
        }
    }
}
