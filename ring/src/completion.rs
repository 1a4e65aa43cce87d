//! What a turn brings back. Both enums are closed: a caller that matches them has handled everything.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::{Errno, FileBuffer, ListenerId, RecvBuffer, Socket, Token};

/// One operation that completed, or one thing that came from outside.
#[derive(Debug)]
pub enum Completion {
    /// A connection was accepted, and its peer's address is known. Nothing is armed on it yet.
    ///
    /// May still arrive after the listener was paused or closed, for connections accepted before. On an error
    /// no slot was taken; the listener goes on after errors that pass (`ENFILE`: the kernel dropped the
    /// connection) or are of that one connection, and pauses itself after any other.
    Accepted {
        /// Whose connection it is.
        listener: ListenerId,
        /// The new socket and its peer.
        result: Result<(Socket, SocketAddr), Errno>,
    },
    /// A socket came from another ring through `send_socket`. Nothing is armed on it yet.
    Adopted {
        /// What the sender called it.
        tag: u64,
        /// Its slot here.
        socket: Socket,
    },
    /// The slot is free again.
    Closed {
        /// As given to `close`.
        token: Token,
        /// `EBADF` if the slot was empty.
        result: Result<(), Errno>,
    },
    /// Another ring called `doorbell`. One for each call.
    Doorbell,
    /// A file was read.
    Read {
        /// As given to `read`.
        token: Token,
        /// The range is what was read: shorter than asked at the end of the file, empty on an error.
        buffer: FileBuffer,
        /// How the read went.
        result: Result<(), Errno>,
    },
    /// Something happened to a receive.
    Received {
        /// As given to `recv_once` or `recv_multishot`.
        token: Token,
        /// What happened.
        result: Received,
    },
    /// A send ended, and the bytes come back.
    Sent {
        /// As given to `send`.
        token: Token,
        /// The bytes that were to be sent, all of them.
        bytes: Bytes,
        /// How many were sent. Fewer than `bytes.len()` is progress, not an error: send the rest again.
        result: Result<usize, Errno>,
    },
    /// Both directions are shut down, or were already. An armed receive ends on its own completion.
    ShutDown {
        /// As given to `shutdown`.
        token: Token,
    },
    /// A socket was installed in the other ring, or was not. The sender's own slot is still open either way.
    SocketSent {
        /// As given to `send_socket`.
        token: Token,
        /// `Errno::TABLE_FULL`: no slot there. `Errno::OVERFLOW`: installed there, but the target does not
        /// know.
        result: Result<(), Errno>,
    },
    /// File data reached the device, or must be taken for lost.
    Synced {
        /// As given to `sync`.
        token: Token,
        /// How the sync went.
        result: Result<(), Errno>,
    },
    /// A [`Waker`](crate::Waker) was used, once or more often.
    Woken,
    /// A file was written, and for `write_and_sync` and `write_through` synced.
    Written {
        /// As given.
        token: Token,
        /// What was to be written.
        buffer: FileBuffer,
        /// `Ok` only if every byte was written (and, if asked for, the sync succeeded). A short write is
        /// `Errno::IO`.
        result: Result<(), Errno>,
    },
}

/// What happened to a receive. Everything but `Data { armed: true, .. }` ends it.
#[derive(Debug)]
pub enum Received {
    /// Bytes arrived.
    Data {
        /// At least one byte. Give it back with [`Ring::recycle`](crate::Ring::recycle).
        buffer: RecvBuffer,
        /// Whether more completions of this receive will follow. Always `false` for a one-shot receive; for a
        /// multishot receive `false` means that the kernel ended it (the completion queue was full) and that
        /// the caller must arm it again to get more.
        armed: bool,
    },
    /// The receive ended without data although the socket did not fail: it was cancelled. It may be armed
    /// again. A lack of buffers is not reported here: the ring arms such a receive again by itself.
    Disarmed,
    /// Nothing more will come: the peer closed its side, or `shutdown` was called here.
    End,
    /// The socket failed, for example with `ECONNRESET`.
    Failed(Errno),
}
