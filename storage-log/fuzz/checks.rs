//! What must hold for a log whose files say anything at all, under checksums that hold. Shared by the fuzz targets and, over
//! noise, by a test on stable.
//!
//! Checksums would end nearly every try at the first look, so each one is mended after the bytes were changed: what is left is
//! what a disk could only say by a bug, and even that is an answer and never a panic or a search without end.

#![forbid(unsafe_code)]
#![allow(dead_code, reason = "each target takes one")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::ops::{Range, RangeInclusive};
use std::path::Path;

use storage_log::format::segment_at::END as SEGMENT_END;
use storage_log::format::{INDEX_FOOTER_BYTES, SEGMENT_HEADER_BYTES};
use storage_log::{
    AmendedSearch, Geometry, HomeSearch, INDEX_BLOCK_BYTES, Log, Lookup, Progress, Retention, ScrubProgress,
    SegmentHeader, StreamId, StreamKind, Wanted, compact, decode_marks, encode_marks,
};

use support::{Disk, INBOX, MESSAGES, PAGE, STATE, stream};

const GEOMETRY: Geometry = Geometry { segment_bytes: 16 << 10, batch_bytes_max: 8 << 10, block_bytes: 512 };

/// Blocks that one lookup may ask for, of a log with five segments.
const READS_MAX: usize = 100;

/// The fixture of format 1 with amendments, with no segment compacted.
fn fixture() -> Disk {
    fixture_and_cold().0
}

/// The fixture of format 1, and what its compacted segment is.
fn fixture_and_cold() -> (Disk, (u64, Vec<u8>)) {
    let (mut disk, mut cold) = (Disk::of(GEOMETRY), None);
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let directory = directory.map(|at| at.join("tests/fixtures/v1-amended"));
    let directory = directory.into_iter().find(|at| at.exists()).expect("the fixture");
    for entry in fs::read_dir(directory).expect("the fixture") {
        let path = entry.expect("a file").path();
        let (name, bytes) =
            (path.file_name().expect("a name").to_string_lossy(), fs::read(&path).expect("read"));
        match name.get(4..20).and_then(|digits| u64::from_str_radix(digits, 16).ok()) {
            Some(base) if name.ends_with(".log") => drop(disk.segments.insert(base, bytes)),
            Some(base) if name.ends_with(".cold") => cold = Some((base, bytes)),
            Some(base) => drop(disk.indexes.insert(base, bytes)),
            None => disk.snapshot = Some(bytes),
        }
    }
    (disk, cold.expect("the fixture has one"))
}

/// Changes bytes: each four of `edits` are a place (two), what is flipped there, and in which file.
fn edit(files: &mut [&mut Vec<u8>], edits: &[u8]) {
    for edit in edits.chunks_exact(4) {
        let file = usize::from(edit[3]) % files.len();
        let file = &mut files[file];
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % file.len();
        file[at] ^= edit[2];
    }
}

/// Segments.
pub(crate) fn segments(edits: &[u8]) {
    let mut disk = fixture();
    disk.snapshot = None;
    disk.indexes.clear();
    edit_segments(&mut disk, edits);
    if let Ok(recovered) = disk.recover(1) {
        look_around(&recovered.log, &disk);
    }
}

fn edit_segments(disk: &mut Disk, edits: &[u8]) {
    let places: Vec<_> = disk.segments.values().map(|bytes| batches_of(bytes)).collect();
    edit(&mut disk.segments.values_mut().collect::<Vec<_>>(), edits);
    let mut previous = [0; 4];
    for (bytes, batches) in disk.segments.values_mut().zip(places) {
        mend_header(bytes);
        for batch in batches {
            bytes[batch.start + 36..batch.start + 40].copy_from_slice(&previous);
            mend_batch(bytes, &batch);
            previous.copy_from_slice(&bytes[batch.start..batch.start + 4]);
        }
    }
}

