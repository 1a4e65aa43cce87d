//! The index of words, in some worlds: a map in memory that reads what becomes durable, each record a while later, and is as wrong as an index may
//! be, and more so.
//!
//! It is cut off or made anew when a node starts, answers late, partly or not at all, names messages that were taken back, erased or are not kept,
//! places where no message stands, messages without the words, and those of conversations in which it was not told to look. Deliberately absent:
//! a message of which it has two forms, as it takes out the one when it puts in the other, and a candidate out of order.

use std::collections::{BTreeMap, BTreeSet};

use protocol::ids::{ConversationId, Seq, UnixMillis};
use router::index::{HitPlace, IndexAnswer, IndexAsk};
use router::words;

use crate::Rng;
use crate::oracle::Truth;
use crate::searching::WORDS;

type Place = (ConversationId, u64);

/// How long it takes at most until what is durable is known, in milliseconds.
const LAG_MS: u64 = 1_200;

/// The same where it has to read again, after a start.
const REREAD_MS: u64 = 700;

/// No log has this number.
const NO_LOG: u16 = u16::MAX;

/// What a record says to it.
enum Change {
    Add { place: Place, document: Document },
    Remove(Place),
    Nothing,
}

impl Change {
    fn place(&self) -> Option<Place> {
        match self {
            Self::Add { place, .. } | Self::Remove(place) => Some(*place),
            Self::Nothing => None,
        }
    }
}

struct Fed {
    change: Change,
    /// When it is read, in milliseconds since 1970.
    due: u64,
}

/// A message, as far as it is known.
#[derive(Clone)]
struct Document {
    words: BTreeSet<String>,
    at: UnixMillis,
}

/// All of it.
#[derive(Default)]
pub(crate) struct Index {
    /// Where anybody searches.
    pub(crate) dice: Option<Rng>,
    /// By log and position: everything that was durable at some time.
    feed: BTreeMap<(u16, u64), Fed>,
    /// By log: up to where it has read.
    reached: BTreeMap<u16, u64>,
    known: BTreeMap<Place, Document>,
    /// When each message was sent.
    sent: BTreeMap<Place, UnixMillis>,
    /// Until then it says that it does not know everything.
    partial_until: u64,
    /// Candidates that it had no right to name.
    pub(crate) made_up: u64,
}

impl Index {
    pub(crate) fn new(dice: Option<Rng>) -> Self {
        Self { dice, ..Self::default() }
    }

    /// A record is durable: it is read some time later, in its turn.
    pub(crate) fn enter(&mut self, place: Place, (log, position): (u16, u64), truth: &Truth, now: u64) {
        if self.dice.is_none() || self.feed.contains_key(&(log, position)) {
            return;
        }
        let change = self.change(place, truth);
        let rng = self.dice.as_mut().expect("looked at");
        let before = self.feed.range((log, 0)..(log, position)).next_back();
        let before = before.map_or(0, |(_, fed)| fed.due);
        let lag = if rng.one_in(4) { rng.below(LAG_MS) } else { rng.below(100) };
        self.feed.insert((log, position), Fed { change, due: before.max(now + lag) });
    }

    fn change(&mut self, place: Place, truth: &Truth) -> Change {
        let words = |text: &str| words::of_message(text).into_iter().collect();
        let rng = self.dice.as_mut().expect("the caller looked");
        if let Some(text) = &truth.text {
            let at = UnixMillis(truth.at);
            self.sent.insert(place, at);
            let document = Document { words: words(text), at };
            return Change::Add { place, document };
        }
        let Some((target, form)) = &truth.amends else {
            // Who came and went is no message, and here and there it is taken for one, with all words.
            let words = WORDS.iter().map(|word| (*word).to_owned()).collect();
            let document = Document { words, at: UnixMillis(truth.at) };
            return if rng.one_in(2) { Change::Add { place, document } } else { Change::Nothing };
        };
        let target = (place.0, *target);
        match (form.text(), self.sent.get(&target)) {
            // That something was taken back is missed now and then.
            (None, _) if rng.one_in(3) => Change::Nothing,
            (None, _) | (_, None) => Change::Remove(target),
            (Some(text), Some(at)) => {
                let document = Document { words: words(text), at: *at };
                Change::Add { place: target, document }
            }
        }
    }

