//! What takes long: opening disks, making devices, syncing disks and state.
//!
//! One thread with an inbox, one job after the other, owner of the state file. The group's loop
//! never waits for a disk; it posts a job and hears what became of it.

use super::core::Start;
use super::front::{Front, FrontKind, Fronts};
use crate::clock;
use crate::control::{Reply, ReplyTo, iso_8601};
use crate::copier::Copier;
use crate::device::kernel::KernelDevice;
use crate::device::{self, DeviceConfig, DeviceError, Shape};
use crate::disk::{Disk, DiskError, stack};
use crate::failure::{Exit, Failure};
use crate::settings::Dirs;
use crate::state::{
    CleanMark, Registered, Rest, Service, State, StateError, StateFile, Unclean, kept_path,
};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use wire::limits::VOLUMES_MAX;
use wire::{Generation, Incarnation, MemberAction, Name, Stamp, VolumeIndex};

/// Something to be done.
pub enum Job {
    /// Open a disk as a volume, and enter it in the state as live.
    Open {
        /// The disk.
        disk: PathBuf,
        /// The process that wants it, whose paths are meant.
        asker: Option<i32>,
        /// Name of the volume.
        volume: Name,
        /// What it is to be served by.
        kind: FrontKind,
        /// Queues and sizes.
        shape: Shape,
    },
    /// Make a volume's device and publish its stable name.
    Start(Box<DeviceConfig>),
    /// It does not become a volume after all: enter it as it was before.
    Undo {
        /// The volume.
        volume: Name,
        /// What the state said before.
        before: Option<Registered>,
    },
    /// Write down how volumes were left, and let their disks go.
    Seal {
        /// Their numbers.
        volumes: Vec<VolumeIndex>,
        /// What there is to each.
        leavers: Vec<Leaver>,
    },
    /// Keep the generation the receiver holds.
    Keep(Generation),
    /// Forget a volume that is not tapped.
    Forget {
        /// The volume.
        volume: Name,
        /// Who wants it.
        reply: ReplyTo,
    },
}

/// A volume that has left.
pub struct Leaver {
    /// The volume.
    pub volume: Name,
    /// Its disk.
    pub disk: Arc<Disk>,
    /// Its copier; ended before the disk is let go.
    pub copier: Option<Copier>,
    /// How it was left.
    pub manner: Left,
    /// What is written down.
    pub entry: Entry,
}

/// What the state says of a volume that has left, besides how.
pub enum Entry {
    /// What it was served by.
    Kept {
        /// It comes back when the tap is run again.
        returns: bool,
    },
    /// What it said before the volume was added: that has failed.
    Before(Option<Registered>),
}

/// How a volume was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// All of it is safe, up to its `leave`.
    Clean(Incarnation, Stamp),
    /// In another way.
    Unclean(Unclean),
}

/// What became of a job.
pub enum Done {
    /// Of [`Job::Open`].
    Opened {
        /// The volume.
        volume: Name,
        /// The open disk, or why not.
        result: Result<Box<Opened>, Failure>,
    },
    /// Of [`Job::Start`].
    Started {
        /// The volume.
        index: VolumeIndex,
        /// The device, or why not.
        result: Result<Started, Failure>,
    },
    /// Of [`Job::Undo`].
    Undone,
    /// Of [`Job::Seal`].
    Sealed(Sealed),
}

/// Volumes that are gone, with their ends written down.
pub struct Sealed {
    /// Their numbers.
    pub volumes: Vec<VolumeIndex>,
    /// Names of those left clean.
    pub clean: Vec<Name>,
    /// Why others that should be clean are not.
    pub failure: Option<Failure>,
}

/// A disk that is ours.
pub struct Opened {
    /// The disk.
    pub disk: Arc<Disk>,
    /// How the volume enters the stream.
    pub start: Start,
    /// What the state said about the volume before.
    pub before: Option<Registered>,
}

