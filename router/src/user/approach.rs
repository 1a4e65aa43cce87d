//! How many others a user may approach in an hour: conversations begun, and people put into groups.
//!
//! It is kept beside the sessions, so that nobody gets a new allowance by coming back; and forgotten when all of it has been earned
//! again, and with the process. Whether a message is the first of a direct conversation, and whether a command is a repetition of one that was done, is known to
//! the owner of the log alone: it is told whether that may be. What was begun is counted when the answer comes, whose session has gone or not. So a user may
//! begin as many too many as it has commands under way, and waits the longer for the next one. People are counted when they are asked for, as one command names
//! hundreds, and are given back when it was refused, or was a repetition.

use hashbrown::HashMap;
use protocol::ids::{RequestId, UserId};

use super::rates::Rate;
use crate::mail::{Change, May, Reply, SessionId};

/// Users of whom something is kept: 3 MB. Whoever comes beyond that in the same hour is not limited.
const USERS_MAX: usize = 32_768;

/// How long what was found full is not looked through again, in microseconds.
const LOOK_EVERY: u64 = 1_000_000;

/// How many a user may approach.
#[derive(Clone, Copy, Debug)]
pub struct ApproachLimits {
    /// Conversations begun: groups made, and first messages to somebody.
    pub conversations: Rate,
    /// People put into groups, when they are made and later; also those who are in it already.
    pub people: Rate,
}

impl ApproachLimits {
    /// As many as somebody likes.
    pub const NONE: Self = Self { conversations: Rate::UNLIMITED, people: Rate::UNLIMITED };
}

/// When all that was used will have been earned again.
#[derive(Clone, Copy, Default)]
struct Used {
    conversations: u64,
    people: u64,
}

/// What the users of a shard have used.
pub(super) struct Approaches {
    limits: ApproachLimits,
    users: HashMap<UserId, Used, foldhash::fast::RandomState>,
    /// Who has asked for how many people, with a command that is not answered yet. Bounded as these are.
    asked: HashMap<(SessionId, RequestId), (UserId, u64), foldhash::fast::RandomState>,
    looked_at: u64,
}

impl Approaches {
    pub(super) fn new(limits: ApproachLimits) -> Self {
        Self { limits, users: HashMap::default(), asked: HashMap::default(), looked_at: 0 }
    }

    /// What a user may do with a command, whose people are counted: who may put one into a group may put as many there as it takes.
    pub(super) fn judge(
        &mut self,
        by: (SessionId, RequestId),
        user: &UserId,
        change: &Change,
        micros: u64,
    ) -> May {
        let used = self.users.get(user).copied().unwrap_or_default();
        let begin = self.limits.conversations.take(used.conversations, micros).is_ok();
        let people = match change {
            Change::Create(create) if begin => create.members.len(),
            Change::Members(members) => members.add.len(),
            _ => 0,
        };
        May { begin, add: self.ask(by, user, people as u64, micros) }
    }

    fn ask(&mut self, by: (SessionId, RequestId), user: &UserId, people: u64, micros: u64) -> bool {
        let rate = self.limits.people;
        let Some(used) = (people > 0).then(|| self.used(user, rate, micros)).flatten() else { return true };
        if rate.take(used.people, micros).is_err() {
            return false;
        }
        used.people = rate.charge(used.people, micros, people);
        self.asked.insert(by, (user.clone(), people));
        true
    }

    /// Takes what the owner of a log says of commands: what was done counts, and nothing else.
    pub(super) fn note_reply(&mut self, reply: &Reply, micros: u64) {
        match reply {
            Reply::Stored { asker, is_new, begun_by, .. } => {
                self.note_begun(begun_by.as_ref(), micros);
                self.note_answered((asker.session, asker.id), *is_new);
            }
            Reply::Refused { asker, .. } | Reply::Done { asker } => {
                self.note_answered((asker.session, asker.id), false);
            }
            _ => {}
        }
    }

    /// A command has its answer. Where nobody was put into a group by it, those whom it named do not count.
    pub(super) fn note_answered(&mut self, by: (SessionId, RequestId), has_approached: bool) {
        // Most nodes limit nobody, and most commands name nobody.
        if self.asked.is_empty() {
            return;
        }
        if let Some((user, people)) = self.asked.remove(&by)
            && !has_approached
            && let Some(used) = self.users.get_mut(&user)
        {
            used.people = self.limits.people.give_back(used.people, people);
        }
    }

    /// A conversation was begun, if somebody is named.
    fn note_begun(&mut self, user: Option<&UserId>, micros: u64) {
        let rate = self.limits.conversations;
        if let Some(used) = user.and_then(|user| self.used(user, rate, micros)) {
            used.conversations = rate.charge(used.conversations, micros, 1);
        }
    }

