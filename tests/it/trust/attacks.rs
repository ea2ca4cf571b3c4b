//! What the trust boundary holds against clients and peers: credentials, tenants, quotas, addresses, admin
//! paths. Numbers are those of the attack table.

use std::collections::HashSet;
use std::time::Duration;

use causeway::clock::Clock;
use causeway::domain::peer::PeerKind;
use causeway::services::options::Profile;
use serde_json::{Value, json};

use crate::support::ears::{plain_client, read};
use crate::support::forwards::{FORWARD, run_id};
use crate::support::gateway::{Answer, TENANT, TestGateway, events_path, forward_body, peer, test_config};
use crate::support::orchestrator::{RunStatus, ScriptedOrchestrator};
use crate::support::pair::{Operator, Pair, orchestrator_entry};
use crate::support::sse_client::Follower;

/// The scopes of a client that does everything.
const ALL: [&str; 5] = ["runs:forward", "runs:read", "runs:cancel", "events:read", "events:ingest"];

/// A gateway in profile prod at a time of the test's own, with one orchestrator, `orc`.
struct Guarded {
    gateway: TestGateway,
    home: ScriptedOrchestrator,
    operator: Operator,
    clock: Clock,
}

impl Guarded {
    async fn start(change: impl FnOnce(&mut causeway::config::Config)) -> Self {
        let home = ScriptedOrchestrator::start().await;
        let mut config = test_config();
        config.gateway.profile = Profile::Prod;
        config.gateway.default_tenant = None;
        change(&mut config);
        let mut local = orchestrator_entry("orc", &home.base_url());
        local.local = true;
        let clock = Clock::manual(1_790_000_000_000);
        let gateway = TestGateway::start_at(clock.clone(), config, vec![local]).await;
        let operator = Operator::of(&gateway);
        Guarded { gateway, home, operator, clock }
    }

    /// `Bearer …` of a new token.
    async fn bearer(&self, principal: &str, scopes: &[&str]) -> String {
        format!("Bearer {}", self.operator.token(principal, scopes).await.1)
    }

    async fn get(&self, path: &str, bearer: &str) -> Answer {
        self.gateway.get_with(path, &[("authorization", bearer)]).await
    }

    async fn forward(&self, bearer: &str) -> Answer {
        self.gateway.post_with(FORWARD, &forward_body("orc"), &[("authorization", bearer)]).await
    }
}

/// What could tell one answer from another.
fn shape(answer: &Answer) -> (u16, String, Vec<String>) {
    let names = answer.headers.keys().map(|name| name.as_str().to_owned()).collect();
    (answer.status, answer.text.clone(), names)
}

