//! Looking through sealed segments and their index files, slowly, again and again: what rots where nobody reads is found while a
//! backup still has it.
//!
//! Through the page cache, which is told to let go of what was read; at a pace that leaves the disk to others. How far a log is
//! stands in a file, so that a restart goes on there.

use std::fs::{self};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::time::Duration;

use storage_log::{
    DamagedRange, INDEX_BLOCK_BYTES, IndexFooter, IndexJob, LogConfig, LogFile, LogFiles, Met, ScrubProgress,
    SealedSegment, as_appended, is_index_block_sound, is_index_tail_sound, read_index_tail,
    segment_of_file_name, walk_segment,
};

use super::Caretaker;
use super::files::Files;
use crate::store::disk::log_directory;
use crate::store::disk::replace;
use crate::store::indexes;

/// Name of the file that says how far a log is.
pub const PROGRESS_FILE_NAME: &str = "scrub.state";

/// A pass begins a day after the one before began, or when that has ended: what was sound yesterday is not read again today.
const PASS_MILLIS: u64 = 24 * 3600 * 1000;

/// Read at once: a fifth of a second's worth of a slow disk.
const PIECE_BYTES: usize = 256 << 10;

/// Blocks of an index file read at once.
const BLOCKS: u32 = (PIECE_BYTES / INDEX_BLOCK_BYTES) as u32;

/// What one segment showed.
pub(super) struct Found {
    /// Its base, with its generation.
    pub(super) base: u64,
    pub(super) damaged: Vec<DamagedRange>,
    pub(super) index_is_sound: bool,
}

/// Bases of the sealed segments of a log, in order: up to the newest that has an index file.
pub(super) fn sealed_bases(directory: &Path) -> io::Result<Vec<u64>> {
    let (mut segments, mut newest) = (Vec::new(), None);
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let cold = segment_of_file_name(&name.replace(".cold", ".log"));
        if let Some(base) = segment_of_file_name(&name) {
            segments.push(base);
        } else if let Some(base) = cold {
            segments.push(base);
            newest = newest.max(Some(base));
        } else if let Some(base) = segment_of_file_name(&name.replace(".idx", ".log")) {
            newest = newest.max(Some(base));
        }
    }
    segments.retain(|base| newest.is_some_and(|newest| *base <= newest));
    segments.sort_unstable();
    segments.dedup();
    Ok(segments)
}

/// How far a log is; what cannot be read begins anew.
pub(super) fn read_progress(directory: &Path, config: &LogConfig) -> ScrubProgress {
    let bytes = fs::read(directory.join(PROGRESS_FILE_NAME)).unwrap_or_default();
    ScrubProgress::parse(&bytes, config).unwrap_or_default()
}

pub(super) fn write_progress(
    directory: &Path,
    config: &LogConfig,
    progress: &ScrubProgress,
) -> io::Result<()> {
    replace(&directory.join(PROGRESS_FILE_NAME), |file| file.write_all(&progress.encode(config))).map(drop)
}

/// The segment to look at now, with the progress that begins there: the next of a pass, or the first of the next one when that is
/// due. `None`: nothing is due.
pub(super) fn next(progress: &mut ScrubProgress, bases: &[u64], now: u64) -> Option<u64> {
    let rest = bases.iter().find(|base| **base >= progress.next_base);
    if progress.begun > 0 && progress.ended >= progress.begun {
        if now.abs_diff(progress.begun) < PASS_MILLIS {
            return None;
        }
        (progress.begun, progress.next_base) = (now, 0);
        return bases.first().copied();
    }
    if progress.begun == 0 {
        progress.begun = now.max(1);
    }
    if rest.is_none() && !bases.is_empty() {
        progress.ended = now.max(progress.begun);
    }
    rest.copied()
}

/// Looks through one sealed segment and its index file.
pub(super) fn scrub(caretaker: &Caretaker, config: &LogConfig, base: u64) -> io::Result<Found> {
    let directory = log_directory(&caretaker.directory, config.number);
    let in_log =
        || Ok::<_, io::Error>(indexes::open_cold(&directory, base)?.map_or(base, |(_, in_log)| in_log));
    let before = in_log()?;
    let found = look_at(caretaker, config, before);
    if in_log()? != before {
        // Compacted meanwhile, which looks at every record: what was read is of two files.
        return Ok(Found { base: before, damaged: Vec::new(), index_is_sound: true });
    }
    found
}

fn look_at(caretaker: &Caretaker, config: &LogConfig, base: u64) -> io::Result<Found> {
    let directory = log_directory(&caretaker.directory, config.number);
    let mut files = Paced { files: Files::new(&directory), caretaker };
    let (footer, index_is_sound) = look_at_index(&mut files, config, base)?;
    let mut damaged = Vec::new();
    if let Some(footer) = footer {
        walk_segment(config, base, &footer, &mut files, &mut |met| {
            if let Met::Damaged(range) = met {
                damaged.push(range);
            }
        })?;
    }
    Ok(Found { base, damaged, index_is_sound })
}

