//! The upstream readers: every forwarded run is read to its end, whether or not anybody listens.
//!
//! One task per unfinished run, with a durable cursor (what the log holds), so that a cut, a restart of
//! either side or a day without the home changes nothing but the time it takes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::admission::{Action, Admission};
use super::hub::Hub;
use super::line::Line;
use super::options::ReaderOptions;
use super::peer::Peer;
use super::peers::Peers;
use super::read::{Visit, VisitEnd, Visitor, call_context, terminal_types};
use super::readers::{ReaderCounts, Readers};
use crate::clock::{Clock, rfc3339};
use crate::domain::backoff::{Backoff, BackoffError};
use crate::domain::event::{NewEvent, Sender, Sequence};
use crate::domain::id::{EventId, PeerId};
use crate::domain::run::FollowState;
use crate::domain::stream::StreamState;
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::mutants::mutant;
use crate::protocol::envelope::{self, TerminalTypes};
use crate::protocol::run::{self, HomeRun};
use crate::store::{FreshRun, ReaderBatch, RunRecord, Store, StoreError, TailObserver};
use crate::tasks::Tasks;

/// Pause between the first tries to reach a home.
const QUICK_RETRY: Duration = Duration::from_millis(250);
/// Runs read from the database at once at start-up.
const RESUME_PAGE: u32 = 500;

/// Starts and keeps the readers.
#[derive(Clone)]
pub struct Pull {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    hub: Arc<Hub>,
    admission: Admission,
    peers: Peers,
    clock: Clock,
    entropy: Entropy,
    metrics: Arc<Metrics>,
    options: ReaderOptions,
    backoff: Backoff,
    tasks: Tasks,
    lines: Mutex<HashMap<PeerId, Arc<Line>>>,
    readers: Readers,
}

impl Pull {
    /// Prepares the readers; none runs yet.
    pub fn new(
        store: Store,
        hub: &Arc<Hub>,
        (admission, peers): (Admission, Peers),
        (clock, entropy): (Clock, Entropy),
        metrics: Arc<Metrics>,
        options: ReaderOptions,
        tasks: Tasks,
    ) -> Result<Self, BackoffError> {
        let backoff = Backoff::try_new(options.backoff, options.max_backoff)?;
        let (readers, lines) = (Readers::default(), Mutex::default());
        let hub = Arc::clone(hub);
        let shared = Shared {
            store,
            hub,
            admission,
            peers,
            clock,
            entropy,
            metrics,
            options,
            backoff,
            tasks,
            lines,
            readers,
        };
        Ok(Pull { shared: Arc::new(shared) })
    }

    /// Takes up every run whose end is not here.
    pub async fn resume_all(&self) -> Result<usize, StoreError> {
        let mut after = (String::new(), String::new());
        let mut resumed = 0;
        let mut orphans = HashSet::new();
        loop {
            let page = self.shared.store.followed_runs((&after.0, &after.1), RESUME_PAGE).await?;
            let Some(last) = page.last() else { break };
            after = (last.key.tenant.to_string(), last.key.run.to_string());
            for run in page {
                resumed += 1;
                if run.home.as_ref().is_some_and(|home| self.shared.peers.find(home).is_none()) {
                    orphans.extend(run.home.clone());
                }
                self.start(run);
            }
        }
        for peer in orphans {
            tracing::warn!(peer.id = %peer, "unfinished runs have their home at a peer that is not configured; \
                they are read again once it is");
        }
        Ok(resumed)
    }

    /// Starts a reader for a run that was just made.
    pub fn start_fresh(&self, fresh: FreshRun) {
        self.start_at(fresh.record, Some(fresh.state));
    }

    /// Starts a reader for a run, unless it has one, is finished, or has no configured home.
    pub fn start(&self, run: RunRecord) {
        self.start_at(run, None);
    }

