//! Fronts of streams that are not kept, each from a sequence or a time of its own, which whoever understands the records knows.

#![forbid(unsafe_code)]

mod support;

use std::collections::BTreeMap;

use storage_log::{
    Answer, Cause, Compacted, CompactionJob, CompactionPolicy, Draft, FRONT_LOOK_MS, FRONT_LOOKS, Front,
    Fronts, Geometry, Log, Record, Retention, StreamId, Verdict, as_appended, is_worth_writing,
};

use support::{Disk, INBOX, MESSAGES, after, before, flush, keys, linked, payload, seal, stream};

const SMALL: Geometry = Geometry { segment_bytes: 16 << 10, batch_bytes_max: 8 << 10, block_bytes: 512 };

/// Everything that is sealed becomes cold.
const AT_ONCE: CompactionPolicy =
    CompactionPolicy { after_ms: Some(0), keep_ms: None, keep_links_ms: None, keep_bytes: None };

/// The first sequence and the first time that are kept.
type First = (u64, u64);

struct Run {
    log: Log,
    disk: Disk,
    /// By home stream and sequence: when, and what.
    model: BTreeMap<StreamId, BTreeMap<u64, (u64, Vec<u8>)>>,
    links: BTreeMap<StreamId, Vec<u64>>,
    now: u64,
    random: u64,
}

impl Run {
    fn new(random: u64) -> Self {
        let disk = Disk::of(SMALL);
        let log = disk.recover(1).expect("an empty log").log;
        Self { log, disk, model: BTreeMap::new(), links: BTreeMap::new(), now: 1_000, random }
    }

    fn below(&mut self, limit: u64) -> u64 {
        support::roll(&mut self.random) % limit
    }

    fn say(&mut self, home: StreamId) {
        let expected_head = self.log.head(home).seq;
        let payload =
            format!("{home:?} says {expected_head};{}", "!".repeat(self.below(90) as usize)).into_bytes();
        let inbox = stream(INBOX, self.below(3) as u8);
        let (links, messages) = (linked(&[inbox]), 1);
        let draft =
            Draft { stream: home, expected_head, messages, schema: 1, payload: &payload, links: &links };
        self.now += 1;
        let Answer::Stored(stored) = self.log.append(&[draft], self.now) else { panic!("there is room") };
        self.model.entry(home).or_default().insert(expected_head + 1, (self.now, payload));
        self.links.entry(inbox).or_default().push(stored.first_position);
        flush(&mut self.log, &mut self.disk);
    }

    /// Writes one segment anew, if one is due.
    fn write_anew(&mut self, fronts: &BTreeMap<StreamId, First>) -> bool {
        let Some(job) = self.log.poll_compaction(self.now, &AT_ONCE) else { return false };
        assert_eq!(job.cause, Cause::Cold);
        let compacted = self.disk.erase(&job, &|record| judge(fronts, record));
        assert!(matches!(compacted, Compacted::Made(_)), "{compacted:?}");
        if self.log.handle_compacted(compacted) {
            self.log.end_compaction();
        }
        true
    }

    /// No cold segment holds any of what is in front.
    fn check_gone(&self, fronts: &BTreeMap<StreamId, First>) {
        let (gone, kept) = self.check_gone_of(fronts);
        assert!(gone > 100 && kept > 100, "{gone} are gone, {kept} are kept");
    }

    /// The same; how many are gone, and how many are kept.
    fn check_gone_of(&self, fronts: &BTreeMap<StreamId, First>) -> (usize, usize) {
        let (mut gone, mut kept) = (0, 0);
        for (home, said) in &self.model {
            let front = fronts.get(home).copied().unwrap_or_default();
            for (seq, (at, words)) in said {
                let is_there = self
                    .disk
                    .indexes
                    .values()
                    .any(|file| file.windows(words.len()).any(|part| part == words));
                let is_kept = *seq >= front.0 && *at >= front.1;
                assert!(is_kept || !is_there, "{home:?} {seq}");
                *(if is_kept { &mut kept } else { &mut gone }) += usize::from(is_kept == is_there);
            }
        }
        (gone, kept)
    }

