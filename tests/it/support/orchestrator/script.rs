//! What a test may tell the orchestrator to do: values only, no behaviour.
//!
//! Invariant: every script value means the same whenever it is set; a queue is consumed one entry per
//! request, and what stands behind an empty queue is its default.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use serde_json::Value;

use super::stream_script::StreamScript;

/// What happens to one run-create request. "Commits" means the run exists and its key is remembered.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum CreateFault {
    /// Commits and answers 201, or 200 when the key is known.
    #[default]
    Ok,
    /// Waits, then is `Ok`.
    Delay(Duration),
    /// Commits, waits, then answers.
    DelayAnswer(Duration),
    /// Waits for `release_creates`, then is `Ok`.
    Hold,
    /// Commits, waits for `release_creates`, then answers.
    HoldAnswer,
    /// Closes the connection once the request is read, without committing.
    DropRequest,
    /// Commits, then closes the connection without a byte of answer.
    DropAnswer,
    /// Commits, then sends this many bytes of the answer (head included) and closes.
    CutAnswerAt(usize),
    /// Answers this status without committing.
    Status {
        /// The status code.
        code: u16,
        /// The `Retry-After` value, verbatim.
        retry_after: Option<String>,
        /// The JSON body; an AgentOS error object when `None`.
        body: Option<Value>,
    },
    /// Commits, then answers this status with an error body.
    StatusAfterCommit(u16),
    /// Commits, then answers 200 with something that is no run.
    Garbage(Garbage),
    /// Answers 307 with this `Location` without committing.
    Redirect(String),
    /// Never answers and never commits.
    HangForever,
    /// Commits, then never answers.
    HangAfterCommit,
    /// Commits; the answer's run has no `run_id`.
    MissingRunId,
    /// Commits under this run id (two peers can so mint one id).
    RunId(String),
    /// Commits; the answer's `events_url` is this string.
    EventsUrl(String),
}

/// The body of a 200 answer that is no run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Garbage {
    /// An HTML page.
    Html,
    /// JSON that ends in the middle.
    UnreadableJson,
    /// Valid JSON of about this many bytes.
    HugeBody(usize),
    /// The right answer, its body one byte per this pause.
    Trickle(Duration),
    /// No body at all.
    Empty,
}

/// What happens to one status or cancel request.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum PlainFault {
    /// Does what was asked and answers.
    #[default]
    Ok,
    /// Answers this status without doing it.
    Status(u16),
    /// Closes the connection without doing it.
    DropRequest,
    /// Does it, then closes the connection without an answer.
    DropAnswer,
    /// Never answers and never does it.
    HangForever,
    /// Does it, then answers 200 with something unreadable.
    Garbage(Garbage),
}

/// The orchestrator's standing rules, for all requests.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Where idempotency keys are read.
    pub(crate) keys: KeyRule,
    /// What `input` may be.
    pub(crate) input: InputRule,
    /// The tenants that exist; every tenant when `None`. Another one is answered 403 `tenant_unknown`.
    pub(crate) tenants: Option<Vec<String>>,
    /// The `Authorization` value demanded, verbatim; none when `None`. Another one is answered 401.
    pub(crate) authorization: Option<String>,
    /// New runs in any one second; past it 429 `quota_exceeded`, without `Retry-After`.
    pub(crate) creates_per_second: Option<usize>,
    /// Unfinished runs at a time; past it 429 `quota_exceeded`.
    pub(crate) concurrent_runs: Option<usize>,
    /// What moves a run's status.
    pub(crate) status: StatusRule,
    /// What a run's stream holds from the start.
    pub(crate) birth: Birth,
}

/// Where idempotency keys are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyRule {
    /// The header, else the body.
    HeaderOrBody,
    /// The body alone (AgentOS).
    BodyOnly,
    /// Nowhere: every create makes a run.
    Ignored,
}

/// What a run-create's `input` may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputRule {
    /// Any JSON.
    Any,
    /// An object; else 400 (AgentOS).
    Object,
}

/// What moves a run's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatusRule {
    /// The test: `emit` makes a run running, `finish` ends it. A cancel emits the terminal event.
    Told,
    /// A status request, by the run's age when asked (AgentOS). No terminal event ever, not even for a
    /// cancel.
    Asked {
        /// The age from which a run is `running`.
        running_after: Duration,
        /// The age from which a run is `completed`.
        completed_after: Duration,
    },
}

/// What a run's stream holds from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Birth {
    /// Nothing.
    Silent,
    /// Sequence 1, `agentos.run.created` (AgentOS).
    CreatedEvent,
}

/// Everything scripted, with its queues.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) rules: Rules,
    pub(super) creates: Queue<CreateFault>,
    pub(super) statuses: Queue<PlainFault>,
    pub(super) cancels: Queue<PlainFault>,
    pub(super) streams: Queue<StreamScript>,
    /// Before the queue, for the runs named.
    pub(super) streams_of: BTreeMap<String, StreamScript>,
    pub(super) auto: Option<AutoEvents>,
}

/// Entries consumed one per request, then a default for ever.
#[derive(Debug, Default)]
pub(super) struct Queue<T> {
    pub(super) next: VecDeque<T>,
    pub(super) default: T,
}

/// The events each new run emits by itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct AutoEvents {
    pub(super) count: usize,
    pub(super) interval: Duration,
}

impl CreateFault {
    /// This status without committing, with the error body AgentOS would send and no `Retry-After`.
    pub(crate) fn status(code: u16) -> Self {
        Self::Status { code, retry_after: None, body: None }
    }

    /// This status without committing, with a `Retry-After`.
    pub(crate) fn status_retry_after(code: u16, retry_after: &str) -> Self {
        Self::Status { code, retry_after: Some(retry_after.to_owned()), body: None }
    }
}

impl Rules {
    /// AgentOS' own, with its real times: see 'An orchestrator in the wild' in the design.
    pub(crate) fn agentos() -> Self {
        Self {
            keys: KeyRule::BodyOnly,
            input: InputRule::Object,
            tenants: Some(vec!["tnt_demo".to_owned()]),
            authorization: None,
            creates_per_second: Some(10),
            concurrent_runs: Some(25),
            status: StatusRule::Asked {
                running_after: Duration::from_secs(1),
                completed_after: Duration::from_secs(5),
            },
            birth: Birth::CreatedEvent,
        }
    }
}

impl<T: Clone> Queue<T> {
    /// The entry for the request at hand.
    pub(super) fn take(&mut self) -> T {
        self.next.pop_front().unwrap_or_else(|| self.default.clone())
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            keys: KeyRule::HeaderOrBody,
            input: InputRule::Any,
            tenants: None,
            authorization: None,
            creates_per_second: None,
            concurrent_runs: None,
            status: StatusRule::Told,
            birth: Birth::Silent,
        }
    }
}
