//! The judge: what a reader may see, and what the log must hold.
//!
//! [`Reader`] and [`Book`] follow a run while it goes on; [`Evidence`] is compared with the log when it is
//! over. Everything here is a function of values: no socket, no clock, no file.
//!
//! Invariant: a history in which nothing was lost, doubled, reordered, skipped or leaked gives no
//! violation; the tests hold one mutant of each kind against it.

mod book;
mod judge;
mod reader;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

pub(crate) use book::{Book, RoomBook};
pub(crate) use judge::{Evidence, judge};
pub(crate) use reader::{Reader, Receipt, Stand};

/// Violations told in full; the rest is counted.
pub(crate) const DETAILS_MAX: usize = 20;

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Acknowledged or delivered, and not in the log.
    AckedLost,
    /// A text that is not what its sender wrote.
    Content,
    /// One message under two sequences, or two under one.
    Doubled,
    /// A sequence that a member never saw, or that the log does not have.
    Hole,
    /// A sequence at or below one already seen on the same connection.
    Order,
    /// Somebody saw a conversation it is not in.
    Recipient,
    /// Refused for good, and in the log all the same.
    Refused,
    /// A cursor of this very store was not honoured.
    Reset,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AckedLost => "acked-lost",
            Self::Content => "content",
            Self::Doubled => "doubled",
            Self::Hole => "hole",
            Self::Order => "order",
            Self::Recipient => "wrong-recipient",
            Self::Refused => "refused-but-stored",
            Self::Reset => "cursor-reset",
        })
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Violation {
    pub(crate) kind: Kind,
    /// With users, conversations and sequences.
    pub(crate) detail: String,
}

/// All that is wrong: every one counted, the first ones told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Violations {
    pub(crate) counts: BTreeMap<Kind, u64>,
    pub(crate) first: Vec<Violation>,
}

impl Violations {
    pub(crate) fn add(&mut self, kind: Kind, detail: impl FnOnce() -> String) {
        *self.counts.entry(kind).or_default() += 1;
        if self.first.len() < DETAILS_MAX {
            self.first.push(Violation { kind, detail: detail() });
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (kind, count) in other.counts {
            *self.counts.entry(kind).or_default() += count;
        }
        self.first.extend(other.first);
        self.first.truncate(DETAILS_MAX);
    }

    pub(crate) fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

#[cfg(test)]
mod tests;
