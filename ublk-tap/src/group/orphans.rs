//! Records of a dead tap whose effect nobody knows, until the stream says it.
//!
//! Owned by the loop of the group, or by the simulation. While a record is open nothing behind it
//! can be freed, so each is void as soon as its own range is in the stream: what was in flight may
//! be most of the ring, and the ranges are read through the rest of it. Where even one range finds
//! no room, its volume's records are void before: the volume is not whole until its ranges are
//! read, and costs a copy if this tap dies before.

use crate::ranges::Range;
use ring::{Orphan, Ring};
use std::collections::VecDeque;
use wire::{Stamp, VolumeIndex};

/// What a dead tap has left open, in the order of the stream.
#[derive(Debug, Default)]
pub struct Orphans {
    open: VecDeque<Open>,
}

#[derive(Debug)]
struct Open {
    orphan: Orphan,
    /// Its place among what its volume's copier reads again.
    turn: Option<u64>,
}

impl Orphans {
    /// Of a ring that was taken over.
    pub fn new(orphans: Vec<Orphan>) -> Self {
        let open = orphans.into_iter();
        let open = open.map(|orphan| Open { orphan, turn: None });
        Self {
            open: open.collect(),
        }
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// How many are left.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Has every range read again; `order` gives the place in the line of its volume.
    pub fn order(&mut self, mut order: impl FnMut(VolumeIndex, Range) -> Option<u64>) {
        for Open { orphan, turn } in &mut self.open {
            let (at, bytes) = (orphan.offset_bytes(), u64::from(orphan.length_bytes()));
            *turn = order(orphan.volume(), Range::of_length(at, bytes));
        }
    }

    /// Makes void what is in the stream by now; whether there was any.
    pub fn void_read(&mut self, is_read: impl Fn(VolumeIndex, u64) -> bool) -> bool {
        self.void(|open| {
            open.turn
                .is_some_and(|turn| is_read(open.orphan.volume(), turn))
        })
    }

    /// The first, as volume and place in its line, if nothing but it keeps the ring from being
    /// freed.
    pub fn holds_up(&self, acked: Stamp) -> Option<(VolumeIndex, u64)> {
        let first = self.open.front()?;
        let is_next = first.orphan.stamp() == acked.next();
        is_next.then_some((first.orphan.volume(), first.turn?))
    }

    /// Makes void what is not in the stream yet. The ring is told first that these volumes are not
    /// whole, so that no death loses which ranges are missing.
    pub fn forgo(&mut self, ring: &Ring, is_meant: impl Fn(VolumeIndex) -> bool) -> bool {
        let volumes = self.open.iter().map(|open| open.orphan.volume());
        let bit = |volume: VolumeIndex| 1_u64.checked_shl(u32::from(volume.0)).unwrap_or(0);
        let mask = volumes
            .filter(|volume| is_meant(*volume))
            .fold(0, |mask, volume| mask | bit(volume));
        ring.set_whole(ring.whole() & !mask);
        self.void(|open| is_meant(open.orphan.volume()))
    }

    /// The stream is given up, and with it what these may have done.
    pub fn give_up(&mut self) {
        self.void(|_| true);
    }

    fn void(&mut self, is_over: impl Fn(&Open) -> bool) -> bool {
        let before = self.open.len();
        for open in std::mem::take(&mut self.open) {
            if is_over(&open) {
                open.orphan.void();
            } else {
                self.open.push_back(open);
            }
        }
        self.open.len() < before
    }
}
