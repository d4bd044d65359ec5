//! Settle marks: how far the source's disks have answered.

use crate::coding::{DecodeError, Reader, Writer};
use crate::limits::SETTLE_VOIDS_MAX;
use crate::stamp::Stamp;

/// All stamps in `(after, upto]` are settled; those in `voids` were refused by the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettleMark {
    /// Where the mark before this one ended.
    pub after: Stamp,
    /// Where this one ends.
    pub upto: Stamp,
    /// Void stamps, ascending, all inside the range.
    pub voids: Vec<Stamp>,
}

impl SettleMark {
    /// The bytes of the mark, as sent and as journaled.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer
            .stamp(self.after)
            .stamp(self.upto)
            .count(self.voids.len());
        for void in &self.voids {
            writer.stamp(*void);
        }
        writer.into_bytes()
    }

    /// Reads a mark; the range must not be empty and the voids must ascend inside it.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let (after, upto) = (reader.stamp()?, reader.stamp()?);
        if upto <= after {
            return Err(DecodeError::BadValue("settle range"));
        }
        let count = reader.count("void stamps", SETTLE_VOIDS_MAX)?;
        let mut voids = Vec::with_capacity(count);
        let mut last = after;
        for _ in 0..count {
            let void = reader.stamp()?;
            if void <= last || void > upto {
                return Err(DecodeError::BadValue("void stamp"));
            }
            last = void;
            voids.push(void);
        }
        reader.finish()?;
        Ok(Self { after, upto, voids })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_with_voids_outside_its_range_is_refused() {
        let mark = |voids: &[u64]| SettleMark {
            after: Stamp(10),
            upto: Stamp(20),
            voids: voids.iter().copied().map(Stamp).collect(),
        };
        let good = mark(&[11, 15, 20]);
        assert_eq!(SettleMark::parse(&good.to_bytes()), Ok(good));
        for bad in [&[10][..], &[21], &[15, 15], &[16, 12]] {
            assert!(SettleMark::parse(&mark(bad).to_bytes()).is_err(), "{bad:?}");
        }
    }
}
