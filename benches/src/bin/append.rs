//! A log over a real disk, beside the disk alone and an embedded store: see [`benches::append`].

#![forbid(unsafe_code)]

use std::process::ExitCode;

use benches::{append, disk};
use mimalloc::MiMalloc;

/// That of the node.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const USAGE: &str = "\
Measures a log over the disk under DIR, and beside it the disk alone and an embedded store.

  append [DIR]     default: the current directory; needs 4 GiB there for a minute

Example: cargo run --release -p benches --bin append -- /var/lib/gatehouse
Exit: 0 measured, 2 could not.";

fn main() -> ExitCode {
    disk::main("append", USAGE, append::measure)
}
