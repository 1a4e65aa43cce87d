//! How many others a user may approach in an hour: conversations begun, and people put into groups.
//!
//! It is kept beside the sessions, so that nobody gets a new allowance by coming back; and forgotten when all of it has been earned
//! again, and with the process. Whether a message is the first of a direct conversation, and whether a command is a repetition of one that was done, is known to
//! the owner of the log alone: it is told whether that may be. What was begun is counted when the answer comes, whose session has gone or not. So a user may
//! begin as many too many as it has commands under way, and waits the longer for the next one. People are counted when they are asked for.

use hashbrown::HashMap;
use protocol::ids::UserId;

use super::rates::Rate;
use crate::mail::{Change, May};

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
    looked_at: u64,
}

impl Approaches {
    pub(super) fn new(limits: ApproachLimits) -> Self {
        Self { limits, users: HashMap::default(), looked_at: 0 }
    }

    /// What a user may do with a command; whom it puts into a group is counted.
    pub(super) fn judge(&mut self, user: &UserId, change: &Change, micros: u64) -> May {
        let used = self.users.get(user).copied().unwrap_or_default();
        let begin = self.limits.conversations.take(used.conversations, micros).is_ok();
        let people = match change {
            Change::Create(create) if begin => create.members.len(),
            Change::Members(members) => members.add.len(),
            _ => 0,
        };
        May { begin, add: self.add(user, people, micros) }
    }

    /// A conversation was begun, if somebody is named.
    pub(super) fn note_begun(&mut self, user: Option<&UserId>, micros: u64) {
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

    /// Whether a user may put so many into a group: whoever may add one may add as many as a group takes.
    fn add(&mut self, user: &UserId, count: usize, micros: u64) -> bool {
        let rate = self.limits.people;
        let Some(used) = (count > 0).then(|| self.used(user, rate, micros)).flatten() else { return true };
        let may = rate.take(used.people, micros).is_ok();
        if may {
            used.people = rate.charge(used.people, micros, count as u64);
        }
        may
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
        assert!(!approaches.judge(&alice, &Change::Leave, HOUR).begin);
        assert_eq!(approaches.wait_micros(&alice, 2 * HOUR + HOUR / 2), 0);
        assert!(approaches.judge(&alice, &Change::Leave, 2 * HOUR + HOUR / 2).begin);
        assert_eq!(approaches.wait_micros(&name(2), HOUR), 0, "another");
    }

    #[test]
    fn a_group_may_be_filled_once_and_then_its_people_are_earned() {
        let limits = ApproachLimits { people: Rate::per_hour(100), ..ApproachLimits::NONE };
        let (mut approaches, alice) = (Approaches::new(limits), name(1));
        assert!(approaches.add(&alice, 200, 0));
        assert!(!approaches.add(&alice, 1, 0));
        assert_eq!(approaches.wait_micros(&alice, 0), HOUR + HOUR / 100);
        assert!(approaches.add(&alice, 0, 0), "nobody is approached");
        assert!(approaches.add(&alice, 1, HOUR + HOUR / 100));
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
