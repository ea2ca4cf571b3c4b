//! A credential in a file of its own: one line of visible ASCII, and nothing of it in any error.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::domain::secret::Secret;

/// The largest file that can be one.
const MOST_BYTES: u64 = 8 * 1024;

/// Reads the credential that a file holds.
pub(super) fn read(path: &Path) -> Result<Secret, String> {
    let name = path.display();
    let failed = |error: std::io::Error| format!("{name} cannot be read: {error}");
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MOST_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    match text.trim() {
        _ if text.len() as u64 > MOST_BYTES => {
            Err(format!("{name} cannot be read: more than {MOST_BYTES} bytes"))
        }
        "" => Err(format!("{name} is empty: it must hold the credential")),
        credential if credential.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(Secret::new(credential.to_owned()))
        }
        _ => Err(format!("{name} must hold one credential of visible ASCII characters")),
    }
}
