//! A disk that is a map of segments, and a log on it.

#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeMap;
use std::convert::Infallible;

use storage_log::format::{BLOCK_BYTES_MIN, INDEX_FOOTER_BYTES, MARK_AFTER_MS, SEGMENT_HEADER_BYTES};
use storage_log::{
    AmendedSearch, Answer, BlockPlace, Blocks, Compacted, CompactionJob, Damage, Draft, Entry, Geometry,
    INDEX_BLOCK_BYTES, IndexFooter, IndexJob, Judge, Kinds, Link, Location, Log, LogConfig, LogFile,
    LogFiles, Lookup, Page, Progress, Recovered, Refusal, Retention, Rewritten, SealedSegment, SegmentHeader,
    SnapshotFooter, SpareWork, StreamId, StreamKind, Wanted, WriteBatch, as_appended, compact,
    compact_erasing, merge, read_back, read_index_tail,
};

pub(crate) const STORE: [u8; 16] = [7; 16];
pub(crate) const MESSAGES: StreamKind = StreamKind(1);
pub(crate) const STATE: StreamKind = StreamKind(2);
pub(crate) const INBOX: StreamKind = StreamKind(4);
pub(crate) const AMENDED: StreamKind = StreamKind(8);

/// The next number from a seed (Knuth's MMIX, its upper half).
pub(crate) fn roll(random: &mut u64) -> u64 {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *random >> 33
}

const KINDS: Kinds = Kinds {
    home: MESSAGES,
    last: [STATE, StreamKind(3)],
    alone: [StreamKind(6), StreamKind(9)],
    linked: [INBOX, StreamKind(5)],
    amended: AMENDED,
    content: 1,
};

/// Page of a size that hardly anything fits twice.
pub(crate) const PAGE: Page = Page { items_max: 7, bytes_max: 4096 };

pub(crate) fn config(geometry: Geometry) -> LogConfig {
    LogConfig {
        store: STORE,
        number: 0,
        geometry,
        tail_bytes_max: 1 << 20,
        kinds: KINDS,
        segment_ms_max: None,
    }
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
        self.indexes.insert(as_appended(job.base()), file);
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
            (footer.open(&tail).expect("it was written"), blocks)
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
    fn index(&self, base: u64) -> (IndexFooter, Vec<u8>, Blocks<'_, Infallible>) {
        let (file, base) = (&self.indexes[&base], self.base_of(base));
        let read = &mut |at: u64, into: &mut [u8]| {
            into.copy_from_slice(&file[at as usize..][..into.len()]);
            true
        };
        let index = read_index_tail(file.len() as u64, base, &config(self.geometry), read);
        let (footer, tail) = index.expect("it was written");
        let blocks =
            blocks_of(&file[footer.blocks_at() as usize..][..footer.blocks() as usize * INDEX_BLOCK_BYTES]);
        (footer, tail, blocks)
    }

    /// The base of a segment, with its generation.
    pub(crate) fn base_of(&self, base: u64) -> u64 {
        SegmentHeader::parse(&self.segments[&base]).expect("a sound header").base
    }

    /// Writes a sealed segment anew.
    pub(crate) fn compact(&mut self, base: u64, retention: Retention) -> SealedSegment {
        let mut file = Vec::new();
        let Ok(sealed) =
            compact(&config(self.geometry), self.base_of(base), retention, &mut &*self, &mut |bytes| {
                file.extend_from_slice(bytes);
                Ok(())
            });
        self.place(base, file);
        sealed.expect("all of it is sound")
    }

    /// Does what a log has asked for, without what `judge` does not keep.
    pub(crate) fn erase(&mut self, job: &CompactionJob, judge: &Judge<'_>) -> Compacted {
        let mut file = Vec::new();
        let Ok(written) = compact_erasing(job, judge, &mut &*self, &mut |bytes| {
            file.extend_from_slice(bytes);
            Ok(())
        });
        match written {
            Rewritten::Made(sealed) => {
                self.place(as_appended(job.base), file);
                Compacted::Made(sealed)
            }
            Rewritten::Clean => Compacted::Clean,
            Rewritten::Unsound => Compacted::Unsound,
        }
    }

    /// Puts a cold segment in place of what was there.
    fn place(&mut self, base: u64, file: Vec<u8>) {
        self.segments.insert(base, file.clone());
        self.indexes.insert(base, file);
    }

    /// Reads the log back, from the snapshot and index files as far as they are sound.
    pub(crate) fn recover(&self, epoch: u32) -> Result<Recovered, Damage> {
        self.recover_as(&config(self.geometry), epoch)
    }

    /// The same, with another configuration.
    pub(crate) fn recover_as(&self, config: &LogConfig, epoch: u32) -> Result<Recovered, Damage> {
        let bases: Vec<u64> = self.segments.keys().copied().collect();
        read_back(config, epoch, &bases, &mut &*self).map_err(|refusal| match refusal {
            Refusal::Damaged(damage) => damage,
            Refusal::Disk(never) => match never {},
        })
    }

    fn file(&self, file: LogFile) -> Option<&[u8]> {
        let file = match file {
            LogFile::Index(base) => self.indexes.get(&base),
            LogFile::Segment(base) => self.segments.get(&base),
            LogFile::Snapshot => self.snapshot.as_ref(),
        };
        file.map(Vec::as_slice)
    }
}

