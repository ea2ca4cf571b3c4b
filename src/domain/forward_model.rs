//! The forward state machine against every history of a small world: a disk, a gateway that may crash at
//! four points, a network that loses requests and answers, a deadline, an impatient client, an honest peer.
//!
//! The gateway's decisions are the real ones of [`super::forward`]. Everything is explored, so what holds
//! here holds for every order of up to three faults and three tries of the client.

use std::collections::{BTreeMap, BTreeSet};

use super::forward::{AttemptOutcome, ForwardState, Patience, Rules, Verdict, decide, state_after};

const FAULTS: u8 = 3;
const TRIES: u8 = 3;

/// How the gateway is built; all but the first are the ways it must not be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Design {
    /// Intent before the first byte, one key over all attempts.
    Ours,
    /// The forward is written down once the peer has answered.
    ForwardThenIndex,
    /// Each attempt makes up a key of its own.
    KeyPerAttempt,
    /// What may have left is not on disk, nor remembered from one attempt to the next.
    LastAttemptDecides,
}

/// A whole world in a value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct World {
    disk: Option<Row>,
    task: Option<Task>,
    client: Client,
    /// The keys under which the peer created a run.
    runs: BTreeSet<u8>,
    next_key: u8,
    tries: u8,
    faults: u8,
    deadline_passed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Row {
    state: u8,
    not_started: bool,
    key: u8,
}

