//! The applier on real files: through io_uring, past the page cache and through it, with the
//! result read back and compared with a serial model.

#![allow(clippy::unwrap_used)] // Test helpers fail by panicking.

use proptest::prelude::*;
use receiver::apply::{Applier, ApplyError, PayloadError, PayloadSource, UringDisk};
use receiver::catalog::{Catalog, StreamState, TargetRecord, VolumeRecord};
use receiver::fold::{ByteRange, Change, Effect, RecordAt};
use receiver::target::{
    self, Layout, LayoutKind, NewTarget, NewVolume, OpenTarget, TargetError, VolumeReader,
};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use wire::{Generation, Incarnation, RecordHeader, RecordKind, Stamp, TimeMark, VolumeIndex};

const SECTOR: u64 = 512;

/// What a record does, in sectors.
#[derive(Clone, Copy, Debug)]
struct Step {
    zero: bool,
    first: u64,
    count: u64,
}

/// A journal that makes its records when they are read.
struct Maker(Vec<Change>);

impl Maker {
    fn header(change: &Change, payload: &[u8]) -> RecordHeader {
        let header = RecordHeader {
            kind: RecordKind::Write,
            fua: false,
            volume: VolumeIndex(0),
            stamp: change.stamp,
            mark: TimeMark(change.stamp.0),
            offset_bytes: change.range.offset_bytes,
            length_bytes: payload.len() as u32,
            payload_bytes: payload.len() as u32,
            incarnation_id: 1,
            checksum: 0,
        };
        header.sealed(payload)
    }
}

impl PayloadSource for Maker {
    fn read(&mut self, at: RecordAt, payload: &mut Vec<u8>) -> Result<RecordHeader, PayloadError> {
        let change = &self.0[at.offset_bytes as usize];
        payload.clear();
        payload.extend(content(change.stamp.0, change.range.len_bytes));
        Ok(Self::header(change, payload))
    }
}

fn content(stamp: u64, len_bytes: u64) -> impl Iterator<Item = u8> {
    (0..len_bytes).map(move |index| (stamp.wrapping_mul(31) + index / 7) as u8 | 1)
}

fn change(index: usize, step: Step) -> Change {
    let range = ByteRange::new(step.first * SECTOR, step.count * SECTOR);
    let at = RecordAt {
        segment: 0,
        offset_bytes: index as u64,
    };
    let effect = if step.zero {
        Effect::Zero
    } else {
        Effect::Data(at)
    };
    Change {
        stamp: Stamp(index as u64 + 1),
        range,
        effect,
    }
}

/// A volume on files full of garbage, in `dir`.
fn volume(dir: &Path, size_bytes: u64, targets: usize) -> VolumeRecord {
    let paths: Vec<PathBuf> = (0..targets)
        .map(|index| dir.join(format!("t{index}")))
        .collect();
    let new = NewVolume {
        size_bytes,
        sector_bytes: SECTOR as u32,
        kind: LayoutKind::Plain,
        targets: paths.into_iter().map(NewTarget::from).collect(),
    };
    let provision = target::provision(&new, &[], &[]).unwrap();
    let targets: Vec<TargetRecord> = provision.targets().to_vec();
    provision.keep();
    for target in &targets {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::options()
            .write(true)
            .open(&target.path)
            .unwrap();
        let garbage = vec![0xee; target.identity.size_bytes() as usize];
        file.write_all_at(&garbage, 0).unwrap();
    }
    VolumeRecord {
        name: "db/wal".parse().unwrap(),
        source: wire::Name::new("host1").unwrap(),
        size_bytes,
        sector_bytes: SECTOR as u32,
        kind: LayoutKind::Plain,
        disk: None,
        targets,
    }
}

fn read_back(record: &VolumeRecord) -> Vec<u8> {
    let mut reader = VolumeReader::open(record).unwrap();
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < record.size_bytes {
        let left = record.size_bytes - bytes.len() as u64;
        let range = ByteRange::new(bytes.len() as u64, left.min(target::STRIPE_BYTES));
        bytes.extend_from_slice(reader.read(range).unwrap());
    }
    bytes
}

fn serial(bytes: &mut [u8], changes: &[Change]) {
    for change in changes {
        let range = change.range.offset_bytes as usize..change.range.end_bytes() as usize;
        match change.effect {
            Effect::Zero => bytes[range].fill(0),
            Effect::Data(_) => {
                let bytes = bytes[range].iter_mut();
                let content = content(change.stamp.0, change.range.len_bytes);
                bytes.zip(content).for_each(|(byte, new)| *byte = new);
            }
        }
    }
}

fn apply(
    applier: &mut Applier,
    record: &VolumeRecord,
    changes: &[Change],
) -> Result<(), ApplyError> {
    let mut fold = applier.fold(&record.name).unwrap();
    for change in changes {
        fold.push(*change).unwrap();
    }
    let folds = vec![(record.name.volume.clone(), fold.finish())];
    let mut source = Maker(changes.to_vec());
    let step = applier.load(&record.name.group, folds, &mut source)?;
    applier.apply(step).map(|_| ())
}

fn check(dir: &Path, size_bytes: u64, targets: usize, steps: &[Step]) {
    let record = volume(dir, size_bytes, targets);
    let changes: Vec<Change> = steps
        .iter()
        .enumerate()
        .map(|(index, step)| change(index, *step))
        .collect();
    let mut applier = Applier::new();
    applier.add(&record).unwrap();
    apply(&mut applier, &record, &changes).unwrap();
    let mut expected = vec![0xee; size_bytes as usize];
    serial(&mut expected, &changes);
    assert!(
        read_back(&record) == expected,
        "the base differs from the serial model"
    );
}

