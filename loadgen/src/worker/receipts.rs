//! The receiving half of a user: every message, amendment, membership change, head and gap, held against
//! what this reader has seen and against the text itself.

use protocol::{
    command::HistoryPolicy,
    event::{AmendedEvent, AmendedForm, Gap, MemberEvent, MessageEvent},
    ids::{ConversationId, MessageId, UserId},
};

use super::{
    desk::Desk,
    history::{Source, Who},
    user::{Presence, User},
};
use crate::{
    clock::Moment,
    letter::Letter,
    plan::RoomIndex,
    verify::{Kind, Receipt},
};

/// A sequence that arrived, and the room it belongs to by what it says of itself.
struct Item {
    room: RoomIndex,
    conversation: ConversationId,
    seq: u64,
    message_id: MessageId,
}

impl User {
    pub(super) fn handle_message(&mut self, desk: &mut Desk, event: &MessageEvent, now: Moment) {
        if let Some(room) = desk.rooms.room(event.conversation) {
            self.attend(desk, room, event.seq.0, &event.sender);
        }
        if event.deleted {
            self.handle_letterless(desk, event.conversation, event.seq.0, event.message_id, now);
            return;
        }
        let letter = Letter::read(&event.text).filter(|letter| is_sound(letter, event, desk));
        let Some(letter) = letter else {
            let (seq, conversation) = (event.seq, event.conversation);
            desk.tally.violations.add(Kind::Content, || {
                format!("sequence {seq} of {conversation} holds a text that its sender did not write")
            });
            return;
        };
        let (conversation, seq, message_id) = (event.conversation, event.seq.0, event.message_id);
        let item = Item { room: letter.room, conversation, seq, message_id };
        let receipt = self.handle_item(desk, &item, now);
        self.check_deletion(desk, letter.room, seq);
        // The first messages of rooms are not part of the schedule, and an edited text is of another time.
        let is_timed = letter.due != Moment::default() && event.edited_at.is_none();
        if receipt == Receipt::New && letter.sender != self.index && is_timed {
            desk.tally.counts.delivered += 1;
            if self.is_catching_up_after_absence() {
                desk.tally.counts.missed += 1;
            } else {
                let latency = now.since(letter.due);
                desk.tally.delivery.record(latency, desk.outage.touches(letter.due, now));
                desk.tally.delivery_now.record(latency);
            }
            self.read_some(desk, letter.room, seq, now);
        }
    }

    pub(super) fn handle_amended(&mut self, desk: &mut Desk, event: &AmendedEvent, now: Moment) {
        let AmendedEvent { conversation, seq, message_id, target, .. } = event;
        self.handle_letterless(desk, *conversation, seq.0, *message_id, now);
        // Of a stranger's conversation that was told.
        let Some(room) = desk.rooms.room(*conversation) else { return };
        // Everybody may see everything of its rooms, but who joined one that shows what was before to nobody.
        let from_join = desk.plan.history(room) == HistoryPolicy::Joined;
        let is_hidden = from_join && target.0 < self.reader.joined(room, seq.0);
        let is_sound = match &event.form {
            AmendedForm::Deleted => return,
            // That says nothing of the message.
            AmendedForm::Hidden if is_hidden => return,
            AmendedForm::Hidden => false,
            AmendedForm::Shown { text, .. } => {
                if is_hidden {
                    let name = desk.plan.name(self.index);
                    desk.tally.violations.add(Kind::Membership, || {
                        format!(
                            "{name} was told by {seq} what {target} of room {} says, and joined later",
                            room.0
                        )
                    });
                }
                let letter = Letter::read(text);
                letter.is_some_and(|letter| letter.room == room && is_of_member(&letter, desk))
            }
        };
        if !is_sound {
            desk.tally.violations.add(Kind::Content, || {
                format!("sequence {seq} of {conversation} says of {target} what nobody wrote")
            });
        }
        self.check_deletion(desk, room, target.0);
    }

    /// Somebody was told what a message says. On a connection that began after its deletion was acknowledged that is too late;
    /// what is live may be older than an acknowledgement.
    fn check_deletion(&self, desk: &mut Desk, room: RoomIndex, target: u64) {
        let Some(lost_at) = self.lost_at else { return };
        if desk.amending.was_deleted(room, target, lost_at) {
            let name = desk.plan.name(self.index);
            desk.tally.violations.add(Kind::DeletedShown, || {
                format!(
                    "{name} came back and was told what {target} of room {} says, which was deleted",
                    room.0
                )
            });
        }
    }

    /// What takes a sequence and holds no letter that would name its room: an amendment, or a message that is deleted.
    fn handle_letterless(
        &mut self,
        desk: &mut Desk,
        conversation: ConversationId,
        seq: u64,
        message_id: MessageId,
        now: Moment,
    ) {
        let Some(room) = desk.rooms.room(conversation) else {
            self.handle_stranger(desk, conversation);
            return;
        };
        self.handle_item(desk, &Item { room, conversation, seq, message_id }, now);
    }

