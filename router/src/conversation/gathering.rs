//! Writing positions: what is new of a conversation once a second, all of it in one record; where nobody has read and nobody looks, less
//! often.
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

use super::positions::{Due, New};
use super::slots::Slot;
use super::{ConversationSide, LOADED_MAX, LOADED_MEMBERS_MAX, Loaded};
use crate::places::conversation_stream;

/// How long what is new waits for more of the same conversation, in microseconds: its viewers are told at most once a second.
const GATHER_MICROS: u64 = 1_000_000;

/// Conversations that wait for longer because nobody looks ([`Places::delivered_wait`](crate::places::Places::delivered_wait)), and members of
/// all of them; beyond that the oldest is due. They cannot be forgotten meanwhile: a quarter of what is kept loaded.
const LATER_MAX: usize = LOADED_MAX / 4;
const LATER_MEMBERS_MAX: usize = LOADED_MEMBERS_MAX / 4;

/// Conversations in which something was read that is not written yet: they cannot be forgotten meanwhile, and while the disk is full
/// they only become more. Half of what is kept loaded.
const GATHERED_MAX: usize = LOADED_MAX / 2;

/// How soon what is new is to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// Now: the node stands still, and another process may go on.
    AtOnce,
    /// The node goes away: nothing waits because nobody looks, and what a full disk does not take is given up.
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
    /// Likewise, for those that can wait longer, since the last turn and before. What has become urgent meanwhile, or was written, is in it
    /// until its time, and says nothing then.
    fresh_later: Vec<ConversationId>,
    later: VecDeque<Later>,
    /// Members of those in `later`.
    later_members: usize,
    written: VecDeque<Written>,
    /// Those that were given up because the node was about to go away: it may go on. At most [`GATHERED_MAX`].
    given_up: Vec<ConversationId>,
}

/// Of which conversation it is to be written at last, and how many it had been for then.
struct Later {
    until: u64,
    conversation: ConversationId,
    members: usize,
    /// The newest record of positions then: if there is a newer one, all that has waited is in it, and what is new waits for its own time.
    number: u64,
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
        let is_waiting = !self.fresh.is_empty() || !self.due.is_empty();
        !is_waiting && self.fresh_later.is_empty() && self.later.is_empty() && self.written.is_empty()
    }

    /// Whether it takes no more conversations.
    pub(super) fn is_full(&self) -> bool {
        self.due.len() >= GATHERED_MAX
    }

    /// The positions of a conversation are new, and nothing waited there as urgently before.
    pub(super) fn add(&mut self, conversation: ConversationId, due: Due) {
        match due {
            Due::Soon => self.fresh.push(conversation),
            Due::Later => self.fresh_later.push(conversation),
            Due::Never => {}
        }
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
        self.end_waiting(micros, pace);
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
                    self.gathering.due.push_back((next, conversation));
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

    /// Those that have waited as long as they can are due.
    fn end_waiting(&mut self, micros: u64, pace: Pace) {
        let until = micros + self.places.delivered_wait.as_micros() as u64;
        let mut fresh = std::mem::take(&mut self.gathering.fresh_later);
        for conversation in fresh.drain(..) {
            let slot = self.slots.get(&conversation);
            let members = slot.map_or(0, |slot| slot.state.members_count());
            let number = slot.and_then(Slot::positions_number).unwrap_or(0);
            self.gathering.later_members += members;
            self.gathering.later.push_back(Later { until, conversation, members, number });
        }
        // With the room that it has.
        self.gathering.fresh_later = fresh;
        while let Gathering { later, later_members, .. } = &mut self.gathering
            && let Some(&Later { until, conversation, members, number }) = later.front()
            && (pace != Pace::Usual
                || until <= micros
                || later.len() > LATER_MAX
                || *later_members > LATER_MEMBERS_MAX)
        {
            later.pop_front();
            *later_members -= members;
            let is_newest = self.slots.get(&conversation).and_then(Slot::positions_number) == Some(number);
            if is_newest && self.is_hastened(conversation) {
                self.gathering.due.push_front((micros, conversation));
            }
        }
    }

    /// What waits to be written of a conversation is wanted soon.
    pub(super) fn hasten(&mut self, conversation: ConversationId) {
        if self.is_hastened(conversation) {
            self.gathering.add(conversation, Due::Soon);
        }
    }

    /// Whether what waits can wait no longer, and could before. What was written meanwhile may even be forgotten.
    fn is_hastened(&mut self, conversation: ConversationId) -> bool {
        let slot = self.slots.get_mut(&conversation);
        let positions = slot.and_then(|slot| slot.positions.as_mut());
        positions.is_some_and(|positions| positions.due() == Due::Later && positions.renew(Due::Soon))
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
            if positions.is_some_and(|positions| positions.renew(Due::Soon)) {
                self.gathering.add(conversation, Due::Soon);
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
