//! The pool against a naive model: bytes of a volume, and a crash after every part of every step.

use super::*;
use crate::fold::{Record, RecordAt};
use proptest::prelude::*;
use std::collections::BTreeSet;
use wire::Stamp;

const KIB: u64 = 1024;
/// The volume and its disks, in segments.
const SEGMENTS: u64 = 6;
const DISKS: [u64; 3] = [2, 5, 3];
/// Bytes of the model's cell.
const CELL: u64 = 64 * KIB;
const CELLS: u64 = POOL_SEGMENT_BYTES / CELL;
/// What a disk holds that nobody has zeroed.
const GARBAGE: u64 = u64::MAX;

/// Disks with contents: a number per cell.
type Disks = Vec<Vec<u64>>;

fn garbage() -> Disks {
    let disk = |segments: &u64| vec![GARBAGE; (segments * CELLS) as usize];
    DISKS.iter().map(disk).collect()
}

fn extent(first: u64, count: u64, value: u64) -> Extent {
    let range = ByteRange::new(first * CELL, count * CELL);
    let content = match value {
        0 => Content::Zero,
        _ => Content::Data(Record {
            at: RecordAt {
                segment: 1,
                offset_bytes: value,
            },
            stamp: Stamp(value),
            range,
        }),
    };
    Extent { range, content }
}

fn value(content: Content) -> u64 {
    match content {
        Content::Zero => 0,
        Content::Data(record) => record.stamp.0,
    }
}

/// Writes the first `count` cells of a plan.
fn write(disks: &mut Disks, plan: &PoolPlan, count: usize) {
    let cells = plan.placed.iter().flat_map(|placed| {
        let cells = placed.range.len_bytes / CELL;
        (0..cells).map(move |cell| {
            (
                placed.disk,
                placed.offset_bytes / CELL + cell,
                placed.content,
            )
        })
    });
    for (disk, cell, content) in cells.take(count) {
        disks[disk][cell as usize] = value(content);
    }
}

/// What the volume reads as.
fn read(pool: &Pool, disks: &Disks) -> Vec<u64> {
    let whole = ByteRange::new(0, pool.size_bytes());
    let parts = pool
        .parts(whole)
        .flat_map(|(part, place)| (0..part.len_bytes / CELL).map(move |cell| (place, cell)));
    parts
        .map(|(place, cell)| {
            place.map_or(0, |(disk, offset)| {
                disks[disk][(offset / CELL + cell) as usize]
            })
        })
        .collect()
}

fn map(pool: &Pool) -> Vec<MapChange> {
    (0..SEGMENTS)
        .map(|segment| (segment, pool.place(segment)))
        .collect()
}

fn assert_whole(pool: &Pool) {
    let mut seen = BTreeSet::new();
    for (_, place) in map(pool) {
        assert!(
            place.is_none_or(|place| seen.insert(place)),
            "{place:?} twice"
        );
    }
    let (all, free) = pool.segments();
    assert_eq!(all - free, seen.len() as u64, "what is not mapped is free");
}

/// A step: disjoint extents in order.
fn step() -> impl Strategy<Value = Vec<(u64, u64, bool)>> {
    let cells = SEGMENTS * CELLS;
    prop::collection::vec((0..cells / 2, 1..2 * CELLS, any::<bool>()), 1..6)
}

fn extents(step: &[(u64, u64, bool)], stamp: &mut u64) -> Vec<Extent> {
    let mut next = 0;
    let mut extents = Vec::new();
    for (skip, count, zero) in step {
        let first = next + skip % CELLS;
        let count = (*count).min((SEGMENTS * CELLS).saturating_sub(first));
        if count == 0 {
            break;
        }
        *stamp += 1;
        extents.push(extent(first, count, if *zero { 0 } else { *stamp }));
        next = first + count;
    }
    extents
}

proptest! {
    #[test]
    fn a_volume_over_unequal_disks_reads_as_it_was_written_also_after_a_crash_anywhere(
        steps in prop::collection::vec((step(), any::<prop::sample::Index>(), any::<bool>()), 1..20)
    ) {
        let size_bytes = SEGMENTS * POOL_SEGMENT_BYTES;
        let mut pool = Pool::new(size_bytes, &DISKS);
        let mut disks = garbage();
        let mut model = vec![0; (SEGMENTS * CELLS) as usize];
        let mut stamp = 0;
        for (step, cut, crash) in steps {
            let extents = extents(&step, &mut stamp);
            let before = read(&pool, &disks);
            prop_assert_eq!(&before, &model);
            let plan = pool.plan(&extents).unwrap();
            if crash {
                // Some of it is written, none of it is committed: it is planned and made again.
                let cells = plan.placed.iter().map(|placed| placed.range.len_bytes / CELL);
                let cells = cells.sum::<u64>() as usize;
                write(&mut disks, &plan, cut.index(cells + 1));
                pool = Pool::restore(size_bytes, &DISKS, map(&pool)).unwrap();
                prop_assert_eq!(&pool.plan(&extents).unwrap(), &plan, "the same again");
            }
            write(&mut disks, &plan, usize::MAX);
            pool.commit(&plan.changes);
            assert_whole(&pool);
            for extent in &extents {
                let cells = extent.range.offset_bytes / CELL..extent.range.end_bytes() / CELL;
                cells.for_each(|cell| model[cell as usize] = value(extent.content));
            }
            prop_assert_eq!(&read(&pool, &disks), &model);
            let again = Pool::restore(size_bytes, &DISKS, map(&pool)).unwrap();
            prop_assert_eq!(read(&again, &disks), read(&pool, &disks));
        }
    }
}

