//! Cut files, flipped bits, old copies, lost files: noticed, named, and never taken for entries.

use super::store::MemoryStore;
use super::{Bench, ID, SEGMENT_BYTES, STREAM, examined, limits, open, record, scan, settle, told};
use crate::journal::{DamageKind, Durable, Found, JournalError, Store, is_there};
use wire::Stamp;
use wire::journal::{
    EntryHeader, GroupChecksum, JournalId, StreamNumber, body_checksum, entry_bytes,
};

pub(super) fn stamps(found: &[Found]) -> Vec<u64> {
    let stamps = found.iter().filter_map(|found| match &found.durable {
        Durable::Record { header, .. } => Some(header.stamp.0),
        _ => None,
    });
    stamps.collect()
}

/// Three groups in the first segment: the live list, four entries, two entries.
pub(super) fn small() -> (MemoryStore, Vec<(StreamNumber, Durable)>) {
    let store = MemoryStore::default();
    let mut bench = Bench::begin(&store, limits(8));
    bench
        .append(vec![
            open(STREAM),
            record(STREAM, 1, 512),
            record(STREAM, 2, 1024),
            settle(STREAM, 0, 2),
        ])
        .unwrap();
    bench
        .append(vec![record(STREAM, 3, 512), record(STREAM, 4, 512)])
        .unwrap();
    (store, bench.durable)
}

/// Where the groups of [`small`] lie, and how many entries each has that are told.
const GROUPS: [(usize, usize, usize); 3] = [
    (4096, 2 * 4096, 0),
    (2 * 4096, 3 * 4096, 4),
    (3 * 4096, 4 * 4096, 2),
];

/// Several segments of single records.
pub(super) fn several() -> (MemoryStore, u64) {
    let store = MemoryStore::default();
    let mut bench = Bench::begin(&store, limits(16));
    bench.append(vec![open(STREAM)]).unwrap();
    for stamp in 1..=30 {
        bench.append(vec![record(STREAM, stamp, 4096)]).unwrap();
    }
    (store, 30)
}

#[test]
fn a_segment_cut_at_any_byte_ends_at_its_last_whole_group_and_can_be_written_on() {
    let (store, durable) = small();
    let whole = store.bytes(1);
    let used = 4 * 4096;
    for cut in (0..used).chain((used..whole.len()).step_by(977)) {
        let left = store.copy();
        left.damage(1, |bytes| bytes.truncate(cut));
        let (recovered, found) = scan(&left).unwrap();
        assert_eq!(recovered.damage, [], "cut at {cut}");
        let found = told(&found);
        let expected: usize = GROUPS
            .iter()
            .map(|(from, end, entries)| {
                let lost = &whole[cut.clamp(*from, *end)..*end];
                if lost.iter().all(|byte| *byte == 0) {
                    *entries
                } else {
                    0
                }
            })
            .sum();
        assert_eq!(found, durable[..expected], "cut at {cut}");
        if cut % 61 == 0 {
            go_on(&left, found.len());
        }
    }
}

fn go_on(left: &MemoryStore, before: usize) {
    let mut bench = Bench::begin(left, limits(8));
    bench
        .append(vec![open(StreamNumber(9)), record(StreamNumber(9), 1, 512)])
        .unwrap();
    drop(bench);
    let (recovered, found) = scan(left).unwrap();
    assert_eq!(recovered.damage, []);
    assert_eq!(told(&found).len(), before + 2);
}

