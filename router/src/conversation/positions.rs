//! How far the members of a conversation have read it.
//!
//! A `read` is answered at once and promises no durability. What is new of a conversation is written once a second, all of it in one
//! record, and only what is durable is told to others: so there are as many receipts as there are records, and a crash takes
//! none back.

use std::collections::{BTreeMap, VecDeque};

use protocol::event::ErrorCode;
use protocol::ids::{ConversationId, Seq, UnixMillis, UserId};
use protocol::limits::MEMBERS_MAX;
use protocol::record::{
    ArchivedPositionsV1, Body, Portable, PositionV1, PositionsV1, Stored, StoredBody, StreamKind as Kind,
};
use storage_log::{Answer, Draft, Log};

use super::fetch::Fetch;
use super::jobs::Purpose;
use super::state::Refusal;
use super::{ConversationSide, LOADED_MAX, Loaded};
use crate::mail::{Asker, Linked, Reply};
use crate::places::conversation_stream;

/// How long what is new waits for more of the same conversation, in microseconds: its viewers are told at most once a second.
const GATHER_MICROS: u64 = 1_000_000;

/// Conversations in which something was read that is not written yet: they cannot be forgotten meanwhile, and while the disk is full
/// they only become more. Half of what is kept loaded.
const GATHERED_MAX: usize = LOADED_MAX / 2;

const BUSY: Refusal = (ErrorCode::Busy, "what was read elsewhere is being written");
const NOT_YET: Refusal = (ErrorCode::BadField, "seq is beyond the newest message");
const TOO_EARLY: Refusal = (ErrorCode::BadField, "seq is before the first message that you may read");

#[derive(Clone, Copy, Default)]
struct Position {
    read: Seq,
    /// The same, as it is on disk.
    durable: Seq,
    delivered: Seq,
}

/// Positions of the members of one conversation.
#[derive(Default)]
pub(super) struct Positions {
    by_user: BTreeMap<UserId, Position>,
    /// Number of the newest record.
    number: u64,
    ext: Vec<u8>,
    /// Something is newer than the newest record: it is due, or waits for its time.
    is_new: bool,
    /// Records that are not durable.
    under_way: u32,
}

/// What is to be written when, and what waits to be durable.
#[derive(Default)]
pub(super) struct Gathering {
    /// Those that are new since the last turn, which said the time.
    fresh: Vec<ConversationId>,
    /// Until when they wait, in microseconds; in this order, so that a turn in which none is due looks at one.
    due: VecDeque<(u64, ConversationId)>,
    written: VecDeque<Written>,
}

/// A record that is not durable yet.
struct Written {
    position: u64,
    conversation: ConversationId,
    /// Who has read further than the record before said.
    new: Vec<(UserId, Seq)>,
}

impl Gathering {
    /// Whether something has to be written, or to become durable.
    pub(super) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.due.is_empty() && self.written.is_empty()
    }
}

impl Positions {
    fn read(stored: &ArchivedPositionsV1, number: u64) -> Self {
        let entries = stored.positions.iter().filter_map(|position| {
            let user = UserId::new(std::str::from_utf8(&position.user).ok()?).ok()?;
            let read = Seq(position.read.to_native());
            let delivered = Seq(position.delivered.to_native());
            Some((user, Position { read, durable: read, delivered }))
        });
        let (by_user, ext) = (entries.collect(), stored.ext.to_vec());
        Self { by_user, number, ext, is_new: false, under_way: 0 }
    }

    fn body(&self) -> Body {
        let position = |(user, position): (&UserId, &Position)| PositionV1 {
            user: user.as_bytes().to_vec(),
            read: position.read.0,
            delivered: position.delivered.0,
        };
        Body::Positions(PositionsV1 {
            positions: self.by_user.iter().map(position).collect(),
            ext: self.ext.clone(),
        })
    }

    /// How far everybody has read, as it is on disk.
    pub(super) fn durable(&self) -> BTreeMap<UserId, Seq> {
        let read = self.by_user.iter().filter(|(_, position)| position.durable > Seq(0));
        read.map(|(user, position)| (user.clone(), position.durable)).collect()
    }

    /// Whether memory is ahead of the disk.
    pub(super) fn is_settled(&self) -> bool {
        !self.is_new && self.under_way == 0
    }
}

impl ConversationSide {
    /// Reads the positions of a conversation, which is busy until then.
    pub(super) fn start_positions(&mut self, conversation: ConversationId, log: &mut Log) {
        let stream = conversation_stream(conversation, Kind::Positions);
        let slot = self.slots.get_mut(&conversation).expect("entered");
        match log.last(stream) {
            None => {
                slot.positions = Some(Box::default());
                self.resumed.push_back(conversation);
            }
            Some(location) => {
                slot.busy = true;
                let fetch = Fetch::of_last(log, stream, location);
                self.run_for(Purpose::Positions { conversation }, fetch, log);
            }
        }
    }

    /// What cannot be read is begun anew: a position that is lost moves forward again with the next `read`.
    pub(super) fn finish_positions(&mut self, conversation: ConversationId, records: &[Linked]) {
        let read = records.first().and_then(|linked| {
            let bytes = linked.record.as_ref()?;
            let portable = Portable::parse(bytes).ok()?;
            match Stored::with_checked_sum(portable, bytes).ok()?.body {
                StoredBody::Positions(positions) => Some(Positions::read(positions, portable.seq.0)),
                _ => None,
            }
        });
        let number = records.first().map_or(0, |linked| linked.seq.0);
        let positions = read.unwrap_or_else(|| Positions { number, ..Positions::default() });
        let slot = self.slots.get_mut(&conversation).expect("a busy conversation is kept");
        slot.busy = false;
        slot.positions = Some(Box::new(positions));
        self.resumed.push_back(conversation);
    }

