//! A source and a receiver, with real contents: whatever happens between them, a receiver that is
//! restarted comes to a point by itself, and the point is what the source was there.

mod anew;
mod lost;
mod pair;
mod site;
mod source;
mod stories;
mod upkeep;
mod window;

use super::{Event, HoldId, Job, JobOutcome, Output, Registered, SessionId};
use crate::catalog::PointRecord;
use crate::control::At;
use crate::points::any_counts;
use site::{BLOCKS, Image, Kept, Site, VOLUMES, is_held, name, registered};
use source::{Side, Source};
use wire::{Name, Stamp};

/// A small generator, so that a failing seed can be run again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn volume(&mut self) -> usize {
        self.roll(VOLUMES as u64) as usize
    }

    fn block(&mut self) -> usize {
        self.roll(BLOCKS as u64) as usize
    }
}

/// What may go wrong in a run.
#[derive(Clone, Copy)]
struct Faults {
    /// Acknowledged entries at the journal's end may be gone after a crash.
    journal_loss: bool,
    /// A record may be found damaged when it is to be applied.
    damage: bool,
}

struct World {
    dice: Dice,
    faults: Faults,
    source: Source,
    site: Site,
    sessions: SessionId,
    had_point: bool,
    /// It is one of two lanes of a group: the receiver crashes with both, not here.
    paired: bool,
    /// A volume was removed since the receiver began: what it froze may stay so until a restart.
    removed: bool,
    hold: Option<HoldId>,
    /// What the base was when the hold came into force.
    held: Option<Image>,
}

impl World {
    fn new(seed: u64, faults: Faults) -> Self {
        Self {
            dice: Dice(seed * 0x9e37_79b9 + 1),
            faults,
            source: Source::new(),
            site: Site::begin(Kept::fresh()),
            sessions: 0,
            had_point: false,
            paired: false,
            removed: false,
            hold: None,
            held: None,
        }
    }

    fn step(&mut self) {
        match self.dice.roll(100) {
            0..15 => {
                let (volume, block) = (self.dice.volume(), self.dice.block());
                let refused = self.dice.roll(8) == 0;
                self.source.write(volume, block, refused);
            }
            15..33 => {
                let volume = self.dice.volume();
                self.source.reread(volume);
                self.source.copy(volume);
            }
            33 => {
                let volume = self.dice.volume();
                self.source.recopy(volume);
            }
            34..36 => self.source.restart_cleanly(),
            36 => self.crash_source(),
            37..47 => {
                let count = self.dice.roll(4) as usize + 1;
                self.source.settle(count);
            }
            47..57 => {
                let count = self.dice.roll(5) as usize + 1;
                self.source.send(count);
            }
            57..70 => self.deliver(),
            70..82 => {
                let count = self.dice.roll(4) as usize + 1;
                self.site.commit(count);
            }
            82..90 => self.site.work(),
            90..94 => self.connect(),
            94 => self.hang_up(),
            95 if !self.paired => self.crash_site(),
            96 => self.fail_target(),
            97 => self.beat(),
            98 => self.toggle_hold(),
            99 if !self.paired && self.dice.roll(3) == 0 => {
                let volume = name(self.dice.volume());
                self.site.tell(Event::Removing(volume));
            }
            _ => self.site.tell(Event::Tick),
        }
        self.exchange();
    }

    fn toggle_hold(&mut self) {
        match self.hold {
            Some(_) => self.release(),
            None => {
                self.sessions += 1;
                self.hold = Some(self.sessions);
                let volume = name(self.dice.volume());
                self.site
                    .tell(Event::Hold(self.sessions, volume, At::Newest));
            }
        }
    }

    fn release(&mut self) {
        self.held = None;
        if let Some(hold) = self.hold.take() {
            self.site.tell(Event::Release(hold));
        }
    }

    /// A hold that came into force is at the truth of a point, and nothing moves until it ends.
    fn check_hold(&mut self) {
        for output in std::mem::take(&mut self.site.other) {
            if let Output::Removed(volume) = &output {
                self.register_anew(volume);
            }
            let Output::Held(hold, Ok(point)) = output else {
                continue;
            };
            assert_eq!(Some(hold), self.hold, "a hold that was not asked for");
            let state = self.site.kept.catalog.clone().unwrap();
            assert_eq!(state.applied, state.horizon, "held between two points");
            self.check_point(&self.site, point, "held");
            self.held = Some(self.site.kept.base);
        }
        if let Some(held) = self.held {
            assert_eq!(self.site.kept.base, held, "it moved while it was held");
        }
    }

    /// The operator registers a volume that was just removed again, on an empty target.
    fn register_anew(&mut self, volume: &Name) {
        if let Some(catalog) = &mut self.site.kept.catalog {
            catalog.volumes.remove(volume);
            catalog.point = catalog.point.filter(|_| any_counts(&catalog.volumes));
        }
        let at = usize::from(*volume == name(1));
        let empty = Kept::fresh().base[at];
        self.site.kept.base[at] = empty;
        if let Some(held) = &mut self.held {
            held[at] = empty;
        }
        self.had_point = false;
        self.removed = true;
        self.site.kept.since[at] = None;
        let anew = Registered {
            since: None,
            ..registered()
        };
        self.site.tell(Event::Added(volume.clone(), anew));
    }

