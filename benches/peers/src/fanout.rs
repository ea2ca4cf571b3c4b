//! One channel, one who publishes, and many who follow it; and what they cost while nothing comes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::event;
use crate::peers::{Keeping, Peer, Running};
use crate::window::{Latency, PATIENCE, Sample, Times, Window, latency, note, stamp, wait_until};
use crate::wire::{Events, Nats, Resp, Wire, each, nats, post, resp};

/// Records of latencies, so that followers seldom wait for each other.
const SHARDS: usize = 16;
/// Connections made at the same time.
const CONNECTING: usize = 64;
/// Events in one write of the publisher, at most.
const MOST_TOGETHER: usize = 500;

/// Who follows, and how it is published.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub followers: usize,
    pub batch: usize,
    /// Publishes on their way before the next one waits for their deliveries.
    pub window: usize,
    /// Publishes per second, on a schedule; none: as the window allows.
    pub rate: Option<f64>,
}

/// All followers, and what they share.
struct Audience {
    hall: Arc<Hall>,
    seats: JoinSet<Result<()>>,
}

struct Hall {
    window: Arc<Window>,
    /// A permit for each delivery that may be on its way.
    ways: Semaphore,
    latencies: Vec<Mutex<Latency>>,
}

/// One who publishes.
struct Publisher {
    peer: Peer,
    wire: Wire,
    published: u64,
}

/// Measures deliveries.
pub async fn measure(peer: Peer, shape: Shape, parent: &Path, times: Times) -> Result<Sample> {
    let Running { server, .. } = &peer.start(parent, Keeping::Nothing, None).await?;
    let window = Arc::new(Window::default());
    let mut publisher = Publisher::new(peer, server.address).await?;
    let mut audience = Audience::gather(peer, server.address, shape.followers, &window).await?;
    // On a schedule nobody waits: there is a permit for all that will ever come.
    let most = match shape.rate {
        Some(rate) => {
            (rate * (times.warmup + times.duration + Duration::from_secs(5)).as_secs_f64()) as usize
        }
        None => shape.window,
    };
    let each_time = (shape.batch * shape.followers) as u32;
    let all = u32::try_from(most)
        .ok()
        .and_then(|most| most.checked_mul(each_time))
        .context("too many deliveries")?;
    let hall = Arc::clone(&audience.hall);
    hall.ways.add_permits(all as usize);
    let start = Instant::now();
    let worker = tokio::spawn(async move {
        let due =
            |number: u32| shape.rate.map(|rate| start + Duration::from_secs_f64(f64::from(number) / rate));
        let mut next = 0;
        while !hall.window.is_over() {
            if let Some(at) = due(next) {
                wait_until(at);
            }
            hall.reserve(each_time).await?;
            let now = Instant::now();
            let mut moments = vec![due(next).unwrap_or(now)];
            next += 1;
            // What became due while the last publish was on its way goes together, else the queue is ours.
            while let Some(at) = due(next).filter(|at| *at <= now)
                && (moments.len() + 1) * shape.batch <= MOST_TOGETHER
            {
                hall.reserve(each_time).await?;
                moments.push(at);
                next += 1;
            }
            publisher.publish(shape.batch, &moments).await?;
        }
        // Every delivery gives back its permit: nothing was lost.
        hall.reserve(all).await?;
        Ok(latency())
    });
    let sample = tokio::select! {
        sample = window.measure(times, server, vec![worker]) => sample?,
        error = audience.failure() => return Err(error),
    };
    Ok(sample.with_latency(&audience.latencies()?))
}

/// Measures what a follower costs while nothing comes; then something comes, to each of them.
pub async fn idle(peer: Peer, followers: usize, parent: &Path, times: Times) -> Result<Sample> {
    let Running { server, .. } = &peer.start(parent, Keeping::Nothing, None).await?;
    let window = Arc::new(Window::default());
    let mut publisher = Publisher::new(peer, server.address).await?;
    let before = server.memory()?;
    let mut audience = Audience::gather(peer, server.address, followers, &window).await?;
    tokio::time::sleep(times.duration).await;
    let after = server.memory()?;
    let hall = Arc::clone(&audience.hall);
    publisher.publish(1, &[Instant::now()]).await?;
    tokio::select! {
        woken = hall.reserve(followers as u32) => woken?,
        error = audience.failure() => return Err(error),
    }
    Ok(Sample { memory: Some((after - before) / followers as f64), ..Sample::default() })
}

