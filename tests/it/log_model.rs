//! The log against a plain in-memory model: whatever is appended, marked, expired and reopened, in any
//! order, both say the same, and nothing that was ever read changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use causeway::clock::Clock;
use causeway::domain::cursor::Cursor;
use causeway::domain::event::{
    Appended, ConflictKind, NewEvent, Rejection, RunKey, Sender, Sequence, StoredEvent,
};
use causeway::domain::id::{EventId, PeerId, RunId, TenantId};
use causeway::domain::run::RunStatus;
use causeway::domain::stream::{StreamNo, StreamState};
use causeway::entropy::Entropy;
use causeway::metrics::Metrics;
use causeway::store::{BatchEntry, Disk, PageRange, Placing, Quotas, ReaderBatch, Store, TailObserver};
use causeway::tasks::Tasks;
use proptest::prelude::*;
use proptest::test_runner::Config;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::log::{beside, number};

/// Nobody follows.
pub(crate) struct Unwatched;

impl TailObserver for Unwatched {
    fn is_watched(&self, _: StreamNo) -> bool {
        false
    }

    fn advanced(&self, _: StreamNo, _: StreamState, _: Vec<StoredEvent>) {}
}

/// Opens the log of a directory.
pub(crate) async fn open(directory: &Path, clock: &Clock, metrics: &Arc<Metrics>) -> Store {
    open_heard(directory, clock, (Arc::new(Unwatched), Arc::clone(metrics))).await
}

/// The same, and somebody hears what is appended.
pub(crate) async fn open_heard(
    directory: &Path,
    clock: &Clock,
    heard: (Arc<dyn TailObserver>, Arc<Metrics>),
) -> Store {
    let opened = Store::open(directory, clock.clone(), &Entropy::seeded(1), Tasks::default(), heard).await;
    opened.unwrap_or_else(|error| panic!("{error}"))
}

/// The same, where events are put in other places, or at other times.
pub(crate) async fn open_with(
    placing: Placing,
    directory: &Path,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> Store {
    let heard = (Arc::new(Unwatched) as Arc<dyn TailObserver>, Arc::clone(metrics));
    let disk = Disk::system().with_placing(placing);
    let (entropy, tasks) = (Entropy::seeded(1), Tasks::default());
    Store::open_on(disk, directory, clock.clone(), &entropy, tasks, heard).await.expect("a store")
}

/// From here on, runs of the peer whose names were taken by runs of clients.
const OF_PEER: usize = 100_000;

/// A run of the one tenant.
pub(crate) fn key(run: usize) -> RunKey {
    let tenant = TenantId::parse("tnt").expect("a tenant");
    let name = match run.checked_sub(OF_PEER) {
        Some(run) => format!("run_{run}@stk_p"),
        None => format!("run_{run}"),
    };
    RunKey { tenant, run: RunId::parse(&name).expect("a run") }
}

/// A place in a stream, which the model counts with.
pub(crate) fn place(number: u64) -> Sequence {
    Sequence::new(number).expect("a place")
}

/// An event as ingest would hand it on.
pub(crate) fn entry(run: usize, push: Push) -> BatchEntry {
    let id = format!("evt_{}", push.id);
    let mut json = json!({ "event_id": id, "payload": push.content });
    if let Some(sequence) = push.sequence {
        json["sequence"] = Value::from(sequence);
    }
    let event = NewEvent {
        event_id: EventId::parse(&id).expect("an id"),
        sequence: push.sequence.map(place),
        terminal: push.ends.then_some(RunStatus::Completed),
        starts_work: true,
        derived: false,
        json: Bytes::from(json.to_string()),
    };
    BatchEntry { key: key(run), agent: None, event }
}

/// One event of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Push {
    pub(crate) id: u32,
    pub(crate) sequence: Option<u64>,
    pub(crate) content: u8,
    pub(crate) ends: bool,
}

