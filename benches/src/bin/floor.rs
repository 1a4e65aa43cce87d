//! What the bare machine can do: the disk under a log, without a log.
//!
//! Every figure of a whole node that depends on the machine is quoted as a multiple of one of these, from the same run.
//! Writes go the way the log's go: into a preallocated file, through one ring, each write linked to its sync.

#![forbid(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ring::{Completion, FileBuffer, FileId, Ring, RingConfig, Token};

/// Bytes of the file that is written over and over.
const FILE_BYTES: u64 = 256 << 20;

/// How long each measurement takes.
const EACH: Duration = Duration::from_secs(3);

const USAGE: &str = "\
Measures what the disk under DIR can do, without a log.

  floor [DIR]     default: the current directory; needs 256 MiB there for some seconds

Example: cargo run --release -p benches --bin floor -- /var/lib/gatehouse
Exit: 0 measured, 2 could not.";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let directory = arguments.next().map_or_else(|| PathBuf::from("."), PathBuf::from);
    if arguments.next().is_some() || directory.as_os_str() == "--help" {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    let path = directory.join("floor.measured");
    let measured = measure(&path);
    let removed = fs::remove_file(&path);
    match measured.and(removed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {}: {error}", path.display());
            ExitCode::from(2)
        }
    }
}

fn measure(path: &std::path::Path) -> std::io::Result<()> {
    let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
    let mut ring =
        Ring::new(RingConfig { sockets_max: 1, ..RingConfig::default() }).map_err(std::io::Error::other)?;
    let file = ring.add_file(file);
    ring.allocate(file, 0, FILE_BYTES, Token::new(0));
    wait(&mut ring)?;
    println!(
        "{:<28} {:>10} {:>10} {:>10} {:>12}",
        "write + fdatasync, one at a time", "p50 ms", "p99 ms", "a second", "MB/s"
    );
    for bytes in [512, 4 << 10, 64 << 10, 1 << 20] {
        measure_size(&mut ring, file, bytes)?;
    }
    Ok(())
}

/// One write after another of one size, each synced before the next.
fn measure_size(ring: &mut Ring, file: FileId, bytes: usize) -> std::io::Result<()> {
    let mut buffer = vec![7; bytes];
    let mut latencies = Vec::new();
    let mut offset = 0;
    let begun = Instant::now();
    while begun.elapsed() < EACH {
        let started = Instant::now();
        let length = buffer.len();
        ring.write_and_sync(file, offset, FileBuffer::new(buffer, 0..length), Token::new(0));
        buffer = wait(ring)?;
        latencies.push(started.elapsed());
        offset = (offset + bytes as u64) % (FILE_BYTES - (1 << 20));
    }
    latencies.sort_unstable();
    let at = |share: usize| latencies[(latencies.len() - 1) * share / 100].as_secs_f64() * 1_000.0;
    let a_second = latencies.len() as f64 / begun.elapsed().as_secs_f64();
    let megabytes = a_second * bytes as f64 / 1e6;
    println!("{:>26} B {:>14.3} {:>10.3} {:>10.0} {:>12.1}", bytes, at(50), at(99), a_second, megabytes);
    Ok(())
}

/// Turns until something has been written or allocated; gives the buffer back.
fn wait(ring: &mut Ring) -> std::io::Result<Vec<u8>> {
    let mut completions = Vec::new();
    loop {
        ring.turn(None, &mut completions)?;
        for completion in completions.drain(..) {
            match completion {
                Completion::Written { buffer, result, .. } => {
                    result?;
                    return Ok(buffer.into_parts().0);
                }
                Completion::Allocated { result, .. } => {
                    result?;
                    return Ok(Vec::new());
                }
                _ => {}
            }
        }
    }
}
