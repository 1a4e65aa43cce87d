//! Clients that search, in some worlds: now and then while the world is busy, page after page, and each once more at rest.
//!
//! `found_is_allowed`: whatever the index names, a hit is a message that its user may see in that moment, in a form that it had then, with all
//! words, newest first and once; nothing of what was erased, taken back, or is in front. `found_is_complete`: what the index knew when it was
//! asked, and the user could see all the while, is among the hits; at rest that is all there is.

use std::collections::{BTreeMap, BTreeSet};

use protocol::command::{Command, Search};
use protocol::event::{ErrorCode, FoundEnd, Hit};
use protocol::ids::{ConversationId, RequestId, UserId};
use protocol::limits::SNIPPET_BYTES_MAX;

use crate::Rng;
use crate::dice::{SEARCHING, searches};
use crate::index::Index;
use crate::keeping::Since;
use crate::oracle::{Oracle, Truth};
use crate::world::World;

type Place = (ConversationId, u64);

/// What is searched for: so many that most messages have some, and few have two.
pub(crate) const WORDS: [&str; 24] = [
    "apple", "ärger", "bread", "café", "door", "east", "fish", "green", "house", "ink", "june", "key",
    "lamp", "moon", "night", "oak", "paper", "queen", "river", "salt", "tea", "umbrella", "wind", "yard",
];

/// Searches of one client that are under way at one time.
const SEARCHES_MAX: usize = 3;

/// Searches of each client at rest.
const LAST_COUNT: u64 = 2;

/// A text of so many bytes, with a word here and there.
pub(crate) fn text(rng: &mut Rng, bytes: u64) -> String {
    let mut text = String::new();
    loop {
        let length = rng.between(1, 8);
        let word = match rng.below(4) {
            0 => (*rng.pick(&WORDS)).to_owned(),
            _ => (0..length).map(|_| char::from(b'a' + rng.below(26) as u8)).collect(),
        };
        let missing = (bytes as usize).saturating_sub(text.len());
        if word.len() + 2 > missing {
            return text + &"x".repeat(missing);
        }
        text.push_str(&word);
        text += between(rng);
    }
}

/// What stands between two words.
fn between(rng: &mut Rng) -> &'static str {
    rng.pick::<&str>(&[" ", ", ", "-", " + "])
}

/// The words of a text, in order, as this world has them.
fn words_of(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|character: char| !character.is_alphanumeric());
    words.filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// A message that is to be found, and what was known of it when it was asked for.
#[derive(Clone, Debug)]
struct Owed {
    place: Place,
    forms: usize,
    memberships: usize,
}

/// One search, page after page.
#[derive(Clone)]
struct Under {
    search: Search,
    words: Vec<String>,
    /// When its present page was asked for,
    since: Since,
    /// and in which run: no other answers it.
    run: u32,
    told: BTreeSet<Place>,
    /// The one that was told last.
    last: Option<Place>,
    is_partial: bool,
    /// What is still to come.
    owed: Vec<Owed>,
    /// Goes on from where the page of another user ended.
    is_foreign: bool,
    is_at_rest: bool,
}

/// What one client searches for.
#[derive(Default)]
pub(crate) struct Searching {
    /// Where anybody searches.
    pub(crate) dice: Option<Rng>,
    asked: BTreeMap<RequestId, Under>,
    /// To go on.
    open: Option<Under>,
    /// Searches at rest that are still to be made; `None` until it is at rest.
    left: Option<u64>,
}

