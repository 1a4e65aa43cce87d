//! What the node counts: one block per shard, written by that shard alone, added up when somebody asks.
//!
//! A shard pays a load and a store per count, never a locked instruction and never a shared cache line.
//! A scrape may see one shard a moment earlier than another; it never makes a shard wait.
//!
//! Invariant: each [`ShardMetrics`] has one writer. Two would lose counts, silently.

mod care;
mod histogram;
mod keys;
mod pushes;
mod render;
mod search;
mod slow;

use std::sync::atomic::{AtomicU64, Ordering};

pub use care::CareMetrics;
pub use histogram::Histogram;
pub use keys::KeyMetrics;
use protocol::event::{CloseCode, ErrorCode};
pub use pushes::PushMetrics;
pub use render::render;
pub use search::SearchMetrics;
pub use slow::SlowReaders;

/// Only ever grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// `count` more.
    #[inline]
    pub fn add(&self, count: u64) {
        // The one writer reads back what it wrote itself, so nothing is lost between load and store.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Takes over a total that is counted elsewhere, such as in the ring.
    #[inline]
    pub fn set_total(&self, total: u64) {
        self.0.store(total, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Grows and shrinks.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// It is this much now.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// `count` more.
    #[inline]
    pub fn add(&self, count: u64) {
        self.set(self.value().saturating_add(count));
    }

    /// `count` less; stays at 0 rather than wrapping to a number nobody believes.
    #[inline]
    pub fn sub(&self, count: u64) {
        self.set(self.value().saturating_sub(count));
    }

    /// How much it is.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a connection ended before it became a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedReason {
    /// No such request: malformed, wrong path, wrong method, no upgrade.
    BadRequest,
    /// It took longer than those who waited for its place were to wait.
    Displaced,
    /// The shard is at its limit of connections.
    Full,
    /// Its address has as many connections as it may.
    IpConnections,
    /// Connections of its address came too fast.
    IpConnects,
    /// The system, or the node's control group, has too little memory left.
    Memory,
    /// The pool for peers without a token is empty.
    NoBuffer,
    /// There was no right to move to the home shard within the time of a handshake.
    NoCredit,
    /// A proxy's, which did not begin with a PROXY header.
    NoProxyHeader,
    /// A web page that is not on the list.
    Origin,
    /// The system had no descriptor or no memory for it: reset, without a word.
    System,
    /// Not done in time.
    Timeout,
    /// A token that is not valid.
    Token,
}

impl RefusedReason {
    /// All of them, in the order of [`ShardMetrics`].
    pub const ALL: [Self; 13] = [
        Self::BadRequest,
        Self::Displaced,
        Self::Full,
        Self::IpConnections,
        Self::IpConnects,
        Self::Memory,
        Self::NoBuffer,
        Self::NoCredit,
        Self::NoProxyHeader,
        Self::Origin,
        Self::System,
        Self::Timeout,
        Self::Token,
    ];

    /// The value of the label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Displaced => "displaced",
            Self::Full => "full",
            Self::IpConnections => "ip_connections",
            Self::IpConnects => "ip_connects",
            Self::Memory => "memory",
            Self::NoBuffer => "no_buffer",
            Self::NoCredit => "no_credit",
            Self::NoProxyHeader => "no_proxy_header",
            Self::Origin => "origin",
            Self::System => "system",
            Self::Timeout => "timeout",
            Self::Token => "token",
        }
    }
}

/// Why no connection was taken for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseReason {
    /// As many handshakes as may be are in progress.
    Handshakes,
    /// As many connections came in this second as may.
    Rate,
    /// The table of sockets is needed for those who are connected.
    Sockets,
    /// The system had nothing left for another.
    System,
}

impl PauseReason {
    /// All of them, in the order of [`ShardMetrics`].
    pub const ALL: [Self; 4] = [Self::Handshakes, Self::Rate, Self::Sockets, Self::System];

    /// The value of the label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Handshakes => "handshakes",
            Self::Rate => "rate",
            Self::Sockets => "sockets",
            Self::System => "system",
        }
    }
}

/// The close codes that are counted each on its own; others are counted as `other`.
pub(crate) const CLOSE_CODES: [CloseCode; 18] = [
    CloseCode::NORMAL,
    CloseCode::GOING_AWAY,
    CloseCode::PROTOCOL,
    CloseCode::UNSUPPORTED,
    CloseCode::NO_STATUS,
    CloseCode::ABNORMAL,
    CloseCode::INVALID_DATA,
    CloseCode::TOO_BIG,
    CloseCode::INTERNAL,
    CloseCode::DRAIN,
    CloseCode::STALLED,
    CloseCode::IDLE,
    CloseCode::OVERLOAD,
    CloseCode::BAD_TOKEN,
    CloseCode::EXPIRED,
    CloseCode::REVOKED,
    CloseCode::POLICY,
    CloseCode::REPLACED,
];

