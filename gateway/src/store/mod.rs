//! The data directory: what it is, who has it, and its logs read back.
//!
//! ```text
//! data/
//!   lock             held exclusively while a node runs
//!   store.toml       format, id, number of logs, secret of the installation (mode 0600)
//!   revocations.json what was revoked, once something is (mode 0600); see `revocations`
//!   erasures.json    what was erased, once something is (mode 0600); see `erasures`
//!   pushes.json      up to where users were called, where they are (mode 0600); see `pushes::marks`
//!   log-00/          one directory per log
//!     seg-0000000000000000.log   segments, named by their first byte
//! ```
//!
//! Everything is synced on open before it is read: a process that was killed may have left bytes in the page cache that
//! read back fine and are not on the disk. A file is made under another name, synced, renamed, and its directory synced.

pub mod disk;
pub mod indexes;
pub(crate) mod kept_list;
mod making;
pub mod reserve;
pub mod scan;
pub mod segments;
pub mod snapshots;
pub mod zeros;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use router::conversation::{Recent, Unjudged};
use router::places::KINDS;
use storage_log::{Answer, Geometry, Log, LogConfig, Recovered, WriteBatch, segment_file_name};

use crate::erasures::marks;
use crate::pushes::marks::{MarksFile, of_log};

pub use scan::LogRefusal;

use disk::log_directory;
use making::{StoreFile, make_store};
use scan::{Reading, Start, scan};
use segments::{Access, SegmentFile, SegmentMaker, open_segments};

/// Bytes of the newest records of one log that stay in memory for readers.
const TAIL_BYTES: usize = 16 << 20;

/// What a backup says itself what it is by.
pub(crate) const BACKUP_FILE: &str = "backup.json";
/// Who writes a backup holds it locked. It is there from the first to the last.
pub(crate) const BACKUP_LOCK: &str = "backup.lock";

/// A process that was just killed holds its lock for some milliseconds more.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// An open data directory, held exclusively.
pub struct Store {
    directory: PathBuf,
    lock: File,
    /// The installation.
    pub id: [u8; 16],
    /// Secret of the installation.
    pub key: [u8; 32],
    /// Logs, fixed when the directory was made.
    pub logs: u16,
    /// How its logs are cut, fixed when the directory was made.
    pub geometry: Geometry,
    /// How its files are written.
    pub access: Access,
    /// As [`LogConfig::segment_ms_max`], of all its logs.
    pub segment_ms_max: Option<u64>,
    /// Whether users are called of what a start finds unjudged.
    pub pushes: bool,
}

/// A log that was read back and is durable as it stands.
pub struct OpenLog {
    /// The log, its run begun.
    pub log: Log,
    /// Ids stored lately.
    pub recent: Recent,
    /// Messages of which nobody may have been called yet.
    pub unjudged: Unjudged,
    /// Its segment files, in order. Those that are sealed are open through the page cache only.
    pub segments: Vec<(u64, SegmentFile)>,
    /// Mark of the newest erasure that a segment was gone through for; 0 is none.
    pub newest_mark: u64,
}

/// A log that was read back and not changed.
pub struct ReadLog {
    recovered: Recovered,
    recent: Recent,
    unjudged: Unjudged,
    segments: Vec<(u64, SegmentFile)>,
}

impl ReadLog {
    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.recovered.log.number()
    }
}

impl Store {
    /// Opens the data directory, or makes it with `logs` logs in segments of `segment_bytes`.
    ///
    /// # Errors
    /// In words for an operator: it is in use, of a newer format, or cannot be read.
    pub fn open(directory: &Path, logs: u16, segment_bytes: u64) -> anyhow::Result<Self> {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make the data directory {}", directory.display()))?;
        ensure_no_backup(directory)?;
        let lock = lock(directory)?;
        Self::open_locked(directory, lock, logs, segment_bytes)
    }

    /// The same where another process, which changes nothing any more, gave us the lock.
    ///
    /// # Errors
    /// As of [`Store::open`].
    pub fn take_over(directory: &Path, lock: OwnedFd) -> anyhow::Result<Self> {
        let facts = StoreFacts::read(directory)?;
        Self::open_locked(directory, lock.into(), facts.logs, facts.geometry.segment_bytes)
    }

