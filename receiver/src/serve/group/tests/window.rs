//! The window: every retained point can be had at any instant, and only what has left it goes.

use super::site::{BLOCKS, FOLD_STEP_BYTES, SEGMENT_RECORDS, Site, name};
use super::{Faults, World};
use crate::catalog::PointRecord;
use crate::control::At;
use crate::serve::group::{Event, Job, Output};
use std::time::Duration;
use wire::{Stamp, TimeMark};

/// Between two records, by the source's clock.
const RECORD_NS: u64 = 10;

fn quiet(seed: u64) -> World {
    let faults = Faults {
        journal_loss: false,
        damage: false,
    };
    World::new(seed, faults)
}

/// A world whose receiver keeps the points of so many records.
pub(super) fn windowed(seed: u64, records: u64) -> World {
    let mut world = quiet(seed);
    let mut kept = world.site.kept.clone();
    kept.retain = Duration::from_nanos(records * RECORD_NS);
    world.site = Site::begin(kept);
    world
}

/// Both volumes are in, nothing is retained but the newest point.
fn begun(records: u64) -> World {
    let mut world = windowed(7, records);
    world.dial();
    world.copy_all();
    world
}

impl World {
    fn oldest(&self) -> PointRecord {
        self.site.group.find_point(At::Oldest).unwrap()
    }

    fn newest(&self) -> PointRecord {
        self.site.group.find_point(At::Newest).unwrap()
    }

    /// Writes that arrive, settle and become durable.
    fn write_on(&mut self, count: usize) {
        for at in 0..count {
            self.source.write(0, at % BLOCKS, false);
            self.flow();
        }
    }

    /// What was captured arrives, settles and becomes durable; perhaps a step is made.
    fn hurry(&mut self) {
        self.connect();
        self.site.commit(usize::MAX);
        self.exchange();
        let (volume, block) = (self.dice.volume(), self.dice.block());
        self.source.write(volume, block, false);
        self.source.settle(16);
        self.source.send(16);
        while !self.source.batches.is_empty() || !self.source.marks.is_empty() {
            self.deliver();
        }
        self.site.commit(usize::MAX);
        self.site.work();
        self.exchange();
    }

    /// Every retained point is the truth, now and after a restart in this instant.
    fn check_window(&self, at: &str) {
        let runs = check_runs(self, &self.site, at);
        let restarted = Site::begin(self.site.kept.clone());
        let again = check_runs(self, &restarted, &format!("{at}, restarted"));
        let last = |runs: &[(PointRecord, PointRecord)]| runs.last().map(|(_, last)| *last);
        let lossless = !self.faults.journal_loss && !self.faults.damage;
        if self.site.job.is_none() && !self.removed && lossless {
            assert_eq!(
                last(&runs),
                last(&again),
                "{at}: the newest after a restart"
            );
        }
    }
}

fn check_runs(world: &World, site: &Site, at: &str) -> Vec<(PointRecord, PointRecord)> {
    let runs: Vec<_> = site
        .group
        .runs()
        .iter()
        .map(|run| (run.first, run.last))
        .collect();
    let mut before: Option<PointRecord> = None;
    for (first, last) in &runs {
        assert!(
            before.is_none_or(|before| before.mark <= first.mark),
            "{at}: in order"
        );
        before = Some(*last);
        for stamp in first.stamp.0..=last.stamp.0 {
            let point = match stamp {
                stamp if stamp == first.stamp.0 => *first,
                _ => PointRecord {
                    stamp: Stamp(stamp),
                    ..*first
                },
            };
            world.check_point(site, point, at);
        }
    }
    if before.is_some() && !world.removed {
        assert_eq!(
            before,
            site.group.points.point(),
            "{at}: the last is the newest"
        );
    }
    runs
}

#[test]
fn every_retained_point_can_be_had_at_any_instant_and_only_what_left_the_window_goes() {
    let faults = Faults {
        journal_loss: false,
        damage: false,
    };
    let longest = run_windows(1..300, faults);
    assert!(longest > 25, "no run retained more than {longest} points");
}

#[test]
fn what_a_journal_that_lost_its_end_or_a_record_still_retains_is_the_truth() {
    for damage in [false, true] {
        let faults = Faults {
            journal_loss: true,
            damage,
        };
        run_windows(1..150, faults);
    }
}