#[derive(Debug, Clone)]
enum Act {
    Append(bool, Vec<(usize, Push)>),
    /// By a tenant that has no room left.
    AppendTooMuch(Vec<(usize, Push)>),
    MarkGap(usize, u64, u64),
    ExpireFinished(u64),
    ExpireSurplus(u64),
    Reopen,
}

fn any_act() -> impl Strategy<Value = Act> {
    let sequence = prop_oneof![2 => Just(None), 5 => (1..14u64).prop_map(Some)];
    let id = prop_oneof![3 => 0..12u32, 1 => 955..1040u32];
    let push = (id, sequence, prop::bool::weighted(0.1), prop::bool::weighted(0.04))
        .prop_map(|(id, sequence, other, ends)| Push { id, sequence, content: other.into(), ends });
    // Mostly an id goes with its sequence, so that repeats are repeats.
    let tied =
        (1..14u32).prop_map(|id| Push { id: 100 + id, sequence: Some(id.into()), content: 0, ends: false });
    let batch = prop::collection::vec((0..3usize, prop_oneof![1 => push, 1 => tied]), 1..6);
    prop_oneof![
        1 => batch.clone().prop_map(Act::AppendTooMuch),
        12 => (prop::bool::weighted(0.25), batch).prop_map(|(by_peer, batch)| Act::Append(by_peer, batch)),
        2 => (0..3usize, 1..14u64, 0..6u64).prop_map(|(run, from, length)| Act::MarkGap(run, from, from + length)),
        1 => (0..4u64).prop_map(Act::ExpireFinished),
        1 => (4..20u64).prop_map(Act::ExpireSurplus),
        1 => Just(Act::Reopen),
    ]
}

impl Act {
    /// The same, where runs have so many events already.
    fn at_the_end_of(mut self, lengths: [u64; 3]) -> Self {
        let before = |run: usize| lengths[run].saturating_sub(7);
        match &mut self {
            Act::Append(_, batch) | Act::AppendTooMuch(batch) => {
                for (run, push) in batch {
                    push.sequence = push.sequence.map(|sequence| sequence + before(*run));
                }
            }
            Act::MarkGap(run, from, to) => {
                (*from, *to) = (*from + before(*run), *to + before(*run));
            }
            Act::ExpireSurplus(most) => *most += lengths.iter().sum::<u64>() / 2,
            Act::ExpireFinished(_) | Act::Reopen => {}
        }
        self
    }
}

#[derive(Debug, Default)]
struct ModelStream {
    of_peer: bool,
    /// Held: sequence → id and content.
    held: BTreeMap<u64, (u32, u8)>,
    oldest: u64,
    last: u64,
    known: BTreeSet<u64>,
    finished_at: Option<i64>,
}

impl ModelStream {
    fn by_id(&self, id: u32) -> Option<(u64, u8)> {
        self.held.iter().find(|(_, held)| held.0 == id).map(|(sequence, held)| (*sequence, held.1))
    }

    fn append(&mut self, by_peer: bool, push: Push, now_ms: i64) -> Appended {
        let same = |(sequence, content): (u64, u8)| {
            content == push.content && push.sequence.is_none_or(|given| given == sequence)
        };
        let held = self.by_id(push.id);
        let duplicate =
            held.filter(|held| same(*held)).map(|(sequence, _)| Appended::Duplicate(place(sequence)));
        let conflict = held.map(|(sequence, _)| Appended::Conflict(ConflictKind::EventId, place(sequence)));
        let sequence = push.sequence.unwrap_or(self.last.max(self.oldest - 1) + 1);
        let refused = if by_peer != self.of_peer {
            Some(Rejection::OriginMismatch)
        } else if push.sequence.is_none() && self.of_peer {
            Some(Rejection::SequenceRequired)
        } else if self.finished_at.is_some() && sequence > self.last {
            Some(Rejection::StreamEnded)
        } else if sequence < self.oldest {
            Some(Rejection::Expired)
        } else {
            None
        };
        if let Some(rejection) = refused {
            return duplicate.unwrap_or(Appended::Rejected(rejection));
        }
        if let Some(known) = duplicate.or(conflict) {
            return known;
        }
        if self.held.contains_key(&sequence) {
            return Appended::Conflict(ConflictKind::Sequence, place(sequence));
        }
        self.held.insert(sequence, (push.id, push.content));
        self.last = self.last.max(sequence);
        if push.ends && self.finished_at.is_none() {
            self.finished_at = Some(now_ms);
        }
        Appended::Stored(place(sequence))
    }

