//! Every number of the disk format, with its reason. Changing one is a new format version (`FORMAT.md`).

use std::ops::Range;

/// Version of everything in this file. A directory of a newer version is refused.
pub const FORMAT_VERSION: u16 = 1;

/// Records and batches start at multiples of this, so that a place in a log fits 40 bits.
pub const RECORD_ALIGN: usize = 16;

/// Batches start at multiples of a **block**, fixed per store: what the disk writes as a whole, and the alignment that
/// direct I/O asks for. A block that holds acknowledged bytes is therefore never written again. This is the smallest: the
/// sector of almost every disk.
pub const BLOCK_BYTES_MIN: usize = 512;

/// The largest block: the page of the disks that take nothing smaller, and what memory for direct I/O is aligned to.
pub const BLOCK_BYTES_MAX: usize = 4096;

/// One segment file, preallocated, if a store does not ask for smaller ones. Bounds the scan at start and is the unit of
/// retention and backup.
pub const SEGMENT_BYTES: u64 = 256 << 20;

/// The head of a segment, before its first batch. The largest block, so that it is never written with a batch.
pub const SEGMENT_HEADER_BYTES: usize = BLOCK_BYTES_MAX;

/// A batch is closed when it would pass this. Bounds the memory of one write and what recovery may have to drop.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// An address says in its two highest bits how often its segment was rewritten: 0 as it was appended, then 1 and 2 in turn. A place
/// that was looked up before is thus never taken for another record's; two are enough, as a segment is not rewritten again while
/// somebody reads by its places of before.
pub const GENERATION_SHIFT: u32 = 50;

/// Head of a batch.
pub const BATCH_HEADER_BYTES: usize = 64;

/// Local part of a record: true only in this log, rewritten when a record moves.
pub const LOCAL_BYTES: usize = 32;

/// Portable part of a record: the same bytes in every node, backup and on the wire.
pub const PORTABLE_BYTES: usize = 64;

/// One link: the stream (16 B id, 1 B kind), a note (4 B), 3 B reserved.
pub const LINK_BYTES: usize = 24;

/// Largest payload of a record. A message is at most 16 KiB of text; a state record lists 500 members of 64 B ids.
pub const PAYLOAD_BYTES_MAX: usize = 128 << 10;

/// Most links of a record: every member of a small group on join and leave, and room for those it removes.
pub const LINKS_MAX: usize = 1024;

/// Most records of one group (the records of one command: an event, a state, positions).
pub const GROUP_RECORDS_MAX: usize = 4;

/// Blocks of a segment that are kept for the log's own batches while it has no successor, so that a full disk keeps no log from being
/// begun, nor from saying that its last batch was durable: 32 starts, with the mark behind each.
pub const KEPT_BLOCKS: usize = 64;

/// Bytes that wait for the disk before appends are answered with `Busy`: 16 full batches.
pub const PENDING_BYTES_MAX: usize = 16 * BATCH_BYTES_MAX;

/// A log that has been idle for this long, in milliseconds, gets a mark: a batch without records that says that the one
/// before it was durable. Longer than the pauses between the batches of a busy log, which mark each other; short, because
/// until then rot in the newest batch looks like a torn one.
pub const MARK_AFTER_MS: u64 = 50;

/// A log of whose streams not all is kept gets one likewise when its newest batch is this old, in milliseconds: what is too old to be kept by then
/// stays so by its time, whatever the system's clock says at the next start. 144 blocks a day of a log in which nothing is said.
pub const TIME_MARK_MS: u64 = 10 * 60 * 1_000;

/// Starts of a node whose cursors are still understood. An older cursor gets an explicit reset.
pub const RUNS_MAX: usize = 4096;

/// A recovery scan is fed at least this much at once (less only at the end of a segment), so it always sees a whole
/// batch.
pub const FEED_BYTES: usize = 4 << 20;

