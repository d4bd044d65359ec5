//! Stories of one stream: any order, any repetition, cuts, losses.

use super::*;
use crate::fold::{ByteRange, RecordAt};
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
fn settle_marks_form_a_chain_and_are_journaled_one_at_a_time_up_to_what_was_received() {
    let mut intake = intake();
    intake.settle(&mark(0, 5, &[2])).unwrap();
    assert_eq!(intake.settle_due(), None, "no record has come");
    for stamp in 1..=3 {
        take(&mut intake, header(stamp), &[]);
    }
    assert_eq!(intake.settle_due(), Some(mark(0, 3, &[2])));
    intake.settle(&mark(5, 6, &[])).unwrap();
    take(&mut intake, header(4), &[]);
    assert_eq!(intake.settle_due(), None, "one is under way");
    intake.durable(Durable::Settle(mark(0, 3, &[2])));
    assert_eq!(intake.settled(), Stamp(3));
    assert_eq!(intake.settle_due(), Some(mark(3, 4, &[])));
    let hole = intake.settle(&mark(7, 9, &[]));
    assert_eq!(
        hole,
        Err(Violation::SettleHole {
            after: Stamp(7),
            expected: Stamp(6)
        })
    );
}

#[test]
fn a_mark_with_more_voids_than_an_entry_takes_is_journaled_in_parts() {
    let slots = 20_000u32;
    let mut intake = Intake::new(
        StreamOpen {
            ring_slots: slots,
            ..open()
        },
        Base::default(),
    );
    let voids: Vec<u64> = (1..=u64::from(slots)).collect();
    for stamp in &voids {
        take(&mut intake, header(*stamp), &[]);
    }
    for part in voids.chunks(3000) {
        intake
            .settle(&mark(part[0] - 1, part[part.len() - 1], part))
            .unwrap();
    }
    let mut parts = 0;
    while let Some(due) = intake.settle_due() {
        assert_eq!(SettleMark::parse(&due.to_bytes()).as_ref(), Ok(&due));
        intake.durable(Durable::Settle(due));
        parts += 1;
    }
    assert_eq!((parts, intake.settled()), (5, Stamp(u64::from(slots))));
    intake.advance();
    assert!(
        intake
            .records(Stamp::ZERO, Stamp(1 << 40))
            .all(|(_, slot)| slot.is_void())
    );
}

#[test]
fn a_void_record_is_there_without_effect_and_a_void_join_did_not_happen() {
    let mut intake = intake();
    let (join, payload) = member(1, "data", MemberAction::Join);
    take(&mut intake, join, &payload);
    take(&mut intake, header(2), &[]);
    settle(&mut intake, &mark(0, 2, &[1, 2]));
    let range = ByteRange::new(4096, 4096);
    assert_eq!(intake.advance(), [upto(1), unknown(2, range), upto(2)]);
    assert!(
        intake
            .records(Stamp::ZERO, Stamp(2))
            .all(|(_, slot)| slot.is_void())
    );
}

fn unknown(stamp: u64, range: ByteRange) -> Progress {
    Progress::Unknown {
        stamp: Stamp(stamp),
        volume: Name::new("data").unwrap(),
        range,
    }
}

fn known(stamp: u64) -> Progress {
    Progress::Known {
        stamp: Stamp(stamp),
        volume: Name::new("data").unwrap(),
    }
}

#[test]
fn what_a_failed_write_left_is_unknown_until_later_records_have_covered_it() {
    let mut intake = intake();
    let range = ByteRange::new(4096, 8192);
    let failed = RecordHeader {
        length_bytes: 8192,
        ..header(2)
    };
    for header in [header(1), failed, header(3)] {
        take(&mut intake, header, &[]);
    }
    settle(&mut intake, &mark(0, 3, &[2]));
    assert_eq!(
        intake.advance(),
        [upto(1), unknown(2, range), upto(2), upto(3)]
    );
    let data = Name::new("data").unwrap();
    let left: Vec<_> = intake.unknown(&data).collect();
    assert_eq!(left, [ByteRange::new(8192, 4096)]);
    let copy = RecordHeader {
        kind: RecordKind::Copy,
        offset_bytes: 8192,
        ..header(4)
    };
    take(&mut intake, copy, &[]);
    take(&mut intake, header(5), &[]);
    settle(&mut intake, &mark(3, 5, &[]));
    assert_eq!(intake.advance(), [known(4), upto(4), upto(5)]);
    assert_eq!(intake.unknown(&data).count(), 0);
}

#[test]
fn a_claim_given_back_and_a_copy_that_was_never_made_leave_nothing_unknown() {
    let mut intake = intake();
    for (stamp, kind) in [(1, RecordKind::Void), (2, RecordKind::Copy)] {
        let header = RecordHeader {
            kind,
            ..header(stamp)
        };
        take(&mut intake, header, &[]);
    }
    settle(&mut intake, &mark(0, 2, &[1, 2]));
    assert_eq!(intake.advance(), [upto(2)]);
}

