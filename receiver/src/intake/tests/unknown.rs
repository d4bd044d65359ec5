//! Failed writes at the source: ranges that are unknown until later records have covered them.

use super::*;

pub(super) fn unknown(stamp: u64, range: ByteRange) -> Progress {
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
