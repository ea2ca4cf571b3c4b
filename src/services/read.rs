//! One connection to a home: its frames become events, in batches, in the log.
//!
//! Invariant: whatever a home sends (duplicates, disorder, holes, garbage, a stream from the start), the
//! log gets each event once, and a sequence that the home passed over for good is recorded as a gap.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::options::ReaderOptions;
use super::peer::Peer;
use super::peer_options::TerminalEvent;
use super::readers::Readers;
use crate::domain::cursor::Cursor;
use crate::domain::event::{Appended, NewEvent, Sender, Sequence};
use crate::domain::limits;
use crate::domain::stream::StreamState;
use crate::metrics::{Metrics, PeerOutcome, Reason};
use crate::mutants::mutant;
use crate::outbound::{CallContext, EventStream, OpenFailure, StreamEnd};
use crate::protocol::envelope::{self, TerminalTypes};
use crate::protocol::problem::PeerError;
use crate::protocol::sse::{DecodeError, Frame};
use crate::store::{ReaderBatch, RunRecord, Store, StoreError};
use crate::tasks::Tasks;

/// Frames taken in one batch.
const BATCH_FRAMES: usize = 256;
/// Bytes taken in one batch.
const BATCH_BYTES: usize = 1024 * 1024;

/// What one connection came to.
#[derive(Debug)]
pub(super) struct Visit {
    /// Something was stored that was not there before.
    pub(super) brought_new: bool,
    /// The last sequence that the home said is gone, with no event behind it that would show a hole; or 0.
    pub(super) gone_to: u64,
    /// How it ended.
    pub(super) end: VisitEnd,
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum VisitEnd {
    /// The log holds the run to its end.
    Complete,
    /// The home does not know the run.
    Lost(String),
    /// The home could not be reached, or did not serve events.
    Unreachable(String, Option<Duration>),
    /// The stream ended, which says nothing about the run.
    Closed,
    /// The home sent nothing for too long: a quiet run looks like a dead connection.
    Idle,
    /// The stream broke.
    Broken(String),
    /// A hole stayed open: read again from below it.
    Heal,
    /// The log could not take the events.
    Store(StoreError),
}

/// Reads one run over one connection.
pub(super) struct Visitor<'a> {
    pub(super) run: &'a RunRecord,
    pub(super) peer: &'a Peer,
    pub(super) store: &'a Store,
    pub(super) readers: &'a Readers,
    pub(super) metrics: &'a Arc<Metrics>,
    pub(super) options: &'a ReaderOptions,
    pub(super) terminal: &'a TerminalTypes,
    /// This connection was made because of a hole.
    pub(super) healing: bool,
    pub(super) tasks: &'a Tasks,
}

/// What is known while a connection lasts.
struct Progress {
    brought_new: bool,
    /// The largest sequence this connection showed, stored or not.
    seen: u64,
    /// The log's last sequence, while nothing is known to be missing below it.
    whole_to: Option<Cursor>,
    /// When an open hole leads to a decision.
    hole_due: Option<Instant>,
    /// The home said that history is over, or that the run is.
    passed_history: bool,
    /// Ranges the home said are gone, until an event behind them shows where they lie.
    announced: Vec<(u64, u64)>,
}

