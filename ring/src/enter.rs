//! The one system call of a turn, and the registration that makes it cheaper.
//!
//! The `io-uring` crate remembers a registered ring descriptor only as long as a borrow of the ring lives, so
//! the index is kept here and the call is made here.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::EnterFlags;
use io_uring::types::{SubmitArgs, Timespec};

/// `IORING_REGISTER_RING_FDS` and `IORING_UNREGISTER_RING_FDS` of the kernel's interface.
const REGISTER_RING_FDS: libc::c_uint = 20;
const UNREGISTER_RING_FDS: libc::c_uint = 21;

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct ResourceUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// How long an enter may wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// Only submit: run nothing that is deferred, post nothing that is ready.
    Submit,
    /// Submit, run what is deferred, and return.
    Collect,
    /// As `Collect`, but wait for one completion, for ever.
    Forever,
    /// As `Collect`, but wait for one completion, at most this long.
    AtMost(Duration),
}

impl Wait {
    pub(crate) fn from_timeout(timeout: Option<Duration>) -> Wait {
        match timeout {
            None => Wait::Forever,
            Some(Duration::ZERO) => Wait::Collect,
            Some(timeout) => Wait::AtMost(timeout),
        }
    }
}

/// A ring descriptor registered with the thread that made it, which is the only one that may enter it.
pub(crate) struct Entrance {
    ring: RawFd,
    index: u32,
    /// Flags every collecting enter has.
    flags: EnterFlags,
}

impl Entrance {
    /// `ring` stays open for as long as the entrance is used.
    pub(crate) fn register(ring: RawFd, no_iowait: bool) -> io::Result<Entrance> {
        let mut update = ResourceUpdate { offset: u32::MAX, reserved: 0, data: ring as u64 };
        register(ring, REGISTER_RING_FDS, &mut update)?;
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        // Without it an idle ring looks like a disk that is waited for.
        flags.set(EnterFlags::NO_IOWAIT, no_iowait);
        Ok(Entrance { ring, index: update.offset, flags })
    }

    /// Must come before the ring is closed: a registered ring lives as long as its thread.
    pub(crate) fn unregister(&self) {
        let mut update = ResourceUpdate { offset: self.index, reserved: 0, data: 0 };
        // It fails only for an index that is not registered, and then there is nothing to undo.
        let _ = register(self.ring, UNREGISTER_RING_FDS, &mut update);
    }

    /// Submits `to_submit` entries and waits as told. Returns how many were taken.
    pub(crate) fn enter(&self, to_submit: u32, wait: Wait) -> io::Result<u32> {
        let timespec;
        let mut arguments = SubmitArgs::new();
        let (min_complete, flags) = match wait {
            Wait::Submit => (0, EnterFlags::EXT_ARG),
            Wait::Collect => (0, self.flags),
            Wait::Forever => (1, self.flags),
            Wait::AtMost(timeout) => {
                timespec = Timespec::from(timeout);
                arguments = arguments.timespec(&timespec);
                (1, self.flags)
            }
        };
        let flags = flags | EnterFlags::REGISTERED_RING;
        // SAFETY: the call demands, with EXT_ARG, a pointer to a `struct io_uring_getevents_arg` and its
        // size. `SubmitArgs` is that struct by its declaration (`repr(transparent)`), it and the timespec it
        // points to live to the end of this function, and the kernel keeps neither. What the submitted
        // entries point to is the promise of whoever pushed them (`Ring::push`).
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.index as libc::c_uint,
                to_submit as libc::c_uint,
                min_complete as libc::c_uint,
                flags.bits() as libc::c_uint,
                &raw const arguments,
                size_of::<SubmitArgs>(),
            )
        };
        u32::try_from(result).map_err(|_| io::Error::last_os_error())
    }
}

fn register(ring: RawFd, operation: libc::c_uint, update: &mut ResourceUpdate) -> io::Result<()> {
    // SAFETY: both operations demand a pointer to as many `struct io_uring_rsrc_update` as the last argument
    // says: one, laid out as declared above, exclusively borrowed for the call; the kernel keeps no pointer
    // to it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring,
            operation,
            std::ptr::from_mut(update),
            1 as libc::c_uint,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
