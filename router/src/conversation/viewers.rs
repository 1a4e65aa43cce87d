//! Who looks at which conversation, and what they are told: who of its members is online, who is typing, who has read how far.
//!
//! A conversation that nobody views costs nothing. While one is viewed, its members are watched: each one's home says once how
//! that user stands, and from then on when it changes. Nothing here is stored. What is said of it is for `telling`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use hashbrown::HashMap;
use protocol::event::{ErrorCode, Presence, Reached};
use protocol::ids::{ConversationId, Seq, UserId};
use protocol::record::{ArchivedMembershipV1, Ext, Portable, Stored, StoredBody};

use super::newest::{Delivered, Newest};
use super::state::{Conversation, Refusal};
use super::telling::News;
use crate::mail::{Asker, Given, Knows, Linked, Reply, SessionId, Signal, Standing};
use crate::places::{Places, ShardId};

/// Members of all conversations of one log that are viewed at the same time. About 50 MB.
const VIEWED_MEMBERS_MAX: usize = 500_000;

const TOO_MANY: Refusal = (ErrorCode::Busy, "too many conversations are viewed");

/// One who views, and where the answer goes until it has one.
pub(super) struct Viewer {
    pub(super) shard: ShardId,
    pub(super) session: SessionId,
    pub(super) user: UserId,
    pub(super) waits: Option<Asker>,
    /// What the answer may leave out.
    knows: Knows,
}

/// A conversation as it durably is when somebody begins to look at it.
pub(super) struct Present<'a> {
    pub(super) state: &'a Conversation,
    pub(super) head: Seq,
    /// How far its members have come.
    pub(super) reached: BTreeMap<UserId, Reached>,
}

pub(super) struct Viewed {
    members: Vec<UserId>,
    /// How far those have come that have read or been given anything, as it is on disk.
    pub(super) reached: BTreeMap<UserId, Reached>,
    /// Where its newest records stand, for what its members' devices acknowledge.
    newest: Newest,
    pub(super) viewers: Vec<Viewer>,
    /// Its two members are told nothing of each other,
    pub(super) blocked: bool,
    /// and these have come further meanwhile, or somebody who looks has been told nothing of them.
    pub(super) untold: BTreeSet<UserId>,
}

/// A member of something that is viewed.
#[derive(Default)]
pub(super) struct Watched {
    pub(super) conversations: BTreeSet<ConversationId>,
    /// `None` until its home has answered.
    pub(super) standing: Option<Standing>,
    /// Those who viewed this one in another process, with which this one goes on, know it.
    is_as_before: bool,
}

impl Viewed {
    /// Somebody is in it whom those do not know who viewed it before, in whichever process.
    fn tell_those_who_wait_all(&mut self) {
        let waiting = self.viewers.iter_mut().filter(|viewer| viewer.waits.is_some());
        waiting.for_each(|viewer| viewer.knows = Knows::Nothing);
    }
}

/// All views of the conversations of one log.
pub(super) struct Viewers {
    pub(super) places: Arc<Places>,
    pub(super) log: u16,
    pub(super) viewed: HashMap<ConversationId, Viewed, foldhash::fast::RandomState>,
    /// Members of all of these.
    members_count: usize,
    pub(super) watched: HashMap<UserId, Watched, foldhash::fast::RandomState>,
    /// By shard: whom its homes are to watch from now on, or not any more.
    pub(super) watches: Vec<BTreeMap<UserId, bool>>,
    /// By shard of the viewers.
    pub(super) news: Vec<News>,
    answers: Vec<(ShardId, Reply)>,
    /// Those without a block any more, by the position of the record that says so, until that is durable.
    unblocked: VecDeque<(u64, ConversationId)>,
}

impl Viewers {
    pub(super) fn new(places: Arc<Places>, log: u16) -> Self {
        let shards = usize::from(places.shards);
        let watches = vec![BTreeMap::new(); shards];
        let news = (0..shards).map(|_| News::default()).collect();
        let (viewed, watched) = (HashMap::default(), HashMap::default());
        let (answers, unblocked) = (Vec::new(), VecDeque::new());
        Self { places, log, viewed, members_count: 0, watched, watches, news, answers, unblocked }
    }

