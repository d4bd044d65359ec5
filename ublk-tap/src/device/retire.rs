//! Before a device is stopped: nobody mounts it, and what the kernel caches for it is written.
//!
//! A dirty page that meets a stopped device is lost with an error nobody sees. So the block device
//! is held for us alone until it is gone, and synced while it still serves; both by a process of its
//! own ([`hold`]), for that may take as long as the disk does.
//!
//! [`hold`]: super::hold

use super::error::RetireError;
use super::hold::{Holder, Terms};
use std::io;
use std::path::Path;

/// How far it has come.
#[derive(Debug, Default)]
pub(super) struct Retirement {
    stage: Stage,
    /// What a sync has said. For good: a second one would say nothing of what the first one lost (P10).
    lost: Option<String>,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Serving,
    /// Whether it can be held is not known yet.
    Asking(Holder),
    Held(Holder),
    Writing(Holder),
    Written {
        _held: Holder,
    },
}

impl Retirement {
    /// Keeps `path` from being mounted; asked again until it is kept. Refused while somebody else
    /// has it for himself.
    pub(super) fn hold(&mut self, path: &Path) -> Result<(), RetireError> {
        self.hold_with(|| Holder::start(path, Terms::Alone))
    }

    /// Takes `path` out of use; asked again until it is. With `must_be_free` nobody else may have
    /// it for himself.
    pub(super) fn step(&mut self, path: &Path, must_be_free: bool) -> Result<(), RetireError> {
        let terms = match must_be_free {
            true => Terms::Alone,
            false => Terms::Shared,
        };
        match self.step_with(|| Holder::start(path, terms)) {
            // It was asked for on other terms.
            Err(RetireError::InUse) if !must_be_free => Err(RetireError::Writing),
            other => other,
        }
    }

    fn hold_with(&mut self, start: impl FnOnce() -> io::Result<Holder>) -> Result<(), RetireError> {
        match std::mem::take(&mut self.stage) {
            Stage::Serving => {
                match start() {
                    Ok(holder) => self.stage = Stage::Asking(holder),
                    Err(error) => {
                        tracing::warn!(%error, "no thread to hold a device; trying again");
                    }
                }
                Err(RetireError::Writing)
            }
            Stage::Asking(mut holder) => match holder.poll() {
                None => {
                    self.stage = Stage::Asking(holder);
                    Err(RetireError::Writing)
                }
                Some(Ok(())) => {
                    self.stage = Stage::Held(holder);
                    Ok(())
                }
                Some(Err(error)) if error.raw_os_error() == Some(libc::EBUSY) => {
                    Err(RetireError::InUse)
                }
                Some(Err(error)) => Err(RetireError::Sync(error.to_string())),
            },
            held => {
                self.stage = held;
                Ok(())
            }
        }
    }

    fn step_with(&mut self, start: impl FnOnce() -> io::Result<Holder>) -> Result<(), RetireError> {
        self.hold_with(start)?;
        if let Some(words) = &self.lost {
            return Err(RetireError::Sync(words.clone()));
        }
        match std::mem::take(&mut self.stage) {
            Stage::Held(mut holder) => match holder.write() {
                Ok(()) => {
                    self.stage = Stage::Writing(holder);
                    Err(RetireError::Writing)
                }
                Err(error) => self.lose(holder, &error),
            },
            Stage::Writing(mut holder) => match holder.poll() {
                None => {
                    self.stage = Stage::Writing(holder);
                    Err(RetireError::Writing)
                }
                Some(Ok(())) => {
                    self.stage = Stage::Written { _held: holder };
                    Ok(())
                }
                Some(Err(error)) => self.lose(holder, &error),
            },
            written => {
                self.stage = written;
                Ok(())
            }
        }
    }

    /// It stays in use. A sync under way goes on, and lets go of the device at its end.
    pub(super) fn undo(&mut self) {
        self.stage = Stage::Serving;
    }

    /// It is held all the same: nobody mounts what is taken away with a loss.
    fn lose(&mut self, holder: Holder, error: &io::Error) -> Result<(), RetireError> {
        let words = error.to_string();
        self.stage = Stage::Held(holder);
        self.lost = Some(words.clone());
        Err(RetireError::Sync(words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::{Duration, Instant};

    /// Who holds, as far as is seen from here.
    fn says(script: &str) -> io::Result<Holder> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Holder::start_as(command)
    }

    /// Asks until it is decided.
    fn decide(mut ask: impl FnMut() -> Result<(), RetireError>) -> Result<(), RetireError> {
        let start = Instant::now();
        loop {
            match ask() {
                Err(RetireError::Writing) => {
                    assert!(start.elapsed() < Duration::from_secs(10), "it never ends");
                    std::thread::sleep(Duration::from_millis(1));
                }
                decided => return decided,
            }
        }
    }

    #[test]
    fn a_device_is_held_then_synced_and_let_go_when_it_stays() {
        let mark = tempfile::NamedTempFile::new().unwrap();
        let place = mark.path().display();
        let script = format!(
            "echo held; read -r word; echo $word >{place}; echo written; cat >/dev/null; \
             echo over >>{place}"
        );
        let read = || std::fs::read_to_string(mark.path()).unwrap();
        let mut retirement = Retirement::default();
        let begun = retirement.hold_with(|| says(&script));
        assert!(matches!(begun, Err(RetireError::Writing)), "it is asked");
        decide(|| retirement.hold_with(|| says(&script))).unwrap();
        retirement.hold(mark.path()).unwrap();
        assert_eq!(read(), "", "nothing is written before it is told to");
        decide(|| retirement.step_with(|| says(&script))).unwrap();
        assert!(retirement.step(mark.path(), true).is_ok(), "stays so");
        assert_eq!(read(), "write\n", "it is held");
        retirement.undo();
        let start = Instant::now();
        while read() != "write\nover\n" {
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
        let error = decide(|| retirement.step_with(|| says("echo busy"))).unwrap_err();
        assert!(matches!(error, RetireError::InUse));
        let good = "echo held; read -r word; echo written; cat";
        decide(|| retirement.step_with(|| says(good))).unwrap();
    }

    #[test]
    fn a_failed_sync_stays_failed_and_the_device_is_held() {
        for script in ["echo sync it: no; cat", "exit 1", "kill -KILL $$"] {
            let script = format!("echo held; read -r word; {script}");
            let mut retirement = Retirement::default();
            let error = decide(|| retirement.step_with(|| says(&script))).unwrap_err();
            assert!(
                error.to_string().contains("could not be written"),
                "{error}"
            );
            assert!(matches!(retirement.stage, Stage::Held(_)));
            retirement.undo();
            let good = "echo held; read -r word; echo written; cat";
            decide(|| retirement.hold_with(|| says(good))).unwrap();
            let again = decide(|| retirement.step_with(|| says(good)));
            assert!(matches!(again, Err(RetireError::Sync(_))), "P10");
        }
    }
}
