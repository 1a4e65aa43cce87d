//! When which segment of a log is written anew: one at a time, the oldest first.

use std::collections::BTreeSet;

use crate::index::file::SealedSegment;
use crate::log::{Log, LogConfig};
use crate::segment::{as_appended, is_cold};

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
    /// All of the log is to take so many bytes of the disk: when it takes more, or the disk gives less, the oldest segment is
    /// expired; `None`: as it comes.
    pub keep_bytes: Option<u64>,
}

/// Segments that a log cannot do with less than: one is written in, one is spare, one is being written anew, and one is read. So much
/// is kept however little the disk gives.
pub const SEGMENTS_MIN: u64 = 4;

/// How long after segments were expired for want of room the next one is, where as much was freed as the next segment takes, and that has
/// not helped, in milliseconds. Somebody else fills the disk then, and is not to be fed with what is kept.
pub const ROOM_RETRY_MS: u64 = 60_000;

/// Where less was freed, as of cold segments, which are smaller: the next one is expired once the next segment was refused so often since.
/// At first the blocks of what was expired may still be on their way back.
const REFUSALS: u8 = 3;

/// How often a segment that stays as it is otherwise is looked at for fronts that are not kept, in milliseconds: a day. A look costs a few blocks of its index.
pub const FRONT_LOOK_MS: u64 = 24 * 60 * 60 * 1_000;

/// It is written anew when so much of it is in front, one part in: all that is kept is read and written for that, seven times what goes at the most.
const FRONT_SHARE: u64 = 8;

/// Of so many looks one has it written anew for whatever is in front: a week after it was not to be kept, nothing of it is left. Each segment has its own day, so
/// what that costs is spread: reading and writing a seventh of the store a day at the most, and only where something can go.
pub const FRONT_LOOKS: u64 = 7;

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

    /// The time after the newest record of the oldest segment that is kept, if the log can do without that.
    fn cut_for_room(sealed: &[SealedSegment], segment_bytes: u64, schedule: &Schedule) -> u64 {
        let is_kept = |sealed: &&SealedSegment| !sealed.is_expired() && !schedule.is_left_alone(sealed.base);
        let mut from_oldest = sealed.iter().skip_while(|sealed| !is_kept(sealed)).peekable();
        let Some(oldest) = from_oldest.peek().map(|oldest| oldest.clock) else {
            return 0;
        };
        let taken: u64 = from_oldest.map(|sealed| sealed.bytes_on_disk(segment_bytes)).sum();
        if 2 * segment_bytes + taken > SEGMENTS_MIN * segment_bytes { oldest + 1 } else { 0 }
    }
}

impl SealedSegment {
    /// Whether no record of it is in its home stream any more, nor linked to by the first kind.
    fn is_expired(&self) -> bool {
        self.kept_from() > self.clock && self.has_no_links()
    }
}

/// Why a segment is written anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// It is so long since its newest record, or links to its records are not kept any more.
    Cold,
    /// Something of it may be erased, and nothing else is due: where nothing is, it stays as it is.
    Erased,
    /// All of it is older than what is kept.
    Expired,
    /// Some of it may be in front of what streams keep, and nothing else is due: where less than so many bytes are, it stays as it is.
    Front {
        /// At least so many, and at least 1.
        least: u64,
    },
    /// The disk has no room for the next segment, and gives less than may be kept.
    NoRoom,
}

impl Cause {
    /// Whether all that the segment holds goes: then there is more room afterwards.
    #[must_use]
    pub fn expires(self) -> bool {
        matches!(self, Self::Expired | Self::NoRoom)
    }
}

/// What is kept now.
struct Kept {
    /// As it is to be.
    wanted: Retention,
    /// Or less, where the disk has no room for that.
    for_room: Option<Retention>,
}

impl Kept {
    /// Why all of a segment goes that is still there.
    fn expires(&self, sealed: &SealedSegment) -> Option<Cause> {
        let is_too_old =
            |kept: &Retention| sealed.clock < kept.home_from && sealed.kept_from() <= sealed.clock;
        if is_too_old(&self.wanted) {
            return Some(Cause::Expired);
        }
        self.for_room.as_ref().filter(|kept| is_too_old(kept)).map(|_| Cause::NoRoom)
    }

    /// Whether all links to it go of the first kind.
    fn drops_links(&self, sealed: &SealedSegment) -> bool {
        sealed.clock < self.wanted.linked_from[0] && !sealed.has_no_links()
    }

