//! The audit's hash chain: each record's hash covers the record, its id and the hash before it.
//!
//! Invariant: under a checkpoint signed at record `n`, no byte of the records up to `n` can change, go or move
//! unseen. What follows the newest checkpoint is only as safe as the head kept beside it.

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine};
use sha2::{Digest, Sha256};

pub use super::audit_finding::Finding;
use super::id::is_id;

/// One record, as it is stored and hashed. The audit numbers its records from 1 without holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry<'a> {
    /// When, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// The request's correlation id.
    pub correlation_id: &'a str,
    /// Whose things were touched.
    pub tenant: &'a str,
    /// Who acted: a principal, a peer, an operator.
    pub subject: &'a str,
    /// What was asked for.
    pub action: &'a str,
    /// What it was asked of.
    pub object: &'a str,
    /// How it ended.
    pub outcome: &'a str,
    /// Why it ended so.
    pub reason: &'a str,
    /// Canonical JSON, or nothing.
    pub meta: &'a str,
}

/// A SHA-256 that stands for a record and all before it.
pub type ChainHash = [u8; 32];

const START: u8 = 0x00;
const LINK: u8 = 0x01;

/// The hash before the first record: it binds a chain to its log.
pub fn chain_start(incarnation: &str) -> ChainHash {
    let mut hash = Sha256::new_with_prefix([START]);
    add(&mut hash, "causeway-audit-v1");
    add(&mut hash, incarnation);
    hash.finalize().into()
}

/// The hash of record `audit_id`, which follows the record with hash `previous`:
/// `SHA-256(0x01 ‖ previous ‖ id ‖ time ‖ each text after its length)`, numbers as 8 bytes, big-endian.
pub fn link(previous: &ChainHash, audit_id: i64, entry: &AuditEntry<'_>) -> ChainHash {
    let mut hash = Sha256::new_with_prefix([LINK]);
    hash.update(previous);
    hash.update(audit_id.to_be_bytes());
    hash.update(entry.time_ms.to_be_bytes());
    for text in [
        entry.correlation_id,
        entry.tenant,
        entry.subject,
        entry.action,
        entry.object,
        entry.outcome,
        entry.reason,
        entry.meta,
    ] {
        add(&mut hash, text);
    }
    hash.finalize().into()
}

fn add(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_be_bytes());
    hash.update(text);
}

/// The first line of a checkpoint: what keeps its signature from meaning anything else.
const CHECKPOINT_TAG: &str = "causeway-audit-checkpoint-v1";

/// How far an audit had come at some time, said by the gateway that keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The gateway's peer id.
    pub origin: String,
    /// The incarnation of its log.
    pub incarnation: String,
    /// The newest record; 0 when there is none.
    pub audit_id: i64,
    /// That record's hash.
    pub hash: ChainHash,
    /// When, in milliseconds since the Unix epoch.
    pub time_ms: i64,
}

/// Why a text is not a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a checkpoint: it must be six lines, each ended by a newline: {CHECKPOINT_TAG}, origin, incarnation, \
     record number, hash in base64, milliseconds since the Unix epoch"
)]
pub struct InvalidCheckpoint;

impl Checkpoint {
    /// The text that is signed.
    pub fn text(&self) -> String {
        let Checkpoint { origin, incarnation, audit_id, hash, time_ms } = self;
        let hash = BASE64_STANDARD.encode(hash);
        format!("{CHECKPOINT_TAG}\n{origin}\n{incarnation}\n{audit_id}\n{hash}\n{time_ms}\n")
    }

    /// Reads the signed text. Each checkpoint has one text, and no other is read.
    pub fn parse(text: &str) -> Result<Self, InvalidCheckpoint> {
        let lines: Vec<&str> = text.split('\n').collect();
        let [CHECKPOINT_TAG, origin, incarnation, audit_id, hash, time_ms, ""] = lines[..] else {
            return Err(InvalidCheckpoint);
        };
        let hash = BASE64_STANDARD.decode(hash).map_err(|_| InvalidCheckpoint)?;
        let checkpoint = Checkpoint {
            origin: origin.to_owned(),
            incarnation: incarnation.to_owned(),
            audit_id: audit_id.parse().map_err(|_| InvalidCheckpoint)?,
            hash: hash.try_into().map_err(|_| InvalidCheckpoint)?,
            time_ms: time_ms.parse().map_err(|_| InvalidCheckpoint)?,
        };
        let sound = is_id(origin) && is_id(incarnation) && checkpoint.audit_id >= 0;
        if sound && checkpoint.text() == text { Ok(checkpoint) } else { Err(InvalidCheckpoint) }
    }
}

/// A checkpoint as it is stored and handed to peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// The text of a [`Checkpoint`].
    pub text: String,
    /// The key that is said to have signed it.
    pub key_id: String,
    /// The signature of the text.
    pub signature: Vec<u8>,
}

/// The checkpoints one audit is held against: the gateway's own, and those its peers kept.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    origin: String,
    incarnation: String,
    hashes: BTreeMap<i64, ChainHash>,
}

impl Checkpoints {
    /// None yet, for the audit that `origin` keeps beside the log `incarnation`.
    pub fn new(origin: &str, incarnation: &str) -> Self {
        let (origin, incarnation) = (origin.to_owned(), incarnation.to_owned());
        Checkpoints { origin, incarnation, hashes: BTreeMap::new() }
    }