    /// Whatever is kept is there as it was said; before that there is nothing, or something that was not written anew yet; and every link is.
    #[track_caller]
    fn check(&self, log: &Log, disk: &Disk, fronts: &BTreeMap<StreamId, First>) {
        for (home, said) in &self.model {
            let head = log.head(*home).seq;
            assert_eq!(Some(&head), said.keys().last(), "no sequence shifts");
            let up = after(log, disk, *home, 0);
            let mut down = keys(&before(log, disk, *home, u64::MAX));
            down.reverse();
            assert_eq!(keys(&up), down, "{home:?}");
            assert!(keys(&up).into_iter().eq(up[0].key..=head), "{home:?} has a hole");
            let front = fronts.get(home).copied().unwrap_or_default();
            let kept = |seq: u64| seq >= front.0 && said[&seq].0 >= front.1;
            for entry in &up {
                let found = payload(disk, entry.location);
                let is_gone = !kept(entry.key) && found.is_empty();
                assert!(is_gone || found == said[&entry.key].1, "{home:?} {}", entry.key);
            }
            assert!(
                (up[0].key..=head).contains(&said.keys().copied().find(|seq| kept(*seq)).unwrap_or(head))
            );
        }
        for (inbox, positions) in &self.links {
            assert_eq!(keys(&after(log, disk, *inbox, 0)), *positions, "{inbox:?}");
        }
    }
}

fn judge(fronts: &BTreeMap<StreamId, First>, record: &Record<'_>) -> Verdict {
    let front = fronts.get(&record.stream()).copied().unwrap_or_default();
    let is_in_front = record.schema() == 1 && (record.seq() < front.0 || record.at() < front.1);
    if is_in_front { Verdict::EraseAndLeave } else { Verdict::Keep }
}

/// A kill leaves the segment as it was or as it is, whichever it comes upon, and a start after it finds all that is kept.
#[test]
fn what_is_in_front_goes_with_its_segment_and_a_kill_at_any_moment_loses_nothing_else() {
    for seed in 0..6 {
        let mut run = Run::new(seed);
        let mut fronts = BTreeMap::new();
        for round in 0..3_u64 {
            for _ in 0..150 {
                let home = stream(MESSAGES, run.below(5) as u8);
                run.say(home);
            }
            seal(&mut run.log, &mut run.disk);
            if seed % 2 == 0 {
                run.disk.renew_snapshot();
            }
            // Fronts only move on: one by a sequence, one by a time, one by both, one as far as all that was said; one conversation keeps all.
            let head = |id| run.log.head(stream(MESSAGES, id)).seq;
            let half = |seq: u64| seq * 2 / 3 + round;
            fronts.insert(stream(MESSAGES, 0), (half(head(0)), 0));
            fronts.insert(stream(MESSAGES, 1), (0, run.now - 60));
            fronts.insert(stream(MESSAGES, 2), (half(head(2)), run.now - 40));
            fronts.insert(stream(MESSAGES, 3), (0, run.now + 1));
            loop {
                let killed = run.disk.clone();
                let went_on = run.write_anew(&fronts);
                for disk in [&killed, &run.disk] {
                    let log = disk.recover(7).expect("a sound log").log;
                    run.check(&log, disk, &fronts);
                }
                run.check(&run.log, &run.disk, &fronts);
                if !went_on {
                    break;
                }
            }
        }
        // What was cold before the last fronts is written anew once more: then none of it is left.
        let bases: Vec<u64> = run.disk.indexes.keys().copied().collect();
        assert!(bases.len() > 4, "{} segments", bases.len());
        for base in bases {
            let (config, base) = (run.log.config().clone(), run.disk.base_of(base));
            let (retention, mark, cause) = (Retention::default(), 0, Cause::Cold);
            let job = CompactionJob { config, base, retention, mark, cause };
            let Compacted::Made(sealed) = run.disk.erase(&job, &|record| judge(&fronts, record)) else {
                panic!("it is sound");
            };
            run.log.replace_segment(sealed);
        }
        run.check_gone(&fronts);
        let log = run.disk.recover(8).expect("a sound log").log;
        run.check(&log, &run.disk, &fronts);
    }
}

/// The same as the log is told them.
fn numbers(log: &Log, fronts: &BTreeMap<StreamId, First>) -> Fronts {
    let front = |(home, (seq, at)): (&StreamId, &First)| {
        (home.id, Front { seq: *seq, at: *at, head: log.head(*home).seq })
    };
    fronts.iter().map(front).collect()
}

impl Run {
    /// Several cold segments, half of one conversation and half of others.
    fn cold(random: u64) -> Self {
        let mut run = Self::new(random);
        for number in 0..400 {
            let id = if number % 2 == 0 { 0 } else { run.below(4) as u8 + 1 };
            run.say(stream(MESSAGES, id));
        }
        seal(&mut run.log, &mut run.disk);
        run.disk.renew_snapshot();
        while run.write_anew(&BTreeMap::new()) {}
        assert!(run.disk.indexes.len() > 3);
        run
    }