/// The two files that say how far something has got, of any length: what they are understood to say is what would be written.
pub(crate) fn states(edits: &[u8]) {
    let config = support::config(GEOMETRY);
    let mut marks = encode_marks(&[(0, 7), (0x4000, 812)].into(), &config);
    let progress = ScrubProgress { next_base: 0x4000, begun: 5, ended: 2 };
    let mut scrub = progress.encode(&config).to_vec();
    edit(&mut [&mut marks, &mut scrub], edits);
    for file in [&mut marks, &mut scrub] {
        let cut = edits.last().map_or(0, |last| usize::from(last % 64));
        file.truncate(file.len().saturating_sub(cut));
        if file.len() > 4 {
            mend_footer(file);
        }
    }
    if let Some(said) = decode_marks(&marks, &config) {
        assert_eq!(decode_marks(&encode_marks(&said, &config), &config), Some(said));
    }
    if let Some(said) = ScrubProgress::parse(&scrub, &config) {
        assert_eq!(ScrubProgress::parse(&said.encode(&config), &config), Some(said));
    }
}

/// Segments from which index files are made again, while their log serves.
pub(crate) fn rebuilt(edits: &[u8]) {
    let mut disk = fixture();
    let mut log = disk.recover(1).expect("the fixture is sound").log;
    edit_segments(&mut disk, edits);
    rebuild_all(&mut log, &mut disk, edits.len());
    look_around(&log, &disk);
}

/// A segment that was compacted; its index file may be lost, and the snapshot.
pub(crate) fn cold(edits: &[u8]) {
    let (mut disk, (base, mut file)) = fixture_and_cold();
    let sound = file.clone();
    edit(&mut [&mut file], edits);
    mend_cold(&mut file, &sound);
    disk.segments.insert(base, file.clone());
    disk.indexes.insert(base, file);
    if edits.len().is_multiple_of(8) {
        disk.snapshot = None;
    }
    if edits.len().is_multiple_of(3) {
        disk.indexes.remove(&base);
    }
    if let Ok(mut recovered) = disk.recover(1) {
        look_around(&recovered.log, &disk);
        rebuild_all(&mut recovered.log, &mut disk, edits.len());
        look_around(&recovered.log, &disk);
    }
    let (config, in_log) = (support::config(GEOMETRY), in_log(&disk, base));
    for home_from in [0, u64::MAX] {
        let retention = Retention { home_from, linked_from: [home_from, 0] };
        let Ok(_) = compact(&config, in_log, retention, &mut &disk, &mut |_| Ok(()));
    }
}

/// Checksums of what stood where in the sound file: header and copy of the footer, records, blocks, tail and footer.
fn mend_cold(file: &mut [u8], sound: &[u8]) {
    mend_header(file);
    let (copy, footer) = (SEGMENT_END..SEGMENT_END + INDEX_FOOTER_BYTES, file.len() - INDEX_FOOTER_BYTES);
    let end = number(sound, copy.start + 108..copy.start + 112);
    mend_records(file, SEGMENT_HEADER_BYTES..end);
    let blocks_at = end.next_multiple_of(SEGMENT_HEADER_BYTES);
    let blocks = number(sound, footer + 12..footer + 16);
    let in_log: [u8; 8] = file[32..40].try_into().expect("a base");
    mend_footer(&mut file[copy]);
    mend_index(&mut file[blocks_at..], blocks, in_log);
}

/// The base of a segment with its generation, as its header says it now.
fn in_log(disk: &Disk, base: u64) -> u64 {
    SegmentHeader::parse(&disk.segments[&base]).map_or(base, |header| header.base)
}

/// Makes every index file again; every third is lost before.
fn rebuild_all(log: &mut Log, disk: &mut Disk, lost: usize) {
    let bases: Vec<u64> = disk.segments.keys().copied().collect();
    for (place, base) in bases.into_iter().enumerate() {
        let Some(job) = log.rebuild_job(in_log(disk, base)) else {
            continue;
        };
        if (place + lost).is_multiple_of(3) {
            disk.indexes.remove(&base);
        }
        let Ok(rebuilt) = job.run(&mut &*disk);
        let Some(rebuilt) = rebuilt else {
            // It says that it is another.
            continue;
        };
        log.handle_rebuilt(disk.write_index(&rebuilt.index));
    }
}

