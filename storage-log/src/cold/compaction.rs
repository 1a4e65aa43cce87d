//! Writing a sealed segment anew.

use crate::format::{RECORD_ALIGN, SEGMENT_HEADER_BYTES, put, segment_at};
use crate::index::block::{BlockWriter, Pieces};
use crate::index::file::{ColdFacts, IndexFooter, SealedSegment, tail_bytes};
use crate::index::postings::{List, Posting};
use crate::index::resident::{Chain, Home};
use crate::index::{Blocks, Residents, Role, SnapshotFooter};
use crate::log::{LogConfig, Run};
use crate::record::{Record, StreamId, moved, stub};
use crate::segment::{SegmentHeader, as_appended, rewritten};

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
/// Keeps number and place, and nothing else.
const STUB: u8 = 4;
/// In one of the linked streams: this, shifted by the number of it.
const LINKED: u8 = 8;

/// What is known of a record: 32 bytes, and a segment holds at most 2.8 million.
#[derive(Clone, Copy)]
struct Fact {
    stream: StreamId,
    flags: u8,
    units: u16,
    /// Where it stands in the segment, in [`RECORD_ALIGN`].
    place: u32,
    seq: u64,
}

impl Fact {
    fn is_kept(&self) -> bool {
        self.flags & (AT_HOME | LINKED | LINKED << 1) != 0
    }
}

/// Where a record went.
#[derive(Clone, Copy)]
struct Moved {
    from: u32,
    to: u32,
    units: u16,
    flags: u8,
}

/// A sealed segment on its way to be written anew. [`Compaction::note`] every record of it, [`Compaction::decide`], then
/// [`Compaction::write`].
pub struct Compaction {
    config: LogConfig,
    /// Of the segment as it is.
    footer: IndexFooter,
    runs: Vec<Run>,
    retention: Retention,
    facts: Vec<Fact>,
}

impl Compaction {
    /// Of the segment whose index ends in `tail` and `footer`. `None` when the tail is not sound.
    #[must_use]
    pub fn new(config: LogConfig, footer: IndexFooter, tail: &[u8], retention: Retention) -> Option<Self> {
        let (_, runs) = footer.read_tail(tail)?;
        Some(Self { config, footer, runs, retention, facts: Vec::new() })
    }

    /// Takes note of a record of the segment, in the order in which they stand.
    pub fn note(&mut self, record: &Record<'_>) {
        let mut flags = if record.is_for_links() { 0 } else { AT_HOME };
        if record.at() < self.retention.home_from {
            flags |= EXPIRED;
        }
        for link in record.links() {
            if let Some(Role::Linked(number)) = self.config.kinds.role(link.kind)
                && record.at() >= self.retention.linked_from[number]
            {
                flags |= LINKED << number;
            }
        }
        self.facts.push(Fact {
            stream: record.stream(),
            flags,
            units: (record.bytes_in_log() / RECORD_ALIGN) as u16,
            place: (self.config.geometry.offset_of(record.lsn()) / RECORD_ALIGN as u64) as u32,
            seq: record.seq(),
        });
    }