const _: () = {
    // The largest group fits one batch; otherwise a command could never be stored.
    let record = LOCAL_BYTES + PORTABLE_BYTES + PAYLOAD_BYTES_MAX + LINKS_MAX * LINK_BYTES + RECORD_ALIGN;
    // And what is kept behind it.
    let kept = KEPT_BLOCKS * BLOCK_BYTES_MAX;
    assert!(BATCH_HEADER_BYTES + GROUP_RECORDS_MAX * record + kept <= BATCH_BYTES_MAX);
    // A feed always holds one whole batch, and a segment many.
    assert!(FEED_BYTES >= 2 * BATCH_BYTES_MAX);
    assert!(SEGMENT_BYTES > 8 * BATCH_BYTES_MAX as u64);
    // Segments, headers, batches and feeds begin and end with blocks of any size.
    assert!(BLOCK_BYTES_MIN.is_power_of_two() && BLOCK_BYTES_MAX.is_power_of_two());
    assert!(SEGMENT_BYTES.is_multiple_of(BLOCK_BYTES_MAX as u64));
    assert!(SEGMENT_HEADER_BYTES.is_multiple_of(BLOCK_BYTES_MAX));
    assert!(BATCH_BYTES_MAX.is_multiple_of(BLOCK_BYTES_MAX) && FEED_BYTES.is_multiple_of(BLOCK_BYTES_MAX));
    assert!(LOCAL_BYTES.is_multiple_of(RECORD_ALIGN) && BLOCK_BYTES_MIN.is_multiple_of(RECORD_ALIGN));
};

/// Segment header, by field.
pub mod segment_at {
    use super::Range;
    /// CRC32C over bytes 4..64.
    pub const CHECKSUM: Range<usize> = 0..4;
    /// `GHSG`.
    pub const MAGIC: Range<usize> = 4..8;
    /// Format version.
    pub const VERSION: Range<usize> = 8..10;
    /// Number of this log within its store.
    pub const LOG: Range<usize> = 10..12;
    /// Bytes of a block: batches start at multiples of it.
    pub const BLOCK: Range<usize> = 12..16;
    /// Store id (the installation).
    pub const STORE: Range<usize> = 16..32;
    /// First byte of this segment in the log's address space.
    pub const BASE: Range<usize> = 32..40;
    /// Length of the segment.
    pub const BYTES: Range<usize> = 40..48;
    /// End of the checksummed fields; the rest of the header is zero.
    pub const END: usize = 64;
}

/// Batch header, by field.
pub mod batch_at {
    use super::Range;
    /// CRC32C over bytes 4..64.
    pub const CHECKSUM: Range<usize> = 0..4;
    /// `GHBT`.
    pub const MAGIC: Range<usize> = 4..8;
    /// Random per process run.
    pub const EPOCH: Range<usize> = 8..12;
    /// Records in this batch; 0 is a mark.
    pub const RECORDS: Range<usize> = 12..16;
    /// Where this batch stands in the log.
    pub const LSN: Range<usize> = 16..24;
    /// Position of its first record (of the next record, for a mark).
    pub const FIRST_POSITION: Range<usize> = 24..32;
    /// Bytes of records behind this header, without the padding.
    pub const BODY_BYTES: Range<usize> = 32..36;
    /// `CHECKSUM` of the batch before this one: the chain.
    pub const PREVIOUS: Range<usize> = 36..40;
    /// Everything below this was synced when this batch was made.
    pub const DURABLE_LSN: Range<usize> = 40..48;
    /// XXH3-64 of the body.
    pub const BODY_SUM: Range<usize> = 48..56;
    /// When the batch was made, milliseconds since 1970.
    pub const AT: Range<usize> = 56..64;
}

