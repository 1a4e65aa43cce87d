//! The log at its boundary, over a disk that is a map of segments.

#![forbid(unsafe_code)]

mod support;

use storage_log::format::{
    BATCH_HEADER_BYTES, BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, FEED_BYTES, MARK_AFTER_MS, SEGMENT_BYTES,
    SEGMENT_HEADER_BYTES,
};
use storage_log::{
    Answer, Buffer, Damage, DamageKind, Draft, Entry, HomeSearch, Log, NotMade, Progress, SpareWork,
    WriteBatch,
};

use support::{Disk, INBOX, MESSAGES, STATE, after, before, flush, idle, keys, payload, put, read, stream};

#[test]
fn nothing_is_readable_before_its_sync_and_everything_after() {
    let (mut log, mut disk) = (Disk::new().recover(1).expect("an empty log").log, Disk::new());
    let (talk, inbox) = (stream(MESSAGES, 1), stream(INBOX, 9));
    assert!(
        matches!(put(&mut log, talk, b"one", &[inbox]), Answer::Stored(stored) if stored.first_position == 1)
    );
    assert!(after(&log, &disk, talk, 0).is_empty());
    assert_eq!(log.durable().position(), 0);

    let batch = log.poll_write(1).expect("a batch is due");
    put(&mut log, talk, b"two", &[]);
    assert_eq!(log.poll_write(1), None, "one batch is in flight");
    disk.write(&batch);
    let durable = log.handle_written(batch.buffer, true).expect("written");
    assert!(durable.covers(1) && !durable.covers(2));
    assert_eq!(keys(&after(&log, &disk, talk, 0)), [1]);
    let linked = after(&log, &disk, inbox, 0);
    assert_eq!(log.recent(linked[0].location).expect("in the tail").payload(), b"one");

    flush(&mut log, &mut disk);
    assert_eq!(read(&log, &disk, talk), [(1, b"one".to_vec()), (2, b"two".to_vec())]);
    assert_eq!(keys(&before(&log, &disk, talk, 3)), [2, 1]);
    assert_eq!(keys(&before(&log, &disk, talk, 2)), [1]);
}

#[test]
fn a_wrong_expectation_stores_nothing_of_the_group() {
    let mut log = Disk::new().recover(1).expect("an empty log").log;
    let (talk, other) = (stream(MESSAGES, 1), stream(MESSAGES, 2));
    put(&mut log, other, b"s1", &[]);
    let good = Draft { stream: talk, expected_head: 0, messages: 1, schema: 1, payload: b"x", links: &[] };
    let stale = Draft { stream: other, expected_head: 0, messages: 0, schema: 1, payload: b"y", links: &[] };
    assert_eq!(log.append(&[good, stale], 1), Answer::Conflict { head: 1 });
    assert_eq!(log.head(talk).seq, 0);
}

#[test]
fn recovery_brings_back_streams_links_states_counts_and_runs() {
    let (mut log, mut disk) = (Disk::new().recover(1).expect("an empty log").log, Disk::new());
    log.begin_run([1; 16], 5);
    let (talk, state, inbox) = (stream(MESSAGES, 1), stream(STATE, 1), stream(INBOX, 9));
    for round in 0..50_u8 {
        put(&mut log, talk, &[round; 100], &[inbox, stream(INBOX, round)]);
        put(&mut log, state, &[round], &[]);
        if round % 7 == 0 {
            flush(&mut log, &mut disk);
        }
    }
    flush(&mut log, &mut disk);
    let (talk_before, inbox_before) = (read(&log, &disk, talk), read(&log, &disk, inbox));

    let recovered = disk.recover(2).expect("a sound log");
    assert_eq!(recovered.dropped, None);
    assert_eq!(recovered.records, 101);
    let mut log = recovered.log;
    assert_eq!(read(&log, &disk, talk), talk_before);
    assert_eq!(read(&log, &disk, inbox), inbox_before);
    let newest = log.last(state).expect("it is durable");
    assert_eq!(payload(&disk, newest), [49]);
    assert_eq!(log.head(talk).message_count, 50);
    log.begin_run([2; 16], 6);
    let runs: Vec<_> = log.runs().iter().map(|run| (run.id[0], run.first_position)).collect();
    assert_eq!(runs, [(1, 1), (2, 102)]);
}