    /// Decides what is kept. The snapshot says what is newest; without one, or where it ends before this segment, what is newest here
    /// may be. `false`: records are missing, or the snapshot is damaged; then nothing may be written.
    ///
    /// # Errors
    /// The first of the snapshot's.
    pub fn decide<E>(&mut self, snapshot: Option<(SnapshotFooter, Blocks<'_, E>)>) -> Result<bool, E> {
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
        let mut residents = Residents::new(snapshot.map(|(_, blocks)| blocks));
        let mut facts = std::mem::take(&mut self.facts);
        for group in facts.chunk_by_mut(|one, next| one.stream == next.stream) {
            let home = residents.find(&group[0].stream.id)?;
            self.decide_stream(group, home, number);
        }
        self.facts = facts;
        Ok(!residents.is_damaged())
    }

    fn decide_stream(&self, group: &mut [Fact], home: Option<Home>, number: u64) {
        let newest = group.len() - 1;
        match self.config.kinds.role(group[0].stream.kind) {
            Some(Role::Home) => {
                let head = home.map_or(group[newest].seq, |home| home.head.seq);
                for fact in group.iter_mut().filter(|fact| fact.flags & EXPIRED != 0) {
                    let is_linked = fact.flags & (LINKED | LINKED << 1) != 0;
                    match (fact.flags & AT_HOME != 0 && fact.seq == head, is_linked) {
                        (true, true) => {}
                        (true, false) => fact.flags |= STUB,
                        (false, _) => fact.flags &= !AT_HOME,
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
            Some(Role::Runs | Role::Linked(_)) | None => {}
        }
    }

    /// Records, and how many of them are kept.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.facts.len(), self.facts.iter().filter(|fact| fact.is_kept()).count())
    }

    /// Gives the bytes of the cold segment to `out`, in order. `read` brings a range of the segment as it is, `blocks` those of its
    /// index. `None`: something of it is not sound; what was written is of no use.
    ///
    /// # Errors
    /// The first of any of them.
    pub fn write<E>(
        &self,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
        blocks: Blocks<'_, E>,
        mut out: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Option<SealedSegment>, E> {
        let base = rewritten(self.footer.base);
        let (moved, end) = self.places();
        let cold = ColdFacts { records: moved.len() as u32, end: end as u32, from: self.kept_from() };
        let footer = self.footer.of_cold(base, cold);
        out(&self.header(&footer))?;
        if !self.write_records(&moved, base, &mut read, &mut out)? {
            return Ok(None);
        }
        out(&vec![0; (footer.blocks_at() - end) as usize])?;
        let mut by_place = moved;
        by_place.sort_unstable_by_key(|moved| moved.from);
        let Some(fences) = self.write_index(&by_place, base, blocks, &mut out)? else {
            return Ok(None);
        };
        let tail = tail_bytes(&fences, &self.runs);
        let footer = footer.with_tail(fences.len(), self.runs.len(), &tail);
        out(&tail)?;
        out(&footer.encode(&self.config))?;
        Ok(Some(SealedSegment::new(&footer, fences)))
    }

    fn kept_from(&self) -> u64 {
        self.retention.home_from.max(self.footer.cold.from)
    }

    /// Its first bytes: who it is, and what its footer says, should that be lost.
    fn header(&self, footer: &IndexFooter) -> [u8; SEGMENT_HEADER_BYTES] {
        let geometry = self.config.geometry;
        let header = SegmentHeader {
            store: self.config.store,
            log: self.config.number,
            base: footer.base,
            block_bytes: geometry.block_bytes,
            segment_bytes: geometry.segment_bytes,
        };
        let mut bytes = header.encode();
        let copy = footer.with_tail(0, 0, &[]).encode(&self.config);
        put(&mut bytes, segment_at::END..segment_at::END + copy.len(), &copy);
        bytes
    }

    /// Where the records that are kept will stand, in that order, and where they end.
    fn places(&self) -> (Vec<Moved>, u64) {
        let mut to = SEGMENT_HEADER_BYTES / RECORD_ALIGN;
        let kept = self.facts.iter().filter(|fact| fact.is_kept());
        let moved = kept.map(|fact| {
            let units = if fact.flags & STUB != 0 { stub::UNITS } else { fact.units };
            let moved = Moved { from: fact.place, to: to as u32, units, flags: fact.flags };
            to += usize::from(units);
            moved
        });
        (moved.collect(), (to * RECORD_ALIGN) as u64)
    }

    fn write_records<E>(
        &self,
        moved_records: &[Moved],
        base: u64,
        read: &mut impl FnMut(u64, &mut [u8]) -> Result<(), E>,
        out: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut bytes = Vec::new();
        let kept = self.facts.iter().filter(|fact| fact.is_kept());
        for (fact, record) in kept.zip(moved_records) {
            let (from, to) = (u64::from(record.from) * RECORD_ALIGN as u64, u64::from(record.to));
            bytes.resize(usize::from(fact.units) * RECORD_ALIGN, 0);
            read(from, &mut bytes)?;
            let lsn = base + to * RECORD_ALIGN as u64;
            let is_at_home = record.flags & AT_HOME != 0;
            let Ok(parsed) = Record::parse(&bytes, self.footer.base + from) else {
                return Ok(false);
            };
            if record.flags & STUB != 0 {
                out(&stub::of(&parsed, lsn))?;
            } else {
                out(&moved(&parsed, lsn, is_at_home))?;
            }
        }
        Ok(true)
    }

    /// Writes the lists of the index as they are now. Their fences; `None` when a block is not sound.
    fn write_index<E>(
        &self,
        moved: &[Moved],
        base: u64,
        mut blocks: Blocks<'_, E>,
        out: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Option<Vec<u32>>, E> {
        let (mut writer, mut number, mut postings) = (BlockWriter::new(base), 0, Vec::new());
        while let Some(block) = blocks()? {
            let Some(pieces) = Pieces::of(&block, self.footer.base, number) else {
                return Ok(None);
            };
            for piece in pieces {
                postings.extend((0..piece.len()).map(|at| piece.posting(at)));
                if !piece.goes_on {
                    let list = self.rewrite_list(piece.stream, piece.list, &mut postings, moved);
                    writer.push(piece.stream, &list, &postings, out)?;
                    postings.clear();
                }
            }
            number += 1;
        }
        if number != self.footer.blocks() {
            return Ok(None);
        }
        writer.flush(out)?;
        Ok(Some(writer.fences))
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
        let wanted = if let Some(Role::Linked(number)) = role { LINKED << number } else { AT_HOME };
        let before = postings.len();
        let first = postings.first().map(|posting| posting.position());
        postings.retain_mut(|posting| {
            let place = (posting.offset() / RECORD_ALIGN as u64) as u32;
            let Ok(at) = moved.binary_search_by_key(&place, |moved| moved.from) else {
                return false;
            };
            let Moved { to, units, flags, .. } = moved[at];
            let bytes = usize::from(units) * RECORD_ALIGN;
            *posting = Posting::new(u64::from(to) * RECORD_ALIGN as u64, bytes, posting.position());
            flags & wanted != 0
        });
        let dropped = (before - postings.len()) as u64;
        if dropped == 0 {
            return list;
        }
        // What stood before it is not kept either.
        let first_key = match (role, first, postings.first()) {
            (Some(Role::Linked(_)), Some(first), Some(kept)) => list.first_key + kept.position() - first,
            _ => list.first_key + dropped,
        };
        List { before: Chain::default(), key_before: first_key - 1, first_key, ..list }
    }
}
