//! The files of a log as they are read back at start, and the ids that were stored in what had to be read.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use router::conversation::{Recent, Unjudged};
use storage_log::{
    IndexJob, LogConfig, LogFile, LogFiles, Record, Recovered, SealedSegment, as_appended, index_file_name,
    is_cold, read_back, segment_file_name,
};

use super::disk::{is_blank_from, read_up_to};
use super::segments::SegmentFile;
use super::{indexes, snapshots};

/// Why a log is not served. The others are.
pub type LogRefusal = storage_log::Refusal<io::Error>;

/// What is particular to one start.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Marks what this process will write.
    pub epoch: u32,
    /// Of the fingerprints of ids: random and secret.
    pub seed: u64,
    /// Milliseconds since 1970.
    pub now: u64,
    /// Up to which position users were called; `None`: nobody is of what stands there.
    pub push_mark: Option<u64>,
}

/// How a log is read back.
#[derive(Clone)]
pub enum Reading {
    /// It is this process's: index files that are missing are written.
    Alone,
    /// Another process has it still: nothing is written, and no more is read ahead than does not change.
    Beside(Arc<ReadAhead>),
}

/// How far a log may be read while another process writes it: up to what was durable when this was made, until that process writes no
/// more. Whoever reads further waits.
pub struct ReadAhead {
    end: u64,
    /// Somebody waits, or has read all; the other process writes no more.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl ReadAhead {
    /// Up to `end`, at first.
    #[must_use]
    pub fn new(end: u64) -> Arc<Self> {
        Arc::new(Self { end, state: Mutex::default(), changed: Condvar::new() })
    }

    /// Waits until what may be read ahead was read.
    pub fn wait_until_read(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(state, |(is_read, _)| !*is_read));
    }

    /// The other process writes no more: the rest may be read.
    pub fn release(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.changed.notify_all();
    }

    /// Nothing more is read by whoever has waited here, or would have.
    pub fn finish(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 = true;
        self.changed.notify_all();
    }

    fn wait_to_read(&self, end: u64) {
        if end > self.end {
            self.finish();
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            drop(self.changed.wait_while(state, |(_, is_released)| !*is_released));
        }
    }
}

/// Reads a log back, and the ids that were stored in what had to be read. Writes the index files that are missing, if it may.
///
/// # Errors
/// [`LogRefusal`]: it is damaged or cannot be read.
pub fn scan(
    config: &LogConfig,
    start: Start,
    directory: &Path,
    segments: &mut [(u64, SegmentFile)],
    reading: Reading,
) -> Result<(Recovered, Recent, Unjudged), LogRefusal> {
    let snapshot = snapshots::open(directory).map_err(LogRefusal::Disk)?;
    let mut files =
        Files { snapshot, directory: Some(directory), reading, ..Files::of(config, start, segments) };
    let recovered = files.read_back(config)?;
    Ok((recovered, files.recent, files.unjudged))
}

/// Reads a log back up to `end`, and writes nothing.
///
/// # Errors
/// [`LogRefusal`]: it is damaged or cannot be read.
pub fn look(
    config: &LogConfig,
    segments: &mut [(u64, SegmentFile)],
    end: u64,
) -> Result<Recovered, LogRefusal> {
    let start = Start { epoch: 0, seed: 0, now: u64::MAX, push_mark: None };
    Files { end, ..Files::of(config, start, segments) }.read_back(config)
}

struct Files<'f> {
    log: u16,
    start: Start,
    /// Where index files are written; `None`: they are made in memory and let go.
    directory: Option<&'f Path>,
    reading: Reading,
    segments: &'f mut [(u64, SegmentFile)],
    snapshot: Option<File>,
    /// What stands behind it is not read.
    end: u64,
    recent: Recent,
    unjudged: Unjudged,
}

