//! Content that is erased from the middle of streams, beside a model that is a map.

#![forbid(unsafe_code)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use storage_log::format::{GENERATION_SHIFT, MARK_AFTER_MS};
use storage_log::{
    Answer, Cause, Compacted, CompactionJob, CompactionPolicy, Draft, ErasureLeft, Geometry, Log, Record,
    Retention, SCHEMA_ERASED, StreamId, StreamKind, Verdict, Wanted, as_appended, is_cold,
};

use support::{
    Disk, INBOX, MESSAGES, after, amending, amendments, before, flush, keys, linked, payload, seal, stream,
};

const SMALL: Geometry = Geometry { segment_bytes: 16 << 10, batch_bytes_max: 8 << 10, block_bytes: 512 };

/// What is said, between who says it and a number.
const WORDS: &str = " says: secret ";

const MEMBERSHIPS: StreamKind = StreamKind(5);

/// Nothing is written anew but what is erased.
const NEVER: CompactionPolicy =
    CompactionPolicy { after_ms: None, keep_ms: None, keep_links_ms: None, keep_bytes: None };

/// What somebody has said.
#[derive(Clone)]
struct Said {
    at: u64,
    sender: u8,
    payload: Vec<u8>,
    is_erased: bool,
}

struct Run {
    log: Log,
    disk: Disk,
    /// By stream and key.
    model: BTreeMap<StreamId, BTreeMap<u64, Said>>,
    /// By home stream and what is amended: position of the newest amendment.
    amended: BTreeMap<(StreamId, u64), u64>,
    /// Until when what was said by whom is erased, by position.
    erased: BTreeMap<u8, u64>,
    mark: u64,
    now: u64,
    random: u64,
}

impl Run {
    fn new(random: u64) -> Self {
        let disk = Disk::of(SMALL);
        let log = disk.recover(1).expect("an empty log").log;
        let (model, amended, erased) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { log, disk, model, amended, erased, mark: 0, now: 1_000, random }
    }

    fn below(&mut self, limit: u64) -> u64 {
        support::roll(&mut self.random) % limit
    }

    fn say(&mut self) {
        let (home, sender) = (stream(MESSAGES, self.below(6) as u8), self.below(4) as u8);
        let number = self.log.newest_position();
        let payload = format!("{sender}{WORDS}{number}{}", "!".repeat(self.below(90) as usize));
        let mut links: Vec<StreamId> = (0..self.below(4)).map(|user| stream(INBOX, user as u8)).collect();
        links.extend((self.below(9) == 0).then(|| stream(MEMBERSHIPS, sender)));
        let expected_head = self.log.head(home).seq;
        let payload = payload.into_bytes();
        let target = self.own_of(home, sender);
        let mut all = linked(&links);
        all.extend(target.map(|target| amending(home, expected_head, target)));
        let draft =
            Draft { stream: home, expected_head, messages: 1, schema: 1, payload: &payload, links: &all };
        self.now += 1;
        let Answer::Stored(stored) = self.log.append(&[draft], self.now) else {
            panic!("there is room");
        };
        let said = Said { at: self.now, sender, payload, is_erased: false };
        if let Some(target) = target {
            self.amended.insert((home, target), stored.first_position);
        }
        for link in links {
            self.model.entry(link).or_default().insert(stored.first_position, said.clone());
        }
        self.model.entry(home).or_default().insert(expected_head + 1, said);
        if self.below(4) == 0 {
            self.settle();
        }
    }

    /// Now and then, something that the sender has said there before, to be amended.
    fn own_of(&mut self, home: StreamId, sender: u8) -> Option<u64> {
        let skipped = self.below(8) as usize;
        let own = self.model.get(&home).into_iter().flatten();
        let own = own.rev().filter(|(_, said)| said.sender == sender && !said.is_erased);
        own.map(|(seq, _)| *seq).nth(skipped)
    }

    fn settle(&mut self) {
        flush(&mut self.log, &mut self.disk);
        seal(&mut self.log, &mut self.disk);
    }

    /// Erases all that `sender` has said so far. What has to be gone through then.
    fn erase(&mut self, sender: u8) -> ErasureLeft {
        self.mark += 10;
        let to = self.log.newest_position();
        self.erased.insert(sender, to);
        self.log.erase(self.mark, to);
        let said = self.model.values_mut().flat_map(BTreeMap::values_mut);
        said.filter(|said| said.sender == sender).for_each(|said| said.is_erased = true);
        self.log.erasure_left(self.mark, to)
    }

    fn to(&self) -> u64 {
        self.erased.values().copied().max().unwrap_or(0)
    }

