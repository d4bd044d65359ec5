//! A base far behind: several full steps in a row, each loaded while the one before is written.

use crate::site::Site;
use crate::source::{BLOCKS, Source};
use crate::talk::{assert_image, open};
use crate::{Dice, run};
use receiver::fold::STEP_CHANGES_MAX;

/// Two full steps and some: the second is loaded ahead.
const CHANGES: usize = 2 * STEP_CHANGES_MAX + 1000;
/// One in so many is data, the rest zeroes: they count as much and weigh nothing.
const DATA_EVERY: usize = 64;
const BATCH_RECORDS: usize = 1000;

#[test]
fn a_base_that_is_several_full_steps_behind_becomes_what_the_source_is() {
    run(async {
        let site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut source = Source::new(11);
        source.ring_slots = 1 << 18;
        source.copy();
        let mut dice = Dice::new(11);
        for at in 0..CHANGES {
            let block = dice.roll(BLOCKS);
            match at % DATA_EVERY {
                0 => source.write(block),
                _ => source.zero(block),
            };
        }
        let mut talk = open(&site, &identity, &source).await;
        let (begin, last) = (talk.greeted.resume, source.last());
        for batch in source.records(begin, last).chunks(BATCH_RECORDS) {
            talk.batch(batch).await;
        }
        talk.until(|ack| ack.durable == last).await;
        // All of it may be applied from now on, at once.
        talk.settle(source.mark(begin, last)).await;
        talk.until(|ack| ack.applied == last).await;
        assert_image(&site, &source, last, "after several full steps");
    });
}
