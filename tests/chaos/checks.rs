//! What must hold of a history. Each check answers the offences it found.
//!
//! Every check is a pure function over the entries, so that a broken history can be handed to it
//! (`checks/tests.rs`): a check that finds nothing there is no check.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::history::{Entry, Outcome, Request, Seen, What};

/// A check: its name, and what it finds.
type Check = (&'static str, fn(&[Entry]) -> Vec<String>);

/// All of them.
const CHECKS: [Check; 9] = [
    ("an acknowledged event is stored (L1)", acknowledged_is_stored),
    ("what a reader saw is stored (L5)", seen_is_stored),
    ("a stream strictly increases, and tells its holes (L2, L6, L7, L8)", streams_are_whole),
    ("an event is stored once, and never changes (L3, L4)", events_are_immutable),
    ("a stored stream is its home's (L2, L6)", streams_are_true),
    ("a key makes one run (F1, F2)", one_run_per_key),
    ("the forward index is the truth (F3)", index_is_truth),
    ("what was called not started was not (F4)", not_started_is_true),
    ("the audit is whole (S3)", audit_is_whole),
];

/// Every offence against every check.
pub(crate) fn offences(entries: &[Entry]) -> Vec<String> {
    let named = |(name, check): &Check| {
        check(entries).into_iter().map(|offence| format!("{name}: {offence}")).collect::<Vec<_>>()
    };
    CHECKS.iter().flat_map(named).collect()
}

/// Panics with them.
#[track_caller]
pub(crate) fn assert_all(entries: &[Entry]) {
    let offences = offences(entries);
    let shown = offences.iter().take(20).cloned().collect::<Vec<_>>().join("\n  ");
    assert!(offences.is_empty(), "{} offences:\n  {shown}", offences.len());
}

/// The times between which what happened at a gateway is gone, and known to be.
struct Restores(HashMap<String, Vec<(u64, u64)>>);

impl Restores {
    fn of(entries: &[Entry]) -> Self {
        let (mut backed_up, mut lost) = (HashMap::new(), HashMap::<String, Vec<(u64, u64)>>::new());
        for entry in entries {
            match &entry.what {
                What::BackedUp { gateway } => {
                    backed_up.insert(gateway.clone(), entry.at);
                }
                What::Restored { gateway } => {
                    lost.entry(gateway.clone()).or_default().push((backed_up[gateway], entry.at));
                }
                _ => {}
            }
        }
        Restores(lost)
    }

    /// Whether a gateway may have forgotten what happened then.
    fn forgave(&self, gateway: &str, at: u64) -> bool {
        let spans = self.0.get(gateway).map(Vec::as_slice).unwrap_or_default();
        spans.iter().any(|(from, to)| (*from..=*to).contains(&at))
    }

    /// Whether a gateway may have forgotten what it was last asked for at `asked` and what came true at `done`.
    fn forgot(&self, gateway: &str, asked: u64, done: u64) -> bool {
        let spans = self.0.get(gateway).map(Vec::as_slice).unwrap_or_default();
        spans.iter().any(|(from, to)| done >= *from && asked <= *to)
    }

    /// When something was really that was noted at `at` and came over a connection made at `since`: no
    /// connection outlives the gateway's death, but what it brought may be noted late.
    fn really(&self, gateway: &str, since: u64, at: u64) -> u64 {
        let spans = self.0.get(gateway).map(Vec::as_slice).unwrap_or_default();
        spans.iter().map(|(_, to)| *to).find(|to| (since..at).contains(to)).unwrap_or(at)
    }

    /// Whether this gateway was restored before this time.
    fn any_before(&self, gateway: &str, at: u64) -> bool {
        self.0.get(gateway).is_some_and(|spans| spans.iter().any(|(_, restored)| *restored <= at))
    }

    /// Whether a gateway was restored after this time.
    fn any_between(&self, from: u64, to: u64) -> bool {
        self.0.values().flatten().any(|(_, at)| (from..=to).contains(at))
    }
}

/// Every event held at the end, and the floors under them.
struct Held<'a> {
    events: HashMap<(&'a str, &'a str), BTreeMap<u64, &'a Seen>>,
    floors: HashMap<(&'a str, &'a str), u64>,
}

impl<'a> Held<'a> {
    fn of(entries: &'a [Entry]) -> Self {
        let mut held = Held { events: HashMap::new(), floors: HashMap::new() };
        for entry in entries {
            match &entry.what {
                What::Held { gateway, seen } => {
                    let stream = held.events.entry((gateway.as_str(), seen.run.as_str())).or_default();
                    stream.insert(seen.sequence, seen);
                }
                What::Floor { gateway, run, oldest } => {
                    held.floors.insert((gateway.as_str(), run.as_str()), *oldest);
                }
                _ => {}
            }
        }
        held
    }

    fn is_below_floor(&self, gateway: &str, run: &str, sequence: u64) -> bool {
        self.floors.get(&(gateway, run)).is_some_and(|oldest| sequence < *oldest)
    }
}

