//! What is too old or too much goes, the oldest first, and the log says from where on it has everything.

#![forbid(unsafe_code)]

mod support;

use storage_log::format::{MARK_AFTER_MS, TIME_MARK_MS};
use storage_log::{
    Answer, Cause, Compacted, CompactionPolicy, Draft, Geometry, Log, LogConfig, NotMade, ROOM_RETRY_MS,
    SpareWork, StreamId, StreamKind,
};

use support::{Disk, INBOX, MESSAGES, after, config, flush, keys, linked, seal, stream};

const SMALL: Geometry = Geometry { segment_bytes: 16 << 10, batch_bytes_max: 8 << 10, block_bytes: 512 };

const MEMBERSHIPS: StreamKind = StreamKind(5);

/// One conversation, whose records are linked into the inbox of one user, and the first of them into its memberships.
struct Talk {
    log: Log,
    disk: Disk,
    now: u64,
    /// When each was put, and at which position.
    puts: Vec<(u64, u64)>,
}

impl Talk {
    fn new() -> Self {
        Self::of(SMALL)
    }

    fn of(geometry: Geometry) -> Self {
        let disk = Disk::of(geometry);
        let log = disk.recover(1).expect("an empty log").log;
        Self { log, disk, now: 1_000, puts: Vec::new() }
    }

    fn home() -> StreamId {
        stream(MESSAGES, 1)
    }

    fn put(&mut self) {
        self.now += 10;
        let mut links = vec![stream(INBOX, 2)];
        links.extend(self.puts.is_empty().then(|| stream(MEMBERSHIPS, 2)));
        let expected_head = self.log.head(Self::home()).seq;
        let (stream, payload) = (Self::home(), &[1; 400]);
        let draft = Draft { stream, expected_head, messages: 1, schema: 1, payload, links: &linked(&links) };
        let Answer::Stored(stored) = self.log.append(&[draft], self.now) else {
            panic!("there is room");
        };
        self.puts.push((self.now, stored.first_position));
        flush(&mut self.log, &mut self.disk);
        seal(&mut self.log, &mut self.disk);
    }

    /// Writes anew whatever is due, as a node does. How many segments that were.
    fn compact(&mut self, policy: &CompactionPolicy) -> usize {
        self.disk.renew_snapshot();
        let mut count = 0;
        while let Some(job) = self.log.poll_compaction(self.now, policy) {
            let made = self.disk.compact(storage_log::as_appended(job.base), job.retention);
            assert!(self.log.handle_compacted(Compacted::Made(made)));
            self.log.end_compaction();
            count += 1;
            assert!(count <= self.disk.indexes.len(), "it comes to an end");
        }
        count
    }

    fn restart(&mut self) {
        self.log = self.disk.recover(2).expect("a sound log").log;
    }

    /// The oldest sequence and the oldest position in the inbox that are left.
    fn oldest(&self) -> (u64, u64) {
        let oldest = |stream| keys(&after(&self.log, &self.disk, stream, 0))[0];
        (oldest(Self::home()), oldest(stream(INBOX, 2)))
    }

    /// Bytes of all files but the last segment and its spare, as if these were full.
    fn bytes_on_disk(&self) -> u64 {
        let sealed = |base: &u64| self.disk.indexes.contains_key(base);
        let cold = |base: &u64| storage_log::is_cold(self.disk.base_of(*base));
        let segment_bytes = self.disk.geometry.segment_bytes;
        let bytes = |(base, file): (&u64, &Vec<u8>)| match (sealed(base), cold(base)) {
            (true, true) => file.len() as u64,
            (true, false) => segment_bytes + self.disk.indexes[base].len() as u64,
            _ => segment_bytes,
        };
        self.disk.segments.iter().map(bytes).sum()
    }
}

