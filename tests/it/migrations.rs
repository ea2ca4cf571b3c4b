//! A database of an earlier version becomes one of today, and loses nothing.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::Value;

use crate::support::log::number;

/// A database as the migrations before this one leave it.
fn schema_before(version: usize) -> Connection {
    let database = Connection::open_in_memory().expect("a database");
    for earlier in 1..version {
        migrate(&database, earlier);
    }
    database
}

/// Runs the migration of this version.
fn migrate(database: &Connection, version: usize) {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").read_dir().expect("the migrations");
    let mut files = all.map(|entry| entry.expect("a migration").path());
    let is_it = |path: &Path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("{version:04}_")))
    };
    let file = files.find(|path| is_it(path)).expect("a migration of this version");
    database.execute_batch(&std::fs::read_to_string(file).expect("its text")).expect("the migration");
}

/// What a query finds, every column of it.
fn rows(database: &Connection, sql: &str) -> Vec<Vec<Value>> {
    let mut statement = database.prepare(sql).expect("a query");
    let columns = statement.column_count();
    let row = |row: &rusqlite::Row<'_>| (0..columns).map(|at| row.get(at)).collect();
    let rows = statement.query_map([], row).expect("rows");
    rows.collect::<Result<_, _>>().expect("values")
}

#[test]
fn the_migration_counts_what_tenants_have_used_already() {
    let database = schema_before(5);
    let stream =
        "INSERT INTO streams (tenant_id, stream_id, home, status, byte_count, created_at, updated_at)
                  VALUES ('a', '1', '', 'running', 30, 0, 0), ('a', '2', '', 'running', 12, 0, 0),
                         ('b', '1', '', 'running', 5, 0, 0)";
    database.execute_batch(stream).expect("streams");
    for (id, state, outcome) in
        [("1", "forwarded", None), ("2", "refused", Some("not_started")), ("3", "expired", Some("unknown"))]
    {
        database
            .execute(
                "INSERT INTO forwards (forward_id, tenant_id, principal_id, peer_id, agent_id, request,
                     downstream_key, state, outcome, background, correlation_id, traceparent, via, created_at,
                     updated_at, deadline_at)
                 VALUES (?1, 'a', '', '', '', x'', '', ?2, ?3, 0, '', '', '', 86400001, 0, 0)",
                rusqlite::params![id, state, outcome],
            )
            .expect("a forward");
    }
    migrate(&database, 5);
    assert_eq!(number(&database, "SELECT bytes FROM usage WHERE tenant_id = 'a'"), 42);
    assert_eq!(number(&database, "SELECT bytes FROM usage WHERE tenant_id = 'b'"), 5);
    assert_eq!(number(&database, "SELECT runs FROM usage_daily WHERE tenant_id = 'a' AND day = 1"), 2);
}

#[test]
fn the_migration_of_streams_and_forwards_loses_nothing() {
    let database = schema_before(6);
    let old = "INSERT INTO streams (tenant_id, stream_id, home, status, event_count, created_at, updated_at)
                VALUES ('a', '1', '', 'running', 3, 0, 0), ('a', '2', '', 'running', 0, 0, 0);
                INSERT INTO forwards VALUES
                    ('fwd_2', 't', 'p', 'peer', 'agt', x'7b7d', 'key', 'forwarded', NULL, 1, 'cor', 'trace',
                     'via', '[]', 1, 2, 3, 4, 5, NULL, 'run', 'remote', 'url', 'queued', x'5b5d', NULL),
                    ('fwd_1', 't', 'p', 'peer', 'agt', x'7b7d', 'key', 'refused', 'not_started', 0, 'cor', '',
                     '', '[1]', 1, 2, 3, NULL, 5, 6, NULL, NULL, NULL, NULL, NULL, 'error')";
    database.execute_batch(old).expect("rows");
    let forwards = || rows(&database, "SELECT * FROM forwards ORDER BY forward_id");
    let before = forwards();
    migrate(&database, 6);
    assert_eq!(forwards(), before);
    let held = "SELECT group_concat(holds_events) FROM (SELECT holds_events FROM streams ORDER BY stream_id)";
    assert_eq!(database.query_row(held, [], |row| row.get(0)), Ok("1,0".to_owned()));
}

