//! Readers that were too slow for their traffic and are fed from the log: whose they are, and since when, for an operator who asks.

use hashbrown::HashMap;
use protocol::ids::{UnixMillis, UserId};

use super::UserSide;
use crate::mail::SessionId;

/// Readers that are remembered as slow, some 20 bytes each. Where there are more, something else is slow.
const SLOW_MAX: usize = 4_096;

/// Users that are named, of a shard and of the node: each is a label of a metric, which a monitoring system keeps.
pub const SLOW_NAMED_MAX: usize = 10;

/// Sessions that fell behind, and when.
#[derive(Default)]
pub(super) struct SlowReaders(HashMap<SessionId, UnixMillis, foldhash::fast::RandomState>);

impl UserSide {
    /// A session's outbox had no room for what was delivered.
    pub(super) fn note_slow(&mut self, id: SessionId, now: UnixMillis) {
        let slow = &mut self.slow.0;
        if slow.len() < SLOW_MAX {
            slow.entry(id).or_insert(now);
        }
    }

    /// Since when a session is behind because its outbox was full.
    pub(super) fn slow_since(&self, id: SessionId) -> Option<UnixMillis> {
        self.slow.0.get(&id).copied().filter(|_| self.is_behind(id))
    }

    fn is_behind(&self, id: SessionId) -> bool {
        let session = self.sessions.get(id.slot as usize);
        session.is_some_and(|session| session.generation == id.generation && !session.is_live())
    }

    /// Whether anybody may be slow. Costs nothing.
    #[must_use]
    pub fn has_slow_readers(&self) -> bool {
        !self.slow.0.is_empty()
    }

    /// Sessions that are behind by now because their outbox was full: how many, at most 4,096, and whose they are that have been so for
    /// longest, at most [`SLOW_NAMED_MAX`] users, each once. Who has everything again is not slow any more.
    pub fn slow_readers(&mut self) -> (usize, Vec<(UserId, UnixMillis)>) {
        let mut slow = std::mem::take(&mut self.slow.0);
        slow.retain(|id, _| self.is_behind(*id));
        let mut oldest: Vec<(SessionId, UnixMillis)> = slow.iter().map(|(id, since)| (*id, *since)).collect();
        oldest.sort_unstable_by_key(|(id, since)| (*since, id.slot));
        let mut named: Vec<(UserId, UnixMillis)> = Vec::with_capacity(SLOW_NAMED_MAX);
        for (id, since) in oldest {
            if named.len() == SLOW_NAMED_MAX {
                break;
            }
            let user = self.user_of(id).expect("it is behind");
            if named.iter().all(|(other, _)| other != user) {
                named.push((user.clone(), since));
            }
        }
        let count = slow.len();
        self.slow.0 = slow;
        (count, named)
    }
}
