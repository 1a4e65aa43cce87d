//! The index file of a sealed segment: blocks of postings, then a fence for each block, the starts of the node in the segment,
//! and a footer that says what a scan needs to go on behind it.
//!
//! Derived from the segment and never trusted: every block and the rest are checksummed, and one that is missing or not sound
//! is written anew from the segment.

use std::sync::Arc;

use crate::format::{
    BLOCK_BYTES_MAX, FORMAT_VERSION, INDEX_FOOTER_BYTES, INDEX_MAGIC, index_at, put, read_u16, read_u32,
    read_u64,
};
use crate::log::{LogConfig, Run};
use crate::record::StreamId;
use crate::segment::{as_appended, is_cold, segment_file_name};

use super::Role;
use super::block::{BlockWriter, INDEX_BLOCK_BYTES, Pieces, fence};
use super::lookup::BlockPlace;
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
    /// With its generation.
    pub(crate) base: u64,
    pub(crate) first_position: u64,
    /// Where in the file its blocks begin: behind the records of a cold segment.
    pub(crate) blocks_at: u64,
    next_position: u64,
    kept_from: u64,
    links_kept_from: u64,
    /// The log's clock when it was sealed.
    pub(crate) clock: u64,
    fences: Box<[u32]>,
    /// How often its file was made again since the start: where a lookup is in one file says nothing of the next.
    pub(crate) made: u32,
    /// Mark of the newest erasure that it was gone through for; 0 is none. Not in the file.
    pub(crate) erased: u64,
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
        for postings in self.postings.streams.sorted() {
            let StreamPostings { stream, list, entries, .. } = postings;
            if self.config.kinds.role(stream.kind) == Some(Role::Amended) {
                let (list, entries) = postings.newest_amendments();
                writer.push_pairs(*stream, &list, &entries, &mut out)?;
            } else {
                writer.push(*stream, list, entries, &mut out)?;
            }
        }
        writer.flush(&mut out)?;
        let tail = tail_bytes(&writer.fences, &self.runs);
        out(&tail)?;
        let footer = IndexFooter {
            base: self.postings.base,
            first_position: self.postings.first_position,
            next_position: self.postings.next_position,
            end: self.end,
            durable_lsn: self.durable_lsn,
            clock: self.clock,
            blocks: 0,
            runs: 0,
            tail_sum: 0,
            cold: self.postings.cold,
            blocks_at: 0,
        };
        out(&footer.with_tail(writer.fences.len(), self.runs.len(), &tail).encode(&self.config))?;
        Ok(SealedSegment::new(&footer, writer.fences))
    }
}

/// What stands between the blocks and the footer.
pub(crate) fn tail_bytes(fences: &[u32], runs: &[Run]) -> Vec<u8> {
    let mut tail: Vec<u8> = fences.iter().flat_map(|fence| fence.to_le_bytes()).collect();
    for run in runs {
        tail.extend_from_slice(&run.id);
        tail.extend_from_slice(&run.first_position.to_le_bytes());
    }
    tail
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
    pub(crate) cold: ColdFacts,
    /// Not in the file: where the blocks begin in it.
    blocks_at: u64,
}

