//! What was appended, beside the log, and what a log that was read back may say of it.
//!
//! A crash may cut off what nobody was told of, and the next start appends something else there: so each record knows the one before
//! it, and what a log holds is the way back from its newest record.

use std::collections::{BTreeMap, BTreeSet};

use storage_log::{
    Draft, Entry, Log, Lookup, Page, Progress, Record, Run, StreamId, StreamKind, as_appended,
};

use super::files::{Files, make_index};
use super::support::{INBOX, MESSAGES, STATE};

pub(crate) const MEMBERSHIPS: StreamKind = StreamKind(5);

/// Pages of a size that a stream does not fit into.
const PAGE: Page = Page { items_max: 5, bytes_max: 64 << 10 };

/// Blocks that one page may ask for.
const BLOCKS_MAX: usize = 50;

/// A record, as it was put or as it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Content {
    position: u64,
    stream: StreamId,
    seq: u64,
    message_count: u64,
    at: u64,
    payload: Vec<u8>,
    links: Vec<StreamId>,
}

impl Content {
    fn of(record: &Record<'_>) -> Self {
        Self {
            position: record.position(),
            stream: record.stream(),
            seq: record.seq(),
            message_count: record.message_count(),
            at: record.at(),
            payload: record.payload().to_vec(),
            links: record.links().map(|link| link.stream).collect(),
        }
    }
}

#[derive(Clone)]
struct Put {
    content: Content,
    /// What was appended before; 0: nothing.
    before: usize,
    group_end: u64,
}

/// All appends, numbered from 1.
#[derive(Clone, Default)]
pub(crate) struct Model {
    puts: BTreeMap<usize, Put>,
    /// The newest of which somebody was told.
    told: usize,
    tip: usize,
}

/// What a reader of a log is given: by stream and key a record, or nothing where it is damaged.
#[derive(Default, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) records: BTreeMap<(StreamId, u64), Option<Content>>,
    heads: BTreeMap<StreamId, (u64, u64)>,
    runs: Vec<(Vec<u8>, u64)>,
    position: u64,
    /// Index files that were made again on the way.
    pub(crate) rebuilt: usize,
}

impl Found {
    /// Records that are known to be damaged.
    pub(crate) fn gaps(&self) -> usize {
        self.records.values().filter(|record| record.is_none()).count()
    }
}

