//! Runs and where they live: the forward index, `(tenant, run) → home`.
//!
//! SQLite is the truth; the AgentOS index file is imported from and written to by `services`.

use std::sync::Arc;

use rusqlite::{OptionalExtension, params};
use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::Store;
use super::audit::AuditRecord;
use super::error::StoreError;
use super::writer::Unit;
use crate::domain::event::{RunKey, Sender};
use crate::domain::id::{AgentId, PeerId, PrincipalId, RunId, TenantId};
use crate::domain::run::RunStatus;
use crate::domain::stream::StreamNo;
use crate::domain::succession::to_hex;
use crate::mutants::mutant;

/// The columns of a [`RunRecord`], for `concat!` with a condition.
macro_rules! run_columns {
    () => {
        "SELECT r.tenant_id, r.run_id, r.stream_no, r.agent_id, r.peer_id, r.remote_run_id, r.events_path,
                r.remote_events_url, r.forward_id, r.follow, r.traceparent, r.correlation_id, r.principal_id,
                r.created_at, s.status, s.lost_reason, s.updated_at, s.finished_at
         FROM runs r JOIN streams s ON s.stream_no = r.stream_no "
    };
}

/// What is known here of one run.
#[derive(Debug, Clone)]
pub struct RunRecord {
    /// Tenant and id.
    pub key: RunKey,
    /// Its event stream.
    pub stream_no: StreamNo,
    /// The agent, when it is known.
    pub agent: Option<AgentId>,
    /// The home; `None` means this gateway.
    pub home: Option<PeerId>,
    /// The id the home knows it by.
    pub remote_run_id: RunId,
    /// Where the home serves its events: a path below the peer's configured base.
    pub events_path: String,
    /// The URL the home gave, for people: it is never fetched.
    pub remote_events_url: String,
    /// The forward that made it.
    pub forward_id: Option<String>,
    /// `following`, `finished`, `lost` or `pushed`.
    pub follow: String,
    /// Sent on with every read.
    pub traceparent: Option<String>,
    /// Of the request that made it.
    pub correlation_id: Option<String>,
    /// Who made it.
    pub principal: Option<PrincipalId>,
    /// How far it has come.
    pub status: RunStatus,
    /// Why it is lost.
    pub lost_reason: Option<String>,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// Of the last change to its stream.
    pub updated_at_ms: i64,
    /// When the terminal event was stored.
    pub finished_at_ms: Option<i64>,
}

impl RunRecord {
    /// True when its events are read from a home elsewhere and the end is not here yet.
    pub fn is_followed(&self) -> bool {
        self.follow == "following"
    }
}

/// A run that becomes known here.
#[derive(Debug, Clone)]
pub(super) struct NewRun<'a> {
    pub(super) tenant: &'a str,
    /// The name wanted; another is chosen when it is taken.
    pub(super) run_id: &'a str,
    pub(super) agent: Option<&'a str>,
    /// Empty means this gateway.
    pub(super) home: &'a str,
    pub(super) remote_run_id: &'a str,
    pub(super) events_path: &'a str,
    pub(super) remote_events_url: &'a str,
    pub(super) forward_id: Option<&'a str>,
    pub(super) follow: &'a str,
    pub(super) status: RunStatus,
    pub(super) traceparent: Option<&'a str>,
    pub(super) correlation_id: Option<&'a str>,
    pub(super) principal: Option<&'a str>,
}

