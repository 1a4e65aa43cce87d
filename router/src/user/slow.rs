//! Readers that were too slow for their traffic and are fed from the log: whose they are, and since when, for an operator who asks.

use protocol::ids::{UnixMillis, UserId};

use super::UserSide;
use crate::mail::SessionId;

/// Readers that are remembered as slow, 16 bytes each. Where there are more, something else is slow.
const SLOW_MAX: usize = 4_096;

/// Those that are named, of one shard: a label of a metric each.
pub const SLOW_NAMED_MAX: usize = 10;

/// Sessions that fell behind, the longest ago first.
#[derive(Default)]
pub(super) struct SlowReaders(Vec<(SessionId, UnixMillis)>);

impl UserSide {
    /// A session's outbox had no room for what was delivered.
    pub(super) fn note_slow(&mut self, id: SessionId, now: UnixMillis) {
        let slow = &mut self.slow.0;
        if slow.len() < SLOW_MAX && slow.iter().all(|(noted, _)| *noted != id) {
            slow.push((id, now));
        }
    }

    /// Whether anybody may be slow. Costs nothing.
    #[must_use]
    pub fn has_slow_readers(&self) -> bool {
        !self.slow.0.is_empty()
    }

    /// Readers that are behind by now because their outbox was full: how many, at most 4,096, and those that have been so for longest, by
    /// user, at most [`SLOW_NAMED_MAX`]. Who has everything again is not slow any more.
    pub fn slow_readers(&mut self) -> (usize, Vec<(UserId, UnixMillis)>) {
        let mut slow = std::mem::take(&mut self.slow.0);
        slow.retain(|(id, _)| self.session(*id).is_some_and(|session| !session.is_live()));
        let named = slow.iter().take(SLOW_NAMED_MAX);
        let named = named.filter_map(|(id, since)| Some((self.user_of(*id)?.clone(), *since))).collect();
        self.slow.0 = slow;
        (self.slow.0.len(), named)
    }
}