#[test]
fn truncate_only_unacked() {
    let (mut log, mut disk) = (Disk::new().recover(1).expect("an empty log").log, Disk::new());
    let talk = stream(MESSAGES, 1);
    for payload in [b"first", b"other"] {
        put(&mut log, talk, payload, &[]);
        flush(&mut log, &mut disk);
    }
    let acknowledged = read(&log, &disk, talk);
    idle(&mut log, &mut disk);
    put(&mut log, talk, &[3; 900], &[stream(INBOX, 1)]);
    let torn = log.poll_write(1).expect("a batch is due");
    // Every torn tail, in the units that a disk writes, and a body that is wrong though its length is right.
    for kept in 0..=torn.buffer.bytes().len() / 512 {
        let mut image = disk.clone();
        let buffer = Buffer::from(&torn.buffer.bytes()[..kept * 512]);
        image.write(&WriteBatch { buffer, ..torn.clone() });
        let whole = kept * 512 == torn.buffer.bytes().len();
        let recovered = image.recover(2).expect("a torn tail is not damage");
        assert_eq!(recovered.dropped.is_some(), kept > 0 && !whole, "{kept} sectors");
        assert_eq!(read(&recovered.log, &image, talk).len(), acknowledged.len() + usize::from(whole));
        assert_eq!(read(&recovered.log, &image, talk)[..2], acknowledged);
        // Goes on at the same place, and the chain holds afterwards.
        let mut log = recovered.log;
        put(&mut log, talk, b"next", &[]);
        flush(&mut log, &mut image);
        assert!(image.recover(3).expect("a sound log").records >= 3);
    }
}

#[test]
fn batches_take_whole_blocks_of_the_size_that_the_store_has() {
    for block_bytes in [BLOCK_BYTES_MIN, 1024, BLOCK_BYTES_MAX] {
        let mut disk = Disk::of_blocks(block_bytes);
        let mut log = disk.recover(1).expect("an empty log").log;
        for round in 0..20_usize {
            put(&mut log, stream(MESSAGES, 1), &vec![1; round * 300], &[]);
            let batch = log.poll_write(1).expect("a batch is due");
            let bytes = batch.buffer.bytes();
            assert!(bytes.len().is_multiple_of(block_bytes));
            assert!(batch.offset.is_multiple_of(block_bytes as u64));
            assert!(bytes.as_ptr().addr().is_multiple_of(BLOCK_BYTES_MAX), "memory for direct I/O");
            disk.write(&batch);
            log.handle_written(batch.buffer, true).expect("written");
        }
        let mut recovered = disk.recover(2).expect("a sound log");
        assert_eq!(recovered.records, 20);
        assert!(matches!(put(&mut recovered.log, stream(MESSAGES, 1), b"x", &[]), Answer::Stored(_)));
        flush(&mut recovered.log, &mut disk);
        assert_eq!(disk.recover(3).expect("a sound log").records, 21);
        // A block that is another store's.
        disk.geometry.block_bytes = 2048;
        let damage = Damage { segment: 0, offset: 0, kind: DamageKind::Foreign };
        assert_eq!(disk.recover(4).err(), Some(damage));
    }
}

#[test]
fn damage_below_the_mark_is_never_cut() {
    let (mut log, mut disk) = (Disk::new().recover(1).expect("an empty log").log, Disk::new());
    for round in 0..4_u8 {
        put(&mut log, stream(MESSAGES, 1), &[round; 300], &[]);
        flush(&mut log, &mut disk);
    }
    let end = disk.segments[&0].len();
    let batch_bytes = (end - SEGMENT_HEADER_BYTES) / 4;
    idle(&mut log, &mut disk);
    // One flipped bit at every 41st byte of the four batches, of which the mark is the last that says so: always damage,
    // at the batch that it hit. (Padding is not covered by a sum and not read.)
    for at in (SEGMENT_HEADER_BYTES..end).step_by(41) {
        let in_batch = (at - SEGMENT_HEADER_BYTES) % batch_bytes;
        if in_batch >= 64 + 400 {
            continue;
        }
        let mut image = disk.clone();
        image.segments.get_mut(&0).expect("segment 0")[at] ^= 4;
        let offset = (at - in_batch) as u64;
        let damage = Damage { segment: 0, offset, kind: DamageKind::Acknowledged };
        assert_eq!(image.recover(2).err(), Some(damage), "bit at {at}");
    }
}

