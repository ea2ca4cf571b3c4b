//! Pages that are read ahead of whoever takes them: in order, a few at a time, and at nobody's cost.

use std::sync::Arc;

use causeway::clock::Clock;
use causeway::domain::cursor::Cursor;
use causeway::domain::event::{Sender, Sequence};
use causeway::domain::stream::StreamNo;
use causeway::entropy::Entropy;
use causeway::metrics::Metrics;
use causeway::store::{Disk, EventRow, PageRange, Pages, Store, TailObserver};
use causeway::tasks::Tasks;
use futures_util::future::join_all;
use futures_util::poll;
use serde_json::json;
use tempfile::TempDir;

use crate::log_model::{Push, Unwatched, entry, key};
use crate::support::gateway::{TestGateway, events_path};
use crate::support::log::{event_text, last_step, push};
use crate::support::sse_client::{Frame, SseClient};

const EVENTS: u64 = 8;

/// How many pages were read before it, and its events; the last of them.
type Leaf = ((usize, Vec<u64>), Option<Sequence>);

/// A log that has one reader, and a run with [`EVENTS`] in it. Nothing is read before the test waits.
struct Shelf {
    store: Store,
    stream: StreamNo,
    _directory: TempDir,
}

impl Shelf {
    async fn open() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let heard = (Arc::new(Unwatched) as Arc<dyn TailObserver>, Arc::new(Metrics::default()));
        let (clock, entropy, tasks) = (Clock::system(), Entropy::seeded(1), Tasks::on_one_thread());
        let opened = Store::open_on(Disk::system(), directory.path(), clock, &entropy, tasks, heard).await;
        let store = opened.expect("a store");
        let push = |id: u64| Push { id: id as u32, sequence: Some(id), content: 0, ends: false };
        let batch = (1..=EVENTS).map(|id| entry(1, push(id))).collect();
        store.append_batch(Sender::Client, batch).await.expect("a commit");
        let stream = store.find_run(&key(1)).await.expect("an answer").expect("the run").stream_no;
        Shelf { store, stream, _directory: directory }
    }

    /// Pages of one event, up to an event.
    fn range(to: u64) -> PageRange {
        PageRange { after: Cursor::START, to: Cursor::at(to), max_events: 1, max_bytes: 1 << 20 }
    }

    fn read_ahead(&self, to: u64, places: usize) -> Option<Pages<Leaf>> {
        let (first, next) = ((0, Vec::new()), |(number, _): &(usize, Vec<u64>)| (number + 1, Vec::new()));
        self.store.read_ahead(self.stream, Self::range(to), places, (first, next), note)
    }

    async fn read_one(&self) -> Vec<u64> {
        let page = self.store.read_events(self.stream, Self::range(EVENTS), (0, Vec::new()), note);
        page.await.expect("a page").0.1
    }
}

fn note((_, page): &mut (usize, Vec<u64>), row: EventRow<'_>) {
    page.push(row.sequence.get());
}

/// Takes pages until there are no more; each has a number and one event.
async fn take(pages: &mut Pages<Leaf>) -> Vec<(usize, u64)> {
    let mut taken = Vec::new();
    while let Some(page) = pages.recv().await {
        let ((number, events), last) = page.expect("a page");
        assert_eq!(events, [last.expect("an event").get()]);
        taken.push((number, events[0]));
    }
    taken
}

/// Lets everything run that can.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn pages_come_one_after_the_other_up_to_the_end_that_was_asked_for() {
    let shelf = Shelf::open().await;
    let mut pages = shelf.read_ahead(5, 100).expect("a reader");
    assert_eq!(take(&mut pages).await, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]);
}

#[tokio::test]
async fn no_more_pages_are_read_than_have_a_place_and_the_reader_is_free_again() {
    let shelf = Shelf::open().await;
    let mut pages = shelf.read_ahead(EVENTS, 3).expect("a reader");
    assert!(shelf.read_ahead(EVENTS, 3).is_none(), "the only reader is taken");
    settle().await;
    assert_eq!((pages.len(), pages.is_closed()), (3, true));
    assert_eq!(shelf.read_one().await, [1]);
    assert_eq!(take(&mut pages).await, [(0, 1), (1, 2), (2, 3)]);
}

#[tokio::test]
async fn whoever_waits_for_the_reader_has_it_after_the_page_that_is_being_read() {
    let shelf = Shelf::open().await;
    let mut pages = shelf.read_ahead(EVENTS, 100).expect("a reader");
    let mut other = Box::pin(shelf.read_one());
    assert!(poll!(&mut other).is_pending());
    assert_eq!(other.await, [1]);
    assert_eq!(take(&mut pages).await, [(0, 1)]);
}

#[tokio::test]
async fn pages_that_nobody_takes_any_more_are_not_read() {
    let shelf = Shelf::open().await;
    drop(shelf.read_ahead(EVENTS, 100).expect("a reader"));
    settle().await;
    assert!(shelf.read_ahead(EVENTS, 100).is_some(), "the reader reads for nobody");
}

// L6: more followers than readers, each with many pages before it.
#[tokio::test]
async fn however_many_read_a_long_run_at_once_each_has_all_of_it_in_order() {
    const LONG: u64 = 60;
    let gateway = TestGateway::start(vec![]).await;
    let filling = json!({ "data": "x".repeat(60_000) }).to_string();
    for sequence in 1..LONG {
        let event = event_text("run_long", &format!("evt_{sequence}"), &sequence.to_string(), &filling);
        assert_eq!(push(&gateway, &[event]).await.status, 200);
    }
    assert_eq!(push(&gateway, &[last_step("run_long", LONG)]).await.status, 200);
    let followers = (0..9).map(async |_| {
        let mut stream = SseClient::connect(gateway.address(), &events_path("run_long"), &[]).await;
        let frames = stream.collect_until_end().await;
        frames.iter().filter(|frame| frame.is_event()).map(Frame::sequence).collect::<Vec<_>>()
    });
    for read in join_all(followers).await {
        assert_eq!(read, (1..=LONG).collect::<Vec<_>>());
    }
}
