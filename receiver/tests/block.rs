//! Targets on block devices: loop devices, where this machine gives us some.

#![allow(clippy::unwrap_used)] // Test helpers fail by panicking.

use receiver::apply::{Applier, PayloadError, PayloadSource};
use receiver::catalog::VolumeRecord;
use receiver::fold::{ByteRange, Change, Effect, RecordAt};
use receiver::target::{self, LayoutKind, NewVolume, TargetError, TargetIdentity, VolumeReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use wire::{RecordHeader, RecordKind, Stamp, TimeMark, VolumeIndex};

/// A loop device over a file; gone with this.
struct Loop(PathBuf);

impl Loop {
    /// `None`, said aloud, where there are none to be had.
    fn over(file: &Path, sector_bytes: u32) -> Option<Self> {
        let sector = sector_bytes.to_string();
        let made = Command::new("losetup")
            .args(["--find", "--show", "--sector-size", &sector])
            .arg(file)
            .output();
        match made {
            Ok(output) if output.status.success() => {
                let path = String::from_utf8(output.stdout).unwrap();
                Some(Self(PathBuf::from(path.trim())))
            }
            other => {
                println!("skipped: no loop devices here ({other:?})");
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let gone = Command::new("losetup")
            .arg("--detach")
            .arg(&self.0)
            .status();
        println!("detached {}: {gone:?}", self.0.display());
    }
}

/// A directory, and a loop device of 8 MiB of garbage over a file in it.
fn disk(sector_bytes: u32) -> Option<(tempfile::TempDir, PathBuf, Loop)> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = dir.path().join("backing");
    std::fs::write(&file, vec![0xee; 8 << 20]).unwrap();
    let device = Loop::over(&file, sector_bytes)?;
    Some((dir, file, device))
}

fn new(size_bytes: u64, sector_bytes: u32, path: &Path) -> NewVolume {
    NewVolume {
        size_bytes,
        sector_bytes,
        kind: LayoutKind::Plain,
        targets: vec![path.to_owned().into()],
    }
}

fn record(new: &NewVolume) -> Result<VolumeRecord, TargetError> {
    let provision = target::provision(new, &[], &[])?;
    let targets = provision.targets().to_vec();
    provision.keep();
    Ok(VolumeRecord {
        name: "db/wal".parse().unwrap(),
        source: wire::Name::new("host1").unwrap(),
        size_bytes: new.size_bytes,
        sector_bytes: new.sector_bytes,
        kind: LayoutKind::Plain,
        disk: None,
        targets,
    })
}

/// One record of ones.
struct Ones(ByteRange);

impl PayloadSource for Ones {
    fn read(&mut self, _at: RecordAt, payload: &mut Vec<u8>) -> Result<RecordHeader, PayloadError> {
        payload.clear();
        payload.resize(self.0.len_bytes as usize, 1);
        let header = RecordHeader {
            kind: RecordKind::Write,
            fua: false,
            volume: VolumeIndex(0),
            stamp: Stamp(1),
            mark: TimeMark(1),
            offset_bytes: self.0.offset_bytes,
            length_bytes: self.0.len_bytes as u32,
            payload_bytes: self.0.len_bytes as u32,
            incarnation_id: 1,
            checksum: 0,
        };
        Ok(header.sealed(payload))
    }
}

#[test]
fn a_block_device_is_a_target_bound_by_what_it_is() {
    let Some((_dir, file, device)) = disk(512) else {
        return;
    };
    let record = record(&new(6 << 20, 512, &device.0)).unwrap();
    let identity = &record.targets[0].identity;
    let backing = format!("loop:{}", file.display());
    assert_eq!(
        *identity,
        TargetIdentity::Block {
            id: backing,
            size_bytes: 8 << 20
        }
    );

    let mut applier = Applier::new();
    applier.add(&record).unwrap();
    let ones = ByteRange::new(512, 1024);
    let at = RecordAt {
        segment: 0,
        offset_bytes: 0,
    };
    let zeroes = ByteRange::new(1 << 20, 2 << 20);
    let mut fold = applier.fold(&record.name).unwrap();
    for (stamp, range, effect) in [(1, ones, Effect::Data(at)), (2, zeroes, Effect::Zero)] {
        fold.push(Change {
            stamp: Stamp(stamp),
            range,
            effect,
        })
        .unwrap();
    }
    let folds = vec![(record.name.volume.clone(), fold.finish())];
    let step = applier
        .load(&record.name.group, folds, &mut Ones(ones))
        .unwrap();
    applier.apply(step).unwrap();

    let mut expected = vec![0xee; 6 << 20];
    expected[512..1536].fill(1);
    expected[1 << 20..3 << 20].fill(0);
    let export = device.0.file_name().unwrap();
    let export = file.with_file_name(export);
    let mut reader = VolumeReader::open(&record).unwrap();
    target::export(&mut reader, &export, |_| ()).unwrap();
    assert!(std::fs::read(&export).unwrap() == expected);
    let whole = std::fs::read(&device.0).unwrap();
    assert!(
        whole[6 << 20..].iter().all(|byte| *byte == 0xee),
        "the rest of the disk is not ours"
    );
}

#[test]
fn a_disk_in_use_is_refused_and_says_by_whom() {
    let Some((_dir, file, device)) = disk(512) else {
        return;
    };
    let attached = record(&new(8 << 20, 512, &file)).unwrap_err();
    assert!(
        attached.to_string().contains("attached as /dev/loop"),
        "{attached}"
    );

    let added = record(&new(8 << 20, 512, &device.0)).unwrap();
    let mut applier = Applier::new();
    applier.add(&added).unwrap();
    let busy = record(&new(8 << 20, 512, &device.0)).unwrap_err();
    assert!(matches!(busy, TargetError::InUse { .. }), "{busy}");
    applier.remove(&added.name);
    record(&new(8 << 20, 512, &device.0)).unwrap();
}

#[test]
fn a_mounted_disk_is_refused_with_its_mount_point() {
    let Some((dir, _file, device)) = disk(512) else {
        return;
    };
    let made = Command::new("mkfs.ext4")
        .arg("-q")
        .arg("-F")
        .arg(&device.0)
        .status();
    let point = dir.path().join("mnt");
    std::fs::create_dir(&point).unwrap();
    let mounted = Command::new("mount").arg(&device.0).arg(&point).status();
    if !made.is_ok_and(|s| s.success()) || !mounted.is_ok_and(|s| s.success()) {
        println!("skipped: cannot mount here");
        return;
    }
    let refused = record(&new(8 << 20, 512, &device.0));
    let unmounted = Command::new("umount").arg(&point).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    let text = refused.unwrap_err().to_string();
    assert!(
        text.contains(&format!("mounted on {}", point.display())),
        "{text}"
    );
}

#[test]
fn a_disk_too_small_or_with_larger_sectors_is_refused() {
    let Some((_dir, _file, device)) = disk(4096) else {
        return;
    };
    let small = record(&new(16 << 20, 4096, &device.0)).unwrap_err();
    assert!(matches!(small, TargetError::Small { .. }), "{small}");
    let coarse = record(&new(8 << 20, 512, &device.0)).unwrap_err();
    assert!(
        matches!(coarse, TargetError::CoarseSector { .. }),
        "{coarse}"
    );
    record(&new(8 << 20, 4096, &device.0)).unwrap();
}
