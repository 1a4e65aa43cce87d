//! What a user makes of the answers to its commands: promises are entered in the book, refusals are counted or tried again later.

use std::time::Duration;

use protocol::event::{ErrorCode, ErrorReply, OkReply};

use super::{
    desk::Desk,
    in_flight::{Asked, Flight, Pending},
    user::{RETRY_AFTER, User},
};
use crate::{
    clock::Moment,
    verify::{Kind, Outsider},
};

impl User {
    pub(super) fn handle_ok(&mut self, desk: &mut Desk, ok: &OkReply, now: Moment) {
        let Some(Flight { asked_at, asked, .. }) = self.in_flight.take(ok.id.0) else { return };
        let mut pending = match asked {
            Asked::Store(pending) => pending,
            Asked::Read { room, seq, due } => return self.handle_read(desk, room, seq, due, now),
            _ => return,
        };
        let (Some(conversation), Some(seq)) = (ok.conversation, ok.seq) else {
            return self.handle_unchanged(desk, pending, (asked_at, now));
        };
        if ok.message_id.is_some_and(|id| id != pending.message_id) {
            desk.tally.violations.add(Kind::Content, || {
                format!("the ok to {} is about {:?}", pending.message_id, ok.message_id)
            });
        }
        desk.learn(pending.room, conversation);
        desk.book.acknowledge(pending.room, seq.0, pending.message_id);
        desk.tally.stored_now += 1;
        desk.handle_stored(self.index, &pending, seq.0, now);
        self.log_send(desk, &mut pending);
        if let Some(history) = &mut desk.history {
            history.ack(now, pending.message_id, seq.0);
        }
        if pending.is_change() {
            return desk.handle_changed(self.index, &pending, seq.0, now);
        }
        if let Some(due) = pending.due {
            desk.tally.counts.acked += 1;
            desk.tally.ack.record(now.since(due), desk.outage.touches(due, now));
        }
    }

    /// A command was answered without a place. Of a change of members that may be right: it is held against the log at the end.
    fn handle_unchanged(&mut self, desk: &mut Desk, mut pending: Pending, (asked_at, now): (Moment, Moment)) {
        self.log_send(desk, &mut pending);
        if let Some(history) = &mut desk.history {
            history.nak(now, pending.message_id);
        }
        let asker = Outsider { user: self.index, room: pending.room, asked_at, at: now };
        if !desk.is_unchanged(asker, &pending) {
            desk.note_unamended(&pending);
            desk.tally.violations.add(Kind::Content, || "an ok to a send names no place".to_owned());
        }
    }

    pub(super) fn handle_error(&mut self, desk: &mut Desk, error: ErrorReply, now: Moment) {
        let flight = error.id.and_then(|id| self.in_flight.take(id.0));
        let (asked_at, asked) = flight.map_or((now, None), |flight| (flight.asked_at, Some(flight.asked)));
        let user = self.index;
        let outsider = |room| Outsider { user, room, asked_at, at: now };
        // Who has left and looks is refused: as it should be.
        let is_left = matches!(asked, Some(Asked::Look { left: Some(_), .. }));
        if is_left && error.code == ErrorCode::NotAMember {
            return;
        }
        *desk.tally.errors.entry(error.code.name().to_owned()).or_default() += 1;
        let mut pending = match asked {
            Some(Asked::Store(pending)) => pending,
            Some(asked @ (Asked::Read { .. } | Asked::View(_))) => {
                return self.handle_attention_refused(desk, &asked, &error, (asked_at, now));
            }
            Some(Asked::Page) => return self.handle_page_refused(desk, &error, (asked_at, now)),
            // Who had just joined may have left meanwhile.
            Some(Asked::Look { room, .. }) if desk.is_outside(outsider(room), error.code) => return,
            Some(Asked::Search(quest)) => return self.handle_search_refused(desk, *quest, &error, now),
            // What becomes of a `connect` says the close behind it.
            asked => {
                let is_refused = matches!(asked, Some(Asked::Look { .. } | Asked::Ping));
                desk.tally.counts.others_refused += u64::from(is_refused && !error.code.retryable());
                desk.last_fault = Some(format!("{}: {}", error.code.name(), error.message));
                return;
            }
        };
        if error.code.retryable() {
            let wait = error.retry_after_ms.map_or(RETRY_AFTER, Duration::from_millis);
            self.retrying += 1;
            desk.retries.push((now.after(wait), self.place, pending));
            return;
        }
        self.log_send(desk, &mut pending);
        if let Some(history) = &mut desk.history {
            history.nak(now, pending.message_id);
        }
        desk.note_unamended(&pending);
        desk.tally.refused.push(pending.message_id.to_string());
        let is_nobodys_fault = match pending.is_change() {
            true => desk.is_outrun(outsider(pending.room), &pending, error.code),
            false => {
                desk.is_overtaken(self.index, &pending, error.code)
                    || desk.is_outside(outsider(pending.room), error.code)
            }
        };
        if !is_nobodys_fault {
            desk.last_fault = Some(format!("{}: {}", error.code.name(), error.message));
            desk.tally.counts.refused += 1;
        }
    }
}
