//! The one way in for pushed events: parse, check, append, answer per entry.
//!
//! One bad entry never spoils its neighbours; the good ones are one durable unit.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::identity::Caller;
use super::quota_gate::QuotaGate;
use crate::domain::event::{Appended, ConflictKind, RunKey, Sender, Sequence};
use crate::domain::id::EventId;
use crate::domain::{json_equal, limits};
use crate::metrics::{Metrics, Reason};
use crate::protocol::envelope::{self, InvalidEvent, ParsedEvent, TerminalTypes};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::json_fields::{Fields, InvalidBody};
use crate::protocol::problem::Problem;
use crate::store::{Actor, BatchEntry, Store, StoreError};

/// A request body, taken apart as far as needed to know whose it is.
#[derive(Debug)]
pub struct IngestBody<'a> {
    /// The tenant the body claims.
    pub claimed_tenant: Option<String>,
    /// The entries, each still text; a line that is no JSON is an error of its own.
    pub entries: Vec<Result<&'a RawValue, String>>,
}

/// What nearly every body is, in one walk over it.
#[derive(Deserialize)]
struct Plain<'a> {
    #[serde(borrow)]
    auth: Option<&'a RawValue>,
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

/// What became of a request.
#[derive(Debug, Default, Serialize)]
pub struct IngestAnswer {
    /// Distinct events of this request that the log durably holds now.
    pub accepted: u64,
    /// The other entries.
    pub rejected: u64,
    /// Entries the log held already, or the request repeated.
    pub duplicates: u64,
    /// Entries that contradict the log.
    pub conflicts: u64,
    /// One per entry, in order.
    pub results: Vec<EntryResult>,
}

/// What became of one entry.
#[derive(Debug, Clone, Serialize)]
pub struct EntryResult {
    /// Its id, when it could be read.
    pub event_id: Option<EventId>,
    /// Where the log holds it.
    pub sequence: Option<Sequence>,
    /// `stored`, `duplicate`, `conflict` or `rejected`.
    pub status: &'static str,
    /// Why not, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// Why not, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'static, str>>,
}

/// Takes apart a JSON body in any of the three AgentOS shapes. Only as deep as the list of entries: each of
/// them is checked by itself, so that a bad one spoils nothing else.
pub fn parse_json(body: &[u8]) -> Result<IngestBody<'_>, Problem> {
    // The elements of a list would be taken for the fields.
    let is_object = body.trim_ascii_start().starts_with(b"{");
    let (auth, events) = match serde_json::from_slice(body) {
        Ok(Plain { auth, events }) if is_object => (auth, events),
        // It may still be good, with a field twice; and if not, the error names the field.
        _ => {
            let root = Fields::of_body(body)?;
            (root.find("auth"), root.list("events")?)
        }
    };
    let auth = auth.map(|auth| Fields::of("auth".to_owned(), auth)).transpose()?;
    let claimed_tenant = auth.map_or(Ok(None), |auth| auth.find_string("tenant_id"))?;
    check_count(events.len())?;
    Ok(IngestBody { claimed_tenant, entries: events.into_iter().map(Ok).collect() })
}

/// Takes apart a body of one JSON text per line; empty lines are skipped.
pub fn parse_ndjson(body: &[u8]) -> Result<IngestBody<'_>, Problem> {
    let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let entries: Vec<_> =
        lines.map(|line| serde_json::from_slice(line).map_err(|error| error.to_string())).collect();
    check_count(entries.len())?;
    Ok(IngestBody { claimed_tenant: None, entries })
}

fn check_count(count: usize) -> Result<(), Problem> {
    if (1..=limits::INGEST_EVENTS).contains(&count) {
        return Ok(());
    }
    let expected = format!("must hold 1 to {} events, this one holds {count}", limits::INGEST_EVENTS);
    Err(InvalidBody::field("events", expected).into())
}

/// Where an entry of the batch stands.
#[derive(Clone, Copy)]
struct Place {
    /// Among the results.
    result: usize,
    /// In the batch, the first entry with its id.
    first: usize,
    /// Of a first entry: the log said that it holds this id.
    is_held: bool,
}

