//! The simulated network: connections as pipes of bytes, each with its own fate.
//!
//! What travels is what real hyper clients and servers write. Connections are refused, and fare as `wire`
//! says; hosts are parted; a request is heard twice at once, sent again on the way when its answer was lost,
//! or heard again later, by the same host or by another one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use causeway::http::{Arrivals, PortMaker};
use causeway::outbound::{CallFailure, Carried, Carrier};
use causeway::tasks::Tasks;

use super::options::Options;
use super::trace::{Dice, Trace, lock};
use super::wire::{Fate, transport};

/// Who asks from the gateway's own machine, where no network is in between.
pub(crate) const OPERATOR: &str = "operator";
/// Bytes on the way in one direction before the sender has to wait.
const WINDOW: usize = 16 * 1024;
/// Where all connections come from.
const LOCAL: ([u8; 4], u16) = ([127, 0, 0, 1], 9);
/// How long a packet that nobody answers is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// All hosts and what lies between them.
pub(crate) struct Net {
    hosts: Mutex<BTreeMap<String, Host>>,
    parted: Mutex<BTreeSet<(String, String)>>,
    changed: Notify,
    calm: AtomicBool,
    pub(crate) options: Options,
    pub(crate) seed: u64,
    /// Connections so far, by way.
    connections: Mutex<BTreeMap<(String, String), u64>>,
    pub(crate) trace: Arc<Trace>,
    /// Whom each gateway has revoked, and since when nothing may pass.
    revoked: Mutex<BTreeMap<(String, String), Instant>>,
    /// Looks into the databases of the gateways, by host.
    pub(crate) databases: Mutex<BTreeMap<String, rusqlite::Connection>>,
    /// Requests that were sent twice on the way, and whose answer is 429: the other one may have been taken.
    refused_copies: Mutex<Vec<Bytes>>,
    /// What must never have happened.
    pub(crate) breaches: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Host {
    door: Option<mpsc::Sender<(DuplexStream, SocketAddr)>>,
    life: CancellationToken,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// Not a byte left.
    NeverLeft(&'static str),
    /// Bytes may have left.
    Interrupted(String),
}

impl Net {
    pub(crate) fn new(seed: u64, options: Options, trace: Arc<Trace>) -> Arc<Self> {
        Arc::new(Net {
            hosts: Mutex::default(),
            parted: Mutex::default(),
            changed: Notify::new(),
            calm: AtomicBool::new(false),
            options,
            seed,
            connections: Mutex::default(),
            trace,
            revoked: Mutex::default(),
            databases: Mutex::default(),
            refused_copies: Mutex::default(),
            breaches: Mutex::default(),
        })
    }

    /// No further faults, and everybody reaches everybody.
    pub(crate) fn heal(&self) {
        self.calm.store(true, Ordering::Relaxed);
        lock(&self.parted).clear();
        self.changed.notify_waiters();
    }

    /// True once nothing goes wrong any more.
    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// Records what must never happen.
    pub(crate) fn breach(&self, what: String) {
        self.trace.say(format_args!("BREACH {what}"));
        lock(&self.breaches).push(what);
    }

    /// Whether somebody was told 429 of a request with this in it, while another one of it was on the way.
    pub(crate) fn has_refused_a_copy(&self, mark: &str) -> bool {
        let mark = format!("\"{mark}\"");
        lock(&self.refused_copies).iter().any(|body| String::from_utf8_lossy(body).contains(&mark))
    }

    /// Whether the disk of a gateway holds an event.
    pub(crate) fn is_on_disk(&self, host: &str, (tenant, run): (&str, &str), sequence: u64) -> bool {
        let databases = lock(&self.databases);
        let sql = "SELECT 1 FROM runs JOIN events ON position = (stream_no << 32 | ?3)
                   WHERE tenant_id = ?1 AND run_id = ?2";
        let held = databases[host]
            .prepare_cached(sql)
            .and_then(|mut held| held.exists(rusqlite::params![tenant, run, sequence as i64]));
        held.expect("a readable database")
    }

    /// Whether the disk of a gateway holds an event of a run of another one's home.
    pub(crate) fn is_read_from_home(&self, host: &str, home_run: &str, sequence: u64) -> bool {
        let sql =
            "SELECT 1 FROM runs JOIN events ON position = (stream_no << 32 | ?2) WHERE remote_run_id = ?1";
        let held = lock(&self.databases)[host]
            .prepare_cached(sql)
            .and_then(|mut held| held.exists(rusqlite::params![home_run, sequence as i64]));
        held.expect("a readable database")
    }

    /// Opens the port of a host.
    pub(crate) fn listen(&self, host: &str) -> Arrivals {
        let (door, arrivals) = mpsc::channel(64);
        lock(&self.hosts).entry(host.to_owned()).or_default().door = Some(door);
        arrivals
    }

    /// Ends every connection of a host, and its port.
    pub(crate) fn cut_off(&self, host: &str) {
        let gone = lock(&self.hosts).insert(host.to_owned(), Host::default());
        if let Some(gone) = gone {
            gone.life.cancel();
        }
    }

    /// Parts two hosts in both directions, or joins them.
    pub(crate) fn part(&self, left: &str, right: &str, parted: bool) {
        let mut all = lock(&self.parted);
        for way in [(left.to_owned(), right.to_owned()), (right.to_owned(), left.to_owned())] {
            if parted {
                all.insert(way)
            } else {
                all.remove(&way)
            };
        }
        drop(all);
        self.changed.notify_waiters();
    }

    fn is_parted(&self, from: &str, to: &str) -> bool {
        lock(&self.parted).contains(&(from.to_owned(), to.to_owned()))
    }

    /// Resolves when nothing keeps two hosts apart.
    pub(crate) async fn joined(&self, from: &str, to: &str) {
        loop {
            let changed = self.changed.notified();
            if !self.is_parted(from, to) {
                return;
            }
            changed.await;
        }
    }

    /// From now on nothing may pass between a gateway and a peer it revoked; or it may again.
    pub(crate) fn note_revoked(&self, gateway: &str, peer: &str, revoked: bool) {
        let pair = (gateway.to_owned(), peer.to_owned());
        if revoked {
            lock(&self.revoked).insert(pair, Instant::now());
        } else {
            lock(&self.revoked).remove(&pair);
        }
    }

    /// Everything may pass again.
    pub(crate) fn forget_revocations(&self) {
        lock(&self.revoked).clear();
    }

    fn revoked_since(&self, gateway: &str, peer: &str) -> Option<Instant> {
        lock(&self.revoked).get(&(gateway.to_owned(), peer.to_owned())).copied()
    }

    pub(crate) fn happens(&self, dice: &Dice, probability: f64) -> bool {
        !self.is_calm() && dice.chance(probability)
    }

    /// What is decided of the next connection of this way: nothing else has a say in it.
    fn dice(&self, from: &str, to: &str) -> Dice {
        let mut all = lock(&self.connections);
        let count = all.entry((from.to_owned(), to.to_owned())).or_default();
        *count += 1;
        let bytes = from.bytes().chain(*b">").chain(to.bytes());
        let way = bytes.fold(*count, |sum, byte| sum.wrapping_mul(0x0100_0000_01B3) ^ u64::from(byte));
        Dice::new(self.seed, way)
    }

    async fn connect(
        self: &Arc<Self>,
        (from, to): (&str, &str),
        dice: &Dice,
    ) -> Result<DuplexStream, NoAnswer> {
        sleep(dice.up_to(self.options.delay)).await;
        if self.is_parted(from, to) {
            sleep(CONNECT_TIMEOUT).await;
            return Err(NoAnswer::NeverLeft("nobody answers"));
        }
        let refused = NoAnswer::NeverLeft("connection refused");
        if self.happens(dice, self.options.refuse) {
            return Err(refused);
        }
        let (near, client) = duplex(WINDOW);
        let (server, far) = duplex(WINDOW);
        let (door, there, here) = {
            let mut hosts = lock(&self.hosts);
            let here = hosts.entry(from.to_owned()).or_default().life.clone();
            let Some(host) = hosts.get(to) else { return Err(refused) };
            let Some(door) = host.door.clone() else { return Err(refused) };
            (door, host.life.clone(), here)
        };
        if door.try_send((far, LOCAL.into())).is_err() {
            return Err(refused);
        }
        let (net, from, to) = (Arc::clone(self), from.to_owned(), to.to_owned());
        let fate = Fate::roll(self, dice);
        tokio::spawn(async move {
            transport(&net, (&from, &to), (client, server), fate, (here, there)).await;
        });
        Ok(near)
    }

    /// Sends one request, which the network may make two of.
    pub(crate) async fn send(
        self: &Arc<Self>,
        (from, to): (&str, &str),
        request: Request<Full<Bytes>>,
        tasks: Option<&Tasks>,
    ) -> Result<Response<Incoming>, NoAnswer> {
        if from == OPERATOR {
            return self.ask((from, to), self.knock(to)?, request, tasks).await;
        }
        let (begun, dice) = (Instant::now(), self.dice(from, to));
        if self.revoked_since(from, to).is_some() {
            self.breach(format!("T2: {from} asks {to}, which it has revoked: {}", request.uri()));
        }
        // What never left is not heard twice either.
        let stream = self.connect((from, to), &dice).await?;
        let served = Arc::new(Served { at_most_once: is_signed(&request), times: AtomicU32::new(0) });
        let mut is_copied = self.happens(&dice, self.options.duplicate);
        if is_copied {
            let (net, request, served) = (Arc::clone(self), request.clone(), Arc::clone(&served));
            let (from, to) = (format!("{from}_twice"), to.to_owned());
            tokio::spawn(async move {
                if let Ok(answer) = net.deliver((&from, &to), request.clone(), None).await {
                    served.note(&net, &to, &request, answer.status());
                }
            });
        }
        let mut answer = self.ask((from, to), stream, request.clone(), tasks).await;
        if matches!(answer, Err(NoAnswer::Interrupted(_))) && self.happens(&dice, self.options.resend) {
            self.trace.say(format_args!("net {from}>{to} sends again"));
            is_copied = true;
            // Where nothing listens any more, the first time has still been.
            let again = self.deliver((from, to), request.clone(), tasks).await;
            answer = if matches!(again, Err(NoAnswer::NeverLeft(_))) { answer } else { again };
        }
        if let Ok(answer) = &answer {
            served.note(self, to, &request, answer.status());
            if is_copied && answer.status() == StatusCode::TOO_MANY_REQUESTS {
                let body = request.body().clone().collect().await.expect("it is in memory").to_bytes();
                lock(&self.refused_copies).push(body);
            }
            // Sent when it was in force for long, answered while it still is.
            let in_force = self.revoked_since(to, from).is_some_and(|since| since <= begun);
            if in_force && answer.status().is_success() {
                self.breach(format!("T2: {to} serves {from}, which it has revoked: {}", request.uri()));
            }
        }
        answer
    }

    /// One request over a connection of its own.
    async fn deliver(
        self: &Arc<Self>,
        (from, to): (&str, &str),
        request: Request<Full<Bytes>>,
        tasks: Option<&Tasks>,
    ) -> Result<Response<Incoming>, NoAnswer> {
        let stream = self.connect((from, to), &self.dice(from, to)).await?;
        self.ask((from, to), stream, request, tasks).await
    }

    /// A connection to a host from its own machine.
    fn knock(&self, host: &str) -> Result<DuplexStream, NoAnswer> {
        let refused = || NoAnswer::NeverLeft("nobody is at home");
        let (near, far) = duplex(WINDOW);
        let door = lock(&self.hosts).get(host).and_then(|host| host.door.clone()).ok_or_else(refused)?;
        door.try_send((far, LOCAL.into())).map_err(|_| refused())?;
        Ok(near)
    }

    async fn ask(
        &self,
        (from, to): (&str, &str),
        stream: DuplexStream,
        request: Request<Full<Bytes>>,
        tasks: Option<&Tasks>,
    ) -> Result<Response<Incoming>, NoAnswer> {
        let broken = |error: hyper::Error| NoAnswer::Interrupted(error.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let connection = async {
            let _ = connection.await;
        };
        match tasks {
            Some(tasks) => drop(tasks.spawn(connection)),
            None => drop(tokio::spawn(connection)),
        }
        let answer = sender.send_request(request).await;
        let said = answer.as_ref().map_or_else(ToString::to_string, |answer| answer.status().to_string());
        self.trace.say(format_args!("net {from}>{to} {said}"));
        answer.map_err(broken)
    }

    /// Lets a signed request be heard again: what was taken must never be taken a second time, and
    /// nobody takes what is meant for somebody else.
    fn capture(self: &Arc<Self>, (from, to): (&str, &str), request: &Request<Full<Bytes>>, answered: u16) {
        if !request.headers().contains_key("signature") || answered == 401 || answered >= 500 {
            return;
        }
        let others: Vec<String> = lock(&self.hosts)
            .keys()
            .filter(|host| host.starts_with("stk_") && *host != to && *host != from)
            .cloned()
            .collect();
        let dice = self.dice(from, to);
        let replays = self.happens(&dice, self.options.replay).then(|| to.to_owned());
        let misled = match others.first() {
            Some(other) if self.happens(&dice, self.options.misdirect) => Some(other.clone()),
            _ => None,
        };
        for target in replays.into_iter().chain(misled) {
            let (net, request, from) = (Arc::clone(self), request.clone(), from.to_owned());
            let (late, to) = (dice.up_to(Duration::from_secs(5)), to.to_owned());
            tokio::spawn(async move {
                sleep(late).await;
                let what = format!("{} {} of {from} to {to}", request.method(), request.uri());
                let safe = request.method().is_safe() && target == to;
                let heard = format!("{from}_heard");
                let Ok(answer) = net.deliver((&heard, &target), request, None).await else {
                    return;
                };
                // A read that is heard again reveals nothing to whom it is not sent, and changes nothing.
                if answer.status().is_success() && !safe {
                    net.breach(format!("R5: {target} took a captured {what}: {}", answer.status()));
                }
            });
        }
    }
}

/// How often a request was served, of all the times it was heard.
struct Served {
    at_most_once: bool,
    times: AtomicU32,
}

impl Served {
    fn note(&self, net: &Net, host: &str, request: &Request<Full<Bytes>>, answered: StatusCode) {
        let is_served = self.at_most_once && answered.is_success();
        if is_served && self.times.fetch_add(1, Ordering::Relaxed) > 0 {
            net.breach(format!("R5: {host} served one signed {} twice", request.uri()));
        }
    }
}

/// A signed request that changes something.
fn is_signed(request: &Request<Full<Bytes>>) -> bool {
    request.headers().contains_key("signature") && !request.method().is_safe()
}

/// The way of one gateway's requests.
pub(crate) struct Outlet {
    pub(crate) net: Arc<Net>,
    pub(crate) host: String,
    pub(crate) tasks: Tasks,
}

impl Carrier for Outlet {
    fn carry(&self, request: reqwest::Request) -> Carried {
        let (net, host, tasks) = (Arc::clone(&self.net), self.host.clone(), self.tasks.clone());
        Box::pin(async move {
            let to = request.url().host_str().unwrap_or_default().to_owned();
            let path = request.url()[url::Position::BeforePath..].to_owned();
            let body = request.body().and_then(reqwest::Body::as_bytes).map(Bytes::copy_from_slice);
            let mut sent = Request::new(Full::new(body.unwrap_or_default()));
            *sent.method_mut() = request.method().clone();
            *sent.uri_mut() = path.parse().expect("a path");
            *sent.headers_mut() = request.headers().clone();
            sent.headers_mut().insert("host", to.parse().expect("a host"));
            let answer = net.send((&host, &to), sent.clone(), Some(&tasks)).await;
            if let Ok(answer) = &answer {
                net.capture((&host, &to), &sent, answer.status().as_u16());
            }
            match answer {
                Ok(answer) => Ok(answer.map(reqwest::Body::wrap).into()),
                Err(NoAnswer::NeverLeft(reason)) => Err(CallFailure::NeverLeft(reason.to_owned())),
                Err(NoAnswer::Interrupted(reason)) => Err(CallFailure::Interrupted(reason)),
            }
        })
    }
}

/// The port of one gateway.
pub(crate) struct Inlet {
    pub(crate) net: Arc<Net>,
    pub(crate) host: String,
}

impl PortMaker for Inlet {
    fn open(&self, _: SocketAddr) -> Arrivals {
        self.net.listen(&self.host)
    }
}
