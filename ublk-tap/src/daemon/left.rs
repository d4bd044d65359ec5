//! What a tap that was killed has left for its successor: devices in the kernel, whose users wait,
//! and sockets, whose clients are gone or try again.

use super::is_alive;
use crate::device::kernel::{self, KernelDevice};
use crate::failure::Failure;
use crate::group::FrontKind;
use crate::settings::Dirs;
use crate::state::{Rest, State, StateFile, Unclean};
use wire::Name;

/// Volumes over NBD that were served when their tap was killed, or are served now.
pub fn sockets(dirs: &Dirs, state: &State) -> Vec<Name> {
    let group = &state.group;
    let is_served = |volume: &&crate::state::Registered| {
        volume.service.frontend == FrontKind::Nbd
            && volume.rest == Rest::Unclean(Unclean::Live)
            && dirs.nbd_socket(group, &volume.name).exists()
    };
    let served = state.volumes.iter().filter(is_served);
    served.map(|volume| volume.name.clone()).collect()
}

/// Groups that have devices or sockets, of a tap that runs or of one that was killed.
pub fn groups(dirs: &Dirs) -> Vec<Name> {
    let devices = kernel::devices().into_iter();
    let of_devices = devices.filter(|device| device.is_ours);
    let mut groups: Vec<Name> = of_devices.filter_map(|device| device.group).collect();
    let known = dirs.run_groups().into_iter();
    groups.extend(known.filter(|group| has_sockets(dirs, group)));
    groups.sort();
    groups.dedup();
    groups
}

/// Refuses a new start where a tap that was killed has left something; it does not run.
pub fn refuse(dirs: &Dirs, group: &Name) -> Result<(), Failure> {
    let of_group = |device: &KernelDevice| device.group.as_ref() == Some(group);
    let devices = kernel::devices();
    let dead = devices
        .iter()
        .find(|device| device.is_ours && of_group(device) && is_dead(device));
    let what = match dead {
        Some(device) => device.path.display().to_string(),
        None if has_sockets(dirs, group) => "a socket".into(),
        None => return Ok(()),
    };
    Err(Failure::refused(format!(
        "{what} of group {group} was left by a tap that was killed; go on with `ublk-tap recover \
         {group}`, or give it up with `ublk-tap cleanup {group}`"
    )))
}

/// Whether nobody serves a device of ours any more.
pub fn is_dead(device: &KernelDevice) -> bool {
    device.state != kernel::State::Live || !is_alive(device.pid)
}

fn has_sockets(dirs: &Dirs, group: &Name) -> bool {
    let state = StateFile::peek(&dirs.state_file(group), group);
    // A state that cannot be read is refused, in words, by whoever needs it.
    matches!(state, Ok(Some(state)) if !sockets(dirs, &state).is_empty())
}