impl Unit<'_> {
    /// The stream of a run, if the run is known.
    pub(super) fn find_run_stream(
        &mut self,
        tenant: &str,
        run_id: &str,
    ) -> Result<Option<StreamNo>, StoreError> {
        self.heads.find(self.connection, tenant, run_id)
    }

    /// The name and stream of the run that `peer` calls `remote_run_id`, if it is known.
    pub(super) fn find_remote_run(
        &self,
        tenant: &str,
        peer: &str,
        remote_run_id: &str,
    ) -> Result<Option<(String, StreamNo)>, StoreError> {
        // Under the name its home gave it, nearly always; else in the index of those that are not.
        let mut statement = self.connection.prepare_cached(
            "SELECT run_id, stream_no FROM runs
             WHERE tenant_id = ?1 AND run_id = ?3 AND peer_id = ?2 AND remote_run_id = ?3
             UNION ALL
             SELECT run_id, stream_no FROM runs
             WHERE tenant_id = ?1 AND peer_id = ?2 AND remote_run_id = ?3 AND remote_run_id <> run_id
             LIMIT 1",
        )?;
        Ok(statement
            .query_row(params![tenant, peer, remote_run_id], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?)
    }

    /// Makes a run known, under a name that is free in its tenant: the home's own id where it can be,
    /// else `<id>@<peer>`, else a name derived from the forward.
    pub(super) fn create_run(&mut self, run: &NewRun<'_>) -> Result<(String, StreamNo), StoreError> {
        let name = self.free_name(run)?;
        let stream_no =
            self.heads.create(self.connection, (run.tenant, &name), run.home, run.status, self.now_ms)?;
        if mutant("run_not_indexed") {
            return Ok((name, stream_no));
        }
        self.connection
            .prepare_cached(
                "INSERT INTO runs (tenant_id, run_id, stream_no, agent_id, peer_id, remote_run_id, events_path,
                                   remote_events_url, forward_id, follow, traceparent, correlation_id,
                                   principal_id, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
            )?
            .execute(params![
                run.tenant,
                name,
                stream_no,
                run.agent,
                run.home,
                run.remote_run_id,
                run.events_path,
                run.remote_events_url,
                run.forward_id,
                run.follow,
                run.traceparent,
                run.correlation_id,
                run.principal,
                self.now_ms
            ])?;
        Ok((name, stream_no))
    }

    fn free_name(&mut self, run: &NewRun<'_>) -> Result<String, StoreError> {
        let with_peer = format!("{}@{}", run.run_id, run.home);
        let derived = match run.forward_id {
            Some(forward_id) => format!("run_{}", forward_id.trim_start_matches("fwd_")),
            None => format!("run_{}", digest_name(run.home, run.run_id)),
        };
        for name in [run.run_id.to_owned(), with_peer, derived] {
            if RunId::parse(&name).is_ok() && self.find_run_stream(run.tenant, &name)?.is_none() {
                return Ok(name);
            }
        }
        Err(StoreError::Inconsistent { table: "runs", column: "run_id", row: run.run_id.to_owned() })
    }

    /// The run's stream has its end: nothing reads it any more.
    pub(super) fn finish_run(&self, stream_no: StreamNo) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "UPDATE runs SET follow = 'finished' WHERE stream_no = ?1 AND follow = 'following'",
            )?
            .execute([stream_no])?;
        Ok(())
    }

    fn lose_run(&mut self, stream_no: StreamNo, reason: &str) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("UPDATE runs SET follow = 'lost' WHERE stream_no = ?1 AND follow = 'following'")?
            .execute([stream_no])?;
        let head = self.heads.change(self.connection, stream_no)?;
        head.status = RunStatus::Lost;
        head.lost = Some(Arc::from(reason));
        Ok(())
    }
}

impl Store {
    /// The run, if this tenant has it.
    pub async fn find_run(&self, key: &RunKey) -> Result<Option<RunRecord>, StoreError> {
        let sql = if mutant("tenant_ignored") {
            concat!(run_columns!(), "WHERE ?1 <> '' AND r.run_id = ?2")
        } else {
            concat!(run_columns!(), "WHERE r.tenant_id = ?1 AND r.run_id = ?2")
        };
        let row =
            sqlx::query(sql).bind(key.tenant.as_str()).bind(key.run.as_str()).fetch_optional(&self.pool);
        let row = self.disk.wait_for(row).await?;
        self.damage.note(row.as_ref().map(decode).transpose())
    }

