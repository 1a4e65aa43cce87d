//! Reading: `read` itself, and the positions of a conversation from the disk and from its own records.
//!
//! Positions are read when somebody asks for them, and when a message takes a sequence that is a multiple of
//! [`FOLDED_PER_RECORD`]: so wherever messages come, a record of positions is at most about so many sequences behind, and reading them
//! again costs that record and a page. From then on they are kept up to date as records become durable; a conversation whose
//! positions are not in memory pays nothing for its messages but that comparison.

use protocol::event::ErrorCode;
use protocol::ids::{ConversationId, Seq, UserId};
use protocol::limits::PAGE_BYTES_MAX;
use protocol::record::{
    Portable, SCHEMA_ERASED, SCHEMA_GONE, Schema, Stored, StoredBody, StreamKind as Kind,
};
use storage_log::{Log, Lookup, Page};

use super::fetch::Fetch;
use super::jobs::{PAGE, Purpose};
use super::positions::{FOLDED_PER_RECORD, Positions};
use super::slots::Entrant;
use super::state::{Conversation, Refusal};
use super::{ConversationSide, Loaded};
use crate::mail::{Asker, Linked, ReadState, Reply};
use crate::places::conversation_stream;

/// Records that are read to learn how many messages there are up to the first of them: the others stand in for it where it is damaged.
const COUNTED: Page = Page { items_max: 8, bytes_max: PAGE_BYTES_MAX };

const BUSY: Refusal = (ErrorCode::Busy, "what was read elsewhere is being written");
const NOT_YET: Refusal = (ErrorCode::BadField, "`seq` is beyond the newest message");
const TOO_EARLY: Refusal = (ErrorCode::BadField, "`seq` is before the first message that you may read");

impl ConversationSide {
    /// A record of a conversation was stored that takes `seq`: now and then its positions are read, so that they are written.
    pub(super) fn keep_positions_near(&mut self, conversation: ConversationId, seq: u64, log: &mut Log) {
        let is_unread = || self.slots[&conversation].positions.is_none();
        if seq.is_multiple_of(FOLDED_PER_RECORD) && is_unread() {
            self.start_positions(conversation, log);
        }
    }

    /// Reads the positions of a conversation, which is busy until then.
    pub(super) fn start_positions(&mut self, conversation: ConversationId, log: &mut Log) {
        let stream = conversation_stream(conversation, Kind::Positions);
        let slot = self.slots.get_mut(&conversation).expect("entered");
        slot.busy = true;
        match log.last(stream) {
            None => self.begin_folding(conversation, Positions::default()),
            Some(location) => {
                let fetch = Fetch::of_last(log, stream, location);
                self.run_for(Purpose::Positions { conversation }, fetch, log);
            }
        }
    }

    /// What cannot be read is begun anew: a position that is lost moves forward again with the next `read`, message or join.
    pub(super) fn finish_positions(&mut self, conversation: ConversationId, records: &[Linked]) {
        let members = self.loaded(conversation).map_or(&[][..], Conversation::members);
        let read = records.first().and_then(|linked| {
            let bytes = linked.record.as_ref()?;
            let portable = Portable::parse(bytes).ok()?;
            match Stored::with_checked_sum(portable, bytes).ok()?.body {
                StoredBody::Positions(positions) => Some(Positions::read(positions, portable.seq.0, members)),
                _ => None,
            }
        });
        let number = records.first().map_or(0, |linked| linked.seq.0);
        self.begin_folding(conversation, read.unwrap_or_else(|| Positions::unknown(number)));
    }

    fn begin_folding(&mut self, conversation: ConversationId, positions: Positions) {
        let slot = self.slots.get_mut(&conversation).expect("a busy conversation is kept");
        slot.positions = Some(Box::new(positions));
        self.unfolded.push_back(conversation);
    }

    /// Folds in the next page of what positions that were read do not hold yet; after the last one the conversation goes on.
    pub(super) fn go_on_folding(&mut self, conversation: ConversationId, log: &mut Log) {
        let stream = conversation_stream(conversation, Kind::Messages);
        let head = self.durable_head(conversation, log);
        let slot = self.slots.get_mut(&conversation).expect("a busy conversation is kept");
        let positions = slot.positions.as_mut().expect("folding was begun");
        let (folded_to, _) = positions.folded();
        if folded_to.0 < head.seq {
            positions.skip_below(Seq(head.seq));
            let (folded_to, _) = positions.folded();
            let lookup = Lookup::after(log, stream, folded_to.0, PAGE);
            let purpose = Purpose::Fold { conversation, until: Seq(head.seq) };
            return self.start(purpose, vec![lookup], log);
        }
        positions.complete(Seq(head.seq), head.message_count);
        self.renew_if_far(conversation);
        self.release(conversation);
    }

    pub(super) fn finish_fold(&mut self, conversation: ConversationId, until: Seq, records: &[Linked]) {
        let slot = self.slots.get_mut(&conversation).expect("a busy conversation is kept");
        let positions = slot.positions.as_mut().expect("folding was begun");
        records.iter().for_each(|linked| positions.fold(linked.seq, linked.record.as_deref()));
        if records.is_empty() {
            positions.end_at(until, 0);
        }
        if let Loaded::Yes(state) = &slot.state {
            positions.trim(state);
        }
        self.unfolded.push_back(conversation);
    }

