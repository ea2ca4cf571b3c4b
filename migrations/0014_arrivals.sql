-- Events of many streams that come in turn are written in the order of their arrival, and put in their places some
-- hundreds at a time. Sorted at once, each was a page of the write-ahead log of its own, and most of another: a stream
-- ends between two others, where SQLite evens out neighbouring pages with every few events.
ALTER TABLE events RENAME TO events_sorted;

CREATE TABLE events_arrived (
    arrival     INTEGER PRIMARY KEY,
    position    INTEGER NOT NULL UNIQUE,
    event_key   BLOB    NOT NULL,
    received_at INTEGER NOT NULL,
    flags       INTEGER NOT NULL DEFAULT 0,
    checksum    INTEGER NOT NULL,
    json        BLOB    NOT NULL
) STRICT;

CREATE TRIGGER arrivals_are_immutable BEFORE UPDATE ON events_arrived
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;

-- All there are, wherever they lie.
CREATE VIEW events AS
SELECT position, event_key, received_at, flags, checksum, json FROM events_sorted
UNION ALL
SELECT position, event_key, received_at, flags, checksum, json FROM events_arrived;
