//! `search`: what the index names, read where it stands, and shown as far as it still has the words.
//!
//! First it is known where the user may look: one conversation, whose owner says so, or all that the user is in. Then the index names
//! candidates, newest first, and the owners of their logs give each as it is now, or nothing; what still has all words is a hit. Where too few
//! are, the index is asked on, a few times. Nothing of it is kept: the next page begins below the last candidate that was looked at.
//!
//! **Invariant**: what is told depends on what the user may see and on nothing else: the index is told where to look before it answers.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use protocol::command::{Command, Search};
use protocol::event::{ErrorCode, FoundEnd, Hit, ServerFrame};
use protocol::ids::{ConversationId, RequestId, Seq};
use protocol::limits::HITS_MAX;
use protocol::record::{Portable, Stored, StoredBody, StreamKind as Kind};
use smallvec::SmallVec;

use super::UserSide;
use super::session::{Held, Session};
use crate::bookmark;
use crate::index::{HitPlace, IndexAnswer, IndexAsk};
use crate::mail::{Asker, Clock, Membership, Request, SessionId};
use crate::places::Places;
use crate::words::Query;

/// Conversations that are looked in, and joins and leaves that are gone through for that: as in a list.
const SCOPE_MAX: usize = 16_384;
const MEMBERSHIPS_MAX: usize = 65_536;

/// Searches of one shard that the index works on at a time. Each takes some milliseconds of one thread.
pub const ASKS_MAX: u32 = 32;

/// How long a session waits for the index, in microseconds: it answers within milliseconds, and a disk that hangs under it is not to keep anybody
/// from messages.
const ASK_MICROS_MAX: u64 = 10_000_000;

/// When to try again while it has as many.
const BUSY_RETRY_MS: u64 = 500;

/// Candidates that are asked for beyond the hits that are wanted: some may have been taken back since the index heard of them.
const SPARE_CANDIDATES: usize = 10;

/// Times that the index is asked for one page.
const ROUNDS_MAX: u8 = 4;

/// Candidates that one request names: a page of the longest messages.
const NAMED_MAX: usize = 16;

/// Words that the index is asked for. Of a query with more, the rest is looked for in what it names.
const WORDS_MAX: usize = 16;

const FOREIGN: &str = "`before` is not what a page of this user's hits ended with";

/// A question that the index has not answered.
pub(super) struct AskOut {
    session: SessionId,
    asked_micros: u64,
    /// The session waits for it no more.
    is_given_up: bool,
}

/// What is known of a candidate.
#[derive(Debug)]
enum Verdict {
    Hit(String),
    Nothing,
    Unknown,
}

/// What a search does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// It learns where it may look.
    Scope,
    /// It asks the index.
    Index,
    /// The index was asked, or what it named is read.
    Candidates,
}

/// A search that is going on.
#[derive(Debug)]
pub(super) struct Searching {
    asker: Asker,
    asked: Search,
    query: Query,
    step: Step,
    /// Per log: where its memberships go on, until all are known. Empty where one conversation is searched.
    next: SmallVec<[Option<u64>; 4]>,
    looked_through: usize,
    found: HashMap<ConversationId, Seq, foldhash::fast::RandomState>,
    scope: Arc<[(ConversationId, Seq)]>,
    /// Only what stands below comes next.
    before: Option<HitPlace>,
    candidates: Vec<(HitPlace, Verdict)>,
    /// To be asked for: of one log at a time, by their numbers.
    unread: VecDeque<(u16, Vec<usize>)>,
    /// The index has older ones.
    more: bool,
    rounds: u8,
    hits: Vec<Hit>,
    partial: bool,
}

impl Searching {
    fn new(asker: Asker, asked: Search, before: Option<HitPlace>, logs: usize) -> Self {
        let next =
            if asked.conversation.is_some() { SmallVec::new() } else { SmallVec::from_elem(Some(0), logs) };
        Self {
            asker,
            query: Query::new(&asked.query),
            asked,
            step: Step::Scope,
            next,
            looked_through: 0,
            found: HashMap::default(),
            scope: Arc::default(),
            before,
            candidates: Vec::new(),
            unread: VecDeque::new(),
            more: false,
            rounds: 0,
            hits: Vec::new(),
            partial: false,
        }
    }

