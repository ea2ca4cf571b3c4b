//! Chaos: crashes, restarts, partitions, clocks that jump, and operators at work, each at its own pace.

use std::sync::Arc;
use std::time::Duration;

use causeway::clock::millis;
use tokio::time::sleep;

use super::node;
use super::trace::Dice;
use super::world::World;

/// The next time.
async fn every(period: Option<Duration>, dice: &Dice) {
    match period {
        Some(period) => sleep(period.mul_f64(0.5) + dice.up_to(period)).await,
        None => std::future::pending().await,
    }
}

/// Things go wrong for as long as this is polled.
pub(crate) async fn chaos(world: &World, seed: u64) {
    let World { options, net, nodes, homes, operators, .. } = world;
    let dice = Dice::new(seed, 3);
    let hosts: Vec<String> = nodes.iter().map(|node| node.host.clone()).collect();
    let all: Vec<String> = hosts.iter().cloned().chain(homes.iter().map(|home| home.name.clone())).collect();
    let crashes = async {
        loop {
            every(options.crash_every, &dice).await;
            dice.pick(nodes).crash();
        }
    };
    let restarts = async {
        loop {
            every(options.restart_every, &dice).await;
            // Time may be up before the gateway is back.
            let node = Arc::clone(dice.pick(nodes));
            let _ = tokio::spawn(async move { node.restart().await }).await;
        }
    };
    let partitions = async {
        loop {
            every(options.partition_every, &dice).await;
            let (left, right) = (dice.pick(&hosts), dice.pick(&all));
            net.trace.say(format_args!("{left} and {right} are parted"));
            net.part(left, right, true);
            sleep(dice.up_to(Duration::from_secs(5))).await;
            net.part(left, right, false);
        }
    };
    let jumps = async {
        loop {
            every(options.jump_every, &dice).await;
            let node = dice.pick(nodes);
            // To another place around the true time: what is promised of signatures ends at a minute between two.
            let by =
                node::some_time(&dice, options.skew) + millis(node.clock.monotonic()) - node.clock.now_ms();
            net.trace.say(format_args!("the clock of {} jumps by {by} ms", node.host));
            node.clock.jump(by);
        }
    };
    let drains = async {
        let dice = Dice::new(seed, 4);
        loop {
            every(options.drain_every, &dice).await;
            operators.drain(dice.pick(nodes), &dice).await;
        }
    };
    let revocations = async {
        let dice = Dice::new(seed, 5);
        loop {
            every(options.revoke_every, &dice).await;
            operators.revoke(&dice).await;
        }
    };
    tokio::join!(biased; crashes, restarts, partitions, jumps, drains, revocations);
}
