//! Each check, on histories that are broken in the one way it is for, and on the same one when it is sound.

use super::*;

/// A history out of these, one microsecond apart.
fn history(whats: impl IntoIterator<Item = What>) -> Vec<Entry> {
    whats.into_iter().enumerate().map(|(at, what)| Entry { at: at as u64, what }).collect()
}

fn g() -> String {
    "a".to_owned()
}

fn seen(sequence: u64, id: &str) -> Seen {
    Seen { run: "run_1".to_owned(), sequence, id: id.to_owned(), digest: 1 }
}

fn opened(after: u64) -> What {
    What::Opened { reader: 1, gateway: g(), run: "run_1".to_owned(), after }
}

fn saw(sequence: u64, id: &str) -> What {
    What::Saw { reader: 1, gateway: g(), seen: seen(sequence, id) }
}

fn held(sequence: u64, id: &str) -> What {
    What::Held { gateway: g(), seen: seen(sequence, id) }
}

fn push(id: &str) -> What {
    let request = Request::Push { run: "run_1".to_owned(), id: id.to_owned() };
    What::Asked { operation: 1, gateway: g(), request }
}

fn create() -> What {
    What::Asked { operation: 2, gateway: g(), request: Request::Create { key: "k".to_owned() } }
}

fn made(run: &str) -> What {
    What::Made { home: "orc".to_owned(), key: "k".to_owned(), run: run.to_owned() }
}

fn answered(operation: u64, outcome: Outcome, run: Option<&str>, sequence: Option<u64>) -> What {
    let run = run.map(str::to_owned);
    What::Answered { operation, outcome, run, sequence, said: "it".to_owned() }
}

fn indexed(remote: &str) -> What {
    What::Indexed { gateway: g(), run: remote.to_owned(), remote: remote.to_owned() }
}

fn truth(sequence: u64, id: &str) -> What {
    What::True { home: "orc".to_owned(), seen: seen(sequence, id) }
}

fn gap(from: u64, to: u64) -> What {
    What::Gap { reader: 1, from, to, reason: "retention".to_owned() }
}

fn ended(sequence: u64) -> What {
    What::Ended { reader: 1, gateway: g(), run: "run_1".to_owned(), sequence }
}

fn restore(between: What) -> [What; 3] {
    [What::BackedUp { gateway: g() }, between, What::Restored { gateway: g() }]
}

#[track_caller]
fn sound(check: fn(&[Entry]) -> Vec<String>, whats: impl IntoIterator<Item = What>) {
    assert_eq!(check(&history(whats)), Vec::<String>::new());
}

#[track_caller]
fn broken(check: fn(&[Entry]) -> Vec<String>, whats: impl IntoIterator<Item = What>) {
    assert_eq!(check(&history(whats)).len(), 1);
}

#[test]
fn a_lost_acknowledged_event_is_found() {
    let acknowledged = || [push("e1"), answered(1, Outcome::Ok, None, Some(1))];
    let check = acknowledged_is_stored;
    sound(check, acknowledged().into_iter().chain([held(1, "e1")]));
    broken(check, acknowledged());
    broken(check, acknowledged().into_iter().chain([held(1, "e2")]));
    sound(check, [push("e1"), answered(1, Outcome::Unknown, None, None)]);
    let floor = What::Floor { gateway: g(), run: "run_1".to_owned(), oldest: 2 };
    sound(check, acknowledged().into_iter().chain([floor]));
}

#[test]
fn a_restore_takes_only_what_came_after_the_backup() {
    let check = acknowledged_is_stored;
    let [begun, lost, over] = restore(answered(1, Outcome::Ok, None, Some(1)));
    sound(check, [begun.clone(), push("e1"), lost.clone(), over.clone()]);
    broken(check, [push("e1"), lost.clone(), begun.clone(), over.clone()]);
    broken(check, [begun, over, push("e1"), lost]);
}

#[test]
fn an_event_seen_and_gone_is_found() {
    sound(seen_is_stored, [opened(0), saw(1, "e1"), held(1, "e1")]);
    broken(seen_is_stored, [opened(0), saw(1, "e1")]);
    // Noted after the restore, seen before it.
    let [begun, seen, over] = restore(saw(1, "e1"));
    sound(seen_is_stored, [begun, opened(0), over, seen]);
}

