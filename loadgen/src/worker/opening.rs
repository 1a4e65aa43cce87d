//! Large groups that moved while their reader was away: it is told how far, opens them, and reads from where it stood.
//!
//! One page of a user is under way at a time. What a connection that ends leaves unread is read on the next one, and what is unread at the end
//! of a run was not read.

use protocol::{
    command::{Command, HistoryPolicy, HistoryRange},
    event::{AmendedForm, ErrorReply, Head, PageItem},
    ids::{ConversationId, MessageId, Seq},
    limits::{HISTORY_ITEMS_MAX, SMALL_GROUP_MEMBERS_MAX},
};

use super::{
    desk::Desk,
    history::Who,
    in_flight::Asked,
    user::{RETRY_AFTER, User},
};
use crate::{
    clock::Moment,
    letter::Letter,
    plan::RoomIndex,
    verify::{Kind, Outsider, ShownPage},
};

/// A group that is being read.
pub(super) struct Opening {
    room: RoomIndex,
    conversation: ConversationId,
    /// Read up to here,
    at: u64,
    /// and wanted up to here.
    until: u64,
}

/// Groups that are still to be read.
#[derive(Default)]
pub(super) struct Openings {
    /// The first one is being read.
    waiting: Vec<Opening>,
    is_asked: bool,
    /// The node asked for patience.
    resume_at: Moment,
}

impl Openings {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The connection ended.
    pub(super) fn handle_lost(&mut self) {
        self.is_asked = false;
    }

    fn want(&mut self, opening: Opening) {
        match self.waiting.iter_mut().find(|waiting| waiting.room == opening.room) {
            Some(waiting) => waiting.until = waiting.until.max(opening.until),
            None => self.waiting.push(opening),
        }
    }

    fn end(&mut self) {
        self.waiting.remove(0);
        if self.waiting.is_empty() {
            self.waiting = Vec::new();
        }
    }
}

