//! What a shard is told, and what it wants done: the whole of what it has to do with a ring, as values.
//!
//! The driver makes events of completions and operations of actions; the simulator makes both up. Neither enum is open: what is new here
//! has to be done there, or does not compile.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use ring::{RecvBuffer, Socket};
use router::ShardId;
use router::conversation::{Erased, ReadPlace};
use router::index::{IndexAnswer, IndexAsk};
use storage_log::{
    Buffer, Compacted, CompactionJob, IndexJob, Location, NotMade, Postings, RebuildJob, SealedSegment,
    WriteBatch,
};

use super::ConnectionId;
use crate::auth::{Revocation, Verifier};
use crate::erasures::ask::{ErasureAsk, LogLeft};
use crate::pushes::call::{PushBatch, Pushed};

/// Which listener a connection came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listener {
    /// Clients.
    Chat,
    /// The echo service for conformance and floor measurements.
    Echo,
}

/// How a receive ended without bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReceiveEnd {
    /// Not armed any more, for no fault of the peer.
    Disarmed,
    /// The peer has sent its last byte, or the connection failed.
    Gone,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A connection was accepted.
    Accepted {
        /// By which listener.
        listener: Listener,
        /// Its descriptor.
        socket: Socket,
        /// Who.
        peer: SocketAddr,
    },
    /// The system had no descriptor or no memory for a connection.
    NotAccepted,
    /// A descriptor came from another shard.
    Adopted {
        /// Of which move.
        migration: u64,
        /// The descriptor here.
        socket: Socket,
    },
    /// A descriptor is free.
    Closed(ConnectionId),
    /// Finish and stop: spread the goodbyes, keep acknowledging, then say that it is done.
    Drain,
    /// Something is to be erased, or somebody wants to know how far that is: [`Action::Erased`] answers, in the order of these.
    Erase(ErasureAsk),
    /// The index of words has answered [`Action::Search`].
    Found(IndexAnswer),
    /// Stand still: another process is to go on.
    Pause,
    /// What became of [`Action::Push`].
    Pushed(Pushed),
    /// Go on: it does not.
    Resume,
    /// A record was read, or could not be.
    Read {
        /// From which log.
        log: u16,
        /// As asked.
        job: u32,
        /// As asked.
        place: u32,
        /// What the disk had there.
        bytes: Option<Vec<u8>>,
    },
    /// Bytes came.
    Received {
        /// From whom.
        connection: ConnectionId,
        /// What.
        buffer: RecvBuffer,
        /// Whether more may come without asking again.
        armed: bool,
    },
    /// A receive ended.
    ReceiveEnded {
        /// Whose.
        connection: ConnectionId,
        /// How.
        end: ReceiveEnd,
    },
    /// Tokens that are shown from now on are judged by these keys. Who is in stays in until its token ends.
    Keys(Verifier),
    /// An operator took tokens back: [`Action::Revoked`] answers, in the order of these.
    Revoke(Revocation),
    /// The next segment of a log exists, or could not be made.
    SegmentPrepared {
        /// Which log.
        log: u16,
        /// Whether it exists, or why not.
        made: Result<(), NotMade>,
    },
    /// The index file of a sealed segment was written, or could not be.
    IndexWritten {
        /// Which log.
        log: u16,
        /// What memory keeps of it.
        sealed: Option<SealedSegment>,
    },
    /// A segment was written anew, or could not be.
    Compacted {
        /// Which log.
        log: u16,
        /// Its base, with its generation.
        base: u64,
        /// How it ended.
        compacted: Compacted,
    },
    /// What a compaction has replaced takes no room any more: the answer to [`Action::Release`].
    Released {
        /// Which log.
        log: u16,
    },
    /// An index file of a sealed segment was found damaged or missing.
    IndexDamaged {
        /// Which log.
        log: u16,
        /// Of the segment at this base.
        base: u64,
    },
    /// A damaged index file was made again, and is read from now on; or it could not be.
    IndexRebuilt {
        /// Which log.
        log: u16,
        /// Of the segment at this base.
        base: u64,
        /// What memory keeps of it.
        sealed: Option<SealedSegment>,
    },
    /// Nobody writes zeros into the next segment of a log any more.
    SegmentZeroed {
        /// Which log.
        log: u16,
    },
    /// A send ended.
    Sent {
        /// Whose.
        connection: ConnectionId,
        /// All that was to be sent.
        bytes: Bytes,
        /// How much was; `None` when the connection failed.
        sent: Option<usize>,
    },
    /// Both directions of a connection are shut.
    ShutDown(ConnectionId),
    /// A descriptor was installed at another shard, or not.
    SocketSent {
        /// Whose it was.
        connection: ConnectionId,
        /// Whether the other shard has it and knows.
        installed: bool,
    },
    /// A batch was written and synced, or not.
    Written {
        /// Of which log.
        log: u16,
        /// Its bytes.
        buffer: Buffer,
        /// Every byte written and the sync done.
        synced: bool,
    },
}

