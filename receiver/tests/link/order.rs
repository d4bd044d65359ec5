//! The order of arrival, repetition and delay change nothing (P8).

use crate::site::Site;
use crate::source::Source;
use crate::talk::{assert_image, open};
use crate::{Dice, run};
use std::time::Duration;
use wire::Stamp;

#[test]
fn batches_in_any_order_twice_and_late_give_the_image_of_the_source() {
    run(async {
        for seed in 1..=4 {
            eprintln!("seed {seed}");
            any_order(seed).await;
        }
    });
}

async fn any_order(seed: u64) {
    let site = Site::serving();
    let identity = site.enrol("db1").await;
    let mut dice = Dice::new(seed);
    let mut source = Source::new(seed);
    source.copy();
    let mut reached = Stamp::ZERO;
    for round in 0..3 {
        source.scribble(&mut dice, 120);
        let last = source.last();
        let mut talk = open(&site, &identity, &source).await;
        assert_eq!(talk.greeted.resume, reached, "seed {seed} round {round}");
        let mut batches = Vec::new();
        let mut rest = source.records(reached, last);
        while !rest.is_empty() {
            let count = (1 + dice.roll(12)).min(rest.len());
            batches.push(&rest[..count]);
            if dice.roll(4) == 0 {
                batches.push(&rest[..count]);
            }
            rest = &rest[count..];
        }
        dice.shuffle(&mut batches);
        let mut settled = talk.greeted.settled;
        for batch in batches {
            talk.batch(batch).await;
            if dice.roll(6) == 0 && settled < last {
                let upto = Stamp(settled.0 + 1 + dice.roll((last.0 - settled.0) as usize) as u64);
                talk.settle(source.mark(settled, upto)).await;
                settled = upto;
            }
            if dice.roll(10) == 0 {
                tokio::time::sleep(Duration::from_millis(dice.roll(20) as u64)).await;
            }
        }
        if settled < last {
            talk.settle(source.mark(settled, last)).await;
        }
        talk.until(|ack| ack.applied == last).await;
        assert_image(&site, &source, last, &format!("seed {seed} round {round}"));
        reached = last;
    }
}

#[test]
fn late_batches_of_a_replaced_session_are_not_taken() {
    run(async {
        let site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut source = Source::new(3);
        source.copy();
        let old = open(&site, &identity, &source).await;
        let last = source.last();
        let mut new = open(&site, &identity, &source).await;
        assert_ne!(old.greeted.session, new.greeted.session);
        // On its own connection, with the old number and with the new one's.
        let old_number =
            crate::talk::batch_bytes(old.greeted.session, source.records(Stamp(0), last));
        old.raw_batch(&old_number).await;
        new.raw_batch(&old_number).await;
        let words = old.end().await;
        assert!(words.contains("newer session"), "{words}");
        new.beat(&source).await;
        let echo = source.clock();
        new.until(|ack| ack.echo == echo).await;
        assert_eq!(new.acked.received, Stamp::ZERO);
        new.catch_up(&source).await;
        assert_image(&site, &source, last, "in the new session");
    });
}
