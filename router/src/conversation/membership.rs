//! Who is in a group: what a change of members comes to, and how the group fans out from then on.
//!
//! A group of few members fans out on write: each record is linked into every member's inbox. A large one fans out on read: its
//! records stand in it alone, and are given to members that are online; the others learn its head when they come back. The
//! record that makes a group large is linked to everybody, and so is the one that ends that, which says how much before it is not.

use protocol::command::{Create, HistoryPolicy, Members, Role};
use protocol::event::ErrorCode;
use protocol::ids::{Seq, UserId};
use protocol::limits::MEMBERS_MAX;
use protocol::record::{Body, Ext, MemberV1, MembershipV1, NameV1, StreamKind as Kind};

use storage_log::format::LINKS_MAX;

use super::large::Roster;
use super::state::{Audience, Conversation, ConversationKind, Member, Plan, Refusal};
use crate::mail::Store;
use crate::places::Places;

const TOO_MANY_MEMBERS: Refusal = (ErrorCode::Limit, "a group has at most 500 members");
/// Each who joins or leaves is linked twice.
const TOO_MANY_MOVES: Refusal = (ErrorCode::Limit, "too many join and leave at once: make two changes of it");

pub(super) fn membership(store: &Store) -> MembershipV1 {
    MembershipV1 {
        message_id: store.message_id.0,
        by: store.user.as_bytes().to_vec(),
        content_hash: store.content_hash,
        ..MembershipV1::default()
    }
}

pub(super) fn plan_create(places: &Places, store: &Store, create: &Create) -> Result<Plan, Refusal> {
    let owner = Member { user: store.user.clone(), role: Role::Owner, visible_from: Seq(1) };
    let others = create.members.iter().filter(|user| **user != store.user);
    let others = others.map(|user| Member { user: user.clone(), role: Role::Member, visible_from: Seq(1) });
    let members: Vec<Member> = std::iter::once(owner).chain(others).collect();
    if members.len() < 2 {
        return Err((ErrorCode::BadField, "a group has at least one member beside its creator"));
    }
    if members.len() > MEMBERS_MAX {
        return Err(TOO_MANY_MEMBERS);
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
    let (kind, creator, title) = (ConversationKind::Group, store.user.clone(), create.title.clone());
    let nobody = Conversation::new(places, kind, create.history, title, creator, Vec::new(), Vec::new());
    let moved: Vec<UserId> = members.iter().map(|member| member.user.clone()).collect();
    nobody.plan_membership(places, event, members, &moved, Seq(1))
}

impl Conversation {
    pub(super) fn plan_leave(&self, places: &Places, store: &Store, seq: Seq) -> Result<Plan, Refusal> {
        let mut members = self.members.clone();
        members.retain(|member| member.user != store.user);
        let mut event = MembershipV1 { removed: vec![NameV1::new(&store.user)], ..membership(store) };
        if let Some(heir) = hand_over(&mut members, |_| false) {
            event.roles.push(MemberV1::new(&heir, Role::Owner, Seq(0)));
        }
        self.plan_membership(places, event, members, std::slice::from_ref(&store.user), seq)
    }

    pub(super) fn plan_members(
        &self,
        places: &Places,
        store: &Store,
        role: Role,
        change: &Members,
        seq: Seq,
    ) -> Result<Option<Plan>, Refusal> {
        let mut members = self.members.clone();
        let mut event = membership(store);
        for user in &change.remove {
            let target = self
                .member(user)
                .ok_or((ErrorCode::NotFound, "`remove` names a user who is not a member"))?;
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
            member.ok_or((ErrorCode::NotFound, "`roles` names a user who is not a member"))?.role = *role;
            event.roles.push(MemberV1::new(user, *role, Seq(0)));
        }
        let was_owner = |user: &UserId| self.member(user).is_some_and(|member| member.role == Role::Owner);
        if let Some(heir) = hand_over(&mut members, was_owner) {
            // Each has one role in what everybody is told: an object of JSON with a name twice means what its reader likes.
            event.roles.retain(|given| given.user != heir.as_bytes());
            event.roles.push(MemberV1::new(&heir, Role::Owner, Seq(0)));
        }
        if members == self.members {
            return Ok(None);
        }
        if members.len() > MEMBERS_MAX {
            return Err(TOO_MANY_MEMBERS);
        }
        let added = change.add.iter().filter(|user| self.member(user).is_none());
        let moved: Vec<UserId> = added.chain(&change.remove).cloned().collect();
        self.plan_membership(places, event, members, &moved, seq).map(Some)
    }

    /// A change of members, at `seq`: told to those who are in it now and to those who were.
    fn plan_membership(
        &self,
        places: &Places,
        event: MembershipV1,
        members: Vec<Member>,
        moved: &[UserId],
        seq: Seq,
    ) -> Result<Plan, Refusal> {
        let is_large = members.len() > places.small_group_members_max;
        let unlinked_from = self.unlinked_from().unwrap_or(Seq(seq.0 + 1));
        let ext = Ext::new(&self.ext).with_unlinked_from(is_large.then_some(unlinked_from));
        let (kind, history, title) = (self.kind, self.history, self.title.clone());
        let after = Self::new(places, kind, history, title, self.creator.clone(), members, ext);
        let gone = || moved.iter().filter(|user| after.member(user).is_none());
        let told = after.members.iter().map(|member| &member.user).chain(gone());
        let audience = if is_large && self.is_large() {
            Audience::new(places, told, moved.iter())
        } else {
            Audience::new(places, told.clone(), told)
        };
        let mut memberships: Vec<_> =
            moved.iter().map(|user| places.user_stream(user, Kind::Memberships)).collect();
        if is_large != self.is_large() {
            memberships.push(places.large_groups_stream());
        }
        if audience.inboxes.len() + memberships.len() > LINKS_MAX {
            return Err(TOO_MANY_MOVES);
        }
        let roster = (is_large || self.is_large()).then(|| Roster::of(places, &after));
        let ext = Ext::new(&event.ext).with_unlinked_from(self.unlinked_from());
        let (event, hidden_from) = (Body::Membership(MembershipV1 { ext, ..event }), None);
        Ok(Plan { event, messages: 0, after: Some(after), audience, hidden_from, memberships, roster })
    }
}

/// A group keeps an owner: when the last one goes, or gives that up, the longest-standing admin takes over, else member; who has given it up
/// only where nobody else is there. Says who.
fn hand_over(members: &mut [Member], gave_up: impl Fn(&UserId) -> bool) -> Option<UserId> {
    if members.iter().any(|member| member.role == Role::Owner) {
        return None;
    }
    let order = |member: &&mut Member| (gave_up(&member.user), member.role != Role::Admin);
    let heir = members.iter_mut().min_by_key(order)?;
    heir.role = Role::Owner;
    Some(heir.user.clone())
}