    /// Adds a checkpoint whose signature `verify(key_id, text, signature)` accepts. One that is refused
    /// changes nothing.
    pub fn add(
        &mut self,
        signed: &SignedCheckpoint,
        verify: impl FnOnce(&str, &[u8], &[u8]) -> bool,
    ) -> Result<Checkpoint, Finding> {
        let SignedCheckpoint { text, key_id, signature } = signed;
        if !verify(key_id, text.as_bytes(), signature) {
            return Err(Finding::ForgedCheckpoint { key_id: key_id.clone() });
        }
        let Ok(checkpoint) = Checkpoint::parse(text) else {
            return Err(Finding::UnreadableCheckpoint { key_id: key_id.clone() });
        };
        if checkpoint.origin != self.origin || checkpoint.incarnation != self.incarnation {
            let Checkpoint { origin, incarnation, .. } = checkpoint;
            return Err(Finding::ForeignCheckpoint { origin, incarnation });
        }
        let known = self.hashes.entry(checkpoint.audit_id).or_insert(checkpoint.hash);
        if *known != checkpoint.hash {
            return Err(Finding::ForkedCheckpoints { audit_id: checkpoint.audit_id });
        }
        Ok(checkpoint)
    }
}

/// What a clean audit proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// How many records were read.
    pub records: i64,
    /// The last record; 0 when there is none.
    pub last_id: i64,
    /// The last record's hash.
    pub last_hash: ChainHash,
    /// How many checkpoints matched.
    pub checkpoints: usize,
    /// The newest record a checkpoint vouches for. A change after it, with all hashes made anew, is not seen.
    pub signed_through: Option<i64>,
}

/// Reads an audit's records in order and names the first thing wrong with it.
#[derive(Debug)]
pub struct Verifier {
    checkpoints: BTreeMap<i64, ChainHash>,
    first_id: i64,
    read: i64,
    matched: usize,
    signed_through: Option<i64>,
    /// The last record that is as it should be, and its hash.
    good: (i64, ChainHash),
    fault: Option<Finding>,
}

impl Verifier {
    /// Begins after record `pruned_through`, or at record 1 when that is 0. A pruned audit begins with what
    /// a signed checkpoint of its last pruned record says.
    pub fn new(checkpoints: Checkpoints, pruned_through: i64) -> Result<Self, Finding> {
        let unproven = Finding::UnprovenStart { pruned_through };
        let start = match pruned_through {
            0 => chain_start(&checkpoints.incarnation),
            _ => *checkpoints.hashes.get(&pruned_through).ok_or(unproven)?,
        };
        Ok(Self::begin(checkpoints, (pruned_through, start)))
    }

    /// Begins where the chain did, after record `unchained`: the records up to it were written before there
    /// was a chain, and nothing vouches for them.
    pub fn after_unchained(checkpoints: Checkpoints, unchained: i64) -> Self {
        let start = chain_start(&checkpoints.incarnation);
        Self::begin(checkpoints, (unchained, start))
    }

    fn begin(checkpoints: Checkpoints, good: (i64, ChainHash)) -> Self {
        let mut verifier = Verifier {
            checkpoints: checkpoints.hashes,
            first_id: good.0.saturating_add(1),
            read: 0,
            matched: 0,
            signed_through: None,
            good,
            fault: None,
        };
        verifier.fault = verifier.compare().err();
        verifier
    }

    /// Takes the next record, as stored.
    pub fn push(&mut self, audit_id: i64, entry: &AuditEntry<'_>, stored_hash: &ChainHash) {
        let place = self.first_id.saturating_add(self.read);
        self.read = self.read.saturating_add(1);
        let (last_good, hash) = self.good;
        let expected = last_good.saturating_add(1);
        let is_expected = link(&hash, expected, entry) == *stored_hash;
        match self.fault {
            None if audit_id == expected && is_expected => {
                self.good = (expected, *stored_hash);
                self.fault = self.compare().err();
            }
            None if is_expected => self.fault = Some(Finding::Edited { audit_id: expected }),
            None => self.fault = Some(misplaced(last_good, audit_id)),
            Some(Finding::Edited { .. } | Finding::Missing { .. }) if is_expected => {
                self.fault = Some(Finding::Reordered { audit_id: expected, place });
            }
            Some(_) => {}
        }
    }

    /// Holds the end against the newest checkpoint and against the head kept beside the records, if any.
    pub fn finish(self, head: Option<(i64, ChainHash)>) -> Result<Verified, Finding> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let (last_id, last_hash) = self.good;
        if let Some((&checkpoint_id, _)) = self.checkpoints.last_key_value()
            && checkpoint_id > last_id
        {
            return Err(Finding::Truncated { last_present: last_id, checkpoint_id });
        }
        if let Some((head_id, _)) = head.filter(|head| *head != self.good) {
            return Err(Finding::HeadMismatch { last_present: last_id, head_id });
        }
        Ok(Verified {
            records: self.read,
            last_id,
            last_hash,
            checkpoints: self.matched,
            signed_through: self.signed_through,
        })
    }

    /// Holds the last good record against its checkpoint, if there is one.
    fn compare(&mut self) -> Result<(), Finding> {
        let (audit_id, hash) = self.good;
        match self.checkpoints.get(&audit_id) {
            None => Ok(()),
            Some(signed) if *signed == hash => {
                self.matched += 1;
                self.signed_through = Some(audit_id);
                Ok(())
            }
            Some(_) => Err(Finding::CheckpointMismatch { audit_id }),
        }
    }
}

/// What a record is that should be the one after `last_good` and is not.
fn misplaced(last_good: i64, audit_id: i64) -> Finding {
    match audit_id.saturating_sub(last_good) {
        ..=0 => Finding::Repeated { audit_id, after: last_good },
        1 => Finding::Edited { audit_id },
        _ => Finding::Missing { after: last_good, before: audit_id },
    }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
