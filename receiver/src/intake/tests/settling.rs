//! Settle marks and void records.

use super::*;

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
    let unknown = unknown::unknown(2, range);
    assert_eq!(intake.advance(), [upto(1), unknown, upto(2)]);
    assert!(
        intake
            .records(Stamp::ZERO, Stamp(2))
            .all(|(_, slot)| slot.is_void())
    );
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
