//! `gatehouse log repair`: what can be mended in a log without a backup, and only when it is asked for.
//!
//! By itself it mends what costs nothing: a segment's header is made again from what the store knows. Where records are damaged it
//! names the places; with `--cut-at` and one of them it cuts the log there, and says what that costs. The file that was there
//! before is kept beside the new one as `*.damaged-<seconds since 1970>`, which no node reads.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use protocol::ids::ConversationId;
use rustix::fs::{FallocateFlags, fallocate};
use storage_log::{
    DamagedRange, Met, RangeKind, SegmentHeader, index_file_name, is_cold, segment_file_name,
    segment_of_file_name,
};

use super::data::buffer;
use super::{Data, EXIT_DAMAGED, EXIT_SOUND, Segment};
use crate::clock::unix_now;
use crate::store::disk::{log_directory, sync_directory};

/// Conversations named in a report; the rest is counted.
const NAMED_MAX: usize = 20;

/// Which log, and where it may be cut.
#[derive(Args, Clone, Debug)]
pub struct RepairFlags {
    /// Data directory; no node may have it open
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Number of the log
    #[arg(long, value_name = "N")]
    pub log: u16,
    /// Give up everything in the log from this damage on, named as `verify` or the node's log names it
    #[arg(long, value_name = "SEGMENT:OFFSET", value_parser = parse_place)]
    pub cut_at: Option<(u64, u64)>,
}

/// `seg-0000000000400000.log:4096`: base of the segment, and offset.
fn parse_place(text: &str) -> Result<(u64, u64), String> {
    let parsed = text
        .rsplit_once(':')
        .and_then(|(segment, offset)| Some((segment_of_file_name(segment)?, offset.parse().ok()?)));
    parsed.ok_or_else(|| "name a segment and an offset, as seg-0000000000400000.log:4096".to_owned())
}

/// A damaged range, and where the log would be cut because of it.
struct Found {
    range: DamagedRange,
    /// Where the batch begins that it lies in.
    cut_lsn: u64,
    /// The last position below that.
    keeps_to: u64,
}

/// What a walk says.
#[derive(Default)]
struct Seen {
    found: Vec<Found>,
    /// First byte of the newest batch, the one behind it, and the last position before it.
    batch: (u64, u64, u64),
    last_position: u64,
    next_position: u64,
}

impl Seen {
    fn note(&mut self, met: Met<'_>) {
        match met {
            Met::Batch(batch) => self.batch = (batch.lsn, batch.lsn + batch.bytes, self.last_position),
            Met::Record(record) => self.last_position = record.position(),
            Met::Remains(_) => {}
            Met::Damaged(range) => {
                let (start, end, before) = self.batch;
                let lsn = range.segment + range.offset;
                let (cut_lsn, keeps_to) =
                    if (start..end).contains(&lsn) { (start, before) } else { (lsn, self.last_position) };
                self.found.push(Found { range, cut_lsn, keeps_to });
            }
        }
    }
}

