//! The audit beside its chain in the store: decisions that have no other effect, signed checkpoints, and the
//! copy that leaves the machine.
//!
//! What changes something is audited by the store, in the transaction of the change. A refusal changes
//! nothing: it is handed over here and written with the next group, and a flood of refusals nobody proved
//! anything for is counted rather than written.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::trust_options::AuditOptions;
use crate::clock::{Clock, rfc3339};
use crate::domain::audit::Checkpoint;
use crate::keyring::Keyring;
use crate::metrics::{Metrics, Reason};
use crate::store::{AuditCheckpoint, AuditRow, NewAudit, Store, StoreError};
use crate::tasks::Tasks;

/// Records that may wait to be written; beyond it they are counted.
const WAITING: usize = 1024;
/// Records in one write.
const GROUP: usize = 128;
/// Refusals of unknown callers written per second; beyond it they are counted.
const UNPROVEN_PER_SECOND: u32 = 20;
/// Between two looks at how many records came since the last signed checkpoint.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);
/// Records the sink takes at once.
const SINK_PAGE: u32 = 500;

/// Takes decisions for the audit, cheap to clone.
#[derive(Clone)]
pub struct AuditLog {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    clock: Clock,
    metrics: Arc<Metrics>,
    queue: mpsc::Sender<NewAudit>,
    /// The second of late, and how many unknown callers' refusals were written in it.
    unproven: Mutex<(u64, u32)>,
    suppressed: AtomicU64,
    /// Since when the copy cannot be written, in milliseconds since the Unix epoch, and why.
    sink_failing: Mutex<Option<(i64, String)>>,
}

pub use crate::store::AuditFilter;

/// Where the copy goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
}

impl Sink {
    /// Reads `stdout`, `stderr` or `file:PATH`; the empty text is none.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        match text {
            "" => Ok(None),
            "stdout" => Ok(Some(Sink::Stdout)),
            "stderr" => Ok(Some(Sink::Stderr)),
            _ => match text.strip_prefix("file:").filter(|path| !path.is_empty()) {
                Some(path) => Ok(Some(Sink::File(PathBuf::from(path)))),
                None => Err(format!(
                    "{} is no sink: write stdout, stderr or file:PATH",
                    crate::domain::units::quoted(text)
                )),
            },
        }
    }
}

impl AuditLog {
    /// Writes to `store` until the gateway stops.
    pub fn start(store: &Store, clock: &Clock, metrics: &Arc<Metrics>, tasks: &Tasks) -> Self {
        let (queue, mut waiting) = mpsc::channel::<NewAudit>(WAITING);
        let shared = Shared {
            store: store.clone(),
            clock: clock.clone(),
            metrics: Arc::clone(metrics),
            queue,
            unproven: Mutex::default(),
            suppressed: AtomicU64::new(0),
            sink_failing: Mutex::default(),
        };
        let (store, stopping) = (store.clone(), tasks.stopping().clone());
        tasks.spawn(async move {
            let mut group = Vec::new();
            loop {
                tokio::select! {
                    biased;
                    taken = waiting.recv_many(&mut group, GROUP) => if taken == 0 { return },
                    () = stopping.cancelled() => {
                        while let Ok(one) = waiting.try_recv() {
                            group.push(one);
                        }
                        let _ = write(&store, &mut group).await;
                        return;
                    }
                }
                if let Err(error) = write(&store, &mut group).await {
                    tracing::error!(error = %error, "refusals could not be written to the audit");
                }
            }
        });
        AuditLog { shared: Arc::new(shared) }
    }

    /// Notes a decision about a caller that proved who it is.
    pub fn note(&self, record: NewAudit) {
        if self.shared.queue.try_send(record).is_err() {
            self.suppress();
        }
    }

    /// Notes the refusal of a caller that proved nothing: so many per second, and how many more there were.
    pub fn note_unproven(&self, mut record: NewAudit) {
        let second = self.shared.clock.monotonic().as_secs();
        {
            let mut written = self.shared.unproven.lock().unwrap_or_else(PoisonError::into_inner);
            if written.0 != second {
                *written = (second, 0);
            }
            if written.1 >= UNPROVEN_PER_SECOND {
                drop(written);
                return self.suppress();
            }
            written.1 += 1;
        }
        let suppressed = self.shared.suppressed.swap(0, Ordering::Relaxed);
        if suppressed > 0 {
            record.meta = format!("{{\"suppressed\":{suppressed}}}");
        }
        self.note(record);
    }

