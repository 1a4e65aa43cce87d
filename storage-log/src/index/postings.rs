//! The postings of one segment, in memory: for each stream that has records there, where they stand.
//!
//! Kept while the segment takes records and until its index file is written; bounded by what one segment holds.

use smallvec::SmallVec;

use crate::format::RECORD_ALIGN;
use crate::location::{Entry, Head, Location};
use crate::record::StreamId;

use super::NUMBER_BITS;
use super::file::ColdFacts;
use super::lowest::Lowest;
use super::resident::{Chain, read_uint};
use super::streams::Streams;

/// Where a record stands in its segment, and its position counted from the segment's first: 24 bits each, and 16 bits of
/// length. Places and lengths are in units of 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Posting(u64);

impl Posting {
    pub(crate) const BYTES: usize = 8;

    /// No segment holds so many records.
    pub(crate) const POSITION_UNKNOWN: u64 = (1 << 24) - 1;

    pub(crate) fn new(offset: u64, bytes: usize, position: u64) -> Self {
        let (place, length) = (offset / RECORD_ALIGN as u64, (bytes / RECORD_ALIGN) as u64);
        assert!(place < 1 << 24 && length < 1 << 16 && position < 1 << 24, "a segment holds 256 MiB");
        Self(place << 40 | length << 24 | position)
    }

    pub(crate) fn read(bytes: &[u8]) -> Self {
        Self(read_uint::<8>(bytes, 0))
    }

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        self.0.to_le_bytes()
    }

    /// Its position, counted from the segment's first.
    pub(crate) fn position(self) -> u64 {
        self.0 & ((1 << 24) - 1)
    }

    /// Where it stands in the segment, in bytes.
    pub(crate) fn offset(self) -> u64 {
        (self.0 >> 40) * RECORD_ALIGN as u64
    }

    /// Stands before the posting of an amendment, and says what that amends.
    pub(crate) fn of_target(seq: u64) -> Self {
        Self(seq)
    }

    /// As [`Posting::of_target`] was given it. A file may say anything.
    pub(crate) fn target(self) -> u64 {
        self.0 & ((1 << NUMBER_BITS) - 1)
    }

    pub(crate) fn location(self, base: u64) -> Location {
        let bytes = (self.0 >> 24 & ((1 << 16) - 1)) as usize * RECORD_ALIGN;
        Location::new(base + self.offset(), bytes)
    }
}

/// What a stream is, to its postings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keys {
    /// Sequences, dense.
    Sequences,
    /// Positions.
    Positions,
}

/// The postings of one stream in one segment, but for the postings themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub(crate) struct List {
    /// Messages in the stream up to the last record here.
    pub(crate) message_count: u64,
    /// The segments that hold the stream before this one: the newest of them, and the newest of an earlier epoch.
    pub(crate) before: Chain,
    /// Newest key in those; 0 if there is none.
    pub(crate) key_before: u64,
    /// First key here.
    pub(crate) first_key: u64,
    /// Of a home stream: what its amendments reach back to, those here and in the segments of this epoch before.
    pub(crate) amended: Lowest,
}

/// Most streams have a posting or two in a segment: they stand in the list itself, and nothing is allocated for them.
pub(crate) type Entries = SmallVec<[Posting; 2]>;

/// What an append looks at and changes is at the front, in one line of a cache: up to the count in `list`.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct StreamPostings {
    pub(crate) stream: StreamId,
    /// Place of its id's resident entry: whoever appends again need not look for it.
    pub(crate) resident: u32,
    /// In a stream of amendments: pairs of what is amended and where the amendment stands.
    pub(crate) entries: Entries,
    /// Of a home stream.
    pub(crate) newest_seq: u64,
    pub(crate) list: List,
}

const _: () =
    assert!(std::mem::offset_of!(StreamPostings, list) + 8 <= 64 && size_of::<StreamPostings>() == 128);

impl StreamPostings {
    /// The newest record of a home stream.
    pub(crate) fn head(&self) -> Head {
        Head { seq: self.newest_seq, message_count: self.list.message_count }
    }

