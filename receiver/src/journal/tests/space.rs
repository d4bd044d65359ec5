//! Space: bounded, freed when nothing is needed, refused in time, and never a dead end.

use super::store::{Fault, MemoryStore};
use super::{Bench, SEGMENT_BYTES, STREAM, limits, open, record, scan, settle, told};
use crate::journal::store::Store;
use crate::journal::{JOURNAL_BYTES_MAX, JOURNAL_BYTES_MIN, Limits, SEGMENT_BYTES_MIN};
use std::io::ErrorKind;
use wire::Stamp;
use wire::journal::{LiveSegment, SEGMENTS_MAX, StreamNumber};

fn fill(bench: &mut Bench, from: u64) -> u64 {
    let mut stamp = from;
    while !bench.writer.is_full() {
        assert!(bench.append(vec![record(STREAM, stamp, 4096)]).unwrap());
        stamp += 1;
    }
    stamp
}

#[test]
fn no_bound_lets_a_journal_have_more_segments_than_it_can_list() {
    for bytes_max in [0, JOURNAL_BYTES_MIN, JOURNAL_BYTES_MAX, u64::MAX] {
        let limits = Limits::for_bytes(bytes_max);
        assert!((JOURNAL_BYTES_MIN..=JOURNAL_BYTES_MAX).contains(&limits.bytes_max));
        // Those of an existing journal may be of any size.
        for segment_bytes in [SEGMENT_BYTES, SEGMENT_BYTES_MIN, limits.segment_bytes] {
            let most = limits.segments_max(segment_bytes) as usize;
            assert!((4..=SEGMENTS_MAX).contains(&most), "{most}");
            let in_use = LiveSegment {
                segment: 0,
                groups_end: 0,
                index_offset: 0,
            };
            let list = (0..most as u64).map(|segment| LiveSegment { segment, ..in_use });
            let list: Vec<_> = list.collect();
            let bytes = LiveSegment::list_to_bytes(&list);
            assert_eq!(LiveSegment::parse_list(&bytes), Ok(list));
        }
    }
    assert_eq!(Limits::for_bytes(JOURNAL_BYTES_MIN).segment_bytes, 32 << 20);
    assert_eq!(Limits::for_bytes(8 << 30).segment_bytes, 64 << 20);
}

#[test]
fn a_full_journal_says_so_with_room_left_for_what_frees_it() {
    let store = MemoryStore::default();
    let mut bench = Bench::begin(&store, limits(5));
    bench.append(vec![open(STREAM)]).unwrap();
    let next = fill(&mut bench, 1);
    assert_eq!(bench.writer.segments(), 5);
    for round in 0..8 {
        assert!(
            bench
                .append(vec![settle(STREAM, round, round + 1)])
                .unwrap(),
            "round {round}"
        );
    }
    bench.writer.applied(STREAM, Stamp(next - 1));
    bench.writer.maintain().unwrap();
    assert!(!bench.writer.is_full());
    assert!(
        bench.writer.segments() <= 2,
        "{} segments",
        bench.writer.segments()
    );
    assert_eq!(store.list().unwrap().len() as u64, bench.writer.segments());
    assert!(fill(&mut bench, next) > next);
}

#[test]
fn a_journal_full_to_the_last_page_is_still_freed() {
    let store = MemoryStore::default();
    let mut bench = Bench::begin(&store, limits(4));
    bench.append(vec![open(STREAM)]).unwrap();
    let mut stamp = 1;
    while bench.append(vec![record(STREAM, stamp, 512)]).unwrap() {
        stamp += 1;
    }
    let applied = Stamp(stamp);
    bench.writer.applied(STREAM, applied);
    bench.writer.maintain().unwrap();
    assert!(!bench.writer.is_full());
    assert!(bench.append(vec![record(STREAM, stamp, 512)]).unwrap());
}

#[test]
fn a_journal_full_at_its_start_is_freed_by_being_told_what_is_applied() {
    let store = MemoryStore::default();
    let mut bench = Bench::begin(&store, limits(4));
    bench.append(vec![open(STREAM)]).unwrap();
    let mut stamp = 1;
    while bench.append(vec![record(STREAM, stamp, 512)]).unwrap() {
        stamp += 1;
    }
    drop(bench);
    let mut bench = Bench::begin(&store, limits(4));
    assert!(bench.writer.is_full());
    bench.writer.applied(STREAM, Stamp(stamp - 1));
    bench.writer.maintain().unwrap();
    assert!(!bench.writer.is_full());
    assert!(bench.append(vec![record(STREAM, stamp, 512)]).unwrap());
}