    /// Looks at every segment that is due on a day; how many that were, and how many were written anew.
    fn look(&mut self, day: u64, fronts: &BTreeMap<StreamId, First>) -> (usize, usize) {
        let (mut looks, mut made) = (0, 0);
        let numbers = numbers(&self.log, fronts);
        while let Some(job) = self.log.poll_compaction(day * FRONT_LOOK_MS, &AT_ONCE) {
            assert!(matches!(job.cause, Cause::Front { .. }) && job.mark == 0, "{job:?}");
            looks += 1;
            let Ok(is_worth) = is_worth_writing(&job, &numbers, &mut &self.disk);
            let judge = |record: &Record<'_>| judge(fronts, record);
            let compacted = if is_worth { self.disk.erase(&job, &judge) } else { Compacted::Clean };
            made += usize::from(matches!(compacted, Compacted::Made(_)));
            if self.log.handle_compacted(compacted) {
                self.log.end_compaction();
            }
        }
        (looks, made)
    }
}

#[test]
fn a_cold_segment_is_written_anew_when_an_eighth_of_it_can_go_or_a_week_later_whatever_can() {
    let mut run = Run::cold(5);
    let talk = stream(MESSAGES, 0);
    let segments = run.disk.indexes.len();
    assert_eq!(run.look(700, &BTreeMap::new()), (0, 0), "nothing is set");
    run.log.note_fronts(true);
    // Two records of the first segment: too little on any day but its own.
    let some = BTreeMap::from([(talk, (3, 0))]);
    let mut made = Vec::new();
    for day in 701..701 + FRONT_LOOKS {
        let (looks, anew) = run.look(day, &some);
        assert_eq!((looks, run.look(day, &some)), (segments, (0, 0)), "once a day");
        made.push(anew);
        run.check(&run.log, &run.disk, &some);
    }
    assert_eq!(made, [0, 0, 0, 0, 0, 0, 1]);
    run.check(&run.log, &run.disk, &some);
    // Half of every segment at once.
    let most = BTreeMap::from([(talk, (run.log.head(talk).seq - 1, 0))]);
    let (looks, anew) = run.look(800, &most);
    assert!(looks == segments && anew >= segments - 1, "{anew} of {looks}");
    run.check(&run.log, &run.disk, &most);
    // By a time: what stands in a segment goes when all of it is older, but for the newest of a stream.
    let all = BTreeMap::from([(talk, (0, run.now + 1)), (stream(MESSAGES, 1), (0, run.now + 1))]);
    for day in 900..900 + FRONT_LOOKS {
        run.look(day, &all);
    }
    run.check(&run.log, &run.disk, &all);
    run.check_gone_of(&all);
    // Nothing is left to go, however often it is looked.
    assert!((1_000..1_000 + FRONT_LOOKS).all(|day| run.look(day, &all) == (segments, 0)));
    let log = run.disk.recover(9).expect("a sound log").log;
    run.check(&log, &run.disk, &all);
}

/// And one that could not be, when it was due, is due again; one whose index is not sound is left to whoever looks for that.
#[test]
fn a_look_that_failed_is_made_again_and_none_is_made_while_something_else_is_due() {
    let mut run = Run::cold(6);
    run.log.note_fronts(true);
    let now = 700 * FRONT_LOOK_MS;
    let first = run.log.poll_compaction(now, &AT_ONCE).expect("a look is due");
    assert!(!run.log.handle_compacted(Compacted::Failed));
    let again = run.log.poll_compaction(now, &AT_ONCE).expect("it is due again");
    assert_eq!((again.base, again.cause), (first.base, first.cause));
    let file = run.disk.indexes.get_mut(&as_appended(first.base)).expect("it is sealed");
    let at = file.len() - 300;
    file[at..].fill(0);
    let fronts = numbers(&run.log, &BTreeMap::from([(stream(MESSAGES, 0), (0, u64::MAX))]));
    assert_eq!(is_worth_writing(&again, &fronts, &mut &run.disk), Ok(false));
    assert!(!run.log.handle_compacted(Compacted::Clean));
    run.log.erase(1, run.log.newest_position());
    let cause = run.log.poll_compaction(now, &AT_ONCE).map(|job| job.cause);
    assert_eq!(cause, Some(Cause::Erased), "what was asked for goes first");
}
