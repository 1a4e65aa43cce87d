//! Reading which groups are large, once after a start: before that no page of catching up can be answered.

use protocol::ids::ConversationId;
use protocol::record::StreamKind as Kind;
use storage_log::{Log, Lookup};

use super::ConversationSide;
use super::fetch::Fetch;
use super::jobs::{PAGE, Purpose, state_of};
use super::large::Roster;
use crate::mail::Linked;
use crate::places::conversation_stream;

impl ConversationSide {
    /// Begins with the first request: so early everything in the log is durable.
    pub(super) fn begin_enlisting(&mut self, log: &mut Log) {
        if self.large.loading.as_mut().is_some_and(|loading| !std::mem::replace(&mut loading.begun, true)) {
            self.read_large_groups(0, log);
        }
    }

    fn read_large_groups(&mut self, after: u64, log: &mut Log) {
        let lookup = Lookup::after(log, self.places.large_groups_stream(), after, PAGE);
        self.start(Purpose::ListLarge, vec![lookup], log);
    }

    /// A page of groups that grew large or stopped being so: what they are now is in their states.
    pub(super) fn finish_list(&mut self, records: &[Linked], more: bool, log: &mut Log) {
        let loading = self.large.loading.as_mut().expect("only then they are listed");
        loading.list_after = records.last().filter(|_| more).map(|last| last.position);
        // Held until all are asked for: one that is in memory ends at once.
        loading.states += 1;
        for linked in records {
            self.read_roster(linked.conversation, log);
        }
        self.end_roster(log);
    }

    fn read_roster(&mut self, conversation: ConversationId, log: &mut Log) {
        // What is being changed comes when it is durable.
        let is_changing = |place| !log.durable().covers(place);
        if self.slots.get(&conversation).is_some_and(|slot| is_changing(slot.position)) {
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
            return self.read_large_groups(after, log);
        }
        let waiting = self.large.loading.take().map(|loading| loading.waiting);
        for request in waiting.into_iter().flatten() {
            self.start_page(request, log);
        }
    }
}