//
#[test]
fn the_migration_of_peers_loses_nothing_and_knows_a_new_state() {
    let database = schema_before(10);
    let insert = |id: &str, state: &str| {
        let values = rusqlite::params![id, state];
        database.execute("INSERT INTO peers VALUES (?1, '{}', ?2, 'why', '[]', 3, 4, 5)", values)
    };
    for (id, state) in [("a", "active"), ("b", "draining"), ("c", "revoked")] {
        insert(id, state).expect("a peer");
    }
    assert!(insert("d", "introduced").is_err());
    let peers = || rows(&database, "SELECT * FROM peers ORDER BY peer_id");
    let before = peers();
    migrate(&database, 10);
    assert_eq!((before.len(), peers()), (3, before));
    insert("d", "introduced").expect("a peer");
    assert!(insert("e", "hostile").is_err());
}

#[test]
fn the_migration_of_due_times_knows_which_forwards_are_at_rest() {
    let database = schema_before(11);
    let states = ["reserved", "sending", "unknown", "forwarded", "refused", "expired"];
    for (state, due) in states.iter().flat_map(|state| [(state, None), (state, Some(9))]) {
        let insert = "INSERT INTO forwards (forward_id, tenant_id, principal_id, peer_id, agent_id, request,
                 downstream_key, state, background, correlation_id, traceparent, via, created_at, updated_at,
                 deadline_at, next_attempt_at)
             VALUES (?1, '', '', '', '', x'', '', ?2, 0, '', '', '', 0, 7, 0, ?3)";
        let values = rusqlite::params![format!("{state}{due:?}"), state, due];
        database.execute(insert, values).expect("a forward");
    }
    migrate(&database, 11);
    let due = "SELECT group_concat(state || next_attempt_at) FROM
                   (SELECT * FROM forwards WHERE next_attempt_at IS NOT NULL ORDER BY rowid)";
    let due: String = database.query_row(due, [], |row| row.get(0)).expect("a text");
    assert_eq!(due, "reserved7,reserved9,sending7,sending9,unknown7,unknown9");
    // A write builds no table for an index.
    let plan =
        rows(&database, "EXPLAIN UPDATE forwards SET state = 'forwarded', updated_at = 1, run_id = ''");
    assert!(!plan.iter().flatten().any(|value| *value == Value::Text("OpenEphemeral".to_owned())));
}

#[test]
fn the_migration_of_event_ids_knows_every_event() {
    let database = schema_before(12);
    let old = "INSERT INTO streams (stream_no, tenant_id, stream_id, home, status, last_sequence, created_at, updated_at)
                VALUES (1, 'a', '1', '', 'running', 9, 0, 0), (2, 'a', '2', '', 'running', 0, 0, 0),
                       (3, 'a', '3', '', 'running', 1, 0, 0);
                INSERT INTO events (position, event_key, received_at, checksum, json)
                VALUES (1 << 32 | 2, x'02', 0, 0, x'7b7d'), (1 << 32 | 9, x'01', 0, 0, x'7b7d'),
                       (3 << 32 | 1, x'01', 0, 0, x'7b7d')";
    database.execute_batch(old).expect("rows");
    migrate(&database, 12);
    let ids = "SELECT group_concat(stream_no || hex(event_key) || sequence) FROM event_ids";
    let ids: String = database.query_row(ids, [], |row| row.get(0)).expect("a text");
    assert_eq!(ids, "1019,1022,3011");
    let ids_to = "SELECT group_concat(ids_to) FROM (SELECT ids_to FROM streams ORDER BY stream_no)";
    assert_eq!(database.query_row(ids_to, [], |row| row.get(0)), Ok("9,0,1".to_owned()));
}

