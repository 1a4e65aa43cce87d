//! Reading a whole log back, over files that somebody else reads: the snapshot, then the index files, then a [`Scan`] of the rest.
//!
//! What was derived from the log is believed as far as it is sound. Where it is not, reading begins again and believes less; in
//! the end only the log counts.

use std::ops::Range;

use crate::buffer::Buffer;
use crate::cold::{ColdRecords, ColdWalk};
use crate::format::{BLOCK_BYTES_MAX, FEED_BYTES, INDEX_FOOTER_BYTES, SEGMENT_HEADER_BYTES, segment_at};
use crate::glance::Glance;
use crate::index::{INDEX_BLOCK_BYTES, IndexFooter, IndexJob, SealedSegment, SnapshotFooter, with_block};
use crate::log::LogConfig;
use crate::record::Record;
use crate::recovery::{Damage, DamageKind, Recovered, Scan};
use crate::segment::{SegmentHeader, as_appended, is_cold};
use crate::walk::{Met, Walk, WalkEnd};

/// A file of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFile {
    /// The index file of the segment at this base.
    Index(u64),
    /// The segment at this base.
    Segment(u64),
    /// The snapshot of the index.
    Snapshot,
}

/// The files of one log, as whoever reads it back has them, and whoever is shown its records.
pub trait LogFiles {
    /// Why a file cannot be read.
    type Error;

    /// Bytes of a file; `None` where there is none.
    ///
    /// # Errors
    /// Those of the disk.
    fn bytes(&mut self, file: LogFile) -> Result<Option<u64>, Self::Error>;

    /// Reads a file from `offset` on: how many bytes. Fewer than asked for only where nothing but zeros follows. Memory and place
    /// are aligned for direct I/O in a segment.
    ///
    /// # Errors
    /// Those of the disk.
    fn read(&mut self, file: LogFile, offset: u64, into: &mut [u8]) -> Result<usize, Self::Error>;

    /// Writes an index file, of a segment that was read; `None`: not now, it is asked for again, by the log at last.
    fn write_index(&mut self, job: &IndexJob) -> Option<SealedSegment>;

    /// A derived file is damaged. It is made anew from the log.
    fn note_damaged(&mut self, _file: LogFile) {}

    /// Reading begins, or begins again: what was shown is void.
    fn begin(&mut self) {}

    /// Shows a record of a segment that was read.
    fn show(&mut self, _record: &Record<'_>) {}

    /// Whether the records of a segment are to be shown that need not be read; the log stood at `clock` when it ended.
    fn wants(&mut self, _clock: u64) -> bool {
        false
    }

    /// Not all records of a segment were shown, at whose end the log stood at `clock`.
    fn skip(&mut self, _clock: u64) {}
}

/// Why a log is not read back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal<E> {
    /// Damage that a program must not repair by itself.
    Damaged(Damage),
    /// The disk gave an error.
    Disk(E),
}

/// What is believed of what was derived from the log.
#[derive(Clone, Copy)]
struct Derived {
    snapshot: bool,
    /// Index files, from the first on.
    indexes: usize,
}

/// Reads back the log whose segments stand at `bases`, in order. `epoch` as in [`Scan::new`].
///
/// # Errors
/// [`Refusal`]. Nothing was changed on disk but for index files, which were made or made anew.
pub fn read_back<E>(
    config: &LogConfig,
    epoch: u32,
    bases: &[u64],
    files: &mut dyn LogFiles<Error = E>,
) -> Result<Recovered, Refusal<E>> {
    let mut indexes = 0;
    for base in bases {
        if files.bytes(LogFile::Index(*base)).map_err(Refusal::Disk)?.is_none() {
            break;
        }
        indexes += 1;
    }
    let mut derived = Derived { snapshot: true, indexes };
    let mut reader = Reader::new(config, files);
    loop {
        match reader.read_with(derived, epoch, bases) {
            Ok(Ok(recovered)) => return Ok(recovered),
            Ok(Err(sound)) => derived = sound,
            // It may be an index that is sound and of another time: what counts is the log.
            Err(Refusal::Damaged(_)) if derived.indexes > 0 => {
                derived = Derived { snapshot: false, indexes: 0 };
            }
            Err(refusal) => return Err(refusal),
        }
    }
}

/// Reads what stands in files of a log.
pub(crate) struct Reader<'r, E> {
    pub(crate) config: &'r LogConfig,
    pub(crate) files: &'r mut dyn LogFiles<Error = E>,
    buffer: Buffer,
}

