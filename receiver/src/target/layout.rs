//! Layout of a volume over its target disks. Pure.
//!
//! One target: the target is byte-identical to the source (`plain`). Several: stripes of
//! [`STRIPE_BYTES`] go round robin, so that copying and applying use all disks at once.

use crate::fold::ByteRange;

/// Size of a stripe.
pub const STRIPE_BYTES: u64 = 1 << 20;

/// Most targets a volume may have.
pub const TARGETS_MAX: usize = 16;

/// Why a volume cannot be laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// None, or more than [`TARGETS_MAX`].
    #[error("a volume has 1 to {TARGETS_MAX} targets, not {targets}")]
    Targets {
        /// How many were named.
        targets: usize,
    },
    /// A target would stay empty.
    #[error(
        "a volume of {size_bytes} bytes has fewer than {targets} stripes of 1 MiB; name fewer \
         targets"
    )]
    Small {
        /// Size of the volume.
        size_bytes: u64,
        /// How many were named.
        targets: usize,
    },
}

/// How the bytes of a volume lie on its targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    size_bytes: u64,
    targets: u64,
}

/// A run of a volume on one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Index of the target.
    pub target: usize,
    /// Offset on the target.
    pub offset_bytes: u64,
    /// The bytes of the volume.
    pub range: ByteRange,
}

impl Layout {
    /// The layout of a volume over so many targets.
    pub fn new(size_bytes: u64, targets: usize) -> Result<Self, LayoutError> {
        if targets == 0 || targets > TARGETS_MAX {
            return Err(LayoutError::Targets { targets });
        }
        let layout = Self {
            size_bytes,
            targets: targets as u64,
        };
        if size_bytes == 0 || (targets > 1 && layout.stripes() < layout.targets) {
            return Err(LayoutError::Small {
                size_bytes,
                targets,
            });
        }
        Ok(layout)
    }

    /// Size of the volume.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Number of targets.
    pub fn targets(&self) -> usize {
        self.targets as usize
    }

    /// Bytes the target with this index holds.
    pub fn target_bytes(&self, target: usize) -> u64 {
        let target = target as u64;
        assert!(target < self.targets, "target {target} of {}", self.targets);
        let stripes = self.stripes();
        let here = stripes / self.targets + u64::from(target < stripes % self.targets);
        let holds_last = (stripes - 1) % self.targets == target;
        let missing = if holds_last {
            stripes * STRIPE_BYTES - self.size_bytes
        } else {
            0
        };
        here * STRIPE_BYTES - missing
    }

    /// The parts of a range, in volume order: each lies in one piece on one target.
    pub fn parts(&self, range: ByteRange) -> impl Iterator<Item = Part> + use<> {
        assert!(
            range.end_bytes() <= self.size_bytes,
            "{range} is outside the volume"
        );
        let layout = *self;
        let mut next = range.offset_bytes;
        std::iter::from_fn(move || {
            (next < range.end_bytes()).then(|| {
                let part = layout.part(ByteRange::between(next, range.end_bytes()));
                next = part.range.end_bytes();
                part
            })
        })
    }

    /// The first part of a range.
    fn part(&self, range: ByteRange) -> Part {
        if self.targets == 1 {
            return Part {
                target: 0,
                offset_bytes: range.offset_bytes,
                range,
            };
        }
        let stripe = range.offset_bytes / STRIPE_BYTES;
        let within_bytes = range.offset_bytes % STRIPE_BYTES;
        let len_bytes = range.len_bytes.min(STRIPE_BYTES - within_bytes);
        Part {
            target: (stripe % self.targets) as usize,
            offset_bytes: stripe / self.targets * STRIPE_BYTES + within_bytes,
            range: ByteRange::new(range.offset_bytes, len_bytes),
        }
    }

    fn stripes(&self) -> u64 {
        self.size_bytes.div_ceil(STRIPE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn one_target_is_byte_identical_to_the_volume() {
        let layout = Layout::new(10 * MIB, 1).unwrap();
        let range = ByteRange::new(512, 5 * MIB);
        let parts: Vec<Part> = layout.parts(range).collect();
        assert_eq!(
            parts,
            [Part {
                target: 0,
                offset_bytes: 512,
                range
            }]
        );
        assert_eq!(layout.target_bytes(0), 10 * MIB);
    }

    #[test]
    fn stripes_go_round_robin_and_the_last_may_be_short() {
        let layout = Layout::new(4 * MIB + 4096, 3).unwrap();
        let sizes: Vec<u64> = (0..3).map(|target| layout.target_bytes(target)).collect();
        assert_eq!(sizes, [2 * MIB, MIB + 4096, MIB]);
        let places: Vec<(usize, u64, u64)> = layout
            .parts(ByteRange::new(0, 4 * MIB + 4096))
            .map(|part| (part.target, part.offset_bytes, part.range.len_bytes))
            .collect();
        let expected = [
            (0, 0, MIB),
            (1, 0, MIB),
            (2, 0, MIB),
            (0, MIB, MIB),
            (1, MIB, 4096),
        ];
        assert_eq!(places, expected);
    }

    #[test]
    fn a_range_within_a_stripe_stays_on_one_target() {
        let layout = Layout::new(8 * MIB, 2).unwrap();
        let parts: Vec<Part> = layout.parts(ByteRange::new(3 * MIB + 512, 1024)).collect();
        let range = ByteRange::new(3 * MIB + 512, 1024);
        assert_eq!(
            parts,
            [Part {
                target: 1,
                offset_bytes: MIB + 512,
                range
            }]
        );
    }

    #[test]
    fn targets_that_would_stay_empty_are_refused() {
        assert_eq!(
            Layout::new(MIB, 0),
            Err(LayoutError::Targets { targets: 0 })
        );
        assert_eq!(
            Layout::new(MIB, 17),
            Err(LayoutError::Targets { targets: 17 })
        );
        let small = LayoutError::Small {
            size_bytes: MIB,
            targets: 2,
        };
        assert_eq!(Layout::new(MIB, 2), Err(small));
        assert!(Layout::new(512, 1).is_ok());
    }

    #[test]
    fn every_byte_has_exactly_one_place() {
        for (size_bytes, targets) in [(MIB * 7 + 512, 3), (MIB * 4, 4), (MIB * 5, 2)] {
            let layout = Layout::new(size_bytes, targets).unwrap();
            let mut seen: Vec<Vec<(u64, u64)>> = vec![Vec::new(); targets];
            for part in layout.parts(ByteRange::new(0, size_bytes)) {
                seen[part.target].push((part.offset_bytes, part.range.len_bytes));
            }
            for (target, places) in seen.iter_mut().enumerate() {
                places.sort_unstable();
                let end = places.iter().fold(0, |end, &(offset, len)| {
                    assert_eq!(end, offset);
                    offset + len
                });
                assert_eq!(end, layout.target_bytes(target));
            }
        }
    }
}