impl Audience {
    async fn gather(peer: Peer, address: SocketAddr, size: usize, window: &Arc<Window>) -> Result<Self> {
        let hall = Arc::new(Hall {
            window: Arc::clone(window),
            ways: Semaphore::new(0),
            latencies: (0..SHARDS).map(|_| Mutex::new(latency())).collect(),
        });
        let (ready, mut seated) = mpsc::unbounded_channel();
        let doors = Arc::new(Semaphore::new(CONNECTING));
        let mut seats = JoinSet::new();
        for number in 0..size {
            let (hall, ready, doors) = (Arc::clone(&hall), ready.clone(), Arc::clone(&doors));
            seats.spawn(async move {
                let door = doors.acquire_owned().await?;
                let follower = Follower::open(peer, address).await?;
                drop(door);
                ready.send(())?;
                hall.listen(follower, number).await
            });
        }
        let mut audience = Audience { hall, seats };
        for _ in 0..size {
            tokio::select! {
                _ = seated.recv() => {}
                error = audience.failure() => return Err(error),
            }
        }
        Ok(audience)
    }

    /// Waits for a follower that ends; none of them should.
    async fn failure(&mut self) -> anyhow::Error {
        match self.seats.join_next().await {
            Some(Ok(Err(error))) => error.context("a follower"),
            _ => anyhow::anyhow!("a follower ended"),
        }
    }

    fn latencies(&self) -> Result<Latency> {
        let mut all = latency();
        for shard in &self.hall.latencies {
            all.add(&*shard.lock().unwrap_or_else(PoisonError::into_inner))?;
        }
        Ok(all)
    }
}

impl Hall {
    /// Waits until so many deliveries more may be on their way.
    async fn reserve(&self, deliveries: u32) -> Result<()> {
        let permits = timeout(PATIENCE, self.ways.acquire_many(deliveries)).await;
        permits.context("deliveries never came")??.forget();
        Ok(())
    }

    async fn listen(&self, mut follower: Follower, number: usize) -> Result<()> {
        let mut cursor = follower.first;
        loop {
            let before = cursor;
            let (mut sent, mut now) = ((0, 0), None);
            follower
                .read(|body| {
                    let at = event::check(body, cursor + 1)?;
                    cursor += 1;
                    if at != sent.0 && sent.1 > 0 {
                        self.took(number, sent, *now.get_or_insert_with(Instant::now))?;
                        sent.1 = 0;
                    }
                    // Events of one publish bear the same time: they are written down together.
                    sent = (at, sent.1 + 1);
                    Ok(())
                })
                .await?;
            if cursor > before {
                self.took(number, sent, now.unwrap_or_else(Instant::now))?;
                self.window.count(cursor - before);
                self.ways.add_permits((cursor - before) as usize);
            }
        }
    }

    fn took(&self, number: usize, (at, times): (u64, u64), now: Instant) -> Result<()> {
        if self.window.counts() {
            let mut shard = self.latencies[number % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
            note(&mut shard, stamp(now).saturating_sub(at), times)?;
        }
        Ok(())
    }
}

/// One who follows.
struct Follower {
    peer: Peer,
    wire: Wire,
    events: Events,
    /// Events that came before it was counted as one who follows.
    first: u64,
}

impl Follower {
    /// Subscribes, and waits until that is confirmed.
    async fn open(peer: Peer, address: SocketAddr) -> Result<Self> {
        let mut wire = Wire::connect(address).await?;
        let mut events = Events::default();
        let mut confirmed = false;
        match peer {
            Peer::Nats => wire.send(b"CONNECT {\"verbose\":false}\r\nSUB bench 1\r\nPING\r\n").await?,
            Peer::Redis => wire.send(b"SUBSCRIBE bench\r\n").await?,
            Peer::Nchan => wire.send(&Events::request("/events")).await?,
            Peer::Bare => wire.send(&Events::request("/streams/0/events")).await?,
            other => bail!("{other:?} has no followers"),
        }
        while !confirmed {
            wire.read(|bytes| match peer {
                Peer::Nats => each(bytes, nats, |said| {
                    confirmed |= said == Nats::Pong;
                    Ok(())
                }),
                Peer::Redis => each(bytes, resp, |said| {
                    // The last of three: how many channels it follows.
                    confirmed |= said == Resp::Other;
                    Ok(())
                }),
                _ => {
                    // It answers before it has entered the follower: only the first event is a sign.
                    events.take(bytes, |body| {
                        confirmed = true;
                        event::check(body, 1).map(drop)
                    })
                }
            })
            .await?;
        }
        Ok(Follower { peer, wire, events, first: u64::from(peer.is_http()) })
    }

