//! One page of catching up: what is linked for a user beyond a position, and the heads of large groups that moved as far.

use protocol::ids::{ConversationId, Seq, UserId};
use storage_log::{Log, Lookup, StreamId};

use super::ConversationSide;
use super::jobs::{PAGE, Purpose};
use super::pages::Tried;
use crate::mail::{Linked, MovedHead, Reply, Request, SessionId};
use crate::places::ShardId;

/// A page of catching up while it is read.
pub(super) struct CatchUp {
    session: SessionId,
    shard: ShardId,
    user: UserId,
    inbox: StreamId,
    after: Option<u64>,
    tried: Tried,
}

impl CatchUp {
    /// As it was asked for.
    fn request(&self, log: u16) -> Request {
        let Self { session, shard, inbox, after, .. } = *self;
        Request::CatchUp { session, shard, log, user: self.user.clone(), inbox, after }
    }
}

impl ConversationSide {
    pub(super) fn begin_catching_up(&mut self, request: Request, tried: Tried, log: &mut Log) {
        let Request::CatchUp { session, shard, user, inbox, after, .. } = request else {
            unreachable!("the caller matched");
        };
        // A session that starts at the head is given nothing and told where that is.
        let lookup = after.map(|after| Lookup::after(log, inbox, after, PAGE));
        let page = CatchUp { session, shard, user, inbox, after, tried };
        self.start(Purpose::CatchUp(Box::new(page)), lookup.into_iter().collect(), log);
    }

    pub(super) fn finish_catching_up(&mut self, page: CatchUp, mut records: Vec<Linked>, log: &mut Log) {
        let CatchUp { session, shard, inbox, after, .. } = page;
        if after.is_some_and(|after| after + 1 < log.links_kept_from()) {
            // It went while this session was on its way.
            return self.outputs.push_back((shard, Reply::Forgotten { session }));
        }
        // The durable head is read now, when the answer is put behind every Deliver at or below it: that is what
        // makes the switch to live exact.
        let last = records.last().map(|last| last.position).or(after);
        let at_head = last.is_none_or(|last| !log.has_after(inbox, last));
        let durable = log.durable().position();
        let end = last.filter(|_| !at_head).unwrap_or(durable);
        let moved = |end| after.map(|after| self.large.moved(inbox.id, after, end)).unwrap_or_default();
        // Those of the pages that follow are asked for as well, so that they need not begin anew.
        let mut told: Vec<ConversationId> = moved(durable);
        told.extend(
            records
                .iter()
                .filter(|linked| linked.standing_alone().is_some())
                .map(|linked| linked.conversation),
        );
        let heads = moved(end).into_iter().map(|conversation| {
            let head = self.durable_head(conversation, log);
            MovedHead { conversation, head: Seq(head.seq), message_count: head.message_count }
        });
        let heads = heads.collect();
        told.sort_unstable();
        told.dedup();
        let (number, user, tried) = (self.log, page.user.clone(), page.tried.clone());
        let Some(reads) = self.read_states(&user, &told, || page.request(number), &tried, log) else {
            return;
        };
        let partial = self.large.is_partial();
        self.conceal_links(&mut records, log);
        let reply = Reply::CaughtUp { session, log: number, records, heads, reads, end, at_head, partial };
        self.outputs.push_back((shard, reply));
    }
}
