//! Finding the newest amendments of records, newest segment to oldest: without a scan.
//!
//! An amendment stands later in its home stream than what it amends, in whichever segment. The index file of each segment says which
//! records are amended there, in their order, and each list of a home stream how far back its amendments of an epoch reach: so a
//! search goes along the segments that hold the stream, passes over those whose amendments are all of newer records, an epoch at a
//! time, and ends where the records themselves stand. Of a stream in which nothing was amended, memory says so.

use crate::location::Entry;
use crate::log::Log;
use crate::record::StreamId;
use crate::segment::is_cold;

use super::block::{Piece, Pieces};
use super::file::SealedSegment;
use super::lookup::{BlockPlace, Progress, partition_point};
use super::postings::{Keys, List, Posting, SegmentPostings, entry_of};

/// A record whose newest durable amendment is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Its sequence in its home stream.
    pub seq: u64,
    /// Amendments up to this position are of no interest.
    pub after: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// This block, or the one after it, says what the segment's amendments reach back to, and where the stream stands before.
    Head(u32),
    /// The block in which the first amendment stands that may be wanted is one of these.
    Seek { first: u32, end: u32 },
    /// The amendments go on in this block, or begin there.
    Take(u32),
}

/// A search for the newest amendments of some records of one stream.
#[derive(Clone, Debug)]
pub struct AmendedSearch {
    home: StreamId,
    stream: StreamId,
    /// In the order of their sequences.
    wanted: Vec<(Wanted, Option<Entry>)>,
    /// Number of the segment looked at; 0 is behind the oldest.
    segment: u32,
    /// In a sealed segment: what comes next, and in which making of its file.
    step: Option<(Step, u32)>,
    /// Of the home stream in the segment.
    list: List,
    /// That `segment` holds the stream was only guessed.
    guessed: bool,
    held: Option<(BlockPlace, Vec<u8>)>,
}

impl AmendedSearch {
    /// Looks for amendments of `wanted` in the stream `home`. `None` when memory says that there are none.
    #[must_use]
    pub fn new(log: &Log, home: StreamId, mut wanted: Vec<Wanted>) -> Option<Self> {
        wanted.sort_unstable_by_key(|wanted| wanted.seq);
        let newest_wanted = wanted.last()?.seq;
        let oldest = wanted.iter().map(|wanted| wanted.after + 1).min()?;
        let segment = log.index.amended_since(home, oldest, newest_wanted)?;
        let stream = StreamId { kind: log.config().kinds.amended, id: home.id };
        let wanted = wanted.into_iter().map(|wanted| (wanted, None)).collect();
        let (step, list, guessed, held) = (None, List::default(), false, None);
        Some(Self { home, stream, wanted, segment, step, list, guessed, held })
    }

    /// Goes on as far as memory and what was fed lead.
    pub fn poll(&mut self, log: &Log) -> Progress {
        while self.segment > 0 && self.may_be_in(self.segment, log) {
            if let Some(sealed) = log.index.sealed(self.segment) {
                if let Some(progress) = self.step_sealed(sealed) {
                    return progress;
                }
            } else {
                self.step_open(log);
            }
        }
        self.held = None;
        Progress::Done
    }

    /// Takes the block that was asked for.
    pub fn feed(&mut self, place: BlockPlace, block: Vec<u8>) {
        self.held = Some((place, block));
    }