impl User {
    /// The node says that what lies up to `head` does not come. Of a small group it has no reason to.
    pub(super) fn handle_head(&mut self, desk: &mut Desk, head: &Head, now: Moment) {
        let Some(room) = desk.rooms.room(head.conversation) else {
            return self.handle_stranger(desk, head.conversation);
        };
        let name = desk.plan.name(self.index);
        if desk.plan.members_max(room) <= SMALL_GROUP_MEMBERS_MAX {
            let (seq, room) = (head.head, room.0);
            desk.tally.violations.add(Kind::Hole, || {
                format!("{name} was told that {seq} is the head of room {room}, and not what is before it")
            });
        }
        if !self.reader.is_in(room) {
            let (seq, room) = (head.head, room.0);
            desk.tally.violations.add(Kind::Membership, || {
                format!("{name} was told that {seq} is the head of room {room}, which it is not in")
            });
            return;
        }
        desk.tally.counts.heads += 1;
        let stood_at = self.reader.stands().iter().find(|stand| stand.room == room).map(|stand| stand.seen);
        self.pass_over(desk, room, head.conversation, head.head.0, now);
        if let Some(at) = stood_at.filter(|at| *at < head.head.0) {
            let conversation = head.conversation;
            self.openings.want(Opening { room, conversation, at, until: head.head.0 });
            self.pump_openings(now);
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

    /// Asks for the next page of what is to be read. True when something is to be written.
    pub(super) fn pump_openings(&mut self, now: Moment) -> bool {
        if self.openings.is_asked || !self.has_session() || now < self.openings.resume_at {
            return false;
        }
        let Some(opening) = self.openings.waiting.first() else { return false };
        let (conversation, range) = (opening.conversation, HistoryRange::After(Seq(opening.at)));
        self.openings.is_asked = true;
        self.ask(Command::History { conversation, range, limit: HISTORY_ITEMS_MAX }, Asked::Page);
        true
    }

    /// A page of the group that is being read: dense from where its reader stood, or from where it may read by now.
    pub(super) fn handle_page(&mut self, desk: &mut Desk, items: &[PageItem], now: Moment) {
        self.openings.is_asked = false;
        let Some(opening) = self.openings.waiting.first() else { return };
        let Opening { room, conversation, at, until } = *opening;
        self.note_page(desk, room, at + 1, None, items, now);
        let Some(at) = self.read_page(desk, room, conversation, at, items) else {
            self.openings.end();
            return self.note_whole(desk, now);
        };
        if items.is_empty() && at < until {
            let name = desk.plan.name(self.index);
            desk.tally.violations.add(Kind::Hole, || {
                format!(
                    "{name} was told that {until} is the head of {conversation} and finds nothing behind {at}"
                )
            });
        }
        self.openings.waiting[0].at = at;
        if items.is_empty() || at >= until {
            self.openings.end();
        }
        self.pump_openings(now);
        self.note_whole(desk, now);
    }

    /// Reads a page of what lies behind `at`, and says up to where; `None` where some of it cannot be served.
    fn read_page(
        &self,
        desk: &mut Desk,
        room: RoomIndex,
        conversation: ConversationId,
        mut at: u64,
        items: &[PageItem],
    ) -> Option<u64> {
        let name = desk.plan.name(self.index);
        // Who left and came back may have nothing of what was before: that is judged by the log.
        let mut may_skip = desk.plan.history(room) == HistoryPolicy::Joined;
        for item in items {
            let Some((seq, message_id)) = place_of(item) else {
                let PageItem::Gap(gap) = item else { unreachable!("all others have a place") };
                desk.note_gap(&name, gap);
                return None;
            };
            if let PageItem::Message(event) = item {
                let letter = Letter::read(&event.text);
                if !event.deleted && letter.is_none_or(|letter| letter.room != room) {
                    desk.tally.violations.add(Kind::Content, || {
                        format!("{name} read at {seq} of {conversation} what nobody wrote there")
                    });
                }
            }
            if seq != at + 1 && !(may_skip && seq > at) {
                desk.tally.violations.add(Kind::Hole, || {
                    format!("{name} read {seq} of {conversation} (room {}) behind {at}", room.0)
                });
            }
            (at, may_skip) = (seq, false);
            desk.tally.counts.opened += 1;
            desk.book.note(room, seq, message_id);
        }
        Some(at)
    }

    /// What somebody sees of a conversation that it has just joined or left. Who is in it sees the record of its joining at least, and who is out is
    /// refused: a page without anything is of neither.
    pub(super) fn handle_looked(
        &self,
        desk: &mut Desk,
        room: RoomIndex,
        left: Option<u64>,
        items: &[PageItem],
        now: Moment,
    ) {
        let name = desk.plan.name(self.index);
        for item in items {
            if let PageItem::Gap(gap) = item {
                desk.note_gap(&name, gap);
            }
        }
        if items.is_empty() {
            let (kind, stand) = match left {
                Some(_) => (Kind::Membership, "has left"),
                None => (Kind::Hole, "has joined"),
            };
            desk.tally.violations.add(kind, || {
                format!("{name} looked at room {}, which it {stand}, and was shown an empty page", room.0)
            });
        }
        self.note_page(desk, room, 1, left, items, now);
    }

    /// What a page showed of a group whose members change is held against its log.
    fn note_page(
        &self,
        desk: &mut Desk,
        room: RoomIndex,
        asked: u64,
        left: Option<u64>,
        items: &[PageItem],
        at: Moment,
    ) {
        let mut places = items.iter().filter_map(place_of).map(|(seq, _)| seq);
        let (Some(first), true) = (places.next(), desk.plan.is_changing(room)) else { return };
        let last = places.next_back().unwrap_or(first);
        let targets = items.iter().filter_map(|item| match item {
            PageItem::Amended(event) if matches!(event.form, AmendedForm::Shown { .. }) => {
                Some(event.target.0)
            }
            _ => None,
        });
        let lowest = targets.min().map_or(first, |target| target.min(first));
        let user = self.index;
        desk.churning.book.pages.push(ShownPage { user, room, asked, first, lowest, last, at, left });
    }

    /// A page was refused: who was taken out of the group meanwhile does not read it any more.
    pub(super) fn handle_page_refused(
        &mut self,
        desk: &mut Desk,
        error: &ErrorReply,
        (asked_at, now): (Moment, Moment),
    ) {
        self.openings.is_asked = false;
        let Some(opening) = self.openings.waiting.first() else { return };
        let (room, conversation) = (opening.room, opening.conversation);
        if error.code.retryable() {
            let wait = error.retry_after_ms.map_or(RETRY_AFTER, std::time::Duration::from_millis);
            self.openings.resume_at = now.after(wait);
            return;
        }
        let outsider = Outsider { user: self.index, room, asked_at, at: now };
        if !desk.is_outside(outsider, error.code) {
            let name = desk.plan.name(self.index);
            desk.tally.violations.add(Kind::Hole, || {
                format!("{name} could not read {conversation} (room {}): {}", room.0, error.code.name())
            });
        }
        self.openings.end();
        self.pump_openings(now);
        self.note_whole(desk, now);
    }

    /// What was not read at the end.
    pub(super) fn judge_openings(&self, desk: &mut Desk) {
        let name = desk.plan.name(self.index);
        for Opening { room, at, until, .. } in &self.openings.waiting {
            desk.tally.violations.add(Kind::Hole, || {
                format!("{name} was told that {until} is the head of room {} and read up to {at}", room.0)
            });
        }
    }
}

/// Where an item stands, and under which name.
fn place_of(item: &PageItem) -> Option<(u64, MessageId)> {
    match item {
        PageItem::Amended(event) => Some((event.seq.0, event.message_id)),
        PageItem::Member(event) => Some((event.seq.0, event.message_id)),
        PageItem::Message(event) => Some((event.seq.0, event.message_id)),
        PageItem::Gap(_) => None,
    }
}
