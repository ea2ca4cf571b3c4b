//! What happens to a forward inside one transaction: the intent with its key, each attempt, the settlement.
//!
//! Invariants: the answer, the run and its place in the forward index appear together or not at all; a forward
//! is due at some time if and only if it is not at rest.

use rusqlite::params;

use super::audit::AuditRecord;
use super::error::StoreError;
use super::forwards::{
    AttemptRecord, CallerKey, ForwardRecord, ForwardedRun, Reserved, Settlement, find_by_key, load,
};
use super::quotas::Quotas;
use super::runs::{NewRun, RunRecord};
use super::writer::Unit;
use crate::domain::event::RunKey;
use crate::domain::forward::ForwardState;
use crate::domain::id::{ForwardId, RunId};
use crate::domain::limits;
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

/// Adds an attempt to those kept.
fn number_attempt(forward: &mut ForwardRecord, mut attempt: AttemptRecord) {
    forward.attempts_total += 1;
    attempt.attempt = forward.attempts_total;
    forward.attempts.push(attempt);
    let surplus = forward.attempts.len().saturating_sub(limits::ATTEMPTS_KEPT);
    forward.attempts.drain(..surplus);
}

fn attempts_text(forward: &ForwardRecord) -> Result<String, StoreError> {
    serde_json::to_string(&forward.attempts).map_err(|error| StoreError::Failed(error.to_string()))
}

impl Unit<'_> {
    pub(super) fn reserve(
        &mut self,
        forward: &ForwardRecord,
        key: Option<&CallerKey>,
        quotas: Quotas,
    ) -> Result<Reserved, StoreError> {
        if let Some(key) = key
            && let Some(known) = find_by_key(
                self.connection,
                (&forward.tenant, &forward.principal, key.operation, &key.key),
                self.now_ms,
            )?
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
        self.insert_forward(forward)?;
        if let Some(key) = key {
            self.connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO idempotency
                         (tenant_id, principal_id, operation, key, forward_id, expires_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![
                    forward.tenant.as_str(),
                    forward.principal.as_str(),
                    key.operation,
                    key.key,
                    forward.forward_id.as_str(),
                    key.expires_at_ms
                ])?;
        }
        self.audit_forward(forward, "reserved", "")?;
        Ok(Reserved::New(Box::new(forward.clone())))
    }

    pub(super) fn forward(&self, id: &ForwardId) -> Result<ForwardRecord, StoreError> {
        load(self.connection, id)
    }

    fn insert_forward(&self, forward: &ForwardRecord) -> Result<(), StoreError> {
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
        Ok(())
    }

    pub(super) fn push_attempt(
        &self,
        forward: &mut ForwardRecord,
        attempt: AttemptRecord,
    ) -> Result<(), StoreError> {
        number_attempt(forward, attempt);
        self.connection
            .prepare_cached(
                "UPDATE forwards SET attempts = ?2, attempts_total = ?3, updated_at = ?4
                 WHERE forward_id = ?1",
            )?
            .execute(params![
                forward.forward_id.as_str(),
                attempts_text(forward)?,
                forward.attempts_total as i64,
                self.now_ms
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
            self.push_attempt(&mut forward, attempt)?;
        }
        let due_ms = settlement.next_attempt_at_ms.unwrap_or(self.now_ms);
        self.connection
            .prepare_cached(
                "UPDATE forwards SET state = ?2, outcome = ?3, error = ?4, next_attempt_at = ?5,
                        not_before = ?6, deadline_at = ?7, updated_at = ?8
                 WHERE forward_id = ?1",
            )?
            .execute(params![
                id.as_str(),
                settlement.state.as_str(),
                settlement.outcome,
                settlement.error,
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
        number_attempt(&mut forward, attempt.clone());
        let (run_id, stream_no, is_new) = self.index(&forward, run)?;
        self.connection
            .prepare_cached(
                "UPDATE forwards SET state = 'forwarded', outcome = NULL, error = NULL, next_attempt_at = NULL,
                        run_id = ?2, remote_run_id = ?3, remote_events_url = ?4, run_status = ?5, answer = ?6,
                        updated_at = ?7, attempts = ?8, attempts_total = ?9
                 WHERE forward_id = ?1",
            )?
            .execute(params![
                id.as_str(),
                run_id.as_str(),
                run.remote_run_id.as_str(),
                run.remote_events_url,
                run.status.as_str(),
                run.answer,
                self.now_ms,
                attempts_text(&forward)?,
                forward.attempts_total as i64,
            ])?;
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