#[test]
fn what_was_lost_right_below_a_mark_is_damage() {
    let (mut log, mut disk) = (Disk::new().recover(1).expect("an empty log").log, Disk::new());
    put(&mut log, stream(MESSAGES, 1), &[1; 900], &[]);
    flush(&mut log, &mut disk);
    let end = disk.segments[&0].len();
    // Any sector of the newest batch: without a mark a torn batch that nobody knows of, with it acknowledged bytes.
    let lose = |disk: &Disk, sector: usize| {
        let mut image = disk.clone();
        image.segments.get_mut(&0).expect("segment 0")[sector..sector + 512].fill(0);
        image.recover(2)
    };
    let unmarked = disk.clone();
    idle(&mut log, &mut disk);
    for sector in (SEGMENT_HEADER_BYTES..end).step_by(512) {
        assert_eq!(lose(&unmarked, sector).expect("nobody knows of it").records, 0);
        let offset = SEGMENT_HEADER_BYTES as u64;
        let damage = Damage { segment: 0, offset, kind: DamageKind::Acknowledged };
        assert_eq!(lose(&disk, sector).err(), Some(damage), "sector at {sector}");
    }
    // The mark itself holds nothing: without it the log is what it was.
    assert_eq!(lose(&disk, end).expect("a torn mark").records, 1);
}

#[test]
fn an_idle_log_is_marked_once() {
    let (mut log, mut disk) = (Disk::new().recover(1).expect("an empty log").log, Disk::new());
    assert!(log.is_quiet(), "there is nothing to say");
    for begun in [1_000, 2_000, 1_500] {
        put(&mut log, stream(MESSAGES, 1), b"x", &[]);
        assert!(!log.is_quiet());
        let batch = log.poll_write(begun).expect("a batch is due");
        assert_eq!(log.mark_in(begun), None, "it is busy");
        disk.write(&batch);
        log.handle_written(batch.buffer, true).expect("written");
        assert_eq!(log.poll_write(begun), None);
        assert_eq!(log.mark_in(begun + 10), Some(MARK_AFTER_MS - 10));
        assert_eq!(log.poll_write(begun + MARK_AFTER_MS - 1), None);
        assert!(!log.is_quiet(), "the mark is missing");
        let mark = log.poll_write(begun + MARK_AFTER_MS).expect("a mark is due");
        assert!(
            mark.buffer.bytes()[BATCH_HEADER_BYTES..].iter().all(|byte| *byte == 0),
            "it holds no record"
        );
        assert!(!log.is_quiet(), "the mark is under way");
        disk.write(&mark);
        let before = log.durable().position();
        let durable = log.handle_written(mark.buffer, true).expect("written");
        assert_eq!(durable.position(), before);
        assert!(log.is_quiet());
        assert_eq!((log.poll_write(u64::MAX), log.mark_in(u64::MAX)), (None, None), "one is enough");
    }
    let recovered = disk.recover(2).expect("a sound log");
    assert_eq!((recovered.records, recovered.dropped), (3, None));
    assert!(recovered.log.is_quiet(), "the batch of the start says it");
}

#[test]
fn a_clock_that_goes_back_makes_a_mark_early() {
    let (mut log, mut disk) = (Disk::new().recover(1).expect("an empty log").log, Disk::new());
    put(&mut log, stream(MESSAGES, 1), b"x", &[]);
    let batch = log.poll_write(1_000_000).expect("a batch is due");
    disk.write(&batch);
    log.handle_written(batch.buffer, true).expect("written");
    assert_eq!(log.poll_write(1_000_000), None);
    assert_eq!(log.mark_in(5), Some(0));
    assert!(log.poll_write(5).is_some());
}

#[test]
fn a_failed_mark_poisons() {
    let (mut log, mut disk) = (Disk::new().recover(1).expect("an empty log").log, Disk::new());
    put(&mut log, stream(MESSAGES, 1), b"x", &[]);
    flush(&mut log, &mut disk);
    let mark = log.poll_write(1 + MARK_AFTER_MS).or_else(|| log.poll_write(1 + 2 * MARK_AFTER_MS));
    log.handle_written(mark.expect("a mark is due").buffer, false).expect_err("the sync failed");
    assert!(!log.is_healthy());
    assert_eq!((log.poll_write(u64::MAX), log.mark_in(u64::MAX)), (None, None));
}

#[test]
fn a_hole_is_damage_however_large_it_is() {
    let (mut log, mut disk) = (Disk::new().recover(1).expect("an empty log").log, Disk::new());
    let payload = vec![1; 120 << 10];
    while disk.segments[&0].len() < 3 * FEED_BYTES {
        put(&mut log, stream(MESSAGES, 1), &payload, &[]);
        flush(&mut log, &mut disk);
    }
    let batch_bytes = (120 << 10) + 512;
    let damaged = SEGMENT_HEADER_BYTES + 3 * batch_bytes;
    let damage = Some(Damage { segment: 0, offset: damaged as u64, kind: DamageKind::Acknowledged });
    for fill in [0, 0xa5] {
        let mut image = disk.clone();
        let end = damaged + 2 * FEED_BYTES;
        image.segments.get_mut(&0).expect("segment 0")[damaged..end].fill(fill);
        assert_eq!(image.recover(2).err(), damage, "filled with {fill}");
    }
}

