//! What the store keeps for the trust boundary: tokens, peers, nonces, quotas, and an audit that shows edits.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use causeway::clock::Clock;
use causeway::domain::audit::{AuditEntry, Checkpoint, Finding, link};
use causeway::domain::event::{Appended, Sender};
use causeway::domain::forward::{AttemptOutcome, ForwardState};
use causeway::domain::id::{AgentId, ForwardId, PeerId, PrincipalId, RunId, TenantId};
use causeway::domain::run::RunStatus;
use causeway::entropy::Entropy;
use causeway::metrics::Metrics;
use causeway::store::{
    Actor, AttemptRecord, AuditCheckpoint, AuditFilter, AuditReport, BatchEntry, DATABASE_FILE,
    ForwardRecord, ForwardedRun, NewAudit, PeerEntry, QuotaExceeded, Quotas, Reserved, Settlement, Store,
    StoreError, TokenRecord, backup, restore, verify_audit,
};
use futures_util::future::{join, join_all};
use rusqlite::Connection;

use crate::log_model::{Push, entry, open, place};
use crate::support::log::{beside, number};

const DAY_MS: i64 = 86_400_000;
/// Ten o'clock on some day.
pub(crate) const MORNING_MS: i64 = 20_000 * DAY_MS + 10 * 3_600_000;

pub(crate) async fn open_at(directory: &Path, clock: &Clock) -> Store {
    open(directory, clock, &Arc::new(Metrics::default())).await
}

fn operator() -> Actor {
    Actor { tenant: String::new(), subject: "ops".to_owned(), correlation_id: "cor_1".to_owned() }
}

fn token(id: &str) -> TokenRecord {
    TokenRecord {
        token_id: id.to_owned(),
        secret_hash: [7; 32],
        tenant: "tnt".to_owned(),
        principal: "bot".to_owned(),
        scopes: "runs:read".to_owned(),
        label: "for a test".to_owned(),
        created_at_ms: 5,
        expires_at_ms: Some(9),
        last_used_at_ms: None,
        revoked_at_ms: None,
    }
}

/// The actions and outcomes in the audit, oldest first.
async fn audited(store: &Store) -> Vec<String> {
    let rows = store.audit_rows(0, AuditFilter::default(), 1000).await.expect("rows");
    rows.iter().map(|row| format!("{} {} {}", row.action, row.object, row.outcome)).collect()
}

#[tokio::test]
async fn a_token_is_kept_used_and_revoked_once_and_the_audit_says_by_whom() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(MORNING_MS);
    let store = open_at(directory.path(), &clock).await;
    store.create_token(&token("t1"), &operator()).await.expect("kept");
    let twice = store.create_token(&token("t1"), &operator()).await;
    assert!(twice.is_err(), "an id is given once");
    let used = vec![("t1".to_owned(), 70), ("t1".to_owned(), 60), ("none".to_owned(), 1)];
    store.note_tokens_used(used).await.expect("noted");
    let expected = TokenRecord { last_used_at_ms: Some(70), ..token("t1") };
    assert_eq!(store.tokens().await.expect("tokens"), std::slice::from_ref(&expected));
    let revoked = store.revoke_token("t1", &operator()).await.expect("revoked").expect("it exists");
    assert_eq!(revoked, TokenRecord { revoked_at_ms: Some(MORNING_MS), ..expected });
    clock.advance(std::time::Duration::from_secs(1));
    assert_eq!(store.revoke_token("t1", &operator()).await.expect("again"), Some(revoked));
    assert_eq!(store.revoke_token("t2", &operator()).await.expect("no such"), None);
    assert_eq!(audited(&store).await, ["token.create t1 created", "token.revoke t1 revoked"]);
    let rows = store.audit_rows(0, AuditFilter::default(), 9).await.expect("rows");
    assert_eq!((rows[0].subject.as_str(), rows[0].correlation_id.as_str()), ("ops", "cor_1"));
    assert!(!rows[0].meta.contains("hash") && rows[0].meta.contains("runs:read"), "{}", rows[0].meta);
}