#[test]
fn segments_between_needed_ones_are_freed_and_that_is_known_after_a_restart() {
    let store = MemoryStore::default();
    let mut bench = Bench::begin(&store, limits(20));
    let idle = StreamNumber(2);
    bench
        .append(vec![open(STREAM), open(idle), record(idle, 1, 512)])
        .unwrap();
    for stamp in 1..=60 {
        bench.append(vec![record(STREAM, stamp, 4096)]).unwrap();
    }
    let before = bench.writer.segments();
    bench.writer.applied(STREAM, Stamp(50));
    bench.writer.maintain().unwrap();
    assert!(bench.writer.segments() < before - 3);
    assert!(
        store.list().unwrap().contains(&1),
        "the idle stream holds the first segment"
    );
    drop(bench);
    let (mut bench, found, damage) = Bench::try_begin(&store, limits(20)).unwrap();
    assert_eq!(damage, []);
    assert!(told(&found).iter().any(|(stream, _)| *stream == idle));
    bench.writer.applied(STREAM, Stamp(60));
    bench.writer.applied(idle, Stamp(1));
    bench.writer.maintain().unwrap();
    assert_eq!(bench.writer.segments(), 2);
}

#[test]
fn a_freed_segment_that_comes_back_is_removed_and_not_read() {
    let store = MemoryStore::default();
    let mut bench = Bench::begin(&store, limits(20));
    bench.append(vec![open(STREAM)]).unwrap();
    for stamp in 1..=30 {
        bench.append(vec![record(STREAM, stamp, 4096)]).unwrap();
    }
    let old = store.bytes(1);
    bench.writer.applied(STREAM, Stamp(30));
    bench.writer.maintain().unwrap();
    drop(bench);
    store.restore(1, old);
    let (recovered, found) = scan(&store).unwrap();
    assert_eq!(recovered.damage, []);
    assert!(!store.list().unwrap().contains(&1));
    assert!(
        !told(&found)
            .iter()
            .any(|(_, durable)| durable.needed_until() == Stamp(1))
    );
}

#[test]
fn a_retired_stream_holds_nothing_and_is_not_repeated() {
    let store = MemoryStore::default();
    let mut bench = Bench::begin(&store, limits(20));
    let next = StreamNumber(2);
    bench
        .append(vec![open(STREAM), record(STREAM, 1, 4096), open(next)])
        .unwrap();
    bench.writer.retire(STREAM);
    for stamp in 1..=30 {
        bench.append(vec![record(next, stamp, 4096)]).unwrap();
    }
    bench.writer.applied(next, Stamp(25));
    bench.writer.maintain().unwrap();
    drop(bench);
    let (_, found) = scan(&store).unwrap();
    assert!(found.iter().all(|found| found.stream == next));
}

#[test]
fn a_filesystem_without_room_makes_the_journal_full_and_not_failed() {
    let store = MemoryStore::default();
    store.room_for(3);
    let mut bench = Bench::begin(&store, limits(20));
    bench.append(vec![open(STREAM)]).unwrap();
    let next = fill(&mut bench, 1);
    assert_eq!(bench.writer.segments(), 3);
    store.room_for(20);
    bench.writer.maintain().unwrap();
    assert!(!bench.writer.is_full());
    assert!(bench.append(vec![record(STREAM, next, 4096)]).unwrap());
}

#[test]
fn a_segment_that_finds_no_room_half_way_is_made_again_when_there_is_some() {
    // The calls of making a segment: create and preallocate, header, sync, sync of the directory.
    for call in 0..4 {
        let store = MemoryStore::default();
        let mut bench = Bench::begin(&store, limits(20));
        bench.append(vec![open(STREAM)]).unwrap();
        store.room_for(2);
        let next = fill(&mut bench, 1);
        store.room_for(20);
        let before = store.list().unwrap();
        store.fault_at(store.calls() + call, Fault::Once(ErrorKind::StorageFull));
        bench.writer.maintain().unwrap();
        assert!(bench.writer.is_full(), "call {call}");
        assert_eq!(store.list().unwrap(), before, "call {call}");
        bench.writer.maintain().unwrap();
        assert!(!bench.writer.is_full(), "call {call}");
        assert!(bench.append(vec![record(STREAM, next, 4096)]).unwrap());
        drop(bench);
        let (recovered, found) = scan(&store).unwrap();
        assert_eq!(recovered.damage, [], "call {call}");
        assert_eq!(told(&found).len() as u64, 1 + next, "call {call}");
    }
}

#[test]
fn an_error_while_a_segment_is_made_that_is_not_lack_of_room_is_final() {
    let store = MemoryStore::default();
    let mut bench = Bench::begin(&store, limits(20));
    bench.append(vec![open(STREAM)]).unwrap();
    store.room_for(2);
    fill(&mut bench, 1);
    store.room_for(20);
    store.fault_at(store.calls(), Fault::Once(ErrorKind::PermissionDenied));
    assert!(bench.writer.maintain().is_err());
    assert!(bench.append(vec![record(STREAM, 99, 512)]).is_err());
}
