//! A data directory that is only read: its segments, past the page cache, in pieces.
//!
//! Deliberately not `store`: that one locks, syncs and makes files.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use ring::FileBuffer;
use router::places::KINDS;
use rustix::fs::OFlags;
use storage_log::format::{BLOCK_BYTES_MAX, FEED_BYTES, SEGMENT_HEADER_BYTES};
use storage_log::{
    LogConfig, Met, Walk, WalkEnd, first_batch_end, index_file_name, newest_batch_end, newest_durable_mark,
    segment_of_file_name,
};

use crate::store::StoreFacts;
use crate::store::disk::is_blank_from;
use crate::store::disk::{cold_file_name, log_directory};

/// A data directory, and whether a node has it.
pub struct Data {
    /// Where it is.
    pub directory: PathBuf,
    /// What it is.
    pub facts: StoreFacts,
    /// A node has it open: its logs are read up to what is settled.
    pub is_live: bool,
}

/// A segment file of a log, and its index file.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its first byte in the log.
    pub base: u64,
    /// Where it is.
    pub path: PathBuf,
    /// Length of the file.
    pub bytes: u64,
    /// What it takes of the disk.
    pub disk_bytes: u64,
    /// Length of its index file; `None` where there is none.
    pub index_bytes: Option<u64>,
}

/// What is looked for in bytes that stand at an lsn, in blocks.
type NewestOf = fn(&[u8], u64, usize) -> Option<u64>;

/// A log that is idle writes a mark after 50 ms and a sync, one that is busy with its next batch.
const MARK_PATIENCE: Duration = Duration::from_secs(10);

/// How far a log is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// To its end: nobody writes.
    AtRest,
    /// Up to this durable mark: a node writes behind it.
    UpTo(u64),
}

impl Data {
    /// Looks at a directory; nothing is made or changed.
    ///
    /// # Errors
    /// In words for an operator: it is no data directory, or cannot be read.
    pub fn open(directory: &Path) -> anyhow::Result<Self> {
        let facts = StoreFacts::read(directory)?;
        Ok(Self { directory: directory.to_owned(), facts, is_live: is_locked(directory)? })
    }

    /// Whether a node was started since [`Data::open`] found none: what was read to the end meanwhile may not hold together.
    ///
    /// # Errors
    /// Those of the lock file.
    pub fn was_taken(&self) -> anyhow::Result<bool> {
        Ok(!self.is_live && is_locked(&self.directory)?)
    }

    /// What the crate of the log wants to know of a log.
    #[must_use]
    pub fn config(&self, number: u16) -> LogConfig {
        let StoreFacts { id, geometry, .. } = self.facts;
        LogConfig { store: id, number, geometry, tail_bytes_max: 0, kinds: KINDS, segment_ms_max: None }
    }

