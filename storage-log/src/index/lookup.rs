//! Finding entries of a stream, newest segment to oldest: memory first, then blocks of index files.
//!
//! A [`Lookup`] says which block it needs next and is fed it; it never waits and never reads by itself. Most are answered from
//! memory at once: what catches up after a second, and what reads the newest page.

use crate::location::{Entry, Location};
use crate::log::Log;
use crate::record::StreamId;
use crate::segment::is_cold;

use super::block::{INDEX_BLOCK_BYTES, Piece, Pieces};
use super::file::SealedSegment;
use super::postings::{Keys, List, entry_of};
use super::resident::Chain;

/// A block of an index file. Of a file that was made again it is another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BlockPlace {
    /// Base of its segment, with its generation.
    pub base: u64,
    /// Its number among the blocks of the file, from 0.
    pub number: u32,
    /// Where in the file the blocks begin.
    pub(crate) blocks_at: u64,
    /// In which making of the file.
    pub(crate) made: u32,
}

impl BlockPlace {
    /// Where it stands in the file.
    #[must_use]
    pub fn offset(self) -> u64 {
        self.blocks_at + u64::from(self.number) * INDEX_BLOCK_BYTES as u64
    }
}

/// What a lookup wants next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// This block, [`INDEX_BLOCK_BYTES`] long: [`Lookup::feed`].
    Read(BlockPlace),
    /// Nothing: it is complete.
    Done,
    /// Nothing: this block is not what was written. The index of its segment has to be made again.
    Damaged(BlockPlace),
}

/// Most that a lookup finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page {
    /// Entries.
    pub items_max: usize,
    /// Bytes of their records in the log; the first one is found whatever its length.
    pub bytes_max: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Direction {
    /// Keys from `bound` on, upwards.
    Up,
    /// Keys below `bound`, downwards.
    Down,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Going back to the segment that the answer begins in.
    Seek,
    /// Taking entries.
    Take,
    Over,
}

/// Where in a sealed segment a lookup is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// The block that holds the bound is one of these; all from the end on stand above it.
    Within { first: u32, end: u32 },
    /// Pieces of the stream go on in this block.
    Block(u32),
}

/// A search for a page of entries of one stream.
#[derive(Clone, Debug)]
pub struct Lookup {
    stream: StreamId,
    keys: Keys,
    direction: Direction,
    bound: u64,
    /// Keys below are not wanted.
    floor: u64,
    page: Page,
    stage: Stage,
    /// Number of the segment looked at; 0 is behind the oldest.
    segment: u32,
    /// In a sealed segment: where, and in which making of its file.
    at: Option<(At, u32)>,
    /// Segments that follow in the other direction, the next one last.
    path: Vec<u32>,
    /// Came here by a jump from this segment, with this one before it.
    jumped: Option<(u32, u32)>,
    /// That `segment` holds the stream was only guessed.
    guessed: bool,
    /// No jump has led too far yet.
    may_jump: bool,
    held: Option<(BlockPlace, Vec<u8>)>,
    entries: Vec<Entry>,
    bytes: usize,
    more: bool,
}

impl Lookup {
    /// Entries with `after < key`, oldest first.
    #[must_use]
    pub fn after(log: &Log, stream: StreamId, after: u64, page: Page) -> Self {
        Self::new(log, stream, Direction::Up, after.saturating_add(1), 0, page)
    }

    /// Entries with `floor <= key < before`, newest first.
    #[must_use]
    pub fn before(log: &Log, stream: StreamId, before: u64, floor: u64, page: Page) -> Self {
        Self::new(log, stream, Direction::Down, before, floor, page)
    }

    /// The newest record of a stream that keeps the last, where it stands now: [`Log::last`] says where it stood.
    #[must_use]
    pub fn last(log: &Log, stream: StreamId, location: Location) -> Self {
        let page = Page { items_max: 1, bytes_max: usize::MAX };
        let segment = log.index.number_of(log.geometry().segment_of(location.lsn()));
        Self { segment, ..Self::before(log, stream, u64::MAX, 0, page) }
    }

    fn new(log: &Log, stream: StreamId, direction: Direction, bound: u64, floor: u64, page: Page) -> Self {
        let nothing = direction == Direction::Up && !log.has_after(stream, bound - 1);
        Self {
            stream,
            keys: log.index.keys_of(stream.kind),
            direction,
            bound,
            floor,
            page,
            stage: if nothing { Stage::Over } else { Stage::Seek },
            segment: log.index.newest_segment(stream),
            at: None,
            path: Vec::new(),
            jumped: None,
            guessed: false,
            may_jump: true,
            held: None,
            entries: Vec::new(),
            bytes: 0,
            more: false,
        }
    }

