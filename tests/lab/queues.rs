//! Many queues, all block sizes, several volumes and several target disks.

use e2e::disk::{Loop, NullDisk, NullSettings};
use e2e::{Run, Site, content, kernel};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

fn fio(device: &Path, more: &[&str]) {
    let file = format!("--filename={}", device.display());
    let base = [
        "--name=verify",
        &file,
        "--direct=1",
        "--ioengine=io_uring",
        "--group_reporting",
        "--verify_state_save=0",
    ];
    Run::new("fio")
        .args(base)
        .args(more)
        .within(Duration::from_secs(400))
        .ok();
}

const RANDOM_SIZES: [&str; 8] = [
    "--rw=randwrite",
    "--bsrange=512-1m",
    "--bs_unaligned=0",
    "--iodepth=16",
    "--size=24m",
    "--verify=crc32c",
    "--verify_fatal=1",
    "--randseed=4711",
];

#[test]
fn random_sizes_on_four_queues_verify_and_the_replica_is_equal() {
    let site = Site::new("queues");
    let disk = NullDisk::plain(32);
    site.register("v0", 32 << 20, 1);
    let device = site.add(disk.path(), "v0", &["--queues", "4"]);
    let name = kernel::block_name(&device);
    assert_eq!(
        kernel::queue_count(&name),
        4,
        "{name} must have four queues: boot with four CPUs"
    );
    fio(&device, &RANDOM_SIZES);
    site.assert_replica_equals("v0", &device);
    site.tap(["remove", "queues"]).ok();
}

#[test]
fn two_volumes_of_a_group_share_a_stream_and_a_volume_may_lie_on_several_disks() {
    let site = Site::new("pair");
    let (one, two) = (NullDisk::plain(16), NullDisk::plain(24));
    site.register("a", 16 << 20, 1);
    site.register("b", 24 << 20, 3);
    let a = site.add(one.path(), "a", &[]);
    let b = site.add(two.path(), "b", &["--queues", "2"]);
    let listed = site.tap(["list"]).ok().stdout;
    assert!(
        listed.contains("pair/a") && listed.contains("pair/b"),
        "{listed}"
    );
    let writes = [
        "--rw=randwrite",
        "--bs=4k",
        "--iodepth=8",
        "--size=6m",
        "--verify=crc32c",
    ];
    fio(&a, &writes);
    fio(&b, &writes);
    site.assert_replica_equals("a", &a);
    site.assert_replica_equals("b", &b);
    site.tap(["remove", "pair/a"]).ok();
    fio(&b, &["--rw=write", "--bs=64k", "--size=2m", "--iodepth=4"]);
    site.assert_replica_equals("b", &b);
    site.tap(["remove", "pair"]).ok();
}

#[test]
fn discards_and_zeroes_read_back_as_zeroes_on_both_sides() {
    let site = Site::new("holes");
    let [file, below] = ["file.img", "below.img"].map(|name| site.path(name));
    for path in [&file, &below] {
        fs::write(path, vec![0; 16 << 20]).unwrap();
        content::fill(path, 16 << 20, 11);
    }
    let disk = Loop::new(&below);
    let devices = [("file", file.as_path()), ("loop", disk.path())]
        .map(|(volume, disk)| (volume, site.protect(disk, volume)));
    site.wait_mode("async");
    for (volume, device) in &devices {
        let name = device.display().to_string();
        let zero = |way: &[&str]| Run::new("blkdiscard").args(way).args([&name]).ok();
        zero(&["-o", "1048576", "-l", "4194304"]);
        zero(&["-z", "-o", "8388608", "-l", "2097152"]);
        content::write_at(device, 2 << 20, &[0xee; 8192]);
        site.assert_replica_equals(volume, device);
        for offset in [1 << 20, 8 << 20] {
            let mut head = vec![1; 4096];
            let device = fs::File::open(device).unwrap();
            device.read_exact_at(&mut head, offset).unwrap();
            assert!(
                head.iter().all(|byte| *byte == 0),
                "{volume}: zeroes are read back"
            );
        }
    }
    site.tap(["remove", "holes"]).ok();
}

#[test]
fn a_disk_that_cannot_punch_zeroes_offers_no_discard_and_zeroes_are_written() {
    let site = Site::new("solid");
    let disk = NullDisk::plain(16); // null_blk discards, but promises nothing of what is read then
    content::fill(disk.path(), 16 << 20, 11);
    let device = site.protect(disk.path(), "v0");
    let name = device.display().to_string();
    site.wait_mode("async");
    Run::new("blkdiscard")
        .args([&name])
        .refused(1)
        .says("not supported");
    Run::new("blkdiscard")
        .args(["-z", "-o", "4194304", "-l", "4194304", &name])
        .ok();
    site.assert_replica_equals("v0", &device);
    site.tap(["remove", "solid"]).ok();
}

#[test]
fn a_disk_with_4096_byte_sectors_keeps_them() {
    let site = Site::new("big");
    let disk = NullDisk::new(NullSettings {
        block_bytes: 4096,
        ..NullSettings::plain(16)
    });
    let size = (16u64 << 20).to_string();
    let target = site.path("targets").join("v0");
    let target = target.display().to_string();
    let add = [
        "volume", "add", "big/v0", "--source", "db1", "--size", &size, "--sector", "4096",
    ];
    site.receiver_cli(add.iter().copied().chain(["--target", &target]))
        .ok();
    let device = site.add(disk.path(), "v0", &[]);
    let sector = format!(
        "/sys/block/{}/queue/logical_block_size",
        kernel::block_name(&device)
    );
    assert_eq!(fs::read_to_string(sector).unwrap().trim(), "4096");
    fio(
        &device,
        &[
            "--rw=randwrite",
            "--bs=4k",
            "--iodepth=8",
            "--size=4m",
            "--verify=crc32c",
        ],
    );
    site.assert_replica_equals("v0", &device);
    site.tap(["remove", "big"]).ok();
}
