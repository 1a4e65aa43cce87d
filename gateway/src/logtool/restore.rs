//! `gatehouse log restore`: a data directory from a backup.
//!
//! Everything is checked before anything is made, and again while it is copied. `store.toml` comes last: where it stands, the
//! directory is whole. Nothing is linked: what a node writes to must not be a backup's.
//!
//! The restored store keeps its id, so that cursors of before the backup go on. Each start of a node records its run and the first
//! position that it may give: a cursor whose run went further than the backup, or is not in it, is answered with a reset.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Args;
use rustix::fs::{FallocateFlags, fallocate};

use super::backup::make_directory;
use super::manifest::{Entry, MANIFEST_FILE, Manifest, STORE_FILE};
use super::progress::Progress;
use super::{EXIT_DAMAGED, EXIT_SOUND};
use crate::store::disk::sync_directory;

/// Read and written at a time.
const PIECE_BYTES: usize = 1 << 20;

/// From where to where.
#[derive(Args, Clone, Debug)]
pub struct RestoreFlags {
    /// Directory of the backup
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// Data directory to make: a new or an empty one
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
}

pub(super) fn run(flags: &RestoreFlags, out: &mut dyn Write) -> anyhow::Result<u8> {
    let (from, to) = (flags.from.as_path(), flags.data.as_path());
    let Some(manifest) = Manifest::read(from)? else {
        anyhow::bail!("{} is no backup: it has no {MANIFEST_FILE}, which is written last", from.display());
    };
    ensure!(
        manifest.entry(STORE_FILE).is_some(),
        "the backup in {} has no {STORE_FILE}: it was not made by this program",
        from.display()
    );
    ensure!(
        is_empty(to)?,
        "{} is not empty, and nothing is ever restored over what is there: name a new directory",
        to.display()
    );
    let total = manifest.files.iter().map(|entry| entry.bytes).sum();
    let mut damaged = Vec::new();
    let mut progress = Progress::new("checking".to_owned(), total);
    for entry in &manifest.files {
        if !entry.is_whole(from)? {
            damaged.push(entry.file.as_str());
        }
        progress.add(entry.bytes);
    }
    drop(progress);
    if !damaged.is_empty() {
        for file in damaged {
            writeln!(out, "damaged: {file} is missing or does not hold its hash")?;
        }
        writeln!(
            out,
            "Nothing was restored. Take another backup; this one can be made whole by backing up into it again."
        )?;
        out.flush()?;
        return Ok(EXIT_DAMAGED);
    }
    let mut progress = Progress::new("restoring".to_owned(), total);
    make_directory(to)?;
    let (last, first): (Vec<_>, Vec<_>) = manifest.files.iter().partition(|entry| entry.path == STORE_FILE);
    for entry in first.into_iter().chain(last) {
        restore(&manifest, entry, from, to)?;
        progress.add(entry.bytes);
    }
    drop(progress);
    writeln!(
        out,
        "{}: restored as it was at {}. Start a node on it; tokens that were revoked since have to be revoked again, and what \
         was erased since is there: erase it again, or put today's erasures.json beside it first",
        to.display(),
        super::time(manifest.begun_at)
    )?;
    out.flush()?;
    Ok(EXIT_SOUND)
}

fn is_empty(directory: &Path) -> anyhow::Result<bool> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        entries => {
            Ok(entries.with_context(|| format!("cannot read {}", directory.display()))?.next().is_none())
        }
    }
}

fn restore(manifest: &Manifest, entry: &Entry, from: &Path, to: &Path) -> anyhow::Result<()> {
    let (source, target) = (from.join(&entry.file), to.join(&entry.path));
    let directory = target.parent().expect("it stands in the directory").to_owned();
    let segment_bytes = entry.is_appended().then_some(manifest.segment_bytes);
    if entry.segment().is_some() {
        make_directory(&directory)?;
    }
    let new = to.join(format!("{}.new", entry.path));
    let hash = copy(&source, &new, segment_bytes)
        .with_context(|| format!("cannot restore {} as {}", source.display(), target.display()))?;
    ensure!(
        hash == entry.blake3,
        "{} changed while it was restored: restore again, into a new directory",
        source.display()
    );
    let placed =
        fs::rename(&new, &target).and_then(|()| sync_directory(&directory)).and_then(|()| sync_directory(to));
    placed.with_context(|| format!("cannot make {}", target.display()))
}

/// Copies a file, reserves all of a segment, syncs. BLAKE3 of what was copied.
fn copy(source: &Path, target: &Path, segment_bytes: Option<u64>) -> std::io::Result<String> {
    let mut source = File::open(source)?;
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(target)?;
    if let Some(bytes) = segment_bytes {
        fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
    }
    let (mut hasher, mut piece) = (blake3::Hasher::new(), vec![0; PIECE_BYTES]);
    loop {
        let read = match source.read(&mut piece) {
            Ok(0) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read?,
        };
        hasher.update(&piece[..read]);
        file.write_all(&piece[..read])?;
    }
    file.sync_all()?;
    Ok(hasher.finalize().to_hex().to_string())
}
