//! One connection to a home: its frames become events, in batches, in the log.
//!
//! Invariant: whatever a home sends (duplicates, disorder, holes, garbage, a stream from the start), the
//! log gets each event once, and a sequence that the home passed over for good is recorded as a gap.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until};

use super::options::{ReaderOptions, TerminalEvent};
use super::peers::Peer;
use crate::domain::event::{Appended, NewEvent, Sender};
use crate::domain::limits;
use crate::metrics::{Metrics, PeerOutcome, Reason};
use crate::outbound::{CallContext, EventStream, OpenFailure, StreamEnd};
use crate::protocol::envelope::{self, TerminalTypes};
use crate::protocol::problem::PeerError;
use crate::protocol::sse::Frame;
use crate::store::{ReaderBatch, RunRecord, Store, StoreError};

/// Frames taken in one batch.
const BATCH_FRAMES: usize = 256;
/// Bytes taken in one batch.
const BATCH_BYTES: usize = 1024 * 1024;

/// What one connection came to.
#[derive(Debug)]
pub(super) struct Visit {
    /// Something was stored that was not there before.
    pub(super) brought_new: bool,
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
    pub(super) metrics: &'a Arc<Metrics>,
    pub(super) options: &'a ReaderOptions,
    pub(super) terminal: &'a TerminalTypes,
    /// This connection was made because of a hole.
    pub(super) healing: bool,
}

/// What is known while a connection lasts.
struct Progress {
    brought_new: bool,
    /// The largest sequence this connection showed, stored or not.
    seen: u64,
    /// Where the log's last sequence should be if nothing is missing.
    expected: u64,
    /// When an open hole leads to a decision.
    hole_due: Option<Instant>,
    /// The home said that history is over, or that the run is.
    passed_history: bool,
}

