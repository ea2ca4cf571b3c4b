//! Many subscribers of one run: each holds every event against what was published, and tells how long it took.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::BenchError;
use super::course::{Course, Latency, latency, note, since};
use super::events::Shape;
use super::wire::{Endpoint, PATIENCE, Stream};

/// Subscribers that connect at the same time.
const CONNECTING: usize = 64;
/// Records of latencies, so that subscribers seldom wait for each other.
const SHARDS: usize = 16;
/// Subscribers of one name: fewer than a gateway allows one principal.
const PER_PRINCIPAL: usize = 500;

/// All subscribers.
pub(super) struct Audience {
    hall: Arc<Hall>,
    seats: Vec<JoinHandle<Option<()>>>,
}

struct Hall {
    course: Arc<Course>,
    shape: Shape,
    delivered: AtomicU64,
    /// Somebody waits until so many were delivered.
    awaited: AtomicU64,
    reached: Notify,
    latencies: Vec<Mutex<Latency>>,
    /// The last event of each subscriber.
    cursors: Vec<AtomicU64>,
    closing: AtomicBool,
}

impl Audience {
    /// Connects `size` subscribers to a run that has one event, and waits until all of them have it.
    pub(super) async fn gather(
        endpoint: &Endpoint,
        run: &str,
        shape: &Shape,
        size: usize,
        course: &Arc<Course>,
    ) -> Result<Self, BenchError> {
        let hall = Arc::new(Hall {
            course: Arc::clone(course),
            shape: shape.clone(),
            delivered: AtomicU64::new(0),
            awaited: AtomicU64::new(u64::MAX),
            reached: Notify::new(),
            latencies: (0..SHARDS).map(|_| Mutex::new(latency())).collect(),
            cursors: (0..size).map(|_| AtomicU64::new(0)).collect(),
            closing: AtomicBool::new(false),
        });
        let doors = Arc::new(Semaphore::new(CONNECTING));
        let path = format!("/v1/federation/runs/{run}/events");
        let seats = (0..size)
            .map(|number| {
                let principal = format!("bench_{}", number / PER_PRINCIPAL);
                let request = endpoint.events(&path, Some(&principal));
                let (hall, endpoint, doors) = (Arc::clone(&hall), endpoint.clone(), Arc::clone(&doors));
                course.work(async move {
                    let door = doors.acquire_owned().await.ok();
                    let stream = Stream::open(&endpoint, &request).await?;
                    drop((door, request));
                    hall.listen(stream, number).await
                })
            })
            .collect();
        let audience = Audience { hall, seats };
        audience.wait_for(size as u64).await?;
        Ok(audience)
    }

    /// Deliveries so far, to all together.
    pub(super) fn delivered(&self) -> u64 {
        self.hall.delivered.load(Ordering::SeqCst)
    }

    /// Waits until so many events were delivered, to all together.
    pub(super) async fn wait_for(&self, deliveries: u64) -> Result<(), BenchError> {
        let hall = &self.hall;
        let mut last = (self.delivered(), Instant::now());
        loop {
            hall.awaited.store(deliveries, Ordering::SeqCst);
            let delivered = self.delivered();
            if delivered >= deliveries {
                return Ok(());
            }
            hall.course.check()?;
            if delivered > last.0 {
                last = (delivered, Instant::now());
            } else if last.1.elapsed() > PATIENCE {
                return Err(self.missing(deliveries - delivered));
            }
            tokio::select! {
                _ = timeout(Duration::from_secs(1), hall.reached.notified()) => {}
                () = hall.course.over.cancelled(), if !hall.course.over.is_cancelled() => {}
            }
        }
    }

    fn missing(&self, deliveries: u64) -> BenchError {
        let cursors = self.hall.cursors.iter().map(|cursor| cursor.load(Ordering::Relaxed));
        let last = cursors.clone().max().unwrap_or(0);
        let behind = cursors.filter(|cursor| *cursor < last).count();
        BenchError::Broken(format!(
            "{deliveries} deliveries never came: {behind} subscribers are behind event {last}"
        ))
    }

    /// Sends everybody home; answers how long deliveries took.
    pub(super) fn close(self) -> Latency {
        self.hall.closing.store(true, Ordering::Relaxed);
        for seat in self.seats {
            seat.abort();
        }
        let mut all = latency();
        for shard in &self.hall.latencies {
            // The precision is the same, and the sums are far from the largest number.
            let _ = all.add(&*shard.lock().unwrap_or_else(PoisonError::into_inner));
        }
        all
    }
}

impl Hall {
    async fn listen(&self, mut stream: Stream, number: usize) -> Result<(), BenchError> {
        let mut cursor = 0;
        loop {
            let before = cursor;
            // Events of one publish bear the same time: they are written down together.
            let (mut stamp, mut together) = (0, 0);
            let mut now = None;
            let open = stream
                .read(|frame| {
                    if !Shape::is_event(&frame) {
                        return not_the_end(frame.event);
                    }
                    let at = self.shape.check(&frame, cursor + 1)?;
                    cursor += 1;
                    if at != stamp && together > 0 {
                        self.took(number, stamp, together, *now.get_or_insert_with(Instant::now));
                        together = 0;
                    }
                    (stamp, together) = (at, together + 1);
                    Ok(())
                })
                .await;
            if together > 0 {
                self.took(number, stamp, together, now.unwrap_or_else(Instant::now));
            }
            self.moved(number, cursor, cursor - before);
            match open {
                Ok(true) => {}
                Ok(false) => return Err(BenchError::Broken("a stream ended before its run".to_owned())),
                Err(_) if self.closing.load(Ordering::Relaxed) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn took(&self, number: usize, stamp: u64, times: u64, now: Instant) {
        if self.course.counts() {
            let mut shard = self.latencies[number % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
            note(&mut shard, since(stamp, now), times);
        }
    }

    fn moved(&self, number: usize, cursor: u64, events: u64) {
        if events == 0 {
            return;
        }
        self.cursors[number].store(cursor, Ordering::Relaxed);
        self.course.done(0, events);
        let delivered = self.delivered.fetch_add(events, Ordering::SeqCst) + events;
        let awaited = self.awaited.load(Ordering::SeqCst);
        if (delivered - events..delivered).contains(&awaited.saturating_sub(1)) {
            self.reached.notify_one();
        }
    }
}

/// News about the stream is fine, but for the news that something is missing.
fn not_the_end(event: &[u8]) -> Result<(), BenchError> {
    match event {
        b"gap" | b"end" | b"stream_error" => {
            Err(BenchError::Broken(format!("a live stream said `{}`", String::from_utf8_lossy(event))))
        }
        _ => Ok(()),
    }
}
