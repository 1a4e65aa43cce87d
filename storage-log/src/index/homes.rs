//! Finding what a damaged record was: its bytes may not say, but the index of its segment does.

use crate::location::Location;
use crate::log::Log;
use crate::record::StreamId;

use super::Role;
use super::block::Pieces;
use super::lookup::{BlockPlace, Progress};
use super::postings::{Keys, SegmentPostings};

/// A search for the home stream and sequence of the record at a location. Looks through its whole segment.
#[derive(Clone, Debug)]
pub struct HomeSearch {
    location: Location,
    next: u32,
    block: Option<Vec<u8>>,
    found: Option<(StreamId, u64)>,
}

impl HomeSearch {
    /// Searches for the record at `location`.
    #[must_use]
    pub fn new(location: Location) -> Self {
        Self { location, next: 0, block: None, found: None }
    }

    /// Goes on as far as memory and what was fed lead.
    pub fn poll(&mut self, log: &Log) -> Progress {
        let base = log.geometry().segment_of(self.location.lsn());
        let number = log.index.number_of(base);
        let Some(sealed) = log.index.sealed(number) else {
            let postings = log.index.postings(number);
            self.found = postings.and_then(|postings| self.find_in(postings, log));
            return Progress::Done;
        };
        if let Some(block) = self.block.take() {
            let place = BlockPlace { base, number: self.next };
            let Some(mut pieces) = Pieces::of(&block, base, self.next) else {
                return Progress::Damaged(place);
            };
            self.found = pieces.find_map(|piece| {
                let at =
                    self.home_place(piece.stream, log, piece.len(), |at| piece.posting(at).location(base))?;
                Some((piece.stream, piece.list.first_key + u64::from(piece.place) + at))
            });
            self.next += 1;
        }
        if self.found.is_some() || self.next == sealed.blocks() {
            return Progress::Done;
        }
        Progress::Read(BlockPlace { base, number: self.next })
    }

    /// Takes the block that was asked for.
    pub fn feed(&mut self, block: Vec<u8>) {
        self.block = Some(block);
    }

    /// What was found; `None` for a place where no home record begins.
    #[must_use]
    pub fn found(&self) -> Option<(StreamId, u64)> {
        self.found
    }

    fn find_in(&self, postings: &SegmentPostings, log: &Log) -> Option<(StreamId, u64)> {
        postings.streams.iter().flatten().find_map(|(stream, list)| {
            let location = |at: usize| list.entries[at].location(postings.base);
            let at = self.home_place(*stream, log, list.entries.len(), location)?;
            Some((
                *stream,
                postings.entry(Keys::Sequences, &list.list, at as usize, list.entries[at as usize]).key,
            ))
        })
    }

    /// Which of `len` postings of a home stream it is: a stream's records stand in the order of their sequences.
    fn home_place(
        &self,
        stream: StreamId,
        log: &Log,
        len: usize,
        location: impl Fn(usize) -> Location,
    ) -> Option<u64> {
        if log.index.role(stream.kind) != Some(Role::Home) {
            return None;
        }
        (0..len).find(|at| location(*at) == self.location).map(|at| at as u64)
    }
}
