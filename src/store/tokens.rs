//! API tokens: who may call, by the hash of a secret that is kept nowhere.
//!
//! Invariant: a token appears and is revoked together with the audit record that says by whom.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Store;
use super::audit::{Actor, AuditRecord};
use super::error::StoreError;

/// A token as kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Found by it; no secret.
    pub token_id: String,
    /// SHA-256 of the secret.
    pub secret_hash: [u8; 32],
    /// Whose it is; empty for an operator's.
    pub tenant: String,
    /// Who acts with it.
    pub principal: String,
    /// What it may do.
    pub scopes: String,
    /// For people.
    pub label: String,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// When it ends, if it does.
    pub expires_at_ms: Option<i64>,
    /// Coarse.
    pub last_used_at_ms: Option<i64>,
    /// Set once, for good.
    pub revoked_at_ms: Option<i64>,
}

const COLUMNS: &str = "token_id, secret_hash, tenant_id, principal_id, scopes, label, created_at, expires_at, \
                       last_used_at, revoked_at";

impl Store {
    /// Keeps a new token. One with its id must not exist.
    pub async fn create_token(&self, token: &TokenRecord, actor: &Actor) -> Result<(), StoreError> {
        let (token, actor) = (token.clone(), actor.clone());
        self.writer
            .run(0, move |unit| {
                unit.connection
                    .prepare_cached(
                        "INSERT INTO tokens (token_id, secret_hash, tenant_id, principal_id, scopes, label,
                                             created_at, expires_at, last_used_at, revoked_at)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                    )?
                    .execute(params![
                        token.token_id,
                        token.secret_hash,
                        token.tenant,
                        token.principal,
                        token.scopes,
                        token.label,
                        token.created_at_ms,
                        token.expires_at_ms,
                        token.last_used_at_ms,
                        token.revoked_at_ms
                    ])?;
                let meta = serde_json::json!({
                    "tenant": token.tenant, "principal": token.principal, "scopes": token.scopes,
                });
                unit.audit(&AuditRecord {
                    meta: &meta.to_string(),
                    ..actor.record("token.create", &token.token_id, "created", "")
                })
            })
            .await
    }

    /// Every token, by id.
    pub async fn tokens(&self) -> Result<Vec<TokenRecord>, StoreError> {
        self.readers
            .with(|connection| {
                let sql = format!("SELECT {COLUMNS} FROM tokens ORDER BY token_id");
                let mut statement = connection.prepare_cached(&sql)?;
                let rows = statement.query_map([], decode)?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// Revokes a token; `None` when there is none with this id. One that is revoked already stays as it is.
    pub async fn revoke_token(
        &self,
        token_id: &str,
        actor: &Actor,
    ) -> Result<Option<TokenRecord>, StoreError> {
        let (token_id, actor) = (token_id.to_owned(), actor.clone());
        self.writer
            .run(0, move |unit| {
                let revoked = unit
                    .connection
                    .prepare_cached(
                        "UPDATE tokens SET revoked_at = ?2 WHERE token_id = ?1 AND revoked_at IS NULL",
                    )?
                    .execute(params![token_id, unit.now_ms])?;
                if revoked > 0 {
                    unit.audit(&actor.record("token.revoke", &token_id, "revoked", ""))?;
                }
                find(unit.connection, &token_id)
            })
            .await
    }

    /// Notes when tokens were used, each a pair of its id and milliseconds since the Unix epoch.
    pub async fn note_tokens_used(&self, used: Vec<(String, i64)>) -> Result<(), StoreError> {
        self.writer
            .run(0, move |unit| {
                let mut statement = unit.connection.prepare_cached(
                    "UPDATE tokens SET last_used_at = max(coalesce(last_used_at, ?2), ?2)
                     WHERE token_id = ?1",
                )?;
                for (token_id, used_at_ms) in &used {
                    statement.execute(params![token_id, used_at_ms])?;
                }
                Ok(())
            })
            .await
    }
}

fn find(connection: &Connection, token_id: &str) -> Result<Option<TokenRecord>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM tokens WHERE token_id = ?1");
    Ok(connection.prepare_cached(&sql)?.query_row([token_id], decode).optional()?)
}

fn decode(row: &Row<'_>) -> rusqlite::Result<TokenRecord> {
    Ok(TokenRecord {
        token_id: row.get(0)?,
        secret_hash: row.get(1)?,
        tenant: row.get(2)?,
        principal: row.get(3)?,
        scopes: row.get(4)?,
        label: row.get(5)?,
        created_at_ms: row.get(6)?,
        expires_at_ms: row.get(7)?,
        last_used_at_ms: row.get(8)?,
        revoked_at_ms: row.get(9)?,
    })
}
