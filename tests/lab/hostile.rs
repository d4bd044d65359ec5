//! A shipper gone bad: it has the ring read-only and one page to scribble on. The disk must not
//! notice (P1).

use e2e::content;
use e2e::disk::NullDisk;
use e2e::site::program;
use e2e::{Run, Site};
use std::time::Duration;

#[test]
fn a_shipper_that_scribbles_on_its_page_changes_nothing_locally() {
    let site = Site::new("evil");
    std::fs::write(
        site.path("etc").join("evil.toml"),
        "ring_bytes = \"4MiB\"\npark_ms = 500\nshipper = \"external\"\n",
    )
    .unwrap();
    let disk = NullDisk::plain(16);
    site.register("v0", 16 << 20, 1);
    let device = site.add(disk.path(), "v0", &[]);
    let socket = site.path("run").join("evil").join("shipper.sock");
    let mut evil = std::process::Command::new(program("hostile-shipper"))
        .arg(&socket)
        .spawn()
        .unwrap();
    let name = format!("--filename={}", device.display());
    let fio = [
        "--name=w",
        &name,
        "--direct=1",
        "--ioengine=io_uring",
        "--rw=randwrite",
    ];
    Run::new("fio")
        .args(fio)
        .args([
            "--bsrange=512-128k",
            "--iodepth=16",
            "--size=8m",
            "--verify=crc32c",
        ])
        .args(["--verify_fatal=1", "--verify_state_save=0"])
        .within(Duration::from_secs(240))
        .ok();
    content::same(&device, disk.path());
    let status = site.status();
    assert_eq!(
        status["mode"], "broken",
        "a lying shipper breaks the group: {status}"
    );
    let _ = evil.kill();
    let _ = evil.wait();
    site.tap(["remove", "evil", "--abandon"]).ok();
}