    /// A member's session views a conversation from now on. It is answered when every member's home has said how that one stands.
    ///
    /// # Errors
    /// What it is told when too many are viewed.
    pub(super) fn view(
        &mut self,
        asker: Asker,
        user: UserId,
        conversation: ConversationId,
        knows: Knows,
        Present { state, head, mut reached }: Present<'_>,
    ) -> Result<(), Refusal> {
        self.renew_own(conversation, &reached);
        if !self.viewed.contains_key(&conversation) {
            if self.members_count + state.members().len() > VIEWED_MEMBERS_MAX {
                return Err(TOO_MANY);
            }
            let members: Vec<UserId> = state.members().iter().map(|member| member.user.clone()).collect();
            self.members_count += members.len();
            members.iter().for_each(|member| self.watch(member, conversation));
            // Those who left have read too, and that is kept.
            reached.retain(|user, _| self.is_member(user, conversation));
            // Nobody is told of what may be gone after a crash.
            let blocked = state.is_blocked() || self.unblocked.iter().any(|(_, of)| *of == conversation);
            let (newest, viewers, untold) = (Newest::before(head), Vec::new(), BTreeSet::new());
            let viewed = Viewed { members, reached, newest, viewers, blocked, untold };
            self.viewed.insert(conversation, viewed);
        } else {
            self.know_further(conversation, reached);
        }
        let viewers = &mut self.viewed.get_mut(&conversation).expect("it is viewed").viewers;
        // It asks again: one page of a session is under way at a time, so it has its answer to the first.
        viewers.retain(|viewer| (viewer.shard, viewer.session) != (asker.shard, asker.session));
        let (shard, session, waits) = (asker.shard, asker.session, Some(asker));
        viewers.push(Viewer { shard, session, user, waits, knows });
        self.answer(conversation);
        Ok(())
    }

