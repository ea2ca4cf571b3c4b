-- Streams that a restored copy holds in part: what came after the copy was made is lost, the sequences it was given
-- here are not given again. A restore fills it, and makes it where the copy is older than it.
CREATE TABLE IF NOT EXISTS restored_streams (
    stream_no INTEGER PRIMARY KEY
) STRICT;
