//! The one writer: group commit on a thread of its own.
//!
//! Every commit costs one fsync whatever it carries, so the writer takes all units of work that wait,
//! runs them in one transaction, commits once, and then answers all of them. No timer: a lone unit
//! commits at once; under load the groups grow by themselves.
//!
//! Invariant: a unit is answered, and its events are shown to followers, only after the commit is on
//! disk. A unit that fails is rolled back alone; its neighbours in the group are not harmed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{CachedStatement, Connection};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::audit::AuditChain;
use super::checkpoint::{self, Checkpointer};
use super::disk::{Disk, DiskFaults};
use super::error::StoreError;
use super::heads::Heads;
use crate::clock::Clock;
use crate::domain::event::StoredEvent;
use crate::domain::stream::{StreamNo, StreamState};
use crate::failpoint;
use crate::metrics::Metrics;
use crate::mutants::mutant;
use crate::tasks::Tasks;

/// Units that may wait for the writer; beyond it a caller waits, or is told that the log is overloaded.
const QUEUE: usize = 1024;
/// Units in one group.
const GROUP_UNITS: usize = 1024;
/// Bytes of events in one group.
const GROUP_BYTES: usize = 4 * 1024 * 1024;

/// Who is told that streams moved, after the commit and before the answers.
pub trait TailObserver: Send + Sync {
    /// True when somebody follows the stream, so that the news is worth putting together.
    fn is_watched(&self, stream_no: StreamNo) -> bool;
    /// The stream moved: its new state and what was appended, in the order it was appended.
    fn advanced(&self, stream_no: StreamNo, state: StreamState, events: Vec<StoredEvent>);
}

/// What a unit of work may touch: the open transaction, the heads and the end of the audit's chain.
pub(super) struct Unit<'a> {
    pub(super) connection: &'a Connection,
    pub(super) heads: &'a mut Heads,
    pub(super) chain: &'a mut AuditChain,
    /// One time for the whole group, in milliseconds since the Unix epoch.
    pub(super) now_ms: i64,
    /// Kept at hand while a batch is appended.
    pub(super) insert_event: Option<CachedStatement<'a>>,
    /// What this unit appended, by stream.
    pub(super) appended: Vec<(StreamNo, StoredEvent)>,
    /// How many of them came under a gap that followers were told of.
    pub(super) late: u64,
}