impl Searching {
    /// Searches for something, or on, as the dice have it.
    pub(crate) fn act(&mut self, id: RequestId, user: &UserId, oracle: &mut Oracle) -> Option<Command> {
        if self.asked.len() >= SEARCHES_MAX || !self.dice.as_mut()?.one_in(4) {
            return None;
        }
        let rng = self.dice.as_mut().expect("looked at");
        let open = self.open.take().filter(|_| !rng.one_in(4));
        let mut under = match open {
            Some(open) => open,
            None => {
                let count = *rng.pick(&[1, 1, 1, 2, 2, 3]);
                let query: Vec<&str> = (0..count).map(|_| *rng.pick(&WORDS)).collect();
                let query = query.join(between(rng));
                let query = if rng.one_in(3) { query.to_uppercase() } else { query };
                let known: BTreeSet<ConversationId> = oracle.durable.keys().map(|(of, _)| *of).collect();
                let known: Vec<ConversationId> = known.into_iter().collect();
                let conversation = (rng.one_in(3) && !known.is_empty()).then(|| *rng.pick(&known));
                let limit = if rng.one_in(2) { rng.between(1, 5) } else { rng.between(5, 51) } as u32;
                let foreign = oracle.searches.before.iter().find(|(of, _)| *of != user);
                let before = foreign.filter(|_| rng.one_in(20)).map(|(_, before)| before.clone());
                let is_foreign = before.is_some();
                let search = Search { query, conversation, before, limit };
                Under { is_foreign, ..Under::new(search, user, oracle) }
            }
        };
        (under.since, under.run) = (oracle.since(), oracle.seen.run);
        let command = Command::Search(under.search.clone());
        self.asked.insert(id, under);
        Some(command)
    }

    /// A page of a search at rest, if one is wanted.
    pub(crate) fn next_page(&mut self, id: RequestId, user: &UserId, oracle: &mut Oracle) -> Option<Command> {
        if self.left? == 0 || self.asked.values().any(|under| under.is_at_rest) {
            return None;
        }
        let rng = self.dice.as_mut()?;
        let mut under = match self.open.take().filter(|open| open.is_at_rest) {
            Some(open) => open,
            None => {
                let query = (*rng.pick(&WORDS)).to_owned();
                let search =
                    Search { query, conversation: None, before: None, limit: rng.between(5, 51) as u32 };
                Under { is_at_rest: true, ..Under::new(search, user, oracle) }
            }
        };
        (under.since, under.run) = (oracle.since(), oracle.seen.run);
        let command = Command::Search(under.search.clone());
        self.asked.insert(id, under);
        Some(command)
    }

    /// The world is at rest otherwise, and the index has read everything: whether all has been searched, which is begun if it was not yet.
    pub(crate) fn is_told(&mut self) -> bool {
        self.dice.is_none() || *self.left.get_or_insert(LAST_COUNT) == 0
    }

    /// A connection begins: what was asked for on the one before is not answered, and one of that is asked again, in whichever run. Where a page
    /// ended is good for the next.
    pub(crate) fn begin(&mut self) {
        let unanswered = std::mem::take(&mut self.asked).into_values().next_back();
        self.open = unanswered.or_else(|| self.open.take());
    }

    pub(crate) fn refused(&mut self, refused: Option<RequestId>, code: ErrorCode) {
        if let Some(under) = refused.and_then(|id| self.asked.remove(&id)) {
            let may_be = match code {
                ErrorCode::BadField => under.is_foreign,
                ErrorCode::NotAMember | ErrorCode::NotFound => under.search.conversation.is_some(),
                _ => code.retryable(),
            };
            assert!(may_be, "{:?} was refused with {code:?}", under.search);
            if code.retryable() {
                self.open = Some(under);
            }
        }
    }

    /// A page has come.
    pub(crate) fn told(
        &mut self,
        id: RequestId,
        user: &UserId,
        hits: &[Hit],
        end: FoundEnd,
        oracle: &mut Oracle,
    ) {
        let mut under = self.asked.remove(&id).expect("it was asked for");
        assert!(!under.is_foreign, "{user} goes on from where the page of another ended");
        assert!(hits.len() <= under.search.limit as usize, "{user} asked for {:?}", under.search);
        assert_eq!(end.more, end.before.is_some(), "where it goes on is told if it does");
        hits.iter().for_each(|hit| under.take(user, hit, oracle));
        under.is_partial |= end.partial;
        oracle.searches.pages += 1;
        under.check_owed(user, &end, oracle);
        if under.is_at_rest && !end.more && !under.is_partial {
            *self.left.as_mut().expect("it is at rest") -= 1;
        }
        if let Some(before) = &end.before {
            oracle.searches.before.insert(user.clone(), before.clone());
        }
        let goes_on = end.more && !(under.is_at_rest && under.is_partial);
        under.search.before = end.before;
        if goes_on {
            self.open = Some(under);
        }
    }
}

