//! What devices acknowledge: the owners of the logs are told how far each has come, and from that what was delivered.
//!
//! A session that says the same cursor again costs a comparison a log. What has moved waits with the other signals, the newest of a user
//! for each log, so a device that acknowledges faster than that is mailed is told of once.

use super::UserSide;
use super::session::{LogState, Session};
use crate::cursor;
use crate::mail::SessionId;

impl Session {
    /// Every log has a place: what comes from there on is delivered to this device when it says so.
    pub(super) fn begin_acked(&mut self) {
        if self.positions().is_some() {
            let unknown = |log: &&mut LogState| log.acked == LogState::UNKNOWN;
            self.logs.iter_mut().filter(unknown).for_each(|log| log.acked = log.position);
        }
    }

    /// A device has stored what stands before `position`, which it was sent. What that is of, if it is news.
    fn note_acked(&mut self, log: usize, position: u64) -> Option<(u64, u64)> {
        let state = self.logs.get_mut(log).filter(|log| log.acked != LogState::UNKNOWN)?;
        let to = position.min(state.position);
        (to > state.acked).then(|| (std::mem::replace(&mut state.acked, to), to))
    }
}

impl UserSide {
    /// A device has stored everything up to a cursor. One that is not this user's, or of another store, says nothing.
    pub(super) fn note_acked(&mut self, id: SessionId, cursor: &str) {
        let (places, starts) = (self.places.clone(), self.starts.clone());
        let Some(session) = self.session(id) else { return };
        let Ok(cursor) = cursor::decode(&places, &starts, &session.user, cursor) else { return };
        let user = session.user.clone();
        for (log, position) in cursor.positions.iter().enumerate() {
            let moved = self.session(id).and_then(|session| session.note_acked(log, *position));
            if let Some((after, to)) = moved {
                self.presence.note_acked(log, &user, after, to);
            }
        }
    }
}
