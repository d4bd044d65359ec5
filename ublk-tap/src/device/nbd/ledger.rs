//! The requests of one connection, and the parts the worker knows them by. Pure.
//!
//! A request larger than a record is cut into parts, each a request of the worker with a tag, a range
//! and a record of its own; it is answered when all have ended, with the first error if there was one.
//! Reads and changes wait for a tag in lines of their own, which take turns, and neither can have all
//! tags: a change that waits for room in the ring never keeps a read from the disk (P6). Where there
//! is one tag only, it can; `add` refuses that.

use super::payload::{Payload, Pool};
use super::requests::Io;
use crate::device::request::{Op, RawRequest, ZERO_BYTES_MAX, raw_flags, raw_op};
use std::collections::VecDeque;

/// All requests of a connection that are not yet answered.
#[derive(Debug)]
pub(super) struct Ledger {
    flights: Vec<Option<Flight>>,
    /// Free places in `flights`.
    places: Vec<u16>,
    parts: Vec<Option<Part>>,
    tags: Vec<u16>,
    /// Places of requests not all of whose parts have a tag yet.
    reads: Lane,
    changes: Lane,
    /// The last tag was given to a read.
    is_changes_turn: bool,
    part_bytes: u32,
    ended: VecDeque<Ended>,
}

/// A request that is over.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) cookie: u64,
    pub(super) io: Io,
    pub(super) errno: Option<i32>,
    /// What was read, or written.
    pub(super) payload: Option<Payload>,
}

/// A line for tags.
#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<u16>,
    tags: usize,
}

#[derive(Debug)]
struct Flight {
    cookie: u64,
    io: Io,
    payload: Option<Payload>,
    /// Bytes that have a tag, or had one.
    begun_bytes: u32,
    parts: u32,
    errno: Option<i32>,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    place: u16,
    at_bytes: u32,
    length_bytes: u32,
}

/// Most requests in flight on a connection.
pub(super) const FLIGHTS_MAX: usize = 128;

impl Ledger {
    /// For a worker with `depth` tags whose largest read or write is `part_bytes`.
    pub(super) fn new(depth: u16, part_bytes: u32) -> Self {
        Self {
            flights: (0..FLIGHTS_MAX).map(|_| None).collect(),
            places: (0..FLIGHTS_MAX as u16).rev().collect(),
            parts: vec![None; usize::from(depth)],
            tags: (0..depth).rev().collect(),
            reads: Lane::default(),
            changes: Lane::default(),
            is_changes_turn: false,
            part_bytes,
            ended: VecDeque::new(),
        }
    }

    /// Requests in it.
    pub(super) fn len(&self) -> usize {
        FLIGHTS_MAX - self.places.len() + self.ended.len()
    }

    /// Takes a request; there must be a place.
    pub(super) fn enter(&mut self, cookie: u64, io: Io, payload: Option<Payload>) {
        let place = self.places.pop().expect("looked for before");
        self.lane(io.op).waiting.push_back(place);
        self.flights[usize::from(place)] = Some(Flight {
            cookie,
            io,
            payload,
            begun_bytes: 0,
            parts: 0,
            errno: None,
        });
    }

    /// The next part, if it is anybody's turn and there is a tag.
    pub(super) fn begin(&mut self) -> Option<u16> {
        // What one kind may have leaves a quarter to the other, but for an only tag.
        let count = self.parts.len();
        let most = (count - (count / 4).max(1)).max(1);
        let may = |lane: &Lane| !lane.waiting.is_empty() && lane.tags < most;
        let is_read = match (may(&self.reads), may(&self.changes)) {
            (false, false) => return None,
            (true, true) => !self.is_changes_turn,
            (may_read, _) => may_read,
        };
        let tag = self.tags.pop()?;
        self.is_changes_turn = is_read;
        let lane = match is_read {
            true => &mut self.reads,
            false => &mut self.changes,
        };
        let place = *lane.waiting.front().expect("it is somebody's turn");
        lane.tags += 1;
        let flight = self.flights[usize::from(place)].as_mut();
        let flight = flight.expect("who waits is in flight");
        let most_bytes = match flight.io.op {
            Op::Read | Op::Write => self.part_bytes,
            Op::Flush | Op::Discard | Op::Zero => ZERO_BYTES_MAX,
        };
        let at_bytes = flight.begun_bytes;
        let length_bytes = (flight.io.length_bytes - at_bytes).min(most_bytes);
        flight.begun_bytes += length_bytes;
        flight.parts += 1;
        if flight.begun_bytes == flight.io.length_bytes {
            lane.waiting.pop_front();
        }
        self.parts[usize::from(tag)] = Some(Part {
            place,
            at_bytes,
            length_bytes,
        });
        Some(tag)
    }