impl Under {
    fn new(search: Search, user: &UserId, oracle: &mut Oracle) -> Self {
        let words: Vec<String> = words_of(&search.query).collect();
        let (since, told) = (oracle.since(), BTreeSet::new());
        let owed = oracle.owed(user, &words, search.conversation);
        let (is_partial, is_foreign, is_at_rest) = (false, false, false);
        let (run, last) = (oracle.seen.run, None);
        Self { search, words, since, run, told, last, is_partial, owed, is_foreign, is_at_rest }
    }

    /// Holds a hit against what is true.
    fn take(&mut self, user: &UserId, hit: &Hit, oracle: &mut Oracle) {
        let place = (hit.conversation, hit.seq.0);
        assert!(self.told.insert(place), "found_is_allowed: {user} was told {place:?} twice");
        let is_there = self.search.conversation.is_none_or(|of| of == hit.conversation);
        assert!(is_there, "found_is_allowed: {place:?} is not where {user} has looked");
        oracle.check_visible(place, user, self.since);
        oracle.check_kept(place, Some(self.since));
        oracle.check_not_erased_since(place, self.since);
        let forms = oracle.forms.texts(place, self.since.forms);
        let is_one = forms.iter().any(|text| is_snippet(&hit.snippet, text, &self.words));
        assert!(is_one, "found_is_allowed: {place:?} was found as {hit:?} for {:?}: {forms:?}", self.words);
        let at = |place: &Place| oracle.durable[place].at;
        if let Some(last) = self.last.replace(place) {
            assert!(at(&last) >= at(&place), "found_is_allowed: {place:?} is newer than {last:?}");
            let is_above = last.0 != place.0 || last.1 > place.1;
            assert!(is_above, "found_is_allowed: {place:?} after {last:?}");
        }
        oracle.searches.hits += 1;
    }

    /// What stands above the last that was told, or anywhere if that was all, was told. Nothing of it is owed any more: what a run has not told for
    /// a reason that died with it, the next one has no reason for.
    fn check_owed(&mut self, user: &UserId, end: &FoundEnd, oracle: &mut Oracle) {
        let last = self.last.filter(|_| end.more).map(|last| oracle.durable[&last].at);
        if end.more && last.is_none() {
            return;
        }
        let is_passed = |owed: &Owed| last.is_none_or(|last| oracle.durable[&owed.place].at > last);
        let (passed, owed) = std::mem::take(&mut self.owed).into_iter().partition(is_passed);
        self.owed = owed;
        let passed: Vec<Owed> = passed;
        for owed in passed {
            if self.told.contains(&owed.place) {
                oracle.searches.complete += 1;
            } else if !end.partial && !oracle.is_excused(user, &owed) {
                oracle.searches.missed.push((user.clone(), owed, self.run, self.words.clone()));
            }
        }
    }
}

fn has_all(text: &str, words: &[String]) -> bool {
    let of: BTreeSet<String> = words_of(text).collect();
    words.iter().all(|word| of.contains(word))
}

/// Whether this is what is shown of a text that was found.
fn is_snippet(snippet: &str, text: &str, words: &[String]) -> bool {
    let Some(first) = words_of(text).find(|word| words.contains(word)) else {
        return false;
    };
    has_all(text, words)
        && snippet.len() <= SNIPPET_BYTES_MAX
        && text.contains(snippet)
        && words_of(snippet).any(|word| word == first)
}

/// When somebody joined a conversation, and from where on they read it, or left.
struct Change {
    seq: u64,
    visible_from: Option<u64>,
    /// When it was durable, in milliseconds since 1970.
    entered: u64,
}

/// What is true of all searches.
#[derive(Default)]
pub(crate) struct Searches {
    pub(crate) index: Index,
    /// The users of each direct conversation there may be.
    direct: BTreeMap<ConversationId, [UserId; 2]>,
    members: BTreeMap<(ConversationId, UserId), Vec<Change>>,
    /// Where the last page of each ended.
    before: BTreeMap<UserId, String>,
    /// What was owed and not told: by whom, what, in which run, for which words. Who was taken out meanwhile is not owed it, and that may become
    /// durable after the answer.
    missed: Vec<(UserId, Owed, u32, Vec<String>)>,
    pages: u64,
    hits: u64,
    /// Messages that were owed, and found.
    complete: u64,
}

