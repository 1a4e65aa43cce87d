//! Deadlines: what a peer has to do by when, looked at once a second.

use protocol::event::CloseCode;
use protocol::limits::{CLOSE_MILLIS_MAX, HANDSHAKE_MILLIS_MAX, IDLE_MILLIS_MAX, MESSAGE_MILLIS_MAX};
use protocol::upgrade::HttpRefusal;

use super::admission::{PATIENCE_SECONDS, is_too_slow};
use super::connection::{Connection, Stage};
use super::{ConnectionId, Shard};
use crate::metrics::RefusedReason;
use crate::wheel::Wheel;

/// A reader that takes nothing at all for this long is closed, in seconds. A slow one is not.
const STALL_SECONDS: u64 = 30;

/// An echo message of 16 MiB in small fragments takes its time, in seconds.
const ECHO_MESSAGE_SECONDS: u64 = 60;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Overdue {
    /// No request, or no `connect`.
    Arrival,
    /// The peer does not answer our close frame.
    Close,
    /// The token has ended.
    Expired,
    /// Others wait for its place.
    Displaced,
    /// Nothing was heard.
    Idle,
    /// A message began and does not end.
    Message,
    /// It was to move to another shard and could not.
    Stuck,
    /// Nothing is taken from us.
    Stalled,
}

impl Shard {
    /// Puts a new connection into the wheel.
    pub(super) fn schedule(&mut self, id: ConnectionId) {
        let now_ms = self.clock.unix.0;
        let second = self.second();
        if let Some(connection) = self.connections.find(id) {
            let (mut deadline, _) = next_deadline(connection, second, now_ms);
            if connection.is_handshake && connection.is_stranger() {
                // Somebody may wait for its place before that.
                deadline = deadline.min((u64::from(connection.since) + PATIENCE_SECONDS).max(second + 1));
            }
            connection.timer = self.wheel.put(id.slot, deadline);
        }
    }

    /// Something may be due earlier than before.
    pub(super) fn schedule_sooner(&mut self, id: ConnectionId) {
        let now_ms = self.clock.unix.0;
        let second = self.second();
        if let Some(connection) = self.connections.find(id) {
            let (deadline, _) = next_deadline(connection, second, now_ms);
            if deadline < connection.timer {
                connection.timer = self.wheel.put(id.slot, deadline);
            }
        }
    }

    pub(super) fn check_timers(&mut self) {
        let now = self.second();
        let mut due = std::mem::take(&mut self.due);
        while let Some(second) = self.wheel.take(now, &mut due) {
            for slot in due.drain(..) {
                self.check_deadline(slot, second);
            }
            self.expire_moves();
        }
        self.due = due;
    }

    fn check_deadline(&mut self, slot: u32, second: u64) {
        let (now, now_ms) = (self.second(), self.clock.unix.0);
        let Some((id, connection)) = self.connections.in_slot(slot) else {
            return;
        };
        if connection.timer != second {
            return;
        }
        let (deadline, _) = next_deadline(connection, now, now_ms);
        if deadline <= now || is_too_slow(connection, &self.admission, now) {
            // A crowd that fell silent together, or whose tokens end together, is ended in parts.
            self.take_overdue(id);
        } else {
            self.schedule(id);
        }
    }

    /// Ends what a connection may not go on with, whose turn it is; it may have gone on meanwhile.
    pub(super) fn end_overdue(&mut self, id: ConnectionId) {
        let (now, now_ms) = (self.second(), self.clock.unix.0);
        let Some(connection) = self.connections.find(id) else { return };
        let (deadline, overdue) = next_deadline(connection, now, now_ms);
        if deadline <= now {
            self.handle_overdue(id, overdue);
        } else if is_too_slow(connection, &self.admission, now) {
            self.handle_overdue(id, Overdue::Displaced);
        }
        self.schedule(id);
    }

