//! The runs of the built-in orchestrator, in memory.
//!
//! Invariants: the events of a run have sequences 1, 2, 3, … without a hole, and none follows the one that ends it;
//! one key of one tenant makes one run.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::clock::{Clock, rfc3339};
use crate::domain::id::{AgentId, TenantId};
use crate::domain::run::RunStatus;
use crate::entropy::Entropy;

/// Runs kept; beyond, the oldest finished one is forgotten, and when none is finished no run is taken.
pub(super) const MOST_RUNS: usize = 1000;

/// All runs.
pub(super) struct RunBook {
    clock: Clock,
    entropy: Entropy,
    most_runs: usize,
    book: Mutex<Book>,
}

/// A run that is asked for.
pub(super) struct NewRun {
    /// Whose it is.
    pub(super) tenant: TenantId,
    /// Who is to run.
    pub(super) agent: AgentId,
    /// The caller's key.
    pub(super) key: Option<String>,
    /// What the request means; repeats of the key must agree on it.
    pub(super) meaning: Vec<u8>,
    /// What the agent gets.
    pub(super) input: Value,
    /// Trace context the run belongs to.
    pub(super) traceparent: Option<String>,
}

/// What came of asking for a run.
pub(super) enum Creation {
    /// It is new, and nothing has happened in it yet.
    New(Arc<Run>),
    /// The key made it before.
    Known(Arc<Run>),
    /// The key made another one before.
    KeyReused,
    /// No more can be kept.
    Full,
}

/// One run.
pub(super) struct Run {
    /// What was asked for.
    pub(super) asked: NewRun,
    /// Its id.
    pub(super) run_id: String,
    created_ms: i64,
    clock: Clock,
    entropy: Entropy,
    progress: Mutex<Progress>,
    /// How many events there are.
    moved: watch::Sender<u64>,
}

#[derive(Default)]
struct Book {
    runs: HashMap<String, Arc<Run>>,
    /// Oldest first.
    order: VecDeque<String>,
    keys: HashMap<(TenantId, String), String>,
}

struct Progress {
    status: RunStatus,
    started_ms: Option<i64>,
    completed_ms: Option<i64>,
    output: Value,
    /// Event `n` is at `n - 1`.
    events: Vec<Bytes>,
}

impl RunBook {
    /// A book that keeps that many runs.
    pub(super) fn new(clock: Clock, entropy: Entropy, most_runs: usize) -> Self {
        RunBook { clock, entropy, most_runs, book: Mutex::default() }
    }

    /// Makes a run, or finds the one its key made.
    pub(super) fn create(&self, asked: NewRun) -> Creation {
        let mut book = lock(&self.book);
        let known = asked.key.as_ref().and_then(|key| book.keys.get(&(asked.tenant.clone(), key.clone())));
        if let Some(run) = known.and_then(|run_id| book.runs.get(run_id)) {
            let same = run.asked.meaning == asked.meaning && run.asked.agent == asked.agent;
            return if same { Creation::Known(Arc::clone(run)) } else { Creation::KeyReused };
        }
        if !book.make_room(self.most_runs) {
            return Creation::Full;
        }
        let run = Arc::new(Run::new(asked, &self.clock, &self.entropy));
        run.append(
            "agentos.run.created",
            None,
            json!({"agent_id": run.asked.agent, "input": run.asked.input}),
        );
        book.keep(&run);
        Creation::New(run)
    }

    /// A tenant's run.
    pub(super) fn find(&self, tenant: &TenantId, run_id: &str) -> Option<Arc<Run>> {
        lock(&self.book).runs.get(run_id).filter(|run| run.asked.tenant == *tenant).cloned()
    }
}

impl Book {
    fn keep(&mut self, run: &Arc<Run>) {
        if let Some(key) = &run.asked.key {
            self.keys.insert((run.asked.tenant.clone(), key.clone()), run.run_id.clone());
        }
        self.order.push_back(run.run_id.clone());
        self.runs.insert(run.run_id.clone(), Arc::clone(run));
    }

    /// Forgets the oldest finished run when there are too many; answers whether there is room now.
    fn make_room(&mut self, most_runs: usize) -> bool {
        if self.runs.len() < most_runs {
            return true;
        }
        let finished = |run_id: &String| self.runs.get(run_id).is_some_and(|run| run.is_finished());
        let Some(oldest) = self.order.iter().position(finished) else { return false };
        let forgotten = self.order.remove(oldest).and_then(|run_id| self.runs.remove(&run_id));
        if let Some(run) = forgotten
            && let Some(key) = &run.asked.key
        {
            self.keys.remove(&(run.asked.tenant.clone(), key.clone()));
        }
        true
    }
}

impl Run {
    fn new(asked: NewRun, clock: &Clock, entropy: &Entropy) -> Self {
        let created_ms = clock.now_ms();
        let progress = Progress {
            status: RunStatus::Queued,
            started_ms: None,
            completed_ms: None,
            output: Value::Null,
            events: Vec::new(),
        };
        Run {
            run_id: entropy.id("run", created_ms),
            asked,
            created_ms,
            clock: clock.clone(),
            entropy: entropy.clone(),
            progress: Mutex::new(progress),
            moved: watch::Sender::new(0),
        }
    }

