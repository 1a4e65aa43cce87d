//! Heartbeats of quiet sessions beside bare rings that echo as often over as many connections.
//!
//! Everybody has a connection to each, all the time; which of them is written to changes by turns. Node and rings have nothing else to
//! do meanwhile, so what is measured is what it takes to be woken for one message, to answer it, and to go to sleep.

use std::io::{self, BufRead as _, BufReader, Lines, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::{self, available_parallelism};
use std::time::Duration;

use gateway::layout;

use super::bare::Bare;
use super::beat::{Beat, EVERY, Told, order};
use super::{Cost, Priority, Server, spread};

/// Connections that nobody has said the number of: a process may have 20,000 files on many systems.
const CONNECTIONS: usize = 12_000;

/// Connections of a client process: an address has ports for 28,000, of which those of a run before are taken for a minute.
const CLIENT_CONNECTIONS_MAX: usize = 15_000;

/// Files of a process that are no connections, with room.
const FILES_SPARE: usize = 512;

/// How long each is written to before it is the other's turn: a node ends a session that says nothing for 60 s, and these pause for
/// two turns of the rings between two of their heartbeats: `EVERY + 2 * RINGS_SLICE < 60 s`.
const NODE_SLICE: Duration = Duration::from_secs(20);
const RINGS_SLICE: Duration = Duration::from_secs(10);

/// How often they are compared.
const PAIRS: usize = 5;

/// How long nobody says anything at the end: what a node takes of cores for nothing.
const QUIET: Duration = Duration::from_secs(5);

const _: () = assert!(EVERY.as_secs() + 2 * RINGS_SLICE.as_secs() < 60);

/// Measures with so many connections and rings; without being told, with 12,000, or as many as the limit of files allows, and a ring for
/// each core.
///
/// # Errors
/// When a server or a client does not start, or fails.
pub fn main(connections: Option<usize>, shards: Option<usize>) -> io::Result<()> {
    let files = layout::raise_file_limit()?.unwrap_or(u64::MAX).min(1 << 20) as usize;
    let each = files.saturating_sub(FILES_SPARE).max(1);
    let shards = shards.unwrap_or(available_parallelism()?.get()).max(1);
    // A node has room for a sixteenth more on each shard, because users fall on shards by chance.
    let connections = connections.unwrap_or(CONNECTIONS.min(shards * each * 16 / 17)).max(1);
    let directory = std::env::temp_dir().join(format!("beats-{}", std::process::id()));
    let run = Run { directory, connections, shards, each: each.min(CLIENT_CONNECTIONS_MAX) };
    let measured = run.measure();
    let removed = std::fs::remove_dir_all(&run.directory);
    measured.and(removed)
}

struct Run {
    directory: PathBuf,
    connections: usize,
    shards: usize,
    /// Connections of a client process.
    each: usize,
}

impl Run {
    fn measure(&self) -> io::Result<()> {
        let rings = (0..self.shards).map(|shard| self.ring(shard)).collect::<io::Result<Vec<_>>>()?;
        let node =
            [Server::node(Priority::Behind, &self.directory, self.shards, Some(self.connections), "listen")?];
        let addresses = rings.iter().map(|ring| ring.address).collect();
        // What comes new, and what the node writes of who has come, is over after a round.
        let mut echoes = self.clients(0, None, addresses)?;
        echoes.run(RINGS_SLICE)?;
        let mut beats = self.clients(128, Some(&self.directory), vec![node[0].address])?;
        beats.run(EVERY)?;
        let (mut ratios, mut all) = (Vec::new(), [Cost::default(); 2]);
        for _ in 0..PAIRS {
            let bare = Cost::of_work(&rings, || echoes.run(RINGS_SLICE))?;
            let cost = Cost::of_work(&node, || beats.run(NODE_SLICE))?;
            all[0].add(&bare);
            all[1].add(&cost);
            ratios.push(cost.nanos() / bare.nanos());
        }
        let quiet = Cost::of_work(&node, || {
            thread::sleep(QUIET);
            Ok((self.connections as f64 * QUIET.as_secs_f64() / EVERY.as_secs_f64()) as u64)
        })?;
        let (connections, shards) = (self.connections, self.shards);
        Cost::heading(&format!("{connections} connections, rings: {shards}"), "message");
        all[0].line("bare rings, echo");
        all[1].line("gatehouse, heartbeat");
        quiet.line("the same time without heartbeats");
        let (middle, least, greatest) = spread(&ratios);
        println!("node / bare, {PAIRS} pairs: median {middle:.2}, {least:.2} to {greatest:.2}");
        println!("the clients of the bare rings were {}", echoes.told.in_words());
        println!("the clients of gatehouse were {}", beats.told.in_words());
        Ok(())
    }

    /// As many as the node has, on the same cores.
    fn ring(&self, shard: usize) -> io::Result<Server> {
        let cores = available_parallelism()?.get();
        let core = if self.shards <= cores { shard } else { shard * cores / self.shards };
        let sockets = (self.connections.div_ceil(self.shards) + FILES_SPARE / 2) as u32;
        Server::bare(Priority::Behind, &Bare { core, sockets, ..Bare::ECHO })
    }

    /// As many as it takes, each at an address of its own, in a network of this run, from the host `first` on.
    fn clients(&self, first: u8, data: Option<&Path>, addresses: Vec<SocketAddr>) -> io::Result<Clients> {
        let mut all = Vec::new();
        let [.., network, subnet] = std::process::id().to_be_bytes();
        for (host, start) in (first + 1..).zip((0..self.connections).step_by(self.each)) {
            let names = start..self.connections.min(start + self.each);
            // Not in the network of the usual 127.0.0.1.
            let source = Ipv4Addr::new(127, network.max(1), subnet, host);
            let (data, addresses) = (data.map(Path::to_owned), addresses.clone());
            all.push(Client::start(&Beat { source, names, data, addresses })?);
        }
        for client in &mut all {
            client.answer()?;
        }
        Ok(Clients { all, told: Told::default() })
    }
}

/// The clients of one side.
struct Clients {
    all: Vec<Client>,
    /// How it went: of how late they were, the worst of a slice of a client.
    told: Told,
}

impl Clients {
    /// Heartbeats for `time`: how many.
    fn run(&mut self, time: Duration) -> io::Result<u64> {
        let connections = self.all.iter().map(|client| client.connections).sum::<usize>();
        let before = self.told.count;
        for (place, client) in (0..).zip(&mut self.all) {
            // Not all at the same moment.
            let delay = EVERY / connections as u32 * place;
            client.orders.write_all(order(delay, time).as_bytes())?;
        }
        for client in &mut self.all {
            let told = client.answer()?;
            let told = Told::of(&told).ok_or_else(|| io::Error::other("an answer is four numbers"))?;
            self.told.add(told);
        }
        Ok(self.told.count - before)
    }
}

/// A client process. Dropping it ends it.
struct Client {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    connections: usize,
}

impl Client {
    fn start(beat: &Beat) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(beat.arguments()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let orders = child.stdin.take().expect("piped above");
        let answers = BufReader::new(child.stdout.take().expect("piped above")).lines();
        Ok(Self { child, orders, answers, connections: beat.names.len() })
    }

    fn answer(&mut self) -> io::Result<String> {
        let ended = || io::Error::other("a client ended before its time");
        self.answers.next().unwrap_or_else(|| Err(ended()))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