    fn of(&self, cause: Cause) -> Retention {
        self.for_room.filter(|_| cause == Cause::NoRoom).unwrap_or(self.wanted)
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
    /// Why.
    pub cause: Cause,
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
    /// The segment that is written anew.
    under_way: Option<UnderWay>,
    /// What was expired for want of room, while that has not helped.
    freed: Option<Freed>,
    /// Bases that turned out not to be sound.
    left_alone: BTreeSet<u64>,
    /// Something is set of how much streams keep.
    has_fronts: bool,
    looked: Looks,
    pub(super) erasing: Erasing,
    /// Every sealed segment is as it is to be, and no other waits to be sealed: the one that takes appends may be left for an
    /// erasure. So however many are asked for, no more than one segment is left before its time and not yet written anew.
    pub(super) may_leave: bool,
}

/// The day of the last look for fronts since the start, and the bases, as they were appended, of the segments that were looked at on it. Of other days
/// nothing is kept, so nothing of segments that are gone.
#[derive(Default)]
struct Looks {
    day: u64,
    bases: BTreeSet<u64>,
}

impl Looks {
    fn has(&self, day: u64, base: u64) -> bool {
        self.day == day && self.bases.contains(&base)
    }

    fn note(&mut self, day: u64, base: u64) {
        if self.day != day {
            *self = Self { day, bases: BTreeSet::new() };
        }
        self.bases.insert(base);
    }
}

/// What was expired for want of room since there last was room.
#[derive(Clone, Copy, Default)]
struct Freed {
    /// When the last of it was, in milliseconds since 1970.
    at: u64,
    /// Bytes that came back of it.
    bytes: u64,
    /// How often there was no room for the next segment since then.
    refused: u8,
}

impl Freed {
    /// Whether it has had its time, where `wanted` bytes are.
    fn may_go_on(&self, now: u64, wanted: u64) -> bool {
        let is_too_little = self.bytes < wanted && self.refused >= REFUSALS;
        is_too_little || now.abs_diff(self.at) >= ROOM_RETRY_MS
    }

    /// One more is expired.
    fn begin(&mut self, now: u64, wanted: u64) {
        let bytes = if self.bytes < wanted { self.bytes } else { 0 };
        *self = Self { at: now, bytes, refused: 0 };
    }
}

#[derive(Clone, Copy)]
struct UnderWay {
    base: u64,
    /// The mark that it then has.
    mark: u64,
    cause: Cause,
}

impl Schedule {
    /// Whether a segment is written anew of which all goes.
    pub(crate) fn expires(&self) -> bool {
        self.under_way.is_some_and(|under_way| under_way.cause.expires())
    }

    /// There is room for the next segment, or there was none.
    pub(crate) fn note_room(&mut self, is_there: bool) {
        if is_there {
            self.freed = None;
        } else if self.under_way.is_none() {
            self.freed.iter_mut().for_each(|freed| freed.refused = freed.refused.saturating_add(1));
        }
    }

    /// Whether something is set of how much streams keep.
    pub(crate) fn has_fronts(&self) -> bool {
        self.has_fronts
    }

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
        if !self.may_compact(now) {
            return None;
        }
        let kept = self.kept(now, policy);
        let is_erased =
            |sealed: &SealedSegment| sealed.erased < self.schedule.erasing.mark_wanted(sealed.first_position);
        let next = self.index.all_sealed().iter().find_map(|sealed| {
            let is_cold =
                policy.after_ms.is_some_and(|after| sealed.is_appended() && sealed.clock + after <= now);
            let is_cold = is_cold || kept.drops_links(sealed);
            let cause = kept.expires(sealed).or(is_cold.then_some(Cause::Cold));
            let cause = cause.or(is_erased(sealed).then_some(Cause::Erased));
            let cause = cause.filter(|_| !self.schedule.is_left_alone(sealed.base))?;
            Some((sealed.base, cause))
        });
        self.schedule.may_leave = next.is_none() && self.index.only_one_is_open();
        let (base, cause) = next.or_else(|| self.poll_front(now, policy))?;
        Some(self.begin_compaction(now, base, cause, kept.of(cause)))
    }

    /// Whether something is set of how much streams keep: then segments are looked at for what is in front of that.
    pub fn note_fronts(&mut self, has_fronts: bool) {
        self.schedule.has_fronts = has_fronts;
    }

    /// A segment that was not looked at today, of those that nothing else will have written anew.
    fn poll_front(&mut self, now: u64, policy: &CompactionPolicy) -> Option<(u64, Cause)> {
        if !self.schedule.has_fronts {
            return None;
        }
        let (today, segment_bytes) = (now / FRONT_LOOK_MS, self.geometry().segment_bytes);
        let stays = |sealed: &SealedSegment| is_cold(sealed.base) || policy.after_ms.is_none();
        let is_due = |sealed: &&SealedSegment| {
            let is_looked = self.schedule.looked.has(today, as_appended(sealed.base));
            stays(sealed) && !sealed.is_expired() && !self.schedule.is_left_alone(sealed.base) && !is_looked
        };
        let sealed = self.index.all_sealed().iter().find(is_due)?;
        let number = as_appended(sealed.base) / segment_bytes;
        let is_its_day = (today + number).is_multiple_of(FRONT_LOOKS);
        let least = if is_its_day { 1 } else { (sealed.records_on_disk(segment_bytes) / FRONT_SHARE).max(1) };
        let base = sealed.base;
        self.schedule.looked.note(today, as_appended(base));
        Some((base, Cause::Front { least }))
    }