#[test]
fn a_silent_hole_a_duplicate_and_a_false_end_are_found() {
    let check = streams_are_whole;
    sound(check, [opened(3), saw(4, "e4"), opened(4), gap(5, 6), saw(7, "e7"), ended(7)]);
    broken(check, [opened(0), saw(1, "e1"), saw(3, "e3")]);
    broken(check, [opened(0), saw(1, "e1"), saw(1, "e1")]);
    broken(check, [opened(5), saw(5, "e5")]);
    broken(check, [opened(0), gap(2, 3)]);
    broken(check, [opened(0), saw(1, "e1"), ended(2)]);
    // A run that ends before a reader's cursor is not the one it has read of.
    let refused = || What::Refused {
        reader: 1,
        gateway: g(),
        run: "run_1".to_owned(),
        after: 5,
        code: "409 cursor_ahead".to_owned(),
    };
    broken(check, [opened(5), refused()]);
    sound(check, restore(opened(5)).into_iter().chain([refused(), opened(0), saw(1, "e1"), ended(1)]));
}

#[test]
fn an_event_that_changed_or_came_twice_is_found() {
    let check = events_are_immutable;
    sound(check, [opened(0), saw(1, "e1"), held(1, "e1")]);
    broken(check, [opened(0), saw(1, "e1"), held(1, "e2")]);
    broken(check, [held(1, "e1"), held(2, "e1")]);
    let altered = Seen { digest: 2, ..seen(1, "e1") };
    broken(check, [held(1, "e1"), What::Held { gateway: g(), seen: altered }]);
    // Another log, and its own events.
    let [begun, first, over] = restore(saw(1, "e1"));
    sound(check, [opened(0), begun.clone(), first.clone(), over.clone(), held(1, "e2")]);
    broken(check, [opened(0), begun, first, over, held(1, "e2"), held(1, "e1")]);
}

#[test]
fn a_stream_that_is_not_its_homes_is_found() {
    sound(streams_are_true, [truth(1, "e1"), held(1, "e1")]);
    broken(streams_are_true, [truth(1, "e1"), truth(2, "e2"), held(1, "e1")]);
    broken(streams_are_true, [truth(1, "e1"), held(1, "e0")]);
    broken(streams_are_true, [truth(1, "e1"), held(1, "e1"), held(2, "e2")]);
}

#[test]
fn a_second_run_for_a_key_is_found() {
    let check = one_run_per_key;
    let answer = |run| answered(2, Outcome::Ok, Some(run), None);
    sound(check, [create(), made("r1"), answer("r1"), answer("r1")]);
    broken(check, [create(), made("r1"), made("r2"), answer("r1")]);
    broken(check, [create(), made("r1"), answer("r1"), answer("r2")]);
    broken(check, [create(), answer("r1")]);
}

#[test]
fn a_run_missing_in_the_index_and_a_row_without_a_run_are_found() {
    sound(index_is_truth, [create(), made("r1"), indexed("r1")]);
    broken(index_is_truth, [create(), made("r1")]);
    broken(index_is_truth, [create(), made("r1"), indexed("r1"), indexed("r1")]);
    broken(index_is_truth, [create(), made("r1"), indexed("r1"), indexed("r2")]);
    broken(index_is_truth, [made("r1"), indexed("r1")]);
    // A restore takes the row, unless the run was there before the backup or is asked for again.
    let [begun, made_meanwhile, over] = restore(made("r1"));
    sound(index_is_truth, [create(), begun.clone(), made_meanwhile.clone(), over.clone()]);
    broken(index_is_truth, [create(), made("r1"), begun.clone(), over.clone()]);
    broken(index_is_truth, [create(), begun, made_meanwhile, over, create()]);
}

#[test]
fn a_run_that_was_called_not_started_is_found() {
    let (fail, unknown) = (answered(2, Outcome::Fail, None, None), answered(2, Outcome::Unknown, None, None));
    sound(not_started_is_true, [create(), fail.clone(), made("r1")]);
    sound(not_started_is_true, [create(), made("r1"), unknown]);
    broken(not_started_is_true, [create(), made("r1"), fail.clone()]);
    let [begun, made, over] = restore(made("r1"));
    sound(not_started_is_true, [create(), begun, made, over, fail]);
}

#[test]
fn a_broken_audit_is_found() {
    let audit = |sound| What::Audit { gateway: g(), sound, said: "row 3".to_owned() };
    sound(audit_is_whole, [audit(true)]);
    broken(audit_is_whole, [audit(false)]);
}
