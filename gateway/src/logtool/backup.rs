//! `gatehouse log backup`: a copy of a data directory that a node may be serving.
//!
//! Sealed segments never change: they are linked where the file system can, else copied, and not again when they are there with the
//! right hash. The segment that takes batches is copied up to the log's durable mark, past the page cache, under a name of its own.
//! The manifest comes last; until then the backup is the one before.
//!
//! Not in it: index files, which are made anew from the segments, and `dev.key` and `admin.token`, which belong to a machine.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf, absolute};

use anyhow::{Context as _, bail, ensure};
use blake3::Hasher;
use clap::Args;

use super::data::buffer;
use super::manifest::{Entry, MANIFEST_FILE, Manifest, STORE_FILE};
use super::progress::Progress;
use super::{Data, EXIT_SOUND, Segment};
use crate::clock::unix_now;
use crate::erasures::ERASURES_FILE;
use crate::revocations::REVOCATIONS_FILE;
use crate::store::BACKUP_LOCK;
use crate::store::disk::{in_synced_pieces, log_directory, replace, sync_directory};

/// From where to where.
#[derive(Args, Clone, Debug)]
pub struct BackupFlags {
    /// Data directory of the node, which may run
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Directory of the backup: a new one, or that of the backup before
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
}

/// A backup on its way.
struct Backup<'a> {
    data: &'a Data,
    to: &'a Path,
    before: Option<Manifest>,
    manifest: Manifest,
    copied_bytes: u64,
    copied: usize,
    linked: usize,
    kept: usize,
}

pub(super) fn run(flags: &BackupFlags, out: &mut dyn Write) -> anyhow::Result<u8> {
    let (data, to) = (Data::open(&flags.data)?, flags.to.as_path());
    ensure_outside(to, &flags.data)?;
    let _lock = open_target(to)?;
    let before = Manifest::read(to)?;
    let manifest = Manifest::new(&data.facts.id, data.facts.geometry.segment_bytes, unix_now().0);
    if let Some(before) = &before {
        ensure!(
            before.store == manifest.store,
            "{} holds a backup of another store: name a new directory for this one",
            to.display()
        );
    }
    let mut backup =
        Backup { data: &data, to, before, manifest, copied_bytes: 0, copied: 0, linked: 0, kept: 0 };
    for log in 0..data.facts.logs {
        backup.take_log(log)?;
    }
    // Last: whoever was put out until now stays out where this is restored, and what was erased stays so.
    backup.take_files()?;
    ensure!(
        !data.was_taken()?,
        "a node was started on {} while it was copied: back it up again, that works beside a node",
        flags.data.display()
    );
    let written = sync_directory(to).and_then(|()| backup.manifest.write(to));
    written.with_context(|| format!("cannot write {}", to.join(MANIFEST_FILE).display()))?;
    backup.forget_others()?;
    let bytes: u64 = backup.manifest.files.iter().map(|entry| entry.bytes).sum();
    writeln!(
        out,
        "{}: a backup of {} files and {bytes} bytes; {} copied ({} bytes), {} linked, {} there before",
        to.display(),
        backup.manifest.files.len(),
        backup.copied,
        backup.copied_bytes,
        backup.linked,
        backup.kept
    )?;
    out.flush()?;
    Ok(EXIT_SOUND)
}

/// A backup inside of what it is made of goes with it: with the directory, with its disk, and with whatever tidies up there.
fn ensure_outside(to: &Path, data: &Path) -> anyhow::Result<()> {
    let data = fs::canonicalize(data).with_context(|| format!("cannot read {}", data.display()))?;
    ensure!(
        !where_it_will_be(to)?.starts_with(&data),
        "{} is inside of the data directory {}: name a directory elsewhere, best on another disk",
        to.display(),
        data.display()
    );
    Ok(())
}

/// The place of a directory that need not be there yet, without symbolic links.
fn where_it_will_be(directory: &Path) -> anyhow::Result<PathBuf> {
    let directory = absolute(directory).with_context(|| format!("cannot find {}", directory.display()))?;
    let mut place = PathBuf::new();
    for component in directory.components() {
        match component {
            Component::ParentDir => {
                place.pop();
            }
            component => place.push(component),
        }
        if let Ok(there) = fs::canonicalize(&place) {
            place = there;
        }
    }
    Ok(place)
}

