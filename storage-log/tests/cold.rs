//! Segments that were written anew, beside a model that is a map.

#![forbid(unsafe_code)]

mod support;

use std::collections::BTreeMap;

use storage_log::{
    Answer, DamageKind, Draft, Entry, Geometry, Log, Lookup, Progress, Retention, SCHEMA_GONE, StreamId,
    StreamKind, Wanted, as_appended, is_cold,
};

use support::{
    Disk, INBOX, MESSAGES, PAGE, STATE, after, amending, amendments, before, block, flush, keys, linked,
    page, payload, seal, stream,
};

const SMALL: Geometry = Geometry { segment_bytes: 16 << 10, batch_bytes_max: 8 << 10, block_bytes: 512 };

const MEMBERSHIPS: StreamKind = StreamKind(5);

/// A record as it was put.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Put {
    position: u64,
    at: u64,
    payload: Vec<u8>,
}

struct Run {
    log: Log,
    disk: Disk,
    model: BTreeMap<StreamId, BTreeMap<u64, Put>>,
    states: BTreeMap<u8, Vec<u8>>,
    /// By home stream and what is amended: the newest amendment's position, and the amendment.
    amended: BTreeMap<(StreamId, u64), (u64, Put)>,
    now: u64,
    random: u64,
}

impl Run {
    fn new(random: u64) -> Self {
        let disk = Disk::of(SMALL);
        let log = disk.recover(1).expect("an empty log").log;
        let (model, states, amended) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { log, disk, model, states, amended, now: 1_000, random }
    }

    fn below(&mut self, limit: u64) -> u64 {
        support::roll(&mut self.random) % limit
    }

    /// A message into a conversation, linked to some users, and sometimes a state of it.
    fn put(&mut self) {
        self.now += self.below(3);
        let skewed = (self.below(30) * self.below(30) / 30) as u8;
        let home = stream(MESSAGES, skewed);
        let users: Vec<u8> = (0..self.below(4)).map(|step| (self.below(8) * 4 + step) as u8).collect();
        let mut links: Vec<StreamId> = users.iter().map(|user| stream(INBOX, *user)).collect();
        links.extend(users.iter().filter(|user| **user < 3).map(|user| stream(MEMBERSHIPS, *user)));
        let payload: Vec<u8> = (0..self.below(200)).map(|_| self.below(256) as u8).collect();
        let expected_head = self.log.head(home).seq;
        let mut to = linked(&links);
        let target = expected_head - self.below(9).min(expected_head);
        let amends = self.below(4) == 0 && target > 0;
        to.extend(amends.then(|| amending(home, expected_head, target)));
        let draft =
            Draft { stream: home, expected_head, messages: 1, schema: 1, payload: &payload, links: &to };
        let mut group = vec![draft];
        let state = self.below(12) == 0;
        if state {
            let stream = stream(STATE, skewed);
            group.push(Draft { stream, messages: 0, links: &[], ..draft });
        }
        let Answer::Stored(stored) = self.log.append(&group, self.now) else {
            panic!("there is room");
        };
        let put = Put { position: stored.first_position, at: self.now, payload: payload.clone() };
        if amends {
            self.amended.insert((home, target), (stored.first_position, put.clone()));
        }
        self.model.entry(home).or_default().insert(expected_head + 1, put.clone());
        for link in &links {
            self.model.entry(*link).or_default().insert(stored.first_position, put.clone());
        }
        if state {
            self.states.insert(skewed, payload);
        }
        if self.below(3) == 0 {
            flush(&mut self.log, &mut self.disk);
            seal(&mut self.log, &mut self.disk);
        }
    }

    /// Writes some sealed segments anew, each told to the log: out of turn, as it would if it had asked.
    fn compact(&mut self, retention: Retention, share: u64) {
        let sealed: Vec<u64> = self.disk.indexes.keys().copied().collect();
        for base in sealed {
            if self.below(100) < share {
                let sealed = self.disk.compact(base, retention);
                self.log.replace_segment(sealed);
            }
        }
    }