    fn start_at(&self, run: RunRecord, state: Option<StreamState>) {
        let Some(home) = run.home.as_ref().filter(|_| run.is_followed()) else { return };
        if mutant("reads_not_resumed") && state.is_none() {
            return;
        }
        let Some(peer) = self.shared.may_read(home, &run) else { return };
        if !self.shared.readers.begin(run.stream_no, home) {
            return;
        }
        let reader = Reader {
            terminal: terminal_types(&peer.options.terminal_events),
            line: self.shared.line(home),
            peer,
            shared: Arc::clone(&self.shared),
            run,
            state,
            failures: 0,
            quiet: 0,
            healing: false,
            gone_to: 0,
            finished_at_home: None,
        };
        self.shared.metrics.readers.inc();
        self.shared.tasks.spawn(reader.serve());
    }

    /// How the events of a run come here.
    pub fn follow_state(&self, run: &RunRecord) -> FollowState {
        match (run.follow.as_str(), self.shared.readers.is_placed(run.stream_no)) {
            ("finished", _) => FollowState::Finished,
            ("lost", _) => FollowState::Lost,
            ("pushed", _) => FollowState::Pushed,
            (_, Some(true)) => FollowState::Following,
            (_, _) => FollowState::Waiting,
        }
    }

    /// How many readers have a place at a peer.
    pub fn streams_of(&self, peer: &PeerId) -> usize {
        let lines = self.shared.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.get(peer).map_or(0, |line| line.taken())
    }

    /// How the readers are doing, by peer; a peer without any is left out.
    pub fn counts(&self) -> BTreeMap<PeerId, ReaderCounts> {
        self.shared.readers.counts()
    }

    /// Readers that may have a place at one peer.
    pub fn places(&self) -> usize {
        self.shared.options.streams_per_peer
    }
}

impl Shared {
    /// The places for readers at one peer.
    fn line(&self, peer: &PeerId) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.entry(peer.clone()).or_insert_with(|| {
            let hub = Arc::clone(&self.hub);
            Line::new(self.options.streams_per_peer, move |stream_no| hub.is_watched(stream_no))
        });
        Arc::clone(line)
    }

    /// The home of a run, as it stands now, if it may be read from.
    fn may_read(&self, home: &PeerId, run: &RunRecord) -> Option<Arc<Peer>> {
        let (tenant, agent) = (run.key.tenant.as_str(), run.agent.as_ref().map(|agent| agent.as_str()));
        self.peers
            .find(home)
            .filter(|peer| self.admission.may_send(Some(tenant), Action::ReadEvents, peer, agent).is_ok())
    }
}

/// The task of one run.
struct Reader {
    shared: Arc<Shared>,
    run: RunRecord,
    /// Where the stream stands, when that is known without a look.
    state: Option<StreamState>,
    peer: Arc<Peer>,
    line: Arc<Line>,
    terminal: TerminalTypes,
    /// Connections in a row that failed.
    failures: u32,
    /// Connections in a row that ended well and brought nothing.
    quiet: u32,
    healing: bool,
    /// The last sequence that the home said is gone, beyond what is held; or 0.
    gone_to: u64,
    /// What the home said when asked, if it called the run finished.
    finished_at_home: Option<HomeRun>,
}

/// What a reader does next.
enum Next {
    Again(Duration),
    Done,
}

impl Reader {
    async fn serve(mut self) {
        let stopping = self.shared.tasks.stopping().clone();
        let mut is_done = false;
        while self.is_welcome() {
            let Some(pause) = self.round(&stopping).await else {
                is_done = true;
                break;
            };
            tokio::select! {
                biased;
                () = tokio::time::sleep(pause) => {}
                () = self.peer.gone().cancelled() => {}
                () = stopping.cancelled() => {
                    is_done = true;
                    break;
                }
            }
        }
        self.shared.metrics.readers.dec();
        self.shared.readers.end(self.run.stream_no);
        // The home may have been let in again between the look at it and here.
        if !is_done {
            Pull { shared: self.shared }.start(self.run);
        }
    }

    /// Takes the home as it stands now; false when it may not be read from any more. Once it may again, its
    /// runs are taken up anew.
    fn is_welcome(&mut self) -> bool {
        if !self.peer.gone().is_cancelled() {
            return true;
        }
        let peer = self.shared.may_read(self.peer.id(), &self.run);
        if let Some(peer) = &peer {
            self.terminal = terminal_types(&peer.options.terminal_events);
            self.peer = Arc::clone(peer);
        }
        peer.is_some()
    }

