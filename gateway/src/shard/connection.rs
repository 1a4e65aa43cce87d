//! The record of one connection: a slot in a slab, no heap while it is idle.

use bytes::Bytes;
use protocol::command::Token;
use protocol::session::Session;
use ring::Socket;
use router::mail::SessionId;
use router::user::Outbox;
use slab::Slab;

use super::peer::Peer;
use crate::auth::Issued;
use crate::layout::SPARE_SOCKETS;
use crate::mailbox::Move;

/// One connection of a shard: its slot, and a generation that tells connections of one slot apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnectionId {
    /// Slot in the slab.
    pub slot: u32,
    generation: u32,
}

const GENERATION_BITS: u32 = 24;

impl ConnectionId {
    /// As 56 bits, for the token of an operation.
    #[must_use]
    pub fn pack(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// The opposite of [`ConnectionId::pack`].
    #[must_use]
    pub fn unpack(packed: u64) -> Self {
        Self { slot: packed as u32, generation: (packed >> 32) as u32 }
    }
}

/// What a connection is for, and how far it has come.
pub(super) enum Stage {
    /// HTTP upgrade and `connect`. One-shot receives only.
    Arriving {
        /// From the `Authorization` header.
        bearer: Option<Token>,
    },
    /// `connect` was accepted; it moves when everything is sent.
    Leaving(Box<Move>),
    /// Its descriptor is on its way.
    Moving {
        /// To where, and under which name.
        target: router::ShardId,
        migration: u64,
    },
    /// A session.
    Live {
        session: SessionId,
        /// When its token ends, in milliseconds since 1970.
        expires_at: u64,
        /// What its token can be revoked by.
        issued: Issued,
    },
    /// The echo service.
    Echo,
    /// Only what is half sent is still sent; then it is shut down.
    Ending,
}

/// How far the end of a socket has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum End {
    /// It is in use.
    No,
    /// Shutdown was asked for; it ends when all operations have.
    ShuttingDown,
    ShutDown,
    Closing,
}

/// What only a connection has that holds something up.
#[derive(Default)]
pub(super) struct Held {
    /// Control bytes that a half-sent frame holds up.
    pub(super) control: Vec<u8>,
    /// What is sent while there is no session.
    pub(super) outbox: Outbox,
    /// What this connection adds to the sum held for strangers, in bytes.
    pub(super) counted: u32,
    /// What it adds to the sum held by the echo service, in bytes.
    pub(super) echoed: u32,
    /// A message began that has not ended.
    pub(super) message_since: u32,
}

pub(super) struct Connection {
    generation: u32,
    pub(super) socket: Socket,
    pub(super) stage: Stage,
    pub(super) codec: Session,
    held: Option<Box<Held>>,
    /// It was accepted here and is counted as a handshake in progress.
    pub(super) is_handshake: bool,
    /// A receive is armed.
    pub(super) receiving: bool,
    /// A send is in flight.
    pub(super) sending: bool,
    pub(super) end: End,
    /// Seconds of the wheel. Accepted, or the close frame was queued.
    pub(super) since: u32,
    /// A frame came, of any kind.
    pub(super) heard: u32,
    /// A send made progress, or there was none in flight.
    pub(super) sent: u32,
    /// Where it stands in the wheel.
    pub(super) timer: u64,
}

/// An idle connection is this record, its session at the router, and a slot of the ring: it is what a node holds most of.
const _: () = assert!(size_of::<Connection>() <= 128);

impl Connection {
    pub(super) fn new(socket: Socket, stage: Stage, codec: Session, second: u32) -> Self {
        Self {
            generation: 0,
            socket,
            stage,
            codec,
            held: None,
            is_handshake: false,
            receiving: false,
            sending: false,
            end: End::No,
            since: second,
            heard: second,
            sent: second,
            timer: 0,
        }
    }

    /// Whether it has shown a token.
    pub(super) fn is_stranger(&self) -> bool {
        matches!(self.stage, Stage::Arriving { .. } | Stage::Leaving(_))
    }

    pub(super) fn is_ending(&self) -> bool {
        self.end > End::No
    }

