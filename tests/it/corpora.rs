//! What fuzzing found, again: every input of every corpus, and bytes around them, through the targets' checks.
//!
//! `fuzz/corpus/<target>/` holds one input a file; those named `found-…` failed once. The neighbours are the
//! same in each run.

use std::fs;
use std::path::Path;

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

#[path = "../../fuzz/targets/mod.rs"]
mod targets;

/// How many changed inputs follow each one of a corpus.
const NEIGHBOURS: usize = 24;
/// Each costs a connection there.
const NEIGHBOURS_OF_SERVER: usize = 2;

#[test]
fn every_input_that_was_ever_found_holds_and_so_do_its_neighbours() {
    for (name, check) in targets::ALL {
        let inputs = corpus(name);
        assert!(inputs.len() >= 8, "the corpus of `{name}` is gone");
        let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let neighbours = if name == "server" { NEIGHBOURS_OF_SERVER } else { NEIGHBOURS };
        for (file, input) in &inputs {
            holds(check, input, &format!("{name}/{file}"));
            for _ in 0..neighbours {
                let other = &inputs[below(&mut random, inputs.len())].1;
                let changed = change(input, other, &mut random);
                holds(check, &changed, &format!("a neighbour of {name}/{file}"));
            }
        }
    }
}

/// Runs a check, and says which input it was that did not hold.
fn holds(check: fn(&[u8]), input: &[u8], name: &str) {
    if let Err(panic) = std::panic::catch_unwind(|| check(input)) {
        eprintln!("{name}: {:?}", String::from_utf8_lossy(input));
        std::panic::resume_unwind(panic);
    }
}

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut inputs: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("an entry"))
        .map(|entry| {
            (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("an input"))
        })
        .collect();
    inputs.sort();
    inputs
}

fn below(random: &mut TestRng, end: usize) -> usize {
    random.next_u32() as usize % end.max(1)
}

/// A byte flipped, a part cut out or doubled, or the tail of another input.
fn change(input: &[u8], other: &[u8], random: &mut TestRng) -> Vec<u8> {
    let mut changed = input.to_vec();
    for _ in 0..=below(random, 3) {
        let from = below(random, changed.len());
        let to = (from + 1 + below(random, 8)).min(changed.len());
        match below(random, 5) {
            0 if !changed.is_empty() => changed[from] ^= 1 << below(random, 8),
            1 if !changed.is_empty() => changed[from] = random.next_u32() as u8,
            2 => drop(changed.drain(from..to)),
            3 => {
                let part = changed[from..to].to_vec();
                changed.splice(from..from, part);
            }
            _ => {
                changed.truncate(from);
                changed.extend_from_slice(&other[below(random, other.len())..]);
            }
        }
    }
    changed
}