impl Visitor<'_> {
    /// The whole connection, from the first byte to its end.
    pub(super) async fn visit(&self, state: Option<StreamState>) -> Visit {
        let mut progress = Progress {
            brought_new: false,
            seen: 0,
            whole_to: None,
            hole_due: None,
            passed_history: false,
            announced: Vec::new(),
        };
        let end = match self.open(state, &mut progress).await {
            Ok(mut stream) => {
                self.readers.opened(self.run.stream_no);
                let end = self.pump(&mut stream, &mut progress).await.unwrap_or_else(VisitEnd::Store);
                if matches!(end, VisitEnd::Complete) && !stream.has_ended() {
                    // Its last bytes are under way: read to the end, the connection serves the next run.
                    self.tasks.spawn(stream.finish());
                }
                end
            }
            Err(end) => end,
        };
        let gone_to = progress.announced.iter().map(|(_, to)| *to).max().unwrap_or(0);
        Visit { brought_new: progress.brought_new, gone_to, end }
    }

    async fn open(
        &self,
        state: Option<StreamState>,
        progress: &mut Progress,
    ) -> Result<EventStream, VisitEnd> {
        let state = match state {
            Some(state) => state,
            None => self.store.stream_state(self.run.stream_no).await.map_err(VisitEnd::Store)?,
        };
        let after = state.resume_from();
        progress.whole_to = state.open_hole().is_none().then_some(after);
        let context = call_context(self.run);
        let (path, idle) = (&self.run.events_path, self.options.idle_timeout);
        let opened = self.peer.client.open_events(context, path, after, self.options.max_event, idle).await;
        let outcome = match &opened {
            Ok(_) => "opened",
            Err(OpenFailure::Unreachable(_)) => "unreachable",
            Err(OpenFailure::NothingMore) => "nothing_more",
            Err(OpenFailure::Gone(_)) => "gone",
            Err(OpenFailure::Behind(_)) => "behind",
            Err(OpenFailure::Refused { .. }) => "refused",
        };
        let label = PeerOutcome { peer: self.peer.id().to_string(), outcome };
        self.metrics.upstream_connects.get_or_create(&label).inc();
        opened.map_err(|failure| match failure {
            OpenFailure::NothingMore => VisitEnd::Closed,
            OpenFailure::Gone(_) | OpenFailure::Behind(_) => VisitEnd::Lost(failure.to_string()),
            OpenFailure::Refused { reason, retry_after, .. } => VisitEnd::Unreachable(reason, retry_after),
            OpenFailure::Unreachable(reason) => VisitEnd::Unreachable(reason, None),
        })
    }

    async fn pump(&self, stream: &mut EventStream, progress: &mut Progress) -> Result<VisitEnd, StoreError> {
        loop {
            let due = progress.hole_due;
            let frames = tokio::select! {
                biased;
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    progress.hole_due = None;
                    if !self.healing {
                        return Ok(VisitEnd::Heal);
                    }
                    if self.give_up_holes(progress).await? {
                        return Ok(VisitEnd::Complete);
                    }
                    continue;
                }
                frames = stream.next_frames(BATCH_FRAMES, BATCH_BYTES) => frames,
            };
            let frames = match frames {
                Ok(frames) => frames,
                Err(end) => return self.ended(end, progress).await,
            };
            let (batch, lost) = self.sort(frames, progress);
            // What comes while a batch is made durable makes the next one: under load batches grow by themselves.
            let end = {
                let mut appending = std::pin::pin!(self.append(batch, progress));
                loop {
                    tokio::select! {
                        biased;
                        end = &mut appending => break end?,
                        () = stream.read_ahead(), if stream.wants_more(BATCH_BYTES) => {}
                    }
                }
            };
            if let Some(end) = end {
                return Ok(end);
            }
            if let Some(reason) = lost {
                return Ok(reason);
            }
        }
    }

    /// The home closed the stream, or it broke.
    async fn ended(&self, end: StreamEnd, progress: &mut Progress) -> Result<VisitEnd, StoreError> {
        match end {
            StreamEnd::Eof => {}
            StreamEnd::Idle(_) => return Ok(VisitEnd::Idle),
            StreamEnd::Broken(_) => return Ok(VisitEnd::Broken(end.to_string())),
        }
        if self.healing {
            if self.give_up_holes(progress).await? {
                return Ok(VisitEnd::Complete);
            }
        } else if progress.hole_due.is_some() {
            return Ok(VisitEnd::Heal);
        }
        Ok(VisitEnd::Closed)
    }

    async fn append(
        &self,
        mut batch: ReaderBatch,
        progress: &mut Progress,
    ) -> Result<Option<VisitEnd>, StoreError> {
        let seen = progress.seen;
        batch.gaps.extend(progress.announced.extract_if(.., |(_, to)| *to < seen));
        if batch.events.is_empty() && batch.gaps.is_empty() && batch.invalid.is_empty() {
            let over = progress.passed_history && self.healing;
            let complete = over && self.give_up_holes(progress).await?;
            return Ok(complete.then_some(VisitEnd::Complete));
        }
        let ends = batch.events.iter().any(|event| event.terminal.is_some());
        let sender = Sender::Peer(self.peer.id().clone());
        let (results, state) = self.store.append_read(self.run.stream_no, sender, batch).await?;
        self.count(&results, progress);
        let complete = self.look_at_holes(progress, &state, ends).await?;
        Ok(complete.then_some(VisitEnd::Complete))
    }

    fn count(&self, results: &[Appended], progress: &mut Progress) {
        for result in results {
            match result {
                Appended::Stored(sequence) => {
                    self.metrics.events_stored.inc();
                    progress.brought_new = true;
                    let in_turn = progress.whole_to.is_some_and(|whole| sequence.is_next_after(whole));
                    progress.whole_to = in_turn.then_some(sequence.cursor());
                }
                Appended::Duplicate(_) => drop(self.metrics.events_duplicate.inc()),
                Appended::Conflict(..) => drop(self.metrics.events_conflict.inc()),
                Appended::Rejected(rejection) => {
                    let reason = Reason { reason: rejection.code() };
                    self.metrics.events_rejected.get_or_create(&reason).inc();
                }
            }
        }
    }

    /// Sets or clears the time by which an open hole must be filled; answers whether the log holds the run
    /// to its end.
    async fn look_at_holes(
        &self,
        progress: &mut Progress,
        state: &StreamState,
        ends: bool,
    ) -> Result<bool, StoreError> {
        if progress.whole_to.is_some() && !ends {
            return Ok(false); // every event came in its turn
        }
        let Some(hole) = state.open_hole() else {
            progress.whole_to = Some(state.resume_from());
            progress.hole_due = None;
            return Ok(state.ended);
        };
        let far_past = progress.seen >= hole.to.saturating_add(self.options.heal_span);
        if mutant("hole_given_up_early") || self.healing && (far_past || progress.passed_history) {
            return self.give_up_holes(progress).await;
        }
        let waits = !self.healing || progress.seen > hole.to;
        if waits && progress.hole_due.is_none() {
            progress.hole_due = Some(Instant::now() + self.options.heal_after);
        }
        Ok(false)
    }

    /// The home was asked again and passed these sequences without sending them: they are gone. Answers
    /// whether the log holds the run to its end now.
    async fn give_up_holes(&self, progress: &mut Progress) -> Result<bool, StoreError> {
        let state = self.store.stream_state(self.run.stream_no).await?;
        let passed = state.holes.iter().filter(|hole| hole.reason.is_none() && hole.to < progress.seen);
        let gaps: Vec<_> = passed.map(|hole| (hole.from, hole.to)).collect();
        progress.hole_due = None;
        if gaps.is_empty() {
            return Ok(state.is_complete());
        }
        tracing::warn!(run.id = %self.run.key.run, peer.id = %self.peer.id(), gaps = ?gaps,
            "the home passed over events for good");
        self.peer.note_given_up(gaps.iter().map(|(from, to)| to - from + 1).sum());
        let sender = Sender::Peer(self.peer.id().clone());
        let batch = ReaderBatch { gaps, ..ReaderBatch::default() };
        let (_, state) = self.store.append_read(self.run.stream_no, sender, batch).await?;
        Ok(state.is_complete())
    }

    /// Sorts frames into what the log takes; answers whether the home called the run lost.
    fn sort(
        &self,
        frames: Vec<Result<Frame, DecodeError>>,
        progress: &mut Progress,
    ) -> (ReaderBatch, Option<VisitEnd>) {
        let mut batch = ReaderBatch::default();
        let mut envelopes = envelope::Reader::new(self.terminal);
        let mut end = None;
        for frame in frames {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    self.metrics.upstream_invalid.get_or_create(&self.peer.label()).inc();
                    batch.invalid.push((error.to_string(), Vec::new()));
                    continue;
                }
            };
            match frame.event.as_deref() {
                Some("caught_up" | "end") if self.peer.is_gateway() => progress.passed_history = true,
                Some("gap") if self.peer.is_gateway() => {
                    let room = progress.announced.len() < limits::HOLES_PER_STREAM;
                    progress.announced.extend(gap_range(&frame.data).filter(|_| room));
                }
                Some("stream_error") if self.peer.is_gateway() => end = Some(stream_error(&frame.data)),
                _ if is_done_marker(&frame.data) => {}
                _ => match self.event(&mut envelopes, &frame) {
                    Ok(event) => {
                        progress.seen = progress.seen.max(event.sequence.map_or(0, Sequence::get));
                        batch.events.push(event);
                    }
                    Err(reason) => {
                        self.metrics.upstream_invalid.get_or_create(&self.peer.label()).inc();
                        batch.invalid.push((reason, frame.data.into_bytes()));
                    }
                },
            }
        }
        (batch, end)
    }

    /// A frame as an event of this run, or why it is none.
    fn event(&self, envelopes: &mut envelope::Reader<'_>, frame: &Frame) -> Result<NewEvent, String> {
        let parsed = envelopes.read(frame.data.as_bytes());
        let mut parsed = parsed.map_err(|invalid| invalid.reason)?;
        if !parsed.translate(self.peer.tenant_names()) || parsed.tenant != self.run.key.tenant {
            return Err("the event belongs to another tenant".to_owned());
        }
        let remote = self.run.remote_run_id.as_str();
        let renamed = || remote.strip_prefix(parsed.run.as_str()).is_some_and(|rest| rest.starts_with('@'));
        if parsed.run.as_str() != remote && !(self.peer.is_gateway() && renamed()) {
            return Err("the event belongs to another run".to_owned());
        }
        let from_id = || frame.id.as_deref().and_then(|id| Sequence::new(id.parse().ok()?));
        let Some(sequence) = parsed.event.sequence.or_else(from_id) else {
            return Err("the event has no sequence".to_owned());
        };
        let derived = parsed.event.derived && self.peer.is_gateway();
        Ok(NewEvent { sequence: Some(sequence), derived, ..parsed.event })
    }
}

