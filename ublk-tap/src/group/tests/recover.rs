//! A tap is killed, and the next one goes on with its ring and its devices.

use super::world::{Host, PATIENCE, Tap, eventually};
use crate::control::GroupStatus;
use crate::state::Rest;
use std::mem::forget;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use wire::{MemberAction, TimeMark};

const SIZE: usize = 3 << 20;
const AT: u64 = 1 << 20;

fn whole(host: &Host, tap: &Tap, volume: &str) -> PathBuf {
    whole_of_size(host, tap, volume, SIZE)
}

fn whole_of_size(host: &Host, tap: &Tap, volume: &str, size_bytes: usize) -> PathBuf {
    let disk = host.disk(&format!("{volume}.img"), size_bytes, 3);
    tap.add(&disk, volume).unwrap();
    tap.wait_mode("async");
    tap.barrier(PATIENCE).unwrap();
    // Noted by the turn after the one that has answered.
    eventually("it is noted as whole", || tap.ring.whole() != 0);
    disk
}

fn wait_served(tap: &Tap) -> GroupStatus {
    let is_served = |status: &GroupStatus| status.volumes.iter().all(|v| v.device.is_some());
    eventually("all devices are served", || {
        let status = tap.status();
        !status.volumes.is_empty() && is_served(&status)
    });
    tap.status()
}

fn joins(host: &Host, volume: &str) -> usize {
    let is_join =
        |(name, action): &&(String, MemberAction)| name == volume && *action == MemberAction::Join;
    host.members().iter().filter(is_join).count()
}

#[test]
fn a_volume_that_was_whole_goes_on_without_a_copy_and_what_was_in_flight_is_read_again() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    let life = host.state().incarnation;
    let device = host.fronts.device("data");
    device.write(0, &[1; 4096]);
    forget(device.begin(AT, &[2; 8192]));
    device.change_behind(AT, &[2; 4096]);
    forget(tap.ring.claim(512, TimeMark(1)).unwrap());
    device.write(8192, &[3; 512]);
    tap.die();

    let tap = host.successor(&[("data", &disk)]);
    let status = wait_served(&tap);
    assert_eq!(
        (status.volumes[0].copies, status.mode.as_str()),
        (1, "async")
    );
    tap.barrier(PATIENCE).unwrap();
    host.assert_equal("data", &disk);
    assert_eq!(tap.ring.incarnation(), life);
    host.fronts.device("data").write(AT, &[2; 8192]);
    tap.barrier(PATIENCE).unwrap();
    host.assert_equal("data", &disk);
    assert_eq!(joins(&host, "data"), 1);
    assert!(tap.remove(None, false).unwrap().clean);
    tap.end();
    assert!(matches!(host.state().volumes[0].rest, Rest::Clean(_)));
}

