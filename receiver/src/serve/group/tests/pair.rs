//! Two sources of one group, one receiver: at every time that is a point of the group both are as
//! their disks were at that time, whatever happens to sources, ways and receiver.
//!
//! The clocks of the two go together and stamp every write, so what was written at one after the
//! other had been answered has the later time: a state of both at one time holds every cause of
//! what it holds. Only what a source writes after it had left, and before it is heard of again, has
//! a later time than it was written at.

use super::site::{Kept, VOLUMES, name};
use super::{Event, Faults, World};
use crate::catalog::CutState;
use crate::control::At;
use crate::journal::Durable;
use crate::points::Cut;
use std::time::Duration;
use wire::control::Control;
use wire::{Name, Stamp, TimeMark};

struct Pair {
    lanes: [World; 2],
    cut: Cut,
    /// What the catalog has of the cut.
    kept: Option<CutState>,
    clock: u64,
    had_point: bool,
}

fn source(lane: usize) -> Name {
    Name::new(["db1", "db2"][lane]).unwrap()
}

impl World {
    /// The base is as the source, or trails behind it with nothing in its way.
    fn comes_to_rest(&self, at: &str) -> bool {
        let follows = self.site.kept.retain.is_zero();
        self.site.group.points.frozen().is_none() && (!follows || self.is_even(at))
    }
}

impl Pair {
    fn new(seed: u64, faults: Faults, retain: Duration) -> Self {
        let lane = |lane: u64| {
            let mut world = World::new(2 * seed + lane, faults);
            world.paired = true;
            let mut kept = Kept::fresh();
            (kept.cut, kept.retain) = (Some(None), retain);
            world.site = super::Site::begin(kept);
            world
        };
        let lanes = [lane(0), lane(1)];
        Self {
            lanes,
            cut: Cut::default(),
            kept: None,
            clock: 1,
            had_point: false,
        }
    }

    fn step(&mut self) {
        let at = self.lanes[0].dice.roll(2) as usize;
        match self.lanes[0].dice.roll(400) {
            0..4 => {
                self.restart();
                self.check("restarted");
            }
            4 => self.detach(at),
            5..25 => self.keep(),
            25..45 => self.act(at, World::beat),
            _ => self.act(at, World::step),
        }
    }

    /// Something happens to one of them.
    fn act(&mut self, at: usize, act: impl FnOnce(&mut World)) {
        self.clock += 1;
        let lane = &mut self.lanes[at];
        lane.source.synchronise(self.clock);
        lane.site.now.wall = TimeMark(self.clock);
        let before = lane.site.kept.catalog.clone();
        // A horizon is committed together with the cut that allowed it.
        let cut = self.cut.state();
        act(lane);
        if lane.site.kept.catalog != before {
            self.kept = cut.or_else(|| self.kept.take());
        }
        self.clock = lane.source.clock();
        self.meet();
    }

    /// They say how far they reach, and hear where they meet, until there is nothing new.
    fn meet(&mut self) {
        loop {
            let before = self.cut.at();
            let mut waits = false;
            for (at, lane) in self.lanes.iter_mut().enumerate() {
                if let Some(reach) = lane.site.group.reach(lane.site.now) {
                    self.cut.report(&source(at), reach);
                    waits |= lane.site.group.waits_for_cut();
                }
            }
            if self.cut.at() == before && !waits {
                return;
            }
            for lane in &mut self.lanes {
                lane.site.tell(Event::Cut(self.cut.at()));
            }
        }
    }

    fn keep(&mut self) {
        self.kept = self.cut.state().or_else(|| self.kept.take());
    }

    fn detach(&mut self, at: usize) {
        if (0..2).all(|lane| self.cut.holds(&source(lane))) {
            let words = "the source was detached by its operator".to_owned();
            self.lanes[at].site.tell(Event::LetGo(words));
            self.cut.detach(&source(at));
            self.keep();
            for lane in &mut self.lanes {
                lane.site.tell(Event::Cut(self.cut.at()));
                lane.exchange();
            }
        }
        self.meet();
    }

