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
use benches::net::client::{Crowd, Greeting};
use benches::net::hop::{Hop, hops};
use benches::net::{Cost, Server, bare, spread};

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

Example: cargo run --release -p benches --bin floor -- /var/lib/gatehouse
Exit: 0 measured, 2 could not.";

/// Says to this program that it is the bare server.
const BARE: &str = "--bare";

fn main() -> ExitCode {
    let measured = match std::env::args().nth(1).as_deref() {
        Some("--net") => echoes().and_then(|()| fan_outs()).and_then(|()| all_hops()),
        Some(BARE) => bare::serve(),
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

fn bare_server() -> io::Result<Server> {
    Server::start(&std::env::current_exe()?, &[BARE], |line| line.parse().ok())
}

/// A node with one shard and its echo service, on a directory that it may forget.
fn node(directory: &Path) -> io::Result<Server> {
    let program = std::env::current_exe()?.with_file_name("gatehouse");
    if !program.is_file() {
        return Err(io::Error::other("build the node first: cargo build --release -p gateway"));
    }
    let directory = directory.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut arguments = vec!["serve", "--shards", "1", "--data", directory];
    ["--listen", "--admin", "--echo"].iter().for_each(|address| arguments.extend([address, "127.0.0.1:0"]));
    Server::start(&program, &arguments, |line| {
        let (_, rest) = line.split_once("serving")?.1.split_once("echo=\"")?;
        rest.split_once('"')?.0.parse().ok()
    })
}

fn net_heading(what: &str, unit: &str) {
    println!("\n{what:<34} {:>10} {:>12} {:>7}", format!("ns/{unit}"), "a second", "cores");
}

fn net_line(what: &str, cost: &Cost) {
    println!("{what:<34} {:>10.0} {:>12.0} {:>7.2}", cost.nanos(), cost.a_second(), cost.busy());
}

/// The node's echo service beside the bare one.
fn echoes() -> io::Result<()> {
    let directory = std::env::temp_dir().join(format!("floor-{}", std::process::id()));
    let (bare, node) = (bare_server()?, node(&directory)?);
    let mut crowds = [
        Crowd::connect(bare.address, CONNECTIONS, 1, Greeting::Group)?,
        Crowd::connect(node.address, CONNECTIONS, 1, Greeting::Upgrade)?,
    ];
    net_heading("echo, 64 B, 1,000 connections", "message");
    let (mut ratios, mut all) = (Vec::new(), [Cost::default(); 2]);
    for _ in 0..PAIRS {
        let mut pair = [Cost::default(); 2];
        for (place, server) in [&bare, &node].into_iter().enumerate() {
            pair[place] = Cost::of(server, &mut crowds[place], NET_SLICE, 1)?;
            all[place].add(&pair[place]);
        }
        ratios.push(pair[1].nanos() / pair[0].nanos());
    }
    net_line("bare ring", &all[0]);
    net_line("gatehouse --echo", &all[1]);
    let (middle, least, greatest) = spread(&ratios);
    println!("node / bare, {PAIRS} pairs: median {middle:.2}, {least:.2} to {greatest:.2}");
    drop(node);
    std::fs::remove_dir_all(directory)
}

/// One message to so many sockets.
fn fan_outs() -> io::Result<()> {
    net_heading("fan-out, 64 B, bare ring; sockets", "delivery");
    for members in [1, 2, 10, 100, 500] {
        let server = bare_server()?;
        let mut crowd = Crowd::connect(server.address, CONNECTIONS / members, members, Greeting::Group)?;
        Cost::of(&server, &mut crowd, NET_SLICE / 4, 1)?;
        let cost = Cost::of(&server, &mut crowd, NET_SLICE * 2, members as u64)?;
        net_line(&members.to_string(), &cost);
    }
    Ok(())
}

/// From one shard to another.
fn all_hops() -> io::Result<()> {
    net_heading("hop to another shard, both sides", "hop");
    for (what, hop) in [
        ("doorbell, one under way", Hop::Doorbell),
        ("mail, one under way", Hop::Mail(1)),
        ("mail, 16 under way", Hop::Mail(16)),
        ("mail, 256 under way", Hop::Mail(256)),
    ] {
        net_line(what, &hops(hop, NET_SLICE * 2)?);
    }
    Ok(())
}