    /// One connection and what follows from it; `None` when the reader is done.
    async fn round(&mut self, stopping: &CancellationToken) -> Option<Duration> {
        let gone = self.peer.gone().clone();
        let visit = tokio::select! {
            biased;
            visit = self.visit() => visit,
            () = gone.cancelled(), if !mutant("revoked_still_read") => {
                self.shared.readers.set_placed(self.run.stream_no, false);
                return Some(Duration::ZERO);
            }
            () = stopping.cancelled() => return None,
        };
        match self.after(visit).await {
            Ok(Next::Again(pause)) => Some(pause),
            Ok(Next::Done) | Err(StoreError::Closed | StoreError::Fatal(_)) => None,
            Err(error) => {
                tracing::warn!(run.id = %self.run.key.run, error = %error, "a reader waits for the event log");
                Some(self.after_failure())
            }
        }
    }

    async fn visit(&mut self) -> Visit {
        self.shared.metrics.readers_waiting.inc();
        let place = self.line.enter(self.run.stream_no).await;
        self.shared.metrics.readers_waiting.dec();
        self.shared.readers.set_placed(self.run.stream_no, true);
        let state = self.state.take();
        let visitor = Visitor {
            run: &self.run,
            peer: &self.peer,
            store: &self.shared.store,
            readers: &self.shared.readers,
            metrics: &self.shared.metrics,
            options: &self.shared.options,
            terminal: &self.terminal,
            healing: self.healing,
            tasks: &self.shared.tasks,
        };
        let visit = visitor.visit(state).await;
        drop(place);
        self.shared.readers.set_placed(self.run.stream_no, false);
        visit
    }

    async fn after(&mut self, visit: Visit) -> Result<Next, StoreError> {
        let healing = std::mem::take(&mut self.healing);
        self.gone_to = self.gone_to.max(visit.gone_to);
        if visit.brought_new {
            (self.failures, self.quiet, self.finished_at_home) = (0, 0, None);
            self.shared.readers.recovered(self.run.stream_no);
        }
        match visit.end {
            VisitEnd::Complete => Ok(Next::Done),
            VisitEnd::Lost(reason) => self.lost(&reason).await,
            VisitEnd::Heal => {
                self.healing = true;
                Ok(Next::Again(Duration::ZERO))
            }
            VisitEnd::Closed if visit.brought_new && !healing => Ok(Next::Again(Duration::ZERO)),
            VisitEnd::Closed => self.ask_home().await,
            VisitEnd::Idle => match self.ask_home().await? {
                // The wait was the pause: a quiet run is not left unread.
                Next::Again(_) if self.failures == 0 => Ok(Next::Again(Duration::ZERO)),
                next => Ok(next),
            },
            VisitEnd::Broken(_) if visit.brought_new => Ok(Next::Again(Duration::ZERO)),
            VisitEnd::Broken(reason) => Ok(self.failed(&reason, None)),
            VisitEnd::Unreachable(reason, wait) => Ok(self.failed(&reason, wait)),
            VisitEnd::Store(error) => Err(error),
        }
    }

    /// The stream ended without an end: only the home knows whether the run goes on.
    async fn ask_home(&mut self) -> Result<Next, StoreError> {
        let context = call_context(&self.run);
        let answer = match self.peer.client.get_run(context, self.run.remote_run_id.as_str()).await {
            Ok(answer) => answer,
            Err(failure) => return Ok(self.failed(&failure.to_string(), None)),
        };
        if matches!(answer.status, 404 | 410) {
            return self.lost(&format!("the peer does not know the run ({})", answer.status)).await;
        }
        let home = run::parse_answer(&answer.body).filter(|_| answer.is_success());
        let Some(home) = home else {
            return Ok(self.failed(&format!("the peer answered {} when asked", answer.status), None));
        };
        self.failures = 0;
        self.shared.readers.recovered(self.run.stream_no);
        if !home.status.is_finished() {
            self.shared.store.note_status(self.run.stream_no, home.status).await?;
            self.finished_at_home = None;
            return Ok(Next::Again(self.calm_pause()));
        }
        match self.finished_at_home.take() {
            // Its last events may have come between the end of the stream and the question.
            None if !mutant("closed_at_once") => {
                self.finished_at_home = Some(home);
                Ok(Next::Again(Duration::ZERO))
            }
            _ => self.close(&home).await,
        }
    }

