//! What operators do while things go wrong, from the gateway's own machine, and what must hold from then on.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::client::{Answer, Client};
use super::home::{Home, made};
use super::net::{Net, OPERATOR};
use super::node::Node;
use super::trace::{Dice, lock};

/// After a revocation nothing may pass any more.
const GRACE: Duration = Duration::from_secs(1);
/// From the announcement of a key to its take-over: longer than things go wrong, so that every peer hears of it.
const OVERLAP: Duration = Duration::from_secs(45);

/// The operators of all gateways.
pub(crate) struct Operators {
    net: Arc<Net>,
    nodes: Vec<Arc<Node>>,
    homes: Vec<Arc<Home>>,
    /// What is to be put right again: paths, by gateway.
    undone: Mutex<BTreeSet<(String, String)>>,
}

impl Operators {
    pub(crate) fn new(net: &Arc<Net>, nodes: &[Arc<Node>], homes: &[Arc<Home>]) -> Self {
        Operators {
            net: Arc::clone(net),
            nodes: nodes.to_vec(),
            homes: homes.to_vec(),
            undone: Mutex::default(),
        }
    }

    fn client(&self, gateway: &str, tenant: &str, dice: Dice) -> Client {
        Client {
            net: Arc::clone(&self.net),
            name: OPERATOR.to_owned(),
            gateway: gateway.to_owned(),
            tenant: tenant.to_owned(),
            dice,
        }
    }

    /// Says it until it is done.
    async fn tell(&self, gateway: &str, path: &str, body: &Value) {
        let client = self.client(gateway, "", Dice::new(0, 0));
        let path = format!("/v1/federation/{path}");
        loop {
            match client.call(Method::POST, &path, &[], Some(body)).await {
                Ok(answer) if answer.status < 300 => break,
                Ok(answer) if answer.status < 500 => {
                    return self.net.breach(format!("{gateway} answers {path} with {answer:?}"));
                }
                _ => client.rest().await,
            }
        }
        self.net.trace.say(format_args!("{gateway} did {path}"));
    }

    async fn begin(&self, gateway: &str, path: &str, until: &str) {
        lock(&self.undone).insert((gateway.to_owned(), until.to_owned()));
        self.tell(gateway, path, &json!({})).await;
    }

    async fn end(&self, gateway: &str, path: &str) {
        self.tell(gateway, path, &json!({})).await;
        lock(&self.undone).remove(&(gateway.to_owned(), path.to_owned()));
    }

    /// Everybody works again, with everybody.
    pub(crate) async fn put_right(&self) {
        self.net.forget_revocations();
        let undone = lock(&self.undone).clone();
        for (gateway, path) in undone {
            self.end(&gateway, &path).await;
        }
    }

    /// D1: what comes while new work is held off starts nothing.
    pub(crate) async fn drain(&self, node: &Arc<Node>, dice: &Dice) {
        self.begin(&node.host, "gateway:drain", "gateway:resume").await;
        let life = node.life();
        let until = Instant::now() + dice.up_to(Duration::from_secs(3));
        while Instant::now() < until {
            let home = format!("orc_{}", &node.host[4..]);
            let mark = format!("held off {}", dice.between(0, u64::from(u32::MAX)));
            let answer = self.create(&node.host, &home, "tnt_6", &mark).await;
            // A process that died meanwhile takes new work when it is back.
            let is_held = node.life() == life;
            if is_held
                && (answer.is_some_and(|answer| answer.status < 300) || !made(&self.homes, &mark).is_empty())
            {
                self.net.breach(format!("D1: {} takes {mark} although new work is held off", node.host));
            }
            sleep(dice.up_to(Duration::from_secs(1))).await;
        }
        self.end(&node.host, "gateway:resume").await;
    }

