//! Which records stand in which stream, and where: derived from the log.
//!
//! Three parts, newest to oldest. The **postings** of segments that take records, or whose file is not written yet, are in
//! memory whole (`postings.rs`). Those of a **sealed** segment are in a file beside it, sorted by stream (`file.rs`, `block.rs`);
//! memory has four bytes for each of its blocks. And every stream, however old, has a **resident** entry (`resident.rs`): its
//! newest key and the newest segment that holds it, from which a [`Lookup`] finds its way back.
//!
//! What decides something in the turn of an append or an answer (heads, whether there is more, the newest state) is in memory;
//! what fills a page may have to be read.

mod amended;
pub(crate) mod block;
mod erased;
pub(crate) mod file;
mod homes;
mod live;
mod lookup;
mod lowest;
pub(crate) mod postings;
mod rebuild;
pub(crate) mod resident;
mod snapshot;
mod streams;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::location::{Head, Location};
use crate::record::{Link, StreamId, StreamKind, amended_by};
use crate::segment::{Geometry, as_appended, is_cold};

pub use amended::{AmendedSearch, Wanted};
pub use block::INDEX_BLOCK_BYTES;
pub(crate) use file::{ColdFacts, SegmentEnd};
pub use file::{IndexFooter, IndexJob, SealedSegment, index_file_name};
pub use homes::HomeSearch;
pub use lookup::{BlockPlace, Lookup, Page, Progress};
use postings::{Keys, List, Posting, SegmentPostings, StreamPostings};
pub use rebuild::{RebuildJob, Rebuilt};
pub use snapshot::{Blocks, SnapshotFooter, merge};
use snapshot::{Resident, Update};
pub(crate) use snapshot::{Residents, with_block};

/// The postings of a segment, shared with whoever writes their file.
pub type Postings = Arc<SegmentPostings>;

use lowest::Lowest;
use resident::{Chain, Home, Links, Table};

/// Sequences, counts and positions are kept in six bytes: a million a second for nine years.
const NUMBER_BITS: u32 = 48;

/// What the kinds of streams are to a log. An id has at most one stream of each kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kinds {
    /// Has records of its own, numbered without a hole.
    pub home: StreamKind,
    /// Of the same ids: only the newest record counts. It carries the number that its owner gives it, which must grow.
    pub last: [StreamKind; 2],
    /// The same of other ids, which have no home stream.
    pub alone: [StreamKind; 2],
    /// Of other ids: linked records, ordered by position.
    pub linked: [StreamKind; 2],
    /// Of the ids of home streams: links from records to the earlier ones that they amend. Found by what is amended.
    pub amended: StreamKind,
    /// Schema of the records of home streams of which nothing but number, time and count matters to the second linked kind: that is
    /// all that retention leaves of them for such links.
    pub content: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Amended,
    Home,
    Last(usize),
    Linked(usize),
    Runs,
}

impl Kinds {
    pub(crate) fn role(&self, kind: StreamKind) -> Option<Role> {
        let number = |kinds: &[StreamKind]| kinds.iter().position(|named| *named == kind);
        if kind == self.home {
            return Some(Role::Home);
        }
        if kind == self.amended {
            return Some(Role::Amended);
        }
        // What stands alone has an entry to itself, and in that the places of the others.
        let last = number(&self.last).or_else(|| number(&self.alone)).map(Role::Last);
        let linked = || number(&self.linked).map(Role::Linked);
        last.or_else(linked).or_else(|| (kind == StreamKind::RUNS).then_some(Role::Runs))
    }
}

/// A record to enter.
pub(crate) struct Inserted<L> {
    pub(crate) stream: StreamId,
    pub(crate) head: Head,
    pub(crate) location: Location,
    pub(crate) position: u64,
    pub(crate) links: L,
    /// Its home stream has it; else only the links count.
    pub(crate) is_at_home: bool,
}

