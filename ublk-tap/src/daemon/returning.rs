//! Volumes nobody has removed come back when the tap is run: after a reboot, or a stop of its unit.
//!
//! One thread, until all are back. It asks the group as an operator would, who may be faster: what
//! is tapped already, or is no longer to come back, is let be. A disk that is not there yet is tried
//! again for ever (P12) and named once. When each volume had its turn, the service manager is told
//! that the tap is ready.

use super::Options;
use crate::control::{AddRequest, Asked, GroupStatus, Reply, ReplyTo, Request};
use crate::failure::Failure;
use crate::group::{Backoff, Input};
use crate::settings::Dirs;
use crate::state::{Registered, StateFile};
use sd_notify::NotifyState;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::thread::Builder;
use std::time::{Duration, Instant};
use wire::Name;

/// Where a group is asked.
struct Asker {
    dirs: Dirs,
    group: Name,
    post: Sender<Input>,
}

/// A volume on its way back.
struct Pending {
    name: Name,
    backoff: Backoff,
    said: String,
}

/// The tap ends; nothing comes back any more.
struct Ending;

const BACKOFF_MAX: Duration = Duration::from_secs(30);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Brings back what is to come back, in the background. A tap that `add` has started has only what
/// it was started for.
pub(super) fn start(options: &Options, post: Sender<Input>) -> Result<(), Failure> {
    if options.on_demand {
        return Ok(());
    }
    let asker = Asker {
        dirs: options.dirs.clone(),
        group: options.group.clone(),
        post,
    };
    let bring_back = move || {
        if bring_back(&asker, || tell_manager(NotifyState::Ready)).is_err() {
            tracing::debug!("the tap ends before all volumes are back");
        }
    };
    let started = Builder::new().name("returning".into()).spawn(bring_back);
    started.map_err(|error| Failure::of_io("start a thread", &error))?;
    Ok(())
}

/// Tells the service manager, if there is one.
pub(super) fn tell_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

fn bring_back(asker: &Asker, ready: impl FnOnce()) -> Result<(), Ending> {
    asker.await_served()?;
    let mut pending: Vec<Pending> = asker.returning().into_iter().map(Pending::of).collect();
    let mut ready = Some(ready);
    loop {
        let mut left = Vec::new();
        for mut volume in pending {
            if !volume.backoff.is_over(Instant::now()) || !asker.bring_back(&mut volume)? {
                left.push(volume);
            }
        }
        if let Some(ready) = ready.take() {
            ready();
        }
        if left.is_empty() {
            return Ok(());
        }
        pending = left;
        std::thread::sleep(LOOK_INTERVAL);
    }
}

impl Pending {
    fn of(volume: Registered) -> Self {
        Self {
            name: volume.name,
            backoff: Backoff::up_to(BACKOFF_MAX),
            said: String::new(),
        }
    }
}

impl Asker {
    /// Waits until what was recovered is served.
    fn await_served(&self) -> Result<(), Ending> {
        loop {
            let status = self.status()?;
            if status.volumes.iter().all(|volume| volume.device.is_some()) {
                return Ok(());
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// What the state wants back.
    fn returning(&self) -> Vec<Registered> {
        let peeked = StateFile::peek(&self.dirs.state_file(&self.group), &self.group);
        let state = peeked.ok().flatten();
        let volumes = state.map(|state| state.volumes).unwrap_or_default();
        let returning = volumes.into_iter();
        returning.filter(|volume| volume.service.returns).collect()
    }

    /// Whether it is back, or is not to come back.
    fn bring_back(&self, pending: &mut Pending) -> Result<bool, Ending> {
        let is_it = |name: &str| name == pending.name.as_str();
        let mut tapped = self.status()?.volumes.into_iter();
        let known = self.returning().into_iter();
        let Some(known) = known.into_iter().find(|volume| is_it(volume.name.as_str())) else {
            return Ok(true);
        };
        if tapped.any(|volume| is_it(&volume.name)) {
            return Ok(true);
        }
        let request = AddRequest {
            disk: PathBuf::from(&known.path),
            volume: known.name.to_string(),
            queues: Some(known.service.queues),
            depth: Some(known.service.depth),
            ring_bytes: None,
            frontend: known.service.frontend,
        };
        match self.ask(Request::Add(request))? {
            Reply::Added(added) => {
                let device = added.device.display();
                tracing::info!(volume = %known.name, %device, "it is back");
                Ok(true)
            }
            Reply::Failed(failure) => {
                if failure.text != pending.said {
                    tracing::warn!(volume = %known.name, "not back yet: {failure}");
                    pending.said = failure.text;
                }
                pending.backoff.failed(Instant::now());
                Ok(false)
            }
            other => {
                tracing::error!(?other, "no answer to what was asked");
                Ok(true)
            }
        }
    }

    fn status(&self) -> Result<GroupStatus, Ending> {
        match self.ask(Request::Status)? {
            Reply::Status(status) => Ok(*status),
            _ => Err(Ending),
        }
    }

    fn ask(&self, request: Request) -> Result<Reply, Ending> {
        let (reply, answer) = ReplyTo::pair();
        let asked = Input::Asked(Asked { request, reply });
        self.post.send(asked).map_err(|_| Ending)?;
        answer.recv().map_err(|_| Ending)
    }
}
