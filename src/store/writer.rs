//! The one writer: group commit on a thread of its own.
//!
//! Every commit costs one fsync whatever it carries, so the writer takes all units of work that wait,
//! runs them in one transaction, commits once, answers all of them, and then wakes who follows. No timer:
//! a lone unit commits at once; under load the groups grow by themselves.
//!
//! Invariant: a unit is answered, and its events are shown to followers, only after the commit is on
//! disk. A unit that fails is undone alone; its neighbours in the group are not harmed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::audit::AuditChain;
use super::checkpoint::{self, Checkpointer};
use super::disk::{Disk, DiskFaults};
use super::error::StoreError;
use super::heads::Heads;
use super::placing::Placing;
use super::queue::{Job, Order};
use super::rows::{PackedRow, Rows};
use crate::clock::Clock;
use crate::domain::event::StoredEvent;
use crate::domain::stream::{StreamNo, StreamState};
use crate::failpoint;
use crate::metrics::Metrics;
use crate::mutants::mutant;
use crate::tasks::Tasks;

/// Units in one group.
const GROUP_UNITS: usize = 1024;
/// Bytes of events in one group.
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// Groups whose units are set apart from the beginning after one of them failed: failures come in rows, as those of
/// a tenant at its quota do.
const WARY_GROUPS: u32 = 256;

/// Who is told that streams moved, after the commit and the answers.
pub trait TailObserver: Send + Sync {
    /// True when somebody follows the stream, so that the news is worth putting together.
    fn is_watched(&self, stream_no: StreamNo) -> bool;
    /// The stream moved: its new state and what was appended since somebody has followed it, in the order it was
    /// appended.
    fn advanced(&self, stream_no: StreamNo, state: StreamState, events: Vec<StoredEvent>);
}

/// What a unit of work may touch: the open transaction, the heads and the end of the audit's chain.
pub(super) struct Unit<'a> {
    pub(super) connection: &'a Connection,
    pub(super) heads: &'a mut Heads,
    pub(super) chain: &'a mut AuditChain,
    /// One time for the whole group, in milliseconds since the Unix epoch.
    pub(super) now_ms: i64,
    /// Of events.
    pub(super) rows: Rows<'a>,
    pub(super) observer: &'a dyn TailObserver,
    /// The stream that was appended to last, and whether somebody follows it.
    pub(super) last_stream: Option<(StreamNo, bool)>,
    pub(super) done: Done,
}

/// What a unit did that others are told of.
#[derive(Default)]
pub(super) struct Done {
    /// What it appended to streams that somebody follows.
    pub(super) appended: Vec<(StreamNo, StoredEvent)>,
    /// How many of them came under a gap that followers were told of.
    pub(super) late: u64,
}

/// What a group has moved, for those who follow.
#[derive(Default, Clone)]
struct News {
    moved: Vec<StreamNo>,
    appended: BTreeMap<StreamNo, Vec<StoredEvent>>,
    late: u64,
}

impl News {
    fn add(&mut self, done: Done) {
        for (stream, event) in done.appended {
            self.appended.entry(stream).or_default().push(event);
        }
        self.late += done.late;
    }
}

