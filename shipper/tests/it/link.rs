//! A shipper in this process: sessions that are cut, refused, replaced and drained.

use crate::eventually;
use crate::host::{Host, content, volume};
use crate::receiver::Receiver;
use ring::handoff::{LinkState, ToTap};
use std::time::{Duration, Instant};
use wire::control::{Ack, Control, Refusal, RefusalCode};
use wire::{RecordKind, Stamp, TimeMark};

const RING_BYTES: u64 = 8 << 20;

fn host_of(receiver: &Receiver) -> Host {
    Host::new(&receiver.address, receiver.pin(), RING_BYTES)
}

/// Every record up to `last` is there once, in one rising numbering, with its content.
fn assert_complete(receiver: &Receiver, last: Stamp) {
    let journal = receiver.journal();
    assert_eq!((journal.durable, journal.settled), (last.0, last.0));
    let mut mark = TimeMark(0);
    for (stamp, (header, payload)) in &journal.records {
        assert_eq!(header.kind, RecordKind::Write);
        assert_eq!(*payload, content(Stamp(*stamp), payload.len()));
        assert!(header.mark > mark, "record {stamp}");
        mark = header.mark;
    }
}

#[test]
fn every_write_arrives_with_its_content_and_the_ring_is_freed() {
    let receiver = Receiver::new();
    let mut host = host_of(&receiver);
    host.ship();
    assert_eq!(host.until_link(LinkState::Up), "");
    let mut last = Stamp::ZERO;
    // Three times what the ring holds: it has to be freed on the way.
    for round in 0..384 {
        last = host.write([512, 4096, 65536, 128 << 10][round % 4]);
    }
    host.until_acked(last);
    assert_complete(&receiver, last);
    let hello = receiver.journal().hellos[0].clone();
    assert_eq!((hello.source.as_str(), hello.group.as_str()), ("db1", "pg"));
    assert_eq!(hello.volumes, [volume()]);
    let is_progress =
        |message: &ToTap| matches!(message, ToTap::Progress(seen) if seen.durable == last);
    eventually("the tap hears of it", || {
        host.listen();
        host.heard.iter().any(is_progress)
    });
}

#[test]
fn settle_marks_do_not_wait_behind_a_backlog_of_records() {
    let receiver = Receiver::new();
    let mut host = host_of(&receiver);
    let mut last = Stamp::ZERO;
    for _ in 0..56 {
        last = host.write(128 << 10); // 7 MiB, all settled before anybody ships
    }
    host.ship();
    host.until_acked(last);
    assert_complete(&receiver, last);
    let first = receiver.journal().marks[0].upto;
    assert!(
        first.0 <= 16,
        "the first mark came after {first} of {last} records, not after a batch or two"
    );
}

#[test]
fn a_connection_cut_in_the_middle_of_batches_loses_nothing() {
    let receiver = Receiver::new();
    receiver.journal().cut_after = Some(3);
    let mut host = host_of(&receiver);
    host.ship();
    let mut last = Stamp::ZERO;
    for round in 0..300 {
        last = host.write(32 << 10);
        if round == 150 {
            let mut journal = receiver.journal();
            journal.cut_after = Some(journal.batches + 2);
        }
    }
    host.until_acked(last);
    assert_complete(&receiver, last);
    assert!(
        receiver.journal().hellos.len() >= 2,
        "there was a second session"
    );
}

#[test]
fn a_refused_source_tells_its_tap_why_and_ships_once_it_is_accepted() {
    let receiver = Receiver::new();
    let text = "group pg has no volume data for source db1: register it with volume add";
    receiver.journal().refusal = Some(Refusal {
        code: RefusalCode::UnknownVolume,
        text: text.into(),
    });
    let mut host = host_of(&receiver);
    host.ship();
    assert_eq!(host.until_link(LinkState::Refused), text);
    let stamp = host.write(4096);
    receiver.journal().refusal = None;
    host.until_acked(stamp);
    assert_complete(&receiver, stamp);
}

