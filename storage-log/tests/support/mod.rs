//! A disk that is a map of segments, and a log on it.

#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeMap;
use std::convert::Infallible;

use storage_log::format::{
    BLOCK_BYTES_MIN, FEED_BYTES, INDEX_FOOTER_BYTES, MARK_AFTER_MS, SEGMENT_HEADER_BYTES,
};
use storage_log::{
    Answer, BlockPlace, Blocks, ColdWalk, Compaction, Damage, Draft, Entry, Geometry, Glance,
    INDEX_BLOCK_BYTES, IndexFooter, IndexJob, Kinds, Location, Log, LogConfig, Lookup, Page, Progress,
    Record, Recovered, Retention, Scan, SealedSegment, SegmentHeader, SnapshotFooter, SpareWork, StreamId,
    StreamKind, WriteBatch, as_appended, is_cold, merge,
};

const STORE: [u8; 16] = [7; 16];
pub(crate) const MESSAGES: StreamKind = StreamKind(1);
pub(crate) const STATE: StreamKind = StreamKind(2);
pub(crate) const INBOX: StreamKind = StreamKind(4);

const KINDS: Kinds = Kinds { home: MESSAGES, last: [STATE, StreamKind(3)], linked: [INBOX, StreamKind(5)] };

/// Page of a size that hardly anything fits twice.
pub(crate) const PAGE: Page = Page { items_max: 7, bytes_max: 4096 };

pub(crate) fn config(geometry: Geometry) -> LogConfig {
    LogConfig { store: STORE, number: 0, geometry, tail_bytes_max: 1 << 20, kinds: KINDS }
}

pub(crate) fn stream(kind: StreamKind, id: u8) -> StreamId {
    StreamId { kind, id: [id; 16] }
}