/// Random runs; the most points that were retained at once.
fn run_windows(seeds: std::ops::Range<u64>, faults: Faults) -> u64 {
    let mut longest = 0;
    for seed in seeds {
        let mut world = windowed(seed, 5 + seed % 60);
        world.faults = faults;
        for step in 0..300 {
            world.step();
            if world.dice.roll(3) == 0 {
                world.hurry();
            }
            if world.dice.roll(40) == 0 {
                let newest = 1 + world.site.kept.payloads.len() as u64 / SEGMENT_RECORDS;
                let pressed = (world.dice.roll(6) == 0).then(|| world.dice.roll(newest + 1));
                world.site.tell(Event::JournalPressed(pressed));
            }
            if step % 10 == 0 {
                world.check_window(&format!("seed {seed} step {step}"));
                let runs = world.site.group.retained();
                longest = longest.max(runs.iter().map(|run| run.points).sum());
            }
        }
        world.site.tell(Event::JournalPressed(None));
        world.release();
        world.check_window(&format!("seed {seed} at the end"));
    }
    longest
}

#[test]
fn the_base_trails_and_moves_when_a_fold_step_has_left_the_window() {
    let mut world = begun(20);
    let begin = world.oldest();
    world.write_on(20);
    assert_eq!(world.oldest(), begin, "nothing has left yet");
    assert_eq!(world.newest().stamp, world.source.captured());
    assert_eq!(world.newest().stamp.0 - begin.stamp.0, 20);
    world.write_on(2);
    assert_eq!(world.oldest(), begin, "too little has left for a step");
    let steps = FOLD_STEP_BYTES / 4096 + 2;
    world.write_on(steps as usize);
    let oldest = world.oldest();
    assert!(oldest.stamp > begin.stamp, "{oldest:?}");
    let cutoff = world.newest().mark.0 - 20 * RECORD_NS;
    assert!(oldest.mark.0 <= cutoff, "{oldest:?} is inside the window");
    world.check_window("after a step");
}

#[test]
fn a_clean_stop_leaves_the_window_as_it_is_and_the_base_at_its_oldest_point() {
    let mut world = begun(50);
    world.write_on(30);
    let (oldest, newest) = (world.oldest(), world.newest());
    world.site.tell(Event::Stop);
    world.rest();
    assert!(world.site.other.contains(&Output::Stopped));
    world.restart();
    assert_eq!((world.oldest(), world.newest()), (oldest, newest));
    let truth = world.source.history[&oldest.incarnation.counter][oldest.stamp.0 as usize];
    assert_eq!(world.site.kept.base, truth, "the targets hold a point");
}

#[test]
fn the_window_spans_incarnations_and_a_recopy() {
    let mut world = begun(500);
    world.write_on(10);
    world.source.crash(Some((0, 1)));
    world.dial();
    world.copy_all();
    world.write_on(10);
    world.source.restart_cleanly();
    world.flow();
    world.source.crash(None);
    world.dial();
    world.write_on(10);
    let runs = world.site.group.runs();
    let incarnations: Vec<u64> = runs
        .iter()
        .map(|run| run.first.incarnation.counter)
        .collect();
    assert_eq!(incarnations, [1, 2, 3], "{runs:?}");
    world.check_window("over three incarnations");
    world.restart();
    assert_eq!(world.site.group.runs(), runs);
}

#[test]
fn where_nothing_is_retained_the_base_follows_the_newest_point() {
    let mut world = quiet(7);
    world.dial();
    world.copy_all();
    world.write_on(5);
    assert_eq!(world.oldest(), world.newest());
    assert_eq!(world.site.kept.base, world.source.truth);
}

#[test]
fn a_journal_that_runs_out_of_room_shrinks_the_window_in_words_but_not_the_newest_point() {
    let mut world = begun(1000);
    world.write_on(40);
    let (oldest, newest) = (world.oldest(), world.newest());
    let middle = world
        .site
        .kept
        .payloads
        .keys()
        .rev()
        .nth(20)
        .unwrap()
        .segment;
    world.site.tell(Event::JournalPressed(Some(middle)));
    world.rest();
    let now = world.oldest().stamp;
    assert!(now > oldest.stamp && now < newest.stamp, "{now}");
    let lies_on = |segment: &u64| *segment <= middle;
    let held = world.site.kept.journal.iter();
    let held = held.filter_map(|(_, entry)| match entry {
        crate::journal::Durable::Record { at, .. } => Some(at.segment),
        _ => None,
    });
    assert_eq!(
        held.filter(lies_on).count(),
        0,
        "what was asked for is free"
    );
    let reports = reports(&mut world);
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("journal_max"), "{reports:?}");
    let status = world.site.group.status(world.site.now);
    let reason = status.reason.unwrap();
    assert!(reason.contains("instead of"), "{reason}");
    world.check_window("pressed");

    world.site.tell(Event::JournalPressed(Some(u64::MAX)));
    world.rest();
    assert_eq!((world.oldest(), world.newest()), (newest, newest), "P7");
    world.site.tell(Event::JournalPressed(None));
    world.write_on(3);
    assert_eq!(world.oldest(), newest, "it grows again");
}

