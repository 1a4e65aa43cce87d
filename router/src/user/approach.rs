//! How many others a user may approach in an hour: conversations begun, and people put into groups.
//!
//! It is kept beside the sessions, so that nobody gets a new allowance by coming back; and forgotten when all of it has been earned
//! again, and with the process. Whether a message is the first of a direct conversation, and whether a command is a repetition of one that was done, is known to
//! the owner of the log alone: it is told whether that may be. What was done is counted when the answer comes, whose session has gone or not, and what was
//! refused is not. So a user may approach as many too many as it has commands under way, and waits the longer for the next one.

use hashbrown::HashMap;
use protocol::ids::UserId;

use super::rates::Rate;
use crate::mail::{Approach, May};

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

    /// What a user may do with a command: who may put one into a group may put as many there as it takes.
    pub(super) fn judge(&self, user: &UserId, micros: u64) -> May {
        let used = self.users.get(user).copied().unwrap_or_default();
        let begin = self.limits.conversations.take(used.conversations, micros).is_ok();
        let add = self.limits.people.take(used.people, micros).is_ok();
        May { begin, add }
    }

    /// A user has approached others.
    pub(super) fn note(&mut self, approach: &Approach, micros: u64) {
        let Approach { by, begun, people } = approach;
        let (of_conversations, of_people) = (self.limits.conversations, self.limits.people);
        if *begun && let Some(used) = self.used(by, of_conversations, micros) {
            used.conversations = of_conversations.charge(used.conversations, micros, 1);
        }
        if *people > 0
            && let Some(used) = self.used(by, of_people, micros)
        {
            used.people = of_people.charge(used.people, micros, u64::from(*people));
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

    fn begun(by: usize) -> Approach {
        Approach { by: name(by), begun: true, people: 0 }
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
            approaches.note(&begun(1), HOUR);
        }
        (0..6).for_each(|_| approaches.note(&begun(1), HOUR));
        // Nine of four an hour: one and a half hours until there is one.
        assert_eq!(approaches.wait_micros(&alice, HOUR), HOUR + HOUR / 2);
        assert!(!approaches.judge(&alice, HOUR).begin);
        assert_eq!(approaches.wait_micros(&alice, 2 * HOUR + HOUR / 2), 0);
        assert!(approaches.judge(&alice, 2 * HOUR + HOUR / 2).begin);
        assert_eq!(approaches.wait_micros(&name(2), HOUR), 0, "another");
    }

    #[test]
    fn a_group_may_be_filled_once_and_then_its_people_are_earned() {
        let limits = ApproachLimits { people: Rate::per_hour(100), ..ApproachLimits::NONE };
        let (mut approaches, alice) = (Approaches::new(limits), name(1));
        assert!(approaches.judge(&alice, 0).add);
        approaches.note(&Approach { by: name(1), begun: true, people: 200 }, 0);
        assert!(!approaches.judge(&alice, 0).add && approaches.judge(&alice, 0).begin);
        assert_eq!(approaches.wait_micros(&alice, 0), HOUR + HOUR / 100);
        assert!(approaches.judge(&alice, HOUR + HOUR / 100).add);
    }

    #[test]
    fn what_is_kept_is_bounded_and_forgotten_when_it_was_earned() {
        let limits = ApproachLimits { conversations: Rate::per_hour(1), ..ApproachLimits::NONE };
        let mut approaches = Approaches::new(limits);
        (0..USERS_MAX + 100).for_each(|user| approaches.note(&begun(user), 1));
        assert_eq!(approaches.users.len(), USERS_MAX);
        assert!(approaches.wait_micros(&name(0), 2) > 0);
        assert_eq!(approaches.wait_micros(&name(USERS_MAX + 1), 2), 0, "there was no room to count it");
        approaches.note(&begun(USERS_MAX + 1), 3 * HOUR);
        assert_eq!(approaches.users.len(), 1);
        let mut nobody = Approaches::new(ApproachLimits::NONE);
        nobody.note(&begun(1), 1);
        assert!(nobody.users.is_empty() && nobody.wait_micros(&name(1), 1) == 0);
    }
}
