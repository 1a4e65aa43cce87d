//! Going through a log batch by batch, and on behind damage: [`Walk`] only looks, and tells its owner what it meets.
//!
//! Not recovery: it holds no index, decides nothing and ends at nothing. Recovery asks whether a log may be served and stops at
//! the first damage; a walk says of every byte below the log's end whether it is what was written, and how much is not.
//!
//! ```text
//! [batch][batch][ damaged  ][batch][batch][ torn ]0000   segment
//!        sound ^ lsn        ^ resumes     ^ lsn at the end
//! ```
//!
//! A batch **follows** when it stands where the one before it ends and names its checksum. Behind bytes that are no such batch, one
//! **resumes** the log when it stands at a block, says so itself, and names a durable mark beyond the end of what was sound: one
//! batch is in flight at a time, so the bytes between were acknowledged, and are damaged. Where none does, the bytes are what a torn
//! batch left. Positions are dense, so the first position of the batch that resumes says how many records are missing.

mod cold;
mod heads;
mod indexes;
mod records;

use crate::batch::BatchHeader;
use crate::format::{BATCH_HEADER_BYTES, BLOCK_BYTES_MAX, SEGMENT_HEADER_BYTES, segment_at};
use crate::log::LogConfig;
use crate::record::Record;
use crate::recovery::Fed;
use crate::segment::{SegmentHeader, SegmentHeaderError};

use cold::ColdSegment;
use heads::Heads;
pub use indexes::{is_index_block_sound, is_index_tail_sound};

/// What a walk comes across, in the order of the log.
#[derive(Clone, Copy)]
pub enum Met<'m> {
    /// A batch whose header is sound. Those of its records that are sound follow.
    Batch(BatchFacts),
    /// Bytes that are not what was written there.
    Damaged(DamagedRange),
    /// A sound record.
    Record(&'m Record<'m>),
    /// What a batch left that was being written when the node stopped. Nobody was told of it: not damage.
    Remains(Remains),
}

/// What the header of a batch says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchFacts {
    /// Where it stands in the log.
    pub lsn: u64,
    /// Bytes that it takes, padding included.
    pub bytes: u64,
    /// Records in it; 0 is a mark.
    pub records: u32,
    /// When it was made, milliseconds since 1970.
    pub at: u64,
}

/// A range of a segment that is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DamagedRange {
    /// Base of the segment.
    pub segment: u64,
    /// First byte in the segment.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
    /// What is wrong.
    pub kind: RangeKind,
    /// Records that stood there and cannot be read; `None` when nothing behind it says how many, or a range before it counts them.
    pub records: Option<u64>,
}

/// What is wrong with a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RangeKind {
    /// No batch stands where one must.
    Batch,
    /// The sum over a batch does not hold, though each of its records does.
    BatchSum,
    /// A sound batch or record whose sequence, position or kind does not follow from those before it.
    Contradiction,
    /// The segment belongs to another store, log or place.
    Foreign,
    /// The segment's header is unreadable; its batches were read nevertheless.
    Header,
    /// The segment is missing.
    Missing,
    /// The segment was written by a newer version of the program.
    Newer(u16),
    /// Records that do not hold their checksums.
    Records,
    /// The file ends before its segment does.
    Short,
}

/// What a torn batch left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Remains {
    /// Base of the segment.
    pub segment: u64,
    /// First byte in the segment.
    pub offset: u64,
    /// Bytes from there to the last that is not zero, in whole blocks.
    pub bytes: u64,
}

/// How a log ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalkEnd {
    /// Where the sound batches end.
    pub lsn: u64,
    /// The newest durable mark.
    pub durable_lsn: u64,
    /// The position that the next record takes.
    pub next_position: u64,
    pub(crate) previous: u32,
}

/// Bytes of one segment that are not known to be a batch of the log.
#[derive(Clone, Copy)]
struct Pending {
    lsn: u64,
    bytes: u64,
    /// Of these, up to the last that is not zero.
    there: u64,
    /// What it is, when that is beyond doubt.
    certain: Option<RangeKind>,
}

