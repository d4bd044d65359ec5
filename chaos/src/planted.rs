//! Planted: faults below the products, which none of them can see or help, made to see that a run
//! finds them.

use crate::plan::{Plant, Step};
use crate::site::{Host, SECTORS};
use sim::oracle::SECTOR_BYTES;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

/// Every so many sectors one is changed: some of them nobody writes again.
const STRIDE: usize = 64;
/// What they are changed to.
const JUNK: u8 = 0x5a;

/// Makes ready, or does it. For a rollback the receiver stands still, then does not run.
pub fn plant(host: &Host, plant: Plant, step: Step) -> io::Result<()> {
    match (plant, step) {
        (Plant::Target, Step::Done) => spoil(&host.target(0)),
        (Plant::Disk, Step::Done) => spoil(&host.disk(0)),
        (Plant::Rollback, Step::Ready) => copy(&host.path(""), &host.path("old")),
        (Plant::Rollback, Step::Done) => copy(&host.path("old"), &host.path("")),
        (Plant::Target | Plant::Disk, Step::Ready) => Ok(()),
    }
}

/// Changes sectors of a file, all over it.
fn spoil(file: &Path) -> io::Result<()> {
    let file = File::options().write(true).open(file)?;
    // Not where a target is known by.
    for sector in (STRIDE / 2..SECTORS).step_by(STRIDE) {
        file.write_all_at(&[JUNK; SECTOR_BYTES], (sector * SECTOR_BYTES) as u64)?;
    }
    Ok(())
}

/// All that a receiver has, as it is, over what is there. Targets stay the files they are: a receiver
/// knows them.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let _ = fs::remove_dir_all(to.join("receiver"));
    fs::create_dir_all(to.join("targets"))?;
    for target in fs::read_dir(from.join("targets"))? {
        let target = target?;
        fs::copy(target.path(), to.join("targets").join(target.file_name()))?;
    }
    let mut copied = Command::new("cp");
    copied.arg("-a").arg(from.join("receiver")).arg(to);
    match copied.status()?.success() {
        true => Ok(()),
        false => Err(io::Error::other("cp failed")),
    }
}
