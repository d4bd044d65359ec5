//! Catalog values as bytes: a version byte, then fields as [`wire::Writer`] puts them.
//!
//! Little-endian; a text is its length (u16) and its bytes; an optional time is a flag and a u64;
//! `incarnation` and `generation` are a counter (u64) and an id (u128).
//!
//! ```text
//! table    key                          value after the version byte (1)
//! tokens   SHA-256 of the secret, hex   source text | expires u64 | used time
//! sources  NAME                         pin [32] | enrolled u64 | revoked time
//! groups   GROUP                        generation
//! volumes  GROUP/VOLUME                 version 2: source text | size u64 | sector u32 | layout u8: 1 plain,
//!                                       2 pool | disk flag, text, counter u64, stamp u64 (both
//!                                       not in version 1, and then 0)
//!                                       | count u16, per target: path text, identity
//!          identity                     1 | device u64 | inode u64 | born ns u64 | size u64
//!                                       2 | id text | size u64
//! streams  GROUP/SOURCE                 incarnation | horizon u64 | applied u64 | mark u64
//!                                       | point flag; incarnation, stamp u64, mark u64 if 1
//!                                       | count u16, per volume: name text, state
//!          state                        0 absent; 1 copying, first flag, since u64; 2 ready;
//!                                       3 left, incarnation, stamp u64; 4 doubt
//! cuts     GROUP                        version 2: at mark u64 | count u16, per source: name
//!                                       text, u8: 1 part, incarnation, stamp u64, mark u64;
//!                                       2 detached
//! known    GROUP/VOLUME                 count u16, per target: 4 x xxh3-64
//! pools    GROUP/VOLUME/PAGE            count u16 (512), per segment: u64, 0 nowhere, else
//!                                       2^63 + disk * 2^32 + segment of the disk
//! journal  "id"                         u128
//! meta     "version"                    u64 of redb's own, without a version byte: 1
//! ```
//!
//! Changing a layout means a new version byte and a reader for the old one; the golden-byte test
//! notices a change that forgets it.

use super::records::{
    Bound, CutState, GroupRecord, PointRecord, Since, SourceRecord, Standing, StreamState,
    TargetRecord, TokenRecord, VolumeRecord, VolumeState,
};
use crate::apply::{KNOWN_BLOCKS, KnownBlocks};
use crate::target::{LayoutKind, Place, TARGETS_MAX, TargetIdentity};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use wire::limits::{IDENTITY_BYTES_MAX, VOLUMES_MAX};
use wire::{DecodeError, Name, Pin, Reader, VolumeName, Writer};

/// Longest path of a target, in bytes.
pub(super) const PATH_BYTES_MAX: usize = 4096;

/// A value that lives in a table under a key it does not repeat.
pub(super) trait Value: Sized {
    /// Its name in messages.
    const WHAT: &'static str;

    /// Version of its layout.
    const VERSION: u8 = 1;

    /// Appends the fields after the version byte.
    fn put(&self, writer: &mut Writer);

    /// Reads them; `key` is the key of the table.
    fn take(key: &str, reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// The same of an earlier version, where that is understood.
    fn take_old(version: u8, _key: &str, _reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Err(DecodeError::UnknownVersion(u16::from(version)))
    }

    /// The whole value.
    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(Self::VERSION);
        self.put(&mut writer);
        writer.into_bytes()
    }

    /// Reads a whole value.
    fn decode(key: &str, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        let value = match version {
            _ if version == Self::VERSION => Self::take(key, &mut reader)?,
            _ => Self::take_old(version, key, &mut reader)?,
        };
        reader.finish()?;
        Ok(value)
    }
}

impl Value for TokenRecord {
    const WHAT: &'static str = "token";

    fn put(&self, writer: &mut Writer) {
        writer.name(&self.source).u64(self.expires_unix_s);
        put_time(writer, self.used_unix_s);
    }

    fn take(_key: &str, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            source: reader.name("source")?,
            expires_unix_s: reader.u64()?,
            used_unix_s: take_time(reader)?,
        })
    }
}

impl Value for SourceRecord {
    const WHAT: &'static str = "source";

    fn put(&self, writer: &mut Writer) {
        writer.put(&self.pin.0).u64(self.enrolled_unix_s);
        put_time(writer, self.revoked_unix_s);
    }

    fn take(key: &str, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let pin = reader
            .take(32)?
            .try_into()
            .map_err(|_| DecodeError::Short)?;
        Ok(Self {
            name: Name::new(key).map_err(|_| DecodeError::BadValue("source name"))?,
            pin: Pin(pin),
            enrolled_unix_s: reader.u64()?,
            revoked_unix_s: take_time(reader)?,
        })
    }
}

impl Value for GroupRecord {
    const WHAT: &'static str = "group";

    fn put(&self, writer: &mut Writer) {
        writer.generation(self.generation);
    }

