//! Taking the disks of a tap that was killed, all at once, and saying who has one that is not free.
//!
//! A disk is ours when the last write of the dead tap has ended (P3), or whoever else has it lets go.

use super::spawn::{Said, tell_starter};
use super::{Options, left};
use crate::clock;
use crate::control::iso_8601;
use crate::device::Shape;
use crate::device::kernel::{self, KernelDevice};
use crate::disk::{Disk, DiskError, openers};
use crate::failure::{Exit, Failure};
use crate::group::clerk::{as_seen_by, check_registered, of_device, of_disk};
use crate::group::{Reopened, Start, Waits};
use crate::settings::Settings;
use crate::state::{State, Unclean};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::ScopedJoinHandle;
use std::time::Duration;
use wire::Name;

/// How long the dead tap's last writes may take to end.
const DISK_PATIENCE: Duration = Duration::from_secs(60);

/// A volume of a dead tap.
pub(super) struct Left {
    waits: Waits,
    volume: Name,
}

/// What is known before a disk is opened.
pub(super) struct Known<'a> {
    pub(super) options: &'a Options,
    pub(super) settings: &'a Settings,
    pub(super) state: &'a State,
    /// The process that started us, whose paths are meant.
    pub(super) starter: Option<i32>,
}

/// What the group's dead tap has left.
pub(super) fn left(options: &Options, state: &State) -> Result<Vec<Left>, Failure> {
    let mut left = devices_left(&options.group)?;
    let sockets = left::sockets(&options.dirs, state).into_iter();
    left.extend(sockets.map(|volume| Left {
        waits: Waits::Socket,
        volume,
    }));
    Ok(left)
}

impl Known<'_> {
    /// All at once: a disk that must be waited for does not have the others waited for after it.
    pub(super) fn reopen_all(&self, left: Vec<Left>) -> Result<Vec<Reopened>, Failure> {
        let opened: Vec<_> = std::thread::scope(|scope| {
            let start = |left| scope.spawn(move || self.reopen(left));
            let threads: Vec<_> = left.into_iter().map(start).collect();
            let join = |thread: ScopedJoinHandle<'_, _>| thread.join();
            threads.into_iter().map(join).collect()
        });
        let panicked = |_| {
            Err(Failure::failed(
                "a disk could not be opened: a thread panicked",
            ))
        };
        let opened = opened
            .into_iter()
            .map(|opened| opened.unwrap_or_else(panicked));
        let (volumes, failed): (Vec<_>, Vec<_>) = opened.partition(Result::is_ok);
        let failures: Vec<Failure> = failed.into_iter().filter_map(Result::err).collect();
        let texts: Vec<&str> = failures
            .iter()
            .map(|failure| failure.text.as_str())
            .collect();
        match failures.first() {
            // Nobody is served before all are: their writes have an order among each other.
            Some(first) => Err(Failure::new(first.exit, texts.join("; "))),
            None => Ok(volumes.into_iter().filter_map(Result::ok).collect()),
        }
    }

    /// Opens a disk of a dead tap. If that takes long, who has it is said, once.
    fn open_disk(&self, volume: &Name, path: &Path) -> Result<Disk, DiskError> {
        match Disk::open(path, Duration::ZERO) {
            Err(DiskError::Taken(_)) => {}
            decided => return decided,
        }
        let (group, disk) = (&self.options.group, path.display());
        let since = iso_8601(clock::now());
        let who =
            openers(path).unwrap_or_else(|| "the kernel, for writes of the killed tap".into());
        let (seconds, text) = (DISK_PATIENCE.as_secs(), "is held by");
        let text = format!(
            "{group}/{volume}: {disk} {text} {who}; waiting since {since}, {seconds} s at most"
        );
        tracing::warn!("{text}");
        if self.options.on_demand {
            tell_starter(&Said::Waits(text));
        }
        Disk::open(path, DISK_PATIENCE)
    }

    fn reopen(&self, left: Left) -> Result<Reopened, Failure> {
        let Left { waits, volume } = left;
        let Options { group, dirs, .. } = self.options;
        let front = match waits {
            Waits::Device(id) => kernel::block_path(id),
            Waits::Socket => dirs.nbd_socket(group, &volume),
        };
        let Some(known) = self.state.volume(&volume) else {
            let what = format!("{} is of a volume {volume} nobody knows", front.display());
            return Err(unknown(group, &what));
        };
        let path = PathBuf::from(&known.path);
        let seen = as_seen_by(self.starter, &path);
        let disk = self.open_disk(&volume, &seen).map_err(|error| {
            let failure = of_disk(&error);
            // Not a mistake of whoever starts us, as it would be of an `add`.
            let exit = match failure.exit {
                Exit::Usage => Exit::Refused,
                exit => exit,
            };
            let text = format!(
                "{failure}; {} waits for it, try `ublk-tap recover {group}` again",
                front.display()
            );
            Failure::new(exit, text)
        })?;
        check_registered(group, known, &disk)?;
        let shape = match waits {
            Waits::Device(id) => kernel::shape(id),
            Waits::Socket => Some(Shape {
                queues: known.service.queues,
                depth: known.service.depth,
                io_bytes_max: self.settings.request_bytes,
            }),
        };
        let Some(shape) = shape else {
            let text = format!("{} has gone meanwhile", front.display());
            return Err(Failure::failed(text));
        };
        Ok(Reopened {
            name: volume,
            path,
            disk: Arc::new(disk),
            waits,
            shape,
            start: Start::Join(Unclean::Live.words().into()),
        })
    }
}

/// Devices of the group that wait for a tap. One that never served is in nobody's use, and goes.
fn devices_left(group: &Name) -> Result<Vec<Left>, Failure> {
    let mut left = Vec::new();
    let is_own = |device: &KernelDevice| device.is_ours && device.group.as_ref() == Some(group);
    for device in kernel::devices().into_iter().filter(is_own) {
        let path = device.path.display();
        if device.state == kernel::State::Dead {
            tracing::info!(%path, "a device that never served is deleted");
            kernel::delete(device.id).map_err(|error| of_device(&error))?;
            continue;
        }
        let Some(volume) = device.volume.clone() else {
            return Err(unknown(
                group,
                &format!("{path} has lost the name of its volume"),
            ));
        };
        left.push(Left {
            waits: Waits::Device(device.id),
            volume,
        });
    }
    Ok(left)
}

fn unknown(group: &Name, what: &str) -> Failure {
    let text = format!("{what}; give it up with `ublk-tap cleanup {group}`");
    Failure::new(Exit::Refused, text)
}