    /// Runs of a tenant, newest first, after `(created_at, run_id)`, with this status if one is given.
    pub async fn list_runs(
        &self,
        tenant: &TenantId,
        status: Option<RunStatus>,
        after: Option<(i64, String)>,
        limit: u32,
    ) -> Result<Vec<RunRecord>, StoreError> {
        let (created_at, mut run_id) = after.unwrap_or((i64::MAX, String::new()));
        if mutant("list_repeats") {
            run_id.push('~');
        }
        let rows = sqlx::query(concat!(
            run_columns!(),
            "WHERE r.tenant_id = ?1 AND (r.created_at, r.run_id) < (?2, ?3)
               AND (?4 IS NULL OR s.status = ?4)
             ORDER BY r.created_at DESC, r.run_id DESC LIMIT ?5"
        ))
        .bind(tenant.as_str())
        .bind(created_at)
        .bind(run_id)
        .bind(status.map(RunStatus::as_str))
        .bind(limit)
        .fetch_all(&self.pool);
        let rows = self.disk.wait_for(rows).await?;
        self.damage.note(rows.iter().map(decode).collect())
    }

    /// Runs whose end is not here yet and whose home is elsewhere, after `(tenant, run)`.
    pub async fn followed_runs(&self, after: (&str, &str), limit: u32) -> Result<Vec<RunRecord>, StoreError> {
        let rows = sqlx::query(concat!(
            run_columns!(),
            "WHERE r.follow = 'following' AND (r.tenant_id, r.run_id) > (?1, ?2)
             ORDER BY r.tenant_id, r.run_id LIMIT ?3"
        ))
        .bind(after.0)
        .bind(after.1)
        .bind(limit)
        .fetch_all(&self.pool);
        let rows = self.disk.wait_for(rows).await?;
        self.damage.note(rows.iter().map(decode).collect())
    }

    /// Every run with a home elsewhere, after `(tenant, run)`: what the index file lists.
    pub async fn indexed_runs(&self, after: (&str, &str), limit: u32) -> Result<Vec<RunRecord>, StoreError> {
        let rows = sqlx::query(concat!(
            run_columns!(),
            "WHERE r.peer_id <> '' AND (r.tenant_id, r.run_id) > (?1, ?2)
             ORDER BY r.tenant_id, r.run_id LIMIT ?3"
        ))
        .bind(after.0)
        .bind(after.1)
        .bind(limit)
        .fetch_all(&self.pool);
        let rows = self.disk.wait_for(rows).await?;
        self.damage.note(rows.iter().map(decode).collect())
    }

    /// The home answered that it does not know the run any more.
    pub async fn lose_run(&self, run: &RunRecord, reason: &str) -> Result<(), StoreError> {
        let (run, reason) = (run.clone(), reason.to_owned());
        self.writer
            .run(reason.len(), move |unit| {
                unit.lose_run(run.stream_no, &reason)?;
                unit.audit(&AuditRecord {
                    correlation_id: run.correlation_id.as_deref().unwrap_or(""),
                    tenant: run.key.tenant.as_str(),
                    subject: run.home.as_ref().map_or("", PeerId::as_str),
                    action: "run.lost",
                    object: run.key.run.as_str(),
                    outcome: "lost",
                    reason: &reason,
                    meta: "",
                })
            })
            .await
    }

    /// Takes the status a home gave when asked, for a run that goes on.
    pub async fn note_status(&self, stream_no: StreamNo, status: RunStatus) -> Result<(), StoreError> {
        self.writer
            .run(0, move |unit| {
                let head = unit.heads.get(unit.connection, stream_no)?;
                if head.ended || head.status == status {
                    return Ok(());
                }
                unit.heads.change(unit.connection, stream_no)?.status = status;
                Ok(())
            })
            .await
    }