fn on_disk() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

fn step(sectors: u64) -> impl Strategy<Value = Step> {
    let few = (0..200u64, 1..64u64);
    let many = (0..sectors, 1..2048u64);
    (any::<bool>(), prop_oneof![few, many]).prop_map(move |(zero, (first, count))| Step {
        zero,
        first,
        count: count.min(sectors - first),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_base_on_disk_ends_as_in_the_serial_model(
        targets in 1..=3usize,
        tail in 0..2048u64,
        steps in proptest::collection::vec(step(4 * 2048), 1..60),
    ) {
        let dir = on_disk();
        check(dir.path(), (4 * 2048 + tail) * SECTOR, targets, &steps);
    }
}

#[test]
fn a_file_system_without_direct_io_serves_as_well() {
    let steps = [
        Step {
            zero: false,
            first: 3,
            count: 2000,
        },
        Step {
            zero: true,
            first: 9,
            count: 900,
        },
        Step {
            zero: false,
            first: 4000,
            count: 1,
        },
    ];
    check(in_memory().path(), 4 << 20, 2, &steps);
}

#[test]
fn more_writes_than_may_be_in_flight_all_arrive() {
    let steps: Vec<Step> = (0..2000)
        .map(|index| Step {
            zero: index % 5 == 0,
            first: index * 4,
            count: 3,
        })
        .collect();
    check(on_disk().path(), 2000 * 4 * SECTOR, 1, &steps);
}

#[test]
fn a_restart_recognises_the_targets_and_refuses_what_was_changed_meanwhile() {
    let dir = on_disk();
    let record = volume(dir.path(), 4 << 20, 2);
    let catalog = Catalog::create(&dir.path().join("catalog.redb")).unwrap();
    catalog
        .add_volume(
            &record,
            Generation {
                counter: 1,
                lineage: 1,
            },
        )
        .unwrap();
    let group = &record.name.group;

    let changes = [change(
        0,
        Step {
            zero: false,
            first: 0,
            count: 2048,
        },
    )];
    let mut applier = Applier::new();
    applier
        .add(&catalog.volume(&record.name).unwrap().unwrap())
        .unwrap();
    let mut fold = applier.fold(&record.name).unwrap();
    fold.push(changes[0]).unwrap();
    let folds = vec![(record.name.volume.clone(), fold.finish())];
    let step = applier
        .load(group, folds, &mut Maker(changes.to_vec()))
        .unwrap();
    let applied = applier.apply(step).unwrap();
    let state = StreamState {
        incarnation: Incarnation { counter: 1, id: 1 },
        horizon: Stamp(1),
        applied: Stamp(1),
        ..StreamState::default()
    };
    catalog
        .commit_applied(&record.lane(), &state, &applied)
        .unwrap();

    let known = catalog.volume(&record.name).unwrap().unwrap();
    let busy = Applier::new().add(&known).unwrap_err();
    assert!(matches!(busy, TargetError::InUse { .. }), "{busy}");
    drop(applier);
    let mut applier = Applier::new();
    applier.add(&known).unwrap();
    drop(applier);

    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options()
        .write(true)
        .open(&known.targets[1].path)
        .unwrap();
    file.write_all_at(b"mounted", 1024).unwrap();
    let changed = Applier::new().add(&known).unwrap_err();
    assert!(matches!(changed, TargetError::Changed { .. }), "{changed}");
}

#[test]
fn a_write_the_system_refuses_fails_the_group_and_stays_failed() {
    let dir = on_disk();
    let record = volume(dir.path(), 4 << 20, 1);
    let path = record.targets[0].path.clone();
    // Open for reading only: every write is refused.
    let file = std::fs::File::open(&path).unwrap();
    let open = OpenTarget {
        file,
        path,
        used_bytes: 4 << 20,
        direct: false,
    };
    let disk = Box::new(UringDisk::spawn(open).unwrap());
    let mut applier = Applier::new();
    let layout = Layout::new(4 << 20, 1).unwrap();
    applier.add_disks(record.name.clone(), layout, SECTOR as u32, vec![disk]);

    let steps = (0..100).map(|index| Step {
        zero: index % 2 == 0,
        first: index * 4,
        count: 2,
    });
    let changes: Vec<Change> = steps.enumerate().map(|(i, step)| change(i, step)).collect();
    let failed = apply(&mut applier, &record, &changes).unwrap_err();
    assert!(matches!(failed, ApplyError::Disk(_)), "{failed}");
    let again = apply(&mut applier, &record, &changes).unwrap_err();
    assert!(matches!(again, ApplyError::Failed { .. }), "{again}");
    drop(applier);
    assert!(read_back(&record).iter().all(|byte| *byte == 0xee));
}

#[test]
fn a_disk_directory_is_written_past_the_page_cache_where_the_file_system_tells_how() {
    let dir = on_disk();
    let record = volume(dir.path(), 4 << 20, 1);
    let open = target::open_volume(&record).unwrap();
    println!("direct: {}", open[0].direct);
    let memory = in_memory();
    let record = volume(memory.path(), 4 << 20, 1);
    assert!(
        !target::open_volume(&record).unwrap()[0].direct,
        "tmpfs tells of no direct I/O"
    );
}
