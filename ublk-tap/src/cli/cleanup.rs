//! `ublk-tap cleanup`: after a tap was killed.
//!
//! Its devices stay in the kernel and their users wait, for a tap that could take over. This gives
//! that up: the devices are deleted, whoever waits gets an error, and links, ring and sockets go. The
//! state stays as it is: not clean, so the next add copies.

use super::say;
use crate::daemon::left::is_dead;
use crate::daemon::{GroupLock, clear_run_dir, live_pid};
use crate::device::kernel::{self, KernelDevice};
use crate::failure::{Exit, Failure};
use crate::settings::Dirs;
use std::fs;
use std::path::Path;
use wire::Name;

/// Cleans up after one group, or after all whose tap does not run.
pub(super) fn cleanup(dirs: &Dirs, group: Option<&Name>) -> Result<(), Failure> {
    let groups = match group {
        Some(group) => {
            refuse_unknown(dirs, group)?;
            refuse_running(dirs, group)?;
            vec![group.clone()]
        }
        None => groups_left(dirs),
    };
    let mut done = Vec::new();
    for group in groups {
        clean(dirs, &group, &mut done)?;
    }
    if group.is_none() {
        clean_nameless(&mut done)?;
    }
    match done.as_slice() {
        [] => say("nothing was left behind"),
        done => say(&done.join("\n")),
    }
}

/// Groups that left something and whose tap does not run.
fn groups_left(dirs: &Dirs) -> Vec<Name> {
    let mut groups = dirs.run_groups();
    groups.extend(
        kernel::devices()
            .into_iter()
            .filter_map(|device| device.group),
    );
    groups.extend(linked_groups(dirs));
    groups.sort();
    groups.dedup();
    groups.retain(|group| live_pid(dirs, group).is_none());
    groups
}

fn clean(dirs: &Dirs, group: &Name, done: &mut Vec<String>) -> Result<(), Failure> {
    let lock = match dirs.group_run(group).is_dir() {
        // Whoever starts a tap now waits until we are done, or makes a directory of its own.
        true => Some(GroupLock::take(dirs, group).map_err(|e| Failure::refused(e.to_string()))?),
        false => None,
    };
    for device in kernel::devices() {
        if device.is_ours && device.group.as_ref() == Some(group) {
            delete(&device, done)?;
        }
    }
    withdraw_links(dirs, group, done);
    if lock.is_some() {
        keep_log(dirs, group, done);
        clear_run_dir(dirs, group);
        done.push(format!("{group}: removed its ring, sockets and lock"));
    }
    Ok(())
}

/// Dead devices of ours whose note about the group is lost.
fn clean_nameless(done: &mut Vec<String>) -> Result<(), Failure> {
    for device in kernel::devices() {
        if device.is_ours && device.group.is_none() && is_dead(&device) {
            delete(&device, done)?;
        }
    }
    Ok(())
}

fn delete(device: &KernelDevice, done: &mut Vec<String>) -> Result<(), Failure> {
    let path = device.path.display();
    kernel::delete(device.id).map_err(|error| {
        let text = format!("{path} cannot be deleted: {error}");
        Failure::new(Exit::from_code(error.exit_code()), text)
    })?;
    done.push(format!(
        "deleted {path}; whoever waited for it has got an error"
    ));
    Ok(())
}

/// Stable names of a group without a tap lead nowhere.
fn withdraw_links(dirs: &Dirs, group: &Name, done: &mut Vec<String>) {
    let dir = dirs.dev.join(group.as_str());
    let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
    for path in entries
        .map(|entry| entry.path())
        .filter(|path| path.is_symlink())
    {
        match fs::remove_file(&path) {
            Ok(()) => done.push(format!("removed the link {}", path.display())),
            Err(error) => tracing::warn!(%error, path = %path.display(), "a link stays"),
        }
    }
    // Somebody else's file in it keeps it.
    let _ = fs::remove_dir(&dir);
}

/// The log of a tap that was killed is the only one who knows.
fn keep_log(dirs: &Dirs, group: &Name, done: &mut Vec<String>) {
    let (log, kept) = (dirs.tap_log(group), dirs.crash_log(group));
    let is_worth = fs::metadata(&log).is_ok_and(|meta| meta.len() > 0);
    if is_worth && fs::rename(&log, &kept).is_ok() {
        done.push(format!("kept the log of the tap as {}", kept.display()));
    }
}

fn refuse_running(dirs: &Dirs, group: &Name) -> Result<(), Failure> {
    match live_pid(dirs, group) {
        Some(pid) => Err(Failure::refused(format!(
            "the tap of group {group} is running (process {pid}); use `ublk-tap remove {group}`"
        ))),
        None => Ok(()),
    }
}

fn refuse_unknown(dirs: &Dirs, group: &Name) -> Result<(), Failure> {
    let traces = [
        dirs.group_run(group),
        dirs.state_file(group),
        dirs.dev.join(group.as_str()),
    ];
    let in_kernel = || {
        kernel::devices()
            .iter()
            .any(|device| device.group.as_ref() == Some(group))
    };
    if traces.iter().any(|trace| trace.exists()) || in_kernel() {
        return Ok(());
    }
    let text = format!("there is no group {group} on this host; see `ublk-tap list`");
    Err(Failure::refused(text))
}

fn linked_groups(dirs: &Dirs) -> Vec<Name> {
    let name = |path: &Path| Name::new(path.file_name()?.to_str()?).ok();
    let entries = fs::read_dir(&dirs.dev).into_iter().flatten().flatten();
    entries.filter_map(|entry| name(&entry.path())).collect()
}
