-- Ids are indexed some dozens at a time, stream by stream. An index on `events` was written with every event:
-- with many streams that was a page of the write-ahead log for each.
CREATE TABLE event_ids (
    stream_no INTEGER NOT NULL,
    event_key BLOB    NOT NULL,
    sequence  INTEGER NOT NULL,
    PRIMARY KEY (stream_no, event_key)
) STRICT, WITHOUT ROWID;
INSERT INTO event_ids (stream_no, event_key, sequence)
    SELECT position >> 32, event_key, position & 0xffffffff FROM events ORDER BY position >> 32, event_key;

-- Every event up to here is in `event_ids`; the few above are looked for in `events`.
ALTER TABLE streams ADD COLUMN ids_to INTEGER NOT NULL DEFAULT 0;
UPDATE streams SET ids_to = last_sequence;

DROP INDEX events_by_id;