/// What the writer's thread owns.
pub(super) struct WriterThread {
    connection: Connection,
    checkpointer: Option<Checkpointer>,
    faults: Option<Arc<dyn DiskFaults>>,
    placing: Placing,
    /// Kept from one unit to the next for its memory.
    row: PackedRow,
    clock: Clock,
    observer: Arc<dyn TailObserver>,
    metrics: Arc<Metrics>,
    failed: CancellationToken,
    troubled: Arc<AtomicBool>,
    heads: Heads,
    chain: AuditChain,
    /// As of the last group; another's commit moves it.
    data_version: Option<i64>,
    /// Groups yet whose units are set apart from the beginning.
    wary: u32,
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
            placing: disk.placing(),
            row: PackedRow::default(),
            clock,
            observer,
            metrics,
            failed,
            troubled: Arc::default(),
            heads: Heads::default(),
            chain,
            data_version: None,
            wary: 0,
        }
    }

    /// True while the last group was refused.
    pub(super) fn troubled(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.troubled)
    }

    /// Serves on a thread of its own, unless the disk is simulated.
    pub(super) fn start(
        mut self,
        orders: mpsc::Receiver<Order>,
        database: &Path,
        tasks: &Tasks,
    ) -> Result<(), StoreError> {
        if let Some(faults) = self.faults.clone() {
            tasks.spawn_aside(self.serve_here(faults, orders));
            return Ok(());
        }
        self.checkpointer = Some(Checkpointer::start(database)?);
        let thread = std::thread::Builder::new().name("log-writer".to_owned());
        thread
            .spawn(move || self.serve(orders))
            .map_err(|error| StoreError::Failed(format!("the writer thread cannot start: {error}")))?;
        Ok(())
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
    fn finish(mut self, told: Option<oneshot::Sender<()>>) {
        if let Some(checkpointer) = self.checkpointer.take() {
            checkpointer.end();
        }
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
        let result = if mutant("ack_without_commit") { result.or(Ok(News::default())) } else { result };
        self.troubled.store(result.is_err(), Ordering::Relaxed);
        if result.is_err() {
            self.forget();
            if !self.connection.is_autocommit() {
                let _ = self.connection.execute_batch("ROLLBACK");
            }
        }
        failpoint::reached("log::before_answer");
        let fate = result.as_ref().map(|_| ()).map_err(StoreError::clone);
        for job in group {
            job.answer(fate.clone());
        }
        // After the answers: one who pushes does not queue up behind a thousand who follow.
        if let Ok(news) = result {
            self.publish(news);
        }
        self.heads.trim();
        if let Some(checkpointer) = &mut self.checkpointer {
            checkpointer.after_commit(&self.connection);
        }
        match fate {
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

    fn transact(&mut self, group: &mut [Box<dyn Job>]) -> Result<News, StoreError> {
        let now_ms = self.clock.now_ms();
        let mut news = self.run_group(group, now_ms)?;
        self.placing.sort_in(&self.connection)?;
        news.moved = self.heads.flush(&self.connection, now_ms)?;
        if mutant("published_before_commit") {
            self.publish(news.clone());
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
        self.metrics.events_late.inc_by(news.late);
        self.chain.committed();
        Ok(news)
    }

    /// Nobody else writes here while the lock on the directory holds, which no file system on a network promises:
    /// what another has written is read anew, not overwritten from memory.
    fn look_for_others(&mut self) -> Result<(), StoreError> {
        let version = "PRAGMA data_version";
        let version = self.connection.prepare_cached(version)?.query_row([], |row| row.get(0))?;
        if self.data_version.replace(version).is_some_and(|before| before != version) {
            tracing::error!("another process has written to this log: only one may have its directory");
            self.forget();
        }
        Ok(())
    }

    /// Runs a statement that every group runs, prepared once.
    fn execute(&self, sql: &str) -> Result<(), StoreError> {
        self.connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    /// Opens a transaction and runs every unit in it, but for those that fail. To set units apart costs a copy of
    /// every page that each of them changes, and hardly any fails: first they are run as if none did.
    fn run_group(&mut self, group: &mut [Box<dyn Job>], now_ms: i64) -> Result<News, StoreError> {
        if self.wary == 0 {
            if let Some(news) = self.run_together(group, now_ms)? {
                return Ok(news);
            }
            self.execute("ROLLBACK")?;
            self.forget();
            self.wary = WARY_GROUPS;
        }
        self.wary -= 1;
        self.run_apart(group, now_ms)
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        self.execute("BEGIN IMMEDIATE")?;
        self.look_for_others()
    }

    /// `None` when a unit failed, which spoils the transaction.
    fn run_together(&mut self, group: &mut [Box<dyn Job>], now_ms: i64) -> Result<Option<News>, StoreError> {
        self.begin()?;
        let (mut news, units) = (News::default(), group.len());
        for job in group {
            let Some(done) = self.run_unit(job.as_mut(), units, now_ms)? else { return Ok(None) };
            news.add(done);
        }
        Ok(Some(news))
    }

    /// A unit that fails is undone.
    fn run_apart(&mut self, group: &mut [Box<dyn Job>], now_ms: i64) -> Result<News, StoreError> {
        self.begin()?;
        let (mut news, units) = (News::default(), group.len());
        for job in group {
            self.execute("SAVEPOINT unit")?;
            self.heads.begin_unit();
            self.chain.begin_unit();
            match self.run_unit(job.as_mut(), units, now_ms)? {
                Some(done) => news.add(done),
                None => {
                    self.execute("ROLLBACK TO unit")?;
                    self.heads.undo_unit();
                    self.chain.undo_unit();
                }
            }
            self.execute("RELEASE unit")?;
        }
        self.heads.end_units();
        Ok(news)
    }

    /// Runs one of so many units and answers what it did; `None` when it failed. An error means that SQLite gave up the whole
    /// transaction, as it does when the disk is full.
    fn run_unit(&mut self, job: &mut dyn Job, units: usize, now_ms: i64) -> Result<Option<Done>, StoreError> {
        let as_they_arrive = self.placing.is_crowded(units, job.bytes());
        let rows = Rows::new(&self.connection, &mut self.row, as_they_arrive, self.placing.row_bytes);
        let mut unit = Unit {
            connection: &self.connection,
            heads: &mut self.heads,
            chain: &mut self.chain,
            now_ms,
            rows,
            observer: &*self.observer,
            last_stream: None,
            done: Done::default(),
        };
        let result = catch_unwind(AssertUnwindSafe(|| job.run(&mut unit)));
        let done = unit.done;
        let failure = match result {
            Ok(Ok(())) => return Ok(Some(done)),
            Ok(Err(error)) => error,
            Err(_) => StoreError::Failed("a unit of work panicked".to_owned()),
        };
        let whole_group = failure.is_fatal() || matches!(failure, StoreError::Full);
        if whole_group || self.connection.is_autocommit() { Err(failure) } else { Ok(None) }
    }

    fn publish(&self, mut news: News) {
        for number in news.moved.into_iter().filter(|number| self.observer.is_watched(*number)) {
            if let Some(head) = self.heads.peek(number) {
                let events = news.appended.remove(&number).unwrap_or_default();
                failpoint::reached("log::before_publish");
                self.observer.advanced(number, head.state(), events);
            }
        }
    }
}