/// Local part of a record, by field (offsets from the start of the record).
pub mod local_at {
    use super::Range;
    /// CRC32C over the rest of the local part and the links.
    pub const CHECKSUM: Range<usize> = 0..4;
    /// Epoch of the batch it was written in.
    pub const EPOCH: Range<usize> = 4..8;
    /// Append number in this log, dense from 1.
    pub const POSITION: Range<usize> = 8..16;
    /// Where this record stands in the log: catches misdirected and stale blocks.
    pub const LSN: Range<usize> = 16..24;
    /// Distance back to the record before it in its home stream, in units of `RECORD_ALIGN`; 0 = first, or too far.
    pub const CHAIN: Range<usize> = 24..28;
    /// Links behind the payload.
    pub const LINKS: Range<usize> = 28..30;
    /// The bits below.
    pub const FLAGS: Range<usize> = 30..32;
    /// `FLAGS` bit: the next record belongs to the same group.
    pub const FLAG_GROUP_GOES_ON: u16 = 1;
    /// `FLAGS` bit: its home stream begins behind it; it stays for its links.
    pub const FLAG_FOR_LINKS: u16 = 2;
}

/// Portable part of a record, by field (offsets from the start of the portable part).
pub mod portable_at {
    use super::Range;
    /// CRC32C over bytes 4..64.
    pub const CHECKSUM: Range<usize> = 0..4;
    /// `GH`.
    pub const MAGIC: Range<usize> = 4..6;
    /// Header version.
    pub const VERSION: Range<usize> = 6..7;
    /// Kind of the home stream.
    pub const KIND: Range<usize> = 7..8;
    /// Exact bytes of the payload.
    pub const PAYLOAD_BYTES: Range<usize> = 8..12;
    /// Type and version of the payload.
    pub const SCHEMA: Range<usize> = 12..14;
    /// Reserved, zero.
    pub const FLAGS: Range<usize> = 14..16;
    /// Id of the home stream.
    pub const STREAM: Range<usize> = 16..32;
    /// Sequence in the home stream, dense from 1.
    pub const SEQ: Range<usize> = 32..40;
    /// When it was stored, milliseconds since 1970; never decreasing in a log.
    pub const AT: Range<usize> = 40..48;
    /// Messages in the home stream up to and including this record.
    pub const MESSAGE_COUNT: Range<usize> = 48..56;
    /// XXH3-64 of the payload, seeded with the stream id's first 8 bytes xor the sequence.
    pub const PAYLOAD_SUM: Range<usize> = 56..64;
}

/// A block of an index file and the pieces of lists in it, by field (a piece's from its own start).
pub mod index_at {
    use super::Range;
    /// CRC32C of the segment's base, the number of the block, and the rest of the block.
    pub const BLOCK_CHECKSUM: Range<usize> = 0..4;
    /// Pieces in the block.
    pub const BLOCK_PIECES: Range<usize> = 4..6;
    /// Id of the stream.
    pub const PIECE_ID: Range<usize> = 0..16;
    /// Kind of the stream.
    pub const PIECE_KIND: Range<usize> = 16..17;
    /// Bit 0: the list has another piece in the next block.
    pub const PIECE_FLAGS: Range<usize> = 17..18;
    /// Postings behind this head.
    pub const PIECE_COUNT: Range<usize> = 18..20;
    /// The newest segment before this one that holds the stream, counted from 1; 0: none.
    pub const PIECE_BEFORE: Range<usize> = 20..23;
    /// The newest of an earlier epoch of 64 segments; 0: none.
    pub const PIECE_JUMP: Range<usize> = 23..26;
    /// First key of the stream in this segment.
    pub const PIECE_FIRST_KEY: Range<usize> = 26..32;
    /// Newest key of the stream before this segment; 0: none.
    pub const PIECE_KEY_BEFORE: Range<usize> = 32..38;
    /// Messages in the stream up to its last record in this segment.
    pub const PIECE_MESSAGES: Range<usize> = 38..44;
    /// Number of the first posting here within the stream's postings in this segment.
    pub const PIECE_PLACE: Range<usize> = 44..47;
    /// Of a home stream: what its amendments here, and in the segments of this epoch before, reach back to at most.
    pub const PIECE_AMENDED: Range<usize> = 47..48;
    /// `PIECE_FLAGS` bit: the list has another piece in the next block.
    pub const FLAG_GOES_ON: u8 = 1;

