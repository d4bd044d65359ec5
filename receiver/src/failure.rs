//! How a command, or the daemon, ends: documented exit codes, and what is said with them.

use crate::catalog::CatalogError;
use crate::config::SettingsError;
use crate::journal::JournalError;
use crate::target::TargetError;
use serde::{Deserialize, Serialize};
use std::process::ExitCode;

/// Exit codes, the same for all three binaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Something failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Refused: identity, foreign, in use, bad state.
    Refused = 3,
    /// Nobody answers, or not in time.
    Unreachable = 4,
    /// Permission or kernel support is missing.
    Privilege = 5,
    /// A disk is full.
    NoSpace = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command that did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// One line: cause and next step.
    pub text: String,
}

impl Failure {
    /// A failure with this code and text.
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self {
            exit,
            text: text.into(),
        }
    }

    /// Something failed.
    pub fn failed(text: impl Into<String>) -> Self {
        Self::new(Exit::Failed, text)
    }

    /// The command line is wrong.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }

    /// The state of things forbids it.
    pub fn refused(text: impl Into<String>) -> Self {
        Self::new(Exit::Refused, text)
    }
}

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        let exit = match &error {
            error if error.is_usage() => Exit::Usage,
            error if error.is_privilege() => Exit::Privilege,
            error if error.is_no_space() => Exit::NoSpace,
            TargetError::Io { .. } => Exit::Failed,
            _ => Exit::Refused,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<CatalogError> for Failure {
    fn from(error: CatalogError) -> Self {
        let exit = match &error {
            CatalogError::Storage(_) | CatalogError::Damaged { .. } => Exit::Failed,
            _ => Exit::Refused,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        let exit = match &error {
            JournalError::Io { source, .. } => io_exit(source),
            JournalError::Failed(_) => Exit::Failed,
            _ => Exit::Refused,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        let exit = match &error {
            SettingsError::Io { source, .. } => io_exit(source),
            SettingsError::Missing(_) => Exit::Refused,
            SettingsError::Bad { .. } => Exit::Usage,
        };
        Self::new(exit, error.to_string())
    }
}

/// The code for an error of the system.
pub(crate) fn io_exit(error: &std::io::Error) -> Exit {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => Exit::Privilege,
        std::io::ErrorKind::StorageFull => Exit::NoSpace,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settings_file_that_is_wrong_ends_as_a_command_line_that_is_wrong() {
        let (path, reason) = ("receiver.toml".into(), "journal_max is missing".into());
        let bad = Failure::from(SettingsError::Bad { path, reason });
        assert_eq!(bad.exit, Exit::Usage);
        let missing = Failure::from(SettingsError::Missing("dir".into()));
        assert_eq!(missing.exit, Exit::Refused);
    }

    #[test]
    fn a_journal_that_cannot_be_opened_says_by_its_code_what_to_see_to() {
        let io = |kind: std::io::ErrorKind| JournalError::Io {
            what: "open",
            path: "journal".into(),
            source: kind.into(),
        };
        for (error, exit) in [
            (io(std::io::ErrorKind::StorageFull), Exit::NoSpace),
            (io(std::io::ErrorKind::PermissionDenied), Exit::Privilege),
            (JournalError::InUse("journal".into()), Exit::Refused),
            (JournalError::Missing("journal".into()), Exit::Refused),
            (JournalError::Failed("gone".into()), Exit::Failed),
        ] {
            assert_eq!(Failure::from(error).exit, exit);
        }
    }
}
