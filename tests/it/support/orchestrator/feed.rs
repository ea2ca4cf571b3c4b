//! What one events connection is to send: the run's items, changed as the script says.
//!
//! Invariant: pure and repeatable. The same run, script, cursor and read number give the same frames, apart
//! from ids minted per read; each item is rendered at most once per feed.

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::{
    event::Event,
    runs::{Item, Run},
    stream_script::{StreamEnd, StreamScript},
};

/// One reader's way through a run's items.
#[derive(Debug)]
pub(super) struct Feed {
    script: StreamScript,
    cursor: u64,
    /// Which read of the run this is; the first is 1.
    read: usize,
    next_item: usize,
    events_sent: usize,
    garbage_sent: usize,
    chance: StdRng,
}

/// The frames that are due, and what comes after them.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) frames: Vec<Vec<u8>>,
    pub(super) then: Then,
}

/// What a connection does once its batch is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Waits for more.
    Follow,
    /// Ends cleanly.
    End,
    /// Sends nothing more and stays open.
    Stall,
}

/// A frame, and whether it counts as an event.
struct Frame {
    bytes: Vec<u8>,
    is_event: bool,
}

impl Feed {
    /// A feed of everything after the cursor.
    pub(super) fn new(script: StreamScript, cursor: u64, read: usize) -> Self {
        let chance = StdRng::seed_from_u64(script.seed.wrapping_add(read as u64));
        Self { script, cursor, read, next_item: 0, events_sent: 0, garbage_sent: 0, chance }
    }

    /// The frames that became due since the last call.
    pub(super) fn advance(&mut self, run: &Run) -> Batch {
        let due = self.render_new_items(run);
        let mut frames = Vec::with_capacity(due.len());
        for frame in due {
            if let Some(then) = self.limit_reached() {
                return Batch { frames, then };
            }
            self.events_sent += usize::from(frame.is_event);
            frames.push(frame.bytes);
        }
        let then = self.limit_reached().unwrap_or_else(|| self.when_drained(run));
        Batch { frames, then }
    }

    fn render_new_items(&mut self, run: &Run) -> Vec<Frame> {
        let mut frames = Vec::new();
        let prelude = std::mem::take(&mut self.script.prelude);
        for item in &run.items[self.next_item..] {
            match item {
                Item::Raw { after, bytes } if *after >= self.cursor => {
                    frames.push(Frame { bytes: bytes.clone(), is_event: false });
                }
                Item::Event(event) if self.is_due(event) => {
                    frames.extend(self.garbage_before(run, event));
                    frames.extend(self.repeated(event));
                }
                Item::Raw { .. } | Item::Event(_) => {}
            }
        }
        self.next_item = run.items.len();
        for window in frames.chunks_mut(self.script.shuffle_window.max(1)) {
            window.shuffle(&mut self.chance);
        }
        if !prelude.is_empty() {
            frames.insert(0, Frame { bytes: prelude, is_event: false });
        }
        frames
    }

    fn is_due(&self, event: &Event) -> bool {
        let omitted = self.script.omit.iter().any(|omission| {
            omission.sequence == event.sequence && omission.until_read.is_none_or(|read| self.read < read)
        });
        event.sequence > self.cursor && !omitted
    }

    fn garbage_before(&mut self, run: &Run, event: &Event) -> Option<Frame> {
        let kinds = &self.script.garbage;
        let kind = kinds.get(self.garbage_sent % kinds.len().max(1))?;
        self.garbage_sent += 1;
        Some(Frame { bytes: kind.to_bytes(run, event.sequence), is_event: false })
    }

    fn repeated(&mut self, event: &Event) -> impl Iterator<Item = Frame> {
        let times = self.chance.random_range(self.script.repeat.clone());
        let bytes = event.to_frame(&self.script);
        (0..times).map(move |_| Frame { bytes: bytes.clone(), is_event: true })
    }

    fn limit_reached(&self) -> Option<Then> {
        let reached = |limit: usize| self.events_sent >= limit;
        match (self.script.stall_after_events, self.script.end) {
            (Some(limit), _) if reached(limit) => Some(Then::Stall),
            (_, StreamEnd::AfterEvents(limit)) if reached(limit) => Some(Then::End),
            _ => None,
        }
    }