/// Goes through the segments of one log, in order.
pub struct Walk {
    config: LogConfig,
    segment: Option<u64>,
    /// Where the next batch is looked for.
    next: u64,
    /// Where the sound batches end.
    lsn: u64,
    /// Checksum of the last batch; `None`: not known, but the position is.
    previous: Option<u32>,
    next_position: u64,
    durable_lsn: u64,
    /// Behind `lsn`, in order, at most one a segment.
    pending: Vec<Pending>,
    /// The batch at `lsn`, when only its body does not hold.
    suspect: Option<(BatchHeader, Vec<u8>)>,
    heads: Heads,
    /// The open segment, where that is a cold one.
    cold: Option<ColdSegment>,
}

impl Walk {
    /// A walk through the log of `config`. What ends below `durable_lsn` is known to be durable: 0 where nothing is known but
    /// what the log says itself.
    #[must_use]
    pub fn new(config: LogConfig, durable_lsn: u64) -> Self {
        let start = SEGMENT_HEADER_BYTES as u64;
        Self {
            segment: None,
            next: start,
            lsn: start,
            previous: Some(0),
            next_position: 1,
            durable_lsn,
            pending: Vec::new(),
            suspect: None,
            heads: Heads::new(config.kinds),
            cold: None,
            config,
        }
    }

    /// A walk through the sealed segment at `base` alone, whose first record takes `first_position` and whose batches end at
    /// `end_lsn`: 0 where only the batches say so. Of a stream's first record there it is not known whether it follows.
    #[must_use]
    pub fn of_segment(config: LogConfig, base: u64, first_position: u64, end_lsn: u64) -> Self {
        let mut walk = Self::new(config, end_lsn);
        walk.segment = base.checked_sub(walk.config.geometry.segment_bytes);
        walk.lsn = base + SEGMENT_HEADER_BYTES as u64;
        (walk.next, walk.previous, walk.next_position) = (walk.lsn, None, first_position);
        walk.heads.jump();
        walk
    }

