//! What is sent, what is looked at, and who comes and goes: shares of a whole, as a flag or a scenario gives them.

use std::{fmt, str::FromStr};

use protocol::limits::MEMBERS_MAX;
use serde::{Deserialize, Serialize};

use super::UserIndex;
use crate::random::Random;

/// Which share of messages goes where, and how many amendments of earlier ones stand between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mix {
    pub(crate) direct_weight: u32,
    pub(crate) group_weight: u32,
    pub(crate) group_members: u32,
    pub(crate) amend_weight: u32,
}

impl Default for Mix {
    fn default() -> Self {
        Self { direct_weight: 80, group_weight: 20, group_members: 10, amend_weight: 5 }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { direct_weight, group_weight, group_members, amend_weight } = self;
        write!(f, "direct={direct_weight},group{group_members}={group_weight},amend={amend_weight}")
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut mix = Self { direct_weight: 0, group_weight: 0, amend_weight: 0, ..Self::default() };
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').ok_or("a part is NAME=WEIGHT, as in direct=80")?;
            let weight = weight.parse::<u16>().map_err(|_| "a weight is a number up to 65535")?;
            match name.strip_prefix("group") {
                None if name == "amend" => mix.amend_weight = weight.into(),
                None if name == "direct" => mix.direct_weight = weight.into(),
                Some(members) => {
                    mix.group_members =
                        members.parse().map_err(|_| "a group is named by its size: group10")?;
                    mix.group_weight = weight.into();
                }
                None => return Err("the parts are direct, groupN and amend".to_owned()),
            }
        }
        let sizes = 3..=MEMBERS_MAX as u32;
        if !sizes.contains(&mix.group_members) {
            return Err(format!("a group has 3 to {MEMBERS_MAX} members"));
        }
        if mix.direct_weight + mix.group_weight == 0 {
            return Err("direct and groupN are both 0".to_owned());
        }
        Ok(mix)
    }
}

impl Mix {
    /// Whether the next command amends a message instead of sending one.
    pub(crate) const fn picks_amendment(&self, random: &mut Random) -> bool {
        let Self { direct_weight, group_weight, amend_weight, .. } = *self;
        let total = direct_weight as u64 + group_weight as u64 + amend_weight as u64;
        amend_weight > 0 && random.below(total) < amend_weight as u64
    }
}

/// How much is looked at and read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attention {
    /// Of 100 deliveries, so many are answered with `read`.
    pub(crate) read_percent: u32,
    /// Users that view some of their conversations.
    pub(crate) viewers: u32,
}

/// Who comes and goes while messages flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Comings {
    /// Changes of members a second, of all groups together.
    pub(crate) churn: u32,
    /// Of 100 users, so many are away for a part of the run.
    pub(crate) absent_percent: u32,
}

impl Comings {
    /// Whether a user goes away. They are spread evenly, so that each worker has some.
    pub(crate) const fn is_absent(&self, user: UserIndex) -> bool {
        let percent = self.absent_percent as u64;
        let user = user.0 as u64;
        user * percent / 100 < (user + 1) * percent / 100
    }
}

impl Attention {
    /// Whether one of so many users views. They are spread evenly, so that each worker has some.
    pub(crate) fn is_viewer(&self, user: UserIndex, users: u32) -> bool {
        let before = |user: u64| user * self.viewers as u64 / users as u64;
        before(user.0 as u64) < before(user.0 as u64 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_commands_amends_and_none_where_that_is_not_asked_for() {
        let mut random = Random::from_system().expect("randomness");
        let mut share = |mix: Mix| (0..10_500).filter(|_| mix.picks_amendment(&mut random)).count();
        assert!((350..=650).contains(&share(Mix::default())), "one in 21");
        assert_eq!(share(Mix { amend_weight: 0, ..Mix::default() }), 0);
    }

    #[test]
    fn mixes_are_read_and_refused() {
        let mix = "direct=1,group3=2".parse();
        let expected = Mix { direct_weight: 1, group_weight: 2, group_members: 3, amend_weight: 0 };
        assert_eq!(mix, Ok(expected));
        assert_eq!("direct=1,group3=2,amend=9".parse(), Ok(Mix { amend_weight: 9, ..expected }));
        assert_eq!(Mix::default().to_string().parse(), Ok(Mix::default()));
        for bad in ["", "direct", "direct=x", "direct=0", "amend=1", "group2=1", "group501=1", "room=1"] {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
    }
}
