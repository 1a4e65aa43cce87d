//! The conversations of one log of which it is set how much is kept, as they durably are: what is in front is shown to nobody.
//!
//! In memory whole, some 80 bytes for each that has a setting and nothing for others, and made at start: a stream of the log links to every record by
//! which something was set, and what is set now stands in the states of these conversations. What a crash may undo is not in here: so nobody is told
//! that something is gone, and nothing goes from the disk, by a setting that is not there afterwards.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use protocol::event::ErrorCode;
use protocol::ids::{ConversationId, Seq, UnixMillis};
use protocol::record::StreamKind as Kind;
use storage_log::Log;

use super::ConversationSide;
use super::counting::Windows;
use super::erasure::Erased;
use super::kept::{Front, Kept};
use crate::mail::{Linked, Request};
use crate::places::conversation_stream;

/// Fronts that one call collects for whoever writes a segment anew: some two microseconds each. All of 100,000 at once kept a shard for 200 ms.
const COLLECTED_PER_CALL: usize = 256;

#[derive(Default)]
pub(super) struct Fronts {
    /// In order, so that what is collected goes on where it was.
    kept: BTreeMap<ConversationId, Kept>,
    collected: Collected,
    /// Of these nobody knows what is kept: their states could not be read at start, nor since.
    unreadable: HashSet<ConversationId>,
    /// Set since the start, while what was set before is being read.
    changed: HashSet<ConversationId>,
    pub(super) windows: Windows,
}

/// What is in front, while that is being collected, of the conversations up to one.
#[derive(Default)]
struct Collected {
    fronts: storage_log::Fronts,
    to: Option<ConversationId>,
}

impl Fronts {
    pub(super) fn get(&self, conversation: ConversationId) -> Option<&Kept> {
        self.kept.get(&conversation)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// What is kept of a conversation is this, durably.
    pub(super) fn set(&mut self, conversation: ConversationId, kept: Kept, is_loading: bool) {
        if is_loading {
            self.changed.insert(conversation);
        }
        self.unreadable.remove(&conversation);
        if kept.is_all() {
            self.kept.remove(&conversation);
        } else {
            self.kept.insert(conversation, kept);
        }
    }

    /// The same, as its state says that was read at start: `None` if it could not be.
    pub(super) fn load(&mut self, conversation: ConversationId, kept: Option<Kept>) {
        if self.changed.contains(&conversation) {
            return;
        }
        match kept {
            Some(kept) => self.set(conversation, kept, false),
            None => _ = self.unreadable.insert(conversation),
        }
    }

    /// Whether nobody knows what is kept of a conversation.
    pub(super) fn misses(&self, conversation: ConversationId) -> bool {
        self.unreadable.contains(&conversation)
    }

    /// Everything has been read.
    pub(super) fn end_loading(&mut self) {
        self.changed = HashSet::new();
    }
}

/// Whether a page shows what may be in front, so that all has to be known of it.
pub(super) fn shows_messages(request: &Request) -> bool {
    match request {
        Request::Candidates { .. }
        | Request::CatchUp { .. }
        | Request::Feed { .. }
        | Request::History { .. }
        | Request::List { .. }
        | Request::Reads { .. } => true,
        Request::Block { .. }
        | Request::ListMembers { .. }
        | Request::MaySearch { .. }
        | Request::Memberships { .. }
        | Request::Mute { .. }
        | Request::PushTokens { .. }
        | Request::Read { .. }
        | Request::Seen { .. }
        | Request::Set { .. }
        | Request::Settings { .. }
        | Request::Sighting { .. }
        | Request::Signals { .. }
        | Request::Store(_)
        | Request::Survey { .. }
        | Request::View { .. } => false,
    }
}

impl ConversationSide {
    /// What is kept of a conversation now; `None`: all.
    pub(super) fn front(&self, conversation: ConversationId, log: &Log) -> Option<Front> {
        let kept = self.fronts.get(conversation)?;
        let head = Seq(log.durable_head(conversation_stream(conversation, Kind::Messages)).seq);
        Some(kept.front(&self.places, head, UnixMillis(log.clock(self.now.0))))
    }