fn acknowledged_is_stored(entries: &[Entry]) -> Vec<String> {
    let (held, restores) = (Held::of(entries), Restores::of(entries));
    let (mut asked, mut offences) = (HashMap::new(), Vec::new());
    for entry in entries {
        match &entry.what {
            What::Asked { operation, gateway, request: Request::Push { run, id } } => {
                asked.insert(*operation, (entry.at, gateway, run, id));
            }
            What::Answered { operation, outcome: Outcome::Ok, sequence: Some(sequence), .. } => {
                let Some((since, gateway, run, id)) = asked.get(operation) else { continue };
                let stream = held.events.get(&(gateway.as_str(), run.as_str()));
                let there =
                    stream.and_then(|stream| stream.get(sequence)).is_some_and(|seen| seen.id == **id);
                let at = restores.really(gateway, *since, entry.at);
                let forgiven = restores.forgave(gateway, at) || held.is_below_floor(gateway, run, *sequence);
                if !there && !forgiven {
                    offences.push(format!(
                        "{id} was acknowledged at {run}/{sequence} by {gateway} and is not there"
                    ));
                }
            }
            _ => {}
        }
    }
    offences
}

fn seen_is_stored(entries: &[Entry]) -> Vec<String> {
    let (held, restores) = (Held::of(entries), Restores::of(entries));
    let (mut opened, mut offences) = (HashMap::new(), Vec::new());
    for entry in entries {
        if let What::Opened { reader, .. } = &entry.what {
            opened.insert(*reader, entry.at);
        }
        let What::Saw { gateway, seen, reader } = &entry.what else { continue };
        let at = restores.really(gateway, opened.get(reader).copied().unwrap_or(entry.at), entry.at);
        let stream = held.events.get(&(gateway.as_str(), seen.run.as_str()));
        let there =
            stream.and_then(|stream| stream.get(&seen.sequence)).is_some_and(|held| held.id == seen.id);
        let forgiven =
            restores.forgave(gateway, at) || held.is_below_floor(gateway, &seen.run, seen.sequence);
        if !there && !forgiven {
            offences.push(format!("reader {reader} saw {seen:?} at {gateway}, which is not there"));
        }
    }
    offences
}

fn streams_are_whole(entries: &[Entry]) -> Vec<String> {
    let restores = Restores::of(entries);
    let (mut accounted, mut offences) = (HashMap::<u64, u64>::new(), Vec::new());
    for entry in entries {
        match &entry.what {
            What::Opened { reader, after, .. } => {
                accounted.insert(*reader, *after);
            }
            What::Saw { reader, seen, .. } => {
                let last = accounted.insert(*reader, seen.sequence).unwrap_or(0);
                if seen.sequence != last + 1 {
                    let kind = if seen.sequence > last { "a silent hole" } else { "a step back" };
                    offences.push(format!(
                        "reader {reader} of {}: {kind}, {last} then {}",
                        seen.run, seen.sequence
                    ));
                }
            }
            What::Gap { reader, from, to, .. } => {
                let last = accounted.insert(*reader, *to).unwrap_or(0);
                if *from != last + 1 || to < from {
                    offences.push(format!("reader {reader}: after {last} a gap of {from} to {to}"));
                }
            }
            What::Refused { reader, gateway, run, code, .. }
                if code.contains("cursor_ahead") && !restores.any_before(gateway, entry.at) =>
            {
                offences.push(format!("reader {reader} of {run}: an end before its last event"));
            }
            What::Ended { reader, run, sequence, .. } if accounted.get(reader) != Some(sequence) => {
                offences.push(format!(
                    "reader {reader} of {run}: the end at {sequence} is not after its last event"
                ));
            }
            _ => {}
        }
    }
    offences
}

fn events_are_immutable(entries: &[Entry]) -> Vec<String> {
    let restores = Restores::of(entries);
    // A restored gateway numbers anew the events pushed to it; whoever reads them is another log's reader.
    let epoch = |gateway: &str, at: u64| {
        let spans = restores.0.get(gateway).map(Vec::as_slice).unwrap_or_default();
        spans.iter().filter(|(_, restored)| *restored <= at).count()
    };
    let mut opened = HashMap::new();
    let (mut contents, mut places, mut offences) = (HashMap::new(), HashMap::new(), Vec::new());
    for entry in entries {
        let (gateway, seen, at) = match &entry.what {
            What::Opened { reader, .. } => {
                opened.insert(*reader, entry.at);
                continue;
            }
            What::Saw { gateway, seen, reader } => {
                let since = opened.get(reader).copied().unwrap_or(entry.at);
                (gateway, seen, restores.really(gateway, since, entry.at))
            }
            What::Held { gateway, seen } => (gateway, seen, entry.at),
            _ => continue,
        };
        if restores.forgave(gateway, at) {
            continue;
        }
        let log = (gateway.as_str(), epoch(gateway, at), seen.run.as_str());
        let before = *contents.entry((log, seen.sequence)).or_insert(seen);
        if (&before.id, before.digest) != (&seen.id, seen.digest) {
            offences.push(format!("{gateway} showed {before:?}, then {seen:?}"));
        }
        let place = *places.entry((log, seen.id.as_str())).or_insert(seen.sequence);
        if place != seen.sequence {
            offences.push(format!(
                "{gateway} has {} of {} at {place} and at {}",
                seen.id, seen.run, seen.sequence
            ));
        }
    }
    offences
}

