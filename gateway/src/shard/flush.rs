//! Sending and ending: one send in flight per connection, and a shutdown before every close.

use bytes::Bytes;
use protocol::event::CloseCode;

use super::connection::{Connection, End, Stage};
use super::{Action, ConnectionId, Shard};

impl Shard {
    /// Sends what a connection has, if nothing is in flight; goes on with what had to wait for that.
    pub(super) fn flush(&mut self, id: ConnectionId) {
        let second = self.second() as u32;
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        // Who leaves for its home has to be there before anybody can go on with it.
        let waits = self.paused && !matches!(connection.stage, Stage::Leaving(_));
        if connection.sending || connection.is_ending() || waits {
            return;
        }
        let mut control = connection.take_control();
        // While a half-sent frame holds these up, newer pongs merge in the codec: a slow reader that pings costs one.
        if control.is_empty() {
            connection.codec.poll_control(&mut control);
        }
        let bytes = match connection.stage {
            Stage::Live { session, .. } => self.users.take_send(session, &mut control),
            Stage::Moving { .. } => None,
            _ if control.is_empty() && connection.held().is_none() => None,
            _ => connection.held_mut().outbox.take_send(&mut control).map(|chunk| chunk.bytes),
        };
        if !control.is_empty() {
            connection.held_mut().control = control;
        }
        if let Some(bytes) = bytes {
            connection.sending = true;
            connection.sent = second;
            self.crowd.sends += 1;
            let socket = connection.socket;
            self.actions.push(Action::Send(id, socket, bytes));
            self.schedule_sooner(id);
        } else {
            if matches!(connection.stage, Stage::Leaving(_)) {
                self.depart(id);
            } else if connection.codec.wants_shutdown() {
                self.begin_shutdown(id);
            }
        }
        self.recount(id);
    }

    pub(super) fn handle_sent(&mut self, id: ConnectionId, bytes: Bytes, sent: Option<usize>) {
        let second = self.second() as u32;
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        connection.sending = false;
        connection.sent = second;
        let Some(sent) = sent else {
            self.end_session(id, CloseCode::ABNORMAL);
            self.begin_shutdown(id);
            return self.close_if_quiet(id);
        };
        match connection.stage {
            Stage::Live { session, .. } => self.users.handle_sent(session, bytes, sent),
            _ => connection.held_mut().outbox.handle_sent(bytes, sent),
        }
        self.send_on(id);
        self.close_if_quiet(id);
    }

    /// Sends for sessions that have something.
    pub(super) fn poll_sends(&mut self) {
        self.send_some();
        // A send that ended may have asked for a page.
        self.exchange_local();
    }

    /// Connections whose sessions were ended.
    pub(super) fn close_ended(&mut self) {
        while let Some(ended) = self.users.poll_ended() {
            let id = ConnectionId::unpack(ended.connection);
            if let Some(connection) = self.connections.find(id) {
                tracing::debug!(
                    shard = self.id.0,
                    user = ended.user.as_str(),
                    code = ended.code.0,
                    "session ends"
                );
                connection.held_mut().outbox = ended.outbox;
                connection.stage = Stage::Ending;
                self.end(id, ended.code, ended.reason);
            }
        }
    }

    /// Ends a connection from this side: tells the peer why, then waits for its answer.
    ///
    /// One whose descriptor is on its way is let go: it lives on at its new home.
    pub(super) fn end(&mut self, id: ConnectionId, code: CloseCode, reason: &str) {
        if matches!(self.connections.find(id), None | Some(Connection { stage: Stage::Moving { .. }, .. })) {
            return;
        }
        self.count_close(code);
        self.end_session(id, code);
        let second = self.second() as u32;
        if let Some(connection) = self.connections.find(id) {
            connection.codec.close(code, reason);
            connection.since = second;
            self.schedule_sooner(id);
            self.flush(id);
        }
    }

    /// The session is over, with this code; what is half sent stays with the connection.
    pub(super) fn end_session(&mut self, id: ConnectionId, code: CloseCode) {
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        match connection.stage {
            Stage::Live { session, .. } => {
                if let Some(user) = self.users.user_of(session) {
                    tracing::debug!(shard = self.id.0, user = user.as_str(), code = code.0, "session ends");
                }
                connection.held_mut().outbox = self.users.disconnect(session);
                connection.stage = Stage::Ending;
            }
            Stage::Echo => {
                let outbox = &mut connection.held_mut().outbox;
                *outbox = std::mem::take(outbox).into_half_sent();
                connection.stage = Stage::Ending;
            }
            Stage::Arriving { .. } | Stage::Leaving(_) => connection.stage = Stage::Ending,
            Stage::Moving { .. } | Stage::Ending => {}
        }
        self.recount(id);
    }

    pub(super) fn begin_shutdown(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        if !connection.is_ending() {
            connection.end = End::ShuttingDown;
            let socket = connection.socket;
            self.actions.push(Action::Shutdown(id, socket));
        }
    }

    pub(super) fn handle_shut_down(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.find(id) {
            connection.end = connection.end.max(End::ShutDown);
            self.close_if_quiet(id);
        }
    }

    /// Frees the descriptor once nothing is in flight on it.
    pub(super) fn close_if_quiet(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        if connection.end == End::ShutDown && !connection.receiving && !connection.sending {
            connection.end = End::Closing;
            let socket = connection.socket;
            self.actions.push(Action::Close(id, socket));
        }
    }

    pub(super) fn handle_closed(&mut self, id: ConnectionId) {
        if self.connections.find(id).is_none() {
            return;
        }
        self.end_session(id, CloseCode::ABNORMAL);
        self.connections.remove(id);
    }
}
