//! The append-only event log: append, dedupe, order, holes; and reading it back in pages.
//!
//! Invariants: one `(stream, event id)` is stored once, and one `(stream, sequence)` once; a late event
//! fills its hole; what contradicts the log is set aside, never dropped and never served; a row whose
//! checksum fails is never served.

use std::io::Write;

use bytes::Bytes;
use rusqlite::params;

use super::audit::AuditRecord;
use super::error::StoreError;
use super::event_key;
use super::heads::StreamHead;
use super::position::{described, position};
use super::rows::{DERIVED, Note, Placed};
use super::writer::Unit;
use crate::domain::event::{
    Appended, ConflictKind, MAX_SEQUENCE, NewEvent, Rejection, Sender, Sequence, StoredEvent,
};
use crate::domain::holes::{GapReason, HeadChange, HeadError};
use crate::domain::run::RunStatus;
use crate::domain::stream::StreamNo;
use crate::domain::{json_equal, limits};
use crate::mutants::mutant;

/// Sequences that a restored stream passes over: more than it can have been given since the copy was made.
const RESTORED_SKIP: u64 = 1 << 20;

/// The stored half of an event, to compare a newcomer with.
struct Held {
    sequence: Sequence,
    json: Vec<u8>,
}

impl Unit<'_> {
    /// Appends one event to a stream that exists.
    pub(super) fn append(
        &mut self,
        stream_no: StreamNo,
        sender: &Sender,
        event: &NewEvent,
    ) -> Result<Appended, StoreError> {
        let key = if mutant("dedupe_skipped") {
            event.json[..event.json.len().min(64)].to_vec()
        } else {
            event_key::pack(event.event_id.as_str())
        };
        let held = self.held_by_id(stream_no, &key, event.sequence)?;
        let head = self.heads.get(self.connection, stream_no)?;
        if let Some(rejection) = refusal(head, sender, event) {
            // Only what is new can be refused: a repeat of what is held is a duplicate whoever sends it.
            return Ok(repeat_or(rejection, event, held));
        }
        let mut trial = head.head.clone();
        let next = trial.last().max(trial.oldest() - 1) + 1;
        let passes_over = head.restored && event.sequence.is_none() && !mutant("restored_numbers_again");
        let skipped = if passes_over { RESTORED_SKIP } else { 0 };
        let Some(sequence) = event.sequence.or_else(|| Sequence::new(next + skipped)) else {
            return Ok(Appended::Rejected(Rejection::SequenceOutOfRange));
        };
        let accepted = trial.accept(sequence.get(), self.now_ms, limits::HOLES_PER_STREAM);
        let change = match (accepted, held) {
            (Ok(change), None) => change,
            (Ok(_) | Err(HeadError::Held), Some(held)) => {
                return self.judge(stream_no, sender, event, &held);
            }
            (Err(HeadError::Held), None) => {
                return self.set_aside_conflict(stream_no, sender, event, ConflictKind::Sequence, sequence);
            }
            (Err(HeadError::Expired), held) => return Ok(repeat_or(Rejection::Expired, event, held)),
            (Err(HeadError::Zero), held) => return Ok(repeat_or(Rejection::SequenceOutOfRange, event, held)),
            (Err(HeadError::TooManyHoles), held) => {
                return Ok(repeat_or(Rejection::TooManyHoles, event, held));
            }
        };
        let json =
            if event.sequence.is_some() { event.json.clone() } else { numbered(&event.json, sequence) };
        let flags = if event.derived { DERIVED } else { 0 };
        let note = Note::of(&json, &key, self.now_ms, flags);
        self.rows.insert(&Placed { position: position(stream_no, sequence), note, json: &json })?;
        self.record(stream_no, event, sequence, json, &change)?;
        self.remember_id(stream_no, sequence, &key)?;
        if skipped > 0 {
            self.pass_over_lost(stream_no, (next, sequence.get() - 1))?;
        }
        Ok(Appended::Stored(sequence))
    }

    /// After a restore: whoever followed has seen events under some of these sequences, and sees no others there.
    fn pass_over_lost(&mut self, stream_no: StreamNo, range: (u64, u64)) -> Result<(), StoreError> {
        self.heads.change(self.connection, stream_no)?.restored = false;
        self.connection
            .prepare_cached("DELETE FROM restored_streams WHERE stream_no = ?1")?
            .execute([stream_no])?;
        self.mark_gap(stream_no, range, GapReason::Restore)
    }

    /// Same id: the same event again, or a contradiction.
    fn judge(
        &mut self,
        stream_no: StreamNo,
        sender: &Sender,
        event: &NewEvent,
        held: &Held,
    ) -> Result<Appended, StoreError> {
        if is_same(event, held) {
            return Ok(Appended::Duplicate(held.sequence));
        }
        self.set_aside_conflict(stream_no, sender, event, ConflictKind::EventId, held.sequence)
    }

    fn held_by_id(
        &mut self,
        stream_no: StreamNo,
        key: &[u8],
        expected: Option<Sequence>,
    ) -> Result<Option<Held>, StoreError> {
        let Some(sequence) = self.sequence_of(stream_no, key, expected)? else { return Ok(None) };
        let place = position(stream_no, sequence);
        let event = self.rows.event_at(place)?.ok_or_else(|| misplaced(place))?;
        Ok(Some(Held { sequence, json: event.json.to_vec() }))
    }

    /// Moves the head over a stored event.
    fn record(
        &mut self,
        stream_no: StreamNo,
        event: &NewEvent,
        sequence: Sequence,
        json: Bytes,
        change: &HeadChange,
    ) -> Result<(), StoreError> {
        self.save_change(stream_no, change)?;
        let now_ms = self.now_ms;
        self.done.late += u64::from(self.heads.get(self.connection, stream_no)?.is_given_up(sequence));
        let head = self.heads.change(self.connection, stream_no)?;
        // The same call as the trial: it cannot fail where the trial did not.
        let _ = head.head.accept(sequence.get(), now_ms, limits::HOLES_PER_STREAM);
        head.event_count += 1;
        head.byte_count += json.len() as u64;
        match event.terminal {
            Some(status) if !head.ended => {
                head.ended = true;
                head.status = status;
                head.finished_at_ms = Some(now_ms);
            }
            _ if event.starts_work && head.status == RunStatus::Queued => head.status = RunStatus::Running,
            _ => {}
        }
        let is_complete = head.is_complete();
        // Who comes from here on reads it in the log.
        if self.is_watched(stream_no) {
            let stored = StoredEvent { sequence, received_at_ms: now_ms, derived: event.derived, json };
            self.done.appended.push((stream_no, stored));
        }
        if is_complete { self.finish_run(stream_no) } else { Ok(()) }
    }

    /// Asked once for all events of a batch that are of one stream.
    fn is_watched(&mut self, stream_no: StreamNo) -> bool {
        if let Some((_, is_watched)) = self.last_stream.filter(|(last, _)| *last == stream_no) {
            return is_watched;
        }
        let is_watched = self.observer.is_watched(stream_no);
        self.last_stream = Some((stream_no, is_watched));
        is_watched
    }

    fn save_change(&self, stream_no: StreamNo, change: &HeadChange) -> Result<(), StoreError> {
        if let Some(from) = change.removed {
            self.connection
                .prepare_cached("DELETE FROM holes WHERE stream_no = ?1 AND from_sequence = ?2")?
                .execute(params![stream_no, from as i64])?;
        }
        for hole in change.added.iter().flatten() {
            self.connection
                .prepare_cached(
                    "INSERT INTO holes (stream_no, from_sequence, to_sequence, since, reason)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![
                    stream_no,
                    hole.from as i64,
                    hole.to as i64,
                    hole.since_ms,
                    hole.reason.map(GapReason::as_str)
                ])?;
        }
        Ok(())
    }

    /// Records that `from..=to` will not come: a later reader passes over it at once.
    pub(super) fn mark_gap(
        &mut self,
        stream_no: StreamNo,
        (from, to): (u64, u64),
        reason: GapReason,
    ) -> Result<(), StoreError> {
        let head = &mut self.heads.change(self.connection, stream_no)?.head;
        // Too many holes already: this one stays unnamed, and followers wait for it as for any other.
        let Ok(marked) = head.mark_known(from, to, reason, limits::HOLES_PER_STREAM) else { return Ok(()) };
        for change in &marked.changes {
            self.save_change(stream_no, change)?;
        }
        let is_complete = self.heads.get(self.connection, stream_no)?.is_complete();
        if is_complete { self.finish_run(stream_no) } else { Ok(()) }
    }

    /// Retention: everything below `to` is gone from now on. The rows go later, in small batches.
    pub(super) fn raise_oldest(&mut self, stream_no: StreamNo, to: u64) -> Result<(), StoreError> {
        let changes = self.heads.change(self.connection, stream_no)?.head.raise_oldest(to);
        for change in &changes {
            self.save_change(stream_no, change)?;
        }
        Ok(())
    }

    fn set_aside_conflict(
        &mut self,
        stream_no: StreamNo,
        sender: &Sender,
        event: &NewEvent,
        kind: ConflictKind,
        held_sequence: Sequence,
    ) -> Result<Appended, StoreError> {
        let (kind_name, reason) = match kind {
            ConflictKind::EventId => ("conflict_event_id", "this event id is held with other content"),
            ConflictKind::Sequence => ("conflict_sequence", "this sequence is held by another event"),
        };
        self.set_aside(stream_no, kind_name, sender, Some(event), reason, &event.json)?;
        Ok(Appended::Conflict(kind, held_sequence))
    }

    /// Keeps what cannot be an event of the stream, for people. Bounded per stream; audited once per
    /// stream and kind, so that a peer that repeats itself does not fill the audit.
    pub(super) fn set_aside(
        &mut self,
        stream_no: StreamNo,
        kind: &'static str,
        sender: &Sender,
        event: Option<&NewEvent>,
        reason: &str,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let (kept, of_kind): (i64, i64) = self
            .connection
            .prepare_cached(
                "SELECT count(*), count(*) FILTER (WHERE kind = ?2) FROM events_aside WHERE stream_no = ?1",
            )?
            .query_row(params![stream_no, kind], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let sender = match sender {
            Sender::Client => "client",
            Sender::Peer(peer) => peer.as_str(),
        };
        if kept < limits::ASIDE_PER_STREAM as i64 {
            let bytes = &bytes[..bytes.len().min(limits::ASIDE_BYTES)];
            self.connection
                .prepare_cached(
                    "INSERT INTO events_aside
                         (stream_no, kind, sender, event_id, sequence, received_at, reason, json)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                )?
                .execute(params![
                    stream_no,
                    kind,
                    sender,
                    event.map(|event| event.event_id.as_str()),
                    event.and_then(|event| event.sequence).map(|sequence| sequence.get() as i64),
                    self.now_ms,
                    reason,
                    bytes
                ])?;
        }
        if of_kind > 0 {
            return Ok(());
        }
        let (tenant, object) = self.stream_name(stream_no)?;
        self.audit(&AuditRecord {
            correlation_id: "",
            tenant: &tenant,
            subject: sender,
            action: "events.set_aside",
            object: &object,
            outcome: kind,
            reason,
            meta: "",
        })
    }

    fn stream_name(&self, stream_no: StreamNo) -> Result<(String, String), StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT tenant_id, stream_id FROM streams WHERE stream_no = ?1")?;
        Ok(statement.query_row([stream_no], |row| Ok((row.get(0)?, row.get(1)?)))?)
    }
}

