//! Looking up a command: whether its id was stored before, where memory alone does not say.
//!
//! Memory holds fingerprints of the newest ids (`recent`), so a hit there has to be verified by its record; and for an id that may be
//! older than they reach, the records of the conversation's last day are gone through, newest first. Meanwhile the conversation is
//! busy, and what comes for it waits: otherwise the command could be stored twice.

use protocol::event::ErrorCode;
use protocol::ids::UnixMillis;
use protocol::limits::PAGE_BYTES_MAX;
use protocol::record::{Portable, StreamKind as Kind};
use storage_log::{Log, Lookup, Page};

use super::ConversationSide;
use super::jobs::Purpose;
use super::recent::{AHEAD_MAX, FORGOTTEN_AGE, Known, command_of};
use crate::mail::{Linked, Store};
use crate::places::conversation_stream;

/// Records read at a time while an old id is looked up.
const LOOK_UP_PAGE: Page = Page { items_max: 64, bytes_max: PAGE_BYTES_MAX };

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
        let conversation = store.conversation;
        self.slots.get_mut(&conversation).expect("entered").busy = true;
        self.look_up_before(store, clock, u64::MAX, log);
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
        let Some(store) = self.answer_if_stored(store, records, log) else {
            return;
        };
        self.release(store.conversation);
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
        let Some(store) = self.answer_if_stored(store, records, log) else {
            return;
        };
        let oldest = records.last().and_then(|linked| Some((linked.seq.0, at_of(linked.record.as_ref()?)?)));
        // What was stored more than a minute before the id was made is not this command, nor is anything older.
        let made = store.message_id.unix_ms().0.saturating_sub(AHEAD_MAX.as_millis() as u64);
        match oldest {
            Some((seq, at)) if seq > 1 && at >= made && at + (FORGOTTEN_AGE.as_millis() as u64) > clock => {
                self.look_up_before(store, clock, seq, log);
            }
            _ => {
                self.release(store.conversation);
                self.store(store, UnixMillis(clock), log, true);
            }
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
                self.release(store.conversation);
                self.answer_again(&store, known, log);
                return None;
            }
        }
        if records.iter().any(|linked| linked.record.is_none()) {
            // It may be the one that is looked for, and stored twice it must not be.
            self.release(store.conversation);
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
