//! What the verifier found. The names of the JSON are an interface: added to, never renamed.

use crate::control::GroupStatus;
use serde::Serialize;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// What is wrong; empty if nothing is.
    pub wrong: Vec<Finding>,
    /// The journal.
    pub journal: JournalReport,
    /// Groups as they would be started, by name: as in `status`.
    pub groups: Vec<GroupStatus>,
    /// Volumes whose targets were looked at, by name.
    pub volumes: Vec<VolumeReport>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `journal`, `catalog` or `base`.
    pub part: String,
    /// What, and where, in words.
    pub text: String,
}

/// What the journal holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct JournalReport {
    /// Segments in use.
    pub segments: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Sound entries about streams.
    pub entries: u64,
    /// Those of them that are records.
    pub records: u64,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VolumeReport {
    /// GROUP/VOLUME.
    pub volume: String,
    /// Its targets.
    pub targets: Vec<String>,
}

impl Finding {
    /// A finding in a part of the receiver.
    pub fn new(part: &str, text: String) -> Self {
        let part = part.to_owned();
        Self { part, text }
    }
}

impl Report {
    pub(super) fn wrong(&mut self, part: &str, what: impl std::fmt::Display) {
        self.wrong.push(Finding::new(part, what.to_string()));
    }

    /// The value; an error is a finding.
    pub(super) fn note<T, E: std::fmt::Display>(
        &mut self,
        part: &str,
        result: Result<T, E>,
    ) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.wrong(part, error);
                None
            }
        }
    }
}