    /// CRC32C over bytes 4..128 of the footer.
    pub const CHECKSUM: Range<usize> = 0..4;
    /// `GHIX`.
    pub const MAGIC: Range<usize> = 4..8;
    /// Format version.
    pub const VERSION: Range<usize> = 8..10;
    /// Number of this log within its store.
    pub const LOG: Range<usize> = 10..12;
    /// Blocks, and fences.
    pub const BLOCKS: Range<usize> = 12..16;
    /// Store id.
    pub const STORE: Range<usize> = 16..32;
    /// Base of the segment.
    pub const BASE: Range<usize> = 32..40;
    /// Position of the segment's first record.
    pub const FIRST_POSITION: Range<usize> = 40..48;
    /// Position after its last record.
    pub const NEXT_POSITION: Range<usize> = 48..56;
    /// Where its batches end.
    pub const END_LSN: Range<usize> = 56..64;
    /// Everything below this was synced when the index was made: within the next segment.
    pub const DURABLE_LSN: Range<usize> = 64..72;
    /// The log's clock then.
    pub const CLOCK: Range<usize> = 72..80;
    /// `CHECKSUM` of the segment's last batch.
    pub const PREVIOUS: Range<usize> = 80..84;
    /// Starts of the node in this segment.
    pub const RUNS: Range<usize> = 84..88;
    /// XXH3-64 of the fences and starts.
    pub const TAIL_SUM: Range<usize> = 88..96;
    /// Length of the segment, as it was appended.
    pub const SEGMENT_BYTES: Range<usize> = 96..104;
    /// In a cold segment: records in it.
    pub const COLD_RECORDS: Range<usize> = 104..108;
    /// In a cold segment: where they end.
    pub const COLD_END: Range<usize> = 108..112;
    /// In a cold segment: what was stored before is not in home streams any more, milliseconds since 1970.
    pub const COLD_FROM: Range<usize> = 112..120;
    /// In a cold segment: links into the first linked kind may be gone from records below this position.
    pub const COLD_LINKS_FROM: Range<usize> = 120..128;
}

/// A snapshot, by field: of its blocks, and of its footer.
pub mod snapshot_at {
    use super::Range;
    /// CRC32C of the number of the block and of the rest of it.
    pub const BLOCK_CHECKSUM: Range<usize> = 0..4;
    /// Entries in the block.
    pub const BLOCK_ENTRIES: Range<usize> = 4..6;

    /// CRC32C over bytes 4..128 of the footer.
    pub const CHECKSUM: Range<usize> = 0..4;
    /// `GHIS`.
    pub const MAGIC: Range<usize> = 4..8;
    /// Format version.
    pub const VERSION: Range<usize> = 8..10;
    /// Number of this log within its store.
    pub const LOG: Range<usize> = 10..12;
    /// Blocks in front of the footer.
    pub const BLOCKS: Range<usize> = 12..16;
    /// Store id.
    pub const STORE: Range<usize> = 16..32;
    /// Segments that it covers, from the first on.
    pub const SEGMENTS: Range<usize> = 32..36;
    /// Length of a segment.
    pub const SEGMENT_BYTES: Range<usize> = 40..48;
    /// CRC32C of the checksums of all blocks: none is of another time or log. 0: not said, as in those that were written first.
    pub const BLOCKS_SUM: Range<usize> = 48..52;
}

/// Footer of an index file or a snapshot: its last bytes.
pub const INDEX_FOOTER_BYTES: usize = 128;