    fn handle_overdue(&mut self, id: ConnectionId, overdue: Overdue) {
        match overdue {
            Overdue::Arrival => {
                let connection = self.connections.find(id).expect("the caller found it");
                if connection.codec.is_upgrading() {
                    connection.codec.refuse(HttpRefusal { status: 408, reason: "no request within 10 s" });
                    self.metrics.refused_total(RefusedReason::Timeout).increment();
                    self.flush(id);
                } else {
                    self.end(id, CloseCode::IDLE, "no connect within 10 s");
                }
            }
            Overdue::Displaced => {
                self.metrics.refused_total(RefusedReason::Displaced).increment();
                let connection = self.connections.find(id).expect("the caller found it");
                if connection.codec.is_upgrading() {
                    connection.codec.refuse(HttpRefusal {
                        status: 408,
                        reason: "no request within 2 s, and others wait",
                    });
                    self.flush(id);
                } else {
                    self.end(id, CloseCode::IDLE, "no connect within 2 s, and others wait");
                }
            }
            Overdue::Stuck => {
                self.metrics.refused_total(RefusedReason::NoCredit).increment();
                self.end(id, CloseCode::OVERLOAD, "too many connections are moving");
            }
            Overdue::Close => self.begin_shutdown(id),
            Overdue::Expired => self.end(id, CloseCode::EXPIRED, "the token has expired"),
            Overdue::Idle => self.end(id, CloseCode::IDLE, "nothing was heard for 60 s"),
            Overdue::Message => self.end(id, CloseCode::IDLE, "a message did not end in time"),
            Overdue::Stalled => {
                // A close frame would wait behind what is not taken: the shutdown says it.
                self.count_close(CloseCode::STALLED);
                if let Some(Connection { stage: Stage::Live { session, .. }, .. }) = self.connections.find(id)
                {
                    let session = *session;
                    let user = self.users.user_of(session).map(ToString::to_string);
                    let user = user.unwrap_or_default();
                    let peer = self.connections.peer(id).map(|peer| tracing::field::display(peer.address));
                    tracing::info!(
                        user,
                        peer,
                        "session closed: its reader took nothing for 30 s; it may come back and resume"
                    );
                }
                self.end_session(id, CloseCode::STALLED);
                self.begin_shutdown(id);
            }
        }
    }
}

/// The earliest second at which something has to be decided, and what.
fn next_deadline(connection: &Connection, now: u64, now_ms: u64) -> (u64, Overdue) {
    let far = (now + Wheel::AHEAD_MAX, Overdue::Idle);
    if connection.is_ending() {
        return far;
    }
    let seconds = |since: u32, millis: u64| u64::from(since) + millis.div_ceil(1000);
    let mut deadline = far;
    let mut consider = |second: u64, overdue: Overdue| {
        if second < deadline.0 {
            deadline = (second, overdue);
        }
    };
    let is_echo = matches!(connection.stage, Stage::Echo);
    match connection.stage {
        Stage::Arriving { .. } => consider(seconds(connection.since, HANDSHAKE_MILLIS_MAX), Overdue::Arrival),
        Stage::Live { expires_at, .. } => {
            consider(now + expires_at.saturating_sub(now_ms).div_ceil(1000), Overdue::Expired);
        }
        Stage::Ending => consider(seconds(connection.since, CLOSE_MILLIS_MAX), Overdue::Close),
        Stage::Leaving(_) => consider(seconds(connection.since, HANDSHAKE_MILLIS_MAX), Overdue::Stuck),
        Stage::Echo | Stage::Moving { .. } => {}
    }
    if matches!(connection.stage, Stage::Live { .. } | Stage::Echo) {
        consider(seconds(connection.heard, IDLE_MILLIS_MAX), Overdue::Idle);
    }
    // Once it is closing, what it has begun does not matter any more, or the close would be put off for ever.
    if connection.codec.is_open() && connection.codec.is_mid_message() {
        let within = if is_echo { ECHO_MESSAGE_SECONDS * 1000 } else { MESSAGE_MILLIS_MAX };
        let since = connection.held().map_or(connection.heard, |held| held.message_since);
        consider(seconds(since, within), Overdue::Message);
    }
    if connection.sending {
        consider(u64::from(connection.sent) + STALL_SECONDS, Overdue::Stalled);
    }
    deadline
}