    /// The segments of a log, in order. Files of other names are left alone.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn segments(&self, log: u16) -> anyhow::Result<Vec<Segment>> {
        let directory = log_directory(&self.directory, log);
        let list = || {
            let mut segments = Vec::new();
            for entry in fs::read_dir(&directory)? {
                let path = entry?.path();
                let name = path.file_name().and_then(|name| name.to_str());
                let Some((base, is_cold)) = name.and_then(segment_of) else {
                    continue;
                };
                // The cold one counts, if the node stopped before it had removed what that was made from.
                if !is_cold && directory.join(cold_file_name(base)).exists() {
                    continue;
                }
                let file = match fs::metadata(&path) {
                    // It became a cold one in this very moment.
                    Err(error) if error.kind() == ErrorKind::NotFound && !is_cold => {
                        fs::metadata(directory.join(cold_file_name(base)))?
                    }
                    file => file?,
                };
                let index_bytes = match fs::metadata(directory.join(index_file_name(base))) {
                    Ok(index) => Some(index.len()),
                    Err(error) if error.kind() == ErrorKind::NotFound => None,
                    Err(error) => return Err(error),
                };
                segments.push(Segment {
                    base,
                    path,
                    bytes: file.len(),
                    disk_bytes: file.blocks() * 512,
                    index_bytes,
                });
            }
            segments.sort_unstable_by_key(|segment| segment.base);
            Ok(segments)
        };
        match list() {
            // All its segments are missing: the walk says so.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed.with_context(|| format!("cannot read {}", directory.display())),
        }
    }

    /// How far a log can be read, of which these are the segments.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn settled(&self, segments: &[Segment]) -> anyhow::Result<Settled> {
        if !self.is_live {
            return Ok(Settled::AtRest);
        }
        Ok(Settled::UpTo(self.mark(segments)?))
    }

    /// The newest durable mark of a log.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn mark(&self, segments: &[Segment]) -> anyhow::Result<u64> {
        let mark = self.newest(segments, newest_durable_mark)?.unwrap_or(SEGMENT_HEADER_BYTES as u64);
        // A segment is written anew only behind a durable batch of the next one. While that is all there is, no mark names it: it may be
        // empty, and an idle log writes no other. Without it the log would end within a segment that cannot be read in part.
        let Some(cold) = segments.iter().rposition(Segment::is_cold) else { return Ok(mark) };
        match segments.get(cold + 1) {
            Some(next) if mark < next.base => {
                Ok(self.newest_in(next, first_batch_end, &mut buffer())?.unwrap_or(mark))
            }
            _ => Ok(mark),
        }
    }

    /// The segments of a log and its durable mark, which names everything that was acknowledged before this was asked: the log is
    /// waited for, a batch or as long as it takes to be idle.
    ///
    /// # Errors
    /// Those of the disk; or the log has stopped.
    pub fn caught_up(&self, log: u16) -> anyhow::Result<(Vec<Segment>, u64)> {
        let begun = Instant::now();
        let end = self.newest(&self.segments(log)?, newest_batch_end)?.unwrap_or(0);
        loop {
            let segments = self.segments(log)?;
            let mark = self.mark(&segments)?;
            if mark >= end || !self.is_live {
                return Ok((segments, mark));
            }
            ensure!(
                begun.elapsed() < MARK_PATIENCE,
                "log {log} of {} writes nothing more, though a node has it open: it has failed, see what the node says; when it \
                 has stopped, ask again",
                self.directory.display()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The newest of what `of` finds in the segments of a log.
    fn newest(&self, segments: &[Segment], of: NewestOf) -> anyhow::Result<Option<u64>> {
        let mut buffer = buffer();
        for segment in segments.iter().rev() {
            if let Some(newest) = self.newest_in(segment, of, &mut buffer)? {
                return Ok(Some(newest));
            }
        }
        Ok(None)
    }

    fn newest_in(
        &self,
        segment: &Segment,
        of: NewestOf,
        buffer: &mut FileBuffer,
    ) -> anyhow::Result<Option<u64>> {
        let (file, mut offset, mut newest) = (segment.open()?, SEGMENT_HEADER_BYTES as u64, None);
        while offset < segment.bytes && !is_blank_from(&file, offset) {
            let bytes = segment.read(&file, offset, buffer)?;
            let found = of(bytes, segment.base + offset, self.facts.geometry.block_bytes);
            if newest.is_none() && found.is_none() {
                // Batches begin at the front of a segment: there is none yet.
                return Ok(None);
            }
            newest = newest.max(found);
            offset += bytes.len() as u64;
        }
        Ok(newest)
    }

    /// A walk through a log.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn reader(&self, log: u16) -> anyhow::Result<LogReader> {
        let config = self.config(log);
        let segments = self.segments(log)?;
        let settled = self.settled(&segments)?;
        let (durable_lsn, end) = match settled {
            Settled::AtRest => (0, u64::MAX),
            Settled::UpTo(mark) => (mark, mark),
        };
        let segments: Vec<_> = segments.into_iter().filter(|segment| segment.base < end).collect();
        let segment_bytes = config.geometry.segment_bytes;
        let walk = Walk::new(config, durable_lsn);
        Ok(LogReader {
            settled,
            segments,
            segment_bytes,
            end,
            at: 0,
            open: None,
            header: Vec::new(),
            walk,
            buffer: buffer(),
        })
    }
}

/// The base that the name of a segment stands for, and whether it is a cold one.
pub(super) fn segment_of(name: &str) -> Option<(u64, bool)> {
    let appended = segment_of_file_name(name).map(|base| (base, false));
    let cold = || segment_of_file_name(&name.strip_suffix("cold").map(|name| format!("{name}log"))?);
    appended.or_else(|| cold().map(|base| (base, true)))
}

/// Whether a node holds the lock. One that starts in this very moment asks again for two seconds, and gets it.
fn is_locked(directory: &Path) -> anyhow::Result<bool> {
    let path = directory.join("lock");
    let tried = match File::open(&path) {
        Ok(file) => file.try_lock_shared(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => Err(TryLockError::Error(error)),
    };
    match tried {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot tell from {} whether a node runs", path.display()))
        }
    }
}

/// Memory for one piece, and for what lies before it in the same block.
pub(super) fn buffer() -> FileBuffer {
    FileBuffer::aligned(FEED_BYTES + BLOCK_BYTES_MAX, BLOCK_BYTES_MAX)
}

impl Segment {
    /// Whether it was compacted.
    #[must_use]
    pub fn is_cold(&self) -> bool {
        self.path.extension().is_some_and(|ending| ending == "cold")
    }

    /// The segment as it is now, if a node has compacted it since it was listed.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn as_it_is(&self) -> anyhow::Result<Self> {
        let cold = self.path.with_extension("cold");
        match fs::metadata(&cold) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(self.clone()),
            file => {
                let file = file.with_context(|| format!("cannot read {}", cold.display()))?;
                Ok(Self { path: cold, bytes: file.len(), disk_bytes: file.blocks() * 512, ..self.clone() })
            }
        }
    }

    /// Opens it past the page cache, where that can be had.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn open(&self) -> anyhow::Result<File> {
        let mut first = FileBuffer::aligned(BLOCK_BYTES_MAX, BLOCK_BYTES_MAX);
        let direct =
            OpenOptions::new().read(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(&self.path);
        let direct = direct.and_then(|file| file.read_at(first.bytes_mut(), 0).map(|_| file));
        let opened = match direct {
            Err(error) if error.kind() == ErrorKind::InvalidInput => File::open(&self.path),
            opened => opened,
        };
        opened.with_context(|| format!("cannot read {}", self.path.display()))
    }

    /// Bytes of its file from `offset` on, up to a feed of them.
    ///
    /// # Errors
    /// Those of the disk, with the place.
    pub fn read<'b>(&self, file: &File, offset: u64, buffer: &'b mut FileBuffer) -> anyhow::Result<&'b [u8]> {
        let start = offset - offset % BLOCK_BYTES_MAX as u64;
        let mut read = 0;
        while read < buffer.bytes().len() && start + (read as u64) < self.bytes {
            match file.read_at(&mut buffer.bytes_mut()[read..], start + read as u64) {
                Ok(0) => break,
                Ok(bytes) => read += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let place = start + read as u64;
                    let path = self.path.display();
                    return Err(error).with_context(|| {
                        format!("the disk cannot read {path} at offset {place}: see what the kernel says of the disk")
                    });
                }
            }
        }
        Ok(&buffer.bytes()[((offset - start) as usize).min(read)..read])
    }
}

