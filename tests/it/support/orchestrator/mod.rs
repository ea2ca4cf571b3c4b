//! A scripted orchestrator: AgentOS' Stack A on a loopback port, with a truth log and every fault the design
//! names.
//!
//! Invariant: what the truth log says is what happened, whatever a client was told. Behaviour is scripted
//! through this handle at any time; each request takes its script when it arrives. Stopping and restarting
//! loses nothing that the test did not ask to be forgotten.
//!
//! ```text
//! server ── http ──▶ creates │ statuses ──▶ reply         what a request is answered with
//!                  └▶ stream ──▶ feed ──▶ event           what a stream is made of
//! script, stream_script: what to do    truth: what was seen    runs: what exists    state: the three of them
//! ```

mod creates;
mod event;
mod feed;
mod http;
mod port;
mod reply;
mod runs;
mod script;
mod server;
mod state;
mod statuses;
mod stream;
mod stream_script;
mod truth;

#[cfg(test)]
mod tests;

use std::{net::SocketAddr, ops::RangeInclusive, sync::Arc, time::Duration};

use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use self::{
    event::{Event, GarbageFrame},
    port::HeldPort,
    runs::RunStatus,
    script::{Birth, CreateFault, Garbage, InputRule, KeyRule, PlainFault, Rules, StatusRule},
    stream_script::{
        CursorRule, EnvelopeShape, FrameId, Identity, LineEnding, Omission, StreamAnswer, StreamEnd,
        StreamScript,
    },
    truth::{CreateOutcome, CreateSeen, EventsSeen, RequestSeen, RunCreated, RunRequest, Truth},
};
use self::{script::AutoEvents, server::Server, state::Shared};

/// How long `until` waits before it gives up, and the test with it.
const PATIENCE: Duration = Duration::from_secs(20);

/// The orchestrator and the handle to script it; dropping it ends everything it does.
pub(crate) struct ScriptedOrchestrator {
    shared: Arc<Shared>,
    server: Server,
    _life: DropGuard,
}

/// Life and death.
impl ScriptedOrchestrator {
    /// A well-behaved orchestrator on 127.0.0.1, on a port of its own.
    pub(crate) async fn start() -> Self {
        let life = CancellationToken::new();
        let shared = Shared::new(life.clone());
        let server = Server::start(Arc::clone(&shared));
        Self { shared, server, _life: life.drop_guard() }
    }

    /// One that behaves as AgentOS does (see 'An orchestrator in the wild' in the design), with its real
    /// times.
    pub(crate) async fn agentos() -> Self {
        let orchestrator = Self::start().await;
        orchestrator.rules(Rules::agentos());
        orchestrator.streams(StreamScript::agentos());
        orchestrator
    }

    /// Its address, the same over all restarts.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// `http://127.0.0.1:<port>`
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// Dies as a killed process does: the listener and every connection end at once. Runs that emit by
    /// themselves go on; the port refuses connections and stays reserved.
    pub(crate) async fn stop(&self) {
        self.server.stop().await;
    }

    /// Comes back on the same port with everything it knew; stops first if it runs.
    pub(crate) async fn restart(&self) {
        self.server.restart().await;
    }

    /// Refuses new connections and closes idle ones, or accepts again. Requests being served and open streams
    /// go on.
    pub(crate) async fn refuse_connections(&self, refuse: bool) {
        if refuse {
            self.server.refuse().await;
        } else {
            self.server.accept().await;
        }
    }

    /// Breaks every open events stream, and every events request that hangs.
    pub(crate) fn cut_streams(&self) {
        self.shared.change(|state| std::mem::take(&mut state.breaker)).cancel();
    }

    /// Forgets which key named which run, as an orchestrator with a short retention does.
    pub(crate) fn forget_keys(&self) {
        self.shared.change(|state| state.book.forget_keys());
    }

    /// Forgets every run and key, as a restore from an old backup does. The truth log keeps them.
    pub(crate) fn forget_runs(&self) {
        self.shared.change(|state| state.book.forget_runs());
    }
}

/// The script.
impl ScriptedOrchestrator {
    /// The standing rules.
    pub(crate) fn rules(&self, rules: Rules) {
        self.shared.change(|state| state.script.rules = rules);
    }

    /// The faults of the next run-creates, one each, after those already waiting.
    pub(crate) fn next_creates(&self, faults: impl IntoIterator<Item = CreateFault>) {
        self.shared.change(|state| state.script.creates.next.extend(faults));
    }

    /// Drops the faults that still wait for a run-create.
    pub(crate) fn forgive_creates(&self) {
        self.shared.change(|state| state.script.creates.next.clear());
    }

    /// The fault of every run-create that finds none waiting.
    pub(crate) fn creates(&self, fault: CreateFault) {
        self.shared.change(|state| state.script.creates.default = fault);
    }

    /// Lets every create go that is held now.
    pub(crate) fn release_creates(&self) {
        self.shared.change(|state| std::mem::take(&mut state.gate)).cancel();
    }

    /// The faults of the next status requests, one each.
    pub(crate) fn next_statuses(&self, faults: impl IntoIterator<Item = PlainFault>) {
        self.shared.change(|state| state.script.statuses.next.extend(faults));
    }