    /// Records before an id, the newest first.
    pub async fn page(
        &self,
        before: Option<i64>,
        filter: AuditFilter,
        limit: u32,
    ) -> Result<Vec<AuditRow>, StoreError> {
        self.shared.store.audit_rows_before(before.unwrap_or(i64::MAX), filter, limit).await
    }

    /// Since when the copy cannot be written, in milliseconds since the Unix epoch, and why; `None` while it can.
    pub fn sink_failing(&self) -> Option<(i64, String)> {
        self.shared.sink_failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn suppress(&self) {
        self.shared.suppressed.fetch_add(1, Ordering::Relaxed);
        self.shared.metrics.backpressure.get_or_create(&Reason { reason: "audit" }).inc();
    }

    /// Signs where the chain stands, now and then, until the gateway stops; the last time as it stops.
    pub fn keep_checkpoints(
        &self,
        keyring: &Arc<Keyring>,
        origin: &str,
        options: &AuditOptions,
        tasks: &Tasks,
    ) {
        let (store, clock) = (self.shared.store.clone(), self.shared.clock.clone());
        let (keyring, origin, options) = (Arc::clone(keyring), origin.to_owned(), options.clone());
        let stopping = tasks.draining().clone();
        tasks.spawn(async move {
            let moved = store.audit_moved();
            let mut due = tokio::time::Instant::now() + options.checkpoint_interval;
            loop {
                // Before the look: what is written after it rings.
                let mut rung = std::pin::pin!(moved.notified());
                rung.as_mut().enable();
                let is_last = stopping.is_cancelled();
                let is_due = is_last || tokio::time::Instant::now() >= due;
                let least = if is_due { 1 } else { options.checkpoint_records };
                match checkpoint(&store, &clock, &keyring, &origin, least).await {
                    Ok(_) if is_last => return,
                    Ok(_) => {}
                    Err(StoreError::Closed | StoreError::Fatal(_)) => return,
                    Err(error) => {
                        tracing::warn!(error = %error, "the audit was not signed; it is tried again")
                    }
                }
                if is_due {
                    due = tokio::time::Instant::now() + options.checkpoint_interval;
                }
                // A look costs reads: under load one a second counts the records well enough.
                let woken = async {
                    rung.await;
                    tokio::time::sleep(COUNT_INTERVAL).await;
                };
                tokio::select! {
                    biased;
                    () = woken => {}
                    () = tokio::time::sleep_until(due) => {}
                    () = stopping.cancelled() => {}
                }
            }
        });
    }

    /// Copies every record to `sink` as a line of JSON, until the gateway stops. A file goes on where its last
    /// line stands: nothing is left out, whatever crashed.
    pub fn copy_to(&self, sink: Sink, tasks: &Tasks) {
        let (shared, stopping) = (Arc::clone(&self.shared), tasks.stopping().clone());
        tasks.spawn(async move {
            let store = &shared.store;
            let moved = store.audit_moved();
            let mut after = None;
            loop {
                let mut rung = std::pin::pin!(moved.notified());
                rung.as_mut().enable();
                let copied = copy(store, &sink, &mut after).await;
                if let Err(error) = &copied {
                    tracing::error!(error, "the audit sink cannot be written; it is tried again");
                }
                shared.note_sink(copied.err());
                if stopping.is_cancelled() {
                    return;
                }
                tokio::select! {
                    biased;
                    () = rung => {}
                    () = tokio::time::sleep(Duration::from_secs(5)) => {}
                    () = stopping.cancelled() => {}
                }
            }
        });
    }
}

impl Shared {
    fn note_sink(&self, error: Option<String>) {
        let mut failing = self.sink_failing.lock().unwrap_or_else(PoisonError::into_inner);
        let since_ms = failing.as_ref().map_or_else(|| self.clock.now_ms(), |(since_ms, _)| *since_ms);
        *failing = error.map(|error| (since_ms, error));
    }
}

async fn write(store: &Store, group: &mut Vec<NewAudit>) -> Result<(), StoreError> {
    if group.is_empty() { Ok(()) } else { store.audit(std::mem::take(group)).await }
}

/// Signs the head of the chain when it is at least `least` records past the last signature.
async fn checkpoint(
    store: &Store,
    clock: &Clock,
    keyring: &Keyring,
    origin: &str,
    least: u64,
) -> Result<bool, StoreError> {
    let Some((audit_id, hash)) = store.audit_head().await? else { return Ok(false) };
    let last = store.last_audit_checkpoint().await?.map_or(0, |last| last.audit_id);
    if audit_id - last < i64::try_from(least).unwrap_or(i64::MAX) {
        return Ok(false);
    }
    let time_ms = clock.now_ms();
    let incarnation = store.audit_origin().to_owned();
    let text = Checkpoint { origin: origin.to_owned(), incarnation, audit_id, hash, time_ms }.text();
    let key = Arc::clone(&keyring.keys().present);
    let signature = key.sign(text.as_bytes()).to_vec();
    let key_id = key.public().key_id().to_string();
    store.save_audit_checkpoint(AuditCheckpoint { audit_id, hash, time_ms, key_id, text, signature }).await?;
    Ok(true)
}

/// A record as a line of JSON, as the sink and the API show it.
pub fn shown(row: &AuditRow) -> serde_json::Value {
    let meta: serde_json::Value = serde_json::from_str(&row.meta).unwrap_or_default();
    serde_json::json!({
        "audit_id": row.audit_id,
        "time": rfc3339(row.time_ms),
        "correlation_id": row.correlation_id,
        "tenant_id": row.tenant,
        "subject": row.subject,
        "action": row.action,
        "object": row.object,
        "outcome": row.outcome,
        "reason": row.reason,
        "meta": meta,
        "hash": row.hash.map(|hash| crate::domain::succession::to_hex(&hash)),
    })
}

async fn copy(store: &Store, sink: &Sink, after: &mut Option<i64>) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut from = match *after {
        Some(after) => after,
        None => first_to_copy(store, sink).await?,
    };
    loop {
        let rows =
            store.audit_rows(from, AuditFilter::default(), SINK_PAGE).await.map_err(|error| text(&error))?;
        let Some(last) = rows.last() else { break };
        let last_id = last.audit_id;
        let lines: String = rows.iter().map(|row| format!("{}\n", shown(row))).collect();
        append(sink, lines.as_bytes()).await.map_err(|error| text(&error))?;
        from = last_id;
        *after = Some(from);
    }
    *after = Some(from);
    Ok(())
}

