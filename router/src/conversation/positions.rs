//! How far the members of one conversation have read it: values, and what changes them.
//!
//! A position moves forward only. It moves by a `read`; by a message of one's own; and by joining, which begins with everything before as
//! read. Each has beside it how many messages the conversation had up to there, so what is unread is a subtraction.
//!
//! Messages and joins stand in the conversation's own records, so they are not written once more as positions: a record of positions
//! says up to which sequence they are [folded](Positions::fold) in, and whoever reads it folds in what follows. Everything here is
//! as of `folded_to`, which is the durable head once that is done.

use std::collections::BTreeMap;

use protocol::event::Reached;
use protocol::ids::{Seq, UserId};
use protocol::limits::MEMBERS_MAX;
use protocol::record::{ArchivedPositionsV1, Body, PositionV1, PositionsV1, StoredBody};

use super::folding::stored;
use super::state::{Conversation, Member};

/// Sequences after which positions are written also where nobody says that anything was read: what a start has to fold in again of a
/// conversation is a page, and a conversation that does not rest pays a record of positions for so many of its own.
pub(super) const FOLDED_PER_RECORD: u64 = 64;

/// Sequences that are folded in at most when positions are read: some MiB. There are more only where a disk was full for long, or the
/// store is older than this. Who has read, sent or joined nothing else is held to have read nothing then: too much is unread, never
/// too little.
const FOLDED_MAX: u64 = 1 << 15;

/// Positions kept beside those of members, so that who comes back has read what was read; beyond that they are let go.
const STRANGERS_MAX: usize = MEMBERS_MAX;

const _: () = assert!(FOLDED_PER_RECORD < FOLDED_MAX);

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Position {
    read: Seq,
    /// Messages in the conversation up to and including that.
    message_count: u64,
    /// How far others are told that this one has read.
    receipt: Seq,
    /// The same, as it is on disk.
    durable_receipt: Seq,
    /// What a device has stored, as an acknowledgement said; whoever has read further has more.
    delivered: Seq,
    durable_delivered: Seq,
}

/// What others are told of one user, and is not on disk.
pub(super) struct New {
    pub(super) user: UserId,
    pub(super) reached: Reached,
}

/// Positions of the members of one conversation.
#[derive(Default)]
pub(super) struct Positions {
    /// In the order by which users are searched for: most conversations are of two, of whom a tree would cost a kibibyte.
    by_user: Vec<(UserId, Position)>,
    /// Everything durable up to here is in them.
    folded_to: Seq,
    /// Messages up to and including that.
    message_count: u64,
    /// All that was durable when they were read is folded in; what becomes durable since is, as it does.
    is_whole: bool,
    /// `folded_to` of the newest record of positions,
    written_to: Seq,
    /// and its number.
    number: u64,
    ext: Vec<u8>,
    /// Whether something is newer than the newest record, and waits for its time.
    is_due: bool,
    /// Records of positions that are not durable.
    under_way: u32,
    /// Until when the next one waits, in microseconds, whatever is new.
    rests_until: u64,
}

impl Positions {
    /// As they were stored under a number. Names of `members` are not kept once more.
    pub(super) fn read(stored: &ArchivedPositionsV1, number: u64, members: &[Member]) -> Self {
        let mut names: Vec<&UserId> = members.iter().map(|member| &member.user).collect();
        names.sort_by(|one, other| one.cmp_for_search(other));
        let entries = stored.positions.iter().filter_map(|position| {
            let user = UserId::new(std::str::from_utf8(&position.user).ok()?).ok()?;
            let known = names.binary_search_by(|name| name.cmp_for_search(&user));
            let user = known.map_or(user, |place| names[place].clone());
            let receipt = Seq(position.receipt.to_native());
            let position = Position {
                read: Seq(position.read.to_native()),
                message_count: position.message_count.to_native(),
                receipt,
                durable_receipt: receipt,
                delivered: Seq(position.delivered.to_native()),
                durable_delivered: Seq(position.delivered.to_native()),
            };
            Some((user, position))
        });
        let folded_to = Seq(stored.folded_to.to_native());
        let mut by_user: Vec<(UserId, Position)> = entries.collect();
        // As they were written: a look, unless another build wrote them.
        by_user.sort_by(|(one, _), (other, _)| one.cmp_for_search(other));
        by_user.dedup_by(|(one, _), (other, _)| one == other);
        Self {
            by_user,
            folded_to,
            message_count: stored.message_count.to_native(),
            is_whole: false,
            written_to: folded_to,
            number,
            ext: stored.ext.to_vec(),
            is_due: false,
            under_way: 0,
            rests_until: 0,
        }
    }

