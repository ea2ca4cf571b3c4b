-- One row per mutation and per security decision, written in the transaction of its effect.
CREATE TABLE audit (
    audit_id       INTEGER PRIMARY KEY,
    time           INTEGER NOT NULL,
    correlation_id TEXT    NOT NULL,
    tenant_id      TEXT    NOT NULL,
    subject        TEXT    NOT NULL,
    action         TEXT    NOT NULL,
    object         TEXT    NOT NULL,
    outcome        TEXT    NOT NULL,
    reason         TEXT    NOT NULL
) STRICT;

CREATE TRIGGER audit_is_immutable BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit is append-only');
END;
