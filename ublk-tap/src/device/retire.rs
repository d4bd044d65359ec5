//! Before a device is stopped: what the kernel caches for it is written, and nobody mounts it.
//!
//! A dirty page that meets a stopped device is lost with an error nobody sees. So the block device is
//! synced while it still serves, by a thread of its own, for that may take as long as the disk does;
//! and it is held open for us alone until it is gone.

use super::error::RetireError;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::{Builder, JoinHandle};

/// How far it has come.
#[derive(Debug, Default)]
pub(super) enum Retirement {
    #[default]
    Serving,
    Writing(JoinHandle<io::Result<File>>),
    /// Held, where nobody else had it.
    Done(File),
    /// For good: a second sync would say nothing of what the first one lost (P10).
    Failed(String),
}

impl Retirement {
    /// Takes `path` out of use; asked again until it is. With `must_be_free` nobody else may have
    /// it for himself.
    pub(super) fn step(&mut self, path: &Path, must_be_free: bool) -> Result<(), RetireError> {
        match std::mem::take(self) {
            Self::Serving => {
                *self = Self::begin(path.to_owned(), must_be_free);
                Err(RetireError::Writing)
            }
            Self::Writing(thread) if !thread.is_finished() => {
                *self = Self::Writing(thread);
                Err(RetireError::Writing)
            }
            Self::Writing(thread) => self.end(thread),
            Self::Done(file) => {
                *self = Self::Done(file);
                Ok(())
            }
            Self::Failed(words) => {
                *self = Self::Failed(words.clone());
                Err(RetireError::Sync(words))
            }
        }
    }

    /// It stays in use. A sync under way goes on, and lets go of the device at its end.
    pub(super) fn undo(&mut self) {
        if !matches!(self, Self::Failed(_)) {
            *self = Self::Serving;
        }
    }

    /// Whether it is we who have it for ourselves, or are about to.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self, Self::Writing(_) | Self::Done(_))
    }

    fn begin(path: PathBuf, must_be_free: bool) -> Self {
        let write = move || {
            let file = open(&path, must_be_free)?;
            file.sync_all().map_err(|error| {
                // Whatever it says, it is no mount.
                io::Error::other(format!("sync {}: {error}", path.display()))
            })?;
            Ok(file)
        };
        match Builder::new().name("ublk-sync".to_owned()).spawn(write) {
            Ok(thread) => Self::Writing(thread),
            Err(error) => {
                tracing::warn!(%error, "no thread to sync a device; trying again");
                Self::Serving
            }
        }
    }

    fn end(&mut self, thread: JoinHandle<io::Result<File>>) -> Result<(), RetireError> {
        let written = thread.join();
        let written = written.unwrap_or_else(|_| Err(io::Error::other("its thread panicked")));
        match written {
            Ok(file) => {
                *self = Self::Done(file);
                Ok(())
            }
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Err(RetireError::InUse),
            Err(error) => {
                let words = error.to_string();
                *self = Self::Failed(words.clone());
                Err(RetireError::Sync(words))
            }
        }
    }
}

/// Read-only, so that closing it does not have udev look at a device that goes.
fn open(path: &Path, must_be_free: bool) -> io::Result<File> {
    let open = |flags| {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(flags).open(path)
    };
    match open(libc::O_EXCL) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) && !must_be_free => open(0),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// Asks until it is decided.
    fn decide(retirement: &mut Retirement, path: &Path) -> Result<(), RetireError> {
        let start = Instant::now();
        loop {
            match retirement.step(path, true) {
                Err(RetireError::Writing) => {
                    assert!(start.elapsed() < Duration::from_secs(10), "it never ends");
                    std::thread::sleep(Duration::from_millis(1));
                }
                decided => return decided,
            }
        }
    }

    #[test]
    fn a_device_is_synced_and_held_until_it_is_gone_or_stays() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut retirement = Retirement::default();
        assert!(matches!(
            retirement.step(file.path(), true),
            Err(RetireError::Writing)
        ));
        decide(&mut retirement, file.path()).unwrap();
        assert!(retirement.is_ours());
        assert!(retirement.step(file.path(), true).is_ok(), "stays so");
        retirement.undo();
        assert!(!retirement.is_ours());
    }

    #[test]
    fn a_failed_sync_stays_failed() {
        let mut retirement = Retirement::default();
        // A pipe takes no sync.
        let (reader, _writer) = io::pipe().unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&reader);
        let path = PathBuf::from(format!("/proc/self/fd/{fd}"));
        let error = decide(&mut retirement, &path).unwrap_err();
        assert!(
            error.to_string().contains("could not be written"),
            "{error}"
        );
        retirement.undo();
        let file = tempfile::NamedTempFile::new().unwrap();
        let again = retirement.step(file.path(), true);
        assert!(matches!(again, Err(RetireError::Sync(_))), "P10");
    }
}
