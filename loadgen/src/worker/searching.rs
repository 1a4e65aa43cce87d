//! Some of the messages that were sent are searched for, by the word that is in no other: the first 64 bytes of a letter are one.
//!
//! The author or another member asks again and again until the message is found. What was edited is searched for by its new word and once more by
//! the old one, what was deleted once more, and neither may be found by that.
//!
//! All of it belongs to the worker, not to a user: who does not search costs nothing more.

use std::{collections::HashMap, time::Duration};

use protocol::{
    command::{Command, Search},
    event::{ErrorReply, FoundEnd, Hit},
    limits::SNIPPET_BYTES_MAX,
};

use super::{
    DRAIN_WAIT_MAX, State,
    desk::Desk,
    in_flight::{Asked, Pending},
    user::{IN_FLIGHT_MAX, Presence, RETRY_AFTER, User},
};
use crate::{
    clock::Moment,
    plan::{RoomIndex, RoomKind, UserIndex},
    verify::{Change, Kind},
};

/// How long after its acknowledgement a message may stay unfound: a busy node commits its index every 5 s, and three of those are late.
pub(super) const FOUND_WITHIN: Duration = Duration::from_secs(15);
/// How long a search may take to be answered: as long as all others.
const ANSWERED_WITHIN: Duration = DRAIN_WAIT_MAX;
/// How long after the schedule the last searches may take. Longer than both, so that of what was sent and asked by then all that is late is told.
pub(super) const FOUND_WAIT_MAX: Duration = Duration::from_secs(20);
const _: () = {
    assert!(FOUND_WAIT_MAX.as_secs() > FOUND_WITHIN.as_secs());
    assert!(FOUND_WAIT_MAX.as_secs() > ANSWERED_WITHIN.as_secs());
};

/// How often one is asked again: what is measured until it is found is no finer.
const AGAIN_EVERY: Duration = Duration::from_secs(1);
/// Searched messages that are remembered, because amendments of them are searched for as well. Each is some 300 bytes.
const KNOWN_MAX: usize = 20_000;
/// Searches that wait or are asked; a message beyond that is not searched for.
const WAITING_MAX: usize = 10_000;
/// Bytes of the word of a letter: no node knows a longer one.
const WORD_BYTES: usize = 64;
/// A word has one hit, so that this many show what is too much.
const HITS_WANTED: u32 = 5;

type Place = (RoomIndex, u64);

/// What a search has to come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    Found,
    /// It was edited, or deleted.
    Nothing(Kind),
}

/// One message that is searched for.
#[derive(Clone, Debug)]
pub(super) struct Quest {
    place: Place,
    by: UserIndex,
    /// What is shown of it.
    snippet: String,
    /// The sequence that made it so.
    version: u64,
    expects: Expects,
    /// When that was acknowledged.
    since: Moment,
    /// From when on it has to be found within [`FOUND_WITHIN`].
    patient_from: Moment,
    asked_at: Moment,
}

/// A message that is or was searched for.
struct Known {
    snippet: String,
    version: u64,
    /// Edits and deletions that are not answered.
    amending: u32,
}

/// All searches of a worker.
#[derive(Default)]
pub(super) struct Searching {
    /// The node said that it searches.
    pub(super) is_offered: bool,
    /// Nothing is searched for any more.
    is_over: bool,
    waiting: Vec<(Moment, Quest)>,
    asked: usize,
    known: HashMap<Place, Known>,
}

impl Searching {
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.asked == 0
    }

    fn again(&mut self, when: Moment, quest: Quest) {
        self.asked -= 1;
        self.waiting.push((when, quest));
    }

    /// An edit or a deletion is under way.
    pub(super) fn note_amending(&mut self, place: Place, change: Change) {
        if let (Some(known), Change::Edit | Change::Delete) = (self.known.get_mut(&place), change) {
            known.amending += 1;
        }
    }

    /// It was refused.
    pub(super) fn note_unamended(&mut self, place: Place, change: Change) {
        if let (Some(known), Change::Edit | Change::Delete) = (self.known.get_mut(&place), change) {
            known.amending = known.amending.saturating_sub(1);
        }
    }
}

