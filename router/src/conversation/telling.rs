//! Telling viewers: what has not left yet, by the shard that it is for, and the mails that it becomes.
//!
//! Nothing is a queue: what waits is the newest of its kind, and becomes what it then says when there is room for it. So a full mailbox makes news later and never
//! more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use protocol::event::{Reached, ServerFrame};
use protocol::ids::{ConversationId, Seq, UserId};

use super::viewers::Viewers;
use crate::mail::{Reply, SessionId};
use crate::places::ShardId;

/// Users in one mail to their home.
const USERS_PER_MAIL: usize = 256;

/// What viewers have not been told yet: the newest of each kind.
#[derive(Default)]
pub(super) struct News {
    pub(super) presence: BTreeSet<UserId>,
    /// For viewers: whom of what is in `Viewed::reached`.
    pub(super) receipts: BTreeSet<(ConversationId, UserId)>,
    /// For the sessions of who has read, whatever they view.
    pub(super) own: BTreeMap<(ConversationId, UserId), Seq>,
    pub(super) typing: BTreeMap<(ConversationId, UserId), bool>,
}

impl News {
    fn is_empty(&self) -> bool {
        let for_viewers = self.presence.is_empty() && self.receipts.is_empty() && self.typing.is_empty();
        for_viewers && self.own.is_empty()
    }
}

impl Viewers {
    /// The next news for a shard that has room for it.
    pub(super) fn poll_news(&mut self, has_room: impl Fn(ShardId) -> bool) -> Option<(ShardId, Reply)> {
        (0..self.places.shards).map(ShardId).find_map(|shard| {
            // Room is asked for last: another core writes where that stands.
            if !self.has_news(shard) || !has_room(shard) {
                return None;
            }
            let reply = self.poll_watch(shard).or_else(|| self.poll_telling(shard))?;
            Some((shard, reply))
        })
    }

    pub(super) fn has_any_news(&self) -> bool {
        (0..self.places.shards).map(ShardId).any(|shard| self.has_news(shard))
    }

    fn has_news(&self, shard: ShardId) -> bool {
        !self.watches[shard.index()].is_empty() || !self.news[shard.index()].is_empty()
    }

    fn poll_watch(&mut self, shard: ShardId) -> Option<Reply> {
        let watches = &mut self.watches[shard.index()];
        let (mut watched, mut unwatched) = (Vec::new(), Vec::new());
        for _ in 0..USERS_PER_MAIL {
            match watches.pop_first() {
                None => break,
                Some((user, true)) => watched.push(user),
                Some((user, false)) => unwatched.push(user),
            }
        }
        let any = !watched.is_empty() || !unwatched.is_empty();
        any.then_some(Reply::Watch { log: self.log, watched, unwatched })
    }

    fn poll_telling(&mut self, shard: ShardId) -> Option<Reply> {
        loop {
            let news = &mut self.news[shard.index()];
            if let Some(((conversation, user), read)) = news.own.pop_first() {
                let reached = Reached { read, delivered: Seq(0) };
                let event = ServerFrame::Receipt { conversation, user: user.clone(), reached };
                return Some(Reply::TellUser { user, event: Arc::new(event) });
            }
            let (sessions, event) = if let Some(((conversation, user), on)) = news.typing.pop_first() {
                let sessions = self.viewers_at(shard, [&conversation], &user);
                (sessions, ServerFrame::Typing { conversation, user, on })
            } else if let Some((conversation, user)) = news.receipts.pop_first() {
                let Some(viewed) = self.viewed.get_mut(&conversation) else { continue };
                if viewed.blocked {
                    viewed.untold.insert(user);
                    continue;
                }
                let Some(reached) = viewed.reached.get(&user).copied() else { continue };
                let sessions = self.viewers_at(shard, [&conversation], &user);
                (sessions, ServerFrame::Receipt { conversation, user, reached })
            } else {
                let user = news.presence.pop_first()?;
                // Nobody watches any more: then nobody is told either.
                let Some(watched) = self.watched.get(&user) else { continue };
                let told = watched.standing.and_then(|standing| standing.told(user.clone()));
                let Some(presence) = told else { continue };
                (self.viewers_at(shard, &watched.conversations, &user), ServerFrame::Presence(presence))
            };
            if !sessions.is_empty() {
                return Some(Reply::Tell { sessions, event: Arc::new(event) });
            }
        }
    }

    /// Sessions at a shard that view one of these and were answered; each once.
    fn viewers_at<'a>(
        &self,
        shard: ShardId,
        conversations: impl IntoIterator<Item = &'a ConversationId>,
        but: &UserId,
    ) -> Vec<SessionId> {
        let viewed = conversations.into_iter().filter_map(|conversation| self.viewed.get(conversation));
        let viewed = viewed.filter(|viewed| !viewed.blocked);
        let viewers = viewed.flat_map(|viewed| &viewed.viewers);
        let told =
            viewers.filter(|viewer| viewer.shard == shard && viewer.waits.is_none() && viewer.user != *but);
        let sessions: BTreeSet<(u32, u32)> =
            told.map(|viewer| (viewer.session.slot, viewer.session.generation)).collect();
        sessions.into_iter().map(|(slot, generation)| SessionId { slot, generation }).collect()
    }
}
