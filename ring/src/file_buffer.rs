//! Owned bytes for file operations.

use std::fmt;
use std::ops::Range;

/// A vector and the range of it that is meant.
///
/// The range lets a safe caller use files that were opened with `O_DIRECT`: choose its start so that the
/// address is aligned, or let [`FileBuffer::aligned`] do it.
pub struct FileBuffer {
    vec: Vec<u8>,
    range: Range<usize>,
}

impl FileBuffer {
    /// Panics unless `range` lies in `vec`.
    pub fn new(vec: Vec<u8>, range: Range<usize>) -> FileBuffer {
        assert!(range.start <= range.end && range.end <= vec.len(), "the range lies in the vector");
        FileBuffer { vec, range }
    }

    /// `bytes` zero bytes whose address is a multiple of `alignment`, a power of two.
    pub fn aligned(bytes: usize, alignment: usize) -> FileBuffer {
        assert!(alignment.is_power_of_two(), "alignments are powers of two");
        let vec = vec![0; bytes + alignment - 1];
        let start = vec.as_ptr().addr().next_multiple_of(alignment) - vec.as_ptr().addr();
        FileBuffer::new(vec, start..start + bytes)
    }

    /// The bytes that are meant.
    pub fn bytes(&self) -> &[u8] {
        &self.vec[self.range.clone()]
    }

    /// The bytes that are meant, to be filled in.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.vec[self.range.clone()]
    }

    /// The vector, with all that it holds, and the range.
    pub fn into_parts(self) -> (Vec<u8>, Range<usize>) {
        (self.vec, self.range)
    }

    /// Keeps the first `bytes` of the range.
    pub(crate) fn truncate(&mut self, bytes: usize) {
        assert!(bytes <= self.range.len(), "a buffer is only made shorter");
        self.range.end = self.range.start + bytes;
    }
}

impl fmt::Debug for FileBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileBuffer({} bytes)", self.range.len())
    }
}
