//! The table against a naive model, in one thread, and against an exclusive owner per block, in
//! many. The same checks must fail on a table that is deliberately wrong.

use super::table::Fault;
use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Collects who was told.
#[derive(Default)]
struct Told(Mutex<BTreeSet<u64>>);

impl Wake for Told {
    fn granted(&self, token: u64) {
        assert!(self.0.lock().unwrap().insert(token), "told once");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Admit(Range),
    /// Release the n-th (modulo) of those who hold.
    Release(usize),
}

/// The rule in its plainest words: you hold if nobody before you overlaps.
#[derive(Default)]
struct Model(Vec<(u64, Range)>);

impl Model {
    fn holders(&self) -> BTreeSet<u64> {
        let free = |place: usize| {
            let range = self.0[place].1;
            self.0[..place]
                .iter()
                .all(|(_, earlier)| !earlier.overlaps(range))
        };
        (0..self.0.len())
            .filter(|&place| free(place))
            .map(|place| self.0[place].0)
            .collect()
    }
}

/// Runs `steps` on table and model; the first difference is the error.
fn compare(table: &RangeTable, steps: &[Step]) -> Result<(), String> {
    let told = Arc::new(Told::default());
    let wake: Arc<dyn Wake> = Arc::clone(&told) as Arc<dyn Wake>;
    let (mut model, mut holds, mut at_once) = (Model::default(), Vec::new(), BTreeSet::new());
    for (token, step) in (0..).zip(steps) {
        match step {
            Step::Admit(range) => {
                model.0.push((token, *range));
                let hold = match table.admit(*range, &wake, token) {
                    Admission::Held(hold) => {
                        at_once.insert(token);
                        hold
                    }
                    Admission::Waiting(hold) => hold,
                };
                holds.push((token, hold));
            }
            Step::Release(nth) => {
                let holders = Vec::from_iter(model.holders());
                let Some(&token) = holders.get(nth % holders.len().max(1)) else {
                    continue;
                };
                model.0.retain(|(other, _)| *other != token);
                let place = holds.iter().position(|(other, _)| *other == token).unwrap();
                table.release(holds.swap_remove(place).1);
            }
        }
        let live = |token: &u64| holds.iter().any(|(other, _)| other == token);
        let told = told.0.lock().unwrap();
        let ours = at_once
            .union(&told)
            .copied()
            .filter(live)
            .collect::<BTreeSet<_>>();
        if ours != model.holders() {
            return Err(format!(
                "at step {token}: {ours:?} hold, {:?} should",
                model.holders()
            ));
        }
    }
    Ok(())
}

fn any_step() -> impl Strategy<Value = Step> {
    let small = (0_u64..24, 1_u64..6).prop_map(|(at, n)| Range::of_length(at * 4096, n * 4096));
    let chunks = (0_u64..140, 1_u64..130).prop_map(|(at, n)| {
        Range::of_length((at << 20) + 512, (n << 20) - 512) // unaligned, over one to all shards
    });
    let edge = (1_u64..6).prop_map(|at| Range::new((at << 20) - 4096, (at << 20) + 4096));
    prop_oneof![
        4 => small.prop_map(Step::Admit),
        2 => chunks.prop_map(Step::Admit),
        2 => edge.prop_map(Step::Admit),
        6 => (0_usize..64).prop_map(Step::Release),
    ]
}

proptest! {
    #[test]
    fn whoever_overlaps_nobody_before_him_holds_and_nobody_else(steps in vec(any_step(), 1..120)) {
        prop_assert_eq!(compare(&RangeTable::new(), &steps), Ok(()));
    }
}

#[test]
fn the_comparison_notices_a_table_that_lets_writes_overtake_or_misses_a_chunk() {
    let range = |start: u64, end: u64| Step::Admit(Range::new(start << 20, end << 20));
    let steps = [
        range(0, 2),
        range(1, 3),
        range(2, 4),
        Step::Release(0),
        Step::Release(0),
    ];
    for fault in [Fault::ForgetsWaiters, Fault::SeesFirstChunkOnly] {
        let mut table = RangeTable::new();
        table.fault = fault;
        assert!(compare(&table, &steps).is_err(), "{fault:?} went unnoticed");
    }
    assert_eq!(compare(&RangeTable::new(), &steps), Ok(()));
}

/// Threads that admit, own their blocks for a moment and release; counts blocks with two owners.
fn collisions(table: &RangeTable, rounds: u64) -> usize {
    const BLOCKS: u64 = 48; // of half a chunk: ranges cross chunks and share shards
    let owners = Vec::from_iter((0..BLOCKS).map(|_| AtomicU64::new(0)));
    let found = AtomicUsize::new(0);
    let work = |thread: u64| {
        let mut state = thread.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for round in 0..rounds {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let first = state % BLOCKS;
            let last = (first + 1 + (state >> 32) % 5).min(BLOCKS);
            let me = thread * rounds + round + 1;
            let held = table.admit_blocking(Range::new(first << 19, last << 19));
            let mine = &owners[first as usize..last as usize];
            let taken = mine
                .iter()
                .filter(|owner| owner.swap(me, Ordering::Relaxed) != 0)
                .count();
            std::thread::yield_now();
            let kept = mine
                .iter()
                .filter(|owner| owner.swap(0, Ordering::Relaxed) == me)
                .count();
            found.fetch_add(taken + (mine.len() - kept), Ordering::Relaxed);
            drop(held);
        }
    };
    std::thread::scope(|scope| {
        for thread in 1..=6 {
            let work = &work;
            scope.spawn(move || work(thread));
        }
    });
    found.into_inner()
}

#[test]
fn six_threads_never_own_a_block_together_and_all_come_to_an_end() {
    let table = RangeTable::new();
    assert_eq!(collisions(&table, 4000), 0);
    assert!(table.is_idle());
}

#[test]
fn the_stress_notices_a_table_that_misses_a_chunk() {
    let mut table = RangeTable::new();
    table.fault = Fault::SeesFirstChunkOnly;
    let found = (0..20).any(|_| collisions(&table, 2000) > 0);
    assert!(found, "a broken table must be noticed");
}

#[test]
fn a_large_range_waits_its_turn_while_small_ones_keep_coming() {
    let table = RangeTable::new();
    let told = Arc::new(Told::default());
    let wake: Arc<dyn Wake> = Arc::clone(&told) as Arc<dyn Wake>;
    let Admission::Held(first) = table.admit(Range::new(0, 4096), &wake, 0) else {
        panic!()
    };
    let Admission::Waiting(large) = table.admit(Range::new(0, 128 << 20), &wake, 1) else {
        panic!()
    };
    let Admission::Waiting(small) = table.admit(Range::new(0, 4096), &wake, 2) else {
        panic!()
    };
    table.release(first);
    assert_eq!(
        Vec::from_iter(told.0.lock().unwrap().iter().copied()),
        [1],
        "the large one is next"
    );
    table.release(large);
    assert!(told.0.lock().unwrap().contains(&2));
    table.release(small);
    assert!(table.is_idle());
}
