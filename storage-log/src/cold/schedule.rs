//! When which segment of a log is written anew: one at a time, the oldest first.

use std::collections::BTreeSet;

use crate::index::file::SealedSegment;
use crate::log::{Log, LogConfig};

use super::erasure::Erasing;
use super::plan::Retention;

/// When segments are written anew, and what is left out then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CompactionPolicy {
    /// A sealed segment becomes cold so long after its newest record, in milliseconds; `None`: never.
    pub after_ms: Option<u64>,
    /// Home streams keep their records for so long, in milliseconds, and links to them of the first kind go with them; `None`: for
    /// ever.
    pub keep_ms: Option<u64>,
    /// Links of the first kind are kept for so long, in milliseconds, if that is less; `None`: as long as what they lead to.
    pub keep_links_ms: Option<u64>,
    /// All of the log is to take so many bytes of the disk: when it takes more, the oldest segment is expired; `None`: as it comes.
    pub keep_bytes: Option<u64>,
}

impl CompactionPolicy {
    fn retention(&self, now: u64, sealed: &[SealedSegment], segment_bytes: u64) -> Retention {
        let since = |keep: Option<u64>| keep.map_or(0, |keep| now.saturating_sub(keep));
        let from = since(self.keep_ms).max(self.cut_by_size(sealed, segment_bytes));
        Retention { home_from: from, linked_from: [from.max(since(self.keep_links_ms)), 0] }
    }

    /// The time after the newest record that has to go for the log to take no more bytes than it may. What is written in, and the
    /// spare, are always there.
    fn cut_by_size(&self, sealed: &[SealedSegment], segment_bytes: u64) -> u64 {
        let Some(keep) = self.keep_bytes else {
            return 0;
        };
        let mut taken = 2 * segment_bytes;
        let too_many = sealed.iter().rev().find(|sealed| {
            taken += sealed.bytes_on_disk(segment_bytes);
            taken > keep && !sealed.is_expired()
        });
        too_many.map_or(0, |sealed| sealed.clock + 1)
    }
}

impl SealedSegment {
    /// Whether no record of it is in its home stream any more, nor linked to by the first kind.
    fn is_expired(&self) -> bool {
        self.kept_from() > self.clock && self.has_no_links()
    }
}

/// A segment that is to be written anew, with [`super::compact`].
#[derive(Clone, Debug)]
pub struct CompactionJob {
    /// Of its log.
    pub config: LogConfig,
    /// Its base, with its generation.
    pub base: u64,
    /// What is kept of it.
    pub retention: Retention,
    /// Mark of the newest erasure: whoever judges its records knows of all up to that. 0: nothing is erased.
    pub mark: u64,
    /// Nothing else is due: where nothing of it is erased, it stays as it is.
    pub only_erases: bool,
}

/// How a compaction ended.
#[derive(Debug)]
pub enum Compacted {
    /// The file of the cold segment is in place of the one before.
    Made(SealedSegment),
    /// The same, but what it was made from may be there until the next start: for what is erased it was not gone through.
    MadeBeside(SealedSegment),
    /// It was looked through for what is erased, and stays as it is: nothing of it has to go.
    Clean,
    /// The disk gave an error: later it may not.
    Failed,
    /// Something of the segment is not sound: it stays as it is.
    Unsound,
}

/// What a log knows of its compactions.
#[derive(Default)]
pub(crate) struct Schedule {
    /// Base of the segment that is written anew, and the mark that it then has.
    under_way: Option<(u64, u64)>,
    /// Bases that turned out not to be sound.
    left_alone: BTreeSet<u64>,
    pub(super) erasing: Erasing,
    /// Every sealed segment is as it is to be, and no other waits to be sealed: the one that takes appends may be left for an
    /// erasure. So however many are asked for, no more than one segment is left before its time and not yet written anew.
    pub(super) may_leave: bool,
}

impl Schedule {
    /// A segment that was left alone may be sound now.
    pub(crate) fn forget(&mut self, base: u64) {
        self.left_alone.remove(&base);
    }

    pub(super) fn is_left_alone(&self, base: u64) -> bool {
        self.left_alone.contains(&base)
    }
}

impl Log {
    /// The next segment to write anew, if one is due at `now`, milliseconds since 1970, and none is being written. Looks at all sealed
    /// segments: ask once a second, not once a turn.
    pub fn poll_compaction(&mut self, now: u64, policy: &CompactionPolicy) -> Option<CompactionJob> {
        if self.schedule.under_way.is_some() || !self.is_healthy() {
            return None;
        }
        let segment_bytes = self.geometry().segment_bytes;
        let retention = policy.retention(now, self.index.all_sealed(), segment_bytes);
        let is_due = |sealed: &SealedSegment| {
            let is_cold =
                policy.after_ms.is_some_and(|after| sealed.is_appended() && sealed.clock + after <= now);
            // Every record of it is too old, and they are still there.
            let has_records = sealed.clock < retention.home_from && sealed.kept_from() <= sealed.clock;
            let has_links = sealed.clock < retention.linked_from[0] && !sealed.has_no_links();
            is_cold || has_records || has_links
        };
        let is_erased =
            |sealed: &SealedSegment| sealed.erased < self.schedule.erasing.mark_wanted(sealed.first_position);
        let next = self.index.all_sealed().iter().find(|sealed| {
            (is_due(sealed) || is_erased(sealed)) && !self.schedule.is_left_alone(sealed.base)
        });
        self.schedule.may_leave = next.is_none() && self.index.only_one_is_open();
        let next = next?;
        let (base, only_erases) = (next.base, !is_due(next));
        let mark = self.schedule.erasing.newest_mark();
        self.schedule.under_way = Some((base, mark));
        Some(CompactionJob { config: self.config().clone(), base, retention, mark, only_erases })
    }

    /// A compaction ended. What was looked up before holds good as long as the file before can be read: that is to be until
    /// [`Log::end_compaction`]. `true` if it is to be called: the segment has moved.
    pub fn handle_compacted(&mut self, compacted: Compacted) -> bool {
        let (base, mark) = self.schedule.under_way.expect("a compaction was asked for");
        match compacted {
            Compacted::Clean => self.index.note_erased(base, mark),
            Compacted::Made(sealed) => {
                self.replace_segment(sealed);
                return true;
            }
            Compacted::MadeBeside(sealed) => {
                self.schedule.under_way = Some((base, 0));
                self.replace_segment(sealed);
                return true;
            }
            Compacted::Unsound => _ = self.schedule.left_alone.insert(base),
            Compacted::Failed => {}
        }
        self.schedule.under_way = None;
        false
    }

    /// A sealed segment was written anew, asked for or not.
    pub fn replace_segment(&mut self, sealed: SealedSegment) {
        self.kept_from = self.kept_from.max(sealed.kept_from());
        self.links_kept_from = self.links_kept_from.max(sealed.links_kept_from());
        self.index.replace_sealed(sealed);
    }

    /// Nobody reads by the places of before any more, and the file before is let go of: the next segment may follow. Only now is
    /// what was erased not on the disk any more.
    pub fn end_compaction(&mut self) {
        if let Some((base, mark)) = self.schedule.under_way.take() {
            self.index.note_erased(base, mark);
        }
    }
}
