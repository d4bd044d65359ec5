//! Where payloads come from: the seam between apply and the journal.

use crate::fold::RecordAt;
use wire::{RecordError, RecordHeader, Stamp};

/// Reads records back; implemented by the journal.
pub trait PayloadSource {
    /// Reads the record at `at`: returns its header and leaves its payload in `payload`.
    ///
    /// What `payload` held before is dropped. Nothing need be verified here: the loader checks
    /// every record against the checksum of the shipper and against what was folded (P9).
    fn read(&mut self, at: RecordAt, payload: &mut Vec<u8>) -> Result<RecordHeader, PayloadError>;
}

/// Why a record cannot be applied. Nothing of its step has been written.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// The journal cannot be read.
    #[error("cannot read the journal at {at}: {source}")]
    Io {
        /// Where.
        at: RecordAt,
        /// What the system said.
        source: std::io::Error,
    },
    /// What lies there is not a sound record.
    #[error("the journal is damaged at {at}: {reason}; the group must be copied again")]
    Bad {
        /// Where.
        at: RecordAt,
        /// What is wrong.
        reason: RecordError,
    },
    /// A sound record lies there, but another one than was received.
    #[error(
        "the journal holds record {found} at {at} where record {wanted} was written; the group \
         must be copied again"
    )]
    Other {
        /// Where.
        at: RecordAt,
        /// The stamp found.
        found: Stamp,
        /// The stamp wanted.
        wanted: Stamp,
    },
}
