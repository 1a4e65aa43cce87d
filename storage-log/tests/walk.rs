//! A walk through logs that are whole, torn and damaged: what it says of every byte.

#![forbid(unsafe_code)]

mod support;

use storage_log::format::{BATCH_HEADER_BYTES, FEED_BYTES, SEGMENT_HEADER_BYTES};
use storage_log::{
    DamagedRange, Geometry, Log, Met, RangeKind, Remains, Walk, WalkEnd, newest_batch_end,
    newest_durable_mark,
};

use support::{Disk, INBOX, MESSAGES, STATE, config, flush, idle, put, stream};

const FIRST: usize = SEGMENT_HEADER_BYTES;

/// Segments that hold a few batches of one group.
const SMALL: Geometry = Geometry { segment_bytes: 16 << 10, batch_bytes_max: 4 << 10, block_bytes: 512 };

/// What a walk met.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    positions: Vec<u64>,
    damaged: Vec<DamagedRange>,
    remains: Vec<Remains>,
    end: WalkEnd,
}

fn walk(disk: &Disk, durable_lsn: u64) -> Found {
    let geometry = disk.geometry;
    let (mut positions, mut damaged, mut remains) = (Vec::new(), Vec::new(), Vec::new());
    let mut met = |met: Met<'_>| match met {
        Met::Batch(_) => {}
        Met::Damaged(range) => damaged.push(range),
        Met::Record(record) => positions.push(record.position()),
        Met::Remains(left) => remains.push(left),
    };
    let mut walk = Walk::new(config(geometry), durable_lsn);
    for (base, bytes) in &disk.segments {
        if !walk.open_segment(*base, bytes, geometry.segment_bytes, &mut met) {
            continue;
        }
        loop {
            let start = walk.offset() as usize;
            let mut feed = bytes.get(start..).unwrap_or(&[]).to_vec();
            feed.truncate(FEED_BYTES);
            feed.resize(FEED_BYTES.min(geometry.segment_bytes as usize - start), 0);
            let to_end = start + feed.len() >= bytes.len();
            if walk.feed(&feed, to_end, &mut met).ended {
                break;
            }
        }
    }
    let end = walk.finish(&mut met);
    Found { positions, damaged, remains, end }
}

/// A log of `rounds` batches of three records, and a mark.
fn written(geometry: Geometry, rounds: u8) -> (Log, Disk) {
    let mut disk = Disk::of(geometry);
    let mut log = disk.recover(1).expect("an empty log").log;
    log.begin_run([1; 16], 5);
    flush(&mut log, &mut disk);
    for round in 0..rounds {
        put(&mut log, stream(MESSAGES, round % 5), &[round; 300], &[stream(INBOX, round)]);
        put(&mut log, stream(STATE, round % 5), &[round; 40], &[]);
        put(&mut log, stream(MESSAGES, 77), &[round; 200], &[]);
        flush(&mut log, &mut disk);
    }
    idle(&mut log, &mut disk);
    (log, disk)
}

/// Where the batches of the first segment begin.
fn batches(disk: &Disk) -> Vec<usize> {
    let bytes = &disk.segments[&0];
    let is_batch = |at: &usize| bytes.get(*at + 4..*at + 8) == Some(b"GHBT");
    (FIRST..bytes.len()).step_by(disk.geometry.block_bytes).filter(is_batch).collect()
}

fn flip(disk: &mut Disk, segment: u64, offset: usize) {
    disk.segments.get_mut(&segment).expect("a segment")[offset] ^= 0xff;
}

fn damaged(segment: u64, offset: usize, bytes: usize, kind: RangeKind, records: Option<u64>) -> DamagedRange {
    DamagedRange { segment, offset: offset as u64, bytes: bytes as u64, kind, records }
}

#[test]
fn a_whole_log_is_sound_to_its_last_byte() {
    for geometry in [Geometry::of_blocks(512), Geometry::of_blocks(4096), SMALL] {
        let (log, disk) = written(geometry, 40);
        let found = walk(&disk, 0);
        assert_eq!((&found.damaged, &found.remains), (&vec![], &vec![]));
        assert!(found.positions.iter().copied().eq(1..=121));
        assert_eq!(found.end.next_position, log.durable().position() + 1);
    }
    assert_eq!(walk(&Disk::new(), 0).end.next_position, 1);
}

