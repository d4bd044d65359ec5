//! What can go wrong with the catalog.

use std::path::PathBuf;
use wire::{DecodeError, Name, VolumeName};

/// A catalog operation failed or was refused; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The file does not exist.
    #[error("no catalog at {}; run `ublk-tap-receiver init` first", .0.display())]
    Missing(PathBuf),
    /// The file exists already.
    #[error("{} exists already; this receiver is set up", .0.display())]
    Exists(PathBuf),
    /// Another process has it open.
    #[error(
        "the catalog is in use: another ublk-tap-receiver works in this directory; stop it or try \
         again"
    )]
    InUse,
    /// Written by another version.
    #[error("catalog version {0} is not understood by this build (it speaks 1)")]
    Version(u64),
    /// A value was written by another version.
    #[error("the catalog's {what} {key}: {reason}; use the version that wrote it")]
    RowVersion {
        /// Which kind of value.
        what: &'static str,
        /// Under which key.
        key: String,
        /// Which version.
        reason: DecodeError,
    },
    /// A value does not decode.
    #[error("the catalog is damaged: {what} {key}: {reason}; restore it from a backup")]
    Damaged {
        /// Which kind of value.
        what: &'static str,
        /// Under which key.
        key: String,
        /// Why.
        reason: DecodeError,
    },
    /// It is bound to another journal.
    #[error("the catalog belongs to another journal; put that one back in its directory")]
    OtherJournal,
    /// The database failed.
    #[error("the catalog failed: {0}")]
    Storage(#[from] redb::Error),
    /// A named maximum is reached.
    #[error("at most {limit} {what} are possible; remove some first")]
    Full {
        /// Of what.
        what: &'static str,
        /// The maximum.
        limit: usize,
    },
    /// The volume is there already.
    #[error("volume {0} exists already; remove it first, or choose another name")]
    VolumeExists(VolumeName),
    /// No such volume.
    #[error("no volume {0}; `volume list` shows those there are")]
    NoVolume(VolumeName),
    /// No such source.
    #[error("no source {0} is enrolled; `status` shows those there are")]
    NoSource(Name),
}

/// Why a token is not redeemed.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// Never made here, made for another source, or long gone.
    #[error("this token was not made here; ask the receiver's operator for a new one")]
    Unknown,
    /// Redeemed before.
    #[error("this token was used already; ask the receiver's operator for a new one")]
    Used,
    /// Too old.
    #[error("this token has expired; ask the receiver's operator for a new one")]
    Expired,
    /// The certificate belongs to another source.
    #[error("this certificate is enrolled as source {0} already; revoke that first")]
    PinTaken(Name),
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

macro_rules! storage_errors {
    ($($error:ty),*) => {
        $(impl From<$error> for CatalogError {
            fn from(error: $error) -> Self {
                Self::Storage(error.into())
            }
        })*
    };
}

storage_errors!(
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError
);
