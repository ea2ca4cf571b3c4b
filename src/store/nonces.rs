//! Nonces of signed requests: each is taken once, over restarts too.

use rusqlite::params;

use super::Store;
use super::error::StoreError;
use super::retention::ROWS_PER_UNIT;
use super::writer::Unit;

impl Store {
    /// Keeps a nonce, durably before it answers; false when it was there, so that the request is a replay.
    pub async fn keep_nonce(
        &self,
        key_id: &str,
        nonce: &str,
        expires_at_ms: i64,
    ) -> Result<bool, StoreError> {
        let (key_id, nonce) = (key_id.to_owned(), nonce.to_owned());
        self.writer
            .run_or_refuse(key_id.len() + nonce.len(), move |unit| {
                let kept = unit
                    .connection
                    .prepare_cached(
                        "INSERT INTO nonces (key_id, nonce, expires_at) VALUES (?1, ?2, ?3)
                         ON CONFLICT DO NOTHING",
                    )?
                    .execute(params![key_id, nonce, expires_at_ms])?;
                Ok(kept > 0)
            })
            .await
    }

    /// True when a nonce is kept.
    pub async fn knows_nonce(&self, key_id: &str, nonce: &str) -> Result<bool, StoreError> {
        let (key_id, nonce) = (key_id.to_owned(), nonce.to_owned());
        self.readers
            .with(move |connection| {
                let mut known =
                    connection.prepare_cached("SELECT 1 FROM nonces WHERE key_id = ?1 AND nonce = ?2")?;
                Ok(known.exists(params![key_id, nonce])?)
            })
            .await
    }

    /// Forgets some nonces past their time; answers how many. `sweep_forwards` does it too.
    pub async fn sweep_nonces(&self) -> Result<usize, StoreError> {
        self.writer.run(0, |unit| unit.sweep_nonces()).await
    }
}

impl Unit<'_> {
    pub(super) fn sweep_nonces(&self) -> Result<usize, StoreError> {
        let swept = self
            .connection
            .prepare_cached(
                "DELETE FROM nonces WHERE (key_id, nonce) IN
                     (SELECT key_id, nonce FROM nonces WHERE expires_at <= ?1 LIMIT ?2)",
            )?
            .execute(params![self.now_ms, ROWS_PER_UNIT])?;
        Ok(swept)
    }
}
