//! What users' devices have acknowledged of one log: a range of its positions for each user.
//!
//! An acknowledgement costs this one entry, whatever it is of. What it says of a conversation is found out where somebody looks at that (`acked`),
//! or is to be called (`push`).
//!
//! It is in memory, in parts by the user's name, and each part that has changed is written into the log as one record, one part after the other
//! (`keeping`). So a stop loses nothing and a crash ten minutes, of which each device says most again when it is back.

use hashbrown::HashMap;
use protocol::ids::{ConversationId, UserId};
use protocol::limits::RECORD_PAYLOAD_BYTES_MAX;
use protocol::record::{ArchivedTakenV1, Body, TakenUserV1, TakenV1};

use crate::mail::Given;

/// The stream id of a user.
pub(super) type Inbox = [u8; 16];

/// Parts: part of the format, as each has a stream of its own.
pub(super) const PARTS: usize = 512;

/// Users of one part, whose record is 72 KB then; as many as a table of 2,048 holds. 900,000 users of a log, 45 MB. Beyond that those are forgotten that have
/// acknowledged least of it, until they say more.
const PART_USERS_MAX: usize = 2_048 / 8 * 7;

const _: () = assert!(PART_USERS_MAX * 40 + 1_024 < RECORD_PAYLOAD_BYTES_MAX);

/// Times that a part is read in vain: one failed read is no verdict.
const FAILURES_MAX: u8 = 3;

/// Whether memory has what is on the disk of a part.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Kept {
    #[default]
    Unread,
    Asked,
    Read,
}

#[derive(Default)]
struct Part {
    users: HashMap<Inbox, Given, foldhash::fast::RandomState>,
    kept: Kept,
    /// Number of its newest record.
    number: u64,
    is_dirty: bool,
    /// There was no room for it on the disk when the node was about to go away.
    is_given_up: bool,
    /// Times that it could not be read.
    failures: u8,
    /// When it was written, in microseconds.
    written_at: u64,
    /// Who is in a conversation that somebody has begun to look at before it was read.
    waiting: Vec<(ConversationId, UserId)>,
}

/// By user.
pub(super) struct Taken {
    parts: Box<[Part]>,
    /// Of those, that were not read.
    unread: usize,
    /// The part whose turn it is to be written, and when; 0 before the first turn.
    next: usize,
    next_at: u64,
    /// The node goes away, and something is not written,
    pub(super) is_owed: bool,
    /// or was given up then.
    pub(super) has_given_up: bool,
}

impl Taken {
    pub(super) fn new() -> Self {
        let parts = (0..PARTS).map(|_| Part::default()).collect();
        Self { parts, unread: PARTS, next: 0, next_at: 0, is_owed: false, has_given_up: false }
    }

    pub(super) fn part_of(inbox: &Inbox) -> usize {
        usize::from(u16::from_le_bytes([inbox[0], inbox[1]])) % PARTS
    }

    /// A device of a user has acknowledged something: all that is known of the user then.
    pub(super) fn note(&mut self, inbox: Inbox, given: Given) -> Given {
        let part = &mut self.parts[Self::part_of(&inbox)];
        let before = part.users.get(&inbox).copied();
        let given = before.map_or(given, |before| before.and(given));
        if before != Some(given) {
            part.is_dirty = true;
            part.insert(inbox, given);
        }
        given
    }

    /// What is known of a user.
    pub(super) fn of(&self, inbox: &Inbox) -> Option<Given> {
        self.parts[Self::part_of(inbox)].users.get(inbox).copied()
    }

    /// Whether a part is to be read, which it is from now on.
    pub(super) fn begin_reading(&mut self, part: usize) -> bool {
        let kept = &mut self.parts[part].kept;
        let is_to_be_read = *kept == Kept::Unread;
        if is_to_be_read {
            *kept = Kept::Asked;
        }
        is_to_be_read
    }

    /// Whether it is known what is on the disk of a part,
    pub(super) fn is_known(&self, part: usize) -> bool {
        self.parts[part].kept == Kept::Read
    }

    /// and of all of them.
    pub(super) fn is_read(&self) -> bool {
        self.unread == 0
    }

    /// A user of a part that is being read is looked for once it was.
    pub(super) fn wait(&mut self, part: usize, conversation: ConversationId, user: UserId) {
        self.parts[part].waiting.push((conversation, user));
    }

    /// A part was read: what has been acknowledged since is newer. Says who waits for it. `None`: there is none.
    pub(super) fn enter(
        &mut self,
        part: usize,
        stored: Option<(u64, &ArchivedTakenV1)>,
    ) -> Vec<(ConversationId, UserId)> {
        self.unread -= usize::from(self.parts[part].kept != Kept::Read);
        let part = &mut self.parts[part];
        part.kept = Kept::Read;
        let (number, users) = stored.map_or((0, &[][..]), |(number, stored)| (number, &stored.users[..]));
        part.number = part.number.max(number);
        for user in users {
            let (after, to, whole_after) =
                (user.after.to_native(), user.to.to_native(), user.whole_after.to_native());
            let given = Given { after, to, whole_after };
            let given = part.users.get(&user.inbox).map_or(given, |newer| given.and(*newer));
            part.insert(user.inbox, given);
        }
        std::mem::take(&mut part.waiting)
    }

    /// A part could not be read: it is tried again with what is acknowledged next, but what fails each time is begun anew. Whether it is to be tried
    /// again.
    pub(super) fn fail(&mut self, part: usize) -> bool {
        let part = &mut self.parts[part];
        part.failures += 1;
        let is_to_be_tried = part.failures < FAILURES_MAX;
        if is_to_be_tried {
            // Who waits is found by its next acknowledgement, or by who looks next.
            (part.kept, part.waiting) = (Kept::Unread, Vec::new());
        }
        is_to_be_tried
    }

