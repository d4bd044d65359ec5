//! A change on its way to the disk: range, place in the ring, bytes.

use super::{Port, Stage, Worker};
use crate::device::request::{Op, Request};
use crate::ranges::{Admission, Range};
use ring::{Claim, ClaimError, RecordFields};

/// Answer of the ring.
enum Place {
    Claimed(Claim),
    NoRoom,
    /// The stream was given up: go on without.
    Closed,
}

impl<P: Port> Worker<P> {
    pub(super) fn admit(&mut self, tag: u16, request: &Request) {
        let range = Range::of_length(request.offset_bytes, u64::from(request.length_bytes));
        match self.volume.ranges.admit(range, &self.wake, u64::from(tag)) {
            Admission::Held(hold) => {
                self.job(tag).hold = Some(hold);
                self.capture(tag);
            }
            Admission::Waiting(hold) => {
                let job = self.job(tag);
                job.hold = Some(hold);
                job.stage = Stage::Range;
                self.overlapping += 1;
            }
        }
    }

    pub(super) fn capture(&mut self, tag: u16) {
        // Whoever comes while others wait for room waits behind them.
        let place = if self.volume.parking.is_empty() {
            self.claim(tag)
        } else {
            Place::NoRoom
        };
        match place {
            Place::NoRoom => self.park(tag),
            Place::Claimed(claim) => self.record(tag, claim),
            Place::Closed => self.go_uncaptured(tag),
        }
    }

    fn park(&mut self, tag: u16) {
        let ticket = self.volume.parking.park(self.port.now(), &self.waker);
        self.job(tag).stage = Stage::Room;
        self.line.push_back((tag, ticket));
        self.counters.parked(1);
        self.ask_for_pause();
    }

    /// Lets those go who wait for room, while it is their turn and there is some.
    pub(super) fn serve_line(&mut self) {
        while let Some(&(tag, ticket)) = self.line.front() {
            if !self.volume.parking.is_first(ticket) {
                break;
            }
            let place = self.claim(tag);
            if matches!(place, Place::NoRoom) {
                break;
            }
            self.line.pop_front();
            self.volume.parking.leave(ticket);
            self.counters.parked(-1);
            match place {
                Place::Claimed(claim) => self.record(tag, claim),
                _ => self.go_uncaptured(tag),
            }
        }
        if !self.line.is_empty() {
            self.ask_for_pause();
        }
    }

    fn claim(&mut self, tag: u16) -> Place {
        let mark = *self.mark.get_or_insert_with(|| self.port.wall());
        let request = self.request(tag);
        let payload_bytes = if request.has_data() {
            request.length_bytes
        } else {
            0
        };
        match self.volume.ring.claim(payload_bytes, mark) {
            Ok(claim) => Place::Claimed(claim),
            // Nothing may bypass an open ring (P5), and only the group closes it: it finds the
            // violation in the ring, gives the stream up, and lets us go.
            Err(ClaimError::Full | ClaimError::AckViolation(_)) => Place::NoRoom,
            Err(ClaimError::Closed) => Place::Closed,
            Err(error @ ClaimError::TooLarge { .. }) => {
                unreachable!("a device takes no request its ring does not: {error}")
            }
        }
    }

    fn record(&mut self, tag: u16, mut claim: Claim) {
        let request = self.request(tag);
        if request.has_data() {
            if let Err(errno) = self.port.copy_in(tag, claim.payload_mut()) {
                drop(claim); // its place becomes void
                self.published = true;
                return self.finish(tag, Err(errno));
            }
            self.count_copies(request.length_bytes);
        }
        let (volume, offset, length) = (
            self.volume.index,
            request.offset_bytes,
            request.length_bytes,
        );
        let fields = match request.op {
            Op::Discard => RecordFields::discard(volume, offset, length),
            Op::Zero => RecordFields::zero(volume, offset, length),
            _ => RecordFields::write(volume, offset, length, request.fua),
        };
        self.counters.captured(u64::from(length));
        self.job(tag).record = Some(claim.fill(fields));
        self.published = true;
        self.issue(tag);
    }

    pub(super) fn count_copies(&self, length_bytes: u32) {
        self.counters
            .memory_copied(self.port.copies_in() * u64::from(length_bytes));
    }

    fn go_uncaptured(&mut self, tag: u16) {
        let request = self.request(tag);
        self.counters.uncaptured(u64::from(request.length_bytes));
        if request.has_data() {
            self.lend(tag)
        } else {
            self.issue(tag)
        }
    }
}
