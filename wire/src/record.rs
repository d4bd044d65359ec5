//! Records: the unit that is captured, shipped, journaled and applied.
//!
//! On the link and in the journal a record is a 64-byte header followed by its payload. The
//! checksum covers the header before it and the whole payload; it is made when the shipper first
//! reads the record from the ring and checked on receipt, on every journal read and before apply
//! (P9). All fields are little-endian.
//!
//! ```text
//!   0  version u8 | kind u8 | volume u16 | length u32
//!   8  stamp u64
//!  16  time mark u64
//!  24  offset u64 (bytes)
//!  32  payload length u32 | flags u32
//!  40  incarnation id u128
//!  56  xxh3-64 over bytes 0..56 and the payload
//! ```

use crate::limits::{RECORD_PAYLOAD_BYTES_MAX, RECORD_RANGE_BYTES_MAX, SECTOR_BYTES_MIN};
use crate::stamp::{Stamp, TimeMark};
use crate::volume::VolumeIndex;
use xxhash_rust::xxh3::Xxh3;
use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Size of a record header in bytes.
pub const RECORD_HEADER_BYTES: usize = 64;
/// Version of the record layout.
pub const RECORD_VERSION: u8 = 1;
const CHECKED_BYTES: usize = 56;
const FLAG_FUA: u32 = 1;

/// What a record does to its volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// The application wrote the payload.
    Write = 1,
    /// The application discarded the range; it reads as zeroes.
    Discard = 2,
    /// The range was zeroed, or found to hold only zeroes by a copy.
    Zero = 3,
    /// The payload is what the disk held, read by the tap while it held the range.
    Copy = 4,
    /// A named point.
    Bookmark = 5,
    /// A volume joins, is ready, leaves or continues; payload is a [`crate::Member`].
    Member = 6,
    /// Writes before this stamp were given up; payload is a reason.
    Gap = 7,
    /// The tap claimed this place and gave it back; nothing happened. Settle marks name it void.
    Void = 8,
}

/// A checked record header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// What the record does.
    pub kind: RecordKind,
    /// Forced unit access was asked for; a note for people, nothing is decided by it.
    pub fua: bool,
    /// Which volume of the group.
    pub volume: VolumeIndex,
    /// Place in the stream.
    pub stamp: Stamp,
    /// Time at the source, strictly increasing with stamps.
    pub mark: TimeMark,
    /// First byte of the range on the volume.
    pub offset_bytes: u64,
    /// Length of the range; zero for member, gap and bookmark records.
    pub length_bytes: u32,
    /// Bytes that follow the header.
    pub payload_bytes: u32,
    /// Id of the incarnation the stamp belongs to.
    pub incarnation_id: u128,
    /// Checksum over header and payload.
    pub checksum: u64,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Fewer bytes than a header.
    #[error("record header ends early")]
    Short,
    /// A layout version this build does not speak.
    #[error("record version {0} is not understood by this build (it speaks 1)")]
    UnknownVersion(u8),
    /// Not one of [`RecordKind`].
    #[error("record kind {0} is unknown")]
    UnknownKind(u8),
    /// Range or payload length do not fit the kind, or exceed their maxima.
    #[error("record of {length} bytes at {offset} with {payload} bytes of payload is malformed")]
    BadShape {
        /// Offset found.
        offset: u64,
        /// Range length found.
        length: u32,
        /// Payload length found.
        payload: u32,
    },
    /// Header or payload are not what the shipper read from the ring.
    #[error("record {stamp} fails its checksum")]
    BadChecksum {
        /// The stamp the damaged header claims.
        stamp: Stamp,
    },
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawHeader {
    version: u8,
    kind: u8,
    volume: U16,
    length: U32,
    stamp: U64,
    mark: U64,
    offset: U64,
    payload: U32,
    flags: U32,
    incarnation: U128,
    checksum: U64,
}

const _: () = assert!(size_of::<RawHeader>() == RECORD_HEADER_BYTES);
const _: () = assert!(CHECKED_BYTES + size_of::<u64>() == RECORD_HEADER_BYTES);

impl RecordKind {
    /// The kind with this code on the wire.
    pub fn from_code(code: u8) -> Result<Self, RecordError> {
        Ok(match code {
            1 => Self::Write,
            2 => Self::Discard,
            3 => Self::Zero,
            4 => Self::Copy,
            5 => Self::Bookmark,
            6 => Self::Member,
            7 => Self::Gap,
            8 => Self::Void,
            _ => return Err(RecordError::UnknownKind(code)),
        })
    }

    /// Whether range and payload lengths are possible for this kind.
    ///
    /// `write` and `copy` carry their range, `discard` and `zero` carry nothing, the others carry a
    /// payload and no range, `void` has neither. Ranges are whole sectors of at least 512 bytes and
    /// end below 2^63.
    pub fn allows(self, offset_bytes: u64, length_bytes: u32, payload_bytes: u32) -> bool {
        let whole = length_bytes > 0
            && length_bytes.is_multiple_of(SECTOR_BYTES_MIN)
            && offset_bytes.is_multiple_of(u64::from(SECTOR_BYTES_MIN))
            && offset_bytes
                .checked_add(u64::from(length_bytes))
                .is_some_and(|end| i64::try_from(end).is_ok());
        match self {
            Self::Write | Self::Copy => {
                whole && payload_bytes == length_bytes && payload_bytes <= RECORD_PAYLOAD_BYTES_MAX
            }
            Self::Discard | Self::Zero => {
                whole && payload_bytes == 0 && length_bytes <= RECORD_RANGE_BYTES_MAX
            }
            Self::Bookmark | Self::Member | Self::Gap => {
                length_bytes == 0 && offset_bytes == 0 && payload_bytes <= 4096
            }
            Self::Void => length_bytes == 0 && offset_bytes == 0 && payload_bytes == 0,
        }
    }
}