    /// In how many microseconds a user may do both.
    pub(super) fn wait_micros(&self, user: &UserId, micros: u64) -> u64 {
        let used = self.users.get(user).copied().unwrap_or_default();
        let early = |rate: Rate, earned_at| rate.take(earned_at, micros).err().unwrap_or_default();
        early(self.limits.conversations, used.conversations).max(early(self.limits.people, used.people))
    }

    /// What is kept of a user, where there is a limit and room.
    fn used(&mut self, user: &UserId, rate: Rate, micros: u64) -> Option<&mut Used> {
        if rate == Rate::UNLIMITED {
            return None;
        }
        if self.users.len() >= USERS_MAX && micros >= self.looked_at + LOOK_EVERY {
            self.looked_at = micros;
            self.users.retain(|_, used| used.conversations.max(used.people) > micros);
        }
        if self.users.len() >= USERS_MAX && !self.users.contains_key(user) {
            return None;
        }
        Some(self.users.entry(user.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000;

    fn by(number: u32) -> (SessionId, RequestId) {
        (SessionId { slot: 0, generation: 1 }, RequestId(number))
    }

    fn name(number: usize) -> UserId {
        UserId::new(&format!("user-{number}")).expect("a name")
    }

    #[test]
    fn what_was_begun_beyond_the_limit_is_waited_for() {
        let limits = ApproachLimits { conversations: Rate::per_hour(4), ..ApproachLimits::NONE };
        let (mut approaches, alice) = (Approaches::new(limits), name(1));
        // Six were under way while there was one left.
        for _ in 0..3 {
            assert_eq!(approaches.wait_micros(&alice, HOUR), 0);
            approaches.note_begun(Some(&alice), HOUR);
        }
        (0..6).for_each(|_| approaches.note_begun(Some(&alice), HOUR));
        // Nine of four an hour: one and a half hours until there is one.
        assert_eq!(approaches.wait_micros(&alice, HOUR), HOUR + HOUR / 2);
        assert!(!approaches.judge(by(1), &alice, &Change::Leave, HOUR).begin);
        assert_eq!(approaches.wait_micros(&alice, 2 * HOUR + HOUR / 2), 0);
        assert!(approaches.judge(by(1), &alice, &Change::Leave, 2 * HOUR + HOUR / 2).begin);
        assert_eq!(approaches.wait_micros(&name(2), HOUR), 0, "another");
    }

    #[test]
    fn a_group_may_be_filled_once_and_then_its_people_are_earned() {
        let limits = ApproachLimits { people: Rate::per_hour(100), ..ApproachLimits::NONE };
        let (mut approaches, alice) = (Approaches::new(limits), name(1));
        assert!(approaches.ask(by(1), &alice, 200, 0));
        assert!(!approaches.ask(by(2), &alice, 1, 0), "the first is not answered, and counts");
        assert_eq!(approaches.wait_micros(&alice, 0), HOUR + HOUR / 100);
        assert!(approaches.ask(by(3), &alice, 0, 0), "nobody is approached");
        approaches.note_answered(by(2), true);
        approaches.note_answered(by(1), true);
        assert!(approaches.ask(by(4), &alice, 1, HOUR + HOUR / 100));
    }

    #[test]
    fn who_was_named_in_a_command_that_did_nothing_does_not_count() {
        let limits = ApproachLimits { people: Rate::per_hour(100), ..ApproachLimits::NONE };
        let (mut approaches, alice) = (Approaches::new(limits), name(1));
        for number in 0..9 {
            assert!(approaches.ask(by(number), &alice, 400, HOUR));
            assert!(!approaches.ask(by(100), &alice, 1, HOUR));
            approaches.note_answered(by(number), false);
            assert_eq!(approaches.wait_micros(&alice, HOUR), 0);
        }
        assert!(approaches.asked.is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded_and_forgotten_when_it_was_earned() {
        let limits = ApproachLimits { conversations: Rate::per_hour(1), ..ApproachLimits::NONE };
        let mut approaches = Approaches::new(limits);
        (0..USERS_MAX + 100).for_each(|user| approaches.note_begun(Some(&name(user)), 1));
        assert_eq!(approaches.users.len(), USERS_MAX);
        assert!(approaches.wait_micros(&name(0), 2) > 0);
        assert_eq!(approaches.wait_micros(&name(USERS_MAX + 1), 2), 0, "there was no room to count it");
        approaches.note_begun(Some(&name(USERS_MAX + 1)), 3 * HOUR);
        assert_eq!(approaches.users.len(), 1);
        let mut nobody = Approaches::new(ApproachLimits::NONE);
        nobody.note_begun(Some(&name(1)), 1);
        assert!(nobody.users.is_empty() && nobody.wait_micros(&name(1), 1) == 0);
    }
}
