//! The judge: what a reader may see, and what the log must hold.
//!
//! [`Reader`] and [`Book`] follow a run while it goes on; [`Evidence`] is compared with the log when it is
//! over. Everything here is a function of values: no socket, no clock, no file.
//!
//! Invariant: a history in which nothing was lost, doubled, reordered, skipped, leaked or shown as it is no
//! more gives no violation; the tests hold one mutant of each kind against it.

mod book;
mod forms;
mod judge;
mod membership;
mod partial;
mod reader;
mod told;
mod unread;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

pub(crate) use book::{Book, RoomBook};
pub(crate) use forms::{
    Amendment, Change, CommandId, EMOJIS, FoldedForm, NO_LETTER, Overtaken, Shown, ShownAmendment,
    command_id, emoji_number,
};
pub(crate) use judge::{Evidence, LogItem, judge};
pub(crate) use membership::{
    EarlyRead, Limited, LoggedChange, LoggedChanges, Members, MembershipBook, Outsider, PromisedChange,
    ShownPage, Stay, ToldStays, Unchanged, switches,
};
pub(crate) use reader::{Reader, Receipt, Stand};
pub(crate) use told::{
    AWAY_TOLD, Attendance, ReadUpTo, Repeated, SILENCE, Source, TOLD_MAX, Told, ToldMember, ToldRoom,
    Watched, Wrong,
};
pub(crate) use unread::{ListedRoom, UserList};

/// Violations told in full; the rest is counted.
pub(crate) const DETAILS_MAX: usize = 20;

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Acknowledged or delivered, and not in the log.
    AckedLost,
    /// An acknowledged amendment whose place in the log holds no amendment, or one of another target or author.
    Amendment,
    /// A text that is not what its sender wrote.
    Content,
    /// A deleted message of which something is shown all the same.
    DeletedShown,
    /// A message that nobody deleted is shown as deleted.
    DeletedUnasked,
    /// One message under two sequences, or two under one.
    Doubled,
    /// A message whose text is not that of its newest acknowledged edit, or which hides that it has one.
    Edit,
    /// A search that found something else than what has its word.
    Hit,
    /// A sequence that a member never saw, or that the log does not have.
    Hole,
    /// Something was given, shown, stored or refused that the members of the conversation at that sequence do not allow.
    Membership,
    /// An amendment was refused because there is no such message, and there is.
    NotFound,
    /// The last of a conversation was not given to a member that is there: it is lost, or the time that there is for it at the end was too short.
    NotGiven,
    /// A sequence at or below one already seen on the same connection.
    Order,
    /// Somebody who was there was told to be away, somebody was told of whom it does not view, or again what it knew, or not that somebody had
    /// gone.
    Presence,
    /// Reactions that are not those that were acknowledged, or not in their order.
    Reactions,
    /// A position that went back, is of nobody there, or is not what that member did last.
    Receipt,
    /// Somebody saw a conversation it is not in.
    Recipient,
    /// Refused for good, and in the log all the same.
    Refused,
    /// A cursor of this very store was not honoured.
    Reset,
    /// An amendment in a history that says what its target was once, not what it is.
    Unfolded,
    /// A message that a search does not find in time.
    Unfound,
    /// A conversation that a user is in and is not listed once, or not with what a recount says.
    Unread,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AckedLost => "acked-lost",
            Self::Amendment => "amendment",
            Self::Content => "content",
            Self::DeletedShown => "deleted-shown",
            Self::DeletedUnasked => "deleted-unasked",
            Self::Doubled => "doubled",
            Self::Edit => "edit",
            Self::Hit => "wrong-hit",
            Self::Hole => "hole",
            Self::Membership => "membership",
            Self::NotFound => "not-found",
            Self::NotGiven => "not-given",
            Self::Order => "order",
            Self::Presence => "presence",
            Self::Reactions => "reactions",
            Self::Receipt => "receipt",
            Self::Recipient => "wrong-recipient",
            Self::Refused => "refused-but-stored",
            Self::Reset => "cursor-reset",
            Self::Unfound => "not-found-in-time",
            Self::Unfolded => "unfolded",
            Self::Unread => "unread",
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