/// A new directory, or that of a backup before, for this backup alone.
fn open_target(to: &Path) -> anyhow::Result<File> {
    let is_new = match fs::read_dir(to) {
        Err(error) if error.kind() == ErrorKind::NotFound => true,
        entries => entries.with_context(|| format!("cannot read {}", to.display()))?.next().is_none(),
    };
    ensure!(
        is_new || to.join(BACKUP_LOCK).exists(),
        "{} holds something that is no backup: name a new directory, or that of a backup before",
        to.display()
    );
    make_directory(to)?;
    let path = to.join(BACKUP_LOCK);
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let lock = lock.with_context(|| format!("cannot make {}", path.display()))?;
    if lock.try_lock().is_err() {
        bail!("another backup into {} is under way: wait for it", to.display());
    }
    Ok(lock)
}

/// Makes a directory for its owner alone, if it is not there.
pub(super) fn make_directory(directory: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.with_context(|| format!("cannot make {}", directory.display()))
}

impl Backup<'_> {
    fn take_log(&mut self, log: u16) -> anyhow::Result<()> {
        let name = format!("log-{log:02}");
        make_directory(&self.to.join(&name))?;
        let is_live = self.data.is_live;
        let taken = self.manifest.files.len();
        let sealed = listed_anew(log, is_live, || {
            self.manifest.files.truncate(taken);
            self.take_end(log, &name)
        })?;
        let total = sealed.iter().map(|segment| segment.bytes).sum();
        let mut progress = Progress::new(format!("log {log}: {} segments", sealed.len() + 1), total);
        for segment in &sealed {
            self.take_sealed_as_it_is(segment, &name)?;
            progress.add(segment.bytes);
        }
        let synced = sync_directory(&self.to.join(&name));
        synced.with_context(|| format!("cannot sync {}", self.to.join(&name).display()))
    }

    /// Takes the segment that takes batches, and gives those that are sealed. At once when it was found: while the others are taken it may be
    /// sealed and written anew, and then nothing has its bytes any more.
    fn take_end(&mut self, log: u16, name: &str) -> anyhow::Result<Vec<Segment>> {
        let (mut segments, mark) = self.data.caught_up(log)?;
        ensure!(
            segments.first().is_some_and(|first| first.base == 0),
            "log {log} of {} has lost its first segment: `gatehouse log verify` says what is damaged",
            self.data.directory.display()
        );
        let segment_bytes = self.data.facts.geometry.segment_bytes;
        if segments.iter().zip(0..).any(|(segment, number)| segment.base != number * segment_bytes) {
            // Beside a node it may be there under its other name by now: as any that is missing, it is looked for once more.
            return Err(io::Error::from(ErrorKind::NotFound)).with_context(|| {
                format!(
                    "log {log} of {} has lost a segment: `gatehouse log verify` says what is damaged",
                    self.data.directory.display()
                )
            });
        }
        let active = self.data.facts.geometry.segment_of(mark);
        let open = segments.split_off(segments.partition_point(|segment| segment.base < active));
        for segment in &open {
            let bytes = match self.data.is_live {
                true => mark.saturating_sub(segment.base),
                false => segment.bytes_there()?,
            };
            if bytes > 0 {
                self.take_part(segment, path_of(segment, name), bytes)?;
            }
        }
        Ok(segments)
    }

    /// Takes a sealed segment, which a node may write anew in this moment.
    fn take_sealed_as_it_is(&mut self, listed: &Segment, log: &str) -> anyhow::Result<()> {
        let mut segment = listed.as_it_is()?;
        for _ in 1..LISTINGS_MAX {
            let linked = self.linked;
            let taken = self.take_sealed(&segment, path_of(&segment, log));
            let now = listed.as_it_is()?;
            let is_linked = taken.is_ok() && self.linked > linked;
            if is_linked || (&now.path, now.bytes) == (&segment.path, segment.bytes) {
                return taken;
            }
            if taken.is_ok() {
                // What was copied may be the beginning of another file.
                self.manifest.files.pop();
            }
            segment = now;
        }
        self.take_sealed(&segment, path_of(&segment, log))
    }

    fn take_sealed(&mut self, segment: &Segment, path: String) -> anyhow::Result<()> {
        let before = self.before.as_ref().and_then(|before| before.entry(&path));
        if let Some(entry) = before.filter(|entry| entry.file == path && entry.bytes == segment.bytes)
            && entry.is_whole(self.to)?
        {
            self.kept += 1;
            self.manifest.files.push(entry.clone());
            return Ok(());
        }
        let (target, new) = (self.to.join(&path), self.to.join(format!("{path}.new")));
        let _ = fs::remove_file(&new);
        let (bytes, hash) = if fs::hard_link(&segment.path, &new).is_ok() {
            self.linked += 1;
            // Of what was linked: under its own name another file may stand by now.
            let linked = fs::metadata(&new).with_context(|| format!("cannot read {}", new.display()))?;
            let linked = Segment { path: new.clone(), bytes: linked.len(), ..segment.clone() };
            (linked.bytes, linked.copy(linked.bytes, None)?)
        } else {
            self.copied += 1;
            self.copied_bytes += segment.bytes;
            (segment.bytes, segment.copy(segment.bytes, Some(&new))?)
        };
        fs::rename(&new, &target).with_context(|| format!("cannot make {}", target.display()))?;
        self.manifest.files.push(Entry { file: path.clone(), path, bytes, blake3: hash });
        Ok(())
    }

    fn take_part(&mut self, segment: &Segment, path: String, bytes: u64) -> anyhow::Result<()> {
        // A name that no backup before gave to other bytes: what its manifest names stays as it is until ours is there.
        let new = self.to.join(format!("{path}.new"));
        let hash = segment.copy(bytes, Some(&new))?;
        let file = format!("{path}.{bytes:x}{}.part", &hash[..16]);
        let target = self.to.join(&file);
        fs::rename(&new, &target).with_context(|| format!("cannot make {}", target.display()))?;
        self.copied += 1;
        self.copied_bytes += bytes;
        self.manifest.files.push(Entry { path, file, bytes, blake3: hash });
        Ok(())
    }

    fn take_files(&mut self) -> anyhow::Result<()> {
        for path in [STORE_FILE, REVOCATIONS_FILE, ERASURES_FILE] {
            let source = self.data.directory.join(path);
            let text = match fs::read_to_string(&source) {
                Err(error) if error.kind() == ErrorKind::NotFound && path != STORE_FILE => continue,
                read => read.with_context(|| format!("cannot read {}", source.display()))?,
            };
            let blake3 = blake3::hash(text.as_bytes()).to_hex().to_string();
            let file = match path.strip_suffix(".json") {
                Some(list) => format!("{list}-{}.json", &blake3[..16]),
                None => path.to_owned(),
            };
            let target = self.to.join(&file);
            let written = replace(&target, |file| file.write_all(text.as_bytes()));
            written.with_context(|| format!("cannot write {}", target.display()))?;
            self.copied += 1;
            self.copied_bytes += text.len() as u64;
            self.manifest.files.push(Entry { path: path.to_owned(), file, bytes: text.len() as u64, blake3 });
        }
        Ok(())
    }

    /// Removes what the manifest does not name: of the backup before, and of one that was interrupted.
    fn forget_others(&self) -> anyhow::Result<()> {
        let named: BTreeSet<PathBuf> =
            self.manifest.files.iter().map(|entry| self.to.join(&entry.file)).collect();
        let logs = (0..self.data.facts.logs).map(|log| log_directory(self.to, log));
        let is_ours = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            ["seg-", "revocations-", "erasures-"].iter().any(|begin| name.starts_with(begin))
        };
        for directory in logs.chain([self.to.to_owned()]) {
            let forget = || {
                for entry in fs::read_dir(&directory)? {
                    let path = entry?.path();
                    if is_ours(&path) && !named.contains(&path) {
                        fs::remove_file(&path)?;
                    }
                }
                Ok::<(), io::Error>(())
            };
            forget().with_context(|| format!("cannot tidy up {}", directory.display()))?;
        }
        Ok(())
    }
}

