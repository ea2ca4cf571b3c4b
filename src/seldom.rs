//! A future that is looked at when it was woken itself, and not with every wake-up of its task.
//!
//! A connection is woken for every event, and is told to end once. To ask each time whether it was costs a handful of
//! loads from memory that nothing else touches: with a thousand connections none of that is in the cache, and it adds
//! up to a tenth of a delivery.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// A future that is polled only after it was woken.
pub struct Seldom<F> {
    inner: F,
    bell: Arc<Bell>,
    /// Whom the bell calls, here too, where it costs nothing to look.
    task: Option<Waker>,
}

/// The waker of what is inside.
struct Bell {
    rung: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl<F: Unpin> Seldom<F> {
    /// Not looked at yet, so that the first poll is one.
    pub fn new(inner: F) -> Self {
        let bell = Bell { rung: AtomicBool::new(true), task: Mutex::new(None) };
        Seldom { inner, bell: Arc::new(bell), task: None }
    }

    /// What is inside, to be changed: it is looked at afterwards.
    pub fn get_mut(&mut self) -> &mut F {
        self.bell.rung.store(true, Ordering::Release);
        &mut self.inner
    }

    /// True when it was woken since it was last looked at, or never was.
    pub fn is_rung(&self) -> bool {
        self.bell.rung.load(Ordering::Acquire)
    }
}

impl<F: Future + Unpin> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(context.waker())) {
            self.task = Some(context.waker().clone());
            // Before the look: until now the bell called another task, or none.
            *self.bell.task.lock().unwrap_or_else(PoisonError::into_inner) = self.task.clone();
        }
        if !self.is_rung() {
            return Poll::Pending;
        }
        // Before the poll: what rings from here on is looked at again.
        self.bell.rung.swap(false, Ordering::AcqRel);
        let waker = Waker::from(Arc::clone(&self.bell));
        let polled = Pin::new(&mut self.inner).poll(&mut Context::from_waker(&waker));
        if polled.is_ready() {
            // It stays so that whoever asks later sees that it was.
            self.bell.rung.store(true, Ordering::Release);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::oneshot;

    use super::*;

    /// A task that counts how often it is called.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Task {
        fn poll<F: Future + Unpin>(self: &Arc<Self>, seldom: &mut Seldom<F>) -> Poll<F::Output> {
            Pin::new(seldom).poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
        }

        fn calls(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    /// Counts how often it is looked at, and has the waker that it was last looked at with.
    #[derive(Default)]
    struct Looked {
        times: usize,
        waker: Option<Waker>,
        /// Wakes itself in the middle of so many looks.
        restless: usize,
    }

    impl Future for Looked {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            self.times += 1;
            self.waker = Some(context.waker().clone());
            if self.times <= self.restless {
                context.waker().wake_by_ref();
            }
            Poll::Pending
        }
    }

    #[test]
    fn it_is_looked_at_once_and_then_once_for_each_ring() {
        let (task, mut seldom) = (Arc::<Task>::default(), Seldom::new(Looked::default()));
        for _ in 0..3 {
            assert!(task.poll(&mut seldom).is_pending());
        }
        assert_eq!((seldom.inner.times, task.calls(), seldom.is_rung()), (1, 0, false));
        for ring in 1..4 {
            seldom.inner.waker.as_ref().expect("a waker").wake_by_ref();
            assert_eq!((task.calls(), seldom.is_rung()), (ring, true));
            for _ in 0..3 {
                assert!(task.poll(&mut seldom).is_pending());
            }
            assert_eq!(seldom.inner.times, 1 + ring);
        }
    }

    #[test]
    fn a_ring_during_a_look_is_followed_by_another_look() {
        let looked = Looked { restless: 1, ..Looked::default() };
        let (task, mut seldom) = (Arc::<Task>::default(), Seldom::new(looked));
        assert!(task.poll(&mut seldom).is_pending());
        assert_eq!((task.calls(), seldom.is_rung()), (1, true));
        assert!(task.poll(&mut seldom).is_pending());
        assert_eq!((seldom.inner.times, seldom.is_rung()), (2, false));
    }

    #[test]
    fn it_calls_the_task_that_polled_last() {
        let (first, last) = (Arc::<Task>::default(), Arc::<Task>::default());
        let (sender, receiver) = oneshot::channel();
        let mut seldom = Seldom::new(receiver);
        assert!(first.poll(&mut seldom).is_pending());
        assert!(last.poll(&mut seldom).is_pending());
        sender.send(7).expect("a receiver");
        assert_eq!((first.calls(), last.calls()), (0, 1));
        assert_eq!(last.poll(&mut seldom), Poll::Ready(Ok(7)));
    }

    #[test]
    fn what_was_changed_is_looked_at() {
        let (task, mut seldom) = (Arc::<Task>::default(), Seldom::new(Looked::default()));
        assert!(task.poll(&mut seldom).is_pending());
        seldom.get_mut().times = 0;
        assert!(task.poll(&mut seldom).is_pending());
        assert_eq!(seldom.inner.times, 1);
    }
}