    /// Everything that is due is written anew, then an idle log goes on in another segment, and the one before is written anew too. How
    /// many were, and how many need not be.
    fn carry_out(&mut self) -> (usize, usize) {
        self.settle();
        let before = self.write_anew();
        // Looked at, and later again.
        for now in [1, 1 + MARK_AFTER_MS] {
            if let Some(mark) = self.log.poll_write(now) {
                self.disk.write(&mark);
                self.log.handle_written(mark.buffer, true).expect("written");
            }
        }
        self.settle();
        let behind = self.write_anew();
        assert!(behind.0 + behind.1 <= 1, "one segment is left at a time");
        (before.0 + behind.0, before.1 + behind.1)
    }

    fn write_anew(&mut self) -> (usize, usize) {
        let (mut made, mut clean) = (0, 0);
        while let Some(job) = self.log.poll_compaction(2_000, &NEVER) {
            assert!(job.cause == Cause::Erased && job.mark == self.mark);
            let erased = self.erased.clone();
            let compacted = self.disk.erase(&job, &|record| judge(&erased, record));
            clean += usize::from(matches!(compacted, Compacted::Clean));
            if self.log.handle_compacted(compacted) {
                made += 1;
                let left = self.log.erasure_left(self.mark, self.to());
                assert!(left.segments > 0, "the file before is still there");
                self.log.end_compaction();
            }
        }
        (made, clean)
    }

    /// Every stream is as long and as dense as ever, both ways; what was erased is empty, all else as it was said.
    fn check(&mut self) {
        self.settle();
        for (stream, expected) in &self.model {
            let all: Vec<u64> = expected.keys().copied().collect();
            let up = after(&self.log, &self.disk, *stream, 0);
            let mut down = keys(&before(&self.log, &self.disk, *stream, u64::MAX));
            down.reverse();
            assert!(keys(&up) == all && down == all, "{stream:?}");
            for entry in up {
                let (found, said) = (payload(&self.disk, entry.location), &expected[&entry.key]);
                assert!(found == said.payload || (said.is_erased && found.is_empty()));
            }
        }
    }

    /// What is kept is found with its newest amendment; of what `is_gone` nothing is found.
    fn check_amendments(&self, is_gone: bool) {
        let mut kept = 0;
        for ((home, seq), position) in &self.amended {
            let said = &self.model[home][seq];
            let wanted = vec![Wanted { seq: *seq, after: 0 }];
            let found: Vec<u64> = amendments(&self.log, &self.disk, *home, wanted)
                .0
                .iter()
                .map(|(_, found)| found.key)
                .collect();
            if said.is_erased {
                assert!(found.is_empty() || (!is_gone && found == [*position]));
            } else {
                assert_eq!(found, [*position]);
            }
            kept += usize::from(!said.is_erased);
        }
        assert!(kept > 5, "{kept} are amended");
    }

    /// None of what was erased stands anywhere, and all else does.
    fn check_gone(&self) {
        let files = self.disk.segments.values().chain(self.disk.indexes.values()).chain(&self.disk.snapshot);
        let mut found = BTreeSet::new();
        for file in files {
            let ends = file.windows(WORDS.len()).enumerate().filter(|(_, part)| *part == WORDS.as_bytes());
            for end in ends.map(|(at, _)| at + WORDS.len()) {
                let number = file[end..].iter().take_while(|byte| byte.is_ascii_digit());
                found.insert(number.copied().collect::<Vec<u8>>());
            }
        }
        let (mut kept, mut erased) = (0, 0);
        for said in self.model.values().flat_map(BTreeMap::values) {
            let number: Vec<u8> =
                said.payload[1 + WORDS.len()..].iter().copied().take_while(u8::is_ascii_digit).collect();
            assert_eq!(
                found.contains(&number),
                !said.is_erased,
                "{}",
                String::from_utf8_lossy(&said.payload)
            );
            *(if said.is_erased { &mut erased } else { &mut kept }) += 1;
        }
        assert!(kept > 50 && erased > 20, "{kept} are kept, {erased} are not");
    }
}

fn judge(erased: &BTreeMap<u8, u64>, record: &Record<'_>) -> Verdict {
    let sender = record.payload().first().filter(|_| record.schema() == 1).map(|digit| digit - b'0');
    let to = sender.and_then(|sender| erased.get(&sender)).copied().unwrap_or(0);
    if record.position() <= to { Verdict::Erase } else { Verdict::Keep }
}

