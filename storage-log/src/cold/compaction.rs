//! Writing a sealed segment anew.

use crate::format::{FEED_BYTES, INDEX_FOOTER_BYTES, RECORD_ALIGN, SEGMENT_HEADER_BYTES, put, segment_at};
use crate::glance::Glance;
use crate::index::block::{BlockWriter, INDEX_BLOCK_BYTES, Pieces};
use crate::index::file::{IndexFooter, SealedSegment, tail_bytes};
use crate::index::postings::{List, Posting};
use crate::index::resident::Chain;
use crate::index::{Role, SnapshotFooter};
use crate::log::{LogConfig, Run};
use crate::readback::{LogFile, LogFiles, read_index_tail};
use crate::record::{Link, Record, SCHEMA_GONE, StreamId, moved, stub};
use crate::segment::{SegmentHeader, as_appended, is_cold, rewritten};

use super::ColdWalk;
use super::erasure::{Judge, Verdict};
use super::plan::{Moved, Plan, Retention, home_sum};
use super::schedule::{Cause, CompactionJob};

/// What writing a segment anew came to.
#[derive(Debug)]
pub enum Rewritten {
    /// It was looked through for what is erased, and need not be written: no byte was.
    Clean,
    /// What memory keeps of the cold segment.
    Made(SealedSegment),
    /// Something of it is not sound; what was written is of no use, and the segment stays as it is.
    Unsound,
}

