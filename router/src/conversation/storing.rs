//! Storing: what becomes of a command that stores, once its turn in its conversation has come.
//!
//! The same command may have been stored before: that is known from memory, or looked up first, and then it is answered as it was. A new
//! one is judged by the newest state, durable or not, and appended with the state that it leads to, in one batch. Its answer and its
//! delivery wait, in the order of the log, until that says that the record is durable (`delivering`).

use protocol::event::ErrorCode;
use protocol::ids::{ConversationId, Seq, UnixMillis, UserId};
use protocol::record::{Schema, StreamKind as Kind};
use storage_log::{Answer, Draft, Log, Stored};

use super::ConversationSide;
use super::delivering::{Delivery, Waiting};
use super::recent::{AHEAD_MAX, Known};
use super::refusing::OUTCOME_UNKNOWN;
use super::state::{Conversation, Plan, Refusal, plan};
use crate::mail::{Reply, Store};
use crate::places::conversation_stream;

impl ConversationSide {
    /// Stores a command, unless it was stored before or must not be.
    pub(super) fn store(&mut self, mut store: Box<Store>, now: UnixMillis, log: &mut Log, looked_up: bool) {
        let key = self.recent.key(store.conversation, &store.user, store.message_id);
        let head = log.head(conversation_stream(store.conversation, Kind::Messages)).seq;
        if store.idempotent && !looked_up {
            if let Some(known) = self.undurable.get(&key).copied() {
                return self.answer_again(&store, known, log);
            }
            let candidates = self.recent.candidates(key, head);
            if !candidates.is_empty() {
                return self.start_verify(store, &candidates, now, log);
            }
            match self.judge_age(store, now, log) {
                Some(new) => store = new,
                None => return,
            }
        }
        if let Some(target) = store.change.target() {
            return self.find_amended(store, target, now, log);
        }
        let next = (Seq(head + 1), UnixMillis(log.clock(now.0)));
        match plan(&self.places, &store, self.loaded(store.conversation), next) {
            Err(refusal) => self.refuse(store.asker, refusal),
            Ok(None) => {
                // What made it so may be under way.
                let position = self.slots[&store.conversation].position;
                self.done_when_durable(store.asker, position, log);
            }
            Ok(Some(plan)) => match self.judge_roster(&store, &plan) {
                Err(refusal) => self.refuse(store.asker, refusal),
                Ok(()) => _ = self.append(&store, plan, now, log),
            },
        }
    }

    fn judge_roster(&self, store: &Store, plan: &Plan) -> Result<(), Refusal> {
        plan.roster.as_ref().map_or(Ok(()), |roster| self.large.judge(store.conversation, roster))
    }

    /// Appends what was planned, or says why not. The position that it becomes durable with.
    pub(super) fn append(
        &mut self,
        store: &Store,
        mut plan: Plan,
        now: UnixMillis,
        log: &mut Log,
    ) -> Option<u64> {
        let head = log.head(conversation_stream(store.conversation, Kind::Messages)).seq;
        if let Some(after) = &mut plan.after {
            after.number = self.loaded(store.conversation).map_or(0, |before| before.number).max(head) + 1;
        }
        let refusal = match append(log, store.conversation, head, &plan, now) {
            Answer::Stored(stored) => {
                self.work_stored += plan.work();
                self.stored(store, plan, head + 1, stored);
                self.keep_positions_near(store.conversation, head + 1, log);
                return Some(stored.last_position);
            }
            Answer::Busy => (ErrorCode::Busy, "the disk is behind"),
            Answer::Full => (ErrorCode::StorageFull, "the disk is full"),
            Answer::Conflict { .. } => unreachable!("one writer, and the head was just asked for"),
            Answer::Unavailable => OUTCOME_UNKNOWN,
        };
        self.refuse(store.asker, refusal);
        None
    }