    /// What was asked for it.
    pub(super) fn asked(&self) -> (RequestId, Command) {
        (self.asker.id, Command::Search(self.asked.clone()))
    }

    fn limit(&self) -> usize {
        self.asked.limit.min(HITS_MAX) as usize
    }

    /// A page of memberships of one log.
    pub(super) fn note_memberships(
        &mut self,
        log: u16,
        found: Vec<Membership>,
        more_after: Option<u64>,
        partial: bool,
    ) {
        self.partial |= partial;
        self.looked_through += found.len();
        for Membership { conversation, visible_from, .. } in found {
            match visible_from {
                Some(from) if self.found.len() < SCOPE_MAX => {
                    self.found.insert(conversation, from);
                }
                Some(_) => self.partial = true,
                None => {
                    self.found.remove(&conversation);
                }
            }
        }
        let is_too_long = self.looked_through >= MEMBERSHIPS_MAX && more_after.is_some();
        self.partial |= is_too_long;
        if let Some(next) = self.next.get_mut(usize::from(log)) {
            *next = more_after.filter(|_| !is_too_long);
        }
        if self.next.iter().all(Option::is_none) {
            self.end_scope();
        }
    }

    fn end_scope(&mut self) {
        let mut scope: Vec<(ConversationId, Seq)> = std::mem::take(&mut self.found).into_iter().collect();
        // One search is asked in one way, whatever the map made of it.
        scope.sort_unstable();
        self.scope = scope.into();
        self.step = Step::Index;
    }

    fn ask(&self, session: SessionId) -> IndexAsk {
        let missing = self.limit() - self.hits.len();
        IndexAsk {
            session,
            words: self.query.words().iter().take(WORDS_MAX).cloned().collect(),
            scope: self.scope.clone(),
            before: self.before,
            candidates_max: missing + SPARE_CANDIDATES,
        }
    }

    fn note_answer(&mut self, answer: IndexAnswer, places: &Places) {
        self.step = Step::Candidates;
        self.rounds += 1;
        self.more = answer.more;
        self.partial |= answer.partial;
        self.candidates =
            answer.candidates.into_iter().map(|candidate| (candidate, Verdict::Unknown)).collect();
        for (number, (candidate, _)) in self.candidates.iter().enumerate() {
            let log = places.log_of(candidate.conversation);
            let open = self.unread.iter_mut().rev().find(|(of, _)| *of == log);
            match open.filter(|(_, numbers)| numbers.len() < NAMED_MAX) {
                Some((_, numbers)) => numbers.push(number),
                None => self.unread.push_back((log, vec![number])),
            }
        }
        self.take_hits();
    }

    /// Ends with what was found: the index does not answer. Where a round before has shown that there is more, it can be gone on with.
    fn give_up(&mut self) {
        self.step = Step::Candidates;
        (self.partial, self.rounds) = (true, ROUNDS_MAX);
    }

    fn note_records(&mut self, records: Vec<Option<Bytes>>, partial: bool) {
        self.partial |= partial;
        let Some((log, mut numbers)) = self.unread.pop_front() else {
            return;
        };
        let left = numbers.split_off(records.len().min(numbers.len()));
        if !left.is_empty() {
            self.unread.push_front((log, left));
        }
        for (number, record) in numbers.into_iter().zip(records) {
            let snippet = record.and_then(|record| self.query.snippet(&text_of(&record)?));
            self.candidates[number].1 = snippet.map_or(Verdict::Nothing, Verdict::Hit);
        }
        self.take_hits();
    }

