//! Who this host is to its receiver, as `ublk-tap join` has written it down.
//!
//! The tap needs the source name only; address and pin are the shipper's business, and the key
//! is never opened here.

use serde::Deserialize;
use std::io::Read;
use std::path::{Path, PathBuf};
use wire::Name;

/// This host's enrolment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// This host's name at the receiver.
    pub source: Name,
    /// `HOST:PORT` of the receiver, for texts.
    pub address: String,
}

/// Why this host has no name.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// It has never joined.
    #[error("this host is not enrolled with a receiver; run `ublk-tap join TOKEN` first")]
    Missing,
    /// What was written down is not readable.
    #[error("{} cannot be used: {reason}; join again with `ublk-tap join TOKEN --force`", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Deserialize)]
struct File {
    source: String,
    #[serde(default)]
    address: String,
}

const FILE_BYTES_MAX: u64 = 64 << 10;

impl Enrolment {
    /// Reads `receiver.toml` in the identity directory.
    pub fn load(identity_dir: &Path) -> Result<Self, EnrolmentError> {
        let path = identity_dir.join("receiver.toml");
        let mut text = String::new();
        let read = std::fs::File::open(&path)
            .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
        let bad = |reason: String| EnrolmentError::Bad {
            path: path.clone(),
            reason,
        };
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(EnrolmentError::Missing);
            }
            Err(error) => return Err(bad(error.to_string())),
        }
        let file: File =
            toml::from_str(&text).map_err(|error| bad(error.message().replace('\n', "; ")))?;
        let source = Name::new(&file.source).map_err(|error| bad(error.to_string()))?;
        Ok(Self {
            source,
            address: file.address,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_never_joined_is_told_to() {
        let dir = tempfile::tempdir().unwrap();
        let error = Enrolment::load(dir.path()).unwrap_err();
        assert!(error.to_string().contains("join"), "{error}");
        std::fs::write(dir.path().join("receiver.toml"), "source = \"../x\"\n").unwrap();
        let error = Enrolment::load(dir.path()).unwrap_err();
        assert!(matches!(error, EnrolmentError::Bad { .. }), "{error}");
        let text = "source = \"db1\"\naddress = \"h:1\"\npin = \"00\"\n";
        std::fs::write(dir.path().join("receiver.toml"), text).unwrap();
        let enrolment = Enrolment::load(dir.path()).unwrap();
        assert_eq!(
            (enrolment.source.as_str(), &*enrolment.address),
            ("db1", "h:1")
        );
    }
}
