//! The whole group at work, with everything real but the kernel's driver and the receiver.

use super::world::{Host, PATIENCE, Tap, eventually, name};
use crate::failure::Exit;
use crate::state::{Rest, Unclean};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::Ordering;
use std::time::Duration;
use wire::{Generation, MemberAction, Stamp};

const SIZE: usize = 3 << 20;
const SOON: Duration = Duration::from_millis(400);

fn whole(host: &Host, tap: &Tap, volume: &str) -> std::path::PathBuf {
    let disk = host.disk(&format!("{volume}.img"), SIZE, 3);
    tap.add(&disk, volume).unwrap();
    tap.wait_mode("async");
    disk
}

#[test]
fn a_disk_is_copied_followed_removed_clean_and_not_copied_again() {
    let host = Host::new();
    let tap = host.tap();
    let disk = host.disk("data.img", SIZE, 1);
    let added = tap.add(&disk, "data").unwrap();
    assert_eq!(added.copy.as_deref(), Some("new volume"));
    assert_eq!(std::fs::read_link(host.link("data")).unwrap(), added.device);
    host.fronts.device("data").write(4096, &[0xbb; 8192]);
    let reached = tap.barrier(PATIENCE).unwrap();
    assert!(reached.stamp >= 2);
    host.assert_equal("data", &disk);
    assert_eq!(tap.status().mode, "async");

    host.fronts.device("data").write(1 << 20, &[0xcc; 512]);
    let removed = tap.remove(None, false).unwrap();
    assert!(removed.clean && removed.given_up.is_empty(), "{removed:?}");
    assert_eq!(removed.volumes, ["pg/data"]);
    tap.end();
    assert!(!host.link("data").exists());
    host.assert_equal("data", &disk);

    let tap = host.tap();
    let added = tap.add(&disk, "data").unwrap();
    assert_eq!((added.copy, added.mode.as_str()), (None, "async"));
    host.fronts.device("data").write(0, &[0xdd; 4096]);
    tap.barrier(PATIENCE).unwrap();
    host.assert_equal("data", &disk);
    let status = tap.status();
    assert_eq!(
        (status.volumes[0].copies, status.volumes[0].copied_bytes),
        (0, 0)
    );
    let actions: Vec<MemberAction> = host
        .members()
        .into_iter()
        .map(|(_, action)| action)
        .collect();
    assert!(matches!(
        actions[..],
        [
            MemberAction::Join,
            MemberAction::Ready,
            MemberAction::Leave,
            MemberAction::Continue { .. }
        ]
    ));
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_continue_names_the_leave_it_goes_on_from() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    tap.remove(None, false).unwrap();
    let life = tap.ring.incarnation();
    let leave = tap.ring.captured();
    tap.end();
    let tap = host.tap();
    tap.add(&disk, "data").unwrap();
    tap.barrier(PATIENCE).unwrap();
    let expected = MemberAction::Continue {
        incarnation: life,
        stamp: leave,
    };
    assert_eq!(host.members().last().unwrap().1, expected);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_disk_changed_behind_our_back_is_copied_again_and_the_reason_is_told() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    tap.remove(None, false).unwrap();
    tap.end();
    std::os::unix::fs::FileExt::write_all_at(
        &std::fs::OpenOptions::new().write(true).open(&disk).unwrap(),
        b"mounted",
        1024,
    )
    .unwrap();
    let tap = host.tap();
    let copy = tap.add(&disk, "data").unwrap().copy.unwrap();
    assert!(copy.starts_with("disk changed since 20"), "{copy}");
    tap.wait_mode("async");
    host.assert_equal("data", &disk);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_device_that_served_before_its_add_failed_is_not_clean_any_more() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    tap.remove(None, false).unwrap();
    tap.end();
    let tap = host.tap();
    // Its stable name cannot be made: a directory stands there.
    std::fs::create_dir_all(host.link("data").join("in the way")).unwrap();
    tap.add(&disk, "data").unwrap_err();
    eventually("the add is undone", || {
        host.state().volumes[0].rest == Rest::Unclean(Unclean::Live)
    });
    tap.stop();
    tap.end();
    let left = std::fs::read_dir(host.link("data").parent().unwrap()).unwrap();
    assert_eq!(left.count(), 1, "only what stood in the way");
}

