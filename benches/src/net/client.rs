//! The client of every server: groups of connections, in each of which one message at a time is under way.
//!
//! It shares the server's core and comes before it: it takes what has been answered, asks again at once, and then leaves the
//! core to the server for a while. So the server always finds a queue, as under load, whatever else the machine does, and
//! nobody pays for waking the other up. On a core of its own it would have to be faster than the server, and is not.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net;

use super::bare::GROUP;
use super::{CORE, MESSAGE_BYTES, REPLY_BYTES};

/// How a connection begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Greeting {
    /// With a message that names its group.
    Group,
    /// With a WebSocket upgrade; there is no group.
    Upgrade,
}

/// A masked binary frame of 64 bytes, but for the payload.
const HEADER: [u8; 6] = [0x82, 0x80 | 64, 0x37, 0xfa, 0x21, 0x3d];

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: floor\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// How long the server has the core: it has answered several hundred by then, and not all.
const PAUSE: Duration = Duration::from_millis(2);

/// Connections of which the first one sends, and all are given something for it.
pub trait Party {
    /// Sends what is sent at once. Where one alone is given something, also while that waits for more.
    ///
    /// # Errors
    /// When a connection fails.
    fn send(&mut self) -> io::Result<()>;

    /// Whether somebody has not been given all of it.
    fn is_waiting(&self) -> bool;

    /// Takes what is there; whether all members have been given all of it now.
    ///
    /// # Errors
    /// When a connection fails, or is given something else.
    fn read(&mut self) -> io::Result<bool>;
}

/// Connections of which the first one sends, and all of them are given what it sends.
pub struct Group {
    members: Vec<TcpStream>,
    /// The messages that are sent at once.
    messages: Vec<u8>,
    /// Bytes that each member is given for them,
    each: usize,
    /// and for all that is under way.
    due: usize,
    /// Members that have been given all of it,
    given: usize,
    /// and bytes of the next one.
    bytes: usize,
}

/// All connections to one server.
pub struct Crowd<P = Group> {
    pub(super) parties: Vec<P>,
    /// Whose turn it is, where they take turns.
    pub(super) next: usize,
}

impl Crowd {
    /// `groups` groups of `members` connections each, with `depth` messages under way in each, for which each is given so many
    /// bytes a message.
    ///
    /// # Errors
    /// When a connection is not taken.
    pub fn connect(
        address: SocketAddr,
        groups: usize,
        members: usize,
        (depth, reply_bytes): (usize, usize),
        greeting: Greeting,
    ) -> io::Result<Self> {
        let group = |group| {
            let connect = |_| begin(TcpStream::connect(address)?, group, reply_bytes, greeting);
            let members = (0..members).map(connect).collect::<io::Result<Vec<_>>>()?;
            let messages = message(group).repeat(depth);
            Ok(Group::at_rest(members, messages, depth * reply_bytes))
        };
        (0..groups).map(group).collect::<io::Result<_>>().map(Self::of)
    }

    /// Echoes over connections from `source` to bare rings at `addresses`, which take them by turns. `names` are those of their groups.
    ///
    /// # Errors
    /// When a connection is not taken.
    pub fn spread(source: Ipv4Addr, addresses: &[SocketAddr], names: Range<usize>) -> io::Result<Self> {
        let group = |name: usize| {
            let connection = connect_from(Some(source), addresses[name % addresses.len()])?;
            let members = vec![begin(connection, name, REPLY_BYTES, Greeting::Group)?];
            Ok(Group::at_rest(members, message(name).to_vec(), REPLY_BYTES))
        };
        names.map(group).collect::<io::Result<_>>().map(Self::of)
    }
}

impl<P: Party> Crowd<P> {
    /// A crowd of these.
    #[must_use]
    pub const fn of(parties: Vec<P>) -> Self {
        Self { parties, next: 0 }
    }

    /// How many parties it has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.parties.len()
    }

    /// Whether there is nobody.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.parties.is_empty()
    }

    /// With all of another one.
    pub fn join(&mut self, other: Self) {
        self.parties.extend(other.parties);
    }

    /// Sends in all groups, and in each again when everybody in it has been given everything; for `time`. How often that was.
    ///
    /// # Errors
    /// When a connection fails.
    pub fn run(&mut self, time: Duration) -> io::Result<u64> {
        let _ = ring::pin_to_core(CORE);
        self.parties.iter_mut().try_for_each(P::send)?;
        let (mut count, start) = (0, Instant::now());
        let mut waiting = self.parties.len();
        while waiting > 0 {
            thread::sleep(PAUSE);
            for group in &mut self.parties {
                if group.is_waiting() && group.read()? {
                    count += 1;
                    if start.elapsed() < time { group.send()? } else { waiting -= 1 }
                }
            }
        }
        Ok(count)
    }
}

impl Group {
    fn at_rest(members: Vec<TcpStream>, messages: Vec<u8>, each: usize) -> Self {
        let given = members.len();
        Self { members, messages, each, due: 0, given, bytes: 0 }
    }
}

impl Party for Group {
    fn send(&mut self) -> io::Result<()> {
        if !self.is_waiting() {
            (self.given, self.bytes, self.due) = (0, 0, 0);
        }
        self.due += self.each;
        self.members[0].write_all(&self.messages)
    }

    fn is_waiting(&self) -> bool {
        self.given < self.members.len()
    }

    fn read(&mut self) -> io::Result<bool> {
        let mut replies = [0; 16 << 10];
        while let Some(member) = self.members.get_mut(self.given) {
            match member.read(&mut replies) {
                Ok(0) => return Err(io::Error::other("a connection ended")),
                Ok(count) if self.bytes + count < self.due => self.bytes += count,
                Ok(_) => (self.given, self.bytes) = (self.given + 1, 0),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

fn message(group: usize) -> [u8; MESSAGE_BYTES] {
    let mut message = [b'x'; MESSAGE_BYTES];
    message[..HEADER.len()].copy_from_slice(&HEADER);
    message[GROUP].copy_from_slice(&(group as u32).to_le_bytes());
    message
}

/// A connection from one of the addresses of this machine, or from the one that the system chooses. One address has a port for each
/// of some 28,000 connections.
///
/// # Errors
/// When it is not taken.
pub fn connect_from(source: Option<Ipv4Addr>, address: SocketAddr) -> io::Result<TcpStream> {
    let Some(source) = source else { return TcpStream::connect(address) };
    let (family, kind, flags) =
        (net::AddressFamily::INET, net::SocketType::STREAM, net::SocketFlags::CLOEXEC);
    let socket = net::socket_with(family, kind, flags, None)?;
    net::bind(&socket, &SocketAddr::from((source, 0)))?;
    net::connect(&socket, &address)?;
    Ok(socket.into())
}

fn begin(
    mut connection: TcpStream,
    group: usize,
    reply_bytes: usize,
    greeting: Greeting,
) -> io::Result<TcpStream> {
    connection.set_nodelay(true)?;
    match greeting {
        Greeting::Group => {
            connection.write_all(&message(group))?;
            connection.read_exact(&mut vec![0; reply_bytes])?;
        }
        Greeting::Upgrade => {
            connection.write_all(UPGRADE.as_bytes())?;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                connection.read_exact(&mut byte)?;
                head.push(byte[0]);
            }
            if !head.starts_with(b"HTTP/1.1 101") {
                return Err(io::Error::other(String::from_utf8_lossy(&head).into_owned()));
            }
        }
    }
    connection.set_nonblocking(true)?;
    Ok(connection)
}
