//! Parts of the receiver fed from memory: the journal, a step on target files, the fold.

use crate::{noise, rate};
use bytes::Bytes;
use receiver::apply::{Applier, PayloadError, PayloadSource};
use receiver::catalog::VolumeRecord;
use receiver::fold::{ByteRange, Change, Effect, Fold, RecordAt, STEP_DATA_BYTES_MAX};
use receiver::journal::{DirStore, Entry, Limits, Writer, recover};
use receiver::target::{LayoutKind, NewVolume, provision};
use std::collections::VecDeque;
use std::path::Path;
use std::time::Instant;
use wire::journal::{JournalId, StreamNumber, StreamOpen};
use wire::{Incarnation, Name, RecordHeader, RecordKind, Stamp, TimeMark, VolumeIndex, VolumeName};

/// Most bytes of entries handed over before they are committed.
const QUEUE_BYTES: u64 = 8 << 20;

fn header(stamp: u64, offset_bytes: u64, payload: &[u8]) -> RecordHeader {
    let length = payload.len() as u32;
    let header = RecordHeader {
        kind: RecordKind::Write,
        fua: false,
        volume: VolumeIndex(0),
        stamp: Stamp(stamp),
        mark: TimeMark(stamp),
        offset_bytes,
        length_bytes: length,
        payload_bytes: length,
        incarnation_id: 1,
        checksum: 0,
    };
    header.sealed(payload)
}

/// Appends records to a new journal, each group synced.
pub(crate) fn journal(dir: &Path, record_bytes: u64, total_bytes: u64) -> serde_json::Value {
    let mut store = DirStore::open(dir).unwrap();
    let recovered = recover(&mut store, dir, None, &mut |_| {}).unwrap();
    let limits = Limits::for_bytes(total_bytes * 2 + (1 << 30));
    let mut writer = Writer::start(store, dir.into(), recovered, limits, JournalId(1)).unwrap();
    let stream = StreamNumber(1);
    let open = StreamOpen {
        group: Name::new("g").unwrap(),
        source: Name::new("s").unwrap(),
        incarnation: Incarnation { counter: 1, id: 1 },
        ring_slots: 1 << 24,
        volumes: Vec::new(),
    };
    let mut queue = VecDeque::from([Entry::Open(stream, open)]);
    let payload = Bytes::from(noise(record_bytes, 3));
    let sealed = header(1, 0, &payload);
    let (mut stamp, start) = (0, Instant::now());
    while stamp * record_bytes < total_bytes {
        for _ in 0..(QUEUE_BYTES / record_bytes).max(1) {
            stamp += 1;
            let mut header = sealed;
            header.stamp = Stamp(stamp);
            queue.push_back(Entry::Record(stream, header, payload.clone()));
        }
        while !queue.is_empty() {
            assert!(!writer.commit(&mut queue).unwrap().no_room);
            writer.maintain().unwrap();
        }
    }
    rate(total_bytes, start.elapsed())
}

/// Gives every record the same payload, sealed with its own header.
struct Memory {
    records: Vec<RecordHeader>,
    payload: Vec<u8>,
}

impl PayloadSource for Memory {
    fn read(&mut self, at: RecordAt, payload: &mut Vec<u8>) -> Result<RecordHeader, PayloadError> {
        payload.clear();
        payload.extend_from_slice(&self.payload);
        Ok(self.records[at.segment as usize])
    }
}

/// The fold of records that lie where their stamps say.
fn folded(applier: &Applier, name: &VolumeName, records: &[RecordHeader]) -> Fold {
    let mut fold = applier.fold(name).unwrap();
    for header in records {
        let at = RecordAt {
            segment: header.stamp.0 - 1,
            offset_bytes: 0,
        };
        let range = ByteRange::new(header.offset_bytes, u64::from(header.length_bytes));
        let (stamp, effect) = (header.stamp, Effect::Data(at));
        fold.push(Change {
            stamp,
            range,
            effect,
        })
        .unwrap();
    }
    fold
}