    /// When all candidates are known: those that are hits are taken, and it is seen whether that is a page.
    fn take_hits(&mut self) {
        if !self.unread.is_empty() {
            return;
        }
        let limit = self.limit();
        let mut candidates = std::mem::take(&mut self.candidates).into_iter();
        for (place, verdict) in candidates.by_ref() {
            self.before = Some(place);
            if let Verdict::Hit(snippet) = verdict {
                self.hits.push(Hit { conversation: place.conversation, seq: place.seq, snippet });
            }
            if self.hits.len() == limit {
                break;
            }
        }
        let is_full = self.hits.len() == limit;
        self.more |= candidates.next().is_some();
        if !is_full && self.more && self.rounds < ROUNDS_MAX {
            self.step = Step::Index;
        }
    }

    /// Whether there is no more to ask.
    fn is_done(&self) -> bool {
        self.step == Step::Candidates && self.unread.is_empty()
    }
}

impl UserSide {
    /// Begins a search.
    pub(super) fn search(&mut self, id: SessionId, number: RequestId, search: Search, clock: Clock) {
        let places = self.places.clone();
        let Some((asker, user)) = self.asker(id, number, clock) else { return };
        if !self.limits.searches {
            return self.refuse(id, number, ErrorCode::NotAllowed, "this node does not search");
        }
        let before = match search.before.as_deref().map(|before| bookmark::decode_hit(&places, &user, before))
        {
            Some(None) => return self.refuse(id, number, ErrorCode::BadField, FOREIGN),
            Some(before) => before,
            None => None,
        };
        let searching = Searching::new(asker, search, before, usize::from(places.logs));
        self.hold(id, Held::Search(Box::new(searching)));
    }

    /// What a search asks the owner of a log next.
    pub(super) fn next_of_search(
        &self,
        id: SessionId,
        session: &Session,
        searching: &Searching,
    ) -> Option<(u16, Request)> {
        let (shard, user) = (self.shard, session.user.clone());
        if searching.step == Step::Scope {
            if let Some(conversation) = searching.asked.conversation {
                let request = Request::MaySearch { asker: searching.asker, user, conversation };
                return Some((self.places.log_of(conversation), request));
            }
            let mut unknown = (0..).zip(&searching.next);
            let (log, after) = unknown.find_map(|(log, after)| after.map(|after| (log, after)))?;
            let memberships = self.places.user_stream(&user, Kind::Memberships);
            return Some((log, Request::Memberships { session: id, shard, log, user, memberships, after }));
        }
        let (log, numbers) = searching.unread.front()?;
        let place = |number: &usize| {
            let (candidate, _) = &searching.candidates[*number];
            (candidate.conversation, candidate.seq)
        };
        let (log, places) = (*log, numbers.iter().map(place).collect());
        Some((log, Request::Candidates { session: id, shard, log, user, places, has_waited: false }))
    }

    /// Asks the index for a session whose turn that is. Whether it was.
    pub(super) fn ask_index(&mut self, id: SessionId) -> bool {
        // One that was given up counts until it is answered, and its session asks no other: answers are told apart by that.
        let is_out = self.asks_out.iter().any(|out| out.session == id);
        let is_busy = is_out || self.asks_out.len() >= self.limits.index_asks_max as usize;
        let asked_micros = self.presence.clock.micros;
        let Some(session) = self.session(id) else {
            return false;
        };
        let Some(Held::Search(searching)) = session.held.front_mut() else {
            return false;
        };
        if searching.step != Step::Index {
            return false;
        }
        if is_busy {
            let number = searching.asker.id;
            session.held.pop_front();
            self.counters.busy += 1;
            self.refuse_busy(id, number, "too many searches are under way", BUSY_RETRY_MS);
            return true;
        }
        searching.step = Step::Candidates;
        let ask = searching.ask(id);
        session.page_in_flight = true;
        self.asks_out.push(AskOut { session: id, asked_micros, is_given_up: false });
        self.asks.push_back(ask);
        true
    }

    /// The next question for the index: [`UserSide::handle_index`] is to be called for each.
    pub fn poll_ask(&mut self) -> Option<IndexAsk> {
        self.asks.pop_front()
    }

