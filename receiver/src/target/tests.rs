//! Targets on real files: creating, opening, refusing, reading back.

use super::*;
use crate::apply::{KNOWN_BLOCKS, KnownBlocks, known_ranges};
use crate::catalog::{TargetRecord, VolumeRecord};
use crate::fold::ByteRange;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn new(size_bytes: u64, targets: &[PathBuf]) -> NewVolume {
    NewVolume {
        size_bytes,
        sector_bytes: 512,
        kind: LayoutKind::Plain,
        targets: targets.iter().cloned().map(NewTarget::from).collect(),
    }
}

fn record(name: &str, size_bytes: u64, targets: &[TargetRecord]) -> VolumeRecord {
    VolumeRecord {
        name: name.parse().unwrap(),
        source: wire::Name::new("host1").unwrap(),
        size_bytes,
        sector_bytes: 512,
        kind: LayoutKind::Plain,
        disk: None,
        targets: targets.to_vec(),
    }
}

/// Adds a volume as the operator does.
fn added(name: &str, new: &NewVolume, volumes: &[VolumeRecord]) -> VolumeRecord {
    let provision = provision(new, volumes, &[]).unwrap();
    let record = record(name, new.size_bytes, provision.targets());
    provision.keep();
    record
}

fn refusal(new: &NewVolume, volumes: &[VolumeRecord]) -> TargetError {
    let error = provision(new, volumes, &[]).unwrap_err();
    let text = error.to_string();
    assert!(
        !text.contains('\n') && !text.is_empty(),
        "{text:?} is not one line"
    );
    error
}

fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
    let entries = fs::read_dir(dir).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.path(), entry.metadata().unwrap().len()))
        .collect();
    files.sort();
    files
}

#[test]
fn new_target_files_are_created_sparse_with_the_size_of_their_share() {
    let dir = dir();
    let paths = [dir.path().join("a"), dir.path().join("b")];
    fs::write(&paths[1], b"").unwrap();
    let record = added("db/wal", &new(5 * MIB, &paths), &[]);
    let found: Vec<(u64, u64)> = paths
        .iter()
        .map(|path| fs::metadata(path).map(|m| (m.len(), m.blocks())).unwrap())
        .collect();
    assert_eq!(found, [(3 * MIB, 0), (2 * MIB, 0)]);
    assert_eq!(record.targets[0].identity.size_bytes(), 3 * MIB);
    let open = open_volume(&record).unwrap();
    assert_eq!([open[0].used_bytes, open[1].used_bytes], [3 * MIB, 2 * MIB]);
}

#[test]
fn a_volume_that_does_not_come_to_be_leaves_nothing_behind() {
    let dir = dir();
    let paths = [dir.path().join("a"), dir.path().join("b")];
    fs::write(&paths[0], b"").unwrap();
    let before = files(dir.path());
    drop(provision(&new(4 * MIB, &paths), &[], &[]).unwrap());
    assert_eq!(files(dir.path()), before);
    // The second cannot be created: the first is not changed either.
    let paths = [dir.path().join("a"), dir.path().join("none/b")];
    let refused = refusal(&new(4 * MIB, &paths), &[]);
    assert!(matches!(refused, TargetError::NoDirectory(_)));
    assert_eq!(files(dir.path()), before);
}

#[test]
fn sizes_and_sectors_no_disk_has_are_refused() {
    let dir = dir();
    let path = [dir.path().join("a")];
    for size_bytes in [0, 511, 513, u64::MAX, u64::MAX - 511] {
        let refused = refusal(&new(size_bytes, &path), &[]);
        assert!(matches!(refused, TargetError::Size { .. }), "{size_bytes}");
    }
    for sector_bytes in [0, 1, 520, 1024, 8192] {
        let refused = refusal(
            &NewVolume {
                sector_bytes,
                ..new(MIB, &path)
            },
            &[],
        );
        assert!(matches!(refused, TargetError::Sector(_)), "{sector_bytes}");
    }
    let refused = refusal(
        &NewVolume {
            sector_bytes: 4096,
            ..new(MIB + 512, &path)
        },
        &[],
    );
    assert!(matches!(refused, TargetError::Size { .. }));
    assert!(matches!(
        refusal(&new(MIB, &[]), &[]),
        TargetError::Layout(_)
    ));
    assert!(files(dir.path()).is_empty());
}