#[test]
fn after_a_crash_the_volume_is_not_clean_and_is_copied_again() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    let life = host.state().incarnation.counter;
    tap.crash();
    assert_eq!(host.state().volumes[0].rest, Rest::Unclean(Unclean::Live));
    // The dead tap's descriptor keeps its lock here, as a process's would not.
    let other = host.disk("moved.img", SIZE, 3);
    std::fs::rename(&disk, disk.with_extension("dead")).unwrap();
    std::fs::rename(&other, &disk).unwrap();
    let tap = host.tap();
    assert_eq!(host.state().incarnation.counter, life + 1);
    let refused = tap.add(&disk, "data").unwrap_err();
    assert_eq!(refused.exit, Exit::Refused);
    assert!(
        refused.text.matches("file:").count() == 2,
        "both identities: {refused}"
    );
    tap.forget("data").unwrap();
    assert_eq!(
        tap.add(&disk, "data").unwrap().copy.as_deref(),
        Some("new volume")
    );
    tap.wait_mode("async");
    host.assert_equal("data", &disk);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn without_a_link_remove_refuses_and_says_what_is_at_stake() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    host.site.stalls.store(true, Ordering::Release);
    host.fronts.device("data").write(0, &[1; 65536]);
    let refused = tap.remove_within(None, false, SOON).unwrap_err();
    assert_eq!(refused.exit, Exit::Unreachable);
    for words in ["64 KiB", "--abandon", " s old", "pg/data"] {
        assert!(refused.text.contains(words), "{words}: {refused}");
    }
    assert_eq!(
        tap.status().volumes[0].state,
        "ready",
        "nothing has changed"
    );
    host.fronts.device("data").write(0, &[2; 4096]);

    let removed = tap.remove(None, true).unwrap();
    assert!(
        !removed.clean && removed.given_up.contains("68.1 KiB"),
        "{removed:?}"
    );
    tap.end();
    assert_eq!(
        host.state().volumes[0].rest,
        Rest::Unclean(Unclean::Abandoned)
    );
    host.site.stalls.store(false, Ordering::Release);
    let tap = host.tap();
    let copy = tap.add(&disk, "data").unwrap().copy.unwrap();
    assert!(copy.contains("--abandon"), "{copy}");
    tap.wait_mode("async");
    host.assert_equal("data", &disk);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_removal_whose_link_fails_after_the_device_is_gone_goes_on_behind() {
    let host = Host::new();
    let tap = host.tap();
    whole(&host, &tap, "data");
    tap.barrier(PATIENCE).unwrap();
    // Everything is safe, so the device stops; its leave record is what does not get through.
    host.site.stalls.store(true, Ordering::Release);
    let late = tap.remove_within(None, false, SOON).unwrap_err();
    assert_eq!(late.exit, Exit::Unreachable);
    assert!(late.text.contains("the device is gone"), "{late}");
    assert_eq!(tap.status().volumes[0].state, "leaving");
    host.site.stalls.store(false, Ordering::Release);
    eventually("the tap ends by itself", || tap.is_over());
    tap.end();
    assert!(matches!(host.state().volumes[0].rest, Rest::Clean(_)));
}

