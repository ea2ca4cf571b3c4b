//! A caller's key leads to its forward for as long as it is remembered, wherever it lies.

use causeway::clock::Clock;
use causeway::domain::forward::ForwardState;
use causeway::store::{ForwardRecord, Quotas, Reserved, Store};
use futures_util::future::join_all;
use rusqlite::Connection;

use crate::support::log::{beside, number};
use crate::trust_store::{MORNING_MS, forward, open_at, settlement};

const DAY_MS: i64 = 86_400_000;
/// More than go through two levels.
const FORWARDS: usize = 4500;

/// The nth of many forwards; `again` for another one under the same key.
fn keyed(nth: usize, again: &str) -> ForwardRecord {
    // Keys come in no order, as those of callers do.
    let downstream_key = format!("{:022}{}", nth * 7919 % 100_003, "x".repeat(21));
    ForwardRecord { downstream_key, ..forward(&format!("fwd_{nth}{again}")) }
}

async fn reserve(store: &Store, forward: ForwardRecord, remembered_until_ms: i64) -> Reserved {
    store.reserve_forward(forward, Some(remembered_until_ms), Quotas::default()).await.expect("an answer")
}

/// Reserves them some at a time, and answers whether each is the forward that its key led to before.
async fn are_known(store: &Store, until_ms: i64) -> Vec<bool> {
    let mut known = Vec::new();
    for some in (0..FORWARDS).collect::<Vec<_>>().chunks(100) {
        let reserved = some.iter().map(|nth| reserve(store, keyed(*nth, "_again"), until_ms));
        for (nth, reserved) in some.iter().zip(join_all(reserved).await) {
            known.push(match reserved {
                Reserved::New(_) => false,
                Reserved::Known(held) => held.forward_id.as_str() == format!("fwd_{nth}"),
                other => panic!("{other:?}"),
            });
        }
    }
    known
}

fn levels(database: &Connection) -> [i64; 3] {
    ["first", "second", "last"]
        .map(|level| number(database, &format!("SELECT count(*) FROM idempotency_{level}")))
}

// F2, A-22
#[tokio::test]
async fn a_key_leads_to_its_forward_at_every_level_and_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(MORNING_MS);
    let store = open_at(directory.path(), &clock).await;
    let until = MORNING_MS + DAY_MS;
    for some in (0..FORWARDS).collect::<Vec<_>>().chunks(100) {
        let reserved = join_all(some.iter().map(|nth| reserve(&store, keyed(*nth, ""), until))).await;
        assert!(reserved.iter().all(|reserved| matches!(reserved, Reserved::New(_))), "{reserved:?}");
    }
    let database = beside(directory.path());
    // Those from the 4096th on, and from the 4352nd on.
    assert_eq!(levels(&database), [149, 256, 4095]);
    assert!(are_known(&store, until).await.into_iter().all(|known| known));
    store.close().await;
    drop(store);
    let store = open_at(directory.path(), &clock).await;
    assert!(are_known(&store, until).await.into_iter().all(|known| known));

    // One of each level: another request under its key, and the same once nothing was started.
    for nth in [0, 4200, 4499] {
        let other = ForwardRecord { request: b"[]".to_vec(), ..keyed(nth, "_other") };
        assert!(matches!(reserve(&store, other, until).await, Reserved::KeyReused));
        let first = keyed(nth, "");
        let not_started = settlement(ForwardState::Expired, "not_started");
        store.settle_without_run(&first.forward_id, not_started).await.expect("settled");
        // Who may not begin anew changes nothing.
        let none_left = Quotas { runs_per_day: 1, ..Quotas::default() };
        let again = || keyed(nth, "_again");
        let refused = store.reserve_forward(again(), Some(until), none_left).await.expect("an answer");
        assert!(matches!(refused, Reserved::QuotaExceeded(_)), "{refused:?}");
        let found = store.find_by_key(&first.downstream_key).await.expect("an answer").expect("a forward");
        assert_eq!(found.forward_id, first.forward_id);
        assert!(matches!(reserve(&store, again(), until).await, Reserved::New(_)));
        let found = store.find_by_key(&first.downstream_key).await.expect("an answer").expect("a forward");
        assert_eq!(found.forward_id.as_str(), format!("fwd_{nth}_again"));
    }
    // The second of them goes on in place of the first.
    for nth in FORWARDS..3 * 4096 {
        let next =
            ForwardRecord { downstream_key: format!("next{nth:018}{}", "x".repeat(21)), ..keyed(nth, "") };
        assert!(matches!(reserve(&store, next, until).await, Reserved::New(_)));
    }
    let again = "SELECT group_concat(forward_id) FROM
                     (SELECT forward_id FROM idempotency JOIN forwards USING (forward_no)
                      WHERE downstream_key IN (SELECT downstream_key FROM forwards WHERE forward_id LIKE '%again')
                      ORDER BY forward_no)";
    let again: String = database.query_row(again, [], |row| row.get(0)).expect("a text");
    assert_eq!(again, "fwd_0_again,fwd_4200_again,fwd_4499_again");
    store.close().await;
}

