//! An event that is held already is known by its id, however the ids of its run are ordered.

use std::path::Path;

use causeway::clock::Clock;
use causeway::domain::event::{Appended, Sender};
use causeway::store::Store;

use crate::log_model::{Push, entry, open, place};
use crate::support::log::{beside, number};

const EVENTS: u32 = 1000;

/// Events with these ids, as whoever gives no sequences pushes them.
async fn push(store: &Store, ids: impl IntoIterator<Item = u32>) -> Vec<Appended> {
    let event = |id| entry(0, Push { id, sequence: None, content: 0, ends: false });
    store.append_batch(Sender::Client, ids.into_iter().map(event).collect()).await.expect("a commit")
}

fn column(directory: &Path, name: &str) -> i64 {
    number(&beside(directory), &format!("SELECT {name} FROM streams"))
}

fn indexed(directory: &Path) -> i64 {
    number(&beside(directory), "SELECT count(*) FROM event_ids")
}

/// Every third of the ids from 100,000 on, so that there are others between them.
fn id(nth: u32) -> u32 {
    100_000 + 3 * nth
}

#[tokio::test]
async fn ids_that_ascend_are_found_among_the_events_and_not_indexed() {
    let directory = tempfile::tempdir().expect("a directory");
    let (clock, metrics) = (Clock::system(), Default::default());
    let mut store = open(directory.path(), &clock, &metrics).await;
    for first in (0..EVENTS).step_by(10) {
        push(&store, (first..first + 10).map(id)).await;
    }
    assert_eq!(indexed(directory.path()), 0);
    assert!(column(directory.path(), "ids_sorted_to") > i64::from(EVENTS) - 128);

    for reopened in [false, true] {
        if reopened {
            store.close().await;
            store = open(directory.path(), &clock, &metrics).await;
        }
        // From the first on, from the last, and here and there.
        let nths = (0..EVENTS).chain((0..EVENTS).rev()).chain((0..EVENTS).map(|nth| nth * 7 % EVENTS));
        let nths: Vec<u32> = nths.collect();
        let answered = push(&store, nths.iter().copied().map(id)).await;
        for (nth, answer) in nths.into_iter().zip(answered) {
            assert_eq!(answer, Appended::Duplicate(place(u64::from(nth) + 1)));
        }
    }

    // What lies between two of them is new, and from here on ids are indexed.
    let between = push(&store, (0..300).map(|nth| id(nth) + 1)).await;
    assert!(between.iter().all(|answer| matches!(answer, Appended::Stored(_))), "{between:?}");
    let (sorted_to, ids_to) = (column(directory.path(), "ids_sorted_to"), column(directory.path(), "ids_to"));
    assert_eq!(indexed(directory.path()), ids_to - sorted_to);
    assert!(sorted_to < i64::from(EVENTS) && ids_to > i64::from(EVENTS), "{sorted_to}, {ids_to}");
    let again = push(&store, (0..300).flat_map(|nth| [id(nth), id(nth) + 1])).await;
    for (at, answer) in again.into_iter().enumerate() {
        let sequence = if at % 2 == 0 { at / 2 + 1 } else { EVENTS as usize + at / 2 + 1 };
        assert_eq!(answer, Appended::Duplicate(place(sequence as u64)));
    }
    store.close().await;
}

// An event may still come into a hole, with any id: what lies around it is not searched by halves.
#[tokio::test]
async fn a_run_with_a_hole_is_indexed_though_its_ids_ascend() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), &Clock::system(), &Default::default()).await;
    let event = |id, sequence| entry(0, Push { id, sequence: Some(sequence), content: 0, ends: false });
    let all = (1..=200).filter(|nth| *nth != 20).map(|nth| event(id(nth), u64::from(nth)));
    store.append_batch(Sender::Client, all.collect()).await.expect("a commit");
    assert_eq!(column(directory.path(), "ids_sorted_to"), 0);
    assert_eq!(indexed(directory.path()), column(directory.path(), "ids_to") - 1);
    // The index knows it before its row is written.
    let late = store.append_batch(Sender::Client, vec![event(1, 20), event(1, 20)]).await.expect("a commit");
    assert_eq!(late, [Appended::Stored(place(20)), Appended::Duplicate(place(20))]);
    let answered = push(&store, [1, id(19), id(20), id(21)]).await;
    let expected = [20, 19, 201, 21].map(place);
    let [late, before, new, after] = expected;
    let expected = [
        Appended::Duplicate(late),
        Appended::Duplicate(before),
        Appended::Stored(new),
        Appended::Duplicate(after),
    ];
    assert_eq!(answered, expected);
    store.close().await;
}

#[tokio::test]
async fn a_run_that_came_out_of_order_is_indexed() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), &Clock::system(), &Default::default()).await;
    // The twelfth comes before the eleventh, and their ids are in the order in which they came.
    let event = |nth: u32| {
        let place = if nth == 10 || nth == 11 { nth ^ 1 } else { nth };
        entry(0, Push { id: id(nth), sequence: Some(u64::from(place) + 1), content: 0, ends: false })
    };
    let all = || (0..200).map(event).collect();
    let stored = store.append_batch(Sender::Client, all()).await.expect("a commit");
    assert!(stored.iter().all(|answer| matches!(answer, Appended::Stored(_))), "{stored:?}");
    let again = store.append_batch(Sender::Client, all()).await.expect("a commit");
    assert!(again.iter().all(|answer| matches!(answer, Appended::Duplicate(_))), "{again:?}");
    assert_eq!(indexed(directory.path()), column(directory.path(), "ids_to"));
    store.close().await;
}