    /// They cannot be read now: who waits for them is told, and who asks next has them read again.
    pub(super) fn give_up_positions(&mut self, conversation: ConversationId, refusal: Refusal) {
        self.slots.get_mut(&conversation).expect("a busy conversation is kept").positions = None;
        self.release_without(conversation, Entrant::needs_positions, refusal);
    }

    /// A record of a conversation became durable.
    pub(super) fn fold_durable(&mut self, conversation: ConversationId, seq: u64, record: &[u8]) {
        let slot = self.slots.get_mut(&conversation);
        let positions = slot.and_then(|slot| slot.positions.as_mut());
        // While they are being read, what became durable meanwhile is read too.
        let Some(positions) = positions.filter(|positions| positions.folded().0.0 + 1 == seq) else {
            return;
        };
        positions.fold(Seq(seq), Some(record));
        if positions.wants_record() {
            self.renew_if_far(conversation);
        }
    }

    fn renew_if_far(&mut self, conversation: ConversationId) {
        let slot = self.slots.get_mut(&conversation).expect("entered");
        let positions = slot.positions.as_mut().expect("they were read");
        if positions.wants_record() && !self.gathering.is_full() && positions.renew() {
            self.gathering.add(conversation);
        }
    }

    /// A member has read up to a sequence.
    pub(super) fn read_up_to(
        &mut self,
        asker: Asker,
        user: UserId,
        conversation: ConversationId,
        seq: Seq,
        log: &mut Log,
    ) {
        if let Err(refusal) = self.judge_read(&user, conversation, seq, log) {
            return self.refuse(asker, refusal);
        }
        let slot = self.slots.get_mut(&conversation).expect("entered");
        let positions = slot.positions.as_ref().expect("they were read before");
        let (read, read_count) = positions.of(&user);
        let (head, message_count) = positions.folded();
        if seq <= read || seq == head {
            let count = if seq == head { message_count } else { read_count };
            return self.note_read(asker, &user, conversation, seq, count);
        }
        slot.busy = true;
        let stream = conversation_stream(conversation, Kind::Messages);
        let lookup = Lookup::after(log, stream, seq.0 - 1, COUNTED);
        self.start(Purpose::Count { asker, user, conversation, seq }, vec![lookup], log);
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
            _ if self.gathering.is_full() => Err(BUSY),
            Seq(seq) if seq > head => Err(NOT_YET),
            seq if seq < member.visible_from => Err(TOO_EARLY),
            _ => Ok(()),
        }
    }

    /// The records from `seq` on say how many messages there are up to it.
    pub(super) fn finish_count(
        &mut self,
        asker: Asker,
        user: &UserId,
        conversation: ConversationId,
        seq: Seq,
        records: &[Linked],
    ) {
        let slot = &self.slots[&conversation];
        let head = slot.positions.as_ref().expect("they were read before").folded();
        self.note_read(asker, user, conversation, seq, count_at(seq, records, head));
        self.release(conversation);
    }

    pub(super) fn give_up_count(&mut self, asker: Asker, conversation: ConversationId, refusal: Refusal) {
        self.release(conversation);
        self.refuse(asker, refusal);
    }

    fn note_read(
        &mut self,
        asker: Asker,
        user: &UserId,
        conversation: ConversationId,
        seq: Seq,
        message_count: u64,
    ) {
        let slot = self.slots.get_mut(&conversation).expect("entered");
        let positions = slot.positions.as_mut().expect("they were read before");
        if positions.note_read(user, seq, message_count) {
            self.gathering.add(conversation);
        }
        self.outputs.push_back((asker.shard, Reply::Done { asker }));
    }

    /// How far a user has read a conversation, if its positions are in memory and whole, and it is known where what is kept of it begins.
    pub(super) fn read_state(
        &self,
        user: &UserId,
        conversation: ConversationId,
        log: &Log,
    ) -> Option<ReadState> {
        let positions = self.slots.get(&conversation)?.positions.as_ref();
        // Whatever else the conversation is busy with: one that always is would never be known.
        let positions = positions.filter(|positions| positions.is_whole())?;
        let ((head, message_count), (read, read_count)) = (positions.folded(), positions.of(user));
        // What is not kept is not unread.
        let read_count = read_count.max(self.begin_of(conversation, log)?.messages);
        Some(ReadState { conversation, head, message_count, read, read_count })
    }
}

/// Messages up to and including `seq`, from what was read of the records from there on; `head` is the newest, and the messages up to
/// that. Where the record itself cannot be read or is not kept any more, all that stand between it and the next one that can be are
/// held to be messages: too few are read then, never too many.
fn count_at(seq: Seq, records: &[Linked], head: (Seq, u64)) -> u64 {
    let portable = |linked: &Linked| Portable::parse(linked.record.as_ref()?).ok();
    let next = records.iter().find_map(|linked| Some((linked.seq, portable(linked)?)));
    let may_count =
        |schema| schema == Schema::Message as u16 || [SCHEMA_ERASED, SCHEMA_GONE].contains(&schema);
    let (at, before) = match next {
        Some((at, portable)) if at <= seq => return portable.message_count,
        Some((at, portable)) => (at, portable.message_count - u64::from(may_count(portable.schema))),
        None => (head.0, head.1.saturating_sub(1)),
    };
    before.saturating_sub(at.0 - 1 - seq.0)
}
