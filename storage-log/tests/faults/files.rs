//! The files of one log on that disk, made, opened and read in the order in which the node does it: under another name, synced,
//! renamed, and the directory synced.

use std::collections::BTreeSet;

use storage_log::format::{INDEX_FOOTER_BYTES, SEGMENT_HEADER_BYTES, index_at};
use storage_log::{
    BlockPlace, Blocks, CompactionJob, Geometry, INDEX_BLOCK_BYTES, IndexJob, Location, LogConfig, LogFile,
    LogFiles, Recovered, Refusal, SealedSegment, SegmentHeader, SnapshotFooter, as_appended, compact,
    index_file_name, is_cold, merge, read_back, read_index_tail, segment_file_name, segment_of_file_name,
};

use super::disk::{Disk, Failed};
use super::support::{STORE, config};

pub(crate) const SNAPSHOT: &str = "index.snap";

pub(crate) fn cold_file_name(base: u64) -> String {
    segment_file_name(as_appended(base)).replace(".log", ".cold")
}

/// What the log on a disk is opened with.
pub(crate) fn config_of(disk: &Disk, geometry: Geometry) -> LogConfig {
    LogConfig { number: disk.log, ..config(geometry) }
}

/// Makes a file under its name, all of it or nothing.
fn make(disk: &mut Disk, name: &str, reserved: u64, bytes: &[u8]) -> Result<(), Failed> {
    make_renamed(disk, name, reserved, bytes)?;
    disk.sync_directory()
}

/// The same, but that its name is not durable yet.
fn make_renamed(disk: &mut Disk, name: &str, reserved: u64, bytes: &[u8]) -> Result<(), Failed> {
    let new = format!("{name}.new");
    let made = (|| {
        let file = disk.create(&new)?;
        if reserved > 0 {
            disk.allocate(file, reserved as usize)?;
        }
        disk.write(file, 0, bytes)?;
        disk.sync(file)?;
        disk.rename(&new, name)
    })();
    if made.is_err() && disk.file(&new).is_some() {
        // As well as it can be done.
        let _ = disk.remove(&new);
    }
    made
}

pub(crate) fn make_segment(disk: &mut Disk, geometry: Geometry, base: u64) -> Result<(), Failed> {
    let Geometry { block_bytes, segment_bytes, .. } = geometry;
    let header = SegmentHeader { store: STORE, log: disk.log, base, block_bytes, segment_bytes };
    make(disk, &segment_file_name(base), segment_bytes, &header.encode())
}

/// Writes zeros over a segment that took no batch yet.
pub(crate) fn zero_segment(disk: &mut Disk, geometry: Geometry, base: u64) -> Result<(), Failed> {
    let file = disk.file(&segment_file_name(base)).expect("it was made");
    let zeros = vec![0; geometry.segment_bytes as usize - SEGMENT_HEADER_BYTES];
    disk.write(file, SEGMENT_HEADER_BYTES as u64, &zeros)?;
    disk.sync(file)
}

pub(crate) fn make_index(disk: &mut Disk, job: &IndexJob) -> Result<SealedSegment, Failed> {
    let mut bytes = Vec::new();
    let sealed = job.write(|piece| {
        bytes.extend_from_slice(piece);
        Ok::<(), Failed>(())
    })?;
    make(disk, &index_file_name(job.base()), 0, &bytes)?;
    Ok(sealed)
}