#[test]
fn what_is_older_than_is_kept_goes_with_its_links_and_memberships_stay() {
    let mut talk = Talk::new();
    (0..300).for_each(|_| talk.put());
    let policy = CompactionPolicy { keep_ms: Some(1_500), ..CompactionPolicy::default() };
    assert!(talk.compact(&policy) > 3);
    assert_eq!(talk.compact(&policy), 0, "it is done once");
    for _ in 0..2 {
        let (seq, position) = talk.oldest();
        let cut = talk.now - 1_500;
        let young = talk.puts.partition_point(|(at, _)| *at < cut) as u64 + 1;
        // A segment goes when all of it is too old.
        assert!(seq <= young && young - seq < 40, "{seq} of {young}");
        assert!(position <= talk.puts[young as usize - 1].1, "no link that is young is gone");
        assert!(talk.log.links_kept_from() > 1 && talk.log.links_kept_from() <= position);
        assert_eq!(talk.log.kept_from(), cut);
        assert_eq!(keys(&after(&talk.log, &talk.disk, stream(MEMBERSHIPS, 2), 0)), [talk.puts[0].1]);
        assert_eq!(talk.log.head(Talk::home()).message_count, 300);
        talk.restart();
    }
}

#[test]
fn links_may_go_before_what_they_lead_to() {
    let mut talk = Talk::new();
    (0..300).for_each(|_| talk.put());
    let policy = CompactionPolicy { keep_links_ms: Some(1_000), ..CompactionPolicy::default() };
    assert!(talk.compact(&policy) > 3);
    assert_eq!(talk.compact(&policy), 0, "it is done once");
    for _ in 0..2 {
        let (seq, position) = talk.oldest();
        assert_eq!((seq, talk.log.kept_from()), (1, 0));
        assert!(talk.log.links_kept_from() > 100 && talk.log.links_kept_from() <= position);
        talk.restart();
    }
}

#[test]
fn a_log_takes_no_more_of_the_disk_than_it_may() {
    // What is left of a segment is its index, above all, of 16 KiB: a tenth.
    let segment_bytes = 160 << 10;
    let keep = 12 * segment_bytes;
    let policy = CompactionPolicy { keep_bytes: Some(keep), ..CompactionPolicy::default() };
    let mut talk = Talk::of(Geometry { segment_bytes, ..SMALL });
    for round in 0..6_000 {
        talk.put();
        if round % 20 == 0 {
            talk.compact(&policy);
            assert!(talk.bytes_on_disk() <= keep + segment_bytes, "{} bytes", talk.bytes_on_disk());
        }
    }
    let (seq, position) = talk.oldest();
    assert!((4_000..5_500).contains(&seq), "{seq}");
    talk.restart();
    assert_eq!(talk.oldest(), (seq, position));
    assert!(talk.log.links_kept_from() <= position && talk.log.links_kept_from() > 100);
    // Where there is room for all, all of it stays.
    let wide = CompactionPolicy { keep_bytes: Some(1 << 30), ..policy };
    assert_eq!(talk.compact(&wide), 0);
}

/// Retention acts on what is sealed: a log in which little is written does not keep it for years.
#[test]
fn a_segment_that_is_old_is_left_for_the_next_one_although_it_has_room() {
    let mut talk = Talk::new();
    let aged = LogConfig { segment_ms_max: Some(100), ..config(SMALL) };
    talk.log = talk.disk.recover_as(&aged, 1).expect("an empty log").log;
    let policy = CompactionPolicy { keep_ms: Some(500), ..CompactionPolicy::default() };
    for round in 0..100 {
        talk.put();
        if round % 7 == 0 {
            // Where the newest segment has begun is known again.
            talk.log = talk.disk.recover_as(&aged, 2).expect("a sound log").log;
            talk.compact(&policy);
            let kept = talk.puts.len() as u64 + 1 - talk.oldest().0;
            assert!(kept <= 50 + 2 * 11, "{kept} messages of 10 ms");
        }
    }
    assert_eq!(keys(&after(&talk.log, &talk.disk, Talk::home(), 90)), (91..=100).collect::<Vec<_>>());
}

/// By size, with more to be kept than the disk gives; nothing else is due.
const ALL_OF_IT: CompactionPolicy =
    CompactionPolicy { after_ms: None, keep_ms: None, keep_links_ms: None, keep_bytes: Some(1 << 30) };

