//! The chain under every kind of tampering: what is wrong is found and named.

use proptest::prelude::*;

use super::*;

#[path = "audit_checkpoint_tests.rs"]
mod checkpoint_tests;

const ORIGIN: &str = "stk_a";
const LOG: &str = "4f1c";

/// A record as a store has it.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    id: i64,
    time_ms: i64,
    texts: [String; 8],
    hash: ChainHash,
}

impl Row {
    fn entry(&self) -> AuditEntry<'_> {
        let [correlation_id, tenant, subject, action, object, outcome, reason, meta] =
            self.texts.each_ref().map(String::as_str);
        let time_ms = self.time_ms;
        AuditEntry { time_ms, correlation_id, tenant, subject, action, object, outcome, reason, meta }
    }
}

/// Records 1 to `count` of an honest gateway.
fn audit(count: i64) -> Vec<Row> {
    let mut rows: Vec<Row> = (1..=count).map(row).collect();
    rehash(&mut rows, chain_start(LOG));
    rows
}

fn row(id: i64) -> Row {
    let actions = ["runs.forward", "events.ingest", "policy.decide", "peer.change"];
    let texts = [
        format!("cor_{id}"),
        "tenant-a".to_owned(),
        "peer:stk_b".to_owned(),
        actions[id as usize % 4].to_owned(),
        format!("run_{id}"),
        "allow".to_owned(),
        "granted".to_owned(),
        format!("{{\"n\":{id}}}"),
    ];
    Row { id, time_ms: 1_766_182_536_042 + id, texts, hash: [0; 32] }
}

/// Makes every hash anew, as one without a key can.
fn rehash(rows: &mut [Row], start: ChainHash) {
    let mut previous = start;
    for row in rows {
        row.hash = link(&previous, row.id, &row.entry());
        previous = row.hash;
    }
}

/// Stands for a signature: only one who knows the key's name backwards can make it.
fn sign(key_id: &str, text: &[u8]) -> Vec<u8> {
    let key: String = key_id.chars().rev().collect();
    Sha256::new_with_prefix(key).chain_update(text).finalize().to_vec()
}

fn verify(key_id: &str, text: &[u8], signature: &[u8]) -> bool {
    key_id == "key-1" && sign(key_id, text) == signature
}

fn checkpoint_of(row: &Row) -> Checkpoint {
    let (origin, incarnation) = (ORIGIN.to_owned(), LOG.to_owned());
    Checkpoint { origin, incarnation, audit_id: row.id, hash: row.hash, time_ms: row.time_ms }
}

fn signed(checkpoint: &Checkpoint) -> SignedCheckpoint {
    let text = checkpoint.text();
    let signature = sign("key-1", text.as_bytes());
    SignedCheckpoint { text, key_id: "key-1".to_owned(), signature }
}

/// Signed checkpoints of these records.
fn checkpoints<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Checkpoints {
    let mut checkpoints = Checkpoints::new(ORIGIN, LOG);
    for row in rows {
        checkpoints.add(&signed(&checkpoint_of(row)), verify).expect("an honest checkpoint");
    }
    checkpoints
}

fn walk(
    rows: &[Row],
    checkpoints: Checkpoints,
    pruned_through: i64,
    head: Option<(i64, ChainHash)>,
) -> Result<Verified, Finding> {
    let mut verifier = Verifier::new(checkpoints, pruned_through)?;
    for row in rows {
        verifier.push(row.id, &row.entry(), &row.hash);
    }
    verifier.finish(head)
}

/// What a walk over these records finds, with nothing to hold them against.
fn finding(rows: &[Row]) -> Option<Finding> {
    walk(rows, checkpoints([]), 0, None).err()
}

fn head(rows: &[Row]) -> Option<(i64, ChainHash)> {
    rows.last().map(|row| (row.id, row.hash))
}

/// Computed apart, from the documented form: a change of it would break every audit there is.
#[test]
fn the_form_of_a_hash_does_not_change() {
    let hex = |hash: ChainHash| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let start = chain_start(LOG);
    assert_eq!(hex(start), "d9b2fa34f8b850149b1b076028b5034d71601ddacb2608e8db296e6c5e2a314d");
    let entry = AuditEntry {
        time_ms: 1_766_182_536_042,
        correlation_id: "cor_1",
        tenant: "tenant-a",
        subject: "principal:ana",
        action: "runs.forward",
        object: "run_1",
        outcome: "allow",
        reason: "granté",
        meta: "{\"peer\":\"stk_b\"}",
    };
    assert_eq!(
        hex(link(&start, 1, &entry)),
        "e2f63b9096c4418abd2e6438f941a4e0de5889a61cf4684f55d7e7894175987b"
    );
}

