//! The log: one writer, one batch in flight, group commit without a timer.
//!
//! Whatever is appended while a batch is being synced becomes the next batch, so batches grow with the load by
//! themselves. Who drives it: [`Log::poll_write`] says what to write and sync, [`Log::handle_written`] takes the answer
//! and hands out the [`Durable`] token that acknowledgements and deliveries are made from.
//!
//! Each batch says that those before it were durable. The last one before a pause has nothing behind it, so an idle log
//! writes one empty batch, a **mark**: [`Log::mark_in`] says when to poll for it.

use std::collections::VecDeque;

use crate::batch::{Batch, Seal, WriteBatch};
use crate::buffer::{Buffer, Buffers};
use crate::cold::Schedule;
use crate::format::{
    BATCH_HEADER_BYTES, GROUP_RECORDS_MAX, MARK_AFTER_MS, PENDING_BYTES_MAX, RECORD_ALIGN, RUNS_MAX,
    SEGMENT_HEADER_BYTES, TIME_MARK_MS,
};
use crate::index::{Index, IndexJob, Inserted, Kinds, Postings, RebuildJob, Role, SealedSegment, SegmentEnd};
use crate::location::{Entry, Head, Location};
use crate::record::{Link, Parts, Record, RecordError, StreamId, record_bytes};
use crate::segment::Geometry;
use crate::spare::{NotMade, Spare, SpareWork};
use crate::tail::Tail;

/// What a log is opened with.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The installation.
    pub store: [u8; 16],
    /// Number of this log in its store, from 0.
    pub number: u16,
    /// How it is cut.
    pub geometry: Geometry,
    /// Bytes of the newest batches kept in memory for readers.
    pub tail_bytes_max: usize,
    /// What its kinds of streams are.
    pub kinds: Kinds,
    /// A segment is left for the next one so long after its first record, in milliseconds, full or not: retention acts on what is
    /// sealed. `None`: when it is full.
    pub segment_ms_max: Option<u64>,
}

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

/// Where a group was stored. Nothing is durable yet: that is what [`Durable`] says.
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

/// One start of the node, as the log remembers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Random per start.
    pub id: [u8; 16],
    /// First position of that start.
    pub first_position: u64,
}

/// A batch was not written and synced as a whole. The log is poisoned: never write or sync again, recover by reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteError;

struct InFlight {
    lsn: u64,
    end_lsn: u64,
    last_position: u64,
}

/// One log of a store.
pub struct Log {
    config: LogConfig,
    epoch: u32,
    pub(crate) index: Index,
    tail: Tail,
    pub(crate) next_position: u64,
    /// Where the next batch begins, within a segment that exists; or the end of that segment, when it is full.
    pub(crate) end_lsn: u64,
    /// Batches that are full and wait, then the one that takes appends.
    closed: VecDeque<Batch>,
    open: Option<Batch>,
    in_flight: Option<InFlight>,
    buffers: Buffers,
    /// Checksum of the newest batch header: the chain.
    pub(crate) previous: u32,
    pub(crate) durable_lsn: u64,
    pub(crate) durable_position: u64,
    /// No mark is missing: the newest batch is one.
    marked: bool,
    /// When it was first seen, since the last batch, that there is nothing to write.
    idle_since: Option<u64>,
    /// When the newest batch was sealed by this process.
    sealed_at: u64,
    /// `at` of the newest record.
    pub(crate) clock: u64,
    /// The same before this start of the node.
    clock_before: u64,
    /// `at` of the first record of the newest segment; 0 when it has none.
    pub(crate) segment_began: u64,
    /// Home streams hold nothing that was stored before, but for their newest records.
    pub(crate) kept_from: u64,
    /// The first linked kind has lost links to records below this position, or may have.
    pub(crate) links_kept_from: u64,
    spare: Spare,
    pub(crate) schedule: Schedule,
    pub(crate) runs: Vec<Run>,
    poisoned: bool,
}

