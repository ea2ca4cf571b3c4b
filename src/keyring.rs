//! This gateway's own Ed25519 keys: one that signs, perhaps one announced to follow it, and those before.
//!
//! ```text
//! rotate: next key announced, signed by the present one ─▶ overlap ─▶ it takes over ─▶ the old one is public
//! history: its private half is gone
//! ```
//!
//! Invariant: private keys lie in files only this user may read, and nowhere else; at every moment, over any
//! crash, exactly one key is the present one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use crate::clock::millis;
use crate::domain::key::{PublicKey, SigningKey};
use crate::domain::succession::Succession;
use crate::failpoint;

/// Where keys lie inside the data directory.
pub const KEY_DIR: &str = "keys";
/// The present key.
const PRESENT: &str = "gateway.pem";
/// The key that follows.
const NEXT: &str = "next.pem";
/// When it follows.
const NEXT_FACTS: &str = "next.json";
/// The keys before, without their private halves.
const RETIRED: &str = "retired.json";
/// The old key counts for so long after its successor took over: clocks differ, and requests are under way.
const GRACE: Duration = Duration::from_secs(300);

/// Why a key cannot be read, made or rotated. Names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// A file.
    #[error("key file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that holds something else.
    #[error("key file {path}: {reason}; it must hold an Ed25519 private key as PKCS#8 PEM")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file that others may read.
    #[error(
        "key file {path} may be read by other users (mode {mode:o}): chmod 600 it, and rotate the key if it may have been read"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// There is one already.
    #[error(
        "a successor is announced already, to take over at {0}; wait, or remove it with `causeway key rotate --cancel`"
    )]
    Announced(String),
    /// A key named by the configuration.
    #[error(
        "the key is the file named by peering.key_file: put the new key there and restart, after its peers know it"
    )]
    Foreign,
}

/// A key that is no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetiredKey {
    /// Its public half, which still checks what it once signed.
    pub public_key: PublicKey,
    /// When its successor took over, in milliseconds since the Unix epoch.
    pub retired_at_ms: i64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct NextFacts {
    activates_at_ms: i64,
}

/// The keys as they stand.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Signs.
    pub present: Arc<SigningKey>,
    /// Follows, from that time on.
    pub next: Option<(Arc<SigningKey>, i64)>,
    /// The ones before, oldest first.
    pub retired: Vec<RetiredKey>,
}

/// The keys and their files.
#[derive(Debug)]
pub struct Keyring {
    dir: PathBuf,
    present: PathBuf,
    is_own: bool,
    keys: ArcSwap<Keys>,
    changing: Mutex<()>,
}

impl Keyring {
    /// Reads the keys; where there is none yet, makes one from `seed`.
    pub fn open(data_dir: &Path, key_file: Option<&Path>, seed: &[u8; 32]) -> Result<Self, KeyringError> {
        let dir = data_dir.join(KEY_DIR);
        let present = key_file.map_or_else(|| dir.join(PRESENT), Path::to_owned);
        let is_own = key_file.is_none();
        if is_own && !present.exists() {
            make_dir(&dir)?;
            write_key(&present, &SigningKey::from_seed(seed))?;
        }
        let keys = read_keys(&dir, &present, is_own)?;
        Ok(Keyring { dir, present, is_own, keys: ArcSwap::from_pointee(keys), changing: Mutex::default() })
    }

    /// Reads the keys of a gateway that may be running; none is made.
    pub fn read(data_dir: &Path, key_file: Option<&Path>) -> Result<Keys, KeyringError> {
        let dir = data_dir.join(KEY_DIR);
        let present = key_file.map_or_else(|| dir.join(PRESENT), Path::to_owned);
        read_keys(&dir, &present, key_file.is_none())
    }

    /// The keys as they stand.
    pub fn keys(&self) -> Arc<Keys> {
        self.keys.load_full()
    }

    /// Where the present key lies.
    pub fn file(&self) -> &Path {
        &self.present
    }

