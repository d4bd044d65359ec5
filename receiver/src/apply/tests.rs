//! The applier over disks in memory: what is written, what is refused, what stays failed.

use super::*;
use crate::fold::{ByteRange, Change, Effect, RecordAt};
use crate::target::STRIPE_BYTES;
use std::collections::BTreeMap;
use wire::{RecordHeader, RecordKind, Stamp, TimeMark, VolumeIndex};

const SECTOR: u32 = 512;

/// A journal in memory.
#[derive(Default)]
struct Shelf {
    records: BTreeMap<RecordAt, (RecordHeader, Vec<u8>)>,
    reads: usize,
}

impl Shelf {
    /// Seals a record of bytes `fill` and keeps it.
    fn write(&mut self, stamp: u64, offset_bytes: u64, len: u32, fill: u8) -> Change {
        let payload = vec![fill; len as usize];
        let header = RecordHeader {
            kind: RecordKind::Write,
            fua: false,
            volume: VolumeIndex(0),
            stamp: Stamp(stamp),
            mark: TimeMark(stamp),
            offset_bytes,
            length_bytes: len,
            payload_bytes: len,
            incarnation_id: 7,
            checksum: 0,
        };
        let at = RecordAt {
            segment: 1,
            offset_bytes: stamp * 10_000,
        };
        self.records.insert(at, (header.sealed(&payload), payload));
        let range = ByteRange::new(offset_bytes, u64::from(len));
        Change {
            stamp: Stamp(stamp),
            range,
            effect: Effect::Data(at),
        }
    }

    fn payload(&mut self, change: &Change) -> &mut (RecordHeader, Vec<u8>) {
        match change.effect {
            Effect::Data(at) => self.records.get_mut(&at).unwrap(),
            Effect::Zero => panic!("a zero has no payload"),
        }
    }
}

impl PayloadSource for Shelf {
    fn read(&mut self, at: RecordAt, payload: &mut Vec<u8>) -> Result<RecordHeader, PayloadError> {
        self.reads += 1;
        let (header, bytes) = &self.records[&at];
        payload.clone_from(bytes);
        Ok(*header)
    }
}

fn zero(stamp: u64, offset_bytes: u64, len_bytes: u64) -> Change {
    let range = ByteRange::new(offset_bytes, len_bytes);
    Change {
        stamp: Stamp(stamp),
        range,
        effect: Effect::Zero,
    }
}

fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

/// An applier with one volume of two striped disks full of garbage.
fn site(volume: &str, size_bytes: u64) -> (Applier, [MemoryImage; 2]) {
    let mut applier = Applier::new();
    let images = add(&mut applier, volume, size_bytes);
    (applier, images)
}

fn add(applier: &mut Applier, volume: &str, size_bytes: u64) -> [MemoryImage; 2] {
    let layout = Layout::new(size_bytes, 2).unwrap();
    let images = [0, 1].map(|target| MemoryImage::new(layout.target_bytes(target), 0xee));
    let disks = images
        .iter()
        .map(|image| Box::new(image.disk()) as Box<dyn Disk>)
        .collect();
    applier.add_disks(name(volume), layout, SECTOR, disks);
    images
}

fn load(
    applier: &mut Applier,
    volume: &str,
    changes: &[Change],
    shelf: &mut Shelf,
) -> Result<Step, ApplyError> {
    let volume = name(volume);
    let mut fold = applier.fold(&volume).unwrap();
    for change in changes {
        fold.push(*change).unwrap();
    }
    applier.load(&volume.group, vec![(volume.volume, fold.finish())], shelf)
}

#[test]
fn a_step_puts_the_last_writes_on_all_disks_of_a_striped_volume() {
    let (mut applier, images) = site("db/wal", 4 * STRIPE_BYTES);
    let mut shelf = Shelf::default();
    let changes = [
        shelf.write(1, STRIPE_BYTES - 512, 1024, 1),
        shelf.write(2, STRIPE_BYTES, 512, 2),
        zero(3, 2 * STRIPE_BYTES, STRIPE_BYTES),
    ];
    let step = load(&mut applier, "db/wal", &changes, &mut shelf).unwrap();
    assert_eq!((step.data_bytes(), step.writes()), (1024, 3));
    let applied = applier.apply(step).unwrap();
    assert_eq!(applied.known[0].1.len(), 2);
    let [even, odd] = images.map(|image| image.bytes());
    let stripe = STRIPE_BYTES as usize;
    assert!(even[..stripe - 512].iter().all(|byte| *byte == 0xee));
    assert!(even[stripe - 512..stripe].iter().all(|byte| *byte == 1));
    assert!(even[stripe..].iter().all(|byte| *byte == 0));
    assert!(odd[..512].iter().all(|byte| *byte == 2));
    assert!(odd[512..].iter().all(|byte| *byte == 0xee));
}

