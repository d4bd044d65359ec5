//! Disks made by the kernel for one test and gone after it.

use crate::kernel;
use crate::run::Run;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static SERIAL: AtomicU32 = AtomicU32::new(0);
const CONFIG: &str = "/sys/kernel/config/nullb";

/// A memory-backed null_blk device.
#[derive(Debug)]
pub struct NullDisk {
    name: String,
    path: PathBuf,
}

/// How a [`NullDisk`] behaves.
#[derive(Clone, Copy, Debug)]
pub struct NullSettings {
    /// Size in MiB.
    pub size_mib: u32,
    /// Logical block size in bytes.
    pub block_bytes: u32,
    /// Emulated volatile cache in MiB; zero for none.
    pub cache_mib: u32,
    /// Whether it can discard.
    pub discard: bool,
}

impl NullSettings {
    /// A plain disk of `size_mib` with 512-byte sectors.
    pub fn plain(size_mib: u32) -> Self {
        Self {
            size_mib,
            block_bytes: 512,
            cache_mib: 0,
            discard: true,
        }
    }
}

impl NullDisk {
    /// Makes the device and waits for nothing: null_blk is there at once.
    pub fn new(settings: NullSettings) -> Self {
        // The module's own default device would be a second name for the same test disk.
        if !Path::new("/sys/module/null_blk").exists() {
            Run::new("modprobe").args(["null_blk", "nr_devices=0"]).ok();
        }
        if !Path::new(CONFIG).exists() {
            kernel::module("configfs");
            Run::sh(
                "mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config",
            )
            .ok();
        }
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}-{serial}", std::process::id());
        let folder = Path::new(CONFIG).join(&name);
        fs::create_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let set = |key: &str, value: u32| {
            let file = folder.join(key);
            fs::write(&file, value.to_string())
                .unwrap_or_else(|error| panic!("{} = {value}: {error}", file.display()));
        };
        set("size", settings.size_mib);
        set("blocksize", settings.block_bytes);
        set("memory_backed", 1);
        set("submit_queues", 1);
        set("discard", u32::from(settings.discard));
        if settings.cache_mib > 0 {
            set("cache_size", settings.cache_mib);
        }
        set("power", 1);
        let index = fs::read_to_string(folder.join("index")).unwrap_or_default();
        let path = [
            format!("/dev/{name}"),
            format!("/dev/nullb{}", index.trim()),
        ]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("null_blk {name} has no device node"));
        Self { name, path }
    }

    /// A plain disk of `size_mib`.
    pub fn plain(size_mib: u32) -> Self {
        Self::new(NullSettings::plain(size_mib))
    }

    /// The device node.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for NullDisk {
    fn drop(&mut self) {
        let folder = Path::new(CONFIG).join(&self.name);
        let _ = fs::write(folder.join("power"), "0");
        let _ = fs::remove_dir(folder);
    }
}

/// A loop device: a block device over a file, which punches holes.
#[derive(Debug)]
pub struct Loop {
    path: PathBuf,
}

impl Loop {
    /// A device over `file`.
    pub fn new(file: &Path) -> Self {
        kernel::module("loop");
        let done = Run::new("losetup")
            .args(["--find", "--show"])
            .args([file])
            .ok();
        let path = PathBuf::from(done.stdout.trim());
        Self { path }
    }

    /// The device node.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detach = [Path::new("--detach"), &self.path];
        Run::new("losetup").args(detach).done();
    }
}

/// A device-mapper device.
#[derive(Debug)]
pub struct Mapped {
    name: String,
    path: PathBuf,
}

impl Mapped {
    /// Creates `name` with `table`.
    pub fn new(name: &str, table: &str) -> Self {
        if table.contains(" flakey ") {
            kernel::module("dm_flakey");
        }
        Run::sh(&format!(
            "dmsetup create {name} --noudevsync <<'TABLE'\n{table}\nTABLE"
        ))
        .ok();
        Run::new("dmsetup").args(["mknodes", name]).ok();
        Self {
            name: name.into(),
            path: Path::new("/dev/mapper").join(name),
        }
    }

    /// The device node.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts `table` in place of the one it has; what is in flight ends first.
    pub fn reload(&self, table: &str) {
        let name = &self.name;
        Run::sh(&format!(
            "dmsetup reload {name} <<'TABLE'\n{table}\nTABLE\n\
             dmsetup suspend --noflush {name} && dmsetup resume --noudevsync {name}"
        ))
        .ok();
    }

    /// Lets nothing begin or end until it is given a table again.
    pub fn suspend(&self) {
        Run::new("dmsetup")
            .args(["suspend", "--noflush", "--nolockfs", &self.name])
            .ok();
    }

    /// Sends a target message.
    pub fn message(&self, message: &str) {
        Run::new("dmsetup")
            .args(["message", &self.name, "0", message])
            .ok();
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        Run::new("dmsetup")
            .args(["remove", "--noudevsync", "--retry", &self.name])
            .done();
    }
}

/// Size of a block device or file in bytes.
pub fn size_bytes(path: &Path) -> u64 {
    use std::io::{Seek, SeekFrom};
    let open = fs::File::open(path).and_then(|mut file| file.seek(SeekFrom::End(0)));
    open.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