/// Why this sender may not add this event to this stream, whatever the log holds.
fn refusal(head: &StreamHead, sender: &Sender, event: &NewEvent) -> Option<Rejection> {
    let is_home = match sender {
        Sender::Client => head.home.is_empty(),
        Sender::Peer(peer) => *head.home == *peer.as_str(),
    };
    let beyond = event.sequence.is_none_or(|sequence| sequence.get() > head.head.last());
    if !is_home {
        Some(Rejection::OriginMismatch)
    } else if event.sequence.is_none() && !head.home.is_empty() {
        Some(Rejection::SequenceRequired)
    } else if head.ended && beyond {
        Some(Rejection::StreamEnded)
    } else if event.sequence.is_none() && head.head.last() == MAX_SEQUENCE {
        Some(Rejection::SequenceOutOfRange)
    } else {
        None
    }
}

/// A duplicate of what is held, if it is one; else no.
fn repeat_or(rejection: Rejection, event: &NewEvent, held: Option<Held>) -> Appended {
    match held.filter(|held| is_same(event, held)) {
        Some(held) => Appended::Duplicate(held.sequence),
        None => Appended::Rejected(rejection),
    }
}

/// The newcomer and the held event say the same. An event that came without a sequence got one here,
/// so its repeat is given the same one before they are compared.
fn is_same(event: &NewEvent, held: &Held) -> bool {
    if mutant("conflict_accepted") {
        return true;
    }
    match event.sequence {
        Some(_) => json_equal::equal(&event.json, &held.json),
        None => {
            json_equal::equal(&numbered(&event.json, held.sequence), &held.json)
                || json_equal::equal(&event.json, &held.json)
        }
    }
}

/// An event object with the sequence its home gave it.
fn numbered(json: &Bytes, sequence: Sequence) -> Bytes {
    let Some(rest) = json.strip_prefix(b"{") else { return json.clone() };
    let comma = if rest.starts_with(b"}") { "" } else { "," };
    // With no room left over, the bytes need no second allocation.
    let length = "{\"sequence\":".len() + sequence.get().ilog10() as usize + 1 + comma.len() + rest.len();
    let mut numbered = Vec::with_capacity(length);
    // Writing to memory cannot fail.
    let _ = write!(numbered, "{{\"sequence\":{sequence}{comma}");
    numbered.extend_from_slice(rest);
    Bytes::from(numbered)
}

/// What the index or the head says of this place is not so.
pub(super) fn misplaced(place: i64) -> StoreError {
    StoreError::Inconsistent { table: "events", column: "position", row: described(place) }
}
