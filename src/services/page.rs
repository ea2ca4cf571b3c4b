//! A page of a stream: what a follower would get, up to a limit, without waiting.

use serde_json::Value;

use super::follow::{Follow, FollowRequest, ahead, check_cursor, expired, lost_rows};
use super::frames::{envelope, federation, gap_body, in_words};
use super::identity::Caller;
use super::pages::read_whole;
use super::step::{Step, next_step};
use crate::clock::millis;
use crate::domain::cursor::Cursor;
use crate::domain::limits;
use crate::domain::stream::{StreamNo, StreamState};
use crate::protocol::problem::Problem;
use crate::protocol::tenant_field::Renaming;
use crate::store::{PageRange, RunRecord, Store};

/// A bounded piece of a stream.
#[derive(Debug)]
pub struct EventPage {
    /// Envelopes, joined by commas.
    pub events: Vec<u8>,
    /// The cursor that goes on from here.
    pub next_after: Cursor,
    /// There is more to read now.
    pub has_more: bool,
    /// The ranges passed over.
    pub gaps: Vec<Value>,
    /// Where the stream stands.
    pub state: StreamState,
}

impl Follow {
    /// Reads at most `limit` events after a cursor. Passes over exactly the holes that a live follower
    /// would pass over now, and stops where one would wait.
    pub async fn page(
        &self,
        run: &RunRecord,
        (request, caller): (FollowRequest, &Caller),
        limit: u32,
    ) -> Result<EventPage, Problem> {
        let mut state = self.store.stream_state(run.stream_no).await?;
        check_cursor(&state, request)?;
        let hold_ms = millis(self.hold(run));
        let home = self.home_of(run).to_owned();
        let renaming = caller.renaming();
        let mut page =
            PageReader { made: Vec::new(), cursor: request.after, left: limit, gaps: Vec::new(), renaming };
        while page.left > 0 {
            match next_step(&state, page.cursor, self.clock.now_ms(), hold_ms, request.skip_gaps) {
                Step::Read(to) => {
                    if !page.read(&self.store, run.stream_no, &home, to).await? {
                        // Retention may have taken them since the state was read; the new one says so.
                        state = self.store.stream_state(run.stream_no).await?;
                        if state.oldest <= page.cursor.next() {
                            return Err(lost_rows(page.cursor));
                        }
                    }
                }
                Step::Gap(from, to, reason) => {
                    page.gaps.push(gap_body(from, to, reason, state.oldest));
                    page.cursor = Cursor::at(to);
                }
                Step::Expired => return Err(expired(&state)),
                Step::Ahead => return Err(ahead(&state, page.cursor)),
                Step::Hold(_) | Step::Lost | Step::End | Step::Wait => break,
            }
        }
        let step = next_step(&state, page.cursor, self.clock.now_ms(), hold_ms, request.skip_gaps);
        let has_more = matches!(step, Step::Read(_) | Step::Gap(..));
        Ok(EventPage { events: page.made, next_after: page.cursor, has_more, gaps: page.gaps, state })
    }
}

/// A page being put together.
struct PageReader {
    made: Vec<u8>,
    cursor: Cursor,
    left: u32,
    gaps: Vec<Value>,
    renaming: Option<Renaming>,
}

impl PageReader {
    /// Reads on; false when the rows are gone.
    async fn read(
        &mut self,
        store: &Store,
        stream_no: StreamNo,
        home: &str,
        to: Cursor,
    ) -> Result<bool, Problem> {
        let range =
            PageRange { after: self.cursor, to, max_events: self.left, max_bytes: limits::PAGE_BYTES };
        let (before, home) = (std::mem::take(&mut self.made), home.to_owned());
        let renaming = self.renaming.clone();
        let read = read_whole(store, stream_no, range, (before.clone(), 0_u32), move |(out, count), row| {
            if !out.is_empty() {
                out.push(b',');
            }
            *count += 1;
            let beside = federation(&home, row.received_at_ms, row.derived);
            envelope(out, &in_words(renaming.as_ref(), row.json), &beside);
        });
        let Some(((made, count), last)) = read.await? else {
            self.made = before;
            return Ok(false);
        };
        (self.made, self.cursor) = (made, last);
        // A page of large events ends early rather than growing without bound.
        self.left = if self.made.len() >= limits::PAGE_BYTES { 0 } else { self.left - count };
        Ok(true)
    }
}
