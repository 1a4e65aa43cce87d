//! Reading a log back at start: sealed segments from the snapshot and their index files, the rest batch by batch.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use ring::FileBuffer;
use router::conversation::Recent;
use rustix::fs::{SeekFrom, seek};
use storage_log::format::{BLOCK_BYTES_MAX, FEED_BYTES, SEGMENT_HEADER_BYTES};
use storage_log::{Damage, DamageKind, Glance, IndexFooter, LogConfig, Recovered, Scan, index_file_name};

use crate::indexes;
use crate::segments::SegmentFile;
use crate::snapshots;
use crate::store::LogRefusal;

/// What is particular to one start.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Marks what this process will write.
    pub epoch: u32,
    /// Of the fingerprints of ids: random and secret.
    pub seed: u64,
    /// Milliseconds since 1970.
    pub now: u64,
}

/// Reads a log back, and the ids that were stored in what had to be read. Writes the index files that are missing.
///
/// # Errors
/// [`LogRefusal`]: it is damaged or cannot be read.
pub fn scan(
    config: &LogConfig,
    start: Start,
    directory: &Path,
    segments: &mut [(u64, SegmentFile)],
) -> Result<(Recovered, Recent), LogRefusal> {
    let indexed = segments.iter().take_while(|(_, file)| file.index.is_some()).count();
    let mut derived = Derived { snapshot: true, indexes: indexed };
    loop {
        match scan_behind(config, start, directory, segments, derived) {
            Ok(Ok(recovered)) => return Ok(recovered),
            Ok(Err(sound)) => derived = sound,
            // It may be an index that is sound and of another time: what counts is the log.
            Err(LogRefusal::Damaged(_)) if derived.indexes > 0 => {
                derived = Derived { snapshot: false, indexes: 0 };
            }
            Err(refusal) => return Err(refusal),
        }
    }
}

/// What is believed of what was derived from the log.
#[derive(Clone, Copy)]
struct Derived {
    snapshot: bool,
    /// Index files, from the first on.
    indexes: usize,
}

/// As above, with what is said to be sound. If some of it is not, says what is left instead.
fn scan_behind(
    config: &LogConfig,
    start: Start,
    directory: &Path,
    segments: &mut [(u64, SegmentFile)],
    derived: Derived,
) -> Result<Result<(Recovered, Recent), Derived>, LogRefusal> {
    let (mut scan, mut recent) = (Scan::new(config.clone(), start.epoch), Recent::new(start.seed));
    let mut buffer = FileBuffer::aligned(FEED_BYTES, BLOCK_BYTES_MAX);
    let mut covered = 0;
    if derived.snapshot {
        let entered = snapshots::enter(&mut scan, directory, config, derived.indexes);
        let Some(segments) = entered.map_err(LogRefusal::Io)? else {
            tracing::warn!(
                log = config.number,
                "the snapshot of the index is damaged: it is made anew in time"
            );
            return Ok(Err(Derived { snapshot: false, ..derived }));
        };
        covered = segments;
    }
    for number in 0..segments.len() {
        let (base, segment) = &segments[number];
        open(&mut scan, *base, segment.active(), &mut buffer, config)?;
        if let Some(index) = segment.index.as_ref().filter(|_| number < derived.indexes) {
            let Some(footer) = indexes::enter(&mut scan, index, *base, config, number >= covered) else {
                let index = index_file_name(*base);
                tracing::warn!(
                    log = config.number,
                    index,
                    "an index file is damaged: it is made anew from the log"
                );
                return Ok(Err(Derived { snapshot: false, indexes: number }));
            };
            let shown = recent.wants(footer.clock(), start.now)
                && show(&footer, *base, segment.active(), &mut buffer, config, &mut recent);
            if !shown {
                recent.forget_until(footer.clock());
            }
            continue;
        }
        feed(&mut scan, segment.active(), &mut buffer, config, &mut recent)?;
        write_indexes(&mut scan, directory, segments, config.number);
    }
    Ok(Ok((scan.finish().map_err(LogRefusal::Damaged)?, recent)))
}

fn open(
    scan: &mut Scan,
    base: u64,
    file: &File,
    buffer: &mut FileBuffer,
    config: &LogConfig,
) -> Result<(), LogRefusal> {
    let header = &mut buffer.bytes_mut()[..SEGMENT_HEADER_BYTES];
    let read = read_up_to(file, header, 0).map_err(LogRefusal::Io)?;
    scan.open_segment(base, &header[..read]).map_err(LogRefusal::Damaged)?;
    let length = file.metadata().map_err(LogRefusal::Io)?.len();
    if length < config.geometry.segment_bytes {
        let damage = Damage { segment: base, offset: length, kind: DamageKind::Missing };
        return Err(LogRefusal::Damaged(damage));
    }
    Ok(())
}

/// Shows the records of a sealed segment, whose ids may come again. `false` when it cannot be read whole.
fn show(
    footer: &IndexFooter,
    base: u64,
    file: &File,
    buffer: &mut FileBuffer,
    config: &LogConfig,
    recent: &mut Recent,
) -> bool {
    let mut glance = Glance::new(config.geometry, base, footer.end_lsn());
    while let Some(offset) = glance.offset() {
        let read = read_up_to(file, buffer.bytes_mut(), offset);
        let shown =
            read.is_ok_and(|read| glance.feed(&buffer.bytes()[..read], &mut |record| recent.observe(record)));
        if !shown {
            return false;
        }
    }
    true
}

/// Reads a segment past the page cache, where that can be had: what counts is what the disk has.
fn feed(
    scan: &mut Scan,
    file: &File,
    buffer: &mut FileBuffer,
    config: &LogConfig,
    recent: &mut Recent,
) -> Result<(), LogRefusal> {
    loop {
        let offset = scan.offset();
        let read = read_up_to(file, buffer.bytes_mut(), offset).map_err(LogRefusal::Io)?;
        let end = offset + read as u64;
        let to_end = end >= config.geometry.segment_bytes || is_blank_from(file, end);
        let fed = scan.feed(&buffer.bytes()[..read], to_end, &mut |record| recent.observe(record));
        if fed.map_err(LogRefusal::Damaged)?.ended {
            return Ok(());
        }
    }
}

/// Writes the index files of segments that were read to their end. One that cannot be written is tried again by the node.
fn write_indexes(scan: &mut Scan, directory: &Path, segments: &mut [(u64, SegmentFile)], log: u16) {
    while let Some(job) = scan.poll_index() {
        match indexes::write(directory, &job) {
            Ok((sealed, file)) => {
                scan.handle_indexed(Some(sealed));
                let segment = segments.iter_mut().find(|(base, _)| *base == job.base());
                segment.expect("it was just read").1.index = Some(file);
            }
            Err(error) => {
                tracing::warn!(log, index = index_file_name(job.base()), %error, "an index file could not be written");
                return scan.handle_indexed(None);
            }
        }
    }
}

/// Whether nothing was ever written from `offset` on: what is only reserved need not be read to be known as zeros.
fn is_blank_from(file: &File, offset: u64) -> bool {
    seek(file, SeekFrom::Data(offset)) == Err(rustix::io::Errno::NXIO)
}

fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(bytes) => read += bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
