//! What the journal promises, on a store that loses power, room, bits and files.

mod crash;
mod damage;
mod index;
mod running;
mod space;
mod store;
mod unreadable;

use super::scan::{Found, Recovered, recover};
use super::writer::Writer;
use super::{Durable, Entry, JournalError, Limits};
use bytes::Bytes;
use std::collections::VecDeque;
use std::path::Path;
use store::MemoryStore;
use wire::journal::{JournalId, StreamNumber, StreamOpen};
use wire::{Incarnation, Name, RecordHeader, RecordKind, SettleMark, Stamp, TimeMark, VolumeIndex};

const SEGMENT_BYTES: u64 = 64 << 10;
const ID: JournalId = JournalId(0x1234_5678_9abc_def0_1234_5678_9abc_def0);
const STREAM: StreamNumber = StreamNumber(1);

fn limits(segments: u64) -> Limits {
    Limits {
        segment_bytes: SEGMENT_BYTES,
        bytes_max: segments * SEGMENT_BYTES,
    }
}

fn open(stream: StreamNumber) -> Entry {
    let open = StreamOpen {
        group: Name::new("pg").unwrap(),
        source: Name::new("db1").unwrap(),
        incarnation: Incarnation {
            counter: 1,
            id: u128::from(stream.0),
        },
        ring_slots: 1024,
        volumes: Vec::new(),
    };
    Entry::Open(stream, open)
}

fn record(stream: StreamNumber, stamp: u64, length: u32) -> Entry {
    let payload: Vec<u8> = (0..length)
        .map(|at| (u64::from(at / 7) + stamp) as u8)
        .collect();
    let header = RecordHeader {
        kind: RecordKind::Write,
        fua: false,
        volume: VolumeIndex(0),
        stamp: Stamp(stamp),
        mark: TimeMark(stamp * 10),
        offset_bytes: stamp * 4096,
        length_bytes: length,
        payload_bytes: length,
        incarnation_id: u128::from(stream.0),
        checksum: 0,
    };
    Entry::Record(stream, header.sealed(&payload), Bytes::from(payload))
}

fn settle(stream: StreamNumber, after: u64, upto: u64) -> Entry {
    let mark = SettleMark {
        after: Stamp(after),
        upto: Stamp(upto),
        voids: Vec::new(),
    };
    Entry::Settle(stream, mark)
}

/// A journal under test: what was called durable, in order.
struct Bench {
    writer: Writer<MemoryStore>,
    durable: Vec<(StreamNumber, Durable)>,
}

impl Bench {
    fn begin(store: &MemoryStore, limits: Limits) -> Self {
        Self::try_begin(store, limits).unwrap().0
    }

    /// Recovers and goes on; gives what was found too.
    fn try_begin(
        store: &MemoryStore,
        limits: Limits,
    ) -> Result<(Self, Vec<Found>, Vec<super::Damage>), JournalError> {
        let (recovered, found) = scan(store)?;
        let damage = recovered.damage.clone();
        let writer = Writer::start(store.clone(), "/j".into(), recovered, limits, ID)?;
        Ok((
            Self {
                writer,
                durable: Vec::new(),
            },
            found,
            damage,
        ))
    }