/// Times that a log's files are listed for one backup: a node writes one segment anew at a time, and rarely.
const LISTINGS_MAX: u32 = 5;

/// What `attempt` gives, which lists the files of a log and reads some. Where a node runs it may have written one anew in between, and that
/// is under another name then; so they are listed anew.
fn listed_anew<T>(
    log: u16,
    is_live: bool,
    mut attempt: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    for _ in 1..LISTINGS_MAX {
        match attempt() {
            Err(error) if is_live && is_missing(&error) => eprintln!(
                "gatehouse: log {log}: a segment was written anew while it was read; its files are listed once more"
            ),
            done => return done,
        }
    }
    attempt()
}

fn is_missing(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == ErrorKind::NotFound)
}

/// What a segment is called in a backup.
fn path_of(segment: &Segment, log: &str) -> String {
    let name = segment.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    format!("{log}/{name}")
}

impl Segment {
    /// Bytes up to the last block that is not zero.
    fn bytes_there(&self) -> anyhow::Result<u64> {
        let (file, mut buffer, mut offset, mut there) = (self.open()?, buffer(), 0, 0);
        while offset < self.bytes && !crate::store::disk::is_blank_from(&file, offset) {
            let bytes = self.read(&file, offset, &mut buffer)?;
            if let Some(last) = bytes.chunks(BLOCK).rposition(|block| block.iter().any(|byte| *byte != 0)) {
                there = (offset + ((last + 1) * BLOCK) as u64).min(self.bytes);
            }
            if bytes.is_empty() {
                break;
            }
            offset += bytes.len() as u64;
        }
        Ok(there)
    }

