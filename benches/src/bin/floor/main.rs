//! What the bare machine can do. The disk under a log, in the ways that a log could use it: which blocks to write into,
//! how to sync, how many logs on one device. Sockets and rings, in the ways that a shard uses them: an echo, a fan-out, a hop
//! to another shard; and the node's own echo service beside the bare one. What is compared is measured alternately, a slice of
//! each in turn, because machines drift.

#![forbid(unsafe_code)]

mod disk;
mod net;

use std::process::ExitCode;

use benches::net::bare::{self, BARE, Bare};
use benches::net::stored;
use benches::summary;

const USAGE: &str = "\
Measures what the disk under DIR can do, without a log; or what sockets and rings can, without a node, and the node's
echo service beside them.

  floor [DIR]     default: the current directory; needs 1.3 GiB there for a minute
  floor --net     takes a minute; the node is the binary gatehouse beside this one
  floor --save FILE [DIR]            the few figures that `loadgen floor-compare` wants; 256 MiB in DIR for ten seconds
  floor --stored [SHARDS [SHAPE]]    messages between sessions of a node beside the bare ring; two minutes

Example: cargo run --release -p benches --bin floor -- /var/lib/gatehouse
Exit: 0 measured, 2 could not.";

fn main() -> ExitCode {
    let measured = match std::env::args().nth(1).as_deref() {
        Some("--net") => net::all(),
        Some("--save") => {
            let path = |place| std::env::args_os().nth(place).map(std::path::PathBuf::from);
            let Some(file) = path(2) else { return usage() };
            summary::save(&file, &path(3).unwrap_or_else(|| ".".into()))
        }
        Some("--stored") => {
            let shards = std::env::args().nth(2).and_then(|shards| shards.parse().ok());
            stored::main(shards, &std::env::args().nth(3).unwrap_or_default())
        }
        Some(BARE) => bare::serve(Bare::of(std::env::args().skip(2)).unwrap_or(Bare::ECHO)),
        _ => return disk_main(),
    };
    measured.map_or_else(
        |error| {
            eprintln!("floor: {error}");
            ExitCode::from(2)
        },
        |()| ExitCode::SUCCESS,
    )
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn disk_main() -> ExitCode {
    benches::disk::main("floor", USAGE, disk::all_ways)
}
