//! Incarnations are never joined, and the newest complete point stays whatever is copied (P7, P8).

use crate::run;
use crate::site::Site;
use crate::source::{BLOCKS, Source};
use crate::talk::{assert_image, dial, open};
use std::time::Duration;
use wire::control::{Control, RefusalCode};
use wire::{MemberAction, Stamp};

/// A group with a point, and its source.
async fn begun(site: &Site, identity: &link::Identity) -> Source {
    let mut source = Source::new(1);
    source.copy();
    source.write(5);
    source.zero(6);
    open(site, identity, &source).await.catch_up(&source).await;
    source
}

fn recoverable(site: &Site) -> (String, u64) {
    let group = site.group();
    let time = group["recoverable_to"].as_str().unwrap_or("never");
    let stamp = group["recoverable_stamp"].as_u64().unwrap();
    (time.into(), stamp)
}

#[test]
fn a_new_incarnation_without_a_copy_does_not_join_the_old_one() {
    run(async {
        let site = Site::serving();
        let identity = site.enrol("db1").await;
        let old = begun(&site, &identity).await;
        let point = recoverable(&site);
        let mut new = old.reborn();
        new.write(1);
        new.zero(2);
        let mut talk = open(&site, &identity, &new).await;
        assert_eq!(talk.greeted.resume, Stamp::ZERO);
        talk.send_rest(&new).await;
        let last = new.last();
        talk.until(|ack| ack.settled == last).await;
        let asked = |heard: &Control| matches!(heard, Control::CopyWanted(_));
        let asked = talk.until_heard(asked);
        tokio::time::timeout(Duration::from_secs(15), asked)
            .await
            .unwrap();
        assert_eq!(recoverable(&site), point);
        assert_eq!(talk.acked.applied, Stamp::ZERO);
        assert_image(&site, &old, old.last(), "the old point");

        // Claiming to go on from another place is no copy either.
        let (incarnation, stamp) = (old.incarnation, old.last());
        let before = new.last();
        new.member(MemberAction::Continue { incarnation, stamp });
        let last = new.last();
        talk.batch(new.records(before, last)).await;
        talk.settle(new.mark(before, last)).await;
        talk.until(|ack| ack.settled == last).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(recoverable(&site), point);
        assert_image(&site, &old, old.last(), "still the old point");

        new.copy();
        let mut talk = open(&site, &identity, &new).await;
        talk.catch_up(&new).await;
        assert_image(&site, &new, new.last(), "copied");
        let refusal = dial(&site, &identity, old.hello()).await.err().unwrap();
        assert_eq!(refusal.refusal().code, RefusalCode::OldIncarnation);
    });
}

#[test]
fn a_volume_that_left_and_is_unchanged_goes_on_in_a_new_incarnation_without_a_copy() {
    run(async {
        let site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut old = begun(&site, &identity).await;
        let stamp = old.member(MemberAction::Leave);
        open(&site, &identity, &old).await.catch_up(&old).await;
        let mut new = old.reborn();
        let incarnation = old.incarnation;
        new.member(MemberAction::Continue { incarnation, stamp });
        new.write(9);
        open(&site, &identity, &new).await.catch_up(&new).await;
        assert_image(&site, &new, new.last(), "went on");
    });
}

#[test]
fn an_interrupted_recopy_keeps_the_old_complete_point_also_after_a_restart() {
    run(async {
        let mut site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut source = begun(&site, &identity).await;
        let (point, at) = (recoverable(&site), source.last());
        let mut talk = open(&site, &identity, &source).await;
        source.gap();
        source.write(7);
        source.join();
        source.copy_blocks(0..BLOCKS / 2);
        talk.send_rest(&source).await;
        let half = source.last();
        talk.until(|ack| ack.settled == half && ack.durable == half)
            .await;
        drop(talk);
        for how in ["killed", "stopped", "killed"] {
            assert_eq!(recoverable(&site), point, "before it is {how}");
            assert_eq!(site.group()["mode"], "frozen");
            assert_image(&site, &source, at, how);
            match how {
                "killed" => site.kill(),
                _ => site.stop(),
            }
            assert_eq!(recoverable(&site).1, point.1, "while nothing runs");
            site.ok(&["volume", "export", "pg/data", &format!("{how}.img")]);
            assert_eq!(site.image(&format!("{how}.img")), source.image_at(at));
            std::fs::remove_file(site.path(&format!("{how}.img"))).unwrap();
            site.start();
        }
        assert_eq!(recoverable(&site), point);
        let talk = open(&site, &identity, &source).await;
        assert_eq!((talk.greeted.resume, talk.greeted.settled), (half, half));
        drop(talk);
        source.copy_blocks(BLOCKS / 2..BLOCKS);
        source.member(MemberAction::Ready);
        source.write(8);
        open(&site, &identity, &source)
            .await
            .catch_up(&source)
            .await;
        assert_image(&site, &source, source.last(), "copied again");
        assert_eq!(recoverable(&site).1, source.last().0);
    });
}

#[test]
fn a_source_that_no_longer_holds_what_the_receiver_lacks_is_asked_for_a_copy() {
    run(async {
        let site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut source = begun(&site, &identity).await;
        let (point, at) = (recoverable(&site), source.last());
        for block in 0..8 {
            source.write(block);
        }
        let mut hello = source.hello();
        let oldest = Stamp(source.last().0 - 2);
        hello.oldest = oldest;
        let mut talk = dial(&site, &identity, hello).await.unwrap();
        assert_eq!(talk.greeted.resume, oldest.prev());
        assert_eq!(talk.greeted.settled, oldest.prev());
        let asked = |heard: &Control| matches!(heard, Control::CopyWanted(_));
        talk.until_heard(asked).await;
        talk.send_rest(&source).await;
        let last = source.last();
        talk.until(|ack| ack.settled == last).await;
        assert_eq!(recoverable(&site), point);
        assert_image(&site, &source, at, "the old point");
        source.copy();
        let mut again = source.hello();
        again.oldest = oldest;
        let mut talk = dial(&site, &identity, again).await.unwrap();
        talk.catch_up(&source).await;
        assert_image(&site, &source, source.last(), "copied");
    });
}
