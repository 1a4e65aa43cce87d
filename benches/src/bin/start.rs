//! A node's start: how long until a log of many records and streams serves again, and what its index takes in memory.
//!
//! The log is made once, as a node makes it, and kept under DIR: a second run measures only.

#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use benches::replay;
use gateway::store::disk::log_directory;
use gateway::store::indexes;
use gateway::store::segments::{SegmentFile, SegmentMaker};
use gateway::store::snapshots::{self, SNAPSHOT_FILE_NAME};
use gateway::store::{OpenLog, Store};
use router::places::KINDS;
use storage_log::format::{INDEX_FOOTER_BYTES, SEGMENT_BYTES};
use storage_log::{
    Answer, Draft, Lookup, Page, Progress, SnapshotFooter, SpareWork, StreamId, index_file_name,
};

/// Payload of a record.
const PAYLOAD: [u8; 150] = [9; 150];

/// When the log is made, in milliseconds since 1970,
const MADE: u64 = 1_800_000_000_000;

/// and when a start on it is measured: as after a night. What was stored in the last 70 seconds before a start is read once more for its
/// ids, from sealed segments too.
const NOW: u64 = MADE + 8 * 3_600_000;

const USAGE: &str = "\
Makes a log of RECORDS records in STREAMS conversations of as many users, and measures a start on it, and a replay.

  start DIR [RECORDS [STREAMS]]     default: 10,000,000 in 1,000,000; needs 5 GiB in DIR

Example: cargo run --release -p benches --bin start -- /var/tmp/log
Exit: 0 measured, 2 could not.";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().filter(|first| first != "--help").map(PathBuf::from);
    let mut number = |default: u64| arguments.next().map_or(Some(default), |text| text.parse().ok());
    let (Some(directory), Some(records), Some(streams)) = (directory, number(10_000_000), number(1_000_000))
    else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let made = directory.join("store.toml").exists();
    let filled = if made { Ok(()) } else { fill(&directory, records, streams) };
    let measured = filled.and_then(|()| measure(&directory, streams));
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("start: {}: {error:#}", directory.display());
            ExitCode::from(2)
        }
    }
}

fn id(kind: storage_log::StreamKind, number: u64) -> StreamId {
    let [first, second] = [number, !number].map(|seed| mix(seed).to_le_bytes());
    let mut id = [0; 16];
    id[..8].copy_from_slice(&first);
    id[8..].copy_from_slice(&second);
    StreamId { kind, id }
}

/// Numbers that look random, the same in every run.
fn mix(seed: u64) -> u64 {
    let mixed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb)
}

fn open(directory: &Path, now: u64) -> anyhow::Result<(Store, OpenLog)> {
    let store = Store::open(directory, 1, SEGMENT_BYTES)?;
    let log = store.open_log(0, [7; 16], 1, now).map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    Ok((store, log))
}

/// What was written of what is derived from the log.
#[derive(Default)]
struct Snapshots {
    count: u32,
    bytes: u64,
    time: Duration,
    index_bytes: u64,
}

/// Makes the log.
fn fill(directory: &Path, records: u64, streams: u64) -> anyhow::Result<()> {
    let (store, mut open) = open(directory, MADE)?;
    let maker = store.segment_maker();
    let (begun, mut snapshots) = (Instant::now(), Snapshots::default());
    for number in 0..records {
        // One in eight goes to the few that are always busy.
        let conversation =
            if number % 8 == 0 { mix(number) % (streams / 100 + 1) } else { mix(number) % streams };
        let stream = id(KINDS.home, conversation);
        // Each user has one of its own, and some more.
        let peers = [conversation, mix(conversation + streams) % streams];
        let links = peers.map(|user| id(KINDS.linked[0], user + (1 << 40)).into());
        let expected_head = open.log.head(stream).seq;
        let draft = Draft { stream, expected_head, messages: 1, schema: 1, payload: &PAYLOAD, links: &links };
        while !matches!(open.log.append(&[draft], number), Answer::Stored(_)) {
            write(&mut open, &maker, directory, &mut snapshots)?;
        }
        if number % 4_096 == 0 {
            write(&mut open, &maker, directory, &mut snapshots)?;
        }
    }
    write(&mut open, &maker, directory, &mut snapshots)?;
    println!(
        "filled with {records} records in {:.1} s; memory is measured by the next run",
        begun.elapsed().as_secs_f64()
    );
    println!(
        "the snapshot was made {} times in {:.1} s: {:.0} bytes written a record, for {:.0} of index files",
        snapshots.count,
        snapshots.time.as_secs_f64(),
        snapshots.bytes as f64 / records as f64,
        snapshots.index_bytes as f64 / records as f64
    );
    Ok(())
}

