//! A disk that is resized while it is tapped: named, not followed, and nothing is lost silently.

use crate::host::{Host, SIZE, can_tap, eventually};
use std::fs::OpenOptions;

const REFUSED: i32 = 3;
const MIB: u64 = 1 << 20;

fn resize(host: &Host, size_bytes: u64) {
    let file = OpenOptions::new().write(true).open(host.file("disk"));
    file.unwrap().set_len(size_bytes).unwrap();
}

fn reason(host: &Host) -> String {
    host.volume()["reason"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn a_disk_that_grows_is_named_and_its_device_stays_as_it_was() {
    if !can_tap() {
        return;
    }
    let host = Host::with_volume();
    resize(&host, SIZE as u64 + MIB);
    eventually("it is named", || reason(&host).contains("grew from 48 MiB"));
    let volume = host.volume();
    assert_eq!(
        (&volume["size_bytes"], &volume["state"]),
        (&SIZE.into(), &"ready".into())
    );
    assert!(host.ok(&["status", "pg"]).contains("is not protected"));
    host.ok(&["remove", "pg"]);
    let disk = host.file("disk").display().to_string();
    let add = ["add", &disk, "--group", "pg", "--volume", "data"];
    let how = ["--frontend", "nbd", "--offline"];
    let add = [&add[..], &how].concat();
    host.refused(&add, REFUSED, "undo the change, or start over");
    resize(&host, SIZE as u64);
    // Whoever resized it may have done more.
    let added = host.add();
    assert!(added.contains("disk changed since"), "{added}");
    eventually("nothing is said", || reason(&host).is_empty());
    host.agrees();
    host.ok(&["remove", "pg"]);
}

#[test]
fn what_a_disk_that_shrinks_has_lost_is_named_and_copied_again_when_it_is_back() {
    if !can_tap() {
        return;
    }
    let host = Host::with_volume();
    host.agrees();
    resize(&host, SIZE as u64 - MIB - 512);
    eventually("it is named", || {
        reason(&host).contains("shrank from 48 MiB")
    });
    eventually("what is gone cannot be read", || {
        let volume = host.volume();
        volume["state"] == "unreadable" && reason(&host).contains("cannot read")
    });
    assert_eq!(host.volume()["size_bytes"], SIZE);
    // It comes back, and its end is not what it was.
    resize(&host, SIZE as u64);
    eventually("it is whole", || host.volume()["state"] == "ready");
    eventually("nothing is said", || reason(&host).is_empty());
    host.agrees();
    host.ok(&["remove", "pg"]);
}
