//! Batches of events into the log: from a reader, or from whoever pushes. One durable unit each.

use std::sync::Arc;

use super::Store;
use super::audit::{Actor, AuditRecord};
use super::error::StoreError;
use super::heads;
use super::page::{EventRow, PageRange, read_page};
use super::quotas::Quotas;
use crate::domain::event::{Appended, NewEvent, RunKey, Sender, Sequence};
use crate::domain::holes::GapReason;
use crate::domain::id::AgentId;
use crate::domain::stream::{StreamNo, StreamState};

/// One event of a pushed batch.
#[derive(Debug, Clone)]
pub struct BatchEntry {
    /// The run it belongs to.
    pub key: RunKey,
    /// The agent it names.
    pub agent: Option<AgentId>,
    /// The event.
    pub event: NewEvent,
}

/// What a reader brings from a home in one go.
#[derive(Debug, Clone, Default)]
pub struct ReaderBatch {
    /// Events, in the order they came.
    pub events: Vec<NewEvent>,
    /// Ranges the home says it will never send.
    pub gaps: Vec<(u64, u64)>,
    /// Frames that are no events of this run: why, and their bytes.
    pub invalid: Vec<(String, Vec<u8>)>,
}

impl Store {
    /// Appends a pushed batch, for any number of runs, atomically. Answers in the same order, after the
    /// commit. Refuses at once when the log has too much to do.
    pub async fn append_batch(
        &self,
        sender: Sender,
        entries: Vec<BatchEntry>,
    ) -> Result<Vec<Appended>, StoreError> {
        self.append_batch_within(sender, entries, Quotas::default()).await
    }

    /// The same, unless a tenant would come to hold more bytes than its quota: then nothing of the batch is
    /// kept. Repeats of what is held cost nothing and are answered at any time.
    pub async fn append_batch_within(
        &self,
        sender: Sender,
        entries: Vec<BatchEntry>,
        quotas: Quotas,
    ) -> Result<Vec<Appended>, StoreError> {
        self.append_unit(sender, entries, quotas, None).await
    }

    /// The same, with a record of who pushed what in the audit.
    pub async fn append_pushed(
        &self,
        sender: Sender,
        entries: Vec<BatchEntry>,
        quotas: Quotas,
        by: Actor,
    ) -> Result<Vec<Appended>, StoreError> {
        self.append_unit(sender, entries, quotas, Some(by)).await
    }

    async fn append_unit(
        &self,
        sender: Sender,
        entries: Vec<BatchEntry>,
        quotas: Quotas,
        by: Option<Actor>,
    ) -> Result<Vec<Appended>, StoreError> {
        let bytes = entries.iter().map(|entry| entry.event.json.len()).sum();
        self.writer
            .run_or_refuse(bytes, move |unit| {
                let held = unit.bytes_before(&entries, quotas)?;
                let mut results = Vec::with_capacity(entries.len());
                let mut last: Option<(&RunKey, StreamNo)> = None;
                for entry in &entries {
                    // Most batches are of one run.
                    let stream_no = match last.filter(|(key, _)| **key == entry.key) {
                        Some((_, stream_no)) => stream_no,
                        None => unit.stream_for(&entry.key, &sender, entry.agent.as_ref())?,
                    };
                    last = Some((&entry.key, stream_no));
                    results.push(unit.append(stream_no, &sender, &entry.event)?);
                }
                for (tenant, before) in held {
                    unit.check_growth(&tenant, before, quotas.stored_bytes)?;
                }
                if let (Some(by), Some(first)) = (&by, entries.first()) {
                    let stored =
                        results.iter().filter(|result| matches!(result, Appended::Stored(_))).count();
                    let meta = format!("{{\"events\":{},\"stored\":{stored}}}", entries.len());
                    let record = by.record("events.ingest", first.key.run.as_str(), "done", "");
                    unit.audit(&AuditRecord { meta: &meta, ..record })?;
                }
                Ok(results)
            })
            .await
    }

    /// Appends what a reader brought, atomically, and answers where the stream stands then. Waits its turn.
    pub async fn append_read(
        &self,
        stream_no: StreamNo,
        sender: Sender,
        batch: ReaderBatch,
    ) -> Result<(Vec<Appended>, StreamState), StoreError> {
        let bytes = batch.events.iter().map(|event| event.json.len()).sum();
        self.writer
            .run(bytes, move |unit| {
                let mut results = Vec::with_capacity(batch.events.len());
                for event in &batch.events {
                    results.push(unit.append(stream_no, &sender, event)?);
                }
                for gap in &batch.gaps {
                    unit.mark_gap(stream_no, *gap, GapReason::Upstream)?;
                }
                for (reason, bytes) in &batch.invalid {
                    unit.set_aside(stream_no, "upstream_invalid", &sender, None, reason, bytes)?;
                }
                let state = unit.heads.get(unit.connection, stream_no)?.state();
                Ok((results, state))
            })
            .await
    }

    /// Where a stream stands, from the database.
    pub async fn stream_state(&self, stream_no: StreamNo) -> Result<StreamState, StoreError> {
        self.readers.with(move |connection| Ok(heads::load(connection, stream_no)?.state())).await
    }

    /// Reads one page of a stream in order, off the async threads. `visit` gets every event; what it made
    /// of them is answered with the last sequence visited.
    pub async fn read_events<T: Send + 'static>(
        &self,
        stream_no: StreamNo,
        range: PageRange,
        mut made: T,
        mut visit: impl FnMut(&mut T, EventRow<'_>) + Send + 'static,
    ) -> Result<(T, Option<Sequence>), StoreError> {
        self.readers
            .with(move |connection| {
                let last = read_page(connection, stream_no, range, &mut |row| visit(&mut made, row))?;
                Ok((made, last))
            })
            .await
    }

    /// The id of this log, part of every opaque cursor.
    pub fn incarnation(&self) -> &Arc<str> {
        &self.incarnation
    }
}
