//! Settings of a receiver: `receiver.toml` in its directory, and where everything else is.
//!
//! Written once by `init`; an operator may edit it, `serve` reads it at its start.

mod size;
mod span;

pub use size::{ByteSize, SizeError};
pub use span::Span;

use crate::apply::{STEPS_BYTES_DEFAULT, STEPS_BYTES_MIN};
use crate::journal::{JOURNAL_BYTES_MAX, JOURNAL_BYTES_MIN};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the settings file.
pub const SETTINGS_FILE: &str = "receiver.toml";
/// UDP port where none is named.
pub const DEFAULT_PORT: u16 = 7800;
/// Bound of the journal where none is named.
pub const DEFAULT_JOURNAL_BYTES_MAX: u64 = 8 << 30;
/// Longest time for which points may be kept.
const RETAIN_S_MAX: u64 = 365 * 86_400;
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The receiver's directory.
    pub dir: PathBuf,
    /// UDP address to serve on.
    pub listen: SocketAddr,
    /// `HOST:PORT` put into tokens: how sources reach this receiver.
    pub advertise: String,
    /// Directory of the journal's segments.
    pub journal_dir: PathBuf,
    /// Most bytes the journal may take.
    pub journal_bytes_max: u64,
    /// How far back every point is kept, where the journal has room; zero: only the newest.
    pub retain: Duration,
    /// Most bytes all groups together hold in memory for what they are writing to targets.
    pub steps_bytes_max: u64,
}

/// The file as it is written.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: SocketAddr,
    advertise: String,
    journal: PathBuf,
    journal_max: String,
    #[serde(default = "nothing_retained")]
    retain: String,
    #[serde(default = "default_step_memory")]
    step_memory: String,
}

fn default_step_memory() -> String {
    written(STEPS_BYTES_DEFAULT)
}

