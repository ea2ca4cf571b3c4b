-- What the trust boundary keeps: credentials, peers, nonces, what a tenant has used, and the audit's chain.

-- API tokens. The secret itself is nowhere: only its SHA-256.
CREATE TABLE tokens (
    token_id     TEXT    PRIMARY KEY,
    secret_hash  BLOB    NOT NULL CHECK (length(secret_hash) = 32),
    -- '' for an operator's token.
    tenant_id    TEXT    NOT NULL,
    principal_id TEXT    NOT NULL,
    scopes       TEXT    NOT NULL,
    label        TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER,
    revoked_at   INTEGER
) STRICT, WITHOUT ROWID;

-- What is known of peers beyond the configuration file: those enrolled here, and the state of all.
CREATE TABLE peers (
    peer_id    TEXT    PRIMARY KEY,
    -- JSON of an enrolled peer; '' for one that the configuration file names.
    entry      TEXT    NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('active', 'draining', 'revoked')),
    reason     TEXT    NOT NULL,
    -- JSON list of the keys learned by rotation.
    keys       TEXT    NOT NULL,
    -- Moves with every change.
    revision   INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Nonces of signed requests: each is taken once while its signature could still be valid.
CREATE TABLE nonces (
    key_id     TEXT    NOT NULL,
    nonce      TEXT    NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (key_id, nonce)
) STRICT, WITHOUT ROWID;
-- Swept by age.
CREATE INDEX nonces_by_expiry ON nonces (expires_at);

-- Runs a tenant asked for on a day (days since the Unix epoch, UTC). One that was never started is given back.
CREATE TABLE usage_daily (
    tenant_id TEXT    NOT NULL,
    day       INTEGER NOT NULL,
    runs      INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, day)
) STRICT, WITHOUT ROWID;
INSERT INTO usage_daily (tenant_id, day, runs)
    SELECT tenant_id, created_at / 86400000, count(*) FROM forwards
    WHERE NOT (state IN ('refused', 'expired') AND outcome IS 'not_started')
    GROUP BY 1, 2;

-- Bytes of events a tenant has in the log: the sum of its streams' byte_count, moved in their transaction.
CREATE TABLE usage (
    tenant_id TEXT    PRIMARY KEY,
    bytes     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO usage (tenant_id, bytes) SELECT tenant_id, sum(byte_count) FROM streams GROUP BY tenant_id;

-- A tenant's forwards that are not at rest are counted against its quota.
CREATE INDEX forwards_of_tenant_not_at_rest ON forwards (tenant_id, run_id)
    WHERE state IN ('reserved', 'sending', 'unknown');

-- The chain over the audit. NULL in rows from before the chain.
ALTER TABLE audit ADD COLUMN meta TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN hash BLOB;

CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit is append-only');
END;

-- Signed statements that the chain ended with this hash at this record.
CREATE TABLE audit_checkpoints (
    audit_id  INTEGER PRIMARY KEY,
    hash      BLOB    NOT NULL CHECK (length(hash) = 32),
    time      INTEGER NOT NULL,
    key_id    TEXT    NOT NULL,
    -- What was signed.
    text      TEXT    NOT NULL,
    signature BLOB    NOT NULL
) STRICT;

CREATE TRIGGER audit_checkpoints_are_immutable BEFORE UPDATE ON audit_checkpoints
BEGIN
    SELECT RAISE(ABORT, 'audit checkpoints are append-only');
END;

CREATE TRIGGER audit_checkpoints_are_kept BEFORE DELETE ON audit_checkpoints
BEGIN
    SELECT RAISE(ABORT, 'audit checkpoints are append-only');
END;
