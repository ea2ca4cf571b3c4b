//! A line before a bounded number of places: first come, first served, except that whoever is being
//! watched goes first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::domain::stream::StreamNo;

/// The places, and who waits for one.
pub(super) struct Line {
    places: usize,
    inner: Mutex<Inner>,
    goes_first: Box<dyn Fn(StreamNo) -> bool + Send + Sync>,
}

struct Inner {
    free: usize,
    waiting: VecDeque<(StreamNo, oneshot::Sender<Place>)>,
}

/// A place, given back when dropped.
pub(super) struct Place {
    /// `None` once the place has been passed on.
    line: Option<Arc<Line>>,
}

impl Line {
    /// A line before `places` places; `goes_first` says who may jump it.
    pub(super) fn new(
        places: usize,
        goes_first: impl Fn(StreamNo) -> bool + Send + Sync + 'static,
    ) -> Arc<Self> {
        let inner = Mutex::new(Inner { free: places, waiting: VecDeque::new() });
        Arc::new(Line { places, inner, goes_first: Box::new(goes_first) })
    }

    /// Waits for a place. Dropping the future leaves the line.
    pub(super) async fn enter(self: &Arc<Self>, who: StreamNo) -> Place {
        let turn = {
            let mut inner = self.lock();
            if inner.free > 0 {
                inner.free -= 1;
                return Place { line: Some(Arc::clone(self)) };
            }
            let (sender, turn) = oneshot::channel();
            inner.waiting.push_back((who, sender));
            turn
        };
        match turn.await {
            Ok(place) => place,
            // A sender is only dropped with the line, which this call holds.
            Err(_) => std::future::pending().await,
        }
    }

    /// How many places are taken.
    pub(super) fn taken(&self) -> usize {
        self.places - self.lock().free
    }

    fn leave(self: &Arc<Self>) {
        loop {
            let mut inner = self.lock();
            let jumper = inner.waiting.iter().position(|(who, _)| (self.goes_first)(*who));
            let Some((_, turn)) = inner.waiting.remove(jumper.unwrap_or(0)) else {
                inner.free += 1;
                return;
            };
            drop(inner);
            match turn.send(Place { line: Some(Arc::clone(self)) }) {
                Ok(()) => return,
                // That one has left the line: its place goes to the next.
                Err(mut place) => place.line = None,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            line.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_is_watched_goes_first_and_a_place_is_never_lost() {
        let who = StreamNo::new;
        let line = Line::new(1, move |name| name == who(3));
        let first = line.enter(who(1)).await;
        let (mut second, mut third) = (Box::pin(line.enter(who(2))), Box::pin(line.enter(who(3))));
        assert!(
            futures_util::poll!(&mut second).is_pending() && futures_util::poll!(&mut third).is_pending()
        );
        let gone = Box::pin(line.enter(who(4)));
        drop(gone);
        drop(first);
        let third = third.await;
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(second);
        drop(third);
        drop(line.enter(who(5)).await);
        assert_eq!(line.taken(), 0);
    }
}