impl<'r, E> Reader<'r, E> {
    pub(crate) fn new(config: &'r LogConfig, files: &'r mut dyn LogFiles<Error = E>) -> Self {
        // Of small segments no more than one, or than a block of an index.
        let feed = FEED_BYTES.min((config.geometry.segment_bytes as usize).max(INDEX_BLOCK_BYTES));
        Self { config, files, buffer: Buffer::of_zeros(feed + BLOCK_BYTES_MAX) }
    }

    /// Reads the log with what is said to be sound. If some of it is not, says what is left instead.
    fn read_with(
        &mut self,
        derived: Derived,
        epoch: u32,
        bases: &[u64],
    ) -> Result<Result<Recovered, Derived>, Refusal<E>> {
        let mut scan = Scan::new(self.config.clone(), epoch);
        self.files.begin();
        let mut covered = 0;
        if derived.snapshot {
            let Some(segments) = self.enter_snapshot(&mut scan, derived.indexes).map_err(Refusal::Disk)?
            else {
                self.files.note_damaged(LogFile::Snapshot);
                return Ok(Err(Derived { snapshot: false, ..derived }));
            };
            covered = segments;
        }
        for (number, base) in bases.iter().enumerate() {
            let in_log = self.open(&mut scan, *base)?;
            if number >= derived.indexes {
                if is_cold(in_log) {
                    self.enter_cold(&mut scan, in_log)?;
                } else {
                    self.feed(&mut scan, *base)?;
                }
                self.write_indexes(&mut scan);
                continue;
            }
            let Some(footer) = self.enter_index(&mut scan, in_log, number >= covered) else {
                self.files.note_damaged(LogFile::Index(*base));
                return Ok(Err(Derived { snapshot: false, indexes: number }));
            };
            if !(self.files.wants(footer.clock()) && self.show(&footer, in_log)) {
                self.files.skip(footer.clock());
            }
        }
        if bases.is_empty() {
            return Err(Refusal::Damaged(Damage { segment: 0, offset: 0, kind: DamageKind::Missing }));
        }
        scan.finish().map(Ok).map_err(Refusal::Damaged)
    }

    /// Its base, with its generation.
    fn open(&mut self, scan: &mut Scan, base: u64) -> Result<u64, Refusal<E>> {
        let (file, header) = (LogFile::Segment(base), &mut self.buffer.bytes_mut()[..SEGMENT_HEADER_BYTES]);
        let read = self.files.read(file, 0, header).map_err(Refusal::Disk)?;
        let in_log = scan.open_segment(base, &header[..read]).map_err(Refusal::Damaged)?;
        let length = self.files.bytes(file).map_err(Refusal::Disk)?.unwrap_or(0);
        if length < self.config.geometry.segment_bytes && !is_cold(in_log) {
            let damage = Damage { segment: base, offset: length, kind: DamageKind::Missing };
            return Err(Refusal::Damaged(damage));
        }
        Ok(in_log)
    }

    fn feed(&mut self, scan: &mut Scan, base: u64) -> Result<(), Refusal<E>> {
        loop {
            let (bytes, to_end) = self.read_segment(base, scan.offset()).map_err(Refusal::Disk)?;
            let show = &mut |record: &Record<'_>| self.files.show(record);
            let fed = scan.feed(&self.buffer.bytes()[bytes], to_end, show);
            if fed.map_err(Refusal::Damaged)?.ended {
                return Ok(());
            }
        }
    }

    /// Reads a feed from `offset` on. Where in the buffer it stands, and whether nothing follows.
    fn read_segment(&mut self, base: u64, offset: u64) -> Result<(Range<usize>, bool), E> {
        let skipped = offset as usize % BLOCK_BYTES_MAX;
        let start = offset - skipped as u64;
        let left = (self.config.geometry.segment_bytes - start) as usize;
        let into = self.buffer.bytes_mut();
        let asked = into.len().min(left);
        let read = self.files.read(LogFile::Segment(base), start, &mut into[..asked])?;
        Ok((skipped.min(read)..read, read < asked || asked == left))
    }

