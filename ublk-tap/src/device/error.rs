//! Why a device cannot be made, stopped or deleted: one line each, and an exit code.

use libublk::UblkError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a device cannot be made or deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The kernel module is not there.
    #[error(
        "this kernel has no ublk driver loaded; run `modprobe ublk_drv` (Linux 6.5 or newer), or \
             add with `--frontend nbd`"
    )]
    NoDriver,
    /// We may not use the driver.
    #[error("no permission to use /dev/ublk-control; run as root")]
    NoPermission,
    /// The driver is too old or built without it.
    #[error("the ublk driver lacks {0}; use Linux 6.5 or newer")]
    NoFeature(&'static str),
    /// The request shape makes no sense.
    #[error("bad device settings: {0}")]
    BadShape(&'static str),
    /// The kernel did not answer.
    #[error("the kernel did not {what} within {} s; see the kernel log (dmesg)", within.as_secs())]
    TimedOut {
        /// What we asked for.
        what: &'static str,
        /// How long we waited.
        within: Duration,
    },
    /// There is no io_uring for us.
    #[error(
        "this host gives us no io_uring ({0}); use Linux 5.6 or newer, and allow it (sysctl \
         kernel.io_uring_disabled=0)"
    )]
    NoUring(io::Error),
    /// Nobody can connect.
    #[error("cannot listen at {}: {source}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel said no.
    #[error("the kernel refused to {what}: {source}; see the kernel log (dmesg)")]
    Refused {
        /// What we asked for.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
}

/// Why a device is not stopped yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// Requests are still in flight; stopping goes on, ask again.
    #[error("requests are still waiting for the disk or for room in the ring")]
    Draining,
}

/// Why a device may not be stopped.
#[derive(Debug, thiserror::Error)]
pub enum RetireError {
    /// What the kernel caches for it is being written; ask again.
    #[error("what is cached for it is still being written")]
    Writing,
    /// A mount, a mapping or swap has it for itself.
    #[error("it is mounted or held; unmount it first")]
    InUse,
    /// What the kernel cached for it could not be written.
    #[error("what was cached for it could not be written: {0}")]
    Sync(String),
}

impl DeviceError {
    /// The exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoDriver | Self::NoPermission | Self::NoFeature(_) | Self::NoUring(_) => 5,
            Self::BadShape(_) => 2,
            Self::TimedOut { .. } => 4,
            Self::Refused { .. } | Self::Socket { .. } => 1,
        }
    }

    /// `what` was refused with `source`.
    pub(super) fn refused(what: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Refused {
            what,
            source: source.into(),
        }
    }

    /// `what` failed inside libublk.
    pub(super) fn from_ublk(what: &'static str, error: UblkError) -> Self {
        let source = match error {
            UblkError::IOError(source) => source,
            UblkError::UringIOError(errno) | UblkError::OtherError(errno) => {
                io::Error::from_raw_os_error(errno.abs())
            }
            other => io::Error::other(other.to_string()),
        };
        match source.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => Self::NoPermission,
            _ => Self::Refused { what, source },
        }
    }
}
