//! Stories: the main transitions of a group, one by one, on virtual time.

use super::site::{BLOCKS, Site, VOLUMES, hello_of, name};
use super::source::Side;
use super::{Faults, World};
use crate::catalog::VolumeState;
use crate::serve::group::{Event, Job};
use wire::control::{Ack, Control, Heartbeat, RefusalCode};
use wire::{Stamp, TimeMark};

/// No faults; nothing happens but what is told.
pub(super) fn calm() -> World {
    let faults = Faults {
        journal_loss: false,
        damage: false,
    };
    World::new(7, faults)
}

/// Both volumes are in, everything is applied.
pub(super) fn begun() -> World {
    let mut world = calm();
    world.dial();
    world.copy_all();
    world
}

impl World {
    pub(super) fn dial(&mut self) {
        self.connect();
        self.site.commit(usize::MAX);
        self.exchange();
        self.flow();
    }

    /// Copies what has to be copied, to the end.
    pub(super) fn copy_all(&mut self) {
        for _ in 0..BLOCKS + 2 {
            for volume in 0..VOLUMES {
                self.source.copy(volume);
            }
            self.flow();
        }
    }

    /// The disk answers, everything is sent, becomes durable and is applied.
    pub(super) fn flow(&mut self) {
        self.source.settle(usize::MAX >> 1);
        self.send();
        self.site.commit(usize::MAX);
        self.rest();
        self.exchange();
    }

    /// What was captured and settled arrives, in order; nothing becomes durable.
    pub(super) fn send(&mut self) {
        self.source.send(usize::MAX >> 1);
        for (session, batch) in std::mem::take(&mut self.source.batches) {
            self.site.tell(Event::Records(session, batch));
        }
        for (session, mark) in std::mem::take(&mut self.source.marks) {
            self.site.tell(Event::Settle(session, mark));
        }
    }

    /// Every step that can be done is.
    pub(super) fn rest(&mut self) {
        for _ in 0..100 {
            self.site.work();
            self.site.commit(usize::MAX);
            self.site.tell(Event::Tick);
        }
        assert!(self.site.job.is_none());
    }

    pub(super) fn restart(&mut self) {
        self.site = Site::begin(self.site.kept.clone());
        self.source.hang_up();
    }

    pub(super) fn mode(&self) -> String {
        self.site.group.status(self.site.now).mode
    }

    pub(super) fn point(&self) -> Option<Stamp> {
        self.site.group.points.point().map(|point| point.stamp)
    }

    /// The newest ack that was said since the last time.
    pub(super) fn ack(&mut self) -> Option<Ack> {
        let said = self.site.heard();
        said.into_iter().rev().find_map(|(_, said)| match said {
            Control::Ack(ack) => Some(ack),
            _ => None,
        })
    }
}

#[test]
fn a_volume_joins_is_copied_is_ready_and_leaves() {
    let mut world = calm();
    assert_eq!(world.mode(), "waiting");
    world.dial();
    world.source.copy(0);
    world.flow();
    assert_eq!(world.mode(), "first copy");
    for _ in 0..BLOCKS {
        world.source.copy(0);
    }
    world.flow();
    assert_eq!((world.mode().as_str(), world.point()), ("first copy", None));
    world.source.copy(0);
    world.flow();
    // The other volume is not in yet: the points of this one do not wait for it.
    assert_eq!(world.mode(), "async");
    assert_eq!(world.point(), Some(world.source.captured()));
    assert_eq!(world.site.kept.base[0], world.source.truth[0]);
    world.copy_all();
    world.source.restart_cleanly();
    world.flow();
    let state = world.site.group.points.state(&name(1));
    assert!(matches!(state, VolumeState::Left { .. }), "{state:?}");
    assert_eq!(world.point(), Some(world.source.captured()));
    world.source.crash(None);
    world.dial();
    world.source.write(0, 1, false);
    world.flow();
    assert_eq!(world.source.sides, [Side::In; VOLUMES]);
    assert_eq!(world.site.kept.base, world.source.truth);
    world.check("after a clean restart of the source");
}

