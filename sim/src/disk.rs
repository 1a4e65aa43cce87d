//! The disk: what is durable, and what is being written. A crash keeps any subset of the sectors under way.

use std::collections::BTreeMap;
use std::convert::Infallible;

use router::conversation::{Erased, Recent};
use storage_log::format::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, SEGMENT_HEADER_BYTES};
use storage_log::{
    BlockPlace, Compacted, CompactionJob, Damage, Geometry, INDEX_BLOCK_BYTES, IndexJob, Location, LogConfig,
    LogFile, LogFiles, RebuildJob, Record, Recovered, Refusal, Rewritten, SealedSegment, SegmentHeader,
    WriteBatch, as_appended, compact_erasing, is_worth_writing, read_back,
};

use crate::Rng;

const SECTOR_BYTES: usize = 512;

/// Batches of some runs: the largest group of a simulated command is a few KiB.
const SMALL_BATCH_BYTES: usize = 16 << 10;

/// Of the fingerprints of ids.
const SEED: u64 = 7;

/// The segments of all logs, and at most one batch under way in each.
pub(crate) struct Disk {
    store: [u8; 16],
    geometry: Geometry,
    segments: BTreeMap<(u16, u64), Vec<u8>>,
    /// Index files of sealed segments; of a cold one the segment itself.
    indexes: BTreeMap<(u16, u64), Vec<u8>>,
    /// Segments as they were before they were written anew, with their index files, while somebody reads them.
    moved: BTreeMap<(u16, u64), (Vec<u8>, Vec<u8>)>,
    under_way: BTreeMap<u16, WriteBatch>,
}

impl Disk {
    pub(crate) fn new(store: [u8; 16], logs: u16, geometry: Geometry) -> Self {
        let mut disk = Self {
            store,
            geometry,
            segments: BTreeMap::new(),
            indexes: BTreeMap::new(),
            moved: BTreeMap::new(),
            under_way: BTreeMap::new(),
        };
        (0..logs).for_each(|log| disk.create(log, 0));
        disk
    }

    pub(crate) fn create(&mut self, log: u16, base: u64) {
        let Geometry { block_bytes, segment_bytes, .. } = self.geometry;
        let header = SegmentHeader { store: self.store, log, base, block_bytes, segment_bytes };
        self.segments.entry((log, base)).or_insert_with(|| header.encode().to_vec());
    }

    /// Only the header is left: what was never written reads as zeros.
    pub(crate) fn zero(&mut self, log: u16, base: u64) {
        self.segments.get_mut(&(log, base)).expect("the segment was prepared").truncate(SEGMENT_HEADER_BYTES);
    }

    pub(crate) fn begin_write(&mut self, log: u16, batch: WriteBatch) {
        let earlier = self.under_way.insert(log, batch);
        assert!(earlier.is_none(), "one batch in flight");
    }

    /// The batch under way is durable now.
    pub(crate) fn end_write(&mut self, log: u16) -> WriteBatch {
        let batch = self.under_way.remove(&log).expect("a write is under way");
        self.apply(log, &batch, |_| true);
        batch
    }

    /// A write or its sync failed: any sectors of it may be there, and whoever wrote it is told so.
    pub(crate) fn fail_write(&mut self, log: u16, rng: &mut Rng) -> WriteBatch {
        let batch = self.under_way.remove(&log).expect("a write is under way");
        self.tear(log, &batch, rng);
        batch
    }

    /// How the logs are cut.
    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Nothing is under way.
    pub(crate) fn assert_quiet(&self) {
        assert!(self.under_way.is_empty(), "a drained node leaves nothing to the disk");
    }

    /// Writes at once: what start-up does before anybody is served.
    pub(crate) fn write_now(&mut self, log: u16, batch: &WriteBatch) {
        self.apply(log, batch, |_| true);
    }

    fn apply(&mut self, log: u16, batch: &WriteBatch, mut keeps: impl FnMut(usize) -> bool) {
        let segment = self.segments.get_mut(&(log, batch.segment)).expect("the segment was prepared");
        let (start, bytes) = (batch.offset as usize, batch.buffer.bytes());
        segment.resize(segment.len().max(start + bytes.len()), 0);
        for (place, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
            if keeps(place) {
                let at = start + place * SECTOR_BYTES;
                segment[at..at + sector.len()].copy_from_slice(sector);
            }
        }
    }

