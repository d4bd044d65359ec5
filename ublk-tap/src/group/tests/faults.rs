//! Writes the disk refuses: what it holds instead is at the receiver, or the volume is not clean.

use super::world::{Fake, Host, PATIENCE, Tap};
use crate::control::Settling;
use crate::failure::Exit;
use crate::state::{Rest, Unclean};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const SIZE: usize = 3 << 20;
const AT: u64 = 1 << 20;
const SOON: Duration = Duration::from_millis(300);

fn whole(host: &Host, tap: &Tap) -> (PathBuf, Arc<Fake>) {
    let disk = host.disk("data.img", SIZE, 3);
    tap.add(&disk, "data").unwrap();
    tap.wait_mode("async");
    (disk, host.fronts.device("data"))
}

fn at_end(device: &Fake, what: impl FnOnce(&Fake) + Send + 'static) {
    *device.at_end.lock().unwrap() = Some(Box::new(what));
}

#[test]
fn a_barrier_is_not_reached_before_what_a_failed_write_left_was_read_again() {
    let host = Host::new();
    let tap = host.tap();
    let (disk, device) = whole(&host, &tap);
    device.write_badly(AT, &[0x77; 8192]);
    let held = device.hold(AT + 8191, 1);
    let late = tap.barrier(SOON).unwrap_err();
    assert_eq!(late.exit, Exit::Unreachable);
    drop(held);
    let reached = tap.barrier(PATIENCE).unwrap();
    host.assert_equal("data", &disk);
    assert_eq!(reached.stamp, tap.ring.captured().0, "the copy is covered");
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_write_that_fails_after_the_group_has_looked_is_known_before_its_stamp_counts() {
    let host = Host::new();
    let tap = host.tap();
    let (disk, device) = whole(&host, &tap);
    let write = device.begin(AT, &[0x77; 8192]);
    let stamp = write.stamp();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| tap.barrier_of(Settling::Durable, PATIENCE));
        std::thread::sleep(SOON);
        *device.behind.lock().unwrap() = Some(Box::new(move |device| {
            device.fail(AT, 8192);
            write.void();
            device.await_acked(stamp);
        }));
        let reached = waiting.join().unwrap().unwrap();
        assert!(reached.stamp > stamp.0, "{reached:?}");
    });
    tap.barrier(PATIENCE).unwrap();
    host.assert_equal("data", &disk);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_write_that_fails_while_the_device_stops_is_read_again_before_the_volume_is_clean() {
    let host = Host::new();
    let tap = host.tap();
    let (disk, device) = whole(&host, &tap);
    at_end(&device, |device| device.write_badly(AT, &[0x77; 8192]));
    assert!(tap.remove(None, false).unwrap().clean);
    tap.end();
    host.assert_equal("data", &disk);
    let tap = host.tap();
    assert_eq!(tap.add(&disk, "data").unwrap().copy, None);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_tap_told_to_end_waits_for_the_same() {
    let host = Host::new();
    let tap = host.tap();
    let (disk, device) = whole(&host, &tap);
    at_end(&device, |device| device.write_badly(AT, &[0x77; 8192]));
    tap.stop();
    tap.end();
    assert!(matches!(host.state().volumes[0].rest, Rest::Clean(_)));
    host.assert_equal("data", &disk);
}

#[test]
fn a_range_that_cannot_be_read_again_in_time_leaves_its_volume_not_clean() {
    let host = Host::new();
    let tap = host.tap();
    let (_, device) = whole(&host, &tap);
    let held = device.hold(AT, 512);
    // Under the range it fails in; the copier comes behind the one that is held.
    device.fail(AT, 512);
    tap.stop();
    std::thread::sleep(host.settings.stop + SOON);
    drop(held);
    tap.end();
    let rest = host.state().volumes[0].rest.clone();
    assert_eq!(rest, Rest::Unclean(Unclean::NotDrained));
}

#[test]
fn a_range_that_cannot_be_read_at_all_leaves_its_volume_not_clean() {
    let host = Host::new();
    let tap = host.tap();
    let (disk, device) = whole(&host, &tap);
    at_end(&device, move |device| {
        device.fail(AT, 512);
        let file = std::fs::OpenOptions::new().write(true).open(&disk);
        file.unwrap().set_len(AT).unwrap();
    });
    let failure = tap.remove(None, false).unwrap_err();
    assert!(failure.text.contains("not clean"), "{failure}");
    tap.end();
    let rest = host.state().volumes[0].rest.clone();
    assert_eq!(rest, Rest::Unclean(Unclean::Broken));
}

#[test]
fn more_failed_writes_than_can_be_noted_while_it_stops_leave_a_volume_not_clean() {
    let host = Host::new();
    let tap = host.tap();
    let (disk, device) = whole(&host, &tap);
    at_end(&device, Fake::overflow);
    let failure = tap.remove(None, false).unwrap_err();
    assert!(failure.text.contains("the last writes failed"), "{failure}");
    tap.end();
    let rest = host.state().volumes[0].rest.clone();
    assert_eq!(rest, Rest::Unclean(Unclean::NotDrained));
    let tap = host.tap();
    assert!(tap.add(&disk, "data").unwrap().copy.is_some());
    tap.wait_mode("async");
    host.assert_equal("data", &disk);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn more_failed_writes_than_can_be_noted_have_the_volume_copied_before_a_barrier_is_reached() {
    let host = Host::new();
    let tap = host.tap();
    let (disk, device) = whole(&host, &tap);
    device.change_behind(AT, &[0x99; 4096]);
    device.overflow();
    tap.barrier(PATIENCE).unwrap();
    host.assert_equal("data", &disk);
    assert_eq!(tap.status().volumes[0].copies, 2);
    tap.remove(None, false).unwrap();
    tap.end();
}
