//! Stories of one stream: any order, any repetition, cuts, losses.

mod losses;
mod random;
mod settling;
mod unknown;
mod window;

use super::*;
use crate::fold::RecordAt;
use bytes::Bytes;
use proptest::prelude::*;
use wire::Incarnation;
use wire::journal::StreamClose;

const SLOTS: u32 = 64;

fn spec(index: u16, name: &str) -> VolumeSpec {
    VolumeSpec {
        index: VolumeIndex(index),
        name: Name::new(name).unwrap(),
        size_bytes: 1 << 20,
        sector_bytes: 4096,
        identity: format!("disk-{name}"),
    }
}

fn open() -> StreamOpen {
    StreamOpen {
        group: Name::new("pg").unwrap(),
        source: Name::new("db1").unwrap(),
        incarnation: Incarnation { counter: 1, id: 77 },
        ring_slots: SLOTS,
        volumes: vec![spec(0, "data"), spec(1, "wal")],
    }
}

fn intake() -> Intake {
    Intake::new(open(), Base::default())
}

fn header(stamp: u64) -> RecordHeader {
    RecordHeader {
        kind: RecordKind::Write,
        fua: false,
        volume: VolumeIndex(0),
        stamp: Stamp(stamp),
        mark: TimeMark(stamp.saturating_mul(100)),
        offset_bytes: 4096,
        length_bytes: 4096,
        payload_bytes: 4096,
        incarnation_id: 77,
        checksum: 0,
    }
}

fn member(stamp: u64, name: &str, action: MemberAction) -> (RecordHeader, Vec<u8>) {
    let index = u16::from(name == "wal");
    let payload = Member {
        action,
        spec: spec(index, name),
    }
    .to_bytes();
    let header = RecordHeader {
        kind: RecordKind::Member,
        volume: VolumeIndex(index),
        offset_bytes: 0,
        length_bytes: 0,
        payload_bytes: payload.len() as u32,
        ..header(stamp)
    };
    (header, payload)
}

fn mark(after: u64, upto: u64, voids: &[u64]) -> SettleMark {
    let voids = voids.iter().copied().map(Stamp).collect();
    SettleMark {
        after: Stamp(after),
        upto: Stamp(upto),
        voids,
    }
}

fn stored(header: RecordHeader, note: &[u8]) -> Durable {
    let at = RecordAt {
        segment: 1,
        offset_bytes: header.stamp.0 * 8192,
    };
    Durable::Record {
        header,
        at,
        note: Bytes::copy_from_slice(note),
    }
}

/// Receives a record and has the journal store it at once.
fn take(intake: &mut Intake, header: RecordHeader, payload: &[u8]) -> Receipt {
    let receipt = intake.receive(&header, payload).unwrap();
    if receipt == Receipt::New {
        intake.durable(stored(header, payload));
    }
    receipt
}

/// Receives a settle mark and has the journal store what is due.
fn settle(intake: &mut Intake, mark: &SettleMark) {
    intake.settle(mark).unwrap();
    store_settles(intake);
}

fn store_settles(intake: &mut Intake) {
    while let Some(due) = intake.settle_due() {
        intake.durable(Durable::Settle(due));
    }
}

fn upto(stamp: u64) -> Progress {
    Progress::Upto {
        stamp: Stamp(stamp),
        mark: TimeMark(stamp * 100),
    }
}

#[test]
fn a_record_counts_when_it_and_all_before_it_are_durable_and_settled() {
    let mut intake = intake();
    for stamp in [3, 1] {
        assert_eq!(take(&mut intake, header(stamp), &[]), Receipt::New);
    }
    settle(&mut intake, &mark(0, 3, &[]));
    assert_eq!(intake.advance(), [upto(1)]);
    assert_eq!(
        (intake.received(), intake.durable_prefix()),
        (Stamp(1), Stamp(1))
    );
    assert_eq!(take(&mut intake, header(2), &[]), Receipt::New);
    store_settles(&mut intake);
    assert_eq!(intake.advance(), [upto(3)]);
    assert_eq!(take(&mut intake, header(4), &[]), Receipt::New);
    assert_eq!(intake.advance(), [], "record 4 is not settled");
}

#[test]
fn what_comes_again_changes_nothing_before_and_after_it_is_durable() {
    let mut intake = intake();
    assert_eq!(intake.receive(&header(1), &[]), Ok(Receipt::New));
    assert_eq!(intake.receive(&header(1), &[]), Ok(Receipt::Again));
    assert!(!intake.is_flushed());
    intake.durable(stored(header(1), &[]));
    assert!(intake.is_flushed());
    assert_eq!(intake.receive(&header(1), &[]), Ok(Receipt::Again));
    let moved = Durable::Record {
        header: header(1),
        at: RecordAt {
            segment: 9,
            offset_bytes: 0,
        },
        note: Bytes::new(),
    };
    intake.durable(moved);
    settle(&mut intake, &mark(0, 1, &[]));
    settle(&mut intake, &mark(0, 1, &[]));
    intake.advance();
    let slots: Vec<_> = intake
        .records(Stamp::ZERO, Stamp(9))
        .map(|(_, slot)| slot.at())
        .collect();
    assert_eq!(
        slots,
        [RecordAt {
            segment: 1,
            offset_bytes: 8192
        }]
    );
}

