//! What a conversation is, and what a command makes of it: pure functions, no log and no queue.
//!
//! Everything that has to be decided is decided here, from the state before the command: [`plan`] gives the records to
//! append and who gets them, or the refusal.

use std::sync::Arc;

use protocol::command::{Create, HistoryPolicy, Members, Role, Send};
use protocol::event::ErrorCode;
use protocol::ids::{Seq, UserId};
use protocol::limits::SMALL_GROUP_MEMBERS_MAX;
use protocol::record::{
    ArchivedConversationStateV1, Body, ConversationStateV1, MemberV1, MembershipV1, MessageV1, NameV1,
    StreamKind as Kind,
};
use storage_log::StreamId;

use crate::mail::{Change, Store};
use crate::places::{Places, ShardId};

/// A refusal that the asker is told: code and words without content.
pub(crate) type Refusal = (ErrorCode, &'static str);

pub(super) const NOT_A_MEMBER: Refusal = (ErrorCode::NotAMember, "you are not in this conversation");
pub(super) const NOT_FOUND: Refusal = (ErrorCode::NotFound, "there is no such conversation");
const GROUPS_ONLY: Refusal = (ErrorCode::NotAllowed, "a direct conversation has fixed members and no title");
const ADMINS_ONLY: Refusal = (ErrorCode::NotAllowed, "only an owner or admin may do this");

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ConversationKind {
    Direct = 1,
    Group = 2,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    pub(crate) user: UserId,
    pub(crate) role: Role,
    pub(crate) visible_from: Seq,
}

/// The people a record goes to, worked out once per membership and shared by all its messages.
#[derive(Debug)]
pub(crate) struct Audience {
    /// Members by home shard.
    pub(crate) shards: Vec<(ShardId, Arc<[UserId]>)>,
    /// Their inboxes in this conversation's log.
    pub(crate) inboxes: Vec<StreamId>,
}

impl Audience {
    pub(crate) fn new<'a>(places: &Places, users: impl Iterator<Item = &'a UserId>) -> Arc<Self> {
        let mut by_shard: Vec<Vec<UserId>> = vec![Vec::new(); usize::from(places.shards)];
        let mut inboxes = Vec::new();
        for user in users {
            by_shard[places.home_of(user).index()].push(user.clone());
            inboxes.push(places.user_stream(user, Kind::Inbox));
        }
        let shards = by_shard.into_iter().enumerate().filter(|(_, users)| !users.is_empty());
        let shards = shards.map(|(shard, users)| (ShardId(shard as u16), Arc::from(users))).collect();
        Arc::new(Self { shards, inboxes })
    }
}

/// A conversation's state, as its newest state record has it.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    kind: ConversationKind,
    history: HistoryPolicy,
    title: String,
    creator: UserId,
    /// In the order of their last join.
    members: Vec<Member>,
    pub(crate) audience: Arc<Audience>,
}

/// What a command comes to.
pub(crate) struct Plan {
    /// The record that takes a sequence.
    pub(crate) event: Body,
    /// 1 for a message.
    pub(crate) messages: u64,
    /// The conversation afterwards, when it changes.
    pub(crate) after: Option<Conversation>,
    /// Who gets the event.
    pub(crate) audience: Arc<Audience>,
    /// Who gets only that there was one: they may not see what it amends.
    pub(crate) hidden_from: Option<Arc<Audience>>,
    /// Streams beside the inboxes that the event is linked into.
    pub(crate) memberships: Vec<StreamId>,
}

/// Decides what `store` does to a conversation whose next record takes `seq`.
pub(crate) fn plan(
    places: &Places,
    store: &Store,
    before: Option<&Conversation>,
    seq: Seq,
) -> Result<Plan, Refusal> {
    match (&store.change, before) {
        (Change::Create(create), None) => plan_create(places, store, create),
        // The id derives from creator and message id, so only a repetition that was forgotten comes here.
        (Change::Create(_), Some(_)) => {
            Err((ErrorCode::Conflict, "this message_id has made a conversation before"))
        }
        (Change::Send { send, peer: Some(peer) }, None) => Ok(plan_first_direct(places, store, send, peer)),
        (_, None) => Err(NOT_FOUND),
        (change, Some(before)) => {
            let member = before.member(&store.user).ok_or(NOT_A_MEMBER)?;
            match change {
                Change::Send { send, .. } => Ok(before.plan_send(store, send)),
                _ if before.kind == ConversationKind::Direct => Err(GROUPS_ONLY),
                Change::Leave => Ok(before.plan_leave(places, store)),
                _ if member.role == Role::Member => Err(ADMINS_ONLY),
                Change::Title(title) => Ok(before.plan_title(store, title)),
                Change::Members(members) => before.plan_members(places, store, member.role, members, seq),
                Change::Create(_) => unreachable!("matched above"),
                Change::Delete { .. } | Change::Edit(_) | Change::React(_) => {
                    unreachable!("planned with the form of what is amended")
                }
            }
        }
    }
}