    /// What is viewed of the conversations of a user: so many of those behind one.
    pub(super) fn viewed_of(
        &self,
        user: &UserId,
        after: Option<ConversationId>,
        count: usize,
    ) -> Vec<ConversationId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let watched = self.watched.get(user).into_iter();
        watched
            .flat_map(|watched| watched.conversations.range((from, Bound::Unbounded)))
            .take(count)
            .copied()
            .collect()
    }

    /// Members of a conversation that is viewed; nobody of any other.
    pub(super) fn members_of(&self, conversation: ConversationId) -> Vec<UserId> {
        self.viewed.get(&conversation).map(|viewed| viewed.members.clone()).unwrap_or_default()
    }

    /// What an acknowledgement says of a conversation, beyond what viewers are told.
    pub(super) fn delivered(&self, conversation: ConversationId, user: &UserId, given: Given) -> Delivered {
        let Some(viewed) = self.viewed.get(&conversation) else { return Delivered::Nothing };
        let known = viewed.reached.get(user).map_or(Seq(0), |reached| reached.delivered);
        viewed.newest.delivered(user, given, known)
    }

    /// Where the newest records of a conversation stand, if it is viewed.
    pub(super) fn newest(&mut self, conversation: ConversationId) -> Option<&mut Newest> {
        self.viewed.get_mut(&conversation).map(|viewed| &mut viewed.newest)
    }

    /// What a view is answered with goes ahead of what has waited for room: that must not be older.
    fn renew_own(&mut self, conversation: ConversationId, reached: &BTreeMap<UserId, Reached>) {
        for news in self.news.iter_mut().filter(|news| !news.own.is_empty()) {
            for (user, reached) in reached {
                if let Some(own) = news.own.get_mut(&(conversation, user.clone())) {
                    *own = (*own).max(reached.read);
                }
            }
        }
    }

    /// Messages of one's own say how far one has read, and no receipt is told of those: who begins to look learns it.
    fn know_further(&mut self, conversation: ConversationId, reached: BTreeMap<UserId, Reached>) {
        let reached: Vec<(UserId, Reached)> =
            reached.into_iter().filter(|(user, _)| self.is_member(user, conversation)).collect();
        let known = &mut self.viewed.get_mut(&conversation).expect("it is viewed").reached;
        for (user, Reached { read, delivered }) in reached {
            let known = known.entry(user).or_default();
            *known = Reached { read: read.max(known.read), delivered: delivered.max(known.delivered) };
        }
    }

    /// Takes what a home has to say.
    pub(super) fn handle(&mut self, shard: ShardId, signal: Signal) {
        match signal {
            Signal::Stands { user, standing, is_as_before } => {
                self.handle_standing(&user, standing, is_as_before);
            }
            Signal::Typing { conversation, user, on } => self.handle_typing(conversation, &user, on),
            Signal::Acked { .. } => unreachable!("that is no news of presence"),
            Signal::Unviewed { conversation, session } => {
                self.leave(conversation, |viewer| (viewer.shard, viewer.session) == (shard, session));
            }
        }
    }

    /// One of two blocks the other: from now on nothing passes between them.
    pub(super) fn block(&mut self, conversation: ConversationId) {
        self.unblocked.retain(|(_, of)| *of != conversation);
        if let Some(viewed) = self.viewed.get_mut(&conversation) {
            viewed.blocked = true;
        }
    }

    /// None blocks the other any more, once the record at this position is durable.
    pub(super) fn unblock_at(&mut self, position: u64, conversation: ConversationId) {
        if self.viewed.contains_key(&conversation) {
            self.unblocked.push_back((position, conversation));
        }
    }

    /// Of those whose record is durable each is told how the other stands, and how far it has come if that is news: there is one receipt for each record of
    /// positions, however often a block begins and ends.
    pub(super) fn tell_unblocked(&mut self, is_durable: impl Fn(u64) -> bool) {
        while let Some((_, conversation)) = self.unblocked.pop_front_if(|(position, _)| is_durable(*position))
        {
            let Some(viewed) = self.viewed.get_mut(&conversation) else { continue };
            viewed.blocked = false;
            viewed.tell_those_who_wait_all();
            let (members, untold) = (viewed.members.clone(), std::mem::take(&mut viewed.untold));
            members.iter().for_each(|member| self.tell_standing(member, conversation));
            untold.iter().for_each(|member| self.tell_receipt(member, conversation));
        }
    }

    /// A record became durable, perhaps a change of members.
    pub(super) fn note_record(
        &mut self,
        conversation: ConversationId,
        seq: Seq,
        position: u64,
        record: &[u8],
    ) {
        let Some(newest) = self.newest(conversation) else { return };
        newest.push(seq, position);
        if let Some(event) = membership(record) {
            if is_behind_unlinked(event) {
                newest.begin_at_last();
            }
            joined(event).for_each(|user| newest.note_joined(user, position));
            self.change_members(conversation, event);
        }
    }

    /// Earlier records of a conversation were read, the newest first. Nothing is known of what stands before one that cannot be read, nor of those that stand in no
    /// inbox, of which a device may have been told the head alone.
    pub(super) fn take_earlier(&mut self, conversation: ConversationId, records: &[Linked]) {
        // Of one that nobody views any more there is nothing to know.
        let Some(viewed) = self.viewed.get_mut(&conversation) else { return };
        let (newest, members) = (&mut viewed.newest, &viewed.members);
        let mut known = Vec::new();
        let mut is_first = false;
        for linked in records.iter().take_while(|linked| linked.record.is_some()) {
            known.push((linked.seq, linked.position));
            if let Some(event) = linked.record.as_deref().and_then(membership) {
                let still = joined(event).filter(|user| members.contains(user));
                still.for_each(|user| newest.note_joined(user, linked.position));
                is_first = is_behind_unlinked(event);
            }
            if is_first {
                break;
            }
        }
        newest.take_earlier(known.into_iter(), is_first);
    }

    fn change_members(&mut self, conversation: ConversationId, event: &ArchivedMembershipV1) {
        for member in joined(event) {
            let members = &mut self.viewed.get_mut(&conversation).expect("the caller looked").members;
            if !members.contains(&member) {
                members.push(member.clone());
                self.members_count += 1;
                self.viewed.get_mut(&conversation).expect("looked at").tell_those_who_wait_all();
                self.watch(&member, conversation);
                self.tell_standing(&member, conversation);
            }
        }
        for gone in event.removed.iter().filter_map(|name| user_of(&name.name)) {
            let Some(viewed) = self.viewed.get_mut(&conversation) else { return };
            let before = viewed.members.len();
            viewed.members.retain(|member| *member != gone);
            viewed.reached.remove(&gone);
            viewed.newest.forget(&gone);
            self.members_count -= before - viewed.members.len();
            self.unwatch(&gone, conversation);
            // Who may not read it any more is told nothing of it either.
            self.leave(conversation, |viewer| viewer.user == gone);
        }
        // Those who have gone may be all that an answer has waited for.
        self.answer(conversation);
    }

    /// Who joins and was watched before, for another conversation, does not say anew how it stands: that is known.
    fn tell_standing(&mut self, user: &UserId, conversation: ConversationId) {
        let standing = self.watched.get(user).and_then(|watched| watched.standing);
        if standing.and_then(Standing::is_online).is_none() {
            return;
        }
        let viewers = self.viewed.get(&conversation).into_iter().flat_map(|viewed| &viewed.viewers);
        for viewer in viewers.filter(|viewer| viewer.waits.is_none() && viewer.user != *user) {
            self.news[viewer.shard.index()].presence.insert(user.clone());
        }
    }

    fn handle_standing(&mut self, user: &UserId, standing: Standing, is_as_before: bool) {
        let Some(watched) = self.watched.get_mut(user) else { return };
        watched.is_as_before = is_as_before;
        let before = watched.standing.replace(standing);
        if before.is_some_and(|before| before.is_online() == standing.is_online()) {
            return;
        }
        let conversations: Vec<ConversationId> = watched.conversations.iter().copied().collect();
        for conversation in conversations {
            let Some(viewed) = self.viewed.get(&conversation) else { continue };
            let told = viewed.viewers.iter().filter(|viewer| viewer.waits.is_none() && viewer.user != *user);
            for viewer in told.filter(|_| standing.is_online().is_some()) {
                self.news[viewer.shard.index()].presence.insert(user.clone());
            }
            self.answer(conversation);
        }
    }

    /// Somebody has come further in a conversation, durably. What was read is told to the user's own sessions too.
    pub(super) fn note_reached(
        &mut self,
        conversation: ConversationId,
        user: &UserId,
        reached: Reached,
        has_read: bool,
    ) {
        if has_read {
            let home = self.places.home_of(user);
            self.news[home.index()].own.insert((conversation, user.clone()), reached.read);
        }
        if !self.is_member(user, conversation) {
            return;
        }
        let Some(viewed) = self.viewed.get_mut(&conversation) else { return };
        viewed.reached.insert(user.clone(), reached);
        self.tell_receipt(user, conversation);
    }

    fn tell_receipt(&mut self, user: &UserId, conversation: ConversationId) {
        let Some(viewed) = self.viewed.get_mut(&conversation) else { return };
        if viewed.blocked {
            viewed.untold.insert(user.clone());
            return;
        }
        for viewer in viewed.viewers.iter().filter(|viewer| viewer.waits.is_none() && viewer.user != *user) {
            self.news[viewer.shard.index()].receipts.insert((conversation, user.clone()));
        }
    }

    /// Of a conversation that is viewed: of those the members are watched.
    fn is_member(&self, user: &UserId, conversation: ConversationId) -> bool {
        self.watched.get(user).is_some_and(|watched| watched.conversations.contains(&conversation))
    }

    fn handle_typing(&mut self, conversation: ConversationId, user: &UserId, on: bool) {
        let Some(viewed) = self.viewed.get(&conversation).filter(|viewed| viewed.members.contains(user))
        else {
            return;
        };
        // Who is not shown to be here is not shown to write: it may be invisible.
        let standing = self.watched.get(user).and_then(|watched| watched.standing);
        if viewed.blocked || standing != Some(Standing::Online) {
            return;
        }
        for viewer in viewed.viewers.iter().filter(|viewer| viewer.user != *user) {
            self.news[viewer.shard.index()].typing.insert((conversation, user.clone()), on);
        }
    }

    /// Answers who waits for a conversation, once every member of it is known.
    fn answer(&mut self, conversation: ConversationId) {
        let Some(viewed) = self.viewed.get_mut(&conversation) else { return };
        if !viewed.viewers.iter().any(|viewer| viewer.waits.is_some()) {
            return;
        }
        let standings =
            viewed.members.iter().map(|member| Some((member, self.watched.get(member)?.standing?)));
        let Some(standings) = standings.collect::<Option<Vec<_>>>() else { return };
        let presence: Arc<[Presence]> =
            standings.iter().filter_map(|(user, standing)| standing.told((*user).clone())).collect();
        let receipts: Arc<[(UserId, Reached)]> =
            viewed.reached.iter().map(|(user, reached)| (user.clone(), *reached)).collect();
        let is_news =
            |one: &&Presence| self.watched.get(&one.user).is_some_and(|watched| !watched.is_as_before);
        for viewer in &mut viewed.viewers {
            if let Some(asker) = viewer.waits.take() {
                let (presence, receipts) = match viewer.knows {
                    Knows::Nothing => (presence.clone(), receipts.clone()),
                    Knows::WhatWasBefore => {
                        (presence.iter().filter(is_news).cloned().collect(), Arc::from([]))
                    }
                };
                let (presence, receipts) = if viewed.blocked {
                    let others = viewed.reached.keys().filter(|user| **user != viewer.user);
                    viewed.untold.extend(others.cloned());
                    let own = presence.iter().filter(|one| one.user == viewer.user).cloned().collect();
                    (own, receipts.iter().filter(|(user, _)| *user == viewer.user).cloned().collect())
                } else {
                    (presence, receipts)
                };
                self.answers.push((asker.shard, Reply::Viewed { asker, conversation, presence, receipts }));
            }
        }
    }

    fn leave(&mut self, conversation: ConversationId, leaves: impl Fn(&Viewer) -> bool) {
        let Some(viewed) = self.viewed.get_mut(&conversation) else { return };
        for viewer in viewed.viewers.extract_if(.., |viewer| leaves(viewer)) {
            if let Some(asker) = viewer.waits {
                let (presence, receipts) = (Arc::from([]), Arc::from([]));
                self.answers.push((asker.shard, Reply::Viewed { asker, conversation, presence, receipts }));
            }
        }
        if viewed.viewers.is_empty() {
            let members = self.viewed.remove(&conversation).expect("looked at").members;
            self.members_count -= members.len();
            members.iter().for_each(|member| self.unwatch(member, conversation));
        }
    }

    fn watch(&mut self, user: &UserId, conversation: ConversationId) {
        let watched = self.watched.entry(user.clone()).or_default();
        if watched.conversations.is_empty() {
            self.watches[self.places.home_of(user).index()].insert(user.clone(), true);
        }
        watched.conversations.insert(conversation);
    }

    fn unwatch(&mut self, user: &UserId, conversation: ConversationId) {
        let Some(watched) = self.watched.get_mut(user) else { return };
        watched.conversations.remove(&conversation);
        if watched.conversations.is_empty() {
            self.watched.remove(user);
            self.watches[self.places.home_of(user).index()].insert(user.clone(), false);
        }
    }

    /// Answers to `view`s, for whoever keeps their order with what else leaves.
    pub(super) fn take_answers(&mut self) -> impl Iterator<Item = (ShardId, Reply)> + '_ {
        self.answers.drain(..)
    }
}

/// The change of members that a record is.
fn membership(record: &[u8]) -> Option<&ArchivedMembershipV1> {
    match Stored::with_checked_sum(Portable::parse(record).ok()?, record).ok()?.body {
        StoredBody::Membership(event) => Some(event),
        _ => None,
    }
}

/// Whether it stands behind records that are in no inbox.
fn is_behind_unlinked(event: &ArchivedMembershipV1) -> bool {
    Ext::new(&event.ext).unlinked_from().is_some()
}

/// Who is added by it.
fn joined(event: &ArchivedMembershipV1) -> impl Iterator<Item = UserId> + '_ {
    event.added.iter().filter_map(|member| user_of(&member.user))
}

fn user_of(name: &[u8]) -> Option<UserId> {
    UserId::new(std::str::from_utf8(name).ok()?).ok()
}
