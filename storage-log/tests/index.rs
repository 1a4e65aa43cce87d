//! The index over many small segments, beside a model that is a map.

#![forbid(unsafe_code)]

mod support;

use std::collections::BTreeMap;

use storage_log::format::{INDEX_FOOTER_BYTES, index_at};
use storage_log::{
    Answer, Entry, Geometry, Glance, HomeSearch, IndexFooter, Log, Lookup, Page, Progress, StreamId,
    StreamKind, Wanted,
};

use support::{
    Disk, INBOX, MESSAGES, PAGE, STATE, after, amending, amendments, before, flush, keys, linked, page,
    payload, put, put_linked, seal, stream,
};

/// A few dozen records fill a segment.
const SMALL: Geometry = Geometry { segment_bytes: 16 << 10, batch_bytes_max: 8 << 10, block_bytes: 512 };

const MEMBERSHIPS: StreamKind = StreamKind(5);

/// What stands in each stream: keys and payloads.
type Model = BTreeMap<StreamId, BTreeMap<u64, Vec<u8>>>;

struct Run {
    log: Log,
    disk: Disk,
    model: Model,
    /// By home stream and what is amended: positions of amendments, oldest first.
    amended: BTreeMap<(StreamId, u64), Vec<u64>>,
    random: u64,
}

impl Run {
    fn new(random: u64, geometry: Geometry) -> Self {
        let disk = Disk::of(geometry);
        let log = disk.recover(1).expect("an empty log").log;
        Self { log, disk, model: Model::new(), amended: BTreeMap::new(), random }
    }

    fn below(&mut self, limit: u64) -> u64 {
        support::roll(&mut self.random) % limit
    }

    /// A record into a conversation, linked to some users. Few conversations are busy, most are not.
    fn put(&mut self) {
        let skewed = self.below(30) * self.below(30) / 30;
        let home = stream(MESSAGES, skewed as u8);
        let users: Vec<u8> = (0..self.below(4)).map(|step| (self.below(8) * 4 + step) as u8).collect();
        let mut links: Vec<StreamId> = users.iter().map(|user| stream(INBOX, *user)).collect();
        links.extend(users.iter().filter(|user| **user < 9).map(|user| stream(MEMBERSHIPS, *user)));
        let bytes = vec![skewed as u8; self.below(200) as usize];
        let head = self.log.head(home).seq;
        let mut all = linked(&links);
        // Of what was said a moment ago, or at any time.
        let reach = 1 << self.below(6);
        let target = head - self.below(reach).min(head);
        let amends = self.below(4) == 0 && target > 0;
        all.extend(amends.then(|| amending(home, head, target)));
        let Answer::Stored(stored) = put_linked(&mut self.log, home, &bytes, &all) else {
            panic!("there is room");
        };
        let seq = self.log.head(home).seq;
        if amends {
            self.amended.entry((home, target)).or_default().push(stored.first_position);
        }
        self.model.entry(home).or_default().insert(seq, bytes.clone());
        for link in links {
            self.model.entry(link).or_default().insert(stored.first_position, bytes.clone());
        }
        if self.below(3) == 0 {
            flush(&mut self.log, &mut self.disk);
        }
        if self.below(40) == 0 {
            seal(&mut self.log, &mut self.disk);
        }
    }

    /// Makes the index file of the segment at `base` again, as a node does that serves, and gives its bytes.
    fn rebuild(&mut self, base: u64) -> &[u8] {
        let job = self.log.rebuild_job(base).expect("a sealed segment");
        let Ok(rebuilt) = job.run(&mut &self.disk);
        let sealed = self.disk.write_index(&rebuilt.expect("it stands where it stood").index);
        self.log.handle_rebuilt(sealed);
        &self.disk.indexes[&base]
    }

    /// Of a record of a home stream, as the disk had it.
    fn position_of(&self, entry: Entry) -> u64 {
        let base = self.disk.geometry.segment_of(entry.location.lsn());
        let offset = (entry.location.lsn() - base) as usize;
        let bytes = self.disk.segments[&base][offset + 8..offset + 16].try_into().expect("eight bytes");
        u64::from_le_bytes(bytes)
    }

