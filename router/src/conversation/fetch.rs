//! Fetching records: first their places, from the index, then their bytes, and in place of what is damaged a gap.
//!
//! Each step is answered from memory where it can be; a fetch that finds all of it there ends at once, in the same turn.

use bytes::Bytes;
use protocol::ids::{ConversationId, Seq};
use storage_log::{BlockPlace, Entry, HomeSearch, Location, Log, Lookup, Progress, Record, StreamId};

use super::damage::Damages;
use super::folding::{FoldStep, Folding, HIDDEN, hide};
use super::runs::Runs;
use crate::mail::Linked;

/// Something that the disk is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Read {
    /// Comes back with the answer.
    pub job: u32,
    /// Comes back with the answer.
    pub place: u32,
    /// What to read.
    pub what: ReadPlace,
}

/// Where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadPlace {
    /// A record, or some that stand side by side, in their segment.
    Records(Location),
    /// A block of an index file.
    Index(BlockPlace),
}

/// What a fetch wants next.
pub(super) enum Step {
    /// These, each answered by [`Fetch::feed`]; then it goes on.
    Read(Vec<(u32, ReadPlace)>),
    Done,
    /// An index file is damaged or cannot be read.
    IndexDamaged(BlockPlace),
}

/// A record that was found in a stream.
#[derive(Clone, Copy)]
pub(super) struct Found {
    stream: StreamId,
    entry: Entry,
}

enum Slot {
    Asked(Found),
    /// Damaged: what it was is being looked for.
    Unnamed(Found, HomeSearch),
    Filled(Linked),
    /// Damaged, and in no index any more: nobody can say what it was.
    Lost,
}

impl Slot {
    fn filled(&self) -> Option<&Linked> {
        if let Self::Filled(linked) = self { Some(linked) } else { None }
    }
}

pub(super) struct Fetch {
    /// What is still to be looked for, the next one last.
    lookups: Vec<Lookup>,
    /// Where the block stands that was asked for.
    block: Option<BlockPlace>,
    failed: Option<BlockPlace>,
    found: Vec<Found>,
    slots: Vec<Slot>,
    /// Records that are being read.
    runs: Runs,
    /// Reads whose answers have not come.
    missing: usize,
    more: bool,
    /// Records are wanted in their present form,
    folding: Option<Folding>,
    /// and with what is to be looked for then, if that has to begin anew.
    anew: Vec<Lookup>,
}

impl Fetch {
    /// What all of `lookups` find, one after the other.
    pub(super) fn of_lookups(mut lookups: Vec<Lookup>) -> Self {
        lookups.reverse();
        let (block, failed, found, slots, runs) = (None, None, Vec::new(), Vec::new(), Runs::default());
        Self {
            lookups,
            block,
            failed,
            found,
            slots,
            runs,
            missing: 0,
            more: false,
            folding: None,
            anew: Vec::new(),
        }
    }

    /// The newest record of a stream that keeps the last, as [`Log::last`] says where.
    pub(super) fn of_last(log: &Log, stream: StreamId, location: Location) -> Self {
        if log.may_have_moved(location) {
            Self::of_lookups(vec![Lookup::last(log, stream, location)])
        } else {
            Self::of_record(stream, location)
        }
    }

    /// The record at `location`, of `stream`.
    fn of_record(stream: StreamId, location: Location) -> Self {
        Self::of_found(vec![Found { stream, entry: Entry { key: 0, location } }])
    }

    /// The records of what was found.
    pub(super) fn of_found(found: Vec<Found>) -> Self {
        Self { found, ..Self::of_lookups(Vec::new()) }
    }

    /// With the records in the form that they have now, as many as are a page then.
    pub(super) fn folded(self) -> Self {
        Self { folding: Some(Folding::default()), anew: self.lookups.clone(), ..self }
    }

    pub(super) fn is_folded(&self) -> bool {
        self.folding.is_some()
    }

    /// Of [`Fetch::folded`], from the beginning.
    pub(super) fn begin_anew(&mut self) {
        let lookups = std::mem::take(&mut self.anew);
        *self = Self { lookups, ..Self::of_lookups(Vec::new()) }.folded();
    }