    fn open_locked(directory: &Path, lock: File, logs: u16, segment_bytes: u64) -> anyhow::Result<Self> {
        let path = directory.join("store.toml");
        if !path.exists() {
            make_store(directory, &path, logs, segment_bytes)?;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let file = StoreFile::parse(&text).map_err(|error| anyhow!("{} {error:#}", path.display()))?;
        let (id, key, geometry) = (file.store()?, file.key()?, file.geometry());
        let access = access(directory, file.block)?;
        let directory = directory.to_owned();
        let (logs, segment_ms_max) = (file.logs, None);
        Ok(Self { directory, lock, id, key, logs, geometry, access, segment_ms_max, pushes: false })
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Another descriptor of its lock, for another process.
    ///
    /// # Errors
    /// When the system has none.
    pub fn lock(&self) -> io::Result<OwnedFd> {
        Ok(self.lock.try_clone()?.into())
    }

    /// What makes segments for this store, in another thread.
    #[must_use]
    pub fn segment_maker(&self) -> SegmentMaker {
        let (directory, store) = (self.directory.clone(), self.id);
        SegmentMaker { directory, store, geometry: self.geometry, access: self.access }
    }

    /// Reads a log back, writes its last batch again, begins run `run` and syncs.
    ///
    /// # Errors
    /// [`LogRefusal`]: this log is not served.
    pub fn open_log(&self, number: u16, run: [u8; 16], seed: u64, now: u64) -> Result<OpenLog, LogRefusal> {
        let read = self.read_log(number, run, seed, now, Reading::Alone)?;
        self.begin_log(read, run, now).map_err(LogRefusal::Disk)
    }

    /// Reads a log back. With [`Reading::Beside`] nothing is written, and another process may have it.
    ///
    /// # Errors
    /// [`LogRefusal`]: this log is not served.
    pub fn read_log(
        &self,
        number: u16,
        run: [u8; 16],
        seed: u64,
        now: u64,
        reading: Reading,
    ) -> Result<ReadLog, LogRefusal> {
        let directory = log_directory(&self.directory, number);
        let mut segments = open_segments(&directory, self.access).map_err(LogRefusal::Disk)?;
        let config = LogConfig {
            store: self.id,
            number,
            geometry: self.geometry,
            tail_bytes_max: TAIL_BYTES,
            kinds: KINDS,
            segment_ms_max: self.segment_ms_max,
        };
        let epoch = u32::from_le_bytes([run[0], run[1], run[2], run[3]]);
        let marks = if self.pushes { MarksFile::of(&self.directory).read() } else { Vec::new() };
        let start = Start { epoch, seed, now, push_mark: of_log(&marks, number) };
        let (recovered, recent, unjudged) = scan(&config, start, &directory, &mut segments, reading)?;
        if let Some(dropped) = recovered.dropped {
            tracing::warn!(
                log = number,
                segment = segment_file_name(dropped.segment),
                offset = dropped.offset,
                bytes = dropped.bytes,
                "a batch that was being written when the node stopped was cut off; nobody had been told of it"
            );
        }
        tracing::info!(log = number, records = recovered.records, "log recovered");
        Ok(ReadLog { recovered, recent, unjudged, segments })
    }

    /// Writes the last batch of a log again, begins run `run` and syncs: from here on it is this process's.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn begin_log(&self, read: ReadLog, run: [u8; 16], now: u64) -> io::Result<OpenLog> {
        let ReadLog { recovered, recent, unjudged, mut segments } = read;
        let mut log = recovered.log;
        let number = log.number();
        let directory = log_directory(&self.directory, number);
        if let Some(batch) = &recovered.rewrite {
            write_batch(&segments, batch)?;
        }
        let mut begun = log.begin_run(run, now);
        if begun == Answer::Busy {
            // The last segment is full and has no successor yet.
            let base = log.spare_base();
            segments.push((base, self.segment_maker().make(number, base)?));
            log.handle_spare(Ok(()));
            begun = log.begin_run(run, now);
        }
        assert!(matches!(begun, Answer::Stored(_)), "a start fits an empty segment");
        while let Some(batch) = log.poll_write(now) {
            write_batch(&segments, &batch)?;
            log.handle_written(batch.buffer, true).expect("it was written and synced");
        }
        let active = log.spare_base() - self.geometry.segment_bytes;
        for (_, sealed) in segments.iter_mut().filter(|(base, _)| *base < active) {
            sealed.direct = None;
        }
        let marks = marks::read(&directory, log.config());
        marks.iter().for_each(|(base, mark)| log.restore_mark(*base, *mark));
        let newest_mark = marks.values().copied().max().unwrap_or(0);
        Ok(OpenLog { log, recent, unjudged, segments, newest_mark })
    }
}

/// What a data directory is, for whoever only reads it.
pub struct StoreFacts {
    /// The installation.
    pub id: [u8; 16],
    /// Secret of the installation.
    pub key: [u8; 32],
    /// Logs, fixed when the directory was made.
    pub logs: u16,
    /// How its logs are cut, fixed when the directory was made.
    pub geometry: Geometry,
}

impl StoreFacts {
    /// Reads them without opening the directory: nothing is made, locked or changed.
    ///
    /// # Errors
    /// In words for an operator: there is no store, or it is of a newer format, or cannot be read.
    pub fn read(directory: &Path) -> anyhow::Result<Self> {
        ensure_no_backup(directory)?;
        let path = directory.join("store.toml");
        let text = match fs::read_to_string(&path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => bail!(
                "{} is no data directory: it has no store.toml; name the one that the node is started with",
                directory.display()
            ),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let file = StoreFile::parse(&text).map_err(|error| anyhow!("{} {error:#}", path.display()))?;
        Ok(Self { id: file.store()?, key: file.key()?, logs: file.logs, geometry: file.geometry() })
    }
}

/// A backup has the names of a store and not its files: a node on it would call its logs damaged, or write into what they are linked with.
/// One that was broken off is no other: the list of its files is written last, and its lock first.
fn ensure_no_backup(directory: &Path) -> anyhow::Result<()> {
    ensure!(
        !directory.join(BACKUP_FILE).exists() && !directory.join(BACKUP_LOCK).exists(),
        "{} is a backup: `gatehouse log restore` makes a data directory from it, once `gatehouse log backup` has completed it",
        directory.display()
    );
    Ok(())
}

fn lock(directory: &Path) -> anyhow::Result<File> {
    let path = directory.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = match file {
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => return Err(read_only(directory)),
        file => file.with_context(|| format!("cannot open {}", path.display()))?,
    };
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => bail!(
                "{} is in use by another gatehouse: stop that one, or give this one a directory of its own",
                directory.display()
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
}

/// Why a start is refused on a file system that is read-only: by how it was mounted, which shows when a file is opened, or since
/// it found an error, which may show only when one is made.
fn read_only(directory: &Path) -> anyhow::Error {
    anyhow!(
        "{} is on a file system that takes no writes: it was mounted read-only, or has become so after an error, which the \
         kernel's log tells; check the disk, mount it for writing, and start again",
        directory.display()
    )
}

/// How the segments of this directory are written, said once at each start.
fn access(directory: &Path, block_bytes: usize) -> anyhow::Result<Access> {
    let (access, refusal) = Access::of(directory, block_bytes);
    match refusal {
        Some(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => return Err(read_only(directory)),
        None => tracing::info!(block_bytes, "batches are written past the page cache"),
        Some(error) => tracing::warn!(
            block_bytes,
            %error,
            "batches are written through the page cache: this file system does not take such blocks past it"
        ),
    }
    Ok(access)
}

fn write_batch(segments: &[(u64, SegmentFile)], batch: &WriteBatch) -> io::Result<()> {
    let (_, file) = segments.iter().find(|(at, _)| *at == batch.segment).ok_or(ErrorKind::NotFound)?;
    file.write(batch)
}
