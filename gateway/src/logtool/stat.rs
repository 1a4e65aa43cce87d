//! `gatehouse log stat`: how much stands in each log, and where it ends.
//!
//! Reads a log as a start does: sealed segments from their index files, the rest batch by batch. It therefore takes what a start
//! takes, and believes index files that hold their checksums; `verify` believes nothing. An index file that is missing is not made. Then
//! it goes through all index files once more: what of the sealed segments is live.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt as _;

use anyhow::Context as _;
use serde::Serialize;
use storage_log::format::SEGMENT_HEADER_BYTES;
use storage_log::{Damage, INDEX_BLOCK_BYTES, Log, Met, Refusal, as_appended, segment_file_name};

use super::{Data, EXIT_DAMAGED, EXIT_SOUND, ReadFlags, Segment, Settled, time};
use crate::store::disk::log_directory;
use crate::store::indexes;
use crate::store::scan::look;
use crate::store::segments::{SegmentFile, open_cold_segment};

/// One log, as it is said.
#[derive(Serialize)]
struct LogStat {
    log: u16,
    segments: usize,
    /// Of the disk, index files among them.
    disk_bytes: u64,
    index_files: usize,
    index_bytes: u64,
    #[serde(flatten)]
    holds: Option<Holds>,
    /// In words; none when what was read is sound.
    damage: Option<String>,
}

#[derive(Serialize)]
struct Holds {
    records: u64,
    conversations: usize,
    users: usize,
    first_position: u64,
    last_position: u64,
    /// Milliseconds since 1970.
    oldest: Option<u64>,
    newest: Option<u64>,
    /// Where the newest batch ends.
    end_segment: String,
    end_offset: u64,
    /// What a torn batch left behind the end.
    torn_bytes: u64,
    /// What sealed segments take, and how much of that are records that somebody may ask for: messages, and newest states.
    sealed_bytes: u64,
    /// None when a block of an index is damaged.
    live_bytes: Option<u64>,
}

/// All of it.
#[derive(Serialize)]
struct Stat {
    data: String,
    in_use: bool,
    logs: Vec<LogStat>,
}

pub(super) fn run(flags: &ReadFlags, out: &mut dyn Write) -> anyhow::Result<u8> {
    let data = Data::open(&flags.data)?;
    let mut logs = Vec::new();
    for log in 0..data.facts.logs {
        logs.push(stat(&data, log)?);
    }
    anyhow::ensure!(
        !data.was_taken()?,
        "a node was started on {} while it was read, so this may not hold together: ask again",
        flags.data.display()
    );
    let stat = Stat { data: flags.data.display().to_string(), in_use: data.is_live, logs };
    if flags.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&stat)?)?;
    } else {
        write_text(&stat, out)?;
    }
    out.flush()?;
    let is_damaged = stat.logs.iter().any(|log| log.damage.is_some());
    Ok(if is_damaged { EXIT_DAMAGED } else { EXIT_SOUND })
}

fn stat(data: &Data, log: u16) -> anyhow::Result<LogStat> {
    let segments = data.segments(log)?;
    let (holds, damage) = match holds(data, log, &segments)? {
        Ok(holds) => (Some(holds), None),
        Err(Damage { segment, offset, .. }) => {
            let segment = segment_file_name(segment);
            (
                None,
                Some(format!(
                    "damaged at offset {offset} of {segment}: `gatehouse log verify` says how much"
                )),
            )
        }
    };
    let index_bytes = segments.iter().filter_map(|segment| segment.index_bytes).sum();
    Ok(LogStat {
        log,
        segments: segments.len(),
        disk_bytes: segments.iter().map(|segment| segment.disk_bytes).sum::<u64>() + index_bytes,
        index_files: segments.iter().filter(|segment| segment.index_bytes.is_some()).count(),
        index_bytes,
        holds,
        damage,
    })
}

