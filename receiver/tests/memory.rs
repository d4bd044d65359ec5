//! What a long window takes in memory: 40 bytes per retained record at most, beside a fixed part.

#![allow(
    clippy::unwrap_used,
    reason = "a test program: a failed unwrap is a failed test"
)]

use bytes::Bytes;
use receiver::catalog::Since;
use receiver::fold::RecordAt;
use receiver::journal::Durable;
use receiver::serve::group::{Registered, Restored};
use std::collections::BTreeMap;
use wire::journal::{StreamNumber, StreamOpen};
use wire::{
    Incarnation, Name, RecordHeader, RecordKind, SettleMark, Stamp, TimeMark, VolumeIndex,
    VolumeSpec,
};

const RECORDS: u64 = 4_000_000;
const BYTES_PER_RECORD_MAX: u64 = 40;
/// Of the 64 MiB a receiver may take whatever it retains; the index itself needs none of them.
const FIXED_BYTES_MAX: u64 = 8 << 20;
const BLOCK_BYTES: u32 = 4096;
const SIZE_BYTES: u64 = 1 << 40;
const STREAM: StreamNumber = StreamNumber(1);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn open() -> StreamOpen {
    StreamOpen {
        group: name("pg"),
        source: name("db1"),
        incarnation: Incarnation { counter: 1, id: 7 },
        ring_slots: 1 << 24,
        volumes: vec![VolumeSpec {
            index: VolumeIndex(0),
            name: name("data"),
            size_bytes: SIZE_BYTES,
            sector_bytes: 512,
            identity: "disk".into(),
        }],
    }
}

fn record(stamp: u64) -> Durable {
    let header = RecordHeader {
        kind: RecordKind::Write,
        fua: false,
        volume: VolumeIndex(0),
        stamp: Stamp(stamp),
        mark: TimeMark(stamp * 1000),
        offset_bytes: stamp * 7919 % (SIZE_BYTES / 4096) * 4096,
        length_bytes: BLOCK_BYTES,
        payload_bytes: BLOCK_BYTES,
        incarnation_id: 7,
        checksum: 0,
    };
    let at = RecordAt {
        segment: 1 + stamp / 15_000,
        offset_bytes: stamp % 15_000 * 4224,
    };
    let note = Bytes::new();
    Durable::Record { header, at, note }
}

/// Memory of this process that is not backed by files, in bytes.
fn memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() << 10
}

#[test]
fn a_retained_record_takes_forty_bytes_of_memory_at_most() {
    let registered = Registered {
        size_bytes: SIZE_BYTES,
        sector_bytes: 512,
        refused: None,
        since: Some(Since::default()),
    };
    let volumes = BTreeMap::from([(name("data"), registered)]);
    let before = memory_bytes();
    let mut restored = Restored::new((name("pg"), name("db1")), volumes, None, 1);
    restored.found(STREAM, Durable::Open(open()));
    for stamp in 1..=RECORDS {
        restored.found(STREAM, record(stamp));
        if stamp % 1000 == 0 {
            restored.found(
                STREAM,
                Durable::Settle(SettleMark {
                    after: Stamp(stamp - 1000),
                    upto: Stamp(stamp),
                    voids: Vec::new(),
                }),
            );
        }
    }
    let (group, _) = restored.finish();
    let used = memory_bytes() - before;
    let held = group.status(receiver::serve::group::Now::default());
    assert_eq!(held.durable, RECORDS, "they are all there");
    let bytes_max = RECORDS * BYTES_PER_RECORD_MAX + FIXED_BYTES_MAX;
    let mean = used as f64 / RECORDS as f64;
    println!("{RECORDS} retained records take {used} bytes, {mean:.1} each");
    assert!(used <= bytes_max, "{used} bytes, {mean:.1} per record");
}
