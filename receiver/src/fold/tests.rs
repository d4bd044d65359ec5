//! The fold against the naive model: a volume where every record is done one after the other.

use super::*;
use crate::target::{Layout, STRIPE_BYTES};
use proptest::prelude::*;

const SECTOR: u64 = 512;

fn data(stamp: u64, offset_bytes: u64, len_bytes: u64) -> Change {
    let at = RecordAt {
        segment: stamp / 10,
        offset_bytes: stamp * 4096,
    };
    Change {
        stamp: Stamp(stamp),
        range: ByteRange::new(offset_bytes, len_bytes),
        effect: Effect::Data(at),
    }
}

fn zero(stamp: u64, offset_bytes: u64, len_bytes: u64) -> Change {
    Change {
        effect: Effect::Zero,
        ..data(stamp, offset_bytes, len_bytes)
    }
}

/// The extents as `(offset, length, stamp of the record)`, stamp 0 for zeroes.
fn folded(changes: &[Change]) -> Vec<(u64, u64, u64)> {
    let mut fold = Fold::new(1 << 20, 512);
    for change in changes {
        fold.push(*change).unwrap();
    }
    let shown = |extent: Extent| {
        let stamp = match extent.content {
            Content::Data(record) => record.stamp.0,
            Content::Zero => 0,
        };
        (extent.range.offset_bytes, extent.range.len_bytes, stamp)
    };
    fold.finish().into_iter().map(shown).collect()
}

#[test]
fn the_last_write_of_a_block_wins() {
    assert_eq!(
        folded(&[data(1, 0, 4096), data(2, 0, 4096)]),
        [(0, 4096, 2)]
    );
}

#[test]
fn a_small_write_inside_a_large_one_leaves_both_its_sides() {
    let changes = [data(1, 0, 8192), data(2, 2048, 1024)];
    assert_eq!(
        folded(&changes),
        [(0, 2048, 1), (2048, 1024, 2), (3072, 5120, 1)]
    );
}

#[test]
fn a_large_write_buries_everything_below_it() {
    let changes = [
        data(1, 512, 512),
        zero(2, 2048, 512),
        data(3, 4096, 512),
        data(4, 0, 8192),
    ];
    assert_eq!(folded(&changes), [(0, 8192, 4)]);
}

#[test]
fn writes_that_overlap_at_the_edges_are_cut_there() {
    let changes = [data(1, 0, 2048), data(2, 4096, 2048), data(3, 1024, 4096)];
    assert_eq!(
        folded(&changes),
        [(0, 1024, 1), (1024, 4096, 3), (5120, 1024, 2)]
    );
}

#[test]
fn neighbouring_zeroes_become_one_extent_and_neighbouring_data_does_not() {
    let changes = [
        zero(1, 0, 512),
        zero(2, 512, 512),
        data(3, 1024, 512),
        data(4, 1536, 512),
    ];
    assert_eq!(
        folded(&changes),
        [(0, 1024, 0), (1024, 512, 3), (1536, 512, 4)]
    );
}

#[test]
fn a_record_outside_its_volume_is_refused_and_leaves_the_fold_as_it_was() {
    let mut fold = Fold::new(1 << 20, 4096);
    fold.push(data(1, 4096, 4096)).unwrap();
    let bad = [
        (1 << 20, 4096),
        ((1 << 20) - 4096, 8192),
        (0, 0),
        (512, 4096),
        (4096, 512),
        (u64::MAX - 4095, 4096),
    ];
    for (stamp, (offset_bytes, len_bytes)) in (2..).zip(bad) {
        let refused = fold.push(data(stamp, offset_bytes, len_bytes));
        assert!(
            matches!(refused, Err(FoldError::Range { .. })),
            "{offset_bytes} {len_bytes}"
        );
    }
    assert_eq!((fold.changes(), fold.data_bytes()), (1, 4096));
    assert_eq!(fold.finish().len(), 1);
}

#[test]
#[should_panic(expected = "then")]
fn stamps_that_do_not_ascend_are_a_bug_of_the_caller() {
    let mut fold = Fold::new(1 << 20, 512);
    fold.push(data(2, 0, 512)).unwrap();
    let _ = fold.push(data(2, 512, 512));
}

#[test]
fn neighbouring_pieces_become_one_write_and_a_record_is_read_once() {
    let mut fold = Fold::new(1 << 20, 512);
    for change in [data(1, 0, 8192), data(2, 2048, 1024), data(3, 16_384, 512)] {
        fold.push(change).unwrap();
    }
    let mut plan = Plan::new();
    plan.add(&Layout::new(1 << 20, 1).unwrap(), &fold.finish());
    let (disks, reads) = plan.finish();
    let writes: Vec<ByteRange> = disks[0].writes.iter().map(|write| write.range).collect();
    assert_eq!(
        writes,
        [ByteRange::new(0, 8192), ByteRange::new(16_384, 512)]
    );
    assert_eq!(disks[0].arena_bytes, 8704);
    let pieces: Vec<usize> = reads.iter().map(|read| read.pieces.len()).collect();
    assert_eq!(pieces, [2, 1, 1]);
}

