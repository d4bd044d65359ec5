//! Making a ring, and every way in which it cannot be made.

use crate::common::{INCARNATION, consumer, tmpfs_dir, write};
use ring::{ConfigError, CreateError, Ring, RingConfig};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use wire::{Incarnation, Stamp};

const SMALL: RingConfig = RingConfig {
    slots: 8,
    payload_bytes: 1 << 14,
};

#[test]
fn a_new_ring_is_a_private_file_with_all_its_room() {
    let dir = tmpfs_dir();
    let ring = Ring::create(dir.path(), INCARNATION, SMALL).unwrap();
    let meta = std::fs::metadata(ring.path()).unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    assert_eq!(meta.len(), 8192 + 4096 + (1 << 14));
    assert!(
        meta.blocks() * 512 >= meta.len(),
        "nothing is left to allocate later"
    );
    assert_eq!((ring.incarnation(), ring.config()), (INCARNATION, SMALL));
    let consumer = consumer(&ring);
    assert_eq!((consumer.incarnation(), consumer.slots()), (INCARNATION, 8));
    ring.remove_file().unwrap();
    assert!(!ring.path().exists());
    assert_eq!(write(&ring, 512), Stamp(1), "it works on without a name");
}

#[test]
fn a_dead_ring_is_replaced_and_its_shipper_keeps_the_old_memory() {
    let dir = tmpfs_dir();
    let old = Ring::create(dir.path(), INCARNATION, SMALL).unwrap();
    write(&old, 512);
    let of_old = consumer(&old);
    let next = Incarnation { counter: 4, id: 5 };
    let new = Ring::create(dir.path(), next, SMALL).unwrap();
    assert_eq!(of_old.captured(), Ok(Stamp(1)));
    assert_eq!(consumer(&new).captured(), Ok(Stamp(0)));
    assert_eq!(consumer(&new).incarnation(), next);
}

#[test]
fn a_directory_on_a_disk_is_refused() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let error = Ring::create(dir.path(), INCARNATION, SMALL).unwrap_err();
    assert!(matches!(error, CreateError::NotTmpfs { .. }), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_full_tmpfs_is_refused_with_both_sizes_and_leaves_nothing() {
    let dir = tmpfs_dir();
    let config = RingConfig::for_payload(64 << 30).unwrap();
    let stat = rustix::fs::statvfs(dir.path()).unwrap();
    if stat.f_bavail * stat.f_frsize > 64 << 30 {
        return; // The lab tests this on a tmpfs of its own; here it would only eat memory.
    }
    let error = Ring::create(dir.path(), INCARNATION, config).unwrap_err();
    let CreateError::NoSpace { wanted, free, .. } = &error else {
        panic!("expected no space, got {error}");
    };
    assert!(wanted > free && wanted.0 > 64 << 30);
    assert!(error.is_no_space());
    assert!(error.to_string().contains("MiB free"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn impossible_sizes_and_missing_directories_are_refused() {
    let dir = tmpfs_dir();
    let odd = RingConfig {
        slots: 8,
        payload_bytes: 5000,
    };
    let error = Ring::create(dir.path(), INCARNATION, odd).unwrap_err();
    assert!(
        matches!(error, CreateError::Config(ConfigError::Payload { .. })),
        "{error}"
    );
    let nowhere = dir.path().join("nowhere");
    let error = Ring::create(&nowhere, INCARNATION, SMALL).unwrap_err();
    assert!(matches!(error, CreateError::Io { .. }), "{error}");
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[test]
fn a_symlink_in_place_of_the_ring_is_not_followed() {
    let dir = tmpfs_dir();
    let target = dir.path().join("precious");
    std::fs::write(&target, b"keep").unwrap();
    std::os::unix::fs::symlink(&target, dir.path().join("ring")).unwrap();
    let ring = Ring::create(dir.path(), INCARNATION, SMALL).unwrap();
    assert!(!std::fs::symlink_metadata(ring.path()).unwrap().is_symlink());
    assert_eq!(std::fs::read(&target).unwrap(), b"keep");
}
