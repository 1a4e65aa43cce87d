//! Going away without a herd: goodbyes are spread over the drain time, acknowledgements go on until the close frame.

use std::collections::VecDeque;

use protocol::event::CloseCode;

use super::connection::{Connection, Stage};
use super::{Action, ConnectionId, Shard};

/// Between the `drain` event of a session and its close frame, in microseconds: what is under way is still answered.
const GRACE_MICROS: u64 = 1_000_000;

/// How long after the last goodbye a peer may take to answer the close frame, in microseconds.
const LAST_MICROS: u64 = 6_000_000;

/// Clients come back within this time, each at a moment of its own.
const RECONNECT_SPREAD_MS: u64 = 5_000;

pub(super) struct Drain {
    begun: u64,
    /// Everybody who was connected, and how many of them were told.
    order: Vec<ConnectionId>,
    told: usize,
    /// Who is closed when.
    closing: VecDeque<(u64, ConnectionId)>,
}

impl Shard {
    pub(super) fn begin_drain(&mut self) {
        if self.drain.is_some() {
            return;
        }
        self.users.leave();
        let order = self.connections.ids();
        self.actions.push(Action::CloseListeners);
        self.drain = Some(Drain { begun: self.clock.micros, order, told: 0, closing: VecDeque::new() });
    }

    /// A connection that arrives while the node drains goes like those that were there.
    pub(super) fn drain_too(&mut self, id: ConnectionId) {
        if let Some(drain) = &mut self.drain {
            drain.order.push(id);
        }
    }

    /// Tells as many as the time that has gone says, and closes those that were told a second ago.
    pub(super) fn continue_drain(&mut self) {
        let now = self.clock.micros;
        let window = self.config.drain_seconds * 1_000_000;
        let Some(drain) = &mut self.drain else {
            return;
        };
        let elapsed = (now - drain.begun).min(window);
        let until = if window == 0 {
            drain.order.len()
        } else {
            (drain.order.len() as u64 * elapsed).div_ceil(window) as usize
        };
        let tell: Vec<ConnectionId> = drain.order[drain.told..until].to_vec();
        drain.told = until;
        drain.closing.extend(tell.iter().map(|id| (now + GRACE_MICROS, *id)));
        let mut close = Vec::new();
        while drain.closing.front().is_some_and(|(at, _)| *at <= now) {
            close.extend(drain.closing.pop_front().map(|(_, id)| id));
        }
        for id in tell {
            self.tell_drain(id);
        }
        for id in close {
            self.end(id, CloseCode::DRAIN, "the node is restarting");
        }
    }

    fn tell_drain(&mut self, id: ConnectionId) {
        let reconnect_in_ms = 500 + self.roll() % RECONNECT_SPREAD_MS;
        if let Some(Connection { stage: Stage::Live { session, .. }, .. }) = self.connections.find(id) {
            self.users.drain(*session, reconnect_in_ms);
        }
    }

    /// Says whether everybody here has gone or has had its time, and nothing waits for the disk.
    pub(super) fn note_rest(&mut self) {
        if let Some(drain) = &self.drain {
            let last = drain.begun + self.config.drain_seconds * 1_000_000 + GRACE_MICROS + LAST_MICROS;
            let gone = self.connections.count() == 0 || self.clock.micros >= last;
            self.mail.set_at_rest(gone && self.users.has_written() && self.logs_are_quiet());
        }
    }

    /// Whether a drain has ended, here and at all other shards: until then each may ask for the logs of this one.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.drain.is_some() && self.mail.all_at_rest()
    }
}
