//! One seed from its beginning to its end: chaos with checks at each step, then peace, by the end of which
//! everything must be as if nothing had happened.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::client::{Answer, Client, Follower, Pusher, Truth};
use super::home::{Home, made};
use super::ledger::Ledger;
use super::nemesis::chaos;
use super::net::Net;
use super::node::{LETTERS, Node};
use super::operators::Operators;
use super::options::Options;
use super::trace::{Dice, Trace, lock};

/// Once nothing goes wrong any more, everything is done within this time.
const CONVERGENCE: Duration = Duration::from_secs(120);

/// What became of a seed.
pub(crate) struct Story {
    pub(crate) hash: String,
    pub(crate) breaches: Vec<String>,
    pub(crate) lines: Vec<String>,
}

/// A run-create of a client, and what it was told.
struct Create {
    client: Client,
    mark: String,
    /// The gateway it is for, or the home.
    target: String,
    told: Mutex<Told>,
}

#[derive(Debug, Clone, PartialEq)]
enum Told {
    Nothing,
    Run(Value),
    Refused(String),
    /// For good.
    Unknown,
}

pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) net: Arc<Net>,
    pub(crate) homes: Vec<Arc<Home>>,
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) operators: Arc<Operators>,
    creates: Vec<Arc<Create>>,
}

/// Runs one seed on virtual time.
pub(crate) fn run(seed: u64, verbose: bool) -> Story {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let trace = Trace::new(verbose);
        let options = Options::of(seed);
        trace.say(format_args!("{options:?}"));
        let net = Net::new(seed, options.clone(), Arc::clone(&trace));
        let world = World::new(seed, options, net).await;
        world.live(seed).await;
        let breaches = lock(&world.net.breaches).clone();
        Story { hash: trace.hash(), breaches, lines: trace.lines() }
    })
}

impl World {
    async fn new(seed: u64, options: Options, net: Arc<Net>) -> Self {
        let (mut homes, mut nodes, mut creates) = (Vec::new(), Vec::new(), Vec::new());
        for (index, letter) in LETTERS.iter().enumerate().take(options.gateways) {
            homes.push(Home::start(&format!("orc_{letter}"), seed, &net, &options));
            nodes.push(Node::new(index, seed, &net, &options));
        }
        for node in &nodes {
            node.begin().await;
        }
        let open = &nodes[usize::from(options.restores)..];
        for index in 0..options.creates {
            let dice = Dice::new(seed, 1000 + index as u64);
            let gateway = dice.pick(open).host.clone();
            let own = format!("orc_{}", &gateway[4..]);
            let others: Vec<String> =
                open.iter().map(|node| node.host.clone()).filter(|host| *host != gateway).collect();
            // Another gateway's quota would keep a create waiting until the next day; and what it removes before
            // it was read is summed up by one derived event.
            let is_own = dice.chance(0.5) || options.runs_per_day > 0 || options.retention.is_some();
            let target = if is_own || others.is_empty() { own } else { dice.pick(&others).clone() };
            let tenant = format!("tnt_{}", dice.between(1, 3));
            let client =
                Client { net: Arc::clone(&net), name: format!("cli_{index}"), gateway, tenant, dice };
            let (mark, told) = (format!("mark {index}"), Mutex::new(Told::Nothing));
            creates.push(Arc::new(Create { client, mark, target, told }));
        }
        let operators = Arc::new(Operators::new(&net, &nodes, &homes));
        World { options, net, homes, nodes, operators, creates }
    }

    async fn live(&self, seed: u64) {
        let mut work = JoinSet::new();
        for create in &self.creates {
            work.spawn(self.clone_for_work().create(Arc::clone(create)));
        }
        for index in 0..self.options.pushed {
            work.spawn(self.clone_for_work().push(seed, index));
        }
        if self.options.rotates {
            let (operators, chaos) = (Arc::clone(&self.operators), self.options.chaos);
            work.spawn(async move { operators.rotate(Dice::new(seed, 6), chaos).await });
        }
        if self.options.restores {
            let node = Arc::clone(&self.nodes[0]);
            let client = Client {
                net: Arc::clone(&self.net),
                name: "keeper".to_owned(),
                gateway: node.host.clone(),
                tenant: "tnt_5".to_owned(),
                dice: Dice::new(seed, 7),
            };
            work.spawn(Arc::new(Ledger::new(client)).keep(node));
        }
        let _ = timeout(self.options.chaos, chaos(self, seed)).await;
        self.net.trace.say(format_args!("peace"));
        self.net.heal();
        let operators = Arc::clone(&self.operators);
        work.spawn(async move { operators.put_right().await });
        let done = async { while work.join_next().await.is_some_and(|done| self.finished(done)) {} };
        if timeout(CONVERGENCE, done).await.is_err() {
            self.net.breach(format!("liveness: {} still at work {CONVERGENCE:?} after the heal", work.len()));
        } else {
            self.check().await;
        }
        for node in &self.nodes {
            node.end().await;
        }
    }

