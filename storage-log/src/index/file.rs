//! The index file of a sealed segment: blocks of postings, then a fence for each block, the starts of the node in the segment,
//! and a footer that says what a scan needs to go on behind it.
//!
//! Derived from the segment and never trusted: every block and the rest are checksummed, and one that is missing or not sound
//! is written anew from the segment.

use std::sync::Arc;

use crate::format::{
    FORMAT_VERSION, INDEX_FOOTER_BYTES, INDEX_MAGIC, index_at, put, read_u16, read_u32, read_u64,
};
use crate::log::{LogConfig, Run};
use crate::record::StreamId;
use crate::segment::segment_file_name;

use super::block::{BlockWriter, INDEX_BLOCK_BYTES, fence};
use super::postings::{SegmentPostings, StreamPostings};

const RUN_BYTES: usize = 24;

/// How a log stands at the end of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SegmentEnd {
    /// Where its batches end.
    pub(crate) end_lsn: u64,
    /// Checksum of the last batch's header.
    pub(crate) previous: u32,
}

/// An index file that is to be written: everything in its segment is durable, and a batch in the next one too.
#[derive(Debug)]
pub struct IndexJob {
    pub(crate) config: LogConfig,
    pub(crate) postings: Arc<SegmentPostings>,
    pub(crate) end: SegmentEnd,
    pub(crate) durable_lsn: u64,
    pub(crate) clock: u64,
    /// Those in this segment.
    pub(crate) runs: Vec<Run>,
}

/// What memory holds of a segment whose postings are in a file.
#[derive(Clone, Debug)]
pub struct SealedSegment {
    pub(crate) base: u64,
    pub(crate) first_position: u64,
    fences: Box<[u32]>,
}

impl IndexJob {
    /// Of its log.
    #[must_use]
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Base of its segment.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.postings.base
    }

    /// Gives the bytes of the file to `out`, in order.
    ///
    /// # Errors
    /// The first of `out`.
    pub fn write<E>(&self, mut out: impl FnMut(&[u8]) -> Result<(), E>) -> Result<SealedSegment, E> {
        let mut writer = BlockWriter::new(self.postings.base);
        for streams in &self.postings.streams {
            let mut sorted: Vec<(&StreamId, &StreamPostings)> = streams.iter().collect();
            sorted.sort_unstable_by_key(|(stream, _)| (stream.id, stream.kind));
            for (stream, postings) in sorted {
                writer.push(*stream, &postings.list, &postings.entries, &mut out)?;
            }
        }
        writer.flush(&mut out)?;
        let mut tail: Vec<u8> = writer.fences.iter().flat_map(|fence| fence.to_le_bytes()).collect();
        for run in &self.runs {
            tail.extend_from_slice(&run.id);
            tail.extend_from_slice(&run.first_position.to_le_bytes());
        }
        out(&tail)?;
        out(&self.footer(writer.fences.len(), &tail))?;
        let (base, first_position) = (self.postings.base, self.postings.first_position);
        Ok(SealedSegment { base, first_position, fences: writer.fences.into() })
    }

    fn footer(&self, blocks: usize, tail: &[u8]) -> [u8; INDEX_FOOTER_BYTES] {
        let mut bytes = [0; INDEX_FOOTER_BYTES];
        put(&mut bytes, index_at::MAGIC, &INDEX_MAGIC.to_le_bytes());
        put(&mut bytes, index_at::VERSION, &FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, index_at::LOG, &self.config.number.to_le_bytes());
        put(&mut bytes, index_at::BLOCKS, &(blocks as u32).to_le_bytes());
        put(&mut bytes, index_at::STORE, &self.config.store);
        put(&mut bytes, index_at::BASE, &self.postings.base.to_le_bytes());
        put(&mut bytes, index_at::FIRST_POSITION, &self.postings.first_position.to_le_bytes());
        put(&mut bytes, index_at::NEXT_POSITION, &self.postings.next_position.to_le_bytes());
        put(&mut bytes, index_at::END_LSN, &self.end.end_lsn.to_le_bytes());
        put(&mut bytes, index_at::DURABLE_LSN, &self.durable_lsn.to_le_bytes());
        put(&mut bytes, index_at::CLOCK, &self.clock.to_le_bytes());
        put(&mut bytes, index_at::PREVIOUS, &self.end.previous.to_le_bytes());
        put(&mut bytes, index_at::RUNS, &(self.runs.len() as u32).to_le_bytes());
        put(&mut bytes, index_at::TAIL_SUM, &xxhash_rust::xxh3::xxh3_64(tail).to_le_bytes());
        put(&mut bytes, index_at::SEGMENT_BYTES, &self.config.geometry.segment_bytes.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[index_at::CHECKSUM.end..]);
        put(&mut bytes, index_at::CHECKSUM, &checksum.to_le_bytes());
        bytes
    }
}

