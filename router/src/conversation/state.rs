//! What a conversation is, and what a command makes of it: pure functions, no log and no queue.
//!
//! Everything that has to be decided is decided here, from the state before the command: [`plan`] gives the records to
//! append and who gets them, or the refusal, or says that nothing changes.

use std::sync::Arc;

use protocol::command::{HistoryPolicy, Retention, Role, Send};
use protocol::event::ErrorCode;
use protocol::ids::{Seq, UnixMillis, UserId};
use protocol::record::{
    ArchivedConversationStateV1, Body, ConversationStateV1, Ext, MemberV1, MembershipV1, MessageV1,
    StreamKind as Kind,
};
use storage_log::StreamId;

use super::kept::Kept;
use super::large::Roster;
use super::membership::{membership, plan_create};
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
    /// Members by home shard: they are given it while they are online.
    pub(crate) shards: Vec<(ShardId, Arc<[UserId]>)>,
    /// Inboxes in this conversation's log that it is linked into.
    pub(crate) inboxes: Vec<StreamId>,
}

impl Audience {
    /// `told` while they are online, and those `linked` also when they come back.
    pub(crate) fn new<'a>(
        places: &Places,
        told: impl Iterator<Item = &'a UserId>,
        linked: impl Iterator<Item = &'a UserId>,
    ) -> Arc<Self> {
        let mut by_shard: Vec<Vec<UserId>> = vec![Vec::new(); usize::from(places.shards)];
        for user in told {
            by_shard[places.home_of(user).index()].push(user.clone());
        }
        let shards = by_shard.into_iter().enumerate().filter(|(_, users)| !users.is_empty());
        let shards = shards.map(|(shard, users)| (ShardId(shard as u16), Arc::from(users))).collect();
        Arc::new(Self { shards, inboxes: linked.map(|user| places.user_stream(user, Kind::Inbox)).collect() })
    }
}

/// A conversation's state, as its newest state record has it.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    pub(super) kind: ConversationKind,
    pub(super) history: HistoryPolicy,
    pub(super) title: String,
    pub(super) creator: UserId,
    /// In the order of their last join.
    pub(super) members: Vec<Member>,
    /// Tagged additions, those included that this program does not know.
    pub(super) ext: Vec<u8>,
    /// Number of its record, which grows: the sequence of what made it, but for blocks, which take none. 0 while it has none.
    pub(super) number: u64,
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
    /// Who has to learn of the head when coming back, where that changes.
    pub(crate) roster: Option<Roster>,
}

/// Decides what `store` does to a conversation whose next record takes `seq`, at the time `at`. `None`: all that it asks for is so already.
pub(crate) fn plan(
    places: &Places,
    store: &Store,
    before: Option<&Conversation>,
    (seq, at): (Seq, UnixMillis),
) -> Result<Option<Plan>, Refusal> {
    match (&store.change, before) {
        (Change::Create(create), None) => {
            judge_beginning(store.may.begin)?;
            judge_adding(store.may.add || create.members.is_empty())?;
            plan_create(places, store, create).map(Some)
        }
        // The id derives from creator and message id, so only a repetition that was forgotten comes here.
        (Change::Create(_), Some(_)) => {
            Err((ErrorCode::Conflict, "this message_id has made a conversation before"))
        }
        (Change::Send { send, peer: Some(peer) }, None) => {
            judge_beginning(store.may.begin)?;
            Ok(Some(plan_first_direct(places, store, send, peer)))
        }
        (_, None) => Err(NOT_FOUND),
        (change, Some(before)) => {
            let member = before.member(&store.user).ok_or(NOT_A_MEMBER)?;
            match change {
                Change::Send { send, .. } => {
                    before.judge_blocks(&store.user)?;
                    judge_beginning(store.may.begin || seq > Seq(1))?;
                    let memberships = before.begun_by(places, seq);
                    Ok(Some(Plan { memberships, ..before.plan_send(store, send) }))
                }
                Change::Retention(retention) if !before.is_group() => {
                    before.judge_blocks(&store.user)?;
                    // A conversation begins with its first message.
                    if seq == Seq(1) {
                        Err(NOT_FOUND)
                    } else {
                        Ok(Some(before.plan_retention(places, store, *retention, seq, at)))
                    }
                }
                _ if before.kind == ConversationKind::Direct => Err(GROUPS_ONLY),
                Change::Leave => before.plan_leave(places, store, seq).map(Some),
                _ if member.role == Role::Member => Err(ADMINS_ONLY),
                Change::Retention(retention) => {
                    Ok(Some(before.plan_retention(places, store, *retention, seq, at)))
                }
                Change::Title(title) if *title == before.title => Ok(None),
                Change::Title(title) => Ok(Some(before.plan_title(places, store, title))),
                Change::Members(members) => {
                    judge_adding(store.may.add || members.add.is_empty())?;
                    before.plan_members(places, store, member.role, members, seq)
                }
                Change::Create(_) => unreachable!("matched above"),
                Change::Delete { .. } | Change::Edit(_) | Change::React(_) => {
                    unreachable!("planned with the form of what is amended")
                }
            }
        }
    }
}

