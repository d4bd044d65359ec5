//! How such a volume comes, goes, and is left behind.

use crate::host::{Host, Running, SIZE, can_tap, client, eventually, pattern, said};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

const REFUSED: i32 = 3;

#[test]
fn a_volume_over_nbd_is_added_shown_removed_clean_and_comes_back_without_a_copy() {
    let Some(mut nbdcopy) = client("nbdcopy") else {
        return;
    };
    let host = Host::new();
    let added = host.add();
    let socket = host.socket().display().to_string();
    assert!(
        added.contains(&host.uri()) && added.contains("new volume"),
        "{added}"
    );
    let found = fs::metadata(&socket).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    assert!(host.ok(&["list"]).contains(&socket));
    let volume = host.volume();
    assert_eq!(
        (&volume["link"], &volume["device"]),
        (&volume["device"], &socket.clone().into())
    );
    assert_eq!(
        (&volume["frontend"], &volume["state"]),
        (&"nbd".into(), &"ready".into())
    );
    assert!(
        !host.path("dev/pg").exists(),
        "there is no device to be found there"
    );
    host.agrees();
    let disk = host.file("disk").display().to_string();
    host.refused(
        &[
            "add",
            &disk,
            "--group",
            "pg",
            "--volume",
            "other",
            "--frontend",
            "nbd",
            "--offline",
        ],
        REFUSED,
        "already tapped or locked",
    );
    fs::write(host.file("image"), pattern(SIZE, 5)).unwrap();
    said(
        nbdcopy
            .arg(host.file("image"))
            .arg(host.uri())
            .output()
            .unwrap(),
    );
    host.agrees();
    let removed = host.ok(&["remove", "pg/data"]);
    assert!(removed.contains("clean"), "{removed}");
    assert!(!host.path("run/pg").exists(), "nothing is left");
    let again = host.add();
    assert!(again.contains("nothing needs to be copied"), "{again}");
    assert!(host.disk() == pattern(SIZE, 5));
    host.ok(&["remove", "pg"]);
}

#[test]
fn a_volume_with_a_client_is_not_taken_away_and_the_client_is_named() {
    if !can_tap() {
        return;
    }
    let host = Host::with_volume();
    let mut connected = UnixStream::connect(host.socket()).unwrap();
    connected.read_exact(&mut [0; 18]).unwrap();
    let words = format!("process {} is connected to", std::process::id());
    host.refused(&["remove", "pg/data"], REFUSED, &words);
    host.refused(&["remove", "pg/data", "--abandon"], REFUSED, &words);
    drop(connected);
    host.ok(&["remove", "pg/data"]);
}

/// A writer that goes on until it is told not to.
fn writer(host: &Host) -> Option<Running> {
    let mut fio = client("fio")?;
    fio.args([
        "--name=nbd",
        "--ioengine=nbd",
        "--rw=randwrite",
        "--bs=64k",
        "--iodepth=32",
    ])
    .args(["--size=32m", "--time_based", "--runtime=60"])
    .arg(format!("--uri={}", host.uri()))
    .current_dir(host.path(""))
    .stdout(Stdio::null())
    .stderr(Stdio::null());
    let before = host.status()["captured"].as_u64();
    let running = Running(fio.spawn().unwrap());
    eventually("it writes", || {
        host.status()["captured"].as_u64() > before.map(|n| n + 100)
    });
    Some(running)
}

fn tap_of(host: &Host) -> Pid {
    let pid = fs::read_to_string(host.path("run/pg/tap.pid")).unwrap();
    Pid::from_raw(pid.trim().parse().unwrap()).unwrap()
}

#[test]
fn a_tap_told_to_end_parts_with_a_client_that_writes() {
    let host = Host::with_volume();
    let Some(mut writer) = writer(&host) else {
        return;
    };
    let tap = tap_of(&host);
    let start = Instant::now();
    kill_process(tap, Signal::TERM).unwrap();
    eventually("it ends", || !host.path("run/pg").exists());
    assert!(start.elapsed() < Duration::from_secs(20));
    let status = writer.0.wait().unwrap();
    assert!(!status.success(), "the writer is told");
    let difference = host.sink.difference(&host.disk());
    assert_eq!(
        difference, None,
        "what was taken is on the disk and in the records"
    );
    let again = host.add();
    assert!(
        again.contains("nothing needs to be copied"),
        "it was left clean: {again}"
    );
}

#[test]
fn a_tap_that_was_killed_leaves_a_socket_that_cleanup_removes() {
    let host = Host::with_volume();
    let Some(writer) = writer(&host) else { return };
    let tap = tap_of(&host);
    kill_process(tap, Signal::KILL).unwrap();
    drop(writer);
    eventually("it is dead", || UnixStream::connect(host.socket()).is_err());
    assert!(host.socket().exists());
    // Without being cleaned up after: the next tap takes its place, when the dead one's writes are done.
    let again = host.add();
    assert!(again.contains("not clean: the tap was killed"), "{again}");
    host.agrees();
    kill_process(tap_of(&host), Signal::KILL).unwrap();
    eventually("it is dead", || UnixStream::connect(host.socket()).is_err());
    host.ok(&["cleanup", "pg"]);
    assert!(!host.path("run/pg").exists());
    host.add();
    host.agrees();
    host.ok(&["remove", "pg"]);
}

#[test]
fn members_of_a_group_may_use_it_if_the_operator_says_so_and_nobody_else() {
    if !can_tap() {
        return;
    }
    let Some(mut nbdinfo) = client("nbdinfo") else {
        return;
    };
    let host = Host::new();
    let settings = "shipper = \"external\"\nnbd_group = \"4242\"\n";
    fs::write(host.path("etc/pg.toml"), settings).unwrap();
    host.add();
    let found = fs::metadata(host.socket()).unwrap();
    assert_eq!(
        (found.permissions().mode() & 0o777, found.gid()),
        (0o660, 4242)
    );
    use std::os::unix::process::CommandExt;
    let member = nbdinfo.args(["--size", &host.uri()]).uid(4000).gid(4242);
    assert_eq!(said(member.output().unwrap()).trim(), SIZE.to_string());
    let mut other = client("nbdinfo").unwrap();
    let other = other.args(["--size", &host.uri()]).uid(4000).gid(4000);
    assert!(!other.output().unwrap().status.success());
    host.ok(&["remove", "pg"]);
}