impl Talk {
    /// The same as [`Talk::put`] where no segment can be made.
    fn put_without_spare(&mut self, reason: NotMade) -> Answer {
        match self.log.poll_spare() {
            Some(SpareWork::Make(_)) => self.log.handle_spare(Err(reason)),
            Some(SpareWork::Zero(_)) => self.log.handle_spare_zeroed(),
            Some(SpareWork::Hurry) | None => {}
        }
        self.now += 10;
        let (stream, expected_head) = (Self::home(), self.log.head(Self::home()).seq);
        let draft = Draft { stream, expected_head, messages: 1, schema: 1, payload: &[1; 400], links: &[] };
        let answer = self.log.append(&[draft], self.now);
        while let Some(batch) = self.log.poll_write(1) {
            self.disk.write(&batch);
            self.log.handle_written(batch.buffer, true).expect("the write was whole");
        }
        seal(&mut self.log, &mut self.disk);
        answer
    }

    /// How many are stored before the log is full.
    fn fill(&mut self, reason: NotMade) -> usize {
        let mut stored = 0;
        while matches!(self.put_without_spare(reason), Answer::Stored(_)) {
            stored += 1;
        }
        stored
    }

    fn has_nothing_due(&mut self, policy: &CompactionPolicy) -> bool {
        self.log.poll_expiry(self.now, policy).is_none()
            && self.log.poll_compaction(self.now, policy).is_none()
    }

    /// Gives up a segment, if one is due. The oldest sequence that is left then.
    fn give_up(&mut self) -> Option<u64> {
        let job = self.log.poll_expiry(self.now, &ALL_OF_IT)?;
        assert_eq!(job.cause, Cause::NoRoom);
        assert_eq!(self.log.poll_spare(), None, "what is written has the room to itself");
        let made = self.disk.compact(storage_log::as_appended(job.base), job.retention);
        assert!(self.log.handle_compacted(Compacted::Made(made)));
        assert!(self.log.poll_expiry(self.now, &ALL_OF_IT).is_none(), "one at a time");
        self.log.end_compaction();
        Some(self.oldest().0)
    }
}

const OF_TENTHS: Geometry = Geometry { segment_bytes: 160 << 10, ..SMALL };

#[test]
fn a_log_without_room_gives_up_its_oldest_segment_and_no_more_than_it_needs() {
    let mut talk = Talk::of(OF_TENTHS);
    (0..1_200).for_each(|_| talk.put());
    assert!(talk.fill(NotMade::Failed) > 0);
    assert!(talk.has_nothing_due(&ALL_OF_IT), "an error is no lack of room");
    _ = talk.put_without_spare(NotMade::NoRoom);
    for all in [None, Some(1_000_000)] {
        let policy = CompactionPolicy { keep_ms: all, ..CompactionPolicy::default() };
        assert!(talk.has_nothing_due(&policy), "by size nothing is to go");
    }
    let of_first = talk.give_up().expect("there is no room");
    assert!((120..170).contains(&of_first), "{of_first} messages in a segment");
    // It has not helped, yet.
    _ = talk.put_without_spare(NotMade::NoRoom);
    assert!(talk.has_nothing_due(&ALL_OF_IT));
    talk.now += ROOM_RETRY_MS;
    let of_second = talk.give_up().expect("there is no room still");
    assert!((of_first + 120..of_first + 170).contains(&of_second), "{of_second}");
    // It has.
    flush(&mut talk.log, &mut talk.disk);
    assert!(talk.has_nothing_due(&ALL_OF_IT));
    // The next one is not needed before half of this segment is full, and then at once.
    let mut more = 0;
    while talk.has_nothing_due(&ALL_OF_IT) {
        assert!(matches!(talk.put_without_spare(NotMade::NoRoom), Answer::Stored(_)), "after {more}");
        more += 1;
    }
    assert!((70..85).contains(&more), "half of a segment, not {more}");
    talk.restart();
    assert_eq!(talk.oldest().0, of_second);
}

