//! What goes between the two sides: values that cross threads, in order.
//!
//! A request takes a credit at its sender and every request has exactly one reply, so a reply always finds room.
//! [`Reply::Deliver`] and [`Reply::Overrun`] are nobody's reply; they share the queue with replies because the exact
//! switch to live depends on the one order.
//!
//! Both enums stand alone (`request`, `reply`), and what they carry beside them: what is to be stored, records, what is said of a
//! conversation and of who is there. What a log answers that is not served is in `unavailable`.

mod conversations;
mod presence;
mod records;
mod reply;
mod request;
mod store;
mod unavailable;

use protocol::ids::{RequestId, UnixMillis};

use crate::places::ShardId;

pub use conversations::{ListedItem, Membership, MovedHead, ReadState, Surveyed};
pub use presence::{Given, Knows, SEEN_PER_MAIL, SIGHTINGS, Sighting, Signal, Standing};
pub use records::{Gone, Linked};
pub use reply::{Deliver, Reply};
pub use request::Request;
pub use store::{Change, May, Setting, Store};

/// Users whose push tokens one shard asks another for at a time: what a round between two shards carries beside everything else. A place is
/// kept for each of them, in both directions.
pub const PUSH_LOOKUPS: usize = 64;

/// One session of one shard; a reply to a session that has gone finds nobody.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SessionId {
    /// Slot at its home.
    pub slot: u32,
    /// Tells sessions of one slot apart.
    pub generation: u32,
}

/// The time of one turn, read once by whoever drives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Clock {
    /// Wall clock, for what is stored and told.
    pub unix: UnixMillis,
    /// Microseconds since some fixed moment of this process, never backwards: for latencies and deadlines.
    pub micros: u64,
}

/// Who asked, and under which number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asker {
    /// Home of the session: where the reply goes.
    pub shard: ShardId,
    /// The session.
    pub session: SessionId,
    /// The client's number for the command.
    pub id: RequestId,
    /// When it was asked, by [`Clock::micros`].
    pub asked_micros: u64,
}

/// What is asked for a session by nobody: its answer is no reply. No client can use the number.
pub(crate) const UNASKED: RequestId = RequestId(0);
