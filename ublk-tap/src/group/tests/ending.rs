//! The tap is told to end while something else is under way.

use super::world::{Host, PATIENCE, Tap, eventually};
use crate::state::{Rest, State};
use std::path::PathBuf;
use std::sync::Arc;

const SIZE: usize = 3 << 20;

fn whole(host: &Host, tap: &Tap, volume: &str) -> PathBuf {
    let disk = host.disk(&format!("{volume}.img"), SIZE, 3);
    tap.add(&disk, volume).unwrap();
    tap.wait_mode("async");
    tap.barrier(PATIENCE).unwrap();
    disk
}

/// Name, whether it was left clean, and whether it comes back.
fn left(state: &State) -> Vec<(&str, bool, bool)> {
    let volumes = state.volumes.iter();
    let left = volumes.map(|v| {
        let is_clean = matches!(v.rest, Rest::Clean(_));
        (v.name.as_str(), is_clean, v.service.returns)
    });
    left.collect()
}

#[test]
fn a_removal_that_is_being_written_down_is_neither_lost_nor_taken_for_the_end() {
    let host = Host::new();
    let tap = Arc::new(host.tap());
    whole(&host, &tap, "one");
    whole(&host, &tap, "two");
    let three = host.disk("three.img", SIZE, 3);
    let clerk = host.fronts.making.lock().unwrap();
    let (adder, remover) = (Arc::clone(&tap), Arc::clone(&tap));
    let adding = std::thread::spawn(move || adder.add(&three, "three"));
    eventually("three waits for its device", || {
        tap.status().volumes.len() == 3
    });
    let removing = std::thread::spawn(move || remover.remove(Some("one"), false));
    eventually("one waits to be written down", || {
        tap.status().volumes.len() == 2
    });
    tap.stop();
    tap.status();
    drop(clerk);

    let removed = removing.join().unwrap().unwrap();
    assert_eq!(removed.volumes, ["pg/one"]);
    assert!(removed.clean && !removed.is_last, "{removed:?}");
    adding.join().unwrap().unwrap();
    eventually("the tap ends", || tap.is_over());
    Arc::into_inner(tap).unwrap().end();
    let state = host.state();
    assert_eq!(
        left(&state)[0],
        ("one", true, false),
        "removed, not to come back"
    );
    assert!(matches!(
        left(&state)[1..],
        [("three", _, true), ("two", true, true)]
    ));
}

#[test]
fn an_add_whose_disk_is_being_opened_is_undone_and_does_not_come_back() {
    let host = Host::new();
    let tap = Arc::new(host.tap());
    let disk = whole(&host, &tap, "data");
    tap.remove(None, false).unwrap();
    Arc::into_inner(tap).unwrap().end();
    let before = host.state().volumes;

    let tap = Arc::new(host.tap());
    let clerk = host.fronts.opening.lock().unwrap();
    let adder = Arc::clone(&tap);
    let adding = std::thread::spawn(move || adder.add(&disk, "data"));
    eventually("the add is asked for", || {
        let refused = tap.remove(None, false).unwrap_err();
        refused.text.contains("is being added")
    });
    tap.stop();
    tap.stop();
    tap.status();
    drop(clerk);
    let failure = adding.join().unwrap().unwrap_err();
    assert!(failure.text.contains("is ending"), "{failure}");
    eventually("the tap ends", || tap.is_over());
    Arc::into_inner(tap).unwrap().end();
    assert_eq!(host.state().volumes, before);
}

#[test]
fn a_device_that_is_still_to_be_gone_on_with_has_its_cache_written_before_it_stops() {
    let mut host = Host::new();
    host.settings.stop = PATIENCE;
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    eventually("it is noted as whole", || tap.ring.whole() != 0);
    tap.die();
    let clerk = host.fronts.making.lock().unwrap();
    let tap = host.successor(&[("data", &disk)]);
    tap.stop();
    for _ in 0..20 {
        tap.status();
    }
    drop(clerk);
    tap.end();
    let device = host.fronts.device("data");
    assert_eq!(device.retirement.lock().unwrap().1, 3, "asked until done");
    assert!(matches!(host.state().volumes[0].rest, Rest::Clean(_)));
}
