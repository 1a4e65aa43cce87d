//! What the bare machine can do with sockets and rings: what the net part of `floor` shares.
//!
//! A server is a process of its own, and what it costs is what the system counts for its threads. The client is one thread,
//! the same for every server.

pub mod bare;
pub mod beat;
pub mod beats;
pub mod chat;
pub mod client;
pub mod cpu;
pub mod hop;
pub mod paced;
pub mod stored;

use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use gateway::config::COMMANDS_PER_SECOND_MAX;

use bare::Bare;
use client::{Crowd, Party};
use cpu::Taken;

/// Bytes of a message on its way to the server: a header of 6 as a WebSocket client has it, and 64.
pub const MESSAGE_BYTES: usize = 70;

/// Bytes of it on its way back, without the mask.
pub const REPLY_BYTES: usize = 66;

/// The core of a single server, which is that of a first shard, and of the client.
pub const CORE: usize = 0;

/// Who comes first where a server and others want a core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Priority {
    /// Others, of which the client is one: it shares the server's core.
    Behind,
    /// Nobody. What waits for others finds more to do at a time, and costs less.
    Usual,
}

/// A server in a process of its own. Dropping it ends it.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts `program` and waits for the first line of its output in which `find` finds an address.
    ///
    /// # Errors
    /// When it does not start, or ends without such a line.
    pub fn start(
        priority: Priority,
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
        find: impl Fn(&str) -> Option<SocketAddr>,
    ) -> io::Result<Self> {
        let mut command = Command::new("nice");
        let niceness = if priority == Priority::Behind { "19" } else { "0" };
        command.args(["-n", niceness]).arg(program).args(arguments).envs(environment.iter().copied());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut lines =
            BufReader::new(child.stderr.take().expect("piped above")).lines().map_while(Result::ok);
        let Some(address) = lines.by_ref().find_map(|line| find(&line)) else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(io::Error::other(format!("{command:?} ended before it listened")));
        };
        // It must be able to write on.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, address })
    }

    /// A ring and nothing else.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn bare(priority: Priority, bare: &Bare) -> io::Result<Self> {
        let arguments = bare.arguments();
        let arguments = arguments.each_ref().map(String::as_str);
        Self::start(priority, &std::env::current_exe()?, &arguments, &[], |line| line.parse().ok())
    }

    /// A node with so many shards, as many logs (one a core at most), room for so many connections where that is said, and its echo
    /// service, on a directory that it may forget; with the address that the log line `serving` has under `name`.
    ///
    /// # Errors
    /// As [`Self::start`], and when the binary `gatehouse` is not beside this one.
    pub fn node(
        priority: Priority,
        directory: &Path,
        shards: usize,
        connections_max: Option<usize>,
        name: &str,
    ) -> io::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("gatehouse");
        if !program.is_file() {
            return Err(io::Error::other("build the node first: cargo build --release -p gateway"));
        }
        let directory = directory.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
        let logs = shards.min(available_parallelism()?.get()).to_string();
        let shards = shards.to_string();
        let mut arguments = vec!["serve", "--shards", &shards, "--data", directory];
        let connections_max = connections_max.map(|most| most.to_string());
        connections_max.iter().for_each(|most| arguments.extend(["--connections-max", most]));
        ["--listen", "--admin", "--echo"]
            .iter()
            .for_each(|address| arguments.extend([address, "127.0.0.1:0"]));
        let name = format!("{name}=");
        // Rates are counted, and nobody reaches one.
        let rate = COMMANDS_PER_SECOND_MAX.to_string();
        let environment = [
            ("GATEHOUSE_LOGS", logs.as_str()),
            ("GATEHOUSE_SESSION_COMMANDS_PER_SECOND", &rate),
            ("GATEHOUSE_USER_MESSAGES_PER_SECOND", &rate),
        ];
        Self::start(priority, &program, &arguments, &environment, |line| {
            let (_, rest) = line.split_once("serving")?.1.split_once(&name)?;
            rest.trim_start_matches('"').split(['"', ' ']).next()?.parse().ok()
        })
    }

    /// What it has taken of cores until now.
    ///
    /// # Errors
    /// When it has ended.
    pub fn taken(&self) -> io::Result<Taken> {
        Taken::of(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What some running came to.
#[derive(Clone, Copy, Default, Debug)]
pub struct Cost {
    /// Messages, deliveries or hops.
    pub count: u64,
    /// What they took of the server's cores.
    pub cpu: Duration,
    /// How long it took.
    pub elapsed: Duration,
}

impl Cost {
    /// Lets `crowd` run against `servers` for `time`. Each of its groups counts `each` for a round.
    ///
    /// # Errors
    /// When a connection fails.
    pub fn of<P: Party>(
        servers: &[Server],
        crowd: &mut Crowd<P>,
        time: Duration,
        each: u64,
    ) -> io::Result<Self> {
        Self::of_work(servers, || Ok(crowd.run(time)? * each))
    }

    /// What `servers` take while something is done, which says how much that was.
    ///
    /// # Errors
    /// When it fails, or a server has ended.
    pub fn of_work(servers: &[Server], work: impl FnOnce() -> io::Result<u64>) -> io::Result<Self> {
        let taken = || servers.iter().map(Server::taken).collect::<io::Result<Vec<_>>>();
        let (before, start) = (taken()?, Instant::now());
        let count = work()?;
        let cpu = taken()?.iter().zip(&before).map(|(after, before)| after.since(before)).sum();
        Ok(Self { count, cpu, elapsed: start.elapsed() })
    }

    /// Prints what stands above lines of such costs.
    pub fn heading(what: &str, unit: &str) {
        println!("\n{what:<34} {:>10} {:>12} {:>7}", format!("ns/{unit}"), "a second", "cores");
    }

    /// Prints it, on a line.
    pub fn line(&self, what: &str) {
        println!("{what:<34} {:>10.0} {:>12.0} {:>7.2}", self.nanos(), self.a_second(), self.busy());
    }

    /// More of the same.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.cpu += other.cpu;
        self.elapsed += other.elapsed;
    }

    /// CPU of one, in nanoseconds.
    #[must_use]
    pub fn nanos(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.count.max(1) as f64
    }

    /// How many in a second.
    #[must_use]
    pub fn a_second(&self) -> f64 {
        self.count as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// How much of one core the server took.
    #[must_use]
    pub fn busy(&self) -> f64 {
        self.cpu.as_secs_f64() / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// The middle one of some values, and the least and the greatest.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    (sorted[sorted.len() / 2], sorted[0], sorted[sorted.len() - 1])
}
