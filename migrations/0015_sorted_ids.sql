-- Up to here the ids of a stream ascend with their sequences, as those that are ordered by time do, and no event is
-- missing: an id is found among the events themselves, and not in `event_ids`, which begins after it.
ALTER TABLE streams ADD COLUMN ids_sorted_to INTEGER NOT NULL DEFAULT 0;
