//! What a receiver can do that no receiver may.

use wire::Stamp;

/// A receiver broke the protocol: the session ends, the state stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A message that has no place in this state.
    #[error("the receiver sent a message out of turn")]
    Unexpected,
    /// An acknowledgement above what it can cover.
    #[error("the receiver acknowledged {what} {found}, but the newest possible is {limit}")]
    Ahead {
        /// Which field.
        what: &'static str,
        /// What it said.
        found: u64,
        /// What it may say at most.
        limit: u64,
    },
    /// An acknowledgement below an earlier one.
    #[error("the receiver took {what} {last} back to {found}")]
    Back {
        /// Which field.
        what: &'static str,
        /// What it said.
        found: u64,
        /// What it had said.
        last: u64,
    },
    /// A resume point this source has never sent.
    #[error("the receiver wants to resume after record {found}, but only {sent} were ever sent")]
    Resume {
        /// Where it wants to resume.
        found: Stamp,
        /// The newest stamp ever sent.
        sent: Stamp,
    },
    /// A time mark beyond the year 2262.
    #[error("the receiver's time mark {0} is beyond any clock")]
    Mark(u64),
    /// A wish for a volume that was not announced.
    #[error("the receiver wants volume {0} copied, which was not announced to it")]
    UnknownVolume(u16),
}
