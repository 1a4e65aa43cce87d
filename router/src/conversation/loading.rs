//! Loading a conversation: its state, from the newest record of it.
//!
//! What comes for the conversation waits meanwhile (`slots`). A state that cannot be read is no verdict on the conversation: those who
//! wait are told so, and who asks next has it read again.

use protocol::event::ErrorCode;
use protocol::ids::ConversationId;
use protocol::record::{Portable, Stored, StoredBody, StreamKind as Kind};
use storage_log::Log;

use super::ConversationSide;
use super::fetch::Fetch;
use super::jobs::Purpose;
use super::large::Roster;
use super::slots::Loaded;
use super::state::Conversation;
use crate::mail::Linked;
use crate::places::{Places, conversation_stream};

impl ConversationSide {
    pub(super) fn start_load(&mut self, conversation: ConversationId, log: &mut Log) {
        let stream = conversation_stream(conversation, Kind::State);
        let slot = self.slots.get_mut(&conversation).expect("entered");
        match log.last(stream) {
            None => {
                slot.state = Loaded::Absent;
                self.resumed.push_back(conversation);
            }
            Some(location) => {
                slot.busy = true;
                let fetch = Fetch::of_last(log, stream, location);
                self.run_for(Purpose::Load { conversation }, fetch, log);
            }
        }
    }

    pub(super) fn finish_load(&mut self, conversation: ConversationId, records: &[Linked], log: &Log) {
        let state = state_of(&self.places, records);
        if let Some(state) = &state
            && self.large.misses(conversation)
        {
            let roster = Some(Roster::of(&self.places, state));
            self.large.load(conversation, roster, log.durable().position());
        }
        if let Some(state) = &state
            && self.fronts.misses(conversation)
        {
            self.fronts.set(conversation, state.kept(), false);
        }
        self.slots.get_mut(&conversation).expect("a busy conversation is kept").busy = false;
        if let (Some(state), Some(record)) = (state, records.first()) {
            self.know(conversation, state);
            self.slots.get_mut(&conversation).expect("it is kept").position = record.position;
            return self.resumed.push_back(conversation);
        }
        let slot = self.slots.get_mut(&conversation).expect("a busy conversation is kept");
        // One failed read is no verdict: what waits is told, and who asks next has it read again.
        for entrant in std::mem::take(&mut slot.pending) {
            let refusal = (ErrorCode::Unavailable, "this conversation's state cannot be read from the disk");
            self.refuse_entrant(conversation, &entrant, refusal);
        }
    }
}

/// The state that was read, if it could be.
pub(super) fn state_of(places: &Places, records: &[Linked]) -> Option<Conversation> {
    let bytes = records.first()?.record.as_ref()?;
    let stored = Stored::with_checked_sum(Portable::parse(bytes).ok()?, bytes).ok()?;
    let StoredBody::State(state) = stored.body else {
        return None;
    };
    let number = stored.portable.seq.0;
    Some(Conversation { number, ..Conversation::read(places, state)? })
}