/// One unit of work, with the way back to its caller.
trait Job: Send {
    /// About how many bytes it will write.
    fn bytes(&self) -> usize;
    /// Does the work; answers why it must not be kept.
    fn run(&mut self, unit: &mut Unit<'_>) -> Result<(), StoreError>;
    /// Tells the caller, once the fate of the group is known.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Task<T, W> {
    bytes: usize,
    work: Option<W>,
    result: Option<Result<T, StoreError>>,
    caller: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, W> Job for Task<T, W>
where
    T: Send,
    W: FnOnce(&mut Unit<'_>) -> Result<T, StoreError> + Send,
{
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn run(&mut self, unit: &mut Unit<'_>) -> Result<(), StoreError> {
        let Some(work) = self.work.take() else { return Ok(()) };
        let result = work(unit);
        let kept = result.as_ref().map(|_| ()).map_err(StoreError::clone);
        self.result = Some(result);
        kept
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let result = match (self.result, committed) {
            (Some(Err(error)), _) | (_, Err(error)) => Err(error),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (None, Ok(())) => Err(StoreError::Failed("a unit of work panicked".to_owned())),
        };
        // A caller that has gone away changes nothing: the work is done.
        let _ = self.caller.send(result);
    }
}

/// What waits in the queue.
enum Order {
    Work(Box<dyn Job>),
    /// Nothing is to be written after this; dropped once the connection is closed.
    End(oneshot::Sender<()>),
}

/// The way to the writer, cheap to clone.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Order>,
    /// The last group was refused.
    troubled: Arc<AtomicBool>,
}

impl Writer {
    /// Starts the writer, on a thread of its own unless the disk is simulated. It ends when it is told to, when
    /// every handle is gone, or when the disk fails, which it then says.
    pub(super) fn start(
        mut thread: WriterThread,
        database: &Path,
        tasks: &Tasks,
    ) -> Result<Self, StoreError> {
        let (queue, orders) = mpsc::channel(QUEUE);
        let troubled = Arc::clone(&thread.troubled);
        match thread.faults.clone() {
            Some(faults) => tasks.spawn_aside(thread.serve_here(faults, orders)),
            None => {
                thread.checkpointer = Some(Checkpointer::start(database)?);
                std::thread::Builder::new()
                    .name("log-writer".to_owned())
                    .spawn(move || thread.serve(orders))
                    .map_err(|error| {
                        StoreError::Failed(format!("the writer thread cannot start: {error}"))
                    })?;
            }
        }
        Ok(Writer { queue, troubled })
    }

    /// Ends the writer, and answers when it has written what was asked of it before, and never will write again.
    pub(super) async fn end(&self) {
        let (done, ended) = oneshot::channel();
        // An error means that it has ended already.
        if self.queue.send(Order::End(done)).await.is_ok() {
            let _ = ended.await;
        }
    }

    /// True when the last group was refused: the disk was full, say.
    pub(super) fn is_troubled(&self) -> bool {
        self.troubled.load(Ordering::Relaxed)
    }

    /// Runs one unit of work and answers after it is durable. Waits for a place in the queue.
    /// `bytes` is about what the unit will write.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce(&mut Unit<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (job, answer) = boxed(bytes, work);
        self.queue.send(Order::Work(job)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// As [`Writer::run`], but fails at once when the queue is full.
    pub(super) async fn run_or_refuse<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce(&mut Unit<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (job, answer) = boxed(bytes, work);
        self.queue.try_send(Order::Work(job)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
        })?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

fn boxed<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce(&mut Unit<'_>) -> Result<T, StoreError> + Send + 'static,
) -> (Box<dyn Job>, oneshot::Receiver<Result<T, StoreError>>) {
    let (caller, answer) = oneshot::channel();
    (Box::new(Task { bytes, work: Some(work), result: None, caller }), answer)
}

/// How a unit is set apart, so that it can be undone alone. A savepoint copies every page the unit changes.
#[derive(Clone, Copy)]
enum Apart {
    /// It is all there is in the transaction.
    Transaction,
    /// It has neighbours.
    Savepoint,
}

/// What the writer's thread owns.
pub(super) struct WriterThread {
    connection: Connection,
    checkpointer: Option<Checkpointer>,
    faults: Option<Arc<dyn DiskFaults>>,
    clock: Clock,
    observer: Arc<dyn TailObserver>,
    metrics: Arc<Metrics>,
    failed: CancellationToken,
    troubled: Arc<AtomicBool>,
    heads: Heads,
    chain: AuditChain,
}

impl WriterThread {
    /// A writer that has not begun.
    pub(super) fn new(
        connection: Connection,
        disk: &Disk,
        clock: Clock,
        (observer, metrics): (Arc<dyn TailObserver>, Arc<Metrics>),
        failed: CancellationToken,
        chain: AuditChain,
    ) -> Self {
        WriterThread {
            connection,
            checkpointer: None,
            faults: disk.faults(),
            clock,
            observer,
            metrics,
            failed,
            troubled: Arc::default(),
            heads: Heads::default(),
            chain,
        }
    }

    fn serve(mut self, mut orders: mpsc::Receiver<Order>) {
        let told = loop {
            let Some(first) = orders.blocking_recv() else { break None };
            if let ControlFlow::Break(told) = self.commit_with_all_that_wait(first, &mut orders) {
                break told;
            }
        };
        self.finish(told);
    }

    async fn serve_here(mut self, faults: Arc<dyn DiskFaults>, mut orders: mpsc::Receiver<Order>) {
        let told = loop {
            let Some(first) = orders.recv().await else { break None };
            tokio::time::sleep(faults.delay()).await;
            if let ControlFlow::Break(told) = self.commit_with_all_that_wait(first, &mut orders) {
                break told;
            }
        };
        self.finish(told);
    }

    /// Closes the connection, then tells who waits for the end.
    fn finish(self, told: Option<oneshot::Sender<()>>) {
        if told.is_some() && !self.failed.is_cancelled() {
            checkpoint::empty(&self.connection);
        }
        drop((self, told));
    }

    /// Makes one group of what waits. Breaks off when the writer was told to end, with whom that tells, or when
    /// the disk failed.
    fn commit_with_all_that_wait(
        &mut self,
        first: Order,
        orders: &mut mpsc::Receiver<Order>,
    ) -> ControlFlow<Option<oneshot::Sender<()>>> {
        let (mut group, mut bytes, mut next) = (Vec::new(), 0, Some(first));
        let told = loop {
            match next {
                Some(Order::Work(job)) => {
                    bytes += job.bytes();
                    group.push(job);
                }
                Some(Order::End(told)) => break Some(told),
                None => break None,
            }
            let is_full = group.len() >= GROUP_UNITS || bytes >= GROUP_BYTES;
            next = if is_full { None } else { orders.try_recv().ok() };
        };
        let committed = if group.is_empty() { Ok(()) } else { self.commit(group) };
        if let Err(error) = &committed {
            tracing::error!(error = %error, "the event log cannot be written any more");
            self.failed.cancel();
        }
        if told.is_some() || committed.is_err() {
            ControlFlow::Break(told)
        } else {
            ControlFlow::Continue(())
        }
    }

    /// Commits one group and answers its callers. An error means that the disk failed.
    fn commit(&mut self, mut group: Vec<Box<dyn Job>>) -> Result<(), StoreError> {
        let result = self.transact(&mut group);
        let result = if mutant("ack_without_commit") { result.or(Ok(())) } else { result };
        self.troubled.store(result.is_err(), Ordering::Relaxed);
        if result.is_err() {
            self.forget();
            if !self.connection.is_autocommit() {
                let _ = self.connection.execute_batch("ROLLBACK");
            }
        }
        failpoint::reached("log::before_answer");
        for job in group {
            job.answer(result.clone());
        }
        if let Some(checkpointer) = &mut self.checkpointer {
            checkpointer.after_commit(&self.connection);
        }
        match result {
            Err(error) if error.is_fatal() => Err(error),
            Err(error) => {
                tracing::warn!(error = %error, "a group of writes was refused");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// What is remembered of a group that failed.
    fn forget(&mut self) {
        if !mutant("heads_kept") {
            self.heads.clear();
        }
        if !mutant("audit_end_kept") {
            self.chain.clear();
        }
    }

    fn transact(&mut self, group: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
        let now_ms = self.clock.now_ms();
        let mut appended: BTreeMap<StreamNo, Vec<StoredEvent>> = BTreeMap::new();
        self.execute("BEGIN IMMEDIATE")?;
        let apart = if group.len() == 1 { Apart::Transaction } else { Apart::Savepoint };
        for job in group {
            for (stream, event) in self.run_unit(job.as_mut(), apart, now_ms)? {
                appended.entry(stream).or_default().push(event);
            }
        }
        let moved = self.heads.flush(&self.connection, now_ms)?;
        if mutant("published_before_commit") {
            self.publish(&moved, appended.clone());
        }
        if let Some(faults) = &self.faults {
            faults.before_commit()?;
        }
        failpoint::reached("log::before_commit");
        self.execute("COMMIT")?;
        failpoint::reached("log::after_commit");
        if self.faults.as_ref().is_some_and(|faults| faults.after_commit()) {
            return Err(StoreError::Closed);
        }
        self.metrics.log_commits.inc();
        self.chain.committed();
        self.publish(&moved, appended);
        self.heads.trim();
        Ok(())
    }

    /// Runs a statement that every group runs, prepared once.
    fn execute(&self, sql: &str) -> Result<(), StoreError> {
        self.connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    /// Runs one unit, set apart from its neighbours, and answers what it appended. An error means that SQLite
    /// gave up the whole transaction, as it does when the disk is full.
    fn run_unit(
        &mut self,
        job: &mut dyn Job,
        apart: Apart,
        now_ms: i64,
    ) -> Result<Vec<(StreamNo, StoredEvent)>, StoreError> {
        self.heads.begin_unit();
        self.chain.begin_unit();
        if let Apart::Savepoint = apart {
            self.execute("SAVEPOINT unit")?;
        }
        let (done, appended, late) = {
            let mut unit = Unit {
                connection: &self.connection,
                heads: &mut self.heads,
                chain: &mut self.chain,
                now_ms,
                insert_event: None,
                appended: Vec::new(),
                late: 0,
            };
            let done = catch_unwind(AssertUnwindSafe(|| job.run(&mut unit)));
            (done, unit.appended, unit.late)
        };
        let failure = match done {
            Ok(Ok(())) => {
                if let Apart::Savepoint = apart {
                    self.execute("RELEASE unit")?;
                }
                self.metrics.events_late.inc_by(late);
                return Ok(appended);
            }
            Ok(Err(error)) => error,
            Err(_) => StoreError::Failed("a unit of work panicked".to_owned()),
        };
        let whole_group = failure.is_fatal() || matches!(failure, StoreError::Full);
        if whole_group || self.connection.is_autocommit() {
            return Err(failure);
        }
        self.connection.execute_batch(match apart {
            Apart::Transaction => "ROLLBACK; BEGIN IMMEDIATE",
            Apart::Savepoint => "ROLLBACK TO unit; RELEASE unit",
        })?;
        self.heads.undo_unit();
        self.chain.undo_unit();
        Ok(Vec::new())
    }

    fn publish(&self, moved: &[StreamNo], mut appended: BTreeMap<StreamNo, Vec<StoredEvent>>) {
        for number in moved.iter().filter(|number| self.observer.is_watched(**number)) {
            if let Some(head) = self.heads.peek(*number) {
                let events = appended.remove(number).unwrap_or_default();
                failpoint::reached("log::before_publish");
                self.observer.advanced(*number, head.state(), events);
            }
        }
    }
}
