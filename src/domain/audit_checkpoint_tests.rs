//! Checkpoints: one text each, refused when forged, and what a pruned audit begins with.

use super::*;

#[test]
fn a_forged_checkpoint_is_refused_and_changes_nothing() {
    let rows = audit(10);
    let honest = signed(&checkpoint_of(&rows[4]));
    let mut known = checkpoints([]);

    let forged = Some(Finding::ForgedCheckpoint { key_id: "key-1".to_owned() });
    for byte in 0..honest.text.len() {
        let mut bytes = honest.text.clone().into_bytes();
        bytes[byte] ^= 1;
        let text = String::from_utf8(bytes).expect("ASCII");
        assert_eq!(known.add(&SignedCheckpoint { text, ..honest.clone() }, verify).err(), forged, "{byte}");
    }
    let mut signature = honest.signature.clone();
    signature[0] ^= 1;
    assert_eq!(known.add(&SignedCheckpoint { signature, ..honest.clone() }, verify).err(), forged);
    let key_id = "key\x1b[2J".to_owned();
    let refused = known.add(&SignedCheckpoint { key_id, ..honest.clone() }, verify).expect_err("another key");
    assert_eq!(refused.to_string(), "a checkpoint is forged: its signature is not one of key \"key [2J\"");

    let text = honest.text.replace("\n5\n", "\n05\n");
    let signature = sign("key-1", text.as_bytes());
    let odd = SignedCheckpoint { text, signature, ..honest.clone() };
    let unreadable = Finding::UnreadableCheckpoint { key_id: "key-1".to_owned() };
    assert_eq!(known.add(&odd, verify), Err(unreadable));

    for (origin, incarnation) in [("stk_b", LOG), (ORIGIN, "9e07")] {
        let (origin, incarnation) = (origin.to_owned(), incarnation.to_owned());
        let foreign = Checkpoint { origin, incarnation, ..checkpoint_of(&rows[4]) };
        let Checkpoint { origin, incarnation, .. } = foreign.clone();
        let refused = known.add(&signed(&foreign), verify);
        assert_eq!(refused, Err(Finding::ForeignCheckpoint { origin, incarnation }));
    }
    let clean = walk(&rows, known.clone(), 0, None).expect("clean");
    assert_eq!(clean.checkpoints, 0);

    assert_eq!(known.add(&honest, verify), Ok(checkpoint_of(&rows[4])));
    let fork = signed(&Checkpoint { hash: [9; 32], ..checkpoint_of(&rows[4]) });
    assert_eq!(known.add(&fork, verify), Err(Finding::ForkedCheckpoints { audit_id: 5 }));
    assert!(walk(&rows, known, 0, None).is_ok());
}

#[test]
fn a_pruned_audit_begins_at_a_signed_record() {
    let rows = audit(10);
    let kept = &rows[4..];
    let known = || checkpoints([&rows[1], &rows[3], &rows[7]]);
    let clean = walk(kept, known(), 4, head(&rows)).expect("clean");
    assert_eq!((clean.records, clean.last_id, clean.checkpoints), (6, 10, 2));

    assert_eq!(walk(kept, known(), 3, None), Err(Finding::UnprovenStart { pruned_through: 3 }));
    assert_eq!(walk(kept, known(), -1, None), Err(Finding::UnprovenStart { pruned_through: -1 }));
    assert_eq!(walk(&rows[5..], known(), 4, None), Err(Finding::Missing { after: 4, before: 6 }));
    assert_eq!(walk(&[], known(), 4, None), Err(Finding::Truncated { last_present: 4, checkpoint_id: 8 }));
    let mut edited = kept.to_vec();
    edited[0].texts[1] = "tenant-b".to_owned();
    assert_eq!(walk(&edited, known(), 4, None), Err(Finding::Edited { audit_id: 5 }));
    assert_eq!(walk(&rows, known(), 4, None), Err(Finding::Repeated { audit_id: 1, after: 4 }));

    let mut wrong_beginning = checkpoints([]);
    let nothing_yet = Checkpoint { audit_id: 0, hash: [3; 32], ..checkpoint_of(&rows[0]) };
    wrong_beginning.add(&signed(&nothing_yet), verify).expect("well signed");
    assert_eq!(walk(&rows, wrong_beginning, 0, None), Err(Finding::CheckpointMismatch { audit_id: 0 }));
}

#[test]
fn findings_are_sentences() {
    for (finding, sentence) in [
        (Finding::Missing { after: 4, before: 6 }, "record 5 is missing"),
        (Finding::Missing { after: 0, before: 4 }, "records 1 to 3 are missing"),
        (
            Finding::Reordered { audit_id: 3, place: 4 },
            "the records are out of order: record 3 stands in the place of record 4",
        ),
        (
            Finding::Truncated { last_present: 7, checkpoint_id: 9 },
            "the audit ends at record 7, but a signed checkpoint says that there was a record 9: the end of the \
             audit is gone",
        ),
        (
            Finding::HeadMismatch { last_present: 0, head_id: 9 },
            "the audit is empty, but its head names record 9",
        ),
        (
            Finding::HeadMismatch { last_present: 9, head_id: 9 },
            "the audit ends at record 9, but its head names another hash for it",
        ),
    ] {
        assert_eq!(finding.to_string(), sentence);
    }
}

#[test]
fn a_checkpoint_has_one_text() {
    let checkpoint = Checkpoint { audit_id: 12, hash: [0; 32], time_ms: 34, ..checkpoint_of(&row(1)) };
    let text = checkpoint.text();
    let zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert_eq!(text, format!("causeway-audit-checkpoint-v1\nstk_a\n4f1c\n12\n{zero}\n34\n"));
    assert_eq!(Checkpoint::parse(&text), Ok(checkpoint));
    for (from, to) in [
        ("-v1", "-v2"),
        ("\n", "\r\n"),
        ("stk_a", ""),
        ("stk_a", "stk a"),
        ("stk_a", "stk\u{e9}"),
        ("stk_a", "stk_a\nstk_b"),
        ("4f1c\n", ""),
        ("4f1c", ""),
        ("4f1c", "4f 1c"),
        ("\n12\n", "\n012\n"),
        ("\n12\n", "\n+12\n"),
        ("\n12\n", "\n-12\n"),
        ("\n12\n", "\n9223372036854775808\n"),
        ("\n12\n", "\n 12\n"),
        ("A=\n", "A\n"),
        ("A=\n", "B=\n"),
        ("AAAA=\n", "=\n"),
        ("\n34\n", "\n34"),
        ("\n34\n", "\n34\n\n"),
        ("\n34\n", "\n3_4\n"),
    ] {
        let odd = text.replace(from, to);
        assert_ne!(odd, text);
        assert_eq!(Checkpoint::parse(&odd), Err(InvalidCheckpoint), "{odd:?}");
    }
    assert_eq!(Checkpoint::parse(""), Err(InvalidCheckpoint));
}