    /// The same, but only a segment of which all goes: one that leaves room, where there is not enough to write others anew.
    pub fn poll_expiry(&mut self, now: u64, policy: &CompactionPolicy) -> Option<CompactionJob> {
        if !self.may_compact(now) {
            return None;
        }
        let kept = self.kept(now, policy);
        let (base, cause) = self.index.all_sealed().iter().find_map(|sealed| {
            let cause = kept.expires(sealed).filter(|_| !self.schedule.is_left_alone(sealed.base))?;
            Some((sealed.base, cause))
        })?;
        Some(self.begin_compaction(now, base, cause, kept.of(cause)))
    }

    fn may_compact(&mut self, now: u64) -> bool {
        if self.schedule.under_way.is_some_and(|under_way| under_way.cause == Cause::NoRoom) {
            // It has not helped before it is done.
            self.schedule.freed.iter_mut().for_each(|freed| freed.at = now);
        }
        self.schedule.under_way.is_none() && self.is_healthy()
    }

    /// What is kept at `now`.
    fn kept(&self, now: u64, policy: &CompactionPolicy) -> Kept {
        let (sealed, segment_bytes) = (self.index.all_sealed(), self.geometry().segment_bytes);
        let wanted = policy.retention(now, sealed, segment_bytes);
        let wanted_bytes = self.geometry().segment_bytes;
        let may_free = self.schedule.freed.is_none_or(|freed| freed.may_go_on(now, wanted_bytes));
        let lacks_room = policy.keep_bytes.is_some() && self.lacks_room() && may_free;
        let for_room = lacks_room.then(|| {
            let cut = CompactionPolicy::cut_for_room(sealed, segment_bytes, &self.schedule);
            let [linked, memberships] = wanted.linked_from;
            Retention { home_from: wanted.home_from.max(cut), linked_from: [linked.max(cut), memberships] }
        });
        Kept { wanted, for_room }
    }

    fn begin_compaction(&mut self, now: u64, base: u64, cause: Cause, retention: Retention) -> CompactionJob {
        // A look goes through no records, so it says nothing of erasures; and all that are due are carried out.
        let is_look = matches!(cause, Cause::Front { .. });
        let mark = if is_look { 0 } else { self.schedule.erasing.newest_mark() };
        self.schedule.under_way = Some(UnderWay { base, mark, cause });
        if cause == Cause::NoRoom {
            let wanted_bytes = self.geometry().segment_bytes;
            self.schedule.freed.get_or_insert_default().begin(now, wanted_bytes);
        }
        CompactionJob { config: self.config().clone(), base, retention, mark, cause }
    }

    /// A compaction ended. What was looked up before holds good as long as the file before can be read: that is to be until
    /// [`Log::end_compaction`]. `true` if it is to be called: the segment has moved.
    pub fn handle_compacted(&mut self, compacted: Compacted) -> bool {
        let UnderWay { base, mark, cause } = self.schedule.under_way.expect("a compaction was asked for");
        if cause == Cause::NoRoom {
            self.note_freed(base, &compacted);
        }
        match compacted {
            Compacted::Clean => self.index.note_erased(base, mark),
            Compacted::Made(sealed) => {
                self.replace_segment(sealed);
                return true;
            }
            Compacted::MadeBeside(sealed) => {
                self.schedule.under_way.iter_mut().for_each(|under_way| under_way.mark = 0);
                self.replace_segment(sealed);
                return true;
            }
            Compacted::Unsound => _ = self.schedule.left_alone.insert(base),
            Compacted::Failed => _ = self.schedule.looked.bases.remove(&as_appended(base)),
        }
        self.schedule.under_way = None;
        false
    }

    /// What came of the segment at `base`, which was to make room.
    fn note_freed(&mut self, base: u64, compacted: &Compacted) {
        let segment_bytes = self.geometry().segment_bytes;
        let of_base = |sealed: &&SealedSegment| sealed.base == base;
        let before =
            self.index.all_sealed().iter().find(of_base).map(|sealed| sealed.bytes_on_disk(segment_bytes));
        let freed = self.schedule.freed.get_or_insert_default();
        match compacted {
            Compacted::Made(sealed) | Compacted::MadeBeside(sealed) => {
                freed.bytes += before.unwrap_or(0).saturating_sub(sealed.bytes_on_disk(segment_bytes));
            }
            // Nothing was freed by that: there is nothing to wait for.
            _ if freed.bytes == 0 => self.schedule.freed = None,
            _ => freed.refused = REFUSALS,
        }
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
        if let Some(UnderWay { base, mark, .. }) = self.schedule.under_way.take() {
            self.index.note_erased(base, mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_that_were_looked_at_on_other_days_are_forgotten() {
        let mut looks = Looks::default();
        (0..100).for_each(|base| looks.note(7, base));
        assert!(looks.has(7, 99) && !looks.has(8, 99) && looks.bases.len() == 100);
        looks.note(8, 99);
        assert!(looks.has(8, 99) && !looks.has(7, 0) && looks.bases.len() == 1);
        // As by a clock that is set back.
        assert!(!looks.has(7, 99));
    }
}
