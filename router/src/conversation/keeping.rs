//! Keeping what users' devices have acknowledged (`taken`): each part as one record of a stream that keeps its last, beside the sightings of users.
//!
//! Nobody is promised it. A part is read before it is written, when it is first heard or asked of, so that what is on the disk of it goes on.

use protocol::ids::UnixMillis;
use protocol::record::{ArchivedTakenV1, Portable, Schema, Stored, StoredBody};
use storage_log::{Answer, Draft, Log};

use super::ConversationSide;
use super::fetch::Fetch;
use super::gathering::Pace;
use super::jobs::Purpose;
use super::taken::{Inbox, PARTS, Taken};
use crate::mail::Linked;

/// How long parts have their turns apart, in microseconds: all of them within ten minutes.
const PART_MICROS: u64 = 600_000_000 / PARTS as u64;

/// How long a part waits until it is written again where the node goes away: what is acknowledged meanwhile would be a record each.
const LEAVING_MICROS: u64 = 1_000_000;

impl ConversationSide {
    /// Has the part read that says of a user what was acknowledged before this start, if it was not.
    pub(super) fn read_taken(&mut self, inbox: &Inbox, log: &mut Log) {
        let part = Taken::part_of(inbox);
        if !self.taken.begin_reading(part) {
            return;
        }
        match log.last(self.places.taken_stream(part)) {
            // Nobody waits for what was never read.
            None => _ = self.taken.enter(part, None),
            Some(location) => {
                let fetch = Fetch::of_last(log, self.places.taken_stream(part), location);
                self.run_for(Purpose::Taken { part }, fetch, log);
            }
        }
    }

    /// It was read, or cannot be.
    pub(super) fn finish_taken(&mut self, part: usize, records: &[Linked], log: &mut Log) {
        let stored = records.first().and_then(|linked| taken(linked.record.as_deref()?));
        if stored.is_none() && self.taken.fail(part) {
            return;
        }
        for (conversation, user) in self.taken.enter(part, stored) {
            self.find_delivered_to(conversation, &user, log);
        }
    }

    /// Writes the parts whose turn it is.
    pub(super) fn keep_taken(&mut self, micros: u64, now: UnixMillis, pace: Pace, log: &mut Log) {
        if pace == Pace::Usual && std::mem::take(&mut self.taken.has_given_up) {
            self.taken.take_up_again();
        }
        let rest_micros = match pace {
            Pace::AtOnce => 0,
            Pace::Leaving => LEAVING_MICROS,
            Pace::Usual if self.taken.is_time(micros, PART_MICROS) => 0,
            Pace::Usual => return,
        };
        while let Some(part) = self.taken.poll_dirty(micros, rest_micros) {
            let (body, number) = self.taken.body(part);
            let number = number.max(log.clock(now.0));
            let draft = Draft {
                stream: self.places.taken_stream(part),
                expected_head: number,
                messages: 0,
                schema: Schema::Taken as u16,
                payload: &body.payload(),
                links: &[],
            };
            match log.append(&[draft], now.0) {
                Answer::Stored(_) => self.taken.note_written(part, number + 1, micros),
                Answer::Busy => break,
                // On a full disk, or where the log has stopped, what stands there is older then.
                _ if pace == Pace::Usual => {}
                _ => self.taken.give_up(part),
            }
            if pace == Pace::Usual {
                break;
            }
        }
        // A part whose index is being made again is not waited for.
        let is_stalled = self.stalled.iter().any(|(_, job)| job.is_of_taken());
        self.taken.is_owed = pace != Pace::Usual && log.is_healthy() && !is_stalled && self.taken.is_dirty();
    }
}

fn taken(record: &[u8]) -> Option<(u64, &ArchivedTakenV1)> {
    let portable = Portable::parse(record).ok()?;
    match Stored::with_checked_sum(portable, record).ok()?.body {
        StoredBody::Taken(taken) => Some((portable.seq.0, taken)),
        _ => None,
    }
}
