//! One client from its first request to its last answer.
//!
//! One thread with one io_uring: the socket and the disk. Its requests go through a worker of its
//! own, as those of a queue do. A write's payload is received before the write is admitted, so what
//! waits never holds up what comes behind it; what may wait is bounded in requests and bytes, beyond
//! which the socket is not read (P6, P11).
//!
//! However it ends (the client says goodbye, hangs up, talks nonsense, or the volume is removed),
//! what was taken is finished on the disk and in the ring first.

use super::allocation;
use super::intake::{Intake, Item};
use super::ledger::{Ended, FLIGHTS_MAX};
use super::negotiate::Terms;
use super::outbox::Outbox;
use super::payload::{BUDGET_BYTES, Budget, Payload};
use super::port::ClientPort;
use super::replies::Reply;
use super::requests::{Header, Io, Limits, Wish};
use super::uring::{Answer, Source};
use crate::device::entry::{AbortOnPanic, is_passing};
use crate::device::request::Op;
use crate::device::worker::Worker;
use crate::disk::Disk;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A client being served.
pub(super) struct Session<'c> {
    pub(super) worker: Worker<ClientPort>,
    pub(super) disk: Arc<Disk>,
    pub(super) limits: Limits,
    pub(super) client: Client<'c>,
    intake: Intake,
    outbox: Outbox,
    writes: Budget,
    reads: Budget,
    /// A request at hand waits for others to end, which change something.
    is_held_up: bool,
    lingers: bool,
}

/// The client, as the session needs it.
pub(super) struct Client<'c> {
    /// Set when the volume is being taken away.
    pub(super) ends: &'c AtomicBool,
    /// What rings when it is, or when the worker is wanted.
    pub(super) bell: RawFd,
    /// Ends the connection in both directions.
    pub(super) hang_up: &'c dyn Fn(),
}

impl<'c> Session<'c> {
    pub(super) fn new(
        worker: Worker<ClientPort>,
        disk: Arc<Disk>,
        limits: Limits,
        client: Client<'c>,
        before: &[u8],
    ) -> Self {
        Self {
            worker,
            disk,
            limits,
            client,
            intake: Intake::new(before),
            outbox: Outbox::new(),
            writes: Budget::new(BUDGET_BYTES),
            reads: Budget::new(BUDGET_BYTES),
            is_held_up: false,
            lingers: false,
        }
    }

    /// Serves until the client is gone and nothing of it is in flight.
    pub(super) fn run(mut self) {
        let guard = AbortOnPanic;
        self.worker.port().uring.listen(self.client.bell);
        let mut answers = Vec::new();
        loop {
            self.work();
            if self.is_over() {
                break;
            }
            match self.worker.port().uring.wait(&mut answers) {
                Ok(()) => {}
                Err(error) if is_passing(&error) => {}
                Err(error) => panic!("a session's own io_uring failed: {error}"),
            }
            for answer in answers.drain(..) {
                self.hear(answer);
            }
        }
        assert!(
            self.worker.is_idle(),
            "a session that is over has no requests"
        );
        std::mem::forget(guard);
    }

    /// Everything that can be done without waiting.
    fn work(&mut self) {
        if self.is_ending() {
            self.turn_away();
        }
        loop {
            let has_taken = self.take();
            let has_begun = self.begin();
            if !(self.answer() || has_taken || has_begun) {
                break;
            }
        }
        self.worker.hold_up(self.is_held_up);
        self.worker.end_turn();
        self.receive();
        self.outbox.send(&mut self.worker.port().uring);
        self.part();
    }

    /// Takes the requests at hand for which there is room; whether there was one.
    fn take(&mut self) -> bool {
        self.is_held_up = false;
        let mut has_taken = false;
        loop {
            match self.intake.next() {
                Item::Nothing => return has_taken,
                Item::Nonsense => {
                    tracing::debug!("a client talks nonsense");
                    self.close();
                    return has_taken;
                }
                Item::Write(cookie, io, payload) => {
                    self.worker.port().ledger.enter(cookie, io, Some(payload));
                }
                Item::Header(header) => {
                    if !self.take_header(header) {
                        return has_taken;
                    }
                }
            }
            has_taken = true;
        }
    }

    /// Takes a request; false if it has to wait.
    fn take_header(&mut self, header: Header) -> bool {
        let in_flight = self.worker.port().ledger.len();
        // A write whose payload is coming is counted when it is there; so one place is kept for it.
        if in_flight + self.outbox.len() + 1 >= FLIGHTS_MAX {
            self.is_held_up = in_flight + 1 >= FLIGHTS_MAX;
            return false;
        }
        let wish = match header.check(&self.limits) {
            Ok(Wish::Leave) => {
                self.close();
                return true;
            }
            _ if self.is_ending() => Err(libc::ESHUTDOWN),
            checked => checked,
        };
        match wish {
            Err(errno) => {
                self.intake.take_header(header.payload_bytes());
                self.refuse(header.cookie, errno);
                true
            }
            Ok(Wish::Io(io)) => self.take_io(header.cookie, io),
            Ok(Wish::Allocation {
                offset_bytes,
                length_bytes,
                one,
            }) => {
                self.intake.take_header(0);
                let found = allocation::extents(&self.disk, offset_bytes, length_bytes, one);
                self.outbox.put(Reply::extents(header.cookie, &found));
                true
            }
            Ok(Wish::Leave) => unreachable!("seen above"),
        }
    }

