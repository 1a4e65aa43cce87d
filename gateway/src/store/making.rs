//! The making of a store: `store.toml`, and the first segment of each log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use router::places::LOGS_MAX;
use serde::{Deserialize, Serialize};
use storage_log::Geometry;
use storage_log::format::{
    BATCH_BYTES_MAX, BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, FORMAT_VERSION, SEGMENT_BYTES, SEGMENT_HEADER_BYTES,
};

use super::disk::{log_directory, read_up_to, sync_directory};
use super::reserve;
use super::segments::{Access, SegmentMaker, block_of, open_segments};

/// `store.toml`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoreFile {
    format: u16,
    store: String,
    pub(super) logs: u16,
    pub(super) block: usize,
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

    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let file: Self = toml::from_str(text)
            .context("cannot be understood: restore it from a backup of this directory")?;
        ensure!(
            file.format <= FORMAT_VERSION,
            "has format {}, this program knows {FORMAT_VERSION}: start the newer program that made it",
            file.format,
        );
        ensure!(
            (1..=LOGS_MAX).contains(&file.logs),
            "`logs` is {}, and a store has 1 to {LOGS_MAX}: it is fixed when the store is made, so put back what it was",
            file.logs
        );
        ensure!(
            file.geometry().is_sound(),
            "block must be a power of two from {BLOCK_BYTES_MIN} to {BLOCK_BYTES_MAX}, segment a multiple of \
             {BLOCK_BYTES_MAX} up to {SEGMENT_BYTES} with room for a batch of {BATCH_BYTES_MAX}"
        );
        file.store()?;
        file.key()?;
        Ok(file)
    }

    pub(super) fn geometry(&self) -> Geometry {
        Geometry { segment_bytes: self.segment, ..Geometry::of_blocks(self.block) }
    }

    pub(super) fn store(&self) -> anyhow::Result<[u8; 16]> {
        from_hex(&self.store).context("`store` is not 32 hex digits: put the line back from a backup, where this file has the same name")
    }

    pub(super) fn key(&self) -> anyhow::Result<[u8; 32]> {
        from_hex(&self.key).context(
            "`key` is not 64 hex digits: put the line back from a backup, where this file has the same name",
        )
    }
}

/// Makes a store: its name first, then every log with its first segment, then the file that says it is made. A log
/// without a segment is therefore one that has lost it. Whatever is interrupted is gone on with at the next start, or begun anew where
/// other logs or segments are asked for by then.
pub(super) fn make_store(directory: &Path, path: &Path, logs: u16, segment_bytes: u64) -> anyhow::Result<()> {
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
    directories.iter().try_for_each(|directory| reserve::forget(directory))?;
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

/// Writes a file for its owner alone, and syncs it; the caller syncs the directory.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
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