/// What is to be done.
#[derive(Debug)]
pub enum Action {
    /// Free a descriptor: [`Event::Closed`] follows.
    Close(ConnectionId, Socket),
    /// Wake a shard that sleeps.
    Doorbell(ShardId),
    /// Make and preallocate a segment: [`Event::SegmentPrepared`] follows.
    PrepareSegment {
        /// Of which log.
        log: u16,
        /// At which base.
        base: u64,
    },
    /// Write zeros into a segment that was made: [`Event::SegmentZeroed`] follows.
    ZeroSegment {
        /// Of which log.
        log: u16,
        /// At which base.
        base: u64,
    },
    /// Zeros that are being written take too long: leave the rest.
    HurryZeros {
        /// Of which log.
        log: u16,
    },
    /// Read a record: [`Event::Read`] follows.
    Read {
        /// From which log.
        log: u16,
        /// Comes back.
        job: u32,
        /// Comes back.
        place: u32,
        /// What.
        what: ReadPlace,
    },
    /// Write the index file of a sealed segment: [`Event::IndexWritten`] follows.
    WriteIndex {
        /// Of which log.
        log: u16,
        /// What.
        job: IndexJob,
    },
    /// Write a segment anew: [`Event::Compacted`] follows.
    Compact {
        /// Of which log.
        log: u16,
        /// Which, and what is kept.
        job: CompactionJob,
        /// What is erased of it.
        erased: Arc<Erased>,
    },
    /// What is left to do for erasures, in the logs of this shard.
    Erased(Vec<LogLeft>),
    /// A segment that was written anew is read nowhere any more as it was: its file goes, and [`Event::Released`] says when.
    Release {
        /// Of which log.
        log: u16,
        /// Its base, with its generation of before.
        base: u64,
    },
    /// Drop what takes long to drop.
    Discard(Postings),
    /// Keep a copy of a record that was found damaged.
    Quarantine {
        /// Of which log.
        log: u16,
        /// Where it stands.
        location: Location,
    },
    /// Make an index file again that is damaged: [`Event::IndexRebuilt`] follows.
    RebuildIndex {
        /// Which.
        job: RebuildJob,
    },
    /// Ask for bytes, once or until it ends.
    Receive {
        /// Whose.
        connection: ConnectionId,
        /// From where.
        socket: Socket,
        /// Only one buffer: nothing may be armed when the descriptor moves.
        once: bool,
    },
    /// Give a buffer back.
    Recycle(RecvBuffer),
    /// All sessions here that a revocation concerns are closed.
    Revoked {
        /// How many there were.
        closed: u64,
    },
    /// Ask the index of words: [`Event::Found`] follows. Only where users may search.
    Search(IndexAsk),
    /// Send: [`Event::Sent`] follows.
    Send(ConnectionId, Socket, Bytes),
    /// Install a descriptor at another shard: [`Event::SocketSent`] follows.
    SendSocket {
        /// Whose.
        connection: ConnectionId,
        /// Which.
        socket: Socket,
        /// Where to.
        target: ShardId,
        /// Names the move.
        migration: u64,
    },
    /// Shut both directions: [`Event::ShutDown`] follows.
    Shutdown(ConnectionId, Socket),
    /// Take so many connections from clients, until it is said again.
    Admit {
        /// How many.
        room: u32,
    },
    /// Take no connections any more.
    CloseListeners,
    /// Call users: [`Event::Pushed`] follows.
    Push(Arc<PushBatch>),
    /// Take none for now, and cancel all that waits to be received and sent.
    Pause,
    /// Take them again, unless the node drains.
    Unpause {
        /// It does.
        is_draining: bool,
    },
    /// Write and sync a batch: [`Event::Written`] follows.
    Write {
        /// Of which log.
        log: u16,
        /// What and where.
        batch: WriteBatch,
    },
}
