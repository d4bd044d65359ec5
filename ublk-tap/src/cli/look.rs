//! Finding groups and asking their taps.

use crate::control::{Client, ClientError, GroupStatus, Reply, Request, VolumeStatus};
use crate::daemon::left;
use crate::device;
use crate::failure::{Exit, Failure};
use crate::group::clerk::of_state;
use crate::settings::Dirs;
use crate::state::{Registered, Rest, State, StateFile};
use std::time::Duration;
use wire::Name;

/// How long a tap may take to answer what it knows.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);

/// Groups this host knows: those with a state file, and those whose tap runs.
pub(super) fn groups(dirs: &Dirs) -> Vec<Name> {
    let mut groups = dirs.known_groups();
    groups.extend(
        dirs.run_groups()
            .into_iter()
            .filter(|group| is_running(dirs, group)),
    );
    groups.sort();
    groups.dedup();
    groups
}

/// Status of a group, from its tap or from what the last one left.
pub(super) fn status(dirs: &Dirs, group: &Name) -> Result<GroupStatus, Failure> {
    match ask(dirs, group, &Request::Status, ANSWER_PATIENCE) {
        Ok(Reply::Status(status)) => Ok(*status),
        Ok(other) => Err(unexpected(other)),
        Err(ClientError::NotRunning) => stopped(dirs, group),
        Err(error) => Err(of_client(&error)),
    }
}

/// Asks the tap of a group.
pub(super) fn ask(
    dirs: &Dirs,
    group: &Name,
    request: &Request,
    within: Duration,
) -> Result<Reply, ClientError> {
    Client::connect(&dirs.control_socket(group))?.ask(request, within)
}

/// Asks the tap of a group that must run for this.
pub(super) fn ask_running(
    dirs: &Dirs,
    group: &Name,
    request: &Request,
    within: Duration,
) -> Result<Reply, Failure> {
    match ask(dirs, group, request, within) {
        Err(ClientError::NotRunning) => {
            known(dirs, group)?;
            let text = format!("the tap of group {group} is not running; add a disk first");
            Err(Failure::refused(text))
        }
        Err(error) => Err(of_client(&error)),
        Ok(Reply::Failed(failure)) => Err(failure),
        Ok(reply) => Ok(reply),
    }
}

/// The state of a group this host knows.
pub(super) fn known(dirs: &Dirs, group: &Name) -> Result<State, Failure> {
    let state =
        StateFile::peek(&dirs.state_file(group), group).map_err(|error| of_state(&error))?;
    state.ok_or_else(|| {
        let text = format!("there is no group {group} on this host; see `ublk-tap list`");
        Failure::refused(text)
    })
}

pub(super) fn unexpected(reply: Reply) -> Failure {
    match reply {
        Reply::Failed(failure) => failure,
        other => Failure::failed(format!(
            "the tap gave another answer than asked for: {other:?}"
        )),
    }
}

pub(super) fn of_client(error: &ClientError) -> Failure {
    let exit = match error {
        ClientError::NotRunning => Exit::Refused,
        ClientError::Silent(_) => Exit::Unreachable,
        ClientError::Permission => Exit::Privilege,
        ClientError::Ended | ClientError::Failed(_) => Exit::Failed,
    };
    Failure::new(exit, error.to_string())
}

fn is_running(dirs: &Dirs, group: &Name) -> bool {
    Client::connect(&dirs.control_socket(group)).is_ok()
}

/// What is known of a group without a tap.
fn stopped(dirs: &Dirs, group: &Name) -> Result<GroupStatus, Failure> {
    let state = known(dirs, group)?;
    let volumes = state
        .volumes
        .iter()
        .map(|volume| stopped_volume(dirs, group, volume));
    Ok(GroupStatus {
        group: group.to_string(),
        incarnation: state.incarnation.to_string(),
        mode: "stopped".into(),
        reason: why_stopped(dirs, group),
        link: "down".into(),
        volumes: volumes.collect(),
        ..GroupStatus::default()
    })
}

fn why_stopped(dirs: &Dirs, group: &Name) -> String {
    if left::groups(dirs).contains(group) {
        format!("the tap was killed and its volumes wait; run `ublk-tap recover {group}`")
    } else {
        "the tap is not running; add a disk".into()
    }
}

fn stopped_volume(dirs: &Dirs, group: &Name, volume: &Registered) -> VolumeStatus {
    let reason = match &volume.rest {
        Rest::Clean(mark) => format!("clean since {}", crate::control::iso_8601(mark.at)),
        Rest::Unclean(cause) => cause.words().into(),
    };
    VolumeStatus {
        name: volume.name.to_string(),
        link: device::link::path(&dirs.dev, group, &volume.name)
            .display()
            .to_string(),
        disk: volume.path.clone(),
        identity: volume.identity.clone(),
        size_bytes: volume.size_bytes,
        total_bytes: volume.size_bytes,
        state: "stopped".into(),
        reason,
        ..VolumeStatus::default()
    }
}