fn reports(world: &mut World) -> Vec<String> {
    let other = std::mem::take(&mut world.site.other).into_iter();
    let reports = other.filter_map(|output| match output {
        Output::Report(text) => Some(text),
        _ => None,
    });
    reports.collect()
}

#[test]
fn a_recopy_that_does_not_fit_stops_intake_and_keeps_the_point_before_it() {
    let mut world = begun(1000);
    world.write_on(5);
    world.source.recopy(0);
    world.flow();
    let newest = world.newest();
    world.site.tell(Event::JournalPressed(Some(u64::MAX)));
    world.site.tell(Event::JournalRoom(false));
    world.rest();
    assert_eq!((world.oldest(), world.newest()), (newest, newest));
    let status = world.site.group.status(world.site.now);
    let reason = status.reason.unwrap();
    assert!(reason.starts_with("receiver full"), "{reason}");
    assert!(reason.contains("is kept while"), "{reason}");
    world.check_window("full");
}

#[test]
fn a_group_with_nearly_all_the_records_it_may_have_lets_the_oldest_points_go() {
    let mut world = begun(1_000_000);
    world.site.group.records_max = 64;
    for _ in 0..100 {
        world.write_on(1);
        assert!(
            world.site.group.takes_records(),
            "intake never stops for it"
        );
    }
    let waiting = world.site.group.records_waiting();
    assert!((48..64).contains(&waiting), "{waiting}");
    let status = world.site.group.status(world.site.now);
    assert!(status.reason.unwrap().contains("no more records"));
}

#[test]
fn a_source_whose_clock_jumps_ahead_does_not_empty_the_window() {
    let mut world = begun(100);
    world.write_on(20);
    let oldest = world.oldest();
    // Marks of the far future, from now on.
    world.source.skip_clock(1 << 61);
    world.site.now.wall = TimeMark(world.newest().mark.0 + RECORD_NS);
    world.source.write(0, 0, false);
    world.source.settle(1);
    world.send();
    world.site.commit(usize::MAX);
    world.site.group.handle(world.site.now, Event::Tick);
    assert!(world.newest().mark.0 > 1 << 60);
    assert_eq!(world.oldest(), oldest);
    assert!(world.site.group.poll().is_none(), "the base stays");
}

#[test]
fn a_hold_keeps_the_window_whatever_the_journal_wants() {
    let mut world = begun(1000);
    world.write_on(20);
    let oldest = world.oldest();
    world.hold = Some(1);
    let at = At::Stamp(oldest.stamp.next());
    world.site.tell(Event::Hold(1, name(0), at));
    world.site.tell(Event::JournalPressed(Some(u64::MAX)));
    world.rest();
    assert_eq!(world.oldest(), oldest);
    let page = world.site.group.held_page(1, None).unwrap();
    assert_eq!(page.patches.len(), 1);
    world.site.tell(Event::JournalRoom(false));
    let reason = world.site.group.status(world.site.now).reason.unwrap();
    assert!(reason.contains("an export holds"), "{reason}");
    world.site.tell(Event::JournalRoom(true));
    world.site.other.clear();
    world.release();
    world.rest();
    assert_eq!(world.oldest(), world.newest());
}

#[test]
fn a_move_of_the_window_cut_short_anywhere_is_finished_after_a_restart() {
    for reach in 0..4 {
        for pattern in 0..1 << BLOCKS {
            let mut world = begun(10);
            for at in 0..30 {
                world.source.write(at % 2, at % BLOCKS, false);
                world.source.settle(1);
                world.send();
                world.site.commit(usize::MAX);
                world.exchange();
                if matches!(world.site.job, Some(Job::Step(_))) {
                    break;
                }
            }
            assert!(world.site.job.is_some(), "a fold step has left the window");
            world
                .site
                .die_working(reach, |_, block| pattern >> block & 1 == 1);
            let at = format!("reach {reach} pattern {pattern}");
            world.restart();
            world.check_window(&at);
            world.rest();
            world.check_window(&format!("{at}, at rest"));
            assert_eq!(world.newest().stamp, world.source.captured(), "{at}");
        }
    }
}
