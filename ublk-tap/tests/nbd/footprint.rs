//! What a tap takes: memory, and how often it moves what is written.

use crate::host::{Host, client, eventually, said};
use std::fs;

const RING_BYTES: u64 = 8 << 20;
const SLACK_BYTES: u64 = 32 << 20;
const DEPTH: u64 = 32;
const BLOCK_BYTES: u64 = 64 << 10;
const CLIENTS: u64 = 2;

/// Resident memory of a process, shared memory included.
fn resident_bytes(pid: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Rss:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

#[test]
fn a_tap_under_load_holds_its_ring_what_is_in_flight_and_at_most_32_mib() {
    let Some(mut fio) = client("fio") else { return };
    let host = Host::new();
    let settings = format!(
        "shipper = \"external\"\nring_bytes = \"{}MiB\"\n",
        RING_BYTES >> 20
    );
    fs::write(host.path("etc/pg.toml"), settings).unwrap();
    host.add();
    fio.args(["--name=load", "--ioengine=nbd", "--rw=randrw", "--thread"])
        .args([
            "--size=16m",
            "--time_based",
            "--runtime=4",
            "--group_reporting",
        ])
        .arg(format!("--bs={BLOCK_BYTES}"))
        .arg(format!("--iodepth={DEPTH}"))
        .arg(format!("--numjobs={CLIENTS}"))
        .arg(format!("--uri={}", host.uri()))
        .current_dir(host.path(""));
    let running = std::thread::spawn(move || fio.output().unwrap());
    let pid = fs::read_to_string(host.path("run/pg/tap.pid")).unwrap();
    let mut most = 0;
    while !running.is_finished() {
        most = most.max(resident_bytes(pid.trim()));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    said(running.join().unwrap());
    assert_eq!(host.status()["ring_bytes"], RING_BYTES);
    let bound = RING_BYTES + CLIENTS * DEPTH * BLOCK_BYTES + SLACK_BYTES;
    println!("{} KiB of {}", most >> 10, bound >> 10);
    assert!(most > RING_BYTES, "{most}: the ring is resident");
    assert!(most <= bound, "{most} bytes resident, {bound} are allowed");
    host.agrees();
    host.ok(&["remove", "pg"]);
}

#[test]
fn over_nbd_every_byte_written_is_moved_twice_in_memory_and_zeroes_are_not() {
    let Some(mut qemu_io) = client("qemu-io") else {
        return;
    };
    let host = Host::with_volume();
    let count = |name: &str| host.volume()[name].as_u64().unwrap();
    assert_eq!(
        (count("captured_bytes"), count("memory_copied_bytes")),
        (0, 0)
    );
    qemu_io.args(["-f", "raw", &host.uri(), "-c", "write -P 7 0 3M"]);
    qemu_io.args([
        "-c",
        "write -P 9 5M 4k",
        "-c",
        "write -z 6M 1M",
        "-c",
        "read 0 1M",
    ]);
    said(qemu_io.output().unwrap());
    eventually("the client is gone", || host.volume()["queues"] == 0);
    let (written, zeroed) = ((3 << 20) + 4096, 1 << 20);
    assert_eq!(count("captured_bytes"), written + zeroed);
    assert_eq!(count("memory_copied_bytes"), 2 * written);
    host.agrees();
    host.ok(&["remove", "pg"]);
}