impl Visitor<'_> {
    /// The whole connection, from the first byte to its end.
    pub(super) async fn visit(&self) -> Visit {
        let mut progress =
            Progress { brought_new: false, seen: 0, expected: 0, hole_due: None, passed_history: false };
        let end = match self.open(&mut progress).await {
            Ok(mut stream) => self.pump(&mut stream, &mut progress).await.unwrap_or_else(VisitEnd::Store),
            Err(end) => end,
        };
        Visit { brought_new: progress.brought_new, end }
    }

    async fn open(&self, progress: &mut Progress) -> Result<EventStream, VisitEnd> {
        let after = self.store.resume_from(self.run.stream_no).await.map_err(VisitEnd::Store)?;
        progress.expected = after;
        let context = call_context(self.run);
        let (path, idle) = (&self.run.events_path, self.options.idle_timeout);
        let opened = self.peer.client.open_events(context, path, after, self.options.max_event, idle).await;
        let outcome = match &opened {
            Ok(_) => "opened",
            Err(OpenFailure::Unreachable(_)) => "unreachable",
            Err(OpenFailure::NothingMore) => "nothing_more",
            Err(OpenFailure::Gone(_)) => "gone",
            Err(OpenFailure::Refused { .. }) => "refused",
        };
        let label = PeerOutcome { peer: self.peer.id().to_string(), outcome };
        self.metrics.upstream_connects.get_or_create(&label).inc();
        opened.map_err(|failure| match failure {
            OpenFailure::NothingMore => VisitEnd::Closed,
            OpenFailure::Gone(_) => VisitEnd::Lost(failure.to_string()),
            OpenFailure::Refused { reason, retry_after, .. } => VisitEnd::Unreachable(reason, retry_after),
            OpenFailure::Unreachable(reason) => VisitEnd::Unreachable(reason, None),
        })
    }

    async fn pump(&self, stream: &mut EventStream, progress: &mut Progress) -> Result<VisitEnd, StoreError> {
        loop {
            let due = progress.hole_due;
            let frames = tokio::select! {
                frames = stream.next_frames(BATCH_FRAMES, BATCH_BYTES) => frames,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    progress.hole_due = None;
                    if !self.healing {
                        return Ok(VisitEnd::Heal);
                    }
                    self.give_up_holes(progress).await?;
                    continue;
                }
            };
            let frames = match frames {
                Ok(frames) => frames,
                Err(end) => return self.ended(end, progress).await,
            };
            let (batch, lost) = self.sort(frames, progress);
            if let Some(end) = self.append(batch, progress).await? {
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
            StreamEnd::Broken(_) | StreamEnd::Protocol(_) => return Ok(VisitEnd::Broken(end.to_string())),
        }
        if self.healing {
            self.give_up_holes(progress).await?;
            if self.is_complete().await? {
                return Ok(VisitEnd::Complete);
            }
        } else if progress.hole_due.is_some() {
            return Ok(VisitEnd::Heal);
        }
        Ok(VisitEnd::Closed)
    }

    async fn append(
        &self,
        batch: ReaderBatch,
        progress: &mut Progress,
    ) -> Result<Option<VisitEnd>, StoreError> {
        if batch.events.is_empty() && batch.gaps.is_empty() && batch.invalid.is_empty() {
            if progress.passed_history && self.healing {
                self.give_up_holes(progress).await?;
            }
            return Ok(None);
        }
        let ends = batch.events.iter().any(|event| event.terminal.is_some());
        let sender = Sender::Peer(self.peer.id().clone());
        let results = self.store.append_read(self.run.stream_no, sender, batch).await?;
        self.count(&results, progress);
        if ends && self.is_complete().await? {
            return Ok(Some(VisitEnd::Complete));
        }
        self.look_at_holes(progress).await?;
        Ok(None)
    }

    fn count(&self, results: &[Appended], progress: &mut Progress) {
        for result in results {
            match result {
                Appended::Stored(sequence) => {
                    self.metrics.events_stored.inc();
                    progress.brought_new = true;
                    progress.expected = if *sequence == progress.expected + 1 { *sequence } else { u64::MAX };
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

    /// Sets or clears the time by which an open hole must be filled.
    async fn look_at_holes(&self, progress: &mut Progress) -> Result<(), StoreError> {
        if progress.expected != u64::MAX {
            return Ok(()); // every event came in its turn
        }
        let state = self.store.stream_state(self.run.stream_no).await?;
        let Some(hole) = state.holes.iter().find(|hole| hole.reason.is_none()) else {
            progress.expected = state.last;
            progress.hole_due = None;
            return Ok(());
        };
        let far_past = progress.seen >= hole.to.saturating_add(self.options.heal_span);
        if self.healing && (far_past || progress.passed_history) {
            return self.give_up_holes(progress).await;
        }
        let waits = !self.healing || progress.seen > hole.to;
        if waits && progress.hole_due.is_none() {
            progress.hole_due = Some(Instant::now() + self.options.heal_after);
        }
        Ok(())
    }

    /// The home was asked again and passed these sequences without sending them: they are gone.
    async fn give_up_holes(&self, progress: &mut Progress) -> Result<(), StoreError> {
        let state = self.store.stream_state(self.run.stream_no).await?;
        let passed = state.holes.iter().filter(|hole| hole.reason.is_none() && hole.to < progress.seen);
        let gaps: Vec<_> = passed.map(|hole| (hole.from, hole.to)).collect();
        progress.hole_due = None;
        if !gaps.is_empty() {
            tracing::warn!(run.id = %self.run.key.run, peer.id = %self.peer.id(), gaps = ?gaps,
                "the home passed over events for good");
            let sender = Sender::Peer(self.peer.id().clone());
            let batch = ReaderBatch { gaps, ..ReaderBatch::default() };
            self.store.append_read(self.run.stream_no, sender, batch).await?;
        }
        Ok(())
    }

    /// The log holds the run's end, and no hole that may still be filled.
    async fn is_complete(&self) -> Result<bool, StoreError> {
        let state = self.store.stream_state(self.run.stream_no).await?;
        Ok(state.ended && state.holes.iter().all(|hole| hole.reason.is_some()))
    }

    /// Sorts frames into what the log takes; answers whether the home called the run lost.
    fn sort(&self, frames: Vec<Frame>, progress: &mut Progress) -> (ReaderBatch, Option<VisitEnd>) {
        let mut batch = ReaderBatch::default();
        let mut end = None;
        for frame in frames {
            match frame.event.as_deref() {
                Some("caught_up" | "end") if self.peer.is_gateway() => progress.passed_history = true,
                Some("gap") if self.peer.is_gateway() => batch.gaps.extend(gap_range(&frame.data)),
                Some("stream_error") if self.peer.is_gateway() => end = Some(stream_error(&frame.data)),
                _ if is_done_marker(&frame.data) => {}
                _ => match self.event(&frame) {
                    Ok(event) => {
                        progress.seen = progress.seen.max(event.sequence.unwrap_or(0));
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
    fn event(&self, frame: &Frame) -> Result<NewEvent, String> {
        let raw: &RawValue =
            serde_json::from_str(&frame.data).map_err(|error| limits::clean_reason(&error.to_string()))?;
        let parsed = envelope::parse(raw, self.terminal).map_err(|invalid| invalid.reason)?;
        if parsed.tenant != self.run.key.tenant {
            return Err("the event belongs to another tenant".to_owned());
        }
        let remote = self.run.remote_run_id.as_str();
        let renamed = || remote.strip_prefix(parsed.run.as_str()).is_some_and(|rest| rest.starts_with('@'));
        if parsed.run.as_str() != remote && !(self.peer.is_gateway() && renamed()) {
            return Err("the event belongs to another run".to_owned());
        }
        let from_id = || frame.id.as_deref().and_then(|id| id.parse().ok());
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
