//! How far users have read, and how much that leaves, held against a recount.
//!
//! A message and a join move one's own position once they are durable, for ever. An explicit `read` does when it is said, and may be lost by a
//! crash until others were told of it. So of a position it is known between what it lies, and what is unread beyond it is counted,
//! message by message.

use std::collections::BTreeMap;

use protocol::ids::{ConversationId, Seq, UserId};

use crate::keeping::Since;
use crate::oracle::{Oracle, Truth};

/// Of one user in one conversation.
#[derive(Clone, Copy, Default)]
struct Bounds {
    /// Durable: its newest message or join, and what others were told.
    least: Seq,
    /// What it has ever said.
    most: Seq,
    /// What its devices had when they acknowledged anything.
    acknowledged: Seq,
}

/// How far a user has come for certain, and when that was known, in milliseconds since 1970.
type Reached = Vec<(u64, Seq)>;

#[derive(Default)]
pub(crate) struct ReadBounds {
    bounds: BTreeMap<(ConversationId, UserId), Bounds>,
    reached: BTreeMap<(ConversationId, UserId), Reached>,
    /// Milliseconds since 1970.
    pub(crate) now: u64,
    /// Times that somebody was told what is unread, and of those, that something was.
    pub(crate) told: (u64, u64),
}

/// What somebody was told of a conversation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) conversation: ConversationId,
    pub(crate) head: Seq,
    pub(crate) read: Seq,
    pub(crate) unread: u64,
}

impl ReadBounds {
    fn of(&mut self, conversation: ConversationId, user: &UserId) -> &mut Bounds {
        self.bounds.entry((conversation, user.clone())).or_default()
    }

    /// A user says that it has read.
    pub(crate) fn said(&mut self, conversation: ConversationId, user: &UserId, seq: Seq) {
        let bounds = self.of(conversation, user);
        bounds.most = bounds.most.max(seq);
    }

    /// A record is durable.
    pub(crate) fn enter(&mut self, (conversation, seq): (ConversationId, u64), truth: &Truth) {
        let sender = truth.text.is_some().then_some(&truth.sender);
        for user in truth.added.iter().chain(sender) {
            let bounds = self.of(conversation, user);
            bounds.least = bounds.least.max(Seq(seq));
            bounds.most = bounds.most.max(Seq(seq));
            self.note_reached(conversation, user, Seq(seq));
        }
    }

    /// Others were told how far a user has read: that is on disk.
    pub(crate) fn told_read(&mut self, conversation: ConversationId, user: &UserId, read: Seq) {
        let bounds = self.of(conversation, user);
        assert!(read <= bounds.most, "receipt: {user} has read {read}, and said {}", bounds.most);
        bounds.least = bounds.least.max(read);
        self.note_reached(conversation, user, read);
    }

    /// A device acknowledges something, and has no more of a conversation than this.
    pub(crate) fn acknowledged(&mut self, conversation: ConversationId, user: &UserId, seq: Seq) {
        let bounds = self.of(conversation, user);
        bounds.acknowledged = bounds.acknowledged.max(seq);
    }

    /// `delivered` is no more than a device has acknowledged, or its user has read.
    pub(crate) fn told_delivered(&mut self, conversation: ConversationId, user: &UserId, delivered: Seq) {
        let Bounds { most, acknowledged, .. } = *self.of(conversation, user);
        let limit = most.max(acknowledged);
        assert!(delivered <= limit, "receipt: {delivered} was delivered to {user}, who has {limit}");
        self.note_reached(conversation, user, delivered);
    }

    fn note_reached(&mut self, conversation: ConversationId, user: &UserId, seq: Seq) {
        let now = self.now;
        self.reached.entry((conversation, user.clone())).or_default().push((now, seq));
    }

    /// How far a user had come for certain, and others knew, at a time.
    pub(crate) fn reached_before(&self, conversation: ConversationId, user: &UserId, at: u64) -> Seq {
        let reached = self.reached.get(&(conversation, user.clone())).into_iter().flatten();
        reached.filter(|(since, _)| *since <= at).map(|(_, seq)| *seq).max().unwrap_or_default()
    }

    /// How far a user may have come.
    pub(crate) fn may_have(&self, conversation: ConversationId, user: &UserId) -> Seq {
        let bounds = self.bounds.get(&(conversation, user.clone())).copied().unwrap_or_default();
        bounds.most.max(bounds.acknowledged)
    }
}

impl Oracle {
    /// `unread_is_exact`: somebody was told how far it has read, and what is beyond that.
    pub(crate) fn told_unread(&mut self, user: &UserId, told: Told, since: Option<Since>) {
        let Told { conversation, head, read, unread } = told;
        let Bounds { least, most, .. } = *self.reads.of(conversation, user);
        assert!(read <= most, "unread_is_exact: {user} said {most}: {told:?}");
        let (counted, at_most) = self.unread_beyond(conversation, read.0, head.0, since);
        self.reads.told.0 += 1;
        self.reads.told.1 += u64::from(unread > 0);
        if self.keep_ms.is_some() || !self.erasures.is_empty() {
            // Who sent what is gone is not known any more, nor how many of them were messages.
            // A message that was erased where what is kept begins is held to have been none.
            let counted = counted.saturating_sub(u64::from(self.keeping.day_ms > 0));
            assert!(unread >= counted, "unread_is_exact: {user} has {counted}: {told:?}");
            return;
        }
        // How far it had read, and what is kept, could not be read: then nothing is held to be.
        let all = || self.unread_beyond(conversation, 0, head.0, Some(Since::NEVER)).1;
        let is_unknown = self.has_rotted && read == Seq(0) && unread == all();
        let is_exact = (counted..=at_most).contains(&unread);
        assert!(is_exact || is_unknown, "unread_is_exact: {user}: {told:?}, and not {counted}..={at_most}");
        if self.has_rotted && read == Seq(0) {
            // How far it had read could not be read: then nothing is held to be.
            return;
        }
        // All up to that head was durable when it was told; whether what others were told was, only who comes to rest can say.
        let own = self.own_before(conversation, user, head);
        let is_kept = own.0 >= self.kept_from(conversation);
        assert!(
            read >= own || !is_kept,
            "unread_is_exact: {user} has read {own}, and at last {least}: {told:?}"
        );
    }

    /// At rest nobody has read less than others were told, whatever crashed.
    pub(crate) fn check_not_forgotten(&self, user: &UserId, conversation: ConversationId, read: Seq) {
        let bounds = self.reads.bounds.get(&(conversation, user.clone())).copied().unwrap_or_default();
        let is_lost = self.keep_ms.is_some() || !self.erasures.is_empty();
        let is_lost = is_lost || bounds.least.0 < self.kept_from(conversation);
        assert!(is_lost || read >= bounds.least, "unread_is_exact: {user} had read {}: {read}", bounds.least);
    }

    /// The newest message or join of a user up to a sequence.
    fn own_before(&self, conversation: ConversationId, user: &UserId, head: Seq) -> Seq {
        let mut up_to_head = self.durable.range((conversation, 0)..=(conversation, head.0)).rev();
        let is_own =
            |truth: &Truth| truth.added.contains(user) || (truth.text.is_some() && truth.sender == *user);
        up_to_head.find(|(_, truth)| is_own(truth)).map_or(Seq(0), |((_, seq), _)| Seq(*seq))
    }
}