/// A segment whose postings are in memory.
struct Open {
    postings: Postings,
    /// Known once a batch of the next segment was made.
    end: Option<SegmentEnd>,
    /// Somebody writes its file.
    asked: bool,
}

/// Maps streams to the places of their records.
pub(crate) struct Index {
    kinds: Kinds,
    geometry: Geometry,
    homes: Table<Home>,
    users: Table<Links>,
    runs: u64,
    /// From the first segment on.
    sealed: Vec<SealedSegment>,
    /// Those that follow.
    open: VecDeque<Open>,
}

impl Index {
    pub(crate) fn new(kinds: Kinds, geometry: Geometry) -> Self {
        let (homes, users) = (Table::new(), Table::new());
        Self { kinds, geometry, homes, users, runs: 0, sealed: Vec::new(), open: VecDeque::new() }
    }

    pub(crate) fn role(&self, kind: StreamKind) -> Option<Role> {
        self.kinds.role(kind)
    }

    pub(crate) fn keys_of(&self, kind: StreamKind) -> Keys {
        match self.role(kind) {
            Some(Role::Amended | Role::Linked(_)) => Keys::Positions,
            Some(Role::Home | Role::Last(_) | Role::Runs) | None => Keys::Sequences,
        }
    }

    /// Newest record of a home stream.
    pub(crate) fn head(&self, stream: StreamId) -> Head {
        match self.role(stream.kind) {
            Some(Role::Home) => {
                // Who appends needs the list anyway, and most append again where they did.
                let list = self.open.back().and_then(|open| open.postings.get(stream));
                let head = list.map(StreamPostings::head);
                head.unwrap_or_else(|| self.homes.get(&stream.id).unwrap_or_default().head)
            }
            Some(Role::Runs) => Head { seq: self.runs, message_count: 0 },
            _ => Head::default(),
        }
    }

    /// Position of the newest record of a home stream; 0 is none. Where that is not known, it is the first of its segment.
    pub(crate) fn head_position(&self, stream: StreamId) -> u64 {
        let home = self.homes.get(&stream.id).filter(|_| self.role(stream.kind) == Some(Role::Home));
        let placed = home.and_then(|home| Some((self.first_position(home.chain.newest)?, home.offset)));
        let offset = |offset| if offset == Posting::POSITION_UNKNOWN { 0 } else { offset };
        placed.map_or(0, |(first, from_first)| first + offset(u64::from(from_first)))
    }

    /// Place of the newest record of a stream that keeps the last.
    pub(crate) fn last(&self, stream: StreamId) -> Option<Location> {
        match self.role(stream.kind)? {
            Role::Last(number) => self.homes.get(&stream.id)?.last[number],
            _ => None,
        }
    }

    /// Ids known: of conversations with a record, and of users. All of the former are looked at.
    pub(crate) fn ids_count(&self) -> (usize, usize) {
        // What keeps its last has an entry too, also of ids that are no conversation's.
        (self.homes.entries().filter(|home| home.head.seq > 0).count(), self.users.len())
    }

    /// Bytes of memory beside the postings of open segments.
    pub(crate) fn resident_bytes(&self) -> usize {
        let fences: usize = self.sealed.iter().map(SealedSegment::bytes).sum();
        self.homes.bytes() + self.users.bytes() + fences
    }

    /// Number of the newest segment that holds a stream; 0 is none.
    pub(crate) fn newest_segment(&self, stream: StreamId) -> u32 {
        let chain = match self.role(stream.kind) {
            Some(Role::Home) => self.homes.get(&stream.id).unwrap_or_default().chain,
            Some(Role::Linked(number)) => {
                self.users.get(&stream.id).unwrap_or_default().streams[number].chain
            }
            _ => Chain::default(),
        };
        chain.newest
    }