/// Where the fields of the file stand that remembers how far a log was scrubbed.
pub mod scrub_at {
    use super::Range;
    /// CRC32C over bytes 4..64.
    pub const CHECKSUM: Range<usize> = 0..4;
    /// `GHSC`.
    pub const MAGIC: Range<usize> = 4..8;
    /// Format version.
    pub const VERSION: Range<usize> = 8..10;
    /// Number of this log within its store.
    pub const LOG: Range<usize> = 10..12;
    /// Store id.
    pub const STORE: Range<usize> = 16..32;
    /// Base of the segment that is looked at next.
    pub const NEXT_BASE: Range<usize> = 32..40;
    /// When the newest pass began, milliseconds since 1970.
    pub const BEGUN: Range<usize> = 40..48;
    /// When a pass last ended, milliseconds since 1970.
    pub const ENDED: Range<usize> = 48..56;
}

/// Bytes of the file that remembers how far a log was scrubbed.
pub const SCRUB_BYTES: usize = 64;

/// Where the fields of the file stand that remembers what segments were gone through for erasures. One entry a segment follows.
pub mod marks_at {
    use super::Range;

    /// CRC32C of everything behind it.
    pub const CHECKSUM: Range<usize> = 0..4;
    /// [`super::MARKS_MAGIC`].
    pub const MAGIC: Range<usize> = 4..8;
    /// [`super::FORMAT_VERSION`].
    pub const VERSION: Range<usize> = 8..10;
    /// Number of the log.
    pub const LOG: Range<usize> = 10..12;
    /// Store id.
    pub const STORE: Range<usize> = 16..32;
    /// Of an entry: base of the segment, without its generation.
    pub const BASE: Range<usize> = 0..8;
    /// Of an entry: mark of the newest erasure that it was gone through for.
    pub const MARK: Range<usize> = 8..16;
}

/// Bytes of that file before its entries.
pub const MARKS_HEAD_BYTES: usize = 32;
/// Bytes of an entry of it.
pub const MARKS_ENTRY_BYTES: usize = 16;

/// `GHER`, little endian.
pub const MARKS_MAGIC: u32 = u32::from_le_bytes(*b"GHER");
/// `GHSC`, little endian.
pub const SCRUB_MAGIC: u32 = u32::from_le_bytes(*b"GHSC");
/// `GHIX`, little endian.
pub const INDEX_MAGIC: u32 = u32::from_le_bytes(*b"GHIX");
/// `GHIS`, little endian.
pub const SNAPSHOT_MAGIC: u32 = u32::from_le_bytes(*b"GHIS");
/// `GHCS`, little endian.
pub const COLD_MAGIC: u32 = u32::from_le_bytes(*b"GHCS");
/// `GHSG`, little endian.
pub const SEGMENT_MAGIC: u32 = u32::from_le_bytes(*b"GHSG");
/// `GHBT`, little endian.
pub const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"GHBT");
/// `GH`, little endian.
pub const RECORD_MAGIC: u16 = u16::from_le_bytes(*b"GH");
/// Version of the portable part.
pub const PORTABLE_VERSION: u8 = 1;

/// Whether blocks may be of this size.
#[must_use]
pub const fn is_block(bytes: usize) -> bool {
    bytes.is_power_of_two() && BLOCK_BYTES_MIN <= bytes && bytes <= BLOCK_BYTES_MAX
}

/// `value` rounded up to a multiple of `align`, a power of two.
#[must_use]
pub const fn round_up(value: usize, align: usize) -> usize {
    (value + align - 1) & !(align - 1)
}

pub(crate) fn put(bytes: &mut [u8], at: Range<usize>, value: &[u8]) {
    bytes[at].copy_from_slice(value);
}

pub(crate) fn read_u16(bytes: &[u8], at: Range<usize>) -> u16 {
    u16::from_le_bytes(bytes[at].try_into().expect("a field of two bytes"))
}

pub(crate) fn read_u32(bytes: &[u8], at: Range<usize>) -> u32 {
    u32::from_le_bytes(bytes[at].try_into().expect("a field of four bytes"))
}

pub(crate) fn read_u64(bytes: &[u8], at: Range<usize>) -> u64 {
    u64::from_le_bytes(bytes[at].try_into().expect("a field of eight bytes"))
}