    /// A part as the worker reads it.
    pub(super) fn raw(&self, tag: u16) -> RawRequest {
        let part = self.part(tag);
        let io = &self.flight(part.place).io;
        RawRequest {
            op_flags: raw_op(io.op) | raw_flags(io.fua, io.keep),
            start_sector: (io.offset_bytes + u64::from(part.at_bytes)) / 512,
            sectors: part.length_bytes / 512,
        }
    }

    /// The bytes a part writes.
    pub(super) fn written(&self, tag: u16) -> &[u8] {
        let part = self.part(tag);
        let payload = self.flight(part.place).payload.as_ref();
        let payload = payload.expect("a write has bytes");
        &payload.bytes()[part.at_bytes as usize..][..part.length_bytes as usize]
    }

    /// Where the bytes go that a part reads; the memory comes from `pool` with the first.
    pub(super) fn read_into(&mut self, tag: u16, pool: &mut Pool) -> &mut [u8] {
        let part = *self.part(tag);
        let flight = self.flights[usize::from(part.place)].as_mut();
        let flight = flight.expect("a part is of a flight");
        let length_bytes = flight.io.length_bytes;
        let payload = flight
            .payload
            .get_or_insert_with(|| pool.take(length_bytes));
        &mut payload.bytes_mut()[part.at_bytes as usize..][..part.length_bytes as usize]
    }

    /// A part is over: bytes or nothing, or minus an errno.
    pub(super) fn end(&mut self, tag: u16, result: i32) {
        let part = self.parts[usize::from(tag)].take().expect("ended once");
        self.tags.push(tag);
        let flight = self.flights[usize::from(part.place)].as_mut();
        let flight = flight.expect("a part is of a flight");
        flight.parts -= 1;
        if result < 0 {
            flight.errno.get_or_insert(-result);
        }
        let lane = match flight.io.op {
            Op::Read | Op::Flush => &mut self.reads,
            _ => &mut self.changes,
        };
        lane.tags -= 1;
        if flight.errno.is_some() && flight.begun_bytes < flight.io.length_bytes {
            // Nobody asks for the rest of a request that has failed.
            flight.begun_bytes = flight.io.length_bytes;
            lane.waiting.retain(|place| *place != part.place);
        }
        let is_over = flight.parts == 0 && flight.begun_bytes == flight.io.length_bytes;
        if !is_over {
            return;
        }
        if let Some(flight) = self.flights[usize::from(part.place)].take() {
            self.places.push(part.place);
            self.ended.push_back(Ended {
                cookie: flight.cookie,
                io: flight.io,
                errno: flight.errno,
                payload: flight.payload,
            });
        }
    }

    /// The next request that is over.
    pub(super) fn take_ended(&mut self) -> Option<Ended> {
        self.ended.pop_front()
    }

    fn lane(&mut self, op: Op) -> &mut Lane {
        match op {
            Op::Read | Op::Flush => &mut self.reads,
            Op::Write | Op::Discard | Op::Zero => &mut self.changes,
        }
    }

    fn part(&self, tag: u16) -> &Part {
        let part = self.parts[usize::from(tag)].as_ref();
        part.expect("a busy tag has a part")
    }

    fn flight(&self, place: u16) -> &Flight {
        let flight = self.flights[usize::from(place)].as_ref();
        flight.expect("a part is of a flight")
    }
}