impl<'f> Files<'f> {
    fn of(config: &LogConfig, start: Start, segments: &'f mut [(u64, SegmentFile)]) -> Self {
        let (log, recent) = (config.number, Recent::new(start.seed));
        let unjudged = Unjudged::behind(start.push_mark, start.now);
        let (reading, directory, snapshot, end) = (Reading::Alone, None, None, u64::MAX);
        Self { log, start, directory, reading, segments, snapshot, end, recent, unjudged }
    }

    fn read_back(&mut self, config: &LogConfig) -> Result<Recovered, LogRefusal> {
        let bases = self.segments.iter().map(|(base, _)| *base).filter(|base| *base < self.end);
        read_back(config, self.start.epoch, &bases.collect::<Vec<_>>(), self)
    }

    fn segment(&mut self, base: u64) -> &mut SegmentFile {
        let place = self.segments.binary_search_by_key(&base, |(base, _)| *base);
        &mut self.segments[place.expect("the bases are those of the segments")].1
    }

    /// A segment past the page cache, where that can be had: what counts is what the disk has.
    fn file(&mut self, file: LogFile) -> Option<&File> {
        match file {
            LogFile::Index(base) => self.segment(base).index.as_ref(),
            LogFile::Segment(base) => Some(self.segment(base).active()),
            LogFile::Snapshot => self.snapshot.as_ref(),
        }
    }
}

impl LogFiles for Files<'_> {
    type Error = io::Error;

    fn bytes(&mut self, file: LogFile) -> io::Result<Option<u64>> {
        self.file(file).map(|file| Ok(file.metadata()?.len())).transpose()
    }

    fn read(&mut self, name: LogFile, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        if let (LogFile::Segment(base), Reading::Beside(ahead)) = (name, &self.reading) {
            ahead.wait_to_read(base + offset + into.len() as u64);
        }
        let end = self.end;
        let file = self.file(name).ok_or(ErrorKind::NotFound)?;
        let LogFile::Segment(base) = name else {
            return read_up_to(file, into, offset);
        };
        if is_blank_from(file, offset) {
            return Ok(0);
        }
        let wanted = usize::try_from((end - base).saturating_sub(offset)).unwrap_or(usize::MAX);
        Ok(read_up_to(file, into, offset)?.min(wanted))
    }

    fn write_index(&mut self, job: &IndexJob) -> Option<SealedSegment> {
        let Some(directory) = self.directory else {
            let Ok(sealed) = job.write(|_| Ok::<(), Infallible>(()));
            return Some(sealed);
        };
        if matches!(self.reading, Reading::Beside(_)) {
            return None;
        }
        match indexes::write(directory, job) {
            Ok((sealed, file)) => {
                self.segment(as_appended(job.base())).index = Some(file);
                Some(sealed)
            }
            Err(error) => {
                let index = index_file_name(job.base());
                tracing::warn!(log = self.log, index, %error, "an index file could not be written");
                None
            }
        }
    }

    fn note_damaged(&mut self, file: LogFile) {
        match file {
            LogFile::Index(base) => {
                let in_log = self.segment(base).in_log;
                // A cold segment has its own.
                let index = if is_cold(in_log) { segment_file_name(in_log) } else { index_file_name(base) };
                tracing::warn!(
                    log = self.log,
                    index,
                    "an index file is damaged: it is made anew from the log"
                );
            }
            _ => {
                tracing::warn!(
                    log = self.log,
                    "the snapshot of the index is damaged: it is made anew in time"
                )
            }
        }
    }

    fn begin(&mut self) {
        self.recent = Recent::new(self.start.seed);
        self.unjudged.clear();
    }

    fn show(&mut self, record: &Record<'_>) {
        self.recent.observe(record);
        self.unjudged.observe(record);
    }

    fn wants(&mut self, clock: u64) -> bool {
        self.recent.wants(clock, self.start.now) || self.unjudged.wants(clock)
    }

    fn skip(&mut self, clock: u64) {
        self.recent.forget_until(clock);
    }
}