    /// Every stream that is kept whole, from any place, both ways.
    fn check_all_kept(&mut self) {
        flush(&mut self.log, &mut self.disk);
        let (log, disk) = (&self.log, &self.disk);
        for (stream, expected) in &self.model {
            let newest = *expected.last_key_value().expect("an entry").0;
            for from in [0, newest / 3, newest.saturating_sub(5), newest] {
                let up = after(log, disk, *stream, from);
                let wanted: Vec<u64> = expected.range(from + 1..).map(|(key, _)| *key).collect();
                assert!(keys(&up) == wanted, "{stream:?} after {from}");
                for entry in up.iter().step_by(7) {
                    assert!(payload(disk, entry.location) == expected[&entry.key].payload);
                }
                let down = before(log, disk, *stream, from + 1);
                let wanted: Vec<u64> = expected.range(..=from).rev().map(|(key, _)| *key).collect();
                assert!(keys(&down) == wanted, "{stream:?} before {}", from + 1);
            }
        }
        self.check_head_positions();
        self.check_amendments(0);
        self.check_states();
    }

    /// Where the newest record of every conversation stands among all others, whatever was written anew or read back since.
    fn check_head_positions(&self) {
        for (stream, expected) in self.model.iter().filter(|(stream, _)| stream.kind == MESSAGES) {
            let newest = expected.last_key_value().expect("an entry").1;
            assert_eq!(self.log.head_position(*stream), newest.position, "{stream:?}");
        }
    }

    /// The newest amendment of every record, if it was stored at `cut` or later.
    fn check_amendments(&self, cut: u64) {
        for home in self.model.keys().filter(|id| id.kind == MESSAGES) {
            let wanted = (1..=self.log.head(*home).seq).map(|seq| Wanted { seq, after: 0 }).collect();
            let (found, _) = amendments(&self.log, &self.disk, *home, wanted);
            for (seq, entry) in &found {
                let (position, put) = &self.amended[&(*home, *seq)];
                assert!(entry.key == *position && payload(&self.disk, entry.location) == put.payload);
            }
            let found: Vec<u64> = found.iter().map(|(seq, _)| *seq).collect();
            let of_home = self.amended.range((*home, 0)..=(*home, u64::MAX));
            let must = of_home.filter(|(_, (_, put))| put.at >= cut).map(|((_, seq), _)| seq);
            assert!(must.into_iter().all(|seq| found.contains(seq)), "{home:?}");
        }
    }

    fn check_states(&self) {
        for (conversation, state) in &self.states {
            assert!(self.newest_state(*conversation) == *state, "state of {conversation}");
        }
    }

    fn newest_state(&self, conversation: u8) -> Vec<u8> {
        let stream = stream(STATE, conversation);
        let location = self.log.last(stream).expect("it has a state");
        if !self.log.may_have_moved(location) {
            return payload(&self.disk, location);
        }
        let (found, _, reads) = page(&self.log, &self.disk, Lookup::last(&self.log, stream, location));
        assert!(reads <= 2, "{reads} blocks read");
        payload(&self.disk, found[0].location)
    }
}

#[test]
fn what_was_written_anew_is_found_as_before() {
    for seed in 0..8 {
        let mut run = Run::new(seed);
        for round in 0..5 {
            (0..400).for_each(|_| run.put());
            run.check_all_kept();
            if round % 2 == 1 {
                run.disk.renew_snapshot();
            }
            run.compact(Retention::default(), 40);
            run.check_all_kept();
            if round % 2 == 0 {
                run.log = run.disk.recover(round + 2).expect("a sound log").log;
                run.check_all_kept();
            }
        }
        assert!(run.disk.indexes.len() > 20, "{} sealed segments", run.disk.indexes.len());
    }
}

/// What is kept is always the end of a stream, and the newest record is never lost from it.
#[test]
fn retention_takes_the_front_of_every_stream_and_nothing_else() {
    for seed in 0..8 {
        let mut run = Run::new(seed);
        for round in 0..4 {
            (0..400).for_each(|_| run.put());
            flush(&mut run.log, &mut run.disk);
            seal(&mut run.log, &mut run.disk);
            run.disk.renew_snapshot();
            let cut = run.now - 300;
            // In any order, some only later.
            let retention = Retention { home_from: cut, linked_from: [cut, 0] };
            run.compact(retention, 60);
            run.compact(retention, 60);
            check_cut(&run, cut);
            if round % 2 == 0 {
                run.log = run.disk.recover(round + 2).expect("a sound log").log;
                check_cut(&run, cut);
            }
        }
    }
}