    /// The newest amendment of every record, or of those beyond a place.
    fn check_amendments(&self) {
        let (log, disk) = (&self.log, &self.disk);
        let homes = self.model.keys().filter(|id| id.kind == MESSAGES);
        for home in homes {
            let head = log.head(*home).seq;
            for (first, last, after) in [(1, head, 0), (1, head / 3, 0), (head / 2, head, 0), (1, head, head)]
            {
                let after = after.min(log.durable().position() / 2);
                let wanted = (first..=last).step_by(2).map(|seq| Wanted { seq, after });
                let (found, _) = amendments(log, disk, *home, wanted.clone().collect());
                let expected = wanted.filter_map(|Wanted { seq, .. }| {
                    let newest = *self.amended.get(&(*home, seq))?.last()?;
                    (newest > after).then_some((seq, newest))
                });
                let found: Vec<(u64, u64)> = found.iter().map(|(seq, entry)| (*seq, entry.key)).collect();
                assert_eq!(found, expected.collect::<Vec<_>>(), "{home:?} {first}..={last} after {after}");
            }
        }
    }

    /// Every stream, from any place, both ways.
    fn check(&mut self) {
        flush(&mut self.log, &mut self.disk);
        self.check_amendments();
        let (log, disk) = (&self.log, &self.disk);
        for (stream, expected) in &self.model {
            let newest = *expected.last_key_value().expect("an entry").0;
            for from in [0, 1, newest / 3, newest / 2, newest.saturating_sub(5), newest] {
                let up = after(log, disk, *stream, from);
                let wanted: Vec<u64> = expected.range(from + 1..).map(|(key, _)| *key).collect();
                assert_eq!(keys(&up), wanted, "{stream:?} after {from}");
                for entry in up.iter().step_by(7) {
                    assert_eq!(payload(disk, entry.location), expected[&entry.key]);
                }
                let down = before(log, disk, *stream, from + 1);
                let wanted: Vec<u64> = expected.range(..=from).rev().map(|(key, _)| *key).collect();
                assert_eq!(keys(&down), wanted, "{stream:?} before {}", from + 1);
            }
        }
    }
}

#[test]
fn lookups_find_what_the_model_has_over_any_number_of_segments() {
    for seed in 0..12 {
        let mut run = Run::new(seed, SMALL);
        for round in 0..4 {
            (0..600).for_each(|_| run.put());
            run.check();
            // Some rounds begin anew, from what index files and snapshots there are.
            if round % 3 != 2 {
                run.disk.renew_snapshot();
            }
            if round % 2 == 0 {
                let recovered = run.disk.recover(round + 2).expect("a sound log");
                run.log = recovered.log;
                run.check();
            }
        }
        assert!(run.disk.indexes.len() > 20, "{} sealed segments", run.disk.indexes.len());
    }
}

/// Only the way matters here: a stream that is rarely written, over segments that others fill.
#[test]
fn the_way_to_the_oldest_record_is_short() {
    let mut run = Run::new(1, SMALL);
    let (rare, filler) = (stream(MESSAGES, 1), stream(MESSAGES, 2));
    let segments = 1_000;
    while run.disk.indexes.len() < segments {
        put(&mut run.log, rare, b"rare", &[stream(INBOX, 3)]);
        for _ in 0..2 {
            put(&mut run.log, filler, &[0; 7_000], &[]);
            flush(&mut run.log, &mut run.disk);
        }
        seal(&mut run.log, &mut run.disk);
    }
    let Run { log, disk, .. } = &run;
    for (stream, first) in [(rare, 1), (stream(INBOX, 3), 1)] {
        let (found, more, reads) = page(log, disk, Lookup::after(log, stream, 0, PAGE));
        assert_eq!((found[0].key, more), (first, true));
        assert!(reads <= segments / 64 + 64 + 10, "{reads} blocks read");
    }
    assert_eq!(after(log, disk, rare, 0).len() as u64, log.head(rare).seq);
    // The newest page is near, wherever it has to be read.
    let page_of_five = Page { items_max: 5, ..PAGE };
    let (found, _, reads) = page(log, disk, Lookup::before(log, rare, u64::MAX, 0, page_of_five));
    assert!(found.len() == 5 && reads <= 6, "{reads} blocks read for {} entries", found.len());
}