fn nothing_retained() -> String {
    Span(0).to_string()
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// There are none.
    #[error("no receiver in {}; run `ublk-tap-receiver init --listen ADDR` first", .0.display())]
    Missing(PathBuf),
    /// They cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// They are not what they should be.
    #[error("{} cannot be used: {reason}; correct it", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Settings {
    /// Reads `dir/receiver.toml`.
    pub fn load(dir: &Path) -> Result<Self, SettingsError> {
        let path = dir.join(SETTINGS_FILE);
        let text = read_bounded(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => SettingsError::Missing(dir.to_owned()),
            _ => SettingsError::Io {
                action: "read",
                path: path.clone(),
                source,
            },
        })?;
        let bad = |reason: String| SettingsError::Bad {
            path: path.clone(),
            reason,
        };
        let file: File = toml::from_str(&text).map_err(|error| bad(one_line(&error)))?;
        let max: ByteSize = file
            .journal_max
            .parse()
            .map_err(|e: SizeError| bad(e.to_string()))?;
        journal_max_in_bounds(max).map_err(|reason| bad(format!("journal_max {reason}")))?;
        let steps: ByteSize = file
            .step_memory
            .parse()
            .map_err(|e: SizeError| bad(format!("step_memory: {e}")))?;
        if steps.0 < STEPS_BYTES_MIN {
            let least = ByteSize(STEPS_BYTES_MIN);
            return Err(bad(format!(
                "step_memory is {steps}, at least {least} is needed"
            )));
        }
        let retain = file.retain.parse::<Span>();
        let retain = retain.and_then(retain_in_bounds);
        let retain = retain.map_err(|reason| bad(format!("retain: {reason}")))?;
        Ok(Self {
            dir: dir.to_owned(),
            listen: file.listen,
            advertise: file.advertise,
            journal_dir: dir.join(file.journal),
            journal_bytes_max: max.0,
            retain,
            steps_bytes_max: steps.0,
        })
    }

    /// Writes the file anew, durably; an existing one is an error.
    pub fn save(&self) -> Result<(), SettingsError> {
        let path = self.dir.join(SETTINGS_FILE);
        let file = File {
            listen: self.listen,
            advertise: self.advertise.clone(),
            journal: self.journal_dir.clone(),
            journal_max: written(self.journal_bytes_max),
            retain: Span(self.retain.as_secs()).to_string(),
            step_memory: written(self.steps_bytes_max),
        };
        let text = toml::to_string(&file).map_err(|error| SettingsError::Bad {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let written = write_new(&path, &text);
        written.map_err(|source| SettingsError::Io {
            action: "write",
            path,
            source,
        })
    }

    /// Directory of the receiver's key and certificate.
    pub fn identity_dir(&self) -> PathBuf {
        self.dir.join("identity")
    }

    /// File of the catalog.
    pub fn catalog_path(&self) -> PathBuf {
        self.dir.join("catalog.redb")
    }

    /// Socket of the running daemon.
    pub fn control_path(&self) -> PathBuf {
        self.dir.join("control.sock")
    }
}

/// A size as the file has it: in a unit where that loses nothing.
fn written(bytes: u64) -> String {
    let mut text = ByteSize(bytes).to_string();
    text.retain(|letter| letter != ' ');
    if text.parse() == Ok(ByteSize(bytes)) {
        return text;
    }
    bytes.to_string()
}

/// Whether a journal may be that large; if not, why, in words.
pub fn journal_max_in_bounds(max: ByteSize) -> Result<(), String> {
    let (least, most) = (ByteSize(JOURNAL_BYTES_MIN), ByteSize(JOURNAL_BYTES_MAX));
    match max.0 {
        ..JOURNAL_BYTES_MIN => Err(format!("is {max}, at least {least} is needed")),
        JOURNAL_BYTES_MIN..=JOURNAL_BYTES_MAX => Ok(()),
        _ => Err(format!("is {max}, at most {most} is possible")),
    }
}

/// The span as a time, if points may be kept that long; if not, why, in words.
pub fn retain_in_bounds(retain: Span) -> Result<Duration, String> {
    if retain.0 > RETAIN_S_MAX {
        return Err(format!("{retain} is more than {}", Span(RETAIN_S_MAX)));
    }
    Ok(Duration::from_secs(retain.0))
}

fn read_bounded(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    fs::File::open(path)?
        .take(FILE_BYTES_MAX)
        .read_to_string(&mut text)?;
    Ok(text)
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    path.parent()
        .map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
}

/// The parser's message spreads over lines; what is wrong is in the last that says something.
fn one_line(error: &toml::de::Error) -> String {
    let line = error
        .span()
        .map(|span| format!(" at byte {}", span.start))
        .unwrap_or_default();
    format!("{}{line}", error.message().replace('\n', "; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(dir: &Path) -> Settings {
        Settings {
            dir: dir.to_owned(),
            listen: "0.0.0.0:7800".parse().unwrap(),
            advertise: "backup.example:7800".into(),
            journal_dir: dir.join("journal"),
            journal_bytes_max: 8 << 30,
            retain: Duration::from_secs(90),
            steps_bytes_max: 256 << 20,
        }
    }

    #[test]
    fn settings_read_back_as_they_were_written_and_are_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        for journal_bytes_max in [8 << 30, (8 << 30) + 1, 300 << 20] {
            let settings = Settings {
                journal_bytes_max,
                ..settings(dir.path())
            };
            settings.save().unwrap();
            assert_eq!(Settings::load(dir.path()).unwrap(), settings);
            assert!(settings.save().is_err(), "there are settings already");
            fs::remove_file(dir.path().join(SETTINGS_FILE)).unwrap();
        }
    }

    #[test]
    fn a_journal_is_as_large_as_its_segments_can_be_listed() {
        for (size, fits) in [
            (JOURNAL_BYTES_MIN - 1, false),
            (JOURNAL_BYTES_MIN, true),
            (DEFAULT_JOURNAL_BYTES_MAX, true),
            (JOURNAL_BYTES_MAX, true),
            (JOURNAL_BYTES_MAX + 1, false),
            (u64::MAX, false),
        ] {
            assert_eq!(
                journal_max_in_bounds(ByteSize(size)).is_ok(),
                fits,
                "{size}"
            );
        }
        let said = journal_max_in_bounds(ByteSize(2 << 40)).unwrap_err();
        assert_eq!(said, "is 2 TiB, at most 1 TiB is possible");
    }

    #[test]
    fn unusable_settings_are_refused_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            Settings::load(dir.path()),
            Err(SettingsError::Missing(_))
        ));
        let good = "listen = '[::]:1'\nadvertise = 'a:1'\njournal = 'j'\njournal_max = '1GiB'\n";
        let path = dir.path().join(SETTINGS_FILE);
        fs::write(&path, good).unwrap();
        assert_eq!(
            Settings::load(dir.path()).unwrap().journal_dir,
            dir.path().join("j")
        );
        let retain = Settings::load(dir.path()).unwrap().retain;
        assert_eq!(retain, Duration::ZERO, "as long as nobody says otherwise");
        let steps_bytes_max = Settings::load(dir.path()).unwrap().steps_bytes_max;
        assert_eq!(steps_bytes_max, STEPS_BYTES_DEFAULT);
        for (from, to) in [
            ("1GiB'", "1GiB'\nretain = '24'"),
            ("1GiB'", "1GiB'\nretain = '366d'"),
            ("1GiB", "1GB"),
            ("1GiB", "1MiB"),
            ("1GiB", "1025GiB"),
            ("1GiB'", "1GiB'\nstep_memory = '127MiB'"),
            ("1GiB'", "1GiB'\nstep_memory = 'much'"),
            ("[::]:1", "nowhere"),
            ("journal =", "jornal ="),
            ("= 'a:1'", "'a:1'"),
        ] {
            fs::write(&path, good.replace(from, to)).unwrap();
            let text = Settings::load(dir.path()).unwrap_err().to_string();
            assert!(
                !text.contains('\n') && text.contains("receiver.toml"),
                "{text}"
            );
        }
    }
}