    /// Bytes from the newest record but one to the newest; 0 if there is only one.
    pub(crate) fn newest_distance(&self) -> u64 {
        match self.entries.as_slice() {
            [.., before, newest] => newest.offset() - before.offset(),
            _ => 0,
        }
    }

    /// Of a stream of amendments, only the newest of each record: what its file says.
    pub(crate) fn newest_amendments(&self) -> (List, Vec<Posting>) {
        let mut entries: Vec<Posting> = Vec::with_capacity(self.entries.len());
        for pair in self.entries.chunks_exact(2) {
            if entries.len() >= 2 && entries[entries.len() - 2] == pair[0] {
                entries.truncate(entries.len() - 2);
            }
            entries.extend_from_slice(pair);
        }
        let first_key = entries.first().map_or(0, |target| target.target());
        (List { first_key, ..List::default() }, entries)
    }
}

/// All postings of one segment.
#[derive(Debug)]
pub struct SegmentPostings {
    /// Counted from 1.
    pub(crate) number: u32,
    pub(crate) base: u64,
    pub(crate) first_position: u64,
    /// Position after its last record, once that is known.
    pub(crate) next_position: u64,
    /// Nothing, unless it is cold.
    pub(crate) cold: ColdFacts,
    pub(crate) streams: Streams,
}

impl SegmentPostings {
    pub(crate) fn new(number: u32, base: u64, first_position: u64) -> Self {
        let (cold, streams) = (ColdFacts::default(), Streams::new());
        Self { number, base, first_position, next_position: first_position, cold, streams }
    }

    pub(crate) fn get(&self, stream: StreamId) -> Option<&StreamPostings> {
        self.streams.find(stream).map(|place| self.streams.at(place))
    }

    pub(crate) fn get_mut(&mut self, stream: StreamId) -> Option<&mut StreamPostings> {
        self.streams.find(stream).map(|place| self.streams.at_mut(place))
    }

    /// What stands for the record at `location`.
    pub(crate) fn posting(&self, location: Location, position: u64) -> Posting {
        Posting::new(location.lsn() - self.base, location.bytes(), position - self.first_position)
    }

    /// Enters a record at `location` into `stream`; `begin` says where its resident entry is and what came before, if it is
    /// the first here.
    pub(crate) fn push(
        &mut self,
        stream: StreamId,
        location: Location,
        position: u64,
        begin: impl FnOnce() -> (u32, List),
    ) -> &mut StreamPostings {
        let posting = self.posting(location, position);
        let place = self.streams.place_of(stream, begin);
        let postings = self.streams.at_mut(place);
        postings.entries.push(posting);
        postings
    }

    /// Enters an amendment of the record `target` of `home`, which has a record here, into `amended`: a list of pairs in the order of
    /// what is amended, and of one record the newest last. Gives the place of the resident entry of `home`.
    pub(crate) fn amend(
        &mut self,
        home: StreamId,
        amended: StreamId,
        target: u64,
        location: Location,
        position: u64,
    ) -> Option<u32> {
        let posting = self.posting(location, position);
        let place = self.streams.place_of(amended, || (0, List::default()));
        let entries = &mut self.streams.at_mut(place).entries;
        // Most are of what was said a moment ago.
        let later = entries.chunks_exact(2).rev().take_while(|pair| pair[0].target() > target).count();
        let at = entries.len() - 2 * later;
        entries.insert_from_slice(at, &[Posting::of_target(target), posting]);
        let home = self.get_mut(home)?;
        home.list.amended = home.list.amended.min(Lowest::of(target));
        Some(home.resident)
    }

    /// The record that `posting`, number `place` of a list, stands for.
    pub(crate) fn entry(&self, keys: Keys, list: &List, place: usize, posting: Posting) -> Entry {
        entry_of(keys, list.first_key, place, posting, self.base, self.first_position)
    }
}

pub(crate) fn entry_of(
    keys: Keys,
    first_key: u64,
    place: usize,
    posting: Posting,
    base: u64,
    first_position: u64,
) -> Entry {
    let key = match keys {
        Keys::Sequences => first_key + place as u64,
        Keys::Positions => first_position + posting.position(),
    };
    Entry { key, location: posting.location(base) }
}