// reliability 4d.7
#[tokio::test]
pub(crate) async fn every_credential_that_does_not_hold_gets_the_same_401() {
    let guarded = Guarded::start(|_| {}).await;
    let operator = &guarded.operator;
    let brief =
        json!({ "tenant_id": TENANT, "principal_id": "brief", "scopes": ["runs:read"], "lifetime": "60s" });
    let brief = operator.post("/v1/federation/tokens", &brief).await.expect(201);
    let brief = brief.json["token"]["token"].as_str().expect("a token").to_owned();
    let (revoked_id, revoked) = operator.token("gone", &["runs:read"]).await;
    let (_, good) = operator.token("alice", &["runs:read"]).await;
    guarded.get("/v1/federation/runs", &format!("Bearer {brief}")).await.expect(200);
    guarded.clock.advance(Duration::from_secs(61));
    operator.delete(&format!("/v1/federation/tokens/{revoked_id}")).await.expect(200);
    let mut garbled = good.clone().into_bytes();
    garbled[20] ^= 1;
    let garbled = String::from_utf8(garbled).expect("ASCII");
    let secret = good.splitn(3, '_').nth(2).expect("a secret").to_owned();
    let foreign = good.replacen("cw_", "xy_", 1);
    let bearer = |text: &str| format!("Bearer {text}");
    type Sent = Vec<(&'static str, String)>;
    let table: Vec<(&str, Sent, &str)> = vec![
        ("nothing", vec![], ""),
        ("an empty one", vec![("authorization", "Bearer ".to_owned())], ""),
        ("another scheme", vec![("authorization", format!("Basic {good}"))], ""),
        ("no scheme", vec![("authorization", good.clone())], ""),
        ("garbled", vec![("authorization", bearer(&garbled))], ""),
        ("cut", vec![("authorization", bearer(&good[..good.len() - 1]))], ""),
        ("longer", vec![("authorization", bearer(&format!("{good}A")))], ""),
        ("the secret alone", vec![("authorization", bearer(&secret))], ""),
        ("another prefix", vec![("authorization", bearer(&foreign))], ""),
        ("over", vec![("authorization", bearer(&brief))], ""),
        ("revoked", vec![("authorization", bearer(&revoked))], ""),
        (
            "a JWT without a signature",
            vec![("authorization", bearer("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9."))],
            "",
        ),
        ("twice", vec![("authorization", bearer(&good)), ("x-api-key", good.clone())], ""),
        ("two of them", vec![("authorization", bearer(&good)), ("authorization", bearer(&good))], ""),
        ("the key garbled", vec![("x-api-key", garbled.clone())], ""),
        (
            "headers of profile dev",
            vec![("x-tenant-id", TENANT.to_owned()), ("x-principal-id", "alice".to_owned())],
            "",
        ),
        ("in the query", vec![], "?token="),
        ("in the query by its standard name", vec![], "?access_token="),
        ("in the query as a key", vec![], "?api_key="),
    ];
    let path = "/v1/federation/runs";
    let mut first = None;
    for (what, headers, query) in table {
        let mut fields: Vec<(&'static str, &str)> = vec![("x-correlation-id", "req_same")];
        fields.extend(headers.iter().map(|(name, value)| (*name, value.as_str())));
        let target = if query.is_empty() { path.to_owned() } else { format!("{path}{query}{good}") };
        let answer = guarded.gateway.get_with(&target, &fields).await;
        assert_eq!((answer.status, answer.code()), (401, "unauthorized"), "{what}: {}", answer.text);
        assert!(!answer.text.contains(&good), "{what}: {}", answer.text);
        let shape = shape(&answer);
        assert_eq!(first.get_or_insert_with(|| shape.clone()), &shape, "{what}");
    }
    guarded.gateway.get_with(path, &[("x-api-key", &good)]).await.expect(200);
}

// reliability 4d.8
#[tokio::test]
pub(crate) async fn a_token_does_what_its_scopes_say_and_no_more() {
    let guarded = Guarded::start(|_| {}).await;
    let full = guarded.bearer("alice", &ALL).await;
    let run = run_id(&guarded.forward(&full).await.expect(200));
    let events = events_path(&run);
    let ingest = json!({ "events": [crate::support::gateway::envelope("run_x", "e1", None, "note")] });
    let cancel = format!("/v1/federation/runs/{run}:cancel");
    let show = format!("/v1/federation/runs/{run}");
    let face = format!("/v1/runs/{run}");
    let ticket = json!({ "run_id": run });
    let agent = json!({ "input": { "type": "text", "text": "x" } });
    let table: Vec<(&str, &str, Option<&Value>)> = vec![
        ("runs:forward", FORWARD, Some(&agent)),
        ("runs:forward", "/v1/agents/agt_test/runs", Some(&agent)),
        ("runs:read", &show, None),
        ("runs:read", &face, None),
        ("runs:read", "/v1/federation/runs", None),
        ("runs:read", "/v1/federation/peers", None),
        ("runs:cancel", &cancel, Some(&Value::Null)),
        ("events:read", &events, None),
        ("events:read", "/v1/federation/stream-tickets", Some(&ticket)),
        ("events:ingest", "/v1/federation/events:ingest", Some(&ingest)),
    ];
    for (scope, path, body) in table {
        let others: Vec<&str> = ALL.into_iter().filter(|other| *other != scope).collect();
        let weak = guarded.bearer("weak", &others).await;
        let known = [("authorization", weak.as_str())];
        let body = if path == FORWARD { Some(forward_body("orc")) } else { body.cloned() };
        let answer = match &body {
            None => guarded.gateway.get_with(path, &known).await,
            Some(body) => guarded.gateway.post_with(path, body, &known).await,
        };
        assert_eq!(
            (answer.status, answer.code()),
            (403, "insufficient_scope"),
            "{scope} {path}: {}",
            answer.text
        );
        assert!(
            answer.json["error"]["message"].as_str().is_some_and(|said| said.contains(scope)),
            "{}",
            answer.text
        );
    }
    // Operators run the gateway; what belongs to tenants is not theirs.
    let body = json!({ "principal_id": "root", "scopes": ["admin:*"] });
    let admin = guarded.operator.post("/v1/federation/tokens", &body).await.expect(201);
    let admin = format!("Bearer {}", admin.json["token"]["token"].as_str().expect("a token"));
    guarded.get("/v1/federation/audit", &admin).await.expect(200);
    for path in [show.as_str(), face.as_str(), "/v1/federation/runs", events.as_str()] {
        let refused =
            guarded.gateway.get_with(path, &[("authorization", &admin), ("x-tenant-id", TENANT)]).await;
        assert_eq!((refused.status, refused.code()), (403, "insufficient_scope"), "{path}: {}", refused.text);
    }
    assert_eq!(guarded.home.truth().creates().len(), 1);
}

// reliability 4d.60, 4d.64
#[tokio::test]
pub(crate) async fn what_operators_do_is_no_clients_business_and_not_there_on_the_public_door() {
    let operator_paths = [
        ("GET", "/v1/federation/audit"),
        ("GET", "/v1/federation/tokens"),
        ("POST", "/v1/federation/tokens"),
        ("DELETE", "/v1/federation/tokens/cw_x"),
        ("GET", "/v1/federation/keys"),
        ("POST", "/v1/federation/keys:rotate"),
        ("POST", "/v1/federation/keys:cancel-rotation"),
        ("POST", "/v1/federation/gateway:drain"),
        ("POST", "/v1/federation/gateway:resume"),
        ("GET", "/v1/federation/policy"),
        ("POST", "/v1/federation/policy:evaluate"),
        ("GET", "/metrics"),
    ];
    let ask = |base: String, bearer: String| {
        let http = plain_client();
        async move {
            let mut answers = Vec::new();
            for (method, path) in operator_paths {
                let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
                let mut request = http.request(method, format!("{base}{path}"));
                if !bearer.is_empty() {
                    request = request.header("authorization", &bearer);
                }
                let request = request.header("content-type", "application/json").body("{}");
                answers.push((path, read(request.send().await.expect("an answer")).await));
            }
            answers
        }
    };
    let whole = Guarded::start(|_| {}).await;
    let bearer = whole.bearer("alice", &ALL).await;
    for (path, answer) in ask(whole.gateway.base_url(), String::new()).await {
        assert_eq!((answer.status, answer.code()), (401, "unauthorized"), "{path}: {}", answer.text);
    }
    for (path, answer) in ask(whole.gateway.base_url(), bearer).await {
        assert_eq!((answer.status, answer.code()), (403, "insufficient_scope"), "{path}: {}", answer.text);
    }
    let split = Guarded::start(|config| config.server.admin_listen = Some(([127, 0, 0, 1], 0).into())).await;
    let bearer = split.bearer("alice", &ALL).await;
    for (path, answer) in ask(split.gateway.base_url(), bearer).await {
        assert_eq!(answer.status, 404, "{path}: {}", answer.text);
    }
    // On the peers' door there is none of it either.
    let pair = Pair::start().await;
    for (method, path) in operator_paths {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let fields = [("content-type", "application/json")];
        let signed = pair.as_a().sign(method, path, &fields, Some(b"{}".to_vec()));
        let answer = signed.send(&pair.tls_as_a(), &pair.door_b()).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text);
    }
}

// reliability 4d.11
#[tokio::test]
pub(crate) async fn an_address_in_a_body_is_nowhere_dialled() {
    let evil = ScriptedOrchestrator::start().await;
    let pair = Pair::start().await;
    for place in ["", "/forward", "/forward/target_selector", "/forward/run_request"] {
        let mut body = forward_body("stk_b");
        for name in ["peer_url", "base_url", "callback_url", "events_url"] {
            body.pointer_mut(place).expect("a place")[name] = json!(evil.base_url());
        }
        let answer = pair.a.post(FORWARD, &body).await;
        assert!([200, 400, 422].contains(&answer.status), "{place}: {}", answer.text);
    }
    let entry = json!({ "peer_id": "stk_x", "base_url": evil.base_url(), "peer_url": evil.base_url() });
    let refused = pair.a.post("/v1/federation/peers", &entry).await;
    assert_eq!((refused.status, refused.code()), (400, "invalid_request"), "{}", refused.text);
    assert_eq!(evil.truth().connections(), 0);
}

// reliability 4d.12
#[tokio::test]
pub(crate) async fn a_peer_that_is_not_for_a_tenant_is_not_there() {
    let home = ScriptedOrchestrator::start().await;
    let mut config = test_config();
    config.gateway.profile = Profile::Prod;
    config.gateway.default_tenant = None;
    let mut granted = orchestrator_entry("orc_x", &home.base_url());
    granted.tenants = vec!["tnt_other".to_owned()];
    let gateway = TestGateway::start_with(config, vec![granted]).await;
    let operator = Operator::of(&gateway);
    let (_, token) = operator.token("alice", &ALL).await;
    let bearer = format!("Bearer {token}");
    let known = [("authorization", bearer.as_str()), ("x-correlation-id", "req_same")];
    let held = gateway.post_with(FORWARD, &forward_body("orc_x"), &known).await;
    let free = gateway.post_with(FORWARD, &forward_body("orc_y"), &known).await;
    assert_eq!((held.status, held.code()), (404, "peer_not_found"));
    assert_eq!(held.text.replace("orc_x", "orc_y"), free.text);
    let (_, token) = operator.token_of("tnt_other", "bob", &ALL).await;
    let theirs = format!("Bearer {token}");
    gateway.post_with(FORWARD, &forward_body("orc_x"), &[("authorization", &theirs)]).await.expect(200);
    assert_eq!(home.truth().creates().len(), 1);
}

// reliability 4d.16, 4d.20, defect 4
#[tokio::test]
pub(crate) async fn two_tenants_never_meet_by_key_by_run_or_by_principal() {
    let guarded = Guarded::start(|_| {}).await;
    let (_, one) = guarded.operator.token_of("tnt_one", "alice", &ALL).await;
    let (_, two) = guarded.operator.token_of("tnt_two", "alice", &ALL).await;
    let forward = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let known = [("authorization", bearer.as_str()), ("idempotency-key", "one-key")];
        run_id(&guarded.gateway.post_with(FORWARD, &forward_body("orc"), &known).await.expect(200))
    };
    let (first, second) = (forward(&one).await, forward(&two).await);
    assert_ne!(first, second);
    assert_eq!(forward(&one).await, first);
    assert_eq!(guarded.home.truth().runs_created().len(), 2);
    let ask = async |path: &str| {
        let bearer = format!("Bearer {two}");
        shape(
            &guarded
                .gateway
                .get_with(path, &[("authorization", &bearer), ("x-correlation-id", "same")])
                .await,
        )
    };
    for path in
        ["/v1/federation/runs/{}", "/v1/runs/{}", "/v1/federation/runs/{}/events", "/v1/runs/{}/events"]
    {
        let (held, free) =
            (ask(&path.replace("{}", &first)).await, ask(&path.replace("{}", "run_free")).await);
        assert_eq!(held.0, 404, "{path}");
        assert_eq!(held, free, "{path}");
    }
    let body = json!({ "run_id": first });
    let bearer = format!("Bearer {two}");
    let known = [("authorization", bearer.as_str())];
    guarded.gateway.post_with("/v1/federation/stream-tickets", &body, &known).await.expect(404);
    let cancel = format!("/v1/federation/runs/{first}:cancel");
    guarded.gateway.post_with(&cancel, &Value::Null, &known).await.expect(404);
    assert!(guarded.home.truth().cancel_requests(&first).is_empty());
}