    async fn create(&self, gateway: &str, target: &str, tenant: &str, mark: &str) -> Option<Answer> {
        let client = self.client(gateway, tenant, Dice::new(0, 0));
        let key = format!("\"{mark}\"");
        let body = json!({ "forward": {
            "target_selector": { "stack_id": target },
            "run_request": { "agent_id": "agt_test", "input": { "type": "text", "text": mark } },
        }});
        let fields = [("idempotency-key", &*key)];
        client.call(Method::POST, "/v1/federation/runs:forward", &fields, Some(&body)).await.ok()
    }

    /// T2, T3: a second after a peer was revoked no request (the network looks) and no event passes, either way.
    pub(crate) async fn revoke(&self, dice: &Dice) {
        let gateway = dice.pick(&self.nodes);
        let others: Vec<_> = self.nodes.iter().filter(|node| node.host != gateway.host).collect();
        let peer = dice.pick(&others);
        // So that there is something to stop, both ways.
        for (from, to) in [(gateway, *peer), (*peer, gateway)] {
            let mark = format!("under way {}", dice.between(0, u64::from(u32::MAX)));
            self.create(&from.host, &to.host, "tnt_4", &mark).await;
        }
        sleep(dice.up_to(Duration::from_secs(1))).await;
        let back = format!("peers/{}:reinstate", peer.host);
        self.begin(&gateway.host, &format!("peers/{}:revoke", peer.host), &back).await;
        sleep(GRACE).await;
        self.net.note_revoked(&gateway.host, &peer.host, true);
        let since = Instant::now();
        sleep(dice.up_to(Duration::from_secs(5))).await;
        for (home, reader) in [(gateway, *peer), (*peer, gateway)] {
            self.check_nothing_passed(since, home, reader);
        }
        self.net.note_revoked(&gateway.host, &peer.host, false);
        self.end(&gateway.host, &back).await;
    }

    fn check_nothing_passed(&self, since: Instant, home: &Node, reader: &Node) {
        let name = format!("orc_{}", &home.host[4..]);
        for run in self.homes.iter().filter(|home| home.name == name).flat_map(|home| home.runs()) {
            let late = run.emitted.iter().filter(|(_, emitted)| **emitted >= since);
            for (sequence, _) in late {
                if self.net.is_read_from_home(&reader.host, &run.run_id, *sequence) {
                    let (from, to) = (&home.host, &reader.host);
                    self.net.breach(format!("T3: {} {sequence} passed from {from} to {to}", run.run_id));
                }
            }
        }
    }

    /// K1: once a key's successor took over, its gateway and each other one still know one another.
    pub(crate) async fn rotate(&self, dice: Dice, chaos: Duration) {
        let node = dice.pick(&self.nodes);
        sleep(dice.up_to(chaos)).await;
        let overlap = json!({ "overlap": format!("{}s", OVERLAP.as_secs()) });
        let client = self.client(&node.host, "", dice);
        loop {
            let path = "/v1/federation/keys:rotate";
            // One whose answer was lost is announced already.
            match client.call(Method::POST, path, &[], Some(&overlap)).await {
                Ok(answer) if answer.status < 300 || answer.status == 409 => break,
                _ => client.rest().await,
            }
        }
        self.net.trace.say(format_args!("{} announces its next key", node.host));
        sleep(OVERLAP + Duration::from_secs(2)).await;
        for other in self.nodes.iter().filter(|other| other.host != node.host) {
            self.check_forward(node, other).await;
            self.check_forward(other, node).await;
        }
    }

    async fn check_forward(&self, from: &Node, to: &Node) {
        let mark = format!("with the next key {} {}", from.host, to.host);
        // Of its own, for its quota may be one run a day.
        let tenant = format!("tnt_{}_{}", from.host, to.host);
        let mut answer = None;
        for _ in 0..20 {
            answer = self.create(&from.host, &to.host, &tenant, &mark).await;
            if answer.as_ref().is_some_and(|answer| answer.status < 500 || !answer.is_retryable()) {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
        if answer.as_ref().is_none_or(|answer| answer.status >= 300) {
            self.net.breach(format!("K1: {mark}: {answer:?}"));
        }
    }
}
