//! Fronts of home streams that are not kept, each from a sequence or a time of its own, and what it is worth to write a cold segment anew
//! for them.
//!
//! What a stream does not keep is not known here: whoever understands its records says it, to the judge of each record ([`super::Judge`]) and, as numbers, here. The
//! index says how many bytes stand in front, so a segment is looked at without reading it: a block for each stream that has a front, at most.

use std::collections::BTreeMap;

use crate::index::INDEX_BLOCK_BYTES;
use crate::readback::{LogFile, LogFiles};
use crate::record::StreamId;
use crate::segment::as_appended;

use super::compaction::open_index;
use super::schedule::{Cause, CompactionJob};

/// What is not kept of one home stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Front {
    /// What stands before this sequence,
    pub seq: u64,
    /// and what was stored before this time, in milliseconds since 1970;
    pub at: u64,
    /// but this sequence, its newest, keeps its place.
    pub head: u64,
}

/// By the id of the stream.
pub type Fronts = BTreeMap<[u8; 16], Front>;

/// Whether a segment is to be written anew: always, unless it is for fronts alone, and too little of it stands there.
///
/// # Errors
/// The first of `files`.
pub fn is_worth_writing<E>(
    job: &CompactionJob,
    fronts: &Fronts,
    files: &mut dyn LogFiles<Error = E>,
) -> Result<bool, E> {
    let Cause::Front { least } = job.cause else { return Ok(true) };
    Ok(bytes_in_front(job, fronts, files)?.is_some_and(|bytes| bytes >= least))
}

/// Bytes of records that are still in their home streams, in front of what these keep. Of a time the segment says only when its newest record was
/// stored: before that nothing counts. `None`: its index is not sound, which is for whoever looks through it to find.
fn bytes_in_front<E>(
    job: &CompactionJob,
    fronts: &Fronts,
    files: &mut dyn LogFiles<Error = E>,
) -> Result<Option<u64>, E> {
    let Some((footer, sealed, _)) = open_index(job, files)? else { return Ok(None) };
    let (mut bytes, mut held) = (0, None);
    for (id, front) in fronts {
        let stream = StreamId { kind: job.config.kinds.home, id: *id };
        let below = if footer.clock < front.at { front.head.max(front.seq) } else { front.seq };
        for number in sealed.blocks_of(stream) {
            if held.as_ref().is_none_or(|(of, _)| *of != number) {
                let at = footer.blocks_at() + u64::from(number) * INDEX_BLOCK_BYTES as u64;
                let mut block = vec![0; INDEX_BLOCK_BYTES];
                let read = files.read(LogFile::Index(as_appended(job.base)), at, &mut block)?;
                block.truncate(read);
                held = Some((number, block));
            }
            let block = held.as_ref().map_or(&[][..], |(_, block)| block);
            let Some(pieces) = sealed.pieces(block, number) else { return Ok(None) };
            for piece in pieces.filter(|piece| piece.stream == stream) {
                let first = piece.list.first_key + u64::from(piece.place);
                let in_front = (0..piece.len()).take_while(|at| first + (*at as u64) < below);
                bytes += in_front.map(|at| piece.posting(at).location(0).bytes() as u64).sum::<u64>();
            }
        }
    }
    Ok(Some(bytes))
}