#[test]
fn a_volume_that_joins_is_copied_and_what_was_unknown_of_it_forgotten() {
    let mut intake = intake();
    take(&mut intake, header(1), &[]);
    let (join, payload) = member(2, "data", MemberAction::Join);
    take(&mut intake, join, &payload);
    take(&mut intake, header(3), &[]);
    settle(&mut intake, &mark(0, 3, &[1]));
    let progress = intake.advance();
    assert_eq!(progress[0], unknown(1, ByteRange::new(4096, 4096)));
    assert!(!progress.contains(&known(3)), "{progress:?}");
    assert_eq!(intake.unknown(&Name::new("data").unwrap()).count(), 0);
}

#[test]
fn a_void_stamp_whose_record_was_damaged_stays_void_when_the_record_comes_again() {
    let mut intake = intake();
    for stamp in [1, 3] {
        intake.durable(stored(header(stamp), &[]));
    }
    intake.durable(Durable::Settle(mark(0, 3, &[2])));
    take(&mut intake, header(2), &[]);
    intake.advance();
    let void: Vec<_> = intake
        .records(Stamp::ZERO, Stamp(9))
        .map(|(_, slot)| slot.is_void())
        .collect();
    assert_eq!(void, [false, true, false]);
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
fn marks_rise_along_the_prefix_whatever_the_source_gave() {
    let mut intake = Intake::new(
        open(),
        Base {
            applied: Stamp::ZERO,
            mark: TimeMark(500),
        },
    );
    for (stamp, raw) in [(2, 10), (1, 900), (3, 0), (4, 2000)] {
        let header = RecordHeader {
            mark: TimeMark(raw),
            ..header(stamp)
        };
        take(&mut intake, header, &[]);
    }
    assert_eq!(intake.last_mark(), TimeMark(2000));
    settle(&mut intake, &mark(0, 3, &[]));
    let progress = intake.advance();
    assert_eq!(
        progress,
        [Progress::Upto {
            stamp: Stamp(3),
            mark: TimeMark(902)
        }]
    );
}

#[test]
fn what_is_in_the_base_is_forgotten_and_not_taken_again() {
    let mut intake = intake();
    for stamp in 1..=4 {
        take(&mut intake, header(stamp), &[]);
    }
    settle(&mut intake, &mark(0, 4, &[]));
    intake.advance();
    intake.applied(Stamp(3));
    let left: Vec<_> = intake
        .records(Stamp::ZERO, Stamp(9))
        .map(|(stamp, _)| stamp)
        .collect();
    assert_eq!(left, [Stamp(4)]);
    assert_eq!(intake.receive(&header(2), &[]), Ok(Receipt::Again));
    intake.durable(stored(header(2), &[]));
    assert_eq!(intake.records(Stamp::ZERO, Stamp(9)).count(), 1);
}

#[test]
fn a_new_session_sends_settle_marks_again_from_the_durable_one() {
    let mut intake = intake();
    take(&mut intake, header(1), &[]);
    settle(&mut intake, &mark(0, 3, &[3]));
    assert_eq!(intake.settled(), Stamp(1));
    intake.greet();
    settle(&mut intake, &mark(1, 2, &[]));
    assert!(intake.settle(&mark(1, 3, &[])).is_err());
    intake.settle(&mark(2, 3, &[])).unwrap();
}

#[test]
fn a_hole_the_source_cannot_fill_is_passed_and_named() {
    let mut intake = intake();
    for stamp in [1, 2, 5, 6] {
        take(&mut intake, header(stamp), &[]);
    }
    settle(&mut intake, &mark(0, 2, &[]));
    assert_eq!(intake.loss(Stamp(3)), None);
    let lost = intake.loss(Stamp(6)).unwrap();
    assert_eq!((lost.after, lost.upto), (Stamp(2), Stamp(5)));
    intake.durable(Durable::Lost(lost.clone()));
    let StreamLost {
        after,
        upto: end,
        reason,
    } = lost;
    let mark_of_two = Progress::Upto {
        stamp: Stamp(5),
        mark: TimeMark(200),
    };
    let lost = Progress::Lost {
        after,
        mark: TimeMark(200),
        upto: end,
        reason,
    };
    assert_eq!(intake.advance(), [upto(2), lost, mark_of_two]);
    assert_eq!(
        (intake.durable_prefix(), intake.settled()),
        (Stamp(6), Stamp(5))
    );
    settle(&mut intake, &mark(5, 6, &[]));
    assert_eq!(intake.advance(), [upto(6)]);
    let left: Vec<_> = intake
        .records(Stamp(2), Stamp(9))
        .map(|(stamp, _)| stamp)
        .collect();
    assert_eq!(left, [Stamp(6)]);
}

#[test]
fn a_record_found_damaged_later_is_named_late_and_skipped() {
    let mut intake = intake();
    for stamp in 1..=5 {
        take(&mut intake, header(stamp), &[]);
    }
    settle(&mut intake, &mark(0, 5, &[]));
    assert_eq!(intake.advance(), [upto(5)]);
    let at = RecordAt {
        segment: 1,
        offset_bytes: 3 * 8192,
    };
    assert_eq!(intake.stamp_at(at), Some(Stamp(3)));
    let lost = StreamLost {
        after: Stamp(2),
        upto: Stamp(3),
        reason: "damaged".into(),
    };
    intake.durable(Durable::Lost(lost));
    assert!(matches!(
        intake.advance()[..],
        [Progress::Lost {
            after: Stamp(2),
            ..
        }]
    ));
    let void: Vec<_> = intake
        .records(Stamp::ZERO, Stamp(9))
        .filter(|(_, slot)| slot.is_void())
        .collect();
    assert_eq!(void.len(), 1);
    assert_eq!(void[0].0, Stamp(3));
}

#[test]
fn a_closed_stream_ends_where_it_was_closed_also_after_a_restart() {
    let mut intake = intake();
    for stamp in 1..=6 {
        take(&mut intake, header(stamp), &[]);
    }
    settle(&mut intake, &mark(0, 4, &[]));
    intake.durable(Durable::Close(StreamClose { upto: Stamp(4) }));
    settle(&mut intake, &mark(4, 6, &[]));
    assert_eq!(intake.advance(), [upto(4)]);
    assert_eq!(intake.closed(), Some(Stamp(4)));
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

/// A stream of records, members and void records, with its settle marks.
fn script() -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
    (5usize..40).prop_flat_map(|count| {
        let kinds = proptest::collection::vec(0u8..6, count);
        let order = proptest::collection::vec(0usize..count, count * 3);
        (kinds, order)
    })
}

fn record_of(kind: u8, stamp: u64) -> (RecordHeader, Vec<u8>) {
    match kind {
        0 => member(stamp, "wal", MemberAction::Join),
        1 => member(stamp, "data", MemberAction::Ready),
        _ => (header(stamp), Vec::new()),
    }
}

fn settles(kinds: &[u8]) -> Vec<SettleMark> {
    let each = (1u64..).zip(kinds);
    each.map(|(stamp, kind)| {
        let void = if *kind == 5 { vec![stamp] } else { Vec::new() };
        mark(stamp - 1, stamp, &void)
    })
    .collect()
}

/// All progress, with places in between left out: how often one looks does not matter.
fn condensed(progress: Vec<Progress>) -> Vec<Progress> {
    let mut out: Vec<Progress> = Vec::new();
    for step in progress {
        if matches!(step, Progress::Upto { .. })
            && matches!(out.last(), Some(Progress::Upto { .. }))
        {
            out.pop();
        }
        out.push(step);
    }
    out
}

proptest! {
    #[test]
    fn any_order_any_repetition_and_a_restart_give_the_same_progress(
        (kinds, order) in script(), restart in any::<prop::sample::Index>()
    ) {
        let mut straight = intake();
        for (stamp, kind) in (1u64..).zip(&kinds) {
            let (header, payload) = record_of(*kind, stamp);
            take(&mut straight, header, &payload);
        }
        for mark in settles(&kinds) {
            settle(&mut straight, &mark);
        }
        let expected = straight.advance();

        let mut mixed = intake();
        let mut journal: Vec<Durable> = Vec::new();
        let mut progress = Vec::new();
        let mut marks = settles(&kinds).into_iter();
        let everything = order.iter().copied().chain(0..kinds.len());
        let restart_at = restart.index(order.len());
        for (step, at) in everything.enumerate() {
            let (header, payload) = record_of(kinds[at], at as u64 + 1);
            if mixed.receive(&header, &payload).unwrap() == Receipt::New {
                journal.push(stored(header, &payload));
                mixed.durable(stored(header, &payload));
            }
            if step % 2 == 0 && let Some(mark) = marks.next() {
                mixed.settle(&mark).unwrap();
            }
            while let Some(due) = mixed.settle_due() {
                journal.push(Durable::Settle(due.clone()));
                mixed.durable(Durable::Settle(due));
            }
            progress.extend(mixed.advance());
            if step == restart_at {
                mixed = intake();
                progress.clear();
                journal.iter().for_each(|durable| mixed.durable(durable.clone()));
                let settled = mixed.settled();
                marks = settles(&kinds).split_off(settled.0 as usize).into_iter();
                progress.extend(mixed.advance());
            }
        }
        for mark in marks {
            mixed.settle(&mark).unwrap();
        }
        store_settles(&mut mixed);
        progress.extend(mixed.advance());
        prop_assert_eq!(condensed(progress), condensed(expected));
    }
}
