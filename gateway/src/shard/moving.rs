//! Moving a connection to its user's home shard, once, right after `connect`.
//!
//! Two things travel: a mail with everything that is known about the connection, and its descriptor. They arrive in any
//! order; the target acts when it has both. The mail takes a credit that comes back when the move has ended, so the
//! number of moves under way is bounded.

use std::collections::{HashMap, VecDeque};

use protocol::session::Session;
use ring::Socket;
use router::ShardId;

use super::connection::{Connection, End, Stage};
use super::revoke::refused;
use super::{Action, ConnectionId, Shard};
use crate::auth::TokenError;
use crate::mailbox::{Back, Forward, MOVE_CREDITS, Move};

/// How long the target waits for the other half, in seconds.
const HALF_SECONDS: u64 = 10;

enum Half {
    Mail {
        source: ShardId,
        moved: Box<Move>,
    },
    Socket(Socket),
    /// Was given up: the descriptor is closed when it comes.
    Cancelled,
}

/// Moves under way from and to one shard.
pub(super) struct Moves {
    shard: ShardId,
    next: u64,
    credits: HashMap<ShardId, u32>,
    /// Who waits for one, by where to: at most the handshakes in progress.
    waiting: HashMap<ShardId, VecDeque<ConnectionId>>,
    halves: HashMap<u64, (u64, Half)>,
}

impl Moves {
    pub(super) fn new(shard: ShardId) -> Self {
        Self { shard, next: 0, credits: HashMap::new(), waiting: HashMap::new(), halves: HashMap::new() }
    }

    /// The name of the next move: this shard in the top 16 of 56 bits, so that no two shards make the same.
    fn name(&mut self) -> u64 {
        self.next = (self.next + 1) % (1 << 40);
        u64::from(self.shard.0) << 40 | self.next
    }

    fn take_credit(&mut self, target: ShardId) -> bool {
        let credits = self.credits.entry(target).or_insert(MOVE_CREDITS);
        let granted = *credits > 0;
        *credits -= u32::from(granted);
        granted
    }

    /// Whether half of a move is here, or may still come.
    pub(super) fn are_under_way(&self) -> bool {
        self.halves.values().any(|(_, half)| !matches!(half, Half::Cancelled))
    }

    fn return_credit(&mut self, target: ShardId) -> Option<ConnectionId> {
        *self.credits.entry(target).or_insert(0) += 1;
        self.waiting.get_mut(&target)?.pop_front()
    }
}

impl Shard {
    /// Everything is sent: the descriptor goes. The mail goes first, so that it cannot be late for long. Without a credit
    /// it waits for one, as long as a handshake may take.
    pub(super) fn depart(&mut self, id: ConnectionId) {
        let Some(Connection { stage: Stage::Leaving(moved), .. }) = self.connections.find(id) else {
            unreachable!("the caller looked");
        };
        let target = self.places.home_of(&moved.verified.user);
        if !self.moves.take_credit(target) {
            return self.moves.waiting.entry(target).or_default().push_back(id);
        }
        let connection = self.connections.find(id).expect("found above");
        let socket = connection.socket;
        let Stage::Leaving(mut moved) = std::mem::replace(&mut connection.stage, Stage::Ending) else {
            unreachable!("looked at above");
        };
        let migration = self.moves.name();
        moved.migration = migration;
        let connection = self.connections.find(id).expect("the caller found it");
        let empty = Session::server(&protocol::session::SessionLimits::CONNECT);
        moved.codec = std::mem::replace(&mut connection.codec, empty);
        connection.stage = Stage::Moving { target, migration };
        moved.peer = self.connections.take_peer(id);
        self.mail.post(target, Forward::Move(moved));
        self.actions.push(Action::SendSocket { connection: id, socket, target, migration });
    }

    /// Sockets that may be here beside those of connections: no more than that.
    pub(super) fn arriving(&self) -> u32 {
        (self.moves.halves.len() + self.crowd.moved_here()) as u32
    }

    /// A move to `target` has ended: its credit goes to whoever has waited longest.
    pub(super) fn handle_moved(&mut self, target: ShardId) {
        let mut next = self.moves.return_credit(target);
        while let Some(id) = next {
            // Others among them have given up, or were told to go.
            if matches!(self.connections.find(id), Some(Connection { stage: Stage::Leaving(_), .. })) {
                self.depart(id);
                return self.recount(id);
            }
            next = self.moves.waiting.get_mut(&target).and_then(VecDeque::pop_front);
        }
    }