    /// Power fails: of each batch under way, all, none, or any of the sectors are there.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        self.moved.clear();
        for (log, batch) in std::mem::take(&mut self.under_way) {
            self.tear(log, &batch, rng);
        }
        if rng.one_in(4) && !self.indexes.is_empty() {
            let place = rng.below(self.indexes.len() as u64) as usize;
            let (log, base) = *self.indexes.keys().nth(place).expect("counted");
            self.rot_index(log, base, rng);
        }
    }

    /// An index file is lost, or no longer what was written.
    pub(crate) fn rot_index(&mut self, log: u16, base: u64, rng: &mut Rng) {
        if rng.one_in(2) {
            self.indexes.remove(&(log, base));
        } else if let Some(file) = self.indexes.get_mut(&(log, base)) {
            let at = rng.below(file.len() as u64) as usize;
            file[at] ^= 1 << rng.below(8);
        }
    }

    pub(crate) fn write_index(&mut self, log: u16, job: &IndexJob) -> SealedSegment {
        let mut file = Vec::new();
        let Ok(sealed) = job.write(|bytes| {
            file.extend_from_slice(bytes);
            Ok::<(), Infallible>(())
        });
        self.indexes.insert((log, as_appended(job.base())), file);
        sealed
    }

    /// Writes a segment anew, without what is erased.
    pub(crate) fn compact(&mut self, log: u16, job: &CompactionJob, erased: &Erased) -> Compacted {
        let mut file = Vec::new();
        let judge = |record: &Record<'_>| erased.verdict(record.position(), record.portable());
        let mut files = Files { disk: self, log, now: 0, recent: Recent::new(SEED), observe: &mut |_| {} };
        let Ok(is_worth) = is_worth_writing(job, erased.fronts(), &mut files);
        if !is_worth {
            return Compacted::Clean;
        }
        let Ok(written) = compact_erasing(job, &judge, &mut files, &mut |bytes| {
            file.extend_from_slice(bytes);
            Ok(())
        });
        let sealed = match written {
            Rewritten::Clean => return Compacted::Clean,
            Rewritten::Made(sealed) => sealed,
            Rewritten::Unsound => return Compacted::Unsound,
        };
        let base = (log, as_appended(job.base));
        let segment = self.segments.insert(base, file.clone()).expect("it was read");
        let index = self.indexes.insert(base, file).expect("it was read");
        self.moved.insert((log, job.base), (segment, index));
        Compacted::Made(sealed)
    }

    /// Nobody reads a segment any more as it was.
    pub(crate) fn release(&mut self, log: u16, base: u64) {
        assert!(self.moved.remove(&(log, base)).is_some(), "it has moved");
    }

    /// Segment and index file of the segment at `base`, of that generation.
    fn file_of(&self, log: u16, base: u64) -> (Option<&Vec<u8>>, Option<&Vec<u8>>) {
        if let Some((segment, index)) = self.moved.get(&(log, base)) {
            return (Some(segment), Some(index));
        }
        let place = (log, as_appended(base));
        let segment = self.segments.get(&place);
        let is_there = segment.and_then(|segment| SegmentHeader::parse(segment).ok());
        assert_eq!(is_there.map(|header| header.base), Some(base), "read where it is not any more");
        (segment, self.indexes.get(&place))
    }

    /// Makes an index file again from its segment; `None` when that was written anew meanwhile.
    pub(crate) fn rebuild_index(&mut self, job: &RebuildJob) -> Option<SealedSegment> {
        let (log, recent) = (job.config().number, Recent::new(SEED));
        let mut files = Files { disk: self, log, now: 0, recent, observe: &mut |_| {} };
        let Ok(rebuilt) = job.run(&mut files);
        let rebuilt = rebuilt?;
        assert!(rebuilt.damaged.is_empty(), "only index files rot here");
        Some(self.write_index(log, &rebuilt.index))
    }

    pub(crate) fn read_index(&self, log: u16, block: BlockPlace) -> Option<Vec<u8>> {
        let (file, start) = (self.file_of(log, block.base).1?, block.offset() as usize);
        file.get(start..start + INDEX_BLOCK_BYTES).map(<[u8]>::to_vec)
    }

    fn tear(&mut self, log: u16, batch: &WriteBatch, rng: &mut Rng) {
        match rng.below(4) {
            0 => {}
            1 => self.apply(log, batch, |_| true),
            2 => {
                let until = rng.below(batch.buffer.bytes().len() as u64 / SECTOR_BYTES as u64 + 1) as usize;
                self.apply(log, batch, |place| place < until);
            }
            _ => self.apply(log, batch, |_| rng.one_in(2)),
        }
    }

    pub(crate) fn read(&self, log: u16, location: Location) -> Option<Vec<u8>> {
        let base = self.geometry.segment_of(location.lsn());
        let start = (location.lsn() - base) as usize;
        let segment = self.file_of(log, base).0?;
        segment.get(start..start + location.bytes()).map(<[u8]>::to_vec)
    }

    /// Reads a log back as the node does at start, and the ids in it that may come again at `now`. Shows `observe` what is read.
    pub(crate) fn recover(
        &self,
        config: &LogConfig,
        epoch: u32,
        now: u64,
        observe: &mut dyn FnMut(&Record<'_>),
    ) -> Result<(Recovered, Recent), Damage> {
        let log = config.number;
        let segments = self.segments.range((log, 0)..=(log, u64::MAX));
        let bases: Vec<u64> = segments.map(|((_, base), _)| *base).collect();
        let mut files = Files { disk: self, log, now, recent: Recent::new(SEED), observe };
        match read_back(config, epoch, &bases, &mut files) {
            Ok(recovered) => Ok((recovered, files.recent)),
            Err(Refusal::Damaged(damage)) => Err(damage),
            Err(Refusal::Disk(never)) => match never {},
        }
    }

    /// The same disk, as it is read when nothing is believed that is derived from the logs.
    pub(crate) fn without_indexes(&self) -> Self {
        let (segments, mut indexes) = (self.segments.clone(), self.indexes.clone());
        // That of a cold segment stands in it.
        indexes.retain(|place, index| segments.get(place) == Some(index));
        let (moved, under_way) = (BTreeMap::new(), BTreeMap::new());
        Self { store: self.store, geometry: self.geometry, segments, indexes, moved, under_way }
    }
}