    /// Appends the entries as one batch; true if all became durable.
    fn append(&mut self, entries: Vec<Entry>) -> Result<bool, JournalError> {
        let mut queue = VecDeque::from(entries);
        while !queue.is_empty() {
            let committed = self.writer.commit(&mut queue)?;
            self.durable.extend(committed.entries);
            self.writer.maintain()?;
            if committed.no_room {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn scan(store: &MemoryStore) -> Result<(Recovered, Vec<Found>), JournalError> {
    let mut found = Vec::new();
    let mut store = store.clone();
    let recovered = recover(&mut store, Path::new("/j"), None, &mut |entry: Found| {
        found.push(entry)
    })?;
    Ok((recovered, found))
}

/// What reading everything finds.
fn examined(store: &MemoryStore) -> Result<(Recovered, Vec<Found>), JournalError> {
    let mut found = Vec::new();
    let recovered = super::examine(store, Path::new("/j"), None, &mut |entry: Found| {
        found.push(entry)
    })?;
    Ok((recovered, found))
}

/// The entries found, without what every segment repeats.
fn told(found: &[Found]) -> Vec<(StreamNumber, Durable)> {
    let mut told: Vec<(StreamNumber, Durable)> = Vec::new();
    for found in found {
        let repeated = matches!(found.durable, Durable::Open(_) | Durable::Close(_));
        let entry = (found.stream, found.durable.clone());
        if !repeated || !told.contains(&entry) {
            told.push(entry);
        }
    }
    told
}

#[test]
fn what_was_called_durable_is_found_again_in_order() {
    let store = MemoryStore::default();
    let mut bench = Bench::begin(&store, limits(8));
    bench.append(vec![open(STREAM)]).unwrap();
    for stamp in 1..=100 {
        bench
            .append(vec![
                record(STREAM, stamp, 512),
                settle(STREAM, stamp - 1, stamp),
            ])
            .unwrap();
    }
    bench
        .append(
            (101..=150)
                .map(|stamp| record(STREAM, stamp, 1024))
                .collect(),
        )
        .unwrap();
    assert!(bench.writer.segments() > 4, "the test is to cross segments");
    let durable = std::mem::take(&mut bench.durable);
    drop(bench);
    let (recovered, found) = scan(&store).unwrap();
    assert_eq!(recovered.damage, []);
    assert_eq!(told(&found), durable);
    assert_eq!(recovered.next_stream(), StreamNumber(2));
    assert_eq!(recovered.id(), Some(ID));
}

#[test]
fn a_restarted_journal_goes_on_behind_its_tail_and_keeps_its_id_and_segment_size() {
    let store = MemoryStore::default();
    let mut all = Vec::new();
    for life in 0..10u64 {
        let larger = Limits {
            segment_bytes: SEGMENT_BYTES << (life % 2),
            ..limits(40)
        };
        let (mut bench, found, damage) = Bench::try_begin(&store, larger).unwrap();
        assert_eq!(damage, []);
        assert_eq!(told(&found), all);
        if life == 0 {
            bench.append(vec![open(STREAM)]).unwrap();
        }
        for stamp in life * 7 + 1..=life * 7 + 7 {
            bench.append(vec![record(STREAM, stamp, 4096)]).unwrap();
        }
        assert_eq!(
            (bench.writer.id(), bench.writer.segment_bytes()),
            (ID, SEGMENT_BYTES)
        );
        all.append(&mut bench.durable);
    }
}

#[test]
fn the_golden_bytes_of_a_segment_do_not_change() {
    let store = MemoryStore::default();
    let mut bench = Bench::begin(&store, limits(8));
    bench
        .append(vec![
            open(STREAM),
            record(STREAM, 1, 512),
            settle(STREAM, 0, 1),
        ])
        .unwrap();
    let bytes = store.bytes(1);
    let sum = wire::journal::body_checksum(&bytes);
    assert_eq!(bytes.len() as u64, SEGMENT_BYTES);
    assert_eq!(format!("{sum:016x}"), "86e060e42ead10cb");
    // Header page, the first group with the live list, the group above, nothing else.
    assert!(bytes[3 * 4096..].iter().all(|byte| *byte == 0));
}

#[test]
fn every_entry_takes_the_room_it_says_it_takes() {
    use wire::journal::{StreamClose, StreamLost, entry_bytes};
    let lost = StreamLost {
        after: Stamp(1),
        upto: Stamp(2),
        reason: "why".into(),
    };
    for entry in [
        open(STREAM),
        record(STREAM, 1, 512),
        settle(STREAM, 0, 1),
        Entry::Close(STREAM, StreamClose { upto: Stamp(1) }),
        Entry::Lost(STREAM, lost),
    ] {
        assert_eq!(entry.bytes(), entry_bytes(entry.body().len()), "{entry:?}");
    }
}