    /// Goes on with the segment at `base`, whose file begins with `header` and has `file_bytes`. Segments come in order. `false`:
    /// nothing in it is of this log, it is not fed.
    pub fn open_segment(
        &mut self,
        base: u64,
        header: &[u8],
        file_bytes: u64,
        met: &mut dyn FnMut(Met<'_>),
    ) -> bool {
        let segment_bytes = self.config.geometry.segment_bytes;
        let mut expected = self.segment.map_or(0, |segment| segment + segment_bytes);
        while expected < base {
            self.doubt(expected, segment_bytes, Some(RangeKind::Missing));
            expected += segment_bytes;
        }
        self.segment = Some(base);
        self.next = base + SEGMENT_HEADER_BYTES as u64;
        if let Some(footer) = cold::footer_of(base, header, &self.config) {
            self.open_cold(&footer, met);
            return true;
        }
        match self.check_header(base, header) {
            Some(RangeKind::Header) => met(Met::Damaged(DamagedRange {
                segment: base,
                offset: 0,
                bytes: segment_at::END as u64,
                kind: RangeKind::Header,
                records: Some(0),
            })),
            Some(kind) => {
                self.doubt(base, segment_bytes, Some(kind));
                return false;
            }
            None => {}
        }
        if file_bytes < segment_bytes {
            let (offset, bytes) = (file_bytes, segment_bytes - file_bytes);
            let kind = RangeKind::Short;
            met(Met::Damaged(DamagedRange { segment: base, offset, bytes, kind, records: None }));
        }
        true
    }

    fn check_header(&self, base: u64, header: &[u8]) -> Option<RangeKind> {
        let LogConfig { store, number, geometry, .. } = &self.config;
        match SegmentHeader::parse(header) {
            Err(SegmentHeaderError::Damaged) => Some(RangeKind::Header),
            Err(SegmentHeaderError::Newer(version)) => Some(RangeKind::Newer(version)),
            Ok(header) => {
                let belongs = header.base == base
                    && header.log == *number
                    && header.store == *store
                    && header.block_bytes == geometry.block_bytes
                    && header.segment_bytes == geometry.segment_bytes;
                (!belongs).then_some(RangeKind::Foreign)
            }
        }
    }

    /// The position that the record takes that comes next, as far as was gone through; within a cold segment that of its first.
    #[must_use]
    pub fn next_position(&self) -> u64 {
        self.next_position
    }

    /// Offset in the open segment that the next feed begins at.
    #[must_use]
    pub fn offset(&self) -> u64 {
        if let Some(cold) = &self.cold {
            return cold.offset();
        }
        self.config.geometry.offset_of(self.next)
    }

    /// Takes bytes of the open segment from [`Walk::offset`] on: at least [`crate::format::FEED_BYTES`], a multiple of blocks, or
    /// all that are not zeros (`to_end`).
    pub fn feed(&mut self, bytes: &[u8], to_end: bool, met: &mut dyn FnMut(Met<'_>)) -> Fed {
        if self.cold.is_some() {
            return self.feed_cold(bytes, to_end, met);
        }
        let (start, block_bytes) = (self.next, self.config.geometry.block_bytes);
        let mut consumed = 0;
        while consumed < bytes.len() {
            let (lsn, rest) = (start + consumed as u64, &bytes[consumed..]);
            let header = self.header_at(lsn, rest);
            let batch_bytes = header.map_or(0, |header| header.padded_bytes(block_bytes));
            match header {
                Some(_) if rest.len() < batch_bytes && !to_end => break,
                Some(header) if rest.len() >= batch_bytes => {
                    self.take_batch(header, &rest[..batch_bytes], met);
                    consumed += batch_bytes;
                }
                _ => {
                    let block = &rest[..rest.len().min(block_bytes)];
                    let pending = self.doubt(lsn, block.len() as u64, None);
                    if !is_blank(block) {
                        pending.there = pending.bytes;
                    }
                    consumed += block.len();
                }
            }
        }
        self.next = start + consumed as u64;
        Fed { consumed, ended: to_end && consumed == bytes.len() }
    }

    /// Adds bytes at `lsn` to what is pending, and gives the part of it that they belong to.
    fn doubt(&mut self, lsn: u64, bytes: u64, certain: Option<RangeKind>) -> &mut Pending {
        let goes_on = self
            .pending
            .last()
            .is_some_and(|last| certain.is_none() && last.certain.is_none() && last.lsn + last.bytes == lsn);
        if goes_on {
            let last = self.pending.last_mut().expect("it goes on");
            last.bytes += bytes;
            return last;
        }
        let there = if certain.is_some() { bytes } else { 0 };
        self.pending.push(Pending { lsn, bytes, there, certain });
        self.pending.last_mut().expect("it was just pushed")
    }

    /// The header at `lsn`, when it follows or resumes.
    fn header_at(&self, lsn: u64, bytes: &[u8]) -> Option<BatchHeader> {
        let header = BatchHeader::parse(bytes)?;
        let says_so = header.lsn == lsn && header.durable_lsn <= lsn;
        (says_so && (self.follows(&header) || self.resumes(&header))).then_some(header)
    }

    fn is_first(&self, lsn: u64) -> bool {
        self.config.geometry.offset_of(lsn) == SEGMENT_HEADER_BYTES as u64
    }

    /// What stands before the first batch of a segment and is no batch was not needed any more, or is a torn batch.
    fn follows(&self, header: &BatchHeader) -> bool {
        let is_certain = self.pending.iter().any(|pending| pending.certain.is_some());
        let in_place = self.pending.is_empty() || (self.is_first(header.lsn) && !is_certain);
        let is_next = match self.previous {
            Some(previous) => header.previous == previous,
            None => header.first_position == self.next_position,
        };
        in_place && self.suspect.is_none() && is_next
    }

    fn resumes(&self, header: &BatchHeader) -> bool {
        let stands_behind = !self.pending.is_empty() || self.is_first(header.lsn);
        stands_behind && header.durable_lsn > self.lsn && header.first_position >= self.next_position
    }

    fn take_batch(&mut self, header: BatchHeader, bytes: &[u8], met: &mut dyn FnMut(Met<'_>)) {
        if self.follows(&header) {
            self.report_remains(met);
        } else {
            self.report_damage(Some(header.first_position), met);
        }
        if header.first_position != self.next_position {
            let kind = RangeKind::Contradiction;
            let records = header.first_position.checked_sub(self.next_position);
            met(Met::Damaged(self.range(header.lsn, bytes.len() as u64, kind, records)));
            self.heads.jump();
        }
        self.next_position = header.first_position;
        self.durable_lsn = self.durable_lsn.max(header.durable_lsn);
        self.previous = Some(header.checksum);
        self.lsn = header.lsn;
        let body = &bytes[BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + header.body_bytes];
        if xxhash_rust::xxh3::xxh3_64(body) != header.body_sum {
            // It may be torn: what comes behind it decides.
            self.doubt(header.lsn, bytes.len() as u64, None).there = bytes.len() as u64;
            self.suspect = Some((header, body.to_vec()));
            return;
        }
        self.take_body(&header, body, bytes.len() as u64, met);
    }

    fn take_body(&mut self, header: &BatchHeader, body: &[u8], bytes: u64, met: &mut dyn FnMut(Met<'_>)) {
        let BatchHeader { lsn, records, at, .. } = *header;
        met(Met::Batch(BatchFacts { lsn, bytes, records, at }));
        self.go_through(header, body, met);
        self.next_position = header.first_position + u64::from(records);
        self.lsn = lsn + bytes;
    }

    fn range(&self, lsn: u64, bytes: u64, kind: RangeKind, records: Option<u64>) -> DamagedRange {
        let geometry = &self.config.geometry;
        let (segment, offset) = (geometry.segment_of(lsn), geometry.offset_of(lsn));
        DamagedRange { segment, offset, bytes, kind, records }
    }

    /// What is pending was nothing that counts.
    fn report_remains(&mut self, met: &mut dyn FnMut(Met<'_>)) {
        let geometry = self.config.geometry;
        for Pending { lsn, there: bytes, .. } in self.pending.drain(..).filter(|pending| pending.there > 0) {
            let (segment, offset) = (geometry.segment_of(lsn), geometry.offset_of(lsn));
            met(Met::Remains(Remains { segment, offset, bytes }));
        }
    }

    /// What is pending was acknowledged; the log goes on with `resumes_at`, if that is known.
    fn report_damage(&mut self, resumes_at: Option<u64>, met: &mut dyn FnMut(Met<'_>)) {
        let mut pending = std::mem::take(&mut self.pending);
        let suspect = self.suspect.take();
        let is_explained = suspect.is_some();
        if let Some((header, body)) = suspect {
            // It is the first that is pending, and its header says how much of it there is.
            let bytes = header.padded_bytes(self.config.geometry.block_bytes) as u64;
            let before = self.lsn;
            self.take_body(&header, &body, bytes, met);
            let first = &mut pending[0];
            first.lsn += bytes;
            first.bytes -= bytes;
            first.there = first.there.saturating_sub(self.lsn - before);
            if first.bytes == 0 {
                pending.remove(0);
            }
        }
        let is_over = match resumes_at {
            Some(position) => {
                let is_blank = pending.iter().all(|range| range.there == 0);
                is_explained && is_blank && position == self.next_position
            }
            None => self.durable_lsn <= self.lsn && pending.iter().all(|range| range.certain.is_none()),
        };
        if is_over {
            if resumes_at.is_none() {
                self.pending = pending;
            }
            return;
        }
        if resumes_at.is_none() {
            // Nothing behind says how far it goes: as far as is known to be durable, or not zero.
            for range in &mut pending {
                range.bytes = range.there.max(self.durable_lsn.saturating_sub(range.lsn)).min(range.bytes);
            }
        }
        let mut records = resumes_at.map(|position| position - self.next_position);
        for Pending { lsn, bytes, certain, .. } in self.damaged(&pending) {
            let kind = certain.unwrap_or(RangeKind::Batch);
            met(Met::Damaged(self.range(lsn, bytes, kind, records.take())));
        }
        self.heads.jump();
        self.next_position = resumes_at.unwrap_or(self.next_position);
    }

    /// Those of the ranges that are damaged: zeros at a segment's end are as they should be, unless nothing else is wrong or a
    /// batch had room there.
    fn damaged(&self, pending: &[Pending]) -> Vec<Pending> {
        let geometry = &self.config.geometry;
        let had_room =
            |range: &Pending| range.lsn == self.lsn && geometry.fits_at(range.lsn, geometry.batch_bytes_max);
        let is_damaged = |range: &&Pending| range.there > 0 || had_room(range);
        let damaged: Vec<_> = pending.iter().filter(is_damaged).copied().collect();
        if damaged.is_empty() { pending.last().copied().into_iter().collect() } else { damaged }
    }

    /// Ends the walk behind the last segment.
    pub fn finish(mut self, met: &mut dyn FnMut(Met<'_>)) -> WalkEnd {
        let is_certain = self.pending.iter().any(|pending| pending.certain.is_some());
        if is_certain || self.durable_lsn > self.lsn {
            if self.pending.is_empty() {
                self.doubt(self.lsn, self.durable_lsn - self.lsn, None);
            }
            self.report_damage(None, met);
        }
        self.report_remains(met);
        let Self { lsn, durable_lsn, next_position, previous, .. } = self;
        WalkEnd { lsn, durable_lsn, next_position, previous: previous.unwrap_or(0) }
    }
}

/// The newest durable mark in the batch headers at the blocks of `bytes`, which stand at `lsn`; `None` where there is none.
///
/// What it names is on disk and never changes again, also while a node writes on.
#[must_use]
pub fn newest_durable_mark(bytes: &[u8], lsn: u64, block_bytes: usize) -> Option<u64> {
    headers(bytes, lsn, block_bytes).map(|header| header.durable_lsn).max()
}

/// Where the newest batch with records ends, of those whose headers are at the blocks of `bytes`; `None` where there is none. Once
/// a durable mark names that, everything is settled that was acknowledged before `bytes` were read.
#[must_use]
pub fn newest_batch_end(bytes: &[u8], lsn: u64, block_bytes: usize) -> Option<u64> {
    let with_records = headers(bytes, lsn, block_bytes).filter(|header| header.records > 0);
    with_records.map(|header| header.lsn + header.padded_bytes(block_bytes) as u64).max()
}

/// Where the first batch ends of those whose headers are at the blocks of `bytes`, whatever it holds.
#[must_use]
pub fn first_batch_end(bytes: &[u8], lsn: u64, block_bytes: usize) -> Option<u64> {
    headers(bytes, lsn, block_bytes).next().map(|header| header.lsn + header.padded_bytes(block_bytes) as u64)
}

fn headers(bytes: &[u8], lsn: u64, block_bytes: usize) -> impl Iterator<Item = BatchHeader> {
    let blocks = (0..bytes.len()).step_by(block_bytes);
    blocks.filter_map(move |at| {
        let header = BatchHeader::parse(&bytes[at..])?;
        let place = lsn + at as u64;
        (header.lsn == place && header.durable_lsn <= place).then_some(header)
    })
}

fn is_blank(bytes: &[u8]) -> bool {
    const ZEROS: [u8; BLOCK_BYTES_MAX] = [0; BLOCK_BYTES_MAX];
    bytes == &ZEROS[..bytes.len()]
}
