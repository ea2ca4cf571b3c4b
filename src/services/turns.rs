//! Who is at work on what: one task per forward, and its turn ends with it, however it ends.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::id::ForwardId;

/// The forwards with a task at work.
#[derive(Clone, Default)]
pub(super) struct Turns {
    taken: Arc<Mutex<HashSet<ForwardId>>>,
}

/// The right to drive a forward, given back when dropped, also by a caller that hangs up.
pub(super) struct Turn {
    turns: Turns,
    id: ForwardId,
}

impl Turns {
    /// Takes the turn, unless somebody has it.
    pub(super) fn take(&self, id: &ForwardId) -> Option<Turn> {
        let free = self.lock().insert(id.clone());
        free.then(|| Turn { turns: self.clone(), id: id.clone() })
    }

    /// True while somebody has the turn.
    pub(super) fn is_taken(&self, id: &ForwardId) -> bool {
        self.lock().contains(id)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<ForwardId>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.lock().remove(&self.id);
    }
}