    fn when_drained(&self, run: &Run) -> Then {
        match self.script.end {
            StreamEnd::WhenDrained => Then::End,
            StreamEnd::Never => Then::Follow,
            StreamEnd::AtTerminal | StreamEnd::AfterEvents(_) if run.events().any(Event::is_terminal) => {
                Then::End
            }
            StreamEnd::AtTerminal | StreamEnd::AfterEvents(_) => Then::Follow,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::{
        super::{
            event::GarbageFrame,
            runs::RunStatus,
            stream_script::{EnvelopeShape, Omission},
        },
        *,
    };

    fn run_of(events: usize) -> Run {
        let mut run = Run::new("run_1".to_owned(), "tnt_demo", "agt_a", None);
        for step in 0..events {
            run.emit("agentos.run.step.completed", json!({ "step": step }));
        }
        run
    }

    /// The ids of the frames, in order.
    fn ids(batch: &Batch) -> Vec<u64> {
        let id = |frame: &Vec<u8>| {
            let text = String::from_utf8_lossy(frame).into_owned();
            text.lines().find_map(|line| line.strip_prefix("id: ")?.parse().ok())
        };
        batch.frames.iter().filter_map(id).collect()
    }

    fn advance(script: StreamScript, cursor: u64, read: usize, run: &Run) -> Batch {
        Feed::new(script, cursor, read).advance(run)
    }

    #[test]
    fn a_feed_starts_after_its_cursor_and_renders_each_item_once() {
        let mut run = run_of(5);
        let mut feed = Feed::new(StreamScript::default(), 3, 1);
        assert_eq!(ids(&feed.advance(&run)), [4, 5]);
        run.finish(RunStatus::Completed);
        let last = feed.advance(&run);
        assert_eq!((ids(&last), last.then), (vec![6], Then::End));
    }

    #[test]
    fn a_hole_stays_until_the_read_that_fills_it() {
        let omit =
            vec![Omission { sequence: 2, until_read: Some(3) }, Omission { sequence: 4, until_read: None }];
        let script = StreamScript { omit, ..StreamScript::default() };
        let run = run_of(5);
        assert_eq!(ids(&advance(script.clone(), 0, 2, &run)), [1, 3, 5]);
        assert_eq!(ids(&advance(script, 0, 3, &run)), [1, 2, 3, 5]);
    }

    #[test]
    fn shuffled_windows_change_the_order_and_lose_nothing() {
        let script = StreamScript { shuffle_window: 8, ..StreamScript::default() };
        let batch = advance(script, 0, 1, &run_of(32));
        let order = ids(&batch);
        assert!(!order.is_sorted());
        assert_eq!(order.iter().copied().collect::<BTreeSet<_>>(), (1..=32).collect());
        assert!(order.chunks(8).enumerate().all(|(window, ids)| {
            let first = window as u64 * 8;
            ids.iter().all(|id| (first + 1..=first + 8).contains(id))
        }));
    }

    #[test]
    fn each_event_is_repeated_as_often_as_the_range_says() {
        let script = StreamScript { repeat: 1..=5, ..StreamScript::default() };
        let order = ids(&advance(script, 0, 1, &run_of(40)));
        let counts: BTreeSet<_> =
            (1..=40).map(|id| order.iter().filter(|sent| **sent == id).count()).collect();
        assert_eq!(counts, BTreeSet::from([1, 2, 3, 4, 5]));
    }

    #[test]
    fn limits_count_event_frames_only() {
        let run = run_of(5);
        let mut script = StreamScript { garbage: vec![GarbageFrame::WithoutId], ..StreamScript::default() };
        script.end = StreamEnd::AfterEvents(2);
        let ended = advance(script.clone(), 0, 1, &run);
        assert_eq!((ids(&ended), ended.then), (vec![1, 2], Then::End));
        script.stall_after_events = Some(1);
        let stalled = advance(script, 0, 1, &run);
        assert_eq!((ids(&stalled), stalled.then), (vec![1], Then::Stall));
    }

    #[test]
    fn a_drained_feed_ends_or_follows_as_scripted() {
        let mut run = run_of(1);
        let then = |end, run: &Run| advance(StreamScript { end, ..StreamScript::default() }, 0, 1, run).then;
        assert_eq!(then(StreamEnd::WhenDrained, &run), Then::End);
        assert_eq!(then(StreamEnd::AtTerminal, &run), Then::Follow);
        run.finish(RunStatus::Canceled);
        assert_eq!(then(StreamEnd::AtTerminal, &run), Then::End);
        assert_eq!(then(StreamEnd::Never, &run), Then::Follow);
    }

    #[test]
    fn garbage_comes_in_turn_before_each_event_and_raw_bytes_where_they_were_appended() {
        let mut run = run_of(1);
        run.append_raw(b": raw\n".to_vec());
        run.emit("agentos.run.step.completed", json!({}));
        let script = StreamScript {
            garbage: vec![GarbageFrame::NotJson, GarbageFrame::WrongTenant],
            envelope: EnvelopeShape::Flat,
            ..StreamScript::default()
        };
        let batch = advance(script.clone(), 0, 1, &run);
        assert_eq!(batch.frames.len(), 5);
        assert_eq!(batch.frames[2], b": raw\n");
        assert_eq!(ids(&batch), [1, 2, 2]);
        assert!(String::from_utf8_lossy(&batch.frames[3]).contains("tnt_other"));
        assert_eq!(advance(script, 2, 2, &run).frames.len(), 0);
    }
}