impl RecordHeader {
    /// Computes the checksum over this header and `payload` and keeps it.
    #[must_use]
    pub fn sealed(mut self, payload: &[u8]) -> Self {
        assert!(
            payload.len() == self.payload_bytes as usize,
            "a header is sealed with its payload"
        );
        self.checksum = checksum_of(&self.to_bytes(), payload);
        self
    }

    /// Whether header and payload are those that were sealed.
    pub fn verify(&self, payload: &[u8]) -> Result<(), RecordError> {
        let whole = payload.len() == self.payload_bytes as usize;
        if whole && checksum_of(&self.to_bytes(), payload) == self.checksum {
            return Ok(());
        }
        Err(RecordError::BadChecksum { stamp: self.stamp })
    }

    /// The header as bytes.
    pub fn to_bytes(&self) -> [u8; RECORD_HEADER_BYTES] {
        let raw = RawHeader {
            version: RECORD_VERSION,
            kind: self.kind as u8,
            volume: self.volume.0.into(),
            length: self.length_bytes.into(),
            stamp: self.stamp.0.into(),
            mark: self.mark.0.into(),
            offset: self.offset_bytes.into(),
            payload: self.payload_bytes.into(),
            flags: (if self.fua { FLAG_FUA } else { 0 }).into(),
            incarnation: self.incarnation_id.into(),
            checksum: self.checksum.into(),
        };
        zerocopy::transmute!(raw)
    }

    /// Reads a header from the front of `bytes`; the payload is checked apart, by [`Self::verify`].
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let (raw, _) = RawHeader::ref_from_prefix(bytes).map_err(|_| RecordError::Short)?;
        if raw.version != RECORD_VERSION {
            return Err(RecordError::UnknownVersion(raw.version));
        }
        let kind = RecordKind::from_code(raw.kind)?;
        let (offset, length, payload) = (raw.offset.get(), raw.length.get(), raw.payload.get());
        if !kind.allows(offset, length, payload) || raw.flags.get() > FLAG_FUA {
            return Err(RecordError::BadShape {
                offset,
                length,
                payload,
            });
        }
        Ok(Self {
            kind,
            fua: raw.flags.get() & FLAG_FUA != 0,
            volume: VolumeIndex(raw.volume.get()),
            stamp: Stamp(raw.stamp.get()),
            mark: TimeMark(raw.mark.get()),
            offset_bytes: offset,
            length_bytes: length,
            payload_bytes: payload,
            incarnation_id: raw.incarnation.get(),
            checksum: raw.checksum.get(),
        })
    }

    /// First byte after the range.
    pub fn end_bytes(&self) -> u64 {
        self.offset_bytes + u64::from(self.length_bytes)
    }
}

fn checksum_of(header: &[u8; RECORD_HEADER_BYTES], payload: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&header[..CHECKED_BYTES]);
    hash.update(payload);
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> RecordHeader {
        RecordHeader {
            kind: RecordKind::Write,
            fua: true,
            volume: VolumeIndex(2),
            stamp: Stamp(0x0102_0304_0506_0708),
            mark: TimeMark(0x1112_1314_1516_1718),
            offset_bytes: 4096,
            length_bytes: 512,
            payload_bytes: 512,
            incarnation_id: 0xa0a1_a2a3_a4a5_a6a7_a8a9_aaab_acad_aeaf,
            checksum: 0,
        }
    }

    #[test]
    fn the_golden_bytes_of_a_write_record_do_not_change() {
        let sealed = header().sealed(&[0x5a; 512]);
        let hex: String = sealed
            .to_bytes()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let golden = concat!(
            "0101020000020000",
            "0807060504030201",
            "1817161514131211",
            "0010000000000000",
            "0002000001000000",
            "afaeadacabaaa9a8a7a6a5a4a3a2a1a0",
            "2896326be0f60b4a",
        );
        assert_eq!(hex, golden);
    }

    #[test]
    fn one_flipped_bit_anywhere_is_noticed() {
        let payload = [7u8; 512];
        let bytes = header().sealed(&payload).to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            let seen = RecordHeader::parse(&bad).and_then(|h| h.verify(&payload));
            assert!(seen.is_err(), "bit {bit} of the header");
        }
        let sealed = RecordHeader::parse(&bytes).unwrap();
        for bit in 0..payload.len() * 8 {
            let mut bad = payload;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(sealed.verify(&bad).is_err(), "bit {bit} of the payload");
        }
    }

    #[test]
    fn shapes_that_no_kind_can_have_are_refused() {
        let mut discard = header();
        discard.kind = RecordKind::Discard;
        assert!(matches!(
            RecordHeader::parse(&discard.to_bytes()),
            Err(RecordError::BadShape { .. })
        ));
        let mut far = header();
        far.offset_bytes = u64::MAX - 511;
        assert!(RecordHeader::parse(&far.to_bytes()).is_err());
        let mut empty = header();
        (empty.length_bytes, empty.payload_bytes) = (0, 0);
        assert!(RecordHeader::parse(&empty.to_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn parsing_is_total_and_a_parsed_header_writes_the_same_bytes(
            bytes in proptest::collection::vec(any::<u8>(), 0..80)
        ) {
            if let Ok(header) = RecordHeader::parse(&bytes) {
                prop_assert_eq!(&header.to_bytes()[..], &bytes[..RECORD_HEADER_BYTES]);
            }
        }
    }
}
