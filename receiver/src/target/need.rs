//! What the targets of a new volume must be like, by its layout. Pure.

use super::error::TargetError;
use super::layout::{Layout, LayoutError, TARGETS_MAX};
use super::placement::LayoutKind;
use super::pool::{POOL_SEGMENT_BYTES, POOL_VOLUME_SEGMENTS_MAX};
use super::provision::NewTarget;
use std::path::Path;

/// What a target must be like.
#[derive(Clone, Copy)]
pub(super) enum Need {
    /// A file has exactly so many bytes, a disk at least.
    Exactly(u64),
    /// Room for a segment at least; a file that is not there is made that large.
    Segments(Option<u64>),
}

/// What each target must be like.
pub(super) fn needs(
    kind: LayoutKind,
    size_bytes: u64,
    targets: &[NewTarget],
) -> Result<Vec<Need>, TargetError> {
    if kind == LayoutKind::Pool {
        let most_bytes = POOL_VOLUME_SEGMENTS_MAX * POOL_SEGMENT_BYTES;
        if size_bytes > most_bytes {
            return Err(TargetError::PoolSize {
                size_bytes,
                most_bytes,
            });
        }
        if targets.is_empty() || targets.len() > TARGETS_MAX {
            let targets = targets.len();
            return Err(LayoutError::Targets { targets }.into());
        }
        let needs = targets
            .iter()
            .map(|target| Need::Segments(target.size_bytes));
        return Ok(needs.collect());
    }
    let layout = Layout::new(size_bytes, targets.len())?;
    if let Some(sized) = targets.iter().find(|target| target.size_bytes.is_some()) {
        return Err(TargetError::SizeGiven(sized.path.clone()));
    }
    let exactly = |index| Need::Exactly(layout.target_bytes(index));
    Ok((0..targets.len()).map(exactly).collect())
}

impl Need {
    /// Least it must have.
    pub(super) fn least_bytes(self) -> u64 {
        match self {
            Self::Exactly(bytes) => bytes,
            Self::Segments(wanted) => wanted.unwrap_or(0).max(POOL_SEGMENT_BYTES),
        }
    }

    /// The size of a file that is to be made.
    pub(super) fn made_bytes(self, path: &Path) -> Result<u64, TargetError> {
        match self {
            Self::Exactly(bytes) => Ok(bytes),
            Self::Segments(Some(bytes)) if bytes >= POOL_SEGMENT_BYTES => Ok(bytes),
            Self::Segments(Some(found_bytes)) => Err(TargetError::Small {
                path: path.to_owned(),
                found_bytes,
                needed_bytes: POOL_SEGMENT_BYTES,
            }),
            Self::Segments(None) => Err(TargetError::SizeWanted(path.to_owned())),
        }
    }

    /// Whether a file of so many bytes will do.
    pub(super) fn takes_file(self, found_bytes: u64) -> bool {
        match self {
            Self::Exactly(bytes) | Self::Segments(Some(bytes)) => found_bytes == bytes,
            Self::Segments(None) => found_bytes >= POOL_SEGMENT_BYTES,
        }
    }
}