    /// Announces a key made from `seed`, to take over at a time.
    pub fn rotate(&self, seed: &[u8; 32], activates_at_ms: i64) -> Result<Arc<Keys>, KeyringError> {
        if !self.is_own {
            return Err(KeyringError::Foreign);
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, at_ms)) = &self.keys().next {
            return Err(KeyringError::Announced(crate::clock::rfc3339(*at_ms)));
        }
        // Facts that outlived their take-over, in a crash, would let this key take over at once.
        remove(&self.dir.join(NEXT_FACTS))?;
        sync_dir(&self.dir)?;
        // The facts last: a key without them is a rotation that never was.
        write_key(&self.dir.join(NEXT), &SigningKey::from_seed(seed))?;
        failpoint::reached("keys::after_next");
        write_json(&self.dir.join(NEXT_FACTS), &NextFacts { activates_at_ms })?;
        self.read_again()
    }

    /// Takes an announcement back.
    pub fn cancel_rotation(&self) -> Result<Arc<Keys>, KeyringError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        for name in [NEXT_FACTS, NEXT] {
            remove(&self.dir.join(name))?;
        }
        self.read_again()
    }

    /// Lets the announced key take over once its time has come; answers whether it did.
    pub fn advance(&self, now_ms: i64) -> Result<bool, KeyringError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = self.keys();
        let Some((_, activates_at_ms)) = keys.next.as_ref().filter(|(_, at_ms)| *at_ms <= now_ms) else {
            return Ok(false);
        };
        let old = *keys.present.public();
        let mut retired = keys.retired.clone();
        if retired.last().is_none_or(|last| last.public_key != old) {
            retired.push(RetiredKey { public_key: old, retired_at_ms: *activates_at_ms });
        }
        write_json(&self.dir.join(RETIRED), &retired)?;
        failpoint::reached("keys::before_switch");
        // The rename is the moment: before it the old key is the present one, after it the new.
        let next = self.dir.join(NEXT);
        fs::rename(&next, &self.present).map_err(|source| KeyringError::File { path: next, source })?;
        sync_dir(&self.dir)?;
        failpoint::reached("keys::after_switch");
        remove(&self.dir.join(NEXT_FACTS))?;
        self.read_again()?;
        Ok(true)
    }

    fn read_again(&self) -> Result<Arc<Keys>, KeyringError> {
        let keys = Arc::new(read_keys(&self.dir, &self.present, self.is_own)?);
        self.keys.store(Arc::clone(&keys));
        Ok(keys)
    }
}

impl Keys {
    /// The announcement of the next key, signed by the present one.
    pub fn succession(&self, peer_id: &str) -> Option<Succession> {
        let (next, activates_at_ms) = self.next.as_ref()?;
        let expires_at_ms = activates_at_ms + millis(GRACE);
        Some(Succession::sign(peer_id, &self.present, next.public(), (*activates_at_ms, expires_at_ms)))
    }

    /// The key of this id, whether it signs now or once did.
    pub fn find_public(&self, key_id: &str) -> Option<PublicKey> {
        let next = self.next.iter().map(|(key, _)| *key.public());
        let known = std::iter::once(*self.present.public()).chain(next);
        known.chain(self.retired.iter().map(|key| key.public_key)).find(|key| key.key_id().as_str() == key_id)
    }
}

fn read_keys(dir: &Path, present: &Path, is_own: bool) -> Result<Keys, KeyringError> {
    let key = Arc::new(read_key(present)?);
    if !is_own {
        return Ok(Keys { present: key, next: None, retired: Vec::new() });
    }
    let facts: Option<NextFacts> = read_json(&dir.join(NEXT_FACTS))?;
    let next_file = dir.join(NEXT);
    let next = match facts.filter(|_| next_file.exists()) {
        Some(facts) => Some((Arc::new(read_key(&next_file)?), facts.activates_at_ms)),
        None => None,
    };
    let mut retired: Vec<RetiredKey> = read_json(&dir.join(RETIRED))?.unwrap_or_default();
    // Written just before a crash, the present key may stand among those before.
    retired.retain(|before| before.public_key != *key.public());
    Ok(Keys { present: key, next, retired })
}

fn read_key(path: &Path) -> Result<SigningKey, KeyringError> {
    let failed = |source| KeyringError::File { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyringError::Exposed { path: path.to_owned(), mode });
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    SigningKey::from_pkcs8_pem(&text)
        .map_err(|error| KeyringError::Content { path: path.to_owned(), reason: error.to_string() })
}

fn make_dir(dir: &Path) -> Result<(), KeyringError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| KeyringError::File { path: dir.to_owned(), source })
}