/// Takes pushed events.
#[derive(Clone)]
pub struct Ingest {
    store: Store,
    quotas: QuotaGate,
    metrics: Arc<Metrics>,
    terminal: Arc<TerminalTypes>,
}

impl Ingest {
    /// Appends to `store`.
    pub fn new(store: Store, quotas: QuotaGate, metrics: Arc<Metrics>) -> Self {
        Ingest { store, quotas, metrics, terminal: Arc::default() }
    }

    /// Appends what a caller pushed. Answers after it is durable.
    pub async fn push(
        &self,
        caller: &Caller,
        body: IngestBody<'_>,
        correlation_id: &str,
    ) -> Result<IngestAnswer, Problem> {
        let mut results = Vec::with_capacity(body.entries.len());
        let mut batch: Vec<BatchEntry> = Vec::with_capacity(body.entries.len());
        let mut places: Vec<Place> = Vec::with_capacity(body.entries.len());
        // One entry alone repeats nothing.
        let mut first = (body.entries.len() > 1).then(|| HashMap::with_capacity(body.entries.len()));
        let mut envelopes = envelope::Reader::new(&self.terminal);
        for raw in body.entries {
            let entry = raw.map_err(not_json).and_then(|raw| envelopes.read(raw.get().as_bytes()));
            let mut parsed = match entry {
                Ok(parsed) => parsed,
                Err(invalid) => {
                    results.push(rejected_invalid(invalid));
                    continue;
                }
            };
            let names = caller.peer.as_ref().map(|peer| peer.tenant_names());
            let is_named = names.is_none_or(|names| parsed.translate(names));
            if !is_named || parsed.tenant != caller.tenant {
                results.push(foreign_tenant(parsed));
                continue;
            }
            if is_spoofed(caller, &parsed) {
                results.push(spoofed(parsed));
                continue;
            }
            results.push(repeated(&parsed)); // overwritten by what the log answers
            let id = || (parsed.run.clone(), parsed.event.event_id.clone());
            let first = match first.as_mut().map(|first| first.entry(id())) {
                None => 0,
                Some(Entry::Vacant(free)) => *free.insert(places.len()),
                Some(Entry::Occupied(held))
                    if json_equal::equal(&batch[*held.get()].event.json, &parsed.event.json) =>
                {
                    continue;
                }
                // An id that comes again with other content is for the log to judge, as in two requests.
                Some(Entry::Occupied(held)) => *held.get(),
            };
            places.push(Place { result: results.len() - 1, first, is_held: false });
            let key = RunKey { tenant: parsed.tenant, run: parsed.run };
            batch.push(BatchEntry { key, agent: parsed.agent, event: parsed.event });
        }
        let appended =
            if batch.is_empty() { Vec::new() } else { self.append(caller, batch, correlation_id).await? };
        for (at, outcome) in appended.iter().enumerate() {
            let Place { result, first, .. } = places[at];
            let is_held = matches!(outcome, Appended::Stored(_) | Appended::Duplicate(_));
            // A duplicate of what this request has brought already stays a repeat inside the request.
            if !is_held || !std::mem::replace(&mut places[first].is_held, true) {
                results[result].hear(outcome);
            }
        }
        Ok(self.sum_up(results))
    }

    async fn append(
        &self,
        caller: &Caller,
        batch: Vec<BatchEntry>,
        correlation_id: &str,
    ) -> Result<Vec<Appended>, Problem> {
        let by = Actor {
            tenant: caller.tenant.to_string(),
            subject: caller.subject(),
            correlation_id: correlation_id.to_owned(),
        };
        let sender = match &caller.peer {
            Some(peer) => Sender::Peer(peer.id().clone()),
            None => Sender::Client,
        };
        match self.store.append_pushed(sender, batch, self.quotas.quotas(), by).await {
            Err(StoreError::QuotaExceeded(exceeded)) => Err(self.quotas.refuse(&caller.tenant, &exceeded)),
            appended => Ok(appended?),
        }
    }