#[test]
fn a_batch_without_a_header_costs_its_records_and_no_others() {
    let (_, mut disk) = written(Geometry::of_blocks(512), 10);
    let batches = batches(&disk);
    flip(&mut disk, 0, batches[4] + 20);
    let found = walk(&disk, 0);
    let bytes = batches[5] - batches[4];
    assert_eq!(found.damaged, [damaged(0, batches[4], bytes, RangeKind::Batch, Some(3))]);
    // The run, three batches, what is lost, and the rest.
    assert!(found.positions.iter().copied().eq((1..=10).chain(14..=31)));
}

#[test]
fn one_damaged_record_is_named_alone() {
    let (_, mut disk) = written(Geometry::of_blocks(512), 10);
    let at = batches(&disk)[4];
    let second = at + BATCH_HEADER_BYTES + 432;
    flip(&mut disk, 0, second + 100);
    let found = walk(&disk, 0);
    assert_eq!(found.damaged, [damaged(0, second, 144, RangeKind::Records, Some(1))]);
    assert!(found.positions.iter().copied().eq((1..=11).chain(13..=31)));
    // The bytes that fill a record up are covered by the batch only.
    flip(&mut disk, 0, second + 100);
    flip(&mut disk, 0, second + 32 + 64 + 40 + 1);
    let found = walk(&disk, 0);
    assert_eq!(found.damaged.len(), 1);
    assert_eq!((found.damaged[0].kind, found.damaged[0].records), (RangeKind::BatchSum, Some(0)));
    assert_eq!(found.positions.len(), 31);
}

#[test]
fn a_batch_that_was_never_written_is_missed() {
    let (_, mut disk) = written(Geometry::of_blocks(512), 10);
    let batches = batches(&disk);
    disk.segments.get_mut(&0).expect("a segment")[batches[3]..batches[5]].fill(0);
    let found = walk(&disk, 0);
    assert_eq!(found.damaged, [damaged(0, batches[3], batches[5] - batches[3], RangeKind::Batch, Some(6))]);
}

#[test]
fn what_was_torn_is_no_damage() {
    let (mut log, mut disk) = written(Geometry::of_blocks(512), 3);
    let whole = walk(&disk, 0);
    put(&mut log, stream(MESSAGES, 77), &[9; 3000], &[]);
    let batch = log.poll_write(9).expect("a batch is due");
    for there in (512..batch.buffer.bytes().len()).step_by(512) {
        let mut torn = disk.clone();
        torn.write(&batch);
        torn.segments.get_mut(&0).expect("a segment").truncate(batch.offset as usize + there);
        let found = walk(&torn, 0);
        assert_eq!((&found.damaged, &found.positions), (&whole.damaged, &whole.positions));
        assert_eq!(found.remains.len(), 1);
        assert_eq!((found.remains[0].segment, found.remains[0].offset), (0, batch.offset));
        // The same bytes, when they are known to have been acknowledged.
        let found = walk(&torn, batch.offset + batch.buffer.bytes().len() as u64);
        assert_eq!((found.damaged.len(), &found.remains), (1, &vec![]));
        assert_eq!(found.damaged[0].offset / 512, batch.offset / 512);
    }
    disk.write(&batch);
    assert_eq!(walk(&disk, 0).positions.len(), whole.positions.len() + 1);
}

#[test]
fn acknowledged_bytes_that_are_missing_at_the_end_are_damage() {
    let (_, mut disk) = written(Geometry::of_blocks(512), 3);
    let batches = batches(&disk);
    let last = *batches.last().expect("a mark");
    // The mark says that the batch before it was durable.
    flip(&mut disk, 0, batches[batches.len() - 2] + 80);
    let found = walk(&disk, 0);
    assert_eq!((found.damaged.len(), &found.remains), (1, &vec![]), "{:?}", found.damaged);
    assert_eq!(found.damaged[0].records, Some(1));
    disk.segments.get_mut(&0).expect("a segment").truncate(last);
    assert_eq!(walk(&disk, 0).damaged, []);
    // Known to be durable up to there: the record, and the mark behind it.
    assert_eq!(walk(&disk, last as u64 + 512).damaged.len(), 2);
}

