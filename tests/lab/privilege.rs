//! What each live process of a protected host may do, as the kernel says in `/proc`.

use e2e::Site;
use e2e::content;
use e2e::disk::NullDisk;
use e2e::site::Daemon;
use std::fs;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// `/proc` of a live process.
struct Process(PathBuf);

impl Process {
    fn of(site: &Site, daemon: Daemon) -> Self {
        Self(PathBuf::from(format!("/proc/{}", site.pid(daemon))))
    }

    fn read(&self, name: &str) -> String {
        let path = self.0.join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Each thread's value of a field of its status.
    fn of_threads(&self, field: &str) -> Vec<String> {
        let threads = fs::read_dir(self.0.join("task")).unwrap();
        let value = |thread: PathBuf| {
            let status = fs::read_to_string(thread.join("status")).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            line.unwrap()[1..].trim().to_owned()
        };
        threads
            .map(|thread| value(thread.unwrap().path()))
            .collect()
    }

    #[track_caller]
    fn has_everywhere(&self, field: &str, expected: &str) {
        for value in self.of_threads(field) {
            assert_eq!(value, expected, "{field}");
        }
    }

    /// Rights and names of what is mapped shared.
    fn shared(&self) -> Vec<(String, String)> {
        let maps = self.read("maps");
        let shared = maps.lines().filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (rights, name) = (words[1], words.get(5).copied().unwrap_or_default());
            rights
                .ends_with('s')
                .then(|| (rights.to_owned(), name.to_owned()))
        });
        shared.collect()
    }

    fn descriptors(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.0.join("fd")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    fn disks(&self) -> Vec<PathBuf> {
        let is_disk = |path: &PathBuf| {
            fs::metadata(path).is_ok_and(|file| file.file_type().is_block_device())
        };
        self.descriptors().into_iter().filter(is_disk).collect()
    }

    /// Its sockets of the network: those the kernel lists with their number.
    fn network_sockets(&self) -> usize {
        let tables: String = ["net/udp", "net/udp6", "net/tcp", "net/tcp6", "net/packet"]
            .iter()
            .map(|table| fs::read_to_string(self.0.join(table)).unwrap_or_default())
            .collect();
        let numbers: Vec<&str> = tables.split_whitespace().collect();
        let is_listed = |path: &PathBuf| {
            let name = fs::read_link(path).unwrap_or_default();
            let name = name.to_string_lossy().into_owned();
            let number = name.strip_prefix("socket:[");
            number.is_some_and(|number| numbers.contains(&number.trim_end_matches(']')))
        };
        self.descriptors()
            .iter()
            .filter(|path| is_listed(path))
            .count()
    }
}

fn is_mapped(shared: &[(String, String)], rights: &str, file: &Path) -> bool {
    let name = file.to_string_lossy();
    shared
        .iter()
        .any(|(found, what)| found == rights && *what == name)
}

#[test]
fn the_live_shipper_has_the_network_and_nothing_else_and_the_tap_all_but_the_network() {
    let site = Site::new("priv");
    let disk = NullDisk::plain(16);
    let device = site.protect(disk.path(), "v0");
    site.wait_mode("async");
    content::fill(&device, 1 << 20, 70);
    site.barrier("durable");
    let ring = site.path("run").join("priv").join("ring");

    let shipper = Process::of(&site, Daemon::Shipper);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        shipper.has_everywhere(set, "0000000000000000");
    }
    shipper.has_everywhere("NoNewPrivs", "1");
    shipper.has_everywhere("Seccomp", "2");
    shipper.has_everywhere("Groups", "");
    for ids in [shipper.of_threads("Uid"), shipper.of_threads("Gid")].concat() {
        assert!(ids.split_whitespace().all(|id| id != "0"), "{ids}");
    }
    let mut shared = shipper.shared();
    shared.sort();
    assert_eq!(shared.len(), 2, "the ring and one page: {shared:?}");
    assert!(is_mapped(&shared, "r--s", &ring), "{shared:?}");
    assert_eq!(shared[1].0, "rw-s", "{shared:?}");
    assert!(
        shared[1].1.starts_with("/memfd:ublk-tap-consumer"),
        "{shared:?}"
    );
    assert_eq!(shipper.disks(), Vec::<PathBuf>::new());
    assert!(shipper.network_sockets() > 0);

    let tap = Process::of(&site, Daemon::Tap);
    assert_eq!(
        tap.network_sockets(),
        0,
        "the tap never touches the network"
    );
    assert!(!tap.disks().is_empty());
    assert!(is_mapped(&tap.shared(), "rw-s", &ring));
    let log = fs::read_to_string(site.path("run").join("priv").join("shipper.log"));
    let log = log.unwrap();
    assert!(
        !log.contains("no Landlock"),
        "the lab's kernel has it: {log}"
    );

    site.assert_replica_equals("v0", &device);
    site.tap(["remove", "priv"]).ok();
}

/// What `PR_SET_IO_FLUSHER` sets in a thread's flags: PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE.
const IO_FLUSHER: u64 = 0x0008_0000 | 0x0010_0000;

/// Names of threads, and whether they are I/O flushers.
fn threads(site: &Site, daemon: Daemon) -> Vec<(String, bool)> {
    let tasks = fs::read_dir(Process::of(site, daemon).0.join("task")).unwrap();
    let flags = |task: PathBuf| {
        let stat = fs::read_to_string(task.join("stat")).unwrap();
        let (name, fields) = stat.split_once('(').unwrap().1.rsplit_once(") ").unwrap();
        let flags: u64 = fields.split(' ').nth(6).unwrap().parse().unwrap();
        (name.to_owned(), flags & IO_FLUSHER == IO_FLUSHER)
    };
    tasks.map(|task| flags(task.unwrap().path())).collect()
}

#[test]
fn no_thread_a_completion_depends_on_waits_for_memory_that_waits_for_a_disk() {
    let site = Site::new("flush");
    let disks = [NullDisk::plain(4), NullDisk::plain(4)];
    site.protect(disks[0].path(), "v0");
    site.register("v1", 4 << 20, 1);
    site.add(disks[1].path(), "v1", &["--frontend", "nbd"]);
    site.wait_mode("async");
    for _ in 0..2 {
        site.barrier("durable");
        let socket = site.path("run").join("flush").join("v1.nbd");
        let mut client = UnixStream::connect(socket).unwrap();
        client.read_exact(&mut [0; 18]).unwrap();
        let found = threads(&site, Daemon::Tap);
        println!("{found:?}");
        for name in ["clerk", "copier", "nbd"] {
            assert!(found.iter().any(|thread| thread.0 == name), "no {name}");
        }
        // A shipper that waits for memory keeps the ring full, and with it the writes of this host.
        for (name, is_flusher) in found.into_iter().chain(threads(&site, Daemon::Shipper)) {
            assert!(is_flusher, "{name}");
        }
        drop(client);
        site.kill_source();
        site.tap(["recover", "flush"]).ok();
    }
    site.tap(["remove", "flush"]).ok();
}