/// Index files.
pub(crate) fn indexes(edits: &[u8]) {
    let mut disk = fixture();
    disk.snapshot = None;
    edit(&mut disk.indexes.values_mut().collect::<Vec<_>>(), edits);
    for (base, file) in &mut disk.indexes {
        let blocks = (file.len() - INDEX_FOOTER_BYTES) / INDEX_BLOCK_BYTES;
        mend_index(file, blocks, base.to_le_bytes());
    }
    if let Ok(mut recovered) = disk.recover(1) {
        look_around(&recovered.log, &disk);
        rebuild_all(&mut recovered.log, &mut disk, edits.len());
        look_around(&recovered.log, &disk);
    }
}

/// Checksums of an index of so many blocks, which belongs to the segment with this base.
fn mend_index(index: &mut [u8], blocks: usize, in_log: [u8; 8]) {
    let tail = index.len() - INDEX_FOOTER_BYTES;
    let blocks_end = blocks * INDEX_BLOCK_BYTES;
    for (number, block) in (0_u32..).zip(index[..blocks_end].chunks_exact_mut(INDEX_BLOCK_BYTES)) {
        let place = crc32c::crc32c_append(crc32c::crc32c(&in_log), &number.to_le_bytes());
        let sum = crc32c::crc32c_append(place, &block[4..]);
        block[..4].copy_from_slice(&sum.to_le_bytes());
    }
    let sum = xxhash_rust::xxh3::xxh3_64(&index[blocks_end..tail]);
    index[tail + 88..tail + 96].copy_from_slice(&sum.to_le_bytes());
    mend_footer(&mut index[tail..]);
}

/// The snapshot.
pub(crate) fn snapshot(edits: &[u8]) {
    let mut disk = fixture();
    let file = disk.snapshot.as_mut().expect("the fixture has one");
    edit(&mut [file], edits);
    let tail = file.len() - INDEX_FOOTER_BYTES;
    for (number, block) in (0_u32..).zip(file[..tail].chunks_exact_mut(INDEX_BLOCK_BYTES)) {
        let sum = crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), &block[4..]);
        block[..4].copy_from_slice(&sum.to_le_bytes());
    }
    mend_footer(&mut file[tail..]);
    if let Ok(recovered) = disk.recover(1) {
        look_around(&recovered.log, &disk);
    }
}

/// Every stream from several places, both ways, and what stands at some: each search ends.
fn look_around(log: &Log, disk: &Disk) {
    let kinds = [MESSAGES, INBOX, StreamKind(5), STATE];
    for id in kinds.iter().flat_map(|kind| (0..11).map(|id| stream(*kind, id))) {
        for key in [0, 1, 7, 100, u64::MAX] {
            let up = read_through(log, disk, Lookup::after(log, id, key, PAGE));
            let down = read_through(log, disk, Lookup::before(log, id, key, 0, PAGE));
            for entry in up.into_iter().chain(down).take(2) {
                let mut search = HomeSearch::new(entry);
                for _ in 0..READS_MAX {
                    let Progress::Read(place) = search.poll(log) else {
                        break;
                    };
                    search.feed(support::block(disk, place).unwrap_or_default());
                }
            }
        }
        let _ = (log.head(id), log.durable_head(id), log.last(id));
    }
    for id in (0..11).map(|id| stream(MESSAGES, id)) {
        for seqs in [1..=3, 1..=100, 7..=u64::MAX] {
            look_for_amendments(log, disk, id, seqs);
        }
    }
}