/// A device that serves.
pub struct Started {
    /// The device.
    pub front: Box<dyn Front>,
    /// Its stable name.
    pub link: PathBuf,
}

/// The clerk.
pub struct Clerk {
    dirs: Dirs,
    fronts: Arc<dyn Fronts>,
    state: StateFile,
    /// Volumes whose device served for a moment though their add failed: written, for all we know.
    served: BTreeSet<Name>,
}

/// How long a disk may still be held by a tap that is just ending.
const DISK_PATIENCE: Duration = Duration::from_secs(2);

/// How long a device that nobody uses yet may take to go.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

impl Clerk {
    /// Keeps `state` and makes devices with `fronts`.
    pub fn new(dirs: Dirs, fronts: Arc<dyn Fronts>, state: StateFile) -> Self {
        Self {
            dirs,
            fronts,
            state,
            served: BTreeSet::new(),
        }
    }

    /// Does jobs until nobody posts any more; gives the state file back.
    pub fn run(mut self, jobs: &Receiver<Job>, tell: impl Fn(Done)) -> StateFile {
        while let Ok(job) = jobs.recv() {
            if let Some(done) = self.done(job) {
                tell(done);
            }
        }
        self.state
    }

    fn done(&mut self, job: Job) -> Option<Done> {
        Some(match job {
            Job::Open {
                disk,
                asker,
                volume,
                kind,
                shape,
            } => {
                let service = Service::of(kind, shape);
                let result = self.open(&disk, asker, &volume, service).map(Box::new);
                Done::Opened { volume, result }
            }
            Job::Start(config) => {
                let index = config.index;
                Done::Started {
                    index,
                    result: self.start(*config),
                }
            }
            Job::Undo { volume, before } => {
                self.undo(&volume, before);
                Done::Undone
            }
            Job::Seal { volumes, leavers } => {
                let (clean, failure) = self.seal(leavers);
                Done::Sealed(Sealed {
                    volumes,
                    clean,
                    failure,
                })
            }
            Job::Keep(generation) => {
                self.keep(generation);
                return None;
            }
            Job::Forget { volume, reply } => {
                match self.state.update(|state| state.forget(&volume)) {
                    Ok(_) => reply.send(Reply::Forgotten),
                    Err(error) => reply.fail(of_state(&error)),
                }
                return None;
            }
        })
    }

    fn open(
        &mut self,
        path: &Path,
        asker: Option<i32>,
        volume: &Name,
        service: Service,
    ) -> Result<Opened, Failure> {
        let able = self.fronts.check(service.frontend);
        able.map_err(|error| of_device(&error))?;
        let kept = kept_path(path).map_err(Failure::usage)?.to_owned();
        let seen = as_seen_by(asker, path);
        let disk = Disk::open(&seen, DISK_PATIENCE).map_err(|error| of_disk(&error))?;
        check_disk(&self.dirs, self.state.state(), volume, &disk)?;
        let before = self.state.state().volume(volume).cloned();
        let start = start_of(before.as_ref(), &disk)?;
        let entry = Registered {
            name: volume.clone(),
            identity: disk.identity().to_owned(),
            path: kept,
            size_bytes: disk.size_bytes(),
            sector_bytes: disk.sector_bytes(),
            service,
            rest: Rest::Unclean(Unclean::Live),
        };
        // The clean mark is gone, durably, before the first write can come.
        let entered = self.state.update(|state| state.put(entry));
        entered.map_err(|error| of_state(&error))?;
        Ok(Opened {
            disk: Arc::new(disk),
            start,
            before,
        })
    }