    fn take_io(&mut self, cookie: u64, io: Io) -> bool {
        let budget = match io.op {
            Op::Write => &mut self.writes,
            Op::Read => &mut self.reads,
            Op::Flush | Op::Discard | Op::Zero => {
                self.intake.take_header(0);
                self.worker.port().ledger.enter(cookie, io, None);
                return true;
            }
        };
        if !budget.has_room(io.length_bytes) {
            self.is_held_up = io.op == Op::Write;
            return false;
        }
        budget.hold(io.length_bytes);
        if io.op == Op::Write {
            let payload = self.worker.port().pool.take(io.length_bytes);
            self.intake.take_write(cookie, io, payload);
        } else {
            self.intake.take_header(0);
            self.worker.port().ledger.enter(cookie, io, None);
        }
        true
    }

    /// Hands the worker what there are tags for; whether there was anything.
    fn begin(&mut self) -> bool {
        let mut has_begun = false;
        while let Some(tag) = self.worker.port().ledger.begin() {
            self.worker.fetched(tag);
            has_begun = true;
        }
        has_begun
    }

    /// Answers what is over; whether there was anything.
    fn answer(&mut self) -> bool {
        let mut has_answered = false;
        while let Some(ended) = self.worker.port().ledger.take_ended() {
            has_answered = true;
            self.answer_one(ended);
        }
        has_answered
    }

    fn answer_one(&mut self, ended: Ended) {
        let Ended {
            cookie,
            io,
            errno,
            payload,
        } = ended;
        let terms = self.terms();
        match (errno, payload) {
            (None, Some(payload)) if io.op == Op::Read && !self.outbox.is_broken() => {
                // Its memory is held until it was sent.
                let reply = Reply::data(terms, cookie, io.offset_bytes, payload);
                self.outbox.put(reply);
            }
            (errno, payload) => {
                if let Some(payload) = payload {
                    self.worker.port().pool.give(payload);
                }
                match io.op {
                    Op::Write => self.writes.release(io.length_bytes),
                    Op::Read => self.reads.release(io.length_bytes),
                    Op::Flush | Op::Discard | Op::Zero => {}
                }
                match errno {
                    Some(errno) => self.refuse(cookie, errno),
                    None => self.outbox.put(Reply::done(terms, cookie)),
                }
            }
        }
    }

    fn refuse(&mut self, cookie: u64, errno: i32) {
        self.outbox.put(Reply::failed(self.terms(), cookie, errno));
    }

    fn terms(&self) -> Terms {
        self.limits.terms
    }

    /// Asks for what comes next, unless it would have to wait anyway.
    fn receive(&mut self) {
        if let Some((memory, whole)) = self.intake.fill() {
            self.worker.port().uring.receive(memory, whole);
        }
    }

    fn hear(&mut self, answer: Answer) {
        match answer.source {
            Source::Disk => self.worker.answered(answer.tag, answer.result),
            Source::Pause => self.worker.paused(),
            Source::Bell => {
                self.worker.woken();
                self.worker.port().uring.listen(self.client.bell);
            }
            Source::Received => self.received(answer.result),
            Source::Sent => {
                let reads = &mut self.reads;
                let pool = &mut self.worker.port().pool;
                self.outbox
                    .sent(answer.result, pool, |bytes| reads.release(bytes));
                if self.outbox.is_broken() {
                    (self.client.hang_up)();
                }
            }
            Source::Linger => {
                let reads = &mut self.reads;
                let pool = &mut self.worker.port().pool;
                self.outbox.give_up(pool, |bytes| reads.release(bytes));
                (self.client.hang_up)();
            }
        }
    }

    fn received(&mut self, result: i32) {
        self.intake.came(result.max(0).unsigned_abs() as usize);
        if result <= 0 && !matches!(-result, libc::EINTR | libc::EAGAIN) {
            self.close();
        }
    }

    /// Nothing more is taken from the client; what was taken is finished.
    fn close(&mut self) {
        if let Some(payload) = self.intake.close() {
            self.drop_write(payload);
        }
    }

    /// A write that was on its way is refused, for the volume is going away.
    fn turn_away(&mut self) {
        if let Some((cookie, payload)) = self.intake.turn_away() {
            self.drop_write(payload);
            self.refuse(cookie, libc::ESHUTDOWN);
        }
    }

    fn drop_write(&mut self, payload: Payload) {
        self.writes.release(payload.bytes().len() as u32);
        self.worker.port().pool.give(payload);
    }

    fn is_ending(&self) -> bool {
        self.client.ends.load(Ordering::Acquire)
    }

    /// Once everything is answered, the connection ends: at once if the answers were taken.
    fn part(&mut self) {
        let is_leaving = self.intake.is_closed() || self.is_ending();
        if !is_leaving || self.worker.port().ledger.len() > 0 {
            return;
        }
        if self.outbox.len() == 0 {
            (self.client.hang_up)(); // ends what the kernel still receives
        } else if !std::mem::replace(&mut self.lingers, true) {
            self.worker.port().uring.linger();
        }
    }

    fn is_over(&mut self) -> bool {
        let is_leaving = self.intake.is_closed() || self.is_ending();
        let has_kernel = self.intake.is_filling() || self.outbox.is_sending();
        is_leaving
            && !has_kernel
            && self.outbox.len() == 0
            && self.worker.port().ledger.len() == 0
            && self.worker.is_idle()
    }
}