    /// Enters a cold segment from its records. If one of them is damaged too, nothing is left that could name it.
    fn enter_cold(&mut self, scan: &mut Scan, in_log: u64) -> Result<(), Refusal<E>> {
        let base = as_appended(in_log);
        let damage = |kind, offset| Refusal::Damaged(Damage { segment: in_log, offset, kind });
        let (_, copy) = header_of(&self.buffer.bytes()[..SEGMENT_HEADER_BYTES], self.config);
        let Some(footer) = copy else {
            return Err(damage(DamageKind::Header, segment_at::END as u64));
        };
        let (mut records, mut damaged) = (ColdRecords::default(), None);
        let mut walk = ColdWalk::new(self.config.geometry, in_log, footer.records_end());
        while let Some(offset) = walk.offset() {
            let (bytes, _) = self.read_segment(base, offset).map_err(Refusal::Disk)?;
            let show = &mut |record: &Record<'_>| {
                records.note(record);
                self.files.show(record);
            };
            walk.feed(&self.buffer.bytes()[bytes], show, &mut |range| _ = damaged.get_or_insert(range.start));
        }
        if scan.enter_cold(&footer, records) {
            return Ok(());
        }
        Err(match damaged {
            Some(offset) => damage(DamageKind::Acknowledged, offset),
            None => damage(DamageKind::Contradiction, SEGMENT_HEADER_BYTES as u64),
        })
    }

    fn write_indexes(&mut self, scan: &mut Scan) {
        while let Some(job) = scan.poll_index() {
            let sealed = self.files.write_index(&job);
            let is_written = sealed.is_some();
            // Nobody else may hold its postings when the scan lets go of them.
            drop(job);
            scan.handle_indexed(sealed);
            if !is_written {
                return;
            }
        }
    }

    /// Enters the snapshot, if there is one of at most `usable` segments: how many it covers. `None`: it is damaged, and the scan
    /// is of no use any more.
    fn enter_snapshot(&mut self, scan: &mut Scan, usable: usize) -> Result<Option<usize>, E> {
        let file = LogFile::Snapshot;
        let bytes = self.files.bytes(file)?.unwrap_or(0);
        let Some(at) = bytes.checked_sub(INDEX_FOOTER_BYTES as u64) else {
            return Ok(Some(0));
        };
        let mut footer = [0; INDEX_FOOTER_BYTES];
        let read = self.files.read(file, at, &mut footer)?;
        let footer = SnapshotFooter::parse(&footer[..read], self.config)
            .filter(|footer| u64::from(footer.blocks) * INDEX_BLOCK_BYTES as u64 == at)
            .filter(|footer| footer.segments as usize <= usable);
        let Some(footer) = footer else {
            return Ok(Some(0));
        };
        let mut sum = 0;
        let entered = self.each_block((file, 0), footer.blocks, |number, block| {
            sum = with_block(sum, block);
            scan.enter_snapshot_block(number, block)
        });
        Ok((entered? && footer.is_of(sum)).then_some(footer.segments as usize))
    }

    /// Enters a segment from its index file; with its blocks, unless a snapshot covers them. `None`: the file is damaged or cannot
    /// be read, and the scan is of no use any more.
    fn enter_index(&mut self, scan: &mut Scan, in_log: u64, with_blocks: bool) -> Option<IndexFooter> {
        let (footer, tail) = self.index_tail(in_log)?;
        scan.enter_index(&footer, &tail).then_some(())?;
        let blocks = if with_blocks { footer.blocks() } else { 0 };
        let place = (LogFile::Index(as_appended(in_log)), footer.blocks_at());
        let entered = self.each_block(place, blocks, |number, block| scan.enter_index_block(number, block));
        entered.ok()?.then_some(footer)
    }

    /// Footer and tail of the index of the segment at `in_log`, as [`read_index_tail`] gives them.
    pub(crate) fn index_tail(&mut self, in_log: u64) -> Option<(IndexFooter, Vec<u8>)> {
        let file = LogFile::Index(as_appended(in_log));
        let bytes = self.files.bytes(file).ok()??;
        let read = &mut |at, into: &mut [u8]| self.files.read(file, at, into).ok() == Some(into.len());
        read_index_tail(bytes, in_log, self.config, read)
    }

    /// The base of a segment with its generation, if its header is sound, and of a cold one the copy of its footer.
    pub(crate) fn read_header(&mut self, base: u64) -> Result<(Option<u64>, Option<IndexFooter>), E> {
        let header = &mut self.buffer.bytes_mut()[..SEGMENT_HEADER_BYTES];
        let read = self.files.read(LogFile::Segment(as_appended(base)), 0, header)?;
        Ok(header_of(&header[..read], self.config))
    }

    /// Takes a walk of one segment through it.
    pub(crate) fn walk(
        &mut self,
        mut walk: Walk,
        base: u64,
        met: &mut dyn FnMut(Met<'_>),
    ) -> Result<WalkEnd, E> {
        let file = LogFile::Segment(base);
        let bytes = self.files.bytes(file)?.unwrap_or(0);
        let read = self.files.read(file, 0, &mut self.buffer.bytes_mut()[..SEGMENT_HEADER_BYTES])?;
        if walk.open_segment(base, &self.buffer.bytes()[..read], bytes, met) {
            loop {
                let (range, to_end) = self.read_segment(base, walk.offset())?;
                if walk.feed(&self.buffer.bytes()[range], to_end, met).ended {
                    break;
                }
            }
        }
        Ok(walk.finish(met))
    }

    /// Gives `count` blocks of a file to `enter`, until that says `false`, or one is not there.
    fn each_block(
        &mut self,
        (file, blocks_at): (LogFile, u64),
        count: u32,
        mut enter: impl FnMut(u32, &[u8]) -> bool,
    ) -> Result<bool, E> {
        let at_once = (self.buffer.len() / INDEX_BLOCK_BYTES) as u32;
        for first in (0..count).step_by(at_once as usize) {
            let bytes = at_once.min(count - first) as usize * INDEX_BLOCK_BYTES;
            let into = &mut self.buffer.bytes_mut()[..bytes];
            if self.files.read(file, blocks_at + u64::from(first) * INDEX_BLOCK_BYTES as u64, into)? < bytes {
                return Ok(false);
            }
            let mut blocks = (first..).zip(into.chunks_exact(INDEX_BLOCK_BYTES));
            if !blocks.all(|(number, block)| enter(number, block)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Shows the records of a sealed segment. `false` when it cannot be read whole.
    fn show(&mut self, footer: &IndexFooter, in_log: u64) -> bool {
        let base = as_appended(in_log);
        if is_cold(in_log) {
            return self.show_cold(footer, in_log);
        }
        let mut glance = Glance::new(self.config.geometry, base, footer.end_lsn());
        while let Some(offset) = glance.offset() {
            let read = self.read_segment(base, offset);
            let show = &mut |record: &Record<'_>| self.files.show(record);
            if !read.is_ok_and(|(bytes, _)| glance.feed(&self.buffer.bytes()[bytes], show)) {
                return false;
            }
        }
        true
    }

    fn show_cold(&mut self, footer: &IndexFooter, in_log: u64) -> bool {
        let (mut walk, mut is_whole) =
            (ColdWalk::new(self.config.geometry, in_log, footer.records_end()), true);
        while let Some(offset) = walk.offset() {
            let Ok((bytes, _)) = self.read_segment(as_appended(in_log), offset) else {
                return false;
            };
            let show = &mut |record: &Record<'_>| self.files.show(record);
            walk.feed(&self.buffer.bytes()[bytes], show, &mut |_| is_whole = false);
        }
        is_whole
    }
}

/// The base of a segment with its generation, if its header is sound, and of a cold one the copy of its footer.
pub(crate) fn header_of(header: &[u8], config: &LogConfig) -> (Option<u64>, Option<IndexFooter>) {
    let Ok(SegmentHeader { base: in_log, store, log, .. }) = SegmentHeader::parse(header) else {
        return (None, None);
    };
    let is_ours = store == config.store && log == config.number && is_cold(in_log);
    let copy = header.get(segment_at::END..segment_at::END + INDEX_FOOTER_BYTES).filter(|_| is_ours);
    (Some(in_log), copy.and_then(|copy| IndexFooter::parse(copy, in_log, config)))
}

/// Goes through one sealed segment, of which `footer` says what it holds, and shows what it meets.
///
/// # Errors
/// Those of the disk.
pub fn walk_segment<E>(
    config: &LogConfig,
    base: u64,
    footer: &IndexFooter,
    files: &mut dyn LogFiles<Error = E>,
    met: &mut dyn FnMut(Met<'_>),
) -> Result<(), E> {
    let walk = Walk::of_segment(config.clone(), as_appended(base), footer.first_position, footer.end_lsn());
    Reader::new(config, files).walk(walk, as_appended(base), met).map(drop)
}

/// Footer and tail of an index file, or of the index of a cold segment, of `bytes` that `read` reads, all that is asked for or `false`. `None` when it is not whole, or
/// not of the segment at `base` of this log.
pub fn read_index_tail(
    bytes: u64,
    base: u64,
    config: &LogConfig,
    read: &mut dyn FnMut(u64, &mut [u8]) -> bool,
) -> Option<(IndexFooter, Vec<u8>)> {
    let footer_at = bytes.checked_sub(INDEX_FOOTER_BYTES as u64)?;
    let mut footer = [0; INDEX_FOOTER_BYTES];
    read(footer_at, &mut footer).then_some(())?;
    let footer = IndexFooter::parse(&footer, base, config)?.in_file(bytes)?;
    let mut tail = vec![0; footer.tail_bytes()];
    read(footer_at - tail.len() as u64, &mut tail).then_some(())?;
    Some((footer, tail))
}
