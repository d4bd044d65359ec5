//! The tap's own mount namespace. One of the modules of this crate with `unsafe`.
//!
//! A daemon that is the last process of a namespace in which its own device is mounted waits for
//! itself when it ends; in a namespace of our own nobody mounts anything. But what is mounted here
//! keeps its disk busy: so the host's unmounts reach us where the host shares its mounts, and where
//! it does not, we let go of every disk we do not need. See `docs/decisions/mount-namespace.md`.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Enters a mount namespace of our own in which nothing keeps a disk busy, except under the paths
/// we need. Call it before there is a second thread.
pub(super) fn enter(needed: &[PathBuf]) -> io::Result<()> {
    unshare()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    for at in held_for_nothing(&mounts, needed) {
        if let Err(error) = detach(&at) {
            tracing::warn!(%error, at, "a mount stays in our namespace and keeps its disk busy");
        }
    }
    Ok(())
}

fn unshare() -> io::Result<()> {
    let root = c"/".as_ptr();
    let (none, flags) = (std::ptr::null(), libc::MS_REC | libc::MS_SLAVE);
    // SAFETY: needed because neither the standard library nor the enabled parts of rustix have
    // these calls. They take a path that lives as long as the program and null for what they do
    // not use; no thread but ours runs yet.
    let failed = unsafe {
        libc::unshare(libc::CLONE_NEWNS) != 0
            || libc::mount(none, root, none, flags, std::ptr::null()) != 0
    };
    if failed {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Nothing happens outside our namespace: what is slave or private does not tell anybody.
fn detach(at: &str) -> io::Result<()> {
    let path = CString::new(at)?;
    // SAFETY: needed as in `unshare`; the path lives until the call returns.
    let failed = unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) != 0 };
    if failed {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Mount points that keep a disk busy without need: the last first, so that what lies over
/// another goes before it.
fn held_for_nothing(mountinfo: &str, needed: &[PathBuf]) -> Vec<String> {
    let mounts = mountinfo.lines().filter_map(Mount::parse);
    let for_nothing = mounts.filter(|mount| {
        let is_needed = needed.iter().any(|path| path.starts_with(&mount.at));
        mount.is_of_a_disk && !mount.follows_host && !is_needed && mount.at != "/"
    });
    let mut places: Vec<String> = for_nothing.map(|mount| mount.at).collect();
    places.reverse();
    places
}

struct Mount {
    at: String,
    is_of_a_disk: bool,
    follows_host: bool,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (place, filesystem) = line.split_once(" - ")?;
        let fields: Vec<&str> = place.split(' ').collect();
        let (major, _) = fields.get(2)?.split_once(':')?;
        // Some filesystems have a number of their own; only their source names the disk.
        let source = filesystem.split(' ').nth(1).unwrap_or_default();
        Some(Self {
            at: unescaped(fields.get(4)?),
            is_of_a_disk: major != "0" || Path::new(source).starts_with("/dev"),
            follows_host: fields
                .iter()
                .skip(6)
                .any(|field| field.starts_with("master:")),
        })
    }
}

/// The kernel writes blanks in this table as `\040`.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_let_go_of_unless_the_host_tells_us_or_we_need_what_is_on_them() {
        let mounts = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                      23 22 0:5 / /proc rw - proc proc rw\n\
                      24 22 8:17 / /srv/my\\040data rw - xfs /dev/sdb1 rw\n\
                      25 22 0:42 / /pool rw - btrfs /dev/sdc rw\n\
                      26 22 8:33 / /shared rw master:7 - ext4 /dev/sdd1 rw\n\
                      27 22 8:49 / /var rw - ext4 /dev/sde1 rw\n\
                      28 24 8:65 / /srv/my\\040data/over rw - ext4 /dev/sdf1 rw\n";
        let needed = [
            PathBuf::from("/var/lib/ublk-tap"),
            PathBuf::from("/run/ublk-tap"),
        ];
        let found = held_for_nothing(mounts, &needed);
        assert_eq!(found, ["/srv/my data/over", "/pool", "/srv/my data"]);
    }
}
