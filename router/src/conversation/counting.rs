//! Where what is kept of a conversation begins, and how many messages stand before that: those are read by nobody any more, and so they are
//! not unread.
//!
//! A setting says it by a number or by a time; which sequence that is, and how many messages there are up to it, stands in the records. So a **window** of
//! them is read, found by doubling and then halving where it is a time, and serves until the front has moved through it.
//!
//! A record that cannot be read does not say when it was stored. It is held to be in front where what follows it is not: it is a gap, and nobody misses it.

use hashbrown::HashMap;
use protocol::ids::{ConversationId, Seq};
use protocol::record::{Portable, SCHEMA_GONE, Schema, StreamKind as Kind};
use storage_log::{Head, Log, Lookup, Page};

use super::ConversationSide;
use super::jobs::Purpose;
use super::kept::Front;
use super::slots::Entrant;
use super::state::Refusal;
use crate::mail::Linked;
use crate::places::conversation_stream;

/// Records of a window: while so many are said, nothing is read.
const RECORDS_MAX: usize = 64;

/// And their bytes, so that there are some also of the longest.
const WINDOW: Page = Page { items_max: RECORDS_MAX, bytes_max: 256 << 10 };

/// Windows in memory, at most 1.5 KiB each: of conversations that somebody has just asked for. Then all are let go, and read again.
const WINDOWS_MAX: usize = 4_096;

/// Where what is kept begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Begin {
    /// Its first sequence,
    pub(super) seq: Seq,
    /// and the messages before.
    pub(super) messages: u64,
}

struct Seen {
    seq: u64,
    at: u64,
    /// Messages before it.
    before: u64,
}

/// Some records that follow each other, those before which are known to be in front.
struct Window {
    from: u64,
    to: u64,
    records: Vec<Seen>,
}

#[derive(Default)]
pub(super) struct Windows(HashMap<ConversationId, Window, foldhash::fast::RandomState>);

/// The search for a window.
pub(super) struct Search {
    pub(super) conversation: ConversationId,
    front: Front,
    /// Where it began.
    from: u64,
    /// All before this is in front,
    low: u64,
    /// and this is not; one more than the head where that is not known of any.
    high: u64,
    head: u64,
    /// Is being read.
    probe: u64,
    step: u64,
}

impl Seen {
    fn of(linked: &Linked) -> Option<Self> {
        let portable = Portable::parse(linked.record.as_ref()?).ok()?;
        // What is erased there is an amendment of something in front, as a rule; and a message that was erased is missing to nobody.
        let may_count = [Schema::Message as u16, SCHEMA_GONE].contains(&portable.schema);
        let before = portable.message_count.saturating_sub(u64::from(may_count));
        Some(Self { seq: linked.seq.0, at: portable.at.0, before })
    }
}

impl Window {
    /// Where what is kept begins, if that is within it.
    fn begin(&self, front: Front, head: Head) -> Option<Begin> {
        let low = front.seq.0.max(1);
        if low < self.from {
            return None;
        }
        match self.records.iter().find(|seen| seen.seq >= low && seen.at >= front.at.0) {
            Some(seen) => Some(Begin { seq: Seq(seen.seq), messages: seen.before }),
            None if self.to >= head.seq => {
                Some(Begin { seq: Seq(head.seq + 1), messages: head.message_count })
            }
            None => None,
        }
    }
}

impl Search {
    /// Takes what was read: the window, or else goes on.
    fn take(&mut self, records: &[Linked]) -> Option<Window> {
        let seen: Vec<Seen> = records.iter().filter_map(Seen::of).collect();
        let to = records.last().map_or(self.head, |last| last.seq.0);
        let is_kept = |seen: &Seen| seen.at >= self.front.at.0;
        if self.probe > self.low && seen.first().is_some_and(is_kept) {
            self.high = self.probe;
        } else if seen.last().is_some_and(is_kept) || to >= self.head {
            return Some(Window { from: self.from, to, records: seen });
        } else {
            self.low = to + 1;
            // What was held not to be in front could not be read.
            self.high = if self.low > self.high { self.head + 1 } else { self.high };
        }
        self.step *= 2;
        self.probe = match self.low + self.step {
            ahead if ahead < self.high => ahead,
            _ if self.high - self.low <= RECORDS_MAX as u64 => self.low,
            _ => u64::midpoint(self.low, self.high),
        };
        None
    }
}

impl ConversationSide {
    /// Where what is kept of a conversation begins; `None`: that has to be read first.
    pub(super) fn begin_of(&self, conversation: ConversationId, log: &Log) -> Option<Begin> {
        match self.front(conversation, log) {
            None => Some(Begin { seq: Seq(1), messages: 0 }),
            Some(front) => {
                let head = self.durable_head(conversation, log);
                self.fronts.windows.0.get(&conversation)?.begin(front, head)
            }
        }
    }

    /// The first sequence that may be kept, as far as that is known without reading.
    pub(super) fn begins_from(&self, conversation: ConversationId, log: &Log) -> Seq {
        let known = self.begin_of(conversation, log).map(|begin| begin.seq);
        let at_least = || self.front(conversation, log).map_or(Seq(1), |front| front.seq.max(Seq(1)));
        known.unwrap_or_else(at_least)
    }

    /// Finds out where what is kept of a conversation begins, which is busy until then.
    pub(super) fn start_counting(&mut self, conversation: ConversationId, log: &mut Log) {
        let front = self.front(conversation, log).expect("something is set of it");
        let head = log.durable_head(conversation_stream(conversation, Kind::Messages)).seq;
        self.slots.get_mut(&conversation).expect("entered").busy = true;
        let from = front.seq.0.max(1);
        let (low, high, probe, step) = (from, head + 1, from, RECORDS_MAX as u64 / 2);
        self.look(Box::new(Search { conversation, front, from, low, high, head, probe, step }), log);
    }

    fn look(&mut self, search: Box<Search>, log: &mut Log) {
        let stream = conversation_stream(search.conversation, Kind::Messages);
        let lookup = Lookup::after(log, stream, search.probe - 1, WINDOW);
        self.start(Purpose::Counting(search), vec![lookup], log);
    }

    pub(super) fn finish_counting(&mut self, mut search: Box<Search>, records: &[Linked], log: &mut Log) {
        let Some(window) = search.take(records) else {
            return self.look(search, log);
        };
        let Windows(windows) = &mut self.fronts.windows;
        if windows.len() >= WINDOWS_MAX {
            windows.clear();
        }
        windows.insert(search.conversation, window);
        self.release(search.conversation);
    }

    /// It cannot be found out now: who waits for it is told, and who asks next has it read again.
    pub(super) fn give_up_counting(&mut self, search: &Search, refusal: Refusal) {
        self.release_without(search.conversation, Entrant::needs_begin, refusal);
    }
}
