//! The files of the journal: what is not synced is kept apart, and calls fail or lose power.

use crate::dice::Dice;
use crate::oracle::SECTOR_BYTES;
use crate::planted::{Bug, is};
use receiver::apply::{PayloadError, PayloadSource};
use receiver::fold::RecordAt;
use receiver::journal::{SegmentFile, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wire::journal::{EntryHeader, EntryKind, JOURNAL_HEADER_BYTES};
use wire::{RECORD_HEADER_BYTES, RecordHeader};

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// This call and all after it fail: the power is gone.
    PowerCut,
    /// This call fails.
    Refused,
}

/// The directory; clones share it.
#[derive(Clone, Default)]
pub struct SimStore(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    files: BTreeMap<u64, File>,
    synced_names: BTreeSet<u64>,
    removed_unsynced: BTreeMap<u64, File>,
    fault: Option<(u64, StoreFault)>,
    is_off: bool,
    has_refused: bool,
}

#[derive(Clone, Default)]
struct File {
    bytes: Vec<u8>,
    /// What lay where since the last sync, oldest first.
    before: Vec<(usize, Vec<u8>)>,
}

/// One file of it.
pub struct SimSegment {
    segment: u64,
    store: SimStore,
}

/// Reads records back, as the journal's reader does.
pub struct StoreReader(pub SimStore);

impl SimStore {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After so many more calls that can change something, `fault` happens.
    pub fn arm(&self, calls: u64, fault: StoreFault) {
        self.state().fault = Some((calls, fault));
    }

    /// Nothing happens to it any more.
    pub fn heal(&self) {
        self.state().fault = None;
    }

    /// Whether the power went.
    pub fn is_off(&self) -> bool {
        self.state().is_off
    }

    /// Whether no call was refused, nor the power lost, since this was asked to go on.
    pub fn is_well(&self) -> bool {
        let state = self.state();
        !state.is_off && !state.has_refused
    }

    /// What was refused is over.
    pub fn go_on(&self) {
        self.state().has_refused = false;
    }

    /// The power is back; with dice, what was not synced may be lost.
    pub fn restart(&self, cut: Option<&mut Dice>) {
        let mut state = self.state();
        state.is_off = false;
        state.has_refused = false;
        state.fault = None;
        if let Some(dice) = cut {
            state.power_cut(dice);
        }
    }
}

impl State {
    fn power_cut(&mut self, dice: &mut Dice) {
        for (segment, file) in std::mem::take(&mut self.removed_unsynced) {
            if dice.coin() {
                self.files.entry(segment).or_insert(file);
                self.synced_names.insert(segment);
            }
        }
        let names = self.synced_names.clone();
        self.files
            .retain(|segment, _| names.contains(segment) || dice.coin());
        for file in self.files.values_mut() {
            let before = std::mem::take(&mut file.before);
            // The newest first, so that a place written twice falls back to any of what it held.
            for (offset, bytes) in before.into_iter().rev() {
                for (nth, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                    if dice.coin() {
                        let at = offset + nth * SECTOR_BYTES;
                        file.bytes[at..at + sector.len()].copy_from_slice(sector);
                    }
                }
            }
        }
        self.synced_names = self.files.keys().copied().collect();
    }

    fn call(&mut self) -> io::Result<()> {
        if self.is_off {
            return Err(io::Error::other("power cut"));
        }
        match &mut self.fault {
            Some((0, StoreFault::PowerCut)) => {
                self.is_off = true;
                Err(io::Error::other("power cut"))
            }
            Some((0, StoreFault::Refused)) => {
                self.fault = None;
                self.has_refused = true;
                Err(io::Error::other("refused"))
            }
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn file(&mut self, segment: u64) -> io::Result<&mut File> {
        let file = self.files.get_mut(&segment);
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Store for SimStore {
    type Segment = SimSegment;

    fn list(&self) -> io::Result<Vec<u64>> {
        Ok(self.state().files.keys().copied().collect())
    }

    fn create(&mut self, segment: u64, bytes: u64) -> io::Result<SimSegment> {
        let mut state = self.state();
        state.call()?;
        let file = File {
            bytes: vec![0; bytes as usize],
            before: Vec::new(),
        };
        state.files.insert(segment, file);
        drop(state);
        self.open(segment)
    }

    fn open(&self, segment: u64) -> io::Result<SimSegment> {
        self.state().file(segment)?;
        let store = self.clone();
        Ok(SimSegment { segment, store })
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        let file = state.files.remove(&segment);
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        if state.synced_names.remove(&segment) {
            state.removed_unsynced.insert(segment, file);
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        if is(Bug::DirectorySyncSkipped) {
            return Ok(());
        }
        state.synced_names = state.files.keys().copied().collect();
        state.removed_unsynced.clear();
        Ok(())
    }
}

impl SegmentFile for SimSegment {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.store.state().file(self.segment)?.bytes.len() as u64)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.store.state();
        state.call()?;
        let file = state.file(self.segment)?;
        let range = offset as usize..offset as usize + bytes.len();
        let before = file.bytes[range.clone()].to_vec();
        file.before.push((range.start, before));
        file.bytes[range].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.store.state();
        let live = &state.file(self.segment)?.bytes;
        let start = live.len().min(offset as usize);
        let end = live.len().min(start + buffer.len());
        let (found, rest) = buffer.split_at_mut(end - start);
        found.copy_from_slice(&live[start..end]);
        rest.fill(0);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.store.state();
        state.call()?;
        if !is(Bug::JournalSyncSkipped) {
            state.file(self.segment)?.before.clear();
        }
        Ok(())
    }

    fn allocate(&mut self, bytes: u64) -> io::Result<()> {
        let mut state = self.store.state();
        state.call()?;
        state.file(self.segment)?.bytes.resize(bytes as usize, 0);
        Ok(())
    }
}

impl StoreReader {
    fn record(&self, at: RecordAt, payload: &mut Vec<u8>) -> Option<RecordHeader> {
        let mut state = self.0.state();
        let bytes = &state.file(at.segment).ok()?.bytes;
        let start = at.offset_bytes as usize;
        let entry = bytes.get(start.checked_sub(JOURNAL_HEADER_BYTES)?..)?;
        let entry = EntryHeader::parse(entry.first_chunk()?).ok()?;
        let header = RecordHeader::parse(bytes.get(start..)?).ok()?;
        let from = start + RECORD_HEADER_BYTES;
        let found = bytes.get(from..from + header.payload_bytes as usize)?;
        payload.clear();
        payload.extend_from_slice(found);
        (entry.kind == EntryKind::Record).then_some(header)
    }
}

impl PayloadSource for StoreReader {
    fn read(&mut self, at: RecordAt, payload: &mut Vec<u8>) -> Result<RecordHeader, PayloadError> {
        let found = self.record(at, payload);
        found.ok_or_else(|| PayloadError::Io {
            at,
            source: io::Error::new(io::ErrorKind::InvalidData, "no record lies there"),
        })
    }
}
