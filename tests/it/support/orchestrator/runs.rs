//! The runs the orchestrator holds: keys, statuses, events.
//!
//! Invariant: one `(tenant, key)` names one run until the keys are forgotten; a run's status only moves
//! forward; a run's items are only appended to.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{
    event::{Event, mint, rfc3339},
    script::{AutoEvents, StatusRule},
};

/// The status of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RunStatus {
    /// Accepted, not begun.
    Queued,
    /// Begun.
    Running,
    /// Ended well.
    Completed,
    /// Ended badly.
    Failed,
    /// Ended on request.
    Canceled,
}

/// All runs and keys.
#[derive(Debug, Default)]
pub(super) struct RunBook {
    runs: BTreeMap<String, Run>,
    by_key: HashMap<(String, String), String>,
    /// When each new run was made, for the rate limit.
    made: Vec<Instant>,
}

/// One run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) run_id: String,
    pub(super) tenant_id: String,
    pub(super) agent_id: String,
    pub(super) status: RunStatus,
    /// What its stream is made of, in the order of appending.
    pub(super) items: Vec<Item>,
    /// How many events requests there were.
    pub(super) reads: usize,
    last_sequence: u64,
    trace_parent: String,
    born: Instant,
    created_at: OffsetDateTime,
    completed_at: Option<OffsetDateTime>,
}

/// One piece of a run's stream.
#[derive(Debug)]
pub(super) enum Item {
    /// An event.
    Event(Event),
    /// Bytes sent as they are, to those who read from `after` or before.
    Raw {
        /// The run's last sequence when they were appended.
        after: u64,
        bytes: Vec<u8>,
    },
}

impl RunStatus {
    /// As the wire says it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// Whether nothing follows it.
    pub(crate) fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Canceled)
    }
}

impl RunBook {
    /// The run, if it exists.
    pub(super) fn find(&self, run_id: &str) -> Option<&Run> {
        self.runs.get(run_id)
    }

    /// The run as this tenant sees it: another tenant's does not exist.
    pub(super) fn find_for(&mut self, tenant_id: &str, run_id: &str) -> Option<&mut Run> {
        self.runs.get_mut(run_id).filter(|run| run.tenant_id == tenant_id)
    }

    /// The run, to be changed, if it exists.
    pub(super) fn find_mut(&mut self, run_id: &str) -> Option<&mut Run> {
        self.runs.get_mut(run_id)
    }

    /// The run, which the test knows to exist.
    pub(super) fn known(&mut self, run_id: &str) -> &mut Run {
        self.runs.get_mut(run_id).unwrap_or_else(|| panic!("the orchestrator has no run {run_id}"))
    }

    /// The run this key names.
    pub(super) fn find_by_key(&self, tenant_id: &str, key: &str) -> Option<&Run> {
        let run_id = self.by_key.get(&(tenant_id.to_owned(), key.to_owned()))?;
        self.runs.get(run_id)
    }

    /// Adds a run, under its key if it has one.
    pub(super) fn add(&mut self, run: Run, key: Option<&str>) {
        if let Some(key) = key {
            self.by_key.insert((run.tenant_id.clone(), key.to_owned()), run.run_id.clone());
        }
        self.made.push(run.born);
        self.runs.insert(run.run_id.clone(), run);
    }

    /// Runs made within this time before now.
    pub(super) fn made_within(&self, window: Duration) -> usize {
        self.made.iter().filter(|made| made.elapsed() < window).count()
    }

    /// Runs whose status, as last asked, is not terminal.
    pub(super) fn unfinished(&self) -> usize {
        self.runs.values().filter(|run| !run.status.is_terminal()).count()
    }

    /// Forgets which key named which run.
    pub(super) fn forget_keys(&mut self) {
        self.by_key.clear();
    }

    /// Forgets all runs and keys, as a restore from an old backup does.
    pub(super) fn forget_runs(&mut self) {
        self.by_key.clear();
        self.runs.clear();
    }
}

impl Run {
    /// A queued run without events.
    pub(super) fn new(run_id: String, tenant_id: &str, agent_id: &str, trace_parent: Option<&str>) -> Self {
        const NO_TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        Self {
            run_id,
            tenant_id: tenant_id.to_owned(),
            agent_id: agent_id.to_owned(),
            status: RunStatus::Queued,
            items: Vec::new(),
            reads: 0,
            last_sequence: 0,
            trace_parent: trace_parent.unwrap_or(NO_TRACE).to_owned(),
            born: Instant::now(),
            created_at: OffsetDateTime::now_utc(),
            completed_at: None,
        }
    }