fn peer(id: &str, state: &str) -> PeerEntry {
    PeerEntry {
        peer_id: PeerId::parse(id).expect("a peer"),
        entry: "{\"base\":\"https://b\"}".to_owned(),
        state: state.to_owned(),
        reason: "a reason".to_owned(),
        keys: "[]".to_owned(),
        revision: 0,
        created_at_ms: 0,
        updated_at_ms: 0,
    }
}

#[tokio::test]
async fn a_peer_entry_moves_with_every_change_and_goes_with_a_record() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(MORNING_MS);
    let store = open_at(directory.path(), &clock).await;
    let made = store.save_peer(peer("b", "active"), &operator(), "peer.enrol", "").await.expect("kept");
    assert_eq!((made.revision, made.created_at_ms), (1, MORNING_MS));
    clock.advance(std::time::Duration::from_secs(1));
    let changed = store.save_peer(peer("b", "revoked"), &operator(), "peer.revoke", "stolen").await;
    let changed = changed.expect("changed");
    assert_eq!((changed.revision, changed.created_at_ms), (2, MORNING_MS));
    assert_eq!(changed.updated_at_ms, MORNING_MS + 1000);
    assert_eq!(store.peer_entries().await.expect("entries"), std::slice::from_ref(&changed));
    let unheard = store.save_peer(peer("b", "sleeping"), &operator(), "peer.enrol", "").await;
    assert!(unheard.is_err(), "there is no such state");
    assert!(store.remove_peer(&changed.peer_id, &operator()).await.expect("removed"));
    assert!(!store.remove_peer(&changed.peer_id, &operator()).await.expect("gone already"));
    assert!(store.peer_entries().await.expect("entries").is_empty());
    assert_eq!(
        audited(&store).await,
        ["peer.enrol b active", "peer.revoke b revoked", "peer.remove b removed"]
    );
}

#[tokio::test]
async fn a_nonce_is_taken_once_by_one_of_many_and_over_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(MORNING_MS);
    let store = open_at(directory.path(), &clock).await;
    let expires = MORNING_MS + 1000;
    let at_once = join_all((0..50).map(|_| store.keep_nonce("key", "n1", expires))).await;
    let kept = at_once.into_iter().filter(|kept| *kept.as_ref().expect("an answer")).count();
    assert_eq!(kept, 1, "one of fifty");
    assert!(store.keep_nonce("other", "n1", expires).await.expect("another key"));
    store.close().await;
    drop(store);
    let store = open_at(directory.path(), &clock).await;
    assert!(!store.keep_nonce("key", "n1", expires).await.expect("an answer"), "forgotten by a restart");
    assert_eq!(store.sweep_nonces().await.expect("swept"), 0, "not before its time");
    clock.advance(std::time::Duration::from_secs(1));
    store.sweep_forwards(0).await.expect("swept");
    assert_eq!(number(&beside(directory.path()), "SELECT count(*) FROM nonces"), 0);
}

pub(crate) fn forward(id: &str) -> ForwardRecord {
    ForwardRecord {
        forward_id: ForwardId::parse(id).expect("a forward"),
        tenant: TenantId::parse("tnt").expect("a tenant"),
        principal: PrincipalId::parse("bot").expect("a principal"),
        peer: PeerId::parse("b").expect("a peer"),
        agent: AgentId::parse("agt").expect("an agent"),
        request: b"{}".to_vec(),
        downstream_key: id.to_owned(),
        state: ForwardState::Reserved,
        outcome: None,
        background: false,
        correlation_id: "cor".to_owned(),
        traceparent: String::new(),
        via: String::new(),
        attempts: Vec::new(),
        attempts_total: 0,
        created_at_ms: 0,
        updated_at_ms: 0,
        first_sent_at_ms: None,
        deadline_at_ms: i64::MAX,
        next_attempt_at_ms: None,
        run_id: None,
        remote_run_id: None,
        remote_events_url: None,
        run_status: None,
        answer: None,
        error: None,
    }
}

