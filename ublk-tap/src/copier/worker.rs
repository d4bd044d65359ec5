//! The copier's thread.

use super::{CopierConfig, CopierSaid, Order, Shared};
use crate::clock;
use crate::ranges::Range;
use crate::settings::ByteSize;
use memmap2::MmapMut;
use ring::{ClaimError, RecordFields};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Bytes read at once.
pub(super) const CHUNK_BYTES: u64 = 256 << 10;
/// Room is claimed only while the ring is less full than this.
const PACE_PERMILLE: u64 = 500;
/// Any ring is less full than this.
const HURRIED_PERMILLE: u64 = 1001;
/// How often it looks again for room.
const PACE_INTERVAL: Duration = Duration::from_millis(2);
/// How long a copy leaves a range alone that could not be read; doubled up to the most.
const TROUBLE_MIN: Duration = Duration::from_secs(1);
const TROUBLE_MAX: Duration = Duration::from_secs(30);

pub(super) struct Worker<T> {
    config: CopierConfig,
    shared: Arc<Shared>,
    tell: T,
    buffer: MmapMut,
    copy: Option<Copy>,
    rereads: VecDeque<Range>,
    /// How long the next failure to read is waited out.
    patience: Duration,
}

/// A copy under way.
struct Copy {
    run: u64,
    at: u64,
}

/// What became of a range.
enum Captured {
    Done,
    NoRoom,
    /// The stream is given up: whoever gave it up starts anew later.
    Closed,
    Unreadable(io::Error),
}

impl<T: Fn(CopierSaid)> Worker<T> {
    pub(super) fn new(config: CopierConfig, shared: Arc<Shared>, tell: T) -> io::Result<Self> {
        let buffer = MmapMut::map_anon(CHUNK_BYTES as usize)?; // page aligned, as direct I/O needs
        let rereads = VecDeque::new();
        Ok(Self {
            config,
            shared,
            tell,
            buffer,
            copy: None,
            rereads,
            patience: TROUBLE_MIN,
        })
    }

    /// Works until the copier is dropped.
    pub(super) fn run(mut self, inbox: &Receiver<Order>) {
        let mut pause = Duration::ZERO;
        loop {
            let is_idle = self.copy.is_none() && self.rereads.is_empty();
            match next(inbox, is_idle, pause) {
                Ok(Some(Order::Copy(run))) => {
                    self.copy = Some(Copy { run, at: 0 });
                    // It reads what was given up.
                    self.shared.is_reread_lost.store(false, Ordering::Release);
                }
                Ok(Some(Order::Reread(range))) => self.rereads.push_back(range),
                Ok(None) => {}
                Err(Gone) => return,
            }
            pause = self.step();
        }
    }

    /// Does one piece of work; how long to wait before the next.
    fn step(&mut self) -> Duration {
        if let Some(range) = self.rereads.pop_front() {
            return self.step_reread(range);
        }
        let wanted = self.shared.wanted.load(Ordering::Acquire);
        if self.copy.as_ref().is_some_and(|copy| copy.run != wanted) {
            self.copy = None;
            self.set_trouble(None);
        }
        let Some(copy) = &self.copy else {
            return Duration::ZERO;
        };
        let (run, at) = (copy.run, copy.at);
        let end = (at + CHUNK_BYTES).min(self.config.disk.size_bytes());
        self.step_copy(run, Range::new(at, end))
    }

    /// Whether the ring has room for a chunk, and is empty enough.
    fn has_room(&self, bytes: u32, permille_max: u64) -> bool {
        let ring = &self.config.ring;
        let is_free = || ring.usage().permille() < permille_max && ring.has_room(bytes);
        is_free() || {
            // What is wrong with the shipper is the group's business.
            let _ = ring.try_reclaim();
            is_free()
        }
    }

    fn step_copy(&mut self, run: u64, chunk: Range) -> Duration {
        match self.capture(chunk, PACE_PERMILLE) {
            Captured::Done => {
                self.advance(run, chunk.end_bytes());
                Duration::ZERO
            }
            Captured::NoRoom => PACE_INTERVAL,
            Captured::Closed => {
                self.copy = None;
                Duration::ZERO
            }
            Captured::Unreadable(error) => {
                self.set_trouble(Some(unreadable(chunk, &error)));
                let pause = self.patience;
                self.patience = (pause * 2).min(TROUBLE_MAX);
                pause
            }
        }
    }

    fn advance(&mut self, run: u64, at: u64) {
        if self.patience != TROUBLE_MIN {
            self.patience = TROUBLE_MIN;
            self.set_trouble(None);
        }
        self.shared.copied_bytes.store(at, Ordering::Release);
        if at < self.config.disk.size_bytes() {
            self.copy = Some(Copy { run, at });
            return;
        }
        self.copy = None;
        (self.tell)(CopierSaid::Copied {
            index: self.config.index,
            run,
        });
    }

