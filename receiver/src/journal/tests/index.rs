//! Indexes of sealed segments: what they spare a start, and what becomes of one that is damaged.

use super::store::MemoryStore;
use super::{Bench, ID, SEGMENT_BYTES, STREAM, examined, limits, open, record, scan, settle, told};
use crate::journal::entry::Body;
use crate::journal::group::{GroupBuffer, GroupPlace};
use crate::journal::{DamageKind, Durable, Entry};
use bytes::Bytes;
use wire::journal::{
    EntryHeader, EntryKind, GroupHeader, Position, StreamClose, StreamLost, StreamNumber,
    body_checksum,
};
use wire::{
    Member, MemberAction, Name, RecordHeader, RecordKind, SettleMark, Stamp, TimeMark, VolumeIndex,
    VolumeSpec,
};

fn spec() -> VolumeSpec {
    VolumeSpec {
        index: VolumeIndex(1),
        name: Name::new("wal").unwrap(),
        size_bytes: 1 << 30,
        sector_bytes: 512,
        identity: "i".repeat(200),
    }
}

fn record_of(kind: RecordKind, stamp: u64, payload: Vec<u8>) -> Entry {
    let ranged = kind == RecordKind::Discard;
    let header = RecordHeader {
        kind,
        fua: false,
        volume: VolumeIndex(1),
        stamp: Stamp(stamp),
        mark: TimeMark(stamp * 10),
        offset_bytes: 0,
        length_bytes: if ranged { 1 << 20 } else { 0 },
        payload_bytes: payload.len() as u32,
        incarnation_id: 1,
        checksum: 0,
    };
    Entry::Record(STREAM, header.sealed(&payload), Bytes::from(payload))
}

/// Every kind of entry there is, some with bodies too long for an index, over several segments.
fn of_all_kinds() -> (MemoryStore, Vec<(StreamNumber, Durable)>) {
    let store = MemoryStore::default();
    let mut bench = Bench::begin(&store, limits(32));
    let Entry::Open(_, mut wide) = open(STREAM) else {
        unreachable!("open gives an open entry")
    };
    wide.volumes = vec![spec(); 30];
    for (volume, index) in wide.volumes.iter_mut().zip(1..) {
        volume.index = VolumeIndex(index);
    }
    assert!(wide.to_bytes().len() > wire::journal::INDEX_BODY_BYTES_MAX);
    bench
        .append(vec![open(STREAM), Entry::Open(STREAM, wide)])
        .unwrap();
    let member = Member {
        action: MemberAction::Join,
        spec: spec(),
    };
    let second = StreamNumber(2);
    for turn in 0..12 {
        let first = turn * 6 + 1;
        let voids = (first..first + 6).map(Stamp).collect();
        let mark = SettleMark {
            after: Stamp(first - 1),
            upto: Stamp(first + 5),
            voids,
        };
        let lost = StreamLost {
            after: Stamp(first),
            upto: Stamp(first + 1),
            reason: "gone".into(),
        };
        bench
            .append(vec![
                record(STREAM, first, 4096),
                record_of(RecordKind::Discard, first + 1, Vec::new()),
                record_of(RecordKind::Member, first + 2, member.to_bytes()),
                record_of(RecordKind::Gap, first + 3, wire::member::gap_payload("why")),
                record_of(RecordKind::Void, first + 4, Vec::new()),
                record(STREAM, first + 5, 8192),
                Entry::Settle(STREAM, mark),
                Entry::Lost(STREAM, lost),
            ])
            .unwrap();
    }
    bench
        .append(vec![
            Entry::Close(STREAM, StreamClose { upto: Stamp(72) }),
            open(second),
        ])
        .unwrap();
    for stamp in 1..=20 {
        let entries = vec![
            record(second, stamp, 8192),
            settle(second, stamp - 1, stamp),
        ];
        bench.append(entries).unwrap();
    }
    assert!(bench.writer.segments() > 4, "the test is to cross segments");
    (store, bench.durable)
}

/// Where the index of a segment lies: from its first group to its end.
fn index_of(store: &MemoryStore, segment: u64) -> std::ops::Range<usize> {
    let bytes = store.bytes(segment);
    let (mut at, mut found) = (4096, None);
    while let Some(header) = bytes
        .get(at..at + 64)
        .and_then(|raw| GroupHeader::parse(raw.first_chunk()?).ok())
    {
        let entry = EntryHeader::parse(bytes[at + 64..].first_chunk().unwrap()).unwrap();
        let end = at + header.bytes as usize;
        if entry.kind == EntryKind::Index {
            found = Some((found.map_or(at, |(from, _)| from), end));
        }
        at = end;
    }
    let (from, end) = found.expect("a sealed segment has an index");
    assert_eq!(end, at, "nothing follows it");
    from..end
}

