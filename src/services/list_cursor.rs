//! Cursors of lists: a place in one log, and refused by any other.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::protocol::error_code::ErrorCode;
use crate::protocol::problem::Problem;
use crate::store::Store;

/// Names a place in a list of this log. `place` holds what the list needs to go on there.
pub(super) fn make(store: &Store, place: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{} {place}", store.incarnation()))
}

/// The place a cursor names; `read` says whether it is one of this list.
pub(super) fn open<T>(
    store: &Store,
    cursor: &str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, Problem> {
    let invalid = || {
        Problem::new(ErrorCode::InvalidCursor, "`cursor` must be a next_cursor of this list")
            .with("field", "cursor")
    };
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| invalid())?;
    let text = String::from_utf8(bytes).map_err(|_| invalid())?;
    let (incarnation, place) = text.split_once(' ').ok_or_else(invalid)?;
    let read = read(place).ok_or_else(invalid)?;
    if incarnation != &**store.incarnation() {
        let message =
            "the cursor was given by another log: this one was restored since; start again without it";
        return Err(Problem::new(ErrorCode::CursorIncarnation, message).with("field", "cursor"));
    }
    Ok(read)
}