#[test]
fn a_full_ring_breaks_the_group_and_it_comes_back_by_itself_with_equal_images() {
    let host = Host::new();
    let tap = host.tap();
    let one = whole(&host, &tap, "one");
    host.site.stalls.store(true, Ordering::Release);
    assert!(host.fronts.device("one").fill_ring() > 10);
    // A volume that finds no room for its record waits as a write would, and ends the stream.
    let two = host.disk("two.img", SIZE, 5);
    let added = tap.add(&two, "two").unwrap();
    assert_eq!(added.mode, "broken");
    let status = tap.status();
    assert!(
        status.reason.contains("the ring was full"),
        "{}",
        status.reason
    );
    assert_eq!(status.volumes[0].state, "broken");

    host.fronts.device("one").write(0, &[0x11; 4096]);
    host.fronts.device("two").write(0, &[0x22; 4096]);
    let status = tap.status();
    assert!(
        status.lag_bytes >= 8192 && status.lag_seconds > 0.0,
        "{status:?}"
    );
    let refused = tap.remove(None, false).unwrap_err();
    assert!(
        refused.exit == Exit::Refused && refused.text.contains("broken"),
        "{refused}"
    );

    host.site.stalls.store(false, Ordering::Release);
    let status = tap.wait_mode("async");
    assert_eq!(host.site.gaps.load(Ordering::Acquire), 1);
    assert_eq!(status.volumes[0].copies, 2);
    tap.barrier(PATIENCE).unwrap();
    host.assert_equal("one", &one);
    host.assert_equal("two", &two);
    assert!(tap.remove(None, false).unwrap().clean);
    tap.end();
}

#[test]
fn a_range_whose_write_failed_is_at_the_receiver_as_the_disk_has_it() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    host.fronts
        .device("data")
        .write_badly(1 << 20, &[0x77; 8192]);
    eventually("the copy of it is there", || {
        tap.barrier(PATIENCE).unwrap();
        host.site.images.lock().unwrap()["data"] == std::fs::read(&disk).unwrap()
    });
    assert_eq!(tap.status().mode, "async");
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_device_that_cannot_be_made_changes_nothing() {
    let host = Host::new();
    let tap = host.tap();
    let disk = host.disk("data.img", SIZE, 1);
    host.fronts.fails.store(true, Ordering::Release);
    let failure = tap.add(&disk, "data").unwrap_err();
    assert_eq!(failure.exit, Exit::Privilege);
    eventually("the state is as before", || host.state().volumes.is_empty());
    assert!(!host.link("data").exists() && tap.status().volumes.is_empty());
    tap.add(&disk, "data").unwrap();
    tap.wait_mode("async");
    host.assert_equal("data", &disk);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn one_of_two_volumes_leaves_and_comes_back_while_the_other_goes_on() {
    let host = Host::new();
    let tap = host.tap();
    let one = whole(&host, &tap, "one");
    let two = whole(&host, &tap, "two");
    assert!(tap.remove(Some("one"), false).unwrap().clean);
    host.fronts.device("two").write(8192, &[9; 4096]);
    tap.barrier(PATIENCE).unwrap();
    host.assert_equal("two", &two);
    assert_eq!(
        tap.add(&one, "one").unwrap().copy,
        None,
        "left clean in this very life"
    );
    host.fronts.device("one").write(0, &[8; 4096]);
    tap.barrier(PATIENCE).unwrap();
    host.assert_equal("one", &one);
    assert_eq!(tap.status().volumes.len(), 2);
    assert_eq!(
        tap.remove(None, false).unwrap().volumes,
        ["pg/one", "pg/two"]
    );
    tap.end();
}

#[test]
fn told_to_end_the_tap_leaves_everything_clean_if_it_can() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    host.fronts.device("data").write(0, &[1; 4096]);
    tap.stop();
    tap.end();
    assert!(matches!(host.state().volumes[0].rest, Rest::Clean(_)));
    host.assert_equal("data", &disk);
}

#[test]
fn told_to_end_without_a_link_the_tap_ends_in_time_and_is_not_clean() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    host.site.stalls.store(true, Ordering::Release);
    host.fronts.device("data").write(0, &[1; 4096]);
    tap.stop();
    tap.end();
    assert_eq!(
        host.state().volumes[0].rest,
        Rest::Unclean(Unclean::NotDrained)
    );
    host.site.stalls.store(false, Ordering::Release);
    let tap = host.tap();
    assert!(
        tap.add(&disk, "data")
            .unwrap()
            .copy
            .unwrap()
            .contains("stopped before")
    );
    tap.wait_mode("async");
    host.assert_equal("data", &disk);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_tap_without_volumes_ends_at_once_when_told() {
    let host = Host::new();
    let tap = host.tap();
    tap.stop();
    tap.end();
}