/// A stream that is in every segment: where nothing was amended, or only what is newer, nothing is read; and what was amended long
/// ago is found on a short way.
#[test]
fn the_way_to_an_amendment_is_short() {
    let mut run = Run::new(1, SMALL);
    let (talk, calm, filler) = (stream(MESSAGES, 1), stream(MESSAGES, 4), stream(MESSAGES, 2));
    let segments = 1_000;
    while run.disk.indexes.len() < segments {
        let head = run.log.head(talk).seq;
        // Each amends the one before; and one, in the middle, the tenth.
        let target = if run.disk.indexes.len() == 500 && head > 10 { 10 } else { head };
        let links = if target > 0 { vec![amending(talk, head, target)] } else { Vec::new() };
        put_linked(&mut run.log, talk, b"talk", &links);
        put(&mut run.log, calm, b"calm", &[]);
        for _ in 0..2 {
            put(&mut run.log, filler, &[0; 7_000], &[]);
            flush(&mut run.log, &mut run.disk);
        }
        seal(&mut run.log, &mut run.disk);
    }
    let Run { log, disk, .. } = &run;
    let all = |stream, seqs: std::ops::Range<u64>| {
        amendments(log, disk, stream, seqs.map(|seq| Wanted { seq, after: 0 }).collect())
    };
    assert_eq!(all(calm, 1..500), (Vec::new(), 0), "memory says that there is none");
    // The epoch in which it was amended has to be gone through, and the one where it stands; others are one step each.
    let (found, reads) = all(talk, 10..11);
    assert_eq!(found.len(), 1);
    let position = found[0].1.key;
    assert!(reads <= segments / 64 + 64 + 10, "{reads} blocks read");
    // Whoever knows of that reads nothing older.
    let (found, reads) = amendments(log, disk, talk, vec![Wanted { seq: 10, after: position }]);
    assert!(found.is_empty() && reads <= segments / 64 + 64 + 10, "{reads} blocks read");
    let newest = log.head(talk).seq;
    let (found, reads) = all(talk, newest - 20..newest);
    assert!(found.len() == 20 && reads <= 25, "{} found, {reads} blocks read", found.len());
}

#[test]
fn an_amendment_that_is_not_durable_is_not_found_and_the_one_before_it_is() {
    let mut run = Run::new(1, SMALL);
    let talk = stream(MESSAGES, 1);
    put(&mut run.log, talk, b"said", &[]);
    put_linked(&mut run.log, talk, b"first", &[amending(talk, 1, 1)]);
    flush(&mut run.log, &mut run.disk);
    put_linked(&mut run.log, talk, b"second", &[amending(talk, 2, 1)]);
    let find = |run: &Run| amendments(&run.log, &run.disk, talk, vec![Wanted { seq: 1, after: 0 }]).0;
    assert_eq!(payload(&run.disk, find(&run)[0].1.location), b"first");
    flush(&mut run.log, &mut run.disk);
    assert_eq!(payload(&run.disk, find(&run)[0].1.location), b"second");
}