#[test]
fn a_start_from_the_indexes_finds_what_reading_everything_finds() {
    let (store, durable) = of_all_kinds();
    let (recovered, found) = scan(&store).unwrap();
    let (whole, read) = examined(&store).unwrap();
    assert_eq!((recovered.damage, whole.damage), (vec![], vec![]));
    assert_eq!(found, read);
    assert_eq!(told(&found), durable);
}

#[test]
fn a_start_reads_the_indexes_and_the_open_segment_and_little_else() {
    let store = MemoryStore::default();
    let mut bench = Bench::begin(&store, limits(64));
    bench.append(vec![open(STREAM)]).unwrap();
    let mut stamp = 0;
    while bench.writer.segments() < 20 {
        stamp += 1;
        bench.append(vec![record(STREAM, stamp, 4096)]).unwrap();
    }
    drop(bench);
    store.take_read();
    let (recovered, found) = scan(&store).unwrap();
    assert_eq!(
        (recovered.damage.len(), told(&found).len()),
        (0, 1 + stamp as usize)
    );
    let read = store.take_read();
    // Header page, first group's page, the index; the last two are the open one and the spare.
    for segment in 1..=18 {
        let index = index_of(&store, segment).len() as u64;
        let most = 2 * 4096 + (SEGMENT_BYTES - index_of(&store, segment).start as u64).max(index);
        assert!(read[&segment] <= most, "{} of {segment}", read[&segment]);
        assert!(read[&segment] < SEGMENT_BYTES / 3);
    }
}

#[test]
fn a_damaged_index_is_named_once_and_its_segment_read_instead() {
    let (store, durable) = of_all_kinds();
    let range = index_of(&store, 2);
    let used = store.bytes(2)[range.clone()]
        .iter()
        .rposition(|byte| *byte != 0)
        .unwrap();
    for at in range.start..=range.start + used {
        let left = store.copy();
        left.damage(2, |bytes| bytes[at] ^= 1 << (at % 8));
        check_fallback(&left, &durable, &format!("byte {at}"));
    }
}

/// The segment of a damaged index is read: nothing is missing, and the index is named.
fn check_fallback(left: &MemoryStore, durable: &[(StreamNumber, Durable)], what: &str) {
    let (recovered, found) = scan(left).unwrap();
    let named: Vec<_> = recovered
        .damage
        .iter()
        .map(|d| (d.segment, d.kind))
        .collect();
    if named.is_empty() {
        // A byte nothing covers: padding.
        assert_eq!(told(&found), durable, "{what}");
        return;
    }
    assert_eq!(named, [(2, DamageKind::Index)], "{what}");
    assert_eq!(told(&found), durable, "{what}");
}

type Spoil<'a> = Box<dyn Fn(&mut Vec<u8>) + 'a>;

