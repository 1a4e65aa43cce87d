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

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use router::conversation::{Recent, Unjudged};
use router::places::KINDS;
use serde::{Deserialize, Serialize};
use storage_log::format::{
    BATCH_BYTES_MAX, BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, FORMAT_VERSION, SEGMENT_BYTES, SEGMENT_HEADER_BYTES,
};
use storage_log::{Answer, Geometry, Log, LogConfig, Recovered, WriteBatch, segment_file_name};

use crate::erasures::marks;
use crate::pushes::marks::{MarksFile, of_log};
use crate::scan::{Reading, Start, read_up_to, scan};
use crate::segments::{
    Access, SegmentFile, SegmentMaker, block_of, log_directory, open_segments, sync_directory,
};

/// Bytes of the newest records of one log that stay in memory for readers.
const TAIL_BYTES: usize = 16 << 20;

/// What a backup says itself what it is by.
pub(crate) const BACKUP_FILE: &str = "backup.json";
/// Who writes a backup holds it locked. It is there from the first to the last.
pub(crate) const BACKUP_LOCK: &str = "backup.lock";

/// A process that was just killed holds its lock for some milliseconds more.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// More logs than this on one device only share its syncs.
pub(crate) const LOGS_MAX: u16 = 64;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoreFile {
    format: u16,
    store: String,
    logs: u16,
    block: usize,
    segment: u64,
    key: String,
}

impl StoreFile {
    fn generate(logs: u16, geometry: Geometry) -> anyhow::Result<Self> {
        let (mut store, mut key) = ([0; 16], [0; 32]);
        getrandom::fill(&mut store).context("the system gives no randomness")?;
        getrandom::fill(&mut key).context("the system gives no randomness")?;
        let Geometry { block_bytes: block, segment_bytes: segment, .. } = geometry;
        Ok(Self { format: FORMAT_VERSION, store: to_hex(&store), logs, block, segment, key: to_hex(&key) })
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let file: Self = toml::from_str(text)
            .context("cannot be understood: restore it from a backup of this directory")?;
        ensure!(
            file.format <= FORMAT_VERSION,
            "has format {}, this program knows {FORMAT_VERSION}: start the newer program that made it",
            file.format,
        );
        ensure!((1..=LOGS_MAX).contains(&file.logs), "logs must be 1..={LOGS_MAX}");
        ensure!(
            file.geometry().is_sound(),
            "block must be a power of two from {BLOCK_BYTES_MIN} to {BLOCK_BYTES_MAX}, segment a multiple of \
             {BLOCK_BYTES_MAX} up to {SEGMENT_BYTES} with room for a batch of {BATCH_BYTES_MAX}"
        );
        file.store()?;
        file.key()?;
        Ok(file)
    }

    fn geometry(&self) -> Geometry {
        Geometry { segment_bytes: self.segment, ..Geometry::of_blocks(self.block) }
    }

    fn store(&self) -> anyhow::Result<[u8; 16]> {
        from_hex(&self.store).context("store is not 32 digits")
    }

    fn key(&self) -> anyhow::Result<[u8; 32]> {
        from_hex(&self.key).context("key is not 64 digits")
    }
}

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

/// Why a log is not served. The others are.
pub type LogRefusal = storage_log::Refusal<io::Error>;

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

/// Makes a store: its name first, then every log with its first segment, then the file that says it is made. A log
/// without a segment is therefore one that has lost it. Whatever is interrupted is gone on with at the next start, or begun anew where
/// other logs or segments are asked for by then.
fn make_store(directory: &Path, path: &Path, logs: u16, segment_bytes: u64) -> anyhow::Result<()> {
    let new = directory.join("store.toml.new");
    let mut begun = fs::read_to_string(&new).ok().and_then(|text| StoreFile::parse(&text).ok());
    if begun.as_ref().is_some_and(|file| (file.logs, file.segment) != (logs, segment_bytes))
        && forget_begun(directory).with_context(|| format!("cannot begin {} anew", directory.display()))?
    {
        begun = None;
    }
    let file = match begun {
        Some(file) => file,
        None => {
            for log in 0..LOGS_MAX {
                ensure!(
                    segments_there(directory, log)?.is_empty(),
                    "{} is missing, and {} has segments, which nobody can read without it: put it back from a backup, where it has the \
                     same name. Where a restore was broken off, remove the directory and restore again",
                    path.display(),
                    log_directory(directory, log).display()
                );
            }
            let geometry = Geometry { segment_bytes, ..Geometry::of_blocks(block_of(directory)) };
            let file = StoreFile::generate(logs, geometry)?;
            let text = toml::to_string(&file).context("a store file is always TOML")?;
            write_new(&new, &text).with_context(|| format!("cannot make {}", path.display()))?;
            file
        }
    };
    let store = file.store().context("a store that was begun has an id")?;
    let maker = SegmentMaker {
        directory: directory.to_owned(),
        store,
        geometry: file.geometry(),
        access: Access::Buffered,
    };
    for log in 0..file.logs {
        let directory = log_directory(directory, log);
        let made = (|| {
            fs::create_dir_all(&directory)?;
            if open_segments(&directory, Access::Buffered)?.is_empty() {
                maker.make(log, 0)?;
            }
            Ok::<(), io::Error>(())
        })();
        made.with_context(|| {
            format!(
                "cannot make {}, of a new store of {} logs, each with two segments of {} MiB; make room, or set a smaller `segment_mib`",
                directory.display(),
                file.logs,
                file.segment >> 20
            )
        })?;
    }
    let made = sync_directory(directory)
        .and_then(|()| fs::rename(&new, path))
        .and_then(|()| sync_directory(directory));
    made.with_context(|| format!("cannot make {}", path.display()))
}

/// Whatever is called like a segment. A directory that cannot be read is none without any.
fn segments_there(directory: &Path, log: u16) -> anyhow::Result<Vec<PathBuf>> {
    let directory = log_directory(directory, log);
    let there = match fs::read_dir(&directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()),
    };
    let mut there =
        there.with_context(|| format!("cannot read {}: has it another owner?", directory.display()))?;
    there.retain(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"seg-")));
    Ok(there)
}

/// Removes the segments of a store that was begun, unless anything is stored in one of them; whether it has. The file that says what was
/// begun stays until it is written anew: with it, what is left of the segments is no other store's.
fn forget_begun(directory: &Path) -> anyhow::Result<bool> {
    let (mut segments, mut directories) = (Vec::new(), Vec::new());
    for log in 0..LOGS_MAX {
        let there = segments_there(directory, log)?;
        directories.extend((!there.is_empty()).then(|| log_directory(directory, log)));
        segments.extend(there);
    }
    for segment in &segments {
        if !is_unused(segment)? {
            return Ok(false);
        }
    }
    segments.iter().try_for_each(fs::remove_file)?;
    // Before another name is written: one that came back after a power cut would be another store's.
    directories.iter().try_for_each(|directory| sync_directory(directory))?;
    Ok(true)
}

/// Whether a segment holds no batch: the first begins behind its header, with what is not zero.
fn is_unused(segment: &Path) -> io::Result<bool> {
    let (file, mut first) = (File::open(segment)?, [0; BLOCK_BYTES_MAX]);
    let read = read_up_to(&file, &mut first, SEGMENT_HEADER_BYTES as u64)?;
    Ok(first[..read].iter().all(|byte| *byte == 0))
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

/// Writes a file for its owner alone, and syncs it; the caller syncs the directory.
pub(crate) fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(bytes)
}
