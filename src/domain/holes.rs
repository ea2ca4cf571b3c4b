//! The head of one event stream: how far it reaches, and which sequences below that are missing.
//!
//! Invariant: the holes are exactly the sequences in `oldest..=last` that are not held: sorted, disjoint,
//! and no two neighbours that could be one row. Every change names the rows it touches, so a store can
//! write it down in the transaction that stores the event.

use std::error::Error;
use std::fmt;
use std::ops::RangeInclusive;

/// What is known of one stream's sequences. One owner, who stores each change it returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    oldest: u64,
    last: u64,
    holes: Vec<Hole>,
}

/// A range of sequences not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// First missing sequence; the key of the row.
    pub from: u64,
    /// Last missing sequence, inclusive.
    pub to: u64,
    /// When the event after the hole was stored, in milliseconds of wall-clock time. What is left of a hole
    /// keeps it: a trickle of late events does not make a follower wait longer.
    pub since_ms: i64,
    /// Why it is missing for good; absent while it may still be filled.
    pub reason: Option<GapReason>,
}

/// Why a gap is a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// The home or this gateway no longer keeps it.
    Retention,
    /// It did not come while it was waited for.
    HoldTimeout,
    /// The home passed it, or a gateway upstream announced it.
    Upstream,
    /// This gateway was restored from a copy that does not hold it.
    Restore,
}

/// Rows to write: take `removed` away, then put `added` in. Several changes apply in their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeadChange {
    /// Key (`from`) of the row that goes.
    pub removed: Option<u64>,
    /// Rows that come.
    pub added: [Option<Hole>; 2],
}

/// What [`Head::mark_known`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marked {
    /// Rows to write, none when all was known already.
    pub changes: Vec<HeadChange>,
    /// The part of the range after the largest sequence stored. It is not recorded: no hole is there until
    /// an event comes after it, and marking again then names that hole.
    pub beyond: Option<RangeInclusive<u64>>,
}

/// Why a sequence is not accepted, or a range not marked; the head is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// Sequences begin at 1.
    Zero,
    /// The sequence is held already.
    Held,
    /// The sequence lies below what retention kept.
    Expired,
    /// It would open or cut a hole beyond the number allowed.
    TooManyHoles,
}

/// Stored rows that break the invariant of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InconsistentHead {
    /// Key of the hole at fault; absent when `oldest` itself is.
    pub hole_from: Option<u64>,
}

impl Default for Head {
    fn default() -> Self {
        Self { oldest: 1, last: 0, holes: Vec::new() }
    }
}

impl Head {
    /// The head as stored: `holes` in the order of their keys.
    ///
    /// # Errors
    ///
    /// The parts contradict each other; nothing is repaired.
    pub fn restore(oldest: u64, last: u64, holes: Vec<Hole>) -> Result<Self, InconsistentHead> {
        if oldest == 0 {
            return Err(InconsistentHead { hole_from: None });
        }
        let mut before: Option<Hole> = None;
        for &hole in &holes {
            let apart = before.is_none_or(|before| before.to < hole.from && !before.continues_in(hole));
            if hole.from < oldest || hole.to < hole.from || hole.to >= last || !apart {
                return Err(InconsistentHead { hole_from: Some(hole.from) });
            }
            before = Some(hole);
        }
        Ok(Self { oldest, last, holes })
    }

    /// First sequence retained; 1 at the start.
    pub fn oldest(&self) -> u64 {
        self.oldest
    }

    /// Largest sequence ever stored; 0 when none.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// What is missing in `oldest..=last`, in order.
    pub fn holes(&self) -> &[Hole] {
        &self.holes
    }

    /// Records that `sequence` is stored at `now_ms`. In order it costs nothing; ahead it opens a hole; in a
    /// hole it fills, shrinks or splits it.
    ///
    /// # Errors
    ///
    /// See [`HeadError`]. With `max_holes` reached, only what opens or splits a hole is refused.
    pub fn accept(&mut self, sequence: u64, now_ms: i64, max_holes: usize) -> Result<HeadChange, HeadError> {
        if sequence == 0 {
            return Err(HeadError::Zero);
        }
        if sequence < self.oldest {
            return Err(HeadError::Expired);
        }
        if sequence > self.last {
            return self.extend(sequence, now_ms, max_holes);
        }
        let index = self.holes.partition_point(|hole| hole.to < sequence);
        match self.holes.get(index).copied() {
            Some(hole) if hole.from <= sequence => self.fill(index, hole, sequence, max_holes),
            _ => Err(HeadError::Held),
        }
    }

