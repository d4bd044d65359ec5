//! What an operator may set: one TOML file per group, every key optional.
//!
//! Owned by nobody after the start: settings are read when the tap of a group starts. Unknown keys
//! and impossible values are refused with the line they are on. Changing a setting never triggers a
//! resync: nothing here says what is copied, only how.

mod dirs;
mod enrolment;
mod size;
mod span;

pub use dirs::Dirs;
pub use enrolment::{Enrolment, EnrolmentError};
pub use size::{ByteSize, SizeError};
pub use span::{Span, SpanError};

use crate::device::Transfer;
use ring::RingConfig;
use serde::Deserialize;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;
use wire::limits::RECORD_PAYLOAD_BYTES_MAX;

/// Settings of a group on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Payload room of the ring.
    pub ring_bytes: u64,
    /// How long a write may wait for room in the ring before the stream is given up.
    pub park: Duration,
    /// Queues of a device.
    pub queues: u16,
    /// Requests in flight per queue.
    pub depth: u16,
    /// Largest request of a device.
    pub request_bytes: u32,
    /// How the application's bytes are moved.
    pub transfer: Transfer,
    /// Who runs the shipper.
    pub shipper: ShipperMode,
    /// How long a stop by signal may take to drain.
    pub stop: Duration,
    /// Group whose members may use volumes that are served over NBD.
    pub nbd_group: Option<u32>,
}

/// Who runs the shipper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShipperMode {
    /// The tap starts it and starts it again when it ends.
    Child,
    /// Somebody else; the tap only lets it connect.
    External,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{} line {line}: {reason}; correct it", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// Where in it.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

/// The file as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    ring_bytes: Option<toml::Spanned<ByteSize>>,
    park_ms: Option<toml::Spanned<u64>>,
    queues: Option<toml::Spanned<u16>>,
    depth: Option<toml::Spanned<u16>>,
    request_bytes: Option<toml::Spanned<ByteSize>>,
    transfer: Option<Transfer>,
    shipper: Option<ShipperMode>,
    stop_ms: Option<toml::Spanned<u64>>,
    nbd_group: Option<toml::Spanned<String>>,
}

/// A value out of its bounds, and where it is.
struct Bad {
    at: usize,
    reason: String,
}

/// Longest path of a Unix socket.
const SOCKET_PATH_BYTES_MAX: usize = 107;
const FILE_BYTES_MAX: u64 = 64 << 10;
const PARK_MS: std::ops::RangeInclusive<u64> = 1..=600_000;
const STOP_MS: std::ops::RangeInclusive<u64> = 1..=600_000;
const QUEUES: std::ops::RangeInclusive<u16> = 1..=64;
const DEPTH: std::ops::RangeInclusive<u16> = 1..=1024;

impl Default for Settings {
    fn default() -> Self {
        Self {
            ring_bytes: 64 << 20,
            park: Duration::from_millis(2000),
            queues: 1,
            depth: 128,
            request_bytes: 512 << 10,
            transfer: Transfer::Auto,
            shipper: ShipperMode::Child,
            stop: Duration::from_millis(10_000),
            nbd_group: None,
        }
    }
}

impl Settings {
    /// Reads a group's file; without one everything is as by default.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let text = match read_bounded(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => {
                let path = path.to_owned();
                return Err(SettingsError::Read { path, source });
            }
        };
        Self::parse(&text).map_err(|bad| SettingsError::Bad {
            path: path.to_owned(),
            line: line_of(&text, bad.at),
            reason: bad.reason,
        })
    }

    fn parse(text: &str) -> Result<Self, Bad> {
        let file: File = toml::from_str(text).map_err(|error| Bad {
            at: error.span().map_or(0, |span| span.start),
            reason: error.message().replace('\n', "; "),
        })?;
        let mut settings = Self::default();
        if let Some(bytes) = &file.ring_bytes {
            settings.ring_bytes = bytes.get_ref().0;
            check_ring(settings.ring_bytes).map_err(|reason| Bad {
                at: at(bytes),
                reason,
            })?;
        }
        if let Some(bytes) = &file.request_bytes {
            settings.request_bytes = request_bytes(bytes)?;
        }
        if let Some(millis) = within("park_ms", &file.park_ms, &PARK_MS)? {
            settings.park = Duration::from_millis(millis);
        }
        if let Some(millis) = within("stop_ms", &file.stop_ms, &STOP_MS)? {
            settings.stop = Duration::from_millis(millis);
        }
        settings.queues = within("queues", &file.queues, &QUEUES)?.unwrap_or(settings.queues);
        settings.depth = within("depth", &file.depth, &DEPTH)?.unwrap_or(settings.depth);
        settings.transfer = file.transfer.unwrap_or(settings.transfer);
        settings.shipper = file.shipper.unwrap_or(settings.shipper);
        if let Some(name) = &file.nbd_group {
            settings.nbd_group = Some(group_id(name)?);
        }
        Ok(settings)
    }
}

/// Why a device cannot have this many queues, or this many requests in flight, in words.
pub fn check_shape(queues: u16, depth: u16) -> Result<(), String> {
    for (what, found, bounds) in [("queues", queues, QUEUES), ("depth", depth, DEPTH)] {
        if !bounds.contains(&found) {
            let (least, most) = (bounds.start(), bounds.end());
            return Err(format!("{what} is {found}, it must be {least} to {most}"));
        }
    }
    Ok(())
}