    fn take(_key: &str, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            generation: reader.generation()?,
        })
    }
}

impl Value for VolumeRecord {
    const WHAT: &'static str = "volume";
    const VERSION: u8 = 2;

    fn put(&self, writer: &mut Writer) {
        writer
            .name(&self.source)
            .u64(self.size_bytes)
            .u32(self.sector_bytes)
            .u8(match self.kind {
                LayoutKind::Plain => 1,
                LayoutKind::Pool => 2,
            });
        writer.flag(self.disk.is_some());
        let disk = self.disk.as_ref();
        let identity = disk.map_or("", |disk| disk.identity.as_str());
        let since = disk.map(|disk| disk.since).unwrap_or_default();
        writer
            .text(identity, IDENTITY_BYTES_MAX)
            .u64(since.counter)
            .stamp(since.after);
        writer.count(self.targets.len());
        for target in &self.targets {
            let path = target.path.as_os_str().as_bytes();
            writer.count(path.len()).put(path);
            put_identity(writer, &target.identity);
        }
    }

    fn take(key: &str, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        take_volume(key, reader, |reader| {
            Ok(Since {
                counter: reader.u64()?,
                after: reader.stamp()?,
            })
        })
    }

    /// Version 1 does not say since when a volume belongs to its disk: since ever.
    fn take_old(version: u8, key: &str, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match version {
            1 => take_volume(key, reader, |_| Ok(Since::default())),
            _ => Err(DecodeError::UnknownVersion(u16::from(version))),
        }
    }
}

