//! The amending half of the schedule: which of the messages that were sent lately is edited, deleted or reacted to, by whom, and
//! what was promised of it.
//!
//! All of it belongs to the worker, not to a user: who does not amend costs nothing more.

use std::collections::HashMap;

use protocol::{
    command::{Command, Edit, React},
    event::ErrorCode,
    ids::Seq,
};

use super::{State, desk::Desk, in_flight::Pending};
use crate::{
    clock::Moment,
    letter::Letter,
    plan::{RoomIndex, UserIndex},
    verify::{Amendment, Change, EMOJIS, Overtaken, command_id, emoji_number},
};

/// Messages that may be amended: so few that some are amended often and at once, so many that most are in no cache of the newest.
const RECENT_MAX: usize = 512;
/// Of so many amendments one is a deletion, and this many are edits; the rest are reactions.
const DEEDS: u64 = 6;
const EDITS: u64 = 2;
/// Of so many reactions one is taken back, whether it is there or not.
const REACTIONS_PER_REMOVAL: u64 = 4;

/// A message of a user of this worker that was acknowledged.
#[derive(Clone, Copy)]
struct Sent {
    room: RoomIndex,
    seq: u64,
    author: UserIndex,
}

/// What may be amended, and what was.
#[derive(Default)]
pub(super) struct Amending {
    recent: Vec<Sent>,
    /// Which of them goes next.
    oldest: usize,
    /// What was promised.
    pub(super) promised: Vec<Amendment>,
    /// When the deletion of a message was acknowledged.
    deleted: HashMap<(RoomIndex, u64), Moment>,
}

impl Amending {
    fn remember(&mut self, sent: Sent) {
        if self.recent.len() < RECENT_MAX {
            self.recent.push(sent);
        } else {
            self.recent[self.oldest] = sent;
            self.oldest = (self.oldest + 1) % RECENT_MAX;
        }
    }

    /// Whether a message was known to be deleted at a moment.
    pub(super) fn was_deleted(&self, room: RoomIndex, seq: u64, at: Moment) -> bool {
        self.deleted.get(&(room, seq)).is_some_and(|deleted| *deleted <= at)
    }
}

impl State {
    /// One amendment of a message that was sent lately. False when there is none.
    pub(super) fn amend_one(&mut self, due: Moment) -> bool {
        let desk = &mut self.desk;
        if desk.amending.recent.is_empty() {
            return false;
        }
        let place = desk.random.below(desk.amending.recent.len() as u64) as usize;
        let deed = desk.random.below(DEEDS);
        let sent = desk.amending.recent[place];
        let Some(conversation) = desk.rooms.id(sent.room) else { return false };
        let by = if deed <= EDITS { sent.author } else { desk.reactor(sent.room, sent.author) };
        let user = &mut self.users[desk.config.place_of(by)];
        if user.is_away() {
            return false;
        }
        let id = user.message_id(&mut desk.random);
        let (seq, message_id) = (Seq(sent.seq), Some(id));
        let command = match deed {
            0 => {
                // Who picks it no more may still have an amendment of it under way, which then comes too late.
                desk.amending.recent.swap_remove(place);
                desk.amending.oldest = 0;
                Command::Delete { conversation, seq, message_id }
            }
            1..=EDITS => {
                let letter = Letter { message_id: id, due, room: sent.room, sender: by };
                let bytes = desk.config.load.text_bytes(&mut desk.random);
                let text = letter.write(bytes);
                Command::Edit(Edit { conversation, seq, text, message_id })
            }
            _ => {
                let emoji = EMOJIS[desk.random.below(EMOJIS.len() as u64) as usize].to_owned();
                let on = desk.random.below(REACTIONS_PER_REMOVAL) > 0;
                Command::React(React { conversation, seq, emoji, on, message_id })
            }
        };
        if let Some((_, change)) = amendment_of(&command) {
            desk.searching.note_amending((sent.room, sent.seq), change);
        }
        user.offer(desk, sent.room, Some(due), id, command);
        self.dirty.push(self.desk.config.place_of(by));
        true
    }
}

impl Desk {
    /// Somebody of this worker in a room where `author` is.
    pub(super) fn reactor(&mut self, room: RoomIndex, author: UserIndex) -> UserIndex {
        let mut members = self.plan.room(room).members();
        let place = self.random.below(members.len() as u64) as usize;
        let member = members.nth(place).expect("one of its members");
        if self.config.owns(member) { member } else { author }
    }

    /// A storing command of `user` was acknowledged.
    pub(super) fn handle_stored(&mut self, user: UserIndex, pending: &Pending, seq: u64, now: Moment) {
        let room = pending.room;
        self.begin_search(user, pending, seq, now);
        if let Some((target, change)) = amendment_of(&pending.command) {
            self.tally.counts.amended += 1;
            let command = command_id(pending.message_id);
            let amendment = Amendment { room, seq, target: target.0, by: user, command, change };
            self.amending.promised.push(amendment);
            self.search_amended(user, (room, target.0), seq, &pending.command, now);
            if change == Change::Delete {
                self.amending.deleted.insert((room, target.0), now);
            }
        } else if self.config.mix.amend_weight > 0
            && pending.due.is_some()
            && matches!(pending.command, Command::Send(_))
        {
            self.amending.remember(Sent { room, seq, author: user });
        }
    }

    /// An amendment, if it is one, was refused.
    pub(super) fn note_unamended(&mut self, pending: &Pending) {
        if let Some((target, change)) = amendment_of(&pending.command) {
            self.searching.note_unamended((pending.room, target.0), change);
        }
    }

    /// Whether a refusal says that there is nothing to amend any more; then it is held against the deletions at the end.
    pub(super) fn is_overtaken(&mut self, by: UserIndex, pending: &Pending, code: ErrorCode) -> bool {
        let Some((target, _)) = amendment_of(&pending.command) else { return false };
        let is_overtaken = code == ErrorCode::NotFound;
        if is_overtaken {
            self.tally.counts.overtaken += 1;
            let command = command_id(pending.message_id);
            self.tally.overtaken.push(Overtaken { room: pending.room, target: target.0, by, command });
        }
        is_overtaken
    }
}

/// What a command amends, and how.
fn amendment_of(command: &Command) -> Option<(Seq, Change)> {
    match command {
        Command::Delete { seq, .. } => Some((*seq, Change::Delete)),
        Command::Edit(edit) => Some((edit.seq, Change::Edit)),
        Command::React(react) => {
            let emoji = emoji_number(&react.emoji);
            Some((react.seq, Change::React { emoji, on: react.on }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_are_sent_a_few_are_remembered_the_newest() {
        let mut amending = Amending::default();
        let total = 3 * RECENT_MAX as u64 + 7;
        for seq in 1..=total {
            amending.remember(Sent { room: RoomIndex(0), seq, author: UserIndex(0) });
        }
        let mut sequences: Vec<u64> = amending.recent.iter().map(|sent| sent.seq).collect();
        sequences.sort_unstable();
        assert!(sequences.into_iter().eq(total - RECENT_MAX as u64 + 1..=total));
    }
}
