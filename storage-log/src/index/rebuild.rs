//! The index of one sealed segment, made again from the segment and from what is sound of the file that was damaged.
//!
//! ```text
//! segment   [batch][batch][damaged][batch]      postings: those of its records that are sound
//! old file  [block][ rotten ][block][tail]      what came before each list, and the postings of damaged records
//! older ones [block]..[block]..                 what came before the lists of the rotten block
//! ```
//!
//! Where all three say what they must, the file is made as it was. A record that nothing names any more has its place kept in its
//! home stream, where sequences leave a hole: a reader is told of a gap, and no sequence shifts. Where older index files are
//! damaged too, a list says that the segment before it may hold the stream, and a lookup goes back step by step.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::format::{RECORD_ALIGN, RUNS_MAX, SEGMENT_HEADER_BYTES};
use crate::location::Location;
use crate::log::{LogConfig, Run};
use crate::readback::{LogFile, LogFiles, Reader, header_of};
use crate::record::{Record, StreamId};
use crate::segment::{as_appended, is_cold};
use crate::walk::{DamagedRange, Met, Walk};

use super::block::{INDEX_BLOCK_BYTES, Piece, Pieces};
use super::file::{ColdFacts, IndexFooter, IndexJob, SegmentEnd};
use super::lowest::Lowest;
use super::postings::{List, Posting, SegmentPostings, StreamPostings};
use super::resident::Chain;
use super::{NUMBER_BITS, Role, list_of};

/// A posting counts positions from the segment's first in 24 bits.
const POSITIONS_MAX: u64 = 1 << 24;

/// An index file that is to be made again, while its log serves.
#[derive(Clone, Debug)]
pub struct RebuildJob {
    pub(crate) config: LogConfig,
    /// Of the segment, counted from 1.
    pub(crate) number: u32,
    pub(crate) base: u64,
    pub(crate) first_position: u64,
    pub(crate) next_position: u64,
    /// As a log says in a file that it has written now.
    pub(crate) durable_lsn: u64,
}

/// An index that was made again, and what is wrong with its segment.
#[derive(Debug)]
pub struct Rebuilt {
    /// To be written.
    pub index: IndexJob,
    /// Damaged ranges of the segment: their records are gaps.
    pub damaged: Vec<DamagedRange>,
}

/// What an older file says of a stream.
#[derive(Clone, Copy)]
struct Earlier {
    before: Chain,
    newest: u64,
    amended: Lowest,
}

/// What is sound of a file that is not.
#[derive(Default)]
struct Old {
    footer: Option<IndexFooter>,
    runs: Option<Vec<Run>>,
    lists: HashMap<StreamId, List, RandomState>,
}

impl RebuildJob {
    /// Base of its segment.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Of its log.
    #[must_use]
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Makes the index again. Reads the segment once, and of older index files the blocks that hold the same streams. `None`: the
    /// segment was written anew meanwhile, and has an index of its own.
    ///
    /// # Errors
    /// Those of the disk, where the segment cannot be read. An index file that cannot be read is damaged, no more.
    pub fn run<E>(&self, files: &mut dyn LogFiles<Error = E>) -> Result<Option<Rebuilt>, E> {
        let mut reader = Reader::new(&self.config, files);
        let (in_log, copy) = reader.read_header(self.base)?;
        if in_log.is_some_and(|in_log| in_log != self.base) {
            return Ok(None);
        }
        let old = self.read_old(&mut reader, copy);
        let mut rescan = Rescan::new(self);
        let end_lsn = old.footer.map_or(0, |footer| footer.end_lsn());
        let base = as_appended(self.base);
        let walk = Walk::of_segment(self.config.clone(), base, self.first_position, end_lsn);
        let end = reader.walk(walk, base, &mut |met| rescan.take(met))?;
        rescan.restore_order();
        if !rescan.damaged.is_empty() {
            self.keep_old_postings(&mut rescan.postings, &mut reader);
        }
        let Rescan { mut postings, damaged, runs, clock, mut spots, .. } = rescan;
        let unknown = self.restore_lists(&mut postings, &old);
        self.look_back(&mut postings, unknown, &mut reader);
        if !damaged.is_empty() && copy.is_none() {
            self.keep_first_places(&mut postings, &mut spots);
        }
        postings.cold = copy.map_or_else(ColdFacts::default, |footer| footer.cold);
        let seen = SegmentEnd { end_lsn: end.lsn, previous: end.previous };
        let index = IndexJob {
            config: self.config.clone(),
            postings: Arc::new(postings),
            end: old.footer.map_or(seen, |footer| footer.end),
            durable_lsn: self.durable_lsn,
            clock: old.footer.map_or(clock, |footer| footer.clock()),
            runs: old.runs.unwrap_or(runs),
        };
        Ok(Some(Rebuilt { index, damaged }))
    }

