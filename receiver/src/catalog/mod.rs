//! Catalog: what the receiver knows that is not in the journal. One redb file, `catalog.redb`.
//!
//! Tables: tokens, sources, groups, volumes, streams, cuts, known blocks, maps of pools, the journal's id. Every commit
//! is durable before it returns. Values are versioned byte strings, written down at the top of
//! `codec.rs`. One process has it open at a time: the daemon, or a verb while none runs.
//!
//! Promises: positions never go back within an incarnation; a token is redeemed once, in one
//! transaction with the enrolment it pays for (P14); counts have named maxima (P11).
//!
//! Does not: touch targets or the journal, read a clock, make random numbers.

mod codec;
mod error;
mod pools;
mod positions;
mod records;
mod sources;
mod store;
mod volumes;

#[cfg(test)]
mod tests;

pub use error::{CatalogError, RedeemError};
pub use records::{
    Bound, CutState, GroupRecord, Lane, PointRecord, Since, SourceRecord, Standing, StreamState,
    TargetRecord, TokenRecord, VolumeRecord, VolumeState,
};
pub use store::Catalog;

/// Most groups.
pub const GROUPS_MAX: usize = 256;
/// Most sources, revoked ones included.
pub const SOURCES_MAX: usize = 1024;
/// Most tokens; used ones are remembered until they expire, or until their place is needed.
pub const TOKENS_MAX: usize = 1024;
