//! The bytes of one connection on their way: what a network that loses, delays and forgets does to them.
//!
//! Within a connection nothing is lost for good and nothing overtakes: a lost packet is sent again, and what
//! is behind it waits. What applications see are pauses and bursts, ends, and silence.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, split};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::net::Net;
use super::trace::Dice;

/// A lost packet is sent again after this time, and after twice as long each time it is lost again.
const RESENT_AFTER: Duration = Duration::from_millis(200);
/// The longest that a request waits while others pass.
const HELD_UP: Duration = Duration::from_secs(4);

/// What is decided of a connection when it is made.
pub(crate) struct Fate {
    /// Whoever loses the other side never hears of it.
    half_open: bool,
    up: OneWay,
    down: OneWay,
}

/// What is decided of one direction.
struct OneWay {
    cut_after: Option<u64>,
    silent_after: Option<u64>,
    /// What is sent first waits so long.
    held_up: Duration,
    dice: Dice,
}

impl Fate {
    /// Rolled for one connection.
    pub(crate) fn roll(net: &Net, dice: &Dice) -> Self {
        let (mut up, mut down) = (OneWay::roll(net, dice), OneWay::roll(net, dice));
        if net.happens(dice, net.options.reorder) {
            up.held_up = dice.up_to(HELD_UP);
        }
        if net.happens(dice, net.options.drop_answer) {
            down.cut_after = Some(0);
        }
        Fate { half_open: net.happens(dice, net.options.half_open), up, down }
    }
}

impl OneWay {
    fn roll(net: &Net, dice: &Dice) -> Self {
        let after = |probability| net.happens(dice, probability).then(|| dice.between(0, 6000));
        let (cut_after, silent_after) = (after(net.options.cut), after(net.options.silent));
        let dice = Dice::new(net.seed, dice.between(0, u64::from(u32::MAX)));
        OneWay { cut_after, silent_after, held_up: Duration::ZERO, dice }
    }
}

/// Carries what both sides write until both are done, the connection breaks, or a host goes away.
pub(crate) async fn transport(
    net: &Net,
    (from, to): (&str, &str),
    (client, server): (DuplexStream, DuplexStream),
    Fate { half_open, up, down }: Fate,
    lives: (CancellationToken, CancellationToken),
) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (split(client), split(server));
    let there = pump(net, &mut from_client, &mut to_server, up, (from, to, half_open));
    let back = pump(net, &mut from_server, &mut to_client, down, (to, from, half_open));
    tokio::select! {
        biased;
        () = lives.0.cancelled() => {}
        () = lives.1.cancelled() => {}
        both = futures_util::future::try_join(there, back) => {
            if both.is_ok() {
                return;
            }
        }
    }
    if half_open {
        net.trace.say(format_args!("net {from}>{to} half-open"));
        std::future::pending::<()>().await;
    }
}

/// Moves bytes one way until it is closed (`Ok`) or the connection breaks.
async fn pump(
    net: &Net,
    from: &mut ReadHalf<DuplexStream>,
    to: &mut WriteHalf<DuplexStream>,
    fate: OneWay,
    (source, target, half_open): (&str, &str, bool),
) -> Result<(), ()> {
    let mut moved = 0_u64;
    let mut buffer = vec![0; fate.dice.between(64, 4096) as usize];
    loop {
        let read = from.read(&mut buffer).await.map_err(drop)?;
        sleep(fate.dice.up_to(net.options.delay)).await;
        if moved == 0 {
            sleep(fate.held_up).await;
        }
        let mut resent_after = RESENT_AFTER;
        while net.happens(&fate.dice, net.options.drop) {
            sleep(resent_after).await;
            resent_after *= 2;
        }
        net.joined(source, target).await;
        if read == 0 && half_open {
            net.trace.say(format_args!("net {source}>{target} closed unheard"));
            return std::future::pending().await;
        }
        if read == 0 {
            return to.shutdown().await.map_err(drop);
        }
        let end = moved + read as u64;
        if let Some(cut) = fate.cut_after.filter(|cut| *cut < end) {
            let kept = cut.saturating_sub(moved) as usize;
            net.trace.say(format_args!("net {source}>{target} cut at byte {cut}"));
            let _ = to.write_all(&buffer[..kept]).await;
            return Err(());
        }
        if fate.silent_after.is_some_and(|silent| silent < end) {
            net.trace.say(format_args!("net {source}>{target} silent"));
            return std::future::pending().await;
        }
        to.write_all(&buffer[..read]).await.map_err(drop)?;
        moved = end;
    }
}
