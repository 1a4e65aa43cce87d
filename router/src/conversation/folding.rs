//! The present form of what a page shows: the newest amendment of each message, wherever it stands.
//!
//! What is amended while amendments are read would be shown as it was: so the search is made again, beyond where the one before began,
//! until nothing became durable meanwhile. Then a page holds nothing that was taken back before it left.
//!
//! **Invariant**: where an amendment is known and cannot be read, its message is a gap: it may have been taken back.

use bytes::Bytes;
use hashbrown::HashMap;
use protocol::ids::Seq;
use protocol::limits::PAGE_BYTES_MAX;
use protocol::record::{
    Amendment, AmendmentKind, ArchivedAmendmentV1, Portable, Stored, StoredBody, StreamKind as Kind,
};
use storage_log::{AmendedSearch, BlockPlace, Entry, Log, Progress, Record, StreamId, Wanted};

use super::damage::Damages;
use crate::mail::Linked;
use crate::places::conversation_stream;

/// The note of a link into the inbox of somebody who may not see what the record amends.
pub(super) const HIDDEN: u32 = 1;

/// A message: its home stream, and its sequence.
type Target = (StreamId, u64);

/// The newest amendment of a message, as far as it was looked for.
struct Found {
    entry: Entry,
    /// `None` while it is being read, and when it is damaged.
    record: Option<Bytes>,
}

/// What to do next.
pub(super) enum FoldStep {
    /// This block of an index.
    ReadBlock(BlockPlace),
    /// These records, each answered by [`Folding::feed`] under its place among them.
    ReadRecords(Vec<Entry>),
    IndexDamaged(BlockPlace),
    Done,
}

/// The folding of one page.
#[derive(Default)]
pub(super) struct Folding {
    /// What the page's records are of, and their positions; `None` before the first search.
    wanted: Option<Vec<(Target, u64)>>,
    /// Amendments up to this position are known.
    known_to: Option<u64>,
    /// What was durable when the search began that is under way.
    begun_at: u64,
    /// The next one last.
    searches: Vec<(StreamId, AmendedSearch)>,
    found: HashMap<Target, Found, foldhash::fast::RandomState>,
    /// Being read.
    asked: Vec<(Target, StreamId)>,
}

impl Folding {
    /// Goes on as far as memory and what was fed lead.
    pub(super) fn poll(&mut self, records: &[&Linked], log: &Log) -> FoldStep {
        loop {
            if self.searches.is_empty() {
                let durable = log.durable().position();
                if self.known_to == Some(durable) {
                    return FoldStep::Done;
                }
                self.begin(records, durable, log);
            }
            while let Some((home, search)) = self.searches.last_mut() {
                match search.poll(log) {
                    Progress::Read(place) => return FoldStep::ReadBlock(place),
                    Progress::Damaged(place) => return FoldStep::IndexDamaged(place),
                    Progress::Done => {
                        let (home, stream) = (*home, search.stream());
                        for (seq, entry) in search.found() {
                            self.found.insert((home, seq), Found { entry, record: None });
                            self.asked.push(((home, seq), stream));
                        }
                        self.searches.pop();
                    }
                }
            }
            self.known_to = Some(self.begun_at);
            let to_read = self.take_recent(log);
            if !to_read.is_empty() {
                return FoldStep::ReadRecords(to_read);
            }
        }
    }

    fn begin(&mut self, records: &[&Linked], durable: u64, log: &Log) {
        self.asked.clear();
        self.begun_at = durable;
        let known_to = self.known_to.unwrap_or(0);
        let wanted = self.wanted.get_or_insert_with(|| {
            records.iter().filter_map(|linked| Some((target_of(linked)?, linked.position))).collect()
        });
        let mut by_home: HashMap<StreamId, Vec<Wanted>, foldhash::fast::RandomState> = HashMap::default();
        for ((home, seq), position) in wanted {
            let wanted = Wanted { seq: *seq, after: known_to.max(*position) };
            by_home.entry(*home).or_default().push(wanted);
        }
        let searches = by_home.into_iter().filter_map(|(home, mut wanted)| {
            // A message and amendments of it: what follows the first of them follows all.
            wanted.sort_unstable_by_key(|wanted| (wanted.seq, wanted.after));
            wanted.dedup_by_key(|wanted| wanted.seq);
            Some((home, AmendedSearch::new(log, home, wanted)?))
        });
        self.searches = searches.collect();
        // One order for one page: which blocks are read, and when, is the same each time.
        self.searches.sort_unstable_by_key(|(home, _)| *home);
    }

