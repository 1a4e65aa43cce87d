//! Reading a log back: [`Scan`] only looks, its owner acts.
//!
//! | what stands at the end of the valid batches | durable mark | what it is |
//! |---|---|---|
//! | zeros to the end of the segment | at or below | clean |
//! | anything else, no batch behind it that says this was durable | at or below | a torn batch: dropped, counted |
//! | anything, a batch behind it that says this was durable | – | damage: refused, place named |
//! | anything | above | damage: acknowledged bytes are missing |
//!
//! A whole batch above the mark is kept: its acknowledgement may have been sent. It is written again before serving,
//! because after a failed sync the page cache vouches for bytes that the disk does not have.

use crate::batch::{BatchHeader, WriteBatch};
use crate::buffer::Buffer;
use crate::cold::ColdRecords;
use crate::format::{BATCH_HEADER_BYTES, BLOCK_BYTES_MAX, SEGMENT_HEADER_BYTES};
use crate::index::{IndexFooter, IndexJob, Inserted, Role, SealedSegment, SegmentEnd};
use crate::location::{Head, Location};
use crate::log::{Log, LogConfig, Run};
use crate::record::{Record, StreamId};
use crate::segment::{Geometry, SegmentHeader, SegmentHeaderError, as_appended};

/// Why a log is not opened. Nothing was changed on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Segment that it was found in.
    pub segment: u64,
    /// First byte in that segment which is not understood.
    pub offset: u64,
    /// What is wrong there.
    pub kind: DamageKind,
}

/// What is wrong with a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DamageKind {
    /// Bytes below the durable mark do not hold their checksums, or valid batches follow them.
    Acknowledged,
    /// The segment's header is unreadable.
    Header,
    /// The segment belongs to another store, log or place.
    Foreign,
    /// Written by a newer version of the program.
    Newer(u16),
    /// A segment is missing.
    Missing,
    /// A sound batch that contradicts those before it: a sequence or position does not follow.
    Contradiction,
}

/// A torn batch at the end, which nobody was told about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dropped {
    /// Segment that it stands in.
    pub segment: u64,
    /// Offset in the segment.
    pub offset: u64,
    /// Bytes from there to the last that is not zero.
    pub bytes: u64,
}

/// Answer to a feed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fed {
    /// Bytes taken; the next feed begins behind them.
    pub consumed: usize,
    /// This segment holds nothing more.
    pub ended: bool,
}

/// A log that was read back.
pub struct Recovered {
    /// Ready for `begin_run`, once `rewrite` is done.
    pub log: Log,
    /// Write these bytes again, same place, and sync, before the log serves.
    pub rewrite: Option<WriteBatch>,
    /// What was cut off.
    pub dropped: Option<Dropped>,
    /// The next segment exists already.
    pub spare_exists: bool,
    /// Records read.
    pub records: u64,
}

/// Something else than zeros behind the valid batches.
#[derive(Clone, Copy)]
struct Torn {
    lsn: u64,
    bytes: u64,
}

/// What follows the valid batches of the open segment is looked through, to the segment's end.
#[derive(Clone, Copy)]
struct Beyond {
    from: u64,
    next: u64,
}

/// Reads the segments of one log, in order, and rebuilds what memory holds of it.
pub struct Scan {
    log: Log,
    store: [u8; 16],
    geometry: Geometry,
    segment: Option<u64>,
    /// Where the next batch is looked for.
    lsn: u64,
    /// Newest durable mark seen.
    durable_lsn: u64,
    beyond: Option<Beyond>,
    torn: Option<Torn>,
    spare_exists: bool,
    /// The newest batch and where it stands.
    rewrite: (u64, Vec<u8>),
    records: u64,
}

impl Scan {
    /// Starts a scan. `epoch` marks what this process will write: random, different at each start.
    #[must_use]
    pub fn new(config: LogConfig, epoch: u32) -> Self {
        Self {
            store: config.store,
            geometry: config.geometry,
            log: Log::empty(config, epoch),
            segment: None,
            lsn: SEGMENT_HEADER_BYTES as u64,
            durable_lsn: 0,
            beyond: None,
            torn: None,
            spare_exists: false,
            rewrite: (0, Vec::new()),
            records: 0,
        }
    }