fn check_cut(run: &Run, cut: u64) {
    for (stream, expected) in &run.model {
        let newest = *expected.last_key_value().expect("an entry").0;
        let kept_whole = stream.kind == MEMBERSHIPS;
        let must: Vec<u64> =
            expected.iter().filter(|(_, put)| kept_whole || put.at >= cut).map(|(key, _)| *key).collect();
        let up = after(&run.log, &run.disk, *stream, 0);
        let found = keys(&up);
        let all: Vec<u64> = expected.keys().copied().collect();
        assert!(all.ends_with(&found), "{stream:?} has a hole: {found:?}");
        assert!(found.ends_with(&must), "{stream:?} lacks what is young: {found:?}");
        if stream.kind == MESSAGES {
            assert_eq!((found.last(), run.log.head(*stream).seq), (Some(&newest), newest));
        }
        let mut down = keys(&before(&run.log, &run.disk, *stream, u64::MAX));
        down.reverse();
        assert!(down == found, "{stream:?} down {down:?} up {found:?}");
        check_payloads(run, &up, expected, cut);
    }
    run.check_head_positions();
    run.check_amendments(cut);
    run.check_states();
}

fn check_payloads(run: &Run, entries: &[Entry], expected: &BTreeMap<u64, Put>, cut: u64) {
    for entry in entries {
        let (found, put) = (payload(&run.disk, entry.location), &expected[&entry.key]);
        let is_stub = found.is_empty() && put.at < cut;
        assert!(found == put.payload || is_stub);
    }
}

#[test]
fn the_content_of_the_newest_record_goes_and_its_number_stays() {
    let mut run = Run::new(1);
    let talk = stream(MESSAGES, 1);
    let put = |run: &mut Run, home, payload: &[u8]| {
        let expected_head = run.log.head(home).seq;
        let draft = Draft { stream: home, expected_head, messages: 1, schema: 1, payload, links: &[] };
        assert!(matches!(run.log.append(&[draft], run.now), Answer::Stored(_)));
        flush(&mut run.log, &mut run.disk);
        seal(&mut run.log, &mut run.disk);
    };
    put(&mut run, talk, b"one");
    put(&mut run, talk, b"two");
    run.now += 1_000;
    while run.disk.indexes.is_empty() {
        put(&mut run, stream(MESSAGES, 2), &[0; 6_000]);
    }
    run.disk.renew_snapshot();
    run.compact(Retention { home_from: run.now, linked_from: [0; 2] }, 100);
    run.log = run.disk.recover(2).expect("a sound log").log;
    let kept = after(&run.log, &run.disk, talk, 0);
    assert_eq!((keys(&kept), run.log.head(talk).seq, run.log.head(talk).message_count), (vec![2], 2, 2));
    let file = &run.disk.segments[&0];
    let offset = SMALL.offset_of(kept[0].location.lsn()) as usize;
    let record = Log::verify(kept[0].location, &file[offset..offset + kept[0].location.bytes()]);
    let record = record.expect("a sound record");
    assert_eq!((record.schema(), record.payload(), record.seq()), (SCHEMA_GONE, &b""[..], 2));
    assert!(!file.windows(3).any(|bytes| bytes == b"one" || bytes == b"two"), "the content is gone");
}

/// What a segment before still holds, because not all of it is too old yet, has the same end ahead and is not read any more.
#[test]
fn a_number_without_content_ends_its_stream() {
    let mut run = Run::new(1);
    let talk = stream(MESSAGES, 1);
    for sealed in [1, 2] {
        support::put(&mut run.log, talk, b"of this segment", &[]);
        while run.disk.indexes.len() < sealed {
            support::put(&mut run.log, stream(MESSAGES, 2), &[0; 6_000], &[]);
            flush(&mut run.log, &mut run.disk);
            seal(&mut run.log, &mut run.disk);
        }
    }
    run.disk.renew_snapshot();
    let last = *run.disk.indexes.keys().nth(1).expect("the second one");
    let sealed = run.disk.compact(last, Retention { home_from: 2_000, linked_from: [0; 2] });
    run.log.replace_segment(sealed);
    for _ in 0..2 {
        assert_eq!(keys(&after(&run.log, &run.disk, talk, 0)), [2]);
        assert_eq!(keys(&before(&run.log, &run.disk, talk, 3)), [2]);
        run.log = run.disk.recover(2).expect("a sound log").log;
    }
}