#[test]
fn an_honest_audit_is_clean() {
    let rows = audit(1000);
    let every_hundredth = || rows.iter().filter(|row| row.id % 100 == 0);
    let mut known = checkpoints(every_hundredth());
    for row in every_hundredth() {
        let from_a_peer = signed(&Checkpoint { time_ms: 5, ..checkpoint_of(row) });
        known.add(&from_a_peer, verify).expect("a peer may have kept the same");
    }
    let clean = walk(&rows, known, 0, head(&rows)).expect("clean");
    let expected = Verified {
        records: 1000,
        last_id: 1000,
        last_hash: rows[999].hash,
        checkpoints: 10,
        signed_through: Some(1000),
    };
    assert_eq!(clean, expected);

    let clean = walk(&rows, checkpoints(&rows[..700][699..]), 0, None).expect("clean");
    assert_eq!(clean.signed_through, Some(700), "the rest is not vouched for, and this is said");

    let empty = walk(&[], checkpoints([]), 0, None).expect("clean");
    assert_eq!((empty.last_id, empty.last_hash, empty.signed_through), (0, chain_start(LOG), None));
}

#[test]
fn a_changed_byte_is_found_in_every_field() {
    // tenant, principal or peer, action, outcome and correlation id are all under the hash
    let rows = audit(9);
    for at in [0, 4, 8] {
        let id = rows[at].id;
        for field in 0..8 {
            for byte in 0..rows[at].texts[field].len() {
                let mut edited = rows.clone();
                let text = &mut edited[at].texts[field];
                let other = char::from(text.as_bytes()[byte] ^ 1).to_string();
                text.replace_range(byte..=byte, &other);
                assert_eq!(finding(&edited), Some(Finding::Edited { audit_id: id }), "{field} {byte}");
            }
        }
        let mut edited = rows.clone();
        edited[at].time_ms ^= 1;
        assert_eq!(finding(&edited), Some(Finding::Edited { audit_id: id }));
        for other in [i64::MIN, -id, 0, 50, i64::MAX] {
            let mut edited = rows.clone();
            edited[at].id = other;
            assert_eq!(finding(&edited), Some(Finding::Edited { audit_id: id }), "{other}");
        }
        for byte in 0..32 {
            let mut edited = rows.clone();
            edited[at].hash[byte] ^= 0x80;
            assert_eq!(finding(&edited), Some(Finding::Edited { audit_id: id }), "{byte}");
        }
    }
}

#[test]
fn one_record_with_its_hash_made_anew_breaks_the_next() {
    let mut rows = audit(9);
    rows[3].texts[5] = "deny".to_owned();
    let previous = rows[2].hash;
    rows[3].hash = link(&previous, 4, &rows[3].entry());
    assert_eq!(finding(&rows), Some(Finding::Edited { audit_id: 5 }));
}

#[test]
fn a_byte_moved_between_fields_is_another_record() {
    let honest = row(1);
    let hash = |row: &Row| link(&[7; 32], 1, &row.entry());
    for field in 0..7 {
        let mut moved = honest.clone();
        let byte = moved.texts[field].pop().expect("a byte");
        moved.texts[field + 1].insert(0, byte);
        assert_eq!(moved.texts.concat(), honest.texts.concat());
        assert_ne!(hash(&moved), hash(&honest), "{field}");
        let mut swapped = honest.clone();
        swapped.texts.swap(field, field + 1);
        assert_ne!(hash(&swapped), hash(&honest), "{field}");
    }
    assert_ne!(link(&[7; 32], 2, &honest.entry()), hash(&honest));
    assert_ne!(link(&[8; 32], 1, &honest.entry()), hash(&honest));
}

#[test]
fn a_deleted_record_leaves_a_hole() {
    let rows = audit(9);
    let without = |at: usize| [&rows[..at], &rows[at + 1..]].concat();
    assert_eq!(finding(&without(0)), Some(Finding::Missing { after: 0, before: 2 }));
    assert_eq!(finding(&without(4)), Some(Finding::Missing { after: 4, before: 6 }));
    assert_eq!(finding(&[&rows[..2], &rows[6..]].concat()), Some(Finding::Missing { after: 2, before: 7 }));
    let cut = without(8);
    assert_eq!(
        walk(&cut, checkpoints(&rows[8..]), 0, None),
        Err(Finding::Truncated { last_present: 8, checkpoint_id: 9 })
    );

    let mut closed = without(4);
    for (row, id) in closed.iter_mut().zip(1..) {
        row.id = id;
    }
    assert_eq!(finding(&closed), Some(Finding::Edited { audit_id: 5 }));
}