/// Writes a segment anew; `None` when it is damaged.
pub(crate) fn make_cold(disk: &mut Disk, job: &CompactionJob) -> Result<Option<SealedSegment>, Failed> {
    let mut bytes = Vec::new();
    let mut files = Files { disk: &mut *disk, geometry: job.config.geometry };
    let made = compact(&job.config, job.base, job.retention, &mut files, &mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    let Some(sealed) = made else {
        return Ok(None);
    };
    make_renamed(disk, &cold_file_name(job.base), 0, &bytes)?;
    // What it was made from goes only behind the sync of its name, and if not here, at the next start.
    if disk.sync_directory().is_ok() {
        for name in [segment_file_name(as_appended(job.base)), index_file_name(job.base)] {
            if disk.file(&name).is_some() {
                let _ = disk.remove(&name);
            }
        }
    }
    Ok(Some(sealed))
}

/// Makes a snapshot of the index files that there are. Whether there was anything to do.
pub(crate) fn make_snapshot(disk: &mut Disk, geometry: Geometry) -> Result<bool, Failed> {
    let config = config_of(disk, geometry);
    let before = disk.bytes(SNAPSHOT).map(<[u8]>::to_vec).and_then(|file| {
        let at = file.len().checked_sub(INDEX_FOOTER_BYTES)?;
        let footer = SnapshotFooter::parse(&file[at..], &config)?;
        (footer.blocks as usize * INDEX_BLOCK_BYTES == at)
            .then(|| (footer, blocks_of(file, 0, footer.blocks)))
    });
    let covered = before.as_ref().map_or(0, |(footer, _)| u64::from(footer.segments));
    let (mut sealed, files) = (Vec::new(), Files { disk: &mut *disk, geometry });
    for base in (covered..).map(|number| number * geometry.segment_bytes) {
        let Some(name) = files.index_name(base) else {
            break;
        };
        let (file, in_log) = (files.disk.bytes(&name).expect("it is named").to_vec(), files.in_log(base));
        let read = &mut |at: u64, into: &mut [u8]| {
            into.copy_from_slice(&file[at as usize..][..into.len()]);
            true
        };
        let Some((footer, tail)) = read_index_tail(file.len() as u64, in_log, &config, read) else {
            break;
        };
        let blocks = blocks_of(file, footer.blocks_at() as usize, footer.blocks());
        sealed.push((footer.open(&tail).expect("the tail is sound"), blocks));
    }
    if sealed.is_empty() {
        return Ok(false);
    }
    let mut bytes = Vec::new();
    let merged = merge(&config, before, sealed, |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    if merged.is_none() {
        return Ok(false);
    }
    make(disk, SNAPSHOT, 0, &bytes)?;
    Ok(true)
}

fn blocks_of(file: Vec<u8>, at: usize, count: u32) -> Blocks<'static, Failed> {
    let mut numbers = 0..count as usize;
    Box::new(move || {
        let block = numbers.next().map(|number| at + number * INDEX_BLOCK_BYTES);
        Ok(block.and_then(|start| file.get(start..start + INDEX_BLOCK_BYTES)).map(<[u8]>::to_vec))
    })
}

/// Opens the log: of a segment that was written anew the cold one counts, and everything is synced before it is read.
fn open(disk: &mut Disk, geometry: Geometry) -> Result<Vec<u64>, Failed> {
    let (mut bases, names): (BTreeSet<u64>, Vec<String>) =
        (BTreeSet::new(), disk.names().map(str::to_owned).collect());
    for name in &names {
        bases.extend(segment_of_file_name(&name.replace(".cold", ".log")));
    }
    // A name that was read need not be durable: what it stands for goes only behind its sync.
    disk.sync_directory()?;
    for base in &bases {
        let name = segment_file_name(*base);
        let files = Files { disk, geometry };
        if is_cold(files.in_log(*base)) && files.disk.file(&name).is_some() {
            // An index file that was written beside the cold segment since stays.
            let index = index_file_name(*base);
            if files.index_name(*base).as_ref() != Some(&index) && disk.file(&index).is_some() {
                disk.remove(&index)?;
            }
            disk.remove(&name)?;
        }
    }
    for base in &bases {
        let name = Files { disk, geometry }.segment_name(*base);
        disk.sync(disk.file(&name).expect("it was read"))?;
    }
    disk.sync_directory()?;
    Ok(bases.into_iter().collect())
}

/// Reads the log back as a start does, and writes the index files that are missing.
pub(crate) fn recover(disk: &mut Disk, geometry: Geometry, epoch: u32) -> Result<Recovered, Refusal<Failed>> {
    let bases = open(disk, geometry).map_err(Refusal::Disk)?;
    let config = config_of(disk, geometry);
    read_back(&config, epoch, &bases, &mut Files { disk, geometry })
}

/// The files of the log as they are read.
pub(crate) struct Files<'d> {
    pub(crate) disk: &'d mut Disk,
    pub(crate) geometry: Geometry,
}