    /// Takes from memory what is there; what is not is to be read, in the order in which it is asked.
    fn take_recent(&mut self, log: &Log) -> Vec<Entry> {
        let found = &mut self.found;
        let mut to_read = Vec::new();
        self.asked.retain(|(target, _)| {
            let found = found.get_mut(target).expect("it was found");
            found.record =
                log.recent(found.entry.location).map(|record| Bytes::copy_from_slice(record.portable()));
            if found.record.is_none() {
                to_read.push(found.entry);
            }
            found.record.is_none()
        });
        to_read
    }

    /// Whether what is read is for this, and not for what the page was made from.
    pub(super) fn is_begun(&self) -> bool {
        self.wanted.is_some()
    }

    pub(super) fn feed_block(&mut self, place: BlockPlace, block: Vec<u8>) {
        let (_, search) = self.searches.last_mut().expect("only a search asks for blocks");
        search.feed(place, block);
    }

    /// What was read of a record that was asked for, by its number, if it is that record.
    pub(super) fn verify<'b>(&self, place: u32, bytes: &'b [u8], log: &Log) -> Option<Record<'b>> {
        let (target, stream) = self.asked[place as usize];
        log.verify_entry(stream, self.found[&target].entry, bytes).ok()
    }

    /// Takes such a record: `None` when it is damaged or cannot be read.
    pub(super) fn feed(&mut self, place: u32, record: Option<Record<'_>>, damages: &mut Damages) {
        let (target, _) = self.asked[place as usize];
        let found = self.found.get_mut(&target).expect("it was found");
        found.record = record.map(|record| Bytes::copy_from_slice(record.portable()));
        if found.record.is_none() {
            damages.tell(found.entry.location);
        }
    }

    /// How many of `records`, from the first on, are a page in their present form: at least one.
    pub(super) fn fitting(&self, records: &[&Linked]) -> usize {
        let mut bytes = 0;
        let sizes = records.iter().map(|linked| {
            let form = target_of(linked).and_then(|target| self.found.get(&target));
            let stored = linked.record.as_ref().map_or(0, Bytes::len);
            form.map_or(stored, |found| found.entry.location.bytes())
        });
        let fitting = sizes.take_while(|size| {
            bytes += size;
            bytes <= PAGE_BYTES_MAX
        });
        fitting.count().max(1).min(records.len())
    }

    /// The record in its present form.
    pub(super) fn fold(&self, linked: Linked) -> Linked {
        let Some(found) = target_of(&linked).and_then(|target| self.found.get(&target)) else {
            return linked;
        };
        let folded = || {
            let newest = Amendment::of(stored(found.record.as_ref()?)?)?;
            let shown = stored(linked.record.as_ref()?)?;
            Some(match Amendment::of(shown) {
                // This is the newest, found by an earlier one of the same message.
                Some(_) if shown.portable.seq == newest_seq(found)? => linked.record.clone()?,
                Some(amendment) => amendment.with_form(newest.form()).into(),
                None => newest.substitute(&shown.portable).into(),
            })
        };
        Linked { record: folded(), ..linked }
    }
}

fn newest_seq(found: &Found) -> Option<Seq> {
    Some(stored(found.record.as_ref()?)?.portable.seq)
}

/// The message that a record shows something of: itself, or what it amends.
fn target_of(linked: &Linked) -> Option<Target> {
    let shown = stored(linked.record.as_ref()?)?;
    let home = conversation_stream(linked.conversation, Kind::Messages);
    match shown.body {
        StoredBody::Message(_) => Some((home, linked.seq.0)),
        StoredBody::Amendment(body) => (!is_hidden(body)).then_some((home, body.target.to_native())),
        StoredBody::Folded(_)
        | StoredBody::Membership(_)
        | StoredBody::Positions(_)
        | StoredBody::Settings(_)
        | StoredBody::Sighting(_)
        | StoredBody::State(_)
        | StoredBody::Taken(_)
        | StoredBody::Unknown => None,
    }
}

fn is_hidden(body: &ArchivedAmendmentV1) -> bool {
    body.change == AmendmentKind::Hidden as u8
}

/// A record of whatever kind, whose sums the log has checked.
pub(super) fn stored(record: &[u8]) -> Option<Stored<'_>> {
    Stored::with_checked_sum(Portable::parse(record).ok()?, record).ok()
}

/// An amendment as it is for somebody who may not see what it amends; any other record as it is.
pub(super) fn hide(record: &[u8]) -> Bytes {
    let amendment = stored(record).and_then(Amendment::of);
    amendment.map_or_else(|| Bytes::copy_from_slice(record), |amendment| amendment.hidden().into())
}

/// Hides amendments of what stands before `visible_from`, where its reader may see nothing.
pub(super) fn hide_amendments(records: &mut [Linked], visible_from: Seq) {
    for linked in records {
        if let Some((_, seq)) = target_of(linked)
            && seq < visible_from.0
            && let Some(record) = &linked.record
        {
            linked.record = Some(hide(record));
        }
    }
}