#[test]
fn no_flipped_bit_goes_unnoticed_or_invents_an_entry() {
    let (store, durable) = small();
    let used = 4 * 4096;
    // One bit of every byte; the formats' own tests flip every bit of every header.
    for bit in (0..used).map(|byte| byte * 8 + byte % 7) {
        let left = store.copy();
        left.damage(1, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let (recovered, found) = scan(&left).unwrap();
        let found = told(&found);
        if found == durable {
            continue;
        }
        let missing: Vec<_> = durable
            .iter()
            .filter(|entry| !found.contains(entry))
            .collect();
        assert_eq!(
            found.len() + missing.len(),
            durable.len(),
            "bit {bit} invents an entry"
        );
        let tail = durable.len() - 2;
        let only_tail = missing.iter().all(|entry| durable[tail..].contains(entry));
        // Damage in the last group cannot be told from a cut: it is asked for again.
        assert!(
            only_tail || !recovered.damage.is_empty(),
            "bit {bit} went unnoticed"
        );
    }
}

#[test]
fn one_damaged_entry_before_the_tail_is_named_and_the_others_are_kept() {
    let (store, _) = small();
    let at = 2 * 4096 + 64 + 64 + 128;
    store.damage(1, |bytes| bytes[at + 300] ^= 1);
    let (recovered, found) = scan(&store).unwrap();
    let kinds: Vec<_> = recovered.damage.iter().map(|damage| damage.kind).collect();
    assert_eq!(kinds, [DamageKind::Entry]);
    assert_eq!(stamps(&found), [2, 3, 4]);
    let text = recovered.damage[0].to_string();
    assert!(text.starts_with("journal segment 1 offset 8"), "{text}");
}

#[test]
fn an_old_copy_of_a_segment_put_back_in_place_is_noticed() {
    let store = MemoryStore::default();
    let mut bench = Bench::begin(&store, limits(16));
    bench
        .append(vec![open(STREAM), record(STREAM, 1, 4096)])
        .unwrap();
    let old = store.bytes(1);
    for stamp in 2..=30 {
        bench.append(vec![record(STREAM, stamp, 4096)]).unwrap();
    }
    drop(bench);
    store.restore(1, old);
    let (recovered, found) = scan(&store).unwrap();
    let kinds: Vec<_> = recovered.damage.iter().map(|damage| damage.kind).collect();
    assert_eq!(kinds, [DamageKind::Index, DamageKind::GroupsMissing]);
    let found = stamps(&found);
    assert_eq!((found[0], found[1] > 2), (1, true), "{found:?}");
}

#[test]
fn a_segment_under_the_name_of_another_is_not_read_as_that() {
    let (store, count) = several();
    let other = store.bytes(2);
    store.restore(3, other);
    let (recovered, found) = scan(&store).unwrap();
    assert!(!recovered.damage.is_empty());
    let found = stamps(&found);
    assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "{found:?}");
    assert!(found.len() < count as usize);
}

#[test]
fn a_lost_file_is_named_and_the_rest_is_read() {
    let (store, count) = several();
    store.lose(2);
    let (recovered, found) = scan(&store).unwrap();
    let named: Vec<_> = recovered
        .damage
        .iter()
        .map(|d| (d.segment, d.kind))
        .collect();
    assert_eq!(named, [(2, DamageKind::SegmentMissing)]);
    let found = stamps(&found);
    assert_eq!((found.first(), found.last()), (Some(&1), Some(&count)));
}

#[test]
fn what_was_freed_is_not_missed_when_the_newest_segment_begins_damaged() {
    let (store, _) = several();
    let (mut bench, ..) = Bench::try_begin(&store, limits(16)).unwrap();
    bench.writer.applied(STREAM, Stamp(20));
    bench.writer.maintain().unwrap();
    drop(bench);
    let newest = *store.list().unwrap().iter().rev().nth(1).unwrap();
    assert!(
        !store.list().unwrap().contains(&1),
        "the first one is freed"
    );
    // The header of its first group, and the body of the live list in it.
    for (at, kind) in [(8, DamageKind::Group), (64 + 64, DamageKind::Entry)] {
        let left = store.copy();
        left.damage(newest, |bytes| bytes[4096 + at] ^= 1);
        let (recovered, found) = scan(&left).unwrap();
        let named = recovered.damage.iter().map(|d| (d.segment, d.kind));
        assert_eq!(named.collect::<Vec<_>>(), [(newest, kind)]);
        assert_eq!(stamps(&found).last(), Some(&30));
    }
}

#[test]
fn a_damaged_segment_header_is_named_and_its_groups_prove_themselves() {
    let (store, count) = several();
    for segment in 1..=3 {
        store.damage(segment, |bytes| bytes[20] ^= 4);
    }
    let (recovered, found) = scan(&store).unwrap();
    let named = recovered
        .damage
        .iter()
        .filter(|d| d.kind == DamageKind::SegmentHeader)
        .count();
    assert_eq!(named, 3);
    assert_eq!(stamps(&found).len(), count as usize);
}

#[test]
fn a_whole_page_lost_in_the_middle_is_named() {
    let (store, _) = several();
    let count = 34;
    let mut bench = Bench::begin(&store, limits(16));
    for stamp in 31..=count {
        bench.append(vec![record(STREAM, stamp, 4096)]).unwrap();
    }
    drop(bench);
    let newest = *store.list().unwrap().iter().rev().nth(1).unwrap();
    // The second page of a group: the disk said it was written, and it was not.
    let lose = |store: &MemoryStore, segment| {
        store.damage(segment, |bytes| bytes[4 * 4096..5 * 4096].fill(0));
    };
    let open = store.copy();
    lose(&open, newest);
    let (recovered, found) = scan(&open).unwrap();
    assert!(!recovered.damage.is_empty());
    assert!(stamps(&found).len() < count as usize);
    // A sealed segment is not read by a start; its records are when they are applied, and here.
    lose(&store, 1);
    let (recovered, found) = scan(&store).unwrap();
    assert_eq!((recovered.damage.len(), stamps(&found).len()), (0, 34));
    let (recovered, found) = examined(&store).unwrap();
    assert_eq!(recovered.damage[0].segment, 1);
    assert!(stamps(&found).len() < count as usize);
}