#[test]
fn the_amendments_of_a_long_list_are_found_at_the_right_block() {
    let geometry = Geometry { segment_bytes: 4 << 20, batch_bytes_max: 64 << 10, block_bytes: 512 };
    let mut run = Run::new(1, geometry);
    let busy = stream(MESSAGES, 5);
    while run.disk.indexes.len() < 2 {
        for _ in 0..200 {
            put(&mut run.log, busy, b"", &[]);
            let head = run.log.head(busy).seq;
            put_linked(&mut run.log, busy, b"", &[amending(busy, head, head)]);
        }
        flush(&mut run.log, &mut run.disk);
        seal(&mut run.log, &mut run.disk);
    }
    let (log, disk) = (&run.log, &run.disk);
    let head = log.head(busy).seq;
    for seq in (1..head - 50).step_by(997) {
        let page = (seq..seq + 50).map(|seq| Wanted { seq, after: 0 });
        let (found, reads) = amendments(log, disk, busy, page.collect());
        assert!(found.len() == 25 && reads <= 20, "{} found, {reads} blocks", found.len());
    }
}

#[test]
fn a_long_list_is_entered_at_the_right_block() {
    let geometry = Geometry { segment_bytes: 4 << 20, batch_bytes_max: 64 << 10, block_bytes: 512 };
    let mut run = Run::new(1, geometry);
    let (busy, other, inbox) = (stream(MESSAGES, 5), stream(MESSAGES, 4), stream(INBOX, 5));
    while run.disk.indexes.len() < 2 {
        for _ in 0..200 {
            put(&mut run.log, busy, b"", &[inbox]);
        }
        put(&mut run.log, other, b"", &[]);
        flush(&mut run.log, &mut run.disk);
        seal(&mut run.log, &mut run.disk);
    }
    let (log, disk) = (&run.log, &run.disk);
    let head = log.head(busy).seq;
    assert!(head > 30_000, "{head} records");
    for stream in [busy, inbox] {
        let newest = after(log, disk, stream, 0).last().expect("records").key;
        for from in (0..newest).step_by(997) {
            let (found, _, reads) = page(log, disk, Lookup::after(log, stream, from, PAGE));
            assert!(found[0].key > from && found[0].key <= from + 2 && reads <= 8, "{reads} blocks");
            let (found, _, reads) = page(log, disk, Lookup::before(log, stream, from + 2, 0, PAGE));
            assert!(found[0].key <= from + 1 && reads <= 8, "{reads} blocks");
        }
    }
}

#[test]
fn an_index_file_that_is_damaged_or_missing_is_made_anew() {
    let mut run = Run::new(9, SMALL);
    (0..900).for_each(|_| run.put());
    seal(&mut run.log, &mut run.disk);
    run.check();
    let whole = run.disk.clone();
    let bases: Vec<u64> = whole.indexes.keys().copied().collect();
    for (number, base) in bases.iter().enumerate().step_by(3) {
        let length = whole.indexes[base].len();
        for at in [0, 5, 17, 40, 60, length - 300, length - 129, length - 128, length - 20, length - 1] {
            run.disk.indexes.get_mut(base).expect("a file")[at] ^= 0x10;
            run.log = run.disk.recover(number as u32).expect("the log is sound").log;
            // All that follow are made anew, from this one on.
            while let Some(job) = run.log.poll_index() {
                assert!(job.base() >= *base);
                let sealed = run.disk.write_index(&job);
                run.log.handle_indexed(Some(sealed));
            }
            // But for the footer, which says when it was made.
            let (made, before) = (&run.disk.indexes[base], &whole.indexes[base]);
            let content = length - INDEX_FOOTER_BYTES;
            assert!(made[..content] == before[..content], "byte {at} of file {number}");
        }
        run.check();
    }
    run.disk.indexes.remove(&bases[2]);
    run.log = run.disk.recover(77).expect("the log is sound").log;
    run.check();
    // One that says of another segment that it is this one.
    run.disk.indexes = whole.indexes.clone();
    run.disk.indexes.insert(bases[1], whole.indexes[&bases[3]].clone());
    run.log = run.disk.recover(78).expect("the log is sound").log;
    run.check();
}

