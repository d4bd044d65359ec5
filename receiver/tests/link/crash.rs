//! Killed anywhere, the receiver has what it acknowledged (P10).

use crate::site::Site;
use crate::source::Source;
use crate::talk::{assert_image, open};
use crate::{Dice, run};
use std::time::Duration;
use wire::Stamp;

#[test]
fn killed_among_batches_it_resumes_with_all_it_acknowledged_and_ends_as_the_source() {
    run(async {
        for seed in 1..=2 {
            eprintln!("seed {seed}");
            killed(seed).await;
        }
    });
}

async fn killed(seed: u64) {
    let mut site = Site::serving();
    let identity = site.enrol("db1").await;
    let mut dice = Dice::new(seed);
    let mut source = Source::new(seed);
    source.copy();
    let (mut durable, mut settled, mut applied) = (Stamp(0), Stamp(0), Stamp(0));
    for round in 0..6 {
        let at = format!("seed {seed} round {round}");
        source.scribble(&mut dice, 60);
        let mut talk = open(&site, &identity, &source).await;
        let greeted = &talk.greeted;
        assert!(greeted.resume >= durable, "{at}: {greeted:?} {durable}");
        assert!(greeted.settled >= settled, "{at}: {greeted:?} {settled}");
        assert!(greeted.resume <= source.last(), "{at}: {greeted:?}");
        let (last, mut after) = (source.last(), greeted.settled);
        let mut batches: Vec<_> = source.records(greeted.resume, last).chunks(7).collect();
        if dice.roll(2) == 0 {
            dice.shuffle(&mut batches);
        }
        let stop_at = dice.roll(batches.len() + 1);
        for (number, batch) in batches.into_iter().enumerate() {
            if number == stop_at {
                break;
            }
            talk.batch(batch).await;
            if dice.roll(3) == 0 && after < last {
                let upto = Stamp(after.0 + 1 + dice.roll((last.0 - after.0) as usize) as u64);
                talk.settle(source.mark(after, upto)).await;
                after = upto;
            }
        }
        tokio::time::sleep(Duration::from_millis(dice.roll(60) as u64)).await;
        site.kill();
        talk.take_all();
        let acked = talk.acked;
        (durable, settled) = (durable.max(acked.durable), settled.max(acked.settled));
        applied = applied.max(acked.applied);
        site.start();
        let group = site.group();
        assert!(
            group["durable"].as_u64().unwrap() >= durable.0,
            "{at}: {group}"
        );
        assert!(
            group["applied"].as_u64().unwrap() >= applied.0,
            "{at}: {group}"
        );
    }
    let mut talk = open(&site, &identity, &source).await;
    talk.catch_up(&source).await;
    assert_image(&site, &source, source.last(), &format!("seed {seed}"));
    let at = talk.acked.applied.0;
    drop(talk);
    site.stop();
    site.start();
    assert_eq!(site.group()["applied"], at);
    assert_image(&site, &source, source.last(), "stopped and started");
}
