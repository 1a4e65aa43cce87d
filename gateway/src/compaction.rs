//! The thread that writes sealed segments anew, one at a time, at a pace that leaves the disk to the batches.
//!
//! A compaction is complete in the moment in which its file is renamed: whoever finds the `.cold` needs nothing else of that segment.
//! What it was made from stays until that name is durable: a crash leaves one or the other.
//! What is left of one that was broken off ends in `.new`, and is written over by the next.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ring::FileBuffer;
use router::conversation::Erased;
use rustix::fs::{Advice, fadvise};
use rustix::io::Errno;
use storage_log::format::BLOCK_BYTES_MAX;
use storage_log::{
    CompactionJob, IndexJob, LogFile, LogFiles, Rewritten, SealedSegment, as_appended, compact_erasing,
    index_file_name, is_cold, is_worth_writing, segment_file_name,
};

use crate::erasures::marks;
use crate::files::{Command, Inbox, Written};
use crate::store::disk::{cold_file_name, log_directory, read_up_to, sync_directory};
use crate::store::segments::{Access, DIRECT};
use crate::store::{indexes, reserve, snapshots};

/// The file is written by this much, and after each piece, and as much that was read, the disk is left alone for [`REST`] times as
/// long.
const PIECE_BYTES: usize = 1 << 20;

const REST: u32 = 1;

/// What a shard wants of the thread.
pub enum Job {
    /// A segment written anew: [`Command::Compacted`] follows.
    Compact {
        /// Of which log.
        log: u16,
        /// Which, and what is kept of it.
        job: CompactionJob,
        /// What is erased of it: all up to the job's mark.
        erased: Arc<Erased>,
        /// Who wants it.
        inbox: Inbox,
    },
    /// Nobody reads the segment any more that was written anew last: its blocks are freed here, which takes long. [`Command::Released`]
    /// follows.
    Release {
        /// Of which log.
        log: u16,
        /// Who let go of it.
        inbox: Inbox,
    },
}

/// The thread, as the node holds it.
pub struct Compactor {
    enough: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Compactor {
    /// Starts it. It ends when the last sender is gone.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(directory: PathBuf, access: Access) -> io::Result<(Sender<Job>, Self)> {
        let (sender, jobs) = channel();
        let enough = Arc::new(AtomicBool::new(false));
        let stop = enough.clone();
        let work = move || work(&directory, access, &jobs, &stop);
        let thread = thread::Builder::new().name("compaction".to_owned()).spawn(work)?;
        Ok((sender, Self { enough, thread }))
    }

    /// While it is true, what is being written anew is broken off, and so is whatever would be next.
    #[must_use]
    pub fn hold(&self) -> Arc<AtomicBool> {
        self.enough.clone()
    }

    /// Breaks off what it does, and waits for its end. The senders are gone.
    ///
    /// # Errors
    /// When it panicked.
    pub fn stop(self) -> thread::Result<()> {
        self.enough.store(true, Ordering::Relaxed);
        self.thread.join()
    }
}

fn work(directory: &Path, access: Access, jobs: &Receiver<Job>, enough: &AtomicBool) {
    let mut failing = false;
    // By log: files whose names are gone, and what is kept aside of what they leave. Whoever closes one last frees its blocks.
    let mut superseded = HashMap::new();
    while let Ok(job) = jobs.recv() {
        let (log, job, erased, inbox) = match job {
            Job::Compact { log, job, erased, inbox } => (log, job, erased, inbox),
            Job::Release { log, inbox } => {
                if let Some((files, reserve_bytes)) = superseded.remove(&log) {
                    drop::<Vec<File>>(files);
                    // Best effort: the next segment asks for it again, and is not made without.
                    let _ = reserve::keep(&log_directory(directory, log), reserve_bytes);
                }
                inbox.send(Command::Released { log });
                continue;
            }
        };
        let directory = log_directory(directory, log);
        let made = match write_cold(&directory, access, &job, &erased, enough) {
            Ok(Written::Made(sealed, file)) => {
                let (files, is_gone) = remove_superseded(&directory, job.base);
                superseded.insert(log, (files, job.config.geometry.reserve_bytes()));
                let is_done = is_gone && note_mark(&directory, &job);
                Ok(if is_done { Written::Made(sealed, file) } else { Written::MadeBeside(sealed, file) })
            }
            Ok(Written::Clean) if !(stands_alone(&directory, job.base) && note_mark(&directory, &job)) => {
                Err(ErrorKind::Other.into())
            }
            made => made,
        };
        let segment = segment_file_name(job.base);
        match &made {
            Ok(Written::Clean | Written::Made(..) | Written::MadeBeside(..)) => failing = false,
            Ok(Written::Unsound) => tracing::error!(
                log,
                segment,
                "this segment is damaged and stays as it is, or cannot be read: everything else is served and compacted; `gatehouse log \
                 verify` says what is wrong with it"
            ),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if !failing => {
                tracing::warn!(log, segment, %error, "a segment could not be compacted: it stays as it is, and is tried again");
                failing = true;
            }
            Err(_) => {}
        }
        inbox.send(Command::Compacted { log, base: job.base, made: made.map_err(drop) });
    }
}