    /// The file as it stands, as far as it is sound. The footer of a cold segment's stands in its header too.
    fn read_old<E>(&self, reader: &mut Reader<'_, E>, copy: Option<IndexFooter>) -> Old {
        let mut old = Old { footer: copy, ..Old::default() };
        if let Some((footer, tail)) = reader.index_tail(self.base) {
            let tail = footer.read_tail(&tail);
            // One of another time is not of this segment as memory has it.
            let belongs =
                footer.first_position == self.first_position && footer.next_position == self.next_position;
            (old.footer, old.runs) = (belongs.then_some(footer).or(copy), tail.map(|(_, runs)| runs));
        }
        reader.each_sound_piece(self.base, &mut |piece| {
            old.lists.insert(piece.stream, piece.list);
        });
        old
    }

    /// Takes the postings of lists that are whole in the old file: they name damaged records too.
    fn keep_old_postings<E>(&self, postings: &mut SegmentPostings, reader: &mut Reader<'_, E>) {
        let mut list: Option<(StreamId, Vec<Posting>)> = None;
        reader.each_sound_piece(self.base, &mut |piece| {
            let (stream, mut entries) = list.take().unwrap_or((piece.stream, Vec::new()));
            if stream != piece.stream || entries.len() != piece.place as usize {
                entries.clear();
            }
            if entries.len() == piece.place as usize {
                entries.extend((0..piece.len()).map(|at| piece.posting(at)));
                if piece.goes_on {
                    list = Some((piece.stream, entries));
                } else {
                    let place = postings.streams.place_of(piece.stream, || (0, piece.list));
                    let kept = postings.streams.at_mut(place);
                    (kept.list, kept.entries) = (piece.list, entries.into());
                }
            }
        });
    }

    /// Gives every list what the old file says came before it. Those of which it does not say so are left, in order.
    fn restore_lists(&self, postings: &mut SegmentPostings, old: &Old) -> Vec<StreamId> {
        let mut unknown = Vec::new();
        for StreamPostings { stream, list, .. } in postings.streams.iter_mut() {
            match old.lists.get(stream) {
                Some(known) => {
                    (list.before, list.key_before, list.amended) =
                        (known.before, known.key_before, known.amended);
                }
                None if matches!(
                    self.config.kinds.role(stream.kind),
                    Some(Role::Amended | Role::Last(_))
                ) => {}
                None => unknown.push(*stream),
            }
        }
        unknown.sort_unstable_by_key(|stream| (stream.id, stream.kind));
        unknown
    }

    /// Looks for the newest segment before this one that holds each stream.
    fn look_back<E>(
        &self,
        postings: &mut SegmentPostings,
        mut unknown: Vec<StreamId>,
        reader: &mut Reader<'_, E>,
    ) {
        for number in (1..self.number).rev() {
            if unknown.is_empty() {
                return;
            }
            let base = u64::from(number - 1) * self.config.geometry.segment_bytes;
            let base = reader.read_header(base).ok().and_then(|(in_log, _)| in_log).unwrap_or(base);
            let mut found: HashMap<StreamId, Option<Earlier>, RandomState> = HashMap::default();
            reader.find_lists(base, &unknown, &mut |stream, list| {
                // Of several pieces the last has the newest key; where one cannot be read, none is believed.
                let known = found.entry(stream).or_insert(list);
                *known = known.and(list);
            });
            unknown.retain(|stream| {
                let Some(found) = found.get(stream) else {
                    return true;
                };
                let list = &mut postings.get_mut(*stream).expect("it is looked for").list;
                match *found {
                    Some(Earlier { before, newest, amended }) => {
                        let chain = Chain { newest: number, jump: before.jump };
                        list.before = list_of(chain, newest, self.number, list.first_key).before;
                        // A file may say anything.
                        list.key_before = newest.min((1 << NUMBER_BITS) - 1);
                        if chain.is_in_epoch_of(self.number) {
                            list.amended = list.amended.min(amended);
                        }
                    }
                    None => {
                        list.before = Chain::guess(number);
                        list.amended = Lowest::of(1);
                        // Those of a home stream leave no hole; of links, none is newer.
                        let is_home = self.config.kinds.role(stream.kind) == Some(Role::Home);
                        list.key_before =
                            if is_home { list.first_key - 1 } else { self.first_position.saturating_sub(1) };
                    }
                }
                false
            });
        }
    }

