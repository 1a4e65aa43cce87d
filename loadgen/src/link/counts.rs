//! What workers count: each second, and in all.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    clock::Moment,
    latency::Buckets,
    verify::{Overtaken, Violations},
};

/// Numbers, each of which is the sum of those of all workers: a new one cannot be forgotten where they are put together.
macro_rules! counters {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $field:ident,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub(crate) struct $name {
            $($(#[$what])* pub(crate) $field: u64,)*
        }

        impl $name {
            pub(crate) const fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }
        }
    };
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

counters! {
    /// Plain counters of idle users.
    IdleCounts {
        /// Users that have a welcome, whatever became of them.
        welcomed,
        /// Users that could not connect, or whose connection ended before they had a welcome.
        refused,
        /// Users whose connection ended before they left.
        lost,
        /// Users that left when they were told to.
        left,
        pings,
        pongs,
        /// Pings that had no answer when the next one was due.
        unanswered,
    }
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
    /// Records with an `ok`, and records that came, of the schedule or not.
    pub(crate) stored: u64,
    pub(crate) received: u64,
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

counters! {
    /// Plain counters.
    Counts {
        /// Messages of the schedule.
        due,
        /// Of those, written to a socket at least once.
        sent,
        acked,
        /// Of those, amendments.
        amended,
        /// Amendments of what had been deleted before they came.
        overtaken,
        /// Sent again after a reconnect, because no answer had come.
        resent,
        /// Sent again because the node asked for patience.
        retried,
        refused,
        /// Changes of members that were due.
        changes,
        /// Of those, acknowledged,
        changes_acked,
        /// and refused, because another change came first.
        changes_refused,
        /// Messages, amendments, reads and pages that were refused because who asked had just left, or may not see that.
        outside,
        /// Times that somebody who had just joined or left looked at what it then sees.
        looks,
        /// Users that went away for a part of the run,
        absences,
        /// and of those, that came back and read everything.
        returned,
        /// Messages that came to them when they were back, each once for each of them.
        missed,
        /// Commands that store, neither acknowledged nor refused at the end.
        unanswered,
        /// The same of reads, those among them that are only said again because the connection ended on which they had been taken.
        reads_unanswered,
        /// Never sent, because too many of that user waited already.
        given_up,
        /// Receipts at other users, each message once for each of them.
        delivered,
        /// Receipts of all kinds.
        received,
        /// Receipts of what was seen on an earlier connection.
        replayed,
        /// Times that somebody was told how far a large group has moved.
        heads,
        /// Records that were read of those.
        opened,
        /// Conversations of which somebody was told what is unread, after the run.
        listed,
        /// Times that somebody said how far it has read, again after a reconnect as well.
        reads,
        /// Of those, taken.
        reads_taken,
        reads_refused,
        /// Heartbeats, and looks of who had just joined or left, that were refused for another reason than that it is no member.
        others_refused,
        /// Conversations that somebody looked at, on each connection and once more at the end.
        views,
        views_refused,
        /// Workers some of whose users had not been shown in time what they look at.
        views_unanswered,
        /// Times that a viewer was told how far somebody has read or been given.
        receipts,
        /// Times that a viewer was told that somebody came or went.
        presences,
        /// Searches that were asked, each again until it finds.
        searches,
        searches_refused,
        /// Searches that had no answer in time,
        searches_unanswered,
        /// and messages and edits of which it was not known at the end whether they are found.
        searches_undecided,
        /// Messages and edits that were found.
        found,
        connections,
        dial_failures,
        /// Goodbyes of a node that goes away in order.
        drains,
        /// Users that were told not to come back.
        stopped,
        online_at_end,
        /// Users that were not done in time with what a crowd was told, each time.
        undone,
        /// Workers some of whose users had not seen everything in time,
        undrained,
        /// and all that have come to the end.
        ended,
    }
}

/// Latencies outside and inside the outage.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Split {
    pub(crate) outside: Buckets,
    pub(crate) outage: Buckets,
}
