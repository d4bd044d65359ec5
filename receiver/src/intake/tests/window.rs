//! A long window: what is asked of it is what a list of all its records would say.

use super::*;

/// So that it spans several runs of the index.
const RECORDS: u64 = 10_000;
const IN_SEGMENT: u64 = 700;

/// Record `stamp`: now and then one came late, and lies in a later segment.
fn lies_in(stamp: u64) -> u64 {
    1 + stamp / IN_SEGMENT + if stamp.is_multiple_of(97) { 2 } else { 0 }
}

fn long() -> Intake {
    let ring = StreamOpen {
        ring_slots: 1 << 20,
        ..open()
    };
    let mut intake = Intake::new(ring, Base::default());
    for stamp in 1..=RECORDS {
        let at = RecordAt {
            segment: lies_in(stamp),
            offset_bytes: stamp * 4224,
        };
        intake.durable(Durable::Record {
            header: header(stamp),
            at,
            note: Bytes::new(),
        });
    }
    intake.durable(Durable::Settle(mark(0, RECORDS, &[])));
    intake.advance();
    intake
}

#[test]
fn a_long_window_is_asked_by_time_by_segment_and_by_bytes() {
    let mut intake = long();
    let each = intake.bytes_waiting() / RECORDS;
    assert!(each > 4096 && each < 4400, "{each} bytes of journal each");
    for applied in [0, 1, 4095, 4096, 5000, RECORDS - 1] {
        intake.applied(Stamp(applied));
        let left = applied + 1..=RECORDS;
        assert_eq!(intake.bytes_waiting(), (RECORDS - applied) * each);
        for stamp in [applied + 1, 4096, 4097, 8192, 9_999, RECORDS] {
            let upto = stamp.max(applied);
            let bytes = intake.bytes_waiting_upto(Stamp(upto));
            assert_eq!(bytes, (upto - applied) * each, "{applied} {upto}");
            // Marks are a hundred apart.
            for (mark, expected) in [(stamp * 100, stamp), (stamp * 100 + 99, stamp)] {
                let expected = (left.contains(&expected)).then_some(Stamp(expected));
                assert_eq!(intake.last_before(TimeMark(mark)), expected, "{applied}");
            }
        }
        assert_eq!(intake.last_before(TimeMark((applied + 1) * 100 - 1)), None);
        for segment in 0..=lies_in(RECORDS) + 1 {
            let expected = left.clone().rev().find(|stamp| lies_in(*stamp) <= segment);
            assert_eq!(
                intake.last_in(segment),
                expected.map(Stamp),
                "{applied} {segment}"
            );
        }
    }
    intake.applied(Stamp(RECORDS));
    assert_eq!((intake.bytes_waiting(), intake.records_waiting()), (0, 0));
    assert_eq!(intake.last_in(u64::MAX), None);
}
