//! A server that is a ring and nothing else: what comes from one socket goes to all sockets of its group, each in a send.
//!
//! A group of one is an echo. The ring is that of a shard, with its features and sizes; there is no WebSocket, no session, no
//! clock and no shard. Corked, what a turn has for one socket goes in one send.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use gateway::layout;
use ring::{Completion, ListenOptions, Received, Ring, RingConfig, Socket, Token};

use super::{CORE, MESSAGE_BYTES, REPLY_BYTES};

/// Says to a program of this crate that it is a bare server.
pub const BARE: &str = "--bare";

/// Most bytes of a reply.
const REPLY_BYTES_MAX: usize = 1024;

/// Sockets of a bare server that nobody asks more of: as many as a ring has by itself.
const SOCKETS: u32 = 16_384;

/// Where a message names its group: the first bytes behind the header.
pub const GROUP: std::ops::Range<usize> = 6..10;

struct Peer {
    socket: Socket,
    /// Named by its first message, which is answered to it alone: then its client knows that it belongs.
    group: Option<usize>,
    /// What the turn has for it, if that is corked.
    corked: Vec<u8>,
}

/// What a bare server does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bare {
    /// The core that it is on.
    pub core: usize,
    /// Bytes of what it sends for a message: the first ones are those of the message.
    pub reply_bytes: usize,
    /// What a turn has for one socket goes in one send.
    pub is_corked: bool,
    /// Sockets that its table has room for.
    pub sockets: u32,
}

impl Bare {
    /// Alone, and sends what it was sent.
    pub const ECHO: Self = Self { core: CORE, reply_bytes: REPLY_BYTES, is_corked: false, sockets: SOCKETS };

    /// The words that make a program of this crate such a server: `--bare CORE BYTES CORKED SOCKETS`.
    #[must_use]
    pub fn arguments(&self) -> [String; 5] {
        let Self { core, reply_bytes, is_corked, sockets } = self;
        [BARE.into(), core.to_string(), reply_bytes.to_string(), is_corked.to_string(), sockets.to_string()]
    }

    /// The server that such words ask for, the first one left out.
    pub fn of(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let core = arguments.next()?.parse().ok()?;
        let reply_bytes = arguments.next()?.parse().ok()?;
        let is_corked = arguments.next()?.parse().ok()?;
        Some(Self { core, reply_bytes, is_corked, sockets: arguments.next()?.parse().ok()? })
    }
}

/// Serves for ever. Says where on standard error, alone on a line.
///
/// # Errors
/// When there is no ring or no port, or a peer does not keep to whole messages.
pub fn serve(bare: Bare) -> io::Result<()> {
    // Where that core is not ours, anywhere.
    let _ = ring::pin_to_core(bare.core);
    let listener = ring::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &ListenOptions::default())?;
    writeln!(io::stderr(), "{}", listener.local_addr()?)?;
    // The kernel takes no table that is larger than the limit of files.
    layout::raise_file_limit()?;
    let config = RingConfig { sockets_max: bare.sockets, ..RingConfig::default() };
    let mut ring = Ring::new(config).map_err(io::Error::other)?;
    ring.listen(listener);
    let mut server = Running { ring, bare, peers: Vec::new(), groups: Vec::new(), corked: Vec::new() };
    let mut completions = Vec::new();
    loop {
        server.ring.turn(None, &mut completions)?;
        for completion in completions.drain(..) {
            server.handle(completion)?;
        }
        server.uncork();
    }
}

struct Running {
    ring: Ring,
    bare: Bare,
    peers: Vec<Peer>,
    /// Peers of each group.
    groups: Vec<Vec<usize>>,
    /// Peers that the turn has something for.
    corked: Vec<usize>,
}

impl Running {
    fn handle(&mut self, completion: Completion) -> io::Result<()> {
        match completion {
            Completion::Accepted { result, .. } => {
                let (socket, _) = result?;
                self.ring.recv_multishot(socket, Token::new(self.peers.len() as u64));
                self.peers.push(Peer { socket, group: None, corked: Vec::new() });
            }
            Completion::Received { token, result: Received::Data { buffer, armed } } => {
                let (messages, rest) = buffer.bytes().as_chunks::<MESSAGE_BYTES>();
                if !rest.is_empty() {
                    return Err(io::Error::other("a message came in parts"));
                }
                for message in messages {
                    self.handle_message(token, message);
                }
                self.ring.recycle(buffer);
                if !armed {
                    self.ring.recv_multishot(self.peers[token.value() as usize].socket, token);
                }
            }
            Completion::Received { token, result: Received::Disarmed } => {
                self.ring.recv_multishot(self.peers[token.value() as usize].socket, token);
            }
            // Who has gone stays in its group: a server lives as long as its client.
            _ => {}
        }
        Ok(())
    }

    fn handle_message(&mut self, token: Token, message: &[u8; MESSAGE_BYTES]) {
        let mut reply = [b'x'; REPLY_BYTES_MAX];
        reply[..REPLY_BYTES].copy_from_slice(&message[..REPLY_BYTES]);
        let reply = &reply[..self.bare.reply_bytes];
        let place = token.value() as usize;
        let peer = &mut self.peers[place];
        let Some(group) = peer.group else {
            let name = message[GROUP].try_into().map(u32::from_le_bytes).expect("four bytes");
            let group = name as usize;
            peer.group = Some(group);
            self.groups.resize_with(self.groups.len().max(group + 1), Vec::new);
            self.groups[group].push(place);
            return self.ring.send(peer.socket, Token::new(0), Bytes::copy_from_slice(reply));
        };
        if self.bare.is_corked {
            for place in &self.groups[group] {
                let corked = &mut self.peers[*place].corked;
                if corked.is_empty() {
                    self.corked.push(*place);
                }
                corked.extend_from_slice(reply);
            }
            return;
        }
        let reply = Bytes::copy_from_slice(reply);
        for place in &self.groups[group] {
            self.ring.send(self.peers[*place].socket, Token::new(0), reply.clone());
        }
    }

    fn uncork(&mut self) {
        for place in self.corked.drain(..) {
            let peer = &mut self.peers[place];
            self.ring.send(peer.socket, Token::new(0), std::mem::take(&mut peer.corked).into());
        }
    }
}