    /// The descriptor is at its new home, or stays here and is shut down.
    pub(super) fn handle_socket_sent(&mut self, id: ConnectionId, installed: bool) {
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        let Stage::Moving { target, migration } = connection.stage else {
            unreachable!("only moving connections send their descriptor");
        };
        if installed {
            // Without a shutdown: the connection lives on at its new home.
            let socket = connection.socket;
            connection.end = End::Closing;
            self.actions.push(Action::Close(id, socket));
            self.metrics.moved_total.increment();
        } else {
            self.mail.post(target, Forward::CancelMove(migration));
            self.begin_shutdown(id);
        }
    }

    pub(super) fn handle_move(&mut self, source: ShardId, moved: Box<Move>) {
        let migration = moved.migration;
        match self.moves.halves.remove(&migration) {
            Some((_, Half::Socket(socket))) => self.take_arrived(source, moved, socket),
            _ => {
                let half = Half::Mail { source, moved };
                self.moves.halves.insert(migration, (self.second() + HALF_SECONDS, half));
            }
        }
    }

    pub(super) fn handle_adopted(&mut self, migration: u64, socket: Socket) {
        match self.moves.halves.remove(&migration) {
            Some((_, Half::Mail { source, moved })) => self.take_arrived(source, moved, socket),
            Some((_, Half::Cancelled)) => self.close_stray(socket),
            Some((_, Half::Socket(earlier))) => {
                self.close_stray(earlier);
                self.close_stray(socket);
            }
            None => {
                let half = Half::Socket(socket);
                self.moves.halves.insert(migration, (self.second() + HALF_SECONDS, half));
            }
        }
    }

    pub(super) fn handle_move_cancelled(&mut self, source: ShardId, migration: u64) {
        match self.moves.halves.remove(&migration) {
            Some((_, Half::Mail { .. })) => {
                self.mail.reply(source, Back::Moved);
                let half = Half::Cancelled;
                self.moves.halves.insert(migration, (self.second() + HALF_SECONDS, half));
            }
            Some((_, Half::Socket(socket))) => self.close_stray(socket),
            Some((_, Half::Cancelled)) | None => {}
        }
    }

    /// Gives up moves whose other half did not come.
    pub(super) fn expire_moves(&mut self) {
        let now = self.second();
        let mut late: Vec<u64> =
            self.moves.halves.iter().filter(|(_, (until, _))| *until < now).map(|(name, _)| *name).collect();
        late.sort_unstable();
        for migration in late {
            match self.moves.halves.remove(&migration) {
                Some((_, Half::Mail { source, .. })) => {
                    self.mail.reply(source, Back::Moved);
                    let half = Half::Cancelled;
                    self.moves.halves.insert(migration, (now + HALF_SECONDS, half));
                }
                Some((_, Half::Socket(socket))) => self.close_stray(socket),
                Some((_, Half::Cancelled)) | None => {}
            }
        }
    }

    /// Both halves are here: the connection goes on as if it had been accepted here.
    pub(super) fn arrive(&mut self, source: ShardId, moved: Box<Move>, socket: Socket) {
        self.mail.reply(source, Back::Moved);
        let Move { codec, verified, id, connect, mut leftover, peer, .. } = *moved;
        let second = self.second() as u32;
        let connection = Connection::new(socket, Stage::Arriving { bearer: None }, codec, second);
        let connection = self.connections.insert(connection);
        self.connections.set_peer(connection, peer);
        self.schedule(connection);
        self.drain_too(connection);
        // While it was on its way the token may have been revoked, with nothing here yet to close.
        if self.is_revoked(&verified) {
            self.refuse_token(connection, id, refused(TokenError::Revoked));
        } else {
            self.begin_session(connection, verified, id, connect);
        }
        self.handle_bytes(connection, &mut leftover);
        self.rearm(connection);
        self.flush(connection);
    }

    /// A descriptor that nobody speaks for.
    fn close_stray(&mut self, socket: Socket) {
        let codec = Session::server(&protocol::session::SessionLimits::CONNECT);
        let connection = Connection::new(socket, Stage::Ending, codec, self.second() as u32);
        let id = self.connections.insert(connection);
        self.begin_shutdown(id);
    }
}
