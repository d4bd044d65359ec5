//! A tap dies at any step, and the next one takes its ring over.

use crate::common::{
    INCARNATION, VOLUME, claim, consumer, descriptor_word, fill, pattern, scribble, tmpfs_dir,
    write,
};
use proptest::prelude::*;
use ring::{ClaimError, Consumer, Entry, Origin, RecordFields, RecoverError, Recovered, Ring};
use ring::{Orphan, RingConfig};
use std::mem::forget;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;
use wire::{Incarnation, RecordKind, Stamp, TimeMark, VolumeIndex};

const NOW: TimeMark = TimeMark(7_000);
const SMALL: RingConfig = RingConfig {
    slots: 16,
    payload_bytes: 1 << 16,
};
/// Where both halves of the claim word are about to wrap.
const NEAR_WRAP: Origin = Origin {
    stamp: Stamp((1 << 31) - 6),
    position_units: (1 << 32) - 48,
};
/// Names the directory of the ring for the process that is to be killed.
const VICTIM_DIR: &str = "TAP_RING_VICTIM_DIR";

fn make(dir: &TempDir, origin: Origin) -> Ring {
    Ring::create_at(dir.path(), INCARNATION, SMALL, origin).unwrap()
}

fn recover(dir: &Path) -> Recovered {
    Ring::recover(dir, INCARNATION, NOW).unwrap()
}

fn refusal(dir: &TempDir) -> String {
    let refused = Ring::recover(dir.path(), INCARNATION, NOW);
    refused.expect_err("it does not fit").to_string()
}

fn stamps(orphans: &[Orphan]) -> Vec<u64> {
    orphans.iter().map(|orphan| orphan.stamp().0).collect()
}

/// All records the ring holds, which must follow each other without a hole.
fn all(shipper: &Consumer) -> Vec<Entry> {
    let mut entries = Vec::new();
    shipper
        .peek_filled(shipper.freed(), usize::MAX, &mut entries)
        .unwrap();
    let last = entries
        .last()
        .map_or_else(|| shipper.freed(), |entry| entry.stamp);
    assert_eq!(last, shipper.captured().unwrap(), "the stream has no hole");
    entries
}

/// The void stamps, after which everything must be done.
fn voids(shipper: &Consumer) -> Vec<u64> {
    let mut voids = Vec::new();
    let upto = shipper
        .settle_scan(shipper.freed(), usize::MAX, &mut voids)
        .unwrap();
    assert_eq!(upto, shipper.captured().unwrap(), "everything is done");
    voids.iter().map(|stamp| stamp.0).collect()
}

/// Acks everything and fills the whole ring once more: no room is lost.
fn assert_all_room_is_there(ring: &Ring, shipper: &Consumer) {
    shipper.set_acked(ring.captured());
    ring.try_reclaim().unwrap();
    assert_eq!((ring.usage().used_bytes, ring.usage().used_slots), (0, 0));
    for _ in 0..SMALL.slots {
        write(ring, 512);
    }
    assert!(matches!(claim(ring, 0), Err(ClaimError::Full)));
    shipper.set_acked(ring.captured());
    ring.try_reclaim().unwrap();
    assert_eq!(all(shipper), []);
}

#[test]
fn every_step_a_record_can_die_at_has_its_outcome() {
    let dir = tmpfs_dir();
    let ring = make(&dir, Origin::default());
    write(&ring, 4096);
    fill(claim(&ring, 512).unwrap()).void();
    forget(claim(&ring, 8192).unwrap());
    forget(fill(claim(&ring, 4096).unwrap()));
    forget(fill(claim(&ring, 0).unwrap()));
    forget(fill(claim(&ring, 100).unwrap()));
    let copied = claim(&ring, 512).unwrap();
    forget(copied.fill(RecordFields::copy(VOLUME, 0, 512)));
    write(&ring, 512);
    forget(ring);

    let Recovered {
        ring,
        orphans,
        unfilled,
    } = recover(dir.path());
    assert_eq!((stamps(&orphans), unfilled), (vec![4, 5], 1));
    assert_eq!(
        (orphans[0].volume(), orphans[0].offset_bytes()),
        (VOLUME, 4 * 512)
    );
    assert_eq!(orphans[0].length_bytes(), 4096);
    assert_eq!(ring.incarnation(), INCARNATION);
    assert_eq!(
        (ring.captured(), ring.settled_prefix()),
        (Stamp(8), Stamp(3))
    );
    let shipper = consumer(&ring);
    let entries = all(&shipper);
    assert_eq!(entries[2].fields.kind, RecordKind::Void);
    let mut payload = Vec::new();
    shipper.read_payload(&entries[3], &mut payload).unwrap();
    assert_eq!(
        payload,
        pattern(Stamp(4), 4096),
        "the shipper may have sent it"
    );

    assert_eq!(write(&ring, 512), Stamp(9), "the stream goes on");
    assert_eq!(ring.settled_prefix(), Stamp(3), "and waits for the orphans");
    for orphan in orphans {
        orphan.void();
    }
    assert_eq!(ring.settled_prefix(), Stamp(9));
    assert_eq!(voids(&shipper), [2, 3, 4, 5]);
    assert_all_room_is_there(&ring, &shipper);
}

