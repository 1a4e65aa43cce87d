//! What the bare machine can do: in half a minute what a node's figures are multiples of, and the parts of it at length. The
//! disk under a log, in the ways that a log could use it: which blocks to write into, how to sync, how many logs on one device.
//! Sockets and rings, in the ways that a shard uses them: an echo, a fan-out, a hop to another shard; and the node's own echo
//! service beside the bare one. What is compared is measured alternately, a slice of each in turn, because machines drift.

#![forbid(unsafe_code)]

mod disk;
mod net;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use benches::net::bare::{self, BARE, Bare};
use benches::net::beat::{BEAT, Beat};
use benches::net::{beats, stored};
use benches::summary;

const USAGE: &str = "\
Measures what this machine can do with a ring, and nothing else: sockets, hops from core to core, and the disk under DIR.

  floor [DIR]           all of it, in half a minute; 256 MiB in DIR, which is the current directory unless named
  floor --disk [DIR]    the disk in every way that a log could use it; 50 s, 1.3 GiB in DIR
  floor --net           sockets at length, and the node's echo service beside the bare ring; 75 s
  floor --heartbeats [CONNECTIONS [SHARDS]]    heartbeats of quiet sessions of a node beside bare rings that echo; 4 min
  floor --save FILE [DIR]            the few figures that `loadgen floor-compare` wants; 256 MiB in DIR for ten seconds
  floor --stored [SHARDS [SHAPE]]    messages between sessions of a node beside the bare ring; two minutes

Where there is a node, it is the binary gatehouse beside this one.

Example: cargo run --release -p benches --bin floor -- /var/lib/gatehouse
Exit: 0 measured, 2 could not.";

fn main() -> ExitCode {
    let path = |place| std::env::args_os().nth(place).map(PathBuf::from);
    let directory = |place| path(place).unwrap_or_else(|| ".".into());
    let count = |place| std::env::args().nth(place).and_then(|count| count.parse().ok());
    let first = std::env::args().nth(1);
    let measured = match first.as_deref() {
        Some("--disk") if path(3).is_none() => on(&directory(2), disk::all_ways),
        Some("--heartbeats") => beats::main(count(2), count(3)),
        Some("--net") if path(2).is_none() => net::all(),
        Some("--save") => {
            let Some(file) = path(2) else { return usage() };
            summary::save(&file, &directory(3))
        }
        Some("--stored") => stored::main(count(2), &std::env::args().nth(3).unwrap_or_default()),
        Some(BARE) => bare::serve(Bare::of(std::env::args().skip(2)).unwrap_or(Bare::ECHO)),
        Some(BEAT) => match Beat::of(std::env::args().skip(2)) {
            Some(beat) => beat.serve(),
            None => return usage(),
        },
        Some(flag) if flag.starts_with('-') || path(2).is_some() => return usage(),
        _ => net::short().and_then(|()| on(&directory(1), disk::short)),
    };
    measured.map_or_else(
        |error| {
            eprintln!("floor: {error}");
            ExitCode::from(2)
        },
        |()| ExitCode::SUCCESS,
    )
}

/// Measures the disk under `directory`, and says where when that cannot be.
fn on(directory: &Path, measure: fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", directory.display()));
    measure(directory).map_err(named)
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