    /// Appends an event; false when the run is finished and nothing more can happen in it.
    pub(super) fn append(&self, kind: &str, step: Option<&str>, payload: Value) -> bool {
        let mut progress = lock(&self.progress);
        if progress.status.is_finished() {
            return false;
        }
        let now_ms = self.clock.now_ms();
        if let Some(status) = RunStatus::from_terminal_event_type(kind) {
            progress.status = status;
            progress.completed_ms = Some(now_ms);
            progress.output = payload.get("output").cloned().unwrap_or(Value::Null);
        } else if !progress.events.is_empty() {
            progress.status = RunStatus::Running;
            progress.started_ms.get_or_insert(now_ms);
        }
        let sequence = progress.events.len() as u64 + 1;
        let event = self.event(sequence, now_ms, kind, step, payload);
        progress.events.push(Bytes::from(event.to_string()));
        drop(progress);
        self.moved.send_replace(sequence);
        true
    }

    fn event(&self, sequence: u64, now_ms: i64, kind: &str, step: Option<&str>, payload: Value) -> Value {
        let mut event = json!({
            "event_id": self.entropy.id("evt", now_ms),
            "sequence": sequence,
            "time": rfc3339(now_ms),
            "type": kind,
            "tenant_id": self.asked.tenant,
            "agent_id": self.asked.agent,
            "run_id": self.run_id,
            "payload": payload,
        });
        if let Some(step) = step {
            event["step_id"] = step.into();
        }
        if let Some(traceparent) = &self.asked.traceparent {
            event["trace"] = json!({"traceparent": traceparent});
        }
        event
    }

    /// The events after a sequence, each with its own, and whether the last of all is among or before them.
    pub(super) fn events_after(&self, cursor: u64) -> (Vec<(u64, Bytes)>, bool) {
        let progress = lock(&self.progress);
        let from = usize::try_from(cursor).unwrap_or(usize::MAX);
        let events = (1..).zip(&progress.events).skip(from).map(|(sequence, json)| (sequence, json.clone()));
        (events.collect(), progress.status.is_finished())
    }

    /// Moves whenever there are more events.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// How far it has come.
    pub(super) fn status(&self) -> RunStatus {
        lock(&self.progress).status
    }

    fn is_finished(&self) -> bool {
        self.status().is_finished()
    }

    /// The run as the API shows it.
    pub(super) fn to_json(&self) -> Value {
        let progress = lock(&self.progress);
        let mut run = json!({
            "tenant_id": self.asked.tenant,
            "agent_id": self.asked.agent,
            "run_id": self.run_id,
            "status": progress.status.as_str(),
            "created_at": rfc3339(self.created_ms),
            "events_url": format!("/v1/runs/{}/events", self.run_id),
            "output": progress.output,
            "error": null,
        });
        for (name, at) in [("started_at", progress.started_ms), ("completed_at", progress.completed_ms)] {
            if let Some(at) = at {
                run[name] = rfc3339(at).into();
            }
        }
        run
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(most_runs: usize) -> RunBook {
        RunBook::new(Clock::manual(1000), Entropy::seeded(1), most_runs)
    }

    fn asked(key: Option<&str>, meaning: &str) -> NewRun {
        NewRun {
            tenant: TenantId::parse("t").expect("an id"),
            agent: AgentId::parse("a").expect("an id"),
            key: key.map(str::to_owned),
            meaning: meaning.into(),
            input: Value::Null,
            traceparent: None,
        }
    }

    fn made(creation: Creation) -> Arc<Run> {
        match creation {
            Creation::New(run) => run,
            _ => panic!("a new run"),
        }
    }

    #[tokio::test]
    async fn one_key_makes_one_run() {
        let book = book(9);
        let run = made(book.create(asked(Some("k"), "x")));
        assert!(
            matches!(book.create(asked(Some("k"), "x")), Creation::Known(same) if same.run_id == run.run_id)
        );
        assert!(matches!(book.create(asked(Some("k"), "y")), Creation::KeyReused));
        let other = made(book.create(asked(None, "x")));
        assert_ne!(other.run_id, run.run_id);
        assert!(book.find(&TenantId::parse("other").expect("an id"), &run.run_id).is_none());
    }

    #[tokio::test]
    async fn nothing_follows_the_end() {
        let run = made(book(9).create(asked(None, "x")));
        assert!(run.append("agentos.run.step.started", Some("s"), json!({})));
        assert_eq!(run.status(), RunStatus::Running);
        assert!(run.append("agentos.run.completed", None, json!({"output": 7})));
        assert!(!run.append("agentos.run.canceled", None, json!({})));
        let (events, finished) = run.events_after(1);
        assert_eq!(events.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), [2, 3]);
        assert!(finished);
        assert_eq!(run.to_json()["output"], 7);
        assert_eq!(run.events_after(u64::MAX).0, []);
    }

    #[tokio::test]
    async fn the_oldest_finished_run_gives_way() {
        let book = book(2);
        let (first, second) = (made(book.create(asked(Some("k"), "1"))), made(book.create(asked(None, "2"))));
        assert!(matches!(book.create(asked(None, "3")), Creation::Full));
        second.append("agentos.run.failed", None, json!({}));
        let third = made(book.create(asked(None, "3")));
        assert!(book.find(&second.asked.tenant, &second.run_id).is_none());
        assert!(book.find(&first.asked.tenant, &first.run_id).is_some());
        first.append("agentos.run.failed", None, json!({}));
        third.append("agentos.run.failed", None, json!({}));
        // With the run its key is forgotten.
        let _ = made(book.create(asked(None, "4")));
        assert!(matches!(book.create(asked(Some("k"), "other")), Creation::New(_)));
    }
}
