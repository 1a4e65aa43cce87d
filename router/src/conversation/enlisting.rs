//! Reading which groups are large, and of which conversations it is set how much is kept, once after a start: before that no page that shows
//! messages can be answered.

use protocol::ids::ConversationId;
use protocol::record::StreamKind as Kind;
use storage_log::{Log, Lookup};

use super::fetch::Fetch;
use super::jobs::{PAGE, Purpose};
use super::large::Roster;
use super::loading::state_of;
use super::state::Conversation;
use super::{ConversationSide, Loaded};
use crate::mail::Linked;
use crate::places::conversation_stream;

/// Lists that a start reads, one after the other.
const LISTS: usize = 2;

impl ConversationSide {
    /// Begins with the first request: so early everything in the log is durable.
    pub(super) fn begin_enlisting(&mut self, log: &mut Log) {
        if self.large.loading.as_mut().is_some_and(|loading| !std::mem::replace(&mut loading.begun, true)) {
            self.read_enlisted(0, log);
        }
    }

    /// Reads on in the list of groups that may be large, and then in that of conversations of which it may be set how much is kept.
    fn read_enlisted(&mut self, after: u64, log: &mut Log) {
        let loading = self.large.loading.as_ref().expect("not ended");
        let lists = [self.places.large_groups_stream(), self.places.retention_stream()];
        let lookup = Lookup::after(log, lists[loading.lists_ended], after, PAGE);
        self.start(Purpose::Enlisted, vec![lookup], log);
    }

    /// A page of groups that grew large or stopped being so, or of conversations of which something was set: what they are now is in their
    /// states.
    pub(super) fn finish_list(&mut self, records: &[Linked], more: bool, log: &mut Log) {
        let loading = self.large.loading.as_mut().expect("only then they are listed");
        loading.list_after = records.last().filter(|_| more).map(|last| last.position);
        // Held until all are asked for: one that is in memory ends at once.
        loading.states += 1;
        for linked in records {
            self.read_enlisted_state(linked.conversation, log);
        }
        self.end_roster(log);
    }

    fn read_enlisted_state(&mut self, conversation: ConversationId, log: &mut Log) {
        if !self.large.loading.as_mut().expect("not ended").asked.insert(conversation) {
            return;
        }
        // What is being changed comes when it is durable.
        let is_changing = |place| !log.durable().covers(place);
        if let Some(slot) = self.slots.get(&conversation).filter(|slot| is_changing(slot.position)) {
            // A block comes by itself, and changes nothing of what is kept.
            let mut coming = self.waiting.iter().filter_map(|waiting| waiting.delivery.as_ref());
            let is_kept_coming = coming.any(|of| of.conversation == conversation && of.kept.is_some());
            if let (false, Loaded::Yes(state)) = (is_kept_coming, &slot.state) {
                self.fronts.load(conversation, Some(state.kept()));
            }
            return;
        }
        let stream = conversation_stream(conversation, Kind::State);
        if let Some(location) = log.last(stream) {
            self.large.loading.as_mut().expect("not ended").states += 1;
            let fetch = Fetch::of_last(log, stream, location);
            self.run_for(Purpose::Enlist { conversation }, fetch, log);
        }
    }

    pub(super) fn finish_enlist(&mut self, conversation: ConversationId, records: &[Linked], log: &mut Log) {
        let state = state_of(&self.places, records);
        self.fronts.load(conversation, state.as_ref().map(Conversation::kept));
        let roster = state.map(|state| Roster::of(&self.places, &state));
        self.large.load(conversation, roster, log.durable().position());
        self.end_roster(log);
    }

    /// One of those that the list waits for has come.
    fn end_roster(&mut self, log: &mut Log) {
        let loading = self.large.loading.as_mut().expect("not ended");
        loading.states -= 1;
        if loading.states > 0 {
            return;
        }
        if let Some(after) = loading.list_after.take() {
            return self.read_enlisted(after, log);
        }
        loading.lists_ended += 1;
        if loading.lists_ended < LISTS {
            return self.read_enlisted(0, log);
        }
        let waiting = self.large.loading.take().map(|loading| loading.waiting);
        self.held.extend(waiting.into_iter().flatten());
        self.fronts.end_loading();
    }
}
