//! Exporting a volume to a sparse file.
//!
//! The caller holds apply back meanwhile, so that the file is one point of the volume.

use super::error::TargetError;
use super::layout::STRIPE_BYTES;
use super::read::VolumeReader;
use crate::fold::ByteRange;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// How far an export is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportProgress {
    /// Bytes of the volume read so far.
    pub done_bytes: u64,
    /// Size of the volume.
    pub total_bytes: u64,
    /// Bytes written to the file; the rest are holes.
    pub written_bytes: u64,
}

/// Writes the volume to a new file, leaving zeroes as holes, and syncs it. Removes the file again
/// if that fails.
pub fn export(
    reader: &mut VolumeReader,
    path: &Path,
    mut progress: impl FnMut(ExportProgress),
) -> Result<ExportProgress, TargetError> {
    let mut options = OpenOptions::new();
    let created = options.write(true).create_new(true).mode(0o600).open(path);
    let file = created.map_err(|source| io_error("create", path, source))?;
    copy(reader, &file, path, &mut progress).inspect_err(|_| {
        if let Err(error) = std::fs::remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove the unfinished file");
        }
    })
}

fn copy(
    reader: &mut VolumeReader,
    file: &File,
    path: &Path,
    progress: &mut dyn FnMut(ExportProgress),
) -> Result<ExportProgress, TargetError> {
    let total_bytes = reader.size_bytes();
    let mut state = ExportProgress {
        done_bytes: 0,
        total_bytes,
        written_bytes: 0,
    };
    file.set_len(total_bytes)
        .map_err(|error| io_error("size", path, error))?;
    while state.done_bytes < total_bytes {
        let end = total_bytes.min(state.done_bytes + STRIPE_BYTES);
        let range = ByteRange::between(state.done_bytes, end);
        let bytes = reader.read(range)?;
        let written = write_sparse(file, bytes, range.offset_bytes);
        state.written_bytes += written.map_err(|error| io_error("write", path, error))?;
        state.done_bytes = end;
        progress(state);
    }
    file.sync_all()
        .map_err(|error| io_error("sync", path, error))?;
    Ok(state)
}

/// Writes what is not zero, by blocks; returns how many bytes that were.
fn write_sparse(file: &File, bytes: &[u8], offset_bytes: u64) -> io::Result<u64> {
    const BLOCK_BYTES: usize = 64 << 10;
    let mut written = 0;
    for (index, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            file.write_all_at(block, offset_bytes + (index * BLOCK_BYTES) as u64)?;
            written += block.len() as u64;
        }
    }
    Ok(written)
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> TargetError {
    TargetError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}
