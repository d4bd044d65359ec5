//! The command line as clap reads it.

use crate::config::{ByteSize, DEFAULT_JOURNAL_BYTES_MAX, DEFAULT_PORT, Span};
use crate::control::At;
use crate::target::LayoutKind;
use clap::{Parser, Subcommand};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Receives volumes of enrolled sources, keeps them on target disks, and gives them back.
///
/// Exit codes: 0 ok, 1 failed, 2 usage, 3 refused (identity, in use, bad state), 4 unreachable or
/// timeout, 5 missing permission or kernel support, 6 no space.
#[derive(Debug, Parser)]
#[command(name = "ublk-tap-receiver", version)]
pub struct Args {
    /// Directory of the receiver: settings, identity, catalog, control socket
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "UBLK_TAP_RECEIVER_DIR",
        default_value = "/var/lib/ublk-tap-receiver"
    )]
    pub dir: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Set up a receiver in its directory: identity, catalog, settings
    Init(InitArgs),
    /// Serve sources until stopped
    Serve {
        /// The journal is lost: begin a new one. What was applied stays, the rest is copied again
        #[arg(long)]
        new_journal: bool,
    },
    /// Print an enrolment token for a source: one use, `ublk-tap join TOKEN` redeems it
    Token {
        /// Name the source is enrolled under
        #[arg(long, value_name = "NAME")]
        source: String,
        /// How long the token can be redeemed, such as 30m, 1h, 2d
        #[arg(long, value_name = "TIME", default_value = "1h")]
        expires: Span,
    },
    /// End the enrolment of a source; its sessions end at once
    Revoke {
        /// Name of the source
        #[arg(value_name = "NAME")]
        source: String,
    },
    /// Add, list, remove or export volumes
    #[command(subcommand)]
    Volume(VolumeVerb),
    /// Let the points of a group go on without a source that does not come back
    ///
    /// Its volumes stay at the newest point; what it did after that is given up, and when it comes
    /// back they are copied again
    Detach {
        /// The group
        #[arg(value_name = "GROUP")]
        group: String,
        /// The source
        #[arg(long, value_name = "NAME")]
        source: String,
        /// Its name once more, where nobody can be asked
        #[arg(long, value_name = "NAME")]
        confirm: Option<String>,
    },
    /// List the points of a group that can be had
    Points {
        /// Its name
        #[arg(value_name = "GROUP")]
        group: String,
        /// As JSON, with documented names
        #[arg(long)]
        json: bool,
    },
    /// Show where everything stands
    Status {
        /// As JSON, with documented names
        #[arg(long)]
        json: bool,
        /// Again every second, until interrupted
        #[arg(long)]
        watch: bool,
    },
    /// Read journal, catalog and targets and say what is wrong; changes nothing, while nothing runs
    ///
    /// Exit codes: 0 nothing is wrong, 1 something is, 3 the receiver runs or there is none
    Fsck {
        /// As JSON, with documented names
        #[arg(long)]
        json: bool,
    },
}

/// What `init` takes.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// UDP address to serve on, such as 0.0.0.0:7800; the port may be left out
    #[arg(long, value_name = "ADDR")]
    pub listen: ListenAddr,
    /// HOST:PORT put into tokens, where sources reach this receiver [default: the listen address]
    #[arg(long, value_name = "ADDR")]
    pub advertise: Option<String>,
    /// Directory of the journal [default: DIR/journal]
    #[arg(long, value_name = "DIR")]
    pub journal: Option<PathBuf>,
    /// Most bytes the journal may take
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(DEFAULT_JOURNAL_BYTES_MAX))]
    pub journal_max: ByteSize,
    /// How far back every point is kept, where the journal has room, such as 24h; 0s: only the newest
    #[arg(long, value_name = "TIME", default_value_t = Span(0))]
    pub retain: Span,
}

/// Verbs about volumes.
#[derive(Debug, Subcommand)]
pub enum VolumeVerb {
    /// Register a volume and the disks or files it is kept on
    Add {
        /// Its name
        #[arg(value_name = "GROUP/VOLUME")]
        volume: String,
        /// The source it is copied from
        #[arg(long, value_name = "NAME")]
        source: String,
        /// Its exact size, such as 64MiB
        #[arg(long)]
        size: ByteSize,
        /// Disk or file to keep it on; a file is created sparse. Several: striped over them, or a
        /// pool of them, where a new file needs =SIZE
        #[arg(long = "target", value_name = "PATH[=SIZE]", required = true, num_args = 1..)]
        targets: Vec<PathBuf>,
        /// `plain`: byte for byte, or striped. `pool`: in segments that are allocated when they are
        /// first written, over disks of any size
        #[arg(long, value_name = "LAYOUT", default_value_t = LayoutKind::Plain)]
        layout: LayoutKind,
        /// Its logical sector in bytes: 512 or 4096
        #[arg(long, value_name = "BYTES", default_value_t = 512)]
        sector: u32,
    },
    /// List the volumes
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Forget a volume; its targets keep their content but are no longer written
    Remove {
        /// Its name
        #[arg(value_name = "GROUP/VOLUME")]
        volume: String,
        /// Its name once more, where nobody can be asked
        #[arg(long, value_name = "GROUP/VOLUME")]
        confirm: Option<String>,
    },
    /// Copy the replica, at a retained point, to a new sparse file
    Export {
        /// Its name
        #[arg(value_name = "GROUP/VOLUME")]
        volume: String,
        /// The file to create
        file: PathBuf,
        /// `newest`, `oldest`, a stamp, or a time such as 2026-11-21T12:00:00Z: the newest point up
        /// to then. `points` lists them
        #[arg(long, value_name = "POINT", default_value_t = At::Newest)]
        at: At,
    },
}

/// An address with or without port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddr(pub SocketAddr);

impl FromStr for ListenAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let whole = text.parse::<SocketAddr>();
        let host = || {
            text.parse::<IpAddr>()
                .map(|ip| SocketAddr::new(ip, DEFAULT_PORT))
        };
        let address = whole.or_else(|_| host());
        address
            .map(Self)
            .map_err(|_| format!("{text:?} is not IP or IP:PORT, such as 0.0.0.0:7800"))
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
    fn addresses_are_read_as_written() {
        let port = |text: &str| text.parse::<ListenAddr>().map(|address| address.0.port());
        assert_eq!(port("0.0.0.0"), Ok(DEFAULT_PORT));
        assert_eq!(port("[::]:99"), Ok(99));
        assert_eq!(port("::1"), Ok(DEFAULT_PORT));
        assert!(port("backup.example:7800").is_err());
    }
}