    /// Keeps the places of damaged records that were the first of their stream here.
    fn keep_first_places(&self, postings: &mut SegmentPostings, spots: &mut Spots) {
        for StreamPostings { stream, list, entries, .. } in postings.streams.iter_mut() {
            let is_home = self.config.kinds.role(stream.kind) == Some(Role::Home);
            let holes = list.first_key.saturating_sub(list.key_before + 1);
            if is_home && (1..=self.next_position - self.first_position).contains(&holes) {
                let kept: Vec<Posting> = (0..holes).map(|_| spots.take(u64::MAX)).collect();
                entries.insert_many(0, kept);
                list.first_key -= holes;
            }
        }
    }
}

/// Places within damaged ranges that stand for the records that cannot be named: no record can be read there.
struct Spots {
    ranges: Vec<Spot>,
}

struct Spot {
    offset: u64,
    bytes: u64,
    taken: u64,
}

impl Spots {
    /// The header is no record either: where no damage explains a hole, it stands there.
    fn new() -> Self {
        Self { ranges: vec![Spot { offset: 0, bytes: SEGMENT_HEADER_BYTES as u64, taken: 0 }] }
    }

    /// The next place, in the newest damaged range that begins before `offset`.
    fn take(&mut self, offset: u64) -> Posting {
        const UNIT: u64 = RECORD_ALIGN as u64;
        let range = self.ranges.iter_mut().rev().find(|range| range.offset < offset);
        let range = range.expect("the header stands before everything");
        // A record is longer than a place, so there are enough of them where the damage is what it is thought to be.
        let place =
            (range.offset.next_multiple_of(UNIT) + range.taken * UNIT).min(range.offset + range.bytes);
        range.taken += 1;
        Posting::new(place / UNIT * UNIT, RECORD_ALIGN, Posting::POSITION_UNKNOWN)
    }
}

/// What the walk through the segment finds.
struct Rescan<'j> {
    job: &'j RebuildJob,
    postings: SegmentPostings,
    damaged: Vec<DamagedRange>,
    spots: Spots,
    runs: Vec<Run>,
    clock: u64,
}

impl<'j> Rescan<'j> {
    fn new(job: &'j RebuildJob) -> Self {
        let mut postings = SegmentPostings::new(job.number, job.base, job.first_position);
        postings.next_position = job.next_position;
        let (damaged, spots) = (Vec::new(), Spots::new());
        Self { job, postings, damaged, spots, runs: Vec::new(), clock: 0 }
    }

    fn take(&mut self, met: Met<'_>) {
        match met {
            Met::Batch(facts) => self.clock = self.clock.max(facts.at),
            Met::Damaged(range) => {
                self.spots.ranges.push(Spot { offset: range.offset, bytes: range.bytes, taken: 0 });
                self.damaged.push(range);
            }
            Met::Record(record) => self.enter(record),
            Met::Remains(_) => {}
        }
    }

    /// Records of a cold segment stand in the order of their home streams: links are in that of positions.
    fn restore_order(&mut self) {
        if is_cold(self.job.base) {
            for StreamPostings { stream, list, entries, .. } in self.postings.streams.iter_mut() {
                if matches!(self.job.config.kinds.role(stream.kind), Some(Role::Linked(_))) {
                    entries.sort_unstable_by_key(|posting| posting.position());
                    let first = entries.first().map_or(0, |posting| posting.position());
                    list.first_key = self.job.first_position + first;
                }
            }
        }
    }

    fn enter(&mut self, record: &Record<'_>) {
        let (stream, position) = (record.stream(), record.position());
        let stands_here = self.job.config.geometry.segment_of(record.lsn()) == self.job.base;
        let first = self.job.first_position;
        // None of these was written: whatever their checksums say, they are in no index, as at a start.
        let numbers = [record.seq(), record.message_count(), position];
        if !stands_here
            || !(first..self.job.next_position.min(first + POSITIONS_MAX)).contains(&position)
            || numbers.iter().any(|number| number >> NUMBER_BITS != 0)
            || record.seq() == 0
        {
            return;
        }
        self.clock = self.clock.max(record.at());
        let location = Location::new(record.lsn(), record.bytes_in_log());
        let first = || (0, List { first_key: record.seq(), key_before: record.seq() - 1, ..List::default() });
        match self.job.config.kinds.role(stream.kind) {
            _ if record.is_for_links() => {}
            Some(Role::Home) => {
                self.keep_places(stream, record);
                let postings = self.postings.push(stream, location, position, first);
                postings.list.message_count = record.message_count();
            }
            Some(Role::Last(_)) => {
                let postings = self.postings.push(stream, location, position, || (0, List::default()));
                postings.entries.drain(..postings.entries.len() - 1);
                postings.list.first_key = record.seq();
            }
            Some(Role::Runs) if self.runs.len() < RUNS_MAX => {
                let run = record.payload().try_into().map(|id| Run { id, first_position: position });
                self.runs.extend(run);
            }
            _ => {}
        }
        for link in record.links() {
            if self.job.config.kinds.role(link.stream.kind) == Some(Role::Amended) {
                if let Some(target) = record.amends(link).filter(|_| !record.is_for_links()) {
                    self.postings.amend(stream, link.stream, target, location, position);
                }
                continue;
            }
            let list = List { first_key: position, ..List::default() };
            self.postings.push(link.stream, location, position, || (0, list));
        }
    }

