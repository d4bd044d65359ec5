//! A state file survives torn writes, and says nothing it was not told.

use super::codec::{SLOT_BYTES, parse, slot, slot_of_version};
use super::*;
use crate::group::FrontKind;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use wire::{DecodeError, Generation, Incarnation, Name, Stamp, TimeMark};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn volume(text: &str, rest: Rest) -> Registered {
    Registered {
        name: name(text),
        identity: "wwn:naa.5000".into(),
        path: "/dev/sdc".into(),
        size_bytes: 1 << 30,
        sector_bytes: 512,
        service: Service {
            frontend: FrontKind::Nbd,
            queues: 4,
            depth: 128,
            returns: true,
        },
        rest,
    }
}

fn clean(stamp: u64) -> Rest {
    Rest::Clean(CleanMark {
        incarnation: Incarnation {
            counter: 7,
            id: 0x99,
        },
        stamp: Stamp(stamp),
        fingerprint: "00112233445566778899aabbccddeeff".into(),
        writes: "file:17".into(),
        at: TimeMark(5),
    })
}

fn sample() -> State {
    State {
        group: name("pg"),
        generation: Generation {
            counter: 1,
            lineage: 2,
        },
        incarnation: Incarnation { counter: 8, id: 3 },
        volumes: vec![
            volume("data", clean(12)),
            volume("wal", Rest::Unclean(Unclean::Live)),
        ],
    }
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("pg.state")
    }

    fn open(&self) -> StateFile {
        StateFile::open_or_create(&self.path(), State::new(name("pg"), 100)).unwrap()
    }

    fn damage_slot(&self, slot: u64) {
        let file = OpenOptions::new().write(true).open(self.path()).unwrap();
        file.write_all_at(&[0xff; 4], slot * SLOT_BYTES as u64 + 40)
            .unwrap();
    }
}