/// Does what the log wants done.
fn write(
    open: &mut OpenLog,
    maker: &SegmentMaker,
    directory: &Path,
    snapshots: &mut Snapshots,
) -> io::Result<()> {
    while let Some(work) = open.log.poll_spare() {
        match work {
            SpareWork::Make(base) => {
                open.segments.push((base, maker.make(0, base)?));
                open.log.handle_spare(Ok(()));
            }
            SpareWork::Zero(_) => open.log.handle_spare_zeroed(),
            SpareWork::Hurry => {}
        }
    }
    while let Some(batch) = open.log.poll_write(0) {
        let file = open.segments.iter().find(|(base, _)| *base == batch.segment);
        file.expect("it was made").1.write(&batch)?;
        open.log.handle_written(batch.buffer, true).expect("written");
    }
    while let Some(job) = open.log.poll_index() {
        let directory = log_directory(directory, 0);
        let (sealed, file) = indexes::write(&directory, &job)?;
        open.log.handle_indexed(Some(sealed));
        let segment = open.segments.iter_mut().find(|(base, _)| *base == job.base());
        segment.expect("it was made").1.index = Some(file);
        snapshots.index_bytes += fs::metadata(directory.join(index_file_name(job.base())))?.len();
        let begun = Instant::now();
        if snapshots::renew_if_due(&directory, job.config(), job.base())? {
            snapshots.count += 1;
            snapshots.bytes += fs::metadata(directory.join(SNAPSHOT_FILE_NAME))?.len();
            snapshots.time += begun.elapsed();
        }
    }
    Ok(())
}

fn measure(directory: &Path, streams: u64) -> anyhow::Result<()> {
    // What a start after a crash finds in the page cache is little: it is told to forget what it can.
    let is_cold = fs::write("/proc/sys/vm/drop_caches", "1").is_ok();
    let (before, read_before, begun) = (resident_bytes()?, read_bytes()?, Instant::now());
    let (_store, open) = open(directory, NOW)?;
    let (time, after, read) = (begun.elapsed(), resident_bytes()?, read_bytes()? - read_before);
    let snapshot =
        fs::metadata(log_directory(directory, 0).join(SNAPSHOT_FILE_NAME)).map_or(0, |file| file.len());
    let (conversations, users) = open.log.ids_count();
    let ids = (conversations + users) as u64;
    println!(
        "start {:.2} s{} with {} records, {conversations} conversations, {users} users, {} segments",
        time.as_secs_f64(),
        if is_cold { "" } else { ", page cache warm: only root may drop it," },
        open.log.durable().position(),
        open.segments.len()
    );
    let since = index_bytes_since(&log_directory(directory, 0), &open)?;
    println!(
        "read {:.0} MB for it: {:.2} times the snapshot of {:.0} MB, which is that and the index files since, and the open segment",
        read as f64 / 1e6,
        (snapshot + since) as f64 / snapshot as f64,
        snapshot as f64 / 1e6
    );
    println!(
        "index {:.1} B an id; the process grew by {:.1} B an id, with the postings of the open segment",
        open.log.resident_bytes() as f64 / ids as f64,
        (after - before) as f64 / ids as f64
    );
    pages(&open, streams)?;
    let bases = open.segments.iter().map(|(base, _)| *base);
    replay::measure(&log_directory(directory, 0), open.log.config(), bases)
}

/// Bytes of the index files that the snapshot does not cover.
fn index_bytes_since(directory: &Path, open: &OpenLog) -> anyhow::Result<u64> {
    let snapshot = fs::read(directory.join(SNAPSHOT_FILE_NAME))?;
    let footer = snapshot.len().checked_sub(INDEX_FOOTER_BYTES).context("no snapshot")?;
    let footer =
        SnapshotFooter::parse(&snapshot[footer..], open.log.config()).context("a damaged snapshot")?;
    let bases = open.segments.iter().skip(footer.segments as usize).map(|(base, _)| *base);
    let bytes = |base| fs::metadata(directory.join(index_file_name(base))).map_or(0, |file| file.len());
    Ok(bases.map(bytes).sum())
}

/// Pages of 50 from the beginning of conversations: all of them cold.
fn pages(open: &OpenLog, streams: u64) -> anyhow::Result<()> {
    let page = Page { items_max: 50, bytes_max: 48 << 10 };
    let (mut blocks, mut records, begun, rounds) = (0, 0, Instant::now(), 1_000);
    for round in 0..rounds {
        let stream = id(KINDS.home, mix(round) % streams);
        let mut lookup = Lookup::after(&open.log, stream, 0, page);
        while let Progress::Read(place) = lookup.poll(&open.log) {
            let file = open.segments.iter().find(|(base, _)| *base == place.base).map(|(_, file)| file);
            lookup.feed(place, read(file, place.offset())?);
            blocks += 1;
        }
        records += lookup.entries().len();
    }
    println!(
        "oldest page of a conversation: {:.1} blocks of the index, {:.1} records, {:.0} us",
        f64::from(blocks) / rounds as f64,
        records as f64 / rounds as f64,
        begun.elapsed().as_micros() as f64 / rounds as f64
    );
    Ok(())
}

fn read(file: Option<&SegmentFile>, offset: u64) -> anyhow::Result<Vec<u8>> {
    let file = file.and_then(|file| file.index.as_ref());
    let mut block = vec![0; storage_log::INDEX_BLOCK_BYTES];
    std::os::unix::fs::FileExt::read_exact_at(
        file.ok_or_else(|| anyhow::anyhow!("an index file is missing"))?,
        &mut block,
        offset,
    )?;
    Ok(block)
}

/// Bytes that this process has read.
fn read_bytes() -> anyhow::Result<u64> {
    let io = fs::read_to_string("/proc/self/io")?;
    let read = io.lines().find_map(|line| line.strip_prefix("rchar:")?.trim().parse().ok());
    read.context("/proc/self/io has no rchar")
}

fn resident_bytes() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kib.ok_or_else(|| anyhow::anyhow!("/proc/self/status has no VmRSS"))? << 10)
}
