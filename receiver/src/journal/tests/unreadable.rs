//! Pages the disk does not give back: named, read around, and never a reason not to start.

use super::damage::{several, small, stamps};
use super::store::{Dice, MemoryStore};
use super::{Bench, ID, STREAM, examined, limits, open, record, scan, told};
use crate::journal::{Damage, DamageKind, Durable, Found, JournalError, Store};
use wire::journal::StreamNumber;

const EACCES: i32 = 13;
const ENODATA: i32 = 61;

/// Entries of the journal as it was written, told once each.
type Entries = Vec<(StreamNumber, Durable)>;

/// Nothing is invented, and what is missing is named; gives what is there.
#[track_caller]
fn named(found: &[Found], damage: &[Damage], all: &Entries, what: &str) -> Entries {
    let found = told(found);
    for entry in &found {
        assert!(all.contains(entry), "{what}: invented {entry:?}");
    }
    let missing = all.iter().filter(|entry| !found.contains(entry)).count();
    assert!(
        missing == 0 || !damage.is_empty(),
        "{what}: {missing} not named"
    );
    found
}

/// Starts, writes on, and starts again: with the pages still unreadable, and with all readable.
#[track_caller]
fn goes_on(store: &MemoryStore, pages: &[(u64, u64)], all: &Entries, what: &str) {
    store.unreadable(pages);
    let (mut bench, found, damage) = Bench::try_begin(store, limits(16)).unwrap();
    let kept = named(&found, &damage, all, what);
    let own = StreamNumber(9);
    let more = vec![open(own), record(own, 1, 4096), record(own, 2, 512)];
    assert!(bench.append(more).unwrap());
    let more = std::mem::take(&mut bench.durable);
    drop(bench);
    for heal in [false, true] {
        let again = store.copy();
        if !heal {
            again.unreadable(&store.still_unreadable());
        }
        let (_, found) = scan(&again).unwrap();
        let found = told(&found);
        // What was named once may be gone with its segment; what was there then still is.
        for entry in kept.iter().chain(&more) {
            assert!(found.contains(entry), "{what}, healed {heal}: {entry:?}");
        }
        for entry in &found {
            let known = all.contains(entry) || more.contains(entry);
            assert!(known, "{what}, healed {heal}: invented {entry:?}");
        }
    }
}

#[test]
fn whatever_page_cannot_be_read_the_journal_starts_names_what_is_missing_and_goes_on() {
    let (store, all) = small();
    for page in 0..8 {
        let pages = [(1, page)];
        if (1..=3).contains(&page) {
            let unreadable = store.copy();
            unreadable.unreadable(&pages);
            let (recovered, found) = scan(&unreadable).unwrap();
            let lost = told(&found).len() < all.len();
            assert_eq!(lost, page > 1, "page {page}");
            assert_eq!(recovered.damage[0].kind, DamageKind::Unreadable);
        }
        goes_on(&store.copy(), &pages, &all, &format!("page {page}"));
    }
}

#[test]
fn whatever_pages_of_several_segments_cannot_be_read_nothing_is_passed_over_in_silence() {
    let (store, _) = several();
    let all = told(&scan(&store).unwrap().1);
    let segments = store.list().unwrap();
    for seed in 1..=400 {
        let mut dice = Dice(seed * 7919);
        let count = 1 + dice.roll(6);
        let pages: Vec<(u64, u64)> = (0..count)
            .map(|_| {
                let at = dice.roll(segments.len() as u64) as usize;
                (segments[at], dice.roll(16))
            })
            .collect();
        goes_on(
            &store.copy(),
            &pages,
            &all,
            &format!("seed {seed}: {pages:?}"),
        );
    }
}

#[test]
fn a_segment_that_cannot_be_read_at_all_is_left_behind_wherever_it_is() {
    let (store, _) = several();
    let all = told(&scan(&store).unwrap().1);
    for segment in store.list().unwrap() {
        let pages: Vec<(u64, u64)> = (0..16).map(|page| (segment, page)).collect();
        goes_on(&store.copy(), &pages, &all, &format!("segment {segment}"));
    }
}

#[test]
fn a_group_that_was_given_up_does_not_come_back_when_it_can_be_read_again() {
    let (store, all) = small();
    store.unreadable(&[(1, 3)]);
    let (mut bench, found, damage) = Bench::try_begin(&store, limits(16)).unwrap();
    assert_eq!(stamps(&found), [1, 2]);
    assert_eq!((damage[0].segment, damage[0].offset_bytes), (1, 3 * 4096));
    assert_eq!(damage[0].kind, DamageKind::Unreadable);
    let again = vec![record(STREAM, 3, 512)];
    bench.append(again).unwrap();
    drop(bench);
    store.unreadable(&[]);
    let (recovered, found) = scan(&store).unwrap();
    assert_eq!(stamps(&found), [1, 2, 3], "four was not sent again");
    assert_eq!(recovered.damage, []);
    assert_eq!(all.len(), 6);
    assert_eq!(stamps(&examined(&store).unwrap().1), [1, 2, 3]);
}

#[test]
fn the_sound_entries_of_a_group_that_cannot_be_read_whole_are_used() {
    let store = MemoryStore::default();
    let mut bench = Bench::begin(&store, limits(8));
    let records = (1..=4).map(|stamp| record(STREAM, stamp, 4096));
    bench
        .append([vec![open(STREAM)], records.collect()].concat())
        .unwrap();
    drop(bench);
    // The group begins in page 2; page 4 holds parts of the second and the third record.
    store.unreadable(&[(1, 4)]);
    let (recovered, found) = scan(&store).unwrap();
    assert_eq!(stamps(&found), [1, 4]);
    let unreadable = |damage: &Damage| damage.kind == DamageKind::Unreadable;
    assert!(recovered.damage.iter().all(unreadable));
    let text = recovered.damage[0].to_string();
    assert!(
        text.ends_with("the disk cannot read what was written there"),
        "{text}"
    );
}

#[test]
fn a_stream_that_begins_after_damage_has_no_number_of_one_that_was_in_it() {
    let (store, _) = small();
    store.unreadable(&[(1, 3)]);
    let (recovered, _) = scan(&store).unwrap();
    assert!(recovered.next_stream() > StreamNumber(1 << 32));
}

#[test]
fn a_journal_of_which_nothing_can_be_read_is_refused_and_nothing_is_touched() {
    let (store, _) = several();
    let segments = store.list().unwrap();
    let all = segments
        .iter()
        .flat_map(|segment| (0..16).map(|page| (*segment, page)));
    store.unreadable(&all.collect::<Vec<_>>());
    let path = std::path::Path::new("/j");
    for known in [None, Some(ID)] {
        let mut nothing = |_: Found| {};
        let refused = crate::journal::recover(&mut store.clone(), path, known, &mut nothing);
        let error = refused.map(drop).unwrap_err();
        assert!(matches!(error, JournalError::Unreadable(_)), "{error}");
    }
    assert!(
        crate::journal::is_there(&store, path).is_err(),
        "it is not given up by a word"
    );
    assert_eq!(store.list().unwrap(), segments);
}

#[test]
fn errors_of_the_medium_are_damage_and_others_end_the_start() {
    let (store, _) = small();
    store.unreadable(&[(1, 3)]);
    store.read_error(ENODATA);
    assert_eq!(scan(&store).unwrap().0.damage.len(), 1);
    store.read_error(EACCES);
    let error = scan(&store).map(drop).unwrap_err();
    assert!(
        matches!(error, JournalError::Io { what: "read", .. }),
        "{error}"
    );
}