impl Searches {
    /// Of a world with this seed.
    pub(crate) fn new(seed: u64, direct: BTreeMap<ConversationId, [UserId; 2]>) -> Self {
        let dice = searches(seed).then(|| Rng::new(seed ^ SEARCHING));
        Self { index: Index::new(dice), direct, ..Self::default() }
    }

    /// A record is durable.
    pub(crate) fn enter(&mut self, place: Place, at: (u16, u64), truth: &Truth, now: u64) {
        if self.index.dice.is_none() {
            return;
        }
        self.index.enter(place, at, truth, now);
        let added = truth.added.iter().map(|user| (user, Some(truth.joined_from)));
        for (user, visible_from) in added.chain(truth.removed.iter().map(|user| (user, None))) {
            let of = self.members.entry((place.0, user.clone())).or_default();
            if of.last().is_none_or(|last| last.seq < place.1) {
                of.push(Change { seq: place.1, visible_from, entered: now });
            }
        }
    }

    /// Pages, hits, and how many of those were owed.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        (self.pages, self.hits, self.complete)
    }

    fn memberships(&self, conversation: ConversationId, user: &UserId) -> &[Change] {
        self.members.get(&(conversation, user.clone())).map_or(&[], Vec::as_slice)
    }

    /// From where on a user reads a conversation now.
    fn visible_from(&self, conversation: ConversationId, user: &UserId) -> Option<u64> {
        match self.direct.get(&conversation) {
            Some(users) => users.contains(user).then_some(1),
            None => self.memberships(conversation, user).last()?.visible_from,
        }
    }
}

impl Oracle {
    /// `members_only`: at some time since then a user may have seen this.
    fn check_visible(&self, place: Place, user: &UserId, since: Since) {
        let all = self.searches.memberships(place.0, user);
        let past = all.iter().rposition(|change| change.entered < since.ms).unwrap_or(0);
        let was_visible = all[past.min(all.len())..]
            .iter()
            .any(|change| change.visible_from.is_some_and(|from| from <= place.1));
        let is_direct = self.searches.direct.get(&place.0).is_some_and(|users| users.contains(user));
        assert!(
            was_visible || is_direct,
            "found_is_allowed: {place:?} was found by {user}, who was not in it since {since:?}"
        );
    }

    /// What is to be found by who asks now: what the index knows, and its user sees.
    fn owed(&mut self, user: &UserId, words: &[String], conversation: Option<ConversationId>) -> Vec<Owed> {
        let now = self.reads.now;
        let known: Vec<Place> = self.searches.index.having(words, now).collect();
        let is_owed = |place: &Place| {
            let from = self.searches.visible_from(place.0, user);
            from.is_some_and(|from| from <= place.1)
                && conversation.is_none_or(|of| of == place.0)
                && self.durable.get(place).is_some_and(|truth| truth.text.is_some())
                && self.forms.newest_text(*place).is_some_and(|text| has_all(text, words))
        };
        let owed = |place: Place| Owed {
            place,
            forms: self.forms.count(place),
            memberships: self.searches.memberships(place.0, user).len(),
        };
        known.into_iter().filter(is_owed).map(owed).collect()
    }

    /// Whether something was not to be found all the while.
    fn is_excused(&self, user: &UserId, owed: &Owed) -> bool {
        let (place, now) = (owed.place, self.reads.now);
        self.forms.count(place) != owed.forms
            || self.searches.memberships(place.0, user).len() != owed.memberships
            || self.may_be_erased(place)
            || self.is_in_front(place, now)
            || self.may_be_gone(self.durable[&place].at, now)
    }

    /// `found_is_complete`, of all that was searched.
    pub(crate) fn check_found(&self) {
        for (user, owed, run, words) in &self.searches.missed {
            // What a crash undid may have been seen before.
            let is_known = *run == self.seen.run;
            assert!(
                !is_known || self.is_excused(user, owed),
                "found_is_complete: {user} was not told {owed:?}, which has {words:?}"
            );
        }
    }
}

impl World {
    /// At rest everybody searches, once the index has read everything.
    pub(crate) fn has_searched(&mut self) -> bool {
        let now = self.unix().0;
        if self.oracle.searches.index.dice.is_some() && !self.oracle.searches.index.is_complete(now) {
            return false;
        }
        let deaf: Vec<bool> = (0..self.clients.len()).map(|client| self.is_deaf(client)).collect();
        let listening = self.clients.iter_mut().zip(deaf).filter(|(_, is_deaf)| !is_deaf);
        listening.fold(true, |all, (client, _)| client.searching.is_told() && all)
    }
}

