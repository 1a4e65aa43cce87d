//! What the controller and its workers tell each other: one JSON object a line, over pipes.
//!
//! A worker is told what it is for first, then what comes next; it answers when it is there. Pipes
//! today; nothing here minds being carried to another host.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use protocol::upgrade::Form;
use serde::{Deserialize, Serialize};

use crate::{
    client::Endpoint,
    clock::Moment,
    latency::Buckets,
    load::Load,
    plan::{Attention, Comings, Mix, RoomIndex, UserIndex},
    verify::{
        Amendment, Attendance, LoggedChanges, MembershipBook, Overtaken, ReadUpTo, RoomBook, Shown, Stand,
        ToldRoom, ToldStays, UserList, Violations,
    },
};

/// Connections of one address: less than half of its 28,000 ports, because the kernel tries every second port first and
/// then, once these are taken, all of them in vain at every connection.
pub(crate) const ADDRESS_CONNECTIONS: u32 = 10_000;

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

/// All that a worker with idle users needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct IdleConfig {
    pub(crate) worker: u32,
    pub(crate) workers: u32,
    pub(crate) endpoint: Endpoint,
    /// The addresses that connections come from, in turn; none leaves it to the system.
    pub(crate) sources: Vec<IpAddr>,
    pub(crate) secret: String,
    pub(crate) tag: String,
    /// Of all workers together.
    pub(crate) users: u32,
    /// Of all workers together; users leave as fast as they come.
    pub(crate) connects_per_second: u32,
    /// When the first user comes.
    pub(crate) start: Moment,
}

/// What a worker with idle users has counted since it began, told every second.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct IdleTick {
    pub(crate) counts: IdleCounts,
    /// `error` events by name.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Ends of connections that this side did not ask for, by close code.
    pub(crate) closes: BTreeMap<u16, u64>,
    /// The last thing that went wrong, for people.
    pub(crate) fault: Option<String>,
    /// From ping to pong, of this second alone.
    pub(crate) pongs: Buckets,
    /// How late pings were, of this second alone.
    pub(crate) lag: Buckets,
    /// When the last user was let in.
    pub(crate) last_welcome: Moment,
    /// Resident memory of the worker.
    pub(crate) resident_bytes: u64,
}

/// Plain counters of idle users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdleCounts {
    /// Users that have a welcome, whatever became of them.
    pub(crate) welcomed: u64,
    /// Users that could not connect, or whose connection ended before they had a welcome.
    pub(crate) refused: u64,
    /// Users whose connection ended before they left.
    pub(crate) lost: u64,
    /// Users that left when they were told to.
    pub(crate) left: u64,
    pub(crate) pings: u64,
    pub(crate) pongs: u64,
    /// Pings that had no answer when the next one was due.
    pub(crate) unanswered: u64,
}

impl IdleCounts {
    pub(crate) const fn add(&mut self, other: &Self) {
        self.welcomed += other.welcomed;
        self.refused += other.refused;
        self.lost += other.lost;
        self.left += other.left;
        self.pings += other.pings;
        self.pongs += other.pongs;
        self.unanswered += other.unanswered;
    }
}

/// All that a worker needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WorkerConfig {
    pub(crate) worker: u32,
    pub(crate) workers: u32,
    pub(crate) endpoint: Endpoint,
    pub(crate) secret: String,
    pub(crate) tag: String,
    pub(crate) users: u32,
    /// The last so many of the users only read, and belong to all workers but the first, which has the others.
    pub(crate) crowd: u32,
    /// The first three bytes of the addresses that those come from who come in crowds; `None` leaves it to the system.
    pub(crate) network: Option<[u8; 3]>,
    pub(crate) mix: Mix,
    pub(crate) attention: Attention,
    pub(crate) load: Load,
    pub(crate) forms: Forms,
    pub(crate) comings: Comings,
    /// Where this worker writes its events.
    pub(crate) history: Option<PathBuf>,
}

impl WorkerConfig {
    /// Users are dealt out like cards, so that contacts sit in different processes.
    pub(crate) const fn owns(&self, user: UserIndex) -> bool {
        self.deal(user).0 == self.worker
    }

    /// The place of a user among those of its worker.
    pub(crate) const fn place_of(&self, user: UserIndex) -> usize {
        self.deal(user).1 as usize
    }

    /// The address that a user comes from; another one each time, because the ports of the last one may not be free yet.
    pub(crate) fn source_of(&self, place: usize, comings: u64) -> Option<IpAddr> {
        let [network, middle, subnet] = self.network?;
        let (users, workers) =
            if self.crowd > 0 { (self.crowd, self.workers - 1) } else { (self.users, self.workers) };
        let hosts = users.div_ceil(workers).div_ceil(ADDRESS_CONNECTIONS) as usize;
        let host = comings as usize * hosts + place % hosts;
        Some(IpAddr::from([network, middle, subnet, 1 + (host % 250) as u8]))
    }

