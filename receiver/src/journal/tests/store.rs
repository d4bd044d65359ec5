//! A store in memory that keeps what is synced apart from what is not, counts its calls, and fails
//! or loses power at one of them.

use crate::journal::store::{SegmentFile, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: u64 = 4096;
/// EIO.
const READ_ERROR: i32 = 5;

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// This call and all after it fail: the power is gone.
    PowerCut,
    /// This call fails, later ones do not.
    Once(io::ErrorKind),
}

/// The store; clones share the files.
#[derive(Clone, Default)]
pub(super) struct MemoryStore {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<u64, Image>,
    synced_names: BTreeSet<u64>,
    calls: u64,
    fault: Option<(u64, Fault)>,
    room: Option<usize>,
    /// Pages that cannot be read: segment and number.
    unreadable: BTreeSet<(u64, u64)>,
    /// What a read of one is told.
    read_error: i32,
    /// Bytes read, by segment.
    read: BTreeMap<u64, u64>,
}

#[derive(Clone, Default)]
struct Image {
    live: Vec<u8>,
    synced: Vec<u8>,
}

/// One file of it.
pub(super) struct MemorySegment {
    segment: u64,
    state: Arc<Mutex<State>>,
}

/// A small generator, so that a failing seed can be run again.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

impl MemoryStore {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Bytes read of each segment since the last time this was asked.
    pub(super) fn take_read(&self) -> BTreeMap<u64, u64> {
        std::mem::take(&mut self.state().read)
    }

    /// Calls made so far that can change something.
    pub(super) fn calls(&self) -> u64 {
        self.state().calls
    }

    /// At call number `call`, `fault` happens.
    pub(super) fn fault_at(&self, call: u64, fault: Fault) {
        self.state().fault = Some((call, fault));
    }

    /// At most this many files from here on.
    pub(super) fn room_for(&self, files: usize) {
        self.state().room = Some(files);
    }

    /// What a power cut leaves: all that was synced, and of the rest whatever the dice say.
    pub(super) fn after_power_cut(&self, dice: &mut Dice) -> Self {
        let state = self.state();
        let mut left = State::default();
        for (&segment, image) in &state.files {
            if !state.synced_names.contains(&segment) && dice.roll(2) == 0 {
                continue;
            }
            let mut kept = image.synced.clone();
            if dice.roll(4) > 0 {
                kept.resize(image.live.len(), 0);
            }
            let sectors = kept.len().min(image.live.len()) / SECTOR_BYTES;
            for sector in 0..sectors {
                let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                if dice.roll(2) == 0 {
                    kept[range.clone()].copy_from_slice(&image.live[range]);
                }
            }
            let image = Image {
                live: kept.clone(),
                synced: kept,
            };
            left.files.insert(segment, image);
            left.synced_names.insert(segment);
        }
        Self {
            state: Arc::new(Mutex::new(left)),
        }
    }

    /// A copy of all files as they are.
    pub(super) fn copy(&self) -> Self {
        let mut left = State::default();
        for (&segment, image) in &self.state().files {
            let image = Image {
                live: image.live.clone(),
                synced: image.live.clone(),
            };
            left.files.insert(segment, image);
            left.synced_names.insert(segment);
        }
        Self {
            state: Arc::new(Mutex::new(left)),
        }
    }

    /// Changes the bytes of a file behind the journal's back.
    pub(super) fn damage(&self, segment: u64, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let image = state.files.get_mut(&segment).unwrap();
        change(&mut image.live);
        image.synced = image.live.clone();
    }

    /// What a read of a page that cannot be read is told.
    pub(super) fn read_error(&self, code: i32) {
        self.state().read_error = code;
    }

    /// From now on just these pages cannot be read, and are again once they were written.
    pub(super) fn unreadable(&self, pages: &[(u64, u64)]) {
        let mut state = self.state();
        if state.read_error == 0 {
            state.read_error = READ_ERROR;
        }
        state.unreadable = pages.iter().copied().collect();
    }

    /// Those of them nothing was written to.
    pub(super) fn still_unreadable(&self) -> Vec<(u64, u64)> {
        self.state().unreadable.iter().copied().collect()
    }