    /// What it holds up; nothing for most.
    pub(super) fn held(&self) -> Option<&Held> {
        self.held.as_deref()
    }

    pub(super) fn held_mut(&mut self) -> &mut Held {
        self.held.get_or_insert_default()
    }

    /// Bytes of control frames that wait.
    pub(super) fn take_control(&mut self) -> Vec<u8> {
        self.held.as_mut().map(|held| std::mem::take(&mut held.control)).unwrap_or_default()
    }

    /// Queues a last frame ahead of the close frame.
    pub(super) fn push(&mut self, frame: Bytes) {
        self.poll_control();
        self.held_mut().control.extend_from_slice(&frame);
    }

    /// What the codec has to say waits behind what is half sent.
    pub(super) fn poll_control(&mut self) {
        let held = self.held.get_or_insert_default();
        self.codec.poll_control(&mut held.control);
    }

    /// Goes back to the heap when there is nothing in it.
    pub(super) fn drop_held_if_empty(&mut self) {
        let is_whole = !self.codec.is_mid_message();
        self.held.take_if(|held| {
            let is_counted = held.counted > 0 || held.echoed > 0;
            is_whole && !is_counted && held.control.is_empty() && held.outbox.is_empty()
        });
    }
}

/// All connections of a shard.
pub(super) struct Connections {
    slots: Slab<Connection>,
    /// Of each slot, where anybody asks for it: none otherwise.
    peers: Vec<Option<Peer>>,
    keeps_peers: bool,
    generation: u32,
}

impl Connections {
    /// Room for so many. Memory that nobody has touched yet is not resident; a slab that grew by doubling would leave as much
    /// behind it as it has.
    pub(super) fn new(connections_max: u32, keeps_peers: bool) -> Self {
        let room = (connections_max + SPARE_SOCKETS) as usize;
        let peers = Vec::with_capacity(if keeps_peers { room } else { 0 });
        Self { slots: Slab::with_capacity(room), peers, keeps_peers, generation: 0 }
    }

    pub(super) fn count(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn insert(&mut self, mut connection: Connection) -> ConnectionId {
        self.generation = (self.generation + 1) % (1 << GENERATION_BITS);
        connection.generation = self.generation;
        ConnectionId { slot: self.slots.insert(connection) as u32, generation: self.generation }
    }

    /// The connection, unless it is another one by now: completions of an earlier one may come late.
    pub(super) fn find(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.slots.get_mut(id.slot as usize).filter(|connection| connection.generation == id.generation)
    }

    pub(super) fn in_slot(&mut self, slot: u32) -> Option<(ConnectionId, &mut Connection)> {
        let connection = self.slots.get_mut(slot as usize)?;
        Some((ConnectionId { slot, generation: connection.generation }, connection))
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Connection {
        self.take_peer(id);
        self.slots.remove(id.slot as usize)
    }

    /// Who is at the other end of a connection that is here, where that is kept.
    pub(super) fn peer(&self, id: ConnectionId) -> Option<&Peer> {
        self.peers.get(id.slot as usize)?.as_ref()
    }

    pub(super) fn set_peer(&mut self, id: ConnectionId, peer: Option<Peer>) {
        let slot = id.slot as usize;
        if self.keeps_peers {
            if self.peers.len() <= slot {
                self.peers.resize_with(slot + 1, || None);
            }
            self.peers[slot] = peer;
        }
    }

    /// What goes elsewhere with its connection, or ends with it.
    pub(super) fn take_peer(&mut self, id: ConnectionId) -> Option<Peer> {
        self.peers.get_mut(id.slot as usize)?.take()
    }

    /// All slots in use are below this.
    pub(super) fn slots(&self) -> usize {
        self.slots.capacity()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Connection> {
        self.slots.iter().map(|(_, connection)| connection)
    }

    pub(super) fn ids(&self) -> Vec<ConnectionId> {
        let ids = self.slots.iter();
        ids.map(|(slot, connection)| ConnectionId { slot: slot as u32, generation: connection.generation })
            .collect()
    }
}
