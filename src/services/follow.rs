//! The one way out: a stream's events in order, from the log, then live, to the end.
//!
//! ```text
//! history ─▶ caught_up ─▶ live ─▶ end          gap: where a hole is passed over
//! ```
//!
//! One loop: read what lies after the cursor, else wait for the stream to move. The join between log and
//! live cannot lose or repeat an event, because both are read by the same cursor and the news only wakes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::frames::{Encoder, Format, gap_body};
use super::hub::{Hub, Watch};
use super::identity::Caller;
use super::options::EventsOptions;
use super::pages::Pages;
use super::step::{Step, next_step};
use crate::clock::{Clock, left, millis};
use crate::domain::cursor::Cursor;
use crate::domain::holes::GapReason;
use crate::domain::stream::{StreamNo, StreamState};
use crate::entropy::Entropy;
use crate::metrics::{Metrics, Reason};
use crate::mutants::mutant;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::problem::Problem;
use crate::protocol::sse::{self, Control};
use crate::seldom::Seldom;
use crate::store::{RunRecord, Store};
use crate::tasks::Tasks;

/// What a subscriber asks for.
#[derive(Debug, Clone, Copy)]
pub struct FollowRequest {
    /// The last sequence already seen.
    pub after: Cursor,
    /// How to write events.
    pub format: Format,
    /// Go on live after the present end.
    pub live: bool,
    /// Announce what retention removed instead of refusing the cursor.
    pub skip_gaps: bool,
}

/// What following came to.
pub enum Opened {
    /// The run is finished and the cursor is at its end.
    NothingMore(StreamState),
    /// Frames follow.
    Flow(StreamState, Box<EventFlow>),
}

/// Serves followers.
#[derive(Clone)]
pub struct Follow {
    /// One for all followers: a clone of the store in each of them would be much of what they weigh.
    pub(super) store: Arc<Store>,
    hub: Arc<Hub>,
    pub(super) clock: Clock,
    entropy: Entropy,
    metrics: Arc<Metrics>,
    options: EventsOptions,
    stack_id: Arc<str>,
    draining: CancellationToken,
}

impl Follow {
    /// Serves the streams of `store`.
    pub fn new(
        store: Store,
        hub: Arc<Hub>,
        (clock, entropy): (Clock, Entropy),
        metrics: Arc<Metrics>,
        options: EventsOptions,
        stack_id: &str,
        tasks: &Tasks,
    ) -> Self {
        let (store, draining) = (Arc::new(store), tasks.draining().clone());
        Follow { store, hub, clock, entropy, metrics, options, stack_id: Arc::from(stack_id), draining }
    }

    /// The name a run's home goes by.
    pub fn home_of<'a>(&'a self, run: &'a RunRecord) -> &'a str {
        run.home.as_ref().map_or(&self.stack_id, |peer| peer.as_str())
    }

    /// How long a follower waits at a hole.
    pub(super) fn hold(&self, run: &RunRecord) -> Duration {
        if run.home.is_none() { self.options.gap_hold_pushed } else { self.options.gap_hold }
    }

