//! Which records stand in which stream, and where: derived from the log, in memory.
//!
//! A home stream is a dense array by sequence, a linked stream an array ordered by position. Both hold packed
//! locations, so an entry costs 8 or 16 bytes. Sealed, on-disk indexes take the older part over later; nothing outside
//! this file knows how a location is found.

use hashbrown::HashMap;

use crate::format::RECORD_ALIGN;
use crate::record::{Record, StreamId, StreamKind};

const BYTES_BITS: u32 = 24;

/// Where a record stands: its byte in the log and its length, packed into 64 bits (40 + 24, in units of 16 bytes).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Location(u64);

impl Location {
    pub(crate) fn new(lsn: u64, bytes: usize) -> Self {
        let unit = RECORD_ALIGN as u64;
        let (place, length) = (lsn / unit, bytes as u64 / unit);
        assert!(lsn.is_multiple_of(unit) && (bytes as u64).is_multiple_of(unit));
        assert!(
            place < 1 << (64 - BYTES_BITS) && length < 1 << BYTES_BITS,
            "a log holds 16 TiB, a record 256 MiB"
        );
        Self(place << BYTES_BITS | length)
    }

    /// First byte in the log.
    #[must_use]
    pub fn lsn(self) -> u64 {
        (self.0 >> BYTES_BITS) * RECORD_ALIGN as u64
    }

    /// Length in the log.
    #[must_use]
    pub fn bytes(self) -> usize {
        ((self.0 & ((1 << BYTES_BITS) - 1)) as usize) * RECORD_ALIGN
    }
}

/// One record of a stream: `key` is its sequence in a home stream and its position in a linked one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Sequence (home) or position (linked).
    pub key: u64,
    /// Where it stands.
    pub location: Location,
}

/// The newest record of a home stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Head {
    /// Its sequence; 0 when the stream has no record.
    pub seq: u64,
    /// Messages in the stream.
    pub message_count: u64,
}

/// How much of a stream is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keep {
    /// Every record.
    All,
    /// The newest record only: a state.
    Last,
}

/// What each kind of stream keeps. Kinds that are not named keep all.
#[derive(Clone, Debug, Default)]
pub struct Retention {
    last: Vec<StreamKind>,
}

impl Retention {
    /// Keeps only the newest record of streams of `kinds`.
    #[must_use]
    pub fn keep_last(kinds: &[StreamKind]) -> Self {
        Self { last: kinds.to_vec() }
    }

    fn of(&self, kind: StreamKind) -> Keep {
        if self.last.contains(&kind) { Keep::Last } else { Keep::All }
    }
}

struct Home {
    head: Head,
    /// Locations of `head.seq - locations.len() + 1 ..= head.seq`.
    locations: Vec<Location>,
}

/// Maps streams to the places of their records.
pub(crate) struct Index {
    homes: HashMap<StreamId, Home, foldhash::fast::RandomState>,
    linked: HashMap<StreamId, Vec<Entry>, foldhash::fast::RandomState>,
    retention: Retention,
}

impl Index {
    pub(crate) fn new(retention: Retention) -> Self {
        Self { homes: HashMap::default(), linked: HashMap::default(), retention }
    }

    pub(crate) fn head(&self, stream: StreamId) -> Head {
        self.homes.get(&stream).map_or_else(Head::default, |home| home.head)
    }

    pub(crate) fn last_location(&self, stream: StreamId) -> Option<Location> {
        self.homes.get(&stream)?.locations.last().copied()
    }

    pub(crate) fn streams_count(&self) -> usize {
        self.homes.len() + self.linked.len()
    }

    /// Enters a record that was just appended.
    pub(crate) fn insert(
        &mut self,
        stream: StreamId,
        head: Head,
        entry: Entry,
        position: u64,
        links: &[StreamId],
    ) {
        let keep = self.retention.of(stream.kind);
        let home =
            self.homes.entry(stream).or_insert_with(|| Home { head: Head::default(), locations: Vec::new() });
        assert_eq!(home.head.seq + 1, head.seq, "sequences of a stream are dense");
        home.head = head;
        if keep == Keep::Last {
            home.locations.clear();
        }
        home.locations.push(entry.location);
        for link in links {
            self.linked.entry(*link).or_default().push(Entry { key: position, location: entry.location });
        }
    }

    /// Enters a record that recovery read. The caller has checked that its sequence follows.
    pub(crate) fn insert_record(&mut self, record: &Record<'_>, location: Location) {
        let head = Head { seq: record.seq(), message_count: record.message_count() };
        let links: Vec<StreamId> = record.links().collect();
        self.insert(record.stream(), head, Entry { key: head.seq, location }, record.position(), &links);
    }

    /// Whether record `seq` of a home stream stands at `location`.
    pub(crate) fn stands_at(&self, stream: StreamId, seq: u64, location: Location) -> bool {
        let entry =
            seq.checked_sub(1).and_then(|before| self.homes.get(&stream)?.entries_after(before).next());
        entry == Some(Entry { key: seq, location })
    }

    /// The home stream of the record at `location`, and its sequence there. Looks through every stream.
    pub(crate) fn home_of(&self, location: Location) -> Option<(StreamId, u64)> {
        self.homes.iter().find_map(|(stream, home)| {
            // Both grow together: a stream's records stand in the log in the order of their sequences.
            let place = home.locations.binary_search_by_key(&location.lsn(), |held| held.lsn()).ok()?;
            Some((*stream, home.first_seq() + place as u64))
        })
    }

    /// Entries of a stream with `after < key`, below `lsn_end`, oldest first.
    pub(crate) fn entries_after(
        &self,
        stream: StreamId,
        after: u64,
        lsn_end: u64,
    ) -> impl Iterator<Item = Entry> {
        let (home, linked) = (self.homes.get(&stream), self.linked.get(&stream));
        let from_home = home.into_iter().flat_map(move |home| home.entries_after(after));
        let from_links = linked.into_iter().flat_map(move |entries| {
            let start = entries.partition_point(|entry| entry.key <= after);
            entries[start..].iter().copied()
        });
        from_home.chain(from_links).take_while(move |entry| entry.location.lsn() < lsn_end)
    }

    /// Entries of a home stream with `key < before`, below `lsn_end`, newest first.
    pub(crate) fn entries_before(
        &self,
        stream: StreamId,
        before: u64,
        lsn_end: u64,
    ) -> impl Iterator<Item = Entry> {
        let home = self.homes.get(&stream).into_iter();
        home.flat_map(move |home| home.entries_before(before))
            .skip_while(move |entry| entry.location.lsn() >= lsn_end)
    }
}

impl Home {
    /// Sequence of the first location held.
    fn first_seq(&self) -> u64 {
        self.head.seq + 1 - self.locations.len() as u64
    }

    fn entries_after(&self, after: u64) -> impl Iterator<Item = Entry> {
        let skip = (after + 1).saturating_sub(self.first_seq());
        let start = usize::try_from(skip).unwrap_or(usize::MAX).min(self.locations.len());
        let first = self.first_seq() + start as u64;
        self.locations[start..].iter().zip(first..).map(|(location, key)| Entry { key, location: *location })
    }

    fn entries_before(&self, before: u64) -> impl Iterator<Item = Entry> {
        let first = self.first_seq();
        let end =
            usize::try_from(before.saturating_sub(first)).unwrap_or(usize::MAX).min(self.locations.len());
        let entries = self.locations[..end].iter().enumerate();
        entries.rev().map(move |(place, location)| Entry { key: first + place as u64, location: *location })
    }
}