    /// The largest sequence with no hole below it: all of `oldest..=` this is held.
    pub fn high_water(&self) -> u64 {
        self.end_before(self.holes.first())
    }

    /// The largest sequence such that everything from `oldest` up to it is held or missing for good: what an
    /// upstream reader asks from.
    pub fn resume_from(&self) -> u64 {
        self.end_before(self.holes.iter().find(|hole| hole.reason.is_none()))
    }

    /// Gives `reason` to what is missing within `from..=to`. A hole that has a reason keeps its first one:
    /// followers may have been told.
    ///
    /// # Errors
    ///
    /// It would cut holes into more than `max_holes` rows; nothing is marked.
    pub fn mark_known(
        &mut self,
        from: u64,
        to: u64,
        reason: GapReason,
        max_holes: usize,
    ) -> Result<Marked, HeadError> {
        let mut holes = Vec::with_capacity(self.holes.len() + 2);
        for hole in &self.holes {
            for part in hole.marked(from, to, reason).into_iter().flatten() {
                push_merged(&mut holes, part);
            }
        }
        if holes.len() > max_holes.max(self.holes.len()) {
            return Err(HeadError::TooManyHoles);
        }
        let changes = changes_between(&self.holes, &holes);
        self.holes = holes;
        let after_last = from.max(self.oldest).max(self.last.saturating_add(1));
        let beyond = (to > self.last && after_last <= to).then_some(after_last..=to);
        Ok(Marked { changes, beyond })
    }

    /// When a follower waiting at `hole` may step over it, in wall-clock milliseconds: `now_ms` if it is
    /// missing for good, else `hold_ms` after it appeared. Nothing when no hole begins there any more.
    ///
    /// A wall clock set back by more than the hold makes the age meaningless; then the wait is over.
    pub fn passable_at(&self, hole: &Hole, now_ms: i64, hold_ms: i64) -> Option<i64> {
        let index = self.holes.binary_search_by_key(&hole.from, |hole| hole.from).ok()?;
        let hole = self.holes.get(index)?;
        if hole.reason.is_some() || hole.since_ms.saturating_sub(now_ms) > hold_ms {
            return Some(now_ms);
        }
        Some(hole.since_ms.saturating_add(hold_ms))
    }

    /// The first hole with a missing sequence after `cursor` (exclusive); it may begin at or before that.
    pub fn first_hole_after(&self, cursor: u64) -> Option<Hole> {
        self.holes.get(self.holes.partition_point(|hole| hole.to <= cursor)).copied()
    }

    /// Everything below `to` is gone by retention: holes there are dropped or trimmed. Never goes back.
    /// `to` may lie beyond what is stored: then nothing is left, and the next in order is `to`.
    pub fn raise_oldest(&mut self, to: u64) -> Vec<HeadChange> {
        self.oldest = self.oldest.max(to);
        let kept = self.holes.iter().filter(|hole| hole.to >= self.oldest);
        let holes: Vec<Hole> = kept.map(|hole| Hole { from: hole.from.max(self.oldest), ..*hole }).collect();
        let changes = changes_between(&self.holes, &holes);
        self.holes = holes;
        changes
    }

    fn extend(&mut self, sequence: u64, now_ms: i64, max_holes: usize) -> Result<HeadChange, HeadError> {
        // `sequence > last` and `sequence >= oldest >= 1`: neither sum nor difference leaves the type.
        let next = self.oldest.max(self.last + 1);
        let mut change = HeadChange::default();
        if sequence > next {
            if self.holes.len() >= max_holes {
                return Err(HeadError::TooManyHoles);
            }
            let hole = Hole { from: next, to: sequence - 1, since_ms: now_ms, reason: None };
            self.holes.push(hole);
            change.added = [Some(hole), None];
        }
        self.last = sequence;
        Ok(change)
    }

