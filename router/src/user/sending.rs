//! What goes out to sessions: frames into outboxes, and whose turn it is to send.
//!
//! Each session is listed once while it has something to send. What is for few goes ahead of what is for many, within a bound, so that
//! both get their turn. A session whose outbox has emptied is fed the next page.

use bytes::Bytes;
use protocol::event::ServerFrame;

use super::session::Session;
use super::{UserSide, error_index, frames};
use crate::mail::SessionId;
use crate::turns::When;

impl UserSide {
    /// The next connection that has something to send. Each comes once, until [`UserSide::take_send`] is called for it.
    ///
    /// What is for few goes ahead of what is for many: one message to a large conversation, or a page for each of a crowd,
    /// is thousands of sends, and nobody is to wait for all of them.
    pub fn poll_sendable(&mut self) -> Option<(SessionId, u64)> {
        while let Some((id, when)) = self.sendable.pop() {
            if let Some(session) = self.session(id)
                && session.listed == Some(when)
            {
                session.listed = None;
                return Some((id, session.connection));
            }
        }
        None
    }

    /// Whether [`UserSide::poll_sendable`] may have more.
    #[must_use]
    pub fn has_sendable(&self) -> bool {
        !self.sendable.is_empty()
    }

    /// The next send of a session, control bytes first; `None` while one is in flight or there is nothing.
    pub fn take_send(&mut self, id: SessionId, control: &mut Vec<u8>) -> Option<Bytes> {
        let session = self.session(id)?;
        let chunk = session.outbox.take_send(control)?;
        session.commands -= chunk.replies;
        Some(chunk.bytes)
    }

    /// A send has ended after `sent` of its bytes.
    pub fn handle_sent(&mut self, id: SessionId, bytes: Bytes, sent: usize) {
        let Some(session) = self.session(id) else {
            return;
        };
        session.outbox.handle_sent(bytes, sent);
        if session.outbox.is_sendable() {
            self.list(id);
        } else if session.outbox.is_empty() {
            self.push_late(id);
            self.ask_pages(id);
            self.session(id).into_iter().for_each(Session::release);
        }
    }

    /// Whether a session holds nothing beyond its slot and its two names, as one does that has nothing under way and views nothing.
    #[must_use]
    pub fn holds_nothing(&self, id: SessionId) -> bool {
        self.sessions.get(id.slot as usize).is_some_and(Session::is_released)
    }

    /// Tells a session that the node is going away.
    pub fn drain(&mut self, id: SessionId, reconnect_in_ms: u64) {
        self.push_event(
            id,
            &ServerFrame::Drain { reconnect_in_ms, reason: "the node is restarting".to_owned() },
        );
    }

    /// A session has something to send.
    pub(super) fn list(&mut self, id: SessionId) {
        if let Some(session) = self.session(id)
            && session.listed != Some(When::Soon)
        {
            session.listed = Some(When::Soon);
            self.sendable.push(id, When::Soon);
        }
    }

    /// The same of what is for many, or is a page.
    pub(super) fn list_later(&mut self, id: SessionId) {
        if let Some(session) = self.session(id)
            && session.listed.is_none()
        {
            session.listed = Some(When::Later);
            self.sendable.push(id, When::Later);
        }
    }

    pub(super) fn push_event(&mut self, id: SessionId, event: &ServerFrame) {
        self.push_frame(id, event, false);
    }

    pub(super) fn push_reply(&mut self, id: SessionId, reply: &ServerFrame) {
        if let ServerFrame::Error(error) = reply {
            self.counters.errors[error_index(error.code)] += 1;
        }
        self.push_frame(id, reply, true);
    }

    pub(super) fn push_frame(&mut self, id: SessionId, frame: &ServerFrame, is_reply: bool) {
        let Some(session) = self.session(id) else {
            return;
        };
        let frame = frames::server_frame(session.form, frame);
        session.outbox.push(frame, is_reply);
        self.list(id);
    }
}