async fn reserve(store: &Store, id: &str, quotas: Quotas) -> Result<(), QuotaExceeded> {
    match store.reserve_forward(forward(id), None, quotas).await.expect("an answer") {
        Reserved::New(_) => Ok(()),
        Reserved::QuotaExceeded(exceeded) => Err(exceeded),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn settlement(state: ForwardState, outcome: &'static str) -> Settlement {
    Settlement {
        state,
        outcome: Some(outcome),
        attempt: None,
        error: None,
        next_attempt_at_ms: None,
        not_before_ms: None,
        deadline_at_ms: 0,
    }
}

//
#[tokio::test]
async fn of_200_runs_at_once_a_quota_of_100_lets_exactly_100_through() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open_at(directory.path(), &Clock::manual(MORNING_MS)).await;
    let quotas = [
        Quotas { runs_per_day: 100, ..Quotas::default() },
        Quotas { concurrent_runs: 200, ..Quotas::default() },
    ];
    let database = beside(directory.path());
    for (round, quota) in quotas.into_iter().enumerate() {
        let ids: Vec<String> = (0..200).map(|at| format!("fwd_{round}_{at}")).collect();
        let answers = join_all(ids.iter().map(|id| reserve(&store, id, quota))).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 100);
        let refusal = answers.into_iter().find_map(Result::err).expect("a refusal");
        let expected = if round == 0 {
            let resets_at_ms = Some(MORNING_MS + 14 * 3_600_000);
            QuotaExceeded { quota: "runs_per_day", limit: 100, used: 100, resets_at_ms }
        } else {
            QuotaExceeded { quota: "concurrent_runs", limit: 200, used: 200, resets_at_ms: None }
        };
        assert_eq!(refusal, expected);
        let made = 100 * (round as i64 + 1);
        assert_eq!(number(&database, "SELECT count(*) FROM forwards"), made, "a refusal leaves nothing");
        assert_eq!(number(&database, "SELECT runs FROM usage_daily"), made, "and takes nothing");
        assert_eq!(number(&database, "SELECT count(*) FROM audit"), made);
    }
}

#[tokio::test]
async fn a_run_that_never_started_is_given_back_once_to_the_day_it_was_asked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(MORNING_MS);
    let store = open_at(directory.path(), &clock).await;
    let two = Quotas { runs_per_day: 2, ..Quotas::default() };
    reserve(&store, "a", two).await.expect("the first");
    reserve(&store, "b", two).await.expect("the second");
    let (a, b) = (ForwardId::parse("a").expect("an id"), ForwardId::parse("b").expect("an id"));
    let maybe = settlement(ForwardState::Unknown, "unknown");
    store.settle_without_run(&b, maybe).await.expect("handed over");
    reserve(&store, "c", two).await.expect_err("what may have started is not given back");
    for _ in 0..2 {
        let never = settlement(ForwardState::Refused, "not_started");
        store.settle_without_run(&a, never).await.expect("settled");
    }
    reserve(&store, "c", two).await.expect("one was given back");
    reserve(&store, "d", two).await.expect_err("and no more than one");
    clock.advance(std::time::Duration::from_millis(DAY_MS as u64));
    reserve(&store, "d", two).await.expect("a new day");
    store.settle_without_run(&b, settlement(ForwardState::Expired, "not_started")).await.expect("settled");
    let of_day = |day: i64| {
        let sql = format!("SELECT runs FROM usage_daily WHERE tenant_id = 'tnt' AND day = {day}");
        number(&beside(directory.path()), &sql)
    };
    assert_eq!((of_day(20_000), of_day(20_001)), (1, 1));
}

