//! For a session that keeps a sequence per conversation: the survey of its user's conversations, and feeding it what it lacks of one.
//!
//! A survey goes through a user's memberships in one log and says where each conversation stands. The session's home compares that with
//! what the session knows, and asks for what is missing, conversation by conversation.

use protocol::ids::{ConversationId, Seq};
use protocol::record::{ArchivedMembershipV1, Portable, Stored, StoredBody, StreamKind as Kind};
use storage_log::{Log, Lookup, StreamId};

use super::ConversationSide;
use super::folding::hide_amendments;
use super::jobs::{PAGE, Purpose};
use super::retention::take_gone;
use crate::mail::{Linked, Reply, Request, SessionId, Surveyed};
use crate::places::{ShardId, conversation_stream};

/// A page of a survey while it is read.
pub(super) struct SurveyPage {
    session: SessionId,
    shard: ShardId,
    user: Vec<u8>,
    memberships: StreamId,
    after: u64,
}

/// Records of one conversation beyond a sequence, as they were asked for.
pub(super) struct Feed {
    session: SessionId,
    shard: ShardId,
    conversation: ConversationId,
    after: Seq,
    until: u64,
    visible_from: Seq,
}

impl ConversationSide {
    pub(super) fn begin_survey(&mut self, request: Request, log: &mut Log) {
        let Request::Survey { session, shard, user, memberships, after, .. } = request else {
            unreachable!("the caller matched");
        };
        let lookup = Lookup::after(log, memberships, after, PAGE);
        let user = user.as_bytes().to_vec();
        let page = SurveyPage { session, shard, user, memberships, after };
        self.start(Purpose::Survey(page), vec![lookup], log);
    }

    pub(super) fn finish_survey(&mut self, page: &SurveyPage, records: &[Linked], log: &Log) {
        let SurveyPage { session, shard, user, memberships, after } = page;
        // As with catching up, the end is judged now: a change that became durable meanwhile is in the next page.
        let last = records.last().map_or(*after, |last| last.position);
        let more_after = log.has_after(*memberships, last).then_some(last);
        let conversations = records.iter().filter_map(|record| self.surveyed(record, user, log)).collect();
        let partial = records.iter().any(|record| record.record.is_none());
        let (position, log) = (log.durable().position(), self.log);
        let reply = Reply::Surveyed { session: *session, log, conversations, more_after, position, partial };
        self.outputs.push_back((*shard, reply));
    }

    /// What a record in a user's stream of memberships says about one conversation.
    fn surveyed(&self, linked: &Linked, user: &[u8], log: &Log) -> Option<Surveyed> {
        let (conversation, visible_from) = membership_of(linked, user)?;
        let head = self.durable_head(conversation, log);
        let position = linked.position;
        Some(Surveyed {
            position,
            conversation,
            head: Seq(head.seq),
            message_count: head.message_count,
            visible_from,
        })
    }

    pub(super) fn begin_feed(&mut self, request: Request, log: &mut Log) {
        let Request::Feed { session, shard, conversation, after, until, visible_from, .. } = request else {
            unreachable!("the caller matched");
        };
        // From the last that is not kept on, so that it is told how far that is.
        let from = self.begins_from(conversation, log).0.saturating_sub(2);
        let feed = Feed { session, shard, conversation, after, until, visible_from };
        self.feed_from(after.0.max(from), feed, log);
    }

    fn feed_from(&mut self, from: u64, feed: Feed, log: &mut Log) {
        let stream = conversation_stream(feed.conversation, Kind::Messages);
        self.start(Purpose::Feed { feed, from }, vec![Lookup::after(log, stream, from, PAGE)], log);
    }

    pub(super) fn finish_feed(
        &mut self,
        feed: Feed,
        from: u64,
        mut records: Vec<Linked>,
        more: bool,
        log: &mut Log,
    ) {
        let Feed { session, shard, conversation, after, until, visible_from } = feed;
        let read = records.len();
        let last = records.last().map(|last| last.seq);
        records.retain(|record| record.position <= until);
        if records.is_empty() && from > after.0 {
            // What is kept begins beyond that position: how far what is not kept goes below it, say those that were passed over.
            return self.feed_from(after.0, feed, log);
        }
        let more_after = if more && records.len() == read { last } else { None };
        self.conceal(&mut records, log);
        hide_amendments(&mut records, visible_from);
        let gone = take_gone(conversation, &mut records, after.0 + 1, after.0 + 1);
        let fed = Reply::Fed { session, log: self.log, conversation, gone, records, more_after };
        self.outputs.push_back((shard, fed));
    }
}

/// Of which conversation a record in a user's stream of memberships is, and from where on the user is in it then.
pub(super) fn membership_of(linked: &Linked, user: &[u8]) -> Option<(ConversationId, Option<Seq>)> {
    let bytes = linked.record.as_ref()?;
    let portable = Portable::parse(bytes).ok()?;
    let visible_from = match Stored::with_checked_sum(portable, bytes).ok()?.body {
        StoredBody::Membership(body) => joined_from(body, user),
        _ => Some(Seq(1)),
    };
    Some((portable.conversation, visible_from))
}

/// A record in the stream of memberships either adds the user, and says from where, or takes it out.
fn joined_from(body: &ArchivedMembershipV1, user: &[u8]) -> Option<Seq> {
    let added = body.added.iter().find(|member| member.user.as_slice() == user)?;
    Some(Seq(added.visible_from.to_native()))
}
