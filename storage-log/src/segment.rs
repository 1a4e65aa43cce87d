//! Segments: files of one size that tile a log's address space.
//!
//! A segment's base is a multiple of that size, and so is its name: the order of names is the order of the log. What is
//! left of a segment when the next batch no longer fits stays zero.

use crate::format::{
    BATCH_BYTES_MAX, BLOCK_BYTES_MAX, COLD_MAGIC, FORMAT_VERSION, GENERATION_SHIFT, KEPT_BLOCKS,
    SEGMENT_BYTES, SEGMENT_HEADER_BYTES, SEGMENT_MAGIC, is_block, put, read_u16, read_u32, read_u64,
    round_up, segment_at,
};

/// Whether an address is of a segment that was rewritten: a cold one.
#[must_use]
pub const fn is_cold(lsn: u64) -> bool {
    lsn >> GENERATION_SHIFT != 0
}

/// The address without its generation: where it would be in the segment as it was appended.
#[must_use]
pub const fn as_appended(lsn: u64) -> u64 {
    lsn & ((1 << GENERATION_SHIFT) - 1)
}

/// The base that the segment at `base` has once it is rewritten.
pub(crate) const fn rewritten(base: u64) -> u64 {
    let generation = if base >> GENERATION_SHIFT == 1 { 2 } else { 1 };
    as_appended(base) | generation << GENERATION_SHIFT
}

/// How a log is cut, fixed when its store is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Length of a segment: blocks of any size, a header, and room for a batch.
    pub segment_bytes: u64,
    /// A batch is closed when it would pass this; at most [`BATCH_BYTES_MAX`]. Whoever makes it smaller appends no group
    /// that is larger.
    pub batch_bytes_max: usize,
    /// Batches start at multiples of this, from [`crate::format::BLOCK_BYTES_MIN`] to [`BLOCK_BYTES_MAX`].
    pub block_bytes: usize,
}

impl Geometry {
    /// Segments and batches as large as they are everywhere but in tests, in blocks of `block_bytes`.
    #[must_use]
    pub const fn of_blocks(block_bytes: usize) -> Self {
        Self { segment_bytes: SEGMENT_BYTES, batch_bytes_max: BATCH_BYTES_MAX, block_bytes }
    }

    /// Whether a log can be cut like this.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        is_block(self.block_bytes)
            && self.batch_bytes_max <= BATCH_BYTES_MAX
            && self.batch_bytes_max.is_multiple_of(BLOCK_BYTES_MAX)
            && self.segment_bytes.is_multiple_of(BLOCK_BYTES_MAX as u64)
            && self.segment_bytes <= SEGMENT_BYTES
            && self.segment_bytes >= (SEGMENT_HEADER_BYTES + self.batch_bytes_max) as u64
    }

    /// Base of the segment that holds `lsn`, of the same generation.
    #[must_use]
    pub const fn segment_of(&self, lsn: u64) -> u64 {
        lsn - self.offset_of(lsn)
    }

    /// Where `lsn` stands in its segment.
    #[must_use]
    pub const fn offset_of(&self, lsn: u64) -> u64 {
        as_appended(lsn) % self.segment_bytes
    }

    /// What a log keeps aside on its disk, in bytes: a 64th of a segment. What is left of a segment that is expired on a full disk is written
    /// there; a segment whose members come and go more than that needs room besides.
    #[must_use]
    pub const fn reserve_bytes(&self) -> u64 {
        (self.segment_bytes / 64).next_multiple_of(BLOCK_BYTES_MAX as u64)
    }

    /// What is kept of a segment that has no successor: nothing of the smallest, which only tests have.
    pub(crate) const fn kept_bytes(&self) -> usize {
        let kept = KEPT_BLOCKS * self.block_bytes;
        if kept as u64 * 64 <= self.segment_bytes { kept } else { 0 }
    }

    /// Whether a batch of `bytes` at `lsn` keeps the batch limit and ends within the segment.
    pub(crate) const fn fits_at(&self, lsn: u64, bytes: usize) -> bool {
        let in_segment = self.offset_of(lsn) + round_up(bytes, self.block_bytes) as u64 <= self.segment_bytes;
        bytes <= self.batch_bytes_max && in_segment
    }
}

/// The head of a segment file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// The installation that it belongs to.
    pub store: [u8; 16],
    /// The number of its log.
    pub log: u16,
    /// First byte of the segment in its log.
    pub base: u64,
    /// Batches start at multiples of this: the store's block.
    pub block_bytes: usize,
    /// Length of the segment, as of every other of the store.
    pub segment_bytes: u64,
}

/// Why a segment is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentHeaderError {
    /// Not a segment header, or a damaged one.
    Damaged,
    /// Made by a newer version of the program.
    Newer(u16),
}

impl SegmentHeader {
    /// The header's bytes, zeros behind the fields.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        put(&mut bytes, segment_at::MAGIC, &magic(self.base).to_le_bytes());
        put(&mut bytes, segment_at::VERSION, &FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, segment_at::LOG, &self.log.to_le_bytes());
        put(&mut bytes, segment_at::BLOCK, &(self.block_bytes as u32).to_le_bytes());
        put(&mut bytes, segment_at::STORE, &self.store);
        put(&mut bytes, segment_at::BASE, &self.base.to_le_bytes());
        put(&mut bytes, segment_at::BYTES, &self.segment_bytes.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[segment_at::CHECKSUM.end..segment_at::END]);
        put(&mut bytes, segment_at::CHECKSUM, &checksum.to_le_bytes());
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`SegmentHeaderError`] when it is damaged or of a newer version.
    pub fn parse(bytes: &[u8]) -> Result<Self, SegmentHeaderError> {
        let bytes = bytes.get(..segment_at::END).ok_or(SegmentHeaderError::Damaged)?;
        let checksum = crc32c::crc32c(&bytes[segment_at::CHECKSUM.end..]);
        let base = read_u64(bytes, segment_at::BASE);
        if read_u32(bytes, segment_at::MAGIC) != magic(base)
            || read_u32(bytes, segment_at::CHECKSUM) != checksum
        {
            return Err(SegmentHeaderError::Damaged);
        }
        let version = read_u16(bytes, segment_at::VERSION);
        if version != FORMAT_VERSION {
            return Err(SegmentHeaderError::Newer(version));
        }
        let block_bytes = read_u32(bytes, segment_at::BLOCK) as usize;
        if !is_block(block_bytes) {
            return Err(SegmentHeaderError::Damaged);
        }
        Ok(Self {
            block_bytes,
            store: bytes[segment_at::STORE].try_into().expect("an id of 16 bytes"),
            log: read_u16(bytes, segment_at::LOG),
            base,
            segment_bytes: read_u64(bytes, segment_at::BYTES),
        })
    }
}

const fn magic(base: u64) -> u32 {
    if is_cold(base) { COLD_MAGIC } else { SEGMENT_MAGIC }
}

/// Name of the segment file at `base`: `seg-<base, 16 hex digits>.log`, or `.cold` when it was rewritten. The name does not say the
/// generation: its header does.
#[must_use]
pub fn segment_file_name(base: u64) -> String {
    let ending = if is_cold(base) { "cold" } else { "log" };
    format!("seg-{:016x}.{ending}", as_appended(base))
}

/// The base that a file name stands for; `None` for any other file.
#[must_use]
pub fn segment_of_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("seg-")?.strip_suffix(".log")?;
    let base = u64::from_str_radix(digits, 16).ok()?;
    (segment_file_name(base) == name).then_some(base)
}
