//! Appending: the records of a command, all or none, into the batch that is open.
//!
//! A record takes its sequence and its position here, and is in the index from then on; nothing of that may be told before the batch is
//! durable. Where a batch or a segment is full the next is begun, if there is room for it: the answer says what is missing.

use super::Log;
use crate::batch::Batch;
use crate::format::{
    BATCH_HEADER_BYTES, GROUP_RECORDS_MAX, PENDING_BYTES_MAX, RECORD_ALIGN, SEGMENT_HEADER_BYTES,
};
use crate::index::{Inserted, Role};
use crate::location::{Head, Location};
use crate::record::{Link, Parts, StreamId, record_bytes};
use crate::spare::Spare;

/// A record before it has a sequence.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// Home stream.
    pub stream: StreamId,
    /// Sequence of the record that this one must follow; 0 for the first. In a stream that keeps only the last record it is not
    /// checked: the record gets the number after it.
    pub expected_head: u64,
    /// 1 if this record counts as a message, else 0.
    pub messages: u64,
    /// Type and version of the payload.
    pub schema: u16,
    /// At most [`crate::format::PAYLOAD_BYTES_MAX`].
    pub payload: &'a [u8],
    /// At most [`crate::format::LINKS_MAX`].
    pub links: &'a [Link],
}

/// Where a group was stored. Nothing is durable yet: that is what [`super::Durable`] says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    /// Position of the group's first record; the others follow.
    pub first_position: u64,
    /// Position of its last record.
    pub last_position: u64,
    /// Milliseconds since 1970, never less than that of any record before.
    pub at: u64,
    /// Where its first record stands.
    pub location: Location,
}

/// The store's answer to an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Appended under the expected heads; it will be durable, or the log fails.
    Stored(Stored),
    /// Another record has taken the place: `head` is the stream's present head.
    Conflict {
        /// Present head of the first stream that differs.
        head: u64,
    },
    /// Too much waits for the disk, or the next segment is still being made: try again shortly.
    Busy,
    /// No room on the disk for another segment: nothing was stored.
    Full,
    /// A write or sync failed: the log takes nothing until it is recovered.
    Unavailable,
}

impl Log {
    /// Appends the records of one command, all or none, in one batch. Their streams differ from each other.
    pub fn append(&mut self, group: &[Draft<'_>], now: u64) -> Answer {
        // While there is no successor, its end is kept for what the log itself has to say.
        let kept = if self.spare.is_ready() { 0 } else { self.config.geometry.kept_bytes() };
        self.append_keeping(group, now, kept)
    }

    /// The same, if so many bytes of the segment are free behind it.
    pub(super) fn append_keeping(&mut self, group: &[Draft<'_>], now: u64, kept: usize) -> Answer {
        assert!(!group.is_empty() && group.len() <= GROUP_RECORDS_MAX);
        if self.poisoned {
            return Answer::Unavailable;
        }
        let mut heads = [Head::default(); GROUP_RECORDS_MAX];
        for (head, draft) in heads.iter_mut().zip(group) {
            *head = self.index.head(draft.stream);
            let checked = !matches!(self.index.role(draft.stream.kind), Some(Role::Last(_)));
            if checked && head.seq != draft.expected_head {
                return Answer::Conflict { head: head.seq };
            }
        }
        let bytes = group.iter().map(|draft| record_bytes(draft.payload.len(), draft.links.len())).sum();
        let is_old = self.config.segment_ms_max.is_some_and(|max| self.segment_began + max <= now);
        let is_old = (self.segment_began > 0 && is_old) || self.wants_to_leave();
        if let Some(refusal) = self.make_room(bytes, kept, is_old) {
            return refusal;
        }
        self.clock = self.clock.max(now);
        if self.segment_began == 0 {
            self.segment_began = self.clock;
        }
        let first_position = self.next_position;
        let lsn = self.open.as_ref().expect("make_room leaves an open batch").next_lsn();
        let location = Location::new(lsn, record_bytes(group[0].payload.len(), group[0].links.len()));
        for (place, (draft, before)) in group.iter().zip(heads).enumerate() {
            self.append_record(draft, before, place + 1 < group.len());
        }
        Answer::Stored(Stored {
            first_position,
            last_position: self.next_position - 1,
            at: self.clock,
            location,
        })
    }

    fn append_record(&mut self, draft: &Draft<'_>, before: Head, group_goes_on: bool) {
        let batch = self.open.as_mut().expect("make_room leaves an open batch");
        let head =
            Head { seq: draft.expected_head + 1, message_count: before.message_count + draft.messages };
        let position = self.next_position;
        let lsn = batch.next_lsn();
        let location = Location::new(lsn, record_bytes(draft.payload.len(), draft.links.len()));
        let links = draft.links.iter().copied();
        let (stream, is_at_home) = (draft.stream, true);
        // Entered before it is written: looking for its stream says what it follows.
        let entered = self.index.insert(Inserted { stream, head, location, position, links, is_at_home });
        let distance = entered.expect("streams are of the kinds that the log was opened with");
        let chain = distance / RECORD_ALIGN as u64;
        batch.push(&Parts {
            stream: draft.stream,
            epoch: self.epoch,
            position,
            lsn,
            chain: u32::try_from(chain).unwrap_or(0),
            group_goes_on,
            schema: draft.schema,
            seq: head.seq,
            at: self.clock,
            message_count: head.message_count,
            payload: draft.payload,
            links: draft.links,
        });
        assert_eq!(batch.next_lsn(), lsn + location.bytes() as u64);
        self.next_position += 1;
    }

    /// Leaves an open batch that takes `bytes` of records, with `kept` bytes free behind them, or says why there is none. In the next
    /// segment, if that is made and this one `is_old`.
    pub(super) fn make_room(&mut self, bytes: usize, kept: usize, is_old: bool) -> Option<Answer> {
        let leave = is_old && self.spare.is_ready();
        if !leave && self.open.as_ref().is_some_and(|open| open.fits(bytes + kept)) {
            return None;
        }
        let waiting: usize = self.closed.iter().map(Batch::bytes_len).sum();
        if waiting + self.config.geometry.batch_bytes_max > PENDING_BYTES_MAX {
            return Some(Answer::Busy);
        }
        let end_lsn = self.open.as_ref().map_or(self.end_lsn, Batch::end_lsn);
        let roll = leave || !self.is_room_at(end_lsn, bytes + kept);
        if roll && let Some(refusal) = self.spare.refusal() {
            return Some(refusal);
        }
        self.closed.extend(self.open.take());
        self.end_lsn = end_lsn;
        if roll {
            self.end_lsn = self.segment_after(end_lsn) + SEGMENT_HEADER_BYTES as u64;
            self.spare = Spare::wanted();
            self.segment_began = 0;
            self.note_left();
        }
        self.index.begin_segment(self.end_lsn, self.next_position);
        let (geometry, buffer) = (self.config.geometry, self.buffers.take());
        self.open = Some(Batch::new(self.end_lsn, self.next_position, geometry, buffer));
        None
    }

    /// Whether a batch with `bytes` of records fits at `lsn`, where the batch before it ended. A segment that was filled
    /// to its last byte ends where the next one has its header.
    pub(super) fn is_room_at(&self, lsn: u64, bytes: usize) -> bool {
        let bytes = BATCH_HEADER_BYTES + bytes;
        self.config.geometry.offset_of(lsn) != 0 && self.config.geometry.fits_at(lsn, bytes)
    }
}