impl Log {
    /// A log without a record, whose first segment (base 0) exists.
    pub(crate) fn empty(config: LogConfig, epoch: u32) -> Self {
        assert!(config.geometry.is_sound());
        let index = Index::new(config.kinds, config.geometry);
        let tail = Tail::new(config.tail_bytes_max);
        Self {
            config,
            epoch,
            index,
            tail,
            next_position: 1,
            end_lsn: SEGMENT_HEADER_BYTES as u64,
            closed: VecDeque::new(),
            open: None,
            in_flight: None,
            buffers: Buffers::default(),
            previous: 0,
            durable_lsn: 0,
            durable_position: 0,
            // Nothing to say yet; and what recovery reads is marked by the batch of the start that follows.
            marked: true,
            idle_since: None,
            sealed_at: 0,
            clock: 0,
            clock_before: 0,
            segment_began: 0,
            kept_from: 0,
            links_kept_from: 0,
            spare: Spare::wanted(),
            schedule: Schedule::default(),
            runs: Vec::new(),
            poisoned: false,
        }
    }

    /// What it was opened with.
    #[must_use]
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Number of this log in its store.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.config.number
    }

    /// How it is cut.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.config.geometry
    }

    /// False once a write or sync has failed.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        !self.poisoned
    }

    /// Starts, oldest first, this one last.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Newest record of a home stream, durable or not: what an append must expect.
    #[must_use]
    pub fn head(&self, stream: StreamId) -> Head {
        self.index.head(stream)
    }

    /// Ids known: of conversations with a record, and of users. All of the former are looked at: some milliseconds for a million.
    #[must_use]
    pub fn ids_count(&self) -> (usize, usize) {
        self.index.ids_count()
    }

    /// Bytes of memory that grow with what is known and not with what is being written: at most 64 for each id, and 4 for
    /// each block of an index file.
    #[must_use]
    pub fn resident_bytes(&self) -> usize {
        self.index.resident_bytes()
    }

    /// Home streams may have lost what was stored before this, milliseconds since 1970: what reads them begins no earlier.
    #[must_use]
    pub fn kept_from(&self) -> u64 {
        self.kept_from
    }

    /// Links of the first kind to records below this position may not be there any more: what follows such a stream from before
    /// has missed something, perhaps.
    #[must_use]
    pub fn links_kept_from(&self) -> u64 {
        self.links_kept_from
    }

    /// The log's clock: the newest `at`, and at least `now`.
    #[must_use]
    pub fn clock(&self, now: u64) -> u64 {
        self.clock.max(now)
    }

    /// The log's clock before this start of the node: 0 of a log that is new.
    #[must_use]
    pub fn clock_before(&self) -> u64 {
        self.clock_before
    }

    /// Enters a start of the node. Called once, before any other append.
    pub fn begin_run(&mut self, id: [u8; 16], now: u64) -> Answer {
        self.clock_before = self.clock;
        let expected_head = self.head(StreamId::RUNS).seq;
        let draft =
            Draft { stream: StreamId::RUNS, expected_head, messages: 0, schema: 1, payload: &id, links: &[] };
        let answer = self.append_keeping(&[draft], now, 0);
        if let Answer::Stored(stored) = answer {
            self.enter_run(Run { id, first_position: stored.first_position });
        }
        answer
    }

    pub(crate) fn enter_run(&mut self, run: Run) {
        if self.runs.len() == RUNS_MAX {
            self.runs.remove(0);
        }
        self.runs.push(run);
    }

    /// Appends the records of one command, all or none, in one batch. Their streams differ from each other.
    pub fn append(&mut self, group: &[Draft<'_>], now: u64) -> Answer {
        // While there is no successor, its end is kept for what the log itself has to say.
        let kept = if self.spare.is_ready() { 0 } else { self.config.geometry.kept_bytes() };
        self.append_keeping(group, now, kept)
    }

    /// The same, if so many bytes of the segment are free behind it.
    fn append_keeping(&mut self, group: &[Draft<'_>], now: u64, kept: usize) -> Answer {
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

    /// Leaves an open batch that takes `bytes` of records, with `kept` free behind them, or says why there is none. In the next segment, if that is made and
    /// this one `is_old`.
    fn make_room(&mut self, bytes: usize, kept: usize, is_old: bool) -> Option<Answer> {
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
    fn is_room_at(&self, lsn: u64, bytes: usize) -> bool {
        let bytes = BATCH_HEADER_BYTES + bytes;
        self.config.geometry.offset_of(lsn) != 0 && self.config.geometry.fits_at(lsn, bytes)
    }

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
    fn segment_after(&self, end_lsn: u64) -> u64 {
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

    /// Whether a stream has a durable record with a key beyond `after`.
    #[must_use]
    pub fn has_after(&self, stream: StreamId, after: u64) -> bool {
        self.index.newest_durable(stream, self.durable_lsn).0 > after
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