#[test]
fn the_receiver_asks_for_a_copy_and_gets_it() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    host.site
        .images
        .lock()
        .unwrap()
        .get_mut("data")
        .unwrap()
        .fill(0);
    host.site.want_copy();
    eventually("a second copy", || tap.status().volumes[0].copies == 2);
    tap.wait_mode("async");
    host.assert_equal("data", &disk);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_shipper_that_lies_is_parted_with_and_the_next_one_gets_everything_again() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    host.site.lies.store(true, Ordering::Release);
    let status = tap.wait_mode("broken");
    assert!(status.reason.contains("shipper acked"), "{}", status.reason);
    host.fronts.device("data").write(0, &[5; 4096]);
    let status = tap.wait_mode("async");
    assert_eq!(status.volumes[0].copies, 2);
    tap.barrier(PATIENCE).unwrap();
    host.assert_equal("data", &disk);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_mounted_device_is_not_taken_away() {
    let host = Host::new();
    let tap = host.tap();
    whole(&host, &tap, "data");
    let device = host.fronts.device("data");
    device.is_mounted.store(true, Ordering::Release);
    for abandon in [false, true] {
        let refused = tap.remove(None, abandon).unwrap_err();
        assert!(
            refused.exit == Exit::Refused && refused.text.contains("in use"),
            "{refused}"
        );
    }
    device.is_mounted.store(false, Ordering::Release);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn what_cannot_be_added_or_removed_is_refused_in_words() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    let refused = |failure: crate::failure::Failure, words: &str| {
        assert_eq!(failure.exit, Exit::Refused, "{failure}");
        assert!(failure.text.contains(words), "{words}: {failure}");
    };
    refused(tap.add(&disk, "data").unwrap_err(), "tapped already");
    refused(
        tap.add(&disk, "again").unwrap_err(),
        "already tapped or locked",
    );
    refused(
        tap.remove(Some("nosuch"), false).unwrap_err(),
        "pg/nosuch is not tapped",
    );
    refused(tap.forget("data").unwrap_err(), "remove it first");
    assert_eq!(tap.add(&disk, "../x").unwrap_err().exit, Exit::Usage);
    let missing = tap.add(&disk.with_extension("none"), "more").unwrap_err();
    assert_eq!(missing.exit, Exit::Usage);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_disk_that_has_another_size_now_is_refused() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    tap.remove(None, false).unwrap();
    tap.end();
    std::fs::OpenOptions::new()
        .write(true)
        .open(&disk)
        .unwrap()
        .set_len(2 << 20)
        .unwrap();
    let tap = host.tap();
    let refused = tap.add(&disk, "data").unwrap_err();
    assert!(
        refused.exit == Exit::Refused && refused.text.contains("size of"),
        "{refused}"
    );
    assert!(
        matches!(host.state().volumes[0].rest, Rest::Clean(_)),
        "nothing has changed"
    );
    tap.stop();
    tap.end();
}

#[test]
fn a_barrier_that_cannot_be_reached_says_why_in_time() {
    let host = Host::new();
    let tap = host.tap();
    whole(&host, &tap, "data");
    host.site.stalls.store(true, Ordering::Release);
    host.fronts.device("data").write(0, &[1; 4096]);
    let late = tap.barrier(SOON).unwrap_err();
    assert_eq!(late.exit, Exit::Unreachable);
    assert!(late.text.contains("is not applied after 0.4 s"), "{late}");
    tap.remove(None, true).unwrap();
    tap.end();
}

