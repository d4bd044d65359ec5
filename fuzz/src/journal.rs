//! A damaged journal: whatever lies on its disk, a start gives only what was written, or refuses.

use bytes::Bytes;
use receiver::journal::{
    Durable, Entry, Found, Limits, SegmentFile, Store, Writer, examine, recover,
};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use wire::journal::{JournalId, StreamNumber, StreamOpen};
use wire::{Incarnation, Name, RecordHeader, RecordKind, Stamp, TimeMark, VolumeIndex};

const SECTOR_BYTES: usize = 512;
const RECORDS: u64 = 40;
const ID: JournalId = JournalId(7);
const STREAM: StreamNumber = StreamNumber(1);

type Files = Vec<(u64, Vec<u8>)>;

/// Files of a journal in memory; clones share them.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Files>>);

struct Segment {
    number: u64,
    memory: Memory,
}

/// Edits of a journal that was written well, then a start, one more record, and a start again.
///
/// Nine bytes an edit: what is done, where, and with what (see [`golden_edits`]).
pub fn recovery(data: &[u8]) {
    let (files, written) = golden();
    let memory = Memory(Arc::new(Mutex::new(files.clone())));
    for edit in data.chunks_exact(9).take(64) {
        memory.edit(edit);
    }
    let path = Path::new("/journal");
    let mut examined = Vec::new();
    let _ = examine(&memory, path, Some(ID), &mut |found: Found| {
        examined.push(found)
    });
    let mut found = Vec::new();
    let mut store = memory.clone();
    let Ok(recovered) = recover(&mut store, path, Some(ID), &mut |entry: Found| {
        found.push(entry)
    }) else {
        return;
    };
    for entry in found.iter().chain(&examined) {
        assert!(known(written, entry), "{entry:?} was never written");
    }
    let Ok(mut writer) = Writer::start(store, path.into(), recovered, limits(), ID) else {
        return;
    };
    let next = record(RECORDS + 1);
    let mut queue = VecDeque::from([next.clone()]);
    let Ok(committed) = writer.commit(&mut queue) else {
        return;
    };
    drop(writer);
    let mut again = Vec::new();
    let mut store = memory.clone();
    let reread = recover(&mut store, path, Some(ID), &mut |entry: Found| {
        again.push(entry)
    });
    reread.expect("a journal that was gone on with is read");
    for (stream, durable) in committed.entries {
        let is_there = again.contains(&Found { stream, durable });
        assert!(is_there, "what was durable after the damage is gone");
    }
    let lost = found
        .iter()
        .filter(|entry| is_record(entry) && !again.contains(entry));
    assert_eq!(lost.count(), 0, "what one start found the next does not");
}

/// An edit, as [`recovery`] reads it: a byte changed, a file cut, a sector put elsewhere.
pub fn golden_edits() -> Vec<Vec<u8>> {
    let edit = |what: u8, at: u32, with: u32| {
        let mut bytes = vec![what];
        bytes.extend(at.to_le_bytes());
        bytes.extend(with.to_le_bytes());
        bytes
    };
    vec![
        Vec::new(),
        edit(0, 4096, 1),
        edit(0, 4200, 255),
        edit(1, 9000, 0),
        edit(2, 16, 24),
        edit(3, 8, 64),
        [edit(0, 64, 9), edit(2, 30, 8), edit(1, 70_000, 0)].concat(),
    ]
}

fn is_record(found: &Found) -> bool {
    matches!(found.durable, Durable::Record { .. })
}

/// Whether an entry is one of those written; what the journal itself says of its segments is not.
fn known(written: &[Found], entry: &Found) -> bool {
    match &entry.durable {
        Durable::Record { header, .. } => written.iter().any(
            |known| matches!(&known.durable, Durable::Record { header: other, .. } if other == header),
        ),
        Durable::Open(_) => written.contains(entry),
        _ => true,
    }
}

fn limits() -> Limits {
    Limits::for_bytes(0)
}