    /// They cannot be read now: what waits for them is told, and who asks next has them read again.
    pub(super) fn give_up_positions(&mut self, conversation: ConversationId, refusal: Refusal) {
        let slot = self.slots.get_mut(&conversation).expect("a busy conversation is kept");
        slot.busy = false;
        for request in std::mem::take(&mut slot.pending) {
            self.refuse_request(&request, refusal);
        }
    }

    /// A member has read up to a sequence.
    pub(super) fn read_up_to(
        &mut self,
        asker: Asker,
        user: &UserId,
        conversation: ConversationId,
        seq: Seq,
        log: &Log,
    ) {
        match self.judge_read(user, conversation, seq, log) {
            Err(refusal) => self.refuse(asker, refusal),
            Ok(()) => {
                self.note_read(user, conversation, seq);
                self.outputs.push_back((asker.shard, Reply::Done { asker }));
            }
        }
    }

    fn judge_read(
        &self,
        user: &UserId,
        conversation: ConversationId,
        seq: Seq,
        log: &Log,
    ) -> Result<(), Refusal> {
        let state = self.loaded(conversation).ok_or(super::state::NOT_FOUND)?;
        let member = state.member(user).ok_or(super::state::NOT_A_MEMBER)?;
        let head = log.durable_head(conversation_stream(conversation, Kind::Messages)).seq;
        match seq {
            _ if self.gathering.due.len() >= GATHERED_MAX => Err(BUSY),
            Seq(seq) if seq > head => Err(NOT_YET),
            seq if seq < member.visible_from => Err(TOO_EARLY),
            _ => Ok(()),
        }
    }

    fn note_read(&mut self, user: &UserId, conversation: ConversationId, seq: Seq) {
        let slot = self.slots.get_mut(&conversation).expect("entered");
        let positions = slot.positions.as_mut().expect("it was read before");
        let position = positions.by_user.entry(user.clone()).or_default();
        if seq <= position.read {
            return;
        }
        position.read = seq;
        if !std::mem::replace(&mut positions.is_new, true) {
            self.gathering.fresh.push(conversation);
        }
    }

    /// Writes the positions that have waited long enough; all of them, where the node goes away: but those that a full disk does
    /// not take are given up then, since nobody was promised them and the node has to end.
    pub fn write_positions(&mut self, micros: u64, now: UnixMillis, all: bool, log: &mut Log) {
        let next = micros + GATHER_MICROS;
        let Gathering { fresh, due, .. } = &mut self.gathering;
        due.extend(fresh.drain(..).map(|conversation| (next, conversation)));
        for _ in 0..due.len() {
            let is_due = |due: &&(u64, ConversationId)| all || due.0 <= micros;
            let Some((_, conversation)) = self.gathering.due.front().filter(is_due).copied() else { return };
            self.gathering.due.pop_front();
            match self.append_positions(conversation, now, log) {
                Answer::Stored(_) => {}
                Answer::Full if all => self.give_up_new(conversation),
                _ if log.is_healthy() => {
                    self.gathering.due.push_back((next, conversation));
                }
                _ => {}
            }
        }
    }

    fn give_up_new(&mut self, conversation: ConversationId) {
        let slot = self.slots.get_mut(&conversation).expect("kept while it has something to write");
        slot.positions.as_mut().expect("likewise").is_new = false;
    }

    fn append_positions(&mut self, conversation: ConversationId, now: UnixMillis, log: &mut Log) -> Answer {
        let slot = self.slots.get_mut(&conversation).expect("kept while it has something to write");
        let positions = slot.positions.as_mut().expect("likewise");
        // Who leaves and comes back has read what was read; but they are not kept for ever.
        if positions.by_user.len() > MEMBERS_MAX
            && let Loaded::Yes(state) = &slot.state
        {
            positions.by_user.retain(|user, _| state.member(user).is_some());
        }
        let body = positions.body();
        let draft = Draft {
            stream: conversation_stream(conversation, Kind::Positions),
            expected_head: positions.number,
            messages: 0,
            schema: body.schema() as u16,
            payload: &body.payload(),
            links: &[],
        };
        let answer = log.append(&[draft], now.0);
        let Answer::Stored(stored) = answer else { return answer };
        (positions.number, positions.is_new) = (positions.number + 1, false);
        positions.under_way += 1;
        let new = positions.by_user.iter().filter(|(_, position)| position.read > position.durable);
        let new = new.map(|(user, position)| (user.clone(), position.read)).collect();
        self.gathering.written.push_back(Written { position: stored.last_position, conversation, new });
        answer
    }

    /// Tells what has become durable.
    pub(super) fn tell_receipts(&mut self, covers: impl Fn(u64) -> bool) {
        while self.gathering.written.front().is_some_and(|written| covers(written.position)) {
            let Written { conversation, new, .. } = self.gathering.written.pop_front().expect("looked at");
            let slot = self.slots.get_mut(&conversation).expect("kept while it has something to write");
            let positions = slot.positions.as_mut().expect("likewise");
            positions.under_way -= 1;
            for (user, read) in new {
                let Some(position) =
                    positions.by_user.get_mut(&user).filter(|position| position.durable < read)
                else {
                    continue;
                };
                position.durable = read;
                self.viewers.note_read(conversation, &user, read);
            }
        }
    }
}
