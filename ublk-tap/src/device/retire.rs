//! Before a device is stopped: what the kernel caches for it is written, and nobody mounts it.
//!
//! A dirty page that meets a stopped device is lost with an error nobody sees. So the block device is
//! synced while it still serves, by a process of its own ([`hold`]), for that may take as long as
//! the disk does; and it is held for us alone until it is gone.

use super::error::RetireError;
use super::hold::{self, Held, Terms};
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError};

/// How far it has come.
#[derive(Debug, Default)]
pub(super) enum Retirement {
    #[default]
    Serving,
    Writing(Receiver<io::Result<Held>>),
    /// Held, where nobody else had it.
    Done(Held),
    /// For good: a second sync would say nothing of what the first one lost (P10).
    Failed(String),
}

impl Retirement {
    /// Takes `path` out of use; asked again until it is. With `must_be_free` nobody else may have
    /// it for himself.
    pub(super) fn step(&mut self, path: &Path, must_be_free: bool) -> Result<(), RetireError> {
        let terms = match must_be_free {
            true => Terms::Alone,
            false => Terms::Shared,
        };
        self.step_with(|| hold::start(path, terms))
    }

    fn step_with(
        &mut self,
        start: impl FnOnce() -> io::Result<Receiver<io::Result<Held>>>,
    ) -> Result<(), RetireError> {
        match std::mem::take(self) {
            Self::Serving => {
                match start() {
                    Ok(told) => *self = Self::Writing(told),
                    Err(error) => {
                        tracing::warn!(%error, "no thread to sync a device; trying again");
                    }
                }
                Err(RetireError::Writing)
            }
            Self::Writing(told) => match told.try_recv() {
                Err(TryRecvError::Empty) => {
                    *self = Self::Writing(told);
                    Err(RetireError::Writing)
                }
                Err(TryRecvError::Disconnected) => {
                    self.end(Err(io::Error::other("its thread panicked")))
                }
                Ok(written) => self.end(written),
            },
            Self::Done(held) => {
                *self = Self::Done(held);
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

    fn end(&mut self, written: io::Result<Held>) -> Result<(), RetireError> {
        match written {
            Ok(held) => {
                *self = Self::Done(held);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::{Duration, Instant};

    /// Who holds, as far as is seen from here.
    fn says(script: &str) -> io::Result<Receiver<io::Result<Held>>> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        hold::start_as(command)
    }

    /// Asks until it is decided.
    fn decide(retirement: &mut Retirement, script: &str) -> Result<(), RetireError> {
        let start = Instant::now();
        loop {
            match retirement.step_with(|| says(script)) {
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
        let mark = tempfile::NamedTempFile::new().unwrap();
        let script = format!(
            "echo held; cat >/dev/null; echo over >{}",
            mark.path().display()
        );
        let mut retirement = Retirement::default();
        let begun = retirement.step_with(|| says(&script));
        assert!(matches!(begun, Err(RetireError::Writing)));
        assert!(retirement.is_ours());
        decide(&mut retirement, &script).unwrap();
        assert!(retirement.step(mark.path(), true).is_ok(), "stays so");
        assert_eq!(std::fs::read(mark.path()).unwrap(), b"", "it is held");
        retirement.undo();
        assert!(!retirement.is_ours());
        let start = Instant::now();
        while std::fs::read(mark.path()).unwrap() != b"over\n" {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "it is not let go"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_device_somebody_has_is_no_failed_sync() {
        let mut retirement = Retirement::default();
        let error = decide(&mut retirement, "echo busy").unwrap_err();
        assert!(matches!(error, RetireError::InUse));
        decide(&mut retirement, "echo held").unwrap();
    }

    #[test]
    fn a_failed_sync_stays_failed() {
        for script in ["echo sync it: no", "exit 1", "kill -KILL $$"] {
            let mut retirement = Retirement::default();
            let error = decide(&mut retirement, script).unwrap_err();
            assert!(
                error.to_string().contains("could not be written"),
                "{error}"
            );
            retirement.undo();
            let again = decide(&mut retirement, "echo held");
            assert!(matches!(again, Err(RetireError::Sync(_))), "P10");
        }
    }
}