#[test]
fn what_is_erased_is_gone_from_every_file_and_no_stream_has_a_hole() {
    for seed in 0..4 {
        let mut run = Run::new(seed);
        // Each round some segments are written anew for the first time, others once more.
        for round in 0..3 {
            (0..150).for_each(|_| run.say());
            if round == 1 {
                run.settle();
                run.disk.renew_snapshot();
            }
            assert!(run.erase(round as u8).segments > 1);
            (0..20).for_each(|_| run.say());
            run.check();
            run.check_amendments(false);
            let (made, _) = run.carry_out();
            assert!(made > 1, "{made} written anew");
            assert_eq!(run.log.erasure_left(run.mark, run.to()), ErasureLeft::default());
            assert!(run.log.poll_compaction(3_000, &NEVER).is_none(), "it is done once");
            run.check();
            run.check_gone();
            run.check_amendments(true);
            run.log = run.disk.recover(round + 2).expect("a sound log").log;
            run.check();
            run.check_amendments(true);
            // What was derived from the segments is lost.
            run.disk.snapshot = None;
            let appended: Vec<u64> =
                run.disk.indexes.keys().copied().filter(|base| !is_cold(run.disk.base_of(*base))).collect();
            appended.iter().for_each(|base| drop(run.disk.indexes.remove(base)));
            run.log = run.disk.recover(round + 20).expect("a sound log").log;
            run.check();
            run.check_amendments(true);
        }
        let generation = |base: &u64| run.disk.base_of(*base) >> GENERATION_SHIFT;
        assert!(run.disk.indexes.keys().any(|base| generation(base) == 2), "written anew twice");
    }
}

/// How far it is is known again from what remembers it; without that all is looked through, and nothing has to be written.
#[test]
fn a_start_looks_through_what_it_does_not_know_to_be_done() {
    let mut run = Run::new(9);
    (0..200).for_each(|_| run.say());
    run.erase(1);
    let (made, _) = run.carry_out();
    let to = run.to();
    let segments: Vec<u64> = run.disk.indexes.keys().copied().collect();
    for known in [0, 1, segments.len()] {
        run.log = run.disk.recover(2).expect("a sound log").log;
        for base in &segments[..known] {
            run.log.restore_mark(*base, run.mark);
        }
        assert_eq!(run.log.erasure_left(run.mark, to).segments, segments.len() - known);
        run.log.erase(run.mark, to);
        assert_eq!(run.carry_out(), (0, segments.len() - known), "of {made}");
        assert_eq!(run.log.erasure_left(run.mark, to), ErasureLeft::default());
    }
    run.check();
    run.check_gone();
}

#[test]
fn a_segment_that_cannot_be_written_or_is_damaged_is_left_to_do() {
    let mut run = Run::new(3);
    (0..200).for_each(|_| run.say());
    run.erase(1);
    run.settle();
    let job = run.log.poll_compaction(2_000, &NEVER).expect("a segment is due");
    run.log.handle_compacted(Compacted::Failed);
    assert_eq!(run.log.poll_compaction(2_000, &NEVER).map(|job| job.base), Some(job.base));
    run.log.handle_compacted(Compacted::Unsound);
    // Of the next one what it was made from is still there: it has to be written once more.
    let job = run.log.poll_compaction(2_000, &NEVER).expect("another is due");
    let erased = run.erased.clone();
    let Compacted::Made(sealed) = run.disk.erase(&job, &|record| judge(&erased, record)) else {
        panic!("it is sound");
    };
    assert!(run.log.handle_compacted(Compacted::MadeBeside(sealed)));
    run.log.end_compaction();
    let again = run.log.poll_compaction(2_000, &NEVER).map(|job| as_appended(job.base));
    assert_eq!(again, Some(job.base));
    run.log.handle_compacted(Compacted::Failed);
    run.carry_out();
    let left = run.log.erasure_left(run.mark, run.to());
    assert_eq!(left, ErasureLeft { segments: 1, unsound: 1 });
}

/// However often something is erased that was just said: a disk must not fill up with segments that hold next to nothing.
#[test]
fn many_erasures_leave_one_segment_at_a_time() {
    let mut run = Run::new(2);
    (0..20).for_each(|_| run.say());
    run.erase(1);
    run.carry_out();
    let before = run.disk.segments.len();
    for _ in 0..20 {
        run.say();
        run.erase(1);
        run.settle();
    }
    let left = run.disk.segments.len() - before;
    assert!(left <= 1, "{left} more segments for what one holds");
    run.carry_out();
    assert_eq!(run.log.erasure_left(run.mark, run.to()), ErasureLeft::default());
}