fn attempt(outcome: AttemptOutcome, upstream_status: Option<u16>) -> AttemptRecord {
    AttemptRecord {
        attempt: 1,
        started_at_ms: 0,
        finished_at_ms: 0,
        outcome,
        reason: String::new(),
        upstream_status,
    }
}

// A repeated key makes a forward due no sooner than a second after its last attempt: the row must say when that was.
#[tokio::test]
async fn an_attempt_that_is_kept_is_counted_and_dates_its_forward() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(MORNING_MS);
    let store = open_at(directory.path(), &clock).await;
    let made = forward("a");
    reserve(&store, "a", Quotas::default()).await.expect("reserved");
    for nth in 1..=2 {
        clock.advance(std::time::Duration::from_secs(5));
        let failed = attempt(AttemptOutcome::Unknown, None);
        store.save_attempt(&made.forward_id, failed).await.expect("kept");
        let found = store.find_forward(&made.tenant, &made.forward_id).await.expect("an answer");
        let found = found.expect("a forward");
        assert_eq!((found.attempts_total, found.attempts.len() as u64), (nth, nth));
        assert_eq!(found.attempts.last().expect("an attempt").attempt, nth);
        assert_eq!(found.updated_at_ms, MORNING_MS + 5000 * nth as i64);
    }
    store.close().await;
}

#[tokio::test]
async fn a_run_counts_once_while_it_is_a_forward_and_while_it_is_followed() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open_at(directory.path(), &Clock::manual(MORNING_MS)).await;
    let three = Quotas { concurrent_runs: 3, ..Quotas::default() };
    reserve(&store, "a", three).await.expect("the first");
    reserve(&store, "b", three).await.expect("the second");
    let attempt = attempt(AttemptOutcome::Forwarded, Some(201));
    let run = ForwardedRun {
        remote_run_id: RunId::parse("run_a").expect("a run"),
        events_path: "/e".to_owned(),
        remote_events_url: String::new(),
        events_url_refused: None,
        status: RunStatus::Running,
        answer: b"{}".to_vec(),
    };
    let id = ForwardId::parse("a").expect("an id");
    store.settle_forwarded(&id, attempt, run).await.expect("settled");
    reserve(&store, "c", three).await.expect("two are under way");
    assert_eq!(reserve(&store, "d", three).await.expect_err("three are").used, 3);
    let followed = store.followed_runs(("", ""), 9).await.expect("runs");
    store.lose_run(&followed[0], "it is gone").await.expect("lost");
    reserve(&store, "d", three).await.expect("a lost run does not run");
}

fn step(run: usize, id: u32, ends: bool) -> BatchEntry {
    entry(run, Push { id, sequence: None, content: 0, ends })
}

/// What the tenant is said to hold, and what its streams hold.
fn held(directory: &Path) -> (i64, i64) {
    let database = beside(directory);
    (
        number(&database, "SELECT coalesce(sum(bytes), 0) FROM usage"),
        number(&database, "SELECT coalesce(sum(length(json)), 0) FROM events"),
    )
}

