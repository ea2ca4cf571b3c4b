//! The simulator: gateways as they are, in one process, on virtual time, over a network and disks that fail.
//!
//! One seed is one history: `SIM_SEED=n SIM_VERBOSE=1 cargo test --test sim` tells it again. `SIM_SEEDS=n`
//! runs so many, from `SIM_FIRST=n` on, as the CI does with two thousand. Every seed that ever failed is in
//! `seeds.txt` and runs first.

#![expect(clippy::disallowed_methods, reason = "what is simulated around the gateways is no task of theirs")]

mod client;
mod home;
mod ledger;
mod nemesis;
mod net;
mod node;
mod operators;
mod options;
mod trace;
mod wire;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use options::Options;
use trace::lock;
use world::Story;

/// Seeds of one run of the tests.
const SEEDS: u64 = 100;
/// Seeds that do not hold, of one run, before it ends.
const MOST_SHOWN: u64 = 5;
/// A history takes half a second; one that takes longer than this never ends.
const LONGEST: Duration = Duration::from_secs(180);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Runs a seed; answers its story, or what it died of.
fn tell(seed: u64, verbose: bool) -> Result<Story, String> {
    let told = catch_unwind(AssertUnwindSafe(|| world::run(seed, verbose)));
    told.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
    })
}

/// Panics with everything one needs when a seed does not hold.
fn hold(seed: u64) {
    if let Some(found) = find_breaches(seed) {
        panic!("{found}");
    }
}

/// What one needs to know of a seed that does not hold.
fn find_breaches(seed: u64) -> Option<String> {
    let verbose = std::env::var_os("SIM_VERBOSE").is_some();
    let found = match tell(seed, verbose) {
        Ok(story) => {
            story.lines.iter().for_each(|line| eprintln!("{line}"));
            story.breaches
        }
        Err(panic) => vec![format!("panic: {panic}")],
    };
    let again = format!("SIM_SEED={seed} SIM_VERBOSE=1 cargo test --test sim");
    let options = Options::of(seed);
    (!found.is_empty()).then(|| format!("seed {seed} does not hold; {again}\n{options:#?}\n{found:#?}"))
}

/// Runs these seeds, some at the same time, until so many do not hold. Says so of each at once.
fn search(seeds: &[u64], most: u64) -> Vec<String> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let under_way: Vec<Mutex<Option<(u64, Instant)>>> = (0..threads).map(|_| Mutex::default()).collect();
    std::thread::scope(|scope| {
        let workers: Vec<_> = under_way
            .iter()
            .map(|mine| {
                let (next, found) = (&next, &found);
                scope.spawn(move || {
                    while (lock(found).len() as u64) < most
                        && let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        *lock(mine) = Some((*seed, Instant::now()));
                        let breaches = find_breaches(*seed);
                        breaches.iter().for_each(|breaches| eprintln!("{breaches}"));
                        lock(found).extend(breaches);
                    }
                    *lock(mine) = None;
                })
            })
            .collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            for (seed, begun) in under_way.iter().filter_map(|one| *lock(one)) {
                if begun.elapsed() > LONGEST {
                    eprintln!(
                        "seed {seed} does not end; SIM_SEED={seed} SIM_VERBOSE=1 cargo test --test sim"
                    );
                    std::process::exit(1); // a thread that spins cannot be stopped
                }
            }
            std::thread::sleep(Duration::from_millis(50)); // why: virtual time does not pass for who watches it
        }
    });
    found.into_inner().unwrap_or_default()
}

fn known_seeds() -> impl Iterator<Item = u64> {
    include_str!("seeds.txt").lines().filter_map(|line| line.split_whitespace().next()?.parse().ok())
}

#[test]
fn every_seed_holds() {
    if let Some(seed) = number("SIM_SEED") {
        return hold(seed);
    }
    let first = number("SIM_FIRST").unwrap_or(1);
    let seeds = known_seeds().chain(first..first + number("SIM_SEEDS").unwrap_or(SEEDS));
    let found = search(&seeds.collect::<Vec<_>>(), number("SIM_MOST").unwrap_or(MOST_SHOWN));
    assert!(found.is_empty(), "{}", found.join("\n\n"));
}

#[test]
fn one_seed_has_one_history() {
    for seed in 1..=10 {
        let (first, second) = (tell(seed, true), tell(seed, true));
        let (first, second) = (first.expect("a story"), second.expect("the same story"));
        if first.hash != second.hash {
            let at = first.lines.iter().zip(&second.lines).position(|(left, right)| left != right);
            let at = at.unwrap_or(first.lines.len().min(second.lines.len()));
            let (left, right) = (first.lines.get(at), second.lines.get(at));
            panic!("seed {seed} has two histories, from line {at}:\n{left:?}\n{right:?}");
        }
    }
}
