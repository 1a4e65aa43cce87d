//! Every record of a log, read from the disk in the order in which they were appended, past the page cache, and verified.
//!
//! In turn with the disk alone, which reads the same files and looks at nothing.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use ring::FileBuffer;
use storage_log::format::{BLOCK_BYTES_MAX, FEED_BYTES, INDEX_FOOTER_BYTES};
use storage_log::{Glance, IndexFooter, LogConfig, index_file_name, segment_file_name};

/// How often each has its turn.
const ROUNDS: usize = 5;

/// A sealed segment.
struct Sealed {
    path: PathBuf,
    base: u64,
    end_lsn: u64,
}

/// Measures it on the sealed segments of the log in `directory`, those of `bases`, and prints medians.
///
/// # Errors
/// Those of the disk; and a log that is not sound.
pub fn measure(directory: &Path, config: &LogConfig, bases: impl Iterator<Item = u64>) -> anyhow::Result<()> {
    let sealed = bases.filter_map(|base| sealed(directory, config, base).transpose());
    let sealed = sealed.collect::<anyhow::Result<Vec<_>>>()?;
    let bytes: u64 = sealed.iter().map(|segment| segment.end_lsn - segment.base).sum();
    let mut buffer = FileBuffer::aligned(FEED_BYTES, BLOCK_BYTES_MAX);
    let (mut replays, mut reads, mut records) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        records = 0;
        for segment in &sealed {
            records += replay(segment, config, &mut buffer)?;
        }
        replays.push(begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        for segment in &sealed {
            read(segment, &mut buffer)?;
        }
        reads.push(begun.elapsed().as_secs_f64());
    }
    let (replay, read) = (median(&mut replays), median(&mut reads));
    let rate = |seconds: f64| bytes as f64 / 1e6 / seconds;
    println!(
        "replay of {} sealed segments: {:.0} MB/s, {:.1} million records a second; the disk alone {:.0} MB/s: {:.2} of it",
        sealed.len(),
        rate(replay),
        records as f64 / 1e6 / replay,
        rate(read),
        read / replay
    );
    Ok(())
}

fn sealed(directory: &Path, config: &LogConfig, base: u64) -> anyhow::Result<Option<Sealed>> {
    let path = directory.join(segment_file_name(base));
    let Ok(index) = File::open(directory.join(index_file_name(base))) else {
        return Ok(None);
    };
    let mut footer = [0; INDEX_FOOTER_BYTES];
    let at = index.metadata()?.len().saturating_sub(footer.len() as u64);
    index.read_exact_at(&mut footer, at)?;
    let footer = IndexFooter::parse(&footer, base, config).context("an index file is damaged")?;
    Ok(Some(Sealed { path, base, end_lsn: footer.end_lsn() }))
}

/// Shows and counts its records.
fn replay(segment: &Sealed, config: &LogConfig, buffer: &mut FileBuffer) -> anyhow::Result<u64> {
    let file = open(segment)?;
    let mut glance = Glance::new(config.geometry, segment.base, segment.end_lsn);
    let mut records = 0;
    while let Some(offset) = glance.offset() {
        let bytes = fill(&file, offset, buffer)?;
        anyhow::ensure!(glance.feed(bytes, &mut |_| records += 1), "a record is damaged");
    }
    Ok(records)
}

fn read(segment: &Sealed, buffer: &mut FileBuffer) -> anyhow::Result<()> {
    let file = open(segment)?;
    for offset in (0..segment.end_lsn - segment.base).step_by(FEED_BYTES) {
        fill(&file, offset, buffer)?;
    }
    Ok(())
}

fn open(segment: &Sealed) -> anyhow::Result<File> {
    let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    Ok(OpenOptions::new().read(true).custom_flags(flags).open(&segment.path)?)
}

fn fill<'b>(file: &File, offset: u64, buffer: &'b mut FileBuffer) -> anyhow::Result<&'b [u8]> {
    let read = file.read_at(buffer.bytes_mut(), offset)?;
    Ok(&buffer.bytes()[..read])
}

fn median(seconds: &mut [f64]) -> f64 {
    seconds.sort_unstable_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