    fn restart(&mut self) {
        // What a job commits while the receiver dies goes with the cut as well.
        let cut = self.cut.state();
        let mut kept = self.lanes.each_mut().map(|lane| {
            let before = lane.site.kept.catalog.clone();
            let kept = lane.die();
            (kept.catalog != before, kept)
        });
        if kept.iter().any(|(committed, _)| *committed) {
            self.kept = cut.or_else(|| self.kept.take());
        }
        self.cut = self.kept.clone().map(Cut::restore).unwrap_or_default();
        for (lane, (_, kept)) in self.lanes.iter_mut().zip(&mut kept) {
            kept.cut = Some(self.cut.at());
            lane.begin_again(kept.clone());
        }
        self.meet();
    }

    fn check(&mut self, at: &str) {
        let (oldest, newest) = (self.cut.oldest(), self.cut.at());
        let lossless = self.lanes.iter().all(|lane| !lane.faults.journal_loss);
        if let (Some(oldest), Some(newest)) = (oldest, newest) {
            self.had_point = true;
            let span = newest.0 - oldest.0;
            let between = TimeMark(oldest.0 + self.lanes[0].dice.roll(span + 1));
            for mark in [oldest, between, newest] {
                self.check_point(mark, at);
            }
        } else {
            let gone = self.had_point && lossless;
            assert!(!gone, "{at}: no point from {oldest:?} to {newest:?}");
        }
    }

    fn check_point(&self, mark: TimeMark, at: &str) {
        let Some(mark) = self.cut.upto(mark) else {
            // Before the first time at which nobody was in a stretch without points.
            return;
        };
        for (lane, world) in self.lanes.iter().enumerate() {
            if !self.cut.holds(&source(lane)) {
                continue;
            }
            let group = &world.site.group;
            let point = group.find_point(At::Mark(mark));
            let point = point.unwrap_or_else(|text| {
                panic!(
                    "{at}: {mark:?} is no point of lane {lane}: {text}, of {:?}",
                    group.runs()
                )
            });
            let (image, truth) = (world.site.image_at(point), world.source.truth_at(mark));
            for volume in 0..VOLUMES {
                if group.is_in(&name(volume), point) {
                    assert_eq!(
                        image[volume], truth[volume],
                        "{at}: lane {lane} volume {volume} at {mark:?}, {point:?}"
                    );
                }
            }
        }
    }

    /// Restarted now, the receiver has a point no older than the one that was kept.
    fn check_restart(&mut self, at: &str) {
        let kept = self.kept.clone();
        self.restart();
        let (then, now) = (kept.map(|kept| kept.at), self.cut.at());
        let lossless = self.lanes.iter().all(|lane| !lane.faults.journal_loss);
        assert!(now >= then || !lossless, "{at}: {now:?} after {then:?}");
        self.check(at);
    }

    fn settle_down(&mut self, at: &str) {
        for lane in &mut self.lanes {
            lane.site.damaged = None;
            lane.faults.damage = false;
            lane.release();
        }
        for _ in 0..3000 {
            for lane in 0..2 {
                self.act(lane, World::calm_down);
            }
            let even = |lane: &World| lane.source.is_quiet() && lane.comes_to_rest(at);
            let together = (0..2).all(|lane| self.cut.holds(&source(lane)));
            if together && self.lanes.iter().all(even) {
                return;
            }
        }
        let lanes = self.lanes.each_ref();
        let status = lanes.map(|lane| lane.site.group.status(lane.site.now));
        panic!(
            "{at}: they do not come together: {:#?} {status:#?}",
            self.cut
        );
    }
}

fn run(seeds: std::ops::Range<u64>, faults: Faults, retain: Duration) {
    let mut points = 0;
    for seed in seeds {
        let mut pair = Pair::new(seed, faults, retain);
        for step in 0..800 {
            pair.step();
            let at = format!("seed {seed} step {step}");
            if step % 5 == 0 {
                pair.check(&at);
            }
            if step % 100 == 99 {
                pair.check_restart(&at);
            }
        }
        points += u64::from(pair.had_point);
        pair.settle_down(&format!("seed {seed}"));
        pair.check(&format!("seed {seed} at rest"));
    }
    assert!(points > 0, "no run had a point");
}

