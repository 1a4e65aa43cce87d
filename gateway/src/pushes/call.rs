//! Calls, as a shard hands them over.

use protocol::command::PushToken;
use protocol::ids::{ConversationId, DeviceId, Seq, UnixMillis, UserId};

/// One call.
#[derive(Clone, Debug)]
pub struct PushCall {
    /// When it was due.
    pub at: UnixMillis,
    /// Whom.
    pub user: UserId,
    /// By what: at least one.
    pub tokens: Vec<(DeviceId, PushToken)>,
    /// Of what.
    pub conversation: ConversationId,
    /// The newest message there.
    pub seq: Seq,
    /// Messages that the user has not read.
    pub count: u64,
}

/// Calls, and what is done with them.
#[derive(Clone, Debug, Default)]
pub struct PushBatch {
    /// In the order in which they were due.
    pub calls: Vec<PushCall>,
    /// Of logs, by number: up to which position everybody has been called once these calls are taken.
    pub marks: Vec<(u16, u64)>,
}

/// What became of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pushed {
    /// Its calls are on the disk, and so are its marks.
    Kept,
    /// It was not taken: it is to be offered again.
    Refused,
    /// Its calls are on the disk; its marks are in memory until more comes.
    Taken,
}