    /// Workers that share the schedule.
    pub(crate) const fn senders(&self) -> u32 {
        if self.crowd > 0 { 1 } else { self.workers }
    }

    /// The worker of a user, and its place there.
    const fn deal(&self, user: UserIndex) -> (u32, u32) {
        let established = self.users - self.crowd;
        match user.0.checked_sub(established) {
            Some(place) => (1 + place % (self.workers - 1), place / (self.workers - 1)),
            None if self.crowd > 0 => (0, user.0),
            None => (user.0 % self.workers, user.0 / self.workers),
        }
    }
}

/// A conversation, and the node's name for it.
pub(crate) type GroupName = (RoomIndex, String);

/// A user, a conversation, and the sequence by which it joined or left last.
pub(crate) type NewestChange = (UserIndex, RoomIndex, u64);

/// Which form of the protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Forms {
    // No documentation here: `--help` would show it, and would not fit a screen any more.
    Binary,
    Json,
    Mixed,
}

impl Forms {
    pub(crate) const fn of(self, user: UserIndex) -> Form {
        match self {
            Self::Binary => Form::Binary,
            Self::Json => Form::Json,
            Self::Mixed if (user.0 / 2).is_multiple_of(2) => Form::Binary,
            Self::Mixed => Form::Json,
        }
    }
}

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

/// Whether a worker reaches the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reach {
    /// Somebody is connected.
    Reached,
    /// Nobody is connected of those who want to be, and nobody can connect.
    UnreachedSince(Moment),
    /// Nobody is connected: nobody wants to be, or nobody has been refused yet.
    #[default]
    Undecided,
}

/// One second of one worker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tick {
    /// From the start of the schedule; before it, `None`.
    pub(crate) second: Option<u64>,
    pub(crate) connected: u64,
    /// Whether the node is.
    pub(crate) reach: Reach,
    pub(crate) sent: u64,
    pub(crate) acked: u64,
    pub(crate) delivered: u64,
    pub(crate) errors: u64,
    pub(crate) delivery: Buckets,
    /// How late this worker was.
    pub(crate) lag: Buckets,
}

/// What a worker counted, outside and inside the outage where it matters.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) counts: Counts,
    /// `error` replies by name.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Ends of connections by close code; 1006 where there was none.
    pub(crate) closes: BTreeMap<u16, u64>,
    pub(crate) ack: Split,
    pub(crate) delivery: Split,
    pub(crate) lag: Split,
    /// From the end of a connection until the user has caught up on the next one.
    pub(crate) back: Buckets,
    /// From a delivery to the `ok` of the `read` that answers it.
    pub(crate) read: Split,
    /// From when a change of members was due to its `ok`.
    pub(crate) change: Split,
    /// From when an absent user set out until it had read everything.
    pub(crate) whole: Split,
    /// From a search to its answer.
    pub(crate) search: Split,
    /// From an acknowledgement until a search finds what was acknowledged.
    pub(crate) found: Split,
    pub(crate) violations: Violations,
    /// Message ids that were refused for good.
    pub(crate) refused: Vec<String>,
    /// Amendments that were refused because there was no such message any more.
    pub(crate) overtaken: Vec<Overtaken>,
    /// Users, and how many of their sends were given up.
    pub(crate) given_up_by: BTreeMap<String, u64>,
    /// When the node has gone away: what had been counted when it was there for certain. What waited for it in vain since says nothing.
    pub(crate) confirmed: Option<Counts>,
}

