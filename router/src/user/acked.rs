//! What devices acknowledge: the owners of the logs are told how far each has come, and from that what was delivered.
//!
//! A session that says the same cursor again costs a comparison a log. What has moved waits with the other signals, the newest of a user
//! for each log, so a device that acknowledges faster than that is mailed is told of once.

use super::UserSide;
use super::session::{LogState, Session};
use crate::cursor;
use crate::mail::{Given, SessionId};

impl Session {
    /// Every log has a place: what comes from there on is delivered to this device when it says so.
    pub(super) fn begin_acked(&mut self) {
        if self.positions().is_some() {
            self.logs.iter_mut().for_each(LogState::begin_acked);
        }
    }
}

impl UserSide {
    /// A device comes with a cursor: it has stored everything up to there, and may not have come to say so, or what it said was lost with the process.
    pub(super) fn note_came_with(&mut self, id: SessionId, is_whole: bool) {
        let Some(session) = self.session(id) else { return };
        let (user, logs) = (session.user.clone(), session.logs.clone());
        for (log, state) in logs.iter().enumerate().filter(|(_, state)| state.followed() > 0) {
            let after = state.position.saturating_sub(u64::from(state.followed()));
            self.presence.note_came_with(log, &user, Given::new(after, state.position, is_whole));
        }
    }

    /// A device has stored everything up to a cursor. One that is not this user's, or of another store, says nothing.
    pub(super) fn note_acked(&mut self, id: SessionId, cursor: &str) {
        let (places, starts) = (self.places.clone(), self.starts.clone());
        let Some(session) = self.session(id) else { return };
        let Ok(cursor) = cursor::decode(&places, &starts, &session.user, cursor) else { return };
        let user = session.user.clone();
        for (log, position) in cursor.positions.iter().enumerate() {
            let state = self.session(id).and_then(|session| session.logs.get_mut(log));
            let moved = state.and_then(|state| state.note_acked(*position));
            if let Some((after, to)) = moved {
                self.presence.note_acked(log, &user, Given::new(after, to, cursor.is_whole));
            }
        }
    }
}
