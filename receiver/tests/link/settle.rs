//! What the source's disks have not answered for is not applied; what they refused never is (P4).

use crate::run;
use crate::site::Site;
use crate::source::Source;
use crate::talk::{assert_image, open};
use std::time::Duration;
use wire::Stamp;

#[test]
fn a_void_record_never_reaches_the_target() {
    run(async {
        let site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut source = Source::new(1);
        source.copy();
        source.write(3);
        source.refused_write(3);
        source.refused_write(4);
        source.write(5);
        source.refused_write(5);
        let mut talk = open(&site, &identity, &source).await;
        talk.catch_up(&source).await;
        assert_image(&site, &source, source.last(), "voids in one mark");

        // Named void before the record itself has come.
        let before = source.last();
        source.refused_write(6);
        let refused = before.next();
        source.write(7);
        let last = source.last();
        talk.settle(source.mark(before, last)).await;
        talk.batch(source.records(refused, last)).await;
        talk.batch(source.records(before, refused)).await;
        talk.until(|ack| ack.applied == last).await;
        assert_image(&site, &source, last, "the void before its record");
    });
}

#[test]
fn what_lies_above_the_last_settle_mark_is_durable_and_not_applied() {
    run(async {
        let site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut source = Source::new(2);
        source.copy();
        let mut talk = open(&site, &identity, &source).await;
        talk.catch_up(&source).await;
        let mut settled = source.last();
        for at in [0, 1, 0, 9] {
            source.write(at);
        }
        let last = source.last();
        talk.batch(source.records(settled, last)).await;
        talk.until(|ack| ack.durable == last).await;
        while settled < last {
            tokio::time::sleep(Duration::from_millis(120)).await;
            talk.take_all();
            assert_eq!(talk.acked.applied, settled);
            assert_eq!(talk.acked.settled, settled);
            assert_image(&site, &source, settled, "one record is not settled");
            let next = Stamp(settled.0 + 1);
            talk.settle(source.mark(settled, next)).await;
            talk.until(|ack| ack.applied == next).await;
            settled = next;
        }
        assert_image(&site, &source, last, "all settled");
    });
}

#[test]
fn settle_marks_ahead_of_their_records_wait_for_them() {
    run(async {
        let site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut source = Source::new(2);
        source.copy();
        let mut talk = open(&site, &identity, &source).await;
        talk.catch_up(&source).await;
        let before = source.last();
        let first = source.write(1);
        let second = source.write(2);
        talk.settle(source.mark(before, second)).await;
        talk.batch(source.records(first, second)).await;
        talk.beat(&source).await;
        let echo = source.clock();
        talk.until(|ack| ack.echo == echo).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        talk.take_all();
        assert_eq!((talk.acked.durable, talk.acked.settled), (before, before));
        assert_image(&site, &source, before, "the first is missing");
        talk.batch(source.records(before, first)).await;
        talk.until(|ack| ack.applied == second).await;
        assert_image(&site, &source, second, "both are here");
    });
}

#[test]
fn a_write_refused_in_part_holds_the_point_and_is_named_until_it_is_read_again() {
    run(async {
        let site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut source = Source::new(3);
        source.copy();
        source.write(3);
        let mut talk = open(&site, &identity, &source).await;
        talk.catch_up(&source).await;
        let point = source.last();
        source.torn_write(5, 1024);
        source.write(6);
        let last = source.last();
        talk.batch(source.records(point, last)).await;
        talk.settle(source.mark(point, last)).await;
        talk.until(|ack| ack.settled == last).await;
        let group = site.group();
        assert_eq!(group["mode"], "frozen", "{group}");
        assert_eq!(group["recoverable_stamp"], point.0, "{group}");
        let volume = &group["volumes"][0];
        assert_eq!(volume["state"], "unknown", "{group}");
        assert_eq!(volume["unknown_bytes"], 4096, "{group}");
        assert_eq!(volume["unknown"][0]["offset_bytes"], 5 * 4096, "{group}");
        assert_eq!(volume["unknown"][0]["length_bytes"], 4096, "{group}");
        assert!(
            group["reason"]
                .as_str()
                .is_some_and(|why| why.contains("4096 bytes at 20480")),
            "{group}"
        );
        assert_image(
            &site,
            &source,
            point,
            "the base does not pass the failed write",
        );

        source.copy_blocks(5..6);
        let healed = source.last();
        talk.batch(source.records(last, healed)).await;
        talk.settle(source.mark(last, healed)).await;
        talk.until(|ack| ack.applied == healed).await;
        let image = site.image("data.img");
        assert!(image == source.truth, "the disk's own mix");
        let group = site.group();
        assert_eq!(
            (&group["mode"], &group["volumes"][0]["unknown_bytes"]),
            (&"async".into(), &0.into())
        );
    });
}