    /// The bytes of a file.
    pub(super) fn bytes(&self, segment: u64) -> Vec<u8> {
        self.state().files[&segment].live.clone()
    }

    /// Puts `bytes` where the file of a segment is.
    pub(super) fn restore(&self, segment: u64, bytes: Vec<u8>) {
        let image = Image {
            live: bytes.clone(),
            synced: bytes,
        };
        self.state().files.insert(segment, image);
    }

    /// Loses the file of a segment.
    pub(super) fn lose(&self, segment: u64) {
        self.state().files.remove(&segment).unwrap();
    }
}

impl State {
    fn call(&mut self) -> io::Result<()> {
        let now = self.calls;
        self.calls += 1;
        match self.fault {
            Some((at, Fault::PowerCut)) if now >= at => Err(io::Error::other("power cut")),
            Some((at, Fault::Once(kind))) if now == at => Err(kind.into()),
            _ => Ok(()),
        }
    }

    /// What a read of the pages is told.
    fn refuses(&self, segment: u64, pages: Range<u64>) -> Option<io::Error> {
        let bad = pages
            .clone()
            .any(|page| self.unreadable.contains(&(segment, page)));
        bad.then(|| io::Error::from_raw_os_error(self.read_error))
    }

    fn image(&mut self, segment: u64) -> io::Result<&mut Image> {
        self.files
            .get_mut(&segment)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Store for MemoryStore {
    type Segment = MemorySegment;

    fn list(&self) -> io::Result<Vec<u64>> {
        Ok(self.state().files.keys().copied().collect())
    }

    fn create(&mut self, segment: u64, bytes: u64) -> io::Result<MemorySegment> {
        let mut state = self.state();
        state.call()?;
        if state.room.is_some_and(|room| state.files.len() >= room) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let image = Image {
            live: vec![0; bytes as usize],
            synced: Vec::new(),
        };
        let before = state.files.insert(segment, image);
        assert!(before.is_none(), "segment {segment} is made twice");
        drop(state);
        Ok(MemorySegment {
            segment,
            state: Arc::clone(&self.state),
        })
    }

    fn open(&self, segment: u64) -> io::Result<MemorySegment> {
        self.state().image(segment)?;
        Ok(MemorySegment {
            segment,
            state: Arc::clone(&self.state),
        })
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        state
            .files
            .remove(&segment)
            .map(drop)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        state.synced_names = state.files.keys().copied().collect();
        Ok(())
    }
}

impl SegmentFile for MemorySegment {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap().image(self.segment)?.live.len() as u64)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(offset.is_multiple_of(4096) && bytes.len().is_multiple_of(4096));
        assert!(
            bytes.as_ptr().align_offset(4096) == 0,
            "not fit for O_DIRECT"
        );
        let mut state = self.state.lock().unwrap();
        state.call()?;
        let image = state.image(self.segment)?;
        let start = offset as usize;
        image.live[start..start + bytes.len()].copy_from_slice(bytes);
        let pages = offset / PAGE_BYTES..(offset + bytes.len() as u64) / PAGE_BYTES;
        let healed =
            |(segment, page): &(u64, u64)| *segment == self.segment && pages.contains(page);
        state.unreadable.retain(|page| !healed(page));
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        assert!(offset.is_multiple_of(4096) && buffer.len().is_multiple_of(4096));
        let mut state = self.state.lock().unwrap();
        *state.read.entry(self.segment).or_default() += buffer.len() as u64;
        let pages = offset / PAGE_BYTES..(offset + buffer.len() as u64) / PAGE_BYTES;
        if let Some(error) = state.refuses(self.segment, pages) {
            return Err(error);
        }
        let live = &state.image(self.segment)?.live;
        let start = live.len().min(offset as usize);
        let end = live.len().min(start + buffer.len());
        let (found, rest) = buffer.split_at_mut(end - start);
        found.copy_from_slice(&live[start..end]);
        rest.fill(0);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.call()?;
        let image = state.image(self.segment)?;
        image.synced = image.live.clone();
        Ok(())
    }

    fn allocate(&mut self, bytes: u64) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.call()?;
        state.image(self.segment)?.live.resize(bytes as usize, 0);
        Ok(())
    }
}
