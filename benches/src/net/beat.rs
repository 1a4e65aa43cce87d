//! The clients of the heartbeats: processes with a part of the connections each, because of the limit of files.
//!
//! One says `ready` when it has all of its connections. Then each line that it is given is a slice of time to send in, and is
//! answered by a line that says how it went. It ends when its input does, or a connection.

use std::collections::VecDeque;
use std::io::{self, BufRead as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::mpsc::{TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use gateway::layout;
use protocol::command::Command;
use protocol::ids::UserId;
use protocol::upgrade::Form;

use super::chat::{Door, Peer};
use super::client::{Crowd, Party};
use super::paced::Pace;

/// Says to a program of this crate that it is such a client.
pub const BEAT: &str = "--beat";

/// How often each connection sends: as clients of a node are told to.
pub const EVERY: Duration = Duration::from_secs(30);

/// After how long a session that has come says that it is there, while others come: with a round of heartbeats behind it, within the 60 s
/// that a node waits.
const SAID_AGAIN_AFTER: Duration = Duration::from_secs(20);

/// How long heartbeats are sent at a time until the first order.
const WAIT: Duration = Duration::from_secs(1);

/// Stands where there is no directory.
const NO_DATA: &str = "-";

/// What a client connects to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Beat {
    /// Its own address.
    pub source: Ipv4Addr,
    /// Numbers of its connections among all.
    pub names: Range<usize>,
    /// The directory of the node; bare rings have none.
    pub data: Option<PathBuf>,
    /// That of the node, or those of the bare rings.
    pub addresses: Vec<SocketAddr>,
}

impl Beat {
    /// The words that make a program of this crate such a client: `--beat SOURCE FIRST END DATA ADDRESS...`.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let Self { source, names, data, addresses } = self;
        let data = data.as_ref().map_or_else(|| NO_DATA.into(), |data| data.display().to_string());
        let mut words =
            vec![BEAT.into(), source.to_string(), names.start.to_string(), names.end.to_string(), data];
        words.extend(addresses.iter().map(SocketAddr::to_string));
        words
    }

    /// The client that such words ask for, the first one left out.
    pub fn of(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let source = arguments.next()?.parse().ok()?;
        let names = arguments.next()?.parse().ok()?..arguments.next()?.parse().ok()?;
        let data = arguments.next().filter(|data| data != NO_DATA).map(PathBuf::from);
        let addresses = arguments.map(|address| address.parse().ok()).collect::<Option<Vec<_>>>()?;
        (!addresses.is_empty()).then_some(Self { source, names, data, addresses })
    }

    /// Connects, says so, and does as it is told until nothing more is said.
    ///
    /// # Errors
    /// When a connection is not taken, or ends.
    pub fn serve(&self) -> io::Result<()> {
        layout::raise_file_limit()?;
        match &self.data {
            None => obey(Crowd::spread(self.source, &self.addresses, self.names.clone())?),
            Some(data) => {
                let door =
                    |form| Door::new(self.addresses[0], data, form).map(|door| door.from_source(self.source));
                // Half of the users speak each form.
                let doors = [door(Form::Json)?, door(Form::Binary)?];
                obey(Crowd::of(sessions(&doors, self.names.clone())?))
            }
        }
    }
}

/// A slice of time as a line: from when on, and for how long.
#[must_use]
pub fn order(delay: Duration, time: Duration) -> String {
    format!("{} {}\n", delay.as_micros(), time.as_micros())
}

/// How a slice went, of a client.
#[derive(Clone, Copy, Default, Debug)]
pub struct Told {
    /// Messages sent, and answered.
    pub count: u64,
    /// Those that were sent before the answer to the one before had come.
    pub behind: u64,
    /// By how many microseconds they were late: half of them, and all but one in a hundred, at most.
    pub late: [u64; 2],
}

impl Told {
    /// What such a line says.
    #[must_use]
    pub fn of(line: &str) -> Option<Self> {
        let mut numbers = line.split(' ').map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        Some(Self { count: next()?, behind: next()?, late: [next()?, next()?] })
    }

    /// More of it: of how late they were, the worst stays.
    pub fn add(&mut self, other: Self) {
        self.count += other.count;
        self.behind += other.behind;
        self.late = [0, 1].map(|place| self.late[place].max(other.late[place]));
    }

