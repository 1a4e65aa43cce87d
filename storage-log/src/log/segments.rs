//! What a log asks for beside its batches: the segment after the present one, and the index files of those that are sealed.
//!
//! Each is polled once and answered once. What cannot be made is asked for again: the log goes on as long as the present segment has
//! room, and reads from memory what no file says yet.

use super::Log;
use crate::index::{IndexJob, Postings, RebuildJob, SealedSegment};
use crate::spare::{NotMade, SpareWork};

impl Log {
    /// What should be done now about the next segment. Says so once.
    pub fn poll_spare(&mut self) -> Option<SpareWork> {
        if self.poisoned {
            return None;
        }
        if self.spare.lacks_room() && self.schedule.expires() {
            // What is being written for that needs the room that is left; then there is more.
            return None;
        }
        self.spare.poll(self.spare_base(), self.filled_bytes(), self.config.geometry.segment_bytes)
    }

    /// Bytes of the segment that takes appends that are full.
    fn filled_bytes(&self) -> u64 {
        self.config.geometry.segment_bytes - (self.spare_base() - self.end_lsn)
    }

    /// Whether there was no room for the next segment when it was last asked for, and it will be needed: half of the present one is
    /// full.
    pub(crate) fn lacks_room(&self) -> bool {
        self.spare.lacks_room() && self.filled_bytes() * 2 > self.config.geometry.segment_bytes
    }

    /// Base of the segment after the one that takes appends.
    #[must_use]
    pub fn spare_base(&self) -> u64 {
        self.segment_after(self.end_lsn)
    }

    /// Base of the segment after the one that ends at `end_lsn` or holds the byte before it.
    pub(super) fn segment_after(&self, end_lsn: u64) -> u64 {
        self.config.geometry.segment_of(end_lsn - 1) + self.config.geometry.segment_bytes
    }

    /// The segment at [`Log::spare_base`] exists and is preallocated, or could not be made and should be asked for again.
    pub fn handle_spare(&mut self, made: Result<(), NotMade>) {
        self.spare.handle_made(made);
        self.schedule.note_room(made.is_ok());
    }

    /// Nobody writes zeros into the segment at [`Log::spare_base`] any more.
    pub fn handle_spare_zeroed(&mut self) {
        self.spare.handle_zeroed();
    }

    /// The next index file to write, once all of a segment and something of the next are durable. Says so once;
    /// [`Log::handle_indexed`] takes the answer.
    pub fn poll_index(&mut self) -> Option<IndexJob> {
        self.index_job(self.durable_lsn)
    }

    pub(crate) fn index_job(&mut self, durable_lsn: u64) -> Option<IndexJob> {
        let (postings, end) = self.index.poll_seal(durable_lsn)?;
        let within = postings.first_position..postings.next_position;
        let runs = self.runs.iter().filter(|run| within.contains(&run.first_position));
        let (runs, config, clock) = (runs.copied().collect(), self.config.clone(), self.clock);
        Some(IndexJob { config, postings, end, durable_lsn, clock, runs })
    }

    /// An index file was written, or could not be (`None`): then it is asked for again. Gives back what memory need not
    /// hold any more; dropping it takes long, and is best done elsewhere.
    pub fn handle_indexed(&mut self, sealed: Option<SealedSegment>) -> Option<Postings> {
        self.index.handle_sealed(sealed)
    }

    /// What is needed to make the index file of the segment at `base` again, which is not what was written; `None` unless that is a
    /// sealed one.
    #[must_use]
    pub fn rebuild_job(&self, base: u64) -> Option<RebuildJob> {
        let (number, first_position, next_position) = self.index.extent(base)?;
        let (config, durable_lsn) = (self.config.clone(), self.durable_lsn);
        Some(RebuildJob { config, number, base, first_position, next_position, durable_lsn })
    }

    /// The index file of a sealed segment was made again, and blocks are read from the new one from now on. Every lookup, also
    /// one that waits for a block of the old file, goes on from what it has found.
    pub fn handle_rebuilt(&mut self, sealed: SealedSegment) {
        if self.index.stands_at(sealed.base) {
            self.schedule.forget(sealed.base);
            self.index.replace_sealed(sealed);
        }
    }
}
