//! `ublk-tap upgrade`: this program goes on for the tap that runs, while its devices are in use.
//!
//! The tap becomes this program; its process stays, so a service manager sees no end. Nobody who
//! uses the devices sees more than a pause.

use super::{look, recover};
use crate::control::{ClientError, Request, UpgradeRequest};
use crate::daemon;
use crate::failure::Failure;
use crate::settings::Dirs;
use std::time::Duration;
use wire::Name;

/// How long the tap may take to let go.
const LET_GO_PATIENCE: Duration = Duration::from_secs(15);

/// Upgrades the tap of one group, or of all whose tap runs.
pub(super) fn upgrade(dirs: &Dirs, group: Option<&Name>, force: bool) -> Result<(), Failure> {
    let is_running = |group: &Name| daemon::live_pid(dirs, group).is_some();
    match group {
        Some(group) => upgrade_group(dirs, group, force),
        None => {
            let mut groups = look::groups(dirs).into_iter().filter(is_running);
            groups.try_for_each(|group| upgrade_group(dirs, &group, force))
        }
    }
}

fn upgrade_group(dirs: &Dirs, group: &Name, force: bool) -> Result<(), Failure> {
    let program = std::env::current_exe();
    let program = program.map_err(|error| Failure::of_io("find this program", &error))?;
    let before = look::status(dirs, group)?;
    let request = Request::Upgrade(UpgradeRequest { program, force });
    match look::ask(dirs, group, &request, LET_GO_PATIENCE) {
        // It is no more what it was.
        Err(ClientError::Ended) => {}
        Err(ClientError::NotRunning) => {
            let text = format!(
                "the tap of group {group} is not running; if it was killed: ublk-tap recover {group}"
            );
            return Err(Failure::refused(text));
        }
        Err(error) => return Err(look::of_client(&error)),
        Ok(reply) => return Err(look::unexpected(reply)),
    }
    let is_alive = || i32::try_from(before.pid).is_ok_and(daemon::is_alive);
    match recover::served(dirs, group, before.volumes.len(), is_alive) {
        Ok(status) => recover::tell(group, &status),
        // As after a kill, and the successor it would be.
        Err(_) if !is_alive() => recover::recover(dirs, Some(group)),
        Err(failure) => Err(failure),
    }
}
