//! What happens to a forward inside one transaction: the intent with its key, each attempt, the settlement.
//!
//! Invariants: the answer, the run and its place in the forward index appear together or not at all; a forward
//! is due at some time if and only if it is not at rest.

use rusqlite::params;

use super::audit::AuditRecord;
use super::caller_keys::find_by_key;
use super::error::StoreError;
use super::forwards::{AttemptRecord, ForwardRecord, ForwardedRun, Reserved, Settlement, load};
use super::quotas::Quotas;
use super::runs::{NewRun, RunRecord};
use super::writer::Unit;
use crate::domain::event::RunKey;
use crate::domain::forward::ForwardState;
use crate::domain::id::{ForwardId, RunId};
use crate::domain::run::RunStatus;
use crate::domain::stream::StreamNo;
use crate::domain::stream::StreamState;

/// Of a run whose events are read from its home.
const FOLLOWING: &str = "following";

/// A run that a settlement made, and its stream.
#[derive(Debug, Clone)]
pub struct FreshRun {
    /// The run.
    pub record: RunRecord,
    /// Its stream.
    pub state: StreamState,
}

impl Unit<'_> {
    pub(super) fn reserve(
        &mut self,
        forward: &ForwardRecord,
        key_expires_at_ms: Option<i64>,
        quotas: Quotas,
    ) -> Result<Reserved, StoreError> {
        if key_expires_at_ms.is_some()
            && let Some(known) = find_by_key(self.connection, &forward.downstream_key, self.now_ms)?
        {
            if !known.means(&forward.request) {
                return Ok(Reserved::KeyReused);
            }
            if !known.may_be_tried_again() {
                return Ok(Reserved::Known(Box::new(known)));
            }
        }
        if let Some(exceeded) = self.take_quotas(forward.tenant.as_str(), quotas)? {
            return Ok(Reserved::QuotaExceeded(exceeded));
        }
        let number = self.insert_forward(forward)?;
        self.keep_key(&forward.downstream_key, number, key_expires_at_ms)?;
        self.audit_forward(forward, "reserved", "")?;
        Ok(Reserved::New(Box::new(forward.clone())))
    }

    pub(super) fn forward(&self, id: &ForwardId) -> Result<ForwardRecord, StoreError> {
        load(self.connection, id)
    }

    /// Answers its number.
    fn insert_forward(&self, forward: &ForwardRecord) -> Result<i64, StoreError> {
        self.connection
            .prepare_cached(
                "INSERT INTO forwards
                     (forward_id, tenant_id, principal_id, peer_id, agent_id, request, downstream_key, state,
                      background, correlation_id, traceparent, created_at, updated_at, first_sent_at,
                      deadline_at, next_attempt_at, via)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12, ?13, ?14, ?15, ?16)",
            )?
            .execute(params![
                forward.forward_id.as_str(),
                forward.tenant.as_str(),
                forward.principal.as_str(),
                forward.peer.as_str(),
                forward.agent.as_str(),
                forward.request,
                forward.downstream_key,
                forward.state.as_str(),
                forward.background,
                forward.correlation_id,
                forward.traceparent,
                self.now_ms,
                forward.first_sent_at_ms,
                forward.deadline_at_ms,
                forward.next_attempt_at_ms.unwrap_or(self.now_ms),
                forward.via,
            ])?;
        Ok(self.connection.last_insert_rowid())
    }

    /// Writes what the attempts of a forward have come to.
    pub(super) fn save_result(&self, forward: &ForwardRecord) -> Result<(), StoreError> {
        let attempts = serde_json::to_string(&forward.attempts);
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO forward_results
                     (forward_no, attempts, attempts_total, run_id, remote_run_id, remote_events_url, run_status,
                      answer, error)
                 VALUES ((SELECT forward_no FROM forwards WHERE forward_id = ?1), ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                forward.forward_id.as_str(),
                attempts.map_err(|error| StoreError::Failed(error.to_string()))?,
                forward.attempts_total as i64,
                forward.run_id.as_ref().map(RunId::as_str),
                forward.remote_run_id,
                forward.remote_events_url,
                forward.run_status.map(RunStatus::as_str),
                forward.answer,
                forward.error,
            ])?;
        Ok(())
    }

    pub(super) fn settle_without_run(
        &mut self,
        id: &ForwardId,
        settlement: &Settlement,
    ) -> Result<ForwardRecord, StoreError> {
        let mut forward = self.forward(id)?;
        if forward.state.is_at_rest() {
            return Ok(forward);
        }
        if let Some(attempt) = settlement.attempt.clone() {
            forward.add_attempt(attempt);
        }
        forward.error = settlement.error.clone();
        self.save_result(&forward)?;
        let due_ms = settlement.next_attempt_at_ms.unwrap_or(self.now_ms);
        self.connection
            .prepare_cached(
                "UPDATE forwards SET state = ?2, outcome = ?3, next_attempt_at = ?4, not_before = ?5,
                        deadline_at = ?6, updated_at = ?7
                 WHERE forward_id = ?1",
            )?
            .execute(params![
                id.as_str(),
                settlement.state.as_str(),
                settlement.outcome,
                (!settlement.state.is_at_rest()).then_some(due_ms),
                settlement.not_before_ms,
                settlement.deadline_at_ms,
                self.now_ms
            ])?;
        if settlement.state.is_at_rest() && settlement.outcome == Some("not_started") {
            self.give_run_back(&forward)?;
        }
        let reason = forward.attempts.last().map_or(String::new(), |last| last.reason.clone());
        self.audit_forward(&forward, settlement.state.as_str(), &reason)?;
        self.forward(id)
    }

    pub(super) fn settle_forwarded(
        &mut self,
        id: &ForwardId,
        attempt: &AttemptRecord,
        run: &ForwardedRun,
    ) -> Result<(ForwardRecord, Option<FreshRun>), StoreError> {
        let mut forward = self.forward(id)?;
        if forward.state.is_at_rest() {
            return Ok((forward, None));
        }
        forward.add_attempt(attempt.clone());
        let (run_id, stream_no, is_new) = self.index(&forward, run)?;
        self.connection
            .prepare_cached(
                "UPDATE forwards SET state = 'forwarded', outcome = NULL, next_attempt_at = NULL, updated_at = ?2
                 WHERE forward_id = ?1",
            )?
            .execute(params![id.as_str(), self.now_ms])?;
        self.audit_forward(&forward, "forwarded", run_id.as_str())?;
        if let Some(refused) = &run.events_url_refused {
            self.audit_forward(&forward, "events_url_refused", refused)?;
        }
        let fresh = is_new.then(|| self.fresh_run(&forward, run, (&run_id, stream_no))).transpose()?;
        let settled = ForwardRecord {
            state: ForwardState::Forwarded,
            outcome: None,
            error: None,
            next_attempt_at_ms: None,
            run_id: Some(run_id),
            remote_run_id: Some(run.remote_run_id.to_string()),
            remote_events_url: Some(run.remote_events_url.clone()),
            run_status: Some(run.status),
            answer: Some(run.answer.clone()),
            updated_at_ms: self.now_ms,
            ..forward
        };
        self.save_result(&settled)?;
        Ok((settled, fresh))
    }

    /// A run as it was just made, so that nobody has to look it up.
    fn fresh_run(
        &mut self,
        forward: &ForwardRecord,
        run: &ForwardedRun,
        (run_id, stream_no): (&RunId, StreamNo),
    ) -> Result<FreshRun, StoreError> {
        let state = self.heads.get(self.connection, stream_no)?.state();
        let record = RunRecord {
            key: RunKey { tenant: forward.tenant.clone(), run: run_id.clone() },
            stream_no,
            agent: Some(forward.agent.clone()),
            home: Some(forward.peer.clone()),
            remote_run_id: run.remote_run_id.clone(),
            events_path: run.events_path.clone(),
            remote_events_url: run.remote_events_url.clone(),
            forward_id: Some(forward.forward_id.to_string()),
            follow: FOLLOWING.to_owned(),
            traceparent: Some(forward.traceparent.clone()),
            correlation_id: Some(forward.correlation_id.clone()),
            principal: Some(forward.principal.clone()),
            status: state.status,
            lost_reason: None,
            created_at_ms: self.now_ms,
            updated_at_ms: self.now_ms,
            finished_at_ms: None,
        };
        Ok(FreshRun { record, state })
    }

    /// Puts the run into the forward index; a run that is there already keeps its name. Answers its name, its
    /// stream, and whether it is new.
    fn index(
        &mut self,
        forward: &ForwardRecord,
        run: &ForwardedRun,
    ) -> Result<(RunId, StreamNo, bool), StoreError> {
        let (tenant, peer) = (forward.tenant.as_str(), forward.peer.as_str());
        let remote = run.remote_run_id.as_str();
        let named = |name: &str| {
            RunId::parse(name).map_err(|_| StoreError::Inconsistent {
                table: "runs",
                column: "run_id",
                row: remote.to_owned(),
            })
        };
        if let Some((name, stream_no)) = self.find_remote_run(tenant, peer, remote)? {
            return Ok((named(&name)?, stream_no, false));
        }
        let (name, stream_no) = self.create_run(&NewRun {
            tenant,
            run_id: remote,
            agent: Some(forward.agent.as_str()),
            home: peer,
            remote_run_id: remote,
            events_path: &run.events_path,
            remote_events_url: &run.remote_events_url,
            forward_id: Some(forward.forward_id.as_str()),
            follow: FOLLOWING,
            status: if run.status.is_finished() { RunStatus::Running } else { run.status },
            traceparent: Some(&forward.traceparent),
            correlation_id: Some(&forward.correlation_id),
            principal: Some(forward.principal.as_str()),
        })?;
        Ok((named(&name)?, stream_no, true))
    }

    fn audit_forward(
        &mut self,
        forward: &ForwardRecord,
        outcome: &str,
        reason: &str,
    ) -> Result<(), StoreError> {
        self.audit(&AuditRecord {
            correlation_id: &forward.correlation_id,
            tenant: forward.tenant.as_str(),
            subject: forward.principal.as_str(),
            action: "federation.runs.forward",
            object: forward.forward_id.as_str(),
            outcome,
            reason,
            meta: "",
        })
    }
}
