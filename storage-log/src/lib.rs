//! A sharded append-only log of streams, without I/O.
//!
//! One [`Log`] is an ordered sequence of records in segments of fixed size. Every record has one **home stream**, in
//! which it takes the next sequence number, and any number of **links** into other streams, which are ordered by
//! position. The record and all its links are written by one batch, so they exist together or not at all.
//!
//! The crate knows nothing about chat. It takes payload bytes, a clock reading and the answers of a disk that
//! somebody else drives, and gives back values: the next batch to write, the [`Durable`] token once it is synced, and
//! places to read from. What it writes is documented byte by byte in `FORMAT.md`.
//!
//! Deliberately absent: files, threads, clocks, caches with a policy. **Invariants** it keeps by its types and tests:
//!
//! * a [`Durable`] token is made only by a completed sync, and readers see only records that it covers;
//! * one batch is in flight, so what a crash leaves behind the newest durable mark is at most one torn batch, and an idle
//!   log has nothing there;
//! * recovery drops only bytes at or above the durable mark and says how many; older damage is an error that names
//!   its place;
//! * sequences of a stream are dense from 1, positions of a log are dense from 1, neither is ever reused.

#![forbid(unsafe_code)]

mod batch;
mod buffer;
mod cold;
pub mod format;
mod glance;
mod index;
mod location;
mod log;
mod readback;
mod record;
mod recovery;
mod scrub;
mod segment;
mod spare;
mod tail;
mod walk;

pub use batch::WriteBatch;
pub use buffer::Buffer;
pub use cold::{
    Cause, ColdWalk, Compacted, CompactionJob, CompactionPolicy, ErasureLeft, FRONT_LOOK_MS, FRONT_LOOKS,
    Front, Fronts, Judge, ROOM_RETRY_MS, Retention, Rewritten, SEGMENTS_MIN, Verdict, compact,
    compact_erasing, decode_marks, encode_marks, is_worth_writing,
};
pub use glance::Glance;
pub use index::{
    AmendedSearch, BlockPlace, Blocks, HomeSearch, INDEX_BLOCK_BYTES, IndexFooter, IndexJob, Kinds, Lookup,
    Page, Postings, Progress, RebuildJob, Rebuilt, SealedSegment, SnapshotFooter, Wanted, index_file_name,
    merge,
};
pub use location::{Entry, Head, Location};
pub use log::{Answer, Draft, Durable, Log, LogConfig, Run, Stored, WriteError};
pub use readback::{LogFile, LogFiles, Refusal, read_back, read_index_tail, walk_segment};
pub use record::{Link, Record, RecordError, SCHEMA_ERASED, SCHEMA_GONE, StreamId, StreamKind};
pub use recovery::{Damage, DamageKind, Dropped, Fed, Recovered, Scan};
pub use scrub::{ScrubProgress, damaged_kind};
pub use segment::{
    Geometry, SegmentHeader, SegmentHeaderError, as_appended, is_cold, segment_file_name,
    segment_of_file_name,
};
pub use spare::{NotMade, SpareWork};
pub use walk::{
    BatchFacts, DamagedRange, Met, RangeKind, Remains, Walk, WalkEnd, first_batch_end, is_index_block_sound,
    is_index_tail_sound, newest_batch_end, newest_durable_mark,
};