    fn finished(&self, done: Result<(), tokio::task::JoinError>) -> bool {
        if let Err(error) = done {
            self.net.breach(format!("a client failed: {error}"));
        }
        true
    }

    fn clone_for_work(&self) -> Work {
        Work { options: self.options.clone(), homes: self.homes.clone() }
    }

    /// What must hold once everything is done.
    async fn check(&self) {
        for create in &self.creates {
            self.check_create(create).await;
        }
        for node in &self.nodes {
            node.check_audit();
            for tenant in ["tnt_1", "tnt_2"] {
                self.check_index(node, tenant).await;
                self.check_quota(node, tenant);
            }
        }
    }

    /// F1, F4: as many runs as was said, and no more than one.
    async fn check_create(&self, create: &Create) {
        let made = made(&self.homes, &create.mark);
        let told = lock(&create.told).clone();
        match (&told, made.len()) {
            (Told::Run(_), 1) | (Told::Refused(_), 0) | (Told::Unknown, 0 | 1) => {}
            (_, count) => self.net.breach(format!("F1: {count} runs for {}, told {told:?}", create.mark)),
        }
        let Told::Run(run) = told else { return };
        let run_id = run["run_id"].as_str().unwrap_or("");
        let stranger = Client { tenant: "tnt_9".to_owned(), ..create.client.clone() };
        for path in [format!("/v1/federation/runs/{run_id}"), format!("/v1/federation/runs/{run_id}/events")]
        {
            match stranger.surely(&path).await {
                Some(answer) if answer.status == 404 => {}
                other => self.net.breach(format!("T1: a stranger at {path}: {other:?}")),
            }
        }
        if self.options.retention.is_some() {
            return;
        }
        let end = made.first().and_then(|run| run.events.keys().last().copied()).unwrap_or(0);
        let ahead = format!("/v1/federation/runs/{run_id}/events?from_sequence={}", end + 1);
        match create.client.surely(&ahead).await {
            Some(answer) if answer.code() == "cursor_ahead" => {}
            other => self.net.breach(format!("L10: {ahead} of {end}: {other:?}")),
        }
    }

    /// Q1: no tenant has more runs of one day than its quota, whatever was asked at the same time or again.
    fn check_quota(&self, node: &Node, tenant: &str) {
        let through =
            |create: &&Arc<Create>| create.client.tenant == tenant && create.client.gateway == node.host;
        let creates = self.creates.iter().filter(through);
        let count: usize = creates.map(|create| made(&self.homes, &create.mark).len()).sum();
        let limit = self.options.runs_per_day;
        if limit > 0 && count as u64 > limit {
            self.net.breach(format!("Q1: {tenant} has {count} runs of {limit} at {}", node.host));
        }
    }

    /// F3: the index holds every run made through this gateway, each once, and none else.
    async fn check_index(&self, node: &Node, tenant: &str) {
        if self.options.retention.is_some() {
            return;
        }
        let client = Client {
            net: Arc::clone(&self.net),
            name: "checker".to_owned(),
            gateway: node.host.clone(),
            tenant: tenant.to_owned(),
            dice: Dice::new(0, 0),
        };
        let mut listed: Vec<String> = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/federation/runs?limit=2{cursor}");
            let Some(page) = client.surely(&path).await else {
                return self.net.breach(format!("F3: {path} at {} is not answered", node.host));
            };
            for run in page.json["items"].as_array().into_iter().flatten() {
                listed.extend(run["remote_run_id"].as_str().map(str::to_owned));
            }
            match page.json["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let through = |create: &&Arc<Create>| {
            create.client.tenant == tenant
                && (create.client.gateway == node.host || create.target == node.host)
        };
        let mut expected: Vec<String> = Vec::new();
        for create in self.creates.iter().filter(through) {
            if *lock(&create.told) == Told::Unknown {
                listed.retain(|run| made(&self.homes, &create.mark).iter().all(|made| made.run_id != *run));
                continue;
            }
            expected.extend(made(&self.homes, &create.mark).into_iter().map(|run| run.run_id));
        }
        listed.sort();
        expected.sort();
        if listed != expected {
            self.net
                .breach(format!("F3: {} lists {listed:?} for {tenant}, there are {expected:?}", node.host));
        }
    }
}

/// What a client's work needs of the world.
struct Work {
    options: Options,
    homes: Vec<Arc<Home>>,
}

