//! Peers as operators left them: enrolled here, draining, revoked, with the keys they rotated to.
//!
//! Invariant: no entry changes without the audit record of the change.

use rusqlite::{OptionalExtension, Row, params};

use super::Store;
use super::audit::{Actor, AuditRecord};
use super::error::StoreError;
use crate::domain::id::PeerId;

/// What is kept of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerEntry {
    /// The peer.
    pub peer_id: PeerId,
    /// JSON of an enrolled peer; empty for one that the configuration file names.
    pub entry: String,
    /// `active`, `draining`, `revoked` or `introduced`.
    pub state: String,
    /// Why it is in this state.
    pub reason: String,
    /// JSON list of the keys learned by rotation.
    pub keys: String,
    /// Moves with every change.
    pub revision: i64,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// Milliseconds since the Unix epoch.
    pub updated_at_ms: i64,
}

const COLUMNS: &str = "peer_id, entry, state, reason, keys, revision, created_at, updated_at";

impl Store {
    /// Every entry, by peer.
    pub async fn peer_entries(&self) -> Result<Vec<PeerEntry>, StoreError> {
        self.readers
            .with(|connection| {
                let sql = format!("SELECT {COLUMNS} FROM peers ORDER BY peer_id");
                let mut statement = connection.prepare_cached(&sql)?;
                let rows = statement.query_map([], decode)?;
                rows.map(|row| row.map_err(StoreError::from)?).collect()
            })
            .await
    }

    /// Keeps an entry, new or changed, and answers it as kept: its revision has moved, its times are the
    /// store's. `action` and `reason` are for the audit, whose outcome is the state entered.
    pub async fn save_peer(
        &self,
        entry: PeerEntry,
        actor: &Actor,
        action: &str,
        reason: &str,
    ) -> Result<PeerEntry, StoreError> {
        let (actor, action, reason) = (actor.clone(), action.to_owned(), reason.to_owned());
        self.writer
            .run(entry.entry.len(), move |unit| {
                let sql = format!(
                    "INSERT INTO peers (peer_id, entry, state, reason, keys, revision, created_at, updated_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6, ?6)
                     ON CONFLICT (peer_id) DO UPDATE
                     SET entry = excluded.entry, state = excluded.state, reason = excluded.reason,
                         keys = excluded.keys, revision = revision + 1, updated_at = excluded.updated_at
                     RETURNING {COLUMNS}"
                );
                let values = params![
                    entry.peer_id.as_str(),
                    entry.entry,
                    entry.state,
                    entry.reason,
                    entry.keys,
                    unit.now_ms
                ];
                let kept = unit.connection.prepare_cached(&sql)?.query_row(values, decode)??;
                let meta = serde_json::json!({ "revision": kept.revision });
                unit.audit(&AuditRecord {
                    meta: &meta.to_string(),
                    ..actor.record(&action, kept.peer_id.as_str(), &kept.state, &reason)
                })?;
                Ok(kept)
            })
            .await
    }

    /// Forgets an entry; false when there is none.
    pub async fn remove_peer(&self, peer_id: &PeerId, actor: &Actor) -> Result<bool, StoreError> {
        let (peer_id, actor) = (peer_id.clone(), actor.clone());
        self.writer
            .run(0, move |unit| {
                let state: Option<String> = unit
                    .connection
                    .prepare_cached("DELETE FROM peers WHERE peer_id = ?1 RETURNING state")?
                    .query_row([peer_id.as_str()], |row| row.get(0))
                    .optional()?;
                let Some(state) = state else { return Ok(false) };
                let reason = format!("it was {state}");
                unit.audit(&actor.record("peer.remove", peer_id.as_str(), "removed", &reason))?;
                Ok(true)
            })
            .await
    }
}

fn decode(row: &Row<'_>) -> rusqlite::Result<Result<PeerEntry, StoreError>> {
    let peer_id: String = row.get(0)?;
    let Ok(parsed) = PeerId::parse(&peer_id) else {
        return Ok(Err(StoreError::Inconsistent { table: "peers", column: "peer_id", row: peer_id }));
    };
    Ok(Ok(PeerEntry {
        peer_id: parsed,
        entry: row.get(1)?,
        state: row.get(2)?,
        reason: row.get(3)?,
        keys: row.get(4)?,
        revision: row.get(5)?,
        created_at_ms: row.get(6)?,
        updated_at_ms: row.get(7)?,
    }))
}
