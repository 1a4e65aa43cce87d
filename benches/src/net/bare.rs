//! A server that is a ring and nothing else: what comes from one socket goes to all sockets of its group, each in a send.
//!
//! A group of one is an echo. The ring is that of a shard, with its features and sizes; there is no WebSocket, no session, no
//! clock and no shard.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use ring::{Completion, ListenOptions, Received, Ring, RingConfig, Socket, Token};

use super::{CORE, MESSAGE_BYTES, REPLY_BYTES};

/// Where a message names its group: the first bytes behind the header.
pub const GROUP: std::ops::Range<usize> = 6..10;

struct Peer {
    socket: Socket,
    /// Named by its first message, which is answered to it alone: then its client knows that it belongs.
    group: Option<usize>,
}

/// Serves for ever. Says where on standard error, alone on a line.
///
/// # Errors
/// When there is no ring or no port, or a peer does not keep to whole messages.
pub fn serve() -> io::Result<()> {
    // Where the first core is not ours, anywhere.
    let _ = ring::pin_to_core(CORE);
    let listener = ring::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &ListenOptions::default())?;
    writeln!(io::stderr(), "{}", listener.local_addr()?)?;
    let mut ring = Ring::new(RingConfig::default()).map_err(io::Error::other)?;
    ring.listen(listener);
    let mut server = Bare { ring, peers: Vec::new(), groups: Vec::new() };
    let mut completions = Vec::new();
    loop {
        server.ring.turn(None, &mut completions)?;
        for completion in completions.drain(..) {
            server.handle(completion)?;
        }
    }
}

struct Bare {
    ring: Ring,
    peers: Vec<Peer>,
    groups: Vec<Vec<Socket>>,
}

impl Bare {
    fn handle(&mut self, completion: Completion) -> io::Result<()> {
        match completion {
            Completion::Accepted { result, .. } => {
                let (socket, _) = result?;
                self.ring.recv_multishot(socket, Token::new(self.peers.len() as u64));
                self.peers.push(Peer { socket, group: None });
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
        let reply = Bytes::copy_from_slice(&message[..REPLY_BYTES]);
        let peer = &mut self.peers[token.value() as usize];
        let Some(group) = peer.group else {
            let name = message[GROUP].try_into().map(u32::from_le_bytes).expect("four bytes");
            let group = name as usize;
            peer.group = Some(group);
            self.groups.resize_with(self.groups.len().max(group + 1), Vec::new);
            self.groups[group].push(peer.socket);
            return self.ring.send(peer.socket, Token::new(0), reply);
        };
        for socket in &self.groups[group] {
            self.ring.send(*socket, Token::new(0), reply.clone());
        }
    }
}