#[tokio::test]
async fn stored_bytes_follow_the_log_and_bound_it_exactly() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(MORNING_MS);
    let store = open_at(directory.path(), &clock).await;
    store.append_batch(Sender::Client, vec![step(1, 100, false)]).await.expect("stored");
    let (one, counted) = held(directory.path());
    assert!(one > 0 && one == counted, "{one} {counted}");
    // Room for nine more of this size: one transaction carries many, and none may count what it cannot see.
    let quotas = Quotas { stored_bytes: one as u64 * 10, ..Quotas::default() };
    let push =
        |id: u32| store.append_batch_within(Sender::Client, vec![step(id as usize % 3, id, false)], quotas);
    let answers = join_all((101..161).map(push)).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 9);
    let refused = answers.into_iter().find_map(Result::err).expect("a refusal");
    let StoreError::QuotaExceeded(exceeded) = refused else { panic!("{refused}") };
    assert_eq!(
        (exceeded.quota, exceeded.limit, exceeded.used),
        ("stored_bytes", one as u64 * 10, one as u64 * 11)
    );
    assert_eq!(held(directory.path()), (one * 10, one * 10));
    let batch = vec![step(7, 200, false), step(8, 201, true)];
    store.append_batch_within(Sender::Client, batch, quotas).await.expect_err("over");
    assert!(store.find_run(&step(7, 0, false).key).await.expect("a read").is_none(), "nothing of it is kept");
    let repeat = store.append_batch_within(Sender::Client, vec![step(1, 100, false)], quotas).await;
    assert_eq!(repeat.expect("an answer"), [Appended::Duplicate(place(1))]);
    let full = reserve(&store, "a", quotas).await.expect_err("a tenant that is full starts nothing");
    assert_eq!(full.quota, "stored_bytes");

    store.append_batch(Sender::Client, vec![step(1, 300, true)]).await.expect("no limit was given");
    let (said, counted) = held(directory.path());
    assert!(said == counted && said > one * 10, "{said} {counted}");
    clock.advance(std::time::Duration::from_secs(1));
    while store.expire_finished(clock.now_ms()).await.expect("a sweep") > 0 {}
    let (after, counted) = held(directory.path());
    assert!(after == counted && after < said, "{after} {counted}");
    reserve(&store, "a", quotas).await.expect("there is room again");
    while store.expire_surplus(1).await.expect("a sweep") > 0 {}
    let (after, counted) = held(directory.path());
    assert_eq!(after, counted);
}

/// Stands in for a key: only its holder can turn a text around.
fn sign(text: &str) -> Vec<u8> {
    text.bytes().rev().collect()
}

fn verify(database: &Path) -> AuditReport {
    let genuine = |key: &str, text: &[u8], signature: &[u8]| key == "k1" && text.iter().rev().eq(signature);
    verify_audit(database, genuine).expect("a report")
}

fn decision(object: &str) -> NewAudit {
    NewAudit {
        correlation_id: "cor".to_owned(),
        tenant: "tnt".to_owned(),
        subject: "bot".to_owned(),
        action: "peer.refused".to_owned(),
        object: object.to_owned(),
        outcome: "denied".to_owned(),
        reason: "unknown key".to_owned(),
        meta: "{}".to_owned(),
    }
}

async fn decide(store: &Store, count: usize) {
    for at in 0..count {
        store.audit(vec![decision(&format!("o{at}"))]).await.expect("kept");
    }
}

/// Signs for the audit as it stands.
async fn checkpoint(store: &Store) {
    let (audit_id, hash) = store.audit_head().await.expect("a read").expect("a record");
    let signed = Checkpoint {
        origin: "gw".to_owned(),
        incarnation: store.audit_origin().to_owned(),
        audit_id,
        hash,
        time_ms: MORNING_MS,
    };
    let text = signed.text();
    let (key_id, signature) = ("k1".to_owned(), sign(&text));
    let kept = AuditCheckpoint { audit_id, hash, time_ms: MORNING_MS, key_id, text, signature };
    store.save_audit_checkpoint(kept.clone()).await.expect("kept");
    assert_eq!(store.last_audit_checkpoint().await.expect("a read"), Some(kept));
}

/// A copy of the database, changed by somebody who owns the file.
fn tampered(directory: &Path, name: &str, sql: &str) -> PathBuf {
    let copy = directory.join(format!("{name}.db"));
    backup(directory, &copy).expect("a copy");
    let connection = Connection::open(&copy).expect("it opens");
    let free = "DROP TRIGGER audit_is_immutable; DROP TRIGGER audit_is_kept;
                DROP TRIGGER audit_checkpoints_are_immutable; DROP TRIGGER audit_checkpoints_are_kept;";
    connection.execute_batch(free).expect("no triggers");
    connection.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    copy
}

