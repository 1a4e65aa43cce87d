//! What a segment that is written anew keeps, and where that will stand.

use crate::format::{RECORD_ALIGN, SEGMENT_HEADER_BYTES};
use crate::index::file::{ColdFacts, IndexFooter};
use crate::index::resident::Home;
use crate::index::{Blocks, Residents, Role, SnapshotFooter};
use crate::log::LogConfig;
use crate::record::{Record, SCHEMA_ERASED, SCHEMA_GONE, StreamId, stub};
use crate::segment::as_appended;

use super::erasure::Verdict;

/// What need not be kept, by when it was stored: milliseconds since 1970, 0 keeps all. Streams that keep the last are not concerned,
/// nor is the newest record of any stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Retention {
    /// Home streams begin here.
    pub home_from: u64,
    /// Linked streams do, by their number in [`crate::Kinds::linked`]. Where a link stays and the record has left its home stream, the
    /// record stays for the link.
    pub linked_from: [u64; 2],
}

/// In its home stream.
const AT_HOME: u8 = 1;
/// Older than home streams are kept.
const EXPIRED: u8 = 2;
/// Keeps number, place and links of the second kind, and nothing else.
const STUB: u8 = 4;
/// In one of the linked streams: this, shifted by the number of it.
const LINKED: u8 = 8;

/// Of a kind of which nothing is needed for links of the second kind.
const CONTENT: u8 = 32;
/// Keeps number, place and all its links, and nothing else.
const ERASED: u8 = 64;

/// What is known of a record: 40 bytes, and a segment holds at most 2.8 million.
#[derive(Clone, Copy)]
struct Fact {
    stream: StreamId,
    flags: u8,
    units: u16,
    /// Links that stay if the content goes: of what is erased all into linked streams, else those of the second kind that are kept.
    links: u16,
    /// Where it stands in the segment, in [`RECORD_ALIGN`].
    place: u32,
    /// Of what it is: see [`Record::portable_sum`].
    sum: u32,
    seq: u64,
}

impl Fact {
    fn is_kept(&self) -> bool {
        self.flags & (AT_HOME | LINKED | LINKED << 1) != 0
    }
}

/// Where a record goes: places and lengths in [`RECORD_ALIGN`].
#[derive(Clone, Copy)]
pub(super) struct Moved {
    pub(super) from: u32,
    pub(super) to: u32,
    /// Its length as it is, and as it will be.
    pub(super) before: u16,
    pub(super) units: u16,
    flags: u8,
    sum: u32,
}

impl Moved {
    /// Whether this is the record that was found there before: what is copied is read once more.
    pub(super) fn is(&self, record: &Record<'_>) -> bool {
        record.portable_sum() == self.sum
    }

    pub(super) fn is_stub(&self) -> bool {
        self.flags & STUB != 0
    }

    /// The schema of a record whose content was erased.
    pub(super) fn erased_schema(&self) -> Option<u16> {
        let schema = if self.flags & EXPIRED != 0 { SCHEMA_GONE } else { SCHEMA_ERASED };
        (self.flags & ERASED != 0).then_some(schema)
    }

    /// Whether it is a number without content in its home stream, before which nothing is kept.
    pub(super) fn begins_home(&self) -> bool {
        self.is_at_home() && (self.is_stub() || self.erased_schema() == Some(SCHEMA_GONE))
    }

    pub(super) fn is_at_home(&self) -> bool {
        self.flags & AT_HOME != 0
    }

    /// Whether a stream of this role still has it.
    pub(super) fn is_in(&self, role: Option<Role>) -> bool {
        let flag = if let Some(Role::Linked(number)) = role { LINKED << number } else { AT_HOME };
        self.flags & flag != 0
    }
}

/// What is known of the records of a segment, and what becomes of them: [`Plan::note`] every one, then [`Plan::decide`].
pub(super) struct Plan {
    config: LogConfig,
    /// Of the segment as it is.
    footer: IndexFooter,
    retention: Retention,
    facts: Vec<Fact>,
    /// Position after the newest record of which the links of the first kind are not kept.
    links_from: u64,
    homes_sum: u64,
    /// Some records are not to stay as they are, because of an erasure,
    erases: bool,
    /// and some of them leave their home streams.
    leaves: bool,
}

/// Stands for a home stream that has so many records in a segment. Their sum, in any order, tells one index from another: a block does
/// not say which log it is of.
pub(super) fn home_sum(stream: StreamId, role: Option<Role>, records: usize) -> u64 {
    let records = match role {
        Some(Role::Home) => records as u64,
        Some(Role::Last(_)) => records.min(1) as u64,
        Some(Role::Linked(_) | Role::Amended | Role::Runs) | None => 0,
    };
    if records == 0 { 0 } else { xxhash_rust::xxh3::xxh3_64_with_seed(&stream.id, records) }
}

impl Plan {
    pub(super) fn new(config: LogConfig, footer: IndexFooter, retention: Retention) -> Self {
        let links_from = if footer.clock < retention.linked_from[0] {
            footer.next_position
        } else {
            footer.cold.links_from
        };
        let (facts, homes_sum, erases, leaves) = (Vec::new(), 0, false, false);
        Self { config, footer, retention, facts, links_from, homes_sum, erases, leaves }
    }

    /// Whether an erasure changes anything in the segment.
    pub(super) fn erases(&self) -> bool {
        self.erases
    }

    /// What the segment is to say of itself, beside what stands in it.
    pub(super) fn facts_of(&self, moved: &[Moved], end: u64) -> ColdFacts {
        // Streams may begin anywhere in what says a time other than 0, whichever it is.
        let from = self.retention.home_from.max(self.footer.cold.from).max(u64::from(self.leaves));
        ColdFacts { records: moved.len() as u32, end: end as u32, from, links_from: self.links_from }
    }