const SOUND: Faults = Faults {
    journal_loss: false,
    damage: false,
};

#[test]
fn two_sources_are_at_every_point_as_their_disks_were_at_one_time() {
    run(1..400, SOUND, Duration::ZERO);
}

#[test]
fn two_sources_with_a_window_are_at_every_retained_point_as_their_disks_were() {
    run(1..400, SOUND, Duration::from_nanos(400));
}

#[test]
fn two_sources_whose_journal_lost_something_come_together_again() {
    let faults = Faults {
        journal_loss: true,
        damage: true,
    };
    run(1..200, faults, Duration::ZERO);
}

/// Both are part, and have left in order: first one, then the other.
fn left(retain: Duration) -> Pair {
    let mut pair = Pair::new(1, SOUND, retain);
    pair.settle_down("begun");
    for lane in 0..2 {
        pair.act(lane, |world| world.source.write(0, lane, false));
        pair.act(lane, World::flow);
        pair.act(lane, |world| world.source.restart_cleanly());
        assert!(pair.lanes[lane].source.has_left());
        // The last write and the leaving become usable together, then the session ends.
        pair.act(lane, World::flow);
        pair.act(lane, |world| {
            let session = world.source.session().unwrap();
            world.source.hang_up();
            world.site.tell(Event::Ended(session));
        });
    }
    pair
}

#[test]
fn when_both_have_left_in_order_all_they_did_is_at_a_point_also_after_a_restart() {
    for retain in [Duration::ZERO, Duration::from_secs(1)] {
        let mut pair = left(retain);
        for at in ["left", "restarted"] {
            let newest = pair.cut.at().unwrap();
            assert_eq!(pair.cut.upto(newest), Some(newest), "{at}");
            for lane in &pair.lanes {
                assert_eq!(lane.source.truth_at(newest), lane.source.truth, "{at}");
            }
            pair.check(at);
            pair.keep();
            pair.restart();
        }
        pair.settle_down("they are back");
        pair.check("they are back");
    }
}

#[test]
fn a_source_that_had_left_is_heard_only_when_the_others_wait_for_it_again() {
    let mut pair = left(Duration::ZERO);
    pair.lanes[0].crash_source();
    pair.lanes[0].connect();
    // The hello is there, but where the others are by now was not said.
    pair.lanes[0].site.commit(usize::MAX);
    pair.lanes[0].exchange();
    let lane = &mut pair.lanes[0];
    assert!(!lane.source.is_up());
    let reach = lane.site.group.reach(lane.site.now).unwrap();
    assert!(reach.can_change && lane.site.group.waits_for_cut());
    lane.site.tell(Event::Cut(Some(TimeMark(1 << 40))));
    // That may be followed by what had been said before.
    lane.site.tell(Event::Cut(Some(TimeMark(1 << 30))));
    lane.site.commit(usize::MAX);
    let said = lane.site.heard();
    let ack = said.iter().find_map(|(_, said)| match said {
        Control::HelloAck(ack) => Some(ack.last_mark),
        _ => None,
    });
    assert_eq!(ack, Some(TimeMark(1 << 40)));
}

#[test]
fn a_hole_in_the_journal_of_one_below_the_cut_takes_the_point_of_both_back() {
    for nth in 1..4 {
        let mut pair = Pair::new(1, SOUND, Duration::from_secs(1));
        pair.settle_down("begun");
        for block in 0..4 {
            for lane in 0..2 {
                pair.act(lane, |world| world.source.write(0, block % 3, false));
                pair.act(lane, World::flow);
            }
        }
        pair.keep();
        let newest = pair.cut.at().unwrap();
        // Found damaged when the receiver begins again; the source is gone.
        let lane = &mut pair.lanes[1];
        let gone = Stamp(lane.source.captured().0 - nth);
        lane.site.kept.journal.retain(|(_, durable)| {
            !matches!(durable, Durable::Record { header, .. } if header.stamp == gone)
        });
        pair.restart();
        assert!(pair.cut.at().unwrap() < newest);
        pair.check("with a hole");
        for lane in &mut pair.lanes {
            lane.faults.journal_loss = true;
        }
        pair.settle_down("healed");
        pair.check("healed");
    }
}
