//! Bounded little-endian reading and writing of message bodies.
//!
//! A [`Reader`] never looks past its slice and never allocates more than a named limit allows; the
//! only failures are "too short", "over a limit" and "not a value of this type".

use crate::limits::{IDENTITY_BYTES_MAX, TEXT_BYTES_MAX};
use crate::name::Name;
use crate::stamp::{Generation, Incarnation, Stamp, TimeMark};

/// Why bytes could not be read as the expected type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("message ends early")]
    Short,
    /// Bytes are left over after the last value.
    #[error("message has {0} bytes too many")]
    Trailing(usize),
    /// A length or count is larger than its named maximum.
    #[error("{what} is {found}, at most {limit} allowed")]
    OverLimit {
        /// Which length or count.
        what: &'static str,
        /// What was found.
        found: u64,
        /// The named maximum.
        limit: u64,
    },
    /// A value is not one of the type's.
    #[error("bad value in field {0}")]
    BadValue(&'static str),
    /// The format version is not one this build speaks.
    #[error("version {0} is not understood by this build (it speaks 1)")]
    UnknownVersion(u16),
}

/// A cursor over received bytes.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// A growing message body.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Takes the next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(*head)
    }

    /// Next byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// Next two bytes.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Next four bytes.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Next eight bytes.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Next eight bytes as a signed number.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// Next sixteen bytes.
    pub fn u128(&mut self) -> Result<u128, DecodeError> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    /// A byte that is zero or one.
    pub fn flag(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::BadValue(what)),
        }
    }

    /// A count, refused above `limit`.
    pub fn count(&mut self, what: &'static str, limit: usize) -> Result<usize, DecodeError> {
        let found = usize::from(self.u16()?);
        if found > limit {
            return Err(DecodeError::OverLimit {
                what,
                found: found as u64,
                limit: limit as u64,
            });
        }
        Ok(found)
    }

    /// A length-prefixed text of at most `limit` bytes.
    pub fn text(&mut self, what: &'static str, limit: usize) -> Result<String, DecodeError> {
        let length = self.count(what, limit)?;
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::BadValue(what))?;
        Ok(text.to_owned())
    }

    /// A checked name.
    pub fn name(&mut self, what: &'static str) -> Result<Name, DecodeError> {
        let text = self.text(what, crate::limits::NAME_BYTES_MAX)?;
        Name::new(&text).map_err(|_| DecodeError::BadValue(what))
    }

    /// A disk identity.
    pub fn identity(&mut self) -> Result<String, DecodeError> {
        self.text("disk identity", IDENTITY_BYTES_MAX)
    }

    /// A stamp.
    pub fn stamp(&mut self) -> Result<Stamp, DecodeError> {
        self.u64().map(Stamp)
    }

    /// A time mark.
    pub fn mark(&mut self) -> Result<TimeMark, DecodeError> {
        self.u64().map(TimeMark)
    }

    /// An incarnation: counter, then id.
    pub fn incarnation(&mut self) -> Result<Incarnation, DecodeError> {
        Ok(Incarnation {
            counter: self.u64()?,
            id: self.u128()?,
        })
    }

    /// A generation: counter, then lineage.
    pub fn generation(&mut self) -> Result<Generation, DecodeError> {
        Ok(Generation {
            counter: self.u64()?,
            lineage: self.u128()?,
        })
    }

    /// Ends the message; left-over bytes are an error.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing(left)),
        }
    }
}

impl Writer {
    /// An empty body.
    pub fn new() -> Self {
        Self::default()
    }

    /// The finished body.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Appends raw bytes.
    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Appends a byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// Appends two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// Appends four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// Appends eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// Appends eight bytes of a signed number.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// Appends sixteen bytes.
    pub fn u128(&mut self, value: u128) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// Appends a zero or one.
    pub fn flag(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    /// Appends a count that the caller keeps below its limit.
    pub fn count(&mut self, value: usize) -> &mut Self {
        let count = u16::try_from(value).unwrap_or(u16::MAX);
        assert!(
            usize::from(count) == value,
            "counts on the wire fit 16 bits by their limits"
        );
        self.u16(count)
    }

    /// Appends a text, cut at a character boundary to at most `limit` bytes.
    pub fn text(&mut self, text: &str, limit: usize) -> &mut Self {
        let cut = text.floor_char_boundary(limit.min(text.len()));
        let bytes = &text.as_bytes()[..cut];
        self.count(bytes.len()).put(bytes)
    }

    /// Appends a reason or refusal, cut to [`TEXT_BYTES_MAX`].
    pub fn reason(&mut self, text: &str) -> &mut Self {
        self.text(text, TEXT_BYTES_MAX)
    }

    /// Appends a name.
    pub fn name(&mut self, name: &Name) -> &mut Self {
        self.text(name.as_str(), crate::limits::NAME_BYTES_MAX)
    }

    /// Appends a stamp.
    pub fn stamp(&mut self, stamp: Stamp) -> &mut Self {
        self.u64(stamp.0)
    }

    /// Appends a time mark.
    pub fn mark(&mut self, mark: TimeMark) -> &mut Self {
        self.u64(mark.0)
    }

    /// Appends an incarnation: counter, then id.
    pub fn incarnation(&mut self, incarnation: Incarnation) -> &mut Self {
        self.u64(incarnation.counter).u128(incarnation.id)
    }

    /// Appends a generation: counter, then lineage.
    pub fn generation(&mut self, generation: Generation) -> &mut Self {
        self.u64(generation.counter).u128(generation.lineage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_reports_every_cut_as_short_and_never_panics() {
        let mut writer = Writer::new();
        writer.u8(1).u16(2).u32(3).u64(4).u128(5).reason("why");
        let bytes = writer.into_bytes();
        for cut in 0..bytes.len() {
            let mut reader = Reader::new(&bytes[..cut]);
            let read = (|| {
                reader.u8()?;
                reader.u16()?;
                reader.u32()?;
                reader.u64()?;
                reader.u128()?;
                reader.text("reason", TEXT_BYTES_MAX)
            })();
            assert_eq!(read, Err(DecodeError::Short), "cut at {cut}");
        }
    }

    #[test]
    fn a_count_over_its_limit_is_refused_before_anything_is_read() {
        let mut reader = Reader::new(&[0xff, 0xff]);
        assert!(matches!(
            reader.count("volumes", 64),
            Err(DecodeError::OverLimit { .. })
        ));
    }

    #[test]
    fn a_long_text_is_cut_at_a_character_boundary() {
        let mut writer = Writer::new();
        writer.text("a\u{e9}", 2);
        assert_eq!(writer.into_bytes(), [1, 0, b'a']);
    }
}
