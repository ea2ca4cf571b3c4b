//! The reconciler: takes up every forward that is not at rest, over restarts, until its home answers or
//! nothing protects a repeated key any more.

use std::time::Duration;

use tokio::time::Instant;

use super::drive::Driver;
use crate::clock::Clock;
use crate::store::{Store, StoreError};
use crate::tasks::Tasks;

/// Forwards taken up in one look.
const PAGE: u32 = 64;
/// The longest sleep between two looks: a clock that jumps costs no more than this.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// The shortest: a forward that cannot be taken up yet does not spin.
const SHORTEST_SLEEP: Duration = Duration::from_millis(100);

/// Takes up what the last life of this gateway left, then goes on.
pub async fn start(store: &Store, driver: &Driver, clock: &Clock, tasks: &Tasks) -> Result<(), StoreError> {
    store.wake_all_forwards().await?;
    let (store, driver, clock) = (store.clone(), driver.clone(), clock.clone());
    let stopping = tasks.stopping().clone();
    tasks.spawn(async move {
        let mut redate_at = Instant::now();
        while !stopping.is_cancelled() {
            let pause = match look(&store, &driver, &clock, &mut redate_at).await {
                Ok(pause) => pause,
                Err(StoreError::Closed | StoreError::Fatal(_)) => return,
                Err(error) => {
                    tracing::warn!(error = %error, "the reconciler cannot read the forwards; it tries again");
                    LONGEST_SLEEP
                }
            };
            tokio::select! {
                biased;
                () = tokio::time::sleep(pause) => {}
                () = driver.rung() => {}
                () = stopping.cancelled() => {}
            }
        }
    });
    Ok(())
}

/// Takes up what is due and answers how long to sleep.
async fn look(
    store: &Store,
    driver: &Driver,
    clock: &Clock,
    redate_at: &mut Instant,
) -> Result<Duration, StoreError> {
    if Instant::now() >= *redate_at {
        *redate_at = Instant::now() + LONGEST_SLEEP;
        let redated = store.redate_forwards().await?;
        if redated > 0 {
            tracing::warn!(forwards = redated, "the clock went back: what it had put off is due in its time");
        }
    }
    for record in store.due_forwards(PAGE).await? {
        driver.take_up(record);
    }
    let next = store.next_due_ms().await?;
    let pause = next.map_or(LONGEST_SLEEP, |next| {
        Duration::from_millis(u64::try_from(next - clock.now_ms()).unwrap_or(0))
    });
    Ok(pause.clamp(SHORTEST_SLEEP, LONGEST_SLEEP))
}
