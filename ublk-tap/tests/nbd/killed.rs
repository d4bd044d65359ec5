//! A tap that is killed while much of its ring is in flight, and discards of more than the ring.

use crate::host::{Host, Running, client, eventually};
use crate::life::kill_tap;
use std::fs;
use std::process::Stdio;

const SETTINGS: &str = "shipper = \"external\"\nstop_ms = 2000\nring_bytes = \"4MiB\"\n";

/// Clients that write and discard more at once than the ring holds.
fn busy(host: &Host) -> Option<[Running; 2]> {
    let start = |what: [&str; 3]| {
        let mut fio = client("fio")?;
        fio.args(["--name=nbd", "--ioengine=nbd", "--size=48m"])
            .args(["--time_based", "--runtime=60"])
            .args(what)
            .arg(format!("--uri={}", host.uri()))
            .current_dir(host.path(""))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Some(Running(fio.spawn().unwrap()))
    };
    let writer = start(["--rw=randwrite", "--bs=512k", "--iodepth=32"])?;
    let puncher = start(["--rw=randtrim", "--bs=12m", "--iodepth=2"])?;
    Some([writer, puncher])
}

/// Records the last successor found in flight, as its log says.
fn found(host: &Host) -> u64 {
    let log = fs::read_to_string(host.path("run/pg/tap.log")).unwrap();
    let words = log.split_whitespace();
    let mut counts = words.filter_map(|word| word.strip_prefix("orphaned="));
    counts.next_back().unwrap().parse().unwrap()
}

#[test]
fn a_tap_killed_amid_writes_and_discards_larger_than_its_ring_is_recovered_without_a_copy() {
    let host = Host::new();
    fs::write(host.path("etc/pg.toml"), SETTINGS).unwrap();
    host.add();
    let mut most = 0;
    for _ in 0..4 {
        let before = host.status()["captured"].as_u64();
        let Some(busy) = busy(&host) else { return };
        eventually("they are at work", || {
            host.status()["captured"].as_u64() > before.map(|n| n + 60)
        });
        kill_tap(&host);
        drop(busy);
        host.ok(&["recover", "pg"]);
        most = most.max(found(&host));
        host.agrees();
        assert_eq!(host.volume()["copies"], 1, "nothing is copied again");
    }
    println!("at most {most} records were in flight");
    assert!(most > 0, "it was never killed at work");
    host.ok(&["remove", "pg"]);
}