    /// Opens a run's events after a cursor, or says why that cursor cannot be honoured.
    pub async fn open(
        &self,
        run: &RunRecord,
        request: FollowRequest,
        caller: &Caller,
        correlation_id: &str,
    ) -> Result<Opened, Problem> {
        let home = self.home_of(run).to_owned();
        // Watching comes first: what is appended from here on is not missed, whatever is read below.
        let mut watch = self.hub.watch(run.stream_no, &home);
        watch.offer(self.store.stream_state(run.stream_no).await?);
        let Some(state) = watch.state() else {
            return Err(Problem::new(ErrorCode::InternalError, "the stream has no state"));
        };
        check_cursor(&state, request)?;
        let settled = state.ended && state.holes.iter().all(|hole| hole.to <= request.after.get());
        if settled && request.after.get() >= state.last {
            return Ok(Opened::NothingMore(state));
        }
        if let Some(reason) =
            state.lost.as_ref().filter(|_| request.after.get() >= state.last && !state.ended)
        {
            // An error status ends an EventSource; a frame would make it come back for ever.
            return Err(Problem::new(ErrorCode::RunLost, reason.to_string()));
        }
        let hold = self.hold(run);
        let beat_at = Instant::now() + self.options.heartbeat;
        let ended =
            if mutant("revocation_keeps_streams") { Default::default() } else { caller.ended.clone() };
        let (draining, revoked) = (self.draining.clone(), ended.clone());
        let over = async move {
            tokio::select! {
                biased;
                () = draining.cancelled() => {}
                () = revoked.cancelled() => {}
            }
        };
        let encoder = Encoder::new(request.format, &home).renaming(caller.renaming());
        let flow = EventFlow {
            store: Arc::clone(&self.store),
            clock: self.clock.clone(),
            metrics: Arc::clone(&self.metrics),
            pages: Pages::new(Arc::clone(&self.store), run.stream_no, encoder.clone()),
            encoder,
            stream_no: run.stream_no,
            watch,
            cursor: Cursor::at(request.after.get().saturating_sub(u64::from(mutant("cursor_inclusive")))),
            request,
            correlation_id: Box::from(correlation_id),
            hold,
            heartbeat: self.options.heartbeat,
            beat_at,
            calls: Seldom::new(Calls { over: Box::pin(over), alarm: Box::pin(sleep_until(beat_at)) }),
            alarm_at: Some(beat_at),
            retry: self.options.retry.mul_f64(0.5 + self.entropy.fraction()),
            first: true,
            caught_up: false,
            done: false,
            draining: self.draining.clone(),
            ended,
            until_ms: caller.until_ms,
        };
        Ok(Opened::Flow(state, Box::new(flow)))
    }
}

/// Refuses a cursor that cannot be honoured exactly.
pub fn check_cursor(state: &StreamState, request: FollowRequest) -> Result<(), Problem> {
    if state.ended && request.after.get() > state.last && !mutant("cursor_ahead_served") {
        return Err(ahead(state, request.after));
    }
    if request.after.next() < state.oldest && !request.skip_gaps {
        return Err(expired(state));
    }
    Ok(())
}

pub(super) fn ahead(state: &StreamState, cursor: Cursor) -> Problem {
    let message = format!("the run ended at sequence {}; there is nothing after {cursor}", state.last);
    Problem::new(ErrorCode::CursorAhead, message)
        .with("last_sequence", state.last)
        .with("field", "from_sequence")
}

pub(super) fn expired(state: &StreamState) -> Problem {
    Problem::new(
        ErrorCode::CursorExpired,
        format!(
            "events before sequence {} were removed by retention: start from {}, or ask with on_gap=skip",
            state.oldest,
            state.oldest - 1
        ),
    )
    .with("oldest_sequence", state.oldest)
    .with("field", "from_sequence")
}

/// Events that were acknowledged are not on disk any more.
pub(super) fn lost_rows(cursor: Cursor) -> Problem {
    tracing::error!(%cursor, "events are missing from the log: restore a backup");
    let message =
        format!("events after sequence {cursor} are missing from the log; the operator must mend it");
    Problem::new(ErrorCode::InternalError, message).with("retryable", false)
}

/// One subscriber's way through a stream. Dropping it ends it.
pub struct EventFlow {
    store: Arc<Store>,
    clock: Clock,
    metrics: Arc<Metrics>,
    encoder: Encoder,
    pages: Pages,
    stream_no: StreamNo,
    watch: Watch,
    cursor: Cursor,
    request: FollowRequest,
    correlation_id: Box<str>,
    hold: Duration,
    heartbeat: Duration,
    beat_at: Instant,
    /// Whatever is not the stream.
    calls: Seldom<Calls>,
    /// When the alarm rings, unless it has.
    alarm_at: Option<Instant>,
    retry: Duration,
    first: bool,
    caught_up: bool,
    done: bool,
    draining: CancellationToken,
    /// The caller may see no more.
    ended: CancellationToken,
    /// When that happens by itself.
    until_ms: Option<i64>,
}

