//! What the bare machine can do. The disk under a log, in the ways that a log could use it: which blocks to write into,
//! how to sync, how many logs on one device. Sockets and rings, in the ways that a shard uses them: an echo, a fan-out, a hop
//! to another shard; and the node's own echo service beside the bare one. What is compared is measured alternately, a slice of
//! each in turn, because machines drift.

#![forbid(unsafe_code)]

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use benches::disk::{self, Blocks, Caching, Figures, Scratch, Way, Writer, write};
use benches::net::bare::{self, BARE, Bare};
use benches::net::client::{Crowd, Greeting};
use benches::net::hop::{Hop, hops};
use benches::net::{Cost, REPLY_BYTES, Server, spread, stored};
use benches::summary;

/// Sizes of batches: a lone message, a few, a busy log's, the largest.
const SIZES: [usize; 4] = [512, 4 << 10, 64 << 10, 1 << 20];

/// Connections to a server: enough that it always finds more of them with something to read than one enter brings.
const CONNECTIONS: usize = 1000;

/// As [`SLICE`], for sockets.
const NET_SLICE: Duration = Duration::from_secs(1);

/// How often the two echoes are compared.
const PAIRS: usize = 9;

/// How long one thing is measured before it is the next one's turn, and how often.
const SLICE: Duration = Duration::from_millis(150);
const ROUNDS: usize = 4;

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
        Some("--net") => echoes().and_then(|()| fan_outs()).and_then(|()| all_hops()),
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
    disk::main("floor", USAGE, |directory| {
        blocks(directory).and_then(|()| ways(directory)).and_then(|()| logs(directory))
    })
}

fn heading(what: &str) {
    println!("\n{what:<34} {:>9} {:>9} {:>9} {:>10} {:>9}", "batch", "p50 ms", "p99 ms", "a second", "MB/s");
}

fn line(what: &str, bytes: usize, figures: &Figures) {
    println!(
        "{what:<34} {bytes:>9} {:>9.3} {:>9.3} {:>10.0} {:>9.1}",
        figures.millis_at(50),
        figures.millis_at(99),
        figures.a_second(),
        figures.megabytes()
    );
}

/// Which blocks to write into.
fn blocks(directory: &Path) -> io::Result<()> {
    const KINDS: [Blocks; 4] = [Blocks::Extended, Blocks::Reserved, Blocks::Zeroed, Blocks::Recycled];
    heading("direct, linked; blocks that are");
    for bytes in SIZES {
        let mut figures = vec![Figures::default(); KINDS.len()];
        let mut files = Vec::new();
        for kind in KINDS {
            files.push(Scratch::new(directory, &format!("disk-{kind:?}.measured"), kind, Caching::Direct)?);
        }
        let mut offsets = [0; KINDS.len()];
        for _ in 0..ROUNDS {
            for (place, file) in files.iter().enumerate() {
                let mut writer = Writer::new(&[file], Way::Linked)?;
                write(&mut writer, &mut figures[place], bytes, SLICE, &mut offsets[place])?;
            }
        }
        for (kind, figures) in KINDS.iter().zip(&figures) {
            line(&format!("{kind:?}").to_lowercase(), bytes, figures);
        }
    }
    Ok(())
}

/// How to sync.
fn ways(directory: &Path) -> io::Result<()> {
    const WAYS: [(Caching, Way); 6] = [
        (Caching::Direct, Way::Linked),
        (Caching::Direct, Way::Through),
        (Caching::Direct, Way::Thread),
        (Caching::Buffered, Way::Linked),
        (Caching::Buffered, Way::Through),
        (Caching::Buffered, Way::Thread),
    ];
    heading("zeroed blocks; write and sync");
    let direct = Scratch::new(directory, "disk-direct.measured", Blocks::Zeroed, Caching::Direct)?;
    let buffered = Scratch::new(directory, "disk-buffered.measured", Blocks::Zeroed, Caching::Buffered)?;
    for bytes in SIZES {
        let mut figures = vec![Figures::default(); WAYS.len()];
        for _ in 0..ROUNDS {
            for ((caching, way), figures) in WAYS.iter().zip(&mut figures) {
                let file = if *caching == Caching::Direct { &direct } else { &buffered };
                let mut writer = Writer::new(&[file], *way)?;
                write(&mut writer, figures, bytes, SLICE, &mut 0)?;
            }
        }
        for ((caching, way), figures) in WAYS.iter().zip(&figures) {
            line(&format!("{caching:?}, {way:?}").to_lowercase(), bytes, figures);
        }
    }
    Ok(())
}

