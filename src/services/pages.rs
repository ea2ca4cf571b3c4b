//! A stream's events from the log, a page at a time, each page whole or not at all.
//!
//! A follower who is sent one page has the next ones read meanwhile, if nobody else needs the disk: a long
//! replay keeps log and network busy at the same time, and holds three pages, however long it is and however
//! slowly it is read. While the network keeps up, one thread reads them all.

use std::sync::Arc;

use bytes::Bytes;

use super::frames::Encoder;
use crate::domain::cursor::Cursor;
use crate::domain::event::Sequence;
use crate::domain::limits;
use crate::domain::stream::StreamNo;
use crate::store::{self, EventRow, PageRange, Store, StoreError};

/// Events of one page, if they are small: mostly its bytes end a page.
const PAGE_EVENTS: u32 = 4000;
/// Events of the first page: the first byte leaves soon.
const FIRST_PAGE_EVENTS: u32 = 64;
/// Pages that are read while one is sent.
const PAGES_AHEAD: usize = 2;

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
    /// The pages that are read while the one before them is sent.
    ahead: Option<Ahead>,
    /// Bytes of the last page: the next one is about as large.
    last_bytes: usize,
}

struct Ahead {
    /// Where the next one begins.
    after: Cursor,
    pages: store::Pages<((Frames, Cursor), Option<Sequence>)>,
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
        let mut ahead = self.ahead.take().filter(|ahead| ahead.after == after);
        let next = match &mut ahead {
            Some(ahead) => ahead.pages.recv().await,
            None => None,
        };
        let page = match next {
            Some(page) => whole(page?),
            None => {
                let max_events = if self.last_bytes == 0 { FIRST_PAGE_EVENTS } else { PAGE_EVENTS };
                let (range, made) = (range(after, to, max_events), blank(self.last_bytes, &self.encoder));
                read_whole(&self.store, self.stream_no, range, made, write).await?
            }
        };
        let Some(((bytes, _), last)) = page else { return Ok(None) };
        self.last_bytes = bytes.len();
        self.ahead = match ahead.filter(Ahead::has_more) {
            Some(ahead) => Some(Ahead { after: last, ..ahead }),
            None => self.read_ahead(last, to),
        };
        Ok(Some((Bytes::from(bytes), last)))
    }

    /// Has pages read from here on, if there is anything to read.
    fn read_ahead(&self, after: Cursor, to: Cursor) -> Option<Ahead> {
        if after >= to {
            return None;
        }
        let first = (blank(self.last_bytes, &self.encoder), after);
        let next = |((bytes, encoder), at): &(Frames, Cursor)| (blank(bytes.len(), encoder), *at);
        let range = range(after, to, PAGE_EVENTS);
        let pages = self.store.read_ahead(self.stream_no, range, PAGES_AHEAD, (first, next), in_turn(write));
        pages.map(|pages| Ahead { after, pages })
    }

    /// Lets go of the pages that are read ahead: the follower goes on from memory.
    pub(super) fn forget_ahead(&mut self) {
        self.ahead = None;
    }
}

impl Ahead {
    /// False once the reader has stopped and every page was taken.
    fn has_more(&self) -> bool {
        !self.pages.is_empty() || !self.pages.is_closed()
    }
}

/// An empty page that is going to be about as large as the last one.
fn blank(bytes: usize, encoder: &Encoder) -> Frames {
    (Vec::with_capacity(bytes), encoder.clone())
}

fn range(after: Cursor, to: Cursor, max_events: u32) -> PageRange {
    // With those that are read ahead, it weighs as much as the one that goes out alone elsewhere.
    PageRange { after, to, max_events, max_bytes: limits::PAGE_BYTES / (1 + PAGES_AHEAD) }
}

fn write((out, encoder): &mut Frames, row: EventRow<'_>) {
    encoder.event(out, row.sequence, row.received_at_ms, row.derived, row.json);
}
