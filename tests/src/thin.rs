//! A thin disk: larger than the pool it lies in, until the pool is full.

use crate::disk::{Mapped, NullDisk, size_bytes};
use crate::kernel;
use std::path::Path;

const MIB_SECTORS: u64 = (1 << 20) / 512;
const BLOCK_SECTORS: u64 = 128;
const POOL: &str = "ut-pool";

/// A thin disk in a pool of its own.
#[derive(Debug)]
pub struct ThinDisk {
    // In the order in which they are taken down.
    thin: Mapped,
    pool: Mapped,
    data: Mapped,
    metadata: NullDisk,
    room: NullDisk,
}

impl ThinDisk {
    /// A disk of `size_mib` in a pool of `pool_mib` that may grow to `room_mib`.
    pub fn new(size_mib: u64, pool_mib: u64, room_mib: u32) -> Self {
        kernel::module("dm_thin_pool");
        let (metadata, room) = (NullDisk::plain(4), NullDisk::plain(room_mib));
        let data = Mapped::new("ut-pool-data", &part(room.path(), pool_mib));
        let pool = Mapped::new(POOL, &pool_table(&metadata, &data, pool_mib));
        pool.message("create_thin 0");
        let sectors = size_mib * MIB_SECTORS;
        let table = format!("0 {sectors} thin /dev/mapper/{POOL} 0");
        let thin = Mapped::new("ut-thin", &table);
        Self {
            thin,
            pool,
            data,
            metadata,
            room,
        }
    }

    /// The device node.
    pub fn path(&self) -> &Path {
        self.thin.path()
    }

    /// Gives the pool all the room there is.
    pub fn grow(&self) {
        let mib = size_bytes(self.room.path()) >> 20;
        self.data.reload(&part(self.room.path(), mib));
        self.pool
            .reload(&pool_table(&self.metadata, &self.data, mib));
    }
}

fn part(disk: &Path, mib: u64) -> String {
    format!("0 {} linear {} 0", mib * MIB_SECTORS, disk.display())
}

fn pool_table(metadata: &NullDisk, data: &Mapped, mib: u64) -> String {
    let (metadata, data) = (metadata.path().display(), data.path().display());
    let sectors = mib * MIB_SECTORS;
    format!("0 {sectors} thin-pool {metadata} {data} {BLOCK_SECTORS} 0 1 error_if_no_space")
}
