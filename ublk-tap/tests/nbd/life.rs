//! How such a volume comes, goes, and is left behind.

use crate::host::{Host, Running, SIZE, can_tap, client, eventually, pattern, said};
use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
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

#[test]
fn somebody_without_the_right_is_turned_away_even_where_the_socket_lets_him_in() {
    if !can_tap() {
        return;
    }
    use std::os::unix::process::CommandExt;
    let Some(mut nbdinfo) = client("nbdinfo") else {
        return;
    };
    let host = Host::with_volume();
    fs::set_permissions(host.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let mut root = client("nbdinfo").unwrap();
    said(root.args(["--size", &host.uri()]).output().unwrap());
    let other = nbdinfo.args(["--size", &host.uri()]).uid(4000).gid(4000);
    assert!(!other.output().unwrap().status.success());
    host.ok(&["remove", "pg"]);
}

#[test]
fn writes_during_the_first_copy_are_in_it_or_follow_it() {
    let Some(mut nbdcopy) = client("nbdcopy") else {
        return;
    };
    let host = Host::new();
    let disk = host.file("disk").display().to_string();
    let volume = ["add", &disk, "--group", "pg", "--volume", "data"];
    fs::write(host.file("image"), pattern(SIZE, 9)).unwrap();
    host.ok(&[&volume[..], &["--frontend", "nbd", "--offline"]].concat());
    said(
        nbdcopy
            .arg(host.file("image"))
            .arg(host.uri())
            .output()
            .unwrap(),
    );
    eventually("it is whole", || host.volume()["state"] == "ready");
    host.agrees();
    assert!(host.disk() == pattern(SIZE, 9));
    host.ok(&["remove", "pg"]);
}

#[test]
fn a_write_the_disk_refuses_is_an_error_for_the_client_and_is_read_again_for_the_receiver() {
    let Some(mut qemu_io) = client("qemu-io") else {
        return;
    };
    let host = Host::new();
    // Whatever this tap writes beyond 40 MiB of a file fails.
    let plain = host.command(&[]);
    let script = "trap '' XFSZ; ulimit -f 40960; exec \"$0\" run --group pg --ring-size 4MiB";
    let mut command = Command::new("bash");
    command.args(["-c", script, env!("CARGO_BIN_EXE_ublk-tap")]);
    for (variable, value) in plain.get_envs() {
        command.env(variable, value.unwrap());
    }
    let log = fs::File::create(host.path("log")).unwrap();
    let _tap = Running(command.stderr(log).stdin(Stdio::null()).spawn().unwrap());
    let is_up = || UnixStream::connect(host.path("run/pg/control.sock")).is_ok();
    eventually("the tap runs", is_up);
    host.add();
    qemu_io.args(["-f", "raw", &host.uri(), "-c", "write -P 7 39M 2M"]);
    qemu_io.args(["-c", "write -P 9 1M 1M", "-c", "read -P 9 1M 1M"]);
    let output = qemu_io.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("write failed") && told.contains("wrote 1048576"),
        "{told}"
    );
    assert!(
        told.contains("read 1048576") && !told.contains("verification"),
        "{told}"
    );
    eventually("it is told", || {
        host.volume()["disk_errors"].as_u64() >= Some(1)
    });
    // A barrier waits for what has to be read again.
    host.ok(&["barrier", "pg", "--wait", "durable"]);
    host.agrees();
    host.ok(&["remove", "pg"]);
}

#[test]
fn a_socket_that_cannot_be_made_leaves_the_volume_as_it_was() {
    if !can_tap() {
        return;
    }
    let host = Host::new();
    fs::create_dir_all(host.socket()).unwrap();
    let disk = host.file("disk").display().to_string();
    let volume = ["add", &disk, "--group", "pg", "--volume", "data"];
    let how = ["--frontend", "nbd", "--offline"];
    host.refused(&[&volume[..], &how].concat(), 1, "cannot listen at");
    fs::remove_dir(host.socket()).unwrap();
    assert!(host.add().contains("new volume"), "nothing is known of it");
    host.agrees();
    host.ok(&["remove", "pg"]);
}