/// Folds, loads, writes and syncs steps over new target files.
pub(crate) fn apply(dir: &Path, targets: usize, total_bytes: u64) -> serde_json::Value {
    const RECORD_BYTES: u64 = 128 << 10;
    const STEP_RECORDS: usize = (STEP_DATA_BYTES_MAX / RECORD_BYTES) as usize;
    let paths = (0..targets).map(|at| dir.join(format!("target{at}")));
    let record = made(paths.collect(), total_bytes);
    let mut applier = Applier::new();
    applier.add(&record).unwrap();
    let payload = noise(RECORD_BYTES, 5);
    let count = total_bytes / RECORD_BYTES;
    let records = (0..count).map(|at| header(at + 1, at * RECORD_BYTES, &payload));
    let mut memory = Memory {
        records: records.collect(),
        payload,
    };
    let name: &VolumeName = &record.name;
    // Once to make the blocks, once measured: both sides overwrite.
    let mut time = std::time::Duration::ZERO;
    for _ in 0..2 {
        let start = Instant::now();
        let mut writing = None;
        for step in memory.records.clone().chunks(STEP_RECORDS) {
            let fold = folded(&applier, name, step);
            let folds = vec![(name.volume.clone(), fold.finish())];
            // As the daemon does: the next step is loaded while one is written.
            let step = applier.load(&name.group, folds, &mut memory).unwrap();
            if let Some(writing) = writing.take() {
                applier.finish(writing).unwrap();
            }
            writing = Some(applier.start(step).unwrap());
        }
        applier.finish(writing.unwrap()).unwrap();
        time = start.elapsed();
    }
    rate(total_bytes, time)
}

fn made(targets: Vec<std::path::PathBuf>, size_bytes: u64) -> VolumeRecord {
    let new = NewVolume {
        size_bytes,
        sector_bytes: 512,
        kind: LayoutKind::Plain,
        targets: targets.into_iter().map(Into::into).collect(),
    };
    let mut made = provision(&new, &[], &[]).unwrap();
    made.unlock();
    let targets = made.targets().to_vec();
    made.keep();
    VolumeRecord {
        name: "g/data".parse().unwrap(),
        source: Name::new("s").unwrap(),
        size_bytes,
        sector_bytes: 512,
        kind: LayoutKind::Plain,
        disk: None,
        targets,
    }
}

/// Bytes a step writes, per unique byte, with every block overwritten ten times.
pub(crate) fn fold(dir: &Path) -> serde_json::Value {
    const BLOCK_BYTES: u64 = 4096;
    const BLOCKS: u64 = 4096;
    let record = made(vec![dir.join("folded")], BLOCKS * BLOCK_BYTES);
    let mut applier = Applier::new();
    applier.add(&record).unwrap();
    let payload = noise(BLOCK_BYTES, 5);
    let name = &record.name;
    let mut fold = applier.fold(name).unwrap();
    let mut records = Vec::new();
    for turn in 0..10 {
        for at in 0..BLOCKS {
            // Another order each time; 4096 and an odd number have nothing in common.
            let block = (at * (2 * turn + 1) + turn * 77) % BLOCKS;
            let header = header(records.len() as u64 + 1, block * BLOCK_BYTES, &payload);
            let at = RecordAt {
                segment: records.len() as u64,
                offset_bytes: 0,
            };
            let range = ByteRange::new(header.offset_bytes, BLOCK_BYTES);
            let (stamp, effect) = (header.stamp, Effect::Data(at));
            fold.push(Change {
                stamp,
                range,
                effect,
            })
            .unwrap();
            records.push(header);
        }
    }
    let mut memory = Memory { records, payload };
    let before = written_bytes();
    let folds = vec![(name.volume.clone(), fold.finish())];
    let step = applier.load(&name.group, folds, &mut memory).unwrap();
    applier.apply(step).unwrap();
    let written = written_bytes() - before;
    let unique = BLOCKS * BLOCK_BYTES;
    serde_json::json!({"written": written, "unique": unique})
}

/// What this process has had written to disks, as the kernel counts it.
fn written_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.unwrap().parse().unwrap()
}