    /// Goes on as far as memory and what was fed lead.
    pub fn poll(&mut self, log: &Log) -> Progress {
        while self.stage != Stage::Over {
            if self.segment == 0 {
                if !self.turn_round() {
                    self.end(log);
                }
            } else if let Some(sealed) = log.index.sealed(self.segment) {
                if let Some(progress) = self.step_sealed(sealed, log) {
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

    /// What was found.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether there is more in the same direction.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// The stream that is looked through.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    fn step_open(&mut self, log: &Log) {
        let postings = log.index.postings(self.segment);
        let Some(list) = postings.and_then(|postings| postings.get(self.stream)) else {
            return self.leave_unfound(0);
        };
        if self.stage == Stage::Seek && !self.arrive(&list.list) {
            return;
        }
        let postings = postings.expect("looked at");
        let entry = |place: usize| postings.entry(self.keys, &list.list, place, list.entries[place]);
        let bound = self.bound;
        let split = partition_point(list.entries.len(), |place| entry(place).key < bound);
        let found: Vec<Entry> = match self.direction {
            Direction::Up => (split..list.entries.len()).map(entry).take(self.page.items_max + 1).collect(),
            Direction::Down => {
                let durable = |place: &usize| entry(*place).location.is_below(log.durable_lsn);
                let down = (0..split).rev().skip_while(|place| !durable(place));
                down.map(entry).take(self.page.items_max + 1).collect()
            }
        };
        if found.into_iter().all(|entry| self.take(entry, log)) {
            self.go_on(list.list.before);
        }
    }

    fn step_sealed(&mut self, sealed: &SealedSegment, log: &Log) -> Option<Progress> {
        let blocks = sealed.blocks_of(self.stream);
        if blocks.is_empty() {
            self.leave_unfound(sealed.base);
            return None;
        }
        let (at, made) =
            *self.at.get_or_insert((At::Within { first: blocks.start, end: blocks.end }, sealed.made));
        if made != sealed.made {
            self.begin_segment_again();
            return None;
        }
        let number = match at {
            At::Within { first, end } if first + 1 >= end => first,
            At::Within { first, end } => first + (end - first) / 2,
            At::Block(number) => number,
        };
        let place = sealed.block_place(number);
        let block = match self.held.take() {
            Some((held, block)) if held == place => block,
            _ => return Some(Progress::Read(place)),
        };
        let Some(pieces) = sealed.pieces(&block, number) else {
            return Some(Progress::Damaged(place));
        };
        match at {
            At::Within { first, end } if first + 1 < end => {
                // Some block between. If it has a piece of the list, that says whether the answer begins in this segment
                // at all; if so, it halves what is left.
                let list = pieces.clone().find(|piece| piece.stream == self.stream).map(|piece| piece.list);
                if self.stage == Stage::Seek && list.is_some_and(|list| !self.arrive(&list)) {
                    return None;
                }
                let below = pieces.clone().next().is_some_and(|piece| self.begins_below(&piece, sealed));
                let halved =
                    if below { At::Within { first: number, end } } else { At::Within { first, end: number } };
                self.at = Some((halved, made));
            }
            _ => self.step_block(sealed, number, pieces, log),
        }
        self.held = Some((place, block));
        None
    }

    /// The file of the segment was made again, and its blocks may hold other pieces: what was found stays.
    fn begin_segment_again(&mut self) {
        (self.at, self.held) = (None, None);
        if let Some(last) = self.entries.last() {
            self.bound = match self.direction {
                Direction::Up => last.key + 1,
                Direction::Down => last.key,
            };
        }
    }

    /// Whether a piece stands before the place where the bound would.
    fn begins_below(&self, piece: &Piece<'_>, sealed: &SealedSegment) -> bool {
        let (theirs, ours) = ((piece.stream.id, piece.stream.kind), (self.stream.id, self.stream.kind));
        theirs < ours || (theirs == ours && self.entry(piece, 0, sealed).key < self.bound)
    }

    fn entry(&self, piece: &Piece<'_>, at: usize, sealed: &SealedSegment) -> Entry {
        let place = piece.place as usize + at;
        let (first_key, posting) = (piece.list.first_key, piece.posting(at));
        entry_of(self.keys, first_key, place, posting, sealed.base, sealed.first_position)
    }

    /// Takes what the block has; it is the one that holds the bound, or one that goes on from there.
    fn step_block(&mut self, sealed: &SealedSegment, number: u32, mut pieces: Pieces<'_>, log: &Log) {
        let blocks = sealed.blocks_of(self.stream);
        let Some(piece) = pieces.find(|piece| piece.stream == self.stream) else {
            // The list may begin with the next block.
            if number + 1 < blocks.end && !matches!(self.at, Some((At::Block(_), _))) {
                self.at = Some((At::Block(number + 1), sealed.made));
                return;
            }
            return self.leave_unfound(sealed.base);
        };
        if self.stage == Stage::Seek && !self.arrive(&piece.list) {
            return;
        }
        let bound = self.bound;
        let split = partition_point(piece.len(), |at| self.entry(&piece, at, sealed).key < bound);
        let goes_on = match self.direction {
            Direction::Up => (split..piece.len()).all(|at| self.take(self.entry(&piece, at, sealed), log)),
            Direction::Down => (0..split).rev().all(|at| self.take(self.entry(&piece, at, sealed), log)),
        };
        if !goes_on {
            return;
        }
        match self.direction {
            Direction::Up if piece.goes_on => self.at = Some((At::Block(number + 1), sealed.made)),
            Direction::Down if piece.place > 0 && number > 0 => {
                self.at = Some((At::Block(number - 1), sealed.made))
            }
            _ => self.go_on(piece.list.before),
        }
    }

    /// Decides, at a segment that holds the stream, whether the answer begins here. If not, goes further back.
    fn arrive(&mut self, list: &List) -> bool {
        let before = self.earlier(list.before);
        self.guessed = list.before.is_guess();
        if let Some((from, step)) = self.jumped.take() {
            if list.first_key < self.bound {
                // Too far: what was jumped over may hold the bound.
                self.path.push(from);
                (self.segment, self.at, self.may_jump) = (step, None, false);
                return false;
            }
            // A page does not reach over what was jumped over.
            self.path.clear();
        }
        let here = match self.direction {
            Direction::Up => list.key_before < self.bound,
            Direction::Down => list.first_key < self.bound,
        };
        if here || before.newest == 0 {
            self.stage = Stage::Take;
            return true;
        }
        if self.may_jump && before.jump != 0 {
            self.jumped = Some((self.segment, before.newest));
            self.segment = before.jump;
        } else {
            self.path.push(self.segment);
            self.segment = before.newest;
        }
        self.at = None;
        false
    }

    /// The stream is not in a segment that was said to hold it. An index that was made again may have guessed so, and then the one
    /// before is looked at. A cold one held it: nothing older is kept.
    fn leave_unfound(&mut self, base: u64) {
        if self.guessed || !is_cold(base) {
            return self.go_on(Chain::guess(self.segment - 1));
        }
        if !self.turn_round() {
            (self.segment, self.at) = (0, None);
        }
    }

    /// Nothing older is left. If that was reached by a jump, what it led over is looked at; and what is looked for upwards begins
    /// with the oldest that there is. `false`: it was not reached in search of a begin.
    fn turn_round(&mut self) -> bool {
        if let Some((from, step)) = self.jumped.take() {
            self.path.push(from);
            (self.segment, self.at, self.may_jump) = (step, None, false);
            return true;
        }
        if self.stage != Stage::Seek || self.direction != Direction::Up || self.path.is_empty() {
            return false;
        }
        self.stage = Stage::Take;
        (self.segment, self.at) = (self.path.pop().unwrap_or(0), None);
        true
    }

    /// What an index says stands before a segment does, whatever it says: a lookup always ends.
    fn earlier(&self, before: Chain) -> Chain {
        let newest = before.newest.min(self.segment - 1);
        Chain { newest, jump: if before.jump < newest { before.jump } else { 0 } }
    }

    /// Turns to the next segment that holds the stream.
    fn go_on(&mut self, before: Chain) {
        self.guessed = before.is_guess();
        let before = self.earlier(before);
        self.at = None;
        self.segment = match (self.stage, self.direction) {
            (Stage::Take, Direction::Up) => self.path.pop().unwrap_or(0),
            _ => before.newest,
        };
    }

    /// Takes an entry, if there is room for it and it is wanted. Whether the next one is wanted too.
    fn take(&mut self, entry: Entry, log: &Log) -> bool {
        let below = entry.key < self.floor;
        let undurable = !entry.location.is_below(log.durable_lsn);
        let full = self.entries.len() == self.page.items_max
            || (self.bytes + entry.location.bytes() > self.page.bytes_max && !self.entries.is_empty());
        if below || undurable || full {
            self.stage = Stage::Over;
            self.more = full && !below && !undurable;
            return false;
        }
        self.bytes += entry.location.bytes();
        self.entries.push(entry);
        true
    }

    /// No segment is left to look at. A page that a jump cut short has more behind it.
    fn end(&mut self, log: &Log) {
        // None is older than the bound: an index that was made anew may have said that there is. The answer begins in the oldest.
        if self.stage == Stage::Seek
            && self.direction == Direction::Up
            && let Some(oldest) = self.path.pop()
        {
            (self.stage, self.segment, self.at) = (Stage::Take, oldest, None);
            return;
        }
        self.stage = Stage::Over;
        let last = self.entries.last().map(|last| last.key);
        self.more =
            self.direction == Direction::Up && last.is_some_and(|last| log.has_after(self.stream, last));
    }
}

/// The first of `len` places that is not `below`; those that are come first.
pub(super) fn partition_point(len: usize, below: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = usize::midpoint(low, high);
        if below(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