#[test]
fn the_migration_of_runs_loses_nothing_and_finds_them_by_name() {
    let database = schema_before(13);
    // Under its home's name, under another, and pushed; the columns in the order of their tables then.
    let old = "INSERT INTO streams VALUES
                   (7, 't', 'run/a', 'peer', 2, 9, 4, 'succeeded', 1, NULL, 8, 80, 1, 2, 3, 1, 5),
                   (8, 't', 'run/a@other', 'other', 1, 0, 0, 'lost', 0, 'gone', 0, 0, 1, 2, NULL, 0, 0),
                   (9, 'u', 'run/a', '', 1, 1, 1, 'running', 0, NULL, 1, 10, 1, 2, NULL, 1, 0);
               INSERT INTO runs VALUES
                   ('u', 'a', 9, NULL, '', 'a', '', '', NULL, 'pushed', NULL, NULL, NULL, 3),
                   ('t', 'a', 7, 'agt', 'peer', 'a', '/e', 'url', 'fwd_1', 'finished', 'tr', 'cor', 'p', 1),
                   ('t', 'a@other', 8, 'agt', 'other', 'a', '/e', 'url', 'fwd_2', 'following', 'tr', 'cor', 'p', 2)";
    database.execute_batch(old).expect("rows");
    let runs = || {
        let columns = "tenant_id, run_id, stream_no, agent_id, peer_id, remote_run_id, events_path,
                       remote_events_url, forward_id, follow, traceparent, correlation_id, principal_id, created_at";
        rows(&database, &format!("SELECT {columns} FROM runs ORDER BY stream_no"))
    };
    let streams = || rows(&database, "SELECT * FROM streams ORDER BY stream_no");
    let before = (runs(), streams());
    migrate(&database, 13);
    assert_eq!((runs(), streams()), before);
    assert_eq!(before.0.len(), 3);
    // One name once; what two peers call alike keeps two names, each once for its peer.
    let insert = |stream: i64, run: &str, peer: &str| {
        let sql = "INSERT INTO runs (stream_no, tenant_id, run_id, peer_id, remote_run_id, events_path,
                                     remote_events_url, follow, created_at)
                   VALUES (?1, 't', ?2, ?3, 'a', '', '', 'following', 4)";
        database.execute(sql, rusqlite::params![stream, run, peer])
    };
    insert(10, "a", "third").expect_err("a name that is taken");
    insert(10, "b", "other").expect_err("a run of this peer that is known");
    insert(10, "a@third", "third").expect("a run of a third peer");
}

#[test]
fn the_migration_of_arrivals_keeps_events_and_what_guards_them() {
    let database = schema_before(14);
    let old = "INSERT INTO events (position, event_key, received_at, flags, checksum, json)
               VALUES (1 << 32 | 1, x'01', 5, 1, 9, x'7b7d'), (3 << 32 | 7, x'02', 6, 0, 8, x'7b207d')";
    database.execute_batch(old).expect("rows");
    let events = || {
        let columns = "position, event_key, received_at, flags, checksum, json";
        rows(&database, &format!("SELECT {columns} FROM events ORDER BY position"))
    };
    let before = events();
    migrate(&database, 14);
    assert_eq!(events(), before);
    assert_eq!((before.len(), number(&database, "SELECT count(*) FROM events_sorted")), (2, 2));
    for sql in ["UPDATE events_sorted SET json = x'7b7d'", "DELETE FROM events_sorted"] {
        let refused = database.execute(sql, []).expect_err(sql).to_string();
        assert!(refused.contains("append-only"), "{sql}: {refused}");
    }
    // Both halves of the log are searched, whatever is asked, and merged without a table for sorting.
    let page =
        "SELECT position, json FROM events WHERE position > 1 AND position <= 9 ORDER BY position LIMIT 3";
    let plan = rows(&database, &format!("EXPLAIN QUERY PLAN {page}"));
    let plan = format!("{plan:?}");
    assert_eq!((plan.matches("SEARCH").count(), plan.contains("TEMP")), (2, false), "{plan}");
}

