//! Memory that O_DIRECT accepts: one aligned block of bytes.

use bytes::{Buf, Bytes, BytesMut};

/// Alignment of a buffer; no device asks for more.
pub(crate) const ALIGN_BYTES: usize = 4096;

/// An aligned buffer; zeroed when it is made.
#[derive(Debug)]
pub(crate) struct AlignedBuffer {
    bytes: BytesMut,
}

impl AlignedBuffer {
    /// A buffer of `len` zeroes.
    pub(crate) fn new(len: usize) -> Self {
        if len == 0 {
            let bytes = BytesMut::new();
            return Self { bytes };
        }
        let mut bytes = BytesMut::zeroed(len + ALIGN_BYTES);
        let start = bytes.as_ptr().align_offset(ALIGN_BYTES);
        assert!(start < ALIGN_BYTES, "a byte buffer can always be aligned");
        bytes.advance(start);
        bytes.truncate(len);
        Self { bytes }
    }

    /// The buffer that was frozen as `bytes`, with what it holds, if nobody else has any of it.
    pub(crate) fn thaw(bytes: Bytes) -> Option<Self> {
        let bytes = bytes.try_into_mut().ok()?;
        Some(Self { bytes })
    }

    /// Makes it `len` long without moving it; false, and nothing done, if it is too small for that.
    pub(crate) fn resize(&mut self, len: usize) -> bool {
        let fits = len <= self.bytes.capacity();
        if fits {
            self.bytes.resize(len, 0);
        }
        fits
    }

    /// How long it is.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, to be filled.
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The buffer, filled: shared and unchanging from here on. Its bytes do not move.
    pub(crate) fn freeze(self) -> Bytes {
        self.bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_before_and_after_it_is_frozen() {
        for len in [1, 512, 4096, 1 << 20] {
            let mut buffer = AlignedBuffer::new(len);
            buffer.as_mut()[len - 1] = 7;
            assert_eq!(buffer.as_mut().as_ptr().align_offset(ALIGN_BYTES), 0);
            let frozen = buffer.freeze();
            assert_eq!(frozen.as_ptr().align_offset(ALIGN_BYTES), 0);
            assert_eq!((frozen.len(), frozen[len - 1]), (len, 7));
        }
        assert!(AlignedBuffer::new(0).freeze().is_empty());
    }

    #[test]
    fn a_frozen_buffer_comes_back_to_its_last_owner_where_it_was() {
        let mut buffer = AlignedBuffer::new(8192);
        buffer.as_mut().fill(7);
        let frozen = buffer.freeze();
        let (at, part) = (frozen.as_ptr(), frozen.slice(512..1024));
        assert!(AlignedBuffer::thaw(frozen.clone()).is_none());
        drop(part);
        let mut buffer = AlignedBuffer::thaw(frozen).unwrap();
        assert_eq!((buffer.len(), buffer.as_slice().as_ptr()), (8192, at));
        assert!(buffer.resize(4096) && buffer.resize(8192));
        assert_eq!(buffer.as_slice().as_ptr(), at, "it has not moved");
        assert_eq!(buffer.as_slice()[..4096], [7; 4096]);
        assert!(!buffer.resize(3 * 8192));
        assert_eq!(buffer.len(), 8192);
    }
}