#[test]
fn a_log_rolls_into_its_spare_and_reads_back_over_both() {
    let (mut log, mut disk) = (Disk::new().recover(1).expect("an empty log").log, Disk::new());
    let talk = stream(MESSAGES, 1);
    let payload = vec![1; 120 << 10];
    let mut stored = 0;
    while disk.segments.len() < 3 {
        assert!(matches!(put(&mut log, talk, &payload, &[]), Answer::Stored(_)));
        stored += 1;
        flush(&mut log, &mut disk);
    }
    let recovered = disk.recover(2).expect("a sound log");
    assert!(recovered.spare_exists);
    assert_eq!(recovered.records, stored);
    assert_eq!(recovered.log.head(talk).seq, stored);

    let mut missing = disk.clone();
    missing.segments.remove(&0);
    assert!(matches!(missing.recover(2), Err(Damage { kind: DamageKind::Missing, .. })));
}

#[test]
fn a_segment_that_is_filled_to_its_last_byte_is_followed_by_the_next() {
    let (mut log, mut disk) = (Disk::new().recover(1).expect("an empty log").log, Disk::new());
    let talk = stream(MESSAGES, 1);
    // A batch of one record is 64 + 96 + payload: 120 KiB each, and the last one exactly what is left.
    let (payload, batch_bytes) = (vec![1; (120 << 10) - 160], 120 << 10);
    let mut left = SEGMENT_BYTES as usize - SEGMENT_HEADER_BYTES;
    let mut stored = 0;
    while left > 0 {
        let bytes = batch_bytes.min(left);
        assert!(matches!(put(&mut log, talk, &payload[..bytes - 160], &[]), Answer::Stored(_)));
        flush(&mut log, &mut disk);
        (left, stored) = (left - bytes, stored + 1);
    }
    assert_eq!(disk.segments[&0].len() as u64, SEGMENT_BYTES);
    assert_eq!(disk.segments.len(), 2, "the spare is there");
    // Without a spare there is no room for a mark either, and nobody waits for one.
    log.handle_spare(Err(NotMade::NoRoom));
    assert_eq!((log.poll_write(1 + MARK_AFTER_MS), log.mark_in(1 + MARK_AFTER_MS)), (None, None));
    assert!(log.is_quiet());
    log.handle_spare(Ok(()));

    // Recovered at this very place, and gone on with: both take the next segment behind its header.
    let recovered = disk.recover(2).expect("a full segment and a spare");
    assert_eq!((recovered.dropped, recovered.spare_exists, recovered.records), (None, true, stored));
    for (mut log, epoch) in [(log, 3), (recovered.log, 4)] {
        let mut disk = disk.clone();
        if !log.is_quiet() {
            // The mark is the first batch of the next segment.
            idle(&mut log, &mut disk);
        }
        for _ in 0..3 {
            assert!(matches!(put(&mut log, talk, b"behind the header", &[]), Answer::Stored(_)));
            flush(&mut log, &mut disk);
        }
        idle(&mut log, &mut disk);
        let recovered = disk.recover(epoch).expect("a sound log");
        assert_eq!((recovered.dropped, recovered.records), (None, stored + 3));
    }
}

#[test]
fn without_a_spare_the_log_is_busy_then_full_and_goes_on_when_one_comes() {
    let (mut log, mut disk) = (Disk::new().recover(1).expect("an empty log").log, Disk::new());
    assert_eq!(log.poll_spare(), Some(SpareWork::Make(SEGMENT_BYTES)));
    assert_eq!(log.poll_spare(), None, "asked for once");
    let payload = vec![1; 120 << 10];
    let talk = stream(MESSAGES, 1);
    let refusal = loop {
        match put(&mut log, talk, &payload, &[]) {
            Answer::Stored(_) => flush(&mut log, &mut disk),
            refusal => break refusal,
        }
    };
    assert_eq!(refusal, Answer::Busy, "it is being made");
    log.handle_spare(Err(NotMade::NoRoom));
    assert_eq!(put(&mut log, talk, &payload, &[]), Answer::Full, "it cannot be made");
    assert_eq!(log.poll_spare(), Some(SpareWork::Make(SEGMENT_BYTES)), "asked for again");
    disk.create(SEGMENT_BYTES);
    log.handle_spare(Ok(()));
    assert!(matches!(put(&mut log, talk, &payload, &[]), Answer::Stored(_)));
}