/// What one shard counts. Aligned so that no two shards share a cache line or its neighbour, which the
/// processor fetches along.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardMetrics {
    /// Open sockets, sessions or not.
    pub connections: Gauge,
    /// Connections that were accepted here and have not shown a token yet.
    pub handshakes: Gauge,
    /// Connections that showed a token.
    pub sessions: Gauge,
    /// Connections accepted here.
    pub accepted_total: Counter,
    /// Connections moved here from the shard that accepted them.
    pub moved_total: Counter,
    /// Connections whose PROXY header said whose they are.
    pub proxied_total: Counter,
    /// Commands that were refused for now because of what others of their address asked.
    pub ip_rate_limited_total: Counter,
    /// Times around the loop.
    pub turns_total: Counter,
    /// Messages that became durable here.
    pub messages_stored_total: Counter,
    /// Messages put into an outbox as they came.
    pub deliveries_total: Counter,
    /// Messages put into an outbox from the log, while catching up.
    pub replays_total: Counter,
    /// Times a reader was too slow for its traffic and went back to catching up.
    pub outbox_full_total: Counter,
    /// Readers that are too slow now.
    pub slow_readers: SlowReaders,
    /// Times deliveries to another shard found no room and became a note.
    pub overruns_total: Counter,
    /// Times that viewers were told who came, went, or is typing.
    pub presence_events_total: Counter,
    /// Commands answered `busy` for want of a mailbox credit.
    pub busy_total: Counter,
    /// Requests in this shard's inbound mailboxes.
    pub mail_requests: Gauge,
    /// Replies and deliveries in this shard's inbound mailboxes.
    pub mail_replies: Gauge,
    /// System calls into the ring.
    pub ring_enters_total: Counter,
    /// Times completions overflowed into kernel memory.
    pub ring_cq_overflows_total: Counter,
    /// Times the kernel had data and no receive buffer for it.
    pub ring_recv_starved_total: Counter,
    /// Batches written.
    pub log_batches_total: Counter,
    /// Segments written anew, sorted by stream.
    pub log_compactions_total: Counter,
    /// Segments of which nothing is kept because the disk gives less than may be.
    pub log_freed_segments_total: Counter,
    /// Stored records found damaged or unreadable.
    pub log_damaged_records_total: Counter,
    /// Index files that were damaged and are made again.
    pub index_rebuilds_total: Counter,
    /// Damaged index files that could not be made again, each try.
    pub index_rebuild_failures_total: Counter,
    /// Bytes written.
    pub log_bytes_total: Counter,
    /// Conversations in which somebody may have to be called, or was lately.
    pub push_waiting: Gauge,
    /// Messages of which nobody was called, for want of room.
    pub push_passed_over_total: Counter,
    /// Users who were not called: no device has a token, or the conversation is muted.
    pub push_silent_total: Counter,
    /// Users who were not called because what they have set cannot be read.
    pub push_unknown_total: Counter,
    /// From a command that stores to its `ok` in the outbox, in microseconds.
    pub ack_seconds: Histogram,
    /// From a command that stores to its delivery in an outbox, in microseconds.
    pub delivery_seconds: Histogram,
    /// From a batch's submission to its sync, in microseconds.
    pub sync_seconds: Histogram,
    /// Size of a batch, in bytes.
    pub batch_bytes: Histogram,
    /// Records of a batch.
    pub batch_records: Histogram,
    accept_pauses_total: [Counter; PauseReason::ALL.len()],
    refused_total: [Counter; RefusedReason::ALL.len()],
    errors_total: [Counter; ErrorCode::ALL.len()],
    /// One more than there are codes: the last counts the others.
    closes_total: [Counter; CLOSE_CODES.len() + 1],
}

impl ShardMetrics {
    /// Connections refused for this reason.
    pub fn refused_total(&self, reason: RefusedReason) -> &Counter {
        &self.refused_total[reason as usize]
    }

    /// Times that no connection was taken, for this reason.
    pub fn accept_pauses_total(&self, reason: PauseReason) -> &Counter {
        &self.accept_pauses_total[reason as usize]
    }

    /// Error replies with this code.
    pub fn errors_total(&self, code: ErrorCode) -> &Counter {
        &self.errors_total[code as usize]
    }

    /// Connections that ended with this close code, whichever side sent it.
    pub fn closes_total(&self, code: CloseCode) -> &Counter {
        let index = CLOSE_CODES.binary_search(&code).unwrap_or(CLOSE_CODES.len());
        &self.closes_total[index]
    }
}