#[test]
fn nothing_counts_as_settled_before_what_was_in_flight_was_read_again() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    let in_flight = host.fronts.device("data").begin(AT, &[2; 8192]);
    let stamp = in_flight.stamp();
    forget(in_flight);
    host.site.stalls.store(true, Ordering::Release);
    tap.die();
    let tap = host.successor(&[("data", &disk)]);
    wait_served(&tap);
    let settled = tap.ring.settled_prefix();
    assert!(settled > stamp, "the copy of its range is below: {settled}");
    host.site.stalls.store(false, Ordering::Release);
    tap.barrier(PATIENCE).unwrap();
    host.assert_equal("data", &disk);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn taps_that_die_again_and_again_cost_no_copy() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    tap.die();
    for round in 0..4_u8 {
        let tap = host.successor(&[("data", &disk)]);
        if round % 2 == 0 {
            wait_served(&tap);
            let device = host.fronts.device("data");
            device.write(u64::from(round) * 4096, &[round; 4096]);
            forget(device.begin(AT, &[round; 8192]));
            device.change_behind(AT + 512, &[round; 512]);
        }
        tap.die();
    }
    let tap = host.successor(&[("data", &disk)]);
    assert_eq!(wait_served(&tap).volumes[0].copies, 1);
    tap.barrier(PATIENCE).unwrap();
    host.assert_equal("data", &disk);
    assert_eq!(joins(&host, "data"), 1);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_copy_under_way_begins_anew_in_the_same_stream_and_the_other_volume_goes_on() {
    let host = Host::new();
    let tap = host.tap();
    let one = whole(&host, &tap, "one");
    host.site.stalls.store(true, Ordering::Release);
    let two = host.disk("two.img", SIZE, 9);
    tap.add(&two, "two").unwrap();
    tap.die();
    host.site.stalls.store(false, Ordering::Release);
    let tap = host.successor(&[("one", &one), ("two", &two)]);
    wait_served(&tap);
    let status = tap.wait_mode("async");
    let copies = |n: usize| status.volumes[n].copies;
    assert_eq!((copies(0), copies(1)), (1, 2));
    tap.barrier(PATIENCE).unwrap();
    host.assert_equal("one", &one);
    host.assert_equal("two", &two);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_volume_without_a_device_leaves_the_stream() {
    let host = Host::new();
    let tap = host.tap();
    let one = whole(&host, &tap, "one");
    let two = host.disk("two.img", SIZE, 9);
    tap.add(&two, "two").unwrap();
    tap.wait_mode("async");
    tap.die();
    let tap = host.successor(&[("one", &one)]);
    wait_served(&tap);
    tap.barrier(PATIENCE).unwrap();
    let last = host.members().pop().unwrap();
    assert_eq!(last, ("two".into(), MemberAction::Leave));
    host.assert_equal("one", &one);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_stream_that_was_given_up_is_taken_up_with_a_gap_and_copied() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    host.site.stalls.store(true, Ordering::Release);
    let device = host.fronts.device("data");
    forget(device.begin(AT, &[2; 512]));
    tap.ring.close();
    device.write(0, &[9; 4096]);
    tap.die();
    host.site.stalls.store(false, Ordering::Release);
    let tap = host.successor(&[("data", &disk)]);
    wait_served(&tap);
    let status = tap.wait_mode("async");
    assert_eq!(status.volumes[0].copies, 2);
    assert_eq!(host.site.gaps.load(Ordering::Acquire), 1);
    tap.barrier(PATIENCE).unwrap();
    host.assert_equal("data", &disk);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_volume_whose_disk_has_refused_a_write_is_copied_again() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    host.fronts.device("data").write_badly(AT, &[7; 8192]);
    tap.die();
    let tap = host.successor(&[("data", &disk)]);
    wait_served(&tap);
    let status = tap.wait_mode("async");
    assert_eq!(status.volumes[0].copies, 2);
    tap.barrier(PATIENCE).unwrap();
    host.assert_equal("data", &disk);
    eventually("it is trusted again", || tap.ring.whole() == 1);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_device_that_cannot_be_gone_on_with_is_left_to_the_next_tap() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    tap.die();
    host.fronts.fails.store(true, Ordering::Release);
    let tap = host.successor(&[("data", &disk)]);
    eventually("it gives up", || host.gave_up.load(Ordering::Acquire));
    assert_eq!(host.members().len(), 2, "the volume stays in the stream");
    tap.die();
    let tap = host.successor(&[("data", &disk)]);
    assert_eq!(wait_served(&tap).volumes[0].copies, 1);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_range_in_flight_that_cannot_be_read_gives_the_stream_up_and_the_device_serves() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    let device = host.fronts.device("data");
    // Where the disk has nothing to read.
    forget(device.begin(SIZE as u64, &[2; 512]));
    tap.die();
    let tap = host.successor(&[("data", &disk)]);
    wait_served(&tap);
    eventually("it is copied again", || tap.status().volumes[0].copies == 2);
    let status = tap.wait_mode("async");
    assert_eq!(status.volumes[0].copies, 2);
    assert_eq!(host.site.gaps.load(Ordering::Acquire), 1);
    tap.barrier(PATIENCE).unwrap();
    host.assert_equal("data", &disk);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_copy_the_receiver_wants_is_made_also_if_it_asks_before_the_devices_serve() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    forget(host.fronts.device("data").begin(AT, &[2; 8192]));
    tap.die();
    host.site.want_copy();
    let tap = host.successor(&[("data", &disk)]);
    eventually("it is copied again", || tap.status().volumes[0].copies == 2);
    tap.wait_mode("async");
    tap.barrier(PATIENCE).unwrap();
    host.assert_equal("data", &disk);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_device_that_gets_no_stable_name_goes_on_and_serves_without() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    tap.die();
    let link = host.link("data");
    std::fs::remove_file(&link).unwrap();
    std::fs::create_dir_all(link.join("in the way")).unwrap();
    let tap = host.successor(&[("data", &disk)]);
    wait_served(&tap);
    let device = host.fronts.device("data");
    assert!(!device.is_gone() && !host.gave_up.load(Ordering::Acquire));
    device.write(AT, &[4; 4096]);
    tap.barrier(PATIENCE).unwrap();
    host.assert_equal("data", &disk);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn more_than_half_of_the_ring_in_flight_is_read_again_and_costs_no_copy() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    let device = host.fronts.device("data");
    for n in 0..5_u64 {
        forget(device.begin(n << 19, &[2; 512 << 10]));
        device.change_behind(n << 19, &[2; 4096]);
    }
    tap.die();
    let tap = host.successor(&[("data", &disk)]);
    goes_on_without_a_copy(&host, tap, &disk);
}

#[test]
fn a_ring_full_of_what_was_in_flight_is_read_again_and_costs_no_copy() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    let in_flight = fill_with_writes_in_flight(&host);
    assert!(in_flight > 100, "the ring was nearly empty: {in_flight}");
    tap.die();
    let tap = host.successor(&[("data", &disk)]);
    goes_on_without_a_copy(&host, tap, &disk);
}

