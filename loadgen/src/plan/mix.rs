//! What is sent, what is looked at, and who comes and goes: shares of a whole, as a flag or a scenario gives them.

use std::{fmt, str::FromStr, time::Duration};

use protocol::limits::MEMBERS_MAX;
use serde::{Deserialize, Serialize};

use super::UserIndex;
use crate::random::Random;

/// Sizes of groups in one run: what is small, the line between small and large from both sides, and what is largest.
pub(super) const GROUP_SIZES_MAX: usize = 4;

/// The longest look at a message: a run waits for it at its end.
pub(crate) const THINK_MILLIS_MAX: u32 = 10_000;

/// Groups of one size, and which share of messages goes there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupShare {
    pub(crate) members: u32,
    pub(crate) weight: u32,
}

/// Which share of messages goes where, and how many amendments of earlier ones stand between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mix {
    pub(crate) direct_weight: u32,
    /// Without weight where there are fewer sizes.
    pub(crate) groups: [GroupShare; GROUP_SIZES_MAX],
    pub(crate) amend_weight: u32,
}

impl Default for Mix {
    fn default() -> Self {
        Self { direct_weight: 80, groups: groups(&[GroupShare { members: 10, weight: 20 }]), amend_weight: 5 }
    }
}

fn groups(shares: &[GroupShare]) -> [GroupShare; GROUP_SIZES_MAX] {
    std::array::from_fn(|place| shares.get(place).copied().unwrap_or_default())
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "direct={}", self.direct_weight)?;
        for GroupShare { members, weight } in self.groups.iter().filter(|share| share.weight > 0) {
            write!(f, ",group{members}={weight}")?;
        }
        write!(f, ",amend={}", self.amend_weight)
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut direct_weight, mut amend_weight, mut shares) = (0, 0, Vec::new());
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').ok_or("a part is NAME=WEIGHT, as in direct=80")?;
            let weight = weight.parse::<u16>().map_err(|_| "a weight is a number up to 65535")?.into();
            match name.strip_prefix("group") {
                None if name == "amend" => amend_weight = weight,
                None if name == "direct" => direct_weight = weight,
                Some(members) => {
                    let members = members.parse().map_err(|_| "a group is named by its size: group10")?;
                    shares.push(GroupShare { members, weight });
                }
                None => return Err("the parts are direct, groupN and amend".to_owned()),
            }
        }
        let sizes = 3..=MEMBERS_MAX as u32;
        if shares.iter().any(|share| !sizes.contains(&share.members)) {
            return Err(format!("a group has 3 to {MEMBERS_MAX} members"));
        }
        let is_twice =
            |share: &GroupShare| shares.iter().filter(|other| other.members == share.members).count() > 1;
        if shares.len() > GROUP_SIZES_MAX || shares.iter().any(is_twice) {
            return Err(format!("groups have at most {GROUP_SIZES_MAX} sizes, each named once"));
        }
        let mix = Self { direct_weight, groups: groups(&shares), amend_weight };
        if mix.direct_weight + mix.group_weight() == 0 {
            return Err("direct and groupN are both 0".to_owned());
        }
        Ok(mix)
    }
}

impl Mix {
    /// Whether so many users can make it: what is meant for groups that cannot be there would go into conversations of two.
    ///
    /// # Errors
    /// In words: which cannot.
    pub(crate) fn check(&self, users: u32) -> Result<(), String> {
        match self.groups.iter().find(|share| share.weight > 0 && share.members > users) {
            Some(share) => {
                Err(format!("a group of {} needs as many users, and there are {users}", share.members))
            }
            None => Ok(()),
        }
    }

    /// The usual one, with groups of another size.
    #[cfg(test)]
    pub(crate) fn of_groups(members: u32) -> Self {
        Self { groups: groups(&[GroupShare { members, weight: 20 }]), ..Self::default() }
    }

    /// Of all groups together.
    pub(super) fn group_weight(&self) -> u32 {
        self.groups.iter().map(|share| share.weight).sum()
    }

    /// Whether the next command amends a message instead of sending one.
    pub(crate) fn picks_amendment(&self, random: &mut Random) -> bool {
        let total = u64::from(self.direct_weight + self.group_weight() + self.amend_weight);
        self.amend_weight > 0 && random.below(total) < u64::from(self.amend_weight)
    }
}