/// The gateway's memory of the forward it is at work on; a crash takes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Task {
    attempt: u32,
    maybe_sent: bool,
    background: bool,
    key: u8,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Stage {
    /// The intent is on disk; nothing of this attempt has left.
    Ready,
    /// The peer has acted; its answer is under way.
    Answering { refused: bool },
    /// The attempt is judged; the disk does not know.
    Judged(Judged),
    /// The disk knows; the client does not.
    Settled(Heard),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Judged {
    Forwarded,
    Refused,
    NotSent,
    Unknown,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Client {
    /// Has no open request; this is the last it heard.
    Idle(Heard),
    Waiting,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Heard {
    Nothing,
    InProgress,
    Run,
    Refused,
    NotStarted,
    Unknown,
}

impl Judged {
    fn outcome(self) -> AttemptOutcome {
        match self {
            Judged::Forwarded => AttemptOutcome::Forwarded,
            Judged::Refused => AttemptOutcome::Refused,
            Judged::NotSent => AttemptOutcome::NotSent,
            Judged::Unknown => AttemptOutcome::Unknown,
        }
    }
}

impl Row {
    fn new(state: ForwardState, key: u8) -> Self {
        let at = STATES.iter().position(|known| *known == state).expect("every state is listed");
        Row { state: at as u8, not_started: false, key }
    }

    fn state(self) -> ForwardState {
        STATES[usize::from(self.state)]
    }
}

const STATES: [ForwardState; 6] = [
    ForwardState::Reserved,
    ForwardState::Sending,
    ForwardState::Unknown,
    ForwardState::Forwarded,
    ForwardState::Refused,
    ForwardState::Expired,
];

impl World {
    fn start() -> Self {
        World {
            disk: None,
            task: None,
            client: Client::Idle(Heard::Nothing),
            runs: BTreeSet::new(),
            next_key: 0,
            tries: TRIES,
            faults: FAULTS,
            deadline_passed: false,
        }
    }

    /// Every world one act away, done well or hit by one fault.
    fn steps(&self, design: Design) -> Vec<World> {
        let mut next = Vec::new();
        self.client_acts(design, &mut next);
        match self.task {
            None => self.reconciler_acts(design, &mut next),
            Some(task) => {
                self.fault(&mut next, |world| world.crash());
                self.task_acts(design, task, &mut next);
            }
        }
        if !self.deadline_passed {
            self.fault(&mut next, |world| world.deadline_passed = true);
        }
        next
    }

    fn fault(&self, next: &mut Vec<World>, change: impl FnOnce(&mut World)) {
        if self.faults > 0 {
            self.step(next, |world| {
                world.faults -= 1;
                change(world);
            });
        }
    }

    fn step(&self, next: &mut Vec<World>, change: impl FnOnce(&mut World)) {
        let mut world = self.clone();
        change(&mut world);
        next.push(world);
    }

    fn crash(&mut self) {
        self.task = None;
        if self.client == Client::Waiting {
            self.client = Client::Idle(Heard::Nothing);
        }
    }

    /// The client asks with its one key, hangs up, or comes back for what it has not been told.
    fn client_acts(&self, design: Design, next: &mut Vec<World>) {
        let Client::Idle(heard) = self.client else {
            return self.step(next, |world| world.client = Client::Idle(Heard::Nothing));
        };
        if self.tries == 0 || matches!(heard, Heard::Run | Heard::Refused) {
            return;
        }
        let known = self.disk.filter(|row| !row.not_started);
        let tell = |world: &mut World, heard| {
            world.tries -= 1;
            world.client = Client::Idle(heard);
        };
        match known.map(Row::state) {
            None if self.task.is_some() => self.step(next, |world| tell(world, Heard::InProgress)),
            None => {
                for background in [false, true] {
                    self.step(next, |world| world.begin(design, background));
                }
            }
            Some(ForwardState::Forwarded) => self.step(next, |world| tell(world, Heard::Run)),
            Some(ForwardState::Refused) => self.step(next, |world| tell(world, Heard::Refused)),
            Some(ForwardState::Expired) => self.step(next, |world| tell(world, Heard::Unknown)),
            Some(_) => self.step(next, |world| tell(world, Heard::InProgress)),
        }
    }

    fn begin(&mut self, design: Design, background: bool) {
        self.tries -= 1;
        self.deadline_passed = false;
        // Ours derives the key from the client's: a second forward under it bears the same.
        let derived = matches!(design, Design::Ours | Design::LastAttemptDecides);
        let key = if derived { 0 } else { self.mint() };
        let state = if background { ForwardState::Reserved } else { ForwardState::Sending };
        if design != Design::ForwardThenIndex {
            self.disk = Some(Row::new(state, key));
        }
        self.client = if background { Client::Idle(Heard::InProgress) } else { Client::Waiting };
        // A background task marks the forward as sending in an act of its own.
        if !background || design == Design::ForwardThenIndex {
            self.task = Some(Task { attempt: 1, maybe_sent: false, background, key, stage: Stage::Ready });
        }
    }

    fn mint(&mut self) -> u8 {
        self.next_key += 1;
        self.next_key
    }

    /// Takes up what is on disk and not at rest.
    fn reconciler_acts(&self, design: Design, next: &mut Vec<World>) {
        let Some(row) = self.disk.filter(|row| !row.state().is_at_rest()) else { return };
        self.step(next, |world| {
            let maybe_sent = row.state().may_have_left() && design != Design::LastAttemptDecides;
            world.disk = Some(Row { ..Row::new(ForwardState::Sending, row.key) });
            let key = world.key_of(design, row.key);
            let task = Task { attempt: 1, maybe_sent, background: true, key, stage: Stage::Ready };
            world.task = Some(task);
        });
    }

    fn key_of(&mut self, design: Design, key: u8) -> u8 {
        if design == Design::KeyPerAttempt { self.mint() } else { key }
    }

    fn task_acts(&self, design: Design, task: Task, next: &mut Vec<World>) {
        let at = |stage| Some(Task { stage, ..task });
        match task.stage {
            Stage::Ready => {
                self.fault(next, |world| world.task = at(Stage::Judged(Judged::NotSent)));
                self.fault(next, |world| world.task = at(Stage::Judged(Judged::Unknown)));
                if self.runs.is_empty() {
                    self.step(next, |world| world.task = at(Stage::Answering { refused: true }));
                }
                self.step(next, |world| {
                    world.runs.insert(task.key);
                    world.task = at(Stage::Answering { refused: false });
                });
            }
            Stage::Answering { refused } => {
                self.fault(next, |world| world.task = at(Stage::Judged(Judged::Unknown)));
                let judged = if refused { Judged::Refused } else { Judged::Forwarded };
                self.step(next, |world| world.task = at(Stage::Judged(judged)));
            }
            Stage::Judged(judged) => self.step(next, |world| world.settle(design, task, judged)),
            Stage::Settled(heard) => self.step(next, |world| {
                world.task = None;
                if world.client == Client::Waiting {
                    world.client = Client::Idle(heard);
                }
            }),
        }
    }

    fn settle(&mut self, design: Design, task: Task, judged: Judged) {
        let outcome = judged.outcome();
        let patience = if task.background { Patience::Background } else { Patience::Caller };
        let rules = Rules { max_attempts: 2, idempotent_create: true, patience };
        let remembered = task.maybe_sent && design != Design::LastAttemptDecides;
        let maybe_exists = remembered || outcome == AttemptOutcome::Unknown;
        let verdict = decide(rules, outcome, remembered, task.attempt, !self.deadline_passed);
        if verdict == Verdict::Retry && !task.background {
            let key = self.key_of(design, task.key);
            let attempt = task.attempt + 1;
            self.task = Some(Task { attempt, maybe_sent: maybe_exists, key, stage: Stage::Ready, ..task });
            return;
        }
        let heard = match verdict {
            Verdict::Forwarded => Heard::Run,
            Verdict::Refused => Heard::Refused,
            Verdict::GiveUpNotStarted => Heard::NotStarted,
            Verdict::Reconcile | Verdict::GiveUpUnknown | Verdict::Retry => Heard::Unknown,
        };
        let not_started = verdict == Verdict::GiveUpNotStarted;
        if design != Design::ForwardThenIndex || verdict == Verdict::Forwarded {
            self.disk = Some(Row { not_started, ..Row::new(state_after(verdict, maybe_exists), task.key) });
        }
        self.task = Some(Task { stage: Stage::Settled(heard), ..task });
    }

    /// What must hold in every world.
    fn faults(&self) -> Vec<&'static str> {
        let runs = self.runs.len();
        let forgotten = self.disk.is_none_or(|row| row.not_started);
        let indexed = self.disk.is_some_and(|row| row.state() == ForwardState::Forwarded);
        let heard = |what| self.client == Client::Idle(what);
        let called_absent = heard(Heard::NotStarted) || heard(Heard::Refused);
        let checks = [
            (runs > 1, "F1: two runs for one request"),
            (runs > 0 && forgotten, "F3: a run nobody remembers"),
            (heard(Heard::Run) && !indexed, "F3: a run not indexed"),
            (runs > 0 && called_absent, "F4: a run that was called not there"),
            (runs == 0 && heard(Heard::Run), "F4: no run that was called there"),
        ];
        checks.into_iter().filter(|(holds, _)| *holds).map(|(_, what)| what).collect()
    }

    /// What must hold where nothing more can happen.
    fn find_unsettled(&self) -> Option<&'static str> {
        match self.disk.map(Row::state) {
            Some(state) if !state.is_at_rest() => Some("a forward nobody takes up"),
            Some(ForwardState::Expired) if self.runs.len() == 1 && !self.deadline_passed => {
                Some("a run given up although there was time")
            }
            _ => None,
        }
    }
}

/// Explores every history; answers how many worlds there are and what is wrong with some of them.
fn explore(design: Design) -> (usize, BTreeMap<&'static str, World>) {
    let mut seen = BTreeSet::from([World::start()]);
    let mut todo = vec![World::start()];
    let mut faults = BTreeMap::new();
    while let Some(world) = todo.pop() {
        let steps = world.steps(design);
        let unsettled = if steps.is_empty() { world.find_unsettled() } else { None };
        for fault in world.faults().into_iter().chain(unsettled) {
            faults.entry(fault).or_insert_with(|| world.clone());
        }
        for step in steps {
            if seen.insert(step.clone()) {
                todo.push(step);
            }
        }
    }
    (seen.len(), faults)
}

// F1, F3, F4, defect 6
#[test]
fn no_history_makes_two_runs_forgets_one_or_lies_about_one() {
    let (worlds, faults) = explore(Design::Ours);
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(worlds > 1000, "only {worlds} worlds were explored");
}

// F1, defect 6
#[test]
fn the_model_denounces_the_designs_of_the_origin() {
    for (design, fault) in [
        (Design::ForwardThenIndex, "F1: two runs for one request"),
        (Design::ForwardThenIndex, "F3: a run nobody remembers"),
        (Design::KeyPerAttempt, "F1: two runs for one request"),
        (Design::LastAttemptDecides, "F4: a run that was called not there"),
    ] {
        let (_, faults) = explore(design);
        assert!(faults.contains_key(fault), "{design:?} passes; found: {:?}", faults.keys());
    }
}
