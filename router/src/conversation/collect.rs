//! Gathering the records of one answer, from memory where they are, else from the disk.
//!
//! A job knows which records it wants; [`Collect`] fills them in whatever order the disk answers. What the records are
//! for is its owner's business.

use bytes::Bytes;
use protocol::ids::{ConversationId, Seq};
use storage_log::{Entry, Location, Log, Record};

use super::damage::Damages;
use crate::mail::Linked;

/// A record that the disk is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Read {
    /// Comes back with the answer.
    pub job: u32,
    /// Comes back with the answer.
    pub place: u32,
    /// What to read.
    pub location: Location,
}

enum Slot {
    Asked(Entry),
    Filled(Linked),
}

pub(super) struct Collect {
    slots: Vec<Slot>,
    missing: usize,
}

impl Collect {
    /// Takes what the log holds in memory; the rest is returned as places to read.
    pub(super) fn new(entries: &[Entry], log: &Log) -> (Self, Vec<(u32, Location)>) {
        let mut asked = Vec::new();
        let slots = entries.iter().enumerate().map(|(place, entry)| match log.recent(entry.location) {
            Some(record) => Slot::Filled(linked(&record)),
            None => {
                asked.push((place as u32, entry.location));
                Slot::Asked(*entry)
            }
        });
        let slots = slots.collect();
        let missing = asked.len();
        (Self { slots, missing }, asked)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// Takes the answer to one read: `None` when it failed. Bytes that are not the record become a gap.
    pub(super) fn fill(&mut self, place: u32, bytes: Option<&[u8]>, damages: &mut Damages, log: &Log) {
        let slot = &mut self.slots[place as usize];
        let Slot::Asked(entry) = *slot else {
            unreachable!("each place is asked for once");
        };
        let record = bytes.and_then(|bytes| Log::verify(entry.location, bytes).ok());
        let filled = match record {
            Some(record) => linked(&record),
            None => damages.gap(entry, bytes.unwrap_or_default(), log),
        };
        *slot = Slot::Filled(filled);
        self.missing -= 1;
    }

    /// All records, in the order they were asked for.
    pub(super) fn finish(self) -> Vec<Linked> {
        let records = self.slots.into_iter().map(|slot| match slot {
            Slot::Filled(linked) => linked,
            Slot::Asked(_) => unreachable!("the collection is complete"),
        });
        records.collect()
    }
}

fn linked(record: &Record<'_>) -> Linked {
    Linked {
        position: record.position(),
        conversation: ConversationId(record.stream().id),
        seq: Seq(record.seq()),
        record: Some(Bytes::copy_from_slice(record.portable())),
    }
}

/// The first entries whose bytes fit a page; at least one, if there is any. Says whether some were left.
pub(super) fn page_of(
    entries: impl Iterator<Item = Entry>,
    items_max: usize,
    bytes_max: usize,
) -> (Vec<Entry>, bool) {
    let mut page = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        bytes += entry.location.bytes();
        if page.len() == items_max || (bytes > bytes_max && !page.is_empty()) {
            return (page, true);
        }
        page.push(entry);
    }
    (page, false)
}