#[test]
fn nothing_is_acknowledged_before_it_is_durable_and_nothing_applied_before_it_is_settled() {
    let mut world = begun();
    let before = world.source.captured();
    world.ack();
    world.source.write(0, 0, false);
    world.source.write(1, 1, false);
    world.send();
    let (session, beat) = world.source.beat().unwrap();
    world.site.tell(Event::Heartbeat(session, beat));
    let ack = world.ack().unwrap();
    assert_eq!(
        (ack.received, ack.durable),
        (world.source.captured(), before)
    );
    world.site.commit(1);
    let ack = world.ack().unwrap();
    assert_eq!(ack.durable, before.next());
    world.site.commit(usize::MAX);
    world.rest();
    let ack = world.ack().unwrap();
    assert_eq!(ack.durable, world.source.captured());
    assert_eq!((ack.settled, ack.applied), (before, before));
    assert_eq!(world.point(), Some(before));
    world.source.settle(1);
    world.send();
    world.site.commit(usize::MAX);
    world.rest();
    assert_eq!(world.ack().unwrap().applied, before.next());
}

#[test]
fn a_gap_freezes_the_point_until_every_volume_is_copied_again() {
    let mut world = begun();
    let (point, image) = (world.point(), world.site.kept.base);
    // The link hangs, the ring fills, writes go on.
    for value in 0..20 {
        world.source.write(0, value % BLOCKS, false);
    }
    world.flow();
    world.flow();
    let before_gap = world.point();
    assert!(before_gap > point);
    let held = world.site.kept.base;
    assert_ne!(held, image);
    world.source.copy(0);
    world.flow();
    world.source.copy(0);
    world.flow();
    assert_eq!(world.mode(), "frozen");
    assert_eq!((world.point(), world.site.kept.base), (before_gap, held));
    world.restart();
    assert_eq!(
        (world.mode().as_str(), world.point()),
        ("frozen", before_gap)
    );
    world.rest();
    assert_eq!(
        world.site.kept.base, held,
        "the old point, also after a restart"
    );
    world.dial();
    world.copy_all();
    assert_eq!(world.mode(), "async");
    assert_eq!(world.point(), Some(world.source.captured()));
    assert_eq!(world.site.kept.base, world.source.truth);
}

#[test]
fn a_step_cut_short_anywhere_is_finished_after_a_restart() {
    for reach in 0..4 {
        for pattern in 0..4 {
            let mut world = begun();
            world.source.write(0, 0, false);
            world.source.write(1, 1, false);
            world.source.settle(2);
            world.send();
            world.site.commit(usize::MAX);
            world.site.tell(Event::Tick);
            assert!(matches!(world.site.job, Some(Job::Step(_))));
            world
                .site
                .die_working(reach, |volume, _| pattern >> volume & 1 == 1);
            world.restart();
            world.rest();
            let at = format!("reach {reach} pattern {pattern}");
            assert_eq!(world.site.kept.base, world.source.truth, "{at}");
            assert_eq!(world.point(), Some(world.source.captured()), "{at}");
        }
    }
}

#[test]
fn a_restarted_receiver_goes_on_where_it_was_and_tells_the_journal_what_it_needs_no_longer() {
    let mut world = begun();
    let last = world.source.captured();
    world.source.write(0, 0, false);
    world.source.settle(1);
    world.send();
    world.site.commit(usize::MAX);
    world.site.tell(Event::Tick);
    // The step is done and committed; the journal is not told any more.
    world.site.die_working(3, |_, _| true);
    let held = world.site.kept.journal.len();
    world.restart();
    assert!(world.site.kept.journal.len() < held, "nothing is let go");
    world.connect();
    world.site.commit(usize::MAX);
    let said = world.site.heard();
    let greeted = said.iter().find_map(|(_, said)| match said {
        Control::HelloAck(ack) => Some(ack),
        _ => None,
    });
    let greeted = greeted.unwrap();
    assert_eq!(
        (greeted.resume, greeted.settled),
        (last.next(), last.next())
    );
}