    /// Number of the newest segment that holds `home`, if a record of it in the segment of `position` or a later one may amend `seq` or
    /// one before that.
    pub(crate) fn amended_since(&self, home: StreamId, position: u64, seq: u64) -> Option<u32> {
        let resident = self.homes.get(&home.id)?;
        let is_of_this_epoch = resident.chain.is_in_epoch_of(self.segment_of_position(position));
        let is_amended =
            resident.amended.reaches(seq) || (!is_of_this_epoch && resident.amended_before.reaches(seq));
        is_amended.then_some(resident.chain.newest)
    }

    /// Number of the segment that holds a position.
    fn segment_of_position(&self, position: u64) -> u32 {
        let sealed = self.sealed.partition_point(|sealed| sealed.first_position <= position);
        let open = self.open.partition_point(|open| open.postings.first_position <= position);
        ((sealed + open) as u32).max(1)
    }

    /// Position of the first record of a segment.
    pub(crate) fn first_position(&self, number: u32) -> Option<u64> {
        let sealed = self.sealed(number).map(|sealed| sealed.first_position);
        sealed.or_else(|| Some(self.postings(number)?.first_position))
    }

    pub(crate) fn all_sealed(&self) -> &[SealedSegment] {
        &self.sealed
    }

    pub(crate) fn sealed(&self, number: u32) -> Option<&SealedSegment> {
        self.sealed.get(number.checked_sub(1)? as usize)
    }

    pub(crate) fn postings(&self, number: u32) -> Option<&SegmentPostings> {
        let place = (number as usize).checked_sub(self.sealed.len() + 1)?;
        Some(&*self.open.get(place)?.postings)
    }

    /// The segment at `base`, of whatever generation, counted from 1.
    pub(crate) fn number_of(&self, base: u64) -> u32 {
        u32::try_from(as_appended(base) / self.geometry.segment_bytes + 1).expect("a log holds 1 PiB")
    }

    /// What follows stands in the segment of `lsn`, whose first record takes `position`.
    pub(crate) fn begin_segment(&mut self, lsn: u64, position: u64) {
        let base = self.geometry.segment_of(lsn);
        let number = self.number_of(base);
        let newest = self.open.back().map_or(self.sealed.len() as u32, |open| open.postings.number);
        if newest == number {
            return;
        }
        assert_eq!(newest + 1, number, "segments follow each other");
        if let Some(open) = self.open.back_mut() {
            Self::writable(open).next_position = position;
        }
        let postings = Arc::new(SegmentPostings::new(number, base, position));
        self.open.push_back(Open { postings, end: None, asked: false });
    }

    fn writable(open: &mut Open) -> &mut SegmentPostings {
        Arc::get_mut(&mut open.postings).expect("a segment that takes records is shared with nobody")
    }

