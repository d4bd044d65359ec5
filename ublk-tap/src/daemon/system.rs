//! What only the system can do for a process. One of the modules of this crate with `unsafe`: the
//! standard library and rustix have no safe way for these few calls.
#![allow(unsafe_code)]

use rustix::mm::MlockAllFlags;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// The signals that end a tap, blocked in every thread and waited for in one.
#[derive(Clone, Copy)]
pub(super) struct Signals(libc::sigset_t);

/// Signals that end a tap.
const ENDING: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Blocks the signals that end a tap, in this thread and those it starts. Call it first.
pub(super) fn block_signals() -> io::Result<Signals> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: needed because no safe interface to signal masks is at hand. `sigemptyset` makes the
    // set whole before anything reads it; the other calls only read and write this set.
    let (failed, set) = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in ENDING {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        let failed = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        (failed, set.assume_init())
    };
    match failed {
        0 => Ok(Signals(set)),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

impl Signals {
    /// Waits for one of them.
    pub(super) fn wait(&self) -> io::Result<()> {
        let mut signal = 0;
        // SAFETY: as in `block_signals`; both pointers are to live values of this frame.
        let failed = unsafe { libc::sigwait(&self.0, &mut signal) };
        match failed {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// Makes a child that ends when its tap is killed, so that no shipper of a dead tap stays behind,
/// and that takes the signals we have blocked for ourselves.
pub(super) fn die_with_parent(command: &mut Command) {
    let prepare = || {
        let mut none = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: needed as in `block_signals`; `sigemptyset` makes the set whole before it is read.
        let failed = unsafe {
            libc::sigemptyset(none.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut())
        };
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        Ok(rustix::process::set_parent_process_death_signal(Some(
            TERM,
        ))?)
    };
    // SAFETY: needed because a parent cannot set this for its child. The closure runs in the child
    // between fork and exec and makes two system calls: it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// Waits for children this process had as another program: its shipper, told to end with it.
pub(super) fn reap_children() {
    let deadline = Instant::now() + REAP_PATIENCE;
    while Instant::now() < deadline {
        match rustix::process::wait(rustix::process::WaitOptions::NOHANG) {
            Ok(Some((pid, _))) => tracing::debug!(?pid, "a child of the tap before us has ended"),
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Err(_) => return, // there is none left
        }
    }
}

/// How long they may take.
const REAP_PATIENCE: Duration = Duration::from_secs(3);

const TERM: rustix::process::Signal = rustix::process::Signal::TERM;

/// Keeps the process in memory. What is missing of it is said in the log; the tap works without.
pub(super) fn stay_in_memory() {
    // Pages are locked when they are first touched: what a thread never uses of its stack stays
    // unused.
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if let Err(error) = rustix::mm::mlockall(flags) {
        tracing::warn!(%error, "memory is not locked: it may be swapped to our own disks");
    }
}