    /// Of a conversation whose newest record of positions, if it has one, cannot be read: all of it is folded in again.
    pub(super) fn unknown(number: u64) -> Self {
        Self { number, ..Self::default() }
    }

    pub(super) fn body(&self) -> Body {
        let position = |(user, position): &(UserId, Position)| PositionV1 {
            user: user.as_bytes().to_vec(),
            read: position.read.0,
            message_count: position.message_count,
            receipt: position.receipt.0,
            delivered: position.delivered.0,
        };
        Body::Positions(PositionsV1 {
            folded_to: self.folded_to.0,
            message_count: self.message_count,
            positions: self.by_user.iter().map(position).collect(),
            ext: self.ext.clone(),
        })
    }

    /// How far everybody has come, as others are told and as it is on disk.
    pub(super) fn durable_receipts(&self) -> BTreeMap<UserId, Reached> {
        let told = self.by_user.iter().map(|(user, position)| (user, position.durable_reached()));
        let told = told.filter(|(_, reached)| *reached != Reached::default());
        told.map(|(user, reached)| (user.clone(), reached)).collect()
    }

    fn find(&self, user: &UserId) -> Option<&Position> {
        let place = self.by_user.binary_search_by(|(known, _)| known.cmp_for_search(user)).ok()?;
        Some(&self.by_user[place].1)
    }

    fn entry(&mut self, user: &UserId) -> &mut Position {
        let place =
            self.by_user.binary_search_by(|(known, _)| known.cmp_for_search(user)).unwrap_or_else(|place| {
                self.by_user.insert(place, (user.clone(), Position::default()));
                place
            });
        &mut self.by_user[place].1
    }

    /// Those whose receipts are not on disk.
    pub(super) fn new_receipts(&self) -> Vec<New> {
        let is_new = |position: &Position| position.reached() != position.durable_reached();
        let new = self.by_user.iter().filter(|(_, position)| is_new(position));
        new.map(|(user, position)| New { user: user.clone(), reached: position.reached() }).collect()
    }

    /// A receipt is on disk: what others are told from now on, if that is news, and whether more was read.
    pub(super) fn note_durable(&mut self, new: &New) -> Option<(Reached, bool)> {
        let place = self.by_user.binary_search_by(|(known, _)| known.cmp_for_search(&new.user)).ok()?;
        let position = &mut self.by_user[place].1;
        let before = position.durable_reached();
        position.durable_receipt = position.durable_receipt.max(new.reached.read);
        position.durable_delivered = position.durable_delivered.max(new.reached.delivered);
        let after = position.durable_reached();
        (after != before).then_some((after, after.read > before.read))
    }

    /// A device of a user has stored what there is up to a sequence. Whether that is news, and nothing else waited.
    pub(super) fn note_delivered(&mut self, user: &UserId, seq: Seq) -> bool {
        let position = self.entry(user);
        let is_news = seq > position.reached().delivered;
        if is_news {
            position.delivered = seq;
        }
        is_news && self.renew()
    }

    /// How far a user has read, and the messages up to there: nothing, where nothing is known.
    pub(super) fn of(&self, user: &UserId) -> (Seq, u64) {
        self.find(user).map_or((Seq(0), 0), |position| (position.read, position.message_count))
    }

    /// How far a user has read, or a device of the user has stored; a record of its own or the one by which it joined counts as read.
    pub(super) fn reached(&self, user: &UserId) -> Seq {
        self.find(user).map_or(Seq(0), |position| position.read.max(position.delivered))
    }

    /// The newest sequence that is folded in, and the messages up to there.
    pub(super) fn folded(&self) -> (Seq, u64) {
        (self.folded_to, self.message_count)
    }

    /// Whether nothing durable is missing in them.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether the disk has all of it, and nothing is under way.
    pub(super) fn is_settled(&self) -> bool {
        !self.is_due && self.under_way == 0
    }

