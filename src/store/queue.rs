//! The way to the writer: units of work in one bounded queue, each with the way back to its caller.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::damage::Damage;
use super::error::StoreError;
use super::writer::{Unit, WriterThread};
use crate::tasks::Tasks;

/// Units that may wait for the writer; beyond it a caller waits, or is told that the log is overloaded.
const QUEUE: usize = 1024;

/// One unit of work, with the way back to its caller.
pub(super) trait Job: Send {
    /// About how many bytes it will write.
    fn bytes(&self) -> usize;
    /// Does the work; answers why it must not be kept. It may be asked for again, when what it did was undone.
    fn run(&mut self, unit: &mut Unit<'_>) -> Result<(), StoreError>;
    /// Tells the caller, once the fate of the group is known.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Task<T, W> {
    bytes: usize,
    work: W,
    result: Option<Result<T, StoreError>>,
    caller: oneshot::Sender<Answer<T, W>>,
}

/// What came of a unit, and the work itself: its memory is given back where it was taken, and not on the one thread
/// that all wait for.
type Answer<T, W> = (Result<T, StoreError>, W);

impl<T, W> Job for Task<T, W>
where
    T: Send,
    W: Fn(&mut Unit<'_>) -> Result<T, StoreError> + Send,
{
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn run(&mut self, unit: &mut Unit<'_>) -> Result<(), StoreError> {
        self.result = None;
        let result = (self.work)(unit).and_then(|value| unit.rows.write().map(|()| value));
        let kept = result.as_ref().map(|_| ()).map_err(StoreError::clone);
        self.result = Some(result);
        kept
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let result = match (self.result, committed) {
            (Some(Err(error)), _) | (_, Err(error)) => Err(error),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (None, Ok(())) => Err(StoreError::Failed("a unit of work panicked".to_owned())),
        };
        // A caller that has gone away changes nothing: the work is done.
        let _ = self.caller.send((result, self.work));
    }
}

/// What waits in the queue.
pub(super) enum Order {
    Work(Box<dyn Job>),
    /// Nothing is to be written after this; dropped once the connection is closed.
    End(oneshot::Sender<()>),
}

/// The way to the writer, cheap to clone.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Order>,
    /// The last group was refused.
    troubled: Arc<AtomicBool>,
    damage: Damage,
}

impl Writer {
    /// Starts the writer. It ends when it is told to, when every handle is gone, or when the disk fails, which it
    /// then says.
    pub(super) fn start(
        thread: WriterThread,
        database: &Path,
        damage: Damage,
        tasks: &Tasks,
    ) -> Result<Self, StoreError> {
        let (queue, orders) = mpsc::channel(QUEUE);
        let troubled = thread.troubled();
        thread.start(orders, database, tasks)?;
        Ok(Writer { queue, troubled, damage })
    }

    /// Ends the writer, and answers when it has written what was asked of it before, and never will write again.
    pub(super) async fn end(&self) {
        let (done, ended) = oneshot::channel();
        // An error means that it has ended already.
        if self.queue.send(Order::End(done)).await.is_ok() {
            let _ = ended.await;
        }
    }

    /// True when the last group was refused: the disk was full, say.
    pub(super) fn is_troubled(&self) -> bool {
        self.troubled.load(Ordering::Relaxed)
    }

    /// Runs one unit of work and answers after it is durable. Waits for a place in the queue. The work may be
    /// undone and done again, for a neighbour's sake: so it is an `Fn`, which uses up nothing.
    /// `bytes` is about what the unit will write.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl Fn(&mut Unit<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (job, answer) = boxed(bytes, work);
        self.queue.send(Order::Work(job)).await.map_err(|_| StoreError::Closed)?;
        self.damage.note(answer.await.map_err(|_| StoreError::Closed)?.0)
    }

    /// As [`Writer::run`], but fails at once when the queue is full.
    pub(super) async fn run_or_refuse<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl Fn(&mut Unit<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (job, answer) = boxed(bytes, work);
        self.queue.try_send(Order::Work(job)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
        })?;
        self.damage.note(answer.await.map_err(|_| StoreError::Closed)?.0)
    }
}

fn boxed<T, W>(bytes: usize, work: W) -> (Box<dyn Job>, oneshot::Receiver<Answer<T, W>>)
where
    T: Send + 'static,
    W: Fn(&mut Unit<'_>) -> Result<T, StoreError> + Send + 'static,
{
    let (caller, answer) = oneshot::channel();
    (Box::new(Task { bytes, work, result: None, caller }), answer)
}
