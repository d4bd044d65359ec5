//! Where things lie in the ring file and in the consumer page.
//!
//! ```text
//! ring file                                  consumer page
//!       0  header: written once                    0  sent
//!    4096  claim word                            128  acked
//!    4224  freed stamp, freed position           256  sleeping
//!    4352  whole volumes, doubtful volumes
//!    8192  descriptors, 64 bytes a slot
//!     ...  payload area, on a page boundary
//! ```
//!
//! Pure: offsets are counted in 64-bit words, the unit in which both sides read shared memory. All
//! words have the byte order of the machine; the memory never leaves it.

use crate::config::RingConfig;
use crate::descriptor::DESCRIPTOR_WORDS;
use crate::place::{Cursor, Geometry};
use wire::Incarnation;

pub(crate) const PAGE_BYTES: u64 = 4096;
pub(crate) const WORD_BYTES: u64 = 8;
/// Version of this layout; another one is refused.
pub(crate) const LAYOUT_VERSION: u64 = 1;
const MAGIC: u64 = u64::from_le_bytes(*b"ublktap\0");

/// Word of the claim word; producers fight for its cache line.
pub(crate) const CLAIM_WORD: usize = 512;
/// Word of the freed stamp, two cache lines on: only reclaim writes it.
pub(crate) const FREED_STAMP_WORD: usize = 528;
/// Word of the freed position, beside the freed stamp.
pub(crate) const FREED_POSITION_WORD: usize = 529;
/// Word of the volumes that need no copy if this tap dies; only the group writes it.
pub(crate) const WHOLE_WORD: usize = 544;
/// Word of the volumes whose disk has refused a change since their last copy began.
pub(crate) const DOUBT_WORD: usize = 545;
const DESCRIPTORS_WORD: usize = 1024;

/// Word of the sent cursor in the consumer page.
pub(crate) const SENT_WORD: usize = 0;
/// Word of the acked cursor in the consumer page.
pub(crate) const ACKED_WORD: usize = 16;
/// Word of the sleeping flag in the consumer page.
pub(crate) const SLEEPING_WORD: usize = 32;

/// Words of the header.
pub(crate) const HEADER_WORDS: usize = 10;

const _: () = assert!(CLAIM_WORD as u64 * WORD_BYTES == PAGE_BYTES);
const _: () = assert!(DESCRIPTORS_WORD as u64 * WORD_BYTES == 2 * PAGE_BYTES);
const _: () = assert!(DESCRIPTORS_WORD.is_multiple_of(DESCRIPTOR_WORDS));
const _: () = assert!((SLEEPING_WORD as u64 + 1) * WORD_BYTES <= PAGE_BYTES);

/// What the header page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) incarnation: Incarnation,
    pub(crate) config: RingConfig,
    pub(crate) origin: Cursor,
}

/// Why a file is not a ring of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    NotARing,
    UnknownVersion(u64),
    BadSize,
}

/// Offsets for one geometry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) geometry: Geometry,
    /// Words before the payload area.
    pub(crate) control_words: usize,
    /// Bytes of the payload area.
    pub(crate) payload_bytes: u64,
}

impl Layout {
    pub(crate) fn new(geometry: Geometry, payload_bytes: u64) -> Self {
        let descriptor_bytes = geometry.slots() * DESCRIPTOR_WORDS as u64 * WORD_BYTES;
        let control_bytes = (2 * PAGE_BYTES + descriptor_bytes).next_multiple_of(PAGE_BYTES);
        Self {
            geometry,
            control_words: (control_bytes / WORD_BYTES) as usize,
            payload_bytes,
        }
    }

    /// Size of the ring file.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.control_words as u64 * WORD_BYTES + self.payload_bytes
    }

    /// First word of a slot's descriptor.
    pub(crate) fn descriptor_word(&self, stamp: u64) -> usize {
        let word = DESCRIPTORS_WORD + self.geometry.slot_of(stamp) * DESCRIPTOR_WORDS;
        assert!(word + DESCRIPTOR_WORDS <= self.control_words);
        word
    }
}

impl Header {
    pub(crate) fn to_words(self) -> [u64; HEADER_WORDS] {
        let Incarnation { counter, id } = self.incarnation;
        [
            MAGIC,
            LAYOUT_VERSION,
            counter,
            id as u64,
            (id >> 64) as u64,
            u64::from(self.config.slots),
            self.config.payload_bytes,
            self.origin.stamp,
            self.origin.position,
            0,
        ]
    }

    /// Reads a header; sizes are checked against the bounds of a ring before anyone uses them.
    pub(crate) fn parse(words: [u64; HEADER_WORDS]) -> Result<(Self, Layout), HeaderError> {
        let [
            magic,
            version,
            counter,
            low,
            high,
            slots,
            payload_bytes,
            stamp,
            position,
            _,
        ] = words;
        if magic != MAGIC {
            return Err(HeaderError::NotARing);
        }
        if version != LAYOUT_VERSION {
            return Err(HeaderError::UnknownVersion(version));
        }
        let slots = u32::try_from(slots).map_err(|_| HeaderError::BadSize)?;
        let config = RingConfig {
            slots,
            payload_bytes,
        };
        let geometry = config.geometry().map_err(|_| HeaderError::BadSize)?;
        let id = u128::from(high) << 64 | u128::from(low);
        let header = Self {
            incarnation: Incarnation { counter, id },
            config,
            origin: Cursor { stamp, position },
        };
        Ok((header, Layout::new(geometry, payload_bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            incarnation: Incarnation {
                counter: 9,
                id: (3 << 64) | 4,
            },
            config: RingConfig {
                slots: 8,
                payload_bytes: 1 << 16,
            },
            origin: Cursor {
                stamp: 5,
                position: 6,
            },
        }
    }

    #[test]
    fn a_header_survives_its_words_and_sizes_the_file() {
        let (parsed, layout) = Header::parse(header().to_words()).unwrap();
        assert_eq!(parsed, header());
        assert_eq!(layout.total_bytes(), 3 * PAGE_BYTES + (1 << 16));
        assert_eq!(layout.descriptor_word(8), DESCRIPTORS_WORD);
        assert_eq!(
            layout.descriptor_word(15),
            DESCRIPTORS_WORD + 7 * DESCRIPTOR_WORDS
        );
    }

    #[test]
    fn another_magic_version_or_size_is_refused() {
        let with = |index: usize, value: u64| {
            let mut words = header().to_words();
            words[index] = value;
            Header::parse(words)
        };
        assert_eq!(with(0, 0), Err(HeaderError::NotARing));
        assert_eq!(with(1, 2), Err(HeaderError::UnknownVersion(2)));
        for (index, value) in [
            (5, 0),
            (5, 7),
            (5, 1 << 32),
            (6, 0),
            (6, 1000),
            (6, 1 << 63),
        ] {
            assert_eq!(
                with(index, value),
                Err(HeaderError::BadSize),
                "word {index}: {value}"
            );
        }
    }

    proptest! {
        #[test]
        fn reading_a_header_is_total(mut words: [u64; HEADER_WORDS], ours: bool) {
            if ours {
                (words[0], words[1]) = (MAGIC, LAYOUT_VERSION);
            }
            if let Ok((header, layout)) = Header::parse(words) {
                prop_assert!(layout.total_bytes() > header.config.payload_bytes);
            }
        }
    }
}
