//! Batches on their way to the disk and back: one in flight, a mark when nothing follows, and the token that says what is durable.
//!
//! A batch is sealed when it is polled, with what was durable by then. A write or a sync that fails poisons the log: what is on disk then
//! only recovery finds out.

use super::{InFlight, Log};
use crate::batch::{Seal, WriteBatch};
use crate::buffer::Buffer;
use crate::format::{MARK_AFTER_MS, SEGMENT_HEADER_BYTES, TIME_MARK_MS};
use crate::index::SegmentEnd;

/// Proof that every record of one log up to a position is on disk and synced.
///
/// Made only by a log, from a completed sync. Acknowledgements and deliveries ask for one, so that none can be made
/// earlier.
#[derive(PartialEq, Eq, Debug)]
pub struct Durable {
    log: u16,
    position: u64,
}

impl Durable {
    /// The log that it speaks of.
    #[must_use]
    pub fn log(&self) -> u16 {
        self.log
    }

    /// Every record up to and including this position is durable.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether it covers the record at `position`.
    #[must_use]
    pub fn covers(&self, position: u64) -> bool {
        position <= self.position
    }
}

/// A batch was not written and synced as a whole. The log is poisoned: never write or sync again, recover by reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteError;

impl Log {
    /// The next batch to write and sync, if one is due and none is in flight. A log that is idle since
    /// [`MARK_AFTER_MS`] and not marked gives a mark.
    pub fn poll_write(&mut self, now: u64) -> Option<WriteBatch> {
        if self.in_flight.is_some() || self.poisoned {
            return None;
        }
        self.open_mark(now);
        let batch = match self.closed.pop_front() {
            Some(batch) => batch,
            None => {
                let batch = self.open.take()?;
                self.end_lsn = batch.end_lsn();
                batch
            }
        };
        let (lsn, end_lsn, last_position) = (batch.lsn, batch.end_lsn(), batch.last_position());
        if self.config.geometry.offset_of(lsn) == SEGMENT_HEADER_BYTES as u64 {
            let end = SegmentEnd { end_lsn: self.durable_lsn, previous: self.previous };
            self.index.end_segment_before(lsn, end);
        }
        (self.marked, self.idle_since) = (batch.is_mark(), None);
        self.sealed_at = self.clock.max(now);
        let seal = Seal {
            epoch: self.epoch,
            previous: self.previous,
            durable_lsn: self.durable_lsn,
            at: self.sealed_at,
        };
        let buffer = batch.seal(&seal);
        let bytes = buffer.bytes();
        self.previous = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        self.in_flight = Some(InFlight { lsn, end_lsn, last_position });
        let geometry = &self.config.geometry;
        Some(WriteBatch { segment: geometry.segment_of(lsn), offset: geometry.offset_of(lsn), buffer })
    }

    /// Opens a batch that stays empty, when its time has come.
    fn open_mark(&mut self, now: u64) {
        if (self.wants_mark() || self.wants_time(now)) && !self.has_waiting() {
            // A clock that jumps makes it early, never late.
            let idle_ms = self.idle_since.get_or_insert(now).abs_diff(now);
            if idle_ms >= MARK_AFTER_MS {
                let refused = self.make_room(0, 0, self.wants_to_leave());
                assert_eq!(refused, None, "a mark is wanted only where there is room");
            }
        }
    }

    /// Whether a mark is missing behind the newest batch, or one is to begin the next segment. Without room for one, until the next
    /// segment is there, none is asked for.
    fn wants_mark(&self) -> bool {
        let is_missing = !self.marked && self.has_room_for_mark();
        is_missing || (self.wants_to_leave() && self.spare.is_ready())
    }

    /// Whether a mark is to say how late it is. What a segment without a successor keeps for starts is not there for that: a night of
    /// such marks would take all of it.
    fn wants_time(&self, now: u64) -> bool {
        let has_room =
            self.spare.is_ready() || self.is_room_at(self.end_lsn, self.config.geometry.kept_bytes());
        self.schedule.has_fronts() && now >= self.sealed_at.saturating_add(TIME_MARK_MS) && has_room
    }

    fn has_room_for_mark(&self) -> bool {
        self.spare.is_ready() || self.is_room_at(self.end_lsn, 0)
    }

    /// Milliseconds until [`Log::poll_write`] has a mark to write, if nothing is appended before.
    #[must_use]
    pub fn mark_in(&self, now: u64) -> Option<u64> {
        let idle_ms = self.idle_since?.abs_diff(now);
        let wanted = self.wants_mark() && !self.is_writing() && !self.poisoned;
        wanted.then(|| MARK_AFTER_MS.saturating_sub(idle_ms))
    }

    /// Takes back the batch that was in flight. `Ok` only if every byte was written and the sync behind it succeeded.
    ///
    /// # Errors
    /// [`WriteError`] when it did not; the log is poisoned from then on.
    pub fn handle_written(&mut self, buffer: Buffer, whole_and_synced: bool) -> Result<Durable, WriteError> {
        let in_flight = self.in_flight.take().expect("a batch is in flight");
        if !whole_and_synced {
            self.poisoned = true;
            return Err(WriteError);
        }
        assert_eq!(in_flight.lsn + buffer.len() as u64, in_flight.end_lsn);
        self.tail.push(in_flight.lsn, buffer.bytes());
        self.buffers.give_back(buffer);
        self.durable_lsn = in_flight.end_lsn;
        self.durable_position = in_flight.last_position;
        Ok(self.durable())
    }

    /// Whether something is appended and not yet durable, or a mark is under way.
    fn is_writing(&self) -> bool {
        self.in_flight.is_some() || self.has_waiting()
    }

    fn has_waiting(&self) -> bool {
        self.open.is_some() || !self.closed.is_empty()
    }

    /// Whether all that was appended is durable, and marked as such: an orderly stop waits for it.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        !self.is_writing() && !self.wants_mark()
    }

    /// Whether all that was appended is durable. A mark may be missing: then whoever reads the log back writes its newest batch again.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.is_writing()
    }

    /// Everything below this byte is durable, and never changes where it stands.
    #[must_use]
    pub fn durable_end(&self) -> u64 {
        self.durable_lsn
    }

    /// What is durable now.
    #[must_use]
    pub fn durable(&self) -> Durable {
        Durable { log: self.config.number, position: self.durable_position }
    }
}
