//! Runner: many seeds on all CPUs, one thread each; a panic of a product is a violation.

use crate::planted::{Bug, plant};
use crate::probes::Reached;
use crate::trace::Words;
use crate::world::{Outcome, World};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Which seeds.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// The first.
    pub start: u64,
    /// How many, at most.
    pub count: u64,
    /// No new one is begun after this time.
    pub time: Option<Duration>,
}

/// What came of many runs.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Runs made.
    pub seeds: u64,
    /// Faults made.
    pub faults: u64,
    /// Checks made.
    pub checks: u64,
    /// Writes of the applications.
    pub writes: u64,
    /// Virtual time.
    pub time_ns: u64,
    /// Seeds with a violation, and what it was.
    pub violations: Vec<(u64, String)>,
    /// States reached.
    pub reached: Reached,
}

/// Runs one seed, with a bug planted or none.
pub fn run(seed: u64, bug: Option<Bug>, words: Words) -> Outcome {
    plant(bug);
    let ran = catch_unwind(AssertUnwindSafe(|| World::new(seed, words).run()));
    plant(None);
    ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()));
        Outcome {
            violation: Some(format!("a panic: {}", text.unwrap_or_default())),
            hash: 0,
            trace: Vec::new(),
            faults: 0,
            checks: 0,
            writes: 0,
            time_ns: 0,
            reached: Reached::default(),
        }
    })
}

/// Runs a range; `tell` hears of every run as it ends. Ends at the first violation if told so.
pub fn run_all(
    range: Range,
    bug: Option<Bug>,
    stops: bool,
    tell: impl Fn(&Totals) + Sync,
) -> Totals {
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    let totals = Mutex::new(Totals::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    let is_late = range.time.is_some_and(|time| begun.elapsed() >= time);
                    if nth >= range.count || is_late || is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let seed = range.start + nth;
                    let outcome = run(seed, bug, Words::None);
                    let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                    totals.add(seed, outcome);
                    is_over.fetch_or(stops && !totals.violations.is_empty(), Ordering::Relaxed);
                    tell(&totals);
                }
            });
        }
    });
    totals.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl Totals {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.faults += outcome.faults;
        self.checks += outcome.checks;
        self.writes += outcome.writes;
        self.time_ns += outcome.time_ns;
        self.reached.add(&outcome.reached);
        if let Some(words) = outcome.violation {
            self.violations.push((seed, words));
        }
    }
}

/// A panic of a product is caught and told with its seed: what the hook would print is noise.
pub fn silence_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}