fn membership(store: &Store) -> MembershipV1 {
    MembershipV1 {
        message_id: store.message_id.0,
        by: store.user.as_bytes().to_vec(),
        content_hash: store.content_hash,
        ..MembershipV1::default()
    }
}

fn plan_first_direct(places: &Places, store: &Store, send: &Send, peer: &UserId) -> Plan {
    let member = |user: &UserId| Member { user: user.clone(), role: Role::Member, visible_from: Seq(1) };
    let (kind, history) = (ConversationKind::Direct, HistoryPolicy::All);
    let members = vec![member(&store.user), member(peer)];
    let after = Conversation::new(places, kind, history, String::new(), store.user.clone(), members);
    let memberships = [&store.user, peer].map(|user| places.user_stream(user, Kind::Memberships)).to_vec();
    Plan {
        memberships,
        audience: after.audience.clone(),
        after: Some(after.clone()),
        ..after.plan_send(store, send)
    }
}

fn plan_create(places: &Places, store: &Store, create: &Create) -> Result<Plan, Refusal> {
    let owner = Member { user: store.user.clone(), role: Role::Owner, visible_from: Seq(1) };
    let others = create.members.iter().filter(|user| **user != store.user);
    let others = others.map(|user| Member { user: user.clone(), role: Role::Member, visible_from: Seq(1) });
    let members: Vec<Member> = std::iter::once(owner).chain(others).collect();
    if members.len() < 2 {
        return Err((ErrorCode::BadField, "a group has at least one member beside its creator"));
    }
    if members.len() > SMALL_GROUP_MEMBERS_MAX {
        return Err((ErrorCode::Limit, "a group has at most 99 members"));
    }
    let event = MembershipV1 {
        added: members
            .iter()
            .map(|member| MemberV1::new(&member.user, member.role, member.visible_from))
            .collect(),
        title_set: 1,
        title: create.title.as_bytes().to_vec(),
        created: 1,
        ..membership(store)
    };
    let memberships =
        members.iter().map(|member| places.user_stream(&member.user, Kind::Memberships)).collect();
    let (kind, creator) = (ConversationKind::Group, store.user.clone());
    let after = Conversation::new(places, kind, create.history, create.title.clone(), creator, members);
    let audience = after.audience.clone();
    let (event, hidden_from) = (Body::Membership(event), None);
    Ok(Plan { event, messages: 0, after: Some(after), audience, hidden_from, memberships })
}

impl Conversation {
    fn new(
        places: &Places,
        kind: ConversationKind,
        history: HistoryPolicy,
        title: String,
        creator: UserId,
        members: Vec<Member>,
    ) -> Self {
        let audience = Audience::new(places, members.iter().map(|member| &member.user));
        Self { kind, history, title, creator, members, audience }
    }

