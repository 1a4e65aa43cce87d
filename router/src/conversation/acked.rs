//! What was delivered: from how far devices have acknowledged a log to how far its conversations were delivered.
//!
//! What a device has acknowledged is kept (`taken`), and that is all that becomes of it where nobody looks. Of a conversation that is viewed it is found out by
//! the positions of its newest records (`newest`), when somebody begins to look and when a member says more; it is told once it is on disk. So what it costs
//! follows from who looks, and not from what is delivered.
//!
//! Nobody waits for it. What cannot be found out now, for want of memory or of the disk, is by the next acknowledgement, as that says no less.
//! It is of small conversations alone: why, stands in `docs/PROTOCOL.md`.

use std::collections::{BTreeMap, VecDeque};

use protocol::ids::{ConversationId, Seq, UnixMillis, UserId};
use protocol::limits::PAGE_BYTES_MAX;
use protocol::record::StreamKind as Kind;
use storage_log::{Log, Lookup, Page};

use super::ConversationSide;
use super::jobs::Purpose;
use super::newest::{Delivered, Newest};
use super::slots::{Entrant, Loaded};
use super::taken::Taken;
use crate::mail::{Given, Linked, Signal};
use crate::places::{ShardId, conversation_stream};

/// Conversations whose earlier records are being read for it, in one log. What comes then is passed over.
const UNDER_WAY_MAX: usize = 1_024;

/// Those that wait for their turn to note what was found, within one turn: of the members of all that wait for one part of what is kept.
/// About 2 MB; what comes then is passed over.
const DELIVERED_MAX: usize = 1 << 15;

/// Conversations of one user that are looked at for one acknowledgement, in one turn: a tenth of a millisecond.
const CONVERSATIONS_AT_ONCE: usize = 512;

/// What is being found out, and what was.
#[derive(Default)]
pub(super) struct Acked {
    under_way: usize,
    delivered: VecDeque<(ConversationId, UserId, Seq)>,
    /// Users in more conversations than are looked at in one turn, and the last one that was.
    unfinished: BTreeMap<UserId, ConversationId>,
}

impl ConversationSide {
    /// Takes what a home has to say.
    pub(super) fn handle_signals(&mut self, shard: ShardId, signals: Vec<Signal>, log: &mut Log) {
        for signal in signals {
            match signal {
                Signal::Acked { user, given } => self.note_acked(&user, given, log),
                signal => self.viewers.handle(shard, signal),
            }
        }
        self.answer_views();
    }

    fn note_acked(&mut self, user: &UserId, given: Given, log: &mut Log) {
        // Nobody is given a cursor beyond what is durable.
        let given = given.up_to(log.durable().position());
        if given.to <= given.after {
            return;
        }
        let inbox = self.places.user_stream(user, Kind::Inbox).id;
        self.read_taken(&inbox, log);
        let all = self.taken.note(inbox, given);
        self.acked.unfinished.remove(user);
        self.find_in_viewed(user, None, all, log);
        if all.to != given.to {
            // Of a device that is behind another one, and was given what that one was not.
            self.find_in_viewed(user, None, given, log);
        }
    }

    /// What an acknowledgement says of the conversations of a user that are viewed, those behind one of them; of what is beyond a part of them in a later turn.
    fn find_in_viewed(&mut self, user: &UserId, after: Option<ConversationId>, given: Given, log: &mut Log) {
        let conversations = self.viewers.viewed_of(user, after, CONVERSATIONS_AT_ONCE);
        if let (CONVERSATIONS_AT_ONCE, Some(last)) = (conversations.len(), conversations.last()) {
            self.acked.unfinished.insert(user.clone(), *last);
        }
        for conversation in conversations {
            self.find_delivered(conversation, user, given, log);
        }
    }

    /// Goes on with one who is in very many conversations that are viewed.
    pub(super) fn go_on_finding(&mut self, now: UnixMillis, log: &mut Log) {
        let Some((user, last)) = self.acked.unfinished.pop_first() else { return };
        if let Some(given) = self.taken.of(&self.places.user_stream(&user, Kind::Inbox).id) {
            self.find_in_viewed(&user, Some(last), given, log);
        }
        self.resume(now, log);
    }