    /// Waits for events.
    async fn read(&mut self, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let (peer, events) = (self.peer, &mut self.events);
        self.wire
            .read_at_leisure(|bytes| match peer {
                Peer::Nats => {
                    each(bytes, nats, |said| if let Nats::Message(body) = said { sink(body) } else { Ok(()) })
                }
                // `message`, the channel, the event.
                Peer::Redis => each(bytes, resp, |said| match said {
                    Resp::Bulk(body) if body.len() == event::BYTES => sink(body),
                    _ => Ok(()),
                }),
                _ => events.take(bytes, &mut sink),
            })
            .await
    }
}

impl Publisher {
    /// Connects. With HTTP there is an event from the beginning, so that followers see that they follow.
    async fn new(peer: Peer, address: SocketAddr) -> Result<Self> {
        let mut wire = Wire::connect(address).await?;
        if peer == Peer::Nats {
            wire.send(b"CONNECT {\"verbose\":false}\r\n").await?;
        }
        let mut publisher = Publisher { peer, wire, published: 0 };
        if peer.is_http() {
            publisher.publish(1, &[Instant::now()]).await?;
        }
        Ok(publisher)
    }

    /// Publishes `batch` events for each moment in one write, and waits until the server has taken them.
    async fn publish(&mut self, batch: usize, moments: &[Instant]) -> Result<()> {
        let (mut out, mut body) = (Vec::new(), Vec::new());
        let bare = self.peer == Peer::Bare;
        for at in moments.iter().flat_map(|at| std::iter::repeat_n(stamp(*at), batch)) {
            self.published += 1;
            if bare {
                body.push(if body.is_empty() { b'[' } else { b',' });
                event::write(&mut body, self.published, at);
                continue;
            }
            body.clear();
            event::write(&mut body, self.published, at);
            let length = body.len();
            let head = match self.peer {
                Peer::Nats => format!("PUB bench {length}\r\n"),
                Peer::Redis => format!("*3\r\n$7\r\nPUBLISH\r\n$5\r\nbench\r\n${length}\r\n"),
                _ => format!("POST /publish HTTP/1.1\r\nhost: bench\r\ncontent-length: {length}\r\n\r\n"),
            };
            out.extend_from_slice(head.as_bytes());
            out.extend_from_slice(&body);
            if self.peer != Peer::Nchan {
                out.extend_from_slice(b"\r\n");
            }
        }
        if self.peer == Peer::Nats {
            out.extend_from_slice(b"PING\r\n");
        }
        if bare {
            body.push(b']');
            out = post("/streams/0/events", &body);
        }
        self.wire.send(&out).await?;
        let mut waiting =
            if matches!(self.peer, Peer::Nats | Peer::Bare) { 1 } else { batch * moments.len() };
        while waiting > 0 {
            let peer = self.peer;
            self.wire
                .read(|bytes| match peer {
                    Peer::Nats => each(bytes, nats, |said| {
                        waiting -= usize::from(said == Nats::Pong);
                        Ok(())
                    }),
                    Peer::Redis => each(bytes, resp, |_| {
                        waiting -= 1;
                        Ok(())
                    }),
                    _ => each(bytes, crate::wire::answer, |(status, _)| {
                        ensure!((200..300).contains(&status), "a publish was answered {status}");
                        waiting -= 1;
                        Ok(())
                    }),
                })
                .await?;
        }
        Ok(())
    }
}