    fn step_reread(&mut self, range: Range) -> Duration {
        let end = range.end_bytes().min(range.start_bytes() + CHUNK_BYTES);
        let piece = Range::new(range.start_bytes(), end);
        let permille_max = match self.shared.is_hurried.load(Ordering::Acquire) {
            true => HURRIED_PERMILLE,
            false => PACE_PERMILLE,
        };
        let captured = self.capture(piece, permille_max);
        let wanted = match captured {
            Captured::NoRoom => length_of(piece),
            _ => 0,
        };
        self.shared.wanted_bytes.store(wanted, Ordering::Release);
        match captured {
            Captured::Done if end < range.end_bytes() => {
                self.rereads.push_front(Range::new(end, range.end_bytes()));
                Duration::ZERO
            }
            Captured::Done => {
                self.shared.reread.fetch_add(1, Ordering::AcqRel);
                Duration::ZERO
            }
            Captured::NoRoom => {
                self.rereads.push_front(range);
                PACE_INTERVAL
            }
            Captured::Closed => {
                self.give_up_rereads();
                Duration::ZERO
            }
            Captured::Unreadable(error) => {
                let words = format!(
                    "what the disk holds is unknown: {}",
                    unreadable(piece, &error)
                );
                self.give_up_rereads();
                (self.tell)(CopierSaid::RereadFailed {
                    index: self.config.index,
                    words,
                });
                Duration::ZERO
            }
        }
    }

    /// The one in hand, and all behind it: the volume will be copied as a whole.
    fn give_up_rereads(&mut self) {
        self.shared.is_reread_lost.store(true, Ordering::Release);
        let count = self.rereads.drain(..).count() + 1;
        self.shared.reread.fetch_add(count as u64, Ordering::AcqRel);
    }

    /// Makes a record of what the disk holds in `range`, in a ring that is less full than that.
    fn capture(&mut self, range: Range, permille_max: u64) -> Captured {
        let length = length_of(range);
        if self.config.ring.is_closed() {
            return Captured::Closed;
        }
        if !self.has_room(length, permille_max) {
            return Captured::NoRoom;
        }
        let held = self.config.ranges.admit_blocking(range);
        let bytes = &mut self.buffer[..length as usize];
        if let Err(error) = self.config.disk.read_at(bytes, range.start_bytes()) {
            return Captured::Unreadable(error);
        }
        let is_zero = is_zero(bytes);
        let payload_bytes = if is_zero { 0 } else { length };
        let (index, offset) = (self.config.index, range.start_bytes());
        let mut claim = match self.config.ring.claim(payload_bytes, clock::now()) {
            Ok(claim) => claim,
            Err(ClaimError::Closed) => return Captured::Closed,
            Err(ClaimError::Full | ClaimError::AckViolation(_)) => return Captured::NoRoom,
            Err(error @ ClaimError::TooLarge { .. }) => {
                unreachable!("every ring takes a chunk: {error}")
            }
        };
        let fields = if is_zero {
            RecordFields::zero(index, offset, length)
        } else {
            claim.payload_mut().copy_from_slice(bytes);
            RecordFields::copy(index, offset, length)
        };
        claim.fill(fields).settle();
        drop(held);
        self.config.ring.notify_consumer();
        Captured::Done
    }

    fn set_trouble(&self, words: Option<String>) {
        if let Some(words) = &words {
            tracing::warn!("a copy is held up: {words}");
        }
        *self
            .shared
            .trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = words;
    }
}

/// The copier was dropped.
struct Gone;

fn next(inbox: &Receiver<Order>, is_idle: bool, pause: Duration) -> Result<Option<Order>, Gone> {
    if is_idle {
        return inbox.recv().map(Some).map_err(|_| Gone);
    }
    if pause.is_zero() {
        return match inbox.try_recv() {
            Ok(order) => Ok(Some(order)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Gone),
        };
    }
    match inbox.recv_timeout(pause) {
        Ok(order) => Ok(Some(order)),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => Err(Gone),
    }
}

fn length_of(chunk: Range) -> u32 {
    u32::try_from(chunk.length_bytes()).expect("a chunk is small")
}

fn unreadable(range: Range, error: &io::Error) -> String {
    let offset = ByteSize(range.start_bytes());
    format!(
        "cannot read {} bytes at {offset}: {error}",
        range.length_bytes()
    )
}

fn is_zero(bytes: &[u8]) -> bool {
    // Blocks without a way out inside: the compiler makes vector code of them.
    bytes
        .chunks(256)
        .all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
}