    /// What is erased, and what is in front of what conversations keep, as it durably stands: for whoever writes a segment anew. Collects a part
    /// of it with each call, and says it once it has all: what was in front when it was looked at stays so, whatever is set meanwhile. What is too
    /// old goes by `now`, which may be earlier than the time by which it is shown no more: from the disk nothing comes back.
    #[must_use]
    pub fn poll_erased(&mut self, now: UnixMillis, log: &Log) -> Option<Arc<Erased>> {
        let after = self.fronts.collected.to.map_or(Bound::Unbounded, Bound::Excluded);
        let deliveries = self.waiting.iter().filter_map(|waiting| waiting.delivery.as_ref());
        // What grows too old while it is being changed, by what durably stands, may be kept by what follows.
        let changing = deliveries.filter(|delivery| delivery.kept.is_some());
        let changing: HashSet<ConversationId> = changing.map(|delivery| delivery.conversation).collect();
        let next = self.fronts.kept.range((after, Bound::Unbounded)).take(COLLECTED_PER_CALL);
        let next: Vec<(ConversationId, Option<storage_log::Front>)> = next
            .map(|(of, kept)| {
                (*of, (!changing.contains(of)).then(|| self.front_for_log(*of, kept, now, log)))
            })
            .collect();
        let collected = &mut self.fronts.collected;
        collected.to = next.last().map(|(of, _)| *of);
        let is_all = next.len() < COLLECTED_PER_CALL;
        collected.fronts.extend(next.into_iter().filter_map(|(of, front)| Some((of.0, front?))));
        if !is_all {
            return None;
        }
        let Collected { fronts, .. } = std::mem::take(collected);
        Some(if fronts.is_empty() { self.erased.clone() } else { Arc::new(self.erased.with_fronts(fronts)) })
    }

    fn front_for_log(
        &self,
        conversation: ConversationId,
        kept: &Kept,
        now: UnixMillis,
        log: &Log,
    ) -> storage_log::Front {
        let head = log.durable_head(conversation_stream(conversation, Kind::Messages)).seq;
        let Front { seq: Seq(seq), at: UnixMillis(at) } = kept.front(&self.places, Seq(head), now);
        storage_log::Front { seq, at, head }
    }

    /// Whether something is set of any.
    #[must_use]
    pub fn has_fronts(&self) -> bool {
        !self.fronts.is_empty()
    }

    /// The same as it was when the record `seq` became the newest, `at` that time: what is delivered live is judged so.
    pub(super) fn front_then(&self, conversation: ConversationId, seq: Seq, at: UnixMillis) -> Option<Front> {
        Some(self.fronts.get(conversation)?.front(&self.places, seq, at))
    }

    /// Takes out of a page of conversations what is erased, and what is in front.
    pub(super) fn conceal(&self, records: &mut [Linked], log: &Log) {
        self.erased.conceal(records, &|conversation| self.front(conversation, log));
    }

    /// The same of a page of links.
    pub(super) fn conceal_links(&self, records: &mut [Linked], log: &Log) {
        self.erased.conceal_links(records, &|conversation| self.front(conversation, log));
        let is_unknown = |linked: &&mut Linked| self.fronts.misses(linked.conversation);
        // It may be what must not be shown.
        records.iter_mut().filter(is_unknown).for_each(|linked| linked.record = None);
    }

    /// What a start reads cannot be read now: who waits for it and asked once is told so, as of any page.
    pub(super) fn refuse_held(&mut self) {
        let Some(loading) = &mut self.large.loading else { return };
        let waits_on = |request: &Request| {
            matches!(request, Request::CatchUp { .. } | Request::Feed { .. } | Request::Reads { .. })
        };
        let (kept, refused): (VecDeque<_>, _) =
            std::mem::take(&mut loading.waiting).into_iter().partition(waits_on);
        loading.waiting = kept;
        let refusal = (ErrorCode::Unavailable, "the disk does not say now: ask again in a minute");
        refused.iter().for_each(|request| self.refuse_request(request, refusal));
    }

    /// What is kept of a conversation by the change that became durable.
    pub(super) fn note_kept(&mut self, conversation: ConversationId, kept: Option<Kept>) {
        if let Some(kept) = kept {
            self.fronts.set(conversation, kept, self.large.loading.is_some());
        }
    }
}
