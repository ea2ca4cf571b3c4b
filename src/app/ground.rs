//! What a gateway stands on: time, chance, tasks, disk and network, the machine's own or simulated ones.

use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::http::Ports;
use crate::outbound::Network;
use crate::store::Disk;
use crate::tasks::Tasks;

/// Everything a gateway does not make itself.
#[derive(Clone)]
pub struct Ground {
    /// Time.
    pub clock: Clock,
    /// Chance.
    pub entropy: Entropy,
    /// What everything it spawns belongs to.
    pub tasks: Tasks,
    /// Below its store.
    pub disk: Disk,
    /// How its requests leave.
    pub network: Network,
    /// Where requests come from; simulated ports have no control socket beside them.
    pub ports: Ports,
}

impl Ground {
    /// The machine, with this clock and source of chance.
    pub fn system(clock: Clock, entropy: Entropy) -> Self {
        Ground {
            clock,
            entropy,
            tasks: Tasks::default(),
            disk: Disk::system(),
            network: Network::System,
            ports: Ports::System,
        }
    }
}