    fn start(&mut self, config: DeviceConfig) -> Result<Started, Failure> {
        let (group, volume) = (config.group.clone(), config.volume.clone());
        let is_recovered = config.recovers.is_some();
        let mut front = self
            .fronts
            .start(config)
            .map_err(|error| of_device(&error))?;
        if front.is_stable() {
            let link = front.path();
            return Ok(Started { front, link });
        }
        let link = device::link::path(&self.dirs.dev, &group, &volume);
        let published = device::link::publish(&self.dirs.dev, &group, &volume, &front.path());
        let Err(error) = published else {
            return Ok(Started { front, link });
        };
        let failure = Failure::of_io(&format!("make the link {}", link.display()), &error);
        if is_recovered {
            // Whoever uses it waits for it: without its name it serves them all the same.
            let device = front.path();
            tracing::error!("{failure}; link it to {} by hand", device.display());
            return Ok(Started { front, link });
        }
        self.served.insert(volume);
        // Before the failure is told: the process may end with it.
        if let Err(error) = front.stop(STOP_PATIENCE) {
            tracing::warn!(%error, "a device without a name goes later");
        }
        Err(failure)
    }

    fn undo(&mut self, volume: &Name, before: Option<Registered>) {
        let undone = self.state.update(|state| {
            state.forget(volume);
            if let Some(before) = before {
                state.put(before);
            }
        });
        if let Err(error) = undone {
            tracing::warn!(%error, "a volume that was not added stays in the state as not clean");
        }
    }

    /// Names of those left clean, and why others that should be are not.
    fn seal(&mut self, leavers: Vec<Leaver>) -> (Vec<Name>, Option<Failure>) {
        let mut failure = None;
        let mut ends = Vec::new();
        for leaver in leavers {
            let Leaver {
                volume,
                disk,
                copier,
                manner,
                entry,
            } = leaver;
            drop(copier);
            let rest = rest_of(&disk, manner).unwrap_or_else(|error| {
                let what = format!("sync {} of {volume}", disk.path().display());
                failure = Some(Failure::of_io(&what, &error));
                Rest::Unclean(Unclean::NotDrained)
            });
            if matches!(entry, Entry::Kept { .. })
                && let Err(error) = device::link::withdraw(&self.dirs.dev, self.group(), &volume)
            {
                tracing::warn!(%error, %volume, "the stable name of a removed volume stays");
            }
            let rest = match self.served.remove(&volume) {
                true => Rest::Unclean(Unclean::Live),
                false => rest,
            };
            ends.push((volume, rest, entry));
        }
        let is_clean = |(_, rest, _): &&(Name, Rest, Entry)| matches!(rest, Rest::Clean(_));
        let clean: Vec<Name> = ends
            .iter()
            .filter(is_clean)
            .map(|(name, ..)| name.clone())
            .collect();
        let sealed = self.state.update(|state| {
            for (name, rest, entry) in ends {
                write_down(state, &name, rest, entry);
            }
        });
        match sealed {
            Ok(()) => (clean, failure),
            Err(error) => (Vec::new(), Some(of_state(&error))),
        }
    }

    fn keep(&mut self, generation: Generation) {
        if let Err(error) = self.state.update(|state| state.generation = generation) {
            tracing::error!(%error, "the generation is not kept");
        }
    }

    fn group(&self) -> &Name {
        &self.state.state().group
    }
}

/// The disk as the asker sees it: a file may be on a filesystem that is not mounted for us.
pub fn as_seen_by(asker: Option<i32>, path: &Path) -> PathBuf {
    let Some(asker) = asker else {
        return path.to_owned();
    };
    let relative = path.strip_prefix("/").unwrap_or(path);
    let theirs = Path::new("/proc")
        .join(asker.to_string())
        .join("root")
        .join(relative);
    let key = |path: &Path| path.metadata().ok().map(|found| (found.dev(), found.ino()));
    match (key(path), key(&theirs)) {
        (ours, Some(found)) if ours != Some(found) => theirs,
        _ => path.to_owned(),
    }
}