impl Model {
    /// Notes a group that was stored.
    pub(crate) fn append(&mut self, group: &[Draft<'_>], first_position: u64, at: u64) {
        let group_end = first_position + group.len() as u64 - 1;
        for (position, draft) in (first_position..).zip(group) {
            let seq = draft.expected_head + 1;
            // Every message of a conversation counts, and nothing else.
            let message_count = if draft.stream.kind == MESSAGES { seq } else { 0 };
            let payload = draft.payload.to_vec();
            let links = draft.links.iter().map(|link| link.stream).collect();
            let content = Content { position, stream: draft.stream, seq, message_count, at, payload, links };
            let number = self.puts.len() + 1;
            self.puts.insert(number, Put { content, before: self.tip, group_end });
            self.tip = number;
        }
    }

    /// All up to `position` is durable, and somebody was told.
    pub(crate) fn tell(&mut self, position: u64) {
        if let Some(told) = self.chain(self.tip).into_iter().find(|put| self.position(*put) == position) {
            self.told = told;
        }
    }

    /// A start found the log to end with this record, and goes on behind it.
    pub(crate) fn go_on_from(&mut self, tip: usize) {
        self.tip = tip;
    }

    /// The model as it was when nobody had been told of more than `position`.
    pub(crate) fn when_told(&self, position: u64) -> Self {
        let told = self.chain(self.told).into_iter().find(|put| self.position(*put) <= position);
        Self { told: told.unwrap_or(0), ..self.clone() }
    }

    pub(crate) fn told_position(&self) -> u64 {
        self.position(self.told)
    }

    /// Whether nothing was appended behind it.
    pub(crate) fn is_newest(&self, put: usize) -> bool {
        self.tip == put
    }

    /// The positions of all records that have a reader.
    pub(crate) fn read_positions(&self) -> BTreeSet<u64> {
        let expected = self.expect(&self.chain(self.tip), &Found::default());
        expected.records.values().flatten().map(|content| content.position).collect()
    }

    /// What tells the records of which somebody knows from those of other runs with the same image.
    pub(crate) fn fingerprint(&self) -> u64 {
        let told = self.chain(self.told).into_iter();
        let payloads = told.flat_map(|put| self.puts[&put].content.payload.iter().copied());
        xxhash_rust::xxh3::xxh3_64(&payloads.collect::<Vec<u8>>())
    }

    fn position(&self, put: usize) -> u64 {
        self.puts.get(&put).map_or(0, |put| put.content.position)
    }

    /// The way back from a record, itself first.
    fn chain(&self, tip: usize) -> Vec<usize> {
        let before = |put: &usize| Some(self.puts[put].before).filter(|before| *before > 0);
        std::iter::successors(Some(tip).filter(|tip| *tip > 0), before).collect()
    }

    /// What was found is the log up to one of its appends, which is given, in whole groups and with all that anybody was told of.
    /// No record is another than was appended; those that are damaged are for the caller to judge.
    pub(crate) fn judge(&self, found: &Found) -> Result<usize, String> {
        let ends = |put: &Put| put.content.position == found.position && put.group_end == found.position;
        let mut tips: Vec<usize> =
            self.puts.iter().filter(|(_, put)| ends(put)).map(|(tip, _)| *tip).collect();
        if found.position == 0 {
            tips.push(0);
        }
        let mut differences = format!("{} is the end of no group", found.position);
        for tip in tips.into_iter().rev() {
            let chain = self.chain(tip);
            if self.told > 0 && !chain.contains(&self.told) {
                differences = format!("ends at {}, and {} was told of", found.position, self.told_position());
                continue;
            }
            let expected = self.expect(&chain, found);
            let is_right = |(key, record): (&(StreamId, u64), &Option<Content>)| {
                record.is_none() || expected.records.get(key) == Some(record)
            };
            let same_keys = expected.records.keys().eq(found.records.keys());
            let same_ends = (&expected.heads, &expected.runs) == (&found.heads, &found.runs);
            if same_keys && same_ends && found.records.iter().all(is_right) {
                return Ok(tip);
            }
            differences = format!("found {found:#?}\nexpected {expected:#?}");
        }
        Err(differences)
    }

    /// The positions of the records that were found to be damaged, in a log that ends with `tip`.
    pub(crate) fn damaged(&self, found: &Found, tip: usize) -> BTreeSet<u64> {
        let expected = self.expect(&self.chain(tip), found).records;
        let gaps = found.records.iter().filter(|(_, record)| record.is_none());
        gaps.map(|(key, _)| expected[key].as_ref().expect("all that is expected is sound").position).collect()
    }

    /// What readers are to find in a log that holds these.
    fn expect(&self, chain: &[usize], found: &Found) -> Found {
        let mut expected = Found { position: found.position, rebuilt: found.rebuilt, ..Found::default() };
        expected.heads.extend(self.streams(MESSAGES).map(|stream| (stream, (0, 0))));
        for put in chain.iter().rev() {
            let content = &self.puts[put].content;
            match content.stream {
                StreamId::RUNS => expected.runs.push((content.payload.clone(), content.position)),
                stream if stream.kind == MESSAGES => {
                    expected.heads.insert(stream, (content.seq, content.message_count));
                    expected.records.insert((stream, content.seq), Some(content.clone()));
                }
                stream => _ = expected.records.insert((stream, 0), Some(content.clone())),
            }
            for link in &content.links {
                expected.records.insert((*link, content.position), Some(content.clone()));
            }
        }
        expected
    }

    /// All streams of a kind that anything was ever put into.
    fn streams(&self, kind: StreamKind) -> impl Iterator<Item = StreamId> {
        let contents = self.puts.values().map(|put| &put.content);
        let streams: BTreeSet<StreamId> =
            contents.flat_map(|content| content.links.iter().copied().chain([content.stream])).collect();
        streams.into_iter().filter(move |stream| stream.kind == kind)
    }

    /// Reads all that a log has, as its readers do: an index that turns out to be damaged is made again once.
    pub(crate) fn read(&self, log: &mut Log, files: &mut Files<'_>) -> Result<Found, String> {
        let mut found = Found { position: log.durable().position(), ..Found::default() };
        let run = |run: &Run| (run.id.to_vec(), run.first_position);
        found.runs.extend(log.runs().iter().map(run));
        for stream in [MESSAGES, INBOX, MEMBERSHIPS].into_iter().flat_map(|kind| self.streams(kind)) {
            if stream.kind == MESSAGES {
                let head = log.durable_head(stream);
                found.heads.insert(stream, (head.seq, head.message_count));
            }
            let mut after = 0;
            loop {
                let (entries, has_more) =
                    page(log, files, Lookup::after(log, stream, after, PAGE), &mut found)?;
                for entry in &entries {
                    let content = content(log, files, stream, *entry);
                    found.records.insert((stream, entry.key), content);
                    after = entry.key;
                }
                if !has_more || entries.is_empty() {
                    break;
                }
            }
        }
        for stream in self.streams(STATE) {
            let Some(location) = log.last(stream) else {
                continue;
            };
            let entry = if log.may_have_moved(location) {
                page(log, files, Lookup::last(log, stream, location), &mut found)?.0.first().copied()
            } else {
                Some(Entry { key: 0, location })
            };
            let content = entry.and_then(|entry| content(log, files, stream, entry));
            found.records.insert((stream, 0), content);
        }
        Ok(found)
    }
}

/// One page, or why there is none: an index that cannot be made again, which its readers are told.
fn page(
    log: &mut Log,
    files: &mut Files<'_>,
    mut lookup: Lookup,
    found: &mut Found,
) -> Result<(Vec<Entry>, bool), String> {
    for _ in 0..BLOCKS_MAX {
        match lookup.poll(log) {
            Progress::Done => return Ok((lookup.entries().to_vec(), lookup.has_more())),
            Progress::Read(place) => {
                let block = files.block(place);
                lookup.feed(place, block);
            }
            Progress::Damaged(place) => {
                found.rebuilt += 1;
                let job = log.rebuild_job(files.in_log(as_appended(place.base))).expect("it is sealed");
                let Some(rebuilt) = job.run(files).expect("no call fails") else {
                    return Err(format!("the index at {:x} cannot be made again", place.base));
                };
                let sealed = make_index(files.disk, &rebuilt.index).expect("no call fails");
                log.handle_rebuilt(sealed);
            }
        }
    }
    panic!("{lookup:?} does not end");
}

/// The record that an entry names, from memory or from the disk; nothing where that is damaged.
fn content(log: &Log, files: &mut Files<'_>, stream: StreamId, entry: Entry) -> Option<Content> {
    if let Some(record) = log.recent(entry.location) {
        return Some(Content::of(&record));
    }
    let bytes = files.record(entry.location);
    log.verify_entry(stream, entry, &bytes).ok().map(|record| Content::of(&record))
}
