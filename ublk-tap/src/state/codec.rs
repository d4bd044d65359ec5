//! The bytes of a slot. Pure; the layout is in `docs/state.md`.
//!
//! ```text
//!   0  magic "UTAPSTAT"
//!   8  version u16 | zero u16 | body length u32
//!  16  sequence u64
//!  24  xxh3-64 over bytes 0..24 and the body
//!  32  body: group, generation, incarnation, volumes
//! ```

use super::model::{CleanMark, Registered, Rest, Service, State, Unclean};
use crate::group::FrontKind;
use wire::limits::{IDENTITY_BYTES_MAX, VOLUMES_MAX};
use wire::{DecodeError, Reader, Writer};
use xxhash_rust::xxh3::Xxh3;

/// Bytes of a slot; the file has two.
pub(super) const SLOT_BYTES: usize = 64 << 10;
/// Longest path of a disk that is kept; no volume has a longer one.
pub(super) const PATH_BYTES_MAX: usize = 256;
const FINGERPRINT_BYTES_MAX: usize = 64;
const WRITES_BYTES_MAX: usize = 96;
const HEADER_BYTES: usize = 32;
const MAGIC: &[u8; 8] = b"UTAPSTAT";
const VERSION: u16 = 1;
const CLEAN: u8 = 0;
const UBLK: u8 = 0;
const NBD: u8 = 1;

/// Most a volume takes: three counts and texts, name, numbers, clean mark.
const VOLUME_BYTES_MAX: usize = 2
    + 64
    + 2
    + IDENTITY_BYTES_MAX
    + 2
    + PATH_BYTES_MAX
    + 12
    + 6
    + 1
    + 24
    + 8
    + 2
    + 64
    + 2
    + 96
    + 8;
const _: () =
    assert!(HEADER_BYTES + 2 + 64 + 48 + 2 + VOLUMES_MAX * VOLUME_BYTES_MAX <= SLOT_BYTES);

/// A slot's content, padded to [`SLOT_BYTES`].
pub(super) fn slot(sequence: u64, state: &State) -> Vec<u8> {
    let body = body(state);
    let mut header = Writer::new();
    header.put(MAGIC).u16(VERSION).u16(0);
    header.u32(u32::try_from(body.len()).expect("a body is smaller than its slot"));
    header.u64(sequence);
    let mut bytes = header.into_bytes();
    let check = checksum(&bytes, &body);
    bytes.extend_from_slice(&check.to_le_bytes());
    bytes.extend_from_slice(&body);
    assert!(
        bytes.len() <= SLOT_BYTES,
        "the maxima of all fields fit a slot"
    );
    bytes.resize(SLOT_BYTES, 0);
    bytes
}

/// A slot as a tap of `version` would begin it.
#[cfg(test)]
pub(super) fn slot_of_version(version: u16) -> Vec<u8> {
    let mut header = Writer::new();
    header.put(MAGIC).u16(version).u16(0).u32(0).u64(9);
    let mut bytes = header.into_bytes();
    let check = checksum(&bytes, &[]);
    bytes.extend_from_slice(&check.to_le_bytes());
    bytes.resize(SLOT_BYTES, 0);
    bytes
}

/// Reads a slot: its sequence number and state.
pub(super) fn parse(bytes: &[u8]) -> Result<(u64, State), DecodeError> {
    let mut reader = Reader::new(bytes);
    if reader.take(MAGIC.len())? != MAGIC {
        return Err(DecodeError::BadValue("magic"));
    }
    let version = reader.u16()?;
    let zero = reader.u16()?;
    let length = reader.u32()? as usize;
    let sequence = reader.u64()?;
    let check = reader.u64()?;
    if length > SLOT_BYTES {
        return Err(DecodeError::BadValue("body length"));
    }
    let body = reader.take(length)?;
    let header = bytes
        .get(..HEADER_BYTES - size_of::<u64>())
        .ok_or(DecodeError::Short)?;
    if checksum(header, body) != check {
        return Err(DecodeError::BadValue("checksum"));
    }
    if version != VERSION {
        return Err(DecodeError::UnknownVersion(version));
    }
    if zero != 0 {
        return Err(DecodeError::BadValue("reserved bytes"));
    }
    Ok((sequence, parse_body(body)?))
}