#[test]
fn a_write_is_never_longer_than_its_maximum() {
    let mut fold = Fold::new(16 << 20, 512);
    for stamp in 0..12 {
        fold.push(data(stamp + 1, stamp * 700 * SECTOR, 700 * SECTOR))
            .unwrap();
    }
    let mut plan = Plan::new();
    plan.add(&Layout::new(16 << 20, 1).unwrap(), &fold.finish());
    let (disks, _) = plan.finish();
    let lens: Vec<u64> = disks[0]
        .writes
        .iter()
        .map(|write| write.range.len_bytes)
        .collect();
    assert!(lens.iter().all(|len| *len <= WRITE_BYTES_MAX));
    assert_eq!(
        lens.len(),
        (12 * 700 * SECTOR).div_ceil(WRITE_BYTES_MAX) as usize
    );
}

/// A volume of the model: what each sector holds, as (stamp of the record, sector within it).
/// `(0, 0)` is zeroes; `None` was never touched.
type Model = Vec<Option<(u64, u64)>>;

fn serial(changes: &[Change], sectors: u64) -> Model {
    let mut model: Model = vec![None; sectors as usize];
    for change in changes {
        let first = change.range.offset_bytes / SECTOR;
        for sector in 0..change.range.len_bytes / SECTOR {
            model[(first + sector) as usize] = Some(match change.effect {
                Effect::Data(_) => (change.stamp.0, sector),
                Effect::Zero => (0, 0),
            });
        }
    }
    model
}

/// What the plan's writes leave on the disks, read back through the layout.
fn planned(layout: &Layout, extents: &[Extent], sectors: u64) -> Model {
    let mut plan = Plan::new();
    plan.add(layout, extents);
    let (disks, reads) = plan.finish();
    let mut arenas: Vec<Model> = disks
        .iter()
        .map(|disk| vec![None; (disk.arena_bytes / SECTOR) as usize])
        .collect();
    for read in &reads {
        for piece in &read.pieces {
            for sector in 0..piece.len_bytes / SECTOR {
                let from = piece.skip_bytes / SECTOR + sector;
                let to = (piece.arena_bytes / SECTOR + sector) as usize;
                let before = arenas[piece.disk][to].replace((read.record.stamp.0, from));
                assert_eq!(before, None, "two pieces at one place of an arena");
            }
        }
    }
    let mut images: Vec<Model> = (0..layout.targets())
        .map(|target| vec![None; (layout.target_bytes(target) / SECTOR) as usize])
        .collect();
    for ((plan, arena), image) in disks.iter().zip(&arenas).zip(&mut images) {
        let mut end = 0;
        for write in &plan.writes {
            assert!(
                write.range.offset_bytes >= end,
                "writes are disjoint and ascend"
            );
            end = write.range.end_bytes();
            for sector in 0..write.range.len_bytes / SECTOR {
                let to = (write.range.offset_bytes / SECTOR + sector) as usize;
                image[to] = match write.arena() {
                    Some(part) => arena[part.start / SECTOR as usize + sector as usize],
                    None => Some((0, 0)),
                };
            }
        }
    }
    let whole = ByteRange::new(0, sectors * SECTOR);
    layout
        .parts(whole)
        .flat_map(|part| {
            let first = (part.offset_bytes / SECTOR) as usize;
            let count = (part.range.len_bytes / SECTOR) as usize;
            images[part.target][first..first + count].to_vec()
        })
        .collect()
}

fn change(sectors: u64) -> impl Strategy<Value = (bool, u64, u64)> {
    // Small writes in a hot corner, and large ones anywhere: overlaps of every kind.
    let small = (0..64u64, 1..32u64);
    let large = (0..sectors, 1..sectors);
    (any::<bool>(), prop_oneof![small, large])
        .prop_map(move |(zero, (first, len))| (zero, first, len.min(sectors - first)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn writes_discards_and_zeroes_in_any_mixture_end_as_in_the_serial_model(
        targets in 1..=4usize,
        tail in 0..2048u64,
        changes in proptest::collection::vec(change(4 * 2048), 0..80),
    ) {
        let sectors = 4 * STRIPE_BYTES / SECTOR + tail;
        let changes: Vec<Change> = (1..)
            .zip(&changes)
            .map(|(stamp, (is_zero, first, len))| match is_zero {
                true => zero(stamp, first * SECTOR, len * SECTOR),
                false => data(stamp, first * SECTOR, len * SECTOR),
            })
            .collect();
        let mut fold = Fold::new(sectors * SECTOR, 512);
        for change in &changes {
            fold.push(*change).unwrap();
        }
        let extents = fold.finish();
        let layout = Layout::new(sectors * SECTOR, targets).unwrap();
        prop_assert_eq!(planned(&layout, &extents, sectors), serial(&changes, sectors));
    }
}
