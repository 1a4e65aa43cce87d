//! The client of every server: groups of connections, in each of which one message at a time is under way.
//!
//! It shares the server's core and comes before it: it takes what has been answered, asks again at once, and then leaves the
//! core to the server for a while. So the server always finds a queue, as under load, whatever else the machine does, and
//! nobody pays for waking the other up. On a core of its own it would have to be faster than the server, and is not.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

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

/// Connections of which the first one sends, and all of them are given what it sends.
struct Group {
    members: Vec<TcpStream>,
    message: [u8; MESSAGE_BYTES],
    /// Members that have been given it.
    given: usize,
}

/// All connections to one server.
pub struct Crowd {
    groups: Vec<Group>,
}

impl Crowd {
    /// `groups` groups of `members` connections each.
    ///
    /// # Errors
    /// When a connection is not taken.
    pub fn connect(
        address: SocketAddr,
        groups: usize,
        members: usize,
        greeting: Greeting,
    ) -> io::Result<Self> {
        let mut crowd = Self { groups: Vec::with_capacity(groups) };
        for group in 0..groups {
            let members = (0..members).map(|_| connect(address, group, greeting));
            let members = members.collect::<io::Result<_>>()?;
            crowd.groups.push(Group { members, message: message(group), given: 0 });
        }
        Ok(crowd)
    }

    /// Sends in all groups, and in each again when everybody in it has been given the message; for `time`. How many messages
    /// that were.
    ///
    /// # Errors
    /// When a connection fails.
    pub fn run(&mut self, time: Duration) -> io::Result<u64> {
        let _ = ring::pin_to_core(CORE);
        self.groups.iter_mut().try_for_each(Group::send)?;
        let (mut count, start) = (0, Instant::now());
        let mut waiting = self.groups.len();
        while waiting > 0 {
            thread::sleep(PAUSE);
            for group in &mut self.groups {
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
    fn send(&mut self) -> io::Result<()> {
        self.given = 0;
        self.members[0].write_all(&self.message)
    }

    fn is_waiting(&self) -> bool {
        self.given < self.members.len()
    }

    /// Takes what is there; whether all members have been given the message now.
    fn read(&mut self) -> io::Result<bool> {
        let mut reply = [0; REPLY_BYTES];
        while let Some(member) = self.members.get_mut(self.given) {
            match member.read(&mut reply) {
                Ok(REPLY_BYTES) => self.given += 1,
                Ok(_) => return Err(io::Error::other("an answer came in parts, or a connection ended")),
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

fn connect(address: SocketAddr, group: usize, greeting: Greeting) -> io::Result<TcpStream> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_nodelay(true)?;
    match greeting {
        Greeting::Group => {
            connection.write_all(&message(group))?;
            connection.read_exact(&mut [0; REPLY_BYTES])?;
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