/// How many logs on one device.
fn logs(directory: &Path) -> io::Result<()> {
    heading("direct, zeroed; logs on the device");
    let mut files = Vec::new();
    for place in 0..4 {
        let name = format!("disk-log-{place}.measured");
        files.push(Scratch::new(directory, &name, Blocks::Zeroed, Caching::Direct)?);
    }
    for bytes in SIZES {
        let ways = [Way::Linked, Way::Through];
        let mut figures = vec![[Figures::default(), Figures::default(), Figures::default()]; ways.len()];
        for _ in 0..ROUNDS {
            for (way, figures) in ways.iter().zip(&mut figures) {
                for (count, figures) in [1, 2, 4].into_iter().zip(figures) {
                    let files: Vec<&Scratch> = files[..count].iter().collect();
                    let mut writer = Writer::new(&files, *way)?;
                    write(&mut writer, figures, bytes, SLICE, &mut 0)?;
                }
            }
        }
        for (way, figures) in ways.iter().zip(&figures) {
            for (count, figures) in [1, 2, 4].into_iter().zip(figures) {
                line(&format!("{count}, {way:?}").to_lowercase(), bytes, figures);
            }
        }
    }
    Ok(())
}

/// The node's echo service beside the bare one.
fn echoes() -> io::Result<()> {
    let directory = std::env::temp_dir().join(format!("floor-{}", std::process::id()));
    let servers = [Server::bare(&Bare::ECHO)?, Server::node(&directory, 1, "echo")?];
    let mut crowds = [
        Crowd::connect(servers[0].address, CONNECTIONS, 1, (1, REPLY_BYTES), Greeting::Group)?,
        Crowd::connect(servers[1].address, CONNECTIONS, 1, (1, REPLY_BYTES), Greeting::Upgrade)?,
    ];
    Cost::heading("echo, 64 B, 1,000 connections", "message");
    let (mut ratios, mut all) = (Vec::new(), [Cost::default(); 2]);
    for _ in 0..PAIRS {
        let mut pair = [Cost::default(); 2];
        for (place, server) in servers.chunks(1).enumerate() {
            pair[place] = Cost::of(server, &mut crowds[place], NET_SLICE, 1)?;
            all[place].add(&pair[place]);
        }
        ratios.push(pair[1].nanos() / pair[0].nanos());
    }
    all[0].line("bare ring");
    all[1].line("gatehouse --echo");
    let (middle, least, greatest) = spread(&ratios);
    println!("node / bare, {PAIRS} pairs: median {middle:.2}, {least:.2} to {greatest:.2}");
    drop(servers);
    std::fs::remove_dir_all(directory)
}

/// One message to so many sockets.
fn fan_outs() -> io::Result<()> {
    Cost::heading("fan-out, 64 B, bare ring; sockets", "delivery");
    for members in [1, 2, 10, 100, 500] {
        let server = [Server::bare(&Bare::ECHO)?];
        let mut crowd = Crowd::connect(
            server[0].address,
            CONNECTIONS / members,
            members,
            (1, REPLY_BYTES),
            Greeting::Group,
        )?;
        Cost::of(&server, &mut crowd, NET_SLICE / 4, 1)?;
        let cost = Cost::of(&server, &mut crowd, NET_SLICE * 2, members as u64)?;
        cost.line(&members.to_string());
    }
    Ok(())
}

/// From one shard to another.
fn all_hops() -> io::Result<()> {
    Cost::heading("hop to another shard, both sides", "hop");
    for (what, hop) in [
        ("doorbell, one under way", Hop::Doorbell),
        ("mail, one under way", Hop::Mail(1)),
        ("mail, 16 under way", Hop::Mail(16)),
        ("mail, 256 under way", Hop::Mail(256)),
    ] {
        hops(hop, NET_SLICE * 2)?.line(what);
    }
    Ok(())
}
