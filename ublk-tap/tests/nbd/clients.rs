//! The programs people use: what they write is on the disk and in the records, and comes back.

use crate::host::{Host, Running, SIZE, client, eventually, is_mounted, pattern, said};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

#[test]
fn nbdinfo_is_told_what_the_volume_is_and_can() {
    let Some(mut nbdinfo) = client("nbdinfo") else {
        return;
    };
    let host = Host::with_volume();
    let output = nbdinfo.args(["--json", &host.uri()]).output().unwrap();
    let told: Value = serde_json::from_str(&said(output)).unwrap();
    assert_eq!(
        (&told["protocol"], &told["structured"]),
        (&"newstyle-fixed".into(), &true.into())
    );
    let export = &told["exports"][0];
    assert_eq!(
        (&export["export-name"], &export["description"]),
        (&"data".into(), &"pg/data".into())
    );
    assert_eq!(export["export-size"], SIZE);
    for can in [
        "can_df",
        "can_flush",
        "can_fua",
        "can_multi_conn",
        "can_zero",
    ] {
        assert_eq!(export[can], true, "{can}: {export}");
    }
    assert_eq!(
        (&export["is_read_only"], &export["can_cache"]),
        (&false.into(), &false.into())
    );
    assert_eq!(export["contexts"][0], "base:allocation");
    let sector = export["block_size_minimum"].as_u64().unwrap();
    assert!([512, 4096].contains(&sector), "{export}");
    assert_eq!(export["block_size_maximum"], 32 << 20);
    let mut list = client("nbdinfo").unwrap();
    let listed = said(list.args(["--list", &host.uri()]).output().unwrap());
    assert!(listed.contains("export=\"data\""), "{listed}");
    host.agrees();
}

#[test]
fn nbdcopy_brings_an_image_in_over_several_connections_and_out_again() {
    let Some(mut copy_in) = client("nbdcopy") else {
        return;
    };
    let host = Host::with_volume();
    // Data with holes, which are brought in as zeroes.
    let image = host.file("image");
    let file = fs::File::create(&image).unwrap();
    file.set_len(SIZE as u64).unwrap();
    for at in [0, 5 << 20, 20 << 20, SIZE as u64 - (3 << 20)] {
        file.write_all_at(&pattern(3 << 20, at as usize), at)
            .unwrap();
    }
    let expected = fs::read(&image).unwrap();
    let copied = copy_in
        .args(["--connections=4", "--flush"])
        .arg(&image)
        .arg(host.uri());
    said(copied.output().unwrap());
    assert!(host.disk() == expected, "the disk holds the image");
    host.agrees();
    let back = host.file("back");
    let mut copy_out = client("nbdcopy").unwrap();
    said(copy_out.arg(host.uri()).arg(&back).output().unwrap());
    assert!(fs::read(&back).unwrap() == expected);
}

#[test]
fn qemu_reads_what_it_wrote_zeroed_and_trimmed() {
    let Some(mut qemu_io) = client("qemu-io") else {
        return;
    };
    let host = Host::with_volume();
    qemu_io.args(["-f", "raw", &host.uri()]);
    for command in [
        "write -P 7 4k 1M",
        "write -f -P 8 2M 64k",
        "aio_write -P 9 3M 2M",
        "aio_write -P 10 5M 2M",
        "aio_flush",
        "write -z 8M 4M",
        "write -z -u 16M 1M",
        "discard 20M 2M",
        "write -P 11 512 512",
        "flush",
        "read -P 7 4k 1M",
        "read -P 8 2M 64k",
        "read -P 9 3M 2M",
        "read -P 10 5M 2M",
        "read -P 0 8M 4M",
        "read -P 0 16M 1M",
        "read -P 0 20M 2M",
    ] {
        qemu_io.args(["-c", command]);
    }
    let told = said(qemu_io.output().unwrap());
    assert!(!told.contains("fail"), "{told}");
    host.agrees();
    let disk = host.disk();
    assert!(disk[3 << 20..5 << 20].iter().all(|byte| *byte == 9));
    let mut qemu_img = client("qemu-img").unwrap();
    let map = qemu_img.args(["map", "-f", "raw", "--output=json", &host.uri()]);
    let map: Value = serde_json::from_str(&said(map.output().unwrap())).unwrap();
    let is_hole = |extent: &&Value| extent["data"] == false && extent["zero"] == true;
    let holes = map.as_array().unwrap().iter().filter(is_hole);
    let at = 20 << 20;
    let mut holes = holes.filter(|hole| {
        let start = hole["start"].as_u64().unwrap();
        start <= at && start + hole["length"].as_u64().unwrap() >= at + (2 << 20)
    });
    assert!(holes.next().is_some(), "what was trimmed is a hole: {map}");
    let compared = client("qemu-img")
        .unwrap()
        .args(["compare", "-f", "raw", "-F", "raw", "-U"])
        .args([&host.uri(), &host.file("disk").display().to_string()])
        .output()
        .unwrap();
    said(compared);
}

#[test]
fn fio_verifies_what_it_wrote_over_two_connections() {
    let Some(mut fio) = client("fio") else { return };
    let mut probe = client("fio").unwrap();
    let engines = said(probe.arg("--enghelp").output().unwrap());
    if !engines.contains("nbd") {
        eprintln!("skipped: this fio has no nbd engine");
        return;
    }
    let host = Host::with_volume();
    fio.args([
        "--name=nbd",
        "--ioengine=nbd",
        "--rw=randrw",
        "--bsrange=4k-128k",
    ])
    .args([
        "--numjobs=2",
        "--offset_increment=24m",
        "--size=24m",
        "--iodepth=16",
    ])
    .args([
        "--verify=crc32c",
        "--verify_fatal=1",
        "--fsync=64",
        "--randseed=7",
    ])
    .arg(format!("--uri={}", host.uri()))
    .current_dir(host.path(""));
    let told = said(fio.output().unwrap());
    assert!(told.contains("err= 0"), "{told}");
    host.agrees();
}

#[test]
fn nbdfuse_makes_a_file_of_the_volume() {
    let Some(mut nbdfuse) = client("nbdfuse") else {
        return;
    };
    let is_possible = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .is_ok();
    if !is_possible {
        eprintln!("skipped: /dev/fuse cannot be used here");
        return;
    }
    let host = Host::with_volume();
    let mount = Mount(host.path("mnt"));
    fs::create_dir(&mount.0).unwrap();
    let path = mount.0.join("disk");
    let running = Running(nbdfuse.arg(&path).arg(host.uri()).spawn().unwrap());
    eventually("the file is there", || path.exists());
    {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        file.write_all_at(&pattern(9 << 20, 77), 4 << 20).unwrap();
        file.sync_all().unwrap();
        let mut back = vec![0; 9 << 20];
        file.read_exact_at(&mut back, 4 << 20).unwrap();
        assert!(back == pattern(9 << 20, 77));
    }
    drop(mount);
    drop(running);
    host.agrees();
    assert!(host.disk()[4 << 20..13 << 20] == pattern(9 << 20, 77));
}

/// Unmounted whatever becomes of the test.
struct Mount(std::path::PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount").arg(&self.0).status();
        let is_gone =
            unmounted.is_ok_and(|status| status.success()) || !is_mounted(Path::new(&self.0));
        assert!(is_gone || std::thread::panicking(), "it stays mounted");
    }
}
