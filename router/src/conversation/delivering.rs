//! Delivering: what waits for the log to say that it is durable, and what goes out then.
//!
//! Answers wait in the order of their positions, with the delivery that each brings; pages that would be made from what a crash may undo
//! wait beside them. A record is delivered, and its command answered, by a [`Durable`] token alone, which the log makes from a completed
//! sync; who asks again for what is durable already is answered at once. Where the log stops instead, what waits is told that its outcome is unknown.

use std::sync::Arc;

use bytes::Bytes;
use protocol::ids::{ConversationId, Seq, UnixMillis};
use protocol::record::StreamKind as Kind;
use storage_log::{Durable, Head, Location, Log};

use super::ConversationSide;
use super::folding::hide;
use super::kept::Kept;
use super::large::Roster;
use super::recent::Key;
use super::refusing::{OUTCOME_UNKNOWN, STOPPED};
use super::state::Audience;
use crate::mail::{Asker, Deliver, Reply, Request};
use crate::places::{ShardId, conversation_stream};

/// An answer that waits for its record to be durable.
pub(super) struct Waiting {
    pub(super) position: u64,
    pub(super) shard: ShardId,
    pub(super) reply: Reply,
    /// Absent when the same command came again.
    pub(super) delivery: Option<Delivery>,
}

pub(super) struct Delivery {
    pub(super) key: Key,
    pub(super) asked_micros: u64,
    pub(super) location: Location,
    pub(super) audience: Arc<Audience>,
    /// Who is told only that there was one.
    pub(super) hidden_from: Option<Arc<Audience>>,
    pub(super) amended: Option<(ConversationId, Seq)>,
    pub(super) conversation: ConversationId,
    /// 1 for a message.
    pub(super) messages: u64,
    /// Who has to learn of the head when coming back, where that changes.
    pub(super) roster: Option<Roster>,
    /// How much of the conversation is kept, where that may change.
    pub(super) kept: Option<Kept>,
}

impl ConversationSide {
    /// Answers and delivers everything that `durable` covers.
    pub fn handle_durable(&mut self, durable: &Durable, now: UnixMillis, log: &mut Log) {
        assert_eq!(durable.log(), self.log, "a token of this log");
        let now = self.latest(now);
        while self.waiting.front().is_some_and(|waiting| durable.covers(waiting.position)) {
            let waiting = self.waiting.pop_front().expect("looked at");
            self.outputs.push_back((waiting.shard, waiting.reply));
            if let Some(mut delivery) = waiting.delivery {
                self.undurable.remove(&delivery.key);
                self.forget_amended(&delivery, waiting.position);
                self.deliver(&mut delivery, log);
            }
        }
        self.viewers.tell_unblocked(|position| durable.covers(position));
        self.tell_receipts(|position| durable.covers(position));
        while self.early.front().is_some_and(|(position, _)| durable.covers(*position)) {
            let (_, request) = self.early.pop_front().expect("looked at");
            self.handle_request(request, now, log);
        }
    }

    /// The log stopped: what waits for it is told that its outcome is unknown.
    pub fn handle_failed(&mut self) {
        for waiting in std::mem::take(&mut self.waiting) {
            self.lost
                .extend(waiting.delivery.as_ref().map(|delivery| (delivery.conversation, delivery.messages)));
            if let Reply::Stored { asker, .. }
            | Reply::Done { asker }
            | Reply::Hidden { asker, .. }
            | Reply::Refused { asker, .. } = waiting.reply
            {
                self.refuse(asker, OUTCOME_UNKNOWN);
            }
        }
        for (_, request) in std::mem::take(&mut self.early) {
            self.refuse_request(&request, OUTCOME_UNKNOWN);
        }
    }

    fn deliver(&mut self, delivery: &mut Delivery, log: &Log) {
        let record = log.recent(delivery.location).expect("the newest batch is in memory");
        let position = record.position();
        match delivery.roster.take() {
            Some(roster) => self.large.change(delivery.conversation, roster, position),
            None => self.large.note_head(delivery.conversation, position),
        }
        let seq = Seq(record.seq());
        self.viewers.note_record(delivery.conversation, seq, position, record.portable());
        self.outputs.extend(self.viewers.take_answers());
        self.fold_durable(delivery.conversation, record.seq(), record.portable());
        if delivery.messages > 0 {
            let is_linked = !delivery.audience.inboxes.is_empty();
            self.pushes.note_message(delivery.conversation, seq, position, is_linked);
        }
        self.note_kept(delivery.conversation, delivery.kept.take());
        let front = self.front_then(delivery.conversation, seq, UnixMillis(record.at()));
        let bytes = self.erased.delivered_behind(position, record.portable(), front);
        self.deliver_to(&delivery.audience, position, &bytes, delivery.asked_micros);
        if let Some(hidden_from) = &delivery.hidden_from {
            self.deliver_to(hidden_from, position, &hide(&bytes), delivery.asked_micros);
        }
    }

    fn deliver_to(&mut self, audience: &Audience, position: u64, record: &Bytes, asked_micros: u64) {
        for (shard, users) in &audience.shards {
            let (record, users) = (record.clone(), users.clone());
            let deliver = Deliver { log: self.log, position, record, users, asked_micros };
            self.outputs.push_back((*shard, Reply::Deliver(deliver)));
        }
    }

    /// Answers a command of which there is no more to say when what it depends on is durable.
    pub(super) fn done_when_durable(&mut self, asker: Asker, position: u64, log: &Log) {
        self.answer_when_durable(asker, Reply::Done { asker }, position, log);
    }

    pub(super) fn answer_when_durable(&mut self, asker: Asker, reply: Reply, position: u64, log: &Log) {
        let shard = asker.shard;
        if log.durable().covers(position) {
            self.outputs.push_back((shard, reply));
        } else if log.is_healthy() {
            let place = self.waiting.partition_point(|waiting| waiting.position <= position);
            self.waiting.insert(place, Waiting { position, shard, reply, delivery: None });
        } else {
            self.refuse(asker, STOPPED);
        }
    }

    /// A page that cannot be made before a position is durable.
    pub(super) fn wait_until_durable(&mut self, position: u64, request: Request) {
        let place = self.early.partition_point(|(before, _)| *before <= position);
        self.early.insert(place, (position, request));
    }

    /// The newest durable record of a conversation, and the messages up to it: exactly, also while newer ones are being written.
    pub(super) fn durable_head(&self, conversation: ConversationId, log: &Log) -> Head {
        let stream = conversation_stream(conversation, Kind::Messages);
        let (head, durable) = (log.head(stream), log.durable_head(stream));
        if durable.seq == head.seq {
            return head;
        }
        let deliveries = self.waiting.iter().filter_map(|waiting| waiting.delivery.as_ref());
        let coming = deliveries.map(|delivery| (delivery.conversation, delivery.messages));
        let coming = coming.chain(self.lost.iter().copied()).filter(|(of, _)| *of == conversation);
        let coming: u64 = coming.map(|(_, messages)| messages).sum();
        Head { seq: durable.seq, message_count: head.message_count - coming }
    }

    /// Whether something waits for durability.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
            || !self.early.is_empty()
            || !self.gathering.is_empty()
            || !self.sightings.is_empty()
            || self.taken.is_owed
    }
}