/// On whose behalf a run is read.
pub(super) fn call_context(run: &RunRecord) -> CallContext<'_> {
    CallContext {
        tenant: Some(&run.key.tenant),
        principal: run.principal.as_ref(),
        correlation_id: run.correlation_id.as_deref(),
        traceparent: run.traceparent.as_deref(),
        via: None,
    }
}

/// AgentOS' successor ends its streams with `{"done":true}`, which is no event.
fn is_done_marker(data: &str) -> bool {
    data.len() < 64
        && serde_json::from_str::<serde_json::Value>(data)
            .is_ok_and(|value| value.get("done").is_some() && value.get("event_id").is_none())
}

fn gap_range(data: &str) -> Option<(u64, u64)> {
    let body: serde_json::Value = serde_json::from_str(data).ok()?;
    let number = |name: &str| body.get(name).and_then(serde_json::Value::as_u64);
    let range = (number("from_sequence")?, number("to_sequence")?);
    (1..=range.1).contains(&range.0).then_some(range)
}

fn stream_error(data: &str) -> VisitEnd {
    let error = PeerError::parse(data.as_bytes());
    let said = error.message.unwrap_or_else(|| "the peer gave no reason".to_owned());
    match error.code.as_deref() {
        Some("run_lost") => VisitEnd::Lost(said),
        _ => VisitEnd::Broken(said),
    }
}

/// The types that end a run at a peer, beside AgentOS' own.
pub(super) fn terminal_types(configured: &[TerminalEvent]) -> TerminalTypes {
    configured.iter().map(|entry| (entry.event_type.clone(), entry.status)).collect()
}