    /// The events, in the order of appending.
    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        self.items.iter().filter_map(|item| match item {
            Item::Event(event) => Some(event),
            Item::Raw { .. } => None,
        })
    }

    /// Appends an event of this type under the next sequence, which it returns.
    pub(super) fn emit(&mut self, event_type: &str, payload: Value) -> u64 {
        let event = self.event_value(self.last_sequence + 1, event_type, payload);
        self.append(Event::from_text(&event.to_string()))
    }

    /// Appends sequence 1 of a run whose stream begins with its creation; its status stays queued.
    pub(super) fn give_birth(&mut self) {
        self.emit("agentos.run.created", json!({"status": "queued"}));
        self.status = RunStatus::Queued;
    }

    /// Appends a step; the steps of one run differ by this number.
    pub(super) fn emit_step(&mut self, step: usize) -> u64 {
        self.emit("agentos.run.step.completed", json!({ "step": step }))
    }

    /// Appends all the scripted events and completes the run, if they have no interval.
    pub(super) fn emit_at_once(&mut self, auto: AutoEvents) -> bool {
        if auto.interval.is_zero() {
            for step in 0..auto.count {
                self.emit_step(step);
            }
            self.finish(RunStatus::Completed);
        }
        auto.interval.is_zero()
    }

    /// Appends an event as it is; returns its sequence.
    pub(super) fn append(&mut self, event: Event) -> u64 {
        let sequence = event.sequence;
        self.last_sequence = self.last_sequence.max(sequence);
        self.status = self.status.max(RunStatus::Running);
        self.items.push(Item::Event(event));
        sequence
    }

    /// Appends bytes that are no event.
    pub(super) fn append_raw(&mut self, bytes: Vec<u8>) {
        self.items.push(Item::Raw { after: self.last_sequence, bytes });
    }

    /// Leaves this many sequences unused.
    pub(super) fn skip_sequences(&mut self, count: u64) {
        self.last_sequence += count;
    }

    /// The sequence the next event will have.
    pub(super) fn next_sequence(&self) -> u64 {
        self.last_sequence + 1
    }

    /// A well-formed event of this run with a fresh id.
    pub(super) fn event_value(&self, sequence: u64, event_type: &str, payload: Value) -> Value {
        let span_id = self.trace_parent.split('-').nth(2).unwrap_or_default();
        json!({
            "event_id": mint("evt"),
            "sequence": sequence,
            "time": rfc3339(OffsetDateTime::now_utc()),
            "type": event_type,
            "tenant_id": self.tenant_id,
            "agent_id": self.agent_id,
            "run_id": self.run_id,
            "trace": {"traceparent": self.trace_parent, "span_id": span_id},
            "payload": payload,
        })
    }

    /// Ends the run without an event.
    pub(super) fn settle(&mut self, status: RunStatus) {
        assert!(status.is_terminal(), "a run ends completed, failed or canceled, not {status:?}");
        self.status = status;
        self.completed_at = Some(OffsetDateTime::now_utc());
    }

    /// Ends the run and appends the terminal event; returns its sequence.
    pub(super) fn finish(&mut self, status: RunStatus) -> u64 {
        let event_type = format!("agentos.run.{}", status.as_str());
        let sequence = self.emit(&event_type, json!({"status": status.as_str()}));
        self.settle(status);
        sequence
    }

    /// Moves the status as being asked for it does under this rule.
    pub(super) fn be_asked(&mut self, rule: StatusRule) {
        let StatusRule::Asked { running_after, completed_after } = rule else { return };
        if self.status.is_terminal() {
            return;
        }
        let age = self.born.elapsed();
        if age >= completed_after {
            self.settle(RunStatus::Completed);
        } else if age >= running_after {
            self.status = RunStatus::Running;
        }
    }

    /// The run object of the API.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "tenant_id": self.tenant_id,
            "agent_id": self.agent_id,
            "run_id": self.run_id,
            "status": self.status.as_str(),
            "created_at": rfc3339(self.created_at),
            "completed_at": self.completed_at.map(rfc3339),
            "events_url": format!("/v1/runs/{}/events", self.run_id),
            "output": null,
            "error": null,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_takes_dense_sequences_and_begins_with_its_first_event() {
        let mut run = Run::new("run_1".to_owned(), "tnt_demo", "agt_a", None);
        assert_eq!(run.status, RunStatus::Queued);
        assert_eq!(run.emit("agentos.run.step.started", json!({})), 1);
        assert_eq!(run.status, RunStatus::Running);
        run.skip_sequences(2);
        assert_eq!(run.finish(RunStatus::Failed), 4);
        let last = run.events().last().expect("a terminal event");
        assert_eq!((last.event_type.as_str(), last.is_terminal()), ("agentos.run.failed", true));
        assert!(run.to_json()["completed_at"].is_string());
    }

    #[tokio::test(start_paused = true)]
    async fn an_asked_status_moves_only_when_asked() {
        let rule = StatusRule::Asked {
            running_after: Duration::from_secs(1),
            completed_after: Duration::from_secs(5),
        };
        let mut run = Run::new("run_1".to_owned(), "tnt_demo", "agt_a", None);
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(run.status, RunStatus::Queued);
        run.be_asked(rule);
        assert_eq!(run.status, RunStatus::Completed);

        let mut run = Run::new("run_2".to_owned(), "tnt_demo", "agt_a", None);
        tokio::time::advance(Duration::from_secs(2)).await;
        run.be_asked(rule);
        assert_eq!(run.status, RunStatus::Running);
    }
}