/// Segments by base, whose bytes that were never written read as zeros, and their index files.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) geometry: Geometry,
    pub(crate) segments: BTreeMap<u64, Vec<u8>>,
    pub(crate) indexes: BTreeMap<u64, Vec<u8>>,
    pub(crate) snapshot: Option<Vec<u8>>,
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self::of_blocks(BLOCK_BYTES_MIN)
    }

    pub(crate) fn of_blocks(block_bytes: usize) -> Self {
        Self::of(Geometry::of_blocks(block_bytes))
    }

    pub(crate) fn of(geometry: Geometry) -> Self {
        let mut disk = Self { geometry, segments: BTreeMap::new(), indexes: BTreeMap::new(), snapshot: None };
        disk.create(0);
        disk
    }

    pub(crate) fn create(&mut self, base: u64) {
        let Geometry { block_bytes, segment_bytes, .. } = self.geometry;
        let header = SegmentHeader { store: STORE, log: 0, base, block_bytes, segment_bytes };
        self.segments.insert(base, header.encode().to_vec());
    }

    pub(crate) fn write(&mut self, batch: &WriteBatch) {
        let segment = self.segments.get_mut(&batch.segment).expect("the segment was prepared");
        let (start, end) = (batch.offset as usize, batch.offset as usize + batch.buffer.bytes().len());
        segment.resize(segment.len().max(end), 0);
        segment[start..end].copy_from_slice(batch.buffer.bytes());
        assert!(segment.len() as u64 <= self.geometry.segment_bytes);
    }

    pub(crate) fn write_index(&mut self, job: &IndexJob) -> SealedSegment {
        let mut file = Vec::new();
        let Ok(sealed) = job.write(|bytes| {
            file.extend_from_slice(bytes);
            Ok::<(), Infallible>(())
        });
        self.indexes.insert(job.base(), file);
        sealed
    }

    /// Merges the snapshot and the index files that it does not cover.
    pub(crate) fn renew_snapshot(&mut self) {
        let before = self.snapshot.as_deref().map(|file| {
            let (blocks, footer) = file.split_at(file.len() - INDEX_FOOTER_BYTES);
            let footer = SnapshotFooter::parse(footer, &config(self.geometry)).expect("it was written");
            (footer, blocks_of(blocks))
        });
        let covered = before.as_ref().map_or(0, |(footer, _)| footer.segments as usize);
        let sealed = self.indexes.keys().skip(covered).map(|base| {
            let (footer, tail, blocks) = self.index(*base);
            (footer.open(tail).expect("it was written"), blocks)
        });
        let mut snapshot = Vec::new();
        let Ok(merged) = merge(&config(self.geometry), before, sealed.collect(), |bytes| {
            snapshot.extend_from_slice(bytes);
            Ok(())
        });
        assert_eq!(merged.map(|footer| footer.segments as usize), Some(self.indexes.len()));
        self.snapshot = Some(snapshot);
    }

    /// The parts of an index file, or of the index of a cold segment.
    fn index(&self, base: u64) -> (IndexFooter, &[u8], Blocks<'_, Infallible>) {
        let (file, base) = (&self.indexes[&base], self.base_of(base));
        let at = file.len() - INDEX_FOOTER_BYTES;
        let footer = IndexFooter::parse(&file[at..], base, &config(self.geometry)).expect("it was written");
        let tail = at - footer.tail_bytes();
        (footer, &file[tail..at], blocks_of(&file[footer.blocks_at() as usize..tail]))
    }

    /// The base of a segment, with its generation.
    pub(crate) fn base_of(&self, base: u64) -> u64 {
        SegmentHeader::parse(&self.segments[&base]).expect("a sound header").base
    }

    /// Writes a sealed segment anew.
    pub(crate) fn compact(&mut self, base: u64, retention: Retention) -> SealedSegment {
        let config = config(self.geometry);
        let old = self.base_of(base);
        let (footer, tail, blocks) = self.index(base);
        let mut compaction = Compaction::new(config.clone(), footer, tail, retention).expect("a sound tail");
        let bytes = &self.segments[&base];
        if is_cold(old) {
            let mut walk = ColdWalk::new(self.geometry, old, footer.records_end());
            while let Some(offset) = walk.offset() {
                let note = &mut |record: &Record<'_>| compaction.note(record);
                walk.feed(&bytes[offset as usize..], note, &mut |range| panic!("{range:?} is damaged"));
            }
        } else {
            let mut glance = Glance::new(self.geometry, base, footer.end_lsn());
            while let Some(offset) = glance.offset() {
                assert!(glance.feed(&bytes[offset as usize..], &mut |record| compaction.note(record)));
            }
        }
        let snapshot = self.snapshot.as_deref().map(|file| {
            let (blocks, footer) = file.split_at(file.len() - INDEX_FOOTER_BYTES);
            (SnapshotFooter::parse(footer, &config).expect("it was written"), blocks_of(blocks))
        });
        let Ok(decided) = compaction.decide(snapshot);
        assert!(decided);
        let mut file = Vec::new();
        let read = |offset: u64, into: &mut [u8]| {
            into.copy_from_slice(&bytes[offset as usize..offset as usize + into.len()]);
            Ok::<(), Infallible>(())
        };
        let Ok(sealed) = compaction.write(read, blocks, |bytes| {
            file.extend_from_slice(bytes);
            Ok(())
        });
        self.segments.insert(base, file.clone());
        self.indexes.insert(base, file);
        sealed.expect("all of it is sound")
    }

    /// Reads the log back, from the snapshot and index files as far as they are sound.
    pub(crate) fn recover(&self, epoch: u32) -> Result<Recovered, Damage> {
        let mut usable = self.indexes.len();
        let mut snapshot = self.snapshot.as_deref();
        loop {
            let (scan, entered) = self.scan(epoch, snapshot, usable)?;
            if entered == Some(usable) {
                return scan.finish();
            }
            (snapshot, usable) = (None, entered.unwrap_or(usable));
        }
    }

    /// Index files that could be entered, of `usable`, and the scan behind them; `None` if the snapshot could not.
    fn scan(
        &self,
        epoch: u32,
        snapshot: Option<&[u8]>,
        usable: usize,
    ) -> Result<(Scan, Option<usize>), Damage> {
        let mut scan = Scan::new(config(self.geometry), epoch);
        let covered = match snapshot.map(|file| self.enter_snapshot(&mut scan, file)) {
            None => 0,
            Some(Some(covered)) if covered <= usable => covered,
            Some(_) => return Ok((scan, None)),
        };
        for (number, (base, bytes)) in self.segments.iter().enumerate() {
            let base_with_generation = SegmentHeader::parse(bytes).map_or(*base, |header| header.base);
            scan.open_segment(base_with_generation, bytes)?;
            if number < usable {
                let blocks = number >= covered;
                let file = self.indexes.get(base);
                let entered = file.and_then(|file| self.enter(&mut scan, base_with_generation, file, blocks));
                if entered.is_none() {
                    return Ok((scan, Some(number)));
                }
                continue;
            }
            loop {
                let start = scan.offset() as usize;
                // A real segment is preallocated: what was not written reads as zeros, and is not read to its end.
                let mut feed = bytes.get(start..).unwrap_or(&[]).to_vec();
                feed.truncate(FEED_BYTES);
                feed.resize(FEED_BYTES.min(self.geometry.segment_bytes as usize - start), 0);
                if scan.feed(&feed, start + feed.len() >= bytes.len(), &mut |_| {})?.ended {
                    break;
                }
            }
        }
        Ok((scan, Some(usable)))
    }

    /// Segments that the snapshot covers.
    fn enter_snapshot(&self, scan: &mut Scan, file: &[u8]) -> Option<usize> {
        let (blocks, footer) = file.split_at(file.len().checked_sub(INDEX_FOOTER_BYTES)?);
        let footer = SnapshotFooter::parse(footer, &config(self.geometry))?;
        for (number, block) in (0..footer.blocks).zip(blocks.chunks(INDEX_BLOCK_BYTES)) {
            scan.enter_snapshot_block(number, block).then_some(())?;
        }
        Some(footer.segments as usize)
    }

    fn enter(&self, scan: &mut Scan, base: u64, file: &[u8], blocks: bool) -> Option<()> {
        let at = file.len().checked_sub(INDEX_FOOTER_BYTES)?;
        let footer = IndexFooter::parse(&file[at..], base, &config(self.geometry))?;
        let tail = file.get(at.checked_sub(footer.tail_bytes())?..at)?;
        scan.enter_index(&footer, tail).then_some(())?;
        let count = if blocks { footer.blocks() } else { 0 };
        let blocks = file.get(footer.blocks_at() as usize..)?;
        for (number, block) in (0..count).zip(blocks.chunks(INDEX_BLOCK_BYTES)) {
            scan.enter_index_block(number, block).then_some(())?;
        }
        Some(())
    }
}

