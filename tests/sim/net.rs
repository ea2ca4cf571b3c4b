//! The simulated network: connections as pipes of bytes, each with its own fate.
//!
//! What travels is what real hyper clients and servers write. A connection may be refused, slow, cut at any
//! byte, or go silent in one direction; hosts may be parted; a request may be heard again later, by the same
//! host or by another one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use causeway::http::{Arrivals, PortMaker};
use causeway::outbound::{CallFailure, Carried, Carrier};
use causeway::tasks::Tasks;

use super::options::Options;
use super::trace::{Dice, Trace, lock};

/// Bytes on the way in one direction before the sender has to wait.
const WINDOW: usize = 16 * 1024;
/// How long a packet that nobody answers is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// All hosts and what lies between them.
pub(crate) struct Net {
    hosts: Mutex<BTreeMap<String, Host>>,
    parted: Mutex<BTreeSet<(String, String)>>,
    changed: Notify,
    calm: AtomicBool,
    options: Options,
    seed: u64,
    /// Connections so far, by way.
    connections: Mutex<BTreeMap<(String, String), u64>>,
    pub(crate) trace: Arc<Trace>,
    /// Looks into the databases of the gateways, by host.
    pub(crate) databases: Mutex<BTreeMap<String, rusqlite::Connection>>,
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

/// One direction of a connection.
struct Fate {
    cut_after: Option<u64>,
    stall_after: Option<u64>,
    dice: Dice,
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
            databases: Mutex::default(),
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

    fn happens(&self, dice: &Dice, probability: f64) -> bool {
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
        sleep(dice.up_to(self.options.latency)).await;
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
        if door.try_send((far, SocketAddr::from(([127, 0, 0, 1], 9)))).is_err() {
            return Err(refused);
        }
        let (net, way) = (Arc::clone(self), (from.to_owned(), to.to_owned()));
        let fates = (self.fate(dice), self.fate(dice));
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = here.cancelled() => {}
                () = there.cancelled() => {}
                () = net.transport(way, (client, server), fates) => {}
            }
        });
        Ok(near)
    }

    fn fate(&self, dice: &Dice) -> Fate {
        let after = |probability| self.happens(dice, probability).then(|| dice.between(0, 6000));
        let (cut_after, stall_after) = (after(self.options.cut), after(self.options.stall));
        Fate { cut_after, stall_after, dice: Dice::new(self.seed, dice.between(0, u64::from(u32::MAX))) }
    }

    async fn transport(
        &self,
        (from, to): (String, String),
        (client, server): (DuplexStream, DuplexStream),
        (up, down): (Fate, Fate),
    ) {
        let ((from_client, to_client), (from_server, to_server)) = (split(client), split(server));
        let there = self.pump(from_client, to_server, up, (&from, &to));
        let back = self.pump(from_server, to_client, down, (&to, &from));
        let _ = futures_util::future::try_join(there, back).await;
    }

    /// Moves bytes one way until it is closed (`Ok`) or the connection breaks.
    async fn pump(
        &self,
        mut from: ReadHalf<DuplexStream>,
        mut to: WriteHalf<DuplexStream>,
        fate: Fate,
        way: (&str, &str),
    ) -> Result<(), ()> {
        let mut moved = 0_u64;
        let mut buffer = vec![0; fate.dice.between(64, 4096) as usize];
        loop {
            let read = from.read(&mut buffer).await.map_err(drop)?;
            sleep(fate.dice.up_to(self.options.latency)).await;
            loop {
                let changed = self.changed.notified();
                if !self.is_parted(way.0, way.1) {
                    break;
                }
                changed.await;
            }
            if read == 0 {
                return to.shutdown().await.map_err(drop);
            }
            let end = moved + read as u64;
            if let Some(cut) = fate.cut_after.filter(|cut| *cut < end) {
                let kept = cut.saturating_sub(moved) as usize;
                self.trace.say(format_args!("net {}>{} cut at byte {cut}", way.0, way.1));
                let _ = to.write_all(&buffer[..kept]).await;
                return Err(());
            }
            if fate.stall_after.is_some_and(|stall| stall < end) {
                self.trace.say(format_args!("net {}>{} silent", way.0, way.1));
                return std::future::pending().await;
            }
            to.write_all(&buffer[..read]).await.map_err(drop)?;
            moved = end;
        }
    }

    /// Sends one request over a connection of its own.
    pub(crate) async fn send(
        self: &Arc<Self>,
        (from, to): (&str, &str),
        request: Request<Full<Bytes>>,
        tasks: Option<&Tasks>,
    ) -> Result<Response<Incoming>, NoAnswer> {
        let dice = self.dice(from, to);
        let stream = self.connect((from, to), &dice).await?;
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
                let Ok(answer) = net.send((&format!("{from}_heard"), &target), request, None).await else {
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