#[test]
fn a_newer_session_replaces_the_older_one_and_what_that_sent_is_not_taken() {
    let mut world = begun();
    let last = world.source.captured();
    let old = world.source.session().unwrap();
    world.source.write(0, 0, false);
    world.source.settle(1);
    world.source.send(1);
    let late = world.source.batches.clone();
    let marks = world.source.marks.clone();
    world.source.hang_up();
    world.connect();
    assert_eq!(world.site.ended.len(), 1);
    assert_eq!(world.site.ended[0].0, old);
    for (session, batch) in late {
        world.site.tell(Event::Records(session, batch));
    }
    for (session, mark) in marks {
        world.site.tell(Event::Settle(session, mark));
    }
    let beat = Heartbeat {
        clock: TimeMark(1 << 60),
        captured: Stamp::ZERO,
    };
    world.site.tell(Event::Heartbeat(old, beat));
    world.site.tell(Event::Ended(old));
    assert!(world.site.appended.is_empty());
    world.exchange();
    assert!(world.source.is_up(), "the newer one is not harmed");
    world.site.commit(usize::MAX);
    assert_eq!(world.site.group.current().unwrap().intake.received(), last);
    world.source.batches.clear();
    world.source.marks.clear();
    world.flow();
    assert_eq!(world.site.kept.base, world.source.truth);
}

#[test]
fn a_hello_is_answered_when_nothing_of_the_session_before_is_under_way() {
    let mut world = begun();
    let last = world.source.captured();
    world.source.write(0, 0, false);
    world.send();
    world.source.hang_up();
    world.connect();
    let answered = |said: &[(u64, Control)]| {
        said.iter()
            .any(|(_, said)| matches!(said, Control::HelloAck(ack) if ack.resume == last.next()))
    };
    let greeted = |said: &[(u64, Control)]| {
        said.iter()
            .any(|(_, said)| matches!(said, Control::HelloAck(_)))
    };
    assert!(!greeted(&world.site.heard()));
    world.site.commit(usize::MAX);
    assert!(answered(&world.site.heard()));
}

#[test]
fn a_new_incarnation_begins_where_the_base_has_come_to_the_end_of_the_old_one() {
    let mut world = begun();
    let (point, image) = (world.point(), world.site.kept.base);
    // Durable and never settled: not part of any point, and of no other incarnation either.
    world.source.write(0, 0, false);
    world.send();
    world.site.commit(usize::MAX);
    world.source.crash(Some((1, 1)));
    world.dial();
    assert_eq!(world.mode(), "frozen");
    assert_eq!(world.point(), point);
    assert_eq!(world.site.kept.base, image);
    world.copy_all();
    assert_eq!(world.mode(), "async");
    assert_eq!(world.site.kept.base, world.source.truth);
}

#[test]
fn an_older_incarnation_and_a_twin_of_the_newest_are_refused() {
    let mut world = begun();
    world.source.crash(None);
    world.dial();
    let mut twin = world.source.now;
    twin.id += 1;
    let mut older = world.source.now;
    older.counter -= 1;
    for wrong in [twin, older] {
        let refusal = world.site.group.objection(&hello_of(wrong, 1, 0)).unwrap();
        assert_eq!(
            refusal.code,
            RefusalCode::OldIncarnation,
            "{}",
            refusal.text
        );
    }
}

#[test]
fn a_volume_that_goes_on_from_another_place_than_it_left_must_be_copied() {
    let mut world = begun();
    world.source.restart_cleanly();
    world.flow();
    let point = world.point();
    let Side::Resting(incarnation, stamp) = world.source.sides[0] else {
        panic!("it has not left");
    };
    // An old state file was put back: the place is an earlier one.
    world.source.sides[0] = Side::Resting(incarnation, stamp.prev());
    world.source.crash(None);
    world.dial();
    assert_eq!(world.mode(), "frozen");
    assert_eq!(
        world.source.sides,
        [Side::Out, Side::In],
        "one is asked for"
    );
    assert_eq!(world.point(), point);
    world.copy_all();
    assert_eq!(world.site.kept.base, world.source.truth);
}