/// What a follower is called by, other than its stream.
struct Calls {
    /// Draining, or the end of the caller's right.
    over: BoxFuture<'static, ()>,
    /// Rings no later than something is due. One that rings too early is wound up again, which costs less
    /// than a new one with every event.
    alarm: Pin<Box<Sleep>>,
}

enum Call {
    Over,
    Alarm,
}

impl Future for Calls {
    type Output = Call;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Call> {
        if self.over.as_mut().poll(context).is_ready() {
            return Poll::Ready(Call::Over);
        }
        self.alarm.as_mut().poll(context).map(|()| Call::Alarm)
    }
}

impl EventFlow {
    /// The next bytes to send, whole frames always; `None` after the last.
    pub async fn next(&mut self) -> Option<Bytes> {
        while !self.done {
            if let Some(frame) = self.credential_frame() {
                return Some(frame);
            }
            let state = self.watch.state()?;
            let (now_ms, hold_ms) = (self.clock.now_ms(), millis(self.hold));
            let until = match next_step(&state, self.cursor, now_ms, hold_ms, self.request.skip_gaps) {
                Step::Read(to) => match self.read(to).await {
                    Some(bytes) => return Some(self.leave(bytes)),
                    None => continue,
                },
                Step::Gap(_, to, _) if mutant("gap_omitted") => {
                    self.cursor = Cursor::at(to);
                    continue;
                }
                Step::Gap(from, to, reason) => {
                    let frame = self.gap(from, to, reason, state.oldest);
                    return Some(self.leave(frame));
                }
                last @ (Step::End | Step::Ahead | Step::Lost | Step::Expired) => {
                    let frame = self.last_frame(&last, &state);
                    return Some(self.leave(frame));
                }
                Step::Hold(until) => Some(until),
                Step::Wait => None,
            };
            if !self.caught_up && (until.is_none() || !self.request.live) {
                let frame = self.caught_up_frame();
                return Some(self.leave(frame));
            }
            if !self.request.live {
                self.done = true;
            } else if let Some(bytes) = self.wait(until.map(|until| until - now_ms)).await {
                return Some(self.leave(bytes));
            }
        }
        None
    }

    /// The last frame of a caller whose credential holds no more: it hears so, and nothing else.
    fn credential_frame(&mut self) -> Option<Bytes> {
        let is_over = self.until_ms.is_some_and(|until_ms| self.clock.now_ms() >= until_ms);
        // Whoever revokes it rings.
        let is_revoked = self.calls.is_rung() && self.ended.is_cancelled();
        if !is_over && !is_revoked {
            return None;
        }
        self.done = true;
        let code = if is_over { ErrorCode::Unauthorized } else { ErrorCode::Forbidden };
        let message =
            if is_over { "the credential has ended" } else { "the credential was revoked or changed" };
        Some(self.error_frame(&Problem::new(code, message)))
    }

    /// Waits for the stream to move, a hole to be given up, or the heartbeat, which it answers.
    async fn wait(&mut self, hold_ms: Option<i64>) -> Option<Bytes> {
        let hold = hold_ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
        let over = self.until_ms.map(|until_ms| left(until_ms, self.clock.now_ms()));
        let soon = [hold, over].into_iter().flatten().min().map(|wait| Instant::now() + wait);
        let wake_at = soon.map_or(self.beat_at, |soon| soon.min(self.beat_at));
        if self.alarm_at.is_none_or(|at| at > wake_at) {
            self.calls.get_mut().alarm.as_mut().reset(wake_at);
            self.alarm_at = Some(wake_at);
        }
        tokio::select! {
            biased;
            call = &mut self.calls => match call {
                Call::Over => {
                    self.done = self.draining.is_cancelled();
                    None
                }
                Call::Alarm => {
                    self.alarm_at = None;
                    (Instant::now() >= self.beat_at).then(|| self.encoder.heartbeat())
                }
            },
            () = self.watch.moved() => None,
        }
    }

