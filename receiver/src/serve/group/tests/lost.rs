//! The whole journal is gone, and the operator has given it up.

use super::site::Site;
use super::{Faults, World};

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
