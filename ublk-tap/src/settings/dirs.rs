//! Where everything lies on this host.

use std::path::{Path, PathBuf};
use wire::Name;

/// The four directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirs {
    /// Settings and this host's identity.
    pub config: PathBuf,
    /// State files; on no disk that is tapped.
    pub state: PathBuf,
    /// Rings and sockets; a tmpfs.
    pub run: PathBuf,
    /// Stable names of devices.
    pub dev: PathBuf,
}

/// Environment variable that moves [`Dirs::config`].
const CONFIG_DIR_VAR: &str = "UBLK_TAP_CONFIG_DIR";
/// Environment variable that moves [`Dirs::state`].
const STATE_DIR_VAR: &str = "UBLK_TAP_STATE_DIR";
/// Environment variable that moves [`Dirs::run`].
const RUN_DIR_VAR: &str = "UBLK_TAP_RUN_DIR";
/// Environment variable that moves [`Dirs::dev`].
const DEV_DIR_VAR: &str = "UBLK_TAP_DEV_DIR";

impl Dirs {
    /// The usual places, or those the environment names.
    pub fn from_env() -> Self {
        Self {
            config: dir(CONFIG_DIR_VAR, "/etc/ublk-tap"),
            state: dir(STATE_DIR_VAR, "/var/lib/ublk-tap"),
            run: dir(RUN_DIR_VAR, "/run/ublk-tap"),
            dev: dir(DEV_DIR_VAR, "/dev/ublk-tap"),
        }
    }

    /// The environment that names these places, for a child.
    pub fn to_env(&self) -> [(&'static str, &Path); 4] {
        [
            (CONFIG_DIR_VAR, &self.config),
            (STATE_DIR_VAR, &self.state),
            (RUN_DIR_VAR, &self.run),
            (DEV_DIR_VAR, &self.dev),
        ]
    }

    /// Settings of a group.
    pub fn settings(&self, group: &Name) -> PathBuf {
        self.config.join(format!("{group}.toml"))
    }

    /// Key, certificate and receiver of this host.
    pub fn identity(&self) -> PathBuf {
        self.config.join("identity")
    }

    /// State file of a group.
    pub fn state_file(&self, group: &Name) -> PathBuf {
        self.state.join(format!("{group}{STATE_SUFFIX}"))
    }

    /// What exists while a group's tap runs.
    pub fn group_run(&self, group: &Name) -> PathBuf {
        self.run.join(group.as_str())
    }

    /// Socket of the operator.
    pub fn control_socket(&self, group: &Name) -> PathBuf {
        self.group_run(group).join("control.sock")
    }

    /// Socket of the shipper.
    pub fn shipper_socket(&self, group: &Name) -> PathBuf {
        self.group_run(group).join("shipper.sock")
    }

    /// Socket of a volume that is served over NBD. Names have no dots: it is never another file's.
    pub fn nbd_socket(&self, group: &Name, volume: &Name) -> PathBuf {
        self.group_run(group).join(format!("{volume}{NBD_SUFFIX}"))
    }

    /// Sockets of volumes, served or left by a tap that was killed.
    pub fn nbd_sockets(&self, group: &Name) -> Vec<PathBuf> {
        let name = |text: &str| Name::new(text.strip_suffix(NBD_SUFFIX)?).ok();
        let volumes = names_in(&self.group_run(group), name);
        let socket = |volume| self.nbd_socket(group, volume);
        volumes.iter().map(socket).collect()
    }

    /// Locked by the group's tap as long as it lives.
    pub fn lock(&self, group: &Name) -> PathBuf {
        self.group_run(group).join("lock")
    }

    /// Process id of the group's tap.
    pub fn pid(&self, group: &Name) -> PathBuf {
        self.group_run(group).join("tap.pid")
    }

    /// Which volume has which number in the ring, for a successor.
    pub fn roster(&self, group: &Name) -> PathBuf {
        self.group_run(group).join("roster")
    }

    /// Log of a tap in the background.
    pub fn tap_log(&self, group: &Name) -> PathBuf {
        self.group_run(group).join("tap.log")
    }

    /// Log of its shipper.
    pub fn shipper_log(&self, group: &Name) -> PathBuf {
        self.group_run(group).join("shipper.log")
    }

    /// The last log of a tap that crashed, kept by `cleanup`.
    pub fn crash_log(&self, group: &Name) -> PathBuf {
        self.run.join(format!("{group}.crashed.log"))
    }

    /// Groups that have a state file, by name.
    pub fn known_groups(&self) -> Vec<Name> {
        let name = |text: &str| Name::new(text.strip_suffix(STATE_SUFFIX)?).ok();
        names_in(&self.state, name)
    }

    /// Groups that have, or had before a crash, a tap.
    pub fn run_groups(&self) -> Vec<Name> {
        names_in(&self.run, |text| Name::new(text).ok())
    }
}

const STATE_SUFFIX: &str = ".state";
const NBD_SUFFIX: &str = ".nbd";

fn dir(variable: &str, usual: &str) -> PathBuf {
    let named = std::env::var_os(variable).filter(|value| !value.is_empty());
    let path = named.map_or_else(|| PathBuf::from(usual), PathBuf::from);
    std::path::absolute(&path).unwrap_or(path)
}

fn names_in(dir: &Path, name: impl Fn(&str) -> Option<Name>) -> Vec<Name> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<Name> = entries
        .filter_map(|entry| name(entry.file_name().to_str()?))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_their_state_files_and_nothing_else_is_taken_for_one() {
        let root = tempfile::tempdir().unwrap();
        for file in ["pg.state", "a.state", ".pg.state.new", "x", "Y.state"] {
            std::fs::write(root.path().join(file), b"").unwrap();
        }
        let dirs = Dirs {
            state: root.path().into(),
            ..Dirs::from_env()
        };
        let names: Vec<String> = dirs.known_groups().iter().map(Name::to_string).collect();
        assert_eq!(names, ["a", "pg"]);
    }
}
