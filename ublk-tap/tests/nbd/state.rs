//! The state file and the disk it speaks of: lost, damaged, older than the disk, another disk. All
//! of it ends in a refusal that changes nothing, or in a copy; never in a silent gap (P5, P13).

use crate::host::{Host, SIZE, can_tap, eventually, pattern};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

const REFUSED: i32 = 3;
const SLOT_BYTES: u64 = 64 << 10;

/// A host whose volume was copied and left clean.
fn rested() -> Option<Host> {
    if !can_tap() {
        return None;
    }
    let host = Host::with_volume();
    host.agrees();
    host.ok(&["remove", "pg"]);
    Some(host)
}

fn damage_slot(host: &Host, slot: u64) {
    let file = OpenOptions::new()
        .write(true)
        .open(host.path("state/pg.state"))
        .unwrap();
    file.write_all_at(&[0xff; 8], slot * SLOT_BYTES + 40)
        .unwrap();
}

/// Adds `disk` as `volume`, which must be refused with `words`; nothing is written anywhere.
#[track_caller]
fn add_refused(host: &Host, disk: &Path, volume: &str, words: &str) {
    let state = fs::read(host.path("state/pg.state")).unwrap();
    let before = fs::read(disk).unwrap();
    let disk_text = disk.display().to_string();
    let add = ["add", &disk_text, "--group", "pg", "--volume", volume];
    let how = ["--frontend", "nbd", "--offline"];
    host.refused(&[&add[..], &how].concat(), REFUSED, words);
    assert!(fs::read(disk).unwrap() == before, "the disk is as it was");
    let after = fs::read(host.path("state/pg.state")).unwrap();
    let volumes = |bytes: &[u8]| -> usize {
        let found = bytes
            .windows(volume.len())
            .filter(|at| *at == volume.as_bytes());
        found.count()
    };
    // A tap that starts begins a life, and writes that down; what it knows of volumes stays.
    assert_eq!(volumes(&state), volumes(&after));
}

#[test]
fn a_state_file_that_is_lost_means_a_copy() {
    let Some(host) = rested() else { return };
    fs::remove_file(host.path("state/pg.state")).unwrap();
    let added = host.add();
    assert!(added.contains("new volume"), "{added}");
    host.agrees();
    host.ok(&["remove", "pg"]);
}

#[test]
fn a_state_file_with_one_damaged_slot_means_a_copy() {
    for slot in [0, 1] {
        let Some(host) = rested() else { return };
        damage_slot(&host, slot);
        let added = host.add();
        // The slot that is left says so, or is not believed for it.
        assert!(added.contains("not clean"), "{added}");
        host.agrees();
        host.ok(&["remove", "pg"]);
    }
}

#[test]
fn a_state_file_with_both_slots_damaged_is_refused_until_it_is_moved_away() {
    let Some(host) = rested() else { return };
    damage_slot(&host, 0);
    damage_slot(&host, 1);
    add_refused(&host, &host.file("disk"), "data", "is damaged");
    fs::rename(host.path("state/pg.state"), host.path("state/old")).unwrap();
    let added = host.add();
    assert!(added.contains("new volume"), "{added}");
    host.agrees();
    host.ok(&["remove", "pg"]);
}

#[test]
fn a_state_file_from_before_a_copy_was_ever_made_means_a_copy() {
    let Some(host) = rested() else { return };
    // Live: written when the volume was added, before anything of it was safe.
    host.add();
    fs::copy(host.path("state/pg.state"), host.path("old")).unwrap();
    host.ok(&["remove", "pg"]);
    fs::copy(host.path("old"), host.path("state/pg.state")).unwrap();
    let added = host.add();
    assert!(added.contains("not clean"), "{added}");
    host.agrees();
    host.ok(&["remove", "pg"]);
}

#[test]
fn a_life_does_not_come_again_with_a_state_file_from_an_old_copy() {
    let Some(host) = rested() else { return };
    fs::copy(host.path("state/pg.state"), host.path("old")).unwrap();
    let life = |host: &Host| -> u64 {
        let status = host.status();
        let text = status["incarnation"].as_str().unwrap().to_owned();
        text.split('-').next().unwrap().parse().unwrap()
    };
    let mut newest = 0;
    for _ in 0..3 {
        host.add();
        newest = newest.max(life(&host));
        host.ok(&["remove", "pg"]);
    }
    // Lives of less than a second are ahead of the clock; putting a file back takes longer.
    let clock = || std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    eventually("the clock is past them", || clock() > newest);
    fs::copy(host.path("old"), host.path("state/pg.state")).unwrap();
    host.add();
    assert!(life(&host) > newest, "{} after {newest}", life(&host));
    host.ok(&["remove", "pg"]);
}

#[test]
fn a_disk_changed_behind_our_back_is_copied_again() {
    // A superblock, as a mount of the raw disk changes it, and a place nothing is known of.
    for place in [1024 + 64, SIZE as u64 / 2] {
        changed_behind_our_back(place);
    }
}

fn changed_behind_our_back(place: u64) {
    let Some(host) = rested() else { return };
    let disk = OpenOptions::new()
        .write(true)
        .open(host.file("disk"))
        .unwrap();
    disk.write_all_at(&[7; 16], place).unwrap();
    let added = host.add();
    assert!(added.contains("disk changed since"), "{added}");
    host.agrees();
    host.ok(&["remove", "pg"]);
}

#[test]
fn disks_that_swapped_their_names_are_refused_under_the_old_and_known_under_the_new_ones() {
    let Some(host) = rested() else { return };
    let (a, b, aside) = (host.file("disk"), host.file("other"), host.file("aside"));
    // The same size and the same ends: nothing but its identity tells it from the first.
    fs::copy(&a, &b).unwrap();
    fs::rename(&a, &aside).unwrap();
    fs::rename(&b, &a).unwrap();
    fs::rename(&aside, &b).unwrap();
    add_refused(&host, &a, "data", "is bound to disk");
    let disk = b.display().to_string();
    let add = ["add", &disk, "--group", "pg", "--volume", "data"];
    let how = ["--frontend", "nbd", "--offline", "--wait"];
    let added = host.ok(&[&add[..], &how].concat());
    assert!(added.contains("nothing needs to be copied"), "{added}");
    host.ok(&["remove", "pg"]);
}

#[test]
fn another_disk_of_the_same_size_in_its_place_is_refused_until_the_name_is_freed() {
    let Some(host) = rested() else { return };
    let disk = host.file("disk");
    fs::rename(&disk, host.file("broken")).unwrap();
    fs::write(&disk, pattern(SIZE, 3)).unwrap();
    add_refused(&host, &disk, "data", "is bound to disk");
    host.ok(&["remove", "pg/data", "--forget"]);
    let added = host.add();
    assert!(added.contains("new volume"), "{added}");
    host.agrees();
    host.ok(&["remove", "pg"]);
}