#[cfg(test)]
mod tests {
    use protocol::ids::{MessageId, UnixMillis};

    use super::*;
    use crate::seen::End;

    const OF: ConversationId = ConversationId([7; 16]);

    fn user() -> UserId {
        UserId::new("alice").expect("a name")
    }

    /// A world with two messages, and the first page of a search that is owed both.
    fn searching() -> (Oracle, Searching) {
        let mut oracle = Oracle::default();
        for seq in [1, 2] {
            let text = Some("apple".to_owned());
            let (message_id, sender) = (MessageId::v7(UnixMillis(1), [0; 10]), user());
            let truth = Truth {
                message_id,
                sender,
                text,
                said: None,
                amends: None,
                at: seq * 1_000,
                added: vec![],
                roles: vec![],
                removed: vec![],
                joined_from: 1,
                retention: None,
                title: None,
            };
            oracle.durable.insert((OF, seq), truth);
        }
        let search = Search { query: "apple".to_owned(), conversation: None, before: None, limit: 5 };
        let owed = |seq| Owed { place: (OF, seq), forms: oracle.forms.count((OF, seq)), memberships: 0 };
        let owed = vec![owed(1), owed(2)];
        let under = Under { owed, ..Under::new(search, &user(), &mut oracle) };
        let searching = Searching { asked: BTreeMap::from([(RequestId(1), under)]), ..Searching::default() };
        (oracle, searching)
    }

    fn told(searching: &mut Searching, id: u32, more: bool, oracle: &mut Oracle) {
        let before = more.then(|| "a cursor".to_owned());
        let end = FoundEnd { more, before, partial: false };
        searching.told(RequestId(id), &user(), &[], end, oracle);
    }

    fn missed(oracle: &Oracle) -> Vec<(u64, u32)> {
        oracle.searches.missed.iter().map(|(_, owed, run, _)| (owed.place.1, *run)).collect()
    }

    #[test]
    fn an_answer_that_comes_after_its_node_died_is_held_against_that_run() {
        let (mut oracle, mut searching) = searching();
        let run = oracle.seen.run;
        oracle.seen.end_run(UnixMillis(9_000), End::Crashed);
        told(&mut searching, 1, false, &mut oracle);
        assert_eq!(missed(&oracle), [(1, run), (2, run)]);
        oracle.check_found();
    }

    #[test]
    fn what_a_page_has_passed_over_is_not_owed_by_the_page_of_another_run() {
        let (mut oracle, mut searching) = searching();
        // Number 1 was told; number 2, which is newer, was not.
        let under = searching.asked.get_mut(&RequestId(1)).expect("it was asked");
        (under.last, under.told) = (Some((OF, 1)), BTreeSet::from([(OF, 1)]));
        told(&mut searching, 1, true, &mut oracle);
        let run = oracle.seen.run;
        assert_eq!(missed(&oracle), [(2, run)]);
        oracle.seen.end_run(UnixMillis(9_000), End::Crashed);
        let under = Under { run: run + 1, ..searching.open.take().expect("it goes on") };
        searching.asked.insert(RequestId(2), under);
        told(&mut searching, 2, false, &mut oracle);
        assert_eq!(missed(&oracle), [(2, run)]);
        oracle.check_found();
    }

    #[test]
    fn what_was_not_answered_is_asked_again_and_owed() {
        let (mut oracle, mut searching) = searching();
        oracle.seen.end_run(UnixMillis(9_000), End::Crashed);
        searching.begin();
        let under = Under { run: oracle.seen.run, ..searching.open.take().expect("it is asked again") };
        searching.asked.insert(RequestId(2), under);
        told(&mut searching, 2, false, &mut oracle);
        assert_eq!(missed(&oracle), [(1, oracle.seen.run), (2, oracle.seen.run)]);
        let (_, mut busy) = self::searching();
        busy.refused(Some(RequestId(1)), ErrorCode::Busy);
        assert_eq!(busy.open.expect("it is asked again").owed.len(), 2);
    }
}
