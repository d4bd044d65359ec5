//! One tap per group and host: a lock that lives as long as its process.

use crate::settings::Dirs;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use wire::Name;

/// The right to be, or to clean up after, the tap of a group.
#[derive(Debug)]
pub struct GroupLock {
    _file: File,
}

/// Why the lock is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A tap has it.
    #[error("the tap of group {group} runs already{}", pid.map_or(String::new(), |pid| format!(" (process {pid})")))]
    Held {
        /// The group.
        group: Name,
        /// The tap's process, if it is known.
        pid: Option<i32>,
    },
    /// The system refused.
    #[error("cannot lock {}: {source}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A file that goes away while it is locked is locked again; more often than this is a mistake.
const TRIES_MAX: usize = 8;

/// How long somebody may have the lock who only looks whether a tap has it, or a tap that just ends.
const LOOK_PATIENCE: Duration = Duration::from_millis(500);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

impl GroupLock {
    /// Takes the lock to be the tap: nobody who only looks who has it is in the way.
    pub(super) fn take_to_run(dirs: &Dirs, group: &Name) -> Result<Self, LockError> {
        let deadline = Instant::now() + LOOK_PATIENCE;
        loop {
            match Self::take(dirs, group) {
                Err(LockError::Held { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(LOOK_INTERVAL);
                }
                decided => return decided,
            }
        }
    }

    /// Takes the lock at once, or says who has it. The group's run directory exists.
    pub fn take(dirs: &Dirs, group: &Name) -> Result<Self, LockError> {
        let path = dirs.lock(group);
        let io = |source: io::Error| LockError::Io {
            path: path.clone(),
            source,
        };
        for _ in 0..TRIES_MAX {
            let mut options = OpenOptions::new();
            let options = options.write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(&path).map_err(io)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    return Err(LockError::Held {
                        group: group.clone(),
                        pid: pid(dirs, group),
                    });
                }
                Err(errno) => return Err(io(errno.into())),
            }
            // A tap that ended well has removed its file: the lock on it says nothing.
            if is_same(&file, &path) {
                return Ok(Self { _file: file });
            }
        }
        Err(io(io::Error::other("it is replaced again and again")))
    }
}

/// Process of the group's tap, if one runs.
pub fn live_pid(dirs: &Dirs, group: &Name) -> Option<i32> {
    if !dirs.group_run(group).is_dir() || !dirs.lock(group).exists() {
        return None;
    }
    match GroupLock::take(dirs, group) {
        Err(LockError::Held { pid, .. }) => Some(pid.unwrap_or(0)),
        _ => None,
    }
}

/// Whether a process exists and is not only waiting to be forgotten.
pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit(')').next().unwrap_or_default();
    !rest.trim().is_empty() && !rest.starts_with(" Z")
}

fn pid(dirs: &Dirs, group: &Name) -> Option<i32> {
    fs::read_to_string(dirs.pid(group))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn is_same(file: &File, path: &Path) -> bool {
    let key = |meta: fs::Metadata| (meta.dev(), meta.ino());
    let (ours, found) = (file.metadata().map(key), fs::metadata(path).map(key));
    matches!((ours, found), (Ok(ours), Ok(found)) if ours == found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, Dirs, Name) {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs {
            run: root.path().into(),
            ..Dirs::from_env()
        };
        let group = Name::new("pg").unwrap();
        fs::create_dir(dirs.group_run(&group)).unwrap();
        (root, dirs, group)
    }

    #[test]
    fn a_group_has_one_tap_and_the_next_after_it_has_ended() {
        let (_root, dirs, group) = place();
        assert_eq!(live_pid(&dirs, &group), None);
        let lock = GroupLock::take(&dirs, &group).unwrap();
        fs::write(dirs.pid(&group), "4711\n").unwrap();
        let error = GroupLock::take(&dirs, &group).unwrap_err();
        assert!(error.to_string().contains("4711"), "{error}");
        assert_eq!(live_pid(&dirs, &group), Some(4711));
        drop(lock);
        assert_eq!(live_pid(&dirs, &group), None);
    }

    #[test]
    fn who_only_looks_at_the_lock_keeps_no_tap_from_starting_and_a_tap_does() {
        let (_root, dirs, group) = place();
        let looks = GroupLock::take(&dirs, &group).unwrap();
        let looking = std::thread::spawn(move || {
            std::thread::sleep(LOOK_PATIENCE / 5);
            drop(looks);
        });
        let _tap = GroupLock::take_to_run(&dirs, &group).unwrap();
        looking.join().unwrap();
        let second = GroupLock::take_to_run(&dirs, &group);
        assert!(matches!(second, Err(LockError::Held { .. })));
    }

    #[test]
    fn a_lock_on_a_file_that_was_removed_is_worth_nothing() {
        let (_root, dirs, group) = place();
        let old = GroupLock::take(&dirs, &group).unwrap();
        fs::remove_file(dirs.lock(&group)).unwrap();
        let new = GroupLock::take(&dirs, &group).unwrap();
        drop(old);
        assert!(GroupLock::take(&dirs, &group).is_err());
        drop(new);
    }

    #[test]
    fn we_are_alive_and_nobody_has_process_zero() {
        assert!(is_alive(std::process::id() as i32));
        assert!(!is_alive(0));
    }
}