    fn beat(&mut self) {
        if let Some((session, beat)) = self.source.beat() {
            self.site.tell(Event::Heartbeat(session, beat));
        }
    }

    /// The way breaks; the receiver notices at once, or only when the source is back.
    fn hang_up(&mut self) {
        let session = self.source.session();
        self.source.hang_up();
        if let Some(session) = session.filter(|_| self.dice.roll(2) == 0) {
            self.site.tell(Event::Ended(session));
        }
    }

    fn crash_source(&mut self) {
        let silent = (self.dice.roll(2) == 0).then(|| (self.dice.volume(), self.dice.block()));
        self.source.crash(silent);
    }

    fn connect(&mut self) {
        if !self.source.is_up() {
            self.sessions += 1;
            let hello = self.source.dial(self.sessions);
            self.site.hello(self.sessions, hello);
        }
    }

    /// One batch, any of those on their way, perhaps twice; or the next settle mark.
    fn deliver(&mut self) {
        if self.dice.roll(3) > 0 && !self.source.batches.is_empty() {
            let at = self.dice.roll(self.source.batches.len() as u64) as usize;
            let again = self.dice.roll(4) == 0;
            let (session, batch) = match again {
                true => self.source.batches[at].clone(),
                false => self.source.batches.swap_remove(at),
            };
            self.site.tell(Event::Records(session, batch));
        } else if !self.source.marks.is_empty() {
            let (session, mark) = self.source.marks.remove(0);
            self.site.tell(Event::Settle(session, mark));
        }
    }

    fn crash_site(&mut self) {
        let kept = self.die();
        self.begin_again(kept);
    }

    /// A target fails in the waiting step, or before it is begun.
    fn fail_target(&mut self) {
        if !matches!(self.site.job, Some(Job::Step(_))) {
            return;
        }
        let (reach, pattern) = (self.dice.roll(3), self.dice.roll(1 << 6));
        self.site.die_working(reach, |volume, block| {
            pattern >> (volume * BLOCKS + block) & 1 == 1
        });
        let reason = "no space left".to_owned();
        let outcome = match reach {
            0 => JobOutcome::NotBegun(reason),
            _ => JobOutcome::Target(reason),
        };
        self.site.tell(Event::Job(outcome));
    }

    /// What is left when the receiver dies now.
    fn die(&mut self) -> Kept {
        let reach = self.dice.roll(4);
        let pattern = self.dice.roll(1 << 6);
        self.site.die_working(reach, |volume, block| {
            pattern >> (volume * BLOCKS + block) & 1 == 1
        });
        let mut kept = self.site.kept.clone();
        if self.faults.journal_loss && self.dice.roll(3) == 0 {
            let lost = self.dice.roll(6) as usize;
            let left = kept.journal.len().saturating_sub(lost);
            kept.journal.truncate(left);
        }
        kept
    }

    fn begin_again(&mut self, kept: Kept) {
        let damaged = self.site.damaged;
        self.site = Site::begin(kept);
        self.site.damaged = damaged;
        (self.hold, self.held, self.removed) = (None, None, false);
        self.source.hang_up();
    }

    /// What the receiver says is heard at once.
    fn exchange(&mut self) {
        if self.faults.damage && self.dice.roll(200) == 0 {
            let last = self.site.kept.payloads.keys().next_back().copied();
            self.site.damaged = last;
        }
        self.check_hold();
        for (session, control) in self.site.heard() {
            self.source.hear(session, &control);
        }
        for (session, text) in std::mem::take(&mut self.site.ended) {
            assert!(
                [
                    "newer session",
                    "was removed",
                    "registered here anew",
                    "was detached"
                ]
                .iter()
                .any(|known| text.contains(known)),
                "session {session} ended: {text}"
            );
            if self.source.session() == Some(session) {
                self.source.hang_up();
            }
        }
    }

    /// Restarted now, the receiver comes to a point by itself, and it is the truth of that place.
    fn check(&mut self, at: &str) {
        let (image, state) = self.site.recovered();
        let lossless = !self.faults.journal_loss && !self.faults.damage;
        let rests = state.applied == state.horizon;
        assert!(rests || !lossless, "{at}: the base does not come to rest");
        self.check_base(at);
        assert!(
            self.site.losses == 0 || !lossless,
            "{at}: what was acknowledged is gone"
        );
        if !rests {
            assert_eq!(
                self.site.group.points.point(),
                None,
                "{at}: a point nobody can have"
            );
        }
        let Some(point) = state.point.filter(|_| rests) else {
            assert!(
                !(self.had_point && lossless),
                "{at}: once there is a point there always is one"
            );
            return;
        };
        self.had_point = true;
        let truth = self.source.history[&point.incarnation.counter][point.stamp.0 as usize];
        for volume in 0..VOLUMES {
            let held = state
                .volumes
                .get(&name(volume))
                .copied()
                .unwrap_or_default();
            if is_held(held) {
                assert_eq!(
                    image[volume], truth[volume],
                    "{at}: volume {volume} at {point:?}"
                );
            }
        }
        let newest = self.site.group.points.point();
        let damaged = self.site.damaged.is_some();
        if let Some(newest) = newest.filter(|_| !damaged && !self.removed) {
            let (now, then) = (newest.incarnation, point.incarnation);
            assert_eq!(
                (now, newest.stamp),
                (then, point.stamp),
                "{at}: not the newest point"
            );
        }
    }

