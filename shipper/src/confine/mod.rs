//! What the shipper gives up before it touches the network or the ring.
//!
//! It holds the host's key, speaks to the network and reads what applications wrote: should any of
//! that take it over, what is left to take is this process. In order, since each step needs what a
//! later one takes away:
//!
//! 1. **limits**: no core file, which would hold the key; few descriptors; a log that ends.
//! 2. **capabilities**: none in any set, and root becomes the unprivileged user.
//! 3. **no new privileges**: nothing it could run would give it any.
//! 4. **Landlock**: reads its enrolment and what names are resolved with, and no other file.
//! 5. **not dumpable**: no other process of its user may look into it.
//! 6. **seccomp**: the system calls it makes, and no others.
//!
//! A step that fails is an error. A kernel without Landlock is none: one line in the log says so,
//! and the other steps hold. Why so: `docs/decisions/shipper-confinement.md`.

mod capabilities;
mod landlock;
mod seccomp;

use crate::user::{self, PASSWORD_FILE, USERS};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{Gid, Uid};
use std::fs;
use std::path::{Path, PathBuf};

/// Descriptors the shipper may hold: it needs some twenty.
const DESCRIPTORS_MAX: u64 = 256;
/// How far one life may lengthen its log, which lies in memory and is cut by the tap far earlier.
const LOG_GROWTH_BYTES_MAX: u64 = 64 << 20;
/// Threads of this very process.
const OWN_THREADS: &str = "/proc/self/task";

/// Why the process is not confined, and must not go on.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// There is no configuration directory, so no enrolment either.
    #[error("this host has not joined a receiver: run `ublk-tap join TOKEN` ({0} does not exist)")]
    NotJoined(PathBuf),
    /// The configuration directory cannot be opened.
    #[error("cannot open {path}: {reason}; user {} must be able to read it", USERS[0])]
    Config {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Root has nobody to become.
    #[error("root must not ship, and there is no user {} or {}: create the first", USERS[0], USERS[1])]
    NoUser,
    /// There are threads already, which would stay as they are.
    #[error("cannot confine a process that has {0} threads")]
    Threads(usize),
    /// The system refuses a step.
    #[error("cannot {step}: {errno}")]
    System {
        /// What was to be done.
        step: &'static str,
        /// What the system said.
        errno: Errno,
    },
    /// The kernel does not take the rules for files.
    #[error("cannot restrict files: {0}")]
    Landlock(#[from] ::landlock::RulesetError),
    /// The kernel does not take the system call filter, or it cannot be made.
    #[error("cannot filter system calls: {0}")]
    Seccomp(#[from] seccompiler::Error),
}

impl ConfineError {
    /// Whether the host only has to join first.
    pub fn is_not_joined(&self) -> bool {
        matches!(self, Self::NotJoined(_))
    }
}

/// Gives up everything but what shipping needs; `config` is the configuration directory.
///
/// For good, and for this thread: there must be no other yet. Those that start later inherit it.
pub fn confine(config: &Path) -> Result<(), ConfineError> {
    check_alone()?;
    let files = landlock::Files::open(config)?;
    limit()?;
    capabilities::empty_bounding_set()?;
    leave_root()?;
    capabilities::empty_sets()?;
    rustix::thread::set_no_new_privs(true).map_err(cannot("rule out new privileges"))?;
    files.restrict()?;
    let hidden = DumpableBehavior::NotDumpable;
    rustix::process::set_dumpable_behavior(hidden).map_err(cannot("hide from other processes"))?;
    seccomp::install()
}

/// Without `/proc` it is taken on trust: `main` starts none before.
fn check_alone() -> Result<(), ConfineError> {
    let threads = fs::read_dir(OWN_THREADS).map_or(1, Iterator::count);
    if threads > 1 {
        return Err(ConfineError::Threads(threads));
    }
    Ok(())
}

/// Processes are not limited: the count would be that of everything `nobody` runs.
fn limit() -> Result<(), ConfineError> {
    let limits = [
        (Resource::Core, 0),
        (
            Resource::Fsize,
            log_bytes().saturating_add(LOG_GROWTH_BYTES_MAX),
        ),
        (Resource::Nofile, DESCRIPTORS_MAX),
    ];
    for (resource, most) in limits {
        let before = rustix::process::getrlimit(resource);
        let maximum = Some(before.maximum.map_or(most, |before| before.min(most)));
        let current = maximum;
        let limit = Rlimit { current, maximum };
        rustix::process::setrlimit(resource, limit).map_err(cannot("limit resources"))?;
    }
    Ok(())
}

/// What the log, the only file there is to write, holds already.
fn log_bytes() -> u64 {
    let log = rustix::fs::fstat(std::io::stderr());
    let is_file = |mode| rustix::fs::FileType::from_raw_mode(mode).is_file();
    log.map_or(0, |log| {
        if is_file(log.st_mode) {
            log.st_size as u64
        } else {
            0
        }
    })
}

/// Root becomes the unprivileged user, without any supplementary group.
fn leave_root() -> Result<(), ConfineError> {
    if !rustix::process::geteuid().is_root() && !rustix::process::getuid().is_root() {
        return Ok(());
    }
    let user = user::shipper_user(Path::new(PASSWORD_FILE)).ok_or(ConfineError::NoUser)?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let left = rustix::thread::set_thread_groups(&[])
        .and_then(|()| rustix::thread::set_thread_res_gid(gid, gid, gid))
        .and_then(|()| rustix::thread::set_thread_res_uid(uid, uid, uid));
    left.map_err(cannot("become an unprivileged user"))
}

fn cannot(step: &'static str) -> impl Fn(Errno) -> ConfineError {
    move |errno| ConfineError::System { step, errno }
}
