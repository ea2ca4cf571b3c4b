//! The head of a stream against a plain set: after any acts in any order both say the same.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::holes::{GapReason, Head, HeadChange, HeadError, Hole};

/// What a plain set of held sequences says after the same acts.
#[derive(Default)]
struct Model {
    held: BTreeSet<u64>,
    known: BTreeMap<u64, GapReason>,
    rows: BTreeMap<u64, Hole>,
}

impl Model {
    fn missing(&self, head: &Head) -> impl Iterator<Item = u64> + Clone {
        let last = self.held.last().copied().unwrap_or(0);
        (head.oldest()..=last).filter(|sequence| !self.held.contains(sequence))
    }

    fn mark(&mut self, head: &mut Head, from: u64, to: u64, reason: GapReason) -> Vec<HeadChange> {
        let missing: Vec<u64> = self.missing(head).filter(|s| (from..=to).contains(s)).collect();
        missing.into_iter().for_each(|sequence| _ = self.known.entry(sequence).or_insert(reason));
        let marked = head.mark_known(from, to, reason, 100).expect("few holes");
        let beyond = (from..=to).filter(|s| *s > head.last() && *s >= head.oldest());
        assert!(beyond.eq(marked.beyond.into_iter().flatten()));
        marked.changes
    }

    fn accept(&mut self, head: &mut Head, sequence: u64, max_holes: usize) -> Option<HeadChange> {
        let before = head.clone();
        let expired = sequence < head.oldest();
        let held = !expired && self.held.contains(&sequence);
        let changed = head.accept(sequence, 0, max_holes);
        assert_eq!(changed == Err(HeadError::Held), held);
        assert_eq!(changed == Err(HeadError::Expired), expired && sequence > 0);
        assert!(changed != Err(HeadError::TooManyHoles) || before.holes().len() >= max_holes);
        assert!(changed.is_ok() || *head == before);
        changed.ok().inspect(|_| _ = self.held.insert(sequence))
    }

    fn write(&mut self, change: HeadChange) {
        assert!(change.removed.is_none_or(|key| self.rows.remove(&key).is_some()));
        for hole in change.added.into_iter().flatten() {
            assert_eq!(self.rows.insert(hole.from, hole), None);
        }
    }

    fn check(&self, head: &Head, cursor: u64) {
        assert!(self.rows.values().eq(head.holes()));
        assert_eq!(Head::restore(head.oldest(), head.last(), head.holes().to_vec()).as_ref(), Ok(head));
        let of_hole = |hole: &Hole| (hole.from..=hole.to).zip(std::iter::repeat(hole.reason));
        let holes: Vec<_> = head.holes().iter().flat_map(of_hole).collect();
        assert!(self.missing(head).map(|s| (s, self.known.get(&s).copied())).eq(holes));
        let before = |missing: Option<u64>| missing.map_or(head.last().max(head.oldest() - 1), |s| s - 1);
        assert_eq!(head.high_water(), before(self.missing(head).next()));
        assert_eq!(head.resume_from(), before(self.missing(head).find(|s| !self.known.contains_key(s))));
        let next = head.first_hole_after(cursor).map(|hole| hole.from.max(cursor + 1));
        assert_eq!(next, self.missing(head).find(|s| *s > cursor));
    }
}

proptest! {
    #[test]
    fn after_any_acts_in_any_order_the_head_and_its_rows_are_what_the_set_of_held_says(
        steps in prop::collection::vec((0..10u8, 0..40u64, 0..8u64), 1..80), max_holes in 0..8usize,
    ) {
        let (mut head, mut model) = (Head::default(), Model::default());
        for (act, at, length) in steps {
            let changes = match act {
                0 => head.raise_oldest(at / 2),
                1 => model.mark(&mut head, at, at + length, GapReason::Upstream),
                2 => model.mark(&mut head, at, at + length, GapReason::HoldTimeout),
                _ => model.accept(&mut head, at, max_holes).into_iter().collect(),
            };
            changes.into_iter().for_each(|change| model.write(change));
            model.check(&head, at);
        }
    }
}