#[test]
fn places_won_without_a_word_in_their_descriptors_become_void() {
    for origin in [Origin::default(), NEAR_WRAP] {
        let dir = tmpfs_dir();
        let ring = make(&dir, origin);
        let shipper = consumer(&ring);
        // Old records in all slots, as of an earlier lap.
        for _ in 0..SMALL.slots {
            write(&ring, 512);
        }
        shipper.set_acked(ring.captured());
        ring.try_reclaim().unwrap();
        let first = ring.captured().0 + 1;
        let slot = |stamp: u64| descriptor_word(stamp % u64::from(SMALL.slots));
        let dead = [first, first + 1, first + 3];
        for stamp in first..first + 4 {
            let claim = claim(&ring, 4096).unwrap();
            let earlier = (stamp - u64::from(SMALL.slots)) << 3 | 3;
            let dead_as = dead.iter().position(|dead| *dead == stamp);
            let Some(dead_as) = dead_as else {
                fill(claim).settle();
                continue;
            };
            forget(claim);
            // Its fields were about to be written, or the slot was not touched yet.
            let word = if dead_as == 1 { stamp << 3 } else { earlier };
            scribble(&ring, slot(stamp), word);
            for word in 1..8 {
                scribble(&ring, slot(stamp) + word, u64::MAX);
            }
        }
        forget(ring);
        let found = recover(dir.path());
        assert_eq!((found.orphans.len(), found.unfilled), (0, 3));
        let shipper = consumer(&found.ring);
        assert_eq!(all(&shipper).len(), 4);
        assert_eq!(voids(&shipper), dead);
        assert_all_room_is_there(&found.ring, &shipper);
    }
}

#[test]
fn a_second_death_before_the_orphans_are_void_finds_them_again() {
    let dir = tmpfs_dir();
    let ring = make(&dir, NEAR_WRAP);
    write(&ring, 512);
    forget(fill(claim(&ring, 4096).unwrap()));
    forget(claim(&ring, 512).unwrap());
    forget(fill(claim(&ring, 512).unwrap()));
    forget(ring);
    let first = recover(dir.path());
    let found = stamps(&first.orphans);
    let shipper = consumer(&first.ring);
    shipper.set_acked(Stamp(found[0] - 1));
    first.ring.try_reclaim().unwrap();
    let mut orphans = first.orphans.into_iter();
    orphans.next().unwrap().void();
    write(&first.ring, 512);
    forget((first.ring, orphans.collect::<Vec<_>>()));

    let second = recover(dir.path());
    assert_eq!(stamps(&second.orphans), found[1..]);
    assert_eq!(second.unfilled, 0);
    for orphan in second.orphans {
        orphan.void();
    }
    let shipper = consumer(&second.ring);
    assert_eq!(shipper.acked(), second.ring.acked(), "a new page goes on");
    assert_eq!(all(&shipper).len(), 4);
    assert_all_room_is_there(&second.ring, &shipper);
}

#[test]
fn a_stream_that_was_given_up_stays_so() {
    let dir = tmpfs_dir();
    let ring = make(&dir, Origin::default());
    forget(fill(claim(&ring, 512).unwrap()));
    ring.close();
    forget(ring);
    let found = recover(dir.path());
    assert!(found.ring.is_closed());
    assert!(matches!(claim(&found.ring, 0), Err(ClaimError::Closed)));
    assert_eq!(stamps(&found.orphans), [1]);
}