    fn sum_up(&self, results: Vec<EntryResult>) -> IngestAnswer {
        let mut answer = IngestAnswer::default();
        let mut stored = 0;
        for result in &results {
            match (result.status, result.code) {
                ("stored", _) => stored += 1,
                ("duplicate", code) => {
                    answer.duplicates += 1;
                    self.metrics.events_duplicate.inc();
                    // A repeat inside the request is no second event; one the log held is a success.
                    if code.is_some() { answer.rejected += 1 } else { answer.accepted += 1 }
                }
                ("conflict", _) => {
                    answer.conflicts += 1;
                    answer.rejected += 1;
                    self.metrics.events_conflict.inc();
                }
                (_, code) => {
                    answer.rejected += 1;
                    let reason = code.unwrap_or("invalid_event");
                    self.metrics.events_rejected.get_or_create(&Reason { reason }).inc();
                }
            }
        }
        self.metrics.events_stored.inc_by(stored);
        answer.accepted += stored;
        answer.results = results;
        answer
    }
}

fn not_json(reason: String) -> InvalidEvent {
    InvalidEvent {
        event_id: None,
        field: "event".to_owned(),
        reason: limits::clean_reason(&format!("the line is not JSON: {reason}")),
        too_large: false,
    }
}

fn rejected(
    event_id: Option<EventId>,
    code: &'static str,
    reason: impl Into<Cow<'static, str>>,
) -> EntryResult {
    let reason = Some(reason.into());
    EntryResult { event_id, sequence: None, status: "rejected", code: Some(code), reason }
}

fn rejected_invalid(invalid: InvalidEvent) -> EntryResult {
    let code = if invalid.too_large { ErrorCode::PayloadTooLarge.as_str() } else { "invalid_event" };
    let event_id = invalid.event_id.and_then(|id| EventId::parse(&id).ok());
    rejected(event_id, code, invalid.reason)
}

fn foreign_tenant(parsed: ParsedEvent) -> EntryResult {
    let reason = "the event belongs to another tenant than the request";
    rejected(Some(parsed.event.event_id), "origin_mismatch", reason)
}

/// Nobody pushes for another peer: an event that names an origin names the one that pushes it.
fn is_spoofed(caller: &Caller, parsed: &ParsedEvent) -> bool {
    let own = caller.peer.as_ref().map(|peer| peer.id().as_str());
    parsed.origin.as_deref().is_some_and(|origin| own != Some(origin))
}

fn spoofed(parsed: ParsedEvent) -> EntryResult {
    let reason = "the event says that it comes from another peer than the one that pushes it";
    rejected(Some(parsed.event.event_id), "origin_mismatch", reason)
}

fn repeated(parsed: &ParsedEvent) -> EntryResult {
    EntryResult {
        event_id: Some(parsed.event.event_id.clone()),
        sequence: parsed.event.sequence,
        status: "duplicate",
        code: Some("duplicate_in_request"),
        reason: Some("the request holds this event id more than once; the first one counts".into()),
    }
}

impl EntryResult {
    /// Becomes what the log answered.
    fn hear(&mut self, outcome: &Appended) {
        let (sequence, status, code, reason) = match outcome {
            Appended::Stored(sequence) => (Some(*sequence), "stored", None, None),
            Appended::Duplicate(sequence) => (Some(*sequence), "duplicate", None, None),
            Appended::Conflict(kind, held) => {
                (Some(*held), "conflict", Some("event_conflict"), Some(conflict_reason(*kind, *held)))
            }
            Appended::Rejected(rejection) => {
                (None, "rejected", Some(rejection.code()), Some(rejection.to_string()))
            }
        };
        let event_id = self.event_id.take();
        *self = EntryResult { event_id, sequence, status, code, reason: reason.map(Cow::Owned) };
    }
}

fn conflict_reason(kind: ConflictKind, held: Sequence) -> String {
    match kind {
        ConflictKind::EventId => {
            format!("this event id is held with other content, at sequence {held}; this one was set aside")
        }
        ConflictKind::Sequence => {
            format!("sequence {held} is held by another event; this one was set aside")
        }
    }
}
