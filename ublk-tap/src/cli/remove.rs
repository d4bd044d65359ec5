//! `ublk-tap remove`.

use super::args::{RemoveArgs, Target};
use super::{look, say};
use crate::control::{RemoveRequest, Removed, Reply, Request};
use crate::daemon::{GroupLock, live_pid};
use crate::failure::Failure;
use crate::group::clerk::of_state;
use crate::settings::Dirs;
use crate::state::{State, StateFile};
use std::time::{Duration, Instant};
use wire::Name;

/// What the answer may take beyond the time the operator gives.
const GRACE: Duration = Duration::from_secs(35);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Takes volumes down, or forgets one that is not tapped.
pub(super) fn remove(dirs: &Dirs, args: &RemoveArgs) -> Result<(), Failure> {
    if args.forget {
        return forget(dirs, &args.target);
    }
    let request = Request::Remove(RemoveRequest {
        volume: args.target.volume.as_ref().map(Name::to_string),
        abandon: args.abandon,
        timeout_ms: u64::try_from(args.timeout.0.as_millis()).unwrap_or(u64::MAX),
    });
    let within = args.timeout.0 + GRACE;
    match look::ask_running(dirs, &args.target.group, &request, within)? {
        Reply::Removed(removed) => {
            if removed.is_last {
                // Whoever adds next finds no tap that is just ending.
                await_gone(dirs, &args.target.group);
            }
            say(&told(&removed))
        }
        other => Err(look::unexpected(other)),
    }
}

/// Waits until the tap of a group is gone, socket and lock.
fn await_gone(dirs: &Dirs, group: &Name) {
    let deadline = Instant::now() + GRACE;
    while live_pid(dirs, group).is_some() && Instant::now() < deadline {
        std::thread::sleep(LOOK_INTERVAL);
    }
}

fn told(removed: &Removed) -> String {
    let names = removed.volumes.join(", ");
    if removed.clean {
        return format!("removed {names}: clean, nothing needs to be copied next time");
    }
    format!(
        "removed {names}: gave up {}; the next add copies everything",
        removed.given_up
    )
}

/// Unbinds a volume's name from its disk.
fn forget(dirs: &Dirs, target: &Target) -> Result<(), Failure> {
    let Some(volume) = &target.volume else {
        return Err(Failure::usage("--forget needs GROUP/VOLUME"));
    };
    let group = &target.group;
    let state = look::known(dirs, group)?;
    if state.volume(volume).is_none() {
        let text = format!("{target} is not known on this host; see `ublk-tap list`");
        return Err(Failure::refused(text));
    }
    let request = Request::Forget {
        volume: volume.to_string(),
    };
    match look::ask(dirs, group, &request, GRACE) {
        Ok(Reply::Forgotten) => {}
        Ok(other) => return Err(look::unexpected(other)),
        Err(crate::control::ClientError::NotRunning) => forget_stopped(dirs, group, volume)?,
        Err(error) => return Err(look::of_client(&error)),
    }
    say(&format!(
        "forgot the disk of {target}; the name is free for another, copied from scratch"
    ))
}

/// Without a tap we are the one who may write the state, as long as we hold its lock.
fn forget_stopped(dirs: &Dirs, group: &Name, volume: &Name) -> Result<(), Failure> {
    let dir = dirs.group_run(group);
    let is_new = !dir.exists();
    std::fs::create_dir_all(&dir)
        .map_err(|error| Failure::of_io(&format!("make {}", dir.display()), &error))?;
    let lock = GroupLock::take(dirs, group).map_err(|error| Failure::refused(error.to_string()))?;
    let fresh = State::new(group.clone(), 0);
    let forgotten = StateFile::open_or_create(&dirs.state_file(group), fresh)
        .and_then(|mut file| file.update(|state| state.forget(volume)));
    if is_new {
        crate::daemon::clear_run_dir(dirs, group);
    }
    drop(lock);
    forgotten.map(|_| ()).map_err(|error| of_state(&error))
}
