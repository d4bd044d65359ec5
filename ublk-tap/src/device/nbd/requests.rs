//! A request of a client: read from its bytes, and checked. Pure.

use super::negotiate::Terms;
use super::wire::{self, Reader, command, flag};
use crate::device::request::Op;

/// A request as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) flags: u16,
    pub(super) command: u16,
    pub(super) cookie: u64,
    pub(super) offset_bytes: u64,
    pub(super) length_bytes: u32,
}

/// What the bytes at hand are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Not all of a request.
    NeedMore,
    /// Not the beginning of one: nobody knows where the next begins.
    Nonsense,
    Request(Header),
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Something of the disk.
    Io(Io),
    /// What is allocated; of one extent only, if so.
    Allocation {
        offset_bytes: u64,
        length_bytes: u32,
        one: bool,
    },
    /// To go.
    Leave,
}

/// A request to the disk that fits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Io {
    pub(super) op: Op,
    pub(super) offset_bytes: u64,
    pub(super) length_bytes: u32,
    pub(super) fua: bool,
    pub(super) keep: bool,
}

/// What a request must fit into.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) size_bytes: u64,
    pub(super) sector_bytes: u32,
    pub(super) can_trim: bool,
    pub(super) terms: Terms,
}

impl Header {
    /// Reads one from the front of `input`.
    pub(super) fn parse(input: &[u8]) -> Parsed {
        let mut reader = Reader(input);
        match reader.u32() {
            None => return Parsed::NeedMore,
            Some(wire::REQUEST_MAGIC) => {}
            Some(_) => return Parsed::Nonsense,
        }
        let mut read = || {
            Some(Self {
                flags: reader.u16()?,
                command: reader.u16()?,
                cookie: reader.u64()?,
                offset_bytes: reader.u64()?,
                length_bytes: reader.u32()?,
            })
        };
        read().map_or(Parsed::NeedMore, Parsed::Request)
    }

    /// Bytes that follow it, whatever becomes of it.
    pub(super) fn payload_bytes(&self) -> u32 {
        if self.command == command::WRITE {
            self.length_bytes
        } else {
            0
        }
    }

    /// Checks it; the error is the errno to answer with.
    pub(super) fn check(&self, limits: &Limits) -> Result<Wish, i32> {
        let (op, flags) = match self.command {
            command::READ if limits.terms.is_structured => (Op::Read, flag::DF),
            command::READ => (Op::Read, 0),
            command::WRITE => (Op::Write, 0),
            command::FLUSH => (Op::Flush, 0),
            command::TRIM if limits.can_trim => (Op::Discard, 0),
            command::WRITE_ZEROES => (Op::Zero, flag::NO_HOLE),
            command::DISC => return Ok(Wish::Leave),
            command::BLOCK_STATUS => return self.check_allocation(limits),
            _ => return Err(libc::EINVAL),
        };
        // FUA is legal everywhere, and means something where something is written.
        if self.flags & !(flags | flag::FUA) != 0 {
            return Err(libc::EINVAL);
        }
        if op == Op::Flush {
            return Ok(Wish::Io(Io {
                op,
                offset_bytes: 0,
                length_bytes: 0,
                fua: false,
                keep: false,
            }));
        }
        self.check_range(limits)?;
        if op == Op::Read && self.length_bytes > wire::PAYLOAD_BYTES_MAX {
            return Err(if limits.terms.is_structured {
                libc::EOVERFLOW
            } else {
                libc::EINVAL
            });
        }
        if op == Op::Write && self.length_bytes > wire::PAYLOAD_BYTES_MAX {
            return Err(libc::EINVAL);
        }
        Ok(Wish::Io(Io {
            op,
            offset_bytes: self.offset_bytes,
            length_bytes: self.length_bytes,
            fua: self.flags & flag::FUA != 0 && op != Op::Read,
            keep: self.flags & flag::NO_HOLE != 0,
        }))
    }

    fn check_allocation(&self, limits: &Limits) -> Result<Wish, i32> {
        let is_legal = self.flags & !(flag::REQ_ONE | flag::FUA) == 0;
        if !is_legal || !limits.terms.has_allocation {
            return Err(libc::EINVAL);
        }
        self.check_range(limits)?;
        Ok(Wish::Allocation {
            offset_bytes: self.offset_bytes,
            length_bytes: self.length_bytes,
            one: self.flags & flag::REQ_ONE != 0,
        })
    }

    fn check_range(&self, limits: &Limits) -> Result<(), i32> {
        let length = u64::from(self.length_bytes);
        let end = self.offset_bytes.checked_add(length);
        if end.is_none_or(|end| end > limits.size_bytes) {
            let writes = matches!(self.command, command::WRITE | command::WRITE_ZEROES);
            return Err(if writes { libc::ENOSPC } else { libc::EINVAL });
        }
        let is_aligned =
            (self.offset_bytes | length).is_multiple_of(u64::from(limits.sector_bytes));
        if self.length_bytes == 0 || !is_aligned {
            return Err(libc::EINVAL);
        }
        Ok(())
    }
}
