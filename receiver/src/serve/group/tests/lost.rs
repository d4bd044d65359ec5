//! What is gone of the journal: all of it, given up by the operator, or a stream that was left.

use super::site::Site;
use super::source::Side;
use super::stories::calm;
use super::{Faults, World};
use crate::serve::group::Job;
use wire::{Incarnation, Stamp};

#[test]
fn a_group_whose_journal_was_given_up_heals_by_itself() {
    for seed in 1..150 {
        let faults = Faults {
            journal_loss: true,
            damage: false,
        };
        let mut world = World::new(seed, faults);
        for step in 0..300 {
            world.step();
            if step % 100 == 99 {
                world.give_up_journal();
                world.check(&format!("seed {seed} step {step}"));
            }
        }
        world.settle_down(&format!("seed {seed}"));
        world.check(&format!("seed {seed} at rest"));
    }
}

impl World {
    /// The receiver dies, perhaps in the middle of a step, and begins again with a new journal.
    fn give_up_journal(&mut self) {
        self.crash_site();
        let mut kept = self.site.kept.clone();
        kept.journal.clear();
        kept.next_stream = 1;
        self.site = Site::begin(kept);
    }
}

#[test]
fn a_stream_is_not_let_go_before_the_base_is_known_to_have_left_it() {
    let mut world = wal_that_came_back_and_was_not_copied();
    world.site.commit(usize::MAX);
    world.exchange();
    let third = |job: &Option<Job>| matches!(job, Some(Job::Commit(state)) if state.incarnation.counter == 3);
    assert!(third(&world.site.job), "{:?}", world.site.job);
    world.source.copy(0);
    world.source.settle(1);
    world.send();
    world.site.commit(usize::MAX);
    world.check("while it changes over");
    let copied = Incarnation {
        counter: 1,
        id: 101,
    };
    world.restart();
    let point = world.site.group.points.point();
    assert_eq!(point.map(|point| point.incarnation), Some(copied));
    world.rest();
    world.check("changed over");
    let numbers = world.site.kept.journal.iter().map(|(number, _)| number.0);
    assert_eq!(numbers.min(), Some(3), "the streams before it are gone");
}

/// One volume was copied and left; in the second incarnation of the source it had to be copied
/// again, which did not come to an end. The third has just begun.
fn wal_that_came_back_and_was_not_copied() -> World {
    let mut world = calm();
    world.dial();
    for _ in 0..5 {
        world.source.copy(1);
        world.flow();
    }
    world.source.sides[0] = Side::Resting(world.source.now, Stamp::ZERO);
    world.source.restart_cleanly();
    world.flow();
    world.source.sides = [Side::Out; 2];
    world.source.crash(None);
    world.dial();
    world.source.write(1, 0, false);
    world.flow();
    world.source.crash(None);
    world.connect();
    world
}