#[test]
fn a_file_of_another_size_is_refused_and_left_alone() {
    let dir = dir();
    let path = dir.path().join("a");
    fs::write(&path, b"someone's data").unwrap();
    let refused = refusal(&new(MIB, std::slice::from_ref(&path)), &[]);
    assert!(matches!(refused, TargetError::OtherSize { .. }));
    assert_eq!(fs::read(&path).unwrap(), b"someone's data");
}

#[test]
fn what_is_neither_file_nor_disk_is_refused() {
    let dir = dir();
    let refused = refusal(&new(MIB, &[dir.path().to_owned()]), &[]);
    assert!(matches!(refused, TargetError::Kind(_)));
    let refused = refusal(&new(MIB, &["/dev/null".into()]), &[]);
    assert!(matches!(refused, TargetError::Kind(_)));
}

#[test]
fn a_target_serves_one_volume_by_whatever_name_it_is_called() {
    let dir = dir();
    let path = dir.path().join("a");
    let first = added("db/wal", &new(MIB, std::slice::from_ref(&path)), &[]);
    let (link, hard) = (dir.path().join("link"), dir.path().join("hard"));
    std::os::unix::fs::symlink(&path, &link).unwrap();
    fs::hard_link(&path, &hard).unwrap();
    let dotted = dir.path().join(".").join("a");
    for other in [path.clone(), link, hard, dotted] {
        let refused = refusal(
            &new(MIB, std::slice::from_ref(&other)),
            std::slice::from_ref(&first),
        );
        assert!(
            matches!(refused, TargetError::Taken { .. }),
            "{}",
            other.display()
        );
    }
    // Also when it is gone for the moment, or was moved.
    fs::rename(&path, dir.path().join("moved")).unwrap();
    let refused = refusal(&new(MIB, &[path]), std::slice::from_ref(&first));
    assert!(matches!(refused, TargetError::Taken { .. }));
    let moved = dir.path().join("moved");
    let refused = refusal(&new(MIB, &[moved]), std::slice::from_ref(&first));
    assert!(matches!(refused, TargetError::Taken { .. }));
}

#[test]
fn one_target_named_twice_is_refused() {
    let dir = dir();
    let new_file = dir.path().join("a");
    let again = dir.path().join("./a");
    let refused = refusal(&new(4 * MIB, &[new_file.clone(), again]), &[]);
    assert!(matches!(refused, TargetError::Twice(_)));
    assert!(!new_file.exists());
}

#[test]
fn the_receivers_own_files_are_no_targets() {
    let dir = dir();
    let journal = dir.path().join("journal");
    fs::create_dir(&journal).unwrap();
    let catalog = dir.path().join("catalog.redb");
    let own = [journal.clone(), catalog.clone()];
    for path in [journal.join("0001"), catalog] {
        let refused = provision(&new(MIB, std::slice::from_ref(&path)), &[], &own);
        assert!(
            matches!(refused, Err(TargetError::Own(_))),
            "{}",
            path.display()
        );
    }
}

#[test]
fn a_target_is_opened_once() {
    let dir = dir();
    let record = added("db/wal", &new(MIB, &[dir.path().join("a")]), &[]);
    let open = open_volume(&record).unwrap();
    let refused = open_volume(&record).unwrap_err();
    assert!(matches!(refused, TargetError::InUse { .. }), "{refused}");
    drop(open);
    open_volume(&record).unwrap();
}

#[test]
fn another_file_in_the_place_of_the_target_is_refused() {
    let dir = dir();
    let path = dir.path().join("a");
    let record = added("db/wal", &new(MIB, std::slice::from_ref(&path)), &[]);
    let copy = dir.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    fs::rename(&copy, &path).unwrap();
    assert!(matches!(
        open_volume(&record),
        Err(TargetError::Other { .. })
    ));
    assert!(matches!(
        VolumeReader::open(&record),
        Err(TargetError::Other { .. })
    ));
    fs::remove_file(&path).unwrap();
    assert!(matches!(open_volume(&record), Err(TargetError::Missing(_))));
}