    /// Goes on with the segment at `base`, whose first bytes are `header`. Segments come in order, from base 0. Gives the base with
    /// its generation: a cold segment is not fed but entered.
    ///
    /// # Errors
    /// [`Damage`] when it is not the segment that belongs here.
    pub fn open_segment(&mut self, base: u64, header: &[u8]) -> Result<u64, Damage> {
        let damage = |kind| Err(Damage { segment: base, offset: 0, kind });
        let expected = self.segment.map_or(0, |segment| segment + self.geometry.segment_bytes);
        if base != expected {
            return damage(DamageKind::Missing);
        }
        let header = match SegmentHeader::parse(header) {
            Ok(header) => header,
            Err(SegmentHeaderError::Damaged) => return damage(DamageKind::Header),
            Err(SegmentHeaderError::Newer(version)) => return damage(DamageKind::Newer(version)),
        };
        if as_appended(header.base) != base
            || header.log != self.log.number()
            || header.store != self.store
            || header.block_bytes != self.geometry.block_bytes
            || header.segment_bytes != self.geometry.segment_bytes
        {
            return damage(DamageKind::Foreign);
        }
        self.segment = Some(base);
        self.beyond = None;
        Ok(header.base)
    }

    /// Offset in the open segment that the next feed begins at.
    #[must_use]
    pub fn offset(&self) -> u64 {
        if let Some(beyond) = self.beyond {
            return self.geometry.offset_of(beyond.next);
        }
        match self.segment {
            // Below its header when the segment before was filled to its last byte.
            Some(base) if self.geometry.segment_of(self.lsn) == base => {
                self.geometry.offset_of(self.lsn).max(SEGMENT_HEADER_BYTES as u64)
            }
            _ => SEGMENT_HEADER_BYTES as u64,
        }
    }

    /// Takes bytes of the open segment from [`Scan::offset`] on: at least [`crate::format::FEED_BYTES`], a multiple of
    /// blocks, or all that are not zeros (`to_end`). Shows every record of a whole batch to `observe`.
    ///
    /// # Errors
    /// [`Damage`] as in the table above.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        to_end: bool,
        observe: &mut dyn FnMut(&Record<'_>),
    ) -> Result<Fed, Damage> {
        let base = self.segment.expect("a segment is open");
        let start = base + self.offset();
        let (mut consumed, block_bytes) = (0, self.geometry.block_bytes);
        if self.beyond.is_some() {
            return self.look_beyond(start, bytes, to_end);
        }
        loop {
            let lsn = start + consumed as u64;
            let rest = &bytes[consumed..];
            match self.next_batch(lsn, rest) {
                Some(header) if rest.len() >= header.padded_bytes(block_bytes) => {
                    let bytes = &rest[..header.padded_bytes(block_bytes)];
                    if !self.take_batch(&header, bytes, observe)? {
                        return self.look_beyond(lsn, rest, to_end);
                    }
                    consumed += bytes.len();
                }
                Some(_) if !to_end => return Ok(Fed { consumed, ended: false }),
                None if rest.len() < BATCH_HEADER_BYTES && !to_end => {
                    return Ok(Fed { consumed, ended: false });
                }
                _ => return self.look_beyond(lsn, rest, to_end),
            }
        }
    }

    /// The header at `lsn`, when it is the next of the chain.
    fn next_batch(&self, lsn: u64, bytes: &[u8]) -> Option<BatchHeader> {
        let header = BatchHeader::parse(bytes)?;
        (header.lsn == lsn && header.previous == self.log.previous && !self.spare_exists).then_some(header)
    }

