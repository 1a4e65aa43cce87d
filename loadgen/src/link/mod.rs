//! What the controller and its workers tell each other: one JSON object a line, over pipes.
//!
//! A worker is told what it is for first, then what comes next; it answers when it is there. Pipes
//! today; nothing here minds being carried to another host.

mod config;
mod counts;

use serde::{Deserialize, Serialize};

use crate::{
    clock::Moment,
    latency::Buckets,
    plan::{RoomIndex, UserIndex},
    verify::{
        Amendment, Attendance, LoggedChanges, MembershipBook, ReadUpTo, RoomBook, Shown, Stand, ToldRoom,
        ToldStays, UserList,
    },
};

pub(crate) use config::{ADDRESS_CONNECTIONS, Forms, IdleConfig, WorkerConfig};
pub(crate) use counts::{Counts, IdleCounts, IdleTick, Reach, Split, Tick, Totals};

/// What a worker is for: the first line that it is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Hold idle users.
    Idle(IdleConfig),
    /// Send, read and check.
    Run(WorkerConfig),
    /// The same, and users who come and go all at once, step by step as they are told.
    Storm(WorkerConfig),
}

/// A conversation, and the node's name for it.
pub(crate) type GroupName = (RoomIndex, String);

/// A user, a conversation, and the sequence by which it joined or left last.
pub(crate) type NewestChange = (UserIndex, RoomIndex, u64);

/// To a worker, in this order; `Outage` and `Settled` at any time between `Start` and `Until`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToWorker {
    /// Make all rooms.
    Open,
    /// Keep to the schedule that begins at `at`. Who joins a group in which nobody else is of its worker knows it by its name.
    Start { at: Moment, groups: Vec<GroupName> },
    /// The node will be gone from then on.
    Outage { from: Moment },
    /// All users of all workers are back.
    Settled { until: Moment },
    /// Wait until all users that are online have seen this much,
    /// viewers have been told of this much, and who joined or left last knows.
    Until { heads: Vec<(RoomIndex, u64)>, reads: Vec<ReadUpTo>, changes: Vec<NewestChange> },
    /// Read the logs, hand over everything, and end. Idle users leave.
    Finish,
    /// The next thing of a storm; its end is answered with `Stepped`.
    Step(Step),
    /// The node has gone away: ask it nothing more, hand over what is known, and end.
    Abandon,
}

/// What the workers of a storm are told, one thing at a time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// All users come online, from `from` on, at most so many of each worker at the same time.
    Gather { from: Moment, at_once: u32 },
    /// Make the rooms of the schedule.
    Open,
    /// Begin the schedule at `at` and go on while other things happen.
    Start { at: Moment },
    /// Make the rooms of the crowd.
    OpenHalls,
    /// Every user asks for a cursor, so that the node knows and it knows where it stands.
    Mark,
    /// So many messages into each room of the crowd.
    Backlog { each: u32 },
    /// Messages into the rooms of the crowd, in turns, until the schedule ends.
    Chatter { per_second: u32 },
    /// All users of the crowd read like this from now on.
    Pace(Pace),
    /// All users leave at once.
    Part(Parting),
    /// End the schedule.
    Stop,
}

/// How users read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pace {
    /// As fast as they can.
    #[default]
    Full,
    /// Not at all.
    Stalled,
    /// So many bytes a second.
    Slow { bytes_per_second: u32 },
}

/// How users leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Parting {
    /// With a goodbye, whose answer they wait for.
    Close,
    /// Their sockets end without a word.
    Drop,
}

/// From a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromWorker {
    /// All users are online, and this is the worker's resident memory with them.
    Connected { resident_bytes: u64 },
    /// All rooms exist, and all members know. The node's names of the groups that were made here and whose members change.
    Opened { groups: Vec<GroupName> },
    /// How it stands with idle users.
    Idle(Box<IdleTick>),
    /// All idle users have left: the last line.
    Left,
    /// A step of a storm has ended, or was given up: when the last user was done, how many were not, and how long each took.
    Stepped { last: Moment, missing: u32, took: Buckets },
    /// How a second went.
    Tick(Tick),
    /// All users of this worker are back since the outage began.
    Settled,
    /// The schedule is over; this is how far conversations are known to go, how far users have read, and who joined or left last.
    Sent { heads: Vec<(RoomIndex, u64)>, reads: Vec<ReadUpTo>, changes: Vec<NewestChange> },
    /// The wait is over; whether it was in vain is counted.
    Drained,
    /// What was seen and promised in one conversation.
    Book(RoomBook),
    /// Amendments that were promised.
    Amended(Vec<Amendment>),
    /// One conversation as a fresh reader sees it: sequences and message ids, and what is shown of amendments.
    Log {
        room: RoomIndex,
        conversation: String,
        items: Vec<(u64, String)>,
        /// Of the items, the messages, and who sent them.
        senders: Vec<(u64, UserIndex)>,
        shown: Shown,
        /// Who joined and left, where members change.
        changes: Option<LoggedChanges>,
    },
    /// What was promised, refused and shown of groups whose members change.
    Membership(Box<MembershipBook>),
    /// What viewers know of members.
    Told(Vec<ToldRoom>),
    /// What was read, and who came and went.
    Attended(Box<Attendance>),
    /// What a user is told that it is in.
    Listed(UserList),
    /// Where a user stood that was online at the end, and when it was in groups whose members change.
    End { user: UserIndex, stands: Vec<Stand>, stays: Vec<ToldStays> },
    /// How far all members of this worker have seen each conversation, when the node has gone away.
    Seen(Vec<(RoomIndex, u64)>),
    /// The last line.
    Done(Box<Totals>),
    /// The last line of a worker that cannot go on.
    Failed { reason: String },
}
