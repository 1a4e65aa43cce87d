//! What the sessions of one shard may hold and have under way, each with its reason.

use protocol::limits::COMMANDS_IN_FLIGHT_MAX;

use super::approach::ApproachLimits;
use super::outbox::OUTBOX_BYTES_MAX;
use super::rates::Rate;
use super::searching::ASKS_MAX;

/// Sessions of one user at the same time: phones, tablets, a few browsers.
pub const SESSIONS_PER_USER_MAX: usize = 8;

/// How long a user is held to be online without a session, in milliseconds: who changes the network, or comes back after a restart of
/// the node, has not been away.
pub const PRESENCE_GRACE_MILLIS: u64 = 10_000;

/// By how much it may be wrong after a crash when a user was last seen, in milliseconds: users who stay are written down once in less than that, so
/// an hour makes some 50 records a second of 100,000, and who asks is seldom helped by less.
pub const LAST_SEEN_ERROR_MILLIS: u64 = 3_600_000;

/// Commands under way from one shard to another.
pub const COMMAND_CREDITS: u32 = 1024;

/// Page requests under way from one shard to another, of one session never more than one. The owner has twice as many of one shard as its disk reads
/// at a time; more would only wait there, and whatever else is read with them: 100,000 who come back made that 6,144 pages, 55,000 reads.
pub const PAGE_CREDITS: u32 = 128;

const _: () = {
    // One session never holds more than a sixteenth of a pair's credits.
    assert!(COMMANDS_IN_FLIGHT_MAX * 16 <= COMMAND_CREDITS as usize);
};

/// What the sessions of one shard may hold: less only where a test wants to see it full.
#[derive(Clone, Copy, Debug)]
pub struct UserLimits {
    /// Bytes in the outbox of a session beyond which it is fed from the log.
    pub outbox_bytes_max: usize,
    /// Commands under way to the owner of a log.
    pub command_credits: u32,
    /// Page requests under way to the owner of a log.
    pub page_credits: u32,
    /// How long a user is held to be online without a session, in milliseconds.
    pub presence_grace_millis: u64,
    /// By how much it may be wrong after a crash when a user was last seen, in milliseconds.
    pub last_seen_error_millis: u64,
    /// Commands of one session.
    pub session_commands: Rate,
    /// Commands that store something, of all sessions of a user together.
    pub user_messages: Rate,
    /// How many others a user may approach.
    pub approaches: ApproachLimits,
    /// Whether there is an index to search in.
    pub searches: bool,
    /// Searches that it works on at a time.
    pub index_asks_max: u32,
}

impl Default for UserLimits {
    fn default() -> Self {
        let (command_credits, page_credits) = (COMMAND_CREDITS, PAGE_CREDITS);
        let (outbox_bytes_max, presence_grace_millis) = (OUTBOX_BYTES_MAX, PRESENCE_GRACE_MILLIS);
        let (session_commands, user_messages) = (Rate::UNLIMITED, Rate::UNLIMITED);
        Self {
            outbox_bytes_max,
            command_credits,
            page_credits,
            presence_grace_millis,
            last_seen_error_millis: LAST_SEEN_ERROR_MILLIS,
            session_commands,
            user_messages,
            approaches: ApproachLimits::NONE,
            searches: false,
            index_asks_max: ASKS_MAX,
        }
    }
}
