//! The main job, shown: protect two disks, write, lose the host, recover, compare everything.
//!
//! Run by `scripts/demo`, as root on a kernel with ublk. Exits 0 only if every file known at the
//! barrier is on the recovered filesystem, the filesystem is clean, and fio finds its data.

use e2e::demo::Demo;

fn main() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        eprintln!("demo: FAILED");
    }));
    let mut demo = Demo::start();
    demo.protect();
    demo.fill();
    demo.barrier();
    demo.lose_the_host();
    demo.recover();
    demo.remove_the_dead();
    demo.summary();
}