#[test]
fn a_socket_somebody_removed_is_noticed() {
    if !can_tap() {
        return;
    }
    let host = Host::with_volume();
    fs::remove_file(host.socket()).unwrap();
    eventually("it is told", || host.volume()["state"] == "gone");
    host.ok(&["remove", "pg/data"]);
    host.add();
    host.agrees();
    host.ok(&["remove", "pg"]);
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

/// SIGKILL; returns when it is gone, as a service manager waits for it.
pub(crate) fn kill_tap(host: &Host) {
    let tap = tap_of(host);
    kill_process(tap, Signal::KILL).unwrap();
    let stat = format!("/proc/{}/stat", tap.as_raw_nonzero());
    let is_gone = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z"));
    eventually("it is gone", is_gone);
    eventually("it is dead", || UnixStream::connect(host.socket()).is_err());
    assert!(host.socket().exists());
}

#[test]
fn a_tap_killed_under_load_is_recovered_at_the_same_socket_without_a_copy_again_and_again() {
    let host = Host::with_volume();
    let life = host.status()["incarnation"].clone();
    for _ in 0..3 {
        let Some(writer) = writer(&host) else { return };
        kill_tap(&host);
        drop(writer);
        let disk = host.file("disk").display().to_string();
        let again = ["add", &disk, "--group", "pg", "--volume", "data"];
        let how = ["--frontend", "nbd", "--offline"];
        host.refused(&[&again[..], &how].concat(), REFUSED, "ublk-tap recover pg");
        assert!(host.ok(&["status", "pg"]).contains("ublk-tap recover pg"));
        let said = host.ok(&["recover", "pg"]);
        let served = format!("pg/data is served again as {}", host.socket().display());
        assert!(said.contains(&served), "{said}");
        host.agrees();
        assert_eq!(host.status()["incarnation"], life, "the stream goes on");
        assert_eq!(host.volume()["copies"], 1, "nothing is copied again");
    }
    assert!(host.ok(&["recover"]).contains("nothing to recover"));
    host.ok(&["remove", "pg"]);
    assert!(host.add().contains("nothing needs to be copied"));
    host.ok(&["remove", "pg"]);
}

#[test]
fn a_recovery_that_waits_for_a_disk_says_who_has_it_and_goes_on_when_it_is_free() {
    if !can_tap() {
        return;
    }
    let host = Host::with_volume();
    kill_tap(&host);
    let disk = fs::File::open(host.file("disk")).unwrap();
    // The lock is free when the last io_uring of the dead tap is.
    rustix::fs::flock(&disk, FlockOperation::LockExclusive).unwrap();
    let mut recover = host.command(&["recover", "pg"]);
    let mut recover = Running(recover.stdout(Stdio::piped()).spawn().unwrap());
    let mut said = BufReader::new(recover.0.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let who = format!("is held by process {} (", std::process::id());
    assert!(
        line.starts_with("pg/data: ") && line.contains(&who),
        "{line}"
    );
    assert!(line.contains("waiting since 20"), "{line}");
    drop(disk);
    assert!(recover.0.wait().unwrap().success());
    line.clear();
    said.read_to_string(&mut line).unwrap();
    assert!(
        line.starts_with("pg/data is served again"),
        "said once: {line}"
    );
    host.agrees();
    assert_eq!(host.volume()["copies"], 1);
    host.ok(&["remove", "pg"]);
}

#[test]
fn a_tap_in_the_foreground_goes_on_by_itself_when_it_is_started_again() {
    let host = Host::with_volume();
    let Some(writer) = writer(&host) else { return };
    kill_tap(&host);
    drop(writer);
    let log = fs::File::create(host.path("log")).unwrap();
    let mut command = host.command(&["run", "--group", "pg"]);
    let _tap = Running(command.stderr(log).spawn().unwrap());
    eventually("it serves", || UnixStream::connect(host.socket()).is_ok());
    host.agrees();
    assert_eq!(host.volume()["copies"], 1);
    host.ok(&["remove", "pg"]);
}

#[test]
fn a_tap_is_upgraded_between_two_clients_and_not_under_one() {
    if !can_tap() {
        return;
    }
    let host = Host::with_volume();
    let tap = tap_of(&host);
    let mut connected = UnixStream::connect(host.socket()).unwrap();
    connected.read_exact(&mut [0; 18]).unwrap();
    host.refused(&["upgrade", "pg"], REFUSED, "cut it off with --force");
    drop(connected);
    eventually("the client is gone", || host.volume()["queues"] == 0);
    let said = host.ok(&["upgrade", "pg"]);
    assert!(said.contains("pg/data is served again"), "{said}");
    assert_eq!(tap_of(&host), tap, "the process stays");
    host.agrees();
    assert_eq!(host.volume()["copies"], 1);
    host.ok(&["remove", "pg"]);
}

#[test]
fn a_tap_that_was_killed_leaves_a_socket_that_cleanup_removes() {
    let host = Host::with_volume();
    let Some(writer) = writer(&host) else { return };
    kill_tap(&host);
    drop(writer);
    host.ok(&["cleanup", "pg"]);
    assert!(!host.path("run/pg").exists());
    let again = host.add();
    assert!(again.contains("not clean: the tap was killed"), "{again}");
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