#[test]
fn a_lost_torn_or_misdirected_write_of_an_index_is_recognised() {
    let (store, durable) = of_all_kinds();
    let range = index_of(&store, 2);
    let other = index_of(&store, 3);
    let theirs = store.bytes(3)[other].to_vec();
    let spoil: [(&str, Spoil<'_>); 4] = [
        ("lost", Box::new(|bytes| bytes[range.clone()].fill(0))),
        (
            "torn",
            Box::new(|bytes| bytes[range.start + 512..range.end].fill(0)),
        ),
        (
            "misdirected",
            Box::new(|bytes| {
                bytes[range.clone()].fill(0);
                let fits = theirs.len().min(range.len());
                bytes[range.start..range.start + fits].copy_from_slice(&theirs[..fits]);
            }),
        ),
        (
            "another journal's",
            Box::new(|bytes| {
                let at = range.start;
                bytes[at + 16] ^= 1;
                let sum = body_checksum(&bytes[at..at + 56]).to_le_bytes();
                bytes[at + 56..at + 64].copy_from_slice(&sum);
            }),
        ),
    ];
    for (what, spoil) in &spoil {
        let left = store.copy();
        left.damage(2, |bytes| spoil(bytes));
        let (recovered, _) = scan(&left).unwrap();
        assert_eq!(recovered.damage.len(), 1, "{what}");
        check_fallback(&left, &durable, what);
    }
}

#[test]
fn an_index_that_says_something_else_than_its_segment_is_found_by_the_verifier() {
    let written = |first: u64| {
        let store = MemoryStore::default();
        let mut bench = Bench::begin(&store, limits(8));
        bench.append(vec![open(STREAM)]).unwrap();
        for stamp in first..first + 12 {
            bench.append(vec![record(STREAM, stamp, 4096)]).unwrap();
        }
        store
    };
    let (store, other) = (written(1), written(101));
    let range = index_of(&store, 1);
    assert_eq!(range, index_of(&other, 1));
    // Groups of the same numbers at the same places: each proves itself.
    let theirs = other.bytes(1);
    store.damage(1, |bytes| {
        bytes[..range.start].copy_from_slice(&theirs[..range.start])
    });
    let (recovered, _) = examined(&store).unwrap();
    let named = recovered.damage.iter().map(|d| (d.segment, d.kind));
    assert_eq!(named.collect::<Vec<_>>(), [(1, DamageKind::Index)]);
}

/// The golden segment, sealed, and the one behind it.
fn golden() -> (MemoryStore, Vec<(StreamNumber, Durable)>) {
    let store = MemoryStore::default();
    let mut bench = Bench::begin(&store, limits(8));
    bench.append(vec![open(STREAM)]).unwrap();
    let mut stamp = 0;
    while bench.writer.segments() < 3 {
        stamp += 1;
        bench
            .append(vec![
                record(STREAM, stamp, 4096),
                settle(STREAM, stamp - 1, stamp),
            ])
            .unwrap();
    }
    assert_eq!((bench.writer.id(), stamp), (ID, 6));
    (store, bench.durable)
}

#[test]
fn the_golden_bytes_of_a_sealed_segment_do_not_change() {
    let (store, _) = golden();
    let sum = body_checksum(&store.bytes(1));
    assert_eq!(format!("{sum:016x}"), "1b26f52c04bcfb77");
}

#[test]
fn a_sealed_segment_cut_at_any_byte_is_taken_from_its_index_or_named() {
    let (store, durable) = golden();
    let whole = store.bytes(1);
    let end = index_of(&store, 1).end;
    let last = whole[..end].iter().rposition(|byte| *byte != 0).unwrap();
    for cut in 0..whole.len() {
        let left = store.copy();
        left.damage(1, |bytes| bytes.truncate(cut));
        let (recovered, found) = scan(&left).unwrap();
        let found = told(&found);
        if cut > last {
            assert_eq!(
                (recovered.damage, found),
                (vec![], durable.clone()),
                "cut at {cut}"
            );
            continue;
        }
        assert_eq!(recovered.damage[0].segment, 1, "cut at {cut}");
        let (mut of_first, mut rest) = (durable.iter(), 0);
        for entry in &found {
            assert!(of_first.any(|one| one == entry), "cut at {cut} invents");
            rest += 1;
        }
        assert!(rest > 0, "what lies behind is kept");
    }
}

#[test]
fn a_kind_that_nobody_makes_use_of_is_refused_and_left_alone() {
    let epoch = wire::journal::Epoch {
        closed: true,
        after: Stamp(1),
        upto: Stamp(2),
        reason: "a copy".into(),
    };
    let (store, _) = golden();
    let newest = 2;
    let mut group = GroupBuffer::new(ID);
    let bytes = store.bytes(newest);
    let (mut at, mut number) = (4096, 0);
    while let Ok(header) = GroupHeader::parse(bytes[at..].first_chunk().unwrap()) {
        (at, number) = (at + header.bytes as usize, header.number + 1);
    }
    group.begin(GroupPlace {
        journal: ID,
        position: Position(newest * SEGMENT_BYTES + at as u64),
        number,
    });
    group.push(STREAM, &Body::small(EntryKind::Epoch, epoch.to_bytes()));
    let written = group.seal().to_vec();
    store.damage(newest, |bytes| {
        bytes[at..at + written.len()].copy_from_slice(&written)
    });
    let before = store.bytes(newest);
    let text = scan(&store).map(drop).unwrap_err().to_string();
    assert_eq!(
        text,
        "segment 2 holds an epoch, which this build does not make use of; use the version that \
         wrote it"
    );
    assert_eq!(store.bytes(newest), before);
}