/// Cold segments are smaller than the next one is: a log that had given up one of them waited for a minute before it gave up another.
#[test]
fn segments_that_leave_too_little_room_go_one_after_the_other_until_it_is_enough() {
    let mut talk = Talk::of(OF_TENTHS);
    (0..1_500).for_each(|_| talk.put());
    let cold = CompactionPolicy { after_ms: Some(0), ..CompactionPolicy::default() };
    assert!(talk.compact(&cold) > 6);
    talk.fill(NotMade::NoRoom);
    let (before, wanted) = (talk.bytes_on_disk(), OF_TENTHS.segment_bytes);
    let (mut count, mut freed) = (0, 0);
    while freed < wanted {
        if count > 0 {
            for _ in 0..2 {
                _ = talk.put_without_spare(NotMade::NoRoom);
                assert!(talk.has_nothing_due(&ALL_OF_IT), "the blocks may be on their way");
            }
            _ = talk.put_without_spare(NotMade::NoRoom);
        }
        assert!(talk.give_up().is_some(), "{freed} of {wanted} bytes after {count}");
        (count, freed) = (count + 1, before - talk.bytes_on_disk());
    }
    assert!(count > 1, "{freed} bytes by one");
    for _ in 0..5 {
        _ = talk.put_without_spare(NotMade::NoRoom);
        assert!(talk.has_nothing_due(&ALL_OF_IT), "what somebody else takes is not given up");
    }
}

#[test]
fn however_little_the_disk_gives_a_log_keeps_what_it_needs() {
    let mut talk = Talk::of(OF_TENTHS);
    (0..1_500).for_each(|_| talk.put());
    talk.fill(NotMade::NoRoom);
    let (mut count, mut left) = (0, 1);
    while let Some(oldest) = talk.give_up() {
        (count, left) = (count + 1, oldest);
        talk.now += ROOM_RETRY_MS;
        _ = talk.put_without_spare(NotMade::NoRoom);
    }
    let head = talk.log.head(Talk::home()).seq;
    assert!(count >= 6 && (300..500).contains(&(head - left)), "{count} segments; {left} of {head}");
    assert_eq!(
        keys(&after(&talk.log, &talk.disk, Talk::home(), left - 1)),
        (left..=head).collect::<Vec<_>>()
    );
}

/// What is older than is kept goes also where nothing else could be written anew.
#[test]
fn an_expiry_is_found_behind_a_segment_that_could_not_be_written_anew() {
    let mut talk = Talk::of(OF_TENTHS);
    (0..600).for_each(|_| talk.put());
    let cold = CompactionPolicy { after_ms: Some(0), ..CompactionPolicy::default() };
    let job = talk.log.poll_compaction(talk.now, &cold).expect("it is cold");
    assert_eq!(job.cause, Cause::Cold);
    assert!(!talk.log.handle_compacted(Compacted::Failed));
    assert!(talk.log.poll_expiry(talk.now, &cold).is_none(), "nothing leaves room");
    let old = CompactionPolicy { keep_ms: Some(1_000), ..cold };
    let job = talk.log.poll_expiry(talk.now, &old).expect("it is too old");
    assert_eq!((job.cause, job.base), (Cause::Expired, 0));
}

/// Nothing was said for hours, in which messages grew too old; then the clock is set back, and the node starts.
#[test]
fn a_clock_that_is_set_back_between_two_starts_takes_little_time_from_a_log_of_which_not_all_is_kept() {
    let hours = 3 * 60 * 60 * 1_000;
    for has_fronts in [true, false] {
        let mut talk = Talk::new();
        talk.put();
        let said_at = talk.now;
        talk.log.note_fronts(has_fronts);
        let mut marks = 0;
        for second in 0..hours / 1_000 {
            for millis in [0, MARK_AFTER_MS] {
                while let Some(mark) = talk.log.poll_write(said_at + second * 1_000 + millis) {
                    talk.disk.write(&mark);
                    talk.log.handle_written(mark.buffer, true).expect("the write was whole");
                    marks += 1;
                }
            }
        }
        talk.restart();
        let behind = said_at + hours - talk.log.clock(0);
        if has_fronts {
            assert!(behind <= TIME_MARK_MS + 1_000, "{behind} ms");
            assert!((17..=19).contains(&marks), "{marks} marks");
        } else {
            assert!(
                behind > hours - 2_000 && marks <= 1,
                "nothing is too old by it: {behind} ms, {marks} marks"
            );
        }
    }
}