/// What the footer says beside, of a cold segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct ColdFacts {
    /// Records in it.
    pub(crate) records: u32,
    /// Where they end.
    pub(crate) end: u32,
    /// What was stored before is not in home streams any more, milliseconds since 1970.
    pub(crate) from: u64,
    /// Links into the first kind of linked streams may be gone from records below this position.
    pub(crate) links_from: u64,
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
            && read_u64(bytes, index_at::SEGMENT_BYTES) == config.geometry.segment_bytes
            && (is_cold(base) || read_u32(bytes, index_at::COLD_END) == 0);
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
            cold: ColdFacts {
                records: read_u32(bytes, index_at::COLD_RECORDS),
                end: read_u32(bytes, index_at::COLD_END),
                from: read_u64(bytes, index_at::COLD_FROM),
                links_from: read_u64(bytes, index_at::COLD_LINKS_FROM),
            },
            blocks_at: 0,
        })
    }

    /// The footer's bytes, with other facts about its blocks and tail.
    pub(crate) fn encode(&self, config: &LogConfig) -> [u8; INDEX_FOOTER_BYTES] {
        let mut bytes = [0; INDEX_FOOTER_BYTES];
        put(&mut bytes, index_at::MAGIC, &INDEX_MAGIC.to_le_bytes());
        put(&mut bytes, index_at::VERSION, &FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, index_at::LOG, &config.number.to_le_bytes());
        put(&mut bytes, index_at::BLOCKS, &self.blocks.to_le_bytes());
        put(&mut bytes, index_at::STORE, &config.store);
        put(&mut bytes, index_at::BASE, &self.base.to_le_bytes());
        put(&mut bytes, index_at::FIRST_POSITION, &self.first_position.to_le_bytes());
        put(&mut bytes, index_at::NEXT_POSITION, &self.next_position.to_le_bytes());
        put(&mut bytes, index_at::END_LSN, &self.end.end_lsn.to_le_bytes());
        put(&mut bytes, index_at::DURABLE_LSN, &self.durable_lsn.to_le_bytes());
        put(&mut bytes, index_at::CLOCK, &self.clock.to_le_bytes());
        put(&mut bytes, index_at::PREVIOUS, &self.end.previous.to_le_bytes());
        put(&mut bytes, index_at::RUNS, &self.runs.to_le_bytes());
        put(&mut bytes, index_at::TAIL_SUM, &self.tail_sum.to_le_bytes());
        put(&mut bytes, index_at::SEGMENT_BYTES, &config.geometry.segment_bytes.to_le_bytes());
        put(&mut bytes, index_at::COLD_RECORDS, &self.cold.records.to_le_bytes());
        put(&mut bytes, index_at::COLD_END, &self.cold.end.to_le_bytes());
        put(&mut bytes, index_at::COLD_FROM, &self.cold.from.to_le_bytes());
        put(&mut bytes, index_at::COLD_LINKS_FROM, &self.cold.links_from.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[index_at::CHECKSUM.end..]);
        put(&mut bytes, index_at::CHECKSUM, &checksum.to_le_bytes());
        bytes
    }

    /// The same, of a tail with these fences and starts.
    pub(crate) fn with_tail(self, blocks: usize, runs: usize, tail: &[u8]) -> Self {
        Self { blocks: blocks as u32, runs: runs as u32, tail_sum: xxhash_rust::xxh3::xxh3_64(tail), ..self }
    }

    /// The same, of the segment that this one becomes.
    pub(crate) fn of_cold(self, base: u64, cold: ColdFacts) -> Self {
        let of_cold = Self { base, cold, ..self };
        Self { blocks_at: of_cold.blocks_at_of_cold(), ..of_cold }
    }

    /// Whether it is of a cold segment.
    #[must_use]
    pub fn is_cold(&self) -> bool {
        is_cold(self.base)
    }

    /// What was stored before is not in home streams any more, milliseconds since 1970; 0 in a segment that is not cold.
    #[must_use]
    pub fn kept_from(&self) -> u64 {
        self.cold.from
    }

    /// Records below this position may not be in the streams any more that the first linked kind names; 0 in a segment that is not
    /// cold.
    #[must_use]
    pub fn links_kept_from(&self) -> u64 {
        self.cold.links_from
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

    /// Where the records of a cold segment end, as an offset in its file.
    #[must_use]
    pub fn records_end(&self) -> u64 {
        u64::from(self.cold.end)
    }

    /// Where the blocks begin in the file: behind the records of a cold segment.
    #[must_use]
    pub fn blocks_at(&self) -> u64 {
        self.blocks_at
    }

    /// The same, as it follows from where the records of a cold segment end.
    pub(crate) fn blocks_at_of_cold(&self) -> u64 {
        self.records_end().next_multiple_of(BLOCK_BYTES_MAX as u64)
    }

    /// The same, in a file of `bytes`; `None` when it does not fit that.
    #[must_use]
    pub fn in_file(self, bytes: u64) -> Option<Self> {
        let blocks = u64::from(self.blocks) * INDEX_BLOCK_BYTES as u64;
        let blocks_at = bytes.checked_sub(blocks + (self.tail_bytes() + INDEX_FOOTER_BYTES) as u64)?;
        (blocks_at == 0 || self.is_cold()).then_some(Self { blocks_at, ..self })
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
        Some((SealedSegment::new(self, fences), runs.collect()))
    }
}