    /// Goes on as far as memory and what was fed lead.
    pub(super) fn poll(&mut self, log: &Log, damages: &mut Damages) -> Step {
        while let Some(lookup) = self.lookups.last_mut() {
            match lookup.poll(log) {
                Progress::Read(place) => return self.ask_block(0, place),
                Progress::Damaged(place) => return Step::IndexDamaged(place),
                Progress::Done => {
                    let (stream, entries) = (lookup.stream(), lookup.entries());
                    self.found.extend(entries.iter().map(|entry| Found { stream, entry: *entry }));
                    self.more = lookup.has_more();
                    self.lookups.pop();
                }
            }
        }
        let apart = self.runs.ask_apart();
        if !apart.is_empty() {
            return self.await_records(apart);
        }
        let asked = self.collect(log);
        if !asked.is_empty() {
            return self.await_records(asked);
        }
        match self.name(log, damages) {
            Step::Done => self.fold(log),
            step => step,
        }
    }

    /// Takes what the log holds in memory of what was found; the rest is to be read.
    fn collect(&mut self, log: &Log) -> Vec<(u32, Location)> {
        let mut asked = Vec::new();
        for found in self.found.drain(..) {
            let location = found.entry.location;
            match log.recent(location) {
                Some(record) => self.slots.push(Slot::Filled(linked(&record, found.stream))),
                None => {
                    asked.push((self.slots.len() as u32, location));
                    self.slots.push(Slot::Asked(found));
                }
            }
        }
        self.runs.ask(asked)
    }

    fn await_records(&mut self, runs: Vec<(u32, Location)>) -> Step {
        self.await_reads(runs.into_iter().map(|(place, run)| (place, ReadPlace::Records(run))).collect())
    }

    fn await_reads(&mut self, reads: Vec<(u32, ReadPlace)>) -> Step {
        self.missing = reads.len();
        Step::Read(reads)
    }

    /// Puts a gap in place of every record that is damaged.
    fn name(&mut self, log: &Log, damages: &mut Damages) -> Step {
        for place in 0..self.slots.len() {
            let Slot::Unnamed(found, search) = &mut self.slots[place] else {
                continue;
            };
            match search.poll(log) {
                Progress::Read(block) => return self.ask_block(place as u32, block),
                Progress::Damaged(block) => return Step::IndexDamaged(block),
                Progress::Done => {
                    self.slots[place] = match search.found() {
                        Some(home) => {
                            damages.remember(found.entry.location, home);
                            Slot::Filled(gap(found.entry, home))
                        }
                        // The index was made again from a segment in which this could not be read; or the record has left its
                        // conversation, and nobody there could be told of a gap.
                        None => Slot::Lost,
                    };
                }
            }
        }
        Step::Done
    }

    /// Looks for the present form of what was found.
    fn fold(&mut self, log: &Log) -> Step {
        let Some(folding) = &mut self.folding else {
            return Step::Done;
        };
        let records: Vec<&Linked> = self.slots.iter().filter_map(Slot::filled).collect();
        match folding.poll(&records, log) {
            FoldStep::ReadBlock(place) => self.ask_block(0, place),
            FoldStep::ReadRecords(entries) => {
                let locations = entries.into_iter().map(|entry| entry.location);
                let reads = self.runs.ask((0..).zip(locations).collect());
                self.await_records(reads)
            }
            FoldStep::IndexDamaged(place) => Step::IndexDamaged(place),
            FoldStep::Done => {
                let fitting = folding.fitting(&records);
                self.more |= fitting < records.len();
                self.slots.retain(|slot| slot.filled().is_some());
                self.slots.truncate(fitting);
                Step::Done
            }
        }
    }

    fn ask_block(&mut self, place: u32, block: BlockPlace) -> Step {
        if let Some(failed) = self.failed {
            return Step::IndexDamaged(failed);
        }
        self.block = Some(block);
        self.await_reads(vec![(place, ReadPlace::Index(block))])
    }

    /// The block that it waits for, if it is one.
    pub(super) fn block(&self) -> Option<BlockPlace> {
        self.block
    }

