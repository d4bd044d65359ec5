//! A journal whose disk changes a byte: it is noticed, never applied, and heals by a copy (P9).

use crate::run;
use crate::site::Site;
use crate::source::{Record, Source};
use crate::talk::{assert_image, open};
use std::fs;
use wire::control::Control;

/// Changes a byte of the record's payload wherever the journal holds it.
pub(crate) fn spoil(site: &Site, record: &Record) {
    let mut spoilt = 0;
    for entry in fs::read_dir(site.path("receiver/journal")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap_or_default();
        let needle = &record.payload[..64];
        let found = bytes.windows(needle.len()).position(|part| part == needle);
        if let Some(at) = found {
            bytes[at + 9] ^= 1;
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            let byte = &bytes[at + 9..at + 10];
            std::os::unix::fs::FileExt::write_all_at(&file, byte, (at + 9) as u64).unwrap();
            spoilt += 1;
        }
    }
    assert_eq!(spoilt, 1, "the record is in the journal once");
}

#[test]
fn a_record_damaged_in_the_journal_is_not_applied_and_a_copy_is_asked_for() {
    run(async {
        let site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut source = Source::new(1);
        source.copy();
        let mut talk = open(&site, &identity, &source).await;
        talk.catch_up(&source).await;
        let before = source.last();
        for at in [1, 2, 3] {
            source.write(at);
        }
        let last = source.last();
        let records = source.records(before, last);
        talk.batch(records).await;
        talk.until(|ack| ack.durable == last).await;
        spoil(&site, &records[1]);
        talk.settle(source.mark(before, last)).await;
        let asked = |heard: &Control| matches!(heard, Control::CopyWanted(_));
        talk.until_heard(asked).await;
        assert!(talk.acked.applied <= before.next());
        let kept = site.image("data.img");
        let whole = [source.image_at(before), source.image_at(before.next())];
        assert!(whole.contains(&kept), "a point before the damage");
        drop(talk);
        source.copy();
        open(&site, &identity, &source)
            .await
            .catch_up(&source)
            .await;
        assert_image(&site, &source, source.last(), "copied");
    });
}

#[test]
fn a_record_damaged_while_nothing_ran_is_sent_again_or_copied() {
    run(async {
        let mut site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut source = Source::new(1);
        source.copy();
        let mut talk = open(&site, &identity, &source).await;
        talk.catch_up(&source).await;
        let before = source.last();
        for at in [1, 2, 3, 4] {
            source.write(at);
        }
        let last = source.last();
        let records = source.records(before, last);
        talk.batch(&records[..3]).await;
        talk.until(|ack| ack.durable == last.prev()).await;
        // Durable after them, so that what is damaged cannot be a write cut short.
        talk.batch(&records[3..]).await;
        talk.until(|ack| ack.durable == last).await;
        site.kill();
        spoil(&site, &records[1]);
        site.start();
        let mut talk = open(&site, &identity, &source).await;
        assert_eq!(talk.greeted.resume, before.next());
        talk.catch_up(&source).await;
        assert_image(&site, &source, last, "sent again");
    });
}