impl SealedSegment {
    pub(crate) fn new(footer: &IndexFooter, fences: Vec<u32>) -> Self {
        let IndexFooter { base, first_position, next_position, blocks_at, clock, .. } = *footer;
        Self {
            base,
            first_position,
            next_position,
            blocks_at,
            kept_from: footer.kept_from(),
            links_kept_from: footer.links_kept_from(),
            clock,
            fences: fences.into(),
            made: 0,
            erased: 0,
        }
    }

    /// First byte of its segment in the log, with its generation.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// It was not written anew yet.
    pub(crate) fn is_appended(&self) -> bool {
        !is_cold(self.base)
    }

    /// As [`IndexFooter::kept_from`].
    #[must_use]
    pub fn kept_from(&self) -> u64 {
        self.kept_from
    }

    /// As [`IndexFooter::links_kept_from`].
    #[must_use]
    pub fn links_kept_from(&self) -> u64 {
        self.links_kept_from
    }

    /// Whether every record of it is below [`SealedSegment::links_kept_from`].
    pub(crate) fn has_no_links(&self) -> bool {
        self.links_kept_from >= self.next_position
    }

    /// Bytes that it takes on the disk, index and all, but for less than a block.
    pub(crate) fn bytes_on_disk(&self, segment_bytes: u64) -> u64 {
        self.records_on_disk(segment_bytes) + u64::from(self.blocks()) * INDEX_BLOCK_BYTES as u64
    }

    /// The same without its index.
    pub(crate) fn records_on_disk(&self, segment_bytes: u64) -> u64 {
        if self.is_appended() { segment_bytes } else { self.blocks_at }
    }

    /// The blocks that may hold pieces of `stream`: the one whose front is below it, to the last that begins like it.
    pub(crate) fn blocks_of(&self, stream: StreamId) -> std::ops::Range<u32> {
        let prefix = fence(stream.id);
        let first = self.fences.partition_point(|fence| *fence < prefix).saturating_sub(1);
        let end = self.fences.partition_point(|fence| *fence <= prefix);
        first as u32..end as u32
    }

    /// The pieces of a block of its index. `None` when that is not what was written: which log it is of does not stand in a block, but
    /// how each begins stands beside them.
    pub(crate) fn pieces<'b>(&self, block: &'b [u8], number: u32) -> Option<Pieces<'b>> {
        let pieces = Pieces::of(block, self.base, number)?;
        let first = pieces.clone().next()?;
        (self.fences.get(number as usize) == Some(&fence(first.stream.id))).then_some(pieces)
    }

    pub(crate) fn blocks(&self) -> u32 {
        self.fences.len() as u32
    }

    pub(crate) fn block_place(&self, number: u32) -> BlockPlace {
        BlockPlace { base: self.base, number, blocks_at: self.blocks_at, made: self.made }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.fences.len() * 4
    }
}

/// Name of the index file of the segment at `base`: `seg-<base, 16 hex digits>.idx`.
#[must_use]
pub fn index_file_name(base: u64) -> String {
    segment_file_name(as_appended(base)).replace(".log", ".idx")
}