#[test]
fn a_record_that_was_wholly_overwritten_is_not_read() {
    let (mut applier, _) = site("db/wal", 4 * STRIPE_BYTES);
    let mut shelf = Shelf::default();
    let changes = [shelf.write(1, 0, 4096, 1), shelf.write(2, 0, 4096, 2)];
    load(&mut applier, "db/wal", &changes, &mut shelf).unwrap();
    assert_eq!(shelf.reads, 1);
}

#[test]
fn a_damaged_record_stops_its_step_before_anything_is_written() {
    let (mut applier, images) = site("db/wal", 4 * STRIPE_BYTES);
    let mut shelf = Shelf::default();
    let changes = [
        shelf.write(1, 0, 4096, 1),
        shelf.write(2, STRIPE_BYTES, 4096, 2),
    ];
    shelf.payload(&changes[1]).1[77] ^= 1;
    let refused = load(&mut applier, "db/wal", &changes, &mut shelf);
    assert!(matches!(
        refused,
        Err(ApplyError::Payload(PayloadError::Bad { .. }))
    ));
    assert_eq!(images[0].writes() + images[1].writes(), 0);
    // It was fetched again: the same step goes through.
    shelf.payload(&changes[1]).1[77] ^= 1;
    let step = load(&mut applier, "db/wal", &changes, &mut shelf).unwrap();
    applier.apply(step).unwrap();
}

#[test]
fn a_sound_record_in_the_place_of_another_is_not_applied() {
    let (mut applier, _) = site("db/wal", 4 * STRIPE_BYTES);
    let mut shelf = Shelf::default();
    let change = shelf.write(5, 0, 4096, 1);
    let mut other = Shelf::default();
    let stranger = other.write(6, 0, 4096, 1);
    *shelf.payload(&change) = other.payload(&stranger).clone();
    let refused = load(&mut applier, "db/wal", &[change], &mut shelf);
    assert!(matches!(
        refused,
        Err(ApplyError::Payload(PayloadError::Other { .. }))
    ));
}

#[test]
fn a_failed_disk_fails_its_group_for_good_and_no_other() {
    let (mut applier, images) = site("db/wal", 4 * STRIPE_BYTES);
    let other = add(&mut applier, "web/root", 4 * STRIPE_BYTES);
    let mut shelf = Shelf::default();
    let changes = [
        shelf.write(1, 0, 4096, 1),
        shelf.write(2, STRIPE_BYTES, 4096, 2),
    ];
    images[1].fail_after(0);
    let step = load(&mut applier, "db/wal", &changes, &mut shelf).unwrap();
    assert!(matches!(applier.apply(step), Err(ApplyError::Disk(_))));
    assert!(
        applier
            .failure(&name("db/wal").group)
            .unwrap()
            .contains("write")
    );

    let later = load(&mut applier, "db/wal", &changes, &mut shelf);
    assert!(
        matches!(later, Err(ApplyError::Failed { .. })),
        "a retry must not pretend success"
    );
    let step = load(&mut applier, "web/root", &changes, &mut shelf).unwrap();
    applier.apply(step).unwrap();
    assert_eq!(other[0].bytes()[..4096], [1; 4096]);
}