fn take_volume(
    key: &str,
    reader: &mut Reader<'_>,
    since: impl FnOnce(&mut Reader<'_>) -> Result<Since, DecodeError>,
) -> Result<VolumeRecord, DecodeError> {
    let name: VolumeName = key
        .parse()
        .map_err(|_| DecodeError::BadValue("volume name"))?;
    let source = reader.name("source")?;
    let (size_bytes, sector_bytes) = (reader.u64()?, reader.u32()?);
    let kind = match reader.u8()? {
        1 => LayoutKind::Plain,
        2 => LayoutKind::Pool,
        _ => return Err(DecodeError::BadValue("layout")),
    };
    let (known, identity) = (reader.flag("disk")?, reader.identity()?);
    let since = since(reader)?;
    let mut targets = Vec::new();
    for _ in 0..reader.count("targets", TARGETS_MAX)? {
        let len = reader.count("path", PATH_BYTES_MAX)?;
        let path = PathBuf::from(OsString::from_vec(reader.take(len)?.to_vec()));
        targets.push(TargetRecord {
            path,
            identity: take_identity(reader)?,
            known: None,
        });
    }
    let disk = known.then_some(Bound { identity, since });
    Ok(VolumeRecord {
        name,
        source,
        size_bytes,
        sector_bytes,
        kind,
        disk,
        targets,
    })
}

impl Value for CutState {
    const WHAT: &'static str = "cut";
    const VERSION: u8 = 2;

    fn put(&self, writer: &mut Writer) {
        writer.mark(self.at).count(self.lanes.len());
        for (source, standing) in &self.lanes {
            writer.name(source);
            match standing {
                Standing::Part(at) => put_point(writer.u8(1), at),
                Standing::Detached => writer.u8(2),
            };
        }
    }

    fn take(_key: &str, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let at = reader.mark()?;
        let mut lanes = BTreeMap::new();
        for _ in 0..reader.count("sources", VOLUMES_MAX)? {
            let source = reader.name("source")?;
            let standing = match reader.u8()? {
                1 => Standing::Part(take_point(reader)?),
                2 => Standing::Detached,
                _ => return Err(DecodeError::BadValue("standing")),
            };
            lanes.insert(source, standing);
        }
        Ok(Self { at, lanes })
    }
}

impl Value for StreamState {
    const WHAT: &'static str = "stream";

    fn put(&self, writer: &mut Writer) {
        writer
            .incarnation(self.incarnation)
            .stamp(self.horizon)
            .stamp(self.applied);
        writer.mark(self.last_mark).flag(self.point.is_some());
        if let Some(point) = &self.point {
            put_point(writer, point);
        }
        writer.count(self.volumes.len());
        for (name, state) in &self.volumes {
            writer.name(name);
            put_state(writer, *state);
        }
    }

    fn take(_key: &str, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut state = Self {
            incarnation: reader.incarnation()?,
            horizon: reader.stamp()?,
            applied: reader.stamp()?,
            last_mark: reader.mark()?,
            point: match reader.flag("point")? {
                true => Some(take_point(reader)?),
                false => None,
            },
            volumes: BTreeMap::new(),
        };
        for _ in 0..reader.count("volumes", VOLUMES_MAX)? {
            let name = reader.name("volume")?;
            state.volumes.insert(name, take_state(reader)?);
        }
        Ok(state)
    }
}

/// Known blocks of all targets of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownRow(pub(super) Vec<KnownBlocks>);

impl Value for KnownRow {
    const WHAT: &'static str = "known blocks";

    fn put(&self, writer: &mut Writer) {
        writer.count(self.0.len());
        for digest in self.0.iter().flat_map(|blocks| blocks.0) {
            writer.u64(digest);
        }
    }

    fn take(_key: &str, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut row = Vec::new();
        for _ in 0..reader.count("targets", TARGETS_MAX)? {
            let mut digests = [0; KNOWN_BLOCKS];
            for digest in &mut digests {
                *digest = reader.u64()?;
            }
            row.push(KnownBlocks(digests));
        }
        Ok(Self(row))
    }
}

/// A page of a pool's map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MapPage(pub(super) [Option<Place>; MAP_PAGE_SEGMENTS]);

/// Segments of a page.
pub(super) const MAP_PAGE_SEGMENTS: usize = 512;

impl Value for MapPage {
    const WHAT: &'static str = "pool";

    fn put(&self, writer: &mut Writer) {
        writer.count(self.0.len());
        for place in self.0 {
            writer.u64(Place::pack(place));
        }
    }

    fn take(_key: &str, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut page = [None; MAP_PAGE_SEGMENTS];
        if reader.count("segments", MAP_PAGE_SEGMENTS)? != MAP_PAGE_SEGMENTS {
            return Err(DecodeError::BadValue("segments"));
        }
        for place in &mut page {
            *place = Place::unpack(reader.u64()?).ok_or(DecodeError::BadValue("segment"))?;
        }
        Ok(Self(page))
    }
}

/// Id of the journal the catalog belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JournalId(pub(super) u128);

impl Value for JournalId {
    const WHAT: &'static str = "journal";

    fn put(&self, writer: &mut Writer) {
        writer.u128(self.0);
    }

    fn take(_key: &str, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.u128().map(Self)
    }
}

fn put_time(writer: &mut Writer, unix_s: Option<u64>) {
    writer
        .flag(unix_s.is_some())
        .u64(unix_s.unwrap_or_default());
}

fn take_time(reader: &mut Reader<'_>) -> Result<Option<u64>, DecodeError> {
    let known = reader.flag("time")?;
    let unix_s = reader.u64()?;
    Ok(known.then_some(unix_s))
}

fn put_identity(writer: &mut Writer, identity: &TargetIdentity) {
    match identity {
        TargetIdentity::File {
            device,
            inode,
            born_ns,
            size_bytes,
        } => {
            writer
                .u8(1)
                .u64(*device)
                .u64(*inode)
                .u64(*born_ns)
                .u64(*size_bytes);
        }
        TargetIdentity::Block { id, size_bytes } => {
            writer.u8(2).text(id, IDENTITY_BYTES_MAX).u64(*size_bytes);
        }
    }
}

fn take_identity(reader: &mut Reader<'_>) -> Result<TargetIdentity, DecodeError> {
    Ok(match reader.u8()? {
        1 => TargetIdentity::File {
            device: reader.u64()?,
            inode: reader.u64()?,
            born_ns: reader.u64()?,
            size_bytes: reader.u64()?,
        },
        2 => TargetIdentity::Block {
            id: reader.identity()?,
            size_bytes: reader.u64()?,
        },
        _ => return Err(DecodeError::BadValue("target kind")),
    })
}

fn put_point<'a>(writer: &'a mut Writer, point: &PointRecord) -> &'a mut Writer {
    writer
        .incarnation(point.incarnation)
        .stamp(point.stamp)
        .mark(point.mark)
}

fn take_point(reader: &mut Reader<'_>) -> Result<PointRecord, DecodeError> {
    Ok(PointRecord {
        incarnation: reader.incarnation()?,
        stamp: reader.stamp()?,
        mark: reader.mark()?,
    })
}

fn put_state(writer: &mut Writer, state: VolumeState) {
    match state {
        VolumeState::Absent => writer.u8(0),
        VolumeState::Copying { first, since } => writer.u8(1).flag(first).stamp(since),
        VolumeState::Ready => writer.u8(2),
        VolumeState::Left { incarnation, stamp } => {
            writer.u8(3).incarnation(incarnation).stamp(stamp)
        }
        VolumeState::Doubt => writer.u8(4),
    };
}

fn take_state(reader: &mut Reader<'_>) -> Result<VolumeState, DecodeError> {
    Ok(match reader.u8()? {
        0 => VolumeState::Absent,
        1 => VolumeState::Copying {
            first: reader.flag("first")?,
            since: reader.stamp()?,
        },
        2 => VolumeState::Ready,
        3 => VolumeState::Left {
            incarnation: reader.incarnation()?,
            stamp: reader.stamp()?,
        },
        4 => VolumeState::Doubt,
        _ => return Err(DecodeError::BadValue("volume state")),
    })
}
