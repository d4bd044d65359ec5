//! Oracles: what judges a run. Simpler than what they judge, and without its words.

mod history;
mod sector;

pub use history::{Cuts, History};
pub use sector::{GARBAGE, INITIAL, SECTOR_BYTES, ZERO, fill, read};