fn checksum(header: &[u8], body: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(header);
    hasher.update(body);
    hasher.digest()
}

fn body(state: &State) -> Vec<u8> {
    let mut writer = Writer::new();
    writer
        .name(&state.group)
        .generation(state.generation)
        .incarnation(state.incarnation)
        .count(state.volumes.len());
    for volume in &state.volumes {
        put_volume(&mut writer, volume);
    }
    writer.into_bytes()
}

fn put_volume(writer: &mut Writer, volume: &Registered) {
    writer
        .name(&volume.name)
        .text(&volume.identity, IDENTITY_BYTES_MAX)
        .text(&volume.path, PATH_BYTES_MAX)
        .u64(volume.size_bytes)
        .u32(volume.sector_bytes);
    put_service(writer, volume.service);
    match &volume.rest {
        Rest::Unclean(cause) => {
            writer.u8(*cause as u8);
        }
        Rest::Clean(mark) => {
            writer
                .u8(CLEAN)
                .incarnation(mark.incarnation)
                .stamp(mark.stamp)
                .text(&mark.fingerprint, FINGERPRINT_BYTES_MAX)
                .text(&mark.writes, WRITES_BYTES_MAX)
                .mark(mark.at);
        }
    }
}

fn put_service(writer: &mut Writer, service: Service) {
    let frontend = match service.frontend {
        FrontKind::Ublk => UBLK,
        FrontKind::Nbd => NBD,
    };
    writer.u8(frontend).u8(u8::from(service.returns));
    writer.u16(service.queues).u16(service.depth);
}

fn parse_service(reader: &mut Reader<'_>) -> Result<Service, DecodeError> {
    let frontend = match reader.u8()? {
        UBLK => FrontKind::Ublk,
        NBD => FrontKind::Nbd,
        _ => return Err(DecodeError::BadValue("front end")),
    };
    let returns = match reader.u8()? {
        0 => false,
        1 => true,
        _ => return Err(DecodeError::BadValue("whether it returns")),
    };
    Ok(Service {
        frontend,
        returns,
        queues: reader.u16()?,
        depth: reader.u16()?,
    })
}

fn parse_body(bytes: &[u8]) -> Result<State, DecodeError> {
    let mut reader = Reader::new(bytes);
    let group = reader.name("group")?;
    let generation = reader.generation()?;
    let incarnation = reader.incarnation()?;
    let count = reader.count("volumes", VOLUMES_MAX)?;
    let mut volumes = Vec::with_capacity(count);
    for _ in 0..count {
        volumes.push(parse_volume(&mut reader)?);
    }
    reader.finish()?;
    Ok(State {
        group,
        generation,
        incarnation,
        volumes,
    })
}

fn parse_volume(reader: &mut Reader<'_>) -> Result<Registered, DecodeError> {
    Ok(Registered {
        name: reader.name("volume")?,
        identity: reader.identity()?,
        path: reader.text("path", PATH_BYTES_MAX)?,
        size_bytes: reader.u64()?,
        sector_bytes: reader.u32()?,
        service: parse_service(reader)?,
        rest: match reader.u8()? {
            CLEAN => Rest::Clean(CleanMark {
                incarnation: reader.incarnation()?,
                stamp: reader.stamp()?,
                fingerprint: reader.text("fingerprint", FINGERPRINT_BYTES_MAX)?,
                writes: reader.text("writes", WRITES_BYTES_MAX)?,
                at: reader.mark()?,
            }),
            code => {
                let cause = Unclean::from_code(code).ok_or(DecodeError::BadValue("rest"))?;
                Rest::Unclean(cause)
            }
        },
    })
}