fn blocks_of(bytes: &[u8]) -> Blocks<'_, Infallible> {
    let mut blocks = bytes.chunks_exact(INDEX_BLOCK_BYTES);
    Box::new(move || Ok(blocks.next().map(<[u8]>::to_vec)))
}

/// Writes everything that is due.
pub(crate) fn flush(log: &mut Log, disk: &mut Disk) {
    while let Some(work) = log.poll_spare() {
        match work {
            SpareWork::Make(base) => {
                disk.create(base);
                log.handle_spare(true);
            }
            SpareWork::Zero(base) => {
                disk.segments.get_mut(&base).expect("it was made").truncate(SEGMENT_HEADER_BYTES);
                log.handle_spare_zeroed();
            }
            SpareWork::Hurry => unreachable!("zeros take no time here"),
        }
    }
    while let Some(batch) = log.poll_write(1) {
        disk.write(&batch);
        log.handle_written(batch.buffer, true).expect("the write was whole");
    }
}

/// Writes the index files that are due.
pub(crate) fn seal(log: &mut Log, disk: &mut Disk) {
    while let Some(job) = log.poll_index() {
        let sealed = disk.write_index(&job);
        assert!(log.handle_indexed(Some(sealed)).is_some());
    }
}

/// Lets the log be idle for as long as it takes, and writes the mark that it then wants.
pub(crate) fn idle(log: &mut Log, disk: &mut Disk) {
    assert_eq!(log.poll_write(1), None, "nothing waits");
    let mark = log.poll_write(1 + MARK_AFTER_MS).expect("a mark is due");
    disk.write(&mark);
    log.handle_written(mark.buffer, true).expect("the write was whole");
    assert!(log.is_quiet());
}

pub(crate) fn put(log: &mut Log, home: StreamId, payload: &[u8], links: &[StreamId]) -> Answer {
    let expected_head = log.head(home).seq;
    log.append(&[Draft { stream: home, expected_head, messages: 1, schema: 1, payload, links }], 1_000)
}

/// A block of an index file, if the file has it.
pub(crate) fn block(disk: &Disk, place: BlockPlace) -> Option<Vec<u8>> {
    let (file, start) = (disk.indexes.get(&as_appended(place.base))?, place.offset() as usize);
    file.get(start..start + INDEX_BLOCK_BYTES).map(<[u8]>::to_vec)
}

/// One page, and how many blocks had to be read for it.
pub(crate) fn page(log: &Log, disk: &Disk, mut lookup: Lookup) -> (Vec<Entry>, bool, usize) {
    let mut reads = 0;
    loop {
        match lookup.poll(log) {
            Progress::Done => return (lookup.entries().to_vec(), lookup.has_more(), reads),
            Progress::Read(place) => {
                lookup.feed(place, block(disk, place).expect("a whole file"));
                reads += 1;
            }
            Progress::Damaged(place) => panic!("{place:?} is damaged"),
        }
    }
}

/// All entries after `after`, page by page.
pub(crate) fn after(log: &Log, disk: &Disk, stream: StreamId, after: u64) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let last = entries.last().map_or(after, |last| last.key);
        let (found, more, _) = page(log, disk, Lookup::after(log, stream, last, PAGE));
        assert_eq!(log.has_after(stream, found.last().map_or(last, |last| last.key)), more);
        entries.extend(found);
        if !more {
            return entries;
        }
    }
}

/// All entries before `before`, newest first.
pub(crate) fn before(log: &Log, disk: &Disk, stream: StreamId, before: u64) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let last = entries.last().map_or(before, |last| last.key);
        let (found, more, _) = page(log, disk, Lookup::before(log, stream, last, 0, PAGE));
        entries.extend(found);
        if !more {
            return entries;
        }
    }
}

pub(crate) fn keys(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.key).collect()
}

/// The payload of the record at a place, as the disk has it.
pub(crate) fn payload(disk: &Disk, location: Location) -> Vec<u8> {
    let (base, offset) =
        (disk.geometry.segment_of(location.lsn()), disk.geometry.offset_of(location.lsn()) as usize);
    assert_eq!(disk.base_of(as_appended(base)), base, "a place of before");
    let bytes = &disk.segments[&as_appended(base)][offset..offset + location.bytes()];
    Log::verify(location, bytes).expect("a sound record").payload().to_vec()
}

/// (seq or position, payload) of a stream, as a reader sees it.
pub(crate) fn read(log: &Log, disk: &Disk, id: StreamId) -> Vec<(u64, Vec<u8>)> {
    after(log, disk, id, 0).iter().map(|entry| (entry.key, payload(disk, entry.location))).collect()
}
