//! Every target over its corpus in the repository, and over bytes drawn at random.

use fuzz::TARGETS;
use std::fs;
use std::io;
use std::path::PathBuf;

/// Inputs drawn for each target.
const DRAWN: u64 = 300;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let read = || -> io::Result<Vec<Vec<u8>>> {
        let entries = fs::read_dir(&dir)?;
        entries.map(|entry| fs::read(entry?.path())).collect()
    };
    read().unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
}

/// Small numbers that follow from a seed.
fn draw(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1);
    *state >> 33
}

#[test]
fn no_input_of_the_corpus_breaks_a_target() {
    for (name, target) in TARGETS {
        let inputs = corpus(name);
        assert!(!inputs.is_empty(), "{name} has no corpus");
        inputs.iter().for_each(|input| target(input));
    }
}

#[test]
fn no_input_of_the_corpus_with_bytes_changed_breaks_a_target() {
    for (name, target) in TARGETS {
        let inputs = corpus(name);
        for seed in 0..DRAWN {
            let mut state = seed;
            let mut input = inputs[draw(&mut state) as usize % inputs.len()].clone();
            for _ in 0..1 + draw(&mut state) % 4 {
                match draw(&mut state) % 3 {
                    0 => input.push(draw(&mut state) as u8),
                    1 => input.truncate(draw(&mut state) as usize % (input.len() + 1)),
                    _ if input.is_empty() => {}
                    _ => {
                        let at = draw(&mut state) as usize % input.len();
                        input[at] = draw(&mut state) as u8;
                    }
                }
            }
            println!("{name} seed {seed}");
            target(&input);
        }
    }
}

#[test]
fn a_journal_damaged_anywhere_gives_only_what_was_written() {
    for seed in 0..2_000 {
        let mut state = seed;
        let bytes = 9 * (1 + draw(&mut state) as usize % 4);
        let edits: Vec<u8> = (0..bytes).map(|_| draw(&mut state) as u8).collect();
        println!("seed {seed}");
        fuzz::recovery(&edits);
    }
}