/// A walk through one log, piece by piece.
pub struct LogReader {
    /// How far it goes.
    pub settled: Settled,
    /// What it goes through, in order.
    pub segments: Vec<Segment>,
    segment_bytes: u64,
    end: u64,
    /// Number of the segment that is read.
    at: usize,
    open: Option<File>,
    header: Vec<u8>,
    walk: Walk,
    buffer: FileBuffer,
}

/// What was just read and walked through.
pub struct Piece<'b> {
    /// Of which segment.
    pub base: u64,
    /// Its header.
    pub header: &'b [u8],
    /// Where it begins in the segment.
    pub offset: u64,
    /// The bytes.
    pub bytes: &'b [u8],
    /// Behind it the segment holds nothing that is read.
    pub to_end: bool,
}

impl LogReader {
    /// Bytes of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Reads the next piece and walks through it; `None` when there is no more.
    ///
    /// # Errors
    /// Those of the disk, with the place.
    pub fn step(&mut self, met: &mut dyn FnMut(Met<'_>)) -> anyhow::Result<Option<Piece<'_>>> {
        while self.open.is_none() {
            let Some(segment) = self.segments.get_mut(self.at) else {
                return Ok(None);
            };
            *segment = segment.as_it_is()?;
            let file = segment.open()?;
            let header = segment.read(&file, 0, &mut self.buffer)?;
            let header = &header[..header.len().min(SEGMENT_HEADER_BYTES)];
            self.header = header.to_vec();
            let is_ours = self.walk.open_segment(segment.base, header, segment.bytes, met);
            let has_more = segment.bytes > SEGMENT_HEADER_BYTES as u64;
            if is_ours && has_more {
                self.open = Some(file);
            } else {
                self.at += 1;
            }
        }
        let (segment, file) = (&self.segments[self.at], self.open.as_ref().expect("it was just opened"));
        let (base, offset) = (segment.base, self.walk.offset());
        let limit = self.segment_bytes.min(self.end - base);
        let bytes = segment.read(file, offset, &mut self.buffer)?;
        let bytes = &bytes[..bytes.len().min(limit.saturating_sub(offset) as usize)];
        let read_to = offset + bytes.len() as u64;
        let to_end = read_to >= limit || read_to >= segment.bytes || is_blank_from(file, read_to);
        if self.walk.feed(bytes, to_end, met).ended {
            self.open = None;
            self.at += 1;
        }
        Ok(Some(Piece { base, header: &self.header, offset, bytes, to_end }))
    }

    /// Ends the walk when [`LogReader::step`] gives nothing more.
    pub fn finish(self, met: &mut dyn FnMut(Met<'_>)) -> WalkEnd {
        self.walk.finish(met)
    }
}