// reliability 4d.17
#[tokio::test]
pub(crate) async fn a_hundred_creates_over_a_quota_of_ten_make_ten_runs() {
    let guarded = Guarded::start(|config| config.limits.concurrent_runs = 10).await;
    let bearer = guarded.bearer("alice", &ALL).await;
    let answers = futures_util::future::join_all((0..100).map(|_| guarded.forward(&bearer))).await;
    let (made, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!((made.len(), refused.len()), (10, 90));
    for answer in refused {
        assert_eq!((answer.status, answer.code()), (429, "quota_exceeded"), "{}", answer.text);
        let details = &answer.json["error"]["details"];
        assert_eq!((&details["quota"], &details["limit"]), (&json!("concurrent_runs"), &json!(10)));
        assert_eq!(answer.header("ratelimit-policy"), "\"concurrent_runs\";q=10");
        assert!(answer.header("ratelimit").starts_with("\"concurrent_runs\";r=0;t="));
        assert!(!answer.header("retry-after").is_empty());
    }
    assert_eq!(guarded.home.truth().runs_created().len(), 10);
    // A run that ends gives its place back.
    let run = run_id(made[0]);
    guarded.home.finish(&run, RunStatus::Completed);
    let mut follower =
        Follower::new(guarded.gateway.address(), &events_path(&run)).with_header("authorization", &bearer);
    follower.follow_to_end().await;
    guarded.forward(&bearer).await.expect(200);
    assert_eq!(guarded.forward(&bearer).await.expect(429).code(), "quota_exceeded");
}

// reliability 4d.26
#[tokio::test]
pub(crate) async fn a_stream_ticket_opens_one_run_once_within_a_minute() {
    let guarded = Guarded::start(|_| {}).await;
    let bearer = guarded.bearer("alice", &ALL).await;
    let known = [("authorization", bearer.as_str())];
    let run = run_id(&guarded.forward(&bearer).await.expect(200));
    let other = run_id(&guarded.forward(&bearer).await.expect(200));
    guarded.home.emit_steps(&run, 3);
    guarded.home.finish(&run, RunStatus::Completed);
    let mut follower =
        Follower::new(guarded.gateway.address(), &events_path(&run)).with_header("authorization", &bearer);
    follower.follow_to_end().await;
    let issue = async |body: Value| {
        let made =
            guarded.gateway.post_with("/v1/federation/stream-tickets", &body, &known).await.expect(201);
        assert_eq!(made.header("cache-control"), "no-store");
        made.json["stream_ticket"]["ticket"].as_str().expect("a ticket").to_owned()
    };
    let open = async |run: &str, ticket: &str| {
        guarded.gateway.get(&format!("{}?ticket={ticket}", events_path(run))).await
    };
    let ticket = issue(json!({ "run_id": run, "from_sequence": 2 })).await;
    let streamed = open(&run, &ticket).await.expect(200);
    assert_eq!(streamed.text.matches("event: agentos.event").count(), 2, "{}", streamed.text);
    let invalid = |answer: Answer| {
        assert_eq!((answer.status, answer.code()), (401, "ticket_invalid"), "{}", answer.text)
    };
    invalid(open(&run, &ticket).await);
    let elsewhere = issue(json!({ "run_id": run })).await;
    invalid(open(&other, &elsewhere).await);
    invalid(open(&run, &elsewhere).await); // used, whatever came of it
    let late = issue(json!({ "run_id": run })).await;
    guarded.clock.advance(Duration::from_secs(61));
    invalid(open(&run, &late).await);
    invalid(open(&run, "cwt_of_nobody").await);
    // It opens a stream and nothing else.
    for path in ["/v1/federation/runs", "/v1/federation/runs/{}", "/v1/runs/{}"] {
        let ticket = issue(json!({ "run_id": run })).await;
        let path = path.replace("{}", &run);
        let refused = guarded.gateway.get(&format!("{path}?ticket={ticket}")).await;
        assert!([401, 403].contains(&refused.status), "{path}: {}", refused.text);
    }
}

// reliability 4d.45
#[tokio::test]
pub(crate) async fn a_signed_request_that_came_too_long_a_way_is_refused() {
    let pair = Pair::start().await;
    let body = json!({ "input": { "type": "text", "text": "x" } }).to_string().into_bytes();
    let send = async |way: &str| {
        let fields = [("content-type", "application/json"), ("x-tenant-id", TENANT), ("causeway-via", way)];
        let path = "/v1/agents/agt_test/runs";
        pair.as_a().sign(reqwest::Method::POST, path, &fields, Some(body.clone())).send_to(&pair.b).await
    };
    let hops =
        |count: usize| (0..count).map(|hop| format!("stk_{hop}/log_{hop}")).collect::<Vec<_>>().join(",");
    let refused = send(&hops(9)).await.expect(508);
    assert_eq!(refused.code(), "loop_detected");
    assert!(pair.home_b.truth().creates().is_empty());
    send(&hops(3)).await.expect(201);
    let passed = pair.home_b.truth().creates()[0].request.header("causeway-via").expect("a way").to_owned();
    assert!(passed.starts_with(&hops(3)) && passed.contains("stk_b/"), "{passed}");
    // The way the request came, sent again, closes the circle.
    let refused = send(&passed).await.expect(508);
    assert_eq!(refused.code(), "loop_detected");
}

// reliability 4d.47, 4d.48
#[tokio::test]
pub(crate) async fn a_peer_is_dialled_at_addresses_its_entry_grants_and_nowhere_else() {
    let inside = ScriptedOrchestrator::start().await;
    let port = inside.addr().port();
    let hosts = [
        "127.0.0.1",
        "127.8.8.8",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "[::]",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "[fd00::1]",
        "[fe80::1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::1]",
        "2130706433",
        "0x7f.1",
    ];
    let mut config = test_config();
    config.gateway.profile = Profile::Prod;
    config.gateway.default_tenant = None;
    config.forward.max_attempts = 1;
    let mut peers = Vec::new();
    for (number, host) in hosts.iter().enumerate() {
        let mut entry =
            peer(&format!("orc_{number}"), &format!("http://{host}:{port}"), PeerKind::Orchestrator);
        entry.tenants = vec!["*".to_owned()];
        peers.push(entry);
    }
    let mut granted = orchestrator_entry("orc_granted", &inside.base_url());
    granted.allowed_addresses = vec!["127.0.0.1/32".parse().expect("a range")];
    peers.push(granted);
    let gateway = TestGateway::start_with(config, peers).await;
    let (_, token) = Operator::of(&gateway).token("alice", &ALL).await;
    let bearer = format!("Bearer {token}");
    let known = [("authorization", bearer.as_str())];
    let before = inside.truth().connections();
    for (number, host) in hosts.iter().enumerate() {
        let body = forward_body(&format!("orc_{number}"));
        let answer = gateway.post_with(FORWARD, &body, &known).await;
        assert_eq!((answer.status, answer.code()), (502, "peer_address_denied"), "{host}: {}", answer.text);
        assert_eq!(answer.json["error"]["details"]["outcome"], "not_started", "{host}");
    }
    assert!(inside.truth().creates().is_empty());
    gateway.post_with(FORWARD, &forward_body("orc_granted"), &known).await.expect(200);
    assert_eq!(inside.truth().creates().len(), 1);
    assert!(inside.truth().connections() >= before);
}

// reliability 4d.63
#[tokio::test]
pub(crate) async fn strangers_with_any_names_and_keys_make_no_time_series() {
    let pair = Pair::start_prod().await;
    let ask = async |number: usize| {
        let key = crate::support::pair::some_key();
        let stranger =
            crate::support::pair::Signer::new(&key, &format!("stk_{number}"), "stk_b", &pair.clock);
        stranger.get(&format!("/v1/federation/runs/run_{number}")).send_to(&pair.b).await.expect(401);
        let token = format!("Bearer cw_of_nobody_{number}");
        pair.b.get_with(&format!("/v1/nothing/{number}"), &[("authorization", &token)]).await.expect(404);
        let answer = pair.b.get_with("/v1/federation/runs", &[("authorization", &token)]).await;
        assert!([401, 429].contains(&answer.status));
    };
    let operator = Operator::of(&pair.b);
    for number in 0..30 {
        ask(number).await;
    }
    operator.get("/metrics").await;
    let before = operator.get("/metrics").await.text;
    for number in 30..45 {
        ask(number).await;
    }
    let after = operator.get("/metrics").await.text;
    // Each of them would be a line at least; what goes on beside them may begin a few.
    let name = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
    let known: HashSet<String> = before.lines().map(name).collect();
    let new: Vec<String> = after.lines().map(name).filter(|series| !known.contains(series)).collect();
    assert!(new.len() < 15, "{new:?}");
    for word in ["stk_1", "run_1", "cw_of_nobody", "nothing"] {
        assert!(!after.contains(word), "{word} is on the metrics page");
    }
}
