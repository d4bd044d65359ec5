//! How a command, or a request to a running tap, ends: documented exit codes, and what is said with them.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
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
    /// The command line or a settings file is wrong.
    Usage = 2,
    /// Refused: identity, foreign, in use, bad state.
    Refused = 3,
    /// Nobody answers, or not in time.
    Unreachable = 4,
    /// Permission or kernel support is missing.
    Privilege = 5,
    /// No room in the ring's tmpfs, in memory or on a disk.
    NoSpace = 6,
}

/// A command that did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// One line: cause and next step.
    pub text: String,
}

impl Exit {
    /// The code with this number; an unknown one is a failure.
    pub fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Ok,
            2 => Self::Usage,
            3 => Self::Refused,
            4 => Self::Unreachable,
            5 => Self::Privilege,
            6 => Self::NoSpace,
            _ => Self::Failed,
        }
    }

    /// The code for an error of the system.
    pub fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Privilege,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            io::ErrorKind::TimedOut => Self::Unreachable,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Failure {
    /// A failure with this code and text.
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { exit, text }
    }

    /// Something failed.
    pub fn failed(text: impl Into<String>) -> Self {
        Self::new(Exit::Failed, text)
    }

    /// The command line or a settings file is wrong.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }

    /// The state of things forbids it.
    pub fn refused(text: impl Into<String>) -> Self {
        Self::new(Exit::Refused, text)
    }

    /// It did not happen in time.
    pub fn late(text: impl Into<String>) -> Self {
        Self::new(Exit::Unreachable, text)
    }

    /// The system refused `what`.
    pub fn of_io(what: &str, error: &io::Error) -> Self {
        Self::new(Exit::of_io(error), format!("cannot {what}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_survives_its_number() {
        for code in 0..=6 {
            assert_eq!(Exit::from_code(code) as u8, code);
        }
        assert_eq!(Exit::from_code(101), Exit::Failed);
    }
}
