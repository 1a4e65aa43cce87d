//! `gatehouse log verify`: every byte of the logs checked, and every range that is damaged named.
//!
//! Believes nothing: batches, chain, records, positions and sequences first, then every index file against its segment.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind, Write};

use anyhow::Context as _;
use serde::Serialize;
use storage_log::{Met, RangeKind, index_file_name, segment_file_name};

use super::progress::Progress;
use super::shadow::{self, Shadow};
use super::{Data, EXIT_DAMAGED, EXIT_SOUND, ReadFlags, Segment};
use crate::exit::EXIT_REFUSED;
use crate::store::indexes;

/// All of it.
#[derive(Serialize)]
struct Report {
    data: String,
    in_use: bool,
    logs: Vec<LogReport>,
}

/// What was found in one log.
#[derive(Default, Serialize)]
struct LogReport {
    log: u16,
    segments: usize,
    batches: u64,
    /// Sound ones.
    records: u64,
    /// Of the damaged ranges whose records could be counted.
    records_damaged: u64,
    end_segment: String,
    end_offset: u64,
    /// Index files that were compared with what is made from their segments.
    indexes_compared: usize,
    /// Those that could only be asked for their checksums.
    indexes_checked: usize,
    /// Sealed segments without one, which the next start makes.
    indexes_missing: usize,
    damaged: Vec<Place>,
    /// Left by batches that nobody was told of.
    torn: Vec<Place>,
    /// Why it could not be read to its end.
    error: Option<String>,
}

/// A range of a file.
#[derive(Clone, Serialize)]
struct Place {
    file: String,
    offset: u64,
    bytes: u64,
    what: String,
    /// Records that stood there; null where that is not known.
    records: Option<u64>,
}

pub(super) fn run(flags: &ReadFlags, out: &mut dyn Write) -> anyhow::Result<u8> {
    let data = Data::open(&flags.data)?;
    let mut logs = Vec::new();
    for log in 0..data.facts.logs {
        let mut report = LogReport { log, ..LogReport::default() };
        // What one log cannot be read for is no reason to leave the others unread.
        if let Err(error) = verify(&data, log, &mut report) {
            report.error = Some(format!("{error:#}"));
        }
        logs.push(report);
    }
    anyhow::ensure!(
        !data.was_taken()?,
        "a node was started on {} while it was read, so this may not hold together: verify it again",
        flags.data.display()
    );
    let report = Report { data: flags.data.display().to_string(), in_use: data.is_live, logs };
    if flags.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        write_text(&report, out)?;
    }
    out.flush()?;
    let has = |what: fn(&LogReport) -> bool| report.logs.iter().any(what);
    Ok(if has(|log| log.error.is_some()) {
        EXIT_REFUSED
    } else if has(|log| !log.damaged.is_empty()) {
        EXIT_DAMAGED
    } else {
        EXIT_SOUND
    })
}

fn verify(data: &Data, log: u16, report: &mut LogReport) -> anyhow::Result<()> {
    let (config, mut reader) = (data.config(log), data.reader(log)?);
    let segments = reader.segments.clone();
    report.segments = segments.len();
    if segments.is_empty() {
        report.damaged.push(missing_log());
        return Ok(());
    }
    let mut progress = Progress::new(format!("log {log}: {} segments", segments.len()), reader.bytes());
    let (mut shadow, mut compared) = (Shadow::new(&config), BTreeSet::new());
    let index = |base: u64| {
        let segment = segments.iter().find(|segment| segment.base == base);
        let path = segment
            .filter(|segment| segment.index_bytes.is_some() && !segment.is_cold())?
            .path
            .with_file_name(index_file_name(base));
        match fs::read(&path) {
            // The segment is compacted in this moment, and the cold one has its own.
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            read => Some(read.with_context(|| format!("cannot read {}", path.display()))),
        }
    };
    while let Some(piece) = reader.step(&mut |met| report.note(met))? {
        progress.add(piece.bytes.len() as u64);
        shadow.follow(&piece);
        while let Some((base, made)) = shadow.poll() {
            compared.insert(base);
            match index(base) {
                Some(found) => {
                    report.note_index(index_file_name(base), shadow::differences(made, found?, base, &config))
                }
                None => report.indexes_missing += 1,
            }
        }
    }
    let end = reader.finish(&mut |met| report.note(met));
    let geometry = config.geometry;
    let end_base = geometry.segment_of(end.lsn - 1);
    (report.end_segment, report.end_offset) = (segment_file_name(end_base), end.lsn - end_base);
    report.indexes_compared = compared.len() - report.indexes_missing;
    for segment in segments.iter().filter(|segment| !compared.contains(&segment.base)) {
        if let Some((name, in_log, found)) = cold_index(segment)? {
            report.note_index(name, shadow::unsound(&found, in_log, &config));
            report.indexes_checked += 1;
            continue;
        }
        if let Some(found) = index(segment.base) {
            report.note_index(index_file_name(segment.base), shadow::unsound(&found?, segment.base, &config));
            report.indexes_checked += 1;
        }
    }
    Ok(())
}