/// Plain counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Messages of the schedule.
    pub(crate) due: u64,
    /// Of those, written to a socket at least once.
    pub(crate) sent: u64,
    pub(crate) acked: u64,
    /// Of those, amendments.
    pub(crate) amended: u64,
    /// Amendments of what had been deleted before they came.
    pub(crate) overtaken: u64,
    /// Sent again after a reconnect, because no answer had come.
    pub(crate) resent: u64,
    /// Sent again because the node asked for patience.
    pub(crate) retried: u64,
    pub(crate) refused: u64,
    /// Changes of members that were due.
    pub(crate) changes: u64,
    /// Of those, acknowledged,
    pub(crate) changes_acked: u64,
    /// and refused, because another change came first.
    pub(crate) changes_refused: u64,
    /// Messages, amendments, reads and pages that were refused because who asked had just left, or may not see that.
    pub(crate) outside: u64,
    /// Times that somebody who had just joined or left looked at what it then sees.
    pub(crate) looks: u64,
    /// Users that went away for a part of the run,
    pub(crate) absences: u64,
    /// and of those, that came back and read everything.
    pub(crate) returned: u64,
    /// Messages that came to them when they were back, each once for each of them.
    pub(crate) missed: u64,
    /// Commands that store, neither acknowledged nor refused at the end.
    pub(crate) unanswered: u64,
    /// The same of reads, those among them that are only said again because the connection ended on which they had been taken.
    pub(crate) reads_unanswered: u64,
    /// Never sent, because too many of that user waited already.
    pub(crate) given_up: u64,
    /// Receipts at other users, each message once for each of them.
    pub(crate) delivered: u64,
    /// Receipts of all kinds.
    pub(crate) received: u64,
    /// Receipts of what was seen on an earlier connection.
    pub(crate) replayed: u64,
    /// Times that somebody was told how far a large group has moved.
    pub(crate) heads: u64,
    /// Records that were read of those.
    pub(crate) opened: u64,
    /// Conversations of which somebody was told what is unread, after the run.
    pub(crate) listed: u64,
    /// Times that somebody said how far it has read, again after a reconnect as well.
    pub(crate) reads: u64,
    /// Of those, taken.
    pub(crate) reads_taken: u64,
    pub(crate) reads_refused: u64,
    /// Heartbeats, and looks of who had just joined or left, that were refused for another reason than that it is no member.
    pub(crate) others_refused: u64,
    /// Conversations that somebody looked at, on each connection and once more at the end.
    pub(crate) views: u64,
    pub(crate) views_refused: u64,
    /// Workers some of whose users had not been shown in time what they look at.
    pub(crate) views_unanswered: u64,
    /// Times that a viewer was told how far somebody has read or been given.
    pub(crate) receipts: u64,
    /// Times that a viewer was told that somebody came or went.
    pub(crate) presences: u64,
    /// Searches that were asked, each again until it finds.
    pub(crate) searches: u64,
    pub(crate) searches_refused: u64,
    /// Searches that had no answer in time,
    pub(crate) searches_unanswered: u64,
    /// and messages and edits of which it was not known at the end whether they are found.
    pub(crate) searches_undecided: u64,
    /// Messages and edits that were found.
    pub(crate) found: u64,
    pub(crate) connections: u64,
    pub(crate) dial_failures: u64,
    /// Goodbyes of a node that goes away in order.
    pub(crate) drains: u64,
    /// Users that were told not to come back.
    pub(crate) stopped: u64,
    pub(crate) online_at_end: u64,
    /// Users that were not done in time with what a crowd was told, each time.
    pub(crate) undone: u64,
    /// Workers some of whose users had not seen everything in time,
    pub(crate) undrained: u64,
    /// and all that have come to the end.
    pub(crate) ended: u64,
}

impl Counts {
    pub(crate) const fn add(&mut self, other: &Self) {
        self.due += other.due;
        self.sent += other.sent;
        self.acked += other.acked;
        self.amended += other.amended;
        self.overtaken += other.overtaken;
        self.resent += other.resent;
        self.retried += other.retried;
        self.refused += other.refused;
        self.changes += other.changes;
        self.changes_acked += other.changes_acked;
        self.changes_refused += other.changes_refused;
        self.outside += other.outside;
        self.looks += other.looks;
        self.absences += other.absences;
        self.returned += other.returned;
        self.missed += other.missed;
        self.unanswered += other.unanswered;
        self.reads_unanswered += other.reads_unanswered;
        self.given_up += other.given_up;
        self.delivered += other.delivered;
        self.received += other.received;
        self.replayed += other.replayed;
        self.heads += other.heads;
        self.opened += other.opened;
        self.listed += other.listed;
        self.reads += other.reads;
        self.reads_taken += other.reads_taken;
        self.reads_refused += other.reads_refused;
        self.others_refused += other.others_refused;
        self.views += other.views;
        self.views_refused += other.views_refused;
        self.views_unanswered += other.views_unanswered;
        self.receipts += other.receipts;
        self.presences += other.presences;
        self.searches += other.searches;
        self.searches_refused += other.searches_refused;
        self.searches_unanswered += other.searches_unanswered;
        self.searches_undecided += other.searches_undecided;
        self.found += other.found;
        self.connections += other.connections;
        self.dial_failures += other.dial_failures;
        self.drains += other.drains;
        self.stopped += other.stopped;
        self.online_at_end += other.online_at_end;
        self.undone += other.undone;
        self.undrained += other.undrained;
        self.ended += other.ended;
    }
}

/// Latencies outside and inside the outage.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Split {
    pub(crate) outside: Buckets,
    pub(crate) outage: Buckets,
}