    /// A node starts: the index stands where it was written last, or is made anew.
    pub(crate) fn begin(&mut self, now: u64) {
        let Some(rng) = &mut self.dice else { return };
        let is_new = rng.one_in(4);
        for reached in self.reached.values_mut() {
            *reached = if is_new || rng.one_in(8) { 0 } else { reached.saturating_sub(rng.below(40)) };
        }
        let mut due = (NO_LOG, now);
        for ((log, position), fed) in &mut self.feed {
            if *log != due.0 {
                due = (*log, now);
            }
            if self.reached.get(log).is_none_or(|reached| position > reached) {
                due.1 = (due.1 + rng.below(30)).min(now + REREAD_MS);
                fed.due = due.1;
            } else {
                fed.due = now;
            }
        }
        self.partial_until = self.feed.values().map(|fed| fed.due).max().unwrap_or(now);
        self.known.clear();
        let reached = std::mem::take(&mut self.reached);
        for (log, reached) in reached {
            self.read_on(log, u64::MAX, reached);
        }
    }

    /// Reads what of a log is due, and not beyond a position.
    fn read_on(&mut self, log: u16, now: u64, to: u64) {
        let reached = self.reached.entry(log).or_insert(0);
        if *reached >= to {
            return;
        }
        for ((_, position), fed) in self.feed.range((log, *reached + 1)..=(log, to)) {
            if fed.due > now {
                return;
            }
            *reached = *position;
            match &fed.change {
                Change::Add { place, document } => drop(self.known.insert(*place, document.clone())),
                Change::Remove(place) => drop(self.known.remove(place)),
                Change::Nothing => {}
            }
        }
    }

    fn read(&mut self, now: u64) {
        let logs: BTreeSet<u16> = self.feed.keys().map(|(log, _)| *log).collect();
        logs.into_iter().for_each(|log| self.read_on(log, now, u64::MAX));
    }

    /// Whether it has read all that there is.
    pub(crate) fn is_complete(&self, now: u64) -> bool {
        self.partial_until < now && self.feed.values().all(|fed| fed.due <= now)
    }

    /// The messages that it names for these words, whenever it is asked for them from now on: of what is said of others it has not read all, and
    /// may take them out in between.
    pub(crate) fn having(&mut self, words: &[String], now: u64) -> impl Iterator<Item = Place> {
        self.read(now);
        let reached = |log: &u16| self.reached.get(log).copied().unwrap_or(0);
        let unread = self.feed.iter().filter(|((log, position), _)| *position > reached(log));
        let changing: BTreeSet<Place> = unread.filter_map(|(_, fed)| fed.change.place()).collect();
        let has_all = |document: &Document| words.iter().all(|word| document.words.contains(word));
        let known = self.known.iter().filter(move |(_, known)| has_all(known)).map(|(place, _)| *place);
        known.filter(move |place| !changing.contains(place))
    }

    /// What it answers, and how much later, in microseconds.
    pub(crate) fn answer(&mut self, ask: &IndexAsk, now: u64, calm: bool) -> (IndexAnswer, u64) {
        self.read(now);
        let rng = self.dice.as_mut().expect("only who may search asks");
        let delay = if rng.one_in(8) { rng.below(300_000) } else { rng.between(50, 3_000) };
        let (fails, wanders, guesses) = (!calm && rng.one_in(12), rng.one_in(3), rng.one_in(5));
        // Where one conversation is searched nobody but the index sees to it that no other is.
        let wanders = wanders && ask.scope.len() > 1;
        let most = if rng.one_in(6) { rng.below(ask.candidates_max as u64) + 1 } else { u64::MAX };
        let session = ask.session;
        let nothing = IndexAnswer { session, candidates: Vec::new(), more: false, partial: true };
        if fails {
            return (nothing, delay);
        }
        let is_asked_for =
            |place: &Place| ask.scope.iter().any(|(of, from)| *of == place.0 && from.0 <= place.1);
        let has_words = |known: &Document| match guesses {
            true => ask.words.iter().any(|word| known.words.contains(word)),
            false => !ask.words.is_empty() && ask.words.iter().all(|word| known.words.contains(word)),
        };
        let is_below = |place: &HitPlace| ask.before.is_none_or(|before| *place < before);
        let known =
            self.known.iter().filter(|(place, known)| has_words(known) && (wanders || is_asked_for(place)));
        let mut found: Vec<HitPlace> = known
            .map(|((conversation, seq), known)| HitPlace {
                at: known.at,
                conversation: *conversation,
                seq: Seq(*seq),
            })
            .filter(is_below)
            .collect();
        found.sort_unstable_by(|one, other| other.cmp(one));
        let max = ask.candidates_max.min(most as usize);
        let more = found.len() > max;
        found.truncate(max);
        let is_made_up = |place: &&HitPlace| !is_asked_for(&(place.conversation, place.seq.0));
        self.made_up += found.iter().filter(is_made_up).count() as u64;
        let partial = self.partial_until >= now;
        (IndexAnswer { session, candidates: found, more, partial }, delay)
    }
}
