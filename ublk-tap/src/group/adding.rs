//! Adding a volume: opened by the clerk, entered into the stream, made a device, told.

use super::clerk::{Done, Job, Opened, Started};
use super::core::{CoreEvent, Mode, Start};
use super::departure::Manner;
use super::driver::{Adding, Driver, Input};
use super::front::FrontKind;
use super::members::NoNumber;
use super::recovery::Waits;
use super::removal::Asker;
use super::tapped::{Life, Tapped};
use crate::control::{self, AddRequest, Reply, ReplyTo};
use crate::copier::{Copier, CopierConfig};
use crate::device::{DeviceConfig, NbdPlace, Shape};
use crate::failure::Failure;
use crate::settings::{ByteSize, check_nbd, check_shape};
use crate::state::Rest;
use ring::handoff::Volumes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::{Name, VolumeIndex, VolumeSpec};

/// How long a volume whose add has failed waits for the receiver to know that it has left.
const UNDO_PATIENCE: Duration = Duration::from_secs(10);

impl Driver {
    /// An operator wants a disk wrapped.
    pub(super) fn add(&mut self, request: AddRequest, reply: ReplyTo) {
        match self.adding_of(&request) {
            Ok((volume, shape)) => {
                let kind = request.frontend;
                let (disk, asker) = (request.disk, reply.asker());
                self.post_job(Job::Open {
                    disk: disk.clone(),
                    asker,
                    volume: volume.clone(),
                    kind,
                    shape,
                });
                self.adding.push(Adding {
                    volume,
                    path: disk,
                    shape,
                    kind,
                    reply,
                });
            }
            Err(failure) => {
                reply.fail(failure);
                self.end_if_unused();
            }
        }
    }

    fn adding_of(&self, request: &AddRequest) -> Result<(Name, Shape), Failure> {
        let group = &self.group;
        let volume =
            Name::new(&request.volume).map_err(|error| Failure::usage(error.to_string()))?;
        if self.is_ending {
            return Err(Failure::refused(format!("the tap of {group} is ending")));
        }
        if !self.removals.is_empty() {
            let text =
                format!("volumes of {group} are being removed; try again when they are gone");
            return Err(Failure::refused(text));
        }
        if let Some(tapped) = self.tapped.values().find(|tapped| tapped.name == volume) {
            let disk = tapped.path.display();
            let text = format!("{group}/{volume} is tapped already, over {disk}");
            return Err(Failure::refused(text));
        }
        if self.adding.iter().any(|adding| adding.volume == volume) {
            return Err(Failure::refused(format!(
                "{group}/{volume} is being added already"
            )));
        }
        self.check_ring_size(request.ring_bytes)?;
        let shape = Shape {
            queues: request.queues.unwrap_or(self.settings.queues),
            depth: request.depth.unwrap_or(self.settings.depth),
            io_bytes_max: self.settings.request_bytes,
        };
        check_shape(shape.queues, shape.depth).map_err(Failure::usage)?;
        if request.frontend == FrontKind::Nbd {
            let socket = self.dirs.nbd_socket(group, &volume);
            check_nbd(&socket, shape.depth).map_err(Failure::usage)?;
        }
        Ok((volume, shape))
    }

    fn check_ring_size(&self, wanted: Option<u64>) -> Result<(), Failure> {
        let has = self.ring.config().payload_bytes;
        match wanted {
            Some(wanted) if wanted != has => Err(Failure::refused(format!(
                "group {} runs with a ring of {}; remove its volumes first to have one of {}",
                self.group,
                ByteSize(has),
                ByteSize(wanted)
            ))),
            _ => Ok(()),
        }
    }

    /// The clerk is done with something.
    pub(super) fn clerk_done(&mut self, now: Instant, done: Done) {
        match done {
            Done::Opened { volume, result } => {
                self.opened(now, &volume, result.map(|opened| *opened));
            }
            Done::Started { index, result } => match result {
                Ok(started) => self.started(index, started),
                Err(failure) => self.not_started(now, index, failure),
            },
            Done::Undone => self.end_if_unused(),
            Done::Sealed(sealed) => self.sealed(now, sealed),
        }
    }

