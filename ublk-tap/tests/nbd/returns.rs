//! Volumes come back when their tap is run, as a unit does at boot, and the unit is told.

use crate::host::{Host, Running, can_tap, eventually};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::os::unix::net::{UnixDatagram, UnixStream};

/// The tap in the foreground, as its unit runs it, and what it tells the service manager.
fn run(host: &Host) -> (Running, UnixDatagram) {
    let notify = host.path("notify");
    let _ = fs::remove_file(&notify);
    let told = UnixDatagram::bind(&notify).unwrap();
    told.set_read_timeout(Some(crate::host::PATIENCE)).unwrap();
    let log = fs::File::create(host.path("log")).unwrap();
    let mut command = host.command(&["run", "--group", "pg"]);
    command.env("NOTIFY_SOCKET", &notify).stderr(log);
    (Running(command.spawn().unwrap()), told)
}

fn hear(told: &UnixDatagram) -> String {
    let mut bytes = [0; 256];
    let count = told.recv(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..count]).trim().to_owned()
}

fn is_served(host: &Host) -> bool {
    UnixStream::connect(host.socket()).is_ok()
}

fn stop(tap: &mut Running) {
    let pid = Pid::from_child(&tap.0);
    kill_process(pid, Signal::TERM).unwrap();
    assert!(tap.0.wait().unwrap().success());
}

#[test]
fn a_volume_comes_back_with_its_tap_until_it_is_removed_and_the_manager_is_told_when() {
    if !can_tap() {
        return;
    }
    let host = Host::new();
    let (mut tap, told) = run(&host);
    assert_eq!(
        hear(&told),
        "READY=1",
        "without a volume it is ready at once"
    );
    host.add();
    stop(&mut tap);
    assert_eq!(hear(&told), "STOPPING=1");
    assert!(!host.socket().exists());

    let (mut tap, told) = run(&host);
    assert_eq!(hear(&told), "READY=1");
    assert!(is_served(&host), "before it is said to be ready");
    assert_eq!(host.volume()["copies"], 0, "it was left clean");
    host.agrees();
    stop(&mut tap);

    let (mut tap, told) = run(&host);
    assert_eq!(hear(&told), "READY=1");
    host.ok(&["remove", "pg"]);
    assert!(tap.0.wait().unwrap().success(), "it was the last");
    let (_tap, told) = run(&host);
    assert_eq!(hear(&told), "READY=1");
    assert!(!is_served(&host), "what was removed stays away");
}

#[test]
fn after_a_reboot_a_volume_that_was_live_comes_back_and_is_copied() {
    if !can_tap() {
        return;
    }
    let host = Host::with_volume();
    let pid = fs::read_to_string(host.path("run/pg/tap.pid")).unwrap();
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    eventually("it is dead", || !is_served(&host));
    fs::remove_dir_all(host.path("run/pg")).unwrap();
    let (mut tap, told) = run(&host);
    assert_eq!(hear(&told), "READY=1");
    assert!(is_served(&host));
    eventually("it is whole", || host.volume()["state"] == "ready");
    assert_eq!(host.volume()["copies"], 1);
    host.agrees();
    stop(&mut tap);
}

#[test]
fn a_disk_that_comes_late_is_named_once_and_waited_for_without_holding_up_the_rest() {
    if !can_tap() {
        return;
    }
    let host = Host::new();
    let (mut tap, told) = run(&host);
    hear(&told);
    host.add();
    fs::write(host.file("other"), vec![1; 1 << 20]).unwrap();
    let other = host.file("other").display().to_string();
    let volume = ["add", &other, "--group", "pg", "--volume", "aside"];
    host.ok(&[&volume[..], &["--frontend", "nbd", "--offline"]].concat());
    stop(&mut tap);
    fs::rename(host.file("other"), host.file("away")).unwrap();

    let (mut tap, told) = run(&host);
    assert_eq!(hear(&told), "READY=1");
    assert!(is_served(&host), "the other one is there");
    let log = fs::read_to_string(host.path("log")).unwrap();
    let named = log.matches("not back yet").count();
    assert_eq!((named, log.contains("aside")), (1, true), "{log}");
    fs::rename(host.file("away"), host.file("other")).unwrap();
    eventually("it comes back by itself", || {
        UnixStream::connect(host.path("run/pg/aside.nbd")).is_ok()
    });
    stop(&mut tap);
}