    /// Between two records of a home stream, those that are missing have places too.
    fn keep_places(&mut self, stream: StreamId, record: &Record<'_>) {
        let Some(postings) = self.postings.get_mut(stream) else {
            return;
        };
        let expected = postings.list.first_key + postings.entries.len() as u64;
        let holes = record.seq().saturating_sub(expected);
        if holes <= self.job.next_position - self.job.first_position {
            let offset = record.lsn() - self.job.base;
            postings.entries.extend((0..holes).map(|_| self.spots.take(offset)));
        }
    }
}

impl<E> Reader<'_, E> {
    /// Shows every piece of the blocks of an index file that are sound.
    fn each_sound_piece(&mut self, base: u64, show: &mut dyn FnMut(&Piece<'_>)) {
        let bytes = self.files.bytes(LogFile::Index(as_appended(base))).ok().flatten().unwrap_or(0);
        let blocks_at = self.index_blocks_at(base);
        let blocks = u32::try_from(bytes.saturating_sub(blocks_at) / INDEX_BLOCK_BYTES as u64).unwrap_or(0);
        for number in 0..blocks {
            if let Some(block) = self.index_block(base, blocks_at, number) {
                Pieces::of(&block, base, number).into_iter().flatten().for_each(|piece| show(&piece));
            }
        }
    }

    /// Looks for the lists of `streams`, which are in order, in an index file: shows of each piece what came before its list, and
    /// its newest key; `None` for a list that may stand in a block that is not sound.
    fn find_lists(
        &mut self,
        base: u64,
        streams: &[StreamId],
        show: &mut dyn FnMut(StreamId, Option<Earlier>),
    ) {
        let kinds = self.config.kinds;
        let sealed = self.index_tail(base).and_then(|(footer, tail)| footer.open(&tail));
        let Some(sealed) = sealed else {
            return streams.iter().for_each(|stream| show(*stream, None));
        };
        let mut held: Option<(u32, Option<Vec<u8>>)> = None;
        for stream in streams {
            for number in sealed.blocks_of(*stream) {
                if held.as_ref().is_none_or(|(held, _)| *held != number) {
                    held = Some((number, self.index_block(base, sealed.blocks_at, number)));
                }
                let block = held.as_ref().and_then(|(_, block)| block.as_deref());
                let Some(mut pieces) = block.and_then(|block| sealed.pieces(block, number)) else {
                    show(*stream, None);
                    continue;
                };
                if let Some(piece) = pieces.find(|piece| piece.stream == *stream) {
                    let last = piece.len() - 1;
                    let newest = match kinds.role(stream.kind) {
                        Some(Role::Linked(_)) => sealed.first_position + piece.posting(last).position(),
                        _ => piece.list.first_key + u64::from(piece.place) + last as u64,
                    };
                    let List { before, amended, .. } = piece.list;
                    show(*stream, Some(Earlier { before, newest, amended }));
                }
            }
        }
    }

    /// Where the blocks begin in the file that holds the index.
    fn index_blocks_at(&mut self, base: u64) -> u64 {
        if let Some((footer, _)) = self.index_tail(base) {
            return footer.blocks_at();
        }
        let mut header = [0; SEGMENT_HEADER_BYTES];
        let read = self.files.read(LogFile::Index(as_appended(base)), 0, &mut header).unwrap_or(0);
        header_of(&header[..read], self.config).1.map_or(0, |copy| copy.blocks_at_of_cold())
    }

    fn index_block(&mut self, base: u64, blocks_at: u64, number: u32) -> Option<Vec<u8>> {
        let mut block = vec![0; INDEX_BLOCK_BYTES];
        let at = blocks_at + u64::from(number) * INDEX_BLOCK_BYTES as u64;
        let file = LogFile::Index(as_appended(base));
        (self.files.read(file, at, &mut block).ok()? == block.len()).then_some(block)
    }
}