#[test]
fn a_death_inside_a_reclaim_loses_no_room() {
    let dir = tmpfs_dir();
    let ring = make(&dir, Origin::default());
    let shipper = consumer(&ring);
    write(&ring, 1 << 15);
    write(&ring, 1 << 15);
    shipper.set_acked(Stamp(2));
    ring.try_reclaim().unwrap();
    // The position was not stored any more.
    scribble(&ring, 529, 0);
    forget((ring, shipper));
    let found = recover(dir.path());
    assert_eq!(found.ring.usage().used_bytes, 0);
    write(&found.ring, 1 << 15);
}

#[test]
fn what_a_successor_may_rely_on_is_what_was_noted_and_not_doubted_since() {
    let dir = tmpfs_dir();
    let ring = make(&dir, Origin::default());
    let [one, two, none] = [1, 2, 64].map(VolumeIndex);
    assert_eq!(ring.whole(), 0, "nothing at first");
    ring.set_whole(0b110);
    ring.doubt(one);
    ring.doubt(none);
    forget(ring);
    let ring = recover(dir.path()).ring;
    assert_eq!(ring.whole(), 0b100);
    ring.end_doubt(one);
    ring.doubt(two);
    assert_eq!(ring.whole(), 0b010);
    ring.set_whole(0);
    assert_eq!(ring.whole(), 0);
}

#[test]
fn what_is_not_this_lifes_ring_is_refused_in_words_and_left_as_it_is() {
    let dir = tmpfs_dir();
    assert!(refusal(&dir).contains("there is no ring"));
    let path = make(&dir, Origin::default()).path().to_owned();
    let other = Incarnation { counter: 4, id: 9 };
    let error = Ring::recover(dir.path(), other, NOW).unwrap_err();
    assert!(matches!(error, RecoverError::OtherLife { found, .. } if found == INCARNATION));
    std::fs::write(&path, b"short").unwrap();
    assert!(refusal(&dir).contains("damaged"));
    let _ring = make(&dir, Origin::default());
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(9000)
        .unwrap();
    assert!(refusal(&dir).contains("size"));
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    assert!(refusal(&dir).contains("file type"));
}

#[test]
fn words_that_do_not_hold_together_are_refused_and_left_as_they_are() {
    let slot = descriptor_word;
    // Word, value, what the refusal names. Stamp 1 is settled, 2 claimed, 3 filled.
    let cases = [
        (0, 0, "header"),
        (1, 2, "layout 2"),
        (5, 1024, "size"),
        (512, 99 << 32, "claim word"),
        (512, 3 << 32 | 200, "claim word"),
        (528, 9, "claim word"),
        (528, u64::MAX, "freed cursor"),
        (529, u64::MAX - 7, "freed cursor"),
        (529, 100, "claim word"),
        (slot(1), 1 << 3 | 7, "state"),
        (slot(1), 33 << 3 | 3, "stamp"),
        (slot(2), 9 << 3 | 1, "stamp"),
        (slot(2) + 4, 0, "place"),
        (slot(2) + 5, 1 << 50, "place"),
        (slot(3) + 4, u64::MAX, "place"),
        (slot(3) + 3, 600 << 32 | 600, "payload length"),
        (slot(3) + 6, 77 << 16, "kind"),
    ];
    for (word, value, what) in cases {
        let dir = tmpfs_dir();
        let ring = make(&dir, Origin::default());
        write(&ring, 512);
        forget(claim(&ring, 512).unwrap());
        forget(fill(claim(&ring, 512).unwrap()));
        scribble(&ring, word, value);
        let before = std::fs::read(ring.path()).unwrap();
        let said = refusal(&dir);
        assert!(said.contains(what), "word {word} = {value}: {said}");
        assert_eq!(std::fs::read(ring.path()).unwrap(), before);
        forget(ring);
    }
}

/// What happens to one record before its tap dies.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Settled,
    Void,
    Filled,
    Claimed,
    Unopened,
    Acked,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Settled),
        1 => Just(Fate::Void),
        2 => Just(Fate::Filled),
        1 => Just(Fate::Claimed),
        1 => Just(Fate::Unopened),
        3 => Just(Fate::Acked),
    ]
}

