//! The file: two slots written in turn, so that a torn write leaves the other one whole.
//!
//! Every commit is on the disk when it returns. A commit that failed is sticky (P10): what the disk
//! holds is unknown then, and no later commit pretends otherwise; only opening the file anew does.

use super::codec::{SLOT_BYTES, parse, slot};
use super::model::State;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use wire::{DecodeError, Name};

/// The state file of a group, open for the group's one tap.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    file: File,
    sequence: u64,
    state: State,
    failed: Option<String>,
}

/// Why the state cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Neither slot is whole.
    #[error(
        "state file {} is damaged ({reason}); move it away, and every volume is copied again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with the better slot.
        reason: String,
    },
    /// A later version of the tap has written it.
    #[error(
        "state file {} has version {version}, from a newer ublk-tap; use that one",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u16,
    },
    /// It is another group's file.
    #[error("state file {} is of group {found}; put the right one back", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: Name,
    },
    /// The system refused.
    #[error("cannot {what} state file {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier write failed.
    #[error("state file {} could not be written ({reason}); restart the tap", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// What the system said then.
        reason: String,
    },
}

impl StateFile {
    /// Opens the group's file; makes one holding `fresh` if there is none.
    pub fn open_or_create(path: &Path, fresh: State) -> Result<Self, StateError> {
        if !path.try_exists().map_err(io_error("look for", path))? {
            create(path, &fresh)?;
        }
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let mut file = opened.map_err(io_error("open", path))?;
        let (sequence, state) = read(&mut file, path)?;
        check_group(path, &state, &fresh.group)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            sequence,
            state,
            failed: None,
        })
    }

    /// What a group's file says, for a look from outside; none without a file.
    pub fn peek(path: &Path, group: &Name) -> Result<Option<State>, StateError> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("open", path)(error)),
        };
        let (_, state) = read(&mut file, path)?;
        check_group(path, &state, group)?;
        Ok(Some(state))
    }

    /// What was committed last.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes `state` the one that is found after a crash; durable when this returns.
    pub fn commit(&mut self, state: State) -> Result<(), StateError> {
        if let Some(reason) = &self.failed {
            return Err(StateError::Failed {
                path: self.path.clone(),
                reason: reason.clone(),
            });
        }
        let sequence = self.sequence + 1;
        let bytes = slot(sequence, &state);
        let offset = sequence % 2 * SLOT_BYTES as u64;
        let written = self
            .file
            .write_all_at(&bytes, offset)
            .and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            self.failed = Some(source.to_string());
            return Err(io_error("write", &self.path)(source));
        }
        self.sequence = sequence;
        self.state = state;
        Ok(())
    }

    /// Changes the state and commits it; gives what the change gives.
    pub fn update<T>(&mut self, change: impl FnOnce(&mut State) -> T) -> Result<T, StateError> {
        let mut state = self.state.clone();
        let told = change(&mut state);
        self.commit(state)?;
        Ok(told)
    }

    /// Lets every later commit fail.
    #[cfg(test)]
    pub(super) fn break_for_test(&mut self, read_only: File) {
        self.file = read_only;
    }

    /// Removes a file that says nothing: one of a group without volumes.
    pub fn remove_if_empty(self) -> io::Result<()> {
        if !self.state.volumes.is_empty() {
            return Ok(());
        }
        fs::remove_file(&self.path)?;
        sync_dir_of(&self.path)
    }
}

impl StateError {
    /// Whether the disk of the state is full.
    pub fn is_no_space(&self) -> bool {
        let full = |error: &io::Error| error.kind() == io::ErrorKind::StorageFull;
        matches!(self, Self::Io { source, .. } if full(source))
    }

    /// Whether the state is there, but not to be used.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. } | Self::Newer { .. } | Self::Foreign { .. }
        )
    }

    /// Whether permission is missing.
    pub fn is_privilege(&self) -> bool {
        let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        matches!(self, Self::Io { source, .. } if denied(source))
    }
}

/// Makes the file whole before it has its name: both slots written, all of it synced.
fn create(path: &Path, state: &State) -> Result<(), StateError> {
    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
    fs::create_dir_all(dir).map_err(io_error("make the directory of", path))?;
    let fresh = dir.join(format!(".{}.state.new", state.group));
    let written = write_fresh(&fresh, state).and_then(|()| fs::rename(&fresh, path));
    written
        .and_then(|()| sync_dir_of(path))
        .map_err(io_error("create", path))
}

fn write_fresh(fresh: &Path, state: &State) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(fresh)?;
    file.write_all(&slot(0, state))?;
    file.write_all(&slot(1, state))?;
    file.sync_all()
}

fn sync_dir_of(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// The newer slot. With one of them damaged nothing is clean any more.
fn read(file: &mut File, path: &Path) -> Result<(u64, State), StateError> {
    let mut bytes = Vec::new();
    let read = file.take(2 * SLOT_BYTES as u64).read_to_end(&mut bytes);
    read.map_err(io_error("read", path))?;
    let (first, second) = bytes.split_at(bytes.len().min(SLOT_BYTES));
    match (parse(first), parse(second)) {
        (Err(DecodeError::UnknownVersion(version)), _)
        | (_, Err(DecodeError::UnknownVersion(version))) => Err(StateError::Newer {
            path: path.to_owned(),
            version,
        }),
        (Ok(one), Ok(other)) => Ok(if other.0 > one.0 { other } else { one }),
        (Ok((sequence, mut state)), Err(_)) | (Err(_), Ok((sequence, mut state))) => {
            // Was the damaged slot the newer one, this one's clean marks are lies (P5).
            state.doubt();
            Ok((sequence, state))
        }
        (Err(error), Err(_)) => Err(StateError::Damaged {
            path: path.to_owned(),
            reason: error.to_string(),
        }),
    }
}

fn check_group(path: &Path, state: &State, group: &Name) -> Result<(), StateError> {
    if state.group == *group {
        return Ok(());
    }
    Err(StateError::Foreign {
        path: path.to_owned(),
        found: state.group.clone(),
    })
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { what, path, source }
}