#[test]
fn a_block_that_rots_while_the_log_serves_is_noticed() {
    let mut run = Run::new(5, SMALL);
    (0..600).for_each(|_| run.put());
    seal(&mut run.log, &mut run.disk);
    let (base, file) = run.disk.indexes.first_key_value().expect("sealed segments");
    let mut block = file[..storage_log::INDEX_BLOCK_BYTES].to_vec();
    block[77] ^= 1;
    let mut lookup = Lookup::after(&run.log, stream(MESSAGES, 0), 0, PAGE);
    loop {
        match lookup.poll(&run.log) {
            Progress::Read(place) if place.base == *base => lookup.feed(place, block.clone()),
            Progress::Read(place) => {
                let file = &run.disk.indexes[&place.base];
                lookup.feed(place, file[place.offset() as usize..][..block.len()].to_vec());
            }
            Progress::Damaged(place) => break assert_eq!(place.base, *base),
            Progress::Done => panic!("the first record is in that block"),
        }
    }
}

/// Many blocks in each file.
const LARGE: Geometry = Geometry { segment_bytes: 512 << 10, batch_bytes_max: 8 << 10, block_bytes: 512 };

/// A log of sealed segments, and their bases.
fn sealed(seed: u64, geometry: Geometry, records: usize) -> (Run, Vec<u64>) {
    let mut run = Run::new(seed, geometry);
    (0..records).for_each(|_| run.put());
    flush(&mut run.log, &mut run.disk);
    seal(&mut run.log, &mut run.disk);
    let bases: Vec<u64> = run.disk.indexes.keys().copied().collect();
    assert!(bases.len() >= 2, "some segments are sealed");
    (run, bases)
}

/// But for what says how the log stood when the file was made.
fn without_footer_times(file: &[u8]) -> Vec<u8> {
    let (mut file, at) = (file.to_vec(), file.len() - INDEX_FOOTER_BYTES);
    for field in [index_at::CHECKSUM, index_at::DURABLE_LSN, index_at::CLOCK] {
        file[at..][field].fill(0);
    }
    file
}

#[test]
fn an_index_file_that_rots_while_the_log_serves_is_made_again_as_it_was() {
    for (geometry, records) in [(SMALL, 600), (LARGE, 5_000)] {
        let (mut run, bases) = sealed(11, geometry, records);
        let whole = run.disk.indexes.clone();
        for base in &bases {
            let file = &whole[base];
            let places = (0..file.len()).step_by(file.len() / 9);
            for at in places.chain([file.len() - INDEX_FOOTER_BYTES - 1, file.len() - 1]) {
                run.disk.indexes.get_mut(base).expect("a sealed segment")[at] ^= 1;
                assert_eq!(without_footer_times(run.rebuild(*base)), without_footer_times(file), "{at}");
            }
            run.disk.indexes.remove(base);
            assert_eq!(without_footer_times(run.rebuild(*base)), without_footer_times(file));
        }
        run.check();
    }
}

#[test]
fn index_files_that_rot_together_are_made_again_and_every_key_is_found() {
    let (mut run, mut bases) = sealed(12, SMALL, 900);
    run.disk.indexes.clear();
    // Newest first: nothing says what came before.
    bases.reverse();
    bases.iter().for_each(|base| drop(run.rebuild(*base).to_vec()));
    run.check();
    run.log = run.disk.recover(5).expect("the log is sound").log;
    run.check();
}

#[test]
fn a_lookup_goes_on_in_an_index_file_that_was_made_again_under_it() {
    let (mut run, bases) = sealed(13, LARGE, 5_000);
    let streams: Vec<StreamId> = run.model.keys().copied().collect();
    let page = Page { items_max: 5_000, bytes_max: 64 << 20 };
    for (number, id) in streams.iter().enumerate() {
        let wanted: Vec<u64> = run.model[id].keys().copied().collect();
        let ups = Lookup::after(&run.log, *id, 0, page);
        let downs = Lookup::before(&run.log, *id, u64::MAX, 0, page);
        for (mut lookup, is_up) in [(ups, true), (downs, false)] {
            let (mut reads, mut again) = (0, Vec::new());
            while let Progress::Read(place) = lookup.poll(&run.log) {
                let block = support::block(&run.disk, place).expect("a whole file");
                reads += 1;
                if reads % 3 == number % 3 && !again.contains(&place.base) {
                    again.push(place.base);
                    // All that older files say is gone, and with it the layout of what is made.
                    run.disk.indexes.remove(&place.base);
                    run.rebuild(place.base);
                }
                lookup.feed(place, block);
            }
            let mut found = keys(lookup.entries());
            if !is_up {
                found.reverse();
            }
            assert_eq!(found, wanted, "{id:?} {is_up} of {} segments", bases.len());
        }
    }
}