    fn missing(&self) -> Vec<u64> {
        (self.oldest..=self.last).filter(|sequence| !self.held.contains_key(sequence)).collect()
    }

    fn expire_below(&mut self, oldest: u64) {
        self.oldest = self.oldest.max(oldest);
        self.held = self.held.split_off(&self.oldest);
    }
}

#[derive(Default)]
struct Model {
    streams: BTreeMap<usize, ModelStream>,
    /// In the order they became known.
    order: Vec<usize>,
}

impl Model {
    fn append(&mut self, by_peer: bool, run: usize, push: Push, now_ms: i64) -> Appended {
        // A peer never adds to a run of that name that is another's: its own gets a name of its own.
        let is_taken = self.streams.get(&run).is_some_and(|stream| !stream.of_peer);
        let run = if by_peer && is_taken { run + OF_PEER } else { run };
        let order = &mut self.order;
        let stream = self.streams.entry(run).or_insert_with(|| {
            order.push(run);
            ModelStream { of_peer: by_peer, oldest: 1, ..ModelStream::default() }
        });
        stream.append(by_peer, push, now_ms)
    }

    fn expire_finished(&mut self, before_ms: i64) {
        for stream in self.streams.values_mut().filter(|s| s.finished_at.is_some_and(|at| at < before_ms)) {
            stream.expire_below(if stream.held.is_empty() { 0 } else { stream.last + 1 });
        }
    }

    /// Whole finished runs, oldest first, then the oldest events of the others.
    fn expire_surplus(&mut self, most: usize) {
        let mut order = self.order.clone();
        order.sort_by_key(|run| {
            let finished_at = self.streams[run].finished_at;
            (finished_at.is_none(), finished_at)
        });
        for run in order {
            let total: usize = self.streams.values().map(|stream| stream.held.len()).sum();
            let surplus = total.saturating_sub(most);
            let stream = self.streams.get_mut(&run).expect("known");
            if surplus == 0 || stream.held.is_empty() {
                continue;
            }
            let whole = stream.finished_at.is_some() || stream.held.len() <= surplus;
            let trimmed = stream.held.keys().nth(surplus - 1).map_or(0, |gone| gone + 1);
            stream.expire_below(if whole { stream.last + 1 } else { trimmed });
        }
    }
}

/// Every byte ever read, by run and sequence.
type Seen = HashMap<(usize, u64), Vec<u8>>;

