//! Writing positions: what is new of a conversation once a second, all of it in one record.
//!
//! A `read` is answered at once and promises no durability. Only what is durable is told to others: so there are as many receipts as
//! there are records, and a crash takes none back.
//!
//! Invariant: a record of a conversation is appended a second after the one before it at the earliest, and when that is durable; but once, as the
//! node stands still. So of one user in one conversation there are at most two receipts a second, and one where the disk keeps up.

use std::collections::VecDeque;

use protocol::ids::{ConversationId, UnixMillis};
use protocol::record::StreamKind as Kind;
use storage_log::{Answer, Draft, Log};

use super::positions::New;
use super::{ConversationSide, LOADED_MAX, Loaded};
use crate::places::conversation_stream;

/// How long what is new waits for more of the same conversation, in microseconds: its viewers are told at most once a second.
const GATHER_MICROS: u64 = 1_000_000;

/// Conversations in which something was read that is not written yet: they cannot be forgotten meanwhile, and while the disk is full
/// they only become more. Half of what is kept loaded.
const GATHERED_MAX: usize = LOADED_MAX / 2;

/// How soon what is new is to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// Now: the node stands still, and another process may go on.
    AtOnce,
    /// The node goes away: what a full disk does not take is given up.
    Leaving,
    /// Once more of it has come.
    Usual,
}

/// What is to be written when, and what waits to be durable.
#[derive(Default)]
pub(super) struct Gathering {
    /// Those that are new since the last turn, which said the time.
    fresh: Vec<ConversationId>,
    /// Until when they wait, in microseconds; in this order, so that a turn in which none is due looks at one.
    due: VecDeque<(u64, ConversationId)>,
    written: VecDeque<Written>,
    /// Those that were given up because the node was about to go away: it may go on. At most [`GATHERED_MAX`].
    given_up: Vec<ConversationId>,
}

/// A record that is not durable yet.
struct Written {
    position: u64,
    conversation: ConversationId,
    /// Who has read further than the record before said.
    new: Vec<New>,
}

impl Gathering {
    /// Whether something has to be written, or to become durable.
    pub(super) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.due.is_empty() && self.written.is_empty()
    }

    /// Whether it takes no more conversations.
    pub(super) fn is_full(&self) -> bool {
        self.due.len() >= GATHERED_MAX
    }

    /// The positions of a conversation are new, and nothing waited there before.
    pub(super) fn add(&mut self, conversation: ConversationId) {
        self.fresh.push(conversation);
    }
}

impl ConversationSide {
    /// Writes the positions that have waited long enough. What a full disk does not take is given up where the node goes away, since nobody was
    /// promised it and the node has to end.
    pub fn write_positions(&mut self, micros: u64, now: UnixMillis, pace: Pace, log: &mut Log) {
        let (next, now) = (micros + GATHER_MICROS, self.latest(now));
        if pace == Pace::Usual && !self.gathering.given_up.is_empty() {
            self.take_up_again();
        }
        self.write_sightings(now, log);
        self.go_on_finding(now, log);
        self.keep_taken(micros, now, pace, log);
        let Gathering { fresh, due, .. } = &mut self.gathering;
        due.extend(fresh.drain(..).map(|conversation| (next, conversation)));
        for _ in 0..due.len() {
            let is_due = |due: &&(u64, ConversationId)| pace == Pace::AtOnce || due.0 <= micros;
            let Some((_, conversation)) = self.gathering.due.front().filter(is_due).copied() else { return };
            self.gathering.due.pop_front();
            if pace != Pace::AtOnce && log.is_healthy() && self.rests(conversation, micros) {
                self.gathering.due.push_back((next, conversation));
                continue;
            }
            match self.append_positions(conversation, micros, now, log) {
                Answer::Stored(_) => {}
                Answer::Full if pace != Pace::Usual => self.give_up_new(conversation),
                _ if log.is_healthy() => {
                    // The others would not be taken either, and be made in vain.
                    self.gathering.due.push_front((next, conversation));
                    return;
                }
                _ => {}
            }
        }
    }

    /// Whether a conversation was written a moment ago, or that is still under way.
    fn rests(&self, conversation: ConversationId, micros: u64) -> bool {
        let slot = &self.slots[&conversation];
        slot.positions.as_ref().expect("kept while it has something to write").rests(micros)
    }

    fn give_up_new(&mut self, conversation: ConversationId) {
        let slot = self.slots.get_mut(&conversation).expect("kept while it has something to write");
        slot.positions.as_mut().expect("likewise").give_up_new();
        // A drain gives up whatever is read meanwhile, and never takes it up again.
        if self.gathering.given_up.len() < GATHERED_MAX {
            self.gathering.given_up.push(conversation);
        }
    }

    /// The node did not go away: what has been read is to be written still, or nobody would be told, and it went back as soon as the conversation is
    /// forgotten.
    fn take_up_again(&mut self) {
        for conversation in std::mem::take(&mut self.gathering.given_up) {
            let positions = self.slots.get_mut(&conversation).and_then(|slot| slot.positions.as_mut());
            if positions.is_some_and(|positions| positions.renew()) {
                self.gathering.add(conversation);
            }
        }
    }

    fn append_positions(
        &mut self,
        conversation: ConversationId,
        micros: u64,
        now: UnixMillis,
        log: &mut Log,
    ) -> Answer {
        let slot = self.slots.get_mut(&conversation).expect("kept while it has something to write");
        let positions = slot.positions.as_mut().expect("likewise");
        if let Loaded::Yes(state) = &slot.state {
            positions.trim(state);
        }
        let body = positions.body();
        let draft = Draft {
            stream: conversation_stream(conversation, Kind::Positions),
            expected_head: positions.number(),
            messages: 0,
            schema: body.schema() as u16,
            payload: &body.payload(),
            links: &[],
        };
        let answer = log.append(&[draft], now.0);
        let Answer::Stored(stored) = answer else { return answer };
        positions.note_appended(micros + GATHER_MICROS);
        let (position, new) = (stored.last_position, positions.new_receipts());
        self.gathering.written.push_back(Written { position, conversation, new });
        answer
    }

    /// Tells what has become durable.
    pub(super) fn tell_receipts(&mut self, covers: impl Fn(u64) -> bool) {
        while self.gathering.written.front().is_some_and(|written| covers(written.position)) {
            let Written { conversation, new, .. } = self.gathering.written.pop_front().expect("looked at");
            let slot = self.slots.get_mut(&conversation).expect("kept while it has something to write");
            let positions = slot.positions.as_mut().expect("likewise");
            positions.note_record_durable();
            for new in new {
                if let Some((reached, has_read)) = positions.note_durable(&new) {
                    self.viewers.note_reached(conversation, &new.user, reached, has_read);
                }
            }
        }
    }
}