    /// The home is finished and has nothing more: the run ends here with the status the home gave.
    async fn close(&self, home: &HomeRun) -> Result<Next, StoreError> {
        let state = self.shared.store.stream_state(self.run.stream_no).await?;
        let open = state.holes.iter().filter(|hole| hole.reason.is_none());
        let mut gaps: Vec<_> = open.map(|hole| (hole.from, hole.to)).collect();
        let mut events = Vec::new();
        if !state.ended {
            // What the home said is gone at the end is a gap under the closing event, and no part of its count.
            let end = state.last.max(self.gone_to);
            gaps.extend((end > state.last).then_some((state.last + 1, end)));
            events.extend(Sequence::new(end + 1).and_then(|next| self.terminal_event(home, next)));
        }
        let batch = ReaderBatch { events, gaps, invalid: Vec::new() };
        let sender = Sender::Peer(self.peer.id().clone());
        self.shared.store.append_read(self.run.stream_no, sender, batch).await?;
        tracing::info!(run.id = %self.run.key.run, peer.id = %self.peer.id(), status = home.status.as_str(),
            "a run was closed with the status its home gave");
        Ok(Next::Done)
    }

    fn terminal_event(&self, home: &HomeRun, sequence: Sequence) -> Option<NewEvent> {
        let now_ms = self.shared.clock.now_ms();
        let event_id = self.shared.entropy.id("evt", now_ms);
        let agent = self.run.agent.as_ref().map_or("", |agent| agent.as_str());
        let names = (self.run.key.tenant.as_str(), agent, self.run.remote_run_id.as_str());
        let traceparent = self.run.traceparent.as_deref().unwrap_or("");
        let time = rfc3339(now_ms);
        let facts = (time.as_str(), sequence, traceparent);
        let json = envelope::derived_terminal(&event_id, names, home.status, facts, &home.value())?;
        Some(NewEvent {
            event_id: EventId::parse(&event_id).ok()?,
            sequence: Some(sequence),
            terminal: Some(home.status),
            starts_work: false,
            derived: true,
            json,
        })
    }

    async fn lost(&self, reason: &str) -> Result<Next, StoreError> {
        let state = self.shared.store.stream_state(self.run.stream_no).await?;
        if !state.ended {
            tracing::warn!(run.id = %self.run.key.run, peer.id = %self.peer.id(), reason, "a run is lost");
            self.shared.store.lose_run(&self.run, reason).await?;
        }
        Ok(Next::Done)
    }

    fn failed(&mut self, reason: &str, wait: Option<Duration>) -> Next {
        self.shared.readers.failed(self.run.stream_no, reason, self.shared.clock.now_ms());
        if self.failures == self.shared.options.connect_attempts {
            tracing::warn!(run.id = %self.run.key.run, peer.id = %self.peer.id(), reason,
                "the events of a run cannot be read; it is tried again until they can");
        }
        let pause = self.after_failure();
        Next::Again(wait.map_or(pause, |wait| pause.max(wait.min(self.shared.options.max_backoff))))
    }

    /// A few quick tries, then ever longer pauses.
    fn after_failure(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let chance = self.shared.entropy.fraction();
        match self.failures.checked_sub(self.shared.options.connect_attempts) {
            None | Some(0) => QUICK_RETRY.mul_f64(0.5 + chance),
            // Half of the pause is fixed: a home that is down is not hammered by many readers.
            Some(more) => self.shared.backoff.delay(more - 1, 1.0).mul_f64(0.5 + 0.5 * chance),
        }
    }

    fn calm_pause(&mut self) -> Duration {
        let options = &self.shared.options;
        let doubled = options.status_interval.saturating_mul(1 << self.quiet.min(16));
        self.quiet = self.quiet.saturating_add(1);
        doubled.min(options.max_status_interval)
    }
}
