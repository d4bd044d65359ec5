//! What a source may not send. Each ends its session, in words; nothing of it is kept.

use wire::{DecodeError, Name, Stamp, VolumeIndex};

/// Why a record, a settle mark or a volume table is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The record belongs to another incarnation.
    #[error("record {stamp} belongs to another incarnation than this session's")]
    OtherIncarnation {
        /// The record.
        stamp: Stamp,
    },
    /// The stamp is zero, or further ahead than the ring can be.
    #[error("stamp {stamp} is outside the ring: stamps 1 to {limit} are possible now")]
    TooFar {
        /// The stamp.
        stamp: Stamp,
        /// The highest one possible.
        limit: Stamp,
    },
    /// Too many holes between records.
    #[error("record {stamp} leaves too many holes before it")]
    TooScattered {
        /// The record.
        stamp: Stamp,
    },
    /// The volume was not announced.
    #[error("record {stamp} is of volume number {}, which the hello did not announce", index.0)]
    UnknownVolume {
        /// The record.
        stamp: Stamp,
        /// The number.
        index: VolumeIndex,
    },
    /// The number means another volume, or the same with another geometry or disk.
    #[error("volume number {} was announced as {known} earlier, with other properties", index.0)]
    OtherVolume {
        /// The number.
        index: VolumeIndex,
        /// What it means.
        known: Name,
    },
    /// More volumes than a stream may have over its life.
    #[error("too many volumes were announced in this incarnation; restart the tap")]
    TooManyVolumes,
    /// The range is not whole sectors inside the volume.
    #[error("record {stamp} is not whole sectors inside volume {volume}")]
    Range {
        /// The record.
        stamp: Stamp,
        /// The volume.
        volume: Name,
    },
    /// The time mark is in the far future.
    #[error("record {stamp} has an impossible time; set the source's clock")]
    BadMark {
        /// The record.
        stamp: Stamp,
    },
    /// The payload of a member record cannot be read.
    #[error("member record {stamp}: {source}")]
    BadMember {
        /// The record.
        stamp: Stamp,
        /// What is wrong.
        source: DecodeError,
    },
    /// A settle mark does not begin where the last one ended.
    #[error("a settle mark begins at {after}, the last one ended at {expected}")]
    SettleHole {
        /// Where it begins.
        after: Stamp,
        /// Where it should.
        expected: Stamp,
    },
    /// More member and gap records than are kept until they are settled.
    #[error("record {stamp}: too many member and gap records before it wait to be settled")]
    TooManyNotes {
        /// The record.
        stamp: Stamp,
    },
    /// More void stamps than are kept.
    #[error("too many void records wait to be settled")]
    TooManyVoids,
}