/// The footer of the index file of the segment at `base`, and whether all of the file holds its checksums. Without a footer nobody
/// knows which records belong into the segment: it is looked through when the file is made again.
fn look_at_index(
    files: &mut Paced<'_>,
    config: &LogConfig,
    base: u64,
) -> io::Result<(Option<IndexFooter>, bool)> {
    let file = LogFile::Index(as_appended(base));
    let Some(bytes) = files.bytes(file)? else {
        return Ok((None, false));
    };
    let mut read = |at, into: &mut [u8]| files.read(file, at, into).is_ok_and(|read| read == into.len());
    let Some((footer, tail)) = read_index_tail(bytes, base, config, &mut read) else {
        return files.caretaker.go_on().map(|()| (None, false));
    };
    let mut is_sound = is_index_tail_sound(&footer, &tail);
    let mut buffer = vec![0; PIECE_BYTES];
    for first in (0..footer.blocks()).step_by(BLOCKS as usize) {
        let bytes = &mut buffer[..BLOCKS.min(footer.blocks() - first) as usize * INDEX_BLOCK_BYTES];
        let at = footer.blocks_at() + u64::from(first) * INDEX_BLOCK_BYTES as u64;
        let read = files.read(file, at, bytes);
        files.caretaker.go_on()?;
        let mut blocks = (first..).zip(bytes.chunks(INDEX_BLOCK_BYTES));
        is_sound &= read.is_ok_and(|read| read == bytes.len())
            && blocks.all(|(number, block)| is_index_block_sound(base, number, block));
    }
    Ok((Some(footer), is_sound))
}

/// Files that are read no faster than the scrubber may, and only as long as the node runs.
struct Paced<'c> {
    files: Files,
    caretaker: &'c Caretaker,
}

impl LogFiles for Paced<'_> {
    type Error = io::Error;

    fn bytes(&mut self, file: LogFile) -> io::Result<Option<u64>> {
        self.files.bytes(file)
    }

    fn read(&mut self, file: LogFile, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        for piece in into.chunks_mut(PIECE_BYTES) {
            let read = self.files.read(file, offset + done as u64, piece)?;
            self.files.forget(offset + done as u64, read as u64);
            done += read;
            self.caretaker.pace(read as u64)?;
            if read < piece.len() {
                break;
            }
        }
        Ok(done)
    }

    fn write_index(&mut self, _job: &IndexJob) -> Option<SealedSegment> {
        None
    }
}

/// How long the disk is left alone behind so many bytes, so that no more than `bytes_per_second` are read however fast it is.
pub(super) fn rest_of(bytes: u64, bytes_per_second: u64) -> Duration {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_second.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// The node ends.
pub(super) fn ended() -> io::Error {
    ErrorKind::Interrupted.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 4 << 20;

    /// Looks at whatever is next until nothing is due; `false` from `look` stops it, as a kill does, before it is remembered.
    fn pass(progress: &mut ScrubProgress, bases: &[u64], now: u64, mut look: impl FnMut(u64) -> bool) {
        for _ in 0..=bases.len() {
            let mut begun = *progress;
            let base = next(&mut begun, bases, now);
            if base.is_some_and(|base| !look(base)) {
                return;
            }
            *progress = begun;
            let Some(base) = base else {
                return;
            };
            progress.next_base = base + SEGMENT;
        }
        panic!("it comes to an end");
    }

    #[test]
    fn a_pass_goes_on_where_it_was_remembered_and_the_next_is_due_a_day_after_it_began() {
        let bases: Vec<u64> = (0..5).map(|number| number * SEGMENT).collect();
        let (mut progress, mut looked) = (ScrubProgress::default(), Vec::new());
        let at = |progress: &mut ScrubProgress, now, stop: Option<u64>| {
            let mut looked = Vec::new();
            pass(progress, &bases, now, |base| {
                looked.push(base / SEGMENT);
                stop != Some(base / SEGMENT)
            });
            looked
        };
        looked.extend(at(&mut progress, 1_000, Some(2)));
        assert_eq!((progress.next_base, progress.ended), (2 * SEGMENT, 0));
        looked.extend(at(&mut progress, 9_000, None));
        // The one that it was stopped in is looked at from its front.
        assert_eq!(looked, [0, 1, 2, 2, 3, 4]);
        assert_eq!((progress.begun, progress.ended), (1_000, 9_000));
        assert!(at(&mut progress, 999 + PASS_MILLIS, None).is_empty());
        assert_eq!(at(&mut progress, 1_000 + PASS_MILLIS, None), [0, 1, 2, 3, 4]);
        assert_eq!(progress.begun, 1_000 + PASS_MILLIS);
    }

    #[test]
    fn what_is_read_is_rested_for_by_the_rate() {
        for (bytes, rate, millis) in [
            (PIECE_BYTES as u64, 4 << 20, 62),
            (4 << 20, 4 << 20, 1_000),
            (0, 4 << 20, 0),
            (1, 1, 1_000),
            (1 << 20, 1, (1 << 20) * 1_000),
            (5, 0, 5_000),
        ] {
            assert_eq!(rest_of(bytes, rate).as_millis(), u128::from(millis as u64), "{bytes} at {rate}");
        }
        // Nothing is lost by pieces: a gibibyte of them takes what it takes at once.
        let pieces: Duration = (0..4_096).map(|_| rest_of(PIECE_BYTES as u64, 7_777_777)).sum();
        let whole = rest_of(1 << 30, 7_777_777);
        assert!(whole - pieces < Duration::from_millis(1), "{pieces:?} of {whole:?}");
    }
}