fn look_for_amendments(log: &Log, disk: &Disk, home: StreamId, seqs: RangeInclusive<u64>) {
    let wanted = seqs.take(50).map(|seq| Wanted { seq, after: seq / 2 });
    let Some(mut search) = AmendedSearch::new(log, home, wanted.collect()) else {
        return;
    };
    for _ in 0..READS_MAX {
        let Progress::Read(place) = search.poll(log) else {
            assert!(search.found().count() <= 50);
            return;
        };
        let Some(block) = support::block(disk, place) else {
            return;
        };
        search.feed(place, block);
    }
    panic!("{search:?} does not end");
}

fn read_through(log: &Log, disk: &Disk, mut lookup: Lookup) -> Option<storage_log::Entry> {
    for _ in 0..READS_MAX {
        let Progress::Read(place) = lookup.poll(log) else {
            return lookup.entries().first().copied();
        };
        let Some(block) = support::block(disk, place) else {
            // The file ends before it: a read that fails.
            return None;
        };
        lookup.feed(place, block);
    }
    panic!("{lookup:?} does not end");
}

/// Where the batches of a sound segment stand.
fn batches_of(segment: &[u8]) -> Vec<Range<usize>> {
    let (mut batches, mut at) = (Vec::new(), SEGMENT_HEADER_BYTES);
    while segment.get(at + 4..at + 8) == Some(b"GHBT") {
        let end = at + 64 + number(segment, at + 32..at + 36);
        batches.push(at..end);
        at = end.next_multiple_of(GEOMETRY.block_bytes);
    }
    batches
}

fn number(bytes: &[u8], at: Range<usize>) -> usize {
    let mut wide = [0; 8];
    wide[..at.len()].copy_from_slice(&bytes[at]);
    usize::try_from(u64::from_le_bytes(wide)).expect("64 bits")
}

fn mend_header(segment: &mut [u8]) {
    let sum = crc32c::crc32c(&segment[4..64]);
    segment[..4].copy_from_slice(&sum.to_le_bytes());
}

fn mend_footer(footer: &mut [u8]) {
    let sum = crc32c::crc32c(&footer[4..]);
    footer[..4].copy_from_slice(&sum.to_le_bytes());
}

/// Checksums of the records, of the body and of the header.
fn mend_batch(segment: &mut [u8], batch: &Range<usize>) {
    mend_records(segment, batch.start + 64..batch.end);
    let sum = xxhash_rust::xxh3::xxh3_64(&segment[batch.start + 64..batch.end]);
    segment[batch.start + 48..batch.start + 56].copy_from_slice(&sum.to_le_bytes());
    let sum = crc32c::crc32c(&segment[batch.start + 4..batch.start + 64]);
    segment[batch.start..batch.start + 4].copy_from_slice(&sum.to_le_bytes());
}

/// Checksums of records that stand one behind the other, as far as they can be told apart.
fn mend_records(segment: &mut [u8], records: Range<usize>) {
    let mut at = records.start;
    while at + 96 <= records.end {
        let (links, payload) = (number(segment, at + 28..at + 30), number(segment, at + 40..at + 44));
        let (payload_end, end) = (at + 96 + payload, at + 96 + payload + links * 24);
        if end > records.end {
            break;
        }
        let seed = (number(segment, at + 48..at + 56) ^ number(segment, at + 64..at + 72)) as u64;
        let sum = xxhash_rust::xxh3::xxh3_64_with_seed(&segment[at + 96..payload_end], seed);
        segment[at + 88..at + 96].copy_from_slice(&sum.to_le_bytes());
        let portable = crc32c::crc32c(&segment[at + 36..at + 96]);
        segment[at + 32..at + 36].copy_from_slice(&portable.to_le_bytes());
        let local =
            crc32c::crc32c_append(crc32c::crc32c(&segment[at + 4..at + 32]), &segment[payload_end..end]);
        segment[at..at + 4].copy_from_slice(&local.to_le_bytes());
        at += (end - at).next_multiple_of(16);
    }
}