    pub(super) fn handle_member(&mut self, desk: &mut Desk, event: &MemberEvent, now: Moment) {
        let known = desk.rooms.room(event.conversation);
        let titled = || desk.plan.room_of_title(event.title.as_deref()?);
        let Some(room) = known.or_else(titled) else {
            self.handle_stranger(desk, event.conversation);
            return;
        };
        let (conversation, seq, message_id) = (event.conversation, event.seq.0, event.message_id);
        let (joins, leaves) = match desk.plan.is_changing(room) {
            true => {
                let name = desk.plan.name(self.index);
                (event.added.contains(&name), event.removed.contains(&name))
            }
            false => (false, false),
        };
        if joins {
            self.reader.handle_join(room, seq);
        }
        let receipt = self.handle_item(desk, &Item { room, conversation, seq, message_id }, now);
        if leaves {
            self.reader.handle_leave(room, seq);
        }
        if receipt == Receipt::New {
            self.handle_change(desk, room, event);
        }
    }

    fn handle_item(&mut self, desk: &mut Desk, item: &Item, now: Moment) -> Receipt {
        let Item { room, conversation, seq, message_id } = *item;
        desk.tally.counts.received += 1;
        let opens_at = self.opens_at(room).filter(|_| desk.history.is_some());
        let receipt = self.reader.handle_item(room, seq);
        let name = || desk.plan.name(self.index);
        let violations = &mut desk.tally.violations;
        match receipt {
            Receipt::New => {}
            Receipt::Replayed => desk.tally.counts.replayed += 1,
            Receipt::NoMember => {
                violations.add(Kind::Recipient, || format!("{} received {seq} of {conversation}", name()));
                return receipt;
            }
            Receipt::Outside => {
                violations.add(Kind::Membership, || {
                    format!("{} received {seq} of {conversation} (room {}) and is not in it", name(), room.0)
                });
                return receipt;
            }
            Receipt::Skipped { expected } => violations.add(Kind::Hole, || {
                format!("{} received {seq} of {conversation} (room {}) before {expected}", name(), room.0)
            }),
            Receipt::Back { expected } => violations.add(Kind::Order, || {
                format!("{} received {seq} of {conversation} (room {}) and was at {expected}", name(), room.0)
            }),
        }
        desk.learn(room, conversation);
        desk.book.note(room, seq, message_id);
        if let Some(history) = &mut desk.history {
            let who = Who { user: &desk.plan.name(self.index), connection: self.connection };
            if let Some(at) = opens_at {
                history.open(now, who, conversation, at);
            }
            let source = if self.presence == Presence::Live { Source::Live } else { Source::Replay };
            history.receive(now, who, conversation, (seq, message_id), source);
        }
        receipt
    }

    /// Where each conversation goes on, on a connection that begins. Those that have no name yet follow
    /// with their first sequence.
    pub(super) fn log_opens(&self, desk: &mut Desk, now: Moment) {
        let Some(history) = &mut desk.history else { return };
        let who = Who { user: &desk.plan.name(self.index), connection: self.connection };
        for stand in self.reader.stands().iter().filter(|stand| stand.seen > 0) {
            if let Some(conversation) = desk.rooms.id(stand.room) {
                history.open(now, who, conversation, stand.at);
            }
        }
    }

    /// Nothing that was stored in a run can be gone within it.
    pub(super) fn handle_gap(&mut self, desk: &mut Desk, gap: &Gap, now: Moment) {
        desk.note_gap(&desk.plan.name(self.index), gap);
        if let Some(room) = desk.rooms.room(gap.conversation) {
            self.pass_over(desk, room, gap.conversation, gap.to.0, now);
        }
    }

    /// Where a room stands of which nothing has come yet since its reader is in it.
    fn opens_at(&self, room: RoomIndex) -> Option<u64> {
        let stand = self.reader.stands().iter().find(|stand| stand.room == room)?;
        let is_first = stand.seen == 0 || self.reader.joined(room, u64::MAX) == stand.at + 1;
        is_first.then_some(stand.at)
    }

    pub(super) fn handle_stranger(&self, desk: &mut Desk, conversation: ConversationId) {
        let name = desk.plan.name(self.index);
        desk.tally.violations.add(Kind::Recipient, || format!("{name} was told of {conversation}"));
    }
}

impl Desk {
    pub(super) fn note_gap(&mut self, name: &UserId, gap: &Gap) {
        self.tally.violations.add(Kind::Hole, || {
            let Gap { conversation, from, to, reason } = gap;
            format!("{name} was told that {from}..={to} of {conversation} cannot be served: {reason}")
        });
    }
}

/// Whether a text is of this message or an edit of it, of this sender, and of a room that the sender is in.
fn is_sound(letter: &Letter, event: &MessageEvent, desk: &Desk) -> bool {
    (letter.message_id == event.message_id) != event.edited_at.is_some()
        && is_of_member(letter, desk)
        && desk.plan.user_of_name(&event.sender) == Some(letter.sender)
}

/// Whether a text is of somebody in the room that it names.
fn is_of_member(letter: &Letter, desk: &Desk) -> bool {
    letter.room.0 < desk.plan.rooms_count() && desk.plan.may_contain(letter.room, letter.sender)
}