//
#[tokio::test]
async fn an_edited_deleted_swapped_or_cut_off_audit_record_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path();
    let store = open_at(data, &Clock::manual(MORNING_MS)).await;
    decide(&store, 9).await;
    checkpoint(&store).await;
    decide(&store, 3).await;
    let honest = verify(&data.join(DATABASE_FILE));
    let expected =
        AuditReport { records: 12, unchained: 0, checkpoints: 1, signed_through: Some(9), finding: None };
    assert_eq!(honest, expected, "beside the running gateway");
    assert_eq!(verify(&tampered(data, "honest", "")), expected);

    let found = |name: &str, sql: &str| {
        let report = verify(&tampered(data, name, sql));
        report.finding.unwrap_or_else(|| panic!("{name} is not seen: {sql}"))
    };
    for column in ["correlation_id", "tenant_id", "subject", "action", "object", "outcome", "reason", "meta"]
    {
        // The last byte, in one bit.
        let sql = format!(
            "UPDATE audit SET {column} = substr({column}, 1, length({column}) - 1)
                 || char(unicode(substr({column}, -1)) + 1) WHERE audit_id = 5"
        );
        assert_eq!(found(column, &sql), Finding::Edited { audit_id: 5 }, "{column}");
    }
    let edits = [
        ("time", "time = time + 1"),
        ("hash", "hash = zeroblob(32)"),
        ("no_hash", "hash = NULL"),
        ("moved_bytes", "subject = subject || substr(action, 1, 1), action = substr(action, 2)"),
    ];
    for (name, edit) in edits {
        let sql = format!("UPDATE audit SET {edit} WHERE audit_id = 5");
        assert_eq!(found(name, &sql), Finding::Edited { audit_id: 5 }, "{name}");
    }
    let missing = Finding::Missing { after: 4, before: 6 };
    assert_eq!(found("deleted", "DELETE FROM audit WHERE audit_id = 5"), missing);
    let first = Finding::Missing { after: 0, before: 2 };
    assert_eq!(found("beginning", "DELETE FROM audit WHERE audit_id = 1"), first);
    let swap = "UPDATE audit SET audit_id = -1 WHERE audit_id = 4;
                UPDATE audit SET audit_id = 4 WHERE audit_id = 5;
                UPDATE audit SET audit_id = 5 WHERE audit_id = -1;";
    found("swapped", swap);
    let cut = Finding::Truncated { last_present: 7, checkpoint_id: 9 };
    assert_eq!(found("cut", "DELETE FROM audit WHERE audit_id > 7"), cut);
    found("renumbered", "UPDATE audit SET audit_id = 100 WHERE audit_id = 12");
    found("new_origin", "UPDATE meta SET value = 'ffff/0' WHERE key = 'audit_origin'");
    found("later_origin", "UPDATE meta SET value = replace(value, '/0', '/3') WHERE key = 'audit_origin'");
    let forged = Finding::ForgedCheckpoint { key_id: "k1".to_owned() };
    let sql = "UPDATE audit_checkpoints SET text = replace(text, char(10) || '9' || char(10), char(10) || '7' || char(10))";
    assert_eq!(found("forged", sql), forged);
    // What was not signed for yet is the price of a checkpoint now and then.
    assert_eq!(verify(&tampered(data, "tail", "DELETE FROM audit WHERE audit_id > 9")).finding, None);
}