/// Why a volume cannot be served over NBD at `path` with so many requests in flight, in words.
pub fn check_nbd(path: &Path, depth: u16) -> Result<(), String> {
    if depth < 2 {
        return Err(
            "depth is 1, over NBD it must be 2 or more: a write that waits would keep the \
                    reads waiting"
                .into(),
        );
    }
    let length = path.as_os_str().len();
    if length <= SOCKET_PATH_BYTES_MAX {
        return Ok(());
    }
    Err(format!(
        "the socket {} would have a path of {length} bytes, {SOCKET_PATH_BYTES_MAX} is the most \
         the kernel takes; use a shorter name for the volume or the group",
        path.display()
    ))
}

/// Why a ring cannot have this size, in words.
pub fn check_ring(bytes: u64) -> Result<(), String> {
    let checked = RingConfig::for_payload(bytes);
    checked.map(|_| ()).map_err(|error| error.to_string())
}

fn request_bytes(bytes: &toml::Spanned<ByteSize>) -> Result<u32, Bad> {
    let found = bytes.get_ref().0;
    let pages = found.is_multiple_of(4096) && found > 0;
    match u32::try_from(found) {
        Ok(size) if pages && size <= RECORD_PAYLOAD_BYTES_MAX => Ok(size),
        _ => Err(Bad {
            at: at(bytes),
            reason: "request_bytes must be whole pages of 4 KiB, at most 1 MiB".into(),
        }),
    }
}

/// The number of a group of users: a number, or a name of the local table. Nobody on the network is
/// asked, who might wait for our own disk.
fn group_id(name: &toml::Spanned<String>) -> Result<u32, Bad> {
    let wanted = name.get_ref();
    let table = fs::read_to_string("/etc/group").unwrap_or_default();
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let is_it = fields.next() == Some(wanted.as_str());
        fields.nth(1).filter(|_| is_it)?.parse().ok()
    };
    let found = wanted
        .parse()
        .ok()
        .or_else(|| table.lines().find_map(entry));
    found.ok_or_else(|| Bad {
        at: at(name),
        reason: format!("nbd_group is {wanted:?}, which is no group of this host"),
    })
}

fn within<T: Copy + PartialOrd + std::fmt::Display>(
    key: &str,
    value: &Option<toml::Spanned<T>>,
    bounds: &std::ops::RangeInclusive<T>,
) -> Result<Option<T>, Bad> {
    let Some(value) = value else { return Ok(None) };
    let found = *value.get_ref();
    if bounds.contains(&found) {
        return Ok(Some(found));
    }
    let (least, most) = (bounds.start(), bounds.end());
    let reason = format!("{key} is {found}, it must be {least} to {most}");
    Err(Bad {
        at: at(value),
        reason,
    })
}

fn at<T>(value: &toml::Spanned<T>) -> usize {
    value.span().start
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().iter().take(at);
    1 + before.filter(|byte| **byte == b'\n').count()
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut file = fs::File::open(path)?.take(FILE_BYTES_MAX);
    file.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pg.toml");
        fs::write(&path, text).unwrap();
        let error = Settings::load(&path).unwrap_err().to_string();
        assert!(!error.contains('\n'), "one line: {error}");
        error
    }

    #[test]
    fn without_a_file_everything_is_as_by_default() {
        let settings = Settings::load(Path::new("/nonexistent/pg.toml")).unwrap();
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn every_key_is_read() {
        let text = "ring_bytes = \"4MiB\"\npark_ms = 500\nqueues = 4\ndepth = 32\n\
                    request_bytes = 65536\ntransfer = \"staged\"\nshipper = \"external\"\nstop_ms = 100\nnbd_group = \"root\"\n";
        let settings = Settings::parse(text).unwrap_or_else(|bad| panic!("{}", bad.reason));
        let expected = Settings {
            ring_bytes: 4 << 20,
            park: Duration::from_millis(500),
            queues: 4,
            depth: 32,
            request_bytes: 65536,
            transfer: Transfer::Staged,
            shipper: ShipperMode::External,
            stop: Duration::from_millis(100),
            nbd_group: Some(0),
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = refusal("park_ms = 1\nring_bites = \"4MiB\"\n");
        assert!(
            error.contains("line 2") && error.contains("ring_bites"),
            "{error}"
        );
    }

    #[test]
    fn an_impossible_value_is_refused_with_its_line() {
        for (text, line, word) in [
            ("ring_bytes = \"5MiB\"\n", "line 1", "power of two"),
            ("queues = 1\ndepth = 0\n", "line 2", "depth is 0"),
            ("queues = 65\n", "line 1", "1 to 64"),
            ("\n\npark_ms = 0\n", "line 3", "park_ms"),
            ("request_bytes = \"2MiB\"\n", "line 1", "1 MiB"),
            ("shipper = \"nobody\"\n", "line 1", "nobody"),
            ("transfer = \"magic\"\n", "line 1", "magic"),
            ("nbd_group = \"no-such\"\n", "line 1", "no group of this"),
            ("ring_bytes = \"much\"\n", "line 1", "much"),
            ("= 3\n", "line 1", "line 1"),
        ] {
            let error = refusal(text);
            assert!(
                error.contains(line) && error.contains(word),
                "{text:?}: {error}"
            );
        }
    }
}
