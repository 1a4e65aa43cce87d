//! The network: connections as two byte queues, with cuts anywhere and readers that do not read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use gateway::shard::ConnectionId;
use router::ShardId;

/// What one direction holds before the sender has to wait: small, so that readers fall behind.
const PIPE_BYTES_MAX: usize = 8 << 10;

/// For whom, and whether once.
type Armed = (ConnectionId, bool);

/// Whose, and what.
type Blocked = (ConnectionId, Bytes);

/// One TCP connection.
pub(crate) struct Pipe {
    pub(crate) client: usize,
    pub(crate) to_server: VecDeque<u8>,
    pub(crate) to_client: VecDeque<u8>,
    /// The client has gone: its last byte is in `to_server`.
    pub(crate) client_ended: bool,
    /// The server has shut it down.
    pub(crate) server_ended: bool,
    /// The node went away with it open, or lost it between two shards: it ends without a close frame.
    pub(crate) broken: bool,
    /// It ended because it did not go on in a new process: then it had been closed.
    pub(crate) left: bool,
    /// A receive is armed: for whom, and whether once.
    pub(crate) armed: Option<Armed>,
    /// A send that found no room.
    pub(crate) blocked: Option<Blocked>,
    /// Where its descriptor is that reads.
    pub(crate) shard: ShardId,
}

impl Pipe {
    pub(crate) fn room(&self) -> usize {
        PIPE_BYTES_MAX.saturating_sub(self.to_client.len())
    }
}

/// All connections, and which descriptor of which shard is whose.
#[derive(Default)]
pub(crate) struct Net {
    pub(crate) pipes: Vec<Pipe>,
    sockets: BTreeMap<(ShardId, u32), usize>,
    next_socket: u32,
}

impl Net {
    pub(crate) fn open(&mut self, client: usize, shard: ShardId) -> (usize, u32) {
        let pipe = self.pipes.len();
        self.pipes.push(Pipe {
            client,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            client_ended: false,
            server_ended: false,
            broken: false,
            left: false,
            armed: None,
            blocked: None,
            shard,
        });
        (pipe, self.install(shard, pipe))
    }

    /// A descriptor of `shard` for a connection.
    pub(crate) fn install(&mut self, shard: ShardId, pipe: usize) -> u32 {
        self.next_socket += 1;
        self.sockets.insert((shard, self.next_socket), pipe);
        self.next_socket
    }

    pub(crate) fn pipe_of(&self, shard: ShardId, socket: u32) -> usize {
        self.sockets[&(shard, socket)]
    }

    /// What waits for the client: its bytes, whether they are the last, and a send that has room now.
    pub(crate) fn take(&mut self, pipe: usize) -> (Vec<u8>, bool, Option<(ConnectionId, Bytes)>) {
        let pipe = &mut self.pipes[pipe];
        (pipe.to_client.drain(..).collect(), pipe.server_ended, pipe.blocked.take())
    }

    /// Frees a descriptor; the connection ends with its last one.
    pub(crate) fn remove(&mut self, shard: ShardId, socket: u32) {
        let pipe = self.sockets.remove(&(shard, socket)).expect("closed once");
        if !self.sockets.values().any(|other| *other == pipe) {
            self.pipes[pipe].server_ended = true;
        }
    }

    /// What waits at a shard is cancelled: receives and sends.
    pub(crate) fn cancel(&mut self, shard: ShardId) -> Vec<(Option<Armed>, Option<Blocked>)> {
        let here = self.pipes.iter_mut().filter(|pipe| pipe.shard == shard);
        here.map(|pipe| (pipe.armed.take(), pipe.blocked.take())).collect()
    }

    /// Another process goes on with these connections, and with no other. Whose end by that.
    pub(crate) fn leave(&mut self, travelling: &BTreeSet<usize>) -> Vec<usize> {
        self.sockets.clear();
        let mut ended = Vec::new();
        for (number, pipe) in self.pipes.iter_mut().enumerate() {
            if travelling.contains(&number) {
                assert!(pipe.armed.is_none() && pipe.blocked.is_none(), "nothing waits when all are at rest");
            } else if !pipe.server_ended {
                (pipe.server_ended, pipe.left) = (true, true);
                ended.push(pipe.client);
            }
        }
        ended
    }

    /// The node is gone: every connection ends.
    pub(crate) fn reset(&mut self) {
        self.sockets.clear();
        for pipe in &mut self.pipes {
            pipe.broken |= !pipe.server_ended;
            pipe.server_ended = true;
            pipe.armed = None;
            pipe.blocked = None;
            pipe.to_server.clear();
        }
    }
}