/// Refuses a disk that is not the volume's, or that carries our own state (P13).
///
/// Also asked by the command line, before anything is started.
pub fn check_disk(dirs: &Dirs, state: &State, volume: &Name, disk: &Disk) -> Result<(), Failure> {
    let group = &state.group;
    match state.volume(volume) {
        Some(known) => check_registered(group, known, disk)?,
        None if state.volumes.len() >= VOLUMES_MAX => {
            return Err(Failure::refused(format!(
                "group {group} has {VOLUMES_MAX} volumes; forget one with `ublk-tap remove \
                 {group}/NAME --forget`"
            )));
        }
        None => {}
    }
    check_below(group, disk)?;
    check_places(dirs, disk)
}

/// A change of the upper device would hold its place in the ring until the lower one, which has
/// the same ring, has found one there.
fn check_below(group: &Name, disk: &Disk) -> Result<(), Failure> {
    let rests_on = |device: &Path| {
        let found = device.metadata();
        found.is_ok_and(|found| disk.rests_on(found.rdev()))
    };
    let Some(below) = own_device_below(&device::kernel::devices(), group, rests_on) else {
        return Ok(());
    };
    Err(Failure::refused(format!(
        "{} is stored on {}, a device of group {group} itself, and would wait for itself; use \
         another group",
        disk.path().display(),
        below.display()
    )))
}

fn own_device_below(
    devices: &[KernelDevice],
    group: &Name,
    rests_on: impl Fn(&Path) -> bool,
) -> Option<PathBuf> {
    let is_own = |device: &&KernelDevice| device.is_ours && device.group.as_ref() == Some(group);
    let mut own = devices.iter().filter(is_own);
    own.find(|device| rests_on(&device.path))
        .map(|device| device.path.clone())
}

/// Refuses a disk that is not the one a volume is bound to (P13).
pub fn check_registered(group: &Name, known: &Registered, disk: &Disk) -> Result<(), Failure> {
    let name = &known.name;
    let path = disk.path().display();
    if known.identity != disk.identity() {
        return Err(Failure::refused(format!(
            "{group}/{name} is bound to disk {} (it was {}), but {path} is {}; use another volume \
             name, or unbind it with `ublk-tap remove {group}/{name} --forget`",
            known.identity,
            known.path,
            disk.identity()
        )));
    }
    let geometry = (known.size_bytes, known.sector_bytes);
    let found = (disk.size_bytes(), disk.sector_bytes());
    if geometry != found {
        return Err(Failure::refused(format!(
            "{group}/{name} is registered with a size of {} bytes in sectors of {}, but {path} has \
             {} in sectors of {}; undo the change, or start over with `ublk-tap remove \
             {group}/{name} --forget`",
            geometry.0, geometry.1, found.0, found.1
        )));
    }
    Ok(())
}

/// The state must be readable and writable whatever happens to the disk and its device.
fn check_places(dirs: &Dirs, disk: &Disk) -> Result<(), Failure> {
    for dir in [&dirs.state, &dirs.config, &dirs.run] {
        let Some(dir) = existing(dir) else { continue };
        let carries = disk.carries(dir).unwrap_or(false) || lies_on_a_device_of_ours(dir);
        if carries {
            return Err(Failure::refused(format!(
                "{} is stored on a tapped disk and would wait for itself; move it to another disk",
                dir.display()
            )));
        }
    }
    Ok(())
}

/// The directory, or the nearest above it that exists.
fn existing(dir: &Path) -> Option<&Path> {
    dir.ancestors().find(|dir| dir.exists())
}

fn lies_on_a_device_of_ours(dir: &Path) -> bool {
    let ours = device::kernel::devices()
        .into_iter()
        .filter(|device| device.is_ours);
    let mut numbers = ours.filter_map(|device| Some(device.path.metadata().ok()?.rdev()));
    numbers.any(|number| stack::lies_on(dir, number).unwrap_or(false))
}

