//! What a reader of a stream does next: a pure decision over the stream's state and the reader's cursor.

use crate::domain::cursor::Cursor;
use crate::domain::holes::{GapReason, Hole};
use crate::domain::stream::StreamState;
use crate::mutants::mutant;

/// What to do next at a cursor.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Events up to here can be read.
    Read(Cursor),
    /// This range is missing and is passed over.
    Gap(u64, u64, GapReason),
    /// A hole may still be filled: wait, but not beyond this wall time.
    Hold(i64),
    /// The run is lost.
    Lost,
    /// Everything was read and nothing will come.
    End,
    /// The run ended before the cursor.
    Ahead,
    /// Everything was read so far.
    Wait,
    /// Retention overtook the reader.
    Expired,
}

/// Decides. `hold_ms` is how long a hole may take to be filled.
pub(super) fn next_step(
    state: &StreamState,
    cursor: Cursor,
    now_ms: i64,
    hold_ms: i64,
    skip_gaps: bool,
) -> Step {
    if cursor.next() < state.oldest {
        let to = state.oldest - 1;
        return if skip_gaps { Step::Gap(cursor.next(), to, GapReason::Retention) } else { Step::Expired };
    }
    let to = state.readable_to(cursor);
    if to > cursor {
        return Step::Read(to);
    }
    match state.next_hole(cursor) {
        Some(hole) => at_hole(hole, cursor, now_ms, hold_ms),
        None if state.lost.is_some() && !state.ended => Step::Lost,
        None if state.ended && cursor.get() > state.last && !mutant("cursor_ahead_served") => Step::Ahead,
        None if state.ended => Step::End,
        None => Step::Wait,
    }
}

fn at_hole(hole: &Hole, cursor: Cursor, now_ms: i64, hold_ms: i64) -> Step {
    let until = hole.since_ms.saturating_add(hold_ms);
    // A wall clock set back by more than the hold makes the age meaningless: then the wait is over.
    let over = now_ms >= until || hole.since_ms - now_ms > hold_ms;
    match hole.reason {
        Some(reason) => Step::Gap(hole.from.max(cursor.next()), hole.to, reason),
        None if over => Step::Gap(hole.from.max(cursor.next()), hole.to, GapReason::HoldTimeout),
        None => Step::Hold(until),
    }
}