#[test]
fn a_record_that_no_index_names_any_more_keeps_its_place() {
    let (mut run, bases) = sealed(14, SMALL, 600);
    let homes = run.model.keys().filter(|id| id.kind == MESSAGES).copied();
    for id in homes.collect::<Vec<_>>() {
        let entries = after(&run.log, &run.disk, id, 0);
        // The first and the last of a stream in a segment have no neighbour that tells of them.
        let Some(hit) = entries.windows(3).find_map(|window| {
            let base = |entry: &Entry| run.disk.geometry.segment_of(entry.location.lsn());
            let same = base(&window[0]) == base(&window[1]) && base(&window[1]) == base(&window[2]);
            (same && bases.contains(&base(&window[1]))).then_some(window[1])
        }) else {
            continue;
        };
        let (base, disk) = (run.disk.geometry.segment_of(hit.location.lsn()), run.disk.clone());
        let offset = (hit.location.lsn() - base) as usize;
        run.disk.segments.get_mut(&base).expect("it is there")[offset + 40] ^= 1;
        run.disk.indexes.remove(&base);
        run.rebuild(base);
        let found = after(&run.log, &run.disk, id, 0);
        assert_eq!(keys(&found), keys(&entries), "{id:?}: no sequence shifts");
        for (found, entry) in found.iter().zip(&entries) {
            if entry.key == hit.key {
                let start = (found.location.lsn() - base) as usize;
                let bytes = &run.disk.segments[&base][start..start + found.location.bytes()];
                assert!(Log::verify(found.location, bytes).is_err(), "a place where no record can be read");
                continue;
            }
            assert_eq!(found.location, entry.location);
        }
        // What it was linked into is not known any more; every other link is.
        let position = run.position_of(hit);
        for (inbox, expected) in run.model.iter().filter(|(stream, _)| stream.kind == INBOX) {
            let left: Vec<u64> = expected.keys().copied().filter(|key| *key != position).collect();
            assert_eq!(keys(&after(&run.log, &run.disk, *inbox, 0)), left, "{inbox:?}");
        }
        run.disk = disk;
        run.rebuild(base);
    }
    run.check();
}

#[test]
fn a_damaged_record_of_a_sealed_segment_is_named() {
    let mut run = Run::new(3, SMALL);
    (0..400).for_each(|_| run.put());
    flush(&mut run.log, &mut run.disk);
    seal(&mut run.log, &mut run.disk);
    let (log, disk) = (&run.log, &run.disk);
    for (stream, expected) in run.model.iter().filter(|(stream, _)| stream.kind == INBOX) {
        let entries: Vec<Entry> = after(log, disk, *stream, 0);
        assert_eq!(entries.len(), expected.len());
        for entry in entries.iter().step_by(5) {
            let mut search = HomeSearch::new(*entry);
            while let Progress::Read(place) = search.poll(log) {
                let file = &disk.indexes[&place.base];
                search.feed(file[place.offset() as usize..][..storage_log::INDEX_BLOCK_BYTES].to_vec());
            }
            let (home, seq) = search.found().expect("it has a home");
            assert_eq!((home.kind, &run.model[&home][&seq]), (MESSAGES, &expected[&entry.key]));
        }
    }
}