#[test]
fn a_target_of_another_size_is_refused() {
    let dir = dir();
    let path = dir.path().join("a");
    let record = added("db/wal", &new(MIB, std::slice::from_ref(&path)), &[]);
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(MIB / 2)
        .unwrap();
    assert!(matches!(
        open_volume(&record),
        Err(TargetError::Other { .. })
    ));
}

#[test]
fn a_target_someone_wrote_meanwhile_is_refused() {
    let dir = dir();
    let path = dir.path().join("a");
    let mut record = added("db/wal", &new(MIB, std::slice::from_ref(&path)), &[]);
    let blocks: [Vec<u8>; KNOWN_BLOCKS] =
        known_ranges(MIB).map(|range| vec![0; range.len_bytes as usize]);
    record.targets[0].known = Some(KnownBlocks::of(&blocks));
    open_volume(&record).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[1080] = 1;
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(
        open_volume(&record),
        Err(TargetError::Changed { .. })
    ));
}

#[test]
fn a_striped_volume_reads_back_and_exports_as_it_was_laid_out() {
    let dir = dir();
    let paths = ["a", "b", "c"].map(|name| dir.path().join(name));
    let size_bytes = 7 * MIB + 1536;
    let record = added("db/wal", &new(size_bytes, &paths), &[]);
    let layout = Layout::new(size_bytes, paths.len()).unwrap();
    let mut volume = vec![0; size_bytes as usize];
    for (index, byte) in volume.iter_mut().enumerate().skip(2 << 20) {
        *byte = (index / 512 % 251) as u8;
    }
    let mut shares: Vec<Vec<u8>> = (0..3)
        .map(|target| vec![0; layout.target_bytes(target) as usize])
        .collect();
    for part in layout.parts(ByteRange::new(0, size_bytes)) {
        let (from, to) = (part.range.offset_bytes as usize, part.offset_bytes as usize);
        let len = part.range.len_bytes as usize;
        shares[part.target][to..to + len].copy_from_slice(&volume[from..from + len]);
    }
    for (path, share) in paths.iter().zip(&shares) {
        fs::write(path, share).unwrap();
    }
    let mut reader = VolumeReader::open(&record).unwrap();
    let odd = ByteRange::new(2 * MIB - 512, 1024);
    assert_eq!(
        reader.read(odd).unwrap(),
        &volume[(2 << 20) - 512..(2 << 20) + 512]
    );

    let file = dir.path().join("export");
    let mut seen = Vec::new();
    let done = export(&mut reader, &file, |progress| {
        seen.push(progress.done_bytes)
    })
    .unwrap();
    assert_eq!(fs::read(&file).unwrap(), volume);
    assert!(
        fs::metadata(&file).unwrap().blocks() * 512 < size_bytes - MIB,
        "zeroes are holes"
    );
    assert_eq!((seen.len(), done.done_bytes), (8, size_bytes));
    let again = export(&mut reader, &file, |_| ());
    assert!(again.is_err(), "an existing file is not overwritten");
    assert_eq!(fs::read(&file).unwrap(), volume);
}

#[test]
fn a_file_is_recognised_by_inode_and_birth_when_its_device_number_changes() {
    let file = |device, inode, born_ns| TargetIdentity::File {
        device,
        inode,
        born_ns,
        size_bytes: 9,
    };
    assert!(file(1, 2, 3).is(&file(8, 2, 3)));
    assert!(!file(1, 2, 3).is(&file(1, 2, 4)));
    assert!(!file(1, 2, 3).is(&file(1, 3, 3)));
    assert!(file(1, 2, 0).is(&file(1, 2, 0)));
    assert!(
        !file(1, 2, 0).is(&file(8, 2, 0)),
        "without a birth the device counts"
    );
    let block = TargetIdentity::Block {
        id: "wwn:1".into(),
        size_bytes: 9,
    };
    assert!(!file(1, 2, 3).is(&block));
}
