//! A bounded number of seeds with every build, the corpus first; determinism; and the power of the
//! simulation: planted bugs that must be found. `docs/testing.md` has the long runs.

use sim::planted::Bug;
use sim::runner::{Range, run, run_all};
use sim::trace::Words;

/// Seeds that once failed; they run first.
const CORPUS: &str = include_str!("../corpus");

fn corpus() -> impl Iterator<Item = u64> {
    let lines = CORPUS.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_whitespace().next()?.parse().ok())
}

#[test]
fn seeds_that_once_failed_hold() {
    for seed in corpus() {
        let outcome = run(seed, None, Words::None);
        assert_eq!(outcome.violation, None, "seed {seed}");
    }
}

#[test]
fn whatever_breaks_the_replica_is_a_state_of_the_source_and_becomes_it_at_last() {
    let range = Range {
        start: 1,
        count: 60,
        time: None,
    };
    let totals = run_all(range, None, true, |_| {});
    assert_eq!(
        totals.violations,
        [],
        "replay with `cargo run -p sim -- --replay SEED`"
    );
    assert_eq!(totals.seeds, 60);
    assert!(totals.faults > 5_000, "{} faults", totals.faults);
}

#[test]
fn a_seed_is_one_run_event_for_event() {
    for seed in [3, 19, 33] {
        let (first, again) = (run(seed, None, Words::None), run(seed, None, Words::Kept));
        assert_eq!(
            (first.hash, first.checks),
            (again.hash, again.checks),
            "seed {seed}"
        );
        assert_ne!(first.hash, run(seed + 1, None, Words::None).hash);
    }
}

#[test]
fn bugs_that_are_easily_made_are_found_within_some_seeds() {
    for bug in [
        Bug::JournalSyncSkipped,
        Bug::OverlapCheckOff,
        Bug::ZeroLeftOut,
        Bug::CopyEndsEarly,
        Bug::FoldLosesRange,
        Bug::FlushNotPassedOn,
    ] {
        let range = Range {
            start: 1,
            count: 40,
            time: None,
        };
        let totals = run_all(range, Some(bug), true, |_| {});
        assert!(!totals.violations.is_empty(), "{bug:?} is not found");
    }
}
