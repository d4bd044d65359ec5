//! Memory that O_DIRECT accepts: one aligned block of bytes.

use bytes::Bytes;

/// Alignment of a buffer; no device asks for more.
const ALIGN_BYTES: usize = 4096;

/// An aligned, zeroed buffer.
#[derive(Debug)]
pub(crate) struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuffer {
    /// A buffer of `len` zeroes.
    pub(crate) fn new(len: usize) -> Self {
        if len == 0 {
            return Self {
                bytes: Vec::new(),
                start: 0,
                len,
            };
        }
        let bytes = vec![0; len + ALIGN_BYTES];
        let start = bytes.as_ptr().align_offset(ALIGN_BYTES);
        assert!(start < ALIGN_BYTES, "a byte buffer can always be aligned");
        Self { bytes, start, len }
    }

    /// How long it is.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The bytes.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    /// The bytes, to be filled.
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }

    /// The buffer, filled: shared and unchanging from here on. Its bytes do not move.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from(self.bytes).slice(self.start..self.start + self.len)
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
}