#[test]
fn a_discard_in_flight_that_is_larger_than_the_ring_is_read_again_and_costs_no_copy() {
    let host = Host::new();
    let tap = host.tap();
    let size = 3 * host.settings.ring_bytes as usize;
    let disk = whole_of_size(&host, &tap, "data", size);
    let device = host.fronts.device("data");
    forget(device.begin_discard(0, size as u32));
    // As far as the disk came with it.
    device.change_behind(0, &[0; 1 << 20]);
    tap.die();
    let tap = host.successor(&[("data", &disk)]);
    goes_on_without_a_copy(&host, tap, &disk);
}

#[test]
fn a_death_before_all_that_was_in_flight_is_read_again_costs_a_copy_where_the_ring_has_no_room() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    fill_with_writes_in_flight(&host);
    host.fronts.device("data").change_behind(AT, &[2; 4096]);
    host.site.stalls.store(true, Ordering::Release);
    tap.die();
    let tap = host.successor(&[("data", &disk)]);
    wait_served(&tap);
    tap.die();
    host.site.stalls.store(false, Ordering::Release);
    let tap = host.successor(&[("data", &disk)]);
    wait_served(&tap);
    let status = tap.wait_mode("async");
    assert_eq!(status.volumes[0].copies, 2);
    tap.barrier(PATIENCE).unwrap();
    host.assert_equal("data", &disk);
    tap.remove(None, false).unwrap();
    tap.end();
}

/// Writes in flight that take all the ring has; how many.
fn fill_with_writes_in_flight(host: &Host) -> usize {
    let device = host.fronts.device("data");
    let begun = (0..SIZE as u64 / 16384).map_while(|n| device.try_begin(n * 16384, &[2; 16384]));
    let begun: Vec<_> = begun.collect();
    let count = begun.len();
    begun.into_iter().for_each(forget);
    count
}

fn goes_on_without_a_copy(host: &Host, tap: Tap, disk: &Path) {
    wait_served(&tap);
    tap.barrier(PATIENCE).unwrap();
    host.assert_equal("data", disk);
    let status = tap.status();
    assert_eq!(
        (status.volumes[0].copies, status.mode.as_str()),
        (1, "async")
    );
    eventually("it is whole again", || tap.ring.whole() == 1);
    host.fronts.device("data").write(AT, &[3; 8192]);
    tap.barrier(PATIENCE).unwrap();
    host.assert_equal("data", disk);
    assert!(tap.remove(None, false).unwrap().clean);
    tap.end();
}