#[tokio::test]
async fn a_key_that_has_run_out_is_free_and_is_swept_from_the_last_level() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(MORNING_MS);
    let store = open_at(directory.path(), &clock).await;
    let until = MORNING_MS + DAY_MS;
    assert!(are_known(&store, until).await.into_iter().all(|known| !known));
    clock.advance(std::time::Duration::from_millis(DAY_MS as u64));
    let key = keyed(7, "").downstream_key;
    assert!(store.find_by_key(&key).await.expect("an answer").is_none());
    while store.sweep_forwards(0).await.expect("swept") > 0 {}
    let database = beside(directory.path());
    assert_eq!(levels(&database), [149, 256, 0]);
    // What has run out on the way makes room when it meets its like.
    for nth in 4096..FORWARDS {
        let later = reserve(&store, keyed(nth, "_later"), until + DAY_MS).await;
        assert!(matches!(later, Reserved::New(_)), "{later:?}");
    }
    assert_eq!(number(&database, "SELECT count(*) FROM forwards"), (FORWARDS + 404) as i64);
    for nth in 4096..FORWARDS {
        let found = store.find_by_key(&keyed(nth, "").downstream_key).await.expect("an answer");
        assert_eq!(found.expect("a forward").forward_id.as_str(), format!("fwd_{nth}_later"));
    }
    store.close().await;
}

#[tokio::test]
async fn a_key_whose_forward_was_swept_leads_to_no_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(MORNING_MS);
    let store = open_at(directory.path(), &clock).await;
    let first = keyed(1, "");
    assert!(matches!(reserve(&store, first.clone(), i64::MAX).await, Reserved::New(_)));
    let failed = causeway::store::Settlement {
        error: Some("{}".to_owned()),
        ..settlement(ForwardState::Expired, "unknown")
    };
    store.settle_without_run(&first.forward_id, failed).await.expect("settled");
    let database = beside(directory.path());
    assert_eq!(number(&database, "SELECT count(*) FROM forward_results"), 1);
    while store.sweep_forwards(i64::MAX).await.expect("swept") > 0 {}
    assert_eq!(number(&database, "SELECT count(*) FROM forward_results"), 0);
    // It takes the number that became free.
    let second =
        store.reserve_forward(forward("fwd_second"), None, Quotas::default()).await.expect("an answer");
    assert!(matches!(second, Reserved::New(_)), "{second:?}");
    let numbers = "SELECT count(*) FROM forwards JOIN idempotency USING (forward_no)";
    assert_eq!(number(&database, numbers), 1);
    assert!(store.find_by_key(&first.downstream_key).await.expect("an answer").is_none());
    assert!(matches!(reserve(&store, keyed(1, "_again"), i64::MAX).await, Reserved::New(_)));
    store.close().await;
}