#[test]
fn a_receiver_that_talks_nonsense_is_left_and_tried_again() {
    let oversized = [6, 0, 1, 0, 0xff, 0xff, 0xff, 0xff];
    let forged = Control::Ack(Ack {
        received: Stamp(u64::MAX),
        durable: Stamp(u64::MAX),
        ..Ack::default()
    });
    for (garbage, words) in [
        (vec![0xff; 200], "broke the protocol"),
        (oversized.to_vec(), "control body is 4294967295"),
        (forged.to_frame(), "acknowledged received"),
    ] {
        let receiver = Receiver::new();
        receiver.journal().garbage = Some(garbage);
        let mut host = host_of(&receiver);
        host.ship();
        let reason = host.until_link(LinkState::Down);
        assert!(reason.contains(words), "{reason}");
        let stamp = host.write(4096);
        host.until_acked(stamp);
        assert_complete(&receiver, stamp);
    }
}

#[test]
fn a_receiver_with_another_certificate_gets_nothing() {
    let (receiver, other) = (Receiver::new(), Receiver::new());
    let mut host = Host::new(&receiver.address, other.pin(), RING_BYTES);
    host.ship();
    host.write(4096);
    let reason = host.until_link(LinkState::Refused);
    assert!(reason.contains("fingerprint"), "{reason}");
    let journal = receiver.journal();
    assert!(journal.hellos.is_empty() && journal.records.is_empty());
}

#[test]
fn a_host_that_has_not_joined_says_so_and_ships_once_it_has() {
    let receiver = Receiver::new();
    let mut host = host_of(&receiver);
    let place = host.config_dir().join("identity");
    let aside = host.config_dir().join("aside");
    std::fs::rename(&place, &aside).unwrap();
    host.ship();
    let reason = host.until_link(LinkState::Refused);
    assert!(reason.contains("ublk-tap join"), "{reason}");
    let stamp = host.write(512);
    std::fs::rename(&aside, &place).unwrap();
    host.until_acked(stamp);
}

#[test]
fn a_receiver_that_was_away_is_found_again() {
    let receiver = Receiver::new();
    let mut host = host_of(&receiver);
    host.ship();
    let first = host.write(4096);
    host.until_acked(first);
    let address = receiver.address.clone();
    let dir = tempfile::tempdir().unwrap();
    receiver.identity.save(dir.path()).unwrap();
    drop(receiver);
    host.until_link(LinkState::Down);
    let stamp = host.write(4096);
    let identity = ::link::Identity::load(dir.path()).unwrap();
    let receiver = Receiver::with(identity, &address);
    // It has lost its memory: what it had acknowledged is gone, and the tap must copy.
    eventually("the tap is asked for a copy", || {
        host.listen();
        let is_wish = |message: &ToTap| matches!(message, ToTap::CopyWanted(_));
        host.heard.iter().any(is_wish)
    });
    eventually("the rest arrives", || {
        receiver.journal().records.contains_key(&stamp.0)
    });
    assert_eq!(receiver.journal().hellos[0].oldest, first.next());
}

#[test]
fn a_write_after_a_long_silence_wakes_the_shipper_at_once() {
    let receiver = Receiver::new();
    let mut host = host_of(&receiver);
    host.ship();
    let first = host.write(512);
    host.until_acked(first);
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(300));
        let start = Instant::now();
        let stamp = host.write(512);
        host.until_acked(stamp);
        let took = start.elapsed();
        assert!(took < Duration::from_millis(250), "{took:?}");
    }
    assert!(
        receiver.journal().beats.len() >= 2,
        "heartbeats go on meanwhile"
    );
}

#[test]
fn the_rest_of_a_ring_is_drained_when_its_tap_has_gone_and_a_new_tap_is_served() {
    let receiver = Receiver::new();
    let mut host = host_of(&receiver);
    host.ship();
    host.until_link(LinkState::Up);
    let mut last = Stamp::ZERO;
    for _ in 0..50 {
        last = host.write(64 << 10);
    }
    host.drop_tap();
    eventually("what was captured arrives", || {
        receiver.journal().durable == last.0
    });
    host.welcome();
    let next = host.write(512);
    host.until_acked(next);
    assert_complete(&receiver, next);
}

#[test]
fn a_stopped_shipper_says_goodbye_and_another_goes_on_with_the_same_ring() {
    let receiver = Receiver::new();
    let mut host = host_of(&receiver);
    host.ship();
    let first = host.write(4096);
    host.until_acked(first);
    host.stop();
    eventually("the goodbye arrives", || {
        let journal = receiver.journal();
        journal
            .goodbyes
            .iter()
            .any(|reason| reason.contains("stops"))
    });
    let second = host.write(4096);
    host.ship();
    host.until_acked(second);
    assert_complete(&receiver, second);
    assert_eq!(receiver.journal().hellos.last().unwrap().oldest, second);
}