/// A segment without a successor keeps its end for starts. Marks that say the time took a block of it every ten minutes.
#[test]
fn a_night_on_a_full_disk_takes_nothing_of_what_is_kept_for_starts() {
    let (mut log, mut disk) = (Disk::new().recover(1).expect("an empty log").log, Disk::new());
    log.note_fronts(true);
    assert_eq!(log.poll_spare(), Some(SpareWork::Make(SEGMENT_BYTES)));
    log.handle_spare(Err(NotMade::NoRoom));
    let talk = stream(MESSAGES, 1);
    while let Answer::Stored(_) = put(&mut log, talk, &[1; 900], &[]) {
        while let Some(batch) = log.poll_write(1) {
            disk.write(&batch);
            log.handle_written(batch.buffer, true).expect("the write was whole");
        }
    }
    for minute in 0..12 * 60 {
        for millis in [0, MARK_AFTER_MS] {
            while let Some(mark) = log.poll_write(minute * 60_000 + millis) {
                disk.write(&mark);
                log.handle_written(mark.buffer, true).expect("the write was whole");
            }
        }
    }
    for epoch in 2..34 {
        let mut log = disk.recover(epoch).expect("a sound log").log;
        assert!(matches!(log.begin_run([5; 16], 1_000), Answer::Stored(_)), "start {epoch}");
        while let Some(batch) = log.poll_write(1_000) {
            disk.write(&batch);
            log.handle_written(batch.buffer, true).expect("the write was whole");
        }
    }
}

#[test]
fn zeros_are_written_ahead_and_nobody_appends_into_them() {
    let (mut log, mut disk) = (Disk::new().recover(1).expect("an empty log").log, Disk::new());
    let (payload, talk) = (vec![1; 120 << 10], stream(MESSAGES, 1));
    assert_eq!(log.poll_spare(), Some(SpareWork::Make(SEGMENT_BYTES)));
    disk.create(SEGMENT_BYTES);
    log.handle_spare(Ok(()));
    let mut asked = Vec::new();
    let refusal = loop {
        match put(&mut log, talk, &payload, &[]) {
            Answer::Stored(_) => asked.extend(log.poll_spare()),
            refusal => break refusal,
        }
        let batch = log.poll_write(1).expect("a batch is due");
        log.handle_written(batch.buffer, true).expect("written");
    };
    assert_eq!(asked, [SpareWork::Zero(SEGMENT_BYTES), SpareWork::Hurry], "each once");
    assert_eq!(refusal, Answer::Busy, "a batch would meet the zeros");
    log.handle_spare_zeroed();
    assert!(matches!(put(&mut log, talk, &payload, &[]), Answer::Stored(_)));
}

#[test]
fn a_failed_write_poisons() {
    let mut log = Disk::new().recover(1).expect("an empty log").log;
    put(&mut log, stream(MESSAGES, 1), b"x", &[]);
    let batch = log.poll_write(1).expect("a batch is due");
    log.handle_written(batch.buffer, false).expect_err("the sync failed");
    assert!(!log.is_healthy());
    assert_eq!(put(&mut log, stream(MESSAGES, 1), b"y", &[]), Answer::Unavailable);
    assert_eq!(log.poll_write(1), None);
    assert!(!log.has_after(stream(MESSAGES, 1), 0));
}

#[test]
fn the_index_knows_what_a_damaged_record_was() {
    let (mut log, mut disk) = (Disk::new().recover(1).expect("empty").log, Disk::new());
    for payload in [b"one", b"two"] {
        put(&mut log, stream(MESSAGES, 1), payload, &[stream(INBOX, 9)]);
        put(&mut log, stream(MESSAGES, 2), payload, &[]);
    }
    flush(&mut log, &mut disk);
    let entry = after(&log, &disk, stream(INBOX, 9), 0)[1];
    let damaged = entry.location;
    let mut bytes = disk.segments[&0][damaged.lsn() as usize..][..damaged.bytes()].to_vec();
    bytes[97] ^= 1;
    assert!(Log::verify(damaged, &bytes).is_err());
    assert_eq!(home_of(&log, entry), Some((stream(MESSAGES, 1), 2)));
}

fn home_of(log: &Log, entry: Entry) -> Option<(storage_log::StreamId, u64)> {
    let mut search = HomeSearch::new(entry);
    assert_eq!(search.poll(log), Progress::Done, "the segment is in memory");
    search.found()
}
