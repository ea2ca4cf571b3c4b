-- What a write rewrites: rows and indexes laid out so that it touches fewer pages.

-- An append changes the counts of its stream. The indexes ask only whether the stream holds events at all, in
-- a column that moves twice in its life: an append leaves them alone.
ALTER TABLE streams ADD COLUMN holds_events INTEGER NOT NULL DEFAULT 0;
UPDATE streams SET holds_events = 1 WHERE event_count > 0;

DROP INDEX streams_finished;
DROP INDEX streams_tenant;
-- Retention walks finished streams that still hold events, oldest first.
CREATE INDEX streams_finished ON streams (finished_at) WHERE finished_at IS NOT NULL AND holds_events = 1;
-- Retention by count sums per tenant over streams that still hold events.
CREATE INDEX streams_tenant ON streams (tenant_id) WHERE holds_events = 1;

-- A settled forward is longer than a row of a WITHOUT ROWID table may be without pages of its own: as a table with
-- a rowid, its row stays in one page.
CREATE TABLE forwards_with_rowid (
    forward_id      TEXT    NOT NULL PRIMARY KEY,
    tenant_id       TEXT    NOT NULL,
    principal_id    TEXT    NOT NULL,
    peer_id         TEXT    NOT NULL,
    agent_id        TEXT    NOT NULL,
    request         BLOB    NOT NULL,
    downstream_key  TEXT    NOT NULL,
    state           TEXT    NOT NULL,
    outcome         TEXT,
    background      INTEGER NOT NULL,
    correlation_id  TEXT    NOT NULL,
    traceparent     TEXT    NOT NULL,
    via             TEXT    NOT NULL,
    attempts        TEXT    NOT NULL DEFAULT '[]',
    attempts_total  INTEGER NOT NULL DEFAULT 0,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    first_sent_at   INTEGER,
    deadline_at     INTEGER NOT NULL,
    next_attempt_at INTEGER,
    run_id          TEXT,
    remote_run_id   TEXT,
    remote_events_url TEXT,
    run_status      TEXT,
    answer          BLOB,
    error           TEXT
) STRICT;
INSERT INTO forwards_with_rowid SELECT * FROM forwards;
DROP TABLE forwards;
ALTER TABLE forwards_with_rowid RENAME TO forwards;

-- The reconciler takes up whatever is not at rest; the index holds nothing else, so it stays small.
CREATE INDEX forwards_not_at_rest ON forwards (next_attempt_at)
    WHERE state IN ('reserved', 'sending', 'unknown');
-- Old forwards are swept by age.
CREATE INDEX forwards_by_age ON forwards (updated_at) WHERE state NOT IN ('reserved', 'sending', 'unknown');
-- A tenant's forwards that are not at rest are counted against its quota.
CREATE INDEX forwards_of_tenant_not_at_rest ON forwards (tenant_id, run_id)
    WHERE state IN ('reserved', 'sending', 'unknown');