async fn append(sink: &Sink, lines: &[u8]) -> std::io::Result<()> {
    match sink {
        Sink::Stdout => {
            let mut out = tokio::io::stdout();
            out.write_all(lines).await?;
            out.flush().await
        }
        Sink::Stderr => {
            let mut out = tokio::io::stderr();
            out.write_all(lines).await?;
            out.flush().await
        }
        Sink::File(path) => {
            let mut options = tokio::fs::OpenOptions::new();
            let mut file = options.create(true).append(true).mode(0o600).open(path).await?;
            file.write_all(lines).await?;
            file.sync_data().await
        }
    }
}

/// A stream begins with what comes next; a file goes on after its last whole line.
async fn first_to_copy(store: &Store, sink: &Sink) -> Result<i64, String> {
    let Sink::File(path) = sink else {
        let head = store.audit_head().await.map_err(|error| error.to_string())?;
        return Ok(head.map_or(0, |(audit_id, _)| audit_id));
    };
    let content = match tokio::fs::read(path).await {
        Ok(content) => content,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error.to_string()),
    };
    let whole = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole < content.len() {
        // A crash within a line: it is written again, whole.
        let file = tokio::fs::OpenOptions::new().write(true).open(path).await;
        file.map_err(|error| error.to_string())?
            .set_len(whole as u64)
            .await
            .map_err(|error| error.to_string())?;
    }
    let mut lines = content[..whole].rsplit(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let last = lines.next().and_then(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
    Ok(last.and_then(|line| line.get("audit_id").and_then(serde_json::Value::as_i64)).unwrap_or(0))
}