impl Work {
    async fn create(self, create: Arc<Create>) {
        let client = &create.client;
        sleep(client.dice.up_to(self.options.chaos)).await;
        let Some(forwarded) = self.create_surely(&create).await else { return };
        let run = forwarded["run_id"].as_str().unwrap_or("").to_owned();
        if client.dice.chance(0.5) {
            self.repeat(&create, &forwarded).await;
        }
        let mut work = JoinSet::new();
        for index in 0..self.options.followers {
            let follower = Follower {
                client: Client {
                    name: format!("{}_f{index}", client.name),
                    dice: Dice::new(client.dice.between(0, u64::from(u32::MAX)), index as u64),
                    ..client.clone()
                },
                run: run.clone(),
                truth: self.truth_of(&create.mark),
                retention: self.options.retention.is_some(),
                last: 0,
            };
            work.spawn(follower.follow());
        }
        if client.dice.chance(0.3) {
            client.rest().await;
            let _ = client
                .call(Method::POST, &format!("/v1/federation/runs/{run}:cancel"), &[], Some(&json!({})))
                .await;
        }
        while work.join_next().await.is_some() {}
    }

    fn truth_of(&self, mark: &str) -> Truth {
        let (homes, mark) = (self.homes.clone(), mark.to_owned());
        Arc::new(move || match made(&homes, &mark).pop() {
            Some(run) => (run.events, run.status != "running"),
            None => (BTreeMap::new(), false),
        })
    }

    /// Asks until it is known what became of it.
    async fn create_surely(&self, create: &Create) -> Option<Value> {
        let respond_async = create.client.dice.chance(0.3);
        loop {
            let fields = if respond_async { &[("prefer", "respond-async")][..] } else { &[] };
            match self.attempt(create, &create.mark, fields).await {
                Some(answer) if answer.status == 200 => {
                    let forwarded = answer.json["forwarded"].clone();
                    *lock(&create.told) = Told::Run(forwarded.clone());
                    return Some(forwarded);
                }
                Some(answer) if answer.code() == "quota_exceeded" || answer.outcome() == "refused" => {
                    *lock(&create.told) = Told::Refused(answer.json.to_string());
                    return None;
                }
                Some(answer) if answer.outcome() == "unknown" && !answer.is_retryable() => {
                    *lock(&create.told) = Told::Unknown;
                    return None;
                }
                _ => create.client.rest().await,
            }
        }
    }

    async fn attempt(&self, create: &Create, mark: &str, fields: &[(&'static str, &str)]) -> Option<Answer> {
        let key = format!("\"key {}\"", create.mark);
        let body = json!({ "forward": {
            "target_selector": { "stack_id": create.target },
            "run_request": { "agent_id": "agt_test", "input": { "type": "text", "text": mark } },
        }});
        let mut all = vec![("idempotency-key", &*key)];
        all.extend_from_slice(fields);
        let path = "/v1/federation/runs:forward";
        let answer = create.client.call(Method::POST, path, &all, Some(&body)).await.ok()?;
        let trace = &create.client.net.trace;
        trace.say(format_args!(
            "{} is told {} {} {}",
            create.client.name,
            answer.status,
            answer.code(),
            answer.outcome()
        ));
        // F4: what is said to have failed has made no run, but for a copy that was made on the way.
        let is_told_of_a_copy = || create.client.net.has_refused_a_copy(&create.mark);
        if answer.status >= 400
            && matches!(answer.outcome(), "not_started" | "refused")
            && !is_told_of_a_copy()
        {
            for run in made(&self.homes, &create.mark) {
                create.client.breach(format!("F4: told {} of {}, which exists", answer.json, run.run_id));
            }
        }
        Some(answer)
    }

    /// F2: the same key is answered alike; with another request it is refused.
    async fn repeat(&self, create: &Create, told: &Value) {
        if let Some(answer) = self.attempt(create, &create.mark, &[]).await
            && answer.status == 200
            && answer.json["forwarded"] != *told
        {
            create.client.breach(format!("F2: told {told}, then {}", answer.json));
        }
        if let Some(answer) = self.attempt(create, "something else", &[]).await
            && answer.status < 500
            && answer.code() != "idempotency_key_reused"
        {
            create.client.breach(format!("F2: another request under the key: {}", answer.json));
        }
    }

    async fn push(self, seed: u64, index: usize) {
        let dice = Dice::new(seed, 2000 + index as u64);
        let letters = &LETTERS[usize::from(self.options.restores)..self.options.gateways];
        let client = Client {
            net: Arc::clone(self.homes[0].net()),
            name: format!("psh_{index}"),
            gateway: format!("stk_{}", dice.pick(letters)),
            tenant: format!("tnt_{}", dice.between(1, 3)),
            dice,
        };
        sleep(client.dice.up_to(self.options.chaos)).await;
        let (run, retention) = (format!("push_{index}"), self.options.retention.is_some());
        let pusher =
            Pusher::new(client.clone(), &run, 1 + client.dice.between(0, self.options.events), retention);
        let pushed = Arc::clone(&pusher.pushed);
        let (first, begun) = tokio::sync::oneshot::channel();
        let pushing = tokio::spawn(pusher.push(first));
        if begun.await.is_ok() {
            let truth: Truth = Arc::new(move || (lock(&pushed).clone(), true));
            let client = Client { name: format!("{}_f", client.name), ..client };
            Follower { client, run, truth, retention, last: 0 }.follow().await;
        }
        pushing.await.expect("a pusher");
    }
}