fn streams_are_true(entries: &[Entry]) -> Vec<String> {
    let held = Held::of(entries);
    let mut truth = HashMap::<&str, BTreeMap<u64, &Seen>>::new();
    for entry in entries {
        if let What::True { seen, .. } = &entry.what {
            truth.entry(seen.run.as_str()).or_default().insert(seen.sequence, seen);
        }
    }
    let mut offences = Vec::new();
    for ((gateway, run), stream) in &held.events {
        let Some(home) = truth.get(run) else { continue };
        for (sequence, seen) in home {
            match stream.get(sequence) {
                Some(stored) if stored.id == seen.id => {}
                None if held.is_below_floor(gateway, run, *sequence) => {}
                other => offences
                    .push(format!("{run}/{sequence} is {} at its home, and {other:?} at {gateway}", seen.id)),
            }
        }
        for sequence in stream.keys().filter(|sequence| !home.contains_key(sequence)) {
            offences.push(format!("{gateway} holds {run}/{sequence}, which its home never had"));
        }
    }
    offences
}

fn one_run_per_key(entries: &[Entry]) -> Vec<String> {
    let (mut made, mut asked) = (BTreeMap::<&str, BTreeSet<&str>>::new(), HashMap::new());
    let mut answered = BTreeMap::<&str, BTreeSet<&str>>::new();
    let mut offences = Vec::new();
    for entry in entries {
        match &entry.what {
            What::Made { key, run, .. } => {
                made.entry(key).or_default().insert(run);
            }
            What::Asked { operation, request: Request::Create { key }, .. } => {
                asked.insert(*operation, key);
            }
            What::Answered { operation, outcome: Outcome::Ok, run: Some(run), .. } => {
                if let Some(key) = asked.get(operation) {
                    answered.entry(key).or_default().insert(run);
                }
            }
            _ => {}
        }
    }
    for (key, runs) in &made {
        if runs.len() > 1 {
            offences.push(format!("{key} made {runs:?}"));
        }
    }
    for (key, runs) in &answered {
        if runs.len() > 1 {
            offences.push(format!("{key} was answered with {runs:?}"));
        }
        if !made.contains_key(key) {
            offences.push(format!("{key} was answered with {runs:?}, and no home made a run"));
        }
    }
    offences
}

fn index_is_truth(entries: &[Entry]) -> Vec<String> {
    let restores = Restores::of(entries);
    let mut indexed = HashMap::<&str, Vec<&str>>::new();
    let (mut keys, mut made) = (HashMap::new(), Vec::new());
    for entry in entries {
        match &entry.what {
            What::Indexed { remote, run, .. } => indexed.entry(remote).or_default().push(run),
            What::Asked { gateway, request: Request::Create { key }, .. } => {
                keys.insert(key, (gateway, entry.at));
            }
            What::Made { key, run, .. } => made.push((key, run, entry.at)),
            _ => {}
        }
    }
    let homes: HashSet<&str> = made.iter().map(|(_, run, _)| run.as_str()).collect();
    let mut offences = Vec::new();
    for (key, run, at) in made {
        let rows = indexed.get(run.as_str()).map(Vec::as_slice).unwrap_or_default();
        let Some((gateway, last_asked)) = keys.get(key) else {
            offences.push(format!("nobody asked for {key}, which made {run}"));
            continue;
        };
        let forgotten = rows.is_empty() && restores.forgot(gateway, *last_asked, at);
        if rows.len() != 1 && !forgotten {
            offences.push(format!("the run {run} of {key} has these rows in the index: {rows:?}"));
        }
    }
    for (remote, rows) in indexed.iter().filter(|(remote, _)| !homes.contains(**remote)) {
        offences.push(format!("the index has {rows:?} for {remote}, which no home made"));
    }
    offences
}

fn not_started_is_true(entries: &[Entry]) -> Vec<String> {
    let restores = Restores::of(entries);
    let (mut asked, mut made) = (HashMap::new(), HashMap::<&str, u64>::new());
    let mut offences = Vec::new();
    for entry in entries {
        match &entry.what {
            What::Made { key, .. } => {
                made.entry(key).or_insert(entry.at);
            }
            What::Asked { operation, request: Request::Create { key }, .. } => {
                asked.insert(*operation, key);
            }
            What::Answered { operation, outcome: Outcome::Fail, said, .. } => {
                let Some(key) = asked.get(operation) else { continue };
                let Some(at) = made.get(key.as_str()) else { continue };
                if !restores.any_between(*at, entry.at) {
                    offences.push(format!("{key} had a run already when it was answered {said}"));
                }
            }
            _ => {}
        }
    }
    offences
}

fn audit_is_whole(entries: &[Entry]) -> Vec<String> {
    let found = |entry: &Entry| match &entry.what {
        What::Audit { gateway, sound: false, said } => Some(format!("{gateway}: {said}")),
        _ => None,
    };
    entries.iter().filter_map(found).collect()
}
