//! The main job as a story in seven steps, with progress a person can follow.
//!
//! It uses the product by its command lines only and judges by comparing bytes.

mod progress;
mod tree;

use crate::disk::{NullDisk, size_bytes};
use crate::run::eventually;
use crate::site::{LINK_PATIENCE, Site};
use crate::{Run, content};
use progress::Steps;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tree::Tree;

/// Disk of the file server, in MiB.
const FILES_MIB: u32 = 64;
/// Disk of the database stand-in, in MiB.
const BLOCKS_MIB: u32 = 32;
/// What fio writes before the barrier, and again elsewhere after it.
const FIO_MIB: u32 = 8;

/// The state of the story.
#[derive(Debug)]
pub struct Demo {
    steps: Steps,
    site: Site,
    files_disk: NullDisk,
    blocks_disk: NullDisk,
    files: PathBuf,
    blocks: PathBuf,
    tree: Tree,
    barrier: u64,
    lost: Value,
    writers: Vec<Child>,
    findings: Findings,
}

#[derive(Debug, Default)]
struct Findings {
    identical: usize,
    recovered_to: String,
    applied: u64,
    exported_in: Duration,
}

impl Demo {
    /// A receiver, an enrolled source and two empty disks.
    pub fn start() -> Self {
        let mut steps = Steps::new(7);
        steps.begin("a receiver and a source that proves itself to it");
        let site = Site::new("demo");
        steps.note(&format!(
            "receiver at {}, source db1 enrolled over mutual TLS",
            site.address()
        ));
        let files_disk = NullDisk::plain(FILES_MIB);
        let blocks_disk = NullDisk::plain(BLOCKS_MIB);
        Self {
            steps,
            site,
            files_disk,
            blocks_disk,
            files: PathBuf::new(),
            blocks: PathBuf::new(),
            tree: Tree::default(),
            barrier: 0,
            lost: Value::Null,
            writers: Vec::new(),
            findings: Findings::default(),
        }
    }

    /// Wraps both disks and waits for the first copy.
    pub fn protect(&mut self) {
        self.steps
            .begin("two disks of one group, wrapped while empty");
        self.files = self.site.protect(self.files_disk.path(), "files");
        self.site
            .register("blocks", size_bytes(self.blocks_disk.path()), 2);
        self.blocks = self.site.add(self.blocks_disk.path(), "blocks", &[]);
        for (volume, device) in [("files", &self.files), ("blocks", &self.blocks)] {
            self.steps
                .note(&format!("demo/{volume} is {}", device.display()));
        }
        let site = &self.site;
        self.steps.wait("first copy", LINK_PATIENCE, || {
            let status = site.status();
            (status["mode"] == "async", line(&status))
        });
    }

    /// An ext4 with a real tree, and a fio job that can prove its data later.
    pub fn fill(&mut self) {
        self.steps
            .begin("an ext4 with a real tree of files, and fio --verify beside it");
        Run::new("mkfs.ext4")
            .args(["-q", "-F", &text(&self.files)])
            .ok();
        let root = self.site.mount(&self.files, "rw");
        let mut tree = Tree::choose();
        let steps = &mut self.steps;
        tree.copy_to(&root, |done, all| {
            steps.progress(&format!("{done} of {all} files"))
        });
        self.tree = tree;
        Run::new("sync").ok();
        self.steps.note(&format!(
            "{} files, {}",
            self.tree.count(),
            mib(self.tree.bytes())
        ));
        let job = fio_job(&self.blocks, 0);
        Run::new("fio")
            .args(&job)
            .args(["--do_verify=0"])
            .within(LINK_PATIENCE)
            .ok();
        self.steps.note(&format!(
            "fio wrote {FIO_MIB} MiB in random order, random sizes"
        ));
        self.steps.note(&line(&self.site.status()));
    }

    /// Waits until all of it is safe at the receiver.
    pub fn barrier(&mut self) {
        self.steps
            .begin("a barrier: everything completed so far is durable at the receiver");
        let start = Instant::now();
        self.barrier = self.site.barrier("durable");
        self.steps.note(&format!(
            "stamp {} after {:.1} s",
            self.barrier,
            seconds(start.elapsed())
        ));
    }

    /// Goes on writing on both volumes and kills the source's daemons in the middle.
    pub fn lose_the_host(&mut self) {
        self.steps
            .begin("writing goes on, then SIGKILL: the host's daemons are lost");
        let late = self.site.path("mnt").join("late");
        let files = format!(
            "mkdir -p {0}; n=0; while dd if=/dev/urandom of={0}/$n bs=16k count=1 conv=fsync; \
             do n=$((n+1)); done",
            late.display()
        );
        self.writers
            .push(spawn(Command::new("sh").args(["-c", &files])));
        let offset = format!("--offset={}m", BLOCKS_MIB / 2);
        let job = fio_job(&self.blocks, 1);
        let more = [
            &offset,
            "--time_based",
            "--runtime=600",
            "--verify=0",
            "--rate=2m",
        ];
        self.writers
            .push(spawn(Command::new("fio").args(&job).args(more)));
        for _ in 0..4 {
            std::thread::sleep(Duration::from_secs(1));
            self.steps.progress(&line(&self.site.status()));
        }
        self.lost = self.site.status();
        self.site.kill_source();
        self.steps.note(&format!("killed at: {}", line(&self.lost)));
    }

