//! The clients of a cluster: they come, create or push, read what comes of it to its end, and go.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::audience::Reader;
use crate::cluster::Cluster;
use crate::history::History;
use crate::workload::Client;

/// Clients that create at a time.
const CREATORS: usize = 6;
/// Steps of one pushed run.
const STEPS: usize = 40;

/// How long a crowd works, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shift {
    /// Nothing new is begun after this.
    pub(crate) work: Instant,
    /// Everything must have come to its end by then.
    pub(crate) over: Instant,
    /// A creator's pause between two runs; a pusher's between two events is a tenth of it.
    pub(crate) pause: Duration,
}

/// Everybody; each answers whether all it asked for was answered, and all it read came to an end.
pub(crate) fn gather(cluster: &Cluster, shift: Shift) -> JoinSet<bool> {
    let mut crowd = JoinSet::new();
    for number in 0..CREATORS {
        crowd.spawn(create_and_read(Place::of(cluster, 0), number, shift));
    }
    for at in 0..cluster.gateways.len() {
        crowd.spawn(push_and_read(Place::of(cluster, at), shift));
    }
    crowd
}

/// Waits until everybody has gone; answers whether all went well.
pub(crate) async fn disperse(mut crowd: JoinSet<bool>) -> bool {
    let mut all = true;
    while let Some(one) = crowd.join_next().await {
        all &= one.expect("a client");
    }
    all
}

/// A gateway as its clients know it.
struct Place {
    client: Client,
    history: History,
    name: String,
    address: SocketAddr,
}

impl Place {
    fn of(cluster: &Cluster, at: usize) -> Self {
        let process = &cluster.gateways[at];
        Place {
            client: cluster.client(at),
            history: cluster.history.clone(),
            name: process.name.clone(),
            address: process.address,
        }
    }

    fn reader(&self, run: &str) -> Reader {
        Reader::new(&self.history, (&self.name, self.address), run)
    }
}

/// Creates runs one after the other, some of which are cancelled, and reads each to its end; then asks for all
/// of them again.
async fn create_and_read(place: Place, number: usize, shift: Shift) -> bool {
    let (mut readers, mut keys, mut all) = (JoinSet::new(), Vec::new(), true);
    for nth in 0.. {
        if Instant::now() >= shift.work {
            break;
        }
        let (key, target) = (format!("key_{number}_{nth}"), if nth % 2 == 0 { "stk_b" } else { "orc_a" });
        let run = place.client.create(target, &key, shift.over).await;
        keys.push((target, key));
        let Some(run) = run else {
            all = false;
            continue;
        };
        if nth % 5 == 4 {
            place.client.cancel(&run).await;
        }
        readers.spawn(place.reader(&run).read_until(shift.over));
        tokio::time::sleep(shift.pause).await; // why: a client's own pace
    }
    for (target, key) in keys {
        all &= place.client.create(target, &key, shift.over).await.is_some();
    }
    all & disperse(readers).await
}

/// Pushes run after run, each read by two.
async fn push_and_read(place: Place, shift: Shift) -> bool {
    let (mut readers, mut all) = (JoinSet::new(), true);
    for nth in 0.. {
        if Instant::now() >= shift.work {
            break;
        }
        let run = format!("run_pushed_{}_{nth}", place.name);
        for _ in 0..2 {
            readers.spawn(place.reader(&run).read_until(shift.over));
        }
        all &= place.client.push_run(&run, STEPS, shift.pause / 10, shift.over).await;
    }
    all & disperse(readers).await
}