    fn fill(
        &mut self,
        index: usize,
        hole: Hole,
        sequence: u64,
        max_holes: usize,
    ) -> Result<HeadChange, HeadError> {
        let below = (hole.from < sequence).then(|| Hole { to: sequence - 1, ..hole });
        let above = (sequence < hole.to).then(|| Hole { from: sequence + 1, ..hole });
        if below.is_some() && above.is_some() && self.holes.len() >= max_holes {
            return Err(HeadError::TooManyHoles);
        }
        self.holes.splice(index..=index, below.into_iter().chain(above));
        Ok(HeadChange { removed: Some(hole.from), added: [below, above] })
    }

    fn end_before(&self, hole: Option<&Hole>) -> u64 {
        hole.map_or(self.last.max(self.oldest - 1), |hole| hole.from - 1)
    }
}

impl Hole {
    /// The hole with `reason` given to its part within `from..=to`: what is before, within and after.
    fn marked(self, from: u64, to: u64, reason: GapReason) -> [Option<Self>; 3] {
        let (first, last) = (self.from.max(from), self.to.min(to));
        if self.reason.is_some() || first > last {
            return [Some(self), None, None];
        }
        let before = (self.from < first).then(|| Self { to: first - 1, ..self });
        let within = Self { from: first, to: last, reason: Some(reason), ..self };
        let after = (last < self.to).then(|| Self { from: last + 1, ..self });
        [before, Some(within), after]
    }

    /// Whether `next` begins where this ends and is alike, so that the two should be one.
    fn continues_in(self, next: Self) -> bool {
        self.to.checked_add(1) == Some(next.from)
            && (self.since_ms, self.reason) == (next.since_ms, next.reason)
    }
}

impl GapReason {
    const ALL: [Self; 4] = [Self::Retention, Self::HoldTimeout, Self::Upstream, Self::Restore];

    /// The name on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::HoldTimeout => "hold_timeout",
            Self::Upstream => "upstream",
            Self::Restore => "restore",
        }
    }

    /// The reason of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zero => "sequences begin at 1",
            Self::Held => "the sequence is held already",
            Self::Expired => "the sequence lies below what retention kept",
            Self::TooManyHoles => "the stream has too many holes for another",
        })
    }
}

impl fmt::Display for InconsistentHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hole_from {
            Some(from) => write!(f, "the hole stored at {from} does not fit its stream"),
            None => f.write_str("the oldest sequence of a stream must be at least 1"),
        }
    }
}

impl Error for HeadError {}
impl Error for InconsistentHead {}

fn push_merged(holes: &mut Vec<Hole>, part: Hole) {
    match holes.last_mut() {
        Some(before) if before.continues_in(part) => before.to = part.to,
        _ => holes.push(part),
    }
}