impl LogFiles for &Disk {
    type Error = Infallible;

    fn bytes(&mut self, file: LogFile) -> Result<Option<u64>, Infallible> {
        let whole = matches!(file, LogFile::Segment(_)).then_some(self.geometry.segment_bytes);
        Ok(self.file(file).map(|file| whole.unwrap_or(file.len() as u64)))
    }

    fn read(&mut self, file: LogFile, offset: u64, into: &mut [u8]) -> Result<usize, Infallible> {
        let there = self.file(file).and_then(|file| file.get(offset as usize..)).unwrap_or(&[]);
        let read = there.len().min(into.len());
        into[..read].copy_from_slice(&there[..read]);
        Ok(read)
    }

    /// The log asks for it again.
    fn write_index(&mut self, _job: &IndexJob) -> Option<SealedSegment> {
        None
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
                log.handle_spare(Ok(()));
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
    put_linked(log, home, payload, &linked(links))
}

pub(crate) fn put_linked(log: &mut Log, home: StreamId, payload: &[u8], links: &[Link]) -> Answer {
    let expected_head = log.head(home).seq;
    log.append(&[Draft { stream: home, expected_head, messages: 1, schema: 1, payload, links }], 1_000)
}

/// Plain links into streams.
pub(crate) fn linked(streams: &[StreamId]) -> Vec<Link> {
    streams.iter().copied().map(Link::from).collect()
}

/// The link that makes the record after `head` an amendment of `target`.
pub(crate) fn amending(home: StreamId, head: u64, target: u64) -> Link {
    let note = u32::try_from(head + 1 - target).expect("not so far");
    Link { stream: StreamId { kind: AMENDED, ..home }, note }
}

/// Sequences and positions of the newest amendments of some records, and how many blocks had to be read for it.
pub(crate) fn amendments(
    log: &Log,
    disk: &Disk,
    home: StreamId,
    wanted: Vec<Wanted>,
) -> (Vec<(u64, Entry)>, usize) {
    let Some(mut search) = AmendedSearch::new(log, home, wanted) else {
        return (Vec::new(), 0);
    };
    let mut reads = 0;
    loop {
        match search.poll(log) {
            Progress::Done => return (search.found().collect(), reads),
            Progress::Read(place) => {
                search.feed(place, block(disk, place).expect("a whole file"));
                reads += 1;
            }
            Progress::Damaged(place) => panic!("{place:?} is damaged"),
        }
    }
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
