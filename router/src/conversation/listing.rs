//! The owner's part of a user's list of conversations: which there are and where they stand, and what is shown of those of one page.
//!
//! Where a conversation stands among the others is in memory, so only those that are shown cost a read: of their state, of their
//! positions where these are not in memory, and of their newest record.

use protocol::event::{ListedConversation, ListedKind};
use protocol::ids::{ConversationId, UserId};
use protocol::limits::PAGE_BYTES_MAX;
use protocol::record::{Portable, SCHEMA_ERASED, SCHEMA_GONE, StreamKind as Kind};
use storage_log::{Log, Lookup, Page, StreamId};

use super::ConversationSide;
use super::folding::hide_amendments;
use super::jobs::{PAGE, Purpose};
use super::pages::Tried;
use super::slots::Loaded;
use super::state::{Conversation, ConversationKind};
use super::surveying::membership_of;
use crate::mail::{Linked, ListedItem, Membership, ReadState, Reply, Request, SessionId};
use crate::places::{ShardId, conversation_stream};

/// The newest record of one conversation.
const NEWEST: Page = Page { items_max: 1, bytes_max: PAGE_BYTES_MAX };

/// A page of a user's memberships while it is read.
pub(super) struct Memberships {
    session: SessionId,
    shard: ShardId,
    user: UserId,
    stream: StreamId,
    after: u64,
}

/// What is shown of conversations, while it is read.
pub(super) struct ListPage {
    session: SessionId,
    shard: ShardId,
    user: UserId,
    conversations: Vec<ConversationId>,
    /// Of those that can be shown, as they were when their newest records were looked for.
    states: Vec<ReadState>,
}

impl ConversationSide {
    pub(super) fn begin_memberships(&mut self, request: Request, log: &mut Log) {
        let Request::Memberships { session, shard, user, memberships: stream, after, .. } = request else {
            unreachable!("the caller matched");
        };
        let lookup = Lookup::after(log, stream, after, PAGE);
        let page = Memberships { session, shard, user, stream, after };
        self.start(Purpose::Memberships(Box::new(page)), vec![lookup], log);
    }

    pub(super) fn finish_memberships(&mut self, page: &Memberships, records: &[Linked], log: &Log) {
        let last = records.last().map_or(page.after, |last| last.position);
        let more_after = log.has_after(page.stream, last).then_some(last);
        let membership = |linked: &Linked| {
            let (conversation, visible_from) = membership_of(linked, page.user.as_bytes())?;
            let head_position = log.head_position(conversation_stream(conversation, Kind::Messages));
            Some(Membership { conversation, visible_from, head_position })
        };
        let found = records.iter().filter_map(membership).collect();
        let partial = records.iter().any(|record| record.record.is_none());
        let (session, log) = (page.session, self.log);
        self.outputs.push_back((page.shard, Reply::Memberships { session, log, found, more_after, partial }));
    }

    pub(super) fn give_up_memberships(&mut self, page: &Memberships) {
        let (session, log, found) = (page.session, self.log, Vec::new());
        let reply = Reply::Memberships { session, log, found, more_after: None, partial: true };
        self.outputs.push_back((page.shard, reply));
    }

    pub(super) fn begin_list(&mut self, request: Request, tried: Tried, log: &mut Log) {
        let Request::List { session, shard, user, conversations, has_waited, .. } = &request else {
            unreachable!("the caller matched");
        };
        let Some(states) = self.read_states(user, conversations, || request.clone(), &tried, log) else {
            return;
        };
        // Who reads by a membership, or is told a title, that a crash may undo is told what is not. It is waited for once: where something
        // changes with every batch, all of the list would wait as long as it does.
        let newest = conversations.iter().filter_map(|conversation| self.slots.get(conversation));
        let newest = newest.map(|slot| slot.position).max().unwrap_or(0);
        if !log.durable().covers(newest) && log.is_healthy() && !has_waited {
            let mut request = request;
            if let Request::List { has_waited, .. } = &mut request {
                *has_waited = true;
            }
            return self.wait_until_durable(newest, request);
        }
        let states: Vec<ReadState> =
            states.into_iter().filter(|state| self.is_shown(user, state.conversation, log)).collect();
        let lookup = |state: &ReadState| {
            let stream = conversation_stream(state.conversation, Kind::Messages);
            Lookup::before(log, stream, state.head.0 + 1, state.head.0, NEWEST)
        };
        let lookups = states.iter().map(lookup).collect();
        let (user, conversations) = (user.clone(), conversations.clone());
        let page = ListPage { session: *session, shard: *shard, user, conversations, states };
        self.start(Purpose::List(Box::new(page)), lookups, log);
    }

