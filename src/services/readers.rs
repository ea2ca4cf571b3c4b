//! Which runs are being read, at whom, and how that goes: one entry per reader, gone with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::doing::Mishap;
use crate::domain::id::PeerId;
use crate::domain::stream::StreamNo;

/// The readers of one gateway.
#[derive(Debug, Default)]
pub(super) struct Readers {
    by_stream: Mutex<HashMap<StreamNo, One>>,
}

/// One reader.
#[derive(Debug)]
struct One {
    peer: PeerId,
    /// It has a place among the peer's streams.
    is_placed: bool,
    /// Its stream is open.
    is_open: bool,
    /// Since when its connections fail, and why the last one did.
    failing: Option<Mishap>,
}

/// The readers at one peer, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReaderCounts {
    /// Unfinished runs that are read there.
    pub running: usize,
    /// Those with a place among the peer's streams now.
    pub placed: usize,
    /// Those whose last connection failed, and that have no other open.
    pub failing: usize,
    /// Since when the oldest of these fails, in milliseconds since the Unix epoch.
    pub failing_since_ms: Option<i64>,
    /// Why that one's last connection failed.
    pub last_error: Option<String>,
}

impl Readers {
    /// Begins an entry; false when the stream has a reader.
    pub(super) fn begin(&self, stream_no: StreamNo, peer: &PeerId) -> bool {
        let one = One { peer: peer.clone(), is_placed: false, is_open: false, failing: None };
        match self.lock().entry(stream_no) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(one);
                true
            }
        }
    }

    /// The reader is gone.
    pub(super) fn end(&self, stream_no: StreamNo) {
        self.lock().remove(&stream_no);
    }

    /// The reader has a place, or gave it back.
    pub(super) fn set_placed(&self, stream_no: StreamNo, is_placed: bool) {
        if let Some(one) = self.lock().get_mut(&stream_no) {
            (one.is_placed, one.is_open) = (is_placed, false);
        }
    }

    /// The reader's stream is open. What failed before is forgotten once it brings something.
    pub(super) fn opened(&self, stream_no: StreamNo) {
        if let Some(one) = self.lock().get_mut(&stream_no) {
            one.is_open = true;
        }
    }

    /// Whether a stream's reader has a place; `None` without a reader.
    pub(super) fn is_placed(&self, stream_no: StreamNo) -> Option<bool> {
        self.lock().get(&stream_no).map(|one| one.is_placed)
    }

    /// A connection came to nothing.
    pub(super) fn failed(&self, stream_no: StreamNo, reason: &str, now_ms: i64) {
        if let Some(one) = self.lock().get_mut(&stream_no) {
            let at_ms = one.failing.as_ref().map_or(now_ms, |failing| failing.at_ms);
            one.failing = Some(Mishap { at_ms, reason: reason.to_owned() });
        }
    }

    /// The home answered as it should.
    pub(super) fn recovered(&self, stream_no: StreamNo) {
        if let Some(one) = self.lock().get_mut(&stream_no) {
            one.failing = None;
        }
    }

    /// How the readers are doing, by peer; a peer without any is left out.
    pub(super) fn counts(&self) -> BTreeMap<PeerId, ReaderCounts> {
        let mut counts: BTreeMap<PeerId, ReaderCounts> = BTreeMap::new();
        for one in self.lock().values() {
            if !counts.contains_key(&one.peer) {
                counts.insert(one.peer.clone(), ReaderCounts::default());
            }
            let Some(of_peer) = counts.get_mut(&one.peer) else { continue };
            of_peer.running += 1;
            of_peer.placed += usize::from(one.is_placed);
            let Some(failing) = one.failing.as_ref().filter(|_| !one.is_open) else { continue };
            of_peer.failing += 1;
            if of_peer.failing_since_ms.is_none_or(|since| failing.at_ms < since) {
                of_peer.failing_since_ms = Some(failing.at_ms);
                of_peer.last_error = Some(failing.reason.clone());
            }
        }
        counts
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamNo, One>> {
        self.by_stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // M-03
    #[test]
    fn the_oldest_failure_of_a_peers_readers_is_the_one_that_is_told() {
        let (near, far) =
            (PeerId::parse("stk_near").expect("an id"), PeerId::parse("stk_far").expect("an id"));
        let (no, readers) = (StreamNo::new, Readers::default());
        assert!(readers.begin(no(1), &near) && readers.begin(no(2), &near) && readers.begin(no(3), &far));
        assert!(!readers.begin(no(1), &far), "one stream has one reader");
        readers.set_placed(no(1), true);
        readers.failed(no(2), "refused", 20);
        readers.failed(no(1), "cut", 10);
        readers.failed(no(1), "cut again", 30);
        let of_near = readers.counts().remove(&near).expect("counted");
        assert_eq!((of_near.running, of_near.placed, of_near.failing), (2, 1, 2));
        assert_eq!((of_near.failing_since_ms, of_near.last_error.as_deref()), (Some(10), Some("cut again")));
        readers.opened(no(1));
        assert_eq!(readers.counts()[&near].failing_since_ms, Some(20), "an open stream does not fail");
        readers.set_placed(no(1), false);
        assert_eq!(
            readers.counts()[&near].failing_since_ms,
            Some(10),
            "one that breaks at once never was well"
        );
        readers.recovered(no(1));
        assert_eq!(readers.counts()[&near].failing_since_ms, Some(20));
        assert_eq!(readers.counts()[&far], ReaderCounts { running: 1, ..ReaderCounts::default() });
        readers.end(no(3));
        assert!(!readers.counts().contains_key(&far));
    }
}
