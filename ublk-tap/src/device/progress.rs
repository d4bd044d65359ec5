//! What to ask of the disk next for one request, until it is done or failed. Pure.
//!
//! A short result never goes up: the kernel would send the remainder as a new request, whose record
//! would overlap ours. Nor does a passing error (`EAGAIN`, `ENOMEM`), nor a zero result, which the
//! kernel answers by sending a write again for ever: those are tried again, for a while.

use super::request::{Op, Request};

/// One operation of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiskOp {
    /// `len` bytes from the disk to the buffer, from byte `done` of the request.
    Read {
        offset_bytes: u64,
        done_bytes: u32,
        length_bytes: u32,
    },
    /// The other way; `durable` past every cache.
    Write {
        offset_bytes: u64,
        done_bytes: u32,
        length_bytes: u32,
        durable: bool,
    },
    /// Zeroes from our own memory.
    WriteZeroes {
        offset_bytes: u64,
        length_bytes: u32,
    },
    /// Deallocates; reads as zeroes.
    Punch {
        offset_bytes: u64,
        length_bytes: u32,
    },
    /// Reads as zeroes, stays allocated.
    ZeroRange {
        offset_bytes: u64,
        length_bytes: u32,
    },
    /// Makes completed writes durable.
    Sync,
}

/// What comes after an answer of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Issue(DiskOp),
    /// The same, after a pause.
    IssueLater(DiskOp),
    Done,
    /// With the errno to complete with.
    Failed(i32),
}

/// Ways of zeroing a disk has; what it refused once is not tried again on the same queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ways {
    pub(super) punch: bool,
    pub(super) zero_range: bool,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    request: Request,
    done_bytes: u32,
    /// Answers in a row that brought nothing.
    tries: u32,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Data,
    Punch,
    ZeroRange,
    ZeroBytes,
    Sync,
}

/// Most zeroes written by one operation.
pub(super) const ZERO_CHUNK_BYTES: u32 = 256 << 10;
/// Fruitless tries made at once; the others after a pause of the driver.
const TRIES_AT_ONCE: u32 = 3;
/// Fruitless tries after which the request fails; with pauses of 5 ms about ten seconds.
const TRIES_MAX: u32 = 2000;

impl Progress {
    /// Nothing done yet.
    pub(super) fn new(request: Request, ways: &Ways) -> Self {
        let stage = match request.op {
            Op::Read | Op::Write => Stage::Data,
            Op::Flush => Stage::Sync,
            Op::Discard => Stage::Punch,
            Op::Zero => zero_stage(request.keep, ways),
        };
        Self {
            request,
            done_bytes: 0,
            tries: 0,
            stage,
        }
    }

    /// The request.
    pub(super) fn request(&self) -> &Request {
        &self.request
    }

    /// What to ask of the disk now.
    pub(super) fn op(&self) -> DiskOp {
        let done_bytes = self.done_bytes;
        let offset_bytes = self.request.offset_bytes + u64::from(done_bytes);
        let length_bytes = self.request.length_bytes - done_bytes;
        match self.stage {
            Stage::Data if self.request.op == Op::Read => DiskOp::Read {
                offset_bytes,
                done_bytes,
                length_bytes,
            },
            Stage::Data => {
                let durable = self.request.fua;
                DiskOp::Write {
                    offset_bytes,
                    done_bytes,
                    length_bytes,
                    durable,
                }
            }
            Stage::Punch => DiskOp::Punch {
                offset_bytes,
                length_bytes,
            },
            Stage::ZeroRange => DiskOp::ZeroRange {
                offset_bytes,
                length_bytes,
            },
            Stage::ZeroBytes => DiskOp::WriteZeroes {
                offset_bytes,
                length_bytes: length_bytes.min(ZERO_CHUNK_BYTES),
            },
            Stage::Sync => DiskOp::Sync,
        }
    }

    /// The disk has answered: bytes, or minus an errno.
    pub(super) fn answered(&mut self, result: i32, ways: &mut Ways) -> Next {
        match -result {
            // A sync that failed has told what it had to tell: the next one would say that all is
            // well, and what the disk lost in between is lost (P10).
            errno if self.stage == Stage::Sync && is_final_for_sync(errno) => {
                Next::Failed(presentable(errno))
            }
            libc::EAGAIN | libc::EINTR | libc::ENOMEM | libc::EBUSY => self.again(libc::EIO),
            libc::EOPNOTSUPP | libc::ENOSYS if self.fall_back(ways) => Next::Issue(self.op()),
            errno if errno > 0 => Next::Failed(presentable(errno)),
            _ => self.advanced(result.unsigned_abs()),
        }
    }

