//! The large groups of one log, by their members: who comes back is told of the heads of those that moved meanwhile.
//!
//! A large group has no links in its members' inboxes, so this is where a page of catching up learns of it. It is in memory whole, 4 bytes a member and
//! 16 for its name, and is made at start: one stream of the log links to every record with which a group grew large or stopped being so; what they are now stands in their states.

use std::collections::{HashSet, VecDeque};

use hashbrown::HashMap;
use protocol::event::ErrorCode;
use protocol::ids::ConversationId;
use protocol::record::StreamKind as Kind;
use slab::Slab;
use smallvec::SmallVec;

use super::state::{Conversation, Refusal};
use super::taken::Inbox;
use crate::mail::Request;
use crate::places::Places;

/// Large groups of one log. All of 500 members: 80 MB.
const GROUPS_MAX: usize = 8_192;

/// Large groups of one user in one log: their heads fit three frames, which go out with one page.
const GROUPS_PER_MEMBER_MAX: usize = 256;

const TOO_MANY_GROUPS: Refusal = (ErrorCode::Limit, "this node has as many large groups as it may have");
const MEMBER_OF_TOO_MANY: Refusal =
    (ErrorCode::Limit, "a member is in as many large groups as one user may be in");

/// Who is in a group that fans out on read, or did: nobody, once it does not.
pub(crate) struct Roster {
    inboxes: Vec<Inbox>,
}

impl Roster {
    /// Of a conversation as it is after a change.
    pub(super) fn of(places: &Places, conversation: &Conversation) -> Self {
        let members = conversation.members().iter().filter(|_| conversation.is_large());
        Self { inboxes: members.map(|member| places.user_stream(&member.user, Kind::Inbox).id).collect() }
    }
}

struct Group {
    conversation: ConversationId,
    inboxes: Vec<Inbox>,
    /// Of its newest durable record; of a group that has been quiet since the start, where that began.
    head_position: u64,
}

/// The large groups of one log, as they durably are.
pub(super) struct LargeGroups {
    groups: Slab<Group>,
    by_name: HashMap<ConversationId, u32, foldhash::fast::RandomState>,
    by_member: HashMap<Inbox, SmallVec<[u32; 2]>, foldhash::fast::RandomState>,
    /// What has not been read yet; `None` once all is known.
    pub(super) loading: Option<Loading>,
    /// Groups whose state could not be read: who is in them is not known.
    unreadable: HashSet<ConversationId>,
}

/// What is on its way at start.
#[derive(Default)]
pub(super) struct Loading {
    pub(super) begun: bool,
    /// Conversations of the list, whose states are being read.
    pub(super) states: usize,
    /// Where the list of them goes on; `None`: it has ended.
    pub(super) list_after: Option<u64>,
    /// Lists that have been read whole.
    pub(super) lists_ended: usize,
    /// Those whose states were asked for: each once, however often it changed.
    pub(super) asked: HashSet<ConversationId>,
    /// Changed since the start: known already.
    changed: HashSet<ConversationId>,
    /// Pages that cannot be answered before. Bounded by the page credits.
    pub(super) waiting: VecDeque<Request>,
}

impl LargeGroups {
    /// Of a log of which nothing has been read.
    pub(super) fn new() -> Self {
        let (by_name, by_member, unreadable) = (HashMap::default(), HashMap::default(), HashSet::new());
        Self { groups: Slab::new(), by_name, by_member, loading: Some(Loading::default()), unreadable }
    }

    /// A page that cannot be answered before all groups are known.
    pub(super) fn wait(&mut self, request: Request) {
        let loading = self.loading.as_mut().expect("the caller looked");
        loading.waiting.push_back(request);
    }

    /// Whether a change may be made.
    ///
    /// # Errors
    /// What its sender is told when there are too many groups.
    pub(super) fn judge(&self, conversation: ConversationId, roster: &Roster) -> Result<(), Refusal> {
        let known = self.by_name.get(&conversation).copied();
        if known.is_none() && self.groups.len() >= GROUPS_MAX {
            return Err(TOO_MANY_GROUPS);
        }
        let is_in_too_many = |inbox: &Inbox| {
            self.by_member.get(inbox).is_some_and(|groups| {
                groups.len() >= GROUPS_PER_MEMBER_MAX && !known.is_some_and(|known| groups.contains(&known))
            })
        };
        if roster.inboxes.iter().any(is_in_too_many) { Err(MEMBER_OF_TOO_MANY) } else { Ok(()) }
    }

    /// A group's members are now those of `roster`, durably, by the record at `position`.
    pub(super) fn change(&mut self, conversation: ConversationId, roster: Roster, position: u64) {
        if let Some(loading) = &mut self.loading {
            loading.changed.insert(conversation);
        }
        self.set(conversation, roster, position);
    }

    /// What the state of a group says that was read at start, or later if it could not be read then.
    pub(super) fn load(&mut self, conversation: ConversationId, roster: Option<Roster>, position: u64) {
        if self.loading.as_ref().is_some_and(|loading| loading.changed.contains(&conversation)) {
            return;
        }
        match roster {
            Some(roster) => self.set(conversation, roster, position),
            None => _ = self.unreadable.insert(conversation),
        }
    }

    /// Whether its state could not be read at start.
    pub(super) fn misses(&self, conversation: ConversationId) -> bool {
        self.unreadable.contains(&conversation)
    }

    /// Whether there may be more groups than are known.
    pub(super) fn is_partial(&self) -> bool {
        !self.unreadable.is_empty()
    }

    /// A record of a conversation became durable.
    pub(super) fn note_head(&mut self, conversation: ConversationId, position: u64) {
        if let Some(group) = self.by_name.get(&conversation) {
            self.groups[*group as usize].head_position = position;
        }
    }

    /// A user's large groups whose heads stand behind `after` and not behind `end`.
    pub(super) fn moved(&self, inbox: Inbox, after: u64, end: u64) -> Vec<ConversationId> {
        let groups = self.by_member.get(&inbox).into_iter().flatten();
        let groups = groups.map(|group| &self.groups[*group as usize]);
        let moved = groups.filter(|group| after < group.head_position && group.head_position <= end);
        moved.map(|group| group.conversation).collect()
    }

    fn set(&mut self, conversation: ConversationId, roster: Roster, position: u64) {
        self.unreadable.remove(&conversation);
        let before = self.by_name.remove(&conversation);
        if !roster.inboxes.is_empty() {
            let inboxes = roster.inboxes;
            let group = self.groups.vacant_key() as u32;
            for inbox in &inboxes {
                self.by_member.entry(*inbox).or_default().push(group);
            }
            self.groups.insert(Group { conversation, inboxes, head_position: position });
            self.by_name.insert(conversation, group);
        }
        if let Some(before) = before {
            self.remove(before);
        }
    }

    fn remove(&mut self, group: u32) {
        for inbox in self.groups.remove(group as usize).inboxes {
            let groups = self.by_member.get_mut(&inbox).expect("every member is listed");
            groups.retain(|other| *other != group);
            if groups.is_empty() {
                self.by_member.remove(&inbox);
            }
        }
    }
}