#[test]
fn a_step_done_twice_leaves_what_it_left_the_first_time() {
    let (mut applier, images) = site("db/wal", 4 * STRIPE_BYTES);
    let mut shelf = Shelf::default();
    let changes = [
        shelf.write(1, 0, 8192, 1),
        zero(2, 4096, 8192),
        shelf.write(3, 512, 512, 3),
    ];
    let mut seen = Vec::new();
    for _ in 0..2 {
        let step = load(&mut applier, "db/wal", &changes, &mut shelf).unwrap();
        let applied = applier.apply(step).unwrap();
        seen.push((applied, images.clone().map(|image| image.bytes())));
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn a_step_cut_short_is_done_again_after_a_restart() {
    let mut shelf = Shelf::default();
    let changes: Vec<Change> = (0..40)
        .map(|index| match index % 4 {
            3 => zero(index + 1, index * 50_176, 8192),
            _ => shelf.write(index + 1, index * 50_176, 8192, index as u8),
        })
        .collect();
    let (mut whole, expected) = site("db/wal", 4 * STRIPE_BYTES);
    let step = load(&mut whole, "db/wal", &changes, &mut shelf).unwrap();
    whole.apply(step).unwrap();
    for good_writes in 0..20 {
        let (mut applier, images) = site("db/wal", 4 * STRIPE_BYTES);
        images
            .iter()
            .for_each(|image| image.fail_after(good_writes));
        let step = load(&mut applier, "db/wal", &changes, &mut shelf).unwrap();
        applier.apply(step).unwrap_err();

        let mut again = Applier::new();
        let layout = Layout::new(4 * STRIPE_BYTES, 2).unwrap();
        let disks = images
            .iter()
            .map(|image| Box::new(image.disk()) as Box<dyn Disk>)
            .collect();
        images.iter().for_each(|image| image.fail_after(usize::MAX));
        again.add_disks(name("db/wal"), layout, SECTOR, disks);
        let step = load(&mut again, "db/wal", &changes, &mut shelf).unwrap();
        again.apply(step).unwrap();
        let (found, expected) = (
            images.map(|i| i.bytes()),
            expected.clone().map(|i| i.bytes()),
        );
        assert!(found == expected, "cut after {good_writes} writes");
    }
}

#[test]
fn a_step_loaded_while_another_is_written_leaves_what_one_after_the_other_leaves() {
    let mut shelf = Shelf::default();
    let steps: Vec<Vec<Change>> = [(1, 16 * 1024), (2, 4096), (3, 8192), (4, 64 * 1024)]
        .into_iter()
        .map(|(stamp, len)| {
            let offset_bytes = STRIPE_BYTES - 4096 * stamp;
            vec![shelf.write(stamp, offset_bytes, len, stamp as u8)]
        })
        .collect();
    let (mut serial, expected) = site("db/wal", 4 * STRIPE_BYTES);
    for changes in &steps {
        let step = load(&mut serial, "db/wal", changes, &mut shelf).unwrap();
        serial.apply(step).unwrap();
        // Each in memory nobody has used.
        serial.rest();
    }
    let (mut applier, images) = site("db/wal", 4 * STRIPE_BYTES);
    let mut writing: Option<Writing> = None;
    for changes in &steps {
        let step = load(&mut applier, "db/wal", changes, &mut shelf).unwrap();
        if let Some(before) = writing.take() {
            applier.finish(before).unwrap();
        }
        writing = Some(applier.start(step).unwrap());
    }
    applier.finish(writing.unwrap()).unwrap();
    let found = images.map(|image| image.bytes());
    assert!(found == expected.map(|image| image.bytes()));
}

#[test]
fn a_step_loaded_ahead_of_one_that_fails_is_not_written() {
    let (mut applier, images) = site("db/wal", 4 * STRIPE_BYTES);
    let mut shelf = Shelf::default();
    let changes = [shelf.write(1, 0, 4096, 1), shelf.write(2, 4096, 4096, 2)];
    images[0].fail_after(0);
    let step = load(&mut applier, "db/wal", &changes[..1], &mut shelf).unwrap();
    let writing = applier.start(step).unwrap();
    let next = load(&mut applier, "db/wal", &changes[1..], &mut shelf).unwrap();
    assert!(matches!(applier.finish(writing), Err(ApplyError::Disk(_))));
    assert!(matches!(
        applier.start(next),
        Err(ApplyError::Failed { .. })
    ));
    assert_eq!(images[0].writes(), 0);
}

#[test]
fn one_step_covers_several_volumes_of_a_group() {
    let (mut applier, wal) = site("db/wal", 4 * STRIPE_BYTES);
    let data = add(&mut applier, "db/data", 4 * STRIPE_BYTES);
    let mut shelf = Shelf::default();
    let mut folds = Vec::new();
    for (volume, stamp) in [("wal", 1), ("data", 2)] {
        let mut fold = applier.fold(&name(&format!("db/{volume}"))).unwrap();
        fold.push(shelf.write(stamp, STRIPE_BYTES, 4096, stamp as u8))
            .unwrap();
        folds.push((Name::new(volume).unwrap(), fold.finish()));
    }
    let step = applier
        .load(&name("db/wal").group, folds, &mut shelf)
        .unwrap();
    let applied = applier.apply(step).unwrap();
    assert_eq!(
        applied
            .known
            .iter()
            .map(|(_, blocks)| blocks.len())
            .collect::<Vec<_>>(),
        [2, 2]
    );
    assert_eq!(wal[1].bytes()[..4096], [1; 4096]);
    assert_eq!(data[1].bytes()[..4096], [2; 4096]);
}

#[test]
fn a_volume_that_was_removed_is_not_applied_to() {
    let (mut applier, images) = site("db/wal", 4 * STRIPE_BYTES);
    let mut shelf = Shelf::default();
    let changes = [shelf.write(1, 0, 4096, 1)];
    let step = load(&mut applier, "db/wal", &changes, &mut shelf).unwrap();
    assert!(applier.remove(&name("db/wal")));
    assert!(matches!(applier.apply(step), Err(ApplyError::NotOpen(_))));
    assert_eq!(images[0].writes(), 0);
}

/// Reads nothing but what is held: counts it at every read.
struct Watched {
    shelf: Shelf,
    budget: Budget,
    most_held: u64,
}

impl PayloadSource for Watched {
    fn read(&mut self, at: RecordAt, payload: &mut Vec<u8>) -> Result<RecordHeader, PayloadError> {
        self.most_held = self.most_held.max(self.budget.held_bytes());
        self.shelf.read(at, payload)
    }
}

#[test]
fn steps_of_many_groups_hold_no_more_than_the_budget_of_all_and_all_are_written() {
    const LEN: u64 = 40 << 20;
    const RECORD: u32 = 1 << 20;
    let budget = Budget::new(STEPS_BYTES_MIN);
    let workers: Vec<_> = (0..6u8)
        .map(|group| {
            let budget = budget.clone();
            std::thread::spawn(move || {
                let mut applier = Applier::within(budget.clone());
                let volume = format!("g{group}/data");
                let images = add(&mut applier, &volume, LEN);
                let (shelf, most_held) = (Shelf::default(), 0);
                let mut source = Watched {
                    shelf,
                    budget,
                    most_held,
                };
                let volume = name(&volume);
                let mut ahead = 0;
                for round in 0..3u64 {
                    let mut step = |first: u64| {
                        let mut fold = applier.fold(&volume).unwrap();
                        for at in 0..LEN / u64::from(RECORD) {
                            let offset = at * u64::from(RECORD);
                            let stamp = first * 100 + at + 1;
                            fold.push(source.shelf.write(stamp, offset, RECORD, group))
                                .unwrap();
                        }
                        vec![(volume.volume.clone(), fold.finish())]
                    };
                    let (changes, next) = (step(2 * round), step(2 * round + 1));
                    let loaded = applier.load(&volume.group, changes, &mut source).unwrap();
                    let writing = applier.start(loaded).unwrap();
                    let next = applier
                        .load_ahead(&volume.group, next, &mut source)
                        .unwrap();
                    applier.finish(writing).unwrap();
                    if let Some(next) = next {
                        ahead += 1;
                        applier.apply(next).unwrap();
                    }
                    applier.rest();
                }
                assert!(
                    images
                        .iter()
                        .all(|image| image.bytes().iter().all(|byte| *byte == group))
                );
                (source.most_held, ahead)
            })
        })
        .collect();
    let done: Vec<(u64, u64)> = workers
        .into_iter()
        .map(|worker| worker.join().unwrap())
        .collect();
    let most = done.iter().map(|(most, _)| *most).max().unwrap();
    assert!(most <= STEPS_BYTES_MIN, "{most} held");
    assert!(most > LEN, "none was ever beside another");
    assert_eq!(budget.held_bytes(), 0, "all is given back");
}