    /// Enters a batch. `false`: its body does not hold its sum, so it ends the valid part.
    fn take_batch(
        &mut self,
        header: &BatchHeader,
        bytes: &[u8],
        observe: &mut dyn FnMut(&Record<'_>),
    ) -> Result<bool, Damage> {
        let body = &bytes[BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + header.body_bytes];
        if xxhash_rust::xxh3::xxh3_64(body) != header.body_sum {
            return Ok(false);
        }
        let segment = self.geometry.segment_of(header.lsn);
        let contradiction =
            Damage { segment, offset: self.geometry.offset_of(header.lsn), kind: DamageKind::Contradiction };
        if header.first_position != self.log.next_position {
            return Err(contradiction);
        }
        if self.geometry.offset_of(header.lsn) == SEGMENT_HEADER_BYTES as u64 {
            self.log.segment_began = header.at;
            let end = SegmentEnd { end_lsn: self.lsn, previous: self.log.previous };
            self.log.index.end_segment_before(header.lsn, end);
        }
        self.log.index.begin_segment(header.lsn, header.first_position);
        self.take_records(header, body, observe).ok_or(contradiction)?;
        // What stood behind the last batch of the segment before was left by a torn batch of an earlier run.
        self.torn = None;
        self.durable_lsn = self.durable_lsn.max(header.durable_lsn);
        self.log.previous = header.checksum;
        self.log.clock = self.log.clock.max(header.at);
        self.lsn = header.lsn + bytes.len() as u64;
        self.rewrite.0 = header.lsn;
        self.rewrite.1.clear();
        self.rewrite.1.extend_from_slice(bytes);
        Ok(true)
    }

    fn take_records(
        &mut self,
        header: &BatchHeader,
        body: &[u8],
        observe: &mut dyn FnMut(&Record<'_>),
    ) -> Option<()> {
        let mut lsn = header.lsn + BATCH_HEADER_BYTES as u64;
        let mut rest = body;
        for place in 0..header.records {
            let record = Record::parse(rest, lsn).ok()?;
            let last = place + 1 == header.records;
            let is_last = matches!(self.log.index.role(record.stream().kind), Some(Role::Last(_)));
            let next = self.log.head(record.stream()).seq + 1;
            // Of a stream whose front was not kept, nothing may be left before this.
            let is_next = record.seq() == next || (self.log.kept_from > 0 && record.seq() > next);
            let follows = record.position() == self.log.next_position
                && (is_last || is_next)
                && record.epoch() == header.epoch
                && !(last && record.group_goes_on());
            if !follows {
                return None;
            }
            let location = Location::new(lsn, record.bytes_in_log());
            self.log.index.insert(Inserted {
                stream: record.stream(),
                head: Head { seq: record.seq(), message_count: record.message_count() },
                location,
                position: record.position(),
                links: record.links(),
                is_at_home: true,
            })?;
            if record.stream() == StreamId::RUNS {
                let run = Run { id: record.payload().try_into().ok()?, first_position: record.position() };
                self.log.enter_run(run);
            }
            observe(&record);
            self.log.clock = self.log.clock.max(record.at());
            self.log.next_position += 1;
            self.records += 1;
            lsn += record.bytes_in_log() as u64;
            rest = &rest[record.bytes_in_log()..];
        }
        rest.is_empty().then_some(())
    }

    /// What stands at `lsn` is not the next batch, or behind what was not: decide what it is.
    fn look_beyond(&mut self, lsn: u64, bytes: &[u8], to_end: bool) -> Result<Fed, Damage> {
        let base = self.segment.expect("a segment is open");
        let is_spare = base != self.geometry.segment_of(self.lsn - 1);
        // Batches are written one at a time, so one that follows damage says that the damaged place was durable. The
        // first place of a segment counts as following whatever ends the segment before.
        let first = self.beyond.is_none() && !is_spare;
        let block_bytes = self.geometry.block_bytes;
        let from = if first { block_bytes } else { 0 };
        let later = (from..bytes.len()).step_by(block_bytes).any(|at| {
            let header = BatchHeader::parse(&bytes[at..]);
            header.is_some_and(|header| header.lsn == lsn + at as u64 && header.durable_lsn > self.lsn)
        });
        if later {
            let segment = self.geometry.segment_of(self.lsn - 1);
            return Err(Damage { segment, offset: self.lsn - segment, kind: DamageKind::Acknowledged });
        }
        // Nothing of the chain stands in a spare. Its first batch may be torn.
        self.spare_exists |= is_spare;
        let beyond = self.beyond.get_or_insert(Beyond { from: lsn, next: lsn });
        beyond.next = lsn + bytes.len() as u64;
        let there = without_zeros(bytes);
        if !there.is_empty() {
            self.torn = Some(Torn { lsn: beyond.from, bytes: lsn + there.len() as u64 - beyond.from });
        }
        // While there was room for the largest batch and the segment was young, none went to the spare; what a torn one left is at
        // its front.
        let unused = is_spare && self.geometry.fits_at(self.lsn, self.geometry.batch_bytes_max);
        Ok(Fed { consumed: bytes.len(), ended: to_end || unused })
    }

    /// Takes the open segment from its index file instead of its batches: the blocks follow, all of them, and then the next
    /// segment. `false`: they do not belong together, and the scan is of no use any more.
    #[must_use]
    pub fn enter_index(&mut self, footer: &IndexFooter, tail: &[u8]) -> bool {
        let Some((sealed, runs)) = footer.read_tail(tail).filter(|_| self.belongs(footer)) else {
            return false;
        };
        self.log.index.enter_sealed(sealed, runs.len() as u64);
        runs.into_iter().for_each(|run| self.log.enter_run(run));
        self.go_behind(footer);
        true
    }

    /// Takes the open segment, a cold one, from its records: `footer` is the copy in its header. `false`: some are missing, or they
    /// do not follow from what stands before them.
    #[must_use]
    pub(crate) fn enter_cold(&mut self, footer: &IndexFooter, records: ColdRecords) -> bool {
        if !self.belongs(footer) || records.len() != footer.cold.records as usize {
            return false;
        }
        self.log.index.begin_segment(footer.base + SEGMENT_HEADER_BYTES as u64, footer.first_position);
        let number = self.log.index.number_of(footer.base);
        for (record, run) in records.in_order() {
            let within = footer.first_position..footer.next_position;
            let is_begun =
                self.log.index.postings(number).is_some_and(|own| own.get(record.stream).is_some());
            let is_last = matches!(self.log.index.role(record.stream.kind), Some(Role::Last(_)));
            let has_hole = is_begun && !is_last && record.head.seq != self.log.head(record.stream).seq + 1;
            let is_lost = record.is_at_home && has_hole;
            if is_lost || !within.contains(&record.position) || self.log.index.insert(record).is_none() {
                return false;
            }
            run.into_iter().for_each(|run| self.log.enter_run(run));
        }
        self.log.index.end_cold(footer.end, footer.cold, footer.next_position);
        self.go_behind(footer);
        true
    }

    fn belongs(&self, footer: &IndexFooter) -> bool {
        let base = as_appended(footer.base);
        let within = base + SEGMENT_HEADER_BYTES as u64..=base + self.geometry.segment_bytes;
        self.segment == Some(base)
            && self.log.next_position == footer.first_position
            && footer.first_position <= footer.next_position
            && within.contains(&footer.end.end_lsn)
    }

    /// The log stands at the end of a segment that was entered.
    fn go_behind(&mut self, footer: &IndexFooter) {
        self.records += if footer.is_cold() {
            u64::from(footer.cold.records)
        } else {
            footer.next_position - footer.first_position
        };
        self.log.kept_from = self.log.kept_from.max(footer.kept_from());
        self.log.links_kept_from = self.log.links_kept_from.max(footer.links_kept_from());
        self.log.next_position = footer.next_position;
        self.log.previous = footer.end.previous;
        self.log.clock = self.log.clock.max(footer.clock());
        self.durable_lsn = self.durable_lsn.max(footer.durable_lsn);
        self.lsn = footer.end.end_lsn;
    }

    /// Takes block `number` of a snapshot, before any segment. Of the segments that it covers only the index files' tails are
    /// needed. `false` as above.
    #[must_use]
    pub fn enter_snapshot_block(&mut self, number: u32, block: &[u8]) -> bool {
        self.log.index.enter_snapshot_block(number, block).is_some()
    }

    /// Takes block `number` of the index file that was entered last. `false` as above.
    #[must_use]
    pub fn enter_index_block(&mut self, number: u32, block: &[u8]) -> bool {
        self.log.index.enter_block(number, block).is_some()
    }

    /// The next index file to write: of a segment that was read and is not the last. [`Scan::handle_indexed`] takes the answer.
    pub fn poll_index(&mut self) -> Option<IndexJob> {
        self.log.index_job(self.lsn)
    }

    /// As [`Log::handle_indexed`].
    pub fn handle_indexed(&mut self, sealed: Option<SealedSegment>) {
        drop(self.log.handle_indexed(sealed));
    }

    /// Ends the scan after the last segment.
    ///
    /// # Errors
    /// [`Damage`] when acknowledged bytes are missing at the end.
    pub fn finish(mut self) -> Result<Recovered, Damage> {
        if self.durable_lsn > self.lsn {
            let segment = self.geometry.segment_of(self.lsn - 1);
            return Err(Damage { segment, offset: self.lsn - segment, kind: DamageKind::Acknowledged });
        }
        self.log.end_lsn = self.lsn;
        self.log.durable_lsn = self.lsn;
        self.log.durable_position = self.log.next_position - 1;
        if self.spare_exists {
            self.log.handle_spare(Ok(()));
        }
        let dropped = self.torn.map(|torn| Dropped {
            segment: self.geometry.segment_of(torn.lsn),
            offset: self.geometry.offset_of(torn.lsn),
            bytes: torn.bytes,
        });
        let (lsn, bytes) = self.rewrite;
        let rewrite = (!bytes.is_empty()).then(|| WriteBatch {
            segment: self.geometry.segment_of(lsn),
            offset: self.geometry.offset_of(lsn),
            buffer: Buffer::from(&bytes[..]),
        });
        Ok(Recovered {
            log: self.log,
            rewrite,
            dropped,
            spare_exists: self.spare_exists,
            records: self.records,
        })
    }
}

/// The bytes up to the last that is not zero. Most of what is asked about is zeros, so those are gone through by blocks.
fn without_zeros(bytes: &[u8]) -> &[u8] {
    const ZEROS: [u8; BLOCK_BYTES_MAX] = [0; BLOCK_BYTES_MAX];
    let blanks = bytes.rchunks(ZEROS.len()).take_while(|chunk| **chunk == ZEROS[..chunk.len()]);
    let there = &bytes[..bytes.len() - blanks.map(<[u8]>::len).sum::<usize>()];
    &there[..there.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)]
}
