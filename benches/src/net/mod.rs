//! What the bare machine can do with sockets and rings: what the net part of `floor` shares.
//!
//! A server is a process of its own, and what it costs is what the system counts for its threads. The client is one thread,
//! the same for every server.

pub mod bare;
pub mod client;
pub mod hop;

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use client::Crowd;

/// Bytes of a message on its way to the server: a header of 6 as a WebSocket client has it, and 64.
pub const MESSAGE_BYTES: usize = 70;

/// Bytes of it on its way back, without the mask.
pub const REPLY_BYTES: usize = 66;

/// The core of servers, which is that of a first shard, and of the client.
pub const CORE: usize = 0;

/// A server in a process of its own. Dropping it ends it.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts `program`, behind the client when both want the core, and waits for the first line of its output in which
    /// `find` finds an address.
    ///
    /// # Errors
    /// When it does not start, or ends without such a line.
    pub fn start(
        program: &Path,
        arguments: &[&str],
        find: impl Fn(&str) -> Option<SocketAddr>,
    ) -> io::Result<Self> {
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(program).args(arguments).env("GATEHOUSE_LOGS", "1");
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

    /// What all its threads have taken of cores.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu(&self) -> io::Result<Duration> {
        let mut cpu = Duration::ZERO;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            cpu += cpu_of(&fs::read_to_string(task?.path().join("schedstat"))?);
        }
        Ok(cpu)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the calling thread has taken of cores.
///
/// # Errors
/// When the kernel does not count it.
pub fn cpu_of_this_thread() -> io::Result<Duration> {
    fs::read_to_string("/proc/thread-self/schedstat").map(|text| cpu_of(&text))
}

/// The first number of a `schedstat`: nanoseconds on a core.
fn cpu_of(schedstat: &str) -> Duration {
    let nanos = schedstat.split_whitespace().next().and_then(|number| number.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
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
    /// Lets `crowd` run against `server` for `time`. Each of its groups counts `each` for a round.
    ///
    /// # Errors
    /// When a connection fails.
    pub fn of(server: &Server, crowd: &mut Crowd, time: Duration, each: u64) -> io::Result<Self> {
        let (cpu, start) = (server.cpu()?, Instant::now());
        let count = crowd.run(time)? * each;
        Ok(Self { count, cpu: server.cpu()?.saturating_sub(cpu), elapsed: start.elapsed() })
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