    /// The stream of amendments, in which what is found are entries.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// What was found: the sequence of a record, and the entry of its newest amendment.
    pub fn found(&self) -> impl Iterator<Item = (u64, Entry)> + '_ {
        self.wanted.iter().filter_map(|(wanted, found)| Some((wanted.seq, (*found)?)))
    }

    fn missing(&self) -> impl DoubleEndedIterator<Item = &Wanted> {
        self.wanted.iter().filter(|(_, found)| found.is_none()).map(|(wanted, _)| wanted)
    }

    /// Whether a segment may hold something that is still looked for: its positions do not all lie too far back.
    fn may_be_in(&self, segment: u32, log: &Log) -> bool {
        let end = log.index.first_position(segment + 1).unwrap_or(log.next_position);
        self.missing().any(|wanted| wanted.after + 1 < end)
    }

    fn reaches(&self, list: &List) -> bool {
        self.missing().next_back().is_some_and(|wanted| list.amended.reaches(wanted.seq))
    }

    fn step_open(&mut self, log: &Log) {
        let postings = log.index.postings(self.segment);
        let Some(home) = postings.and_then(|postings| postings.get(self.home)) else {
            return self.leave_unfound(0);
        };
        self.list = home.list;
        if let Some(amended) = postings.and_then(|postings| Some((postings, postings.get(self.stream)?)))
            && self.reaches(&home.list)
        {
            self.take_open(amended.0, &amended.1.entries, log);
        }
        self.go_on();
    }

    /// Takes the newest durable amendment of each record, of all that a segment in memory has.
    fn take_open(&mut self, postings: &SegmentPostings, pairs: &[Posting], log: &Log) {
        let pair = |at: usize| (pairs[2 * at].target(), pairs[2 * at + 1]);
        for (wanted, found) in self.wanted.iter_mut().filter(|(_, found)| found.is_none()) {
            let of_it = (0..pairs.len() / 2).rev();
            let of_it = of_it.skip_while(|at| pair(*at).0 > wanted.seq);
            let of_it = of_it.take_while(|at| pair(*at).0 == wanted.seq);
            let entry = |at| postings.entry(Keys::Positions, &List::default(), 0, pair(at).1);
            let durable = of_it.map(entry).find(|entry| entry.location.is_below(log.durable_lsn));
            *found = durable.filter(|entry| entry.key > wanted.after);
        }
    }

    fn step_sealed(&mut self, sealed: &SealedSegment) -> Option<Progress> {
        let blocks = sealed.blocks_of(self.home);
        if blocks.is_empty() {
            self.leave_unfound(sealed.base);
            return None;
        }
        let (step, made) = *self.step.get_or_insert((Step::Head(blocks.start), sealed.made));
        if made != sealed.made {
            // The file was made again, and its blocks may hold other pieces: what was found stays.
            (self.step, self.held) = (None, None);
            return None;
        }
        let number = match step {
            Step::Head(number) | Step::Take(number) => number,
            Step::Seek { first, end } => first + (end - first) / 2,
        };
        let place = sealed.block_place(number);
        let block = match self.held.take() {
            Some((held, block)) if held == place => block,
            _ => return Some(Progress::Read(place)),
        };
        let Some(pieces) = sealed.pieces(&block, number) else {
            return Some(Progress::Damaged(place));
        };
        match step {
            Step::Head(_) => self.read_head(number, pieces, blocks.end, sealed),
            Step::Seek { first, end } => {
                let below = pieces.clone().next().is_some_and(|piece| self.begins_below(&piece));
                let (first, end) = if below { (number, end) } else { (first, number) };
                self.seek(first, end, made);
            }
            Step::Take(_) => self.take_block(number, pieces, blocks.end, sealed),
        }
        self.held = Some((place, block));
        None
    }

    fn read_head(&mut self, number: u32, mut pieces: Pieces<'_>, end: u32, sealed: &SealedSegment) {
        match pieces.find(|piece| piece.stream == self.home) {
            Some(piece) => {
                self.list = piece.list;
                if self.reaches(&piece.list) {
                    self.seek(number, end, sealed.made);
                } else {
                    self.go_on();
                }
            }
            None if number + 1 < end => self.step = Some((Step::Head(number + 1), sealed.made)),
            None => self.leave_unfound(sealed.base),
        }
    }

    fn seek(&mut self, first: u32, end: u32, made: u32) {
        let step = if first + 1 < end { Step::Seek { first, end } } else { Step::Take(first) };
        self.step = Some((step, made));
    }

    /// Whether a piece stands before the place of the first amendment that may be wanted, or there.
    fn begins_below(&self, piece: &Piece<'_>) -> bool {
        let (theirs, ours) = ((piece.stream.id, piece.stream.kind), (self.stream.id, self.stream.kind));
        let least = self.missing().next().map_or(0, |wanted| wanted.seq);
        theirs < ours || (theirs == ours && piece.posting(0).target() <= least)
    }

    fn take_block(&mut self, number: u32, mut pieces: Pieces<'_>, end: u32, sealed: &SealedSegment) {
        let most = self.missing().next_back().map_or(0, |wanted| wanted.seq);
        let all = pieces.clone();
        let goes_on = match pieces.find(|piece| piece.stream == self.stream) {
            Some(piece) => {
                self.take_piece(&piece, sealed);
                piece.goes_on && piece.len() > 1 && piece.posting(piece.len() - 2).target() < most
            }
            // They may begin with the next block; what stands behind their place says that there are none.
            None => all
                .last()
                .is_none_or(|last| (last.stream.id, last.stream.kind) < (self.stream.id, self.stream.kind)),
        };
        if goes_on && number + 1 < end {
            self.step = Some((Step::Take(number + 1), sealed.made));
        } else {
            self.go_on();
        }
    }

    fn take_piece(&mut self, piece: &Piece<'_>, sealed: &SealedSegment) {
        for (wanted, found) in self.wanted.iter_mut().filter(|(_, found)| found.is_none()) {
            let place = partition_point(piece.len() / 2, |at| piece.posting(2 * at).target() < wanted.seq);
            if 2 * place < piece.len() && piece.posting(2 * place).target() == wanted.seq {
                let (posting, first) = (piece.posting(2 * place + 1), sealed.first_position);
                let entry = entry_of(Keys::Positions, 0, 0, posting, sealed.base, first);
                *found = (entry.key > wanted.after).then_some(entry);
            }
        }
    }

    /// Turns to the segment before that may hold something: where nothing in this epoch reaches back far enough, one of an epoch before.
    fn go_on(&mut self) {
        let before = self.list.before;
        self.guessed = before.is_guess();
        let jumps = !self.guessed && !self.reaches(&self.list);
        let next = if jumps { before.jump } else { before.newest };
        // Whatever an index says, a search ends.
        (self.segment, self.step) = (next.min(self.segment - 1), None);
    }

    /// The stream is not in a segment that was said to hold it: see [`super::Lookup`].
    fn leave_unfound(&mut self, base: u64) {
        let goes_on = self.guessed || !is_cold(base);
        self.guessed = true;
        (self.segment, self.step) = (if goes_on { self.segment - 1 } else { 0 }, None);
    }
}
