//! Bytes that are no messages: at worst the session ends, in words (P9, P11).

use crate::site::Site;
use crate::source::{Record, Source};
use crate::talk::{Talk, assert_image, batch_bytes, closing, dial, open, reach};
use crate::{Dice, run};
use link::Identity;
use wire::control::{Ack, Control, Heartbeat};
use wire::{RecordKind, SettleMark, Stamp, TimeMark, VolumeIndex};

fn frame(kind: u16, version: u16, length: u32, body: &[u8]) -> Vec<u8> {
    let head = [&kind.to_le_bytes()[..], &version.to_le_bytes()].concat();
    [&head[..], &length.to_le_bytes(), body].concat()
}

/// Bytes that no control stream may carry.
fn garbage(source: &Source) -> Vec<(&'static str, Vec<u8>)> {
    let hello = Control::Hello(source.hello()).to_frame();
    let mut long = hello.clone();
    long.push(0);
    let length = (long.len() - 8) as u32;
    long[4..8].copy_from_slice(&length.to_le_bytes());
    let mut many = hello.clone();
    let count = hello.len() - source.spec_bytes() - 2;
    many[count..count + 2].copy_from_slice(&u16::MAX.to_le_bytes());
    vec![
        ("noise", vec![0xa5; 300]),
        ("zeroes", vec![0; 300]),
        ("an unknown type", frame(99, 1, 0, &[])),
        ("an unknown version", frame(5, 2, 16, &[0; 16])),
        ("a body above the limit", frame(1, 1, 65_537, &[0; 64])),
        ("the longest body there is", frame(4, 1, u32::MAX, &[0; 64])),
        ("a header cut off", hello[..5].to_vec()),
        ("a body cut off", hello[..hello.len() - 1].to_vec()),
        ("an empty hello", frame(1, 1, 0, &[])),
        ("bytes left over", long),
        ("more volumes than there are", many),
        (
            "a message of a receiver",
            Control::Ack(Ack::default()).to_frame(),
        ),
        ("nothing", Vec::new()),
    ]
}

#[test]
fn garbage_instead_of_a_hello_ends_the_connection_in_words() {
    run(async {
        let mut site = Site::serving();
        let identity = site.enrol("db1").await;
        let fresh = site.image("data.img");
        for (what, bytes) in garbage(&Source::new(1)) {
            let (_endpoint, connection) = reach(&site, &identity).await;
            let (mut say, _hear) = connection.open_bi().await.unwrap();
            let _ = say.write_all(&bytes).await;
            let _ = say.finish();
            let words = closing(&connection).await;
            assert!(!words.is_empty() && words != "timed out", "{what}: {words}");
        }
        assert!(site.lives());
        assert_eq!(site.image("data.img"), fresh);
    });
}

#[test]
fn garbage_on_the_control_stream_ends_the_session_and_nothing_else() {
    run(async {
        let mut site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut source = Source::new(1);
        source.copy();
        open(&site, &identity, &source)
            .await
            .catch_up(&source)
            .await;
        for (what, bytes) in garbage(&source) {
            let mut talk = open(&site, &identity, &source).await;
            let _ = talk.say.write_all(&bytes).await;
            let _ = talk.say.finish();
            let words = talk.end().await;
            assert!(!words.is_empty() && words != "timed out", "{what}: {words}");
        }
        unharmed(&mut site, &identity, source).await;
    });
}

#[test]
fn settle_marks_and_heartbeats_that_cannot_be_end_the_session() {
    run(async {
        let mut site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut source = Source::new(1);
        source.copy();
        open(&site, &identity, &source)
            .await
            .catch_up(&source)
            .await;
        let here = source.last();
        let mark = |after: u64, upto: u64, voids: &[u64]| {
            Control::Settle(SettleMark {
                after: Stamp(after),
                upto: Stamp(upto),
                voids: voids.iter().copied().map(Stamp).collect(),
            })
        };
        let beat = |clock, captured| {
            Control::Heartbeat(Heartbeat {
                clock: TimeMark(clock),
                captured: Stamp(captured),
            })
        };
        let next = here.0 + 1;
        let wrong = [
            mark(next, next + 1, &[]),
            mark(here.0 - 1, next, &[]),
            mark(here.0, here.0, &[]),
            mark(here.0, u64::MAX, &[]),
            mark(here.0, next, &[next + 1]),
            mark(here.0, next + 1, &[next + 1, next]),
            mark(here.0, next, &[here.0]),
            beat(u64::MAX, 1),
            beat(1, u64::MAX),
            Control::Hello(source.hello()),
        ];
        for (at, message) in wrong.into_iter().enumerate() {
            let mut talk = open(&site, &identity, &source).await;
            assert_eq!(talk.greeted.settled, here);
            talk.control(&message).await;
            let words = talk.end().await;
            assert!(!words.is_empty() && words != "timed out", "{at}: {words}");
        }
        unharmed(&mut site, &identity, source).await;
    });
}

type Spoil = Box<dyn Fn(&mut Vec<u8>)>;