/// What a search shows of a text that is found by its first word.
fn snippet_of(text: &str) -> String {
    text[..text.len().min(SNIPPET_BYTES_MAX)].to_owned()
}

impl Desk {
    /// A message was acknowledged; some are searched for from then on.
    pub(super) fn begin_search(&mut self, by: UserIndex, pending: &Pending, seq: u64, now: Moment) {
        let Command::Send(send) = &pending.command else { return };
        let percent = u64::from(self.config.attention.search_percent);
        if pending.due.is_none() || percent == 0 || self.random.below(100) >= percent {
            return;
        }
        // Where members come and go, who is to find it may have gone by then.
        if self.config.comings.churn > 0 && self.plan.room(pending.room).kind != RoomKind::Direct {
            return;
        }
        let (searching, place) = (&self.searching, (pending.room, seq));
        if searching.known.len() >= KNOWN_MAX || searching.waiting.len() + searching.asked >= WAITING_MAX {
            return;
        }
        let snippet = snippet_of(&send.text);
        let known = Known { snippet: snippet.clone(), version: seq, amending: 0 };
        self.searching.known.insert(place, known);
        self.search_for(place, by, snippet, seq, Expects::Found, now);
    }

    /// An amendment of `author`'s was acknowledged.
    pub(super) fn search_amended(
        &mut self,
        author: UserIndex,
        place: Place,
        seq: u64,
        command: &Command,
        now: Moment,
    ) {
        let (new, kind) = match command {
            Command::Edit(edit) => (Some(snippet_of(&edit.text)), Kind::Edit),
            Command::Delete { .. } => (None, Kind::DeletedShown),
            _ => return,
        };
        let Some(known) = self.searching.known.get_mut(&place) else { return };
        known.amending = known.amending.saturating_sub(1);
        if seq < known.version {
            return;
        }
        known.version = seq;
        let old = std::mem::replace(&mut known.snippet, new.clone().unwrap_or_default());
        if !old.is_empty() {
            self.search_for(place, author, old, seq, Expects::Nothing(kind), now);
        }
        if let Some(new) = new {
            self.search_for(place, author, new, seq, Expects::Found, now);
        }
    }

    fn search_for(
        &mut self,
        place: Place,
        author: UserIndex,
        snippet: String,
        version: u64,
        expects: Expects,
        now: Moment,
    ) {
        if self.searching.is_over {
            return;
        }
        let by = self.reactor(place.0, author);
        let wait = Duration::from_micros(self.random.below(AGAIN_EVERY.as_micros() as u64));
        let (since, patient_from, asked_at) = (now, now, now);
        let quest = Quest { place, by, snippet, version, expects, since, patient_from, asked_at };
        self.searching.waiting.push((now.after(wait), quest));
    }
}

impl State {
    /// Asks whose time has come.
    pub(super) fn search_due(&mut self, now: Moment) {
        let ripe: Vec<_> = self.desk.searching.waiting.extract_if(.., |(when, _)| *when <= now).collect();
        for (_, mut quest) in ripe {
            let desk = &mut self.desk;
            let user = &mut self.users[desk.config.place_of(quest.by)];
            desk.searching.asked += 1;
            if user.presence != Presence::Live || user.in_flight.len() >= IN_FLIGHT_MAX {
                desk.searching.again(now.after(AGAIN_EVERY), quest);
                continue;
            }
            quest.asked_at = now;
            let conversation = desk.rooms.id(quest.place.0).filter(|_| desk.random.below(2) == 0);
            let query = quest.snippet[..WORD_BYTES].to_owned();
            let search = Search { query, conversation, before: None, limit: HITS_WANTED };
            desk.tally.counts.searches += 1;
            self.dirty.push(user.place);
            user.ask(Command::Search(search), Asked::Search(Box::new(quest)));
        }
    }