    /// Takes what the index has answered.
    pub fn handle_index(&mut self, answer: IndexAnswer) {
        if self.asks_of_sightings.is_paused() {
            return self.late_answers.push(answer);
        }
        let Some(place) = self.asks_out.iter().position(|out| out.session == answer.session) else { return };
        if !self.asks_out.swap_remove(place).is_given_up {
            self.take_answer(answer);
        }
    }

    /// Questions whose answers somebody waits for.
    pub(super) fn asks_waited_for(&self) -> u32 {
        self.asks_out.iter().filter(|out| !out.is_given_up).count() as u32
    }

    /// What the index has not answered in time is taken as answered: there may be more than was found.
    pub(super) fn give_up_asks(&mut self) {
        let now = self.presence.clock.micros;
        if self.asks_of_sightings.is_paused() {
            return;
        }
        let late = self
            .asks_out
            .iter_mut()
            .filter(|out| !out.is_given_up && out.asked_micros + ASK_MICROS_MAX <= now);
        let late: SmallVec<[SessionId; 4]> = late
            .map(|out| {
                out.is_given_up = true;
                out.session
            })
            .collect();
        for id in late {
            self.page_arrived(id);
            if let Some(searching) = self.searching(id) {
                searching.give_up();
            }
            self.go_on_searching(id);
        }
    }

    fn take_answer(&mut self, answer: IndexAnswer) {
        let (id, places) = (answer.session, self.places.clone());
        self.page_arrived(id);
        if let Some(searching) = self.searching(id) {
            searching.note_answer(answer, &places);
        }
        self.go_on_searching(id);
    }

    pub(super) fn handle_may_search(&mut self, id: SessionId, visible_from: Seq) {
        self.page_arrived(id);
        if let Some(searching) = self.searching(id)
            && let Some(conversation) = searching.asked.conversation
        {
            searching.found.insert(conversation, visible_from);
            searching.end_scope();
        }
        self.go_on_searching(id);
    }

    pub(super) fn handle_candidates(&mut self, id: SessionId, records: Vec<Option<Bytes>>, partial: bool) {
        self.page_arrived(id);
        if let Some(searching) = self.searching(id) {
            searching.note_records(records, partial);
        }
        self.go_on_searching(id);
    }

    /// A search was refused by the owner of its conversation.
    pub(super) fn forget_search(&mut self, id: SessionId, number: RequestId) {
        if self.searching(id).is_some_and(|searching| searching.asker.id == number)
            && let Some(session) = self.session(id)
        {
            session.held.pop_front();
        }
    }

    pub(super) fn searching(&mut self, id: SessionId) -> Option<&mut Searching> {
        match self.session(id)?.held.front_mut() {
            Some(Held::Search(searching)) => Some(searching),
            Some(Held::Ended { .. } | Held::Listing(_) | Held::Page(_)) | None => None,
        }
    }

    pub(super) fn go_on_searching(&mut self, id: SessionId) {
        if self.searching(id).is_some_and(|searching| searching.is_done()) {
            self.answer_search(id);
        }
        self.ask_pages(id);
    }

    fn answer_search(&mut self, id: SessionId) {
        let places = self.places.clone();
        let Some(session) = self.session(id) else {
            return;
        };
        let Some(Held::Search(searching)) = session.held.pop_front() else {
            return;
        };
        let Searching { asker, hits, more, before, partial, .. } = *searching;
        let before =
            before.filter(|_| more).map(|place| bookmark::encode_hit(&places, &session.user, &place));
        let end = FoundEnd { more, before, partial };
        self.push_reply(id, &ServerFrame::Found { id: asker.id, hits, end });
    }
}

/// What a message says, with its caption.
fn text_of(record: &Bytes) -> Option<String> {
    let stored = Stored::with_checked_sum(Portable::parse(record).ok()?, record).ok()?;
    let text = match stored.body {
        StoredBody::Message(message) => &*message.text,
        StoredBody::Folded(form) if form.deleted == 0 => &*form.text,
        _ => return None,
    };
    Some(String::from_utf8_lossy(text).into_owned())
}
