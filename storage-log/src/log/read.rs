//! What a log says of its streams, and whether bytes that a disk brought are the record that was asked for.
//!
//! Heads are those of memory, durable or not, unless a name says otherwise: a writer goes by the newest, a reader by what is durable.

use super::Log;
use crate::index::Role;
use crate::location::{Entry, Head, Location};
use crate::record::{Record, RecordError, StreamId};

impl Log {
    /// Newest record of a home stream, durable or not: what an append must expect.
    #[must_use]
    pub fn head(&self, stream: StreamId) -> Head {
        self.index.head(stream)
    }

    /// The newest durable record of a home stream. While newer ones are being written, its count of messages may be too low by
    /// as many as those that are none.
    #[must_use]
    pub fn durable_head(&self, stream: StreamId) -> Head {
        let head = self.index.head(stream);
        let (seq, location) = self.index.newest_durable(stream, self.durable_lsn);
        if seq == head.seq {
            return head;
        }
        let counted =
            location.and_then(|location| self.recent(location)).map(|record| record.message_count());
        Head {
            seq,
            message_count: counted.unwrap_or(head.message_count.saturating_sub(head.seq.saturating_sub(seq))),
        }
    }

    /// Position of the newest record of a home stream, durable or not; 0 when it has none. By it the streams of a log are in the order in
    /// which something last happened in them. Of a stream of which an index that was made again beside damage does not say it, or a
    /// snapshot of an older program, it is that of the first record of the segment.
    #[must_use]
    pub fn head_position(&self, stream: StreamId) -> u64 {
        self.index.head_position(stream)
    }

    /// Whether a stream has a durable record with a key beyond `after`.
    #[must_use]
    pub fn has_after(&self, stream: StreamId, after: u64) -> bool {
        self.index.newest_durable(stream, self.durable_lsn).0 > after
    }

    /// Where the record of a stream that keeps only the last one was written, if that one is durable; if it [may have
    /// moved](Log::may_have_moved), [`crate::Lookup::last`] finds it.
    #[must_use]
    pub fn last(&self, stream: StreamId) -> Option<Location> {
        self.index.last(stream).filter(|location| location.is_below(self.durable_lsn))
    }

    /// Whether a place may not be where its record stands any more, because its segment was rewritten.
    #[must_use]
    pub fn may_have_moved(&self, location: Location) -> bool {
        self.index.may_have_moved(location)
    }

    /// The record at a durable location, when it is still in memory.
    #[must_use]
    pub fn recent(&self, location: Location) -> Option<Record<'_>> {
        let bytes = self.tail.find(location)?;
        Some(Record::parse(bytes, location.lsn()).expect("this process wrote these bytes"))
    }

    /// Verifies what a disk read of an entry of `stream` brought. A place does not say which log it is in: a sound record that stands
    /// there may be another log's, so it has to be the one that the stream has, of a stream that this log has.
    ///
    /// # Errors
    /// [`RecordError`] when the bytes are not that record.
    pub fn verify_entry<'b>(
        &self,
        stream: StreamId,
        entry: Entry,
        bytes: &'b [u8],
    ) -> Result<Record<'b>, RecordError> {
        let record = Self::verify(entry.location, bytes)?;
        let home = record.stream();
        let is_of_this_log =
            self.index.role(home.kind) != Some(Role::Home) || record.seq() <= self.index.head(home).seq;
        let is_it = match self.index.role(stream.kind) {
            Some(Role::Linked(_) | Role::Amended) => {
                is_of_this_log
                    && record.position() == entry.key
                    && record.links().any(|link| link.stream == stream)
            }
            // The newest, whatever its number.
            Some(Role::Last(_)) => home == stream,
            _ => home == stream && record.seq() == entry.key,
        };
        if is_it { Ok(record) } else { Err(RecordError::Misplaced) }
    }

    /// Verifies that what a disk read of `location` brought is a record that stands there, in whichever log.
    ///
    /// # Errors
    /// [`RecordError`] when it is none.
    pub fn verify(location: Location, bytes: &[u8]) -> Result<Record<'_>, RecordError> {
        Record::parse(bytes, location.lsn())
    }
}