/// Lives until `fates` are used up; gives the number of records that are not done.
fn live(ring: Ring, fates: &[(Fate, u32)]) -> usize {
    let shipper = consumer(&ring);
    let mut open = 0;
    for (fate, sectors) in fates {
        if let Fate::Acked = fate {
            shipper.set_acked(ring.settled_prefix());
            ring.try_reclaim().unwrap();
            continue;
        }
        let Ok(claim) = claim(&ring, sectors * 512) else {
            continue;
        };
        let slot = descriptor_word(claim.stamp().0 % u64::from(SMALL.slots));
        match fate {
            Fate::Settled => fill(claim).settle(),
            Fate::Void => fill(claim).void(),
            Fate::Filled => forget(fill(claim)),
            Fate::Claimed => forget(claim),
            _ => {
                scribble(&ring, slot, claim.stamp().0 << 3);
                scribble(&ring, slot + 4, u64::MAX);
                forget(claim);
            }
        }
        open += usize::from(!matches!(fate, Fate::Settled | Fate::Void));
    }
    forget(ring);
    open
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn however_often_a_tap_dies_the_stream_has_no_hole_and_no_room_is_lost(
        lives in proptest::collection::vec(
            proptest::collection::vec((fate(), 0_u32..17), 0..40),
            1..4,
        ),
        is_near_wrap: bool,
    ) {
        let dir = tmpfs_dir();
        let origin = if is_near_wrap { NEAR_WRAP } else { Origin::default() };
        let mut ring = make(&dir, origin);
        for fates in lives {
            let captured_before = ring.captured();
            let open = live(ring, &fates);
            let found = recover(dir.path());
            prop_assert_eq!(found.orphans.len() + found.unfilled as usize, open);
            prop_assert!(found.ring.captured() >= captured_before);
            let shipper = consumer(&found.ring);
            all(&shipper);
            for orphan in found.orphans {
                orphan.void();
            }
            voids(&shipper);
            ring = found.ring;
        }
        assert_all_room_is_there(&ring, &consumer(&ring));
    }
}

/// Not a test: the tap that is killed by the one below.
#[test]
#[ignore = "runs until it is killed"]
fn victim() {
    let Some(dir) = std::env::var_os(VICTIM_DIR) else {
        return;
    };
    let ring = match Ring::recover(Path::new(&dir), INCARNATION, NOW) {
        Ok(found) => {
            found.orphans.into_iter().for_each(Orphan::void);
            found.ring
        }
        Err(RecoverError::Missing(_)) => {
            Ring::create_at(Path::new(&dir), INCARNATION, SMALL, NEAR_WRAP).unwrap()
        }
        Err(error) => panic!("{error}"),
    };
    let ring = Arc::new(ring);
    for producer in 0..3_u32 {
        let ring = Arc::clone(&ring);
        thread::spawn(move || {
            for round in 0.. {
                if let Ok(claim) = claim(&ring, (round * 7 + producer) % 17 * 512) {
                    fill(claim).settle();
                }
            }
        });
    }
    let shipper = consumer(&ring);
    loop {
        shipper.set_acked(ring.settled_prefix());
        let _ = ring.try_reclaim();
    }
}

#[test]
fn a_ring_whose_tap_is_killed_again_and_again_goes_on() {
    let dir = tmpfs_dir();
    let mut last = Stamp::ZERO;
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "recover::victim", "--ignored"])
            .env(VICTIM_DIR, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let ring_file = dir.path().join("ring");
        while !ring_file.exists() {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(30 + 7 * round));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(status.code().is_none(), "it was killed: {status}");
        let found = match Ring::recover(dir.path(), INCARNATION, NOW) {
            Ok(found) => found,
            // Killed before its first ring was whole.
            Err(_) if round == 0 => {
                std::fs::remove_file(&ring_file).unwrap();
                continue;
            }
            Err(error) => panic!("round {round}: {error}"),
        };
        let shipper = consumer(&found.ring);
        all(&shipper);
        found.orphans.into_iter().for_each(Orphan::void);
        voids(&shipper);
        assert!(found.ring.captured() >= last);
        last = found.ring.captured();
    }
    assert!(last > NEAR_WRAP.stamp, "it lived");
}
