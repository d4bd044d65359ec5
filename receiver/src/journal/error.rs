//! What can go wrong with the journal, and what damage it can show.

use std::fmt;
use std::io;
use std::path::PathBuf;
use wire::journal::JournalId;

/// The journal cannot be opened, or has failed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused an operation.
    #[error("cannot {what} the journal in {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The journal's directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("the journal in {} is in use by another ublk-tap-receiver; stop that first", .0.display())]
    InUse(PathBuf),
    /// The journal that is to be here is not.
    #[error(
        "the journal of this receiver is not in {}: mount it; or, if it is lost, run \
         `ublk-tap-receiver serve --new-journal`: everything since what is applied is then copied \
         again", .0.display()
    )]
    Missing(PathBuf),
    /// There are segments, and not one group of them can be read.
    #[error(
        "the journal in {} cannot be read: see to its disk; if it is lost, move its files away and \
         run `ublk-tap-receiver serve --new-journal`: everything since what is applied is then \
         copied again", .0.display()
    )]
    Unreadable(PathBuf),
    /// A segment of another journal lies among ours.
    #[error(
        "segment {segment} belongs to another journal ({}); move the files of the other journal \
         away", short(*found)
    )]
    Foreign {
        /// The segment.
        segment: u64,
        /// The id found in it.
        found: JournalId,
    },
    /// Written by a later version.
    #[error("segment {segment}: {source}; use the version that wrote it")]
    Version {
        /// The segment.
        segment: u64,
        /// Which version.
        source: wire::DecodeError,
    },
    /// A record of a later version, and no damage.
    #[error("segment {segment}: {source}; use the version that wrote it")]
    Record {
        /// The segment.
        segment: u64,
        /// Which version.
        source: wire::RecordError,
    },
    /// An entry of a kind that is part of the format and that this build does not make use of.
    #[error(
        "segment {segment} holds {kind}, which this build does not make use of; use the version \
         that wrote it"
    )]
    Unused {
        /// The segment.
        segment: u64,
        /// What it holds, in words.
        kind: &'static str,
    },
    /// A write or sync failed. Nothing was called durable since; a restart reads what is there.
    #[error(
        "the journal has failed ({0}); nothing is acknowledged any more: see to its disk, then \
         restart the receiver"
    )]
    Failed(String),
}

/// Something before the tail is not what was written. Reported, never skipped silently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub segment: u64,
    /// Where in it.
    pub offset_bytes: u64,
    /// What is wrong.
    pub kind: DamageKind,
}

/// Kinds of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DamageKind {
    /// The segment's header; its groups prove themselves.
    SegmentHeader,
    /// A segment in use is not there.
    SegmentMissing,
    /// A group's header; its entries cannot be found.
    Group,
    /// Whole groups are missing before this place: an old copy of the file, or a lost write.
    GroupsMissing,
    /// One entry; the others of its group are sound.
    Entry,
    /// The index of a sealed segment; the segment was read instead.
    Index,
    /// A place that held entries, or may have, and that the disk does not give back.
    Unreadable,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            DamageKind::SegmentHeader => "its header is damaged",
            DamageKind::SegmentMissing => "the file is missing",
            DamageKind::Group => "a group of entries is damaged",
            DamageKind::GroupsMissing => "groups of entries are missing",
            DamageKind::Entry => "an entry is damaged",
            DamageKind::Index => "its index is damaged, the segment was read instead",
            DamageKind::Unreadable => "the disk cannot read what was written there",
        };
        let Self {
            segment,
            offset_bytes,
            ..
        } = self;
        write!(f, "journal segment {segment} offset {offset_bytes}: {what}")
    }
}

fn short(id: JournalId) -> String {
    format!("id {:08x}", id.0 >> 96)
}
