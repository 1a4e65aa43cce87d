//! Names of things in a ring. All are plain numbers; none of them owns what it names.

use std::os::fd::RawFd;

/// A direct descriptor: a slot in the ring's table of registered files.
///
/// It names the slot, not the connection: after [`Ring::close`](crate::Ring::close) the kernel may give the
/// same slot to the next one. It means nothing to another ring.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Socket(pub(crate) u32);

impl Socket {
    /// The slot's number, below `RingConfig::sockets_max`.
    pub fn index(self) -> u32 {
        self.0
    }

    /// A socket by its slot, for simulators and tests that have no ring.
    ///
    /// An empty slot is no danger: operations on it complete with `EBADF`.
    pub fn from_index(index: u32) -> Socket {
        Socket(index)
    }
}

/// A number the caller chooses, which comes back with the completion. 56 bits: the other eight say which kind
/// of operation completed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Token(u64);

impl Token {
    /// How many bits a token has.
    pub const BITS: u32 = 56;

    /// Panics unless `value < 1 << 56`.
    pub const fn new(value: u64) -> Token {
        assert!(value >> Token::BITS == 0, "a token has 56 bits");
        Token(value)
    }

    /// The number it was made from.
    pub const fn value(self) -> u64 {
        self.0
    }
}

/// A file the ring owns, from [`Ring::add_file`](crate::Ring::add_file). The number may be used again after
/// the file was removed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FileId(pub(crate) u32);

impl FileId {
    /// The number behind the name.
    pub fn index(self) -> u32 {
        self.0
    }

    /// A file name by number, for simulators and tests that have no ring.
    pub fn from_index(index: u32) -> FileId {
        FileId(index)
    }
}

/// A listening socket the ring owns, from [`Ring::listen`](crate::Ring::listen). The number may be used again
/// after the listener was closed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ListenerId(pub(crate) u32);

impl ListenerId {
    /// The number behind the name.
    pub fn index(self) -> u32 {
        self.0
    }

    /// A listener name by number, for simulators and tests that have no ring.
    pub fn from_index(index: u32) -> ListenerId {
        ListenerId(index)
    }
}

/// Where other rings of this process reach a ring: its file descriptor, by number.
///
/// It does not keep the ring alive. The caller must not use the address after the ring was dropped: the
/// number may name something else by then (for a file that is no ring the operation fails with `EBADFD`). It
/// is resolved in the file table of the thread that sends, so threads that stop sharing theirs must do so
/// after all rings exist.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RingAddress(pub(crate) RawFd);
