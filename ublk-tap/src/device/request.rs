//! A request of the application, checked. Pure.

/// What the application wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Read,
    Write,
    /// Make everything completed so far durable; has no range.
    Flush,
    /// The range may be forgotten; it reads as zeroes afterwards.
    Discard,
    /// The range reads as zeroes afterwards.
    Zero,
}

/// A request that fits the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) op: Op,
    pub(super) offset_bytes: u64,
    pub(super) length_bytes: u32,
    /// Durable before it completes.
    pub(super) fua: bool,
    /// Zeroes must stay allocated.
    pub(super) keep: bool,
}

/// A request as the driver describes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawRequest {
    pub(super) op_flags: u32,
    pub(super) start_sector: u64,
    pub(super) sectors: u32,
}

/// What a request must fit into.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub(super) size_bytes: u64,
    pub(super) sector_bytes: u32,
    pub(super) io_bytes_max: u32,
}

/// Largest discard or zero request we ask the kernel for.
pub(super) const ZERO_BYTES_MAX: u32 = wire::limits::RECORD_RANGE_BYTES_MAX;

/// The driver's number of `op`.
pub(super) fn raw_op(op: Op) -> u32 {
    match op {
        Op::Read => 0,
        Op::Write => 1,
        Op::Flush => 2,
        Op::Discard => 3,
        Op::Zero => 5,
    }
}

/// The driver's flags.
pub(super) fn raw_flags(fua: bool, keep: bool) -> u32 {
    let bit = |on: bool, bit: u32| if on { bit } else { 0 };
    bit(fua, FLAG_FUA) | bit(keep, FLAG_NOUNMAP)
}

const OP_MASK: u32 = 0xff;
const FLAG_FUA: u32 = 1 << 13;
const FLAG_NOUNMAP: u32 = 1 << 15;

impl Request {
    /// Checks `raw`; the error is the errno to complete with. The kernel keeps to the limits it was
    /// given, so a refusal means that one of us is wrong, and nothing is touched.
    pub(super) fn parse(raw: RawRequest, geometry: &Geometry) -> Result<Self, i32> {
        let op = match raw.op_flags & OP_MASK {
            0 => Op::Read,
            1 => Op::Write,
            2 => Op::Flush,
            3 => Op::Discard,
            5 => Op::Zero,
            _ => return Err(libc::EOPNOTSUPP),
        };
        let flag = |bit: u32| raw.op_flags & bit != 0;
        if op == Op::Flush {
            // Its sector is u64::MAX: no offset may be computed from it.
            return Ok(Self {
                op,
                offset_bytes: 0,
                length_bytes: 0,
                fua: false,
                keep: false,
            });
        }
        let offset_bytes = raw.start_sector.checked_mul(512).ok_or(libc::EINVAL)?;
        let length_bytes = raw.sectors.checked_mul(512).ok_or(libc::EINVAL)?;
        let request = Self {
            op,
            offset_bytes,
            length_bytes,
            fua: flag(FLAG_FUA),
            keep: flag(FLAG_NOUNMAP),
        };
        if request.fits(geometry) {
            Ok(request)
        } else {
            Err(libc::EINVAL)
        }
    }

    /// Whether bytes move between the application and the disk.
    pub(super) fn has_data(&self) -> bool {
        matches!(self.op, Op::Read | Op::Write)
    }

    /// What a successful request is completed with: the bytes moved, nothing for the others.
    pub(super) fn success(&self) -> i32 {
        // A length fits: requests with data are at most 1 MiB.
        if self.has_data() {
            self.length_bytes as i32
        } else {
            0
        }
    }

    fn fits(&self, geometry: &Geometry) -> bool {
        let most = if self.has_data() {
            geometry.io_bytes_max
        } else {
            ZERO_BYTES_MAX
        };
        let length = u64::from(self.length_bytes);
        let end = self.offset_bytes.checked_add(length);
        let sector = u64::from(geometry.sector_bytes);
        self.length_bytes > 0
            && self.length_bytes <= most
            && end.is_some_and(|end| end <= geometry.size_bytes)
            && (self.offset_bytes | length).is_multiple_of(sector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GEOMETRY: Geometry = Geometry {
        size_bytes: 1 << 30,
        sector_bytes: 4096,
        io_bytes_max: 512 << 10,
    };

    fn parse(op_flags: u32, start_sector: u64, sectors: u32) -> Result<Request, i32> {
        Request::parse(
            RawRequest {
                op_flags,
                start_sector,
                sectors,
            },
            &GEOMETRY,
        )
    }

    #[test]
    fn a_flush_is_taken_although_its_sector_is_the_largest_number() {
        let flush = parse(2, u64::MAX, 0).unwrap();
        assert_eq!((flush.op, flush.success()), (Op::Flush, 0));
    }

    #[test]
    fn a_write_with_fua_says_so() {
        let write = parse(1 | FLAG_FUA, 8, 8).unwrap();
        assert!(write.fua && !write.keep);
        assert_eq!(
            (write.offset_bytes, write.length_bytes, write.success()),
            (4096, 4096, 4096)
        );
        assert!(parse(5 | FLAG_NOUNMAP, 8, 8).unwrap().keep);
    }

    #[test]
    fn what_is_written_as_the_driver_would_is_read_as_meant() {
        for op in [Op::Read, Op::Write, Op::Discard, Op::Zero] {
            for (fua, keep) in [(false, false), (true, false), (false, true)] {
                let request = parse(raw_op(op) | raw_flags(fua, keep), 8, 8).unwrap();
                assert_eq!((request.op, request.fua, request.keep), (op, fua, keep));
            }
        }
        assert_eq!(parse(raw_op(Op::Flush), 0, 0).unwrap().op, Op::Flush);
    }

    #[test]
    fn what_the_kernel_should_not_send_is_refused() {
        assert_eq!(parse(0, 8, 0), Err(libc::EINVAL), "empty");
        assert_eq!(parse(0, 1, 8), Err(libc::EINVAL), "inside a sector");
        assert_eq!(parse(1, 0, 1032), Err(libc::EINVAL), "larger than a buffer");
        assert_eq!(
            parse(1, (1 << 21) - 8, 16),
            Err(libc::EINVAL),
            "over the end"
        );
        assert_eq!(parse(10, 0, 8), Err(libc::EOPNOTSUPP), "zones");
        assert!(parse(3, 0, ZERO_BYTES_MAX / 512).is_ok());
        assert_eq!(parse(3, 0, ZERO_BYTES_MAX / 512 + 8), Err(libc::EINVAL));
    }

    proptest! {
        #[test]
        fn no_request_reaches_outside_the_disk(op in any::<u32>(), at: u64, n: u32) {
            if let Ok(request) = parse(op, at, n) {
                prop_assert!(request.offset_bytes + u64::from(request.length_bytes) <= 1 << 30);
            }
        }
    }
}