/// The footer of an index file that belongs to its segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexFooter {
    pub(crate) base: u64,
    pub(crate) first_position: u64,
    pub(crate) next_position: u64,
    pub(crate) end: SegmentEnd,
    pub(crate) durable_lsn: u64,
    pub(crate) clock: u64,
    blocks: u32,
    runs: u32,
    tail_sum: u64,
}

impl IndexFooter {
    /// The footer in the last bytes of a file, if it is whole and of the segment at `base` of this log.
    #[must_use]
    pub fn parse(bytes: &[u8], base: u64, config: &LogConfig) -> Option<Self> {
        let bytes: &[u8; INDEX_FOOTER_BYTES] = bytes.try_into().ok()?;
        let belongs = read_u32(bytes, index_at::CHECKSUM) == crc32c::crc32c(&bytes[index_at::CHECKSUM.end..])
            && read_u32(bytes, index_at::MAGIC) == INDEX_MAGIC
            && read_u16(bytes, index_at::VERSION) == FORMAT_VERSION
            && read_u16(bytes, index_at::LOG) == config.number
            && bytes[index_at::STORE] == config.store
            && read_u64(bytes, index_at::BASE) == base
            && read_u64(bytes, index_at::SEGMENT_BYTES) == config.geometry.segment_bytes;
        belongs.then(|| Self {
            base,
            first_position: read_u64(bytes, index_at::FIRST_POSITION),
            next_position: read_u64(bytes, index_at::NEXT_POSITION),
            end: SegmentEnd {
                end_lsn: read_u64(bytes, index_at::END_LSN),
                previous: read_u32(bytes, index_at::PREVIOUS),
            },
            durable_lsn: read_u64(bytes, index_at::DURABLE_LSN),
            clock: read_u64(bytes, index_at::CLOCK),
            blocks: read_u32(bytes, index_at::BLOCKS),
            runs: read_u32(bytes, index_at::RUNS),
            tail_sum: read_u64(bytes, index_at::TAIL_SUM),
        })
    }

    /// Blocks in front of the tail.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Bytes of the tail, which stands between the blocks and the footer.
    #[must_use]
    pub fn tail_bytes(&self) -> usize {
        self.blocks as usize * 4 + self.runs as usize * RUN_BYTES
    }

    /// Bytes of the whole file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        let blocks = u64::from(self.blocks) * INDEX_BLOCK_BYTES as u64;
        blocks + (self.tail_bytes() + INDEX_FOOTER_BYTES) as u64
    }

    /// Where the batches of the segment end.
    #[must_use]
    pub fn end_lsn(&self) -> u64 {
        self.end.end_lsn
    }

    /// When the log stood at this segment's end, milliseconds since 1970.
    #[must_use]
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// What memory keeps of the segment; `None` when the tail is not sound.
    #[must_use]
    pub fn open(&self, tail: &[u8]) -> Option<SealedSegment> {
        Some(self.read_tail(tail)?.0)
    }

    /// What the tail says; `None` when it is not sound.
    pub(crate) fn read_tail(&self, tail: &[u8]) -> Option<(SealedSegment, Vec<Run>)> {
        if tail.len() != self.tail_bytes() || xxhash_rust::xxh3::xxh3_64(tail) != self.tail_sum {
            return None;
        }
        let (fences, runs) = tail.split_at(self.blocks as usize * 4);
        let fences = fences.chunks_exact(4).map(|fence| read_u32(fence, 0..4)).collect();
        let runs = runs.chunks_exact(RUN_BYTES).map(|run| Run {
            id: run[..16].try_into().expect("an id of 16 bytes"),
            first_position: read_u64(run, 16..24),
        });
        let sealed = SealedSegment { base: self.base, first_position: self.first_position, fences };
        Some((sealed, runs.collect()))
    }
}

impl SealedSegment {
    /// The blocks that may hold pieces of `stream`: the one whose front is below it, to the last that begins like it.
    pub(crate) fn blocks_of(&self, stream: StreamId) -> std::ops::Range<u32> {
        let prefix = fence(stream.id);
        let first = self.fences.partition_point(|fence| *fence < prefix).saturating_sub(1);
        let end = self.fences.partition_point(|fence| *fence <= prefix);
        first as u32..end as u32
    }

    pub(crate) fn blocks(&self) -> u32 {
        self.fences.len() as u32
    }

    pub(crate) fn bytes(&self) -> usize {
        self.fences.len() * 4
    }
}

/// Name of the index file of the segment at `base`: `seg-<base, 16 hex digits>.idx`.
#[must_use]
pub fn index_file_name(base: u64) -> String {
    segment_file_name(base).replace(".log", ".idx")
}
