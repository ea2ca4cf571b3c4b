//! Wakes followers: the news that a stream moved, and its newest frames, encoded once for all of them.
//!
//! Live is only a wake-up. A follower reads the log; the tail buffer holds the same bytes, so that a
//! follower at the end costs no query. One that is not at the end finds nothing here and reads the log:
//! nobody is dropped and nothing is buffered without bound.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use super::frames::{Encoder, Format};
use crate::domain::cursor::Cursor;
use crate::domain::event::{Sequence, StoredEvent};
use crate::domain::limits;
use crate::domain::stream::{StreamNo, StreamState};
use crate::mutants::mutant;
use crate::store::TailObserver;

/// The streams somebody follows.
#[derive(Default)]
pub struct Hub {
    watched: Mutex<HashMap<StreamNo, Entry>>,
}

/// A followed stream and how many follow it. The count is kept under the lock of the map, so that of any
/// number of followers who leave at once the last one knows that it is.
struct Entry {
    watched: Arc<Watched>,
    followers: usize,
}

/// One followed stream.
struct Watched {
    state: watch::Sender<Option<StreamState>>,
    tail: Mutex<Tail>,
    home: String,
}

/// Frames of consecutive events, as one commit appended them.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// The first event in it.
    pub first: Sequence,
    /// The last event in it.
    pub last: Sequence,
    /// SSE frames.
    pub bytes: Bytes,
}

/// The newest chunks, in order, without a hole between them.
#[derive(Default)]
struct Tail {
    chunks: VecDeque<Chunk>,
    bytes: usize,
}

/// One follower's place at a stream. Dropping the last one forgets the stream.
pub struct Watch {
    hub: Arc<Hub>,
    stream_no: StreamNo,
    watched: Arc<Watched>,
    state: watch::Receiver<Option<StreamState>>,
}

impl Hub {
    /// Starts to watch a stream. The state is unknown until the stream moves, or is offered.
    pub fn watch(self: &Arc<Self>, stream_no: StreamNo, home: &str) -> Watch {
        let mut all = self.lock();
        let entry = all.entry(stream_no).or_insert_with(|| {
            let (state, tail) = (watch::Sender::new(None), Mutex::default());
            Entry { watched: Arc::new(Watched { state, tail, home: home.to_owned() }), followers: 0 }
        });
        entry.followers += 1;
        let watched = Arc::clone(&entry.watched);
        let state = watched.state.subscribe();
        Watch { hub: Arc::clone(self), stream_no, watched, state }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamNo, Entry>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TailObserver for Hub {
    fn is_watched(&self, stream_no: StreamNo) -> bool {
        self.lock().contains_key(&stream_no)
    }

    fn advanced(&self, stream_no: StreamNo, state: StreamState, events: Vec<StoredEvent>) {
        let found = self.lock().get(&stream_no).map(|entry| Arc::clone(&entry.watched));
        let Some(watched) = found else { return };
        watched.tail.lock().unwrap_or_else(PoisonError::into_inner).extend(&watched.home, &events);
        watched.offer(state);
    }
}

impl Watched {
    /// Takes a state, unless a newer one is known.
    fn offer(&self, state: StreamState) {
        self.state.send_if_modified(|known| {
            let newer = known.as_ref().is_none_or(|known| known.revision < state.revision);
            if newer {
                *known = Some(state);
            }
            newer && !mutant("wake_up_lost")
        });
    }
}

impl Tail {
    fn extend(&mut self, home: &str, events: &[StoredEvent]) {
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return };
        let in_order =
            events.windows(2).all(|pair| pair[1].sequence.is_next_after(pair[0].sequence.cursor()));
        let joins = self.chunks.back().is_none_or(|chunk| first.sequence.is_next_after(chunk.last.cursor()));
        if !in_order || !joins {
            self.chunks.clear();
            self.bytes = 0;
        }
        if !in_order {
            return; // followers read these from the log
        }
        let mut encoder = Encoder::new(Format::Sse, home);
        let mut bytes = Vec::with_capacity(events.iter().map(|event| event.json.len() + 160).sum());
        for event in events {
            encoder.event(&mut bytes, event.sequence, event.received_at_ms, event.derived, &event.json);
        }
        self.bytes += bytes.len();
        self.chunks.push_back(Chunk {
            first: first.sequence,
            last: last.sequence,
            bytes: Bytes::from(bytes),
        });
        while self.bytes > limits::TAIL_BYTES && self.chunks.len() > 1 {
            self.bytes -= self.chunks.pop_front().map_or(0, |chunk| chunk.bytes.len());
        }
    }

    fn find_after(&self, cursor: Cursor) -> Option<Chunk> {
        let at = self.chunks.partition_point(|chunk| chunk.first.cursor() <= cursor);
        self.chunks.get(at).filter(|chunk| chunk.first.is_next_after(cursor) || mutant("tail_skips")).cloned()
    }
}

impl Watch {
    /// Offers what was read from the database, for when the stream has not moved since.
    pub fn offer(&self, state: StreamState) {
        self.watched.offer(state);
    }

    /// The newest state, marked as seen.
    pub fn state(&mut self) -> Option<StreamState> {
        self.state.borrow_and_update().clone()
    }

    /// Waits until the stream moves after the last [`Watch::state`]. Dropping the future loses nothing.
    pub async fn moved(&mut self) {
        // The sender lives in `watched`, which this handle holds: it cannot be gone.
        let _ = self.state.changed().await;
    }

    /// The frames that come right after `cursor`, when they are still in memory.
    pub fn tail_after(&self, cursor: Cursor) -> Option<Chunk> {
        self.watched.tail.lock().unwrap_or_else(PoisonError::into_inner).find_after(cursor)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut all = self.hub.lock();
        let Some(entry) = all.get_mut(&self.stream_no) else { return };
        entry.followers -= 1;
        if entry.followers == 0 {
            all.remove(&self.stream_no);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_forgotten_with_its_last_follower_whoever_else_holds_it() {
        let hub = Arc::new(Hub::default());
        let one = StreamNo::new(1);
        let (first, last) = (hub.watch(one, "stk_b"), hub.watch(one, "stk_b"));
        // As an announcement under way does, or a follower on its way out.
        let held = Arc::clone(&first.watched);
        drop(first);
        assert!(hub.is_watched(one));
        drop(last);
        assert!(!hub.is_watched(one), "kept for nobody");
        drop(held);
    }
}