    /// The fault of every status request that finds none waiting.
    pub(crate) fn statuses(&self, fault: PlainFault) {
        self.shared.change(|state| state.script.statuses.default = fault);
    }

    /// The faults of the next cancel requests, one each.
    pub(crate) fn next_cancels(&self, faults: impl IntoIterator<Item = PlainFault>) {
        self.shared.change(|state| state.script.cancels.next.extend(faults));
    }

    /// The scripts of the next events requests, one each, of whatever run: how something happens once.
    pub(crate) fn next_streams(&self, scripts: impl IntoIterator<Item = StreamScript>) {
        self.shared.change(|state| state.script.streams.next.extend(scripts));
    }

    /// The script of every events request that finds none waiting: how something happens each time.
    pub(crate) fn streams(&self, script: StreamScript) {
        self.shared.change(|state| state.script.streams.default = script);
    }

    /// The script of every events request for this run, before all others.
    pub(crate) fn streams_of(&self, run_id: &str, script: StreamScript) {
        self.shared.change(|state| state.script.streams_of.insert(run_id.to_owned(), script));
    }

    /// Lets each run created from now on emit this many steps and then complete, one event per interval; with
    /// no interval all of it happens within the create.
    pub(crate) fn auto_events(&self, count: usize, interval: Duration) {
        self.shared.change(|state| state.script.auto = Some(AutoEvents { count, interval }));
    }
}

/// What runs do. Each call is visible to streams as one piece; an unknown run is a panic.
impl ScriptedOrchestrator {
    /// Appends an event; returns its sequence.
    pub(crate) fn emit(&self, run_id: &str, event_type: &str, payload: Value) -> u64 {
        self.shared.change(|state| state.book.known(run_id).emit(event_type, payload))
    }

    /// Appends this many steps at once; returns their sequences.
    pub(crate) fn emit_steps(&self, run_id: &str, count: usize) -> RangeInclusive<u64> {
        self.shared.change(|state| {
            let run = state.book.known(run_id);
            let first = run.next_sequence();
            (0..count).for_each(|step| {
                run.emit_step(step);
            });
            first..=run.next_sequence() - 1
        })
    }

    /// Appends an event object as it stands, byte for byte, under the sequence and id it names; returns the
    /// sequence.
    pub(crate) fn emit_event(&self, run_id: &str, text: &str) -> u64 {
        self.shared.change(|state| state.book.known(run_id).append(Event::from_text(text)))
    }

    /// Appends bytes to the stream that are no event.
    pub(crate) fn emit_raw(&self, run_id: &str, bytes: impl Into<Vec<u8>>) {
        self.shared.change(|state| state.book.known(run_id).append_raw(bytes.into()));
    }

    /// Appends a frame that is no event.
    pub(crate) fn emit_garbage(&self, run_id: &str, garbage: GarbageFrame) {
        self.shared.change(|state| {
            let run = state.book.known(run_id);
            run.append_raw(garbage.to_bytes(run, run.next_sequence()));
        });
    }

    /// Leaves this many sequences unused: a hole that nothing will fill.
    pub(crate) fn skip_sequences(&self, run_id: &str, count: u64) {
        self.shared.change(|state| state.book.known(run_id).skip_sequences(count));
    }

    /// Ends the run with its terminal event; returns the sequence.
    pub(crate) fn finish(&self, run_id: &str, status: RunStatus) -> u64 {
        self.shared.change(|state| state.book.known(run_id).finish(status))
    }

    /// Ends the run without an event: only a status request tells.
    pub(crate) fn finish_silently(&self, run_id: &str, status: RunStatus) {
        self.shared.change(|state| state.book.known(run_id).settle(status));
    }
}

/// What really is.
impl ScriptedOrchestrator {
    /// The truth log as it is now.
    pub(crate) fn truth(&self) -> Truth {
        self.shared.look(|state| state.truth.clone())
    }

    /// The run's events as their home holds them, in the order of appending.
    pub(crate) fn events(&self, run_id: &str) -> Vec<Event> {
        self.shared
            .look(|state| state.book.find(run_id).map_or(Vec::new(), |run| run.events().cloned().collect()))
    }

    /// The run's status, as last told or asked; `None` when there is no such run.
    pub(crate) fn find_status(&self, run_id: &str) -> Option<RunStatus> {
        self.shared.look(|state| state.book.find(run_id).map(|run| run.status))
    }

    /// Waits until the truth log is so; panics with it after 20 s.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Truth) -> bool) -> Truth {
        let mut changes = self.shared.changes();
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                changes.mark_unchanged();
                if let Some(truth) =
                    self.shared.look(|state| holds(&state.truth).then(|| state.truth.clone()))
                {
                    return truth;
                }
                changes.changed().await.expect("the orchestrator outlives its waiters");
            }
        });
        match waited.await {
            Ok(truth) => truth,
            Err(_) => panic!("waited {PATIENCE:?} in vain for {what}: {:#?}", self.truth()),
        }
    }

    /// The id of the first run ever created, once it is.
    pub(crate) async fn first_run(&self) -> String {
        let truth = self.until("a first run", |truth| !truth.runs_created().is_empty()).await;
        truth.runs_created()[0].run_id.clone()
    }
}
