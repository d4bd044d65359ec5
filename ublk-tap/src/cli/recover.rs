//! `ublk-tap recover`: after a tap was killed, its devices are served again.
//!
//! Their users have waited in the kernel and go on; nothing is copied that was whole. The tap that
//! is started for it finds everything itself, as one does that a service manager starts again.

use super::{look, say};
use crate::control::{ClientError, GroupStatus, Reply, Request};
use crate::daemon::{self, left};
use crate::failure::{Exit, Failure};
use crate::settings::Dirs;
use std::time::{Duration, Instant};
use wire::Name;

/// How long a tap may take to answer: it waits for the dead one's last writes first.
const START_PATIENCE: Duration = Duration::from_secs(90);
/// How long its devices may take to serve after that.
const SERVE_PATIENCE: Duration = Duration::from_secs(90);
/// How long it may take to say how it stands.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
/// Right after a tap that was killed while it recovered, the next one may fail to go on with a
/// device, and the one after it does not (docs/decisions/recovery.md).
const TRIES_MAX: u32 = 3;
const RETRY_INTERVAL: Duration = Duration::from_millis(300);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Goes on for one group, or for all whose tap was killed.
pub(super) fn recover(dirs: &Dirs, group: Option<&Name>) -> Result<(), Failure> {
    let groups = match group {
        Some(group) => {
            look::known(dirs, group)?;
            vec![group.clone()]
        }
        None => left::groups(dirs),
    };
    let mut is_any = false;
    for group in groups {
        is_any |= recover_group(dirs, &group)?;
    }
    if is_any {
        return Ok(());
    }
    say("nothing to recover: no volume waits for its tap")
}

/// Whether there was something to recover.
fn recover_group(dirs: &Dirs, group: &Name) -> Result<bool, Failure> {
    daemon::await_end(dirs, group);
    if daemon::live_pid(dirs, group).is_some() || !left::groups(dirs).contains(group) {
        return Ok(false);
    }
    let mut tries = 1;
    let status = loop {
        let tried = daemon::spawn(dirs, group, None, START_PATIENCE);
        match tried.and_then(|_| served(dirs, group, 1, || false)) {
            Ok(status) => break status,
            Err(failure) if failure.exit == Exit::Failed && tries < TRIES_MAX => tries += 1,
            Err(failure) => return Err(failure),
        }
        std::thread::sleep(RETRY_INTERVAL);
        daemon::await_end(dirs, group);
    };
    tell(group, &status)?;
    Ok(true)
}

/// Says how the volumes are served.
pub(super) fn tell(group: &Name, status: &GroupStatus) -> Result<(), Failure> {
    for volume in &status.volumes {
        let device = volume.device.as_deref().unwrap_or("no device");
        let (name, state) = (&volume.name, &volume.state);
        let why = match volume.reason.as_str() {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        say(&format!(
            "{group}/{name} is served again as {device}, {state}{why}"
        ))?;
    }
    Ok(())
}

/// Waits until `count` volumes, and all there are, have their device. A tap that does not answer `is_starting`, or has ended.
pub(super) fn served(
    dirs: &Dirs,
    group: &Name,
    count: usize,
    is_starting: impl Fn() -> bool,
) -> Result<GroupStatus, Failure> {
    let deadline = Instant::now() + SERVE_PATIENCE;
    let log = dirs.tap_log(group);
    loop {
        match look::ask(dirs, group, &Request::Status, ANSWER_PATIENCE) {
            Ok(Reply::Status(status)) => {
                let is_served = status.volumes.iter().all(|volume| volume.device.is_some());
                if is_served && status.volumes.len() >= count {
                    return Ok(*status);
                }
            }
            Ok(other) => return Err(look::unexpected(other)),
            Err(ClientError::NotRunning | ClientError::Ended) if is_starting() => {}
            Err(ClientError::NotRunning | ClientError::Ended) => {
                return Err(Failure::failed(format!(
                    "the tap of group {group} has ended while it recovered; see {}",
                    log.display()
                )));
            }
            Err(error) => return Err(look::of_client(&error)),
        }
        if Instant::now() >= deadline {
            return Err(Failure::late(format!(
                "a device of group {group} is not served yet; see `ublk-tap status {group}` and {}",
                log.display()
            )));
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}