/// How much is looked at and read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attention {
    /// Of 100 deliveries, so many are answered with `read`,
    pub(crate) read_percent: u32,
    /// when they have been looked at.
    pub(crate) think: Think,
    /// Users that view some of their conversations.
    pub(crate) viewers: u32,
    /// Of 100 messages, so many are searched for.
    pub(crate) search_percent: u32,
}

/// How long a user looks at a message before it says that it has read it: evenly from the least to the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Think {
    least_ms: u32,
    most_ms: u32,
}

impl FromStr for Think {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (least, most) = text.split_once("..").unwrap_or((text, text));
        let number = |text: &str| text.trim().parse::<u32>().ok();
        let both = number(least).zip(number(most));
        let (least_ms, most_ms) = both.ok_or("milliseconds, as 500 or 200..3000")?;
        if least_ms > most_ms || most_ms > THINK_MILLIS_MAX {
            return Err(format!("at most {THINK_MILLIS_MAX} milliseconds, the smaller number first"));
        }
        Ok(Self { least_ms, most_ms })
    }
}

impl fmt::Display for Think {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.least_ms == self.most_ms {
            true => write!(f, "{}", self.least_ms),
            false => write!(f, "{}..{}", self.least_ms, self.most_ms),
        }
    }
}

impl Think {
    /// For the next message.
    pub(crate) fn time(self, random: &mut Random) -> Duration {
        let more = match self.most_ms - self.least_ms {
            // Who never waits draws nothing.
            0 => 0,
            span => random.below(u64::from(span) + 1),
        };
        Duration::from_millis(u64::from(self.least_ms) + more)
    }
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
    fn times_to_think_are_read_and_follow_from_the_seed() {
        for (text, least_ms, most_ms) in [("0", 0, 0), ("500", 500, 500), ("200..3000", 200, 3000)] {
            let think: Think = text.parse().expect(text);
            assert_eq!((think, think.to_string()), (Think { least_ms, most_ms }, text.to_owned()));
        }
        for bad in ["", "..", "1..", "-1", "0.5", "3000..200", "1..10001", "1..2..3"] {
            assert!(bad.parse::<Think>().is_err(), "{bad}");
        }
        let think = Think { least_ms: 7, most_ms: 9 };
        let times = |seed| {
            let mut random = Random::seeded(seed);
            (0..100).map(|_| think.time(&mut random).as_millis()).collect::<Vec<_>>()
        };
        assert_eq!(times(1), times(1));
        assert_ne!(times(1), times(2));
        assert!(
            (7..=9).all(|millis| times(1).contains(&millis))
                && times(1).iter().all(|ms| (7..=9).contains(ms))
        );
        let (mut random, mut same) = (Random::seeded(1), Random::seeded(1));
        assert_eq!(Think::default().time(&mut random), Duration::ZERO);
        assert_eq!(random.next(), same.next(), "what nobody asked for changes nothing else");
    }

    #[test]
    fn groups_need_users() {
        let mix: Mix = "direct=1,group20=2,group500=0".parse().expect("a mix");
        assert!(mix.check(20).is_ok());
        assert_eq!(mix.check(19), Err("a group of 20 needs as many users, and there are 19".to_owned()));
    }

    #[test]
    fn mixes_are_read_and_refused() {
        let mix = "direct=1,group3=2".parse();
        let groups = groups(&[GroupShare { members: 3, weight: 2 }]);
        let expected = Mix { direct_weight: 1, groups, amend_weight: 0 };
        assert_eq!(mix, Ok(expected));
        assert_eq!("direct=1,group3=2,amend=9".parse(), Ok(Mix { amend_weight: 9, ..expected }));
        let sizes = "direct=40,group10=20,group99=20,group100=10,group500=10,amend=0";
        assert_eq!(sizes.parse::<Mix>().map(|mix| mix.to_string()), Ok(sizes.to_owned()));
        assert_eq!(Mix::default().to_string().parse(), Ok(Mix::default()));
        let many = "group3=1,group4=1,group5=1,group6=1,group7=1";
        let unknown = ["", "direct", "direct=x", "room=1"];
        let bad = ["direct=0", "amend=1", "group2=1", "group501=1", "group3=1,group3=1", many];
        for bad in unknown.into_iter().chain(bad) {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
    }
}
