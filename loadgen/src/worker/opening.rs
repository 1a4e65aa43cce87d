//! Large groups that moved while their reader was away: it is told how far, opens them, and reads from where it stood.

use protocol::{
    command::{Command, HistoryRange},
    event::{Head, PageItem},
    ids::{ConversationId, Seq},
    limits::{HISTORY_ITEMS_MAX, SMALL_GROUP_MEMBERS_MAX},
};

use super::{desk::Desk, history::Who, in_flight::Asked, user::User};
use crate::{clock::Moment, letter::Letter, plan::RoomIndex, verify::Kind};

/// A group that is being read.
pub(super) struct Opening {
    room: RoomIndex,
    conversation: ConversationId,
    /// Read up to here,
    at: u64,
    /// and wanted up to here.
    until: u64,
}

impl User {
    /// The node says that what lies up to `head` does not come. Of a small group it has no reason to.
    pub(super) fn handle_head(&mut self, desk: &mut Desk, head: &Head, now: Moment) {
        let Some(room) = desk.rooms.room(head.conversation) else {
            return self.handle_stranger(desk, head.conversation);
        };
        let name = desk.plan.name(self.index);
        if desk.plan.room(room).members().len() <= SMALL_GROUP_MEMBERS_MAX {
            let (seq, room) = (head.head, room.0);
            desk.tally.violations.add(Kind::Hole, || {
                format!("{name} was told that {seq} is the head of room {room}, and not what is before it")
            });
        }
        desk.tally.counts.heads += 1;
        let stood_at = self.reader.stands().iter().find(|stand| stand.room == room).map(|stand| stand.seen);
        self.pass_over(desk, room, head.conversation, head.head.0, now);
        if let Some(at) = stood_at.filter(|at| *at < head.head.0) {
            let conversation = head.conversation;
            self.read_on(Opening { room, conversation, at, until: head.head.0 });
        }
    }

    /// What lies up to `seq` does not come by itself.
    pub(super) fn pass_over(
        &mut self,
        desk: &mut Desk,
        room: RoomIndex,
        c: ConversationId,
        seq: u64,
        now: Moment,
    ) {
        self.reader.handle_passed_over(room, seq);
        if let Some(history) = &mut desk.history {
            let who = Who { user: &desk.plan.name(self.index), connection: self.connection };
            history.open(now, who, c, seq);
        }
    }

    fn read_on(&mut self, opening: Opening) {
        let (conversation, range) = (opening.conversation, HistoryRange::After(Seq(opening.at)));
        let command = Command::History { conversation, range, limit: HISTORY_ITEMS_MAX };
        self.ask(command, Asked::Page(opening));
    }

    /// A page of a group that was opened: dense from where its reader stood.
    pub(super) fn handle_page(
        &mut self,
        desk: &mut Desk,
        mut opening: Opening,
        items: &[PageItem],
        now: Moment,
    ) {
        let name = desk.plan.name(self.index);
        let Opening { room, conversation, until, .. } = opening;
        for item in items {
            let (seq, message_id) = match item {
                PageItem::Amended(event) => (event.seq.0, event.message_id),
                PageItem::Member(event) => (event.seq.0, event.message_id),
                PageItem::Message(event) => {
                    let letter = Letter::read(&event.text);
                    if !event.deleted && letter.is_none_or(|letter| letter.room != room) {
                        desk.tally.violations.add(Kind::Content, || {
                            format!("{name} read at {} of {conversation} what nobody wrote there", event.seq)
                        });
                    }
                    (event.seq.0, event.message_id)
                }
                PageItem::Gap(gap) => return self.handle_gap(desk, gap, now),
            };
            if seq != opening.at + 1 {
                let at = opening.at;
                desk.tally.violations.add(Kind::Hole, || {
                    format!("{name} read {seq} of {conversation} (room {}) behind {at}", room.0)
                });
            }
            opening.at = seq;
            desk.tally.counts.opened += 1;
            desk.book.note(room, seq, message_id);
        }
        if items.is_empty() && opening.at < until {
            let at = opening.at;
            desk.tally.violations.add(Kind::Hole, || {
                format!(
                    "{name} was told that {until} is the head of {conversation} and finds nothing behind {at}"
                )
            });
        } else if opening.at < until {
            self.read_on(opening);
        }
    }
}