    /// The end of all searches. What a node has not answered in time is told. What it has not said yet whether it finds it is undecided: it was
    /// busy, or said that it does not see everything, or there was no time.
    pub(super) fn end_searches(&mut self, now: Moment) {
        let Self { users, desk, .. } = self;
        let asked: Vec<Quest> = users.iter_mut().flat_map(|user| user.in_flight.take_searches()).collect();
        let Searching { is_over, waiting, asked: count, known, .. } = &mut desk.searching;
        (*is_over, *count) = (true, 0);
        let is_late = |quest: &&Quest| now.since(quest.asked_at) >= ANSWERED_WITHIN;
        let late = asked.iter().filter(is_late).count() as u64;
        let waiting = std::mem::take(waiting);
        let open = waiting.iter().map(|(_, quest)| quest).chain(asked.iter().filter(|quest| !is_late(quest)));
        // What was amended since is searched for by another quest, or not at all.
        let is_current =
            |quest: &&Quest| known.get(&quest.place).is_some_and(|known| known.version == quest.version);
        desk.tally.counts.searches_undecided += open.filter(is_current).count() as u64;
        desk.tally.counts.searches_unanswered += late;
    }
}

impl Desk {
    /// The connection ended, or the node is busy.
    pub(super) fn search_again(&mut self, quest: Quest, when: Moment) {
        self.searching.again(when, quest);
    }

    fn unfound(&mut self, quest: &Quest) {
        let Quest { place: (room, seq), by, .. } = quest;
        let detail = || format!("user {} did not find {seq} of room {} by its word", by.0, room.0);
        self.tally.violations.add(Kind::Unfound, detail);
    }

    /// Whether among the hits is the message; anything else is wrong.
    fn judge_hits(&mut self, quest: &Quest, hits: &[Hit]) -> bool {
        let mut is_found = false;
        for hit in hits {
            let room = self.rooms.room(hit.conversation);
            let is_mine = room.is_some_and(|room| self.plan.room(room).contains(quest.by));
            let is_it = room == Some(quest.place.0) && hit.seq.0 == quest.place.1;
            let kind = match (is_mine, is_it && hit.snippet == quest.snippet, quest.expects) {
                (false, ..) => Kind::Recipient,
                (true, true, Expects::Found) if !is_found => {
                    is_found = true;
                    continue;
                }
                (true, true, Expects::Nothing(kind)) => kind,
                (true, ..) => Kind::Hit,
            };
            self.tally.violations.add(kind, || {
                let ((room, seq), by) = (quest.place, quest.by.0);
                format!("user {by} searched for {seq} of room {} and found {hit:?}", room.0)
            });
        }
        is_found
    }
}

impl User {
    /// A search is answered.
    pub(super) fn handle_found(
        &self,
        desk: &mut Desk,
        mut quest: Quest,
        hits: &[Hit],
        end: &FoundEnd,
        now: Moment,
    ) {
        let is_in_outage = desk.outage.touches(quest.asked_at, now);
        desk.tally.search.record(now.since(quest.asked_at), is_in_outage);
        let is_found = desk.judge_hits(&quest, hits);
        let known = desk.searching.known.get(&quest.place);
        let is_past = known.is_none_or(|known| known.version != quest.version);
        let is_amended = known.is_some_and(|known| known.amending > 0);
        if is_found {
            let is_in_outage = desk.outage.touches(quest.since, now);
            desk.tally.counts.found += 1;
            desk.tally.found.record(now.since(quest.since), is_in_outage);
        }
        if is_found || is_past || quest.expects != Expects::Found {
            desk.searching.asked -= 1;
            return;
        }
        if end.partial || is_amended || desk.outage.touches(quest.patient_from, now) {
            quest.patient_from = now;
        }
        if quest.asked_at.since(quest.patient_from) >= FOUND_WITHIN {
            desk.searching.asked -= 1;
            return desk.unfound(&quest);
        }
        desk.searching.again(now.after(AGAIN_EVERY), quest);
    }

