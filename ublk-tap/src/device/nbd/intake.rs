//! What has come from a client, up to whole requests. Pure but for the memory it fills.

use super::payload::Payload;
use super::requests::{Header, Io, Parsed};

/// The bytes at hand, and what they belong to.
#[derive(Debug)]
pub(super) struct Intake {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
    reading: Reading,
    /// What the kernel is filling.
    filling: Option<Filling>,
}

/// Where bytes go that are being received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filling {
    /// Behind the bytes at hand, whatever they may turn out to be.
    Memory,
    /// Into the payload of the write that is coming.
    Body,
}

/// What the next bytes are.
#[derive(Debug)]
enum Reading {
    Header,
    /// The payload of a write that was taken.
    Body {
        cookie: u64,
        io: Io,
        payload: Payload,
        done_bytes: usize,
    },
    /// The payload of one that was not.
    Skipped {
        left_bytes: u32,
    },
    /// Nothing more is read.
    Closed,
}

/// What there is for the session.
#[derive(Debug)]
pub(super) enum Item {
    /// More must be received.
    Nothing,
    /// A request; taken from the bytes by [`Intake::take_header`].
    Header(Header),
    /// A write with its payload.
    Write(u64, Io, Payload),
    /// These bytes are no request.
    Nonsense,
}

const MEMORY_BYTES: usize = 64 << 10;

impl Intake {
    /// With bytes that came before.
    pub(super) fn new(before: &[u8]) -> Self {
        let mut memory = vec![0; MEMORY_BYTES.max(before.len())].into_boxed_slice();
        memory[..before.len()].copy_from_slice(before);
        Self {
            memory,
            start: 0,
            end: before.len(),
            reading: Reading::Header,
            filling: None,
        }
    }

    /// The next thing among the bytes at hand.
    pub(super) fn next(&mut self) -> Item {
        loop {
            let at_hand = &self.memory[self.start..self.end];
            match &mut self.reading {
                Reading::Closed => return Item::Nothing,
                Reading::Header => {
                    return match Header::parse(at_hand) {
                        Parsed::NeedMore => Item::Nothing,
                        Parsed::Nonsense => Item::Nonsense,
                        Parsed::Request(header) => Item::Header(header),
                    };
                }
                Reading::Skipped { left_bytes } => {
                    let count = at_hand.len().min(*left_bytes as usize);
                    *left_bytes -= count as u32;
                    self.start += count;
                    if *left_bytes > 0 {
                        return Item::Nothing;
                    }
                    self.reading = Reading::Header;
                }
                Reading::Body {
                    payload,
                    done_bytes,
                    ..
                } => {
                    let left = &mut payload.bytes_mut()[*done_bytes..];
                    let count = at_hand.len().min(left.len());
                    left[..count].copy_from_slice(&at_hand[..count]);
                    *done_bytes += count;
                    self.start += count;
                    if *done_bytes < payload.bytes().len() {
                        return Item::Nothing;
                    }
                }
            }
            if let Some(write) = self.take_body() {
                return write;
            }
        }
    }

    fn take_body(&mut self) -> Option<Item> {
        match std::mem::replace(&mut self.reading, Reading::Header) {
            Reading::Body {
                cookie,
                io,
                payload,
                ..
            } => Some(Item::Write(cookie, io, payload)),
            other => {
                self.reading = other;
                None
            }
        }
    }

    /// The header [`Self::next`] gave is used up; `skip` bytes behind it are of no use.
    pub(super) fn take_header(&mut self, skip_bytes: u32) {
        self.start += super::wire::REQUEST_BYTES;
        if skip_bytes > 0 {
            self.reading = Reading::Skipped {
                left_bytes: skip_bytes,
            };
        }
    }

    /// The header is used up, and a payload follows.
    pub(super) fn take_write(&mut self, cookie: u64, io: Io, payload: Payload) {
        self.take_header(0);
        self.reading = Reading::Body {
            cookie,
            io,
            payload,
            done_bytes: 0,
        };
    }

    /// A write whose payload is still coming is not taken after all; its cookie and memory.
    pub(super) fn turn_away(&mut self) -> Option<(u64, Payload)> {
        if self.filling == Some(Filling::Body) || !matches!(self.reading, Reading::Body { .. }) {
            return None;
        }
        let reading = std::mem::replace(&mut self.reading, Reading::Header);
        let Reading::Body {
            cookie,
            payload,
            done_bytes,
            ..
        } = reading
        else {
            return None;
        };
        let left_bytes = (payload.bytes().len() - done_bytes) as u32;
        self.reading = Reading::Skipped { left_bytes };
        Some((cookie, payload))
    }

    /// Nothing more is read; the memory of a write that was coming.
    pub(super) fn close(&mut self) -> Option<Payload> {
        assert_ne!(self.filling, Some(Filling::Body), "the kernel has it");
        match std::mem::replace(&mut self.reading, Reading::Closed) {
            Reading::Body { payload, .. } => Some(payload),
            _ => None,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.reading, Reading::Closed)
    }

    /// Whether the kernel is filling something.
    pub(super) fn is_filling(&self) -> bool {
        self.filling.is_some()
    }

    /// Where the next bytes go, and whether all of it is wanted; nowhere while there is no room.
    /// They are on their way from here on, until [`Self::came`].
    pub(super) fn fill(&mut self) -> Option<(&mut [u8], bool)> {
        if self.is_filling() || self.is_closed() {
            return None;
        }
        if let Reading::Body {
            payload,
            done_bytes,
            ..
        } = &mut self.reading
        {
            self.filling = Some(Filling::Body);
            return Some((&mut payload.bytes_mut()[*done_bytes..], true));
        }
        self.memory.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let room = &mut self.memory[self.end..];
        if room.is_empty() {
            return None;
        }
        self.filling = Some(Filling::Memory);
        Some((room, false))
    }

    /// So many bytes have come.
    pub(super) fn came(&mut self, bytes: usize) {
        match (self.filling.take(), &mut self.reading) {
            (Some(Filling::Body), Reading::Body { done_bytes, .. }) => *done_bytes += bytes,
            _ => self.end += bytes,
        }
    }
}