#[test]
fn segments_that_are_missing_foreign_or_headless_are_named() {
    let (_, whole) = written(SMALL, 40);
    let sound = walk(&whole, 0).positions;
    let bases: Vec<u64> = whole.segments.keys().copied().collect();
    assert!(bases.len() > 4);
    let (base, length) = (bases[2], SMALL.segment_bytes as usize);

    let mut disk = whole.clone();
    disk.segments.remove(&base);
    let missing = walk(&disk, 0);
    let lost = (sound.len() - missing.positions.len()) as u64;
    assert_eq!(missing.damaged, [damaged(base, 0, length, RangeKind::Missing, Some(lost))]);

    let mut disk = whole.clone();
    flip(&mut disk, base, 9);
    let headless = walk(&disk, 0);
    assert_eq!(headless.damaged, [damaged(base, 0, 64, RangeKind::Header, Some(0))]);
    assert_eq!(headless.positions, sound);

    let mut disk = whole.clone();
    let other = whole.segments[&bases[1]].clone();
    disk.segments.insert(base, other);
    let foreign = walk(&disk, 0);
    assert_eq!(foreign.damaged, [damaged(base, 0, length, RangeKind::Foreign, Some(lost))]);

    let mut disk = whole.clone();
    disk.segments.remove(&0);
    assert_eq!(walk(&disk, 0).damaged[0].kind, RangeKind::Missing);
}

#[test]
fn the_first_batch_of_a_segment_is_missed_where_it_should_stand() {
    let (_, mut disk) = written(SMALL, 40);
    let sound = walk(&disk, 0).positions.len();
    let base = *disk.segments.keys().nth(1).expect("a second segment");
    flip(&mut disk, base, FIRST + 20);
    let found = walk(&disk, 0);
    assert_eq!(found.damaged.len(), 1, "{:?}", found.damaged);
    assert_eq!((found.damaged[0].segment, found.damaged[0].offset), (base, FIRST as u64));
    assert_eq!(found.damaged[0].records, Some((sound - found.positions.len()) as u64));
}

/// Whatever byte is damaged, it is found, and what is lost is counted.
#[test]
fn every_damaged_byte_below_the_mark_is_found() {
    let (_, disk) = written(SMALL, 12);
    let sound = walk(&disk, 0);
    for (base, bytes) in &disk.segments {
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for offset in (FIRST..end).step_by(7) {
            let mut damaged = disk.clone();
            flip(&mut damaged, *base, offset);
            let found = walk(&damaged, sound.end.lsn);
            let lost: u64 = found.damaged.iter().filter_map(|range| range.records).sum();
            let padding = found.damaged.is_empty();
            assert_eq!(found.positions.len() as u64 + lost, sound.positions.len() as u64, "{base} {offset}");
            // The zeros behind a batch, to the end of its block, say nothing and are not covered.
            assert!(!padding || found.positions == sound.positions, "{base} {offset}");
        }
    }
}

/// A walk and a recovery are two programs for one question: whether acknowledged bytes are missing.
#[test]
fn a_walk_finds_damage_where_recovery_refuses_and_nowhere_else() {
    let (_, disk) = written(SMALL, 12);
    for (base, bytes) in &disk.segments {
        for offset in (0..bytes.len()).step_by(5) {
            let mut damaged = disk.clone();
            flip(&mut damaged, *base, offset);
            let is_refused = damaged.recover(2).is_err();
            assert_eq!(!walk(&damaged, 0).damaged.is_empty(), is_refused, "{base} {offset}");
        }
        for end in (FIRST..bytes.len()).step_by(512) {
            let mut cut = disk.clone();
            cut.segments.get_mut(base).expect("a segment").truncate(end);
            assert_eq!(!walk(&cut, 0).damaged.is_empty(), cut.recover(2).is_err(), "{base} to {end}");
        }
    }
}

#[test]
fn the_newest_mark_is_found_without_walking() {
    let (_, disk) = written(Geometry::of_blocks(512), 10);
    let end = walk(&disk, 0).end;
    assert_eq!(newest_durable_mark(&disk.segments[&0][FIRST..], FIRST as u64, 512), Some(end.durable_lsn));
    // The mark at the end names all before it, and needs none behind it.
    assert_eq!(newest_batch_end(&disk.segments[&0][FIRST..], FIRST as u64, 512), Some(end.durable_lsn));
    assert_eq!(newest_durable_mark(&[0; 4096], FIRST as u64, 512), None);
}
