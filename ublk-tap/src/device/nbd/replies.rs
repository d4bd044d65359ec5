//! Answers to requests, as bytes. Pure.

use super::negotiate::Terms;
use super::payload::Payload;
use super::wire::{self, chunk};

/// An answer: a few bytes, and what was read.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) head: Vec<u8>,
    pub(super) payload: Option<Payload>,
}

/// A part of the disk and whether it is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) length_bytes: u32,
    pub(super) is_hole: bool,
}

impl Reply {
    /// It is done.
    pub(super) fn done(terms: Terms, cookie: u64) -> Self {
        Self::small(if terms.is_structured {
            head(chunk::NONE, cookie, 0)
        } else {
            simple(0, cookie)
        })
    }

    /// It failed.
    pub(super) fn failed(terms: Terms, cookie: u64, errno: i32) -> Self {
        let error = wire::error_of(errno);
        if !terms.is_structured {
            return Self::small(simple(error, cookie));
        }
        let mut bytes = head(chunk::ERROR, cookie, 6);
        bytes.extend(error.to_be_bytes());
        bytes.extend(0_u16.to_be_bytes()); // no words
        Self::small(bytes)
    }

    /// What was read at `offset_bytes`.
    pub(super) fn data(terms: Terms, cookie: u64, offset_bytes: u64, payload: Payload) -> Self {
        let length_bytes = payload.bytes().len() as u32;
        let head = if terms.is_structured {
            let mut head = head(chunk::OFFSET_DATA, cookie, 8 + length_bytes);
            head.extend(offset_bytes.to_be_bytes());
            head
        } else {
            simple(0, cookie)
        };
        Self {
            head,
            payload: Some(payload),
        }
    }

    /// What is allocated.
    pub(super) fn extents(cookie: u64, extents: &[Extent]) -> Self {
        let length = 4 + 8 * extents.len() as u32;
        let mut bytes = head(chunk::BLOCK_STATUS, cookie, length);
        bytes.extend(wire::ALLOCATION_ID.to_be_bytes());
        for extent in extents {
            let state = if extent.is_hole {
                wire::STATE_HOLE | wire::STATE_ZERO
            } else {
                0
            };
            bytes.extend(extent.length_bytes.to_be_bytes());
            bytes.extend(state.to_be_bytes());
        }
        Self::small(bytes)
    }

    /// Its bytes, in their order.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let payload = self.payload.as_ref().map(Payload::bytes);
        std::iter::once(self.head.as_slice()).chain(payload)
    }

    fn small(head: Vec<u8>) -> Self {
        Self {
            head,
            payload: None,
        }
    }
}

fn simple(error: u32, cookie: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16);
    bytes.extend(wire::SIMPLE_REPLY_MAGIC.to_be_bytes());
    bytes.extend(error.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes
}

/// Head of the only chunk of a reply.
fn head(kind: u16, cookie: u64, length: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28);
    bytes.extend(wire::CHUNK_MAGIC.to_be_bytes());
    bytes.extend(chunk::DONE.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::payload::Pool;
    use super::*;

    const PLAIN: Terms = Terms {
        is_structured: false,
        has_allocation: false,
    };
    const STRUCTURED: Terms = Terms {
        is_structured: true,
        has_allocation: true,
    };

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn answers_are_these_bytes() {
        let cookie = 0x0102_0304_0506_0708;
        let done = |terms| hex(&Reply::done(terms, cookie).head);
        assert_eq!(done(PLAIN), "67446698000000000102030405060708");
        assert_eq!(done(STRUCTURED), "668e33ef00010000010203040506070800000000");
        let failed = |terms| hex(&Reply::failed(terms, cookie, libc::ENOSPC).head);
        assert_eq!(failed(PLAIN), "674466980000001c0102030405060708");
        assert_eq!(
            failed(STRUCTURED),
            "668e33ef000180010102030405060708000000060000001c0000"
        );
        let data = |terms| {
            let payload = Pool::default().take(512);
            let reply = Reply::data(terms, cookie, 0x1000, payload);
            assert_eq!(reply.payload.unwrap().bytes().len(), 512);
            hex(&reply.head)
        };
        assert_eq!(data(PLAIN), "67446698000000000102030405060708");
        assert_eq!(
            data(STRUCTURED),
            "668e33ef000100010102030405060708000002080000000000001000"
        );
        let extents = [(4096, true), (512, false)].map(|(length_bytes, is_hole)| Extent {
            length_bytes,
            is_hole,
        });
        assert_eq!(
            hex(&Reply::extents(cookie, &extents).head),
            "668e33ef0001000501020304050607080000001400000001\
             00001000000000030000020000000000"
        );
    }
}
