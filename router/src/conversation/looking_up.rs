//! Looking up a command: whether its id was stored before, where memory alone does not say.
//!
//! Memory holds fingerprints of the newest ids (`recent`), so a hit there has to be verified by its record: for that one read the conversation is
//! busy. For an id that may be older than they reach, the records of the conversation's last day are gone through, newest first: whoever
//! comes back with what was written an hour ago has that done for each of it, and of a busy group it is thousands of records. Only a command of the
//! same user can be the same, and only that user's have an order among them: so whatever that user asks of the conversation waits behind it, in
//! order, and everybody else goes on.

use std::collections::VecDeque;

use hashbrown::HashMap;
use protocol::event::ErrorCode;
use protocol::ids::{ConversationId, UnixMillis, UserId};
use protocol::limits::PAGE_BYTES_MAX;
use protocol::record::{Portable, StreamKind as Kind};
use storage_log::{Log, Lookup, Page};

use super::ConversationSide;
use super::jobs::Purpose;
use super::recent::{AHEAD_MAX, FORGOTTEN_AGE, Known, command_of};
use super::slots::Entrant;
use super::state::Refusal;
use crate::mail::{Linked, Store};
use crate::places::conversation_stream;

/// Records read at a time while an old id is looked up.
const LOOK_UP_PAGE: Page = Page { items_max: 64, bytes_max: PAGE_BYTES_MAX };

/// Of a command that is looked up: where, and whose. There is one of each at a time.
type Asked = (ConversationId, UserId);

/// Commands that are being looked up.
#[derive(Default)]
pub(super) struct LookUps {
    /// What their users have asked there since, in order. Bounded by what the sessions of a user may have under way.
    behind: HashMap<Asked, VecDeque<Entrant>, foldhash::fast::RandomState>,
    /// Those that have ended, each with its command if that is yet to be stored.
    ended: VecDeque<(Asked, Option<Box<Store>>)>,
}

impl ConversationSide {
    /// An id that memory may know: the records say whether one of them is this command.
    pub(super) fn start_verify(
        &mut self,
        store: Box<Store>,
        candidates: &[u64],
        now: UnixMillis,
        log: &mut Log,
    ) {
        let stream = conversation_stream(store.conversation, Kind::Messages);
        // What is not durable is known by its whole key, and is not this.
        let only = Page { items_max: 1, ..LOOK_UP_PAGE };
        let lookup = |seq: &u64| Lookup::before(log, stream, seq + 1, *seq, only);
        let lookups = candidates.iter().map(lookup).collect();
        self.slots.get_mut(&store.conversation).expect("entered").busy = true;
        self.start(Purpose::Verify { store, now }, lookups, log);
    }

    /// An id older than memory reaches: look through the conversation's last day, newest first.
    pub(super) fn start_look_up(&mut self, store: Box<Store>, clock: u64, log: &mut Log) {
        let slot = self.slots.get_mut(&store.conversation).expect("entered");
        let pending = std::mem::take(&mut slot.pending).into_iter();
        let (behind, others) = pending.partition(|entrant| entrant.asked_by() == Some(&store.user));
        slot.pending = others;
        self.look_ups.behind.insert((store.conversation, store.user.clone()), behind);
        self.look_up_before(store, clock, u64::MAX, log);
    }

    /// What a user asks of a conversation waits behind a command of that user which is looked up there. Given back if there is none.
    pub(super) fn wait_behind_look_up(
        &mut self,
        conversation: ConversationId,
        entrant: Entrant,
    ) -> Option<Entrant> {
        if self.look_ups.behind.is_empty() {
            return Some(entrant);
        }
        let of = entrant.asked_by().map(|user| (conversation, user.clone()));
        let Some(behind) = of.and_then(|of| self.look_ups.behind.get_mut(&of)) else {
            return Some(entrant);
        };
        behind.push_back(entrant);
        None
    }

    /// Goes on with a command that was looked up, and with what has waited behind it. Whether there was one.
    pub(super) fn go_on_behind_look_up(&mut self, now: UnixMillis, log: &mut Log) -> bool {
        let Some((of, store)) = self.look_ups.ended.pop_front() else { return false };
        let behind = self.look_ups.behind.remove(&of).expect("it was looked up");
        for entrant in store.map(Entrant::LookedUp).into_iter().chain(behind) {
            self.enter(of.0, entrant, now, log);
        }
        true
    }

    /// The disk does not say.
    pub(super) fn give_up_look_up(&mut self, store: &Store, refusal: Refusal) {
        self.look_ups.ended.push_back(((store.conversation, store.user.clone()), None));
        self.refuse(store.asker, refusal);
    }

    fn look_up_before(&mut self, store: Box<Store>, clock: u64, before: u64, log: &mut Log) {
        let stream = conversation_stream(store.conversation, Kind::Messages);
        let lookup = Lookup::before(log, stream, before, 0, LOOK_UP_PAGE);
        self.start(Purpose::LookUp { store, clock }, vec![lookup], log);
    }

    /// Nothing older has to be asked: either one of the candidates is this command, or only its fingerprint was the same.
    pub(super) fn finish_verify(
        &mut self,
        store: Box<Store>,
        records: &[Linked],
        now: UnixMillis,
        log: &mut Log,
    ) {
        self.release(store.conversation);
        let Some(store) = self.answer_if_stored(store, records, log) else {
            return;
        };
        if let Some(store) = self.judge_age(store, now, log) {
            self.store(store, now, log, true);
        }
    }

    pub(super) fn finish_look_up(
        &mut self,
        store: Box<Store>,
        clock: u64,
        records: &[Linked],
        log: &mut Log,
    ) {
        let of = (store.conversation, store.user.clone());
        let Some(store) = self.answer_if_stored(store, records, log) else {
            return self.look_ups.ended.push_back((of, None));
        };
        let oldest = records.last().and_then(|linked| Some((linked.seq.0, at_of(linked.record.as_ref()?)?)));
        // What was stored more than a minute before the id was made is not this command, nor is anything older.
        let made = store.message_id.unix_ms().0.saturating_sub(AHEAD_MAX.as_millis() as u64);
        match oldest {
            Some((seq, at)) if seq > 1 && at >= made && at + (FORGOTTEN_AGE.as_millis() as u64) > clock => {
                self.look_up_before(store, clock, seq, log);
            }
            _ => self.look_ups.ended.push_back((of, Some(store))),
        }
    }

    /// Gives the command back if it is in none of the records; ends the look-up if it is, or if one cannot be read.
    fn answer_if_stored(
        &mut self,
        store: Box<Store>,
        records: &[Linked],
        log: &mut Log,
    ) -> Option<Box<Store>> {
        for linked in records {
            let Some((at, (user, message_id, content_hash))) =
                linked.record.as_ref().and_then(|bytes| Some((at_of(bytes)?, command_of(bytes)?)))
            else {
                continue;
            };
            if user == store.user.as_bytes() && message_id == store.message_id.0 {
                let known = Known { seq: linked.seq.0, at, position: linked.position, content_hash };
                self.answer_again(&store, known, log);
                return None;
            }
        }
        if records.iter().any(|linked| linked.record.is_none()) {
            // It may be the one that is looked for, and stored twice it must not be.
            let refusal = (ErrorCode::Unavailable, "the disk does not say whether this was stored before");
            self.refuse(store.asker, refusal);
            return None;
        }
        Some(store)
    }
}

fn at_of(record: &[u8]) -> Option<u64> {
    Portable::parse(record).ok().map(|portable| portable.at.0)
}