#[test]
fn a_newer_generation_is_kept_and_an_older_one_is_not() {
    let host = Host::new();
    let tap = host.tap();
    let newer = Generation {
        counter: 5,
        lineage: 77,
    };
    host.site.tell_generation(newer);
    eventually("it is kept", || host.state().generation == newer);
    host.site.tell_generation(Generation {
        counter: 5,
        lineage: 78,
    });
    host.site.tell_generation(Generation {
        counter: 4,
        lineage: 77,
    });
    whole(&host, &tap, "data");
    assert_eq!(host.state().generation, newer);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn status_says_what_is_missing_while_there_is_no_shipper() {
    let host = Host::new();
    let tap = host.tap_without_shipper();
    let disk = host.disk("data.img", SIZE, 1);
    tap.add(&disk, "data").unwrap();
    eventually("half the ring is full of the copy", || {
        tap.status().ring_used_bytes >= 2 << 20
    });
    let status = tap.status();
    assert_eq!(
        (status.mode.as_str(), status.link.as_str()),
        ("first copy", "down")
    );
    assert!(status.link_reason.contains("no shipper"), "{status:?}");
    assert_eq!(status.volumes[0].state, "copying");
    assert_eq!(status.recoverable_to, None);
    assert!(status.lag_bytes > 0 && status.durable == Stamp::ZERO.0);
    let refused = tap.remove(Some("data"), false).unwrap_err();
    assert!(
        refused.text.contains("the copy is not complete"),
        "{refused}"
    );
    tap.remove(None, true).unwrap();
    tap.end();
    assert_eq!(
        host.state().volume(&name("data")).unwrap().rest,
        Rest::Unclean(Unclean::Abandoned)
    );
}

#[test]
fn a_tap_started_for_a_volume_waits_for_the_first_and_answers_for_the_last() {
    let mut host = Host::new();
    host.on_demand = Some(Duration::from_millis(200));
    let tap = host.tap();
    eventually("nothing comes, so it ends", || tap.is_over());
    tap.end();
    let tap = host.tap();
    whole(&host, &tap, "data");
    std::thread::sleep(Duration::from_millis(300));
    // Its patience is long over when the last volume is on its way out.
    let removed = tap.remove(None, false).unwrap();
    assert!(removed.clean && removed.is_last);
    tap.end();
    let tap = host.tap();
    host.fronts.fails.store(true, Ordering::Release);
    tap.add(&host.disk("other.img", SIZE, 1), "other")
        .unwrap_err();
    eventually("the add failed, so it ends", || tap.is_over());
    tap.end();
}

#[test]
fn what_is_cached_for_a_device_is_written_and_streamed_before_it_stops() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    let device = host.fronts.device("data");
    device.retirement.lock().unwrap().0 = Some(Box::new(|device| {
        device.write(4096, &[0x66; 4096]);
    }));
    assert!(tap.remove(None, false).unwrap().clean);
    tap.end();
    assert_eq!(device.retirement.lock().unwrap().1, 3, "asked until done");
    host.assert_equal("data", &disk);
    assert_eq!(std::fs::read(&disk).unwrap()[4096], 0x66);
}