#[test]
fn a_place_is_packed_and_a_number_that_is_none_is_told() {
    for place in [
        None,
        Some(Place {
            disk: 0,
            segment: 0,
        }),
        Some(Place {
            disk: 15,
            segment: u32::MAX,
        }),
    ] {
        assert_eq!(Place::unpack(Place::pack(place)), Some(place));
    }
    for bad in [1, 1 << 62, u64::MAX, 1 << 63 | 1 << 48] {
        assert_eq!(Place::unpack(bad), None, "{bad:x}");
    }
}

#[test]
fn disks_fill_in_proportion_to_their_sizes() {
    let disks = [10, 40, 20];
    let mut pool = Pool::new(70 * POOL_SEGMENT_BYTES, &disks);
    for segment in 0..35 {
        let plan = pool.plan(&[extent(segment * CELLS, 1, 1)]).unwrap();
        pool.commit(&plan.changes);
    }
    let used: Vec<u64> = pool
        .disks
        .iter()
        .map(|disk| disk.segments - disk.free)
        .collect();
    assert_eq!(used, [5, 20, 10]);
}

#[test]
fn a_full_pool_says_so_and_takes_nothing() {
    let mut pool = Pool::new(4 * POOL_SEGMENT_BYTES, &[1, 2]);
    let plan = pool.plan(&[extent(0, 3 * CELLS, 1)]).unwrap();
    pool.commit(&plan.changes);
    let before = map_of(&pool, 4);
    let full = PoolFull { segments: 3 };
    assert_eq!(pool.plan(&[extent(3 * CELLS, 1, 2)]), Err(full));
    assert_eq!(map_of(&pool, 4), before);
    // A discard of a whole segment makes room, from the next step on.
    let plan = pool.plan(&[extent(CELLS, CELLS, 0)]).unwrap();
    assert_eq!(
        (plan.placed.len(), &plan.changes[..]),
        (0, &[(1, None)][..])
    );
    pool.commit(&plan.changes);
    assert!(pool.plan(&[extent(3 * CELLS, 1, 2)]).is_ok());
}

fn map_of(pool: &Pool, segments: u64) -> Vec<Option<Place>> {
    (0..segments).map(|segment| pool.place(segment)).collect()
}

#[test]
fn zeroes_over_what_was_never_written_take_no_room() {
    let pool = Pool::new(8 * POOL_SEGMENT_BYTES, &[1]);
    let plan = pool.plan(&[extent(0, 8 * CELLS, 0)]).unwrap();
    assert_eq!(plan, PoolPlan::default());
}

#[test]
fn the_rest_of_a_new_segment_is_zeroed_to_the_end_of_the_volume() {
    let size_bytes = POOL_SEGMENT_BYTES + 2 * CELL;
    let pool = Pool::new(size_bytes, &[4]);
    let plan = pool.plan(&[extent(CELLS + 1, 1, 9)]).unwrap();
    let places: Vec<(u64, u64, u64)> = plan
        .placed
        .iter()
        .map(|p| {
            (
                p.offset_bytes / CELL,
                p.range.len_bytes / CELL,
                value(p.content),
            )
        })
        .collect();
    assert_eq!(places, [(0, 1, 0), (1, 1, 9)]);
}

#[test]
fn a_map_that_is_none_is_refused() {
    let place = |disk, segment| Some(Place { disk, segment });
    for (map, segment) in [
        (vec![(0, place(0, 0)), (1, place(0, 0))], 1),
        (vec![(0, place(1, 0))], 0),
        (vec![(0, place(0, 2))], 0),
        (vec![(9, place(0, 0))], 9),
        (vec![(0, place(0, 0)), (0, place(0, 1))], 0),
    ] {
        let refused = Pool::restore(2 * POOL_SEGMENT_BYTES, &[2], map);
        assert_eq!(refused.err(), Some(BadMap { segment }));
    }
}
