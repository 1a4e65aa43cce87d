//! Messages that a start finds behind the mark of its log: of which nobody was called yet, or perhaps not everybody.

use std::time::Duration;

use hashbrown::HashMap;
use protocol::ids::{ConversationId, Seq};
use protocol::record::{Schema, StreamKind as Kind};
use storage_log::Record;

/// How old a message may be of which somebody is called after a start. Whoever is called later than that is called of a node that was away
/// longer than people wait; and a mark that was left behind by months must not call everybody of them.
const AGE_MAX: Duration = Duration::from_secs(10 * 60);

/// Conversations of which a start calls somebody: 48 bytes each. Those beyond, which a node does not have in ten minutes, are passed over.
const CONVERSATIONS_MAX: usize = 1 << 20;

/// What was said in a conversation behind the mark.
pub(super) struct Unheard {
    /// Positions of the first
    pub(super) first: u64,
    /// and the last message of it.
    pub(super) last: u64,
    pub(super) newest: Seq,
    /// All of them stand in inboxes.
    pub(super) is_linked: bool,
}

/// What was said in a log behind its mark, while it is read back.
pub struct Unjudged {
    /// `None`: nothing is looked for.
    mark: Option<u64>,
    not_before: u64,
    said: HashMap<ConversationId, Unheard, foldhash::fast::RandomState>,
}

impl Unjudged {
    /// Of a log of which everybody was called up to `mark`, at `now` in milliseconds since 1970. Without a mark it begins with what comes.
    #[must_use]
    pub fn behind(mark: Option<u64>, now: u64) -> Self {
        let not_before = now.saturating_sub(AGE_MAX.as_millis() as u64);
        Self { mark, not_before, said: HashMap::default() }
    }

    /// Nothing: of a node that calls nobody.
    #[must_use]
    pub fn nothing() -> Self {
        Self::behind(None, 0)
    }

    /// What was shown is void.
    pub fn clear(&mut self) {
        self.said.clear();
    }

    /// Whether a segment may hold something of it, at whose end the log stood at `clock`.
    #[must_use]
    pub fn wants(&self, clock: u64) -> bool {
        self.mark.is_some() && clock >= self.not_before
    }

    /// Is shown a record.
    pub fn observe(&mut self, record: &Record<'_>) {
        let is_message =
            record.stream().kind.0 == Kind::Messages as u8 && record.schema() == Schema::Message as u16;
        let is_behind = self.mark.is_some_and(|mark| record.position() > mark);
        if !is_message || !is_behind || record.at() < self.not_before {
            return;
        }
        let (position, seq) = (record.position(), Seq(record.seq()));
        let is_linked = record.links().any(|link| link.stream.kind.0 == Kind::Inbox as u8);
        let has_room = self.said.len() < CONVERSATIONS_MAX;
        // In whatever order segments are shown.
        match self.said.get_mut(&ConversationId(record.stream().id)) {
            Some(said) => {
                said.first = said.first.min(position);
                (said.last, said.newest) = (said.last.max(position), said.newest.max(seq));
                said.is_linked &= is_linked;
            }
            None if has_room => {
                let said = Unheard { first: position, last: position, newest: seq, is_linked };
                self.said.insert(ConversationId(record.stream().id), said);
            }
            None => {}
        }
    }

    /// The mark has moved since reading began: up to here everybody was called.
    pub fn pass(&mut self, mark: Option<u64>) {
        let Some(mark) = mark else { return self.clear() };
        self.said.retain(|_, said| said.last > mark);
        self.said.values_mut().for_each(|said| said.first = said.first.max(mark + 1));
    }

    /// How many conversations there are.
    #[must_use]
    pub fn conversations(&self) -> usize {
        self.said.len()
    }

    /// By conversation, in the order of the first message of each.
    pub(super) fn into_messages(self) -> Vec<(ConversationId, Unheard)> {
        let mut all: Vec<_> = self.said.into_iter().collect();
        all.sort_unstable_by_key(|(_, said)| said.first);
        all
    }
}