    /// A user has read up to a sequence, up to which there are so many messages. Whether that is news, and nothing else waited.
    pub(super) fn note_read(&mut self, user: &UserId, seq: Seq, message_count: u64) -> bool {
        let position = self.entry(user);
        let before = *position;
        position.move_to(seq, message_count);
        position.receipt = position.receipt.max(seq);
        before != *position && self.renew()
    }

    /// There is something to write; whether there was nothing before.
    pub(super) fn renew(&mut self) -> bool {
        !std::mem::replace(&mut self.is_due, true)
    }

    /// They were appended, as they are now, under the next number, and rest until then.
    pub(super) fn note_appended(&mut self, rests_until: u64) {
        self.rests_until = rests_until;
        (self.number, self.written_to, self.is_due) = (self.number + 1, self.folded_to, false);
        self.under_way += 1;
    }

    /// Whether the newest record is of a moment ago, or is not durable.
    pub(super) fn rests(&self, micros: u64) -> bool {
        self.under_way > 0 || micros < self.rests_until
    }

    pub(super) fn note_record_durable(&mut self) {
        self.under_way -= 1;
    }

    pub(super) fn give_up_new(&mut self) {
        self.is_due = false;
    }

    /// Number of the newest record.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Whether so much was folded in since the newest record that they have to be written again.
    pub(super) fn wants_record(&self) -> bool {
        self.folded_to.0 - self.written_to.0 >= FOLDED_PER_RECORD
    }

    /// Passes over what is too far below the head to be folded in.
    pub(super) fn skip_below(&mut self, head: Seq) {
        self.folded_to = self.folded_to.max(Seq(head.0.saturating_sub(FOLDED_MAX)));
    }

    /// All of the conversation is folded in, which has so many messages at its head.
    pub(super) fn complete(&mut self, head: Seq, message_count: u64) {
        self.end_at(head, message_count);
        self.is_whole = true;
    }

    /// There is no more to read up to `head`.
    pub(super) fn end_at(&mut self, head: Seq, message_count: u64) {
        self.folded_to = self.folded_to.max(head);
        if self.folded_to == head {
            // The newest of its records may be one that cannot be read.
            self.message_count = self.message_count.max(message_count);
        }
    }

    /// Folds in the durable record that follows; one that cannot be read moves nobody.
    pub(super) fn fold(&mut self, seq: Seq, record: Option<&[u8]>) {
        self.folded_to = seq;
        let Some(stored) = record.and_then(stored) else {
            return;
        };
        self.message_count = stored.portable.message_count;
        match stored.body {
            StoredBody::Message(message) => {
                if let Some(position) = self.own(&message.sender) {
                    position.move_to(seq, stored.portable.message_count);
                    position.receipt = position.receipt.max(seq);
                    position.durable_receipt = position.durable_receipt.max(seq);
                }
            }
            StoredBody::Membership(event) => {
                for member in event.added.iter() {
                    if let Some(position) = self.own(&member.user) {
                        position.move_to(seq, stored.portable.message_count);
                    }
                }
            }
            StoredBody::Amendment(_)
            | StoredBody::Folded(_)
            | StoredBody::Positions(_)
            | StoredBody::Settings(_)
            | StoredBody::Sighting(_)
            | StoredBody::State(_)
            | StoredBody::Taken(_)
            | StoredBody::Unknown => {}
        }
    }

    fn own(&mut self, user: &[u8]) -> Option<&mut Position> {
        let user = UserId::new(std::str::from_utf8(user).ok()?).ok()?;
        Some(self.entry(&user))
    }

    /// Who leaves and comes back has read what was read; but they are not kept for ever.
    pub(super) fn trim(&mut self, state: &Conversation) {
        if self.by_user.len() > state.members().len() + STRANGERS_MAX {
            self.by_user.retain(|(user, _)| state.member(user).is_some());
        }
    }
}

impl Position {
    /// What others are told. Who has read something has been given it.
    fn reached(&self) -> Reached {
        Reached { read: self.receipt, delivered: self.delivered.max(self.receipt) }
    }

    fn durable_reached(&self) -> Reached {
        let (read, delivered) = (self.durable_receipt, self.durable_delivered);
        Reached { read, delivered: delivered.max(read) }
    }

    /// Forward, where that is forward.
    fn move_to(&mut self, seq: Seq, message_count: u64) {
        if seq > self.read {
            self.read = seq;
            self.message_count = self.message_count.max(message_count);
        }
    }
}