async fn check(store: &Store, model: &Model, seen: &mut Seen) {
    for (run, stream) in &model.streams {
        let number = store.find_run(&key(*run)).await.expect("a read").expect("the run").stream_no;
        let state = store.stream_state(number).await.expect("a state");
        assert_eq!((state.oldest, state.last), (stream.oldest, stream.last), "run {run}");
        assert_eq!(state.ended, stream.finished_at.is_some());
        let holes: Vec<(u64, bool)> = state
            .holes
            .iter()
            .flat_map(|hole| (hole.from..=hole.to).map(|sequence| (sequence, hole.reason.is_some())))
            .collect();
        let missing: Vec<(u64, bool)> = stream
            .missing()
            .into_iter()
            .map(|sequence| (sequence, stream.known.contains(&sequence)))
            .collect();
        assert_eq!(holes, missing, "run {run}");
        let high_water = missing.first().map_or(stream.last.max(stream.oldest - 1), |(first, _)| first - 1);
        assert_eq!(state.high_water, high_water, "run {run}");
        let resume = missing.iter().find(|(_, known)| !known).map(|(first, _)| first - 1);
        let resume = resume.unwrap_or(stream.last.max(stream.oldest - 1));
        assert_eq!(state.resume_from().get(), resume);
        // Small pages, so that their seams are checked too.
        let (mut read, mut after) = (Vec::new(), Cursor::START);
        loop {
            let max_events = if stream.held.len() > 30 { 31 } else { 3 };
            let range = PageRange { after, to: Cursor::at(u64::MAX), max_events, max_bytes: 1 << 20 };
            let page = store.read_events(number, range, Vec::new(), |page: &mut Vec<_>, row| {
                page.push((row.sequence.get(), row.json.to_vec()));
            });
            let (page, last) = page.await.expect("a page");
            read.extend(page);
            let Some(last) = last else { break };
            after = last.cursor();
        }
        let wanted: Vec<u64> = stream.held.keys().copied().collect();
        assert_eq!(read.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), wanted, "run {run}");
        for ((sequence, json), (id, content)) in read.into_iter().zip(stream.held.values()) {
            let event: Value = serde_json::from_slice(&json).expect("JSON");
            let expected =
                json!({ "event_id": format!("evt_{id}"), "sequence": sequence, "payload": content });
            assert_eq!(event, expected);
            let before = seen.entry((*run, sequence)).or_insert_with(|| json.clone());
            assert_eq!(*before, json, "what was read once has changed");
        }
    }
}

/// Plays the acts on runs that have events already: as many as `lengths` says, and the acts are at their ends.
/// Between two times that the log is opened, events are put in their places at once, or as `placing` says.
async fn play(lengths: [u64; 3], mut placing: Placing, acts: Vec<Act>) {
    let directory = tempfile::tempdir().expect("a directory");
    let (clock, metrics) = (Clock::manual(1_000_000), Arc::new(Metrics::default()));
    let mut store = open_with(placing, directory.path(), &clock, &metrics).await;
    let (mut model, mut seen) = (Model::default(), Seen::new());
    let peer = || Sender::Peer(PeerId::parse("stk_p").expect("a peer"));
    let begun = (0..3).filter(|run| lengths[*run] > 0).map(|run| {
        let event =
            |place: u64| Push { id: 900 + place as u32, sequence: Some(place), content: 0, ends: false };
        Act::Append(false, (1..=lengths[run]).map(|place| (run, event(place))).collect())
    });
    for act in
        begun.collect::<Vec<_>>().into_iter().chain(acts.into_iter().map(|act| act.at_the_end_of(lengths)))
    {
        clock.advance(Duration::from_secs(1));
        let now_ms = clock.now_ms();
        match act {
            Act::Append(by_peer, batch) => {
                let sender = if by_peer { peer() } else { Sender::Client };
                let entries = batch.iter().map(|(run, push)| entry(*run, *push)).collect();
                let answered = store.append_batch(sender, entries).await.expect("a commit");
                let expected: Vec<Appended> =
                    batch.iter().map(|(run, push)| model.append(by_peer, *run, *push, now_ms)).collect();
                assert_eq!(answered, expected, "{batch:?}");
            }
            Act::AppendTooMuch(batch) => {
                let entries = batch.iter().map(|(run, push)| entry(*run, *push)).collect();
                let full = Quotas { stored_bytes: 1, ..Quotas::default() };
                // Refused whole; what stores nothing is answered as ever.
                let Ok(answered) = store.append_batch_within(Sender::Client, entries, full).await else {
                    continue;
                };
                let expected: Vec<Appended> =
                    batch.iter().map(|(run, push)| model.append(false, *run, *push, now_ms)).collect();
                assert_eq!(answered, expected, "{batch:?}");
            }
            Act::MarkGap(run, from, to) => {
                let Some(stream) = model.streams.get_mut(&run) else { continue };
                let missing = stream.missing();
                stream.known.extend(missing.into_iter().filter(|s| (from..=to).contains(s)));
                let number = store.find_run(&key(run)).await.expect("a read").expect("the run").stream_no;
                let batch = ReaderBatch { gaps: vec![(from, to)], ..ReaderBatch::default() };
                store.append_read(number, peer(), batch).await.expect("a commit");
            }
            Act::ExpireFinished(seconds) => {
                let before_ms = now_ms - 1000 * seconds as i64;
                while store.expire_finished(before_ms).await.expect("a sweep") > 0 {}
                model.expire_finished(before_ms);
            }
            Act::ExpireSurplus(most) => {
                while store.expire_surplus(most).await.expect("a sweep") > 0 {}
                model.expire_surplus(most as usize);
            }
            Act::Reopen => {
                store.close().await;
                drop(store);
                placing.crowd = 3 - placing.crowd;
                store = open_with(placing, directory.path(), &clock, &metrics).await;
            }
        }
        check(&store, &model, &mut seen).await;
    }
    store.close().await;
    let database = beside(directory.path());
    check_ids(&database);
    let twice = "SELECT count(*) - count(DISTINCT position) FROM events";
    assert_eq!(number(&database, twice), 0, "an event lies in one place");
}

