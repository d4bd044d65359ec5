//! A disk as its sectors: what they hold, and what they may fall back to when the power goes.

use crate::dice::Dice;
use crate::oracle::{SECTOR_BYTES, fill, read};
use std::collections::BTreeMap;

/// Sectors of one volume, on either side.
#[derive(Clone, Debug)]
pub struct Sectors {
    volume: usize,
    live: Vec<u64>,
    /// What sectors held before each write that was not synced since, oldest first.
    unsynced: BTreeMap<usize, Vec<u64>>,
}

impl Sectors {
    /// A disk that holds this, durably.
    pub fn new(volume: usize, live: Vec<u64>) -> Self {
        let unsynced = BTreeMap::new();
        Self {
            volume,
            live,
            unsynced,
        }
    }

    /// What every sector holds.
    pub fn contents(&self) -> &[u64] {
        &self.live
    }

    /// Sectors whose content is not durable.
    pub fn unsynced(&self) -> impl Iterator<Item = usize> + '_ {
        self.unsynced.keys().copied()
    }

    /// Writes one sector.
    pub fn set(&mut self, sector: usize, content: u64, durable: bool) {
        let before = std::mem::replace(&mut self.live[sector], content);
        if durable {
            self.unsynced.remove(&sector);
        } else {
            self.unsynced.entry(sector).or_default().push(before);
        }
    }

    /// Writes whole sectors from a byte offset on.
    pub fn write(&mut self, offset_bytes: u64, bytes: &[u8], durable: bool) {
        let first = offset_bytes as usize / SECTOR_BYTES;
        for (nth, bytes) in bytes.chunks_exact(SECTOR_BYTES).enumerate() {
            let sector = first + nth;
            self.set(sector, read(bytes, self.volume, sector), durable);
        }
    }

    /// Reads whole sectors from a byte offset on.
    pub fn read(&self, offset_bytes: u64, bytes: &mut [u8]) {
        let first = offset_bytes as usize / SECTOR_BYTES;
        for (nth, bytes) in bytes.chunks_exact_mut(SECTOR_BYTES).enumerate() {
            let sector = first + nth;
            fill(bytes, self.volume, sector, self.live[sector]);
        }
    }

    /// Makes all durable.
    pub fn sync(&mut self) {
        self.unsynced.clear();
    }

    /// The power goes: each unsynced sector keeps what it has, or falls back to one of those before.
    /// Gives the sectors that changed.
    pub fn power_cut(&mut self, dice: &mut Dice) -> Vec<usize> {
        let mut changed = Vec::new();
        for (sector, before) in std::mem::take(&mut self.unsynced) {
            let pick = dice.roll(2 * before.len() as u64) as usize;
            if let Some(&content) = before.get(pick)
                && self.live[sector] != content
            {
                self.live[sector] = content;
                changed.push(sector);
            }
        }
        changed
    }
}