impl Files<'_> {
    /// The base of a segment with its generation; without, when it has none or is damaged.
    pub(crate) fn in_log(&self, base: u64) -> u64 {
        let header = self.disk.bytes(&cold_file_name(base)).and_then(|file| file.get(..SEGMENT_HEADER_BYTES));
        let header = header.and_then(|header| SegmentHeader::parse(header).ok());
        header.filter(|header| is_cold(header.base)).map_or(base, |header| header.base)
    }

    /// The file of a segment that counts.
    pub(crate) fn segment_name(&self, base: u64) -> String {
        let appended = segment_file_name(base);
        let is_cold = is_cold(self.in_log(base)) || self.disk.file(&appended).is_none();
        if is_cold { cold_file_name(base) } else { appended }
    }

    /// The file that holds the index of a segment, sound or not: a cold one has its own, unless another was written beside it.
    pub(crate) fn index_name(&self, base: u64) -> Option<String> {
        let (in_log, beside) = (self.in_log(base), index_file_name(base));
        let file = self.disk.bytes(&beside);
        let footer = file.and_then(|file| file.get(file.len().checked_sub(INDEX_FOOTER_BYTES)?..));
        let is_of = footer.is_some_and(|footer| footer[index_at::BASE] == in_log.to_le_bytes());
        match is_cold(in_log) {
            true => Some(if is_of { beside } else { cold_file_name(base) }),
            false => file.map(|_| beside),
        }
    }

    fn name(&self, file: LogFile) -> Option<String> {
        match file {
            LogFile::Index(base) => self.index_name(base),
            LogFile::Segment(base) => Some(self.segment_name(base)),
            LogFile::Snapshot => Some(SNAPSHOT.to_owned()),
        }
    }

    /// A block of an index, as far as the file has it.
    pub(crate) fn block(&mut self, place: BlockPlace) -> Vec<u8> {
        let mut block = vec![0; INDEX_BLOCK_BYTES];
        let name = self.index_name(as_appended(place.base)).expect("a sealed segment has an index");
        let read = self.disk.read(&name, place.offset(), &mut block);
        block.truncate(read);
        block
    }

    /// The bytes at a place, whatever stands there.
    pub(crate) fn record(&mut self, location: Location) -> Vec<u8> {
        let (base, offset) =
            (self.geometry.segment_of(location.lsn()), self.geometry.offset_of(location.lsn()));
        let name = if is_cold(base) { cold_file_name(base) } else { segment_file_name(base) };
        let mut bytes = vec![0; location.bytes()];
        let read = self.disk.read(&name, offset, &mut bytes);
        bytes.truncate(read);
        bytes
    }
}

impl LogFiles for Files<'_> {
    type Error = Failed;

    fn bytes(&mut self, file: LogFile) -> Result<Option<u64>, Failed> {
        let name = self.name(file);
        Ok(name.and_then(|name| self.disk.bytes(&name)).map(|file| file.len() as u64))
    }

    fn read(&mut self, file: LogFile, offset: u64, into: &mut [u8]) -> Result<usize, Failed> {
        let name = self.name(file).ok_or(Failed)?;
        Ok(self.disk.read(&name, offset, into))
    }

    fn write_index(&mut self, job: &IndexJob) -> Option<SealedSegment> {
        make_index(self.disk, job).ok()
    }
}