    /// An id that memory does not know: gives the command back if it is new, refuses one of the future, and has one that
    /// may have been forgotten looked up.
    pub(super) fn judge_age(
        &mut self,
        store: Box<Store>,
        now: UnixMillis,
        log: &mut Log,
    ) -> Option<Box<Store>> {
        let clock = log.clock(now.0);
        let claimed = store.message_id.unix_ms().0;
        if claimed > clock + AHEAD_MAX.as_millis() as u64 {
            let refusal = (
                ErrorCode::BadField,
                "`message_id` is ahead of the server's clock: see `now` of the `welcome`",
            );
            self.refuse(store.asker, refusal);
            return None;
        }
        if self.recent.may_have_forgotten(claimed, clock) {
            self.start_look_up(store, clock, log);
            return None;
        }
        Some(store)
    }

    fn stored(&mut self, store: &Store, plan: Plan, seq: u64, stored: Stored) {
        let key = self.recent.key(store.conversation, &store.user, store.message_id);
        let position = stored.last_position;
        let known = Known { seq, at: stored.at, position, content_hash: store.content_hash };
        self.recent.insert(key, seq, stored.at);
        self.undurable.insert(key, known);
        let reply = stored_reply(store, known, true, (seq == 1).then(|| store.user.clone()));
        let (asked_micros, location) = (store.asker.asked_micros, stored.location);
        let Plan { after, audience, hidden_from, messages, roster, .. } = plan;
        self.messages_stored += messages;
        let conversation = store.conversation;
        // What it was before counts as the command found it: that may be under way too, or not be read yet after a start.
        let was_all = || self.loaded(conversation).is_none_or(|before| before.kept().is_all());
        let kept = after.as_ref().map(Conversation::kept).filter(|kept| !kept.is_all() || !was_all());
        let amended = store.change.target().map(|target| (conversation, target));
        let delivery = Some(Delivery {
            key,
            asked_micros,
            location,
            audience,
            hidden_from,
            amended,
            conversation,
            messages,
            roster,
            kept,
        });
        self.waiting.push_back(Waiting { position, shard: store.asker.shard, reply, delivery });
        if let Some(after) = after {
            self.know(store.conversation, after);
            self.slots.get_mut(&store.conversation).expect("entered").position = position;
        }
    }

    /// The same command again: answered when what it stored is durable.
    pub(super) fn answer_again(&mut self, store: &Store, known: Known, log: &Log) {
        if known.content_hash != store.content_hash {
            let refusal = (ErrorCode::Conflict, "this message_id was used for other content");
            return self.refuse(store.asker, refusal);
        }
        let (shard, reply) = (store.asker.shard, stored_reply(store, known, false, None));
        if log.durable().covers(known.position) {
            self.outputs.push_back((shard, reply));
        } else if log.is_healthy() {
            let place = self.waiting.partition_point(|waiting| waiting.position <= known.position);
            self.waiting.insert(place, Waiting { position: known.position, shard, reply, delivery: None });
        } else {
            self.refuse(store.asker, OUTCOME_UNKNOWN);
        }
    }
}

fn append(log: &mut Log, conversation: ConversationId, head: u64, plan: &Plan, now: UnixMillis) -> Answer {
    let stream = conversation_stream(conversation, Kind::Messages);
    let (event, links) = (plan.event.payload(), plan.links(stream, head + 1));
    let event = Draft {
        stream,
        expected_head: head,
        messages: plan.messages,
        schema: plan.event.schema() as u16,
        payload: &event,
        links: &links,
    };
    let Some(after) = &plan.after else {
        return log.append(&[event], now.0);
    };
    let payload = after.body().payload();
    log.append(&[event, state_draft(conversation, after, &payload)], now.0)
}

/// The record of a state, under its number.
pub(super) fn state_draft<'p>(
    conversation: ConversationId,
    state: &Conversation,
    payload: &'p [u8],
) -> Draft<'p> {
    Draft {
        stream: conversation_stream(conversation, Kind::State),
        expected_head: state.number - 1,
        messages: 0,
        schema: Schema::State as u16,
        payload,
        links: &[],
    }
}

fn stored_reply(store: &Store, known: Known, is_new: bool, begun_by: Option<UserId>) -> Reply {
    Reply::Stored {
        asker: store.asker,
        conversation: store.conversation,
        seq: Seq(known.seq),
        message_id: store.message_id,
        at: UnixMillis(known.at),
        is_new,
        begun_by,
    }
}
