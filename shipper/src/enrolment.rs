//! Whom this host has joined: the files of an enrolment.
//!
//! `CONFIG/identity/` holds `key.pem`, `cert.pem` and `receiver.toml`. Written by [`join`](crate::join)
//! only, read at every attempt to connect, so that joining again needs no restart.

use link::{Identity, IdentityError};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use wire::{Name, Pin};

/// Directory of the enrolment inside the configuration directory.
pub const IDENTITY_DIR: &str = "identity";
/// File that names the receiver inside it.
pub const RECEIVER_FILE: &str = "receiver.toml";
const FILE_BYTES_MAX: u64 = 16 << 10;

/// A host's place at its receiver.
#[derive(Debug)]
pub struct Enrolment {
    /// The name this host is enrolled under.
    pub source: Name,
    /// `HOST:PORT` of the receiver.
    pub address: String,
    /// The receiver's certificate.
    pub receiver: Pin,
    /// This host's key and certificate.
    pub identity: Identity,
}

/// `receiver.toml`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ReceiverFile {
    pub(crate) source: String,
    pub(crate) address: String,
    pub(crate) pin: String,
}

/// Why there is no usable enrolment.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// This host has not joined.
    #[error("this host has not joined a receiver: run `ublk-tap join TOKEN` ({0} does not exist)")]
    NotJoined(PathBuf),
    /// The file that names the receiver is unusable.
    #[error("cannot use {path}: {reason}; join again with --force")]
    Receiver {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Key or certificate are unusable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Enrolment {
    /// Reads the enrolment below the configuration directory `config`.
    pub fn load(config: &Path) -> Result<Self, EnrolmentError> {
        let dir = config.join(IDENTITY_DIR);
        let file = ReceiverFile::load(&dir)?;
        let path = dir.join(RECEIVER_FILE);
        let bad = |what: &str| EnrolmentError::Receiver {
            path: path.clone(),
            reason: format!("{what} is malformed"),
        };
        Ok(Self {
            source: Name::new(&file.source).map_err(|_| bad("source"))?,
            address: file.address,
            receiver: Pin::from_hex(&file.pin).map_err(|_| bad("pin"))?,
            identity: Identity::load(&dir)?,
        })
    }
}

impl ReceiverFile {
    /// Reads `receiver.toml` in the identity directory `dir`.
    pub(crate) fn load(dir: &Path) -> Result<Self, EnrolmentError> {
        let path = dir.join(RECEIVER_FILE);
        let mut text = String::new();
        let bounded = |file: File| file.take(FILE_BYTES_MAX).read_to_string(&mut text);
        let read = File::open(&path).and_then(bounded);
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(EnrolmentError::NotJoined(path));
            }
            Err(error) => {
                let reason = error.to_string();
                return Err(EnrolmentError::Receiver { path, reason });
            }
        }
        toml::from_str(&text).map_err(|error| EnrolmentError::Receiver {
            path,
            reason: error.message().to_owned(),
        })
    }
}
