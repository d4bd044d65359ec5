//! Twenty kills of real daemons under load, with every build; and that a run finds what is wrong.
//! `docs/testing.md` has the long runs.

use chaos::plan::{Order, Plant};
use chaos::run::{Outcome, run};
use std::path::Path;
use std::time::Duration;

/// Runs a seed; none, said in words, where no tap can run.
fn played(order: Order) -> Option<Outcome> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can run a tap");
        return None;
    }
    println!("{order:?}");
    let outcome = run(order, Path::new("/dev/shm"), true).expect("it can be set up");
    println!("{outcome}");
    Some(outcome)
}

#[test]
fn whatever_is_killed_every_point_is_a_moment_of_the_source_and_the_newest_becomes_it() {
    let order = Order {
        seed: 1,
        kills: 20,
        time: Duration::from_secs(35),
        plant: None,
    };
    let Some(outcome) = played(order) else { return };
    assert_eq!(outcome.violations, Vec::<String>::new(), "{order:?}");
    assert!(outcome.kills >= 20, "{outcome}");
    assert!(outcome.counts.checks >= 3, "{outcome}");
    assert!(outcome.counts.barriers > 0, "{outcome}");
    assert!(outcome.counts.mutants > 0, "the oracle was not put to test");
}

/// Runs with a planted fault; fails unless some violation has one of these words.
fn is_found(plant: Plant, words: &[&str]) {
    let order = Order {
        seed: 1,
        kills: 0,
        time: Duration::from_secs(6),
        plant: Some(plant),
    };
    let Some(outcome) = played(order) else { return };
    let mut violations = outcome.violations.iter();
    let is_named = violations.any(|violation| words.iter().any(|words| violation.contains(words)));
    assert!(is_named, "{words:?} is not among {:?}", outcome.violations);
}

#[test]
fn a_target_that_was_changed_behind_the_receiver_is_found() {
    is_found(Plant::Target, &["P4: no moment"]);
}

#[test]
fn a_disk_that_was_changed_behind_the_tap_is_found() {
    is_found(Plant::Disk, &["P1: 0/", "P4: "]);
}

#[test]
fn a_receiver_put_back_from_an_old_copy_is_found() {
    is_found(Plant::Rollback, &["P4: no moment"]);
}