#[test]
fn a_cut_tail_is_seen_by_what_was_signed_or_kept() {
    let rows = audit(10);
    let cut = &rows[..7];
    let by_checkpoint = walk(cut, checkpoints([&rows[4], &rows[8]]), 0, head(cut));
    assert_eq!(by_checkpoint, Err(Finding::Truncated { last_present: 7, checkpoint_id: 9 }));
    let by_head = walk(cut, checkpoints([&rows[4]]), 0, head(&rows));
    assert_eq!(by_head, Err(Finding::HeadMismatch { last_present: 7, head_id: 10 }));
    let emptied = walk(&[], checkpoints([&rows[4]]), 0, None);
    assert_eq!(emptied, Err(Finding::Truncated { last_present: 0, checkpoint_id: 5 }));

    let appended = walk(&rows, checkpoints([]), 0, head(cut));
    assert_eq!(appended, Err(Finding::HeadMismatch { last_present: 10, head_id: 7 }));
    let other = walk(&rows, checkpoints([]), 0, Some((10, [1; 32])));
    assert_eq!(other, Err(Finding::HeadMismatch { last_present: 10, head_id: 10 }));
}

#[test]
fn swapped_records_are_named() {
    let rows = audit(9);
    for (left, right) in [(0, 1), (3, 4), (2, 8), (7, 8)] {
        let moved = Finding::Reordered { audit_id: rows[left].id, place: rows[right].id };
        let mut out_of_order = rows.clone();
        out_of_order.swap(left, right);
        assert_eq!(finding(&out_of_order), Some(moved.clone()), "ids and all");

        let mut under_each_others_ids = out_of_order;
        under_each_others_ids[left].id = rows[left].id;
        under_each_others_ids[right].id = rows[right].id;
        assert_eq!(finding(&under_each_others_ids), Some(moved), "ids kept");
    }
    let mut doubled = rows.clone();
    doubled.insert(4, rows[3].clone());
    assert_eq!(finding(&doubled), Some(Finding::Repeated { audit_id: 4, after: 4 }));
}

#[test]
fn an_audit_written_anew_is_not_the_signed_one() {
    let rows = audit(10);
    let known = checkpoints([&rows[2], &rows[5]]);
    let mut anew = rows.clone();
    anew[3].texts[5] = "deny".to_owned();
    rehash(&mut anew, chain_start(LOG));
    assert_eq!(finding(&anew), None, "the chain itself holds together");
    let held = walk(&anew, known, 0, None);
    assert_eq!(held, Err(Finding::CheckpointMismatch { audit_id: 6 }));

    let mut another_log = rows.clone();
    rehash(&mut another_log, chain_start("9e07"));
    assert_eq!(finding(&another_log), Some(Finding::Edited { audit_id: 1 }));
}

proptest! {
    #[test]
    fn a_checkpoint_reads_back(
        origin in "[!-~]{1,128}", incarnation in "[!-~]{1,128}", audit_id in 0..=i64::MAX, hash: [u8; 32],
        time_ms: i64,
    ) {
        let checkpoint = Checkpoint { origin, incarnation, audit_id, hash, time_ms };
        prop_assert_eq!(Checkpoint::parse(&checkpoint.text()), Ok(checkpoint));
    }

    /// Whatever is done to the records below a checkpoint, and in whatever order: it is found.
    #[test]
    fn no_tampering_below_a_checkpoint_goes_unseen(
        count in 1_i64..20,
        acts in proptest::collection::vec((0_u8..6, any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..4),
    ) {
        let honest = audit(count);
        let mut rows = honest.clone();
        for (act, left, right) in acts {
            if rows.is_empty() {
                break;
            }
            let (left, right) = (left.index(rows.len()), right.index(rows.len()));
            match act {
                0 => rows[left].texts[right % 8].push('x'),
                1 => drop(rows.remove(left)),
                2 => rows.swap(left, right),
                3 => rows.truncate(left),
                4 => rows.insert(right, rows[left].clone()),
                _ => {
                    for (row, id) in rows.iter_mut().zip(1..) {
                        row.id = id;
                    }
                    rehash(&mut rows, chain_start(LOG));
                }
            }
        }
        let result = walk(&rows, checkpoints(&honest[honest.len() - 1..]), 0, None);
        prop_assert!(result.is_err() || rows.starts_with(&honest), "{:?}", rows);
        prop_assert!(result.is_ok() || rows != honest, "{:?}", result);
    }

    /// Numbers at the ends of their range are findings, not panics.
    #[test]
    fn no_number_panics(ids in proptest::collection::vec(any::<i64>(), 1..5), start: i64) {
        let rows: Vec<Row> = ids.iter().map(|id| Row { id: *id, ..row(1) }).collect();
        let mut known = checkpoints([]);
        let end = Checkpoint { audit_id: start.saturating_abs(), ..checkpoint_of(&row(1)) };
        known.add(&signed(&end), verify).expect("well signed");
        for pruned_through in [start, i64::MAX, end.audit_id] {
            let result = walk(&rows, known.clone(), pruned_through, None);
            prop_assert!(!result.expect_err("not an audit").to_string().is_empty());
        }
    }
}
