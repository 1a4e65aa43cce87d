//! How much a turn does of what comes in crowds, so that turns stay short for those who are there.
//!
//! A thousand handshakes, or twenty thousand goodbyes, may come between two turns. What sessions say, what the disk has
//! done and mail are handled as they come; of a crowd a turn does a part, in the order in which it came, and the next
//! turn follows at once. So a message waits for some milliseconds, however large the crowd is.
//!
//! Invariant: every queue here is bounded by something else: connections, moves under way, receive buffers.

use std::collections::VecDeque;

use ring::{RecvBuffer, Socket};
use router::ShardId;

use super::connection::{Connection, Stage};
use super::{ConnectionId, ReceiveEnd, Shard};
use crate::mailbox::Move;

/// Steps of handshakes in one turn: bytes that came, or a connection that moved here. Each is a signature checked or a
/// session begun, and a send: 2 ms in all, at 30 us each.
const ARRIVALS_PER_TURN: usize = 64;

/// Connections in one turn that begin to end: a goodbye answered, a shutdown, or what is said to one that is overdue, and soon a close; 2 ms in all.
const PARTINGS_PER_TURN: usize = 64;

/// Sends in one turn, but for those of handshakes and goodbyes: 3 ms at some 10 us each, in which the kernel carries each
/// to its reader where that is on the same machine.
const SENDS_PER_TURN: usize = 256;

/// Of these, sends of connections that go on because one has ended: who always has more, a room that many write to or a page of
/// catching up, must not take the turns of who has little.
const SENDS_ON_PER_TURN: usize = SENDS_PER_TURN / 2;

/// Receive buffers that wait for their handshake's turn: half of what the ring has.
const BUFFERS_HELD_MAX: usize = 512;

enum Arrival {
    /// Bytes of a peer without a session.
    Bytes { connection: ConnectionId, buffer: RecvBuffer, armed: bool },
    /// Both halves of a move.
    Moved { source: ShardId, moved: Box<Move>, socket: Socket },
}

enum Parting {
    /// The peer is gone.
    Gone(ConnectionId),
    /// The peer has said goodbye: it is answered.
    Goodbye(ConnectionId),
    /// It is overdue.
    Overdue(ConnectionId),
}

/// What is left for the next turns.
#[derive(Default)]
pub(super) struct Crowd {
    arrivals: VecDeque<Arrival>,
    buffers_held: usize,
    partings: VecDeque<Parting>,
    /// Connections whose send ended in a turn that had sent enough.
    unsent: VecDeque<ConnectionId>,
    /// Sends of this turn.
    pub(super) sends: usize,
    /// Users here who were told news of logs here, in this turn.
    pub(super) told: usize,
}

impl Crowd {
    /// Sockets that moved here and are no connection of this shard yet. Who is in a handshake is one.
    pub(super) fn moved_here(&self) -> usize {
        self.arrivals.len() - self.buffers_held
    }

    /// Whether handshakes or goodbyes wait for their turn.
    pub(super) fn has_arrivals_or_partings(&self) -> bool {
        !self.arrivals.is_empty() || !self.partings.is_empty()
    }

    /// Whether the next turn has something to do, whatever happens.
    pub(super) fn is_waiting(&self) -> bool {
        !self.arrivals.is_empty() || !self.partings.is_empty() || !self.unsent.is_empty()
    }
}

impl Shard {
    /// Bytes of a session are handled at once; those of a handshake in its turn.
    pub(super) fn take_received(&mut self, id: ConnectionId, buffer: RecvBuffer, armed: bool) {
        if !matches!(self.connections.find(id), Some(Connection { stage: Stage::Arriving { .. }, .. })) {
            return self.handle_received(id, buffer, armed);
        }
        self.crowd.arrivals.push_back(Arrival::Bytes { connection: id, buffer, armed });
        self.crowd.buffers_held += 1;
        while self.crowd.buffers_held > BUFFERS_HELD_MAX {
            self.next_arrival();
        }
    }

    /// The end of a session's connection waits for its turn; another is nothing to speak of.
    pub(super) fn take_receive_ended(&mut self, id: ConnectionId, end: ReceiveEnd) {
        match self.connections.find(id) {
            Some(Connection { stage: Stage::Live { .. }, .. }) if end == ReceiveEnd::Gone => {
                self.crowd.partings.push_back(Parting::Gone(id));
            }
            _ => self.handle_receive_ended(id, end),
        }
    }

    /// A connection that moved here goes on in its turn.
    pub(super) fn take_arrived(&mut self, source: ShardId, moved: Box<Move>, socket: Socket) {
        self.crowd.arrivals.push_back(Arrival::Moved { source, moved, socket });
    }

    /// A peer said goodbye: it is answered in its turn.
    pub(super) fn take_goodbye(&mut self, id: ConnectionId) {
        self.crowd.partings.push_back(Parting::Goodbye(id));
    }

    /// A connection is overdue: it is ended in its turn.
    pub(super) fn take_overdue(&mut self, id: ConnectionId) {
        self.crowd.partings.push_back(Parting::Overdue(id));
    }

    pub(super) fn continue_crowd(&mut self) {
        for _ in 0..ARRIVALS_PER_TURN {
            if !self.next_arrival() {
                break;
            }
        }
        for _ in 0..PARTINGS_PER_TURN {
            match self.crowd.partings.pop_front() {
                None => break,
                Some(Parting::Overdue(id)) => self.end_overdue(id),
                Some(Parting::Gone(id)) => self.handle_receive_ended(id, ReceiveEnd::Gone),
                Some(Parting::Goodbye(id)) => {
                    self.flush(id);
                    self.close_if_quiet(id);
                }
            }
        }
    }

    fn next_arrival(&mut self) -> bool {
        match self.crowd.arrivals.pop_front() {
            None => return false,
            Some(Arrival::Bytes { connection, buffer, armed }) => {
                self.crowd.buffers_held -= 1;
                self.handle_received(connection, buffer, armed);
            }
            Some(Arrival::Moved { source, moved, socket }) => self.arrive(source, moved, socket),
        }
        true
    }

    /// A send has ended: the next one of this connection follows, in this turn or in one of the next.
    pub(super) fn send_on(&mut self, id: ConnectionId) {
        if self.crowd.sends < SENDS_ON_PER_TURN {
            self.flush(id);
        } else {
            self.crowd.unsent.push_back(id);
        }
    }

    /// Sends for those who have something, as many as a turn takes: by turns for who has something new, and for who goes on.
    pub(super) fn send_some(&mut self) {
        let (mut has_new, mut goes_on) = (!self.paused, !self.paused);
        while self.crowd.sends < SENDS_PER_TURN && (has_new || goes_on) {
            has_new = self.send_new();
            goes_on = self.send_waiting();
        }
    }

    fn send_new(&mut self) -> bool {
        let next = self.users.poll_sendable();
        if let Some((_, connection)) = next {
            self.flush(ConnectionId::unpack(connection));
        }
        next.is_some()
    }

    fn send_waiting(&mut self) -> bool {
        let next = self.crowd.unsent.pop_front();
        if let Some(id) = next {
            self.flush(id);
            self.close_if_quiet(id);
        }
        next.is_some()
    }
}