/// The files of one log.
struct Files<'f> {
    disk: &'f Disk,
    log: u16,
    now: u64,
    recent: Recent,
    observe: &'f mut dyn FnMut(&Record<'_>),
}

impl Files<'_> {
    fn file(&self, file: LogFile) -> Option<&Vec<u8>> {
        match file {
            LogFile::Index(base) => self.disk.indexes.get(&(self.log, base)),
            LogFile::Segment(base) => self.disk.segments.get(&(self.log, base)),
            LogFile::Snapshot => None,
        }
    }
}

impl LogFiles for Files<'_> {
    type Error = Infallible;

    fn bytes(&mut self, file: LogFile) -> Result<Option<u64>, Infallible> {
        let whole = matches!(file, LogFile::Segment(_)).then_some(self.disk.geometry.segment_bytes);
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

    fn begin(&mut self) {
        self.recent = Recent::new(SEED);
    }

    fn show(&mut self, record: &Record<'_>) {
        self.recent.observe(record);
        (self.observe)(record);
    }

    fn wants(&mut self, clock: u64) -> bool {
        self.recent.wants(clock, self.now)
    }

    fn skip(&mut self, clock: u64) {
        self.recent.forget_until(clock);
    }
}

/// Most logs are cut so small that they go from segment to segment.
pub(crate) fn geometry(rng: &mut Rng) -> Geometry {
    let block_bytes = *rng.pick(&[BLOCK_BYTES_MIN, BLOCK_BYTES_MIN, BLOCK_BYTES_MAX]);
    let large = Geometry::of_blocks(block_bytes);
    let small = |segment_bytes| Geometry { segment_bytes, batch_bytes_max: SMALL_BATCH_BYTES, block_bytes };
    *rng.pick(&[large, small(32 << 10), small(64 << 10), small(256 << 10)])
}