    fn advanced(&mut self, bytes: u32) -> Next {
        match self.stage {
            Stage::Sync => return Next::Done,
            Stage::Punch | Stage::ZeroRange => self.done_bytes = self.request.length_bytes,
            Stage::Data | Stage::ZeroBytes if bytes == 0 => return self.again(libc::EIO),
            Stage::Data | Stage::ZeroBytes => self.done_bytes += bytes,
        }
        assert!(
            self.done_bytes <= self.request.length_bytes,
            "a disk moves what it was asked to"
        );
        self.tries = 0;
        if self.done_bytes < self.request.length_bytes {
            return Next::Issue(self.op());
        }
        if self.request.fua && self.stage != Stage::Data {
            self.stage = Stage::Sync;
            return Next::Issue(self.op());
        }
        Next::Done
    }

    fn again(&mut self, errno: i32) -> Next {
        self.tries += 1;
        match self.tries {
            TRIES_MAX.. => Next::Failed(errno),
            TRIES_AT_ONCE.. => Next::IssueLater(self.op()),
            _ => Next::Issue(self.op()),
        }
    }

    /// The next way of zeroing, if this one is refused and there is another.
    fn fall_back(&mut self, ways: &mut Ways) -> bool {
        match (self.request.op, self.stage) {
            (Op::Zero, Stage::Punch) => ways.punch = false,
            (Op::Zero, Stage::ZeroRange) => ways.zero_range = false,
            _ => return false,
        }
        self.stage = zero_stage(self.request.keep, ways);
        true
    }
}

/// Whether a sync that ends so was made, and failed.
fn is_final_for_sync(errno: i32) -> bool {
    errno > 0 && !matches!(errno, libc::EAGAIN | libc::EINTR)
}

fn zero_stage(keep: bool, ways: &Ways) -> Stage {
    if ways.punch && !keep {
        Stage::Punch
    } else if ways.zero_range {
        Stage::ZeroRange
    } else {
        Stage::ZeroBytes
    }
}

