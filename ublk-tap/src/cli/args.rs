//! The command line as clap reads it.

use crate::control::Settling;
use crate::group::FrontKind;
use crate::settings::{ByteSize, Span};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::str::FromStr;
use wire::{Name, VolumeName};

/// Wraps disks as ublk devices and sends every write to a receiver, in its order.
///
/// Exit codes: 0 ok, 1 failed, 2 usage, 3 refused (identity, in use, bad state), 4 unreachable or
/// timeout, 5 missing permission or kernel support, 6 no space.
#[derive(Debug, Parser)]
#[command(name = "ublk-tap", version)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Enrol this host with a receiver, with a token from `ublk-tap-receiver token`
    Join(JoinArgs),
    /// Wrap a disk as a volume of a group; starts the group's tap if none runs
    Add(AddArgs),
    /// Run the tap of a group in the foreground
    Run(RunArgs),
    /// Take a volume, or all of a group, down when everything is at the receiver
    Remove(RemoveArgs),
    /// List the volumes of all groups
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show where groups stand
    Status(StatusArgs),
    /// Wait until everything completed so far is safe at the receiver; prints its stamp
    Barrier(BarrierArgs),
    /// Go on for a tap that was killed: its devices serve again, and whoever waits for them goes on
    Recover {
        /// The group; all groups if none
        group: Option<Name>,
    },
    /// Have this program go on for the tap that runs, while its devices are in use
    Upgrade {
        /// The group; all groups whose tap runs if none
        group: Option<Name>,
        /// Also while a volume is copied; its copy begins again
        #[arg(long)]
        force: bool,
    },
    /// Say which volume a device is; for udev
    #[command(hide = true)]
    Name {
        /// The block device
        device: PathBuf,
    },
    /// Hold a device until the input ends, sync it when told to; the tap's own
    #[command(hide = true)]
    Hold {
        /// The device
        device: PathBuf,
        /// Also where somebody else has it for himself
        #[arg(long)]
        shared: bool,
    },
    /// Remove what a tap that was killed left behind; writers that wait for it end in an error
    Cleanup {
        /// The group; all groups if none
        group: Option<Name>,
    },
}

/// What `join` takes.
#[derive(Debug, clap::Args)]
pub struct JoinArgs {
    /// The token, one line that starts with ut1.
    pub token: String,
    /// Join anew although this host has joined; makes a new key
    #[arg(long)]
    pub force: bool,
}

/// What `add` takes.
#[derive(Debug, clap::Args)]
pub struct AddArgs {
    /// Block device or file to wrap
    pub disk: PathBuf,
    /// Group the volume is recovered with
    #[arg(long, value_name = "NAME")]
    pub group: Name,
    /// Name of the volume in the group
    #[arg(long, value_name = "NAME")]
    pub volume: Name,
    /// What the application uses
    #[arg(long, value_enum, default_value_t)]
    pub frontend: FrontKind,
    /// Queues of the device [default: from the settings, 1]
    #[arg(long, value_name = "N")]
    pub queues: Option<u16>,
    /// Requests in flight per queue, or NBD client [default: from the settings, 128]
    #[arg(long, value_name = "N")]
    pub depth: Option<u16>,
    /// Payload room of the group's ring [default: from the settings, 64MiB]
    #[arg(long, value_name = "SIZE")]
    pub ring_size: Option<ByteSize>,
    /// Do not ask the receiver first
    #[arg(long)]
    pub offline: bool,
    /// Wait until the volume is whole at the receiver, and show how its copy goes
    #[arg(long)]
    pub wait: bool,
    /// How long it may take, without the copy
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub timeout: Span,
}

/// What `run` takes.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The group
    #[arg(long, value_name = "NAME")]
    pub group: Name,
    /// Payload room of the ring [default: from the settings, 64MiB]
    #[arg(long, value_name = "SIZE")]
    pub ring_size: Option<ByteSize>,
    /// Started by `add`: ends when nothing is added
    #[arg(long, hide = true)]
    pub on_demand: bool,
    /// The process was a tap before
    #[arg(long, hide = true)]
    pub upgraded: bool,
}

/// What `remove` takes.
#[derive(Debug, clap::Args)]
pub struct RemoveArgs {
    /// The volume, or the group
    #[arg(value_name = "GROUP[/VOLUME]")]
    pub target: Target,
    /// Do not wait for what is not at the receiver yet; the next add copies everything
    #[arg(long)]
    pub abandon: bool,
    /// Forget the disk of a volume that is not tapped, so that its name can be another disk's
    #[arg(long, conflicts_with = "abandon")]
    pub forget: bool,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub timeout: Span,
}

/// What `status` takes.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// The group; all groups if none
    pub group: Option<Name>,
    /// As JSON, with documented names
    #[arg(long)]
    pub json: bool,
    /// Again every second, until interrupted
    #[arg(long)]
    pub watch: bool,
}

/// What `barrier` takes.
#[derive(Debug, clap::Args)]
pub struct BarrierArgs {
    /// The group
    pub group: Name,
    /// What to wait for
    #[arg(long, value_enum)]
    pub wait: Settling,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub timeout: Span,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// A group, or a volume of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The group.
    pub group: Name,
    /// The volume; all of the group if none.
    pub volume: Option<Name>,
}

impl FromStr for Target {
    type Err = wire::NameError;

    fn from_str(text: &str) -> Result<Self, wire::NameError> {
        if text.contains('/') {
            let VolumeName { group, volume } = text.parse()?;
            return Ok(Self {
                group,
                volume: Some(volume),
            });
        }
        Ok(Self {
            group: Name::new(text)?,
            volume: None,
        })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.volume {
            Some(volume) => write!(f, "{}/{volume}", self.group),
            None => write!(f, "{}", self.group),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_target_is_a_group_or_one_of_its_volumes() {
        let target: Target = "pg/data".parse().unwrap();
        assert_eq!(target.to_string(), "pg/data");
        assert_eq!("pg".parse::<Target>().unwrap().volume, None);
        for bad in ["", "/", "pg/", "/data", "a/b/c", "../x"] {
            assert!(bad.parse::<Target>().is_err(), "{bad:?}");
        }
    }
}