pub(super) fn run(flags: &RepairFlags, out: &mut dyn Write) -> anyhow::Result<u8> {
    let _lock = lock(&flags.data)?;
    // What is read now is read as at rest: the lock that is held is ours.
    let data = Data { is_live: false, ..Data::open(&flags.data)? };
    ensure!(
        flags.log < data.facts.logs,
        "{} has logs 0 to {}, and no log {}",
        flags.data.display(),
        data.facts.logs - 1,
        flags.log
    );
    ensure!(
        data.segments(flags.log)?.first().is_some_and(|first| first.base == 0),
        "log {} has lost its first segment: there is nothing to mend it from but a backup, see `gatehouse log restore`",
        flags.log
    );
    let moved = format!("damaged-{}", unix_now().0 / 1000);
    let seen = walk(&data, flags.log)?;
    let is_header = |found: &&Found| found.range.kind == RangeKind::Header;
    let cold: Vec<u64> = data
        .segments(flags.log)?
        .iter()
        .filter(|segment| segment.is_cold())
        .map(|segment| segment.base)
        .collect();
    for Found { range, .. } in
        seen.found.iter().filter(is_header).filter(|found| !cold.contains(&found.range.segment))
    {
        mend_header(&data, flags.log, range.segment, &moved)?;
        let name = segment_file_name(range.segment);
        writeln!(
            out,
            "log {}: the header of {name} was made again; the file before is {name}.{moved}",
            flags.log
        )?;
    }
    if let Some((segment, offset)) = flags.cut_at {
        // A start and `stat` name the batch that they could not read, `verify` what of it is damaged.
        let named = |found: &&Found| {
            found.range.segment == segment
                && (found.range.offset == offset || found.cut_lsn == segment + offset)
        };
        let Some(found) = seen.found.iter().filter(|found| !is_header(found)).find(named) else {
            bail!(
                "log {} has no damage that begins at offset {offset} of {}: `gatehouse log verify` names the places",
                flags.log,
                segment_file_name(segment)
            );
        };
        say_what_is_lost(&data, flags.log, found, seen.next_position, out)?;
        cut(&data, flags.log, found.cut_lsn, &moved)?;
        writeln!(out, "the files before are kept as *.{moved}")?;
    }
    let left = walk(&data, flags.log)?.found;
    say_what_is_left(flags.log, &left, &cold, out)?;
    out.flush()?;
    Ok(if left.is_empty() { EXIT_SOUND } else { EXIT_DAMAGED })
}

/// Says what is still damaged; `cold` are the segments that were compacted.
fn say_what_is_left(log: u16, left: &[Found], cold: &[u64], out: &mut dyn Write) -> anyhow::Result<()> {
    for Found { range, .. } in left {
        let (name, offset, bytes) = (segment_file_name(range.segment), range.offset, range.bytes);
        if is_cold(range.segment) || cold.contains(&range.segment) {
            writeln!(
                out,
                "log {log}: damaged: {name} offset {offset} length {bytes}: records of a compacted segment, which nothing here can \
                 bring back; their readers are told of a gap"
            )?;
            continue;
        }
        writeln!(
            out,
            "log {log}: still damaged: {name} offset {offset} length {bytes}; --cut-at {name}:{offset} gives up what follows"
        )?;
    }
    if left.is_empty() {
        writeln!(out, "log {log}: sound")?;
    } else {
        writeln!(out, "A backup loses less than a cut: see `gatehouse log restore`.")?;
    }
    Ok(())
}

/// Holds the directory as a node does.
fn lock(directory: &Path) -> anyhow::Result<File> {
    ensure!(
        directory.join("store.toml").exists(),
        "{} is no data directory: it has no store.toml",
        directory.display()
    );
    let path = directory.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    ensure!(file.try_lock().is_ok(), "{} is in use by a node: stop that one first", directory.display());
    Ok(file)
}

fn walk(data: &Data, log: u16) -> anyhow::Result<Seen> {
    let (mut reader, mut seen) = (data.reader(log)?, Seen::default());
    while reader.step(&mut |met| seen.note(met))?.is_some() {}
    seen.next_position = reader.finish(&mut |met| seen.note(met)).next_position;
    Ok(seen)
}

fn say_what_is_lost(
    data: &Data,
    log: u16,
    found: &Found,
    next: u64,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let (mut reader, mut sound, mut conversations) = (data.reader(log)?, 0_u64, BTreeSet::new());
    let mut note = |met: Met<'_>| {
        if let Met::Record(record) = met
            && record.position() > found.keeps_to
        {
            sound += 1;
            conversations.insert(record.stream().id);
        }
    };
    while reader.step(&mut note)?.is_some() {}
    reader.finish(&mut note);
    let base = data.facts.geometry.segment_of(found.cut_lsn);
    writeln!(
        out,
        "log {log}: cut at offset {} of {}, behind position {}. {} records are given up, {sound} of them sound, of {} \
         conversations. Their sequences are given out again; devices that were further are told to reset.",
        found.cut_lsn - base,
        segment_file_name(base),
        found.keeps_to,
        (next - 1).saturating_sub(found.keeps_to),
        conversations.len()
    )?;
    for id in conversations.iter().take(NAMED_MAX) {
        writeln!(out, "  loses records: {}", ConversationId(*id))?;
    }
    if conversations.len() > NAMED_MAX {
        writeln!(out, "  and {} more", conversations.len() - NAMED_MAX)?;
    }
    Ok(())
}