    fn opened(&mut self, now: Instant, volume: &Name, result: Result<Opened, Failure>) {
        let position = self
            .adding
            .iter()
            .position(|adding| adding.volume == *volume);
        let Some(position) = position else {
            return;
        };
        let adding = self.adding.remove(position);
        let opened = match result {
            Ok(opened) => opened,
            Err(failure) => {
                adding.reply.fail(failure);
                return self.end_if_unused();
            }
        };
        let start = opened.start.clone();
        let before = opened.before.clone();
        let volume = adding.volume.clone();
        if self.is_ending {
            adding.reply.fail(Failure::failed("the tap is ending"));
            // It ends when this is done.
            return self.post_job(Job::Undo { volume, before });
        }
        let tapped = Tapped::new(adding, opened);
        match self.enter(tapped) {
            Ok(index) => {
                tracing::info!(%volume, ?start, "added");
                self.decide(now, CoreEvent::Added { index, start });
            }
            Err((reply, failure)) => {
                if let Some(reply) = reply {
                    reply.fail(failure);
                }
                self.post_job(Job::Undo { volume, before });
            }
        }
    }

    /// Gives the volume its number and its copier, and tells the shipper before the first record.
    pub(super) fn enter(
        &mut self,
        mut tapped: Tapped,
    ) -> Result<VolumeIndex, (Option<ReplyTo>, Failure)> {
        let spec = VolumeSpec {
            index: VolumeIndex::default(),
            name: tapped.name.clone(),
            size_bytes: tapped.disk.size_bytes(),
            sector_bytes: tapped.disk.sector_bytes(),
            identity: tapped.disk.identity().to_owned(),
        };
        let known = self.members.specs().len();
        let index = match self.members.enter(spec) {
            Ok(index) => index,
            Err(why) => {
                let failure = Failure::refused(self.no_number(&tapped.name, why));
                return Err((tapped.asker(), failure));
            }
        };
        match self.copier_of(index, &tapped) {
            Ok(copier) => tapped.copier = Some(copier),
            Err(error) => {
                let failure = Failure::of_io("start a thread", &error);
                return Err((tapped.asker(), failure));
            }
        }
        if self.members.specs().len() > known {
            let volumes = self.members.specs().to_vec();
            self.link.port.send_volumes(Volumes { volumes });
        }
        self.tapped.insert(index, tapped);
        self.was_used = true;
        // Before the first record that carries the number.
        self.save_roster();
        Ok(index)
    }

    fn copier_of(&self, index: VolumeIndex, tapped: &Tapped) -> std::io::Result<Copier> {
        let config = CopierConfig {
            index,
            disk: Arc::clone(&tapped.disk),
            ranges: Arc::clone(&tapped.ranges),
            ring: Arc::clone(&self.ring),
        };
        let post = self.post.clone();
        Copier::start(config, move |said| {
            // A group that is over needs to hear nothing.
            let _ = post.send(Input::Copier(said));
        })
    }

    fn no_number(&self, volume: &Name, why: NoNumber) -> String {
        let group = &self.group;
        match why {
            NoNumber::Full => format!(
                "group {group} has had too many volumes since its tap was started; remove all of \
                 them once (ublk-tap remove {group})"
            ),
            NoNumber::Changed => format!(
                "{group}/{volume} was another disk since the tap was started; remove all volumes \
                 of {group} once, or use another name"
            ),
        }
    }

    /// The volume's place in the stream is taken, or there is no stream: its device may serve.
    pub(super) fn go_live(&mut self, index: VolumeIndex) {
        if !self.waits_for_rereads(index) {
            self.start_device(index);
        }
    }

