//! Kernel error numbers as a value: small, comparable, printable.

use std::fmt;

/// An error number as the kernel reported it, always positive.
///
/// The named constants are the ones a caller decides on; all others are only printed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

impl Errno {
    /// `ECANCELED`: the operation was cancelled, or the one it was linked to failed.
    pub const CANCELLED: Errno = Errno(libc::ECANCELED);
    /// `EIO`: the device failed; also what a short write is reported as.
    pub const IO: Errno = Errno(libc::EIO);
    /// `EOVERFLOW` from [`Ring::send_socket`](crate::Ring::send_socket): the descriptor **is** installed in
    /// the target ring, but the target was not told. The sender still holds its own slot: shut the socket
    /// down and count the target's slot as lost.
    pub const OVERFLOW: Errno = Errno(libc::EOVERFLOW);
    /// `ENFILE`: the table of direct descriptors is full (ours for an accept, the target's for a sent
    /// socket).
    pub const TABLE_FULL: Errno = Errno(libc::ENFILE);

    /// An error by its number. Panics unless `code` is positive.
    pub const fn new(code: i32) -> Errno {
        assert!(code > 0, "error numbers are positive");
        Errno(code)
    }

    /// The number, as in `errno.h`.
    pub const fn code(self) -> i32 {
        self.0
    }

    /// Whether the system had no descriptor or no memory left. Another try helps only once somebody has given some back.
    pub const fn is_out_of_something(self) -> bool {
        matches!(self.0, libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS)
    }

    /// Whether an accept failed for the one connection that it took: what went wrong in the network meanwhile (accept(2), "Error
    /// handling"), or a firewall that does not let it in (EPERM). The listener is as well as before.
    pub(crate) const fn is_of_one_connection(self) -> bool {
        matches!(
            self.0,
            libc::EPERM
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
        )
    }

    /// Splits the result of a completion: what is not negative is a count or an index.
    pub(crate) fn split(result: i32) -> Result<u32, Errno> {
        u32::try_from(result).map_err(|_| Errno(result.saturating_neg()))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}: {self})", self.0)
    }
}

impl std::error::Error for Errno {}

impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> Self {
        std::io::Error::from_raw_os_error(errno.0)
    }
}
