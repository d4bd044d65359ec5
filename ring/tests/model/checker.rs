//! One way to run a scenario under either checker.
//!
//! loom goes through every schedule with a bounded number of preemptions, and through older values
//! that a load may still see; shuttle draws schedules at random, and in turn with a bounded depth.
//! `RING_SCHEDULES` says how many shuttle draws. A failure names its schedule, or its seed.

#[cfg(ring_loom)]
pub(crate) use loom::thread;
#[cfg(ring_shuttle)]
pub(crate) use shuttle::thread;

/// Schedules shuttle draws unless told otherwise.
#[cfg(ring_shuttle)]
const SCHEDULES: usize = 2_000;
/// Depth of the bugs the second half of them is drawn for: this many switches at the right places.
#[cfg(ring_shuttle)]
const DEPTH: usize = 3;
/// Most preemptions of one schedule under loom; bugs of such protocols need two, seldom three.
#[cfg(ring_loom)]
const PREEMPTIONS: usize = 3;

/// Runs `scenario` under many schedules.
#[cfg(ring_shuttle)]
pub(crate) fn check(scenario: impl Fn() + Send + Sync + Clone + 'static) {
    let wanted = std::env::var("RING_SCHEDULES").ok();
    let schedules = wanted
        .and_then(|text| text.parse().ok())
        .unwrap_or(SCHEDULES);
    shuttle::check_random(scenario.clone(), schedules.div_ceil(2));
    shuttle::check_pct(scenario, schedules / 2 + 1, DEPTH);
}

/// Runs `scenario` under all schedules within the bound.
#[cfg(ring_loom)]
pub(crate) fn check(scenario: impl Fn() + Send + Sync + Clone + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.or(Some(PREEMPTIONS));
    model.max_branches = 100_000;
    model.check(scenario);
}
