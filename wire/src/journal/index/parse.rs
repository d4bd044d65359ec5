//! Reading a part of an index back. Total; nothing is believed that cannot be.

use super::{
    FLAG_ELSEWHERE, FLAG_FUA, INDEX_BODY_BYTES_MAX, INDEX_PARTS_MAX, INDEX_ROW_BYTES,
    INDEX_STREAM_BYTES, IndexPart, IndexRow, Indexed,
};
use crate::coding::{DecodeError, Reader};
use crate::journal::{ENTRY_ALIGN_BYTES, EntryKind, StreamNumber};
use crate::record::{RecordHeader, RecordKind};
use crate::stamp::{Stamp, TimeMark};
use crate::volume::VolumeIndex;

fn has_note(kind: RecordKind) -> bool {
    matches!(
        kind,
        RecordKind::Member | RecordKind::Gap | RecordKind::Bookmark
    )
}

impl IndexPart {
    /// Reads a part; nothing is allocated by a length that the body does not have.
    pub fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let (part, parts) = (reader.u32()?, reader.u32()?);
        if part >= parts || parts > INDEX_PARTS_MAX {
            return Err(DecodeError::BadValue("part of an index"));
        }
        let (groups_first, groups_end) = (reader.u64()?, reader.u64()?);
        if groups_end < groups_first {
            return Err(DecodeError::BadValue("groups of an index"));
        }
        let (streams, rows) = (reader.u32()? as usize, reader.u32()? as usize);
        let table = reader.take(product(streams, INDEX_STREAM_BYTES)?)?;
        let raw = reader.take(product(rows, INDEX_ROW_BYTES)?)?;
        let mut out = Vec::with_capacity(rows);
        for row in raw.chunks_exact(INDEX_ROW_BYTES) {
            let row = parse_row(row, table, &mut reader)?;
            let last = out.last().map(|last: &IndexRow| last.offset_bytes);
            if last.is_some_and(|last| last >= row.offset_bytes) {
                return Err(DecodeError::BadValue("order of an index"));
            }
            out.push(row);
        }
        reader.finish()?;
        Ok(Self {
            part,
            parts,
            groups_first,
            groups_end,
            rows: out,
        })
    }
}

fn product(count: usize, each: usize) -> Result<usize, DecodeError> {
    count.checked_mul(each).ok_or(DecodeError::Short)
}

fn parse_row(raw: &[u8], table: &[u8], bodies: &mut Reader<'_>) -> Result<IndexRow, DecodeError> {
    let mut row = Reader::new(raw);
    let (entry, record, volume) = (row.u8()?, row.u8()?, VolumeIndex(row.u16()?));
    let offset_bytes = row.u32()?;
    let (stream, flags, length) = (row.u16()?, row.u16()?, row.u32()?);
    let (stamp, mark, offset) = (row.stamp()?, row.mark()?, row.u64()?);
    let checksum = row.u64()?;
    row.finish()?;
    if !offset_bytes.is_multiple_of(ENTRY_ALIGN_BYTES as u32) {
        return Err(DecodeError::BadValue("place of an entry"));
    }
    let (stream, incarnation_id) = stream_at(table, stream)?;
    let kind = EntryKind::from_code(entry)?;
    let what = if kind == EntryKind::Record {
        let header = RecordHeader {
            kind: record_kind(record)?,
            fua: flags == FLAG_FUA,
            volume,
            stamp,
            mark,
            offset_bytes: offset,
            length_bytes: length,
            payload_bytes: 0,
            incarnation_id,
            checksum,
        };
        let known = flags == 0 || flags == FLAG_FUA;
        with_note(header, known, bodies)?
    } else {
        let zero = (record, volume, stamp, mark, offset, incarnation_id)
            == (0, VolumeIndex(0), Stamp::ZERO, TimeMark(0), 0, 0);
        match flags {
            0 if zero && length as usize <= INDEX_BODY_BYTES_MAX => Indexed::Body {
                kind,
                body: bodies.take(length as usize)?.to_vec(),
                checksum,
            },
            FLAG_ELSEWHERE if zero && length as usize > INDEX_BODY_BYTES_MAX => {
                Indexed::Elsewhere {
                    kind,
                    body_bytes: length,
                    checksum,
                }
            }
            _ => return Err(DecodeError::BadValue("row of an index")),
        }
    };
    Ok(IndexRow {
        stream,
        offset_bytes,
        what,
    })
}

fn record_kind(code: u8) -> Result<RecordKind, DecodeError> {
    RecordKind::from_code(code).map_err(|_| DecodeError::BadValue("record kind of an index"))
}

/// The record with the lengths its kind implies, and its payload if it is a note.
fn with_note(
    mut header: RecordHeader,
    known: bool,
    bodies: &mut Reader<'_>,
) -> Result<Indexed, DecodeError> {
    let length = header.length_bytes;
    let mut note = Vec::new();
    if has_note(header.kind) {
        (header.length_bytes, header.payload_bytes) = (0, length);
    } else if matches!(header.kind, RecordKind::Write | RecordKind::Copy) {
        header.payload_bytes = length;
    }
    let kind = header.kind;
    let (offset, length, payload) = (
        header.offset_bytes,
        header.length_bytes,
        header.payload_bytes,
    );
    if !known || !kind.allows(offset, length, payload) {
        return Err(DecodeError::BadValue("record of an index"));
    }
    if has_note(kind) {
        note = bodies.take(payload as usize)?.to_vec();
    }
    Ok(Indexed::Record(header, note))
}

fn stream_at(table: &[u8], place: u16) -> Result<(StreamNumber, u128), DecodeError> {
    let from = usize::from(place) * INDEX_STREAM_BYTES;
    let raw = table.get(from..from + INDEX_STREAM_BYTES);
    let mut reader = Reader::new(raw.ok_or(DecodeError::BadValue("stream of an index"))?);
    Ok((StreamNumber(reader.u64()?), reader.u128()?))
}