    /// Reads up to `to`, from memory when the next frames are there, else a page from the log.
    async fn read(&mut self, to: Cursor) -> Option<Bytes> {
        if self.request.format == Format::Sse
            && self.encoder.is_for_all()
            && let Some(chunk) = self.watch.tail_after(self.cursor)
            && chunk.last.cursor() <= to
        {
            self.pages.forget_ahead();
            self.cursor = chunk.last.cursor();
            return Some(chunk.bytes);
        }
        // Apart, so that a follower at the end does not carry the room for it.
        Box::pin(self.read_page(to)).await
    }

    async fn read_page(&mut self, to: Cursor) -> Option<Bytes> {
        let problem = match self.pages.read(self.cursor, to).await {
            Ok(Some((bytes, last))) => {
                self.cursor = last;
                return Some(bytes);
            }
            Ok(None) => self.missing().await?,
            Err(error) => Problem::from(error),
        };
        self.done = true;
        Some(self.error_frame(&problem))
    }

    /// Rows were not there. Retention may have taken them after the state was read, and then the new state
    /// says so; else they are lost.
    async fn missing(&mut self) -> Option<Problem> {
        let state = match self.store.stream_state(self.stream_no).await {
            Ok(state) => state,
            Err(error) => return Some(Problem::from(error)),
        };
        let problem = (state.oldest <= self.cursor.next()).then(|| lost_rows(self.cursor));
        self.watch.offer(state);
        problem
    }

    fn gap(&mut self, from: u64, to: u64, reason: GapReason, oldest: u64) -> Bytes {
        self.cursor = Cursor::at(to);
        self.metrics.gaps_announced.get_or_create(&Reason { reason: reason.as_str() }).inc();
        let mut out = Vec::new();
        self.encoder.control(&mut out, Control::Gap, &gap_body(from, to, reason, oldest));
        Bytes::from(out)
    }

    fn caught_up_frame(&mut self) -> Bytes {
        self.caught_up = true;
        let mut out = Vec::new();
        self.encoder.control(&mut out, Control::CaughtUp, &json!({ "sequence": self.cursor }));
        Bytes::from(out)
    }

    /// The frame after which the stream closes.
    fn last_frame(&mut self, step: &Step, state: &StreamState) -> Bytes {
        self.done = true;
        let problem = match step {
            Step::End => return self.end_frame(state),
            Step::Ahead => ahead(state, self.cursor),
            Step::Lost => Problem::new(ErrorCode::RunLost, state.lost.as_deref().unwrap_or_default()),
            _ => expired(state),
        };
        self.error_frame(&problem)
    }

    fn end_frame(&mut self, state: &StreamState) -> Bytes {
        let mut out = Vec::new();
        if !self.caught_up {
            out.extend_from_slice(&self.caught_up_frame());
        }
        let body = json!({ "sequence": state.last, "status": state.status.as_str() });
        self.encoder.control(&mut out, Control::End, &body);
        Bytes::from(out)
    }

    fn error_frame(&self, problem: &Problem) -> Bytes {
        let mut out = Vec::new();
        self.encoder.control(&mut out, Control::StreamError, &problem.to_json(&self.correlation_id));
        Bytes::from(out)
    }

    /// What leaves moves the heartbeat; the first frame carries the reconnect time.
    fn leave(&mut self, bytes: Bytes) -> Bytes {
        self.beat_at = Instant::now() + self.heartbeat;
        let opens = std::mem::take(&mut self.first) && self.request.format == Format::Sse;
        if !opens {
            return bytes;
        }
        let mut out = Vec::with_capacity(bytes.len() + 16);
        if bytes.as_ref() == sse::HEARTBEAT {
            self.first = true; // a heartbeat is no frame: the reconnect time waits for one
            return bytes;
        }
        sse::retry_prefix(&mut out, self.retry);
        out.extend_from_slice(&bytes);
        Bytes::from(out)
    }
}