#[test]
fn batches_that_are_cut_stretched_or_flipped_end_the_session_and_nothing_of_them_is_kept() {
    run(async {
        let mut site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut source = Source::new(1);
        source.copy();
        open(&site, &identity, &source)
            .await
            .catch_up(&source)
            .await;
        let before = source.last();
        source.write(2);
        source.write(3);
        let records = source.records(before, source.last()).to_vec();
        let length = batch_bytes(0, &records).len();
        let flip = |at: usize| move |bytes: &mut Vec<u8>| bytes[at] ^= 0x10;
        let cut = |to: usize| move |bytes: &mut Vec<u8>| bytes.truncate(to);
        let spoil: Vec<Spoil> = vec![
            Box::new(flip(0)),
            Box::new(flip(5)),
            Box::new(flip(20)),
            Box::new(flip(26)),
            Box::new(flip(32)),
            Box::new(flip(33)),
            Box::new(flip(36)),
            Box::new(flip(40)),
            Box::new(flip(90)),
            Box::new(flip(32 + 64 + 100)),
            Box::new(flip(length - 1)),
            Box::new(cut(0)),
            Box::new(cut(10)),
            Box::new(cut(32)),
            Box::new(cut(33)),
            Box::new(cut(32 + 64 + 4096)),
            Box::new(cut(length - 1)),
            Box::new(|bytes| bytes.push(0)),
            Box::new(|bytes| bytes.extend_from_slice(&[7; 5000])),
        ];
        for (at, spoil) in spoil.iter().enumerate() {
            let talk = open(&site, &identity, &source).await;
            assert_eq!(talk.greeted.resume, before, "{at}");
            let mut bytes = batch_bytes(talk.greeted.session, &records);
            spoil(&mut bytes);
            talk.raw_batch(&bytes).await;
            let words = talk.end().await;
            assert!(!words.is_empty() && words != "timed out", "{at}: {words}");
        }
        assert_image(&site, &source, before, "nothing was kept");
        unharmed(&mut site, &identity, source).await;
    });
}

#[test]
fn records_that_are_not_of_this_stream_end_the_session_and_are_not_kept() {
    run(async {
        let mut site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut source = Source::new(1);
        source.copy();
        open(&site, &identity, &source)
            .await
            .catch_up(&source)
            .await;
        let before = source.last();
        source.write(2);
        let good = source.records(before, source.last())[0].clone();
        let far = before.0 + u64::from(source.ring_slots) + 1;
        let wrong: &[&dyn Fn(&mut Record)] = &[
            &|record| record.header.stamp = Stamp::ZERO,
            &|record| record.header.stamp = Stamp(far),
            &|record| record.header.stamp = Stamp(u64::MAX),
            &|record| record.header.incarnation_id ^= 1,
            &|record| record.header.volume = VolumeIndex(1),
            &|record| record.header.offset_bytes = crate::site::VOLUME_BYTES,
            &|record| record.header.offset_bytes = crate::site::VOLUME_BYTES - 512,
            &|record| record.header.offset_bytes = (1 << 63) - 4096,
            &|record| record.header.mark = TimeMark(u64::MAX),
            &|record| {
                record.header.kind = RecordKind::Member;
                (record.header.offset_bytes, record.header.length_bytes) = (0, 0);
            },
        ];
        for (at, spoil) in wrong.iter().enumerate() {
            let talk = open(&site, &identity, &source).await;
            assert_eq!(talk.greeted.resume, before, "{at}");
            let mut record = good.clone();
            spoil(&mut record);
            record.header = record.header.sealed(&record.payload);
            talk.batch(&[record]).await;
            let words = talk.end().await;
            assert!(!words.is_empty() && words != "timed out", "{at}: {words}");
        }
        assert_image(&site, &source, before, "nothing was kept");
        unharmed(&mut site, &identity, source).await;
    });
}

#[test]
fn batches_and_messages_changed_at_random_change_nothing() {
    run(async {
        let mut site = Site::serving();
        let identity = site.enrol("db1").await;
        let mut source = Source::new(1);
        source.copy();
        open(&site, &identity, &source)
            .await
            .catch_up(&source)
            .await;
        let before = source.last();
        for at in 0..4 {
            source.write(at);
        }
        let records = source.records(before, source.last()).to_vec();
        let mark = Control::Settle(source.mark(before, source.last())).to_frame();
        let beat = Control::Heartbeat(Heartbeat::default()).to_frame();
        for seed in 1..=60 {
            eprintln!("seed {seed}");
            let mut dice = Dice::new(seed);
            let mut talk = open(&site, &identity, &source).await;
            let mut bytes = batch_bytes(talk.greeted.session, &records);
            let head = if dice.roll(2) == 0 { 200 } else { bytes.len() };
            change(&mut bytes[..head], &mut dice);
            bytes.truncate(bytes.len() - dice.roll(2) * dice.roll(300));
            talk.raw_batch(&bytes).await;
            let mut frames = [&beat[..], &mark, &beat].concat();
            change(&mut frames, &mut dice);
            let _ = talk.say.write_all(&frames).await;
            let _ = talk.say.finish();
            talk.end().await;
        }
        unharmed(&mut site, &identity, source).await;
    });
}

fn change(bytes: &mut [u8], dice: &mut Dice) {
    for _ in 0..=dice.roll(3) {
        let at = dice.roll(bytes.len());
        bytes[at] = dice.roll(256) as u8;
    }
}

/// The receiver lives, has what it had, and goes on.
async fn unharmed(site: &mut Site, identity: &Identity, mut source: Source) {
    assert!(site.lives());
    source.write(1);
    let mut talk: Talk = dial(site, identity, source.hello()).await.unwrap();
    talk.catch_up(&source).await;
    assert_image(site, &source, source.last(), "afterwards");
}
