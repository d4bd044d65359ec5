//! Puts the records between the base and a retained point on top of an exported volume.
//!
//! In the order of their stamps, each verified before a byte of it is written (P9).

use super::reach::Reach;
use crate::apply::PayloadSource;
use crate::control::{JournalPlace, Patch, Request, Response};
use crate::failure::{Failure, io_exit};
use crate::fold::RecordAt;
use crate::journal::Reader;
use rustix::fs::FallocateFlags;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use wire::journal::JournalId;

/// Writes all pages of the held point to `file`, and syncs it.
pub(super) fn patch(reach: &mut Reach, journal: &JournalPlace, file: &Path) -> Result<(), Failure> {
    let io = |error: io::Error| {
        let text = format!("cannot write {}: {error}", file.display());
        Failure::new(io_exit(&error), text)
    };
    let open = File::options().write(true).open(file).map_err(io)?;
    let id = u128::from_str_radix(&journal.id, 16)
        .map_err(|_| Failure::failed("the receiver named no journal"))?;
    let mut reader = Reader::new(journal.dir.clone(), JournalId(id), journal.segment_bytes);
    let mut after = None;
    loop {
        let response = reach.ask(&Request::Page { after })?;
        let Response::Page(page) = response else {
            return Err(super::unexpected(&response));
        };
        // What was read ahead may have been nothing yet when the first page was asked for.
        reader.refresh();
        for patch in &page.patches {
            match patch.record {
                Some(at) => {
                    let payload = read(&mut reader, patch, at)?;
                    open.write_all_at(&payload, patch.offset_bytes)
                        .map_err(io)?;
                }
                None => zero(&open, patch).map_err(io)?,
            }
        }
        after = page.next;
        if after.is_none() {
            return open.sync_all().map_err(io);
        }
    }
}

/// The payload of a record, proved to be the one that was meant.
fn read(reader: &mut Reader, patch: &Patch, at: (u64, u64)) -> Result<Vec<u8>, Failure> {
    let at = RecordAt {
        segment: at.0,
        offset_bytes: at.1,
    };
    let mut payload = Vec::new();
    let header = reader.read(at, &mut payload);
    let header = header.map_err(|error| Failure::failed(error.to_string()))?;
    let damaged =
        |reason: String| Failure::failed(format!("the journal is damaged at {at}: {reason}"));
    header
        .verify(&payload)
        .map_err(|error| damaged(error.to_string()))?;
    let meant = (patch.stamp, patch.offset_bytes, patch.len_bytes);
    if (header.stamp.0, header.offset_bytes, payload.len() as u64) != meant {
        return Err(damaged("another record lies there".into()));
    }
    Ok(payload)
}

/// Makes the range of a new, sparse file read as zeroes.
fn zero(file: &File, patch: &Patch) -> io::Result<()> {
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let punched = rustix::fs::fallocate(file, hole, patch.offset_bytes, patch.len_bytes);
    if punched.is_ok() {
        return Ok(());
    }
    let zeroes = vec![0; 1 << 20];
    let end = patch.offset_bytes + patch.len_bytes;
    let mut next = patch.offset_bytes;
    while next < end {
        let count = (end - next).min(zeroes.len() as u64);
        file.write_all_at(&zeroes[..count as usize], next)?;
        next += count;
    }
    Ok(())
}