    /// Mounts and checks a throwaway copy of what the receiver holds.
    pub fn recover(&mut self) {
        self.steps
            .begin("recovery at the receiver, on a throwaway copy of the replica");
        let site = &self.site;
        self.steps
            .wait("applying what had arrived", LINK_PATIENCE, || {
                let group = site.receiver_status()["groups"][0].clone();
                (
                    group["settled"] == group["applied"],
                    format!("applied {}", group["applied"]),
                )
            });
        let group = self.site.receiver_group();
        self.findings.applied = group["applied"].as_u64().unwrap_or(0);
        self.findings.recovered_to = group["recoverable_to"].as_str().unwrap_or("?").into();
        assert!(
            self.findings.applied >= self.barrier,
            "the barrier promised stamp {}, the receiver has {}",
            self.barrier,
            self.findings.applied
        );
        let start = Instant::now();
        let (files, blocks) = (self.site.export("files"), self.site.export("blocks"));
        self.findings.exported_in = start.elapsed();
        self.check_files(&files);
        let job = fio_job(&blocks, 0);
        Run::new("fio")
            .args(&job)
            .args(["--verify_only=1"])
            .within(LINK_PATIENCE)
            .ok();
        self.steps
            .note("fio finds every block it wrote before the barrier");
    }

    fn check_files(&mut self, image: &Path) {
        let at = self.site.path("recovered");
        fs::create_dir_all(&at).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
        Run::new("mount")
            .args(["-o", "loop", &text(image), &text(&at)])
            .ok();
        let differing = self.tree.differing(&at);
        Run::new("umount").args([&text(&at)]).ok();
        assert!(
            differing.is_empty(),
            "files differ or are missing: {differing:?}"
        );
        self.findings.identical = self.tree.count();
        self.steps
            .note(&format!("mounted, {} files identical", self.tree.count()));
        Run::new("e2fsck").args(["-fn", &text(image)]).ok();
        self.steps.note("e2fsck -fn: clean");
    }

    /// Takes the dead devices away, so that writers waiting in the kernel end.
    pub fn remove_the_dead(&mut self) {
        self.steps
            .begin("the dead devices are removed, waiting writers end");
        self.site.cleanup();
        let writers = &mut self.writers;
        eventually("waiting writers end", Duration::from_secs(60), || {
            writers
                .iter_mut()
                .all(|writer| matches!(writer.try_wait(), Ok(Some(_))))
        });
        self.steps.note(&format!(
            "{} writers ended with an error, as they must",
            writers.len()
        ));
        assert!(
            !self.files.exists() && !self.blocks.exists(),
            "a device was left behind"
        );
    }

    /// Says what happened, for a person.
    pub fn summary(&self) {
        let number = |key: &str| self.lost[key].as_u64().unwrap_or(0);
        println!();
        println!("  records captured      {}", number("captured"));
        println!("  durable when killed   {}", number("durable"));
        println!(
            "  lag when killed       {:.2} s, {}",
            self.lost["lag_seconds"].as_f64().unwrap_or(0.0),
            mib(number("lag_bytes"))
        );
        println!("  barrier               stamp {}", self.barrier);
        println!(
            "  recovered to          stamp {}, {}",
            self.findings.applied, self.findings.recovered_to
        );
        println!(
            "  copies exported in    {:.1} s",
            seconds(self.findings.exported_in)
        );
        println!(
            "  files identical       {} of {}",
            self.findings.identical,
            self.tree.count()
        );
        println!();
        println!("demo: ok, {:.0} s", seconds(self.steps.elapsed()));
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        for writer in &mut self.writers {
            let _ = writer.kill();
        }
    }
}

fn fio_job(device: &Path, salt: u32) -> Vec<String> {
    let file = format!("--filename={}", device.display());
    let size = format!("--size={FIO_MIB}m");
    let seed = format!("--randseed={}", 1000 + salt);
    [
        "--name=blocks",
        &file,
        &size,
        &seed,
        "--direct=1",
        "--ioengine=io_uring",
        "--iodepth=8",
    ]
    .into_iter()
    .chain([
        "--rw=randwrite",
        "--bsrange=4k-64k",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--verify_state_save=0",
    ])
    .map(String::from)
    .collect()
}

fn spawn(command: &mut Command) -> Child {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn line(status: &Value) -> String {
    format!(
        "mode {} · captured {} · durable {} · lag {:.1} s",
        status["mode"].as_str().unwrap_or("?"),
        status["captured"],
        status["durable"],
        status["lag_seconds"].as_f64().unwrap_or(0.0)
    )
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// Used by the tree for its digests; kept here so that the oracle has one home.
fn digest(path: &Path) -> u64 {
    content::digest(path)
}