    /// Somebody begins to look at a conversation, or what is known of its records goes further back: what all of its members have of it.
    pub(super) fn find_delivered_to_all(&mut self, conversation: ConversationId, log: &mut Log) {
        if self.is_large(conversation) {
            return;
        }
        for user in self.viewers.members_of(conversation) {
            self.find_delivered_to(conversation, &user, log);
        }
    }

    pub(super) fn find_delivered_to(&mut self, conversation: ConversationId, user: &UserId, log: &mut Log) {
        let inbox = self.places.user_stream(user, Kind::Inbox).id;
        self.read_taken(&inbox, log);
        let part = Taken::part_of(&inbox);
        if !self.taken.is_known(part) {
            self.taken.wait(part, conversation, user.clone());
        }
        if let Some(given) = self.taken.of(&inbox) {
            self.find_delivered(conversation, user, given, log);
        }
    }

    fn find_delivered(&mut self, conversation: ConversationId, user: &UserId, given: Given, log: &mut Log) {
        if self.is_large(conversation) {
            return;
        }
        match self.viewers.delivered(conversation, user, given) {
            Delivered::UpTo(seq) if !self.is_known(conversation, user, seq) => {
                if self.acked.delivered.len() < DELIVERED_MAX {
                    self.acked.delivered.push_back((conversation, user.clone(), seq));
                }
            }
            Delivered::Earlier => self.ask_earlier(conversation, log),
            Delivered::UpTo(_) | Delivered::Nothing => {}
        }
    }

    fn is_large(&self, conversation: ConversationId) -> bool {
        let state = self.slots.get(&conversation).map(|slot| &slot.state);
        matches!(state, Some(Loaded::Yes(state)) if state.is_large())
    }

    /// Whether it is in memory that a user has been given, or has read, this much.
    fn is_known(&self, conversation: ConversationId, user: &UserId, seq: Seq) -> bool {
        let slot = self.slots.get(&conversation);
        let positions = slot.and_then(|slot| slot.positions.as_ref());
        positions.is_some_and(|positions| positions.reached(user) >= seq)
    }

    /// Where the records before those that are known stand is to be read, unless it is already.
    fn ask_earlier(&mut self, conversation: ConversationId, log: &mut Log) {
        if self.acked.under_way == UNDER_WAY_MAX {
            return;
        }
        let newest = self.viewers.newest(conversation);
        let Some((first, count)) = newest.and_then(Newest::ask_earlier) else { return };
        self.acked.under_way += 1;
        let stream = conversation_stream(conversation, Kind::Messages);
        let page = Page { items_max: count, bytes_max: PAGE_BYTES_MAX };
        self.start(
            Purpose::Newest { conversation },
            vec![Lookup::before(log, stream, first.0, 1, page)],
            log,
        );
    }

    /// They were read, the newest first; or could not be.
    pub(super) fn finish_newest(&mut self, conversation: ConversationId, records: &[Linked], log: &mut Log) {
        self.acked.under_way -= 1;
        self.viewers.take_earlier(conversation, records);
        self.find_delivered_to_all(conversation, log);
    }

    /// They cannot be read now: the next acknowledgement tries again.
    pub(super) fn give_up_newest(&mut self, conversation: ConversationId) {
        self.acked.under_way -= 1;
        if let Some(newest) = self.viewers.newest(conversation) {
            newest.forget_asked();
        }
    }

    /// The next conversation whose turn it is to note what was delivered.
    pub(super) fn poll_delivered(&mut self) -> Option<(ConversationId, Entrant)> {
        let (conversation, user, seq) = self.acked.delivered.pop_front()?;
        Some((conversation, Entrant::Delivered(user, seq)))
    }

    /// Whether it is told what was delivered to a user: to a member of a small conversation.
    pub(super) fn tells_delivered(&self, conversation: ConversationId, user: &UserId) -> bool {
        let state = self.slots.get(&conversation).map(|slot| &slot.state);
        matches!(state, Some(Loaded::Yes(state)) if !state.is_large() && state.member(user).is_some())
    }

    pub(super) fn note_delivered(&mut self, conversation: ConversationId, user: &UserId, seq: Seq) {
        let is_full = self.gathering.is_full();
        let slot = self.slots.get_mut(&conversation).expect("entered");
        let positions = slot.positions.as_mut().expect("they were read before");
        let seq = seq.min(positions.folded().0);
        if !is_full && positions.note_delivered(user, seq) {
            self.gathering.add(conversation);
        }
    }
}
