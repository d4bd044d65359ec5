//! How fast it is, beside a server that only serves: `qemu-nbd` on a file like ours.
//!
//! Both files are in memory, so this compares what the servers do per request. Ours also captures
//! every write in its ring, which is emptied as fast as it fills. Run it with `--release`.

use crate::host::{Host, Running, client, eventually, pattern, said};
use serde_json::Value;
use std::fs;
use std::path::Path;

const PAIRS: usize = 5;
/// What fio does, in words and as options.
const CELLS: [(&str, &str, &str, u32); 6] = [
    ("4 KiB random write, depth 1", "randwrite", "4k", 1),
    ("4 KiB random write, depth 32", "randwrite", "4k", 32),
    ("4 KiB random read, depth 1", "randread", "4k", 1),
    ("4 KiB random read, depth 32", "randread", "4k", 32),
    ("128 KiB write, depth 8", "write", "128k", 8),
    ("128 KiB read, depth 8", "read", "128k", 8),
];

#[test]
#[ignore = "two minutes of measuring; means something with --release only"]
fn throughput() {
    let (Some(_), Some(mut qemu)) = (client("fio"), client("qemu-nbd")) else {
        return;
    };
    let host = Host::with_files_in(Path::new("/dev/shm"));
    host.add();
    host.sink.forget();
    let (file, socket) = (host.file("other"), host.path("qemu.sock"));
    fs::write(&file, pattern(crate::host::SIZE, 3)).unwrap();
    qemu.args(["-f", "raw", "-t", "-e", "8", "-k"])
        .arg(&socket)
        .arg(&file);
    let _qemu = Running(qemu.spawn().unwrap());
    eventually("qemu-nbd listens", || socket.exists());
    let theirs = format!("nbd+unix:///?socket={}", socket.display());
    println!(
        "| cell | ours, IOPS | qemu-nbd, IOPS | ratio | range of pairs |\n|---|---|---|---|---|"
    );
    for (words, rw, block, depth) in CELLS {
        let run = |uri: &str| iops(&host, uri, rw, block, depth);
        let pairs: Vec<(f64, f64)> = (0..PAIRS)
            .map(|_| (run(&host.uri()), run(&theirs)))
            .collect();
        let ours = median(pairs.iter().map(|pair| pair.0));
        let others = median(pairs.iter().map(|pair| pair.1));
        let ratios: Vec<f64> = pairs.iter().map(|(our, other)| our / other).collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        let ratio = median(ratios.into_iter());
        println!("| {words} | {ours:.0} | {others:.0} | {ratio:.2} | {least:.2}-{most:.2} |");
    }
}

fn iops(host: &Host, uri: &str, rw: &str, block: &str, depth: u32) -> f64 {
    let mut fio = client("fio").unwrap();
    fio.args([
        "--name=bench",
        "--ioengine=nbd",
        "--size=48m",
        "--time_based",
        "--runtime=2",
    ])
    .args(["--output-format=json", "--randseed=7"])
    .args([
        format!("--rw={rw}"),
        format!("--bs={block}"),
        format!("--iodepth={depth}"),
    ])
    .arg(format!("--uri={uri}"))
    .current_dir(host.path(""));
    let told = said(fio.output().unwrap());
    // The engine says hello first.
    let json = &told[told.find('{').unwrap()..];
    let told: Value = serde_json::from_str(json).unwrap();
    let job = &told["jobs"][0];
    let of = |kind: &str| job[kind]["iops"].as_f64().unwrap();
    of("read") + of("write")
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