/// Removes what the cold segment was made from, once that has its name for good; the start removes what could not be removed here.
/// The files, still open, and whether none of them has its name any more.
fn remove_superseded(directory: &Path, base: u64) -> (Vec<File>, bool) {
    if let Err(error) = sync_directory(directory) {
        let segment = cold_file_name(base);
        tracing::warn!(segment, %error, "the name of a compacted segment may not be on the disk: what it was made from is kept until the next start");
        return (Vec::new(), false);
    }
    let paths =
        [segment_file_name(as_appended(base)), index_file_name(base)].map(|name| directory.join(name));
    let files = paths.iter().filter_map(|path| File::open(path).ok()).collect();
    let gone = paths.map(|path| is_gone(&path));
    (files, gone == [true; 2])
}

/// Removes a file. Whether it has its name no more.
fn is_gone(path: &Path) -> bool {
    let removed = fs::remove_file(path);
    removed.is_ok() || removed.is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Whether a segment that stays as it is stands alone: what a cold one was made from may not have been removed.
fn stands_alone(directory: &Path, base: u64) -> bool {
    !is_cold(base) || is_gone(&directory.join(segment_file_name(as_appended(base))))
}

/// Notes that a segment was gone through for what is erased, if anything is. Whether that is on the disk, and the removal of what was
/// removed before: only then it counts.
fn note_mark(directory: &Path, job: &CompactionJob) -> bool {
    if job.mark == 0 {
        return true;
    }
    let noted = marks::note(directory, &job.config, job.base, job.mark);
    if let Err(error) = &noted {
        let (log, segment) = (job.config.number, segment_file_name(job.base));
        tracing::warn!(log, segment, %error, "that a segment was gone through for what is erased could not be noted: it is gone through again");
    }
    noted.is_ok()
}

/// Writes the cold segment in place of the one at the job's base, unless that is damaged, or need not be written. One that the disk cannot
/// read is damaged: asked for again and again, it would keep all younger ones waiting.
fn write_cold(
    directory: &Path,
    access: Access,
    job: &CompactionJob,
    erased: &Erased,
    enough: &AtomicBool,
) -> io::Result<Written> {
    let pace = Pace::new(enough);
    let mut files = Files::open(directory, job, &pace)?;
    match write_from(&mut files, directory, access, job, erased) {
        Err(_) if files.is_unreadable => Ok(Written::Unsound),
        written => written,
    }
}

fn write_from(
    files: &mut Files<'_>,
    directory: &Path,
    access: Access,
    job: &CompactionJob,
    erased: &Erased,
) -> io::Result<Written> {
    let (path, pace) = (directory.join(cold_file_name(job.base)), files.pace);
    let new = path.with_extension("cold.new");
    if !is_worth_writing(job, erased.fronts(), files)? {
        return Ok(Written::Clean);
    }
    // What makes room is written where there is some in any case.
    let has_blocks = job.cause.expires() && reserve::take(directory, &new)?;
    let written = PacedWriter::create(&new, access, has_blocks, pace).and_then(|mut out| {
        let judge = |record: &storage_log::Record<'_>| erased.verdict(record.position(), record.portable());
        let written = compact_erasing(job, &judge, files, &mut |bytes| out.write(bytes))?;
        if matches!(written, Rewritten::Made(_)) {
            out.finish()?;
        }
        Ok(written)
    });
    match written {
        Ok(Rewritten::Made(sealed)) => {
            let file = File::open(&new)?;
            fs::rename(&new, &path)?;
            Ok(Written::Made(sealed, file))
        }
        unmade => {
            // At once: on a full disk it has the last of the room.
            if has_blocks {
                reserve::give_back(directory, &new, job.config.geometry.reserve_bytes());
            } else {
                let _ = fs::remove_file(&new);
            }
            if !matches!(unmade?, Rewritten::Clean) {
                return Ok(Written::Unsound);
            }
            // All of it was read, which drove from the page cache what readers want. Advice: where it is not taken, more stays.
            let _ = fadvise(&files.segment, 0, None, Advice::DontNeed);
            Ok(Written::Clean)
        }
    }
}

/// Leaves the disk alone after each piece, read or written.
struct Pace<'e> {
    since: Cell<Instant>,
    bytes: Cell<usize>,
    enough: &'e AtomicBool,
}

impl<'e> Pace<'e> {
    fn new(enough: &'e AtomicBool) -> Self {
        Self { since: Cell::new(Instant::now()), bytes: Cell::new(0), enough }
    }