    /// Where the base rests it is at a point of all that it holds.
    fn check_base(&self, at: &str) {
        let Some(state) = &self.site.kept.catalog else {
            return;
        };
        if state.applied != state.horizon || state.applied == Stamp::ZERO {
            return;
        }
        let history = &self.source.history[&state.incarnation.counter];
        let truth = history[state.applied.0 as usize];
        for (volume, expected) in truth.iter().enumerate() {
            let held = state
                .volumes
                .get(&name(volume))
                .copied()
                .unwrap_or_default();
            if is_held(held) {
                assert_eq!(
                    self.site.kept.base[volume], *expected,
                    "{at}: volume {volume} at rest"
                );
            }
        }
    }

    /// What the site can make of a point is what the source was there.
    fn check_point(&self, site: &Site, point: PointRecord, at: &str) {
        let truth = self.source.history[&point.incarnation.counter][point.stamp.0 as usize];
        let image = site.image_at(point);
        for (volume, expected) in truth.iter().enumerate() {
            if site.group.is_in(&name(volume), point) {
                assert_eq!(
                    image[volume],
                    *expected,
                    "{at}: volume {volume} at {point:?}, of {:?}",
                    site.group.runs()
                );
            }
        }
    }

    /// When faults stop everything comes to rest: all volumes in, the base as the source.
    fn settle_down(&mut self, at: &str) {
        self.site.damaged = None;
        self.faults.damage = false;
        self.release();
        for _ in 0..3000 {
            self.calm_down();
            if self.source.is_quiet() && self.is_even(at) {
                return;
            }
        }
        let status = self.site.group.status(self.site.now);
        panic!(
            "{at}: does not come to rest: {:?} {status:#?}",
            self.source.sides
        );
    }

    /// A while without faults.
    fn calm_down(&mut self) {
        self.connect();
        for volume in 0..VOLUMES {
            if let Side::Resting(incarnation, stamp) = self.source.sides[volume] {
                let _ = (incarnation, stamp);
                self.crash_source();
            }
            self.source.reread(volume);
            self.source.copy(volume);
        }
        self.source.settle(16);
        self.source.send(16);
        while !self.source.batches.is_empty() || !self.source.marks.is_empty() {
            self.deliver();
        }
        self.site.commit(usize::MAX);
        self.site.work();
        self.site.tell(Event::Tick);
        self.beat();
        self.exchange();
    }

    fn is_even(&self, at: &str) -> bool {
        let state = self.site.kept.catalog.clone().unwrap_or_default();
        let there = state.incarnation == self.source.now && state.applied == self.source.captured();
        let points = &self.site.group.points;
        if !there || points.frozen().is_some() || points.point().is_none() {
            return false;
        }
        for (volume, truth) in self.source.truth.iter().enumerate() {
            let held = is_held(points.state(&name(volume)));
            let same = self.site.kept.base[volume] == *truth;
            assert!(
                same || !held,
                "{at}: volume {volume} at rest is not the same"
            );
            if !held {
                return false;
            }
        }
        self.source.sides.iter().all(|side| *side == Side::In)
    }
}

fn run(seeds: std::ops::Range<u64>, steps: usize, faults: Faults) {
    let mut points = 0;
    for seed in seeds {
        let mut world = World::new(seed, faults);
        for step in 0..steps {
            world.step();
            if step % 5 == 0 {
                world.check(&format!("seed {seed} step {step}"));
            }
        }
        points += u64::from(world.had_point);
        world.settle_down(&format!("seed {seed}"));
        world.check(&format!("seed {seed} at rest"));
    }
    assert!(points > 0, "no run had a point");
}

#[test]
fn a_receiver_restarted_at_any_step_has_the_newest_point_and_it_is_the_truth() {
    run(
        1..1000,
        400,
        Faults {
            journal_loss: false,
            damage: false,
        },
    );
}

#[test]
fn a_journal_that_lost_what_was_acknowledged_heals_by_a_copy() {
    run(
        1..1000,
        400,
        Faults {
            journal_loss: true,
            damage: false,
        },
    );
}

#[test]
fn a_damaged_record_is_never_applied_and_heals_by_a_copy() {
    run(
        1..1000,
        400,
        Faults {
            journal_loss: true,
            damage: true,
        },
    );
}

#[test]
fn stamps_of_the_first_session_begin_at_one() {
    let mut world = World::new(
        1,
        Faults {
            journal_loss: false,
            damage: false,
        },
    );
    world.connect();
    world.site.commit(usize::MAX);
    world.exchange();
    assert!(world.source.is_up());
    assert_eq!(world.source.captured(), Stamp::ZERO);
}
