//! A stream's events from the log, a page at a time, each page whole or not at all.
//!
//! A follower who is sent one page has the next one read meanwhile, if nobody else needs the disk: a long
//! replay keeps log and network busy at the same time, and holds two pages, however long it is and however
//! slowly it is read.

use std::sync::Arc;

use bytes::Bytes;

use super::frames::Encoder;
use crate::domain::cursor::Cursor;
use crate::domain::event::Sequence;
use crate::domain::limits;
use crate::domain::stream::StreamNo;
use crate::store::{EventRow, PageRange, Reading, Store, StoreError};

/// Events of one page, if they are small: mostly its bytes end a page. Each page costs as much as a hundred events,
/// for the threads that it wakes.
const PAGE_EVENTS: u32 = 4000;
/// Events of the first page: the first byte leaves soon.
const FIRST_PAGE_EVENTS: u32 = 64;

/// Reads events that lie without a hole between them; `None` when some are not there.
pub(super) async fn read_whole<T: Send + 'static>(
    store: &Store,
    stream_no: StreamNo,
    range: PageRange,
    made: T,
    visit: impl FnMut(&mut T, EventRow<'_>) + Send + 'static,
) -> Result<Option<(T, Cursor)>, StoreError> {
    Ok(whole(store.read_events(stream_no, range, (made, range.after), in_turn(visit)).await?))
}

/// Visits rows only as long as each follows the one before.
fn in_turn<T>(
    mut visit: impl FnMut(&mut T, EventRow<'_>) + Send + 'static,
) -> impl FnMut(&mut (T, Cursor), EventRow<'_>) + Send + 'static {
    move |(made, at), row| {
        if row.sequence.is_next_after(*at) {
            *at = row.sequence.cursor();
            visit(made, row);
        }
    }
}

/// What was made of the rows, if every one of them came in its turn.
fn whole<T>(((made, at), last): ((T, Cursor), Option<Sequence>)) -> Option<(T, Cursor)> {
    last.filter(|last| last.cursor() == at).map(|_| (made, at))
}

/// One follower's pages, as frames.
pub(super) struct Pages {
    store: Arc<Store>,
    stream_no: StreamNo,
    encoder: Encoder,
    /// The page that is read while the one before it is sent.
    ahead: Option<Ahead>,
    /// Bytes of the last page: the next one is about as large.
    last_bytes: usize,
}

struct Ahead {
    after: Cursor,
    page: Reading<((Frames, Cursor), Option<Sequence>)>,
}

/// A page being written.
type Frames = (Vec<u8>, Encoder);

impl Pages {
    /// The pages of a stream.
    pub(super) fn new(store: Arc<Store>, stream_no: StreamNo, encoder: Encoder) -> Self {
        Pages { store, stream_no, encoder, ahead: None, last_bytes: 0 }
    }

    /// The frames right after `after`, not beyond `to`, and where they end; `None` when some are not there.
    pub(super) async fn read(
        &mut self,
        after: Cursor,
        to: Cursor,
    ) -> Result<Option<(Bytes, Cursor)>, StoreError> {
        let page = match self.ahead.take().filter(|ahead| ahead.after == after) {
            Some(ahead) => whole(ahead.page.await?),
            None => {
                let max_events = if self.last_bytes == 0 { FIRST_PAGE_EVENTS } else { PAGE_EVENTS };
                let (range, made) = (range(after, to, max_events), self.blank());
                read_whole(&self.store, self.stream_no, range, made, write).await?
            }
        };
        let Some(((bytes, _), last)) = page else { return Ok(None) };
        self.last_bytes = bytes.len();
        if last < to {
            let made = (self.blank(), last);
            let page =
                self.store.start_reading(self.stream_no, range(last, to, PAGE_EVENTS), made, in_turn(write));
            self.ahead = page.map(|page| Ahead { after: last, page });
        }
        Ok(Some((Bytes::from(bytes), last)))
    }

    /// Lets go of the page that is read ahead: the follower goes on from memory.
    pub(super) fn forget_ahead(&mut self) {
        self.ahead = None;
    }

    fn blank(&self) -> Frames {
        (Vec::with_capacity(self.last_bytes), self.encoder.clone())
    }
}

fn range(after: Cursor, to: Cursor, max_events: u32) -> PageRange {
    // Two pages weigh as much as the one that goes out alone elsewhere.
    PageRange { after, to, max_events, max_bytes: limits::PAGE_BYTES / 2 }
}

fn write((out, encoder): &mut Frames, row: EventRow<'_>) {
    encoder.event(out, row.sequence, row.received_at_ms, row.derived, row.json);
}
