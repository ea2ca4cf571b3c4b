-- Events of a stream that follow each other may lie in one row of `events_sorted`, each on a line of its own: a row
-- costs SQLite more than the bytes of an event do. A row is known by its first event, and `flags >> 8` says how many
-- more there are; then `event_key` holds a note on each, and `checksum` is that of the notes (store/rows.rs).
-- What was written before is rows of one event, and stays as it is.

-- All there are, wherever they lie, one by one.
DROP VIEW events;
CREATE VIEW events AS
SELECT position, json FROM events_sorted WHERE flags < 256
UNION ALL
SELECT events_sorted.position + line.key, CAST(line.value AS BLOB)
FROM events_sorted, json_each('[' || replace(CAST(events_sorted.json AS TEXT), char(10), ',') || ']') AS line
WHERE flags >= 256
UNION ALL
SELECT position, json FROM events_arrived;