/// A journal of one stream and some records, and what it was told durable.
fn golden() -> &'static (Files, Vec<Found>) {
    static GOLDEN: OnceLock<(Files, Vec<Found>)> = OnceLock::new();
    GOLDEN.get_or_init(|| {
        let memory = Memory::default();
        let path = Path::new("/journal");
        let mut store = memory.clone();
        let empty = recover(&mut store, path, None, &mut |_: Found| {}).expect("an empty journal");
        let mut writer = Writer::start(store, path.into(), empty, limits(), ID).expect("begun");
        let mut written = Vec::new();
        let open = StreamOpen {
            group: Name::new("g").expect("a name"),
            source: Name::new("s").expect("a name"),
            incarnation: Incarnation { counter: 1, id: 1 },
            ring_slots: 64,
            volumes: Vec::new(),
        };
        let opened = Entry::Open(STREAM, open);
        for entry in std::iter::once(opened).chain((1..=RECORDS).map(record)) {
            let mut queue = VecDeque::from([entry]);
            let committed = writer.commit(&mut queue).expect("durable");
            let entries = committed.entries.into_iter();
            written.extend(entries.map(|(stream, durable)| Found { stream, durable }));
        }
        drop(writer);
        let mut files = memory.files().clone();
        // Nothing was ever written behind what a start reads.
        for (_, bytes) in &mut files {
            let used = bytes
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |last| last + 1);
            bytes.truncate(
                used.next_multiple_of(SECTOR_BYTES)
                    .max(8192)
                    .min(bytes.len()),
            );
        }
        (files, written)
    })
}

fn record(stamp: u64) -> Entry {
    let payload = vec![stamp as u8; SECTOR_BYTES * (1 + stamp as usize % 3)];
    let length = payload.len() as u32;
    let header = RecordHeader {
        kind: RecordKind::Write,
        fua: false,
        volume: VolumeIndex(0),
        stamp: Stamp(stamp),
        mark: TimeMark(stamp),
        offset_bytes: stamp * 4096,
        length_bytes: length,
        payload_bytes: length,
        incarnation_id: 1,
        checksum: 0,
    };
    Entry::Record(STREAM, header.sealed(&payload), Bytes::from(payload))
}

impl Memory {
    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn edit(&self, edit: &[u8]) {
        let number = |at: usize| {
            let bytes = [edit[at], edit[at + 1], edit[at + 2], edit[at + 3]];
            u32::from_le_bytes(bytes) as usize
        };
        let (at, with) = (number(1), number(5));
        let mut files = self.files();
        let nth = usize::from(edit[0] >> 4) % files.len();
        let bytes = &mut files[nth].1;
        let sectors = bytes.len() / SECTOR_BYTES;
        match edit[0] % 4 {
            _ if sectors == 0 => {}
            0 => {
                let at = at % bytes.len();
                bytes[at] ^= (with as u8).max(1);
            }
            1 => bytes.truncate(at % bytes.len()),
            2 => {
                let from = with % sectors * SECTOR_BYTES;
                let to = at % sectors * SECTOR_BYTES;
                bytes.copy_within(from..from + SECTOR_BYTES, to);
            }
            _ => {
                let (at, count) = (at % sectors, 1 + with % 8);
                let end = (at + count).min(sectors) * SECTOR_BYTES;
                bytes[at * SECTOR_BYTES..end].fill(0);
            }
        }
    }
}

impl Store for Memory {
    type Segment = Segment;

    fn list(&self) -> io::Result<Vec<u64>> {
        Ok(self.files().iter().map(|(number, _)| *number).collect())
    }

    fn create(&mut self, segment: u64, bytes: u64) -> io::Result<Segment> {
        let mut files = self.files();
        files.retain(|(number, _)| *number != segment);
        files.push((segment, vec![0; bytes as usize]));
        drop(files);
        self.open(segment)
    }

    fn open(&self, segment: u64) -> io::Result<Segment> {
        Ok(Segment {
            number: segment,
            memory: self.clone(),
        })
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        self.files().retain(|(number, _)| *number != segment);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Segment {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        let mut files = self.memory.files();
        let file = files.iter_mut().find(|(number, _)| *number == self.number);
        let (_, bytes) = file.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(act(bytes))
    }
}

impl SegmentFile for Segment {
    fn bytes(&self) -> io::Result<u64> {
        self.with(|bytes| bytes.len() as u64)
    }

    fn write_at(&mut self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.with(|bytes| {
            let (at, end) = (offset as usize, offset as usize + from.len());
            bytes.resize(bytes.len().max(end), 0);
            bytes[at..end].copy_from_slice(from);
        })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.with(|bytes| {
            let from = bytes.get(offset as usize..offset as usize + buffer.len());
            from.map(|from| buffer.copy_from_slice(from))
        })?
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&mut self, wanted: u64) -> io::Result<()> {
        self.with(|bytes| bytes.resize(bytes.len().max(wanted as usize), 0))
    }
}