/// The rows that turn `old` into `new`, both sorted: first all that go, then all that come.
fn changes_between(old: &[Hole], new: &[Hole]) -> Vec<HeadChange> {
    let lacks = |rows: &[Hole], hole: &Hole| {
        let index = rows.binary_search_by_key(&hole.from, |row| row.from);
        index.ok().and_then(|index| rows.get(index)) != Some(hole)
    };
    let gone = old.iter().filter(|hole| lacks(new, hole));
    let come = new.iter().filter(|hole| lacks(old, hole));
    let gone = gone.map(|hole| HeadChange { removed: Some(hole.from), ..HeadChange::default() });
    let come = come.map(|hole| HeadChange { added: [Some(*hole), None], ..HeadChange::default() });
    gone.chain(come).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head_of(sequences: &[u64]) -> Head {
        let mut head = Head::default();
        for (&sequence, now_ms) in sequences.iter().zip(1_000..) {
            head.accept(sequence, now_ms, 100).expect("acceptable");
        }
        head
    }

    fn mark(head: &mut Head, from: u64, to: u64, reason: GapReason) -> Marked {
        head.mark_known(from, to, reason, 100).expect("few holes")
    }

    #[test]
    fn late_events_fill_shrink_and_split_holes_and_are_never_refused_for_being_late() {
        // A-18, defect 3
        let mut head = head_of(&[1, 10, 5, 9, 2]);
        let left = |from, to| Hole { from, to, since_ms: 1_001, reason: None };
        assert_eq!(head.holes(), [left(3, 4), left(6, 8)]);
        assert_eq!((head.high_water(), head.last()), (2, 10));
        for sequence in [4, 3, 7, 6, 8] {
            head.accept(sequence, 2_000, 100).expect("late");
        }
        assert_eq!((head.high_water(), head.holes()), (10, &[][..]));
    }

    #[test]
    fn what_cannot_be_accepted_is_refused_and_changes_nothing() {
        //
        use HeadError::{Expired, Held, TooManyHoles, Zero};
        let mut head = head_of(&[1, 5, 9]);
        head.raise_oldest(3);
        let before = head.clone();
        for (sequence, error) in [(0, Zero), (2, Expired), (5, Held), (7, TooManyHoles), (11, TooManyHoles)] {
            assert_eq!(head.accept(sequence, 0, 2), Err(error), "{sequence}");
        }
        assert_eq!(head.mark_known(3, 3, GapReason::Upstream, 2), Err(TooManyHoles));
        assert_eq!(head, before);
        assert!(head.mark_known(6, 8, GapReason::Upstream, 2).is_ok());
        for sequence in [10, 3, 4, u64::MAX] {
            head.accept(sequence, 0, 2).expect("no hole more than two");
        }
        assert_eq!(head.accept(u64::MAX, 0, 2), Err(Held));
        assert_eq!(mark(&mut head, 1, u64::MAX, GapReason::Upstream).beyond, None);
    }

    #[test]
    fn a_reader_resumes_past_what_is_missing_for_good_and_only_past_that() {
        //
        let mut head = head_of(&[1, 5, 9]);
        assert_eq!(mark(&mut head, 2, 3, GapReason::Upstream).beyond, None);
        assert_eq!((head.resume_from(), head.high_water()), (3, 1));
        let marked = mark(&mut head, 4, 20, GapReason::HoldTimeout);
        assert_eq!((head.resume_from(), head.high_water(), marked.beyond), (9, 1, Some(10..=20)));
        assert_eq!(mark(&mut head, 1, 9, GapReason::Retention), Marked::default(), "the first reason stays");
        head.accept(21, 0, 100).expect("ahead");
        assert_eq!(head.resume_from(), 9);
        mark(&mut head, 10, 20, GapReason::Upstream);
        assert_eq!(head.resume_from(), 21);
    }

    #[test]
    fn a_follower_waits_for_the_hold_unless_the_hole_is_known() {
        //
        let mut head = head_of(&[1, 5]);
        let hole = head.first_hole_after(1).expect("2 to 4 are missing");
        assert_eq!(head.first_hole_after(4), None);
        assert_eq!(head.passable_at(&hole, 1_500, 5_000), Some(6_001));
        assert_eq!(head.passable_at(&hole, -3_999, 5_000), Some(6_001));
        assert_eq!(head.passable_at(&hole, -9_000, 5_000), Some(-9_000), "the clock was set back");
        mark(&mut head, 2, 4, GapReason::Upstream);
        assert_eq!(head.passable_at(&hole, 1_500, 5_000), Some(1_500));
        head.accept(2, 0, 100).expect("late");
        assert_eq!(head.passable_at(&hole, 1_500, 5_000), None);
    }

    #[test]
    fn retention_beyond_what_is_stored_moves_the_next_in_order() {
        //
        let mut head = head_of(&[1, 5]);
        head.raise_oldest(8);
        head.raise_oldest(4);
        assert_eq!((head.oldest(), head.resume_from(), head.high_water()), (8, 7, 7));
        assert_eq!(head.accept(8, 0, 0), Ok(HeadChange::default()));
    }

    #[test]
    fn rows_that_contradict_each_other_are_not_taken_for_a_head() {
        let wrong: [&[(u64, u64)]; 5] =
            [&[(1, 2)], &[(4, 3)], &[(8, 9)], &[(3, 5), (5, 6)], &[(3, 4), (5, 6)]];
        for ranges in wrong {
            let holes = ranges.iter().map(|&(from, to)| Hole { from, to, since_ms: 0, reason: None });
            assert!(Head::restore(2, 9, holes.collect()).is_err(), "{ranges:?}");
        }
        assert!(Head::restore(0, 0, vec![]).is_err());
        assert!(GapReason::ALL.iter().all(|reason| GapReason::parse(reason.as_str()) == Some(*reason)));
    }
}