    pub(super) fn start_device(&self, index: VolumeIndex) {
        let Some(tapped) = self.tapped.get(&index) else {
            return;
        };
        self.post_job(Job::Start(Box::new(DeviceConfig {
            group: self.group.clone(),
            volume: tapped.name.clone(),
            index,
            disk: Arc::clone(&tapped.disk),
            ring: Arc::clone(&self.ring),
            ranges: Arc::clone(&tapped.ranges),
            parking: Arc::clone(&self.parking),
            shape: tapped.shape,
            frontend: tapped.kind.with(|| NbdPlace {
                socket: self.dirs.nbd_socket(&self.group, &tapped.name),
                group: self.settings.nbd_group,
            }),
            transfer: self.settings.transfer,
            recovers: tapped.waits().and_then(Waits::device),
        })));
    }

    fn started(&mut self, index: VolumeIndex, started: Started) {
        let copy = self.core.volume_reason(index).to_owned();
        let mode = self.core.mode();
        let Some(tapped) = self.tapped.get_mut(&index) else {
            return;
        };
        let device = started.front.path();
        tracing::info!(volume = %tapped.name, device = %device.display(), "live");
        let life = std::mem::replace(&mut tapped.life, Life::Live(started.front));
        let Life::Added(added) = life else {
            return;
        };
        let copy = match mode {
            Mode::Broken => Some("the stream is given up".to_owned()),
            _ => Some(copy).filter(|copy| !copy.is_empty()).or(added.copied),
        };
        added.asker.send(Reply::Added(control::Added {
            device,
            link: started.link,
            frontend: tapped.kind,
            copy,
            mode: mode.to_string(),
        }));
    }

    /// The device could not be made: the volume leaves the stream as it came, with nothing written.
    ///
    /// One that was clean needs a new mark: the old one names a `leave` that is no longer its last.
    /// Who added it hears the failure when that is written down.
    fn not_started(&mut self, now: Instant, index: VolumeIndex, failure: Failure) {
        tracing::error!("{failure}");
        if self.not_recovered(index, &failure) {
            return;
        }
        let Some(tapped) = self.tapped.get_mut(&index) else {
            return;
        };
        let life = std::mem::replace(&mut tapped.life, Life::Failed(None));
        let Life::Added(added) = life else {
            tapped.life = life;
            return;
        };
        let was_clean =
            matches!(&added.before, Some(before) if matches!(before.rest, Rest::Clean(_)));
        tapped.life = Life::Failed(added.before);
        let reply = added.asker;
        if self.is_ending {
            return reply.fail(failure); // it goes with the others
        }
        let patience = match was_clean {
            true => self.settings.stop.min(UNDO_PATIENCE),
            false => Duration::ZERO,
        };
        let asker = Some(Asker::Add(reply, failure));
        let removal = self.removal(Manner::Undo, vec![index], now + patience, asker);
        self.removals.push(removal);
    }

    /// An operator wants a name to be free for another disk.
    pub(super) fn forget(&mut self, volume: &str, reply: ReplyTo) {
        let group = &self.group;
        let volume = match Name::new(volume) {
            Ok(volume) => volume,
            Err(error) => return reply.fail(Failure::usage(error.to_string())),
        };
        let is_here = self.tapped.values().any(|tapped| tapped.name == volume)
            || self.adding.iter().any(|adding| adding.volume == volume);
        if is_here {
            let text = format!("{group}/{volume} is tapped; remove it first");
            return reply.fail(Failure::refused(text));
        }
        self.post_job(Job::Forget { volume, reply });
    }

    /// Hands the clerk a job.
    pub(super) fn post_job(&self, job: Job) {
        let posted = self.clerk.send(job);
        assert!(posted.is_ok(), "the clerk works as long as the group");
    }
}

/// How the start of a volume reads in a log.
impl std::fmt::Display for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Continue(_) => f.write_str("continues"),
            Self::Join(reason) => write!(f, "is copied: {reason}"),
            Self::Recovered { copied, .. } => match copied {
                Some(reason) => write!(f, "is copied: {reason}"),
                None => f.write_str("goes on"),
            },
        }
    }
}