    /// Takes note of a record of the segment, in the order in which they stand, and of what an erasure makes of it.
    pub(super) fn note(&mut self, record: &Record<'_>, verdict: Verdict) {
        let mut flags = if record.is_for_links() { 0 } else { AT_HOME };
        let leaves = verdict.leaves_home() && !record.is_for_links();
        if record.at() < self.retention.home_from || verdict.leaves_home() {
            flags |= EXPIRED;
        }
        if verdict.erases() {
            flags |= ERASED;
        }
        self.erases |= verdict.erases() || leaves;
        self.leaves |= leaves;
        if record.at() < self.retention.linked_from[0] {
            self.links_from = self.links_from.max(record.position() + 1);
        }
        let mut links = 0_usize;
        for link in record.links() {
            if let Some(Role::Linked(number)) = self.config.kinds.role(link.stream.kind)
                && record.at() >= self.retention.linked_from[number]
            {
                flags |= LINKED << number;
                links += number;
            }
        }
        if [SCHEMA_GONE, SCHEMA_ERASED, self.config.kinds.content].contains(&record.schema()) {
            flags |= CONTENT;
        }
        if verdict.erases() {
            links = record.links().filter(|link| self.config.kinds.is_linked(link.stream.kind)).count();
        }
        self.facts.push(Fact {
            stream: record.stream(),
            flags,
            units: (record.bytes_in_log() / RECORD_ALIGN) as u16,
            links: links as u16,
            place: (self.config.geometry.offset_of(record.lsn()) / RECORD_ALIGN as u64) as u32,
            sum: record.portable_sum(),
            seq: record.seq(),
        });
    }

    /// What the home streams of the index come to if it is that of these records: see [`home_sum`].
    pub(super) fn homes_sum(&self) -> u64 {
        self.homes_sum
    }

    /// Decides what is kept. The snapshot says what is newest; without one, or where it ends before this segment, what is newest here
    /// may be. `false`: records are missing, or the snapshot is damaged; then nothing may be written.
    pub(super) fn decide<E>(&mut self, snapshot: Option<(SnapshotFooter, Blocks<'_, E>)>) -> Result<bool, E> {
        let known = if self.footer.is_cold() {
            u64::from(self.footer.cold.records)
        } else {
            self.footer.next_position - self.footer.first_position
        };
        if self.facts.len() as u64 != known {
            return Ok(false);
        }
        let number = as_appended(self.footer.base) / self.config.geometry.segment_bytes + 1;
        let snapshot = snapshot.filter(|(footer, _)| u64::from(footer.segments) >= number);
        self.facts.sort_unstable_by_key(|fact| (fact.stream.id, fact.stream.kind, fact.place));
        let mut residents = Residents::new(snapshot);
        let mut facts = std::mem::take(&mut self.facts);
        for group in facts.chunk_by_mut(|one, next| one.stream == next.stream) {
            let (stream, at_home) = (group[0].stream, |fact: &&Fact| fact.flags & AT_HOME != 0);
            let sum =
                home_sum(stream, self.config.kinds.role(stream.kind), group.iter().filter(at_home).count());
            self.homes_sum = self.homes_sum.wrapping_add(sum);
            let home = residents.find(&stream.id)?;
            self.decide_stream(group, home, number);
        }
        self.facts = facts;
        residents.end()
    }

    fn decide_stream(&self, group: &mut [Fact], home: Option<Home>, number: u64) {
        let newest = group.len() - 1;
        match self.config.kinds.role(group[0].stream.kind) {
            Some(Role::Home) => {
                let head = home.map_or(group[newest].seq, |home| home.head.seq);
                for fact in group.iter_mut().filter(|fact| fact.flags & EXPIRED != 0) {
                    let is_head = fact.flags & AT_HOME != 0 && fact.seq == head;
                    if !is_head {
                        fact.flags &= !AT_HOME;
                    }
                    let is_needed = fact.flags & LINKED != 0
                        || (fact.flags & (LINKED << 1) != 0 && fact.flags & CONTENT == 0);
                    if fact.is_kept() && !is_needed && fact.flags & ERASED == 0 {
                        fact.flags |= STUB;
                    }
                }
            }
            Some(Role::Last(last)) => {
                let segment_bytes = self.config.geometry.segment_bytes;
                let place = home.and_then(|home| home.last[last]);
                let newer = place.is_some_and(|place| as_appended(place.lsn()) / segment_bytes + 1 > number);
                let kept = if newer { None } else { Some(newest) };
                for (_, fact) in group.iter_mut().enumerate().filter(|(at, _)| Some(*at) != kept) {
                    fact.flags &= !AT_HOME;
                }
            }
            Some(Role::Runs | Role::Linked(_) | Role::Amended) | None => {}
        }
    }

    /// Where the records that are kept will stand, in that order, and where they end.
    pub(super) fn places(&self) -> (Vec<Moved>, u64) {
        let mut to = SEGMENT_HEADER_BYTES / RECORD_ALIGN;
        let kept = self.facts.iter().filter(|fact| fact.is_kept());
        let moved = kept.map(|fact| {
            let is_empty = fact.flags & (STUB | ERASED) != 0;
            let units = if is_empty { stub::units(fact.links.into()) } else { fact.units };
            let Fact { place: from, units: before, flags, sum, .. } = *fact;
            let moved = Moved { from, to: to as u32, before, units, flags, sum };
            to += usize::from(units);
            moved
        });
        (moved.collect(), (to * RECORD_ALIGN) as u64)
    }
}
