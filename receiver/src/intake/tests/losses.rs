//! What is gone: into the base, by damage, with a closed stream.

use super::*;

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
