//! Batch header: what opens each unidirectional stream of the link.
//!
//! ```text
//!   0  "UTB1" | record count u32
//!   8  session u64
//!  16  bytes after this header u64
//!  24  xxh3-64 over bytes 0..24
//! ```

use crate::coding::{DecodeError, Reader, Writer};
use crate::limits::{
    BATCH_BYTES_GOAL, BATCH_BYTES_MAX, BATCH_RECORDS_MAX, RECORD_PAYLOAD_BYTES_MAX,
};
use crate::record::RECORD_HEADER_BYTES;
use xxhash_rust::xxh3::xxh3_64;

/// Size of a batch header in bytes.
pub const BATCH_HEADER_BYTES: usize = 32;
const MAGIC: &[u8; 4] = b"UTB1";

// A batch of the wanted size has room for one more of the largest records.
const _: () = assert!(
    BATCH_BYTES_MAX
        >= BATCH_BYTES_GOAL
            + RECORD_PAYLOAD_BYTES_MAX
            + BATCH_RECORDS_MAX * RECORD_HEADER_BYTES as u32
);

/// How many records follow, and for which session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The session number the receiver gave in its hello; a batch of another one is dropped.
    pub session: u64,
    /// Records that follow.
    pub records: u32,
    /// Bytes that follow: headers and payloads.
    pub bytes: u32,
}

impl BatchHeader {
    /// The header as bytes.
    pub fn to_bytes(&self) -> [u8; BATCH_HEADER_BYTES] {
        let mut writer = Writer::new();
        writer
            .put(MAGIC)
            .u32(self.records)
            .u64(self.session)
            .u64(u64::from(self.bytes));
        let mut out = [0; BATCH_HEADER_BYTES];
        let body = writer.into_bytes();
        out[..24].copy_from_slice(&body);
        out[24..].copy_from_slice(&xxh3_64(&body).to_le_bytes());
        out
    }

    /// Reads a header; counts are bounded before anyone allocates by them.
    pub fn parse(bytes: &[u8; BATCH_HEADER_BYTES]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.take(4)? != MAGIC {
            return Err(DecodeError::BadValue("batch magic"));
        }
        let (records, session, length) = (reader.u32()?, reader.u64()?, reader.u64()?);
        if reader.u64()? != xxh3_64(&bytes[..24]) {
            return Err(DecodeError::BadValue("batch checksum"));
        }
        bounded(
            "batch records",
            u64::from(records),
            u64::from(BATCH_RECORDS_MAX),
        )?;
        bounded("batch bytes", length, u64::from(BATCH_BYTES_MAX))?;
        if records == 0 || length < u64::from(records) * RECORD_HEADER_BYTES as u64 {
            return Err(DecodeError::BadValue("batch length"));
        }
        let bytes = u32::try_from(length).map_err(|_| DecodeError::BadValue("batch length"))?;
        Ok(Self {
            session,
            records,
            bytes,
        })
    }
}

fn bounded(what: &'static str, found: u64, limit: u64) -> Result<(), DecodeError> {
    if found > limit {
        return Err(DecodeError::OverLimit { what, found, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_at_and_over_every_limit_are_told_apart() {
        let header = |records, bytes| {
            BatchHeader {
                session: 9,
                records,
                bytes,
            }
            .to_bytes()
        };
        let parse = |bytes: [u8; 32]| BatchHeader::parse(&bytes);
        assert!(parse(header(1, 64)).is_ok());
        assert!(parse(header(BATCH_RECORDS_MAX, BATCH_BYTES_MAX)).is_ok());
        for (records, bytes) in [
            (0, 0),
            (0, 64),
            (2, 64),
            (1, BATCH_BYTES_MAX + 1),
            (BATCH_RECORDS_MAX + 1, BATCH_BYTES_MAX),
            (u32::MAX, u32::MAX),
            (1 << 31, 1 << 31),
        ] {
            assert!(
                parse(header(records, bytes)).is_err(),
                "{records} records, {bytes} bytes"
            );
        }
    }

    #[test]
    fn a_flipped_bit_in_the_header_is_noticed() {
        let good = BatchHeader {
            session: 3,
            records: 5,
            bytes: 5000,
        }
        .to_bytes();
        for bit in 0..256 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(BatchHeader::parse(&bad).is_err(), "bit {bit}");
        }
    }
}
