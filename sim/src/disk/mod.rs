//! Disks: the source's, the targets, and the files of the journal. What was not synced may be lost,
//! in any order and sector by sector; reads and writes may fail.

mod sectors;
mod store;
mod target;

pub use sectors::Sectors;
pub use store::{SimStore, StoreFault, StoreReader};
pub use target::{Target, TargetDisk, TargetFault};