#[test]
fn the_bytes_of_a_slot_are_the_documented_ones() {
    let state = State {
        volumes: vec![volume("d", Rest::Unclean(Unclean::Abandoned))],
        ..sample()
    };
    let bytes = slot(5, &state);
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    assert_eq!(
        hex(&bytes[..24]),
        "555441505354415401000000640000000500000000000000"
    );
    let body = concat!(
        "02007067",
        "010000000000000002000000000000000000000000000000",
        "080000000000000003000000000000000000000000000000",
        "0100",
        "010064",
        "0c0077776e3a6e61612e35303030",
        "08002f6465762f736463",
        "0000004000000000",
        "00020000",
        "010104008000",
        "02",
    );
    assert_eq!(hex(&bytes[32..32 + 0x64]), body);
    assert_eq!(hex(&bytes[24..32]), "07b96515607ef2e6");
    let rested = State {
        volumes: vec![volume("d", clean(12))],
        ..sample()
    };
    let rest = concat!(
        "00",
        "070000000000000099000000000000000000000000000000",
        "0c00000000000000",
        "2000",
        "3030313132323333343435353636373738383939616162626363646465656666",
        "070066696c653a3137",
        "0500000000000000",
    );
    let bytes = slot(5, &rested);
    let used = 32 + 0x63 + rest.len() / 2;
    assert_eq!(hex(&bytes[32 + 0x63..used]), rest);
    assert!(bytes[used..].iter().all(|byte| *byte == 0));
    let bytes = slot(5, &state);
    assert!(bytes[32 + 0x64..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_slot_says_again_what_it_was_told_and_no_damaged_byte_goes_unnoticed() {
    let bytes = slot(5, &sample());
    assert_eq!(parse(&bytes), Ok((5, sample())));
    let used = 32 + u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    for at in 0..used {
        let mut torn = bytes.clone();
        torn[at] ^= 0x40;
        assert!(parse(&torn).is_err(), "byte {at}");
        assert!(parse(&bytes[..at]).is_err(), "cut at {at}");
    }
    let mut newer = bytes;
    newer[8] = 2;
    assert!(matches!(
        parse(&newer),
        Err(DecodeError::BadValue("checksum"))
    ));
}

#[test]
fn a_full_table_of_the_longest_volumes_fits_a_slot() {
    let mut state = sample();
    state.volumes.clear();
    for n in 0..wire::limits::VOLUMES_MAX {
        let mut longest = volume(&format!("{n:0>64}"), clean(u64::MAX));
        longest.identity = "i".repeat(1000);
        longest.path = "p".repeat(1000);
        state.put(longest);
    }
    let (_, back) = parse(&slot(1, &state)).unwrap();
    assert_eq!(back.volumes.len(), wire::limits::VOLUMES_MAX);
    assert_eq!(
        back.volumes[0].identity.len(),
        wire::limits::IDENTITY_BYTES_MAX
    );
}

#[test]
fn what_was_committed_is_found_by_the_next_tap() {
    let place = Place::new();
    let mut file = place.open();
    assert_eq!(file.state().incarnation.counter, 100);
    for round in 1..=5 {
        file.update(|state| state.incarnation.counter += 1).unwrap();
        assert_eq!(place.open().state().incarnation.counter, 100 + round);
    }
    file.update(|state| state.put(volume("data", clean(3))))
        .unwrap();
    let peeked = StateFile::peek(&place.path(), &name("pg"))
        .unwrap()
        .unwrap();
    assert_eq!(peeked.volume(&name("data")).unwrap().rest, clean(3));
}

#[test]
fn a_file_put_back_from_an_old_copy_does_not_bring_an_old_life_back() {
    let mut old = sample();
    old.incarnation.counter = 1_700_000_000;
    assert_eq!(old.next_counter(1_800_000_000), 1_800_000_000);
    assert_eq!(
        old.next_counter(1_600_000_000),
        1_700_000_001,
        "a clock that is behind"
    );
    assert_eq!(
        old.next_counter(1_700_000_000),
        1_700_000_001,
        "twice in a second"
    );
}

#[test]
fn a_torn_write_leaves_the_state_before_it() {
    for torn in [0, 1] {
        let place = Place::new();
        let mut file = place.open();
        file.update(|state| state.incarnation.counter = 200)
            .unwrap();
        // The commit above is sequence 2, in slot 0; slot 1 holds the file's first content.
        place.damage_slot(torn);
        let found = place.open().state().incarnation.counter;
        assert_eq!(found, if torn == 0 { 100 } else { 200 });
    }
}

#[test]
fn with_one_slot_damaged_nothing_is_clean_any_more() {
    let place = Place::new();
    let mut file = place.open();
    file.update(|state| state.put(volume("data", clean(3))))
        .unwrap();
    let live = Rest::Unclean(Unclean::Live);
    file.update(|state| state.put(volume("data", live)))
        .unwrap();
    // Sequence 3, in slot 1, said live; slot 0 still says clean.
    place.damage_slot(1);
    let found = place.open().state().volume(&name("data")).unwrap().clone();
    assert_eq!(found.rest, Rest::Unclean(Unclean::Doubtful));
}

#[test]
fn a_file_of_a_newer_version_is_refused_whichever_slot_says_so() {
    for newer in [0, 1] {
        let place = Place::new();
        drop(place.open());
        let file = OpenOptions::new().write(true).open(place.path()).unwrap();
        file.write_all_at(&slot_of_version(2), newer * SLOT_BYTES as u64)
            .unwrap();
        let error = StateFile::peek(&place.path(), &name("pg")).unwrap_err();
        assert!(matches!(error, StateError::Newer { version: 2, .. }) && error.is_refusal());
    }
}

#[test]
fn a_file_without_a_whole_slot_and_the_file_of_another_group_are_refused() {
    let place = Place::new();
    drop(place.open());
    let other = StateFile::peek(&place.path(), &name("other")).unwrap_err();
    assert!(matches!(other, StateError::Foreign { .. }) && other.is_refusal());
    place.damage_slot(0);
    place.damage_slot(1);
    let damaged = StateFile::peek(&place.path(), &name("pg")).unwrap_err();
    assert!(matches!(damaged, StateError::Damaged { .. }) && damaged.is_refusal());
    fs::write(place.path(), b"").unwrap();
    assert!(StateFile::peek(&place.path(), &name("pg")).is_err());
}

#[test]
fn a_failed_commit_is_sticky() {
    let place = Place::new();
    let mut file = place.open();
    // A description that cannot be written makes every commit fail.
    file.break_for_test(fs::File::open(place.path()).unwrap());
    assert!(matches!(file.update(|_| {}), Err(StateError::Io { .. })));
    assert!(matches!(
        file.update(|_| {}),
        Err(StateError::Failed { .. })
    ));
    assert!(place.open().update(|_| {}).is_ok());
}

#[test]
fn a_group_that_never_had_a_volume_leaves_no_file() {
    let place = Place::new();
    place.open().remove_if_empty().unwrap();
    assert!(!place.path().exists());
    let mut file = place.open();
    file.update(|state| state.put(volume("data", clean(3))))
        .unwrap();
    file.remove_if_empty().unwrap();
    assert!(place.path().exists());
}
