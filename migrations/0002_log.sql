-- The event log: streams, their events, their holes, and what was set aside.

-- One row per stream: its head. The writer owns it and keeps the active ones in memory.
CREATE TABLE streams (
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
    -- A stream is found by name, within its tenant only.
    UNIQUE (tenant_id, stream_id)
) STRICT;

-- Retention walks finished streams that still hold events, oldest first.
CREATE INDEX streams_finished ON streams (finished_at) WHERE finished_at IS NOT NULL AND event_count > 0;
-- Retention by count sums per tenant over streams that still hold events.
CREATE INDEX streams_tenant ON streams (tenant_id) WHERE event_count > 0;

-- One row per event, clustered by stream and sequence: position = stream_no << 32 | sequence.
-- One b-tree serves append, replay and the uniqueness of (stream, sequence).
CREATE TABLE events (
    position    INTEGER PRIMARY KEY,
    -- The event id in compact, order-preserving form (store/event_key.rs).
    event_key   BLOB    NOT NULL,
    received_at INTEGER NOT NULL,
    -- Bit 0: made by a gateway from the home's status.
    flags       INTEGER NOT NULL DEFAULT 0,
    -- CRC-32 of json: a flipped bit is found, never served.
    checksum    INTEGER NOT NULL,
    -- The normalised event object.
    json        BLOB    NOT NULL
) STRICT;

-- Once: the same event id is stored once per stream, for as long as the event is kept.
-- Local to the stream, so that an append touches pages of its own stream only.
CREATE UNIQUE INDEX events_by_id ON events (position >> 32, event_key);

-- Ranges of sequences not held, one row per hole.
CREATE TABLE holes (
    stream_no     INTEGER NOT NULL,
    from_sequence INTEGER NOT NULL,
    to_sequence   INTEGER NOT NULL,
    -- When the event after the hole was stored.
    since         INTEGER NOT NULL,
    -- Set once the hole is known for good (retention, hold_timeout, upstream).
    reason        TEXT,
    PRIMARY KEY (stream_no, from_sequence)
) STRICT, WITHOUT ROWID;

-- Conflicts and unreadable upstream frames: kept for people, never served as events.
CREATE TABLE events_aside (
    aside_id    INTEGER PRIMARY KEY,
    stream_no   INTEGER NOT NULL,
    kind        TEXT    NOT NULL, -- conflict_event_id | conflict_sequence | upstream_invalid
    sender      TEXT    NOT NULL,
    event_id    TEXT,
    sequence    INTEGER,
    received_at INTEGER NOT NULL,
    reason      TEXT    NOT NULL,
    json        BLOB    NOT NULL
) STRICT;
-- Counted per stream before another is kept.
CREATE INDEX events_aside_by_stream ON events_aside (stream_no);

-- The retention job opens this window; without it events can be neither changed nor removed.
CREATE TABLE retention_window (
    open INTEGER PRIMARY KEY CHECK (open = 1)
) STRICT;

CREATE TRIGGER events_are_immutable BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;

CREATE TRIGGER events_are_kept BEFORE DELETE ON events
WHEN NOT EXISTS (SELECT 1 FROM retention_window)
BEGIN
    SELECT RAISE(ABORT, 'events are append-only: only retention removes them');
END;