fn holds(data: &Data, log: u16, segments: &[Segment]) -> anyhow::Result<Result<Holds, Damage>> {
    let end = match data.settled(segments)? {
        Settled::AtRest => u64::MAX,
        Settled::UpTo(mark) => mark,
    };
    let open = |segment: &Segment| -> anyhow::Result<_> {
        let directory = segment.path.parent().expect("a segment stands in a directory");
        if segment.is_cold() {
            return Ok((segment.base, open_cold_segment(directory, segment.base)?));
        }
        let (index, in_log) = (indexes::open(directory, segment.base)?, segment.base);
        Ok((segment.base, SegmentFile { buffered: segment.open()?, direct: None, index, in_log }))
    };
    let mut files = segments.iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
    let recovered = match look(&data.config(log), &mut files, end) {
        Ok(recovered) => recovered,
        Err(Refusal::Damaged(damage)) => return Ok(Err(damage)),
        Err(Refusal::Disk(error)) => {
            return Err(error)
                .with_context(|| format!("cannot read log {log}: see what the kernel says of the disk"));
        }
    };
    let records = recovered.records;
    let live_bytes = live_bytes(data, &recovered.log)?;
    let (conversations, users) = recovered.log.ids_count();
    let last_position = recovered.log.durable().position();
    let last =
        recovered.rewrite.map(|batch| (batch.segment, batch.offset + batch.buffer.bytes().len() as u64));
    let (end_segment, end_offset) =
        last.unwrap_or((segments.last().map_or(0, |segment| segment.base), SEGMENT_HEADER_BYTES as u64));
    Ok(Ok(Holds {
        records,
        conversations,
        users,
        first_position: if records == 0 { 0 } else { last_position + 1 - records },
        last_position,
        oldest: oldest(data, log)?,
        newest: Some(recovered.log.clock(0)).filter(|at| *at > 0),
        end_segment: segment_file_name(end_segment),
        end_offset,
        torn_bytes: recovered.dropped.map_or(0, |dropped| dropped.bytes),
        sealed_bytes: recovered.log.sealed_bytes(),
        live_bytes,
    }))
}

/// Goes through the indexes of all sealed segments; none when one is damaged, or was written anew meanwhile.
fn live_bytes(data: &Data, log: &Log) -> anyhow::Result<Option<u64>> {
    let directory = log_directory(&data.directory, log.number());
    let (mut live, mut block) = (0, vec![0; INDEX_BLOCK_BYTES]);
    let mut open: Option<(u64, File)> = None;
    for place in log.sealed_blocks() {
        if open.as_ref().is_none_or(|(base, _)| *base != place.base) {
            let file = indexes::open_whichever(&directory, as_appended(place.base))?;
            open = file.map(|file| (place.base, file));
        }
        let is_read =
            open.as_ref().is_some_and(|(_, file)| file.read_exact_at(&mut block, place.offset()).is_ok());
        match log.live_bytes(place, &block).filter(|_| is_read) {
            Some(bytes) => live += bytes,
            None => return Ok(None),
        }
    }
    Ok(Some(live))
}

/// When the oldest record was stored.
fn oldest(data: &Data, log: u16) -> anyhow::Result<Option<u64>> {
    let (mut reader, mut oldest) = (data.reader(log)?, None);
    reader.step(&mut |met| {
        if let Met::Record(record) = met {
            oldest.get_or_insert(record.at());
        }
    })?;
    Ok(oldest)
}

fn write_text(stat: &Stat, out: &mut dyn Write) -> anyhow::Result<()> {
    let until = if stat.in_use { ", in use by a node: read up to the newest durable mark" } else { "" };
    writeln!(out, "{}: {} logs{until}", stat.data, stat.logs.len())?;
    for log in &stat.logs {
        writeln!(
            out,
            "log {}: {} segments, {} bytes on disk, {} of them in {} index files",
            log.log, log.segments, log.disk_bytes, log.index_bytes, log.index_files
        )?;
        if let Some(damage) = &log.damage {
            writeln!(out, "  {damage}")?;
        }
        let Some(holds) = &log.holds else {
            continue;
        };
        let at = |millis: Option<u64>| millis.map_or("-".to_owned(), time);
        writeln!(
            out,
            "  {} records of {} conversations and {} users, positions {} to {}",
            holds.records, holds.conversations, holds.users, holds.first_position, holds.last_position
        )?;
        writeln!(out, "  from {} to {}", at(holds.oldest), at(holds.newest))?;
        writeln!(out, "  ends at offset {} of {}", holds.end_offset, holds.end_segment)?;
        if let Some(live) = holds.live_bytes.filter(|_| holds.sealed_bytes > 0) {
            let percent = live * 100 / holds.sealed_bytes;
            writeln!(out, "  sealed segments: {} bytes, {percent} % of them live", holds.sealed_bytes)?;
        }
        if holds.torn_bytes > 0 {
            writeln!(
                out,
                "  {} bytes behind it are of a batch that was being written when the node stopped; nobody was told of it, \
                 and the next start drops it",
                holds.torn_bytes
            )?;
        }
    }
    Ok(())
}