fn write_key(path: &Path, key: &SigningKey) -> Result<(), KeyringError> {
    write_private(path, key.to_pkcs8_pem().as_bytes())
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), KeyringError> {
    write_private(path, serde_json::to_string_pretty(value).unwrap_or_default().as_bytes())
}

/// Writes a file whole or not at all.
fn write_private(path: &Path, content: &[u8]) -> Result<(), KeyringError> {
    let failed = |source| KeyringError::File { path: path.to_owned(), source };
    let draft = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    let mut file: File = options.open(&draft).map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&draft, path).map_err(failed)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

fn sync_dir(dir: &Path) -> Result<(), KeyringError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|source| KeyringError::File { path: dir.to_owned(), source })
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, KeyringError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(KeyringError::File { path: path.to_owned(), source }),
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| KeyringError::Content { path: path.to_owned(), reason: error.to_string() })
}

fn remove(path: &Path) -> Result<(), KeyringError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(KeyringError::File { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path) -> Keyring {
        Keyring::open(dir, None, &[1; 32]).expect("a keyring")
    }

    #[test]
    fn a_key_is_made_once_and_kept_private() {
        // R-11
        let dir = tempfile::tempdir().expect("a directory");
        let first = *open(dir.path()).keys().present.public();
        let again = Keyring::open(dir.path(), None, &[2; 32]).expect("a keyring");
        assert_eq!(first, *again.keys().present.public());
        let mode = fs::metadata(again.file()).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::set_permissions(again.file(), fs::Permissions::from_mode(0o640)).expect("a mode");
        let refused = Keyring::open(dir.path(), None, &[2; 32]).expect_err("others may read it");
        assert!(matches!(refused, KeyringError::Exposed { .. }), "{refused}");
    }

    #[test]
    fn a_rotation_announces_takes_over_and_leaves_history() {
        let dir = tempfile::tempdir().expect("a directory");
        let ring = open(dir.path());
        let old = *ring.keys().present.public();
        let announced = ring.rotate(&[2; 32], 1_000).expect("announced");
        let succession = announced.succession("stk_a").expect("a succession");
        let new = succession.verify("stk_a", &old).expect("signed by the old key");
        assert!(matches!(ring.rotate(&[3; 32], 2_000), Err(KeyringError::Announced(_))));
        assert!(!ring.advance(999).expect("not yet"));
        // A restart in between changes nothing.
        let ring = open(dir.path());
        assert_eq!(*ring.keys().present.public(), old);
        assert!(ring.advance(1_000).expect("now"));
        for keys in [ring.keys(), open(dir.path()).keys()] {
            assert_eq!(*keys.present.public(), new);
            assert!(keys.next.is_none());
            assert_eq!(keys.retired, [RetiredKey { public_key: old, retired_at_ms: 1_000 }]);
            assert_eq!(keys.find_public(old.key_id().as_str()), Some(old));
        }
    }

    #[test]
    fn a_crash_within_a_rotation_leaves_one_present_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let ring = open(dir.path());
        let old = *ring.keys().present.public();
        ring.rotate(&[2; 32], 1_000).expect("announced");
        // After the list of retired keys was written, before the rename.
        let retired = vec![RetiredKey { public_key: old, retired_at_ms: 1_000 }];
        write_json(&dir.path().join(KEY_DIR).join(RETIRED), &retired).expect("written");
        let ring = open(dir.path());
        assert_eq!(*ring.keys().present.public(), old);
        assert!(ring.keys().retired.is_empty());
        // After the rename, before the facts were removed.
        let keys = dir.path().join(KEY_DIR);
        fs::rename(keys.join(NEXT), keys.join(PRESENT)).expect("renamed");
        let ring = open(dir.path());
        assert_ne!(*ring.keys().present.public(), old);
        assert!(ring.keys().next.is_none());
        assert!(!ring.advance(5_000).expect("nothing left to do"));
    }

    #[test]
    fn an_announcement_can_be_taken_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let ring = open(dir.path());
        ring.rotate(&[2; 32], 1_000).expect("announced");
        assert!(ring.cancel_rotation().expect("taken back").next.is_none());
        assert!(ring.rotate(&[3; 32], 1_000).is_ok());
    }
}