    /// So much more was read or written.
    fn rest(&self, bytes: usize) -> io::Result<()> {
        if self.enough.load(Ordering::Relaxed) {
            return Err(ErrorKind::Interrupted.into());
        }
        self.bytes.set(self.bytes.get() + bytes);
        if self.bytes.get() >= PIECE_BYTES {
            // Never for long: a disk that hangs is no reason to hang on.
            thread::sleep((self.since.get().elapsed() * REST).min(Duration::from_secs(1)));
            self.since.set(Instant::now());
            self.bytes.set(0);
        }
        Ok(())
    }
}

/// What is read for a compaction, through the page cache.
struct Files<'p> {
    segment: File,
    index: Option<File>,
    snapshot: Option<File>,
    /// The disk has given an error for the segment or its index.
    is_unreadable: bool,
    pace: &'p Pace<'p>,
}

impl<'p> Files<'p> {
    fn open(directory: &Path, job: &CompactionJob, pace: &'p Pace<'p>) -> io::Result<Self> {
        let segment = File::open(directory.join(segment_file_name(job.base)))?;
        let index = indexes::find(directory, as_appended(job.base), &job.config)?.map(|found| found.file);
        Ok(Self { segment, index, snapshot: snapshots::open(directory)?, is_unreadable: false, pace })
    }

    fn file(&self, file: LogFile) -> Option<&File> {
        match file {
            LogFile::Segment(_) => Some(&self.segment),
            LogFile::Index(_) => self.index.as_ref(),
            LogFile::Snapshot => self.snapshot.as_ref(),
        }
    }
}

impl LogFiles for Files<'_> {
    type Error = io::Error;

    fn bytes(&mut self, file: LogFile) -> io::Result<Option<u64>> {
        self.file(file).map(|file| Ok(file.metadata()?.len())).transpose()
    }

    fn read(&mut self, file: LogFile, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let Some(opened) = self.file(file) else {
            return Ok(0);
        };
        let read = read_up_to(opened, into, offset).inspect_err(|error| {
            let is_of_disk = error.raw_os_error() == Some(Errno::IO.raw_os_error());
            self.is_unreadable |= is_of_disk && !matches!(file, LogFile::Snapshot);
        })?;
        self.pace.rest(read)?;
        Ok(read)
    }

    fn write_index(&mut self, _job: &IndexJob) -> Option<SealedSegment> {
        None
    }
}

/// A file that is written in large pieces, past the page cache where that can be had: it would drive from it what readers want.
struct PacedWriter<'p> {
    file: File,
    piece: FileBuffer,
    filled: usize,
    written: u64,
    pace: &'p Pace<'p>,
}

impl<'p> PacedWriter<'p> {
    /// A file of its own, or over the blocks that it has.
    fn create(path: &Path, access: Access, has_blocks: bool, pace: &'p Pace<'p>) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(!has_blocks).write(true).mode(0o600);
        if access == Access::Direct {
            options.custom_flags(DIRECT);
        }
        let piece = FileBuffer::aligned(PIECE_BYTES, BLOCK_BYTES_MAX);
        Ok(Self { file: options.open(path)?, piece, filled: 0, written: 0, pace })
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = &mut self.piece.bytes_mut()[self.filled..];
            let (now, later) = bytes.split_at(bytes.len().min(room.len()));
            room[..now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == PIECE_BYTES {
                self.flush(PIECE_BYTES)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self, bytes: usize) -> io::Result<()> {
        self.file.write_all_at(&self.piece.bytes()[..bytes], self.written)?;
        self.written += self.filled as u64;
        self.filled = 0;
        self.pace.rest(bytes)
    }

    fn finish(mut self) -> io::Result<()> {
        let (filled, end) = (self.filled, self.filled.next_multiple_of(BLOCK_BYTES_MAX));
        self.piece.bytes_mut()[filled..end].fill(0);
        self.flush(end)?;
        self.file.set_len(self.written)?;
        self.file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use storage_log::{Cause, Geometry, LogConfig, Retention};

    use super::*;

    #[test]
    fn a_segment_that_the_disk_cannot_read_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        // Where nothing is mapped, this file answers as a lost sector does.
        symlink("/proc/self/mem", directory.path().join(segment_file_name(0))).expect("a link");
        let geometry = Geometry::of_blocks(BLOCK_BYTES_MAX);
        let (store, kinds) = ([1; 16], router::places::KINDS);
        let config = LogConfig { store, number: 0, geometry, tail_bytes_max: 0, kinds, segment_ms_max: None };
        let job =
            CompactionJob { config, base: 0, retention: Retention::default(), mark: 0, cause: Cause::Cold };
        let (erased, enough) = (Erased::default(), AtomicBool::new(false));
        let written = write_cold(directory.path(), Access::Buffered, &job, &erased, &enough);
        assert!(matches!(written, Ok(Written::Unsound)));
        let left = fs::read_dir(directory.path()).expect("it is there").count();
        assert_eq!(left, 1, "what was begun is gone");
    }
}