/// The index of a cold segment: the file that it is in, the base that it names, and that file.
fn cold_index(segment: &Segment) -> anyhow::Result<Option<(String, u64, Vec<u8>)>> {
    let segment = segment.as_it_is()?;
    let directory = segment.path.parent().expect("a segment stands in a directory");
    let read = (|| {
        let Some((_, in_log)) = indexes::open_cold(directory, segment.base)? else {
            return Ok(None);
        };
        let beside = directory.join(index_file_name(segment.base));
        let path = match indexes::open(directory, segment.base)? {
            Some(file) if indexes::is_of(&file, in_log) => beside,
            _ => segment.path.clone(),
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Some((name, in_log, fs::read(path)?)))
    })();
    read.map_err(|error: io::Error| anyhow::anyhow!("cannot read {}: {error}", segment.path.display()))
}

fn missing_log() -> Place {
    let what = words(RangeKind::Missing);
    Place { file: segment_file_name(0), offset: 0, bytes: 0, what, records: None }
}

impl LogReport {
    fn note(&mut self, met: Met<'_>) {
        match met {
            Met::Batch(_) => self.batches += 1,
            Met::Record(_) => self.records += 1,
            Met::Damaged(range) => {
                self.records_damaged += range.records.unwrap_or(0);
                self.damaged.push(Place {
                    file: segment_file_name(range.segment),
                    offset: range.offset,
                    bytes: range.bytes,
                    what: words(range.kind),
                    records: range.records,
                });
            }
            Met::Remains(left) => self.torn.push(Place {
                file: segment_file_name(left.segment),
                offset: left.offset,
                bytes: left.bytes,
                what: "a batch that was being written when the node stopped; nobody was told of it"
                    .to_owned(),
                records: None,
            }),
        }
    }

    fn note_index(&mut self, file: String, ranges: Vec<shadow::Range>) {
        let what = "an index file that is not what is made from its segment; the next start makes it anew";
        self.damaged.extend(ranges.into_iter().map(|(offset, bytes)| Place {
            file: file.clone(),
            offset,
            bytes,
            what: what.to_owned(),
            records: Some(0),
        }));
    }
}

fn words(kind: RangeKind) -> String {
    match kind {
        RangeKind::Batch => "no batch stands where one must",
        RangeKind::BatchSum => "the sum over a batch does not hold, though each of its records does",
        RangeKind::Contradiction => {
            "sound, but its position, sequence or kind does not follow from what stands before it"
        }
        RangeKind::Foreign => "the segment is of another store, log or place",
        RangeKind::Header => "the segment's header is unreadable",
        RangeKind::Missing => "the segment is missing",
        RangeKind::Newer(version) => {
            return format!(
                "the segment has format {version}: verify it with the newer program that made it"
            );
        }
        RangeKind::Records => "records that do not hold their checksums",
        RangeKind::Short => "the file ends before its segment does",
    }
    .to_owned()
}

fn write_text(report: &Report, out: &mut dyn Write) -> anyhow::Result<()> {
    if report.in_use {
        writeln!(out, "{} is in use by a node: verified up to the newest durable mark", report.data)?;
    }
    for log in &report.logs {
        let verdict = if log.damaged.is_empty() { "sound" } else { "DAMAGED" };
        let verdict = if log.error.is_some() { "NOT READ to its end" } else { verdict };
        writeln!(
            out,
            "log {}: {verdict}; {} sound records in {} batches of {} segments, to offset {} of {}; index files: {} compared with \
             their segments, {} only by their checksums, {} not made yet",
            log.log,
            log.records,
            log.batches,
            log.segments,
            log.end_offset,
            log.end_segment,
            log.indexes_compared,
            log.indexes_checked,
            log.indexes_missing
        )?;
        for (kind, place) in log
            .damaged
            .iter()
            .map(|place| ("damaged", place))
            .chain(log.torn.iter().map(|place| ("torn", place)))
        {
            let records = place.records.map_or_else(String::new, |records| format!("; {records} records"));
            writeln!(
                out,
                "  {kind}: log {} {} offset {} length {}: {}{records}",
                log.log, place.file, place.offset, place.bytes, place.what
            )?;
        }
        if let Some(error) = &log.error {
            writeln!(out, "  {error}")?;
        }
    }
    if report.logs.iter().any(|log| log.damaged.iter().any(|place| place.file.ends_with(".log"))) {
        writeln!(
            out,
            "A node refuses a log that is damaged where it must read it, and serves the others. Keep this directory as it is, look \
             for what the kernel says of the disk, and bring the last good backup into a new directory with `gatehouse log \
             restore`."
        )?;
    }
    Ok(())
}