/// Writes the segment at `base`, which is sealed and has its index, anew: gives the bytes of the cold one to `out`, in order. `None`:
/// something of it is not sound; what was written is of no use, and the segment stays as it is.
///
/// # Errors
/// The first of `files` or `out`.
pub fn compact<E>(
    config: &LogConfig,
    base: u64,
    retention: Retention,
    files: &mut dyn LogFiles<Error = E>,
    out: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<Option<SealedSegment>, E> {
    let config = config.clone();
    let job = CompactionJob { config, base, retention, mark: 0, cause: Cause::Cold };
    Ok(match compact_erasing(&job, &|_| Verdict::Keep, files, out)? {
        Rewritten::Made(sealed) => Some(sealed),
        Rewritten::Clean | Rewritten::Unsound => None,
    })
}

/// The same, as `job` says, without what `judge` does not keep.
///
/// # Errors
/// The first of `files` or `out`.
pub fn compact_erasing<E>(
    job: &CompactionJob,
    judge: &Judge<'_>,
    files: &mut dyn LogFiles<Error = E>,
    out: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<Rewritten, E> {
    let Some((footer, _, runs)) = open_index(job, files)? else {
        return Ok(Rewritten::Unsound);
    };
    Compaction { config: &job.config, footer, runs, judge, files, out }.run(job)
}

/// What the index of a segment says of it, and the starts in it; `None` when it is not sound, or another's.
pub(super) fn open_index<E>(
    job: &CompactionJob,
    files: &mut dyn LogFiles<Error = E>,
) -> Result<Option<(IndexFooter, SealedSegment, Vec<Run>)>, E> {
    let (config, base) = (&job.config, job.base);
    let mut header = [0; SEGMENT_HEADER_BYTES];
    let read = files.read(LogFile::Segment(as_appended(base)), 0, &mut header)?;
    let header = SegmentHeader::parse(&header[..read]).ok().filter(|header| header.base == base);
    if header.is_none() {
        return Ok(None);
    }
    let bytes = files.bytes(LogFile::Index(as_appended(base)))?.unwrap_or(0);
    let mut failed = None;
    let index = read_index_tail(bytes, base, config, &mut |at, into| match files.read(
        LogFile::Index(as_appended(base)),
        at,
        into,
    ) {
        Ok(read) => read == into.len(),
        Err(error) => {
            failed = Some(error);
            false
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    Ok(index.and_then(|(footer, tail)| {
        let (sealed, runs) = footer.read_tail(&tail)?;
        Some((footer, sealed, runs))
    }))
}

struct Compaction<'c, E> {
    config: &'c LogConfig,
    /// Of the segment as it is.
    footer: IndexFooter,
    runs: Vec<Run>,
    judge: &'c Judge<'c>,
    files: &'c mut dyn LogFiles<Error = E>,
    out: &'c mut dyn FnMut(&[u8]) -> Result<(), E>,
}

impl<E> Compaction<'_, E> {
    fn run(mut self, job: &CompactionJob) -> Result<Rewritten, E> {
        let Some(mut plan) = self.survey(job)? else {
            return Ok(Rewritten::Unsound);
        };
        if matches!(job.cause, Cause::Erased | Cause::Front { .. }) && !plan.erases() {
            return Ok(Rewritten::Clean);
        }
        if !self.decide(&mut plan)? {
            // It may be the snapshot that is damaged, and what it said was believed: that is forgotten, and decided without it.
            let Some(anew) = self.survey(job)? else {
                return Ok(Rewritten::Unsound);
            };
            plan = anew;
            if !plan.decide::<E>(None)? {
                return Ok(Rewritten::Unsound);
            }
        }
        let base = rewritten(self.footer.base);
        let ((moved, end), homes_sum) = (plan.places(), plan.homes_sum());
        let footer = self.footer.of_cold(base, plan.facts_of(&moved, end));
        drop(plan);
        self.write_header(&footer)?;
        if !self.write_records(&moved, base)? {
            return Ok(Rewritten::Unsound);
        }
        (self.out)(&vec![0; (footer.blocks_at() - end) as usize])?;
        let mut by_place = moved;
        by_place.sort_unstable_by_key(|moved| moved.from);
        let Some((fences, _)) = self.write_index(&by_place, base)?.filter(|(_, sum)| *sum == homes_sum)
        else {
            return Ok(Rewritten::Unsound);
        };
        let tail = tail_bytes(&fences, &self.runs);
        let footer = footer.with_tail(fences.len(), self.runs.len(), &tail);
        (self.out)(&tail)?;
        (self.out)(&footer.encode(self.config))?;
        Ok(Rewritten::Made(SealedSegment::new(&footer, fences)))
    }

    fn segment(&self) -> LogFile {
        LogFile::Segment(as_appended(self.footer.base))
    }

    /// Goes through the records. `None` when one is damaged.
    fn survey(&mut self, job: &CompactionJob) -> Result<Option<Plan>, E> {
        let mut plan = Plan::new(self.config.clone(), self.footer, job.retention);
        let (geometry, base) = (self.config.geometry, self.footer.base);
        let mut buffer = vec![0; FEED_BYTES];
        let judge = self.judge;
        let mut note = |record: &Record<'_>| plan.note(record, judge(record));
        if !is_cold(base) {
            let mut glance = Glance::new(geometry, base, self.footer.end_lsn());
            while let Some(offset) = glance.offset() {
                let read = self.files.read(self.segment(), offset, &mut buffer)?;
                if !glance.feed(&buffer[..read], &mut note) {
                    return Ok(None);
                }
            }
            return Ok(Some(plan));
        }
        let (mut walk, mut is_sound) = (ColdWalk::new(geometry, base, self.footer.records_end()), true);
        while let Some(offset) = walk.offset().filter(|_| is_sound) {
            let read = self.files.read(self.segment(), offset, &mut buffer)?;
            walk.feed(&buffer[..read], &mut note, &mut |_| is_sound = false);
        }
        Ok(is_sound.then_some(plan))
    }

    /// Decides with what the snapshot knows, if there is one.
    fn decide(&mut self, plan: &mut Plan) -> Result<bool, E> {
        let bytes = self.files.bytes(LogFile::Snapshot)?.unwrap_or(0);
        let mut footer = [0; INDEX_FOOTER_BYTES];
        let at = bytes.saturating_sub(footer.len() as u64);
        let read = self.files.read(LogFile::Snapshot, at, &mut footer).unwrap_or(0);
        let snapshot = SnapshotFooter::parse(&footer[..read], self.config);
        let snapshot = snapshot.filter(|footer| u64::from(footer.blocks) * INDEX_BLOCK_BYTES as u64 == at);
        let Some(snapshot) = snapshot else {
            return plan.decide(None);
        };
        let mut numbers = 0..snapshot.blocks;
        let blocks = || {
            // What cannot be read is held to be damaged.
            let block = |number| self.block(LogFile::Snapshot, 0, number).unwrap_or_default();
            Ok(numbers.next().map(block))
        };
        plan.decide(Some((snapshot, Box::new(blocks))))
    }

    fn block(&mut self, file: LogFile, blocks_at: u64, number: u32) -> Result<Vec<u8>, E> {
        let mut block = vec![0; INDEX_BLOCK_BYTES];
        let read =
            self.files.read(file, blocks_at + u64::from(number) * INDEX_BLOCK_BYTES as u64, &mut block)?;
        block.truncate(read);
        Ok(block)
    }

    /// Its first bytes: who it is, and what its footer says, should that be lost.
    fn write_header(&mut self, footer: &IndexFooter) -> Result<(), E> {
        let geometry = self.config.geometry;
        let header = SegmentHeader {
            store: self.config.store,
            log: self.config.number,
            base: footer.base,
            block_bytes: geometry.block_bytes,
            segment_bytes: geometry.segment_bytes,
        };
        let mut bytes = header.encode();
        let copy = footer.with_tail(0, 0, &[]).encode(self.config);
        put(&mut bytes, segment_at::END..segment_at::END + copy.len(), &copy);
        (self.out)(&bytes)
    }

    /// `false` when one does not hold its checksums.
    fn write_records(&mut self, records: &[Moved], base: u64) -> Result<bool, E> {
        let mut bytes = Vec::new();
        for record in records {
            let (from, to) = (u64::from(record.from), u64::from(record.to));
            bytes.resize(usize::from(record.before) * RECORD_ALIGN, 0);
            let read = self.files.read(self.segment(), from * RECORD_ALIGN as u64, &mut bytes)?;
            let before = self.footer.base + from * RECORD_ALIGN as u64;
            let parsed = Record::parse(&bytes[..read], before).ok();
            let Some(parsed) = parsed.filter(|parsed| record.is(parsed)) else {
                return Ok(false);
            };
            let lsn = base + to * RECORD_ALIGN as u64;
            let is_at_home = record.is_at_home();
            if let Some(schema) = record.erased_schema() {
                let is_kept = |link: &Link| self.config.kinds.is_linked(link.stream.kind);
                (self.out)(&stub::of(&parsed, lsn, is_at_home, schema, is_kept))?;
            } else if record.is_stub() {
                let kept = record.is_in(Some(Role::Linked(1))).then_some(self.config.kinds.linked[1]);
                let is_kept = |link: &Link| Some(link.stream.kind) == kept;
                (self.out)(&stub::of(&parsed, lsn, is_at_home, SCHEMA_GONE, is_kept))?;
            } else {
                (self.out)(&moved(&parsed, lsn, is_at_home))?;
            }
        }
        Ok(true)
    }

    /// Writes the lists of the index as they are now. Their fences, and what its home streams come to; `None` when a block is not sound.
    fn write_index(&mut self, moved: &[Moved], base: u64) -> Result<Option<(Vec<u32>, u64)>, E> {
        let (mut writer, mut postings, mut homes_sum) = (BlockWriter::new(base), Vec::new(), 0_u64);
        let file = LogFile::Index(as_appended(self.footer.base));
        for number in 0..self.footer.blocks() {
            let block = self.block(file, self.footer.blocks_at(), number)?;
            let Some(pieces) = Pieces::of(&block, self.footer.base, number) else {
                return Ok(None);
            };
            for piece in pieces {
                postings.extend((0..piece.len()).map(|at| piece.posting(at)));
                if !piece.goes_on {
                    let role = self.config.kinds.role(piece.stream.kind);
                    homes_sum = homes_sum.wrapping_add(home_sum(piece.stream, role, postings.len()));
                    if role == Some(Role::Amended) {
                        let (list, pairs) = rewrite_amendments(piece.list, &postings, moved);
                        writer.push_pairs(piece.stream, &list, &pairs, &mut self.out)?;
                    } else {
                        let list = self.rewrite_list(piece.stream, piece.list, &mut postings, moved);
                        writer.push(piece.stream, &list, &postings, &mut self.out)?;
                    }
                    postings.clear();
                }
            }
        }
        writer.flush(&mut self.out)?;
        Ok(Some((writer.fences, homes_sum)))
    }

    /// The list of a stream, of what is kept of it.
    fn rewrite_list(
        &self,
        stream: StreamId,
        list: List,
        postings: &mut Vec<Posting>,
        moved: &[Moved],
    ) -> List {
        let role = self.config.kinds.role(stream.kind);
        let before = postings.len();
        let first = postings.first().map(|posting| posting.position());
        let mut is_stub = false;
        postings.retain_mut(|posting| {
            let Some((moved, to)) = follow(*posting, moved) else {
                return false;
            };
            *posting = to;
            is_stub |= moved.begins_home() && role == Some(Role::Home);
            moved.is_in(role)
        });
        let dropped = (before - postings.len()) as u64;
        if dropped == 0 && !is_stub {
            return list;
        }
        // What stood before it is not kept either, and a number without content ends a stream: should a segment before hold some yet,
        // that has the same end ahead.
        let first_key = match (role, first, postings.first()) {
            (Some(Role::Linked(_)), Some(first), Some(kept)) => list.first_key + kept.position() - first,
            _ => list.first_key + dropped,
        };
        List { before: Chain::default(), key_before: first_key - 1, first_key, ..list }
    }
}

/// What became of the record of a posting, and where it stands now; `None` when it is not kept.
fn follow(posting: Posting, moved: &[Moved]) -> Option<(&Moved, Posting)> {
    let place = (posting.offset() / RECORD_ALIGN as u64) as u32;
    let moved = &moved[moved.binary_search_by_key(&place, |moved| moved.from).ok()?];
    let bytes = usize::from(moved.units) * RECORD_ALIGN;
    Some((moved, Posting::new(u64::from(moved.to) * RECORD_ALIGN as u64, bytes, posting.position())))
}

/// The amendments that still stand in their home stream with all they say.
fn rewrite_amendments(list: List, pairs: &[Posting], moved: &[Moved]) -> (List, Vec<Posting>) {
    let mut kept = Vec::with_capacity(pairs.len());
    for pair in pairs.chunks_exact(2) {
        if let Some((moved, to)) = follow(pair[1], moved)
            && moved.is_at_home()
            && !moved.is_stub()
            && moved.erased_schema().is_none()
        {
            kept.extend([pair[0], to]);
        }
    }
    let first_key = kept.first().map_or(0, |target| target.target());
    (List { first_key, ..list }, kept)
}
