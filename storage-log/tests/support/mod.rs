//! A disk that is a map of segments, and a log on it.

#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeMap;

use storage_log::format::{
    BLOCK_BYTES_MIN, FEED_BYTES, INDEX_FOOTER_BYTES, MARK_AFTER_MS, SEGMENT_HEADER_BYTES,
};
use storage_log::{
    Answer, Damage, Draft, Entry, Geometry, INDEX_BLOCK_BYTES, IndexFooter, IndexJob, Kinds, Location, Log,
    LogConfig, Lookup, Page, Progress, Recovered, Scan, SealedSegment, SegmentHeader, SpareWork, StreamId,
    StreamKind, WriteBatch,
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
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self::of_blocks(BLOCK_BYTES_MIN)
    }

    pub(crate) fn of_blocks(block_bytes: usize) -> Self {
        Self::of(Geometry::of_blocks(block_bytes))
    }

    pub(crate) fn of(geometry: Geometry) -> Self {
        let mut disk = Self { geometry, segments: BTreeMap::new(), indexes: BTreeMap::new() };
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
            Ok::<(), std::convert::Infallible>(())
        });
        self.indexes.insert(job.base(), file);
        sealed
    }

    /// Reads the log back, from index files as far as they are sound.
    pub(crate) fn recover(&self, epoch: u32) -> Result<Recovered, Damage> {
        let mut usable = self.indexes.len();
        loop {
            let (scan, entered) = self.scan(epoch, usable)?;
            if entered == usable {
                return scan.finish();
            }
            usable = entered;
        }
    }

    /// Index files that could be entered, of `usable`, and the scan behind them.
    fn scan(&self, epoch: u32, usable: usize) -> Result<(Scan, usize), Damage> {
        let mut scan = Scan::new(config(self.geometry), epoch);
        for (number, (base, bytes)) in self.segments.iter().enumerate() {
            scan.open_segment(*base, bytes)?;
            if number < usable {
                let entered = self.indexes.get(base).and_then(|file| self.enter(&mut scan, *base, file));
                if entered.is_none() {
                    return Ok((scan, number));
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
        Ok((scan, usable))
    }

    fn enter(&self, scan: &mut Scan, base: u64, file: &[u8]) -> Option<()> {
        let at = file.len().checked_sub(INDEX_FOOTER_BYTES)?;
        let footer = IndexFooter::parse(&file[at..], base, &config(self.geometry))?;
        let tail = file.get(at.checked_sub(footer.tail_bytes())?..at)?;
        scan.enter_index(&footer, tail).then_some(())?;
        for (number, block) in (0..footer.blocks()).zip(file.chunks(INDEX_BLOCK_BYTES)) {
            scan.enter_index_block(number, block).then_some(())?;
        }
        Some(())
    }
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

/// One page, and how many blocks had to be read for it.
pub(crate) fn page(log: &Log, disk: &Disk, mut lookup: Lookup) -> (Vec<Entry>, bool, usize) {
    let mut reads = 0;
    loop {
        match lookup.poll(log) {
            Progress::Done => return (lookup.entries().to_vec(), lookup.has_more(), reads),
            Progress::Read(place) => {
                let file = &disk.indexes[&place.base];
                lookup.feed(place, file[place.offset() as usize..][..INDEX_BLOCK_BYTES].to_vec());
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
    let bytes = &disk.segments[&base][offset..offset + location.bytes()];
    Log::verify(location, bytes).expect("a sound record").payload().to_vec()
}

/// (seq or position, payload) of a stream, as a reader sees it.
pub(crate) fn read(log: &Log, disk: &Disk, id: StreamId) -> Vec<(u64, Vec<u8>)> {
    after(log, disk, id, 0).iter().map(|entry| (entry.key, payload(disk, entry.location))).collect()
}
