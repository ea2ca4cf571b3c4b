-- Runs lie in the order in which they became known, beside their streams. A home names its runs as it likes, mostly
-- at random: sorted by name, each run's row was a page of its own, written when it began, again when it ended, and
-- once more for every index over names.
CREATE TABLE runs_0013 (
    stream_no         INTEGER PRIMARY KEY,
    tenant_id         TEXT    NOT NULL,
    run_id            TEXT    NOT NULL,
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
    created_at        INTEGER NOT NULL
) STRICT;
INSERT INTO runs_0013 (stream_no, tenant_id, run_id, agent_id, peer_id, remote_run_id, events_path, remote_events_url,
                       forward_id, follow, traceparent, correlation_id, principal_id, created_at)
SELECT stream_no, tenant_id, run_id, agent_id, peer_id, remote_run_id, events_path, remote_events_url,
       forward_id, follow, traceparent, correlation_id, principal_id, created_at
FROM runs ORDER BY stream_no;
DROP TABLE runs;
ALTER TABLE runs_0013 RENAME TO runs;

-- A run, and with it its stream, is found by name, within its tenant only.
CREATE UNIQUE INDEX runs_by_name ON runs (tenant_id, run_id);
-- Two peers that mint one id cannot overwrite each other: one of the runs has another name here. The index holds
-- those only; all others are found by the name that their home gave them.
CREATE UNIQUE INDEX runs_renamed ON runs (tenant_id, peer_id, remote_run_id) WHERE remote_run_id <> run_id;
-- Start-up takes up the unfinished ones and reads nothing else.
CREATE INDEX runs_followed ON runs (tenant_id, run_id) WHERE follow = 'following';
-- Listed newest first, within a tenant.
CREATE INDEX runs_by_age ON runs (tenant_id, created_at, run_id);

-- A stream is found through its run: no index over its name.
CREATE TABLE streams_0013 (
    stream_no       INTEGER PRIMARY KEY,
    tenant_id       TEXT    NOT NULL,
    -- 'run/<run_id>' for the events of a run.
    stream_id       TEXT    NOT NULL,
    -- The peer that gives sequences; '' means this gateway.
    home            TEXT    NOT NULL,
    -- Everything below was removed by retention.
    oldest_sequence INTEGER NOT NULL DEFAULT 1,
    -- The largest sequence stored, 0 for none.
    last_sequence   INTEGER NOT NULL DEFAULT 0,
    -- Moves with every change of this row, so that a reader can tell which of two copies is newer.
    revision        INTEGER NOT NULL DEFAULT 0,
    status          TEXT    NOT NULL,
    -- 1 once a terminal event is stored: nothing is taken after the last sequence.
    ended           INTEGER NOT NULL DEFAULT 0,
    lost_reason     TEXT,
    event_count     INTEGER NOT NULL DEFAULT 0,
    byte_count      INTEGER NOT NULL DEFAULT 0,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    finished_at     INTEGER,
    -- Moves twice in the life of a stream, so that an append leaves the indexes that ask for it alone.
    holds_events    INTEGER NOT NULL DEFAULT 0,
    -- Every event up to here is in `event_ids`; the few above are looked for in `events`.
    ids_to          INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO streams_0013 (stream_no, tenant_id, stream_id, home, oldest_sequence, last_sequence, revision, status, ended,
                          lost_reason, event_count, byte_count, created_at, updated_at, finished_at, holds_events, ids_to)
SELECT stream_no, tenant_id, stream_id, home, oldest_sequence, last_sequence, revision, status, ended,
       lost_reason, event_count, byte_count, created_at, updated_at, finished_at, holds_events, ids_to
FROM streams ORDER BY stream_no;
DROP TABLE streams;
ALTER TABLE streams_0013 RENAME TO streams;

-- Retention walks finished streams that still hold events, oldest first.
CREATE INDEX streams_finished ON streams (finished_at) WHERE finished_at IS NOT NULL AND holds_events = 1;
-- Retention by count sums per tenant over streams that still hold events.
CREATE INDEX streams_tenant ON streams (tenant_id) WHERE holds_events = 1;
