//! Reader of dm-log-writes logs: what really arrived at the disk below us, in which order.
//!
//! Layout (kernel `drivers/md/dm-log-writes.c`): a super block in sector 0, then per entry one
//! sector of four little-endian words (sector, sectors, flags, data length) followed by the data,
//! which a discard does not have.

use crate::run::Run;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: u64 = 0x006a_7366_7773_6872;

/// One logged request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// First 512-byte sector.
    pub sector: u64,
    /// Sectors written.
    pub sectors: u64,
    flags: u64,
}

impl Entry {
    /// A FLUSH arrived.
    pub fn is_flush(&self) -> bool {
        self.flags & 1 != 0
    }

    /// The write carried FUA.
    pub fn is_fua(&self) -> bool {
        self.flags & 2 != 0
    }

    /// A mark set by `dmsetup message`.
    pub fn is_mark(&self) -> bool {
        self.flags & 8 != 0
    }
}

/// Reads all entries of the log on `path`.
pub fn entries(path: &Path) -> Vec<Entry> {
    // What the kernel writes there passes the page cache by.
    Run::new("blockdev")
        .args([Path::new("--flushbufs"), path])
        .ok();
    let log = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let word = |offset: u64, index: u64| {
        let mut bytes = [0; 8];
        log.read_exact_at(&mut bytes, offset + index * 8)
            .unwrap_or_else(|error| panic!("log at {offset}: {error}"));
        u64::from_le_bytes(bytes)
    };
    let magic = word(0, 0);
    assert!(magic == MAGIC, "not a dm-log-writes log: {magic:#x}");
    let (count, block) = (word(0, 2), word(0, 3) & 0xffff_ffff);
    assert!(
        (512..=4096).contains(&block),
        "sector size of the log is {block}"
    );
    let mut found = Vec::new();
    let mut at = block;
    for _ in 0..count {
        let entry = Entry {
            sector: word(at, 0),
            sectors: word(at, 1),
            flags: word(at, 2),
        };
        let discard = entry.flags & 4 != 0;
        at += block + if discard { 0 } else { entry.sectors * block };
        found.push(entry);
    }
    found
}