// whoever can write hashes as well is stopped by the signature.
#[tokio::test]
async fn a_chain_written_anew_contradicts_its_checkpoint() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open_at(directory.path(), &Clock::manual(MORNING_MS)).await;
    decide(&store, 4).await;
    checkpoint(&store).await;
    let mut rows = store.audit_rows(0, AuditFilter::default(), 9).await.expect("rows");
    let copy = tampered(directory.path(), "anew", "");
    let connection = Connection::open(&copy).expect("it opens");
    rows[1].outcome = "allowed".to_owned();
    let mut previous = rows[0].hash.expect("a hash");
    for row in &rows[1..] {
        let entry = AuditEntry {
            time_ms: row.time_ms,
            correlation_id: &row.correlation_id,
            tenant: &row.tenant,
            subject: &row.subject,
            action: &row.action,
            object: &row.object,
            outcome: &row.outcome,
            reason: &row.reason,
            meta: &row.meta,
        };
        previous = link(&previous, row.audit_id, &entry);
        let values = rusqlite::params![row.audit_id, row.outcome, previous];
        connection
            .execute("UPDATE audit SET outcome = ?2, hash = ?3 WHERE audit_id = ?1", values)
            .expect("edited");
    }
    assert_eq!(verify(&copy).finding, Some(Finding::CheckpointMismatch { audit_id: 4 }));
    connection.execute("DELETE FROM audit_checkpoints", []).expect("deleted");
    assert_eq!(verify(&copy).finding, None, "which is why peers keep checkpoints too");
}

#[tokio::test]
async fn a_unit_that_fails_leaves_no_hole_in_the_chain_and_rings_for_what_is_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open_at(directory.path(), &Clock::manual(MORNING_MS)).await;
    let moved = store.audit_moved();
    let rung = moved.notified();
    let first = entry(1, Push { id: 1, sequence: Some(1), content: 0, ends: false });
    store.append_batch(Sender::Client, vec![first]).await.expect("stored");
    // Another content under the same id is set aside with a record; then the batch grows over its quota.
    let contradiction = entry(1, Push { id: 1, sequence: Some(1), content: 9, ends: false });
    let growth = entry(1, Push { id: 2, sequence: Some(2), content: 0, ends: false });
    let tight = Quotas { stored_bytes: 1, ..Quotas::default() };
    let refused = || {
        let batch = vec![contradiction.clone(), growth.clone()];
        store.append_batch_within(Sender::Client, batch, tight)
    };
    let decisions = |at: usize| store.audit(vec![decision(&format!("a{at}")), decision(&format!("b{at}"))]);
    let both = join_all((0..20).map(|at| join(refused(), decisions(at)))).await;
    for (refused, kept) in both {
        kept.expect("kept");
        assert!(matches!(refused, Err(StoreError::QuotaExceeded(_))));
    }
    tokio::time::timeout(std::time::Duration::from_secs(5), rung).await.expect("rung");
    let rows = store.audit_rows(0, AuditFilter::default(), 100).await.expect("rows");
    assert_eq!(rows.iter().map(|row| row.audit_id).collect::<Vec<_>>(), (1..=40).collect::<Vec<_>>());
    let report = verify(&directory.path().join(DATABASE_FILE));
    assert_eq!((report.records, report.finding), (40, None));
}

#[tokio::test]
async fn the_chain_goes_on_over_a_restart_and_a_restore() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(MORNING_MS);
    let store = open_at(directory.path(), &clock).await;
    decide(&store, 3).await;
    store.close().await;
    drop(store);
    assert_eq!(verify(&directory.path().join(DATABASE_FILE)).records, 3, "where no gateway runs");
    let store = open_at(directory.path(), &clock).await;
    decide(&store, 2).await;
    checkpoint(&store).await;
    store.create_token(&token("t1"), &operator()).await.expect("kept");
    store.save_peer(peer("b", "draining"), &operator(), "peer.drain", "").await.expect("kept");
    assert!(store.keep_nonce("key", "n1", MORNING_MS + 1000).await.expect("kept"));
    reserve(&store, "a", Quotas::default()).await.expect("reserved");
    let incarnation = Arc::clone(store.incarnation());
    let copy = directory.path().join("copy.db");
    backup(directory.path(), &copy).expect("a backup");

    let elsewhere = tempfile::tempdir().expect("a directory");
    restore(&copy, elsewhere.path(), &Entropy::seeded(77)).expect("a restore");
    let restored = open_at(elsewhere.path(), &clock).await;
    assert_ne!(restored.incarnation(), &incarnation);
    assert_eq!(restored.audit_origin(), store.audit_origin());
    decide(&restored, 2).await;
    checkpoint(&restored).await;
    let report = verify(&elsewhere.path().join(DATABASE_FILE));
    assert_eq!((report.finding, report.records, report.signed_through), (None, 10, Some(10)));
    assert_eq!(restored.tokens().await.expect("tokens"), [token("t1")]);
    assert_eq!(restored.peer_entries().await.expect("entries")[0].state, "draining");
    assert!(!restored.keep_nonce("key", "n1", 0).await.expect("an answer"), "a replay after the restore");
    let one = Quotas { runs_per_day: 1, ..Quotas::default() };
    reserve(&restored, "b", one).await.expect_err("the day's use came with it");
}