#[test]
fn the_migration_of_rows_shows_every_event_wherever_it_lies() {
    let database = schema_before(17);
    let old = "INSERT INTO events_sorted (position, event_key, received_at, flags, checksum, json)
               VALUES (1 << 32 | 1, x'01', 5, 1, 9, x'7b7d'), (3 << 32 | 7, x'02', 6, 0, 8, x'7b2261223a317d');
               INSERT INTO events_arrived (position, event_key, received_at, checksum, json)
               VALUES (2 << 32 | 1, x'01', 5, 9, x'7b7d')";
    database.execute_batch(old).expect("rows");
    let events = || rows(&database, "SELECT position, json FROM events ORDER BY position");
    let before = events();
    migrate(&database, 17);
    assert_eq!((events(), before.len()), (before, 3));
    // Three in one row; the values of one look like the ends of others.
    let three = "{\"a\":1.0}\n{\"a\":\"},{\"}\n{\"a\":[{},{}]}";
    let insert = "INSERT INTO events_sorted VALUES (4 << 32 | 5, x'', 6, 2 << 8, 0, ?1)";
    database.execute(insert, [three.as_bytes()]).expect("a row");
    let shown =
        rows(&database, "SELECT position & 255, CAST(json AS TEXT) FROM events WHERE position > 4 << 32");
    let line = |(nth, line): (i64, &str)| vec![Value::Integer(5 + nth), Value::Text(line.to_owned())];
    assert_eq!(shown, (0..).zip(three.lines()).map(line).collect::<Vec<_>>());
}

#[test]
fn the_migration_of_results_loses_nothing_and_knows_every_key() {
    let database = schema_before(16);
    // The columns in the order of their table then; rows in another order than their ids.
    let old = "INSERT INTO forwards VALUES
                   ('fwd_2', 't', 'p', 'peer', 'agt', x'7b7d', 'a-key-that-is-longer-than-22-characters', 'forwarded',
                    NULL, 1, 'cor', 'trace', 'via', '[7]', 1, 2, 3, 4, 5, NULL, 'run', 'remote', 'url', 'queued',
                    x'5b5d', NULL, NULL),
                   ('fwd_1', 't', 'p', 'peer', 'agt', x'7b7d', 'another-key-that-is-longer-than-22', 'unknown',
                    'unknown', 0, 'cor', '', '', '[]', 0, 2, 3, NULL, 5, 6, NULL, NULL, NULL, NULL, NULL, NULL, 8);
               INSERT INTO idempotency VALUES ('t', 'p', 'runs:forward', 'k', 'fwd_2', 9)";
    database.execute_batch(old).expect("rows");
    let columns = "forward_id, tenant_id, principal_id, peer_id, agent_id, request, downstream_key, state, outcome,
        background, correlation_id, traceparent, via, attempts, attempts_total, created_at, updated_at, first_sent_at,
        deadline_at, next_attempt_at, run_id, remote_run_id, remote_events_url, run_status, answer, error, not_before";
    let before = rows(&database, &format!("SELECT rowid, {columns} FROM forwards ORDER BY rowid"));
    migrate(&database, 16);
    let columns = columns.replace("attempts,", "coalesce(attempts, '[]'),");
    let columns = columns.replace("attempts_total", "coalesce(attempts_total, 0)");
    let after = format!(
        "SELECT forward_no, {columns} FROM forwards LEFT JOIN forward_results USING (forward_no) ORDER BY forward_no"
    );
    assert_eq!((before.len(), rows(&database, &after)), (2, before));
    let keys = rows(&database, "SELECT key, forward_no, expires_at FROM idempotency");
    let key = Value::Text("a-key-that-is-longer-t".to_owned());
    assert_eq!(keys, [[key, Value::Integer(1), Value::Integer(9)]]);
    // A key is searched for at every level, a forward by its number or its id.
    let plan = |sql: &str| format!("{:?}", rows(&database, &format!("EXPLAIN QUERY PLAN {sql}")));
    let by_key = plan("SELECT forward_no FROM idempotency WHERE key = 'k' AND expires_at > 2 LIMIT 1");
    assert_eq!((by_key.matches("SEARCH").count(), by_key.contains("SCAN idem")), (3, false), "{by_key}");
}
