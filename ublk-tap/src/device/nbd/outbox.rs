//! Answers on their way to the client: many in one call, in their order.

use super::payload::Pool;
use super::replies::Reply;
use super::uring::{Message, Uring};
use std::collections::VecDeque;

/// Answers that wait, and those the kernel has.
pub(super) struct Outbox {
    waiting: VecDeque<Reply>,
    /// They stay where they are while the kernel has them.
    sending: Vec<Reply>,
    /// Of those, sent.
    sent_bytes: usize,
    message: Message,
    has_kernel: bool,
    /// Nobody takes them any more.
    is_broken: bool,
}

/// Most answers handed over at once.
const BATCH: usize = 64;

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            sending: Vec::new(),
            sent_bytes: 0,
            message: Message::new(),
            has_kernel: false,
            is_broken: false,
        }
    }

    /// Answers not yet sent.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.sending.len()
    }

    /// Whether the kernel has some.
    pub(super) fn is_sending(&self) -> bool {
        self.has_kernel
    }

    /// Sends `reply` after those before it; to nobody, if there is nobody any more.
    pub(super) fn put(&mut self, reply: Reply) {
        if !self.is_broken {
            self.waiting.push_back(reply);
        }
    }

    /// Hands the kernel what waits, if it has nothing.
    pub(super) fn send(&mut self, uring: &mut Uring) {
        if self.has_kernel || self.is_broken {
            return;
        }
        if self.sending.is_empty() {
            let count = self.waiting.len().min(BATCH);
            self.sending.extend(self.waiting.drain(..count));
        }
        if self.sending.is_empty() {
            return;
        }
        let mut skipped = self.sent_bytes;
        let pieces = self.sending.iter().flat_map(Reply::pieces);
        self.message.describe(pieces.filter_map(|piece| {
            let skip = skipped.min(piece.len());
            skipped -= skip;
            let rest = &piece[skip..];
            (!rest.is_empty()).then_some(rest)
        }));
        uring.send(&self.message);
        self.has_kernel = true;
    }

    /// The kernel has sent so many bytes, or says why not; gives back what was read.
    pub(super) fn sent(&mut self, result: i32, pool: &mut Pool, mut released: impl FnMut(u32)) {
        self.has_kernel = false;
        match result {
            1.. => self.sent_bytes += result.unsigned_abs() as usize,
            _ if matches!(-result, libc::EINTR | libc::EAGAIN) => return,
            _ => self.is_broken = true,
        }
        let all: usize = self
            .sending
            .iter()
            .flat_map(Reply::pieces)
            .map(<[u8]>::len)
            .sum();
        if self.is_broken || self.sent_bytes == all {
            self.sent_bytes = 0;
            for reply in self.sending.drain(..) {
                give_back(reply, pool, &mut released);
            }
        }
        if self.is_broken {
            self.give_up(pool, released);
        }
    }

    /// Whether nobody takes answers any more.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Nobody takes answers any more; those that wait are dropped.
    pub(super) fn give_up(&mut self, pool: &mut Pool, mut released: impl FnMut(u32)) {
        self.is_broken = true;
        let sending = if self.has_kernel {
            Vec::new()
        } else {
            std::mem::take(&mut self.sending)
        };
        for reply in self.waiting.drain(..).chain(sending) {
            give_back(reply, pool, &mut released);
        }
    }
}

fn give_back(reply: Reply, pool: &mut Pool, released: &mut impl FnMut(u32)) {
    if let Some(payload) = reply.payload {
        released(payload.bytes().len() as u32);
        pool.give(payload);
    }
}
