-- Forwards, the idempotency keys that lead to them, and the runs they made (the forward index).

CREATE TABLE forwards (
    forward_id      TEXT    PRIMARY KEY,
    tenant_id       TEXT    NOT NULL,
    principal_id    TEXT    NOT NULL,
    peer_id         TEXT    NOT NULL,
    agent_id        TEXT    NOT NULL,
    -- The request as its meaning, without the idempotency key: compared when a key is repeated.
    request         BLOB    NOT NULL,
    -- One key for all attempts and restarts.
    downstream_key  TEXT    NOT NULL,
    state           TEXT    NOT NULL,
    -- not_started | unknown, for forwards that are refused, unknown or expired.
    outcome         TEXT,
    -- Nobody waits: respond-async.
    background      INTEGER NOT NULL,
    correlation_id  TEXT    NOT NULL,
    traceparent     TEXT    NOT NULL,
    -- The gateways the request came through, sent on: a loop is refused where it closes.
    via             TEXT    NOT NULL,
    attempts        TEXT    NOT NULL DEFAULT '[]',
    attempts_total  INTEGER NOT NULL DEFAULT 0,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    -- When the first byte may have left: the peer protects the key from then on.
    first_sent_at   INTEGER,
    deadline_at     INTEGER NOT NULL,
    next_attempt_at INTEGER,
    run_id          TEXT,
    remote_run_id   TEXT,
    remote_events_url TEXT,
    -- The status and the run object the peer answered.
    run_status      TEXT,
    answer          BLOB,
    -- What the caller heard, when it was an error.
    error           TEXT
) STRICT, WITHOUT ROWID;

-- The reconciler takes up whatever is not at rest; the index holds nothing else, so it stays small.
CREATE INDEX forwards_not_at_rest ON forwards (next_attempt_at)
    WHERE state IN ('reserved', 'sending', 'unknown');
-- Old forwards are swept by age.
CREATE INDEX forwards_by_age ON forwards (updated_at) WHERE state NOT IN ('reserved', 'sending', 'unknown');

CREATE TABLE idempotency (
    tenant_id    TEXT    NOT NULL,
    principal_id TEXT    NOT NULL,
    operation    TEXT    NOT NULL,
    key          TEXT    NOT NULL,
    forward_id   TEXT    NOT NULL,
    expires_at   INTEGER NOT NULL,
    -- Two principals, or two tenants, never meet in one key.
    PRIMARY KEY (tenant_id, principal_id, operation, key)
) STRICT, WITHOUT ROWID;
-- Swept by age.
CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);

-- The forward index: (tenant, run) → home. Also the runs whose home is this gateway.
CREATE TABLE runs (
    tenant_id         TEXT    NOT NULL,
    run_id            TEXT    NOT NULL,
    stream_no         INTEGER NOT NULL UNIQUE,
    agent_id          TEXT,
    -- The home; '' means this gateway.
    peer_id           TEXT    NOT NULL,
    remote_run_id     TEXT    NOT NULL,
    events_path       TEXT    NOT NULL,
    remote_events_url TEXT    NOT NULL,
    forward_id        TEXT,
    -- following | finished | lost | pushed
    follow            TEXT    NOT NULL,
    -- Sent on with every read.
    traceparent       TEXT,
    correlation_id    TEXT,
    principal_id      TEXT,
    created_at        INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, run_id),
    -- Two peers that mint one id cannot overwrite each other.
    UNIQUE (tenant_id, peer_id, remote_run_id)
) STRICT, WITHOUT ROWID;

-- Start-up takes up the unfinished ones and reads nothing else.
CREATE INDEX runs_followed ON runs (tenant_id, run_id) WHERE follow = 'following';
-- Listed newest first, within a tenant.
CREATE INDEX runs_by_age ON runs (tenant_id, created_at, run_id);