/// The errno the application gets: those the block layer has a status for; all others are `EIO`.
pub(super) fn presentable(errno: i32) -> i32 {
    match errno {
        libc::ENOSPC
        | libc::ENODATA
        | libc::EILSEQ
        | libc::ETIMEDOUT
        | libc::EREMOTEIO
        | libc::ENOLINK
        | libc::EBADE
        | libc::ENODEV
        | libc::EOPNOTSUPP
        | libc::EINVAL => errno,
        _ => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: Ways = Ways {
        punch: true,
        zero_range: true,
    };

    fn request(op: Op, length_bytes: u32) -> Request {
        Request {
            op,
            offset_bytes: 8192,
            length_bytes,
            fua: false,
            keep: false,
        }
    }

    fn start(request: Request) -> (Progress, Ways) {
        (Progress::new(request, &ALL), ALL)
    }

    #[test]
    fn a_short_write_is_finished_inside() {
        let (mut progress, mut ways) = start(request(Op::Write, 16384));
        assert_eq!(
            progress.answered(4096, &mut ways),
            Next::Issue(DiskOp::Write {
                offset_bytes: 12288,
                done_bytes: 4096,
                length_bytes: 12288,
                durable: false
            })
        );
        assert_eq!(progress.answered(12288, &mut ways), Next::Done);
    }

    #[test]
    fn a_durable_write_stays_durable_in_its_remainder() {
        let (mut progress, mut ways) = start(Request {
            fua: true,
            ..request(Op::Write, 8192)
        });
        let next = progress.answered(4096, &mut ways);
        assert!(
            matches!(next, Next::Issue(DiskOp::Write { durable: true, .. })),
            "{next:?}"
        );
        assert_eq!(
            progress.answered(4096, &mut ways),
            Next::Done,
            "no flush needed after it"
        );
    }

    #[test]
    fn a_passing_error_is_tried_again_and_never_shown() {
        for passing in [0, -libc::EAGAIN, -libc::ENOMEM, -libc::EINTR, -libc::EBUSY] {
            let (mut progress, mut ways) = start(request(Op::Write, 4096));
            assert!(matches!(
                progress.answered(passing, &mut ways),
                Next::Issue(_)
            ));
            assert_eq!(progress.answered(4096, &mut ways), Next::Done);

            let (mut progress, mut ways) = start(request(Op::Write, 4096));
            let mut paused = false;
            let end = loop {
                match progress.answered(passing, &mut ways) {
                    Next::IssueLater(_) => paused = true,
                    Next::Issue(_) => assert!(!paused, "pauses once it lasts"),
                    end => break end,
                }
            };
            assert_eq!((end, paused), (Next::Failed(libc::EIO), true));
        }
    }

    #[test]
    fn a_flush_that_failed_is_not_tried_again() {
        for errno in [libc::EIO, libc::ENOMEM, libc::EBUSY, libc::EOPNOTSUPP] {
            let (mut progress, mut ways) = start(request(Op::Flush, 0));
            let next = progress.answered(-errno, &mut ways);
            assert_eq!(next, Next::Failed(presentable(errno)), "{errno}");
        }
        for errno in [libc::EAGAIN, libc::EINTR] {
            let (mut progress, mut ways) = start(request(Op::Flush, 0));
            let next = progress.answered(-errno, &mut ways);
            assert_eq!(next, Next::Issue(DiskOp::Sync), "{errno}");
        }
        // Nor the one after zeroes that are to be durable.
        let (mut progress, mut ways) = start(Request {
            fua: true,
            ..request(Op::Zero, 4096)
        });
        progress.answered(0, &mut ways);
        let next = progress.answered(-libc::ENOMEM, &mut ways);
        assert_eq!(next, Next::Failed(libc::EIO));
    }

    #[test]
    fn zeroes_fall_back_until_they_are_written_as_bytes_and_the_queue_remembers() {
        let (mut progress, mut ways) = start(request(Op::Zero, 600 << 10));
        assert!(matches!(progress.op(), DiskOp::Punch { .. }));
        let next = progress.answered(-libc::EOPNOTSUPP, &mut ways);
        assert!(
            matches!(next, Next::Issue(DiskOp::ZeroRange { .. })),
            "{next:?}"
        );
        let mut next = progress.answered(-libc::EOPNOTSUPP, &mut ways);
        let mut written = 0;
        while let Next::Issue(DiskOp::WriteZeroes {
            offset_bytes,
            length_bytes,
        }) = next
        {
            assert_eq!(offset_bytes, 8192 + u64::from(written));
            written += length_bytes;
            next = progress.answered(length_bytes as i32, &mut ways);
        }
        assert_eq!((next, written), (Next::Done, 600 << 10));
        assert_eq!(
            ways,
            Ways {
                punch: false,
                zero_range: false
            }
        );
    }

    #[test]
    fn zeroes_that_must_stay_allocated_are_never_punched() {
        let keep = Request {
            keep: true,
            ..request(Op::Zero, 4096)
        };
        assert!(matches!(
            Progress::new(keep, &ALL).op(),
            DiskOp::ZeroRange { .. }
        ));
    }

    #[test]
    fn a_discard_the_disk_refuses_fails_and_writes_nothing() {
        let (mut progress, mut ways) = start(request(Op::Discard, 4096));
        assert_eq!(
            progress.answered(-libc::EOPNOTSUPP, &mut ways),
            Next::Failed(libc::EOPNOTSUPP)
        );
        assert_eq!(ways, ALL);
    }

    #[test]
    fn a_durable_zero_is_flushed() {
        let (mut progress, mut ways) = start(Request {
            fua: true,
            ..request(Op::Zero, 4096)
        });
        assert_eq!(progress.answered(0, &mut ways), Next::Issue(DiskOp::Sync));
        assert_eq!(progress.answered(0, &mut ways), Next::Done);
    }

    #[test]
    fn an_unknown_error_is_an_input_output_error() {
        let (mut progress, mut ways) = start(request(Op::Read, 4096));
        assert_eq!(
            progress.answered(-libc::EFAULT, &mut ways),
            Next::Failed(libc::EIO)
        );
        let (mut progress, mut ways) = start(request(Op::Write, 4096));
        assert_eq!(
            progress.answered(-libc::ENOSPC, &mut ways),
            Next::Failed(libc::ENOSPC)
        );
    }

    proptest! {
        #[test]
        fn whatever_the_disk_answers_every_byte_is_asked_for_once_and_it_ends(
            op in prop_oneof![Just(Op::Read), Just(Op::Write), Just(Op::Zero)],
            sectors in 1_u32..2048,
            answers in proptest::collection::vec(-133_i32..1_000_000, 1..200),
        ) {
            let (mut progress, mut ways) = start(request(op, sectors * 512));
            let mut moved = 0_u64;
            let mut answers = answers.into_iter().chain(std::iter::repeat(512));
            loop {
                let most = match progress.op() {
                    DiskOp::Read { length_bytes, .. }
                    | DiskOp::Write { length_bytes, .. }
                    | DiskOp::WriteZeroes { length_bytes, .. } => length_bytes as i32,
                    DiskOp::Punch { .. } | DiskOp::ZeroRange { .. } | DiskOp::Sync => 0,
                };
                let answer = answers.next().unwrap().min(most);
                moved += answer.max(0) as u64;
                match progress.answered(answer, &mut ways) {
                    Next::Issue(op) | Next::IssueLater(op) => prop_assert_eq!(op, progress.op()),
                    Next::Done => {
                        prop_assert!(moved == 0 || moved == u64::from(sectors) * 512);
                        break;
                    }
                    Next::Failed(errno) => {
                        prop_assert!(errno > 0 && ![libc::EAGAIN, libc::ENOMEM].contains(&errno));
                        break;
                    }
                }
            }
        }
    }
}
