//! Finding what a damaged record was: its bytes may not say, but the index of its segment does.

use crate::location::Entry;
use crate::log::Log;
use crate::record::StreamId;

use super::Role;
use super::lookup::Progress;
use super::postings::{SegmentPostings, StreamPostings};

/// A search for the home stream and sequence of a record that is known by a link. Looks through its whole segment.
#[derive(Clone, Debug)]
pub struct HomeSearch {
    /// As the link has it: `key` is a position.
    entry: Entry,
    next: u32,
    /// Which making of the file is looked through.
    made: Option<u32>,
    block: Option<Vec<u8>>,
    found: Option<(StreamId, u64)>,
}

impl HomeSearch {
    /// Searches for the record that a linked stream has as `entry`.
    #[must_use]
    pub fn new(entry: Entry) -> Self {
        Self { entry, next: 0, made: None, block: None, found: None }
    }

    /// Goes on as far as memory and what was fed lead.
    pub fn poll(&mut self, log: &Log) -> Progress {
        let number = log.index.number_of(log.geometry().segment_of(self.entry.location.lsn()));
        let Some(sealed) = log.index.sealed(number) else {
            let postings = log.index.postings(number);
            self.found = postings.and_then(|postings| self.find_in(postings, log));
            return Progress::Done;
        };
        if self.made != Some(sealed.made) {
            (self.made, self.next, self.block) = (Some(sealed.made), 0, None);
        }
        if let Some(block) = self.block.take() {
            let Some(mut pieces) = sealed.pieces(&block, self.next) else {
                return Progress::Damaged(sealed.block_place(self.next));
            };
            self.found = pieces.find_map(|piece| {
                let position = |at| sealed.first_position + piece.posting(at).position();
                let at = self.home_place(piece.stream, log, piece.len(), position)?;
                Some((piece.stream, piece.list.first_key + u64::from(piece.place) + at))
            });
            self.next += 1;
        }
        if self.found.is_some() || self.next == sealed.blocks() {
            return Progress::Done;
        }
        Progress::Read(sealed.block_place(self.next))
    }

    /// Takes the block that was asked for.
    pub fn feed(&mut self, block: Vec<u8>) {
        self.block = Some(block);
    }

    /// What was found; `None` for a record that is in no home stream.
    #[must_use]
    pub fn found(&self) -> Option<(StreamId, u64)> {
        self.found
    }

    fn find_in(&self, postings: &SegmentPostings, log: &Log) -> Option<(StreamId, u64)> {
        postings.streams.iter().find_map(|StreamPostings { stream, list, entries, .. }| {
            let position = |at: usize| postings.first_position + entries[at].position();
            let at = self.home_place(*stream, log, entries.len(), position)?;
            Some((*stream, list.first_key + at))
        })
    }

    /// Which of `len` postings of a home stream it is: a stream's records stand in the order of their sequences.
    fn home_place(
        &self,
        stream: StreamId,
        log: &Log,
        len: usize,
        position: impl Fn(usize) -> u64,
    ) -> Option<u64> {
        if log.index.role(stream.kind) != Some(Role::Home) {
            return None;
        }
        (0..len).find(|at| position(*at) == self.entry.key).map(|at| at as u64)
    }
}