    /// A search is refused.
    pub(super) fn handle_search_refused(
        &self,
        desk: &mut Desk,
        quest: Quest,
        error: &ErrorReply,
        now: Moment,
    ) {
        if error.code.retryable() {
            let wait = error.retry_after_ms.map_or(RETRY_AFTER, Duration::from_millis);
            return desk.searching.again(now.after(wait), quest);
        }
        desk.searching.asked -= 1;
        desk.tally.counts.searches_refused += 1;
        desk.last_fault = Some(format!("{}: {}", error.code.name(), error.message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::Codec,
        link::Forms,
        plan::USERS_MIN,
        worker::{tests::config, user::Link},
    };

    const AUTHOR: UserIndex = UserIndex(0);
    /// A direct conversation of its.
    const PLACE: Place = (RoomIndex(0), 7);
    const END: FoundEnd = FoundEnd { more: false, before: None, partial: false };

    const fn at(seconds: u64) -> Moment {
        Moment((1000 + seconds) * 1_000_000_000)
    }

    /// Everybody is there, and a message is searched for from 0 s on.
    fn searching() -> State {
        let mut state = State::new(config(Forms::Binary, USERS_MIN, 10)).expect("it opens no file");
        for user in &mut state.users {
            user.link = Some(Link { codec: Codec::new(&[]), writer: None });
            user.presence = Presence::Live;
        }
        let snippet = "x".repeat(WORD_BYTES);
        let known = Known { snippet: snippet.clone(), version: PLACE.1, amending: 0 };
        state.desk.searching.known.insert(PLACE, known);
        state.desk.search_for(PLACE, AUTHOR, snippet, PLACE.1, Expects::Found, at(0));
        state
    }

    /// What is asked by a moment is answered with nothing.
    fn answer(state: &mut State, now: Moment, end: &FoundEnd) {
        for place in 0..state.users.len() {
            for quest in state.users[place].in_flight.take_searches() {
                state.users[place].handle_found(&mut state.desk, quest, &[], end, now);
            }
        }
    }

    /// Undecided, unanswered and not found, when all ends at a moment.
    fn ended(mut state: State, now: Moment) -> (u64, u64, u64) {
        state.end_searches(now);
        assert!(state.desk.searching.is_idle());
        assert!(state.users.iter().all(|user| user.in_flight.len() == 0), "what comes later is nobody's");
        let counts = &state.desk.tally.counts;
        (counts.searches_undecided, counts.searches_unanswered, state.desk.tally.violations.total())
    }

    #[test]
    fn what_may_still_be_found_at_the_end_is_undecided() {
        // Never asked.
        assert_eq!(ended(searching(), at(60)), (1, 0, 0));
        // Not found yet, and not late.
        let mut state = searching();
        state.search_due(at(2));
        answer(&mut state, at(3), &END);
        assert_eq!(ended(state, at(4)), (1, 0, 0));
        // The node does not see everything, and says so, however late it is.
        let mut state = searching();
        state.search_due(at(20));
        answer(&mut state, at(20), &FoundEnd { partial: true, ..END });
        assert_eq!(ended(state, at(20)), (1, 0, 0));
        // It is searched for as it is by then.
        let mut state = searching();
        state.desk.searching.known.get_mut(&PLACE).expect("known").version += 1;
        assert_eq!(ended(state, at(60)), (0, 0, 0));
    }

    #[test]
    fn what_is_late_is_not_found() {
        let mut state = searching();
        state.search_due(at(15));
        answer(&mut state, at(15), &END);
        assert_eq!(ended(state, at(15)), (0, 0, 1));
    }

    #[test]
    fn a_search_without_an_answer_is_told_when_it_is_late() {
        let asked = || {
            let mut state = searching();
            state.search_due(at(2));
            state
        };
        assert_eq!(ended(asked(), at(16)), (1, 0, 0));
        assert_eq!(ended(asked(), at(17)), (0, 1, 0));
    }

    #[test]
    fn behind_the_end_nothing_is_searched_for() {
        let mut state = searching();
        state.end_searches(at(3));
        state.desk.search_for(PLACE, AUTHOR, "y".repeat(WORD_BYTES), PLACE.1, Expects::Found, at(3));
        assert!(state.desk.searching.is_idle());
    }
}
