//! Waking a ring from a thread that has none.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::FromRawFd;
use std::sync::Arc;

/// Wakes one ring, from any thread: its turn ends with [`Completion::Woken`](crate::Completion::Woken).
///
/// Several wakes before the ring's next turn are one `Woken`. Waking a ring that is gone does nothing. What
/// is to be seen after waking up must be stored before the call.
#[derive(Clone, Debug)]
pub struct Waker {
    event: Arc<File>,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Waker> {
        // Not EFD_NONBLOCK: the ring's posted read would fail with EAGAIN instead of waiting.
        // SAFETY: `eventfd` takes two plain numbers and demands nothing.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `from_raw_fd` demands an open descriptor that nobody else owns: it was just made.
        let event = unsafe { File::from_raw_fd(fd) };
        Ok(Waker { event: Arc::new(event) })
    }

    /// Wakes the ring. Costs one system call.
    pub fn wake(&self) {
        let written = (&*self.event).write(&1u64.to_ne_bytes());
        // Only a counter at its end makes the write wait or fail, and it holds 2^64 - 2 wakes.
        assert!(written.is_ok(), "an eventfd takes eight bytes: {written:?}");
    }

    pub(crate) fn file(&self) -> &File {
        &self.event
    }
}
