-- Facts about this database as a whole.
--   incarnation     random id of this log, made at creation and again at restore: part of every opaque cursor
--   gateway_secret  32 random bytes (hex) that scope downstream idempotency keys to this gateway
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