/// When it may is known to the sender's home.
fn judge_beginning(may_begin: bool) -> Result<(), Refusal> {
    let refusal = (ErrorCode::RateLimited, "you have begun too many conversations in the last hour");
    if may_begin { Ok(()) } else { Err(refusal) }
}

fn judge_adding(may_add: bool) -> Result<(), Refusal> {
    let refusal = (ErrorCode::RateLimited, "you have put too many people into groups in the last hour");
    if may_add { Ok(()) } else { Err(refusal) }
}

fn plan_first_direct(places: &Places, store: &Store, send: &Send, peer: &UserId) -> Plan {
    let after = Conversation::direct(places, &store.user, peer);
    Plan {
        memberships: after.begun_by(places, Seq(1)),
        audience: after.audience.clone(),
        after: Some(after.clone()),
        ..after.plan_send(store, send)
    }
}

impl Conversation {
    /// The direct conversation of two users, before anything was said in it.
    pub(super) fn direct(places: &Places, user: &UserId, peer: &UserId) -> Self {
        let member = |user: &UserId| Member { user: user.clone(), role: Role::Member, visible_from: Seq(1) };
        let (kind, history) = (ConversationKind::Direct, HistoryPolicy::All);
        Self::new(
            places,
            kind,
            history,
            String::new(),
            user.clone(),
            vec![member(user), member(peer)],
            Vec::new(),
        )
    }

    /// Streams of memberships that the record `seq` is linked into because it is sent: a direct conversation is in its members' lists from
    /// its first message on.
    fn begun_by(&self, places: &Places, seq: Seq) -> Vec<StreamId> {
        let begins = self.kind == ConversationKind::Direct && seq == Seq(1);
        let members = self.members.iter().filter(|_| begins);
        members.map(|member| places.user_stream(&member.user, Kind::Memberships)).collect()
    }

    pub(super) fn new(
        places: &Places,
        kind: ConversationKind,
        history: HistoryPolicy,
        title: String,
        creator: UserId,
        members: Vec<Member>,
        ext: Vec<u8>,
    ) -> Self {
        let users = || members.iter().map(|member| &member.user);
        let is_small = Ext::new(&ext).unlinked_from().is_none();
        let audience = Audience::new(places, users(), users().filter(|_| is_small));
        Self { kind, history, title, creator, members, ext, number: 0, audience }
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
        let (title, creator, ext) = (text(&stored.title)?, user(&stored.creator)?, stored.ext.to_vec());
        Some(Self::new(places, kind, history, title, creator, members, ext))
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
            ext: self.ext.clone(),
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

    /// Whether it fans out on read.
    pub(super) fn is_large(&self) -> bool {
        self.unlinked_from().is_some()
    }

    /// How much of it is kept.
    pub(super) fn kept(&self) -> Kept {
        Kept::of(Ext::new(&self.ext))
    }

    /// The first sequence of those that are in no inbox, while it fans out on read.
    pub(super) fn unlinked_from(&self) -> Option<Seq> {
        Ext::new(&self.ext).unlinked_from()
    }

    /// Those who may see the record `seq`, and those who may not, if there are any.
    pub(super) fn audiences_of(&self, places: &Places, seq: Seq) -> (Arc<Audience>, Option<Arc<Audience>>) {
        let users = |may_see: bool| {
            let members = self.members.iter().filter(move |member| (member.visible_from <= seq) == may_see);
            let users = || members.clone().map(|member| &member.user);
            Audience::new(places, users(), users().filter(|_| !self.is_large()))
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
            roster: None,
        }
    }

    fn plan_retention(
        &self,
        places: &Places,
        store: &Store,
        retention: Retention,
        seq: Seq,
        at: UnixMillis,
    ) -> Plan {
        let ext = self.kept().change(places, &self.ext, retention, (seq, at));
        let after = Self { ext, ..self.clone() };
        let ext = Ext::default().with_retention(Some(retention));
        let event = MembershipV1 { ext, ..membership(store) };
        // A start finds by it that something is set here.
        let memberships = vec![places.retention_stream()];
        Plan { memberships, ..self.plan_change(places, event, after) }
    }

    fn plan_title(&self, places: &Places, store: &Store, title: &str) -> Plan {
        let event = MembershipV1 { title_set: 1, title: title.as_bytes().to_vec(), ..membership(store) };
        self.plan_change(places, event, Self { title: title.to_owned(), ..self.clone() })
    }

    /// A change of what the conversation is, and not of its members.
    fn plan_change(&self, places: &Places, event: MembershipV1, after: Self) -> Plan {
        // As with every new state of a large group: where they are being listed, the one before it is passed over.
        let roster = self.is_large().then(|| Roster::of(places, &after));
        Plan {
            event: Body::Membership(event),
            messages: 0,
            after: Some(after),
            audience: self.audience.clone(),
            hidden_from: None,
            memberships: Vec::new(),
            roster,
        }
    }
}