#[test]
fn a_device_whose_cache_cannot_be_written_is_only_taken_away_with_abandon() {
    let host = Host::new();
    let tap = host.tap();
    whole(&host, &tap, "good");
    whole(&host, &tap, "poor");
    let [good, poor] = ["good", "poor"].map(|name| host.fronts.device(name));
    poor.loses_cache.store(true, Ordering::Release);
    let refused = tap.remove(None, false).unwrap_err();
    assert_eq!(refused.exit, Exit::Failed);
    for words in ["pg/poor", "could not be written: EIO", "--abandon"] {
        assert!(refused.text.contains(words), "{words}: {refused}");
    }
    assert_eq!(good.retirement.lock().unwrap().1, 0, "it may be mounted");
    assert!(tap.status().volumes.iter().all(|v| v.state == "ready"));
    tap.remove(Some("poor"), true).unwrap();
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_mount_that_comes_while_it_is_drained_keeps_its_device() {
    let host = Host::new();
    let tap = host.tap();
    whole(&host, &tap, "data");
    let device = host.fronts.device("data");
    device.retirement.lock().unwrap().0 = Some(Box::new(|device| {
        device.is_mounted.store(true, Ordering::Release);
    }));
    let refused = tap.remove(None, false).unwrap_err();
    assert!(refused.text.contains("in use"), "{refused}");
    tap.stop();
    tap.end();
    assert!(
        matches!(host.state().volumes[0].rest, Rest::Clean(_)),
        "a tap that ends does not wait for a mount"
    );
}

#[test]
fn a_device_that_gets_no_stable_name_is_gone_before_the_add_has_failed() {
    let host = Host::new();
    let tap = host.tap();
    let disk = host.disk("data.img", SIZE, 1);
    let dir = host.link("data").parent().unwrap().to_owned();
    std::fs::write(&dir, "in the way").unwrap();
    let failure = tap.add(&disk, "data").unwrap_err();
    assert!(failure.text.contains("make the link"), "{failure}");
    assert!(host.fronts.device("data").is_gone());
    std::fs::remove_file(&dir).unwrap();
    tap.add(&disk, "data").unwrap();
    tap.wait_mode("async");
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn abandon_does_not_wait_for_what_the_removal_before_it_waited_for() {
    let host = Host::new();
    let tap = std::sync::Arc::new(host.tap());
    whole(&host, &tap, "data");
    host.site.stalls.store(true, Ordering::Release);
    host.fronts.device("data").write(0, &[1; 4096]);
    let asker = std::sync::Arc::clone(&tap);
    let waiting = std::thread::spawn(move || asker.remove(None, false));
    eventually("it is being removed", || {
        let refused = tap.add(&host.disk("other.img", SIZE, 1), "other");
        let failure = refused.unwrap_err();
        failure.text.contains("being removed")
    });
    let removed = tap.remove(None, true).unwrap();
    assert!(
        !removed.clean && removed.given_up.contains(" KiB of changes"),
        "{removed:?}"
    );
    assert!(
        waiting
            .join()
            .unwrap()
            .unwrap_err()
            .text
            .contains("took over")
    );
    std::sync::Arc::into_inner(tap).unwrap().end();
    assert_eq!(
        host.state().volumes[0].rest,
        Rest::Unclean(Unclean::Abandoned)
    );
}

#[test]
fn a_clean_volume_whose_device_cannot_be_made_goes_on_from_its_newest_leave() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    whole(&host, &tap, "other");
    tap.barrier(PATIENCE).unwrap();
    tap.remove(Some("data"), false).unwrap();
    let before = host.state().volumes;
    host.fronts.fails.store(true, Ordering::Release);
    let failure = tap.add(&disk, "data").unwrap_err();
    assert_eq!(failure.exit, Exit::Privilege);
    let leave = tap.ring.captured();
    let (now, before) = (&host.state().volumes[0], &before[0]);
    assert_eq!((&now.path, now.service), (&before.path, before.service));

    assert_eq!(tap.add(&disk, "data").unwrap().copy, None);
    host.fronts.device("data").write(0, &[8; 4096]);
    tap.barrier(PATIENCE).unwrap();
    let expected = MemberAction::Continue {
        incarnation: tap.ring.incarnation(),
        stamp: leave,
    };
    assert_eq!(host.members().last().unwrap(), &("data".into(), expected));
    host.assert_equal("data", &disk);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_clean_volume_whose_failed_add_cannot_be_told_to_the_receiver_is_copied_next_time() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    whole(&host, &tap, "other");
    tap.barrier(PATIENCE).unwrap();
    tap.remove(Some("data"), false).unwrap();
    host.site.stalls.store(true, Ordering::Release);
    host.fronts.fails.store(true, Ordering::Release);
    tap.add(&disk, "data").unwrap_err();
    assert_eq!(
        host.state().volumes[0].rest,
        Rest::Unclean(Unclean::NotDrained)
    );
    host.site.stalls.store(false, Ordering::Release);
    assert!(tap.add(&disk, "data").unwrap().copy.is_some());
    tap.wait_mode("async");
    host.assert_equal("data", &disk);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_copy_a_failed_add_has_begun_is_nothing_to_continue_from() {
    let host = Host::new();
    let tap = host.tap();
    let disk = whole(&host, &tap, "data");
    whole(&host, &tap, "other");
    tap.barrier(PATIENCE).unwrap();
    tap.remove(Some("data"), false).unwrap();
    let mut bytes = std::fs::read(&disk).unwrap();
    bytes[1024] ^= 1;
    std::fs::write(&disk, bytes).unwrap();
    host.fronts.fails.store(true, Ordering::Release);
    tap.add(&disk, "data").unwrap_err();
    let rest = host.state().volumes[0].rest.clone();
    assert!(matches!(rest, Rest::Unclean(_)), "{rest:?}");
    eventually("it has left, and the others are waited for alone", || {
        let last = host.members().pop().unwrap();
        last == ("data".into(), MemberAction::Leave)
    });
    tap.barrier(PATIENCE).unwrap();
    assert!(tap.add(&disk, "data").unwrap().copy.is_some());
    tap.wait_mode("async");
    host.assert_equal("data", &disk);
    tap.remove(None, false).unwrap();
    tap.end();
}

#[test]
fn a_disk_whose_path_cannot_be_kept_is_refused() {
    let host = Host::new();
    let tap = host.tap();
    let long = "x".repeat(255);
    let odd = OsStr::from_bytes(b"odd\xff.img");
    let paths = [OsStr::new(long.as_str()), odd].map(|name| {
        let disk = host.disk("data.img", SIZE, 1).with_file_name(name);
        std::fs::write(&disk, vec![0; SIZE]).unwrap();
        disk
    });
    for (disk, words) in paths.iter().zip(["longer than 256 bytes", "not UTF-8"]) {
        let refused = tap.add(disk, "data").unwrap_err();
        assert_eq!(refused.exit, Exit::Usage, "{refused}");
        assert!(refused.text.contains(words), "{refused}");
    }
    assert!(host.state().volumes.is_empty());
    tap.stop();
    tap.end();
}

#[test]
fn a_group_works_on_while_it_is_found_out_whether_a_device_is_mounted() {
    let host = Host::new();
    let tap = std::sync::Arc::new(host.tap());
    let disk = whole(&host, &tap, "data");
    tap.barrier(PATIENCE).unwrap();
    let device = host.fronts.device("data");
    device.holds_after.store(u64::MAX, Ordering::Release);
    for abandon in [false, true] {
        let asker = std::sync::Arc::clone(&tap);
        let asked = device.asked_to_hold.load(Ordering::Acquire);
        let removing =
            std::thread::spawn(move || asker.remove_within(None, abandon, Duration::ZERO));
        eventually("it is being found out", || {
            device.asked_to_hold.load(Ordering::Acquire) > asked + 2
        });
        device.write(0, &[4; 4096]);
        tap.barrier(PATIENCE).unwrap();
        let refused = removing.join().unwrap().unwrap_err();
        assert_eq!(refused.exit, Exit::Unreachable);
        assert!(refused.text.contains("not known yet"), "{refused}");
    }
    assert_eq!(
        device.retirement.lock().unwrap().1,
        0,
        "nothing has changed"
    );
    device.holds_after.store(0, Ordering::Release);
    device.is_mounted.store(true, Ordering::Release);
    let refused = tap.remove_within(None, true, Duration::ZERO).unwrap_err();
    assert!(refused.text.contains("in use"), "{refused}");
    device.is_mounted.store(false, Ordering::Release);
    tap.remove(None, false).unwrap();
    host.assert_equal("data", &disk);
    std::sync::Arc::into_inner(tap).unwrap().end();
}

#[test]
fn a_device_that_was_told_to_stop_was_not_deleted_by_somebody_else() {
    let host = Host::new();
    let tap = host.tap();
    whole(&host, &tap, "data");
    tap.barrier(PATIENCE).unwrap();
    let device = host.fronts.device("data");
    device.drains.store(true, Ordering::Release);
    let late = tap.remove_within(None, false, 5 * SOON).unwrap_err();
    assert!(late.text.contains("requests are still waiting"), "{late}");
    let volume = tap.status().volumes.remove(0);
    assert_eq!(
        (volume.state.as_str(), volume.reason.as_str()),
        ("leaving", "waits for the disk")
    );
    device.drains.store(false, Ordering::Release);
    eventually("the tap ends by itself", || tap.is_over());
    tap.end();
    assert!(matches!(host.state().volumes[0].rest, Rest::Clean(_)));
}