    /// Whether a user is, durably, in a conversation whose state is in memory.
    pub(super) fn is_shown(&self, user: &UserId, conversation: ConversationId, log: &Log) -> bool {
        let slot = self.slots.get(&conversation).filter(|slot| log.durable().covers(slot.position));
        matches!(slot.map(|slot| &slot.state), Some(Loaded::Yes(state)) if state.member(user).is_some())
    }

    pub(super) fn finish_list_page(
        &mut self,
        page: &ListPage,
        mut records: Vec<Linked>,
        is_cut: bool,
        log: &Log,
    ) {
        self.conceal(&mut records, log);
        // What did not fit is always the last.
        let last = records.last().map(|last| last.conversation).filter(|_| is_cut);
        let end = last.and_then(|last| page.conversations.iter().position(|of| *of == last));
        let end = end.map_or(page.conversations.len(), |last| last + 1);
        let mut partial = false;
        let mut items = Vec::with_capacity(end);
        for conversation in &page.conversations[..end] {
            let state = page.states.iter().find(|state| state.conversation == *conversation);
            let record = records.iter_mut().find(|linked| linked.conversation == *conversation);
            let item = state.and_then(|state| self.listed(&page.user, state, record, log));
            // Who has left meanwhile is not told of it; of all others something is missing.
            partial |= item.is_none() && self.may_be_shown(&page.user, *conversation);
            items.push(item);
        }
        let (session, log) = (page.session, self.log);
        self.outputs.push_back((page.shard, Reply::Listed { session, log, items, partial }));
    }

    pub(super) fn give_up_list_page(&mut self, page: &ListPage) {
        let (session, log, items) = (page.session, self.log, vec![None; page.conversations.len()]);
        self.outputs.push_back((page.shard, Reply::Listed { session, log, items, partial: true }));
    }

    /// Whether nothing says that a user is not in a conversation.
    pub(super) fn may_be_shown(&self, user: &UserId, conversation: ConversationId) -> bool {
        match self.slots.get(&conversation).map(|slot| &slot.state) {
            Some(Loaded::Yes(state)) => state.member(user).is_some(),
            Some(Loaded::Absent | Loaded::No) | None => true,
        }
    }

    fn listed(
        &self,
        user: &UserId,
        read: &ReadState,
        record: Option<&mut Linked>,
        log: &Log,
    ) -> Option<ListedItem> {
        let conversation = read.conversation;
        if !self.is_shown(user, conversation, log) {
            return None;
        }
        let state = self.loaded(conversation).expect("it is shown");
        let visible_from = state.member(user).expect("likewise").visible_from;
        let bytes = record.and_then(|linked| {
            hide_amendments(std::slice::from_mut(linked), visible_from);
            linked.record.clone()
        });
        let portable = bytes.as_ref().and_then(|bytes| Portable::parse(bytes).ok());
        let is_number = |schema| [SCHEMA_ERASED, SCHEMA_GONE].contains(&schema);
        let listed = ListedConversation {
            conversation,
            kind: kind_of(state, user)?,
            members_count: state.members().len() as u32,
            head: read.head,
            read: read.read,
            unread: read.unread(),
            // That is the user's home to say.
            muted_until: None,
            blocked: state.blocks(user),
            retention: state.kept().retention,
            last: None,
        };
        let last = bytes.filter(|_| portable.is_some_and(|portable| !is_number(portable.schema)));
        Some(ListedItem { listed, at: portable.map(|portable| portable.at), last })
    }
}

/// How a conversation is called to one who is in it.
fn kind_of(state: &Conversation, user: &UserId) -> Option<ListedKind> {
    match state.kind {
        ConversationKind::Direct => {
            let peer = state.members().iter().find(|member| member.user != *user)?;
            Some(ListedKind::Direct { peer: peer.user.clone() })
        }
        ConversationKind::Group => Some(ListedKind::Group { title: state.title.clone() }),
    }
}

impl ReadState {
    /// Messages that were not read, up to the head.
    fn unread(&self) -> u64 {
        self.message_count.saturating_sub(self.read_count)
    }
}