    /// The next part that is to be written, where one that was written may be again after `rest_micros`.
    pub(super) fn poll_dirty(&mut self, micros: u64, rest_micros: u64) -> Option<usize> {
        let is_due = |part: &Part| {
            let is_to_be_written = part.is_dirty && !part.is_given_up && part.kept == Kept::Read;
            is_to_be_written && micros >= part.written_at + rest_micros
        };
        let place = (self.next..PARTS).chain(0..self.next).find(|part| is_due(&self.parts[*part]))?;
        self.next = (place + 1) % PARTS;
        Some(place)
    }

    /// Whether it is time for one of them again, and then when the next one is.
    pub(super) fn is_time(&mut self, micros: u64, pace_micros: u64) -> bool {
        let is_time = micros >= self.next_at && self.next_at > 0;
        if is_time || self.next_at == 0 {
            self.next_at = micros + pace_micros;
        }
        is_time
    }

    /// Whether some part is to be written, now or once it was read.
    pub(super) fn is_dirty(&self) -> bool {
        self.parts.iter().any(|part| part.is_dirty && !part.is_given_up && part.kept != Kept::Unread)
    }

    /// A part as it is to be written, and the number before that of its record.
    pub(super) fn body(&self, part: usize) -> (Body, u64) {
        let Part { users, number, .. } = &self.parts[part];
        let mut users: Vec<TakenUserV1> = users.iter().map(stored).collect();
        // A table has no order: the same would be other bytes each time.
        users.sort_unstable_by_key(|user| user.inbox);
        (Body::Taken(TakenV1 { users, ext: Vec::new() }), *number)
    }

    /// A part was appended under a number.
    pub(super) fn note_written(&mut self, part: usize, number: u64, micros: u64) {
        let part = &mut self.parts[part];
        (part.number, part.written_at, part.is_dirty) = (number, micros, false);
    }

    /// The disk has no room for a part. While the node goes on it has its turn again.
    pub(super) fn give_up(&mut self, part: usize) {
        (self.parts[part].is_given_up, self.has_given_up) = (true, true);
    }

    /// The node goes on: what was given up has its turn again.
    pub(super) fn take_up_again(&mut self) {
        self.parts.iter_mut().for_each(|part| part.is_given_up = false);
    }
}

impl Part {
    fn insert(&mut self, inbox: Inbox, given: Given) {
        if self.users.len() == PART_USERS_MAX && !self.users.contains_key(&inbox) {
            let mut all: Vec<(u64, Inbox)> =
                self.users.iter().map(|(inbox, given)| (given.to, *inbox)).collect();
            all.sort_unstable();
            all.truncate(PART_USERS_MAX / 2);
            all.iter().for_each(|(_, inbox)| _ = self.users.remove(inbox));
        }
        self.users.insert(inbox, given);
    }
}

fn stored((inbox, given): (&Inbox, &Given)) -> TakenUserV1 {
    TakenUserV1 { inbox: *inbox, after: given.after, to: given.to, whole_after: given.whole_after }
}

#[cfg(test)]
mod tests {
    use protocol::ids::{Seq, UnixMillis};
    use protocol::record::{Stored, StoredBody};

    use super::*;

    /// All of one part.
    fn inbox(number: usize) -> Inbox {
        let mut inbox = [0; 16];
        inbox[8..].copy_from_slice(&number.to_le_bytes());
        inbox
    }

    #[test]
    fn of_too_many_users_those_are_forgotten_that_have_acknowledged_least() {
        let mut taken = Taken::new();
        let given = |to: usize| Given::new(to as u64 - 1, to as u64, true);
        for number in 1..=PART_USERS_MAX {
            taken.note(inbox(number), given(number));
        }
        taken.note(inbox(1), given(PART_USERS_MAX));
        assert_eq!(taken.of(&inbox(2)), Some(given(2)));
        taken.note(inbox(PART_USERS_MAX + 1), given(PART_USERS_MAX + 1));
        assert_eq!(taken.of(&inbox(2)), None);
        assert_eq!(taken.of(&inbox(PART_USERS_MAX / 2 + 1)), None);
        assert_eq!(taken.of(&inbox(PART_USERS_MAX / 2 + 2)), Some(given(PART_USERS_MAX / 2 + 2)));
        assert!(taken.of(&inbox(1)).is_some(), "it has acknowledged more since");
    }

    #[test]
    fn the_record_of_a_full_part_fits_a_log_and_says_the_same() {
        let mut taken = Taken::new();
        let given = |to: usize| Given::new(to as u64 - 1, to as u64, true);
        (1..=PART_USERS_MAX).for_each(|number| _ = taken.note(inbox(number), given(number)));
        let (body, _) = taken.body(0);
        assert!(body.payload().len() <= RECORD_PAYLOAD_BYTES_MAX);
        let record = body.record(ConversationId([0; 16]), Seq(5), UnixMillis(1), 0);
        let Ok(Stored { body: StoredBody::Taken(stored), .. }) = Stored::parse(&record) else {
            panic!("as it was written");
        };
        let mut other = Taken::new();
        let newer = Given::new(7, 9, true);
        other.note(inbox(8), newer);
        other.enter(0, Some((5, stored)));
        assert_eq!(other.of(&inbox(7)), Some(given(7)));
        assert_eq!(other.of(&inbox(8)), Some(newer), "7 to 8 and 7 to 9");
        assert_eq!(other.body(0).1, 5);
    }
}
