//! The shipper's program, and how it is run.

use super::account::Account;
use crate::settings::Dirs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Environment variable that names the shipper's program.
const PROGRAM_VAR: &str = "UBLK_TAP_SHIPPER_BIN";
const NAME: &str = "ublk-tap-shipper";

/// The shipper's program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
}

/// Why there is no program.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It is not where it should be.
    #[error("no {NAME} at {}; install it beside ublk-tap, or name it in {PROGRAM_VAR}", .0.display())]
    Missing(PathBuf),
    /// Our own place is unknown.
    #[error("cannot tell where ublk-tap itself is: {0}; name the shipper in {PROGRAM_VAR}")]
    Lost(io::Error),
}

impl Program {
    /// The program the environment names, else the one beside our own.
    pub fn find() -> Result<Self, ProgramError> {
        let named = std::env::var_os(PROGRAM_VAR).filter(|value| !value.is_empty());
        let path = match named {
            Some(path) => PathBuf::from(path),
            None => std::env::current_exe()
                .map_err(ProgramError::Lost)?
                .with_file_name(NAME),
        };
        if !path.is_file() {
            return Err(ProgramError::Missing(path));
        }
        Ok(Self { path })
    }

    /// The program at a path.
    pub fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A command that runs it without privilege: as `account` where we are root, in `/`, with
    /// nothing to read.
    pub fn command(&self, dirs: &Dirs, account: Account) -> Command {
        let mut command = Command::new(&self.path);
        for (variable, dir) in dirs.to_env() {
            command.env(variable, dir);
        }
        command.current_dir("/").stdin(Stdio::null());
        if rustix::process::geteuid().is_root() {
            // Also drops every supplementary group, as std does when a user is set.
            command.uid(account.uid).gid(account.gid);
        }
        command
    }
}