/// The front of a stream: it begins later, and all else goes on.
#[test]
fn a_front_that_is_erased_leaves_its_stream_and_stays_for_its_links() {
    for seed in 0..3 {
        let mut run = Run::new(seed);
        (0..200).for_each(|_| run.say());
        let talk = stream(MESSAGES, 2);
        let head = run.log.head(talk);
        let below = head.seq / 2;
        let gone = |record: &Record<'_>| {
            let is_front = record.stream() == talk && record.seq() < below && record.schema() == 1;
            if is_front { Verdict::EraseAndLeave } else { Verdict::Keep }
        };
        run.log.erase(1, run.log.newest_position());
        run.settle();
        run.disk.renew_snapshot();
        while let Some(job) = run.log.poll_compaction(2_000, &NEVER) {
            let compacted = run.disk.erase(&job, &gone);
            if run.log.handle_compacted(compacted) {
                run.log.end_compaction();
            }
        }
        for snapshot in [run.disk.snapshot.clone(), None] {
            run.disk.snapshot = snapshot;
            let found = keys(&after(&run.log, &run.disk, talk, 0));
            assert!(found.iter().copied().eq(below.max(found[0])..=head.seq), "from {below}: {found:?}");
            assert_eq!(run.log.head(talk), head);
            let front: Vec<&Said> = run.model[&talk].range(..below).map(|(_, said)| said).collect();
            for (stream, expected) in run.model.iter().filter(|(stream, _)| **stream != talk) {
                let found = after(&run.log, &run.disk, *stream, 0);
                assert!(keys(&found).iter().eq(expected.keys()), "{stream:?}");
                for entry in found {
                    let (found, said) = (payload(&run.disk, entry.location), &expected[&entry.key]);
                    let is_front = front.iter().any(|front| front.payload == said.payload);
                    assert!(found == said.payload || (is_front && found.is_empty()));
                }
            }
            run.log = run.disk.recover(2).expect("a sound log").log;
        }
    }
}

/// In whichever order segments are written anew: what is too old goes from the front, what is erased from anywhere, and no stream gets a
/// hole.
#[test]
fn what_is_too_old_and_what_is_erased_go_together() {
    for seed in 0..4 {
        let mut run = Run::new(seed);
        for round in 0..3 {
            (0..150).for_each(|_| run.say());
            run.erase(round as u8);
            run.settle();
            run.disk.renew_snapshot();
            let cut = run.now - 200;
            let retention = Retention { home_from: cut, linked_from: [cut, 0] };
            for share in [50, 100] {
                let bases: Vec<u64> = run.disk.indexes.keys().copied().collect();
                for base in bases {
                    if run.below(100) < share {
                        let (config, base, mark) =
                            (run.log.config().clone(), run.disk.base_of(base), run.mark);
                        let job = CompactionJob { config, base, retention, mark, cause: Cause::Cold };
                        let erased = run.erased.clone();
                        let compacted = run.disk.erase(&job, &|record| judge(&erased, record));
                        let Compacted::Made(sealed) = compacted else {
                            panic!("{compacted:?}");
                        };
                        run.log.replace_segment(sealed);
                    }
                }
                check_cut(&run, cut);
            }
            run.log = run.disk.recover(round + 2).expect("a sound log").log;
            check_cut(&run, cut);
        }
    }
}

#[track_caller]
fn check_cut(run: &Run, cut: u64) {
    for (stream, expected) in &run.model {
        let up = after(&run.log, &run.disk, *stream, 0);
        let all: Vec<u64> = expected.keys().copied().collect();
        let young = |key: &u64| stream.kind == MEMBERSHIPS || expected[key].at >= cut;
        let must: Vec<u64> = all.iter().copied().filter(young).collect();
        let found = keys(&up);
        assert!(all.ends_with(&found) && found.ends_with(&must), "{stream:?}: {found:?} of {all:?}");
        let mut down = keys(&before(&run.log, &run.disk, *stream, u64::MAX));
        down.reverse();
        assert_eq!(down, found);
        for entry in up {
            let (found, said) = (payload(&run.disk, entry.location), &expected[&entry.key]);
            assert!(found == said.payload || (found.is_empty() && (said.is_erased || said.at < cut)));
        }
        if stream.kind == MESSAGES {
            assert_eq!(run.log.head(*stream).seq, *all.last().expect("something was said"));
        }
    }
}

#[test]
fn a_number_without_content_says_that_it_was_erased() {
    let mut run = Run::new(1);
    (0..100).for_each(|_| run.say());
    run.erase(2);
    run.carry_out();
    let talk = stream(MESSAGES, 1);
    for entry in after(&run.log, &run.disk, talk, 0) {
        let base = as_appended(SMALL.segment_of(entry.location.lsn()));
        let offset = SMALL.offset_of(entry.location.lsn()) as usize;
        let bytes = &run.disk.segments[&base][offset..offset + entry.location.bytes()];
        let record = Log::verify(entry.location, bytes).expect("sound");
        let said = &run.model[&talk][&entry.key];
        let schema = if said.is_erased { SCHEMA_ERASED } else { 1 };
        assert_eq!((record.schema(), record.seq(), record.at()), (schema, entry.key, said.at));
        assert_eq!(record.message_count(), entry.key);
    }
}
