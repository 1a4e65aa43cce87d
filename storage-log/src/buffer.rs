//! Memory for batches: aligned for direct I/O, and used again.
//!
//! A buffer is as large as the largest batch and never grows, so its alignment stays. What was not written to yet is
//! address space only; an idle log holds a page or two.

use std::fmt;
use std::ops::Range;

use crate::format::{BATCH_BYTES_MAX, BLOCK_BYTES_MAX};

/// Direct I/O asks for memory aligned to a block, on any device at most this.
const MEMORY_ALIGN: usize = BLOCK_BYTES_MAX;

/// Buffers kept for the next batches: one in flight, one that takes appends, one that has just come back.
const KEPT_MAX: usize = 3;

/// Bytes of one batch, aligned for direct I/O.
pub struct Buffer {
    /// Of fixed capacity: moving the bytes would change their alignment.
    vec: Vec<u8>,
    start: usize,
}

impl Buffer {
    fn new() -> Self {
        Self::with_room(BATCH_BYTES_MAX)
    }

    /// So many zeros.
    pub(crate) fn of_zeros(bytes: usize) -> Self {
        let mut buffer = Self::with_room(bytes);
        buffer.pad(bytes);
        buffer
    }

    fn with_room(bytes: usize) -> Self {
        let mut vec: Vec<u8> = Vec::with_capacity(bytes + MEMORY_ALIGN);
        let address = vec.as_ptr().addr();
        let start = address.next_multiple_of(MEMORY_ALIGN) - address;
        vec.resize(start, 0);
        Self { vec, start }
    }

    /// A buffer that came back from where [`Buffer::into_parts`] sent it.
    ///
    /// # Panics
    /// Unless the range lies in the vector.
    #[must_use]
    pub fn from_parts(mut vec: Vec<u8>, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= vec.len(), "the range lies in the vector");
        vec.truncate(range.end);
        Self { vec, start: range.start }
    }

    /// The vector that holds the bytes, and where in it they stand.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, Range<usize>) {
        let range = self.start..self.vec.len();
        (self.vec, range)
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.vec[self.start..]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.vec[self.start..]
    }

    pub(crate) fn len(&self) -> usize {
        self.vec.len() - self.start
    }

    /// Lets `append` add up to `bytes` at the end.
    pub(crate) fn append(&mut self, bytes: usize, append: impl FnOnce(&mut Vec<u8>)) {
        let end = self.vec.len() + bytes;
        assert!(end <= self.vec.capacity(), "a buffer takes the largest batch and never grows");
        append(&mut self.vec);
        assert!(self.vec.len() <= end, "no more than was said");
    }

    /// Adds zeros up to `len` bytes.
    pub(crate) fn pad(&mut self, len: usize) {
        let zeros = len - self.len();
        self.append(zeros, |vec| vec.resize(vec.len() + zeros, 0));
    }
}

impl From<&[u8]> for Buffer {
    /// A buffer with these bytes, at most a batch of them.
    fn from(bytes: &[u8]) -> Self {
        let mut buffer = Self::new();
        buffer.append(bytes.len(), |vec| vec.extend_from_slice(bytes));
        buffer
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        Self::from(self.bytes())
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Buffer {}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len())
    }
}

/// Empty buffers that wait for a batch.
#[derive(Default)]
pub(crate) struct Buffers {
    kept: Vec<Buffer>,
}

impl Buffers {
    /// An empty buffer.
    pub(crate) fn take(&mut self) -> Buffer {
        self.kept.pop().unwrap_or_else(Buffer::new)
    }

    /// Takes back a buffer that [`Buffers::take`] gave.
    pub(crate) fn give_back(&mut self, mut buffer: Buffer) {
        let address = buffer.vec.as_ptr().addr() + buffer.start;
        let whole = buffer.vec.capacity() - buffer.start >= BATCH_BYTES_MAX;
        if self.kept.len() < KEPT_MAX && whole && address.is_multiple_of(MEMORY_ALIGN) {
            buffer.vec.truncate(buffer.start);
            self.kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_come_back_empty() {
        let mut buffers = Buffers::default();
        for _ in 0..3 {
            let mut buffer = buffers.take();
            assert_eq!(buffer.len(), 0);
            buffer.append(3, |vec| vec.extend_from_slice(b"abc"));
            buffer.pad(BATCH_BYTES_MAX);
            assert!(buffer.bytes().as_ptr().addr().is_multiple_of(MEMORY_ALIGN));
            let (vec, range) = buffer.into_parts();
            let address = vec.as_ptr().addr();
            let buffer = Buffer::from_parts(vec, range);
            assert_eq!(buffer.bytes()[..4], *b"abc\0");
            buffers.give_back(buffer);
            assert_eq!(buffers.kept[0].vec.as_ptr().addr(), address, "the same memory");
        }
        buffers.give_back(Buffer::from_parts(vec![1; 8], 0..8));
        assert_eq!(buffers.kept.len(), 1, "a buffer of somebody else's is let go");
    }

    #[test]
    fn the_largest_batch_fits_where_the_buffer_stands() {
        let mut buffer = Buffer::new();
        let before = (buffer.vec.as_ptr().addr(), buffer.vec.capacity());
        buffer.pad(BATCH_BYTES_MAX);
        assert_eq!(buffer.len(), BATCH_BYTES_MAX);
        assert_eq!((buffer.vec.as_ptr().addr(), buffer.vec.capacity()), before, "it never grows");
    }
}
