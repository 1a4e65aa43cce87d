//! Cold segments: sealed ones that were written anew, sorted by stream, without what nothing needs any more.
//!
//! ```text
//! seg-<base>.log    [header][batch: a1 b1 c1][batch: b2 a2 d1]...       as it was appended
//! seg-<base>.idx    [where a, b, c, d stand]
//!
//! seg-<base>.cold   [header][a1 a2 b1 b2 c1 d1 ...][where they stand]   one file in place of both
//! ```
//!
//! A log interleaves its streams, so a page of one of them lies scattered over its segment; in a cold one it is a run of bytes. Records
//! keep position and sequence, and their portable part byte for byte; their addresses are of another generation, so that a place that
//! was looked up before never names another record.
//!
//! One file with its own index, put in place by one rename: whoever finds a `.cold` needs neither the `.log` nor the `.idx` of the same
//! base, and whoever finds none has both. There is nothing between the two, and no list of files that could contradict the files.
//!
//! **What is left out**: of a stream that keeps the last, every record but the newest; of home streams, what is older than
//! [`Retention::home_from`], but never the newest record, which keeps its number and place without its payload; of linked streams,
//! links to what is older than theirs. Always the front of a stream: a home stream never gets a hole. What is **erased** (`erasure.rs`)
//! may stand anywhere in a stream: its place stays.

mod compaction;
mod erasure;
mod fronts;
mod marks;
mod plan;
mod records;
mod schedule;
mod walk;

pub use compaction::{Rewritten, compact, compact_erasing};
pub use erasure::{ErasureLeft, Judge, Verdict};
pub use fronts::{Front, Fronts, is_worth_writing};
pub use marks::{decode_marks, encode_marks};
pub use plan::Retention;
pub(crate) use records::ColdRecords;
pub(crate) use schedule::Schedule;
pub use schedule::{
    Cause, Compacted, CompactionJob, CompactionPolicy, FRONT_LOOK_MS, FRONT_LOOKS, ROOM_RETRY_MS,
    SEGMENTS_MIN,
};
pub use walk::ColdWalk;
