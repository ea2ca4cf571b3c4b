//! A subscriber that wants every event of a run exactly once, across any number of disconnects.
//!
//! Invariant: what it has recorded is strictly increasing and without duplicate, and every sequence missing
//! in it was announced by a `gap` frame. It behaves as EventSource does: the URL stays, only `Last-Event-ID`
//! moves.

use std::{collections::HashSet, io, net::SocketAddr, ops::RangeInclusive, time::Duration};

use serde_json::Value;
use tokio::time::Instant;

use super::{Abort, Frame, Response, Strictness, frame::shown, open};

/// How long following may take in all before it is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pause before the next try when there was no stream to be had.
const RETRY: Duration = Duration::from_millis(20);

/// The subscriber.
#[derive(Debug)]
pub(crate) struct Follower {
    addr: SocketAddr,
    path_and_query: String,
    headers: Vec<(String, String)>,
    stream: Option<Response>,
    connects: usize,
    /// The cursor, as EventSource keeps it: the sequence of the last event.
    last_event: u64,
    /// The end of what this connection accounted for: the last event, or a gap after it.
    accounted: u64,
    /// Whether this connection said `caught_up`, which it may do once.
    caught_up: bool,
    seen: Vec<Followed>,
    ids: HashSet<String>,
    gaps: Vec<Gap>,
    end: Option<RunEnd>,
}

/// One event as the subscriber saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Followed {
    /// Its sequence.
    pub(crate) sequence: u64,
    /// Its id.
    pub(crate) event_id: String,
    /// The event object, byte for byte.
    pub(crate) text: String,
}

/// A `gap` frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The missing sequences.
    pub(crate) missing: RangeInclusive<u64>,
    /// Why.
    pub(crate) reason: String,
}

/// How following came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RunEnd {
    /// An `end` frame.
    Ended {
        /// The last sequence of the run.
        sequence: u64,
        /// The status it ended with.
        status: String,
    },
    /// 204: nothing is left after the cursor.
    NothingLeft,
    /// A `stream_error` frame with this code.
    Error(String),
}

impl Follower {
    /// A follower of this stream from its beginning; nothing is sent yet.
    pub(crate) fn new(addr: SocketAddr, path_and_query: &str) -> Self {
        Self {
            addr,
            path_and_query: path_and_query.to_owned(),
            headers: Vec::new(),
            stream: None,
            connects: 0,
            last_event: 0,
            accounted: 0,
            caught_up: false,
            seen: Vec::new(),
            ids: HashSet::new(),
            gaps: Vec::new(),
            end: None,
        }
    }

    /// The same with a header on each request.
    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same as if everything up to this sequence had been seen before.
    pub(crate) fn after(mut self, sequence: u64) -> Self {
        self.last_event = sequence;
        self
    }

    /// Follows to the end, connecting as often as it takes.
    pub(crate) async fn follow_to_end(&mut self) -> RunEnd {
        self.follow_while(|follower| follower.end.is_none()).await;
        self.end.clone().expect("followed to the end")
    }

    /// Follows until this many events were seen in all; an end before that is a panic.
    pub(crate) async fn follow_events(&mut self, count: usize) -> &[Followed] {
        self.follow_while(|follower| follower.seen.len() < count && follower.end.is_none()).await;
        assert!(self.seen.len() >= count, "{:?} after {} of {count} events", self.end, self.seen.len());
        &self.seen
    }

    /// Breaks the connection, if there is one; the next call makes another.
    pub(crate) fn disconnect(&mut self, how: Abort) {
        if let Some(stream) = self.stream.take() {
            stream.abort(how);
        }
    }

    /// The events seen, in order.
    pub(crate) fn seen(&self) -> &[Followed] {
        &self.seen
    }

    /// The sequences seen, in order.
    pub(crate) fn sequences(&self) -> Vec<u64> {
        self.seen.iter().map(|event| event.sequence).collect()
    }

    /// The gaps announced, in order; one announced again after a reconnect counts once.
    pub(crate) fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// How many streams were opened.
    pub(crate) fn connects(&self) -> usize {
        self.connects
    }

    async fn follow_while(&mut self, goes_on: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while goes_on(self) {
            assert!(Instant::now() < deadline, "followed {PATIENCE:?} in vain: {self:#?}");
            let Some(stream) = &mut self.stream else {
                self.connect().await;
                continue;
            };
            match stream.try_next().await {
                Ok(Some(frame)) => self.take(&frame),
                Ok(None) | Err(_) => self.stream = None,
            }
        }
    }

    async fn connect(&mut self) {
        let last = self.last_event.to_string();
        let mut headers: Vec<(&str, &str)> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if self.last_event > 0 {
            headers.push(("Last-Event-ID", &last));
        }
        match open(self.addr, &self.path_and_query, &headers, Strictness::Contract).await {
            Ok(stream) if stream.status == 200 => {
                self.connects += 1;
                self.accounted = self.last_event;
                self.caught_up = false;
                self.stream = Some(stream);
            }
            Ok(stream) if stream.status == 204 => self.end = Some(RunEnd::NothingLeft),
            Ok(stream) if stream.status < 500 && stream.status != 429 => {
                let (status, path) = (stream.status, &self.path_and_query);
                panic!("{status} for {path} after {last}: {}", shown(&stream.body().await));
            }
            Err(io::ErrorKind::TimedOut) => panic!("no answer to {} after {last}", self.path_and_query),
            Ok(_) | Err(_) => tokio::time::sleep(RETRY).await,
        }
    }

    fn take(&mut self, frame: &Frame) {
        let text = |value: &Value| value.as_str().expect("the contract says text").to_owned();
        let number = |value: &Value| value.as_u64().expect("the contract says a number");
        let data = &frame.data;
        match frame.event.as_deref() {
            Some("agentos.event") => self.take_event(frame),
            Some("caught_up") => {
                assert!(!self.caught_up, "caught_up twice in one stream");
                self.caught_up = true;
            }
            Some("gap") => {
                let missing = number(&data["from_sequence"])..=number(&data["to_sequence"]);
                assert_eq!(*missing.start(), self.accounted + 1, "a gap that does not follow");
                assert!(!missing.is_empty(), "a gap of nothing: {missing:?}");
                self.accounted = *missing.end();
                let gap = Gap { missing, reason: text(&data["reason"]) };
                if self.gaps.last() != Some(&gap) {
                    self.gaps.push(gap);
                }
            }
            Some("end") => {
                let sequence = number(&data["sequence"]);
                assert_eq!(sequence, self.accounted, "the end is not after the last event");
                self.end = Some(RunEnd::Ended { sequence, status: text(&data["status"]) });
            }
            Some("stream_error") => self.end = Some(RunEnd::Error(text(&data["error"]["code"]))),
            _ => {}
        }
    }

    fn take_event(&mut self, frame: &Frame) {
        let sequence = frame.sequence();
        let accounted = self.accounted;
        assert!(sequence > accounted, "{sequence} after {accounted}: a duplicate or a reordering");
        assert_eq!(sequence, accounted + 1, "a silent hole after {accounted}");
        let event_id = frame.data["event"]["event_id"].as_str().expect("an event has an id").to_owned();
        assert!(self.ids.insert(event_id.clone()), "{event_id} twice, now as {sequence}");
        self.last_event = sequence;
        self.accounted = sequence;
        self.seen.push(Followed { sequence, event_id, text: frame.event_text() });
    }
}