#[test]
fn a_source_cannot_run_further_ahead_than_its_ring_nor_leave_its_volumes() {
    let mut intake = intake();
    let slots = u64::from(SLOTS);
    assert_eq!(intake.receive(&header(slots), &[]), Ok(Receipt::New));
    for stamp in [0, slots + 1, u64::MAX] {
        let refused = intake.receive(&header(stamp), &[]);
        assert!(matches!(refused, Err(Violation::TooFar { .. })), "{stamp}");
    }
    assert!(matches!(
        intake.settle(&mark(0, slots + 1, &[])),
        Err(Violation::TooFar { .. })
    ));
    let bad = |change: fn(&mut RecordHeader)| {
        let mut header = header(2);
        change(&mut header);
        header
    };
    for header in [
        bad(|h| h.incarnation_id = 78),
        bad(|h| h.volume = VolumeIndex(2)),
        bad(|h| h.offset_bytes = 1 << 20),
        bad(|h| h.offset_bytes = (1 << 20) - 512),
        bad(|h| h.offset_bytes = 512),
        bad(|h| h.length_bytes = 512),
        bad(|h| h.offset_bytes = i64::MAX as u64 & !4095),
        bad(|h| h.mark = TimeMark(u64::MAX)),
    ] {
        assert!(intake.receive(&header, &[]).is_err(), "{header:?}");
    }
    assert_eq!(intake.receive(&header(2), &[]), Ok(Receipt::New));
}

#[test]
fn a_member_record_must_say_what_the_hello_said() {
    let mut intake = intake();
    let (header, payload) = member(1, "wal", MemberAction::Join);
    assert_eq!(intake.receive(&header, &payload), Ok(Receipt::New));
    let lie = Member {
        action: MemberAction::Join,
        spec: VolumeSpec {
            size_bytes: 1 << 30,
            ..spec(1, "wal")
        },
    };
    let refused = intake.receive(&header, &lie.to_bytes());
    assert!(matches!(refused, Err(Violation::OtherVolume { .. })));
    let stranger = Member {
        action: MemberAction::Join,
        spec: spec(5, "else"),
    };
    let refused = intake.receive(&header, &stranger.to_bytes());
    assert!(matches!(refused, Err(Violation::UnknownVolume { .. })));
    assert!(matches!(
        intake.receive(&header, b"x"),
        Err(Violation::BadMember { .. })
    ));
}

#[test]
fn members_and_gaps_are_told_between_what_lies_before_and_after_them() {
    let mut intake = intake();
    take(&mut intake, header(1), &[]);
    let (join, payload) = member(2, "wal", MemberAction::Join);
    take(&mut intake, join, &payload);
    // Words of a source: nothing in them reaches a terminal but words.
    let reason = wire::member::gap_payload("ring\nfull");
    let gap = RecordHeader {
        kind: RecordKind::Gap,
        offset_bytes: 0,
        length_bytes: 0,
        payload_bytes: reason.len() as u32,
        ..header(3)
    };
    take(&mut intake, gap, &reason);
    take(&mut intake, header(4), &[]);
    settle(&mut intake, &mark(0, 4, &[]));
    let (volume, action) = (Name::new("wal").unwrap(), MemberAction::Join);
    let expected = [
        upto(1),
        Progress::Member {
            stamp: Stamp(2),
            volume,
            action,
        },
        upto(2),
        Progress::Gap {
            stamp: Stamp(3),
            reason: "ring?full".into(),
        },
        upto(3),
        upto(4),
    ];
    assert_eq!(intake.advance(), expected);
}

#[test]
fn a_number_means_one_volume_for_the_life_of_a_stream() {
    let mut intake = intake();
    assert_eq!(intake.announce(&[spec(1, "wal")]), Ok(None));
    let grown = intake.announce(&[spec(2, "more")]).unwrap().unwrap();
    assert_eq!(grown.volumes.len(), 3);
    intake.durable(Durable::Open(grown));
    assert_eq!(intake.volume(VolumeIndex(2)), Some(&spec(2, "more")));
    let moved = intake.announce(&[spec(2, "wal")]);
    assert!(matches!(moved, Err(Violation::OtherVolume { .. })));
    let many: Vec<_> = (0..300).map(|index| spec(100 + index, "x")).collect();
    assert_eq!(intake.announce(&many), Err(Violation::TooManyVolumes));
}

#[test]
fn members_and_gaps_that_wait_to_be_settled_have_a_bound_and_other_records_pass() {
    let open = StreamOpen {
        ring_slots: 1 << 20,
        ..open()
    };
    let mut intake = Intake::new(open, Base::default());
    let gap = |stamp| RecordHeader {
        kind: RecordKind::Gap,
        offset_bytes: 0,
        length_bytes: 0,
        ..header(stamp)
    };
    let max = NOTES_MAX as u64;
    for stamp in 1..max {
        take(&mut intake, gap(stamp), &[]);
    }
    // On its way to the journal: it counts already.
    assert_eq!(intake.receive(&gap(max), &[]), Ok(Receipt::New));
    let refused = intake.receive(&gap(max + 1), &[]);
    let stamp = Stamp(max + 1);
    assert_eq!(refused, Err(Violation::TooManyNotes { stamp }));
    assert_eq!(take(&mut intake, header(max + 1), &[]), Receipt::New);
    intake.durable(stored(gap(max), &[]));
    assert!(intake.receive(&gap(max + 2), &[]).is_err());
    settle(&mut intake, &mark(0, max + 1, &[]));
    intake.advance();
    assert_eq!(take(&mut intake, gap(max + 2), &[]), Receipt::New);
}