    /// Enters a record that is being appended, or was read: the distance from the one before it in its home stream, 0 if there is none in
    /// this segment. `None` if its kinds or numbers make no sense.
    pub(crate) fn insert(&mut self, record: Inserted<impl IntoIterator<Item = Link>>) -> Option<u64> {
        let Inserted { stream, head, location, position, links, is_at_home } = record;
        let role = self.role(stream.kind)?;
        if [head.seq, head.message_count, position].iter().any(|number| number >> NUMBER_BITS != 0) {
            return None;
        }
        let postings = Self::writable(self.open.back_mut().expect("a segment was begun"));
        let (number, offset) = (postings.number, position - postings.first_position);
        let mut distance = 0;
        match role {
            _ if !is_at_home => {}
            Role::Home => {
                let mut is_first = false;
                let postings = postings.push(stream, location, position, || {
                    is_first = true;
                    let place = self.homes.place_of(&stream.id);
                    let before = self.homes.at(place);
                    let list = list_of(before.chain, before.head.seq, number, head.seq);
                    (place, List { amended: before.amended_at(number), ..list })
                });
                distance = postings.newest_distance();
                (postings.newest_seq, postings.list.message_count) = (head.seq, head.message_count);
                if is_first {
                    self.homes.update_at(postings.resident, |home| home.enter(number));
                }
                self.homes.set_head(postings.resident, head, offset);
            }
            Role::Last(place) => {
                let begin = || (self.homes.place_of(&stream.id), List::default());
                let postings = postings.push(stream, location, position, begin);
                distance = postings.newest_distance();
                postings.entries.drain(..postings.entries.len() - 1);
                postings.list.first_key = head.seq;
                self.homes.update_at(postings.resident, |home| home.last[place] = Some(location));
            }
            Role::Runs => self.runs = head.seq,
            Role::Linked(_) | Role::Amended => return None,
        }
        for link in links {
            let place = match self.kinds.role(link.stream.kind)? {
                Role::Linked(place) => place,
                Role::Amended => {
                    let target = amended_by(stream, head.seq, link)?;
                    if is_at_home {
                        self.homes.update_at(
                            postings.amend(stream, link.stream, target, location, position)?,
                            |home| {
                                home.amended = home.amended.min(Lowest::of(target));
                            },
                        );
                    }
                    continue;
                }
                Role::Home | Role::Last(_) | Role::Runs => return None,
            };
            let link = link.stream;
            let mut is_first = false;
            let postings = postings.push(link, location, position, || {
                is_first = true;
                let user = self.users.place_of(&link.id);
                let before = self.users.at(user).streams[place];
                (user, list_of(before.chain, before.newest, number, position))
            });
            if is_first {
                self.users.update_at(postings.resident, |links| links.streams[place].enter(number));
            }
            self.users.set_newest(postings.resident, place, position);
        }
        Some(distance)
    }

    /// The newest durable key of a stream and, when that is in memory, where its record stands.
    pub(crate) fn newest_durable(&self, stream: StreamId, durable_lsn: u64) -> (u64, Option<Location>) {
        if !matches!(self.role(stream.kind), Some(Role::Home | Role::Linked(_))) {
            return (0, None);
        }
        let keys = self.keys_of(stream.kind);
        for open in self.open.iter().rev() {
            let Some(StreamPostings { list, entries, .. }) = open.postings.get(stream) else {
                continue;
            };
            let entry = |place: usize| open.postings.entry(keys, list, place, entries[place]);
            // What is not durable is little, and at the end.
            let places = (0..entries.len()).rev();
            let durable = places.map(entry).find(|entry| entry.location.is_below(durable_lsn));
            if let Some(entry) = durable {
                return (entry.key, Some(entry.location));
            }
            if self.postings(list.before.newest).is_none() {
                return (list.key_before, None);
            }
        }
        let newest = match self.role(stream.kind) {
            Some(Role::Home) => self.homes.get(&stream.id).unwrap_or_default().head.seq,
            Some(Role::Linked(number)) => {
                self.users.get(&stream.id).unwrap_or_default().streams[number].newest
            }
            _ => 0,
        };
        (newest, None)
    }

    /// Notes how the segment before that of `lsn` ends, when the first batch of the latter is made.
    pub(crate) fn end_segment_before(&mut self, lsn: u64, end: SegmentEnd) {
        let number = self.number_of(self.geometry.segment_of(lsn));
        let before = self.open.iter_mut().find(|open| open.postings.number + 1 == number);
        if let Some(before) = before {
            before.end.get_or_insert(end);
        }
    }

    /// The newest segment is a cold one, of whose records all were entered.
    pub(crate) fn end_cold(&mut self, end: SegmentEnd, cold: ColdFacts, next_position: u64) {
        let open = self.open.back_mut().expect("it was begun");
        open.end = Some(end);
        let postings = Self::writable(open);
        (postings.cold, postings.next_position) = (cold, next_position);
    }