#[tokio::test]
async fn records_from_before_the_chain_stay_and_the_chain_begins_after_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(MORNING_MS);
    open_at(directory.path(), &clock).await.close().await;
    let database = Connection::open(directory.path().join(DATABASE_FILE)).expect("it opens");
    // As a gateway without the chain left them.
    let old = "DELETE FROM meta WHERE key = 'audit_origin';
               INSERT INTO audit (time, correlation_id, tenant_id, subject, action, object, outcome, reason)
               VALUES (1, '', '', '', 'a', 'b', 'c', ''), (2, '', '', '', 'a', 'b', 'c', '')";
    database.execute_batch(old).expect("old records");
    for sql in ["UPDATE audit SET reason = 'x'", "DELETE FROM audit"] {
        assert!(database.execute(sql, []).is_err(), "{sql}");
    }
    let store = open_at(directory.path(), &clock).await;
    assert_eq!(store.audit_head().await.expect("a read"), None);
    decide(&store, 2).await;
    checkpoint(&store).await;
    let report = verify(&directory.path().join(DATABASE_FILE));
    let expected =
        AuditReport { records: 2, unchained: 2, checkpoints: 1, signed_through: Some(4), finding: None };
    assert_eq!(report, expected);
    let newest = AuditFilter { object: Some("o1".to_owned()), ..AuditFilter::default() };
    let rows = store.audit_rows_before(i64::MAX, newest, 9).await.expect("rows");
    assert_eq!(rows.iter().map(|row| row.audit_id).collect::<Vec<_>>(), [4]);
    let old = AuditFilter { until_ms: Some(2), ..AuditFilter::default() };
    assert_eq!(store.audit_rows(0, old, 9).await.expect("rows").len(), 1);
}

#[tokio::test]
async fn a_group_that_fails_to_commit_leaves_the_chain_and_the_quotas_as_they_were() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open_at(directory.path(), &Clock::manual(MORNING_MS)).await;
    decide(&store, 2).await;
    let database = beside(directory.path());
    // A reference to nothing, looked at when the group commits and not before.
    let poison = "CREATE TABLE whole (id INTEGER PRIMARY KEY);
                  CREATE TABLE part (id INTEGER REFERENCES whole (id) DEFERRABLE INITIALLY DEFERRED);
                  CREATE TRIGGER poison AFTER INSERT ON audit WHEN new.object = 'poison'
                  BEGIN INSERT INTO part VALUES (9); END;";
    database.execute_batch(poison).expect("a poisoned schema");
    let kept = || store.append_batch(Sender::Client, vec![step(1, 1, false)]);
    let (refused, pushed) = join(store.audit(vec![decision("poison")]), kept()).await;
    assert!(refused.is_err(), "its group is refused");
    if pushed.is_err() {
        kept().await.expect("stored");
    }
    decide(&store, 2).await;
    let rows = store.audit_rows(0, AuditFilter::default(), 100).await.expect("rows");
    assert_eq!(rows.iter().map(|row| row.audit_id).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(verify(&directory.path().join(DATABASE_FILE)).finding, None);
    let (said, counted) = held(directory.path());
    assert!(said > 0 && said == counted, "{said} {counted}");
}