/// Whether the volume goes on where it was left, or is copied, and why.
fn start_of(before: Option<&Registered>, disk: &Disk) -> Result<Start, Failure> {
    let mark = match before.map(|before| &before.rest) {
        None => return Ok(Start::Join("new volume".into())),
        Some(Rest::Unclean(cause)) => return Ok(Start::Join(cause.words().into())),
        Some(Rest::Clean(mark)) => mark,
    };
    let found = disk
        .fingerprint()
        .map_err(|error| Failure::of_io(&format!("read {}", disk.path().display()), &error))?;
    let Ok(before) = mark.writes.parse();
    if found.to_string() != mark.fingerprint || disk.writes().are_more_than(&before) {
        return Ok(Start::Join(format!(
            "disk changed since {}",
            iso_8601(mark.at)
        )));
    }
    let (incarnation, stamp) = (mark.incarnation, mark.stamp);
    Ok(Start::Continue(MemberAction::Continue {
        incarnation,
        stamp,
    }))
}

fn write_down(state: &mut State, name: &Name, rest: Rest, entry: Entry) {
    match entry {
        Entry::Kept { returns } => {
            let found = state.volumes.iter_mut().find(|volume| volume.name == *name);
            if let Some(volume) = found {
                volume.rest = rest;
                volume.service.returns = returns;
            }
        }
        Entry::Before(None) => drop(state.forget(name)),
        Entry::Before(Some(mut before)) => {
            // What was not clean stays so, for the reason it had.
            let is_touched = rest == Rest::Unclean(Unclean::Live);
            if is_touched || matches!(before.rest, Rest::Clean(_)) {
                before.rest = rest;
            }
            state.put(before);
        }
    }
}

fn rest_of(disk: &Disk, manner: Left) -> std::io::Result<Rest> {
    let (incarnation, stamp) = match manner {
        Left::Unclean(cause) => return Ok(Rest::Unclean(cause)),
        Left::Clean(incarnation, stamp) => (incarnation, stamp),
    };
    disk.sync()?;
    // First what is counted: whatever is written from here on is seen by the next tap.
    let writes = disk.writes().to_string();
    let fingerprint = disk.fingerprint()?.to_string();
    Ok(Rest::Clean(CleanMark {
        incarnation,
        stamp,
        fingerprint,
        writes,
        at: clock::now(),
    }))
}

/// A disk's refusal as a failure.
pub fn of_disk(error: &DiskError) -> Failure {
    Failure::new(Exit::from_code(error.exit_code()), error.to_string())
}

/// A device's refusal as a failure.
pub fn of_device(error: &DeviceError) -> Failure {
    Failure::new(Exit::from_code(error.exit_code()), error.to_string())
}

/// A state file's error as a failure.
pub fn of_state(error: &StateError) -> Failure {
    let exit = match error {
        error if error.is_no_space() => Exit::NoSpace,
        error if error.is_privilege() => Exit::Privilege,
        error if error.is_refusal() => Exit::Refused,
        _ => Exit::Failed,
    };
    Failure::new(exit, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::kernel::State;

    #[test]
    fn a_disk_on_a_device_of_its_own_group_is_found_and_one_of_another_group_is_not() {
        let group = |name| Name::new(name).ok();
        let device = |id: u32, is_ours, group| KernelDevice {
            id,
            path: PathBuf::from(format!("/dev/ublkb{id}")),
            state: State::Live,
            pid: 1,
            is_ours,
            group,
            volume: None,
        };
        let devices = [
            device(0, true, group("other")),
            device(1, false, None),
            device(2, true, group("pg")),
        ];
        let pg = group("pg").unwrap();
        let below = |path: &'static str| move |device: &Path| device == Path::new(path);
        let found = own_device_below(&devices, &pg, below("/dev/ublkb2"));
        assert_eq!(found.as_deref(), Some(Path::new("/dev/ublkb2")));
        for other in ["/dev/ublkb0", "/dev/ublkb1"] {
            assert_eq!(own_device_below(&devices, &pg, below(other)), None);
        }
    }
}