    /// The oldest segment in memory, if all of it is durable and its file is not being written.
    pub(crate) fn poll_seal(&mut self, durable_lsn: u64) -> Option<(Postings, SegmentEnd)> {
        let open = self.open.front_mut()?;
        let end = open.end.filter(|_| !open.asked)?;
        if durable_lsn <= as_appended(open.postings.base) + self.geometry.segment_bytes {
            return None;
        }
        open.asked = true;
        Some((open.postings.clone(), end))
    }

    /// The file of the oldest segment in memory was written, or could not be. Gives its postings back: they take long to drop.
    pub(crate) fn handle_sealed(&mut self, sealed: Option<SealedSegment>) -> Option<Postings> {
        let open = self.open.front_mut().expect("its file was written");
        open.asked = false;
        let sealed = sealed?;
        assert_eq!(sealed.base, open.postings.base, "files are written in the order of the segments");
        self.sealed.push(sealed);
        self.open.pop_front().map(|open| open.postings)
    }

    /// Base and positions of a sealed segment: its own number, its first, and the first of the segment that follows. `None` when it
    /// was written anew since.
    pub(crate) fn extent(&self, base: u64) -> Option<(u32, u64, u64)> {
        let number = self.number_of(base);
        let first = self.sealed(number).filter(|sealed| sealed.base == base)?.first_position;
        let next = self.sealed(number + 1).map(|sealed| sealed.first_position);
        let next = next.or_else(|| Some(self.postings(number + 1)?.first_position));
        Some((number, first, next.expect("a sealed segment is followed by another")))
    }

    /// The index file of a sealed segment was made again, or the segment was written anew: from now on its records are found where
    /// this says.
    pub(crate) fn replace_sealed(&mut self, sealed: SealedSegment) {
        let number = self.number_of(sealed.base);
        let before = &mut self.sealed[number as usize - 1];
        let (made, erased) = (before.made + 1, before.erased);
        *before = sealed;
        (before.made, before.erased) = (made, erased);
    }

    /// Whether this is how a sealed segment stands now.
    pub(crate) fn stands_at(&self, base: u64) -> bool {
        self.sealed(self.number_of(base)).is_some_and(|sealed| sealed.base == base)
    }

    /// Whether the segment of a place was rewritten: perhaps since then, and generations come again.
    pub(crate) fn may_have_moved(&self, location: Location) -> bool {
        let number = self.number_of(self.geometry.segment_of(location.lsn()));
        self.sealed(number).is_some_and(|sealed| is_cold(sealed.base))
    }

    /// Enters a segment whose file stood there at start. Its blocks follow.
    pub(crate) fn enter_sealed(&mut self, sealed: SealedSegment, runs: u64) {
        self.sealed.push(sealed);
        self.runs += runs;
    }

    /// Enters what a block of the newest sealed segment says. `None` if it is not sound.
    pub(crate) fn enter_block(&mut self, number: u32, block: &[u8]) -> Option<()> {
        let sealed = self.sealed.last().expect("a segment was entered");
        let segment = self.sealed.len() as u32;
        for update in Update::of_block(block, number, sealed, &self.kinds)? {
            update.enter(segment, &mut self.homes, &mut self.users);
        }
        Some(())
    }

    /// Enters what a block of a snapshot says, before any segment. `None` if it is not sound.
    pub(crate) fn enter_snapshot_block(&mut self, number: u32, block: &[u8]) -> Option<()> {
        for (id, entry) in snapshot::entries_of_block(block, number)? {
            match entry {
                Resident::Conversation(home) => self.homes.update(&id, |entry| *entry = home),
                Resident::User(links) => self.users.update(&id, |entry| *entry = links),
            }
        }
        Some(())
    }
}

/// The list of a stream that begins in segment `number` with `first_key`, and stood as `before`.
fn list_of(chain: Chain, key_before: u64, number: u32, first_key: u64) -> List {
    let before = Chain { newest: chain.newest, jump: chain.with(number).jump };
    List { before, key_before, first_key, ..List::default() }
}