fn mend_header(data: &Data, log: u16, base: u64, moved: &str) -> anyhow::Result<()> {
    let segments = data.segments(log)?;
    let segment = segments.iter().find(|segment| segment.base == base).context("the segment is gone")?;
    replace(data, log, segment, segment.bytes, moved)
}

/// Cuts a log at `lsn`, from its end on, so that an interruption leaves a log that can be cut again.
fn cut(data: &Data, log: u16, lsn: u64, moved: &str) -> anyhow::Result<()> {
    let base = data.facts.geometry.segment_of(lsn);
    let segments = data.segments(log)?;
    let directory = log_directory(&data.directory, log);
    for segment in segments.iter().rev() {
        // The index file of the segment before says how far the next one was durable: it is made anew too.
        if segment.base + data.facts.geometry.segment_bytes >= base {
            move_aside(&directory.join(index_file_name(segment.base)), moved)?;
        }
        if segment.base > base {
            move_aside(&segment.path, moved)?;
        }
    }
    if let Some(segment) = segments.iter().find(|segment| segment.base == base) {
        replace(data, log, segment, lsn - base, moved)?;
    }
    sync_directory(&directory).with_context(|| format!("cannot sync {}", directory.display()))
}

fn move_aside(path: &Path, moved: &str) -> anyhow::Result<()> {
    match fs::rename(path, aside(path, moved)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        renamed => renamed.with_context(|| format!("cannot move {} aside", path.display())),
    }
}

fn aside(path: &Path, moved: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(moved);
    name.into()
}

/// Makes a segment again from a sound header and what stands in its file up to `bytes`, and keeps the file before. At no time is
/// there none under its name.
fn replace(data: &Data, log: u16, segment: &Segment, bytes: u64, moved: &str) -> anyhow::Result<()> {
    let geometry = data.facts.geometry;
    let header = SegmentHeader {
        store: data.facts.id,
        log,
        base: segment.base,
        block_bytes: geometry.block_bytes,
        segment_bytes: geometry.segment_bytes,
    };
    let new = segment.path.with_extension("new");
    copy(segment, &header, bytes, &new)?;
    let directory = log_directory(&data.directory, log);
    let kept = aside(&segment.path, moved);
    let placed = keep(&segment.path, &kept)
        .and_then(|()| fs::rename(&new, &segment.path))
        .and_then(|()| sync_directory(&directory));
    placed.with_context(|| format!("cannot put the new {} in its place", segment.path.display()))
}

/// A second name for a file; where that is the name of one kept before in the same second, it stays.
fn keep(path: &Path, kept: &Path) -> io::Result<()> {
    match fs::hard_link(path, kept) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    }
}

fn copy(segment: &Segment, header: &SegmentHeader, bytes: u64, new: &Path) -> anyhow::Result<()> {
    let said = || format!("cannot write {}", new.display());
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(new)
        .with_context(said)?;
    fallocate(&file, FallocateFlags::empty(), 0, header.segment_bytes)
        .map_err(io::Error::from)
        .with_context(said)?;
    let (source, mut buffer, mut offset) = (segment.open()?, buffer(), 0);
    while offset < bytes {
        let piece = segment.read(&source, offset, &mut buffer)?;
        let piece = &piece[..piece.len().min((bytes - offset) as usize)];
        ensure!(!piece.is_empty(), "{} ends at offset {offset}", segment.path.display());
        file.write_all_at(piece, offset).with_context(said)?;
        offset += piece.len() as u64;
    }
    file.write_all_at(&header.encode(), 0).and_then(|()| file.sync_all()).with_context(said)
}