/// A page of a conversation that is scattered over its segment is one run of bytes once that is cold.
#[test]
fn a_page_of_a_cold_segment_is_two_reads() {
    let geometry = Geometry { segment_bytes: 4 << 20, batch_bytes_max: 64 << 10, block_bytes: 512 };
    let mut run = Run { disk: Disk::of(geometry), ..Run::new(1) };
    run.log = run.disk.recover(1).expect("an empty log").log;
    while run.disk.indexes.is_empty() {
        for talk in 0..100 {
            let home = stream(MESSAGES, talk);
            support::put(&mut run.log, home, &[talk; 100], &[]);
        }
        flush(&mut run.log, &mut run.disk);
        seal(&mut run.log, &mut run.disk);
    }
    run.compact(Retention::default(), 100);
    let page_of_50 = storage_log::Page { items_max: 50, bytes_max: 64 << 10 };
    let lookup = Lookup::before(&run.log, stream(MESSAGES, 42), 60, 0, page_of_50);
    let (found, _, blocks) = page(&run.log, &run.disk, lookup);
    assert_eq!((found.len(), blocks), (50, 1));
    // As many as there are where a run ends: what stands side by side is read as one.
    let mut runs = vec![found[0].location];
    for entry in &found[1..] {
        let last = runs.last_mut().expect("the first one");
        match last.joined(entry.location) {
            Some(joined) => *last = joined,
            None => runs.push(entry.location),
        }
    }
    assert_eq!(runs.len(), 1, "{runs:?}");
    let (base, start) = (geometry.segment_of(runs[0].lsn()), geometry.offset_of(runs[0].lsn()) as usize);
    let bytes = &run.disk.segments[&as_appended(base)][start..start + runs[0].bytes()];
    for entry in &found {
        let start = (entry.location.lsn() - runs[0].lsn()) as usize;
        let record = Log::verify(entry.location, &bytes[start..start + entry.location.bytes()]);
        assert_eq!(record.expect("a sound record").payload(), [42; 100]);
    }
}

/// Whoever is in the middle of a search when the segment is written anew neither misses nor repeats anything.
#[test]
fn a_search_goes_on_where_its_segment_was_written_anew() {
    let mut run = Run::new(5);
    (0..1_500).for_each(|_| run.put());
    flush(&mut run.log, &mut run.disk);
    seal(&mut run.log, &mut run.disk);
    for stream in run.model.keys().copied().collect::<Vec<_>>() {
        let wide = storage_log::Page { items_max: 1_000, ..PAGE };
        for up in [true, false] {
            let mut lookup = if up {
                Lookup::after(&run.log, stream, 0, wide)
            } else {
                Lookup::before(&run.log, stream, u64::MAX, 0, wide)
            };
            while let Progress::Read(place) = lookup.poll(&run.log) {
                let read = block(&run.disk, place);
                if run.below(4) == 0 {
                    run.compact(Retention::default(), 10);
                }
                lookup.feed(place, read.expect("read before"));
            }
            let mut found = keys(lookup.entries());
            if !up {
                found.reverse();
            }
            let all: Vec<u64> = run.model[&stream].keys().copied().collect();
            let cut = if up { all.starts_with(&found) } else { all.ends_with(&found) };
            assert!(cut && !found.is_empty(), "{stream:?}: {found:?}");
        }
    }
}

/// All that is young is found, where an index that was made again may know of older records too.
fn check_young(run: &Run, cut: u64) {
    for (stream, expected) in &run.model {
        let young = |key: &u64| stream.kind == MEMBERSHIPS || expected[key].at >= cut;
        let found = keys(&after(&run.log, &run.disk, *stream, 0));
        let found: Vec<u64> = found.into_iter().filter(young).collect();
        let wanted: Vec<u64> = expected.keys().copied().filter(young).collect();
        assert!(found == wanted, "{stream:?}: {found:?} for {wanted:?}");
        let newest = expected.last_key_value().map(|(key, _)| *key);
        assert!(stream.kind != MESSAGES || newest == Some(run.log.head(*stream).seq));
    }
    run.check_states();
}