    /// Takes a run from an AgentOS index file, unless it is known. Answers whether it was new.
    pub async fn import_run(
        &self,
        key: &RunKey,
        peer: &PeerId,
        events_path: &str,
        remote_events_url: &str,
    ) -> Result<bool, StoreError> {
        let (key, peer) = (key.clone(), peer.clone());
        let (path, url) = (events_path.to_owned(), remote_events_url.to_owned());
        self.writer
            .run(url.len(), move |unit| {
                let (tenant, run) = (key.tenant.as_str(), key.run.as_str());
                if unit.find_remote_run(tenant, peer.as_str(), run)?.is_some() {
                    return Ok(false);
                }
                unit.create_run(&NewRun {
                    tenant,
                    run_id: run,
                    agent: None,
                    home: peer.as_str(),
                    remote_run_id: run,
                    events_path: &path,
                    remote_events_url: &url,
                    forward_id: None,
                    follow: "following",
                    status: RunStatus::Queued,
                    traceparent: None,
                    correlation_id: None,
                    principal: None,
                })?;
                Ok(true)
            })
            .await
    }
}

impl Unit<'_> {
    /// The stream a batch entry goes to; a run first seen here is homed at its sender.
    pub(super) fn stream_for(
        &mut self,
        key: &RunKey,
        sender: &Sender,
        agent: Option<&AgentId>,
    ) -> Result<StreamNo, StoreError> {
        let (tenant, run) = (key.tenant.as_str(), key.run.as_str());
        // A peer names its runs as it knows them; a run of that name here may be another's.
        let (home, known) = match sender {
            Sender::Client => ("", self.find_run_stream(tenant, run)?),
            Sender::Peer(peer) => {
                let known = self.find_remote_run(tenant, peer.as_str(), run)?;
                (peer.as_str(), known.map(|(_, stream_no)| stream_no))
            }
        };
        if let Some(stream_no) = known {
            return Ok(stream_no);
        }
        let (_, stream_no) = self.create_run(&NewRun {
            tenant,
            run_id: run,
            agent: agent.map(AgentId::as_str),
            home,
            remote_run_id: run,
            events_path: "",
            remote_events_url: "",
            forward_id: None,
            follow: "pushed",
            status: RunStatus::Queued,
            traceparent: None,
            correlation_id: None,
            principal: None,
        })?;
        Ok(stream_no)
    }
}

/// A name that only this run of this home has.
fn digest_name(home: &str, run_id: &str) -> String {
    let digest = Sha256::new().chain_update(home).chain_update([0]).chain_update(run_id).finalize();
    to_hex(&digest[..16])
}

fn decode(row: &SqliteRow) -> Result<RunRecord, StoreError> {
    let run_text: String = row.try_get("run_id")?;
    let inconsistent = |column| StoreError::Inconsistent { table: "runs", column, row: run_text.clone() };
    let tenant: String = row.try_get("tenant_id")?;
    let home: String = row.try_get("peer_id")?;
    let remote: String = row.try_get("remote_run_id")?;
    let agent: Option<String> = row.try_get("agent_id")?;
    let principal: Option<String> = row.try_get("principal_id")?;
    let status: String = row.try_get("status")?;
    let home = match home.as_str() {
        "" => None,
        name => Some(PeerId::parse(name).map_err(|_| inconsistent("peer_id"))?),
    };
    Ok(RunRecord {
        key: RunKey {
            tenant: TenantId::parse(&tenant).map_err(|_| inconsistent("tenant_id"))?,
            run: RunId::parse(&run_text).map_err(|_| inconsistent("run_id"))?,
        },
        stream_no: StreamNo::new(row.try_get("stream_no")?),
        agent: agent.and_then(|id| AgentId::parse(&id).ok()),
        home,
        remote_run_id: RunId::parse(&remote).map_err(|_| inconsistent("remote_run_id"))?,
        events_path: row.try_get("events_path")?,
        remote_events_url: row.try_get("remote_events_url")?,
        forward_id: row.try_get("forward_id")?,
        follow: row.try_get("follow")?,
        traceparent: row.try_get("traceparent")?,
        correlation_id: row.try_get("correlation_id")?,
        principal: principal.and_then(|id| PrincipalId::parse(&id).ok()),
        status: RunStatus::find(&status).ok_or_else(|| inconsistent("status"))?,
        lost_reason: row.try_get("lost_reason")?,
        created_at_ms: row.try_get("created_at")?,
        updated_at_ms: row.try_get("updated_at")?,
        finished_at_ms: row.try_get("finished_at")?,
    })
}
