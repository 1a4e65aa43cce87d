//! The ring itself: how it starts, how it turns, how it ends.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use io_uring::squeue::Entry;
use io_uring::types::CancelBuilder;
use io_uring::{IoUring, opcode};

use crate::buffers::BufferPool;
use crate::enter::{Entrance, Wait};
use crate::files::Files;
use crate::listeners::Listeners;
use crate::operation::{InFlight, Kind};
use crate::probe::{StartError, build, too_old};
use crate::receives::Receives;
use crate::{Completion, Counters, RingAddress, RingConfig, Waker};

/// The only group of provided buffers.
pub(crate) const BUFFER_GROUP: u16 = 0;

/// Completions after which a turn collects no more of them: half of the usual receive buffers, and the work of a few
/// milliseconds for the caller.
const COLLECTED_MAX: usize = 512;

/// How long dropping a ring waits for what it cancelled. Only file operations on a stuck device take longer
/// than a moment, and then their memory is leaked.
const DROP_WAIT: Duration = Duration::from_secs(5);

/// One io_uring instance and all that its operations own. Made, used and dropped on one thread.
///
/// Methods that start an operation only queue it; the next [`Ring::turn`] submits it. They panic on what a
/// correct caller never does: a socket, file or listener that is not of this ring, or a second receive on one
/// socket.
///
/// A ring stays on its thread:
///
/// ```compile_fail
/// fn assert_send<T: Send>() {}
/// assert_send::<ring::Ring>();
/// ```
pub struct Ring {
    // Dropped in this order: the kernel's part goes before the memory it knows.
    pub(crate) io: IoUring,
    pub(crate) entrance: Entrance,
    pub(crate) pool: BufferPool,
    pub(crate) in_flight: InFlight,
    pub(crate) receives: Receives,
    pub(crate) listeners: Listeners,
    pub(crate) files: Files,
    pub(crate) waker: Waker,
    pub(crate) accepts: u32,
    /// Slots given out to sockets of another process.
    pub(crate) adopted: u32,
    /// Entries the kernel had no room for; those in one vector are linked.
    backlog: VecDeque<Vec<Entry>>,
    /// Completions taken from the kernel and not handled yet.
    pub(crate) arrived: VecDeque<Arrival>,
    /// Completions the ring made itself.
    pub(crate) made: Vec<Completion>,
    pub(crate) counters: Counters,
    /// Being dropped: nothing is posted again.
    pub(crate) closing: bool,
}

/// A completion as the kernel wrote it.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) user_data: u64,
    pub(crate) result: i32,
    pub(crate) flags: u32,
}

