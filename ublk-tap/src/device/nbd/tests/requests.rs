//! Requests, byte for byte; and what of them is refused, with which error.

use super::super::negotiate::Terms;
use super::super::requests::{Header, Io, Limits, Parsed, Wish};
use crate::device::request::Op;
use proptest::prelude::*;

const SIZE: u64 = 1 << 40;
const LIMITS: Limits = Limits {
    size_bytes: SIZE,
    sector_bytes: 4096,
    can_trim: true,
    terms: Terms {
        is_structured: true,
        has_allocation: true,
    },
};

fn header(flags: u16, command: u16, offset_bytes: u64, length_bytes: u32) -> Header {
    Header {
        flags,
        command,
        cookie: 7,
        offset_bytes,
        length_bytes,
    }
}

fn io(flags: u16, command: u16) -> Io {
    match header(flags, command, 8192, 4096).check(&LIMITS) {
        Ok(Wish::Io(io)) => io,
        other => panic!("{other:?}"),
    }
}

fn errno(header: Header, limits: &Limits) -> i32 {
    header.check(limits).expect_err("it is refused")
}

#[test]
fn a_request_is_these_bytes() {
    let bytes = [
        0x25, 0x60, 0x95, 0x13, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0x20, 0, 0,
        0, 0x10, 0, 0xff,
    ];
    let expected = Header {
        flags: 1,
        command: 6,
        cookie: 0x0102_0304_0506_0708,
        offset_bytes: 8192,
        length_bytes: 4096,
    };
    assert_eq!(Header::parse(&bytes), Parsed::Request(expected));
    for cut in 0..28 {
        assert_eq!(Header::parse(&bytes[..cut]), Parsed::NeedMore);
    }
    let mut wrong = bytes;
    wrong[0] = 0x26;
    assert_eq!(Header::parse(&wrong), Parsed::Nonsense);
}

#[test]
fn commands_and_flags_mean_what_they_should() {
    assert_eq!(
        (io(0, 0).op, io(4, 0).op, io(1, 0).fua),
        (Op::Read, Op::Read, false)
    );
    assert!(io(1, 1).op == Op::Write && io(1, 1).fua);
    assert!(io(1, 4).op == Op::Discard && io(1, 4).fua);
    let zero = io(3, 6);
    assert!(zero.op == Op::Zero && zero.fua && zero.keep && !io(0, 6).keep);
    let flush = header(0, 3, 0, 0).check(&LIMITS);
    assert!(matches!(
        flush,
        Ok(Wish::Io(Io {
            op: Op::Flush,
            length_bytes: 0,
            ..
        }))
    ));
    assert_eq!(header(0, 2, 0, 0).check(&LIMITS), Ok(Wish::Leave));
    let status = header(8, 7, 8192, 4096).check(&LIMITS);
    assert!(matches!(status, Ok(Wish::Allocation { one: true, .. })));
}

#[test]
fn what_does_not_fit_is_refused_with_the_error_of_the_protocol() {
    let all = [0, 1, 4, 6, 7];
    for command in all {
        let refused = |offset, length| errno(header(0, command, offset, length), &LIMITS);
        assert_eq!(refused(512, 4096), libc::EINVAL, "inside a sector");
        assert_eq!(refused(4096, 512), libc::EINVAL, "less than a sector");
        assert_eq!(refused(4096, 0), libc::EINVAL, "nothing");
        let beyond = if [1, 6].contains(&command) {
            libc::ENOSPC
        } else {
            libc::EINVAL
        };
        for offset in [SIZE, SIZE - 4096, u64::MAX - 4095, u64::MAX] {
            assert_eq!(refused(offset, 8192), beyond, "{command} at {offset}");
        }
        let flags = header(1 << 9, command, 0, 4096);
        assert_eq!(errno(flags, &LIMITS), libc::EINVAL, "an unknown flag");
    }
    assert_eq!(
        errno(header(2, 1, 0, 4096), &LIMITS),
        libc::EINVAL,
        "of another command"
    );
    for command in [5, 8, 9, 0xffff] {
        assert_eq!(errno(header(0, command, 0, 4096), &LIMITS), libc::EINVAL);
    }
    let large = (32 << 20) + 4096;
    assert_eq!(errno(header(0, 1, 0, large), &LIMITS), libc::EINVAL);
    assert_eq!(errno(header(0, 0, 0, large), &LIMITS), libc::EOVERFLOW);
    assert!(
        header(0, 6, 0, u32::MAX - 4095).check(&LIMITS).is_ok(),
        "no payload"
    );
    let plain = Limits {
        can_trim: false,
        terms: Terms::default(),
        ..LIMITS
    };
    assert_eq!(errno(header(0, 0, 0, large), &plain), libc::EINVAL);
    for refused in [
        header(0, 4, 0, 4096),
        header(0, 7, 0, 4096),
        header(4, 0, 0, 4096),
    ] {
        assert_eq!(
            errno(refused, &plain),
            libc::EINVAL,
            "not agreed on: {refused:?}"
        );
    }
}

proptest! {
    #[test]
    fn no_request_reaches_outside_the_disk(
        bytes in proptest::collection::vec(any::<u8>(), 24..40),
        command in 0_u16..9,
    ) {
        let mut request = 0x2560_9513_u32.to_be_bytes().to_vec();
        request.extend(&bytes);
        request[6..8].copy_from_slice(&command.to_be_bytes());
        let Parsed::Request(header) = Header::parse(&request) else {
            panic!("all of it is there")
        };
        if let Ok(Wish::Io(io)) = header.check(&LIMITS) {
            prop_assert!(io.offset_bytes + u64::from(io.length_bytes) <= SIZE);
        }
    }
}