#[test]
fn a_journal_that_is_expected_and_not_there_is_refused_and_nothing_is_touched() {
    let mut store = MemoryStore::default();
    let path = std::path::Path::new("/j");
    let mut nothing = |_: Found| {};
    let mut refused = |store: &mut MemoryStore| {
        let recovered = crate::journal::recover(store, path, Some(ID), &mut nothing);
        assert!(matches!(recovered, Err(JournalError::Missing(_))));
    };
    assert!(!is_there(&store, path).unwrap());
    refused(&mut store);
    // A segment made ready, without a group in it, is no journal either.
    drop(store.create(1, SEGMENT_BYTES).unwrap());
    assert!(!is_there(&store, path).unwrap());
    refused(&mut store);
    assert_eq!(store.list().unwrap(), [1]);
    drop(Bench::begin(&store, limits(8)));
    assert!(is_there(&store, path).unwrap());
}

/// Gives the first record of [`small`] another version, as whoever wrote it would have.
fn of_version_two(bytes: &mut [u8], sealed: bool) {
    let group = 2 * 4096;
    let entry = group + 64 + entry_length(bytes, group + 64);
    let record = entry + 64;
    let seal = |bytes: &mut [u8], at: usize| {
        let sum = body_checksum(&bytes[at..at + 56]).to_le_bytes();
        bytes[at + 56..at + 64].copy_from_slice(&sum);
    };
    bytes[record] = 2;
    if !sealed {
        return;
    }
    let covered = [&bytes[record..record + 56], &bytes[record + 64..][..512]].concat();
    let sum = body_checksum(&covered).to_le_bytes();
    bytes[record + 56..record + 64].copy_from_slice(&sum);
    bytes[entry + 48..entry + 56].copy_from_slice(&sum);
    seal(bytes, entry);
    let mut sum = GroupChecksum::new();
    let mut at = group + 64;
    for _ in 0..4 {
        sum.add(bytes[at..].first_chunk().unwrap());
        at += entry_length(bytes, at);
    }
    bytes[group + 48..group + 56].copy_from_slice(&sum.finish().to_le_bytes());
    seal(bytes, group);
}

fn entry_length(bytes: &[u8], at: usize) -> usize {
    let header = EntryHeader::parse(bytes[at..].first_chunk().unwrap()).unwrap();
    entry_bytes(header.body_bytes as usize)
}

#[test]
fn a_sound_record_of_a_later_version_is_refused_and_a_flipped_version_is_damage() {
    let (store, durable) = small();
    let flipped = store.copy();
    flipped.damage(1, |bytes| of_version_two(bytes, false));
    let (recovered, found) = scan(&flipped).unwrap();
    assert_eq!(recovered.damage.len(), 1);
    assert_eq!(found.len(), durable.len() - 1);

    store.damage(1, |bytes| of_version_two(bytes, true));
    let before = store.bytes(1);
    let text = scan(&store).map(drop).unwrap_err().to_string();
    assert_eq!(
        text,
        "segment 1: record version 2 is not understood by this build (it speaks 1); use the \
         version that wrote it"
    );
    assert_eq!(store.bytes(1), before);
}

#[test]
fn segments_of_another_journal_or_a_later_version_are_refused_and_left_alone() {
    let (store, _) = several();
    let mut theirs = store.clone();
    let mut nothing = |_: Found| {};
    let path = std::path::Path::new("/j");
    let expected = Some(JournalId(7));
    let refused = crate::journal::recover(&mut theirs, path, expected, &mut nothing);
    assert!(matches!(refused, Err(JournalError::Foreign { .. })));
    store.damage(2, |bytes| {
        bytes[8] = 9;
        let sum = body_checksum(&bytes[..56]).to_le_bytes();
        bytes[56..64].copy_from_slice(&sum);
    });
    let error = scan(&store).map(drop).unwrap_err();
    assert!(
        matches!(error, JournalError::Version { segment: 2, .. }),
        "{error}"
    );
}