    /// How late they were, and how often the server was.
    #[must_use]
    pub fn in_words(&self) -> String {
        let Self { behind, late: [middle, most], .. } = self;
        format!(
            "late by {middle} us at p50 and {most} at p99 of their worst slice; {behind} were sent before the answer to the one before"
        )
    }
}

/// Sessions with these numbers. The first of them must not be held for dead until the last one is there.
fn sessions(doors: &[Door; 2], names: Range<usize>) -> io::Result<Vec<Quiet>> {
    let (mut sessions, mut said) = (Vec::<Quiet>::new(), VecDeque::<(usize, Instant)>::new());
    for name in names {
        while let Some((place, at)) = said.front().copied()
            && at.elapsed() > SAID_AGAIN_AFTER
        {
            sessions[place].send()?;
            said.rotate_left(1);
            said.back_mut().expect("it was the first").1 = Instant::now();
        }
        said.push_back((sessions.len(), Instant::now()));
        sessions.push(Quiet::begin(&doors[name % 2], name)?);
    }
    Ok(sessions)
}

fn obey<P: Party>(mut crowd: Crowd<P>) -> io::Result<()> {
    let (tell, orders) = channel();
    thread::spawn(move || io::stdin().lock().lines().try_for_each(|line| tell.send(line)));
    println!("ready");
    let a_second = crowd.len() as f64 / EVERY.as_secs_f64();
    // Others may not be ready yet, and a session that says nothing meanwhile is held for dead.
    let first = loop {
        match orders.try_recv() {
            Ok(line) => break Some(line),
            Err(TryRecvError::Disconnected) => break None,
            Err(TryRecvError::Empty) => {
                crowd.keep_pace(&Pace { a_second, delay: Duration::ZERO, time: WAIT })?;
            }
        }
    };
    for line in first.into_iter().chain(orders) {
        let line = line?;
        let micros =
            line.split_once(' ').and_then(|(delay, time)| Some((delay.parse().ok()?, time.parse().ok()?)));
        let (delay, time) = micros.ok_or_else(|| io::Error::other("an order is two numbers"))?;
        let (delay, time) = (Duration::from_micros(delay), Duration::from_micros(time));
        let kept = crowd.keep_pace(&Pace { a_second, delay, time })?;
        let [middle, most] = [50, 99].map(|percent| kept.late_micros(percent) as u64);
        println!("{} {} {middle} {most}", kept.count, kept.behind);
    }
    Ok(())
}

/// A session that says nothing but that it is there.
struct Quiet {
    peer: Peer,
    /// Answers that it has not been given.
    owed: usize,
}

impl Quiet {
    fn begin(door: &Door, name: usize) -> io::Result<Self> {
        let peer = door.enter(&UserId::new(&format!("quiet-{name}")).expect("a name"))?;
        peer.socket.set_nonblocking(true)?;
        Ok(Self { peer, owed: 0 })
    }
}

impl Party for Quiet {
    fn send(&mut self) -> io::Result<()> {
        self.owed += 1;
        let cursor = self.peer.tally.cursor.clone();
        self.peer.ask(Command::Ping { cursor }, 1)
    }

    fn is_waiting(&self) -> bool {
        self.owed > 0
    }

    fn read(&mut self) -> io::Result<bool> {
        while self.owed > 0 {
            if !self.peer.read()? {
                return Ok(false);
            }
            self.owed -= std::mem::take(&mut self.peer.tally.pongs);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_what_its_words_say() {
        let words = "127.9.8.1 15000 30000 /tmp/data 127.0.0.1:7100 127.0.0.1:7101";
        for words in [words.to_owned(), words.replace("/tmp/data", "-")] {
            let beat = Beat::of(words.split(' ').map(String::from)).expect("all words");
            assert_eq!(beat.data.is_none(), words.contains('-'));
            assert_eq!(beat.arguments()[1..].join(" "), words);
        }
        for short in ["", "127.9.8.1 15000", "127.9.8.1 15000 30000 -", "127.9.8.1 15000 30000 - here"] {
            assert_eq!(Beat::of(short.split(' ').map(String::from)), None, "{short}");
        }
    }
}