    /// Copies its first `bytes` into the file `to`, if one is named, and syncs that: in pieces, because a node may be storing on the same disk. Their BLAKE3.
    fn copy(&self, bytes: u64, to: Option<&Path>) -> anyhow::Result<String> {
        let (source, mut buffer, mut hasher, mut offset) = (self.open()?, buffer(), Hasher::new(), 0);
        let mut target = match to {
            None => None,
            Some(path) => {
                let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
                Some((path, file.with_context(|| format!("cannot make {}", path.display()))?))
            }
        };
        let mut out = target.as_mut().map(|(path, file)| (*path, in_synced_pieces(file)));
        while offset < bytes {
            let piece = self.read(&source, offset, &mut buffer)?;
            let piece = &piece[..piece.len().min((bytes - offset) as usize)];
            ensure!(
                !piece.is_empty(),
                "{} ended while it was copied, at offset {offset}",
                self.path.display()
            );
            hasher.update(piece);
            if let Some((path, out)) = &mut out {
                out.write_all(piece).with_context(|| format!("cannot write {}", path.display()))?;
            }
            offset += piece.len() as u64;
        }
        out.map_or(Ok(()), |(path, mut out)| {
            out.flush().with_context(|| format!("cannot write {}", path.display()))
        })?;
        if let Some((path, file)) = target {
            file.sync_all().with_context(|| format!("cannot sync {}", path.display()))?;
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

/// The smallest that batches begin at.
const BLOCK: usize = storage_log::format::BLOCK_BYTES_MIN;

#[cfg(test)]
mod tests {
    use storage_log::format::SEGMENT_BYTES;

    use super::*;
    use crate::store::Store;
    use crate::store::disk::cold_file_name;

    /// A store whose one segment holds a batch, as a node has it.
    fn live(directory: &Path) -> Data {
        let store = Store::open(directory, 1, SEGMENT_BYTES).expect("a new store");
        drop(store.open_log(0, [1; 16], 1, 1).expect("a new log"));
        Data { is_live: true, ..Data::open(directory).expect("a store") }
    }

    #[test]
    fn files_that_were_replaced_since_they_were_listed_are_listed_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let data = live(directory.path());
        let mut stale = Some(data.segments(0).expect("a list"));
        let path = stale.as_ref().expect("a list")[0].path.clone();
        fs::rename(&path, path.with_file_name(cold_file_name(0))).expect("one disk");
        let mut listings = 0;
        let mut attempt = || {
            listings += 1;
            let segments = stale.take().map_or_else(|| data.segments(0), Ok)?;
            data.mark(&segments)
        };
        listed_anew(0, true, &mut attempt).expect("it is there under its new name");
        assert_eq!(listings, 2);
    }

    #[test]
    fn what_stays_away_is_told_and_so_is_what_is_gone_where_no_node_runs() {
        let attempts = |is_live| {
            let mut attempts = 0;
            let refused = listed_anew(0, is_live, || {
                attempts += 1;
                File::open("/nowhere/seg").context("cannot read /nowhere/seg")
            });
            let refused = refused.expect_err("it is not there");
            assert!(format!("{refused:#}").starts_with("cannot read /nowhere/seg"), "{refused:#}");
            attempts
        };
        assert_eq!((attempts(true), attempts(false)), (LISTINGS_MAX, 1));
    }

    /// What has its place by the time that it is read is not what was linked.
    #[test]
    fn the_hash_of_a_linked_segment_is_that_of_what_was_linked() {
        let root = tempfile::tempdir().expect("a directory");
        let (from, to) = (root.path().join("data"), root.path().join("to"));
        let data = live(&from);
        make_directory(&to.join("log-00")).expect("a directory");
        let manifest = Manifest::new(&data.facts.id, data.facts.geometry.segment_bytes, 1);
        let mut backup = Backup {
            data: &data,
            to: &to,
            before: None,
            manifest,
            copied_bytes: 0,
            copied: 0,
            linked: 0,
            kept: 0,
        };
        let mut segment = data.segments(0).expect("a list").remove(0);
        // As it was listed before it was written anew, and became another length.
        segment.bytes -= 4096;
        let path = path_of(&segment, "log-00");
        backup.take_sealed(&segment, path).expect("room");
        let entry = &backup.manifest.files[0];
        assert_eq!((backup.linked, entry.bytes), (1, SEGMENT_BYTES));
        assert!(entry.is_whole(&to).expect("it is there"));
    }
}
