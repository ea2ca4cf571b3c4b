-- A peer that a hub introduced waits for an operator, in a state of its own.
CREATE TABLE peers_0010 (
    peer_id    TEXT    PRIMARY KEY,
    -- JSON of an enrolled peer; '' for one that the configuration file names.
    entry      TEXT    NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('active', 'draining', 'revoked', 'introduced')),
    reason     TEXT    NOT NULL,
    -- JSON list of the keys learned by rotation.
    keys       TEXT    NOT NULL,
    -- Moves with every change.
    revision   INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO peers_0010 (peer_id, entry, state, reason, keys, revision, created_at, updated_at)
SELECT peer_id, entry, state, reason, keys, revision, created_at, updated_at FROM peers;
DROP TABLE peers;
ALTER TABLE peers_0010 RENAME TO peers;
