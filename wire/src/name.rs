//! Names of groups, volumes and sources.
//!
//! A name is one safe path component by construction, so nothing a peer sends can become a path
//! (P14). It is never empty, never starts with a dash, and is at most [`NAME_BYTES_MAX`] bytes.

use crate::limits::NAME_BYTES_MAX;
use std::fmt;
use std::str::FromStr;

/// A group, volume or source name: `[a-z0-9][a-z0-9-]{0,63}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<str>);

/// A volume inside its group, written `GROUP/VOLUME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeName {
    /// The group the volume is recovered with.
    pub group: Name,
    /// The volume inside the group.
    pub volume: Name,
}

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a name must not be empty")]
    Empty,
    /// The text is longer than [`NAME_BYTES_MAX`].
    #[error("a name has at most 64 characters")]
    TooLong,
    /// The text has a character outside `a-z`, `0-9`, `-`, or starts with `-`.
    #[error("a name has only a-z, 0-9 and -, and starts with a letter or digit")]
    BadCharacter,
    /// The text is not of the form `GROUP/VOLUME`.
    #[error("expected GROUP/VOLUME")]
    NotAVolume,
}

impl Name {
    /// Checks `text` and makes it a name.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        let first = bytes.first().ok_or(NameError::Empty)?;
        if bytes.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        let allowed = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        if *first == b'-' || !bytes.iter().all(allowed) {
            return Err(NameError::BadCharacter);
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.volume)
    }
}

impl FromStr for VolumeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (group, volume) = text.split_once('/').ok_or(NameError::NotAVolume)?;
        Ok(Self {
            group: Name::new(group)?,
            volume: Name::new(volume)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_always_one_safe_path_component() {
        for bad in [
            "", ".", "..", "a/b", "../x", "A", "a b", "a\0", "-a", "\u{e9}", "a_b",
        ] {
            assert!(Name::new(bad).is_err(), "{bad:?} must be refused");
        }
        assert!(Name::new(&"a".repeat(65)).is_err());
        assert!(Name::new(&"a".repeat(64)).is_ok());
        assert!(Name::new("pg-data0").is_ok());
    }

    #[test]
    fn a_volume_name_needs_exactly_one_slash() {
        assert!("db/wal".parse::<VolumeName>().is_ok());
        for bad in ["db", "db/", "/wal", "a/b/c", ""] {
            assert!(
                bad.parse::<VolumeName>().is_err(),
                "{bad:?} must be refused"
            );
        }
    }
}