/// Up to a place the ids of a stream ascend; from there up to another the index holds them all, and no other.
fn check_ids(database: &Connection) {
    // As `event_key` has ids that are of no usual form.
    let keyed = "CREATE TEMP VIEW keyed AS
                 SELECT position, CAST(x'00' || (CAST(json AS TEXT) ->> 'event_id') AS BLOB) AS event_key FROM events";
    database.execute_batch(keyed).expect("a view");
    let astray = "SELECT count(*) FROM keyed JOIN streams ON stream_no = position >> 32
                  LEFT JOIN event_ids USING (stream_no, event_key)
                  WHERE (position & 0xffffffff BETWEEN ids_sorted_to + 1 AND ids_to)
                      != (sequence IS position & 0xffffffff)";
    assert_eq!(number(database, astray), 0);
    let orphans = "SELECT count(*) FROM event_ids
                   WHERE NOT EXISTS (SELECT 1 FROM events WHERE position = stream_no << 32 | sequence)";
    assert_eq!(number(database, orphans), 0);
    let unsorted = "SELECT count(*) FROM
                        (SELECT event_key, lag(event_key) OVER (PARTITION BY stream_no ORDER BY position) AS before
                         FROM keyed JOIN streams ON stream_no = position >> 32
                         WHERE position & 0xffffffff <= ids_sorted_to)
                    WHERE event_key <= before";
    assert_eq!(number(database, unsorted), 0);
}

/// Where events are put: now and then, and in rows of one, of some, or of all that a unit brings.
fn any_placing() -> impl Strategy<Value = Placing> {
    let row_bytes = prop::sample::select(vec![0, 200, 64 * 1024]);
    // One unit is a crowd, or none.
    (1..20_i64, row_bytes).prop_map(|(most, row_bytes)| Placing { crowd: 1, most, row_bytes })
}

fn wait_for(play: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(play);
}

proptest! {
    #![proptest_config(Config { cases: 48, failure_persistence: None, ..Config::default() })]

    // L2, L3, L4, A-16, A-17, A-18
    #[test]
    fn the_log_says_what_a_plain_model_says(
        placing in any_placing(),
        acts in prop::collection::vec(any_act(), 1..30),
    ) {
        wait_for(play([0; 3], placing, acts));
    }
}

proptest! {
    #![proptest_config(Config { cases: 16, failure_persistence: None, ..Config::default() })]

    // The same, around the length at which the ids of a run are indexed.
    #[test]
    fn the_log_says_so_of_long_runs_too(
        lengths in prop::array::uniform3(55..140u64),
        placing in any_placing(),
        acts in prop::collection::vec(any_act(), 1..30),
    ) {
        wait_for(play(lengths, placing, acts));
    }
}