    /// Reads a state record's payload. `None` when it is sound but makes no sense: damaged by a bug, not by a disk.
    pub(crate) fn read(places: &Places, stored: &ArchivedConversationStateV1) -> Option<Self> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let user = |bytes: &[u8]| UserId::new(std::str::from_utf8(bytes).ok()?).ok();
        let kind = match stored.kind {
            1 => ConversationKind::Direct,
            2 => ConversationKind::Group,
            _ => return None,
        };
        let members = stored.members.iter().map(|member| {
            Some(Member {
                user: user(&member.user)?,
                role: Role::from_number(member.role)?,
                visible_from: Seq(member.visible_from.to_native()),
            })
        });
        let history = HistoryPolicy::from_number(stored.history)?;
        let members = members.collect::<Option<Vec<_>>>()?;
        Some(Self::new(places, kind, history, text(&stored.title)?, user(&stored.creator)?, members))
    }

    /// The state record's payload.
    pub(crate) fn body(&self) -> Body {
        Body::State(ConversationStateV1 {
            kind: self.kind as u8,
            history: self.history as u8,
            title: self.title.as_bytes().to_vec(),
            creator: self.creator.as_bytes().to_vec(),
            members: self
                .members
                .iter()
                .map(|member| MemberV1::new(&member.user, member.role, member.visible_from))
                .collect(),
            ext: Vec::new(),
        })
    }

    pub(crate) fn member(&self, user: &UserId) -> Option<&Member> {
        self.members.iter().find(|member| member.user == *user)
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(super) fn is_group(&self) -> bool {
        self.kind == ConversationKind::Group
    }

    /// Those who may see the record `seq`, and those who may not, if there are any.
    pub(super) fn audiences_of(&self, places: &Places, seq: Seq) -> (Arc<Audience>, Option<Arc<Audience>>) {
        let users = |may_see: bool| {
            let members = self.members.iter().filter(move |member| (member.visible_from <= seq) == may_see);
            Audience::new(places, members.map(|member| &member.user))
        };
        if self.members.iter().all(|member| member.visible_from <= seq) {
            return (self.audience.clone(), None);
        }
        (users(true), Some(users(false)))
    }

    fn plan_send(&self, store: &Store, send: &Send) -> Plan {
        let event = MessageV1::from_send(send, &store.user, store.message_id);
        Plan {
            event: Body::Message(event),
            messages: 1,
            after: None,
            audience: self.audience.clone(),
            hidden_from: None,
            memberships: Vec::new(),
        }
    }

    fn plan_title(&self, store: &Store, title: &str) -> Plan {
        let event = MembershipV1 { title_set: 1, title: title.as_bytes().to_vec(), ..membership(store) };
        let after = Self { title: title.to_owned(), ..self.clone() };
        Plan {
            event: Body::Membership(event),
            messages: 0,
            after: Some(after),
            audience: self.audience.clone(),
            hidden_from: None,
            memberships: Vec::new(),
        }
    }

    fn plan_leave(&self, places: &Places, store: &Store) -> Plan {
        let mut members = self.members.clone();
        members.retain(|member| member.user != store.user);
        let mut event = MembershipV1 { removed: vec![NameV1::new(&store.user)], ..membership(store) };
        if let Some(heir) = hand_over(&mut members) {
            event.roles.push(MemberV1::new(&heir, Role::Owner, Seq(0)));
        }
        self.plan_membership(places, event, members, std::slice::from_ref(&store.user))
    }

    fn plan_members(
        &self,
        places: &Places,
        store: &Store,
        role: Role,
        change: &Members,
        seq: Seq,
    ) -> Result<Plan, Refusal> {
        let mut members = self.members.clone();
        let mut event = membership(store);
        for user in &change.remove {
            let target =
                self.member(user).ok_or((ErrorCode::NotFound, "remove names a user who is not a member"))?;
            if target.role != Role::Member && role != Role::Owner {
                return Err((ErrorCode::NotAllowed, "only an owner removes an owner or admin"));
            }
            members.retain(|member| member.user != *user);
            event.removed.push(NameV1::new(user));
        }
        let visible_from = if self.history == HistoryPolicy::All { Seq(1) } else { seq };
        for user in change.add.iter().filter(|user| self.member(user).is_none()) {
            members.push(Member { user: user.clone(), role: Role::Member, visible_from });
            event.added.push(MemberV1::new(user, Role::Member, visible_from));
        }
        if !change.roles.is_empty() && role != Role::Owner {
            return Err((ErrorCode::NotAllowed, "only an owner gives roles"));
        }
        for (user, role) in &change.roles {
            let member = members.iter_mut().find(|member| member.user == *user);
            member.ok_or((ErrorCode::NotFound, "roles names a user who is not a member"))?.role = *role;
            event.roles.push(MemberV1::new(user, *role, Seq(0)));
        }
        if let Some(heir) = hand_over(&mut members) {
            event.roles.push(MemberV1::new(&heir, Role::Owner, Seq(0)));
        }
        if members.len() > SMALL_GROUP_MEMBERS_MAX {
            return Err((ErrorCode::Limit, "a group has at most 99 members"));
        }
        let added = change.add.iter().filter(|user| self.member(user).is_none());
        let moved: Vec<UserId> = added.chain(&change.remove).cloned().collect();
        Ok(self.plan_membership(places, event, members, &moved))
    }

    /// A change of members: told to those who are in it now and to those who were.
    fn plan_membership(
        &self,
        places: &Places,
        event: MembershipV1,
        members: Vec<Member>,
        moved: &[UserId],
    ) -> Plan {
        let after =
            Self::new(places, self.kind, self.history, self.title.clone(), self.creator.clone(), members);
        let gone = moved.iter().filter(|user| after.member(user).is_none());
        let audience = Audience::new(places, after.members.iter().map(|member| &member.user).chain(gone));
        let memberships = moved.iter().map(|user| places.user_stream(user, Kind::Memberships)).collect();
        let (event, hidden_from) = (Body::Membership(event), None);
        Plan { event, messages: 0, after: Some(after), audience, hidden_from, memberships }
    }
}

/// A group keeps an owner: when the last one goes, the longest-standing admin takes over, else member. Says who.
fn hand_over(members: &mut [Member]) -> Option<UserId> {
    if members.iter().any(|member| member.role == Role::Owner) {
        return None;
    }
    let admin = members.iter().position(|member| member.role == Role::Admin);
    let heir = members.get_mut(admin.unwrap_or(0))?;
    heir.role = Role::Owner;
    Some(heir.user.clone())
}