#[test]
fn the_newest_state_is_known_and_none_that_is_not_durable() {
    let mut run = Run::new(3, SMALL);
    let (talk, state) = (stream(MESSAGES, 1), stream(STATE, 1));
    for seq in 1..=300_u64 {
        put(&mut run.log, talk, &[1; 100], &[]);
        if seq % 50 == 1 {
            let payload = seq.to_le_bytes();
            let draft = storage_log::Draft {
                stream: state,
                expected_head: seq - 1,
                messages: 0,
                schema: 1,
                payload: &payload,
                links: &[],
            };
            assert!(matches!(run.log.append(&[draft], 1), Answer::Stored(_)));
        }
        flush(&mut run.log, &mut run.disk);
    }
    seal(&mut run.log, &mut run.disk);
    for log in [&run.log, &run.disk.recover(2).expect("a sound log").log] {
        let location = log.last(state).expect("it is durable");
        let (base, offset) = (SMALL.segment_of(location.lsn()), SMALL.offset_of(location.lsn()) as usize);
        let record = Log::verify(location, &run.disk.segments[&base][offset..offset + location.bytes()]);
        let record = record.expect("a sound record");
        assert_eq!((record.seq(), record.payload()), (251, &251_u64.to_le_bytes()[..]));
        assert_eq!(log.durable_head(talk).seq, 300);
    }
    put(&mut run.log, state, b"not durable", &[]);
    assert_eq!(run.log.last(state), None);
}

#[test]
fn a_snapshot_is_the_same_in_one_step_and_in_many_and_is_not_trusted() {
    let mut run = Run::new(11, SMALL);
    let mut before = None;
    for round in 0..6 {
        (0..200).for_each(|_| run.put());
        flush(&mut run.log, &mut run.disk);
        seal(&mut run.log, &mut run.disk);
        run.disk.renew_snapshot();
        assert!(run.disk.snapshot != before, "round {round}");
        before = run.disk.snapshot.clone();
    }
    run.disk.snapshot = None;
    run.disk.renew_snapshot();
    let whole = run.disk.snapshot.clone().expect("it was made");
    assert!(before.as_ref() == Some(&whole), "in one step");
    for at in (0..whole.len()).step_by(1_711).chain(whole.len() - INDEX_FOOTER_BYTES..whole.len()) {
        run.disk.snapshot.as_mut().expect("it was made")[at] ^= 4;
        let recovered = run.disk.recover(at as u32).expect("the log is sound");
        for stream in run.model.keys().filter(|stream| stream.kind == MESSAGES) {
            assert_eq!(recovered.log.head(*stream), run.log.head(*stream), "byte {at}");
        }
        run.disk.snapshot = Some(whole.clone());
    }
    run.log = run.disk.recover(1).expect("the log is sound").log;
    run.check();
}

#[test]
fn a_glance_shows_every_record_of_a_sealed_segment_and_stops_where_one_is_damaged() {
    let mut run = Run::new(2, SMALL);
    (0..600).for_each(|_| run.put());
    flush(&mut run.log, &mut run.disk);
    seal(&mut run.log, &mut run.disk);
    let mut positions = Vec::new();
    for (base, file) in &run.disk.indexes {
        let footer = &file[file.len() - INDEX_FOOTER_BYTES..];
        let footer = IndexFooter::parse(footer, *base, &support::config(SMALL)).expect("it was written");
        let mut segment = run.disk.segments[base].clone();
        segment.resize(SMALL.segment_bytes as usize, 0);
        let mut glance = Glance::new(SMALL, *base, footer.end_lsn());
        while let Some(offset) = glance.offset() {
            assert!(
                glance.feed(&segment[offset as usize..], &mut |record| positions.push(record.position()))
            );
        }
        segment[SMALL.segment_bytes as usize / 2] ^= 1;
        let mut glance = Glance::new(SMALL, *base, footer.end_lsn());
        let (mut shown, mut sound) = (0, true);
        while let Some(offset) = glance.offset().filter(|_| sound) {
            sound = glance.feed(&segment[offset as usize..], &mut |_| shown += 1);
        }
        assert!(shown > 0 && (!sound || footer.end_lsn() - base <= SMALL.segment_bytes / 2));
    }
    assert!(positions.len() > 400 && positions.iter().zip(1..).all(|(position, at)| *position == at));
}
