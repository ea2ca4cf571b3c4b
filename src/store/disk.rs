//! What the store stands on: the machine's disk and threads of its own, or a simulated disk on one thread.
//!
//! Simulated, the file is as real as ever, but every unit of work is done on the thread that runs the gateway,
//! so that one seed gives one history; and before and after each commit the simulation may step in.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::Duration;

use tokio::runtime::Handle;

use super::error::StoreError;
use super::placing::Placing;

/// What may happen to a commit.
pub trait DiskFaults: Send + Sync {
    /// How long the disk takes before it begins a group.
    fn delay(&self) -> Duration;
    /// The group is about to be made durable, unless this is an error.
    fn before_commit(&self) -> Result<(), StoreError>;
    /// The group is durable and nobody has heard of it; true when nobody ever will, for the process is gone.
    fn after_commit(&self) -> bool;
}

/// The disk below one store.
#[derive(Clone, Default)]
pub struct Disk {
    simulated: Option<(Arc<dyn DiskFaults>, Handle)>,
    placing: Placing,
}

impl Disk {
    /// The machine's.
    pub fn system() -> Self {
        Disk::default()
    }

    /// One that `faults` happen to. The threads of the list queries belong to the runtime of `aside`; while
    /// one is at work, everything else stands still.
    pub fn simulated(faults: Arc<dyn DiskFaults>, aside: Handle) -> Self {
        Disk { simulated: Some((faults, aside)), ..Disk::default() }
    }

    /// The same, where events are put in other places, or at other times.
    pub fn with_placing(self, placing: Placing) -> Self {
        Disk { placing, ..self }
    }

    pub(super) fn placing(&self) -> Placing {
        self.placing
    }

    pub(super) fn faults(&self) -> Option<Arc<dyn DiskFaults>> {
        self.simulated.as_ref().map(|(faults, _)| Arc::clone(faults))
    }

    /// Does work that waits for threads: nothing else happens meanwhile where one seed must give one history.
    pub(super) async fn wait_for<T>(&self, work: impl Future<Output = T>) -> T {
        let Some((_, aside)) = &self.simulated else { return work.await };
        let _entered = aside.enter();
        block_on(work)
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(&mut context) {
            return done;
        }
        thread::park();
    }
}