/// The index of a cold segment is derived from its records, like any other.
#[test]
fn a_damaged_index_of_a_cold_segment_is_made_anew() {
    for seed in 0..6 {
        let mut run = Run::new(seed);
        (0..600).for_each(|_| run.put());
        run.disk.renew_snapshot();
        let cut = run.now - 200;
        let retention = Retention { home_from: cut, linked_from: [cut, 0] };
        run.compact(retention, 70);
        flush(&mut run.log, &mut run.disk);
        seal(&mut run.log, &mut run.disk);
        let cold: Vec<u64> =
            run.disk.indexes.keys().filter(|base| is_cold(run.disk.base_of(**base))).copied().collect();
        for (number, base) in cold.into_iter().enumerate() {
            let file = run.disk.indexes.get_mut(&base).expect("it is cold");
            // In a block, in the tail, in the footer; or all of it is gone.
            let at = [file.len() - 10_000, file.len() - 140, file.len() - 3][number % 3];
            file[at] ^= 0x10;
            if number % 4 == 3 {
                file.truncate(file.len() - 128);
            }
            run.disk.segments.insert(base, file.clone());
        }
        for round in 0..2 {
            run.log = run.disk.recover(round + 2).expect("the records are sound").log;
            check_young(&run, cut);
            assert_eq!(run.log.kept_from(), cut);
            // The second time from the index files that were written instead.
            seal(&mut run.log, &mut run.disk);
        }
    }
}

/// What it says is worth a slower start, and no segment its place on the disk.
#[test]
fn a_damaged_snapshot_leaves_no_segment_as_it_is() {
    for seed in 0..6 {
        let mut run = Run::new(seed);
        (0..600).for_each(|_| run.put());
        run.disk.renew_snapshot();
        let snapshot = run.disk.snapshot.as_mut().expect("it was made");
        // In each part of each of its blocks, but for the footer.
        let at = (snapshot.len() as u64 - 200) * seed / 6;
        snapshot[at as usize] ^= 0x10;
        let cut = run.now - 200;
        run.compact(Retention { home_from: cut, linked_from: [cut, 0] }, 100);
        flush(&mut run.log, &mut run.disk);
        check_young(&run, cut);
        run.check_head_positions();
        run.check_amendments(cut);
    }
}

#[test]
fn damage_in_records_and_index_of_a_cold_segment_is_refused_by_name() {
    let mut run = Run::new(1);
    (0..300).for_each(|_| run.put());
    run.compact(Retention::default(), 100);
    let base = *run.disk.indexes.keys().next().expect("a sealed segment");
    let file = run.disk.indexes.get_mut(&base).expect("it is cold");
    let end = file.len();
    file[5_000] ^= 1;
    file[end - 3] ^= 1;
    run.disk.segments.insert(base, file.clone());
    let damage = run.disk.recover(2).err().expect("nothing names what is lost");
    assert_eq!((damage.segment, damage.kind), (run.disk.base_of(base), DamageKind::Acknowledged));
    assert!((4096..=5_000).contains(&damage.offset), "{damage:?}");
}

/// The same while the log serves: the index is made again from the segment, as it was where all else is sound.
#[test]
fn the_index_of_a_cold_segment_is_made_again_while_the_log_serves() {
    for seed in 0..4 {
        let mut run = Run::new(seed);
        (0..600).for_each(|_| run.put());
        flush(&mut run.log, &mut run.disk);
        seal(&mut run.log, &mut run.disk);
        run.disk.renew_snapshot();
        let cut = run.now - 200;
        run.compact(Retention { home_from: cut, linked_from: [cut, 0] }, 70);
        let bases: Vec<u64> = run.disk.indexes.keys().copied().collect();
        for base in bases.into_iter().filter(|base| is_cold(run.disk.base_of(*base))).collect::<Vec<_>>() {
            let job = run.log.rebuild_job(run.disk.base_of(base)).expect("a sealed segment");
            let whole = run.disk.indexes[&base].clone();
            for at in [9_000, 140, 3] {
                let file = run.disk.indexes.get_mut(&base).expect("it is cold");
                let place = file.len().saturating_sub(at);
                file[place] ^= 4;
                let Ok(rebuilt) = job.run(&mut &run.disk);
                let rebuilt = rebuilt.expect("it stands where it stood");
                assert!(rebuilt.damaged.is_empty());
                let sealed = run.disk.write_index(&rebuilt.index);
                run.log.handle_rebuilt(sealed);
                check_young(&run, cut);
                run.disk.indexes.insert(base, whole.clone());
                run.log = run.disk.recover(2).expect("a sound log").log;
            }
        }
    }
}