    /// Takes the answer to one read: `None` when it failed.
    pub(super) fn feed(&mut self, place: u32, bytes: Option<Vec<u8>>, log: &Log, damages: &mut Damages) {
        self.missing -= 1;
        if let Some(block) = self.block.take() {
            return self.feed_block(place, block, bytes);
        }
        for part in self.runs.feed(place, bytes.as_deref()) {
            let record = part.bytes.and_then(|bytes| self.verify(part.wanted_by, bytes, log));
            if record.is_none() && !part.is_alone {
                self.runs.set_apart(&part);
            } else {
                self.feed_record(part.wanted_by, record, damages);
            }
        }
    }

    /// What was read for a place, if it is the record that stands there.
    fn verify<'b>(&self, place: u32, bytes: &'b [u8], log: &Log) -> Option<Record<'b>> {
        if let Some(folding) = self.folding.as_ref().filter(|folding| folding.is_begun()) {
            return folding.verify(place, bytes, log);
        }
        let Slot::Asked(found) = &self.slots[place as usize] else {
            unreachable!("each place is answered once");
        };
        log.verify_entry(found.stream, found.entry, bytes).ok()
    }

    /// Takes the record of a place: `None` when it is damaged or cannot be read.
    fn feed_record(&mut self, place: u32, record: Option<Record<'_>>, damages: &mut Damages) {
        if let Some(folding) = self.folding.as_mut().filter(|folding| folding.is_begun()) {
            return folding.feed(place, record, damages);
        }
        let slot = &mut self.slots[place as usize];
        let Slot::Asked(found) = *slot else {
            unreachable!("each place is answered once");
        };
        *slot = match record {
            Some(record) => Slot::Filled(linked(&record, found.stream)),
            None => match damages.home_of(found.stream, found.entry) {
                Some(home) => Slot::Filled(gap(found.entry, home)),
                None => Slot::Unnamed(found, HomeSearch::new(found.entry)),
            },
        };
    }

    fn feed_block(&mut self, place: u32, block: BlockPlace, bytes: Option<Vec<u8>>) {
        let Some(bytes) = bytes else {
            self.failed = Some(block);
            return;
        };
        match (self.lookups.last_mut(), self.folding.as_mut().filter(|folding| folding.is_begun())) {
            (Some(lookup), _) => lookup.feed(block, bytes),
            (None, Some(folding)) => folding.feed_block(block, bytes),
            (None, None) => {
                let Slot::Unnamed(_, search) = &mut self.slots[place as usize] else {
                    unreachable!("only a search asks for blocks now");
                };
                search.feed(bytes);
            }
        }
    }

    /// The index file was made again: its blocks are asked for once more.
    pub(super) fn forget_failure(&mut self) {
        self.failed = None;
    }

    /// Whether everything that was asked for has come.
    pub(super) fn is_fed(&self) -> bool {
        self.missing == 0
    }

    /// All records, in the order they were looked for, and whether the last lookup left some.
    pub(super) fn finish(self) -> (Vec<Linked>, bool) {
        let folding = self.folding.unwrap_or_default();
        let records = self.slots.into_iter().filter_map(|slot| match slot {
            Slot::Filled(linked) => Some(folding.fold(linked)),
            Slot::Lost => None,
            Slot::Asked(_) | Slot::Unnamed(..) => unreachable!("the fetch is done"),
        });
        (records.collect(), self.more)
    }
}

/// A record as it is found in `stream`.
fn linked(record: &Record<'_>, stream: StreamId) -> Linked {
    let is_hidden = || record.links().any(|link| link.stream == stream && link.note == HIDDEN);
    let is_link = stream != record.stream();
    let portable = record.portable();
    Linked {
        position: record.position(),
        conversation: ConversationId(record.stream().id),
        seq: Seq(record.seq()),
        record: Some(if is_link && is_hidden() { hide(portable) } else { Bytes::copy_from_slice(portable) }),
    }
}

fn gap(entry: Entry, (stream, seq): (StreamId, u64)) -> Linked {
    Linked { position: entry.key, conversation: ConversationId(stream.id), seq: Seq(seq), record: None }
}
