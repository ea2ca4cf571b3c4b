-- A forward's row keeps its length from the intent to the end. What its attempts came to lies apart, behind what other
-- forwards came to: a row that grew between its neighbours moved them.
CREATE TABLE forward_results (
    forward_no        INTEGER PRIMARY KEY,
    -- The newest attempts, as JSON.
    attempts          TEXT    NOT NULL,
    attempts_total    INTEGER NOT NULL,
    run_id            TEXT,
    remote_run_id     TEXT,
    remote_events_url TEXT,
    -- The status and the run object the peer answered.
    run_status        TEXT,
    answer            BLOB,
    -- What the caller heard, when it was an error.
    error             TEXT
) STRICT;
INSERT INTO forward_results (forward_no, attempts, attempts_total, run_id, remote_run_id, remote_events_url, run_status,
                             answer, error)
SELECT rowid, attempts, attempts_total, run_id, remote_run_id, remote_events_url, run_status, answer, error
FROM forwards WHERE attempts_total > 0 OR run_id IS NOT NULL OR error IS NOT NULL ORDER BY rowid;

CREATE TABLE forwards_0016 (
    -- In the order in which they were made.
    forward_no      INTEGER PRIMARY KEY,
    forward_id      TEXT    NOT NULL UNIQUE,
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
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    -- When the first byte may have left: the peer protects the key from then on.
    first_sent_at   INTEGER,
    deadline_at     INTEGER NOT NULL,
    -- Known unless the forward is at rest.
    next_attempt_at INTEGER,
    -- When the peer allows the next attempt, if it asked for a wait: a repeated key makes a forward due no sooner.
    not_before      INTEGER
) STRICT;
INSERT INTO forwards_0016 (forward_no, forward_id, tenant_id, principal_id, peer_id, agent_id, request, downstream_key,
                           state, outcome, background, correlation_id, traceparent, via, created_at, updated_at,
                           first_sent_at, deadline_at, next_attempt_at, not_before)
SELECT rowid, forward_id, tenant_id, principal_id, peer_id, agent_id, request, downstream_key,
       state, outcome, background, correlation_id, traceparent, via, created_at, updated_at,
       first_sent_at, deadline_at, next_attempt_at, not_before
FROM forwards ORDER BY rowid;

-- A caller's key leads to its forward by the key that is sent downstream, which is a keyed hash of tenant, principal,
-- operation and key: its first 22 characters, 132 bits. Keys are random: in one large table each would be a page of its
-- own. They come in at the first level, and go on with some hundreds, then some thousands of others.
CREATE TABLE idempotency_first (
    key        TEXT    NOT NULL PRIMARY KEY,
    forward_no INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE idempotency_second (
    key        TEXT    NOT NULL PRIMARY KEY,
    forward_no INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE idempotency_last (
    key        TEXT    NOT NULL PRIMARY KEY,
    forward_no INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT OR IGNORE INTO idempotency_last (key, forward_no, expires_at)
SELECT substr(forwards.downstream_key, 1, 22), forwards.rowid, idempotency.expires_at
FROM idempotency JOIN forwards USING (forward_id) ORDER BY 1;
DROP TABLE idempotency;
-- Swept by age.
CREATE INDEX idempotency_by_expiry ON idempotency_last (expires_at);
CREATE VIEW idempotency AS
SELECT key, forward_no, expires_at FROM idempotency_first
UNION ALL
SELECT key, forward_no, expires_at FROM idempotency_second
UNION ALL
SELECT key, forward_no, expires_at FROM idempotency_last;

DROP TABLE forwards;
ALTER TABLE forwards_0016 RENAME TO forwards;
-- The reconciler takes up whatever is not at rest; the index holds nothing else, so it stays small.
CREATE INDEX forwards_not_at_rest ON forwards (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
-- Old forwards are swept by age.
CREATE INDEX forwards_by_age ON forwards (updated_at) WHERE next_attempt_at IS NULL;
-- A tenant's forwards that are not at rest are counted against its quota.
CREATE INDEX forwards_of_tenant_not_at_rest ON forwards (tenant_id) WHERE next_attempt_at IS NOT NULL;
-- Forwards that were given up while their run may exist: few, and worth an operator's look. The index holds nothing
-- else, so that a forward which ends well costs nothing more.
CREATE INDEX forwards_given_up ON forwards (updated_at) WHERE state = 'expired' AND outcome = 'unknown';