impl Ring {
    /// Makes a ring for the calling thread. All memory is taken here, except what grows with operations in
    /// flight.
    pub fn new(config: RingConfig) -> Result<Ring, StartError> {
        config.check().map_err(StartError::Config)?;
        let io = build(config.sq_entries, config.cq_entries)?;
        io.submitter().register_files_sparse(config.sockets_max).map_err(|error| StartError::Limit {
            remedy: "sockets_max must not exceed the file limit; raise LimitNOFILE or lower it",
            error,
        })?;
        let mut pool =
            BufferPool::new(config.recv_buffers, config.recv_buffer_bytes).map_err(memory_error)?;
        let address = pool.entries_address();
        // SAFETY: demands that the memory at `address` holds so many entries until the group is gone: it is
        // the pool's mapping, of that size, and `Ring` drops `io` (which ends the group) before `pool`.
        let registered = unsafe {
            io.submitter().register_buf_ring_with_flags(address, config.recv_buffers, BUFFER_GROUP, 0)
        };
        registered.map_err(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => StartError::Missing(too_old("a provided buffer ring")),
            _ => memory_error(error),
        })?;
        pool.publish();
        let waker = Waker::new().map_err(|error| StartError::Limit {
            remedy: "the waker needs a file descriptor; raise LimitNOFILE",
            error,
        })?;
        let no_iowait = io.params().is_feature_no_iowait();
        let entrance = Entrance::register(io.as_raw_fd(), no_iowait).map_err(|error| StartError::Limit {
            remedy: "a thread can register 16 rings; use more threads or fewer rings",
            error,
        })?;
        let mut ring = Ring {
            io,
            entrance,
            pool,
            in_flight: InFlight::default(),
            receives: Receives::new(config.sockets_max),
            listeners: Listeners::default(),
            files: Files::default(),
            waker,
            accepts: config.accepts,
            adopted: 0,
            backlog: VecDeque::new(),
            arrived: VecDeque::with_capacity(config.cq_entries as usize),
            made: Vec::new(),
            counters: Counters::default(),
            closing: false,
        };
        ring.post_wake();
        Ok(ring)
    }

    /// Where other rings reach this one.
    pub fn address(&self) -> RingAddress {
        RingAddress(self.io.as_raw_fd())
    }

    /// Wakes this ring from threads without one.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        Counters {
            recv_parked: self.receives.parked(),
            recv_buffers_out: self.pool.out(),
            in_flight: self.in_flight.len(),
            ..self.counters
        }
    }

    /// One turn: submits everything that was queued, waits for at least one completion but at most `timeout`
    /// (`None` is for ever, zero only collects), and appends what completed to `completions`, in the kernel's
    /// order.
    ///
    /// One system call, and more while there is much to collect. May return earlier and with nothing, after a signal or to arm waiting receives. An
    /// error means that the ring is broken and completions may be lost; none is expected.
    pub fn turn(&mut self, timeout: Option<Duration>, completions: &mut Vec<Completion>) -> io::Result<()> {
        self.pool.publish();
        let starving = self.arm_parked();
        self.push_backlog();
        let must_return =
            starving || !self.arrived.is_empty() || !self.made.is_empty() || !self.backlog.is_empty();
        let wait = if must_return { Wait::Collect } else { Wait::from_timeout(timeout) };
        self.enter(wait)?;
        self.collect_crowd()?;
        completions.append(&mut self.made);
        while let Some(arrival) = self.arrived.pop_front() {
            self.dispatch(arrival, completions);
        }
        Ok(())
    }

    /// Takes what else has happened. One enter runs some forty of the kernel's deferred works, in their order; with a crowd
    /// there are hundreds, and what a caller would do first stands anywhere among them.
    fn collect_crowd(&mut self) -> io::Result<()> {
        while self.arrived.len() < COLLECTED_MAX && self.io.submission().taskrun() {
            let before = self.arrived.len();
            self.counters.enters_extra += 1;
            self.enter(Wait::Collect)?;
            if self.arrived.len() == before {
                // What it ran ended nothing.
                break;
            }
        }
        Ok(())
    }

    /// Queues an entry for the kernel, submitting what is queued before if there is no room.
    ///
    /// # Safety
    ///
    /// Every address in `entry` must stay valid, and the memory there untouched but by the kernel, until the
    /// completion of the operation was taken from the kernel, even if the ring is dropped before.
    pub(crate) unsafe fn push(&mut self, entry: Entry) {
        // SAFETY: the caller's promise is the one that is demanded.
        unsafe { self.push_linked([entry]) };
    }

    /// As `push`, for entries that must be submitted together, in order.
    ///
    /// # Safety
    ///
    /// As for `push`.
    pub(crate) unsafe fn push_linked<const N: usize>(&mut self, entries: [Entry; N]) {
        if self.backlog.is_empty() && self.try_push(&entries) {
            return;
        }
        self.submit_early();
        self.push_backlog();
        if !self.backlog.is_empty() || !self.try_push(&entries) {
            // The kernel took nothing (it is out of memory): the next turn tries again.
            self.backlog.push_back(entries.to_vec());
        }
    }

    /// Submits what is queued without waiting, so that the queue is empty again.
    pub(crate) fn submit_early(&mut self) {
        self.counters.enters_extra += 1;
        // An error leaves the entries where they are; the turn that follows meets it again and reports it.
        let _ = self.enter(Wait::Submit);
    }

    fn try_push(&mut self, entries: &[Entry]) -> bool {
        // SAFETY: demands what `push` and `push_linked` demand of their callers, the only source of entries.
        unsafe { self.io.submission().push_multiple(entries) }.is_ok()
    }

    fn push_backlog(&mut self) {
        while let Some(entries) = self.backlog.pop_front() {
            if !self.try_push(&entries) {
                self.backlog.push_front(entries);
                return;
            }
        }
    }

    /// The only place that enters the kernel. Moves what completed to `arrived`.
    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        let queued = self.io.submission().len() as u32;
        self.counters.enters += 1;
        let entered = self.entrance.enter(queued, wait);
        let completed = self.io.completion().map(|entry| Arrival {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        });
        let before = self.arrived.len();
        self.arrived.extend(completed);
        self.counters.completions += (self.arrived.len() - before) as u64;
        if self.io.submission().cq_overflow() {
            // The next enter that collects brings the rest.
            self.counters.cq_overflows += 1;
        }
        match entered {
            Ok(submitted) => self.counters.submitted += u64::from(submitted),
            Err(error) => match error.raw_os_error() {
                // Time is over, a signal came, memory is short, or completions must be taken first: all of
                // them are answered by the next turn.
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => (),
                _ => return Err(error),
            },
        }
        Ok(())
    }

    /// Cancels everything and waits until nothing is in flight; `false` if something did not end.
    fn quiesce(&mut self) -> bool {
        self.closing = true;
        let entry = opcode::AsyncCancel2::new(CancelBuilder::any()).build().user_data(Kind::Cancel.with(0));
        // SAFETY: the entry holds no address.
        unsafe { self.push(entry) };
        let deadline = Instant::now() + DROP_WAIT;
        let mut ended = Vec::new();
        while self.in_flight.len() > 0 || self.receives.armed() > 0 {
            let now = Instant::now();
            if now >= deadline || self.turn(Some(deadline - now), &mut ended).is_err() {
                return false;
            }
            ended.clear();
        }
        true
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if !self.quiesce() {
            // Freed memory that the kernel still writes to would be someone else's memory soon. A leak is
            // harmless.
            std::mem::forget(std::mem::take(&mut self.in_flight));
            std::mem::forget(std::mem::take(&mut self.files));
            self.pool.leak();
        }
        self.entrance.unregister();
    }
}

fn memory_error(error: io::Error) -> StartError {
    StartError::Limit {
        remedy: "not enough memory for the receive buffers; raise the locked memory limit (LimitMEMLOCK) or \
                 choose fewer",
        error,
    }
}
