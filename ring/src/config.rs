//! What a ring is sized to at its start, and what it counts.

/// The sizes of a ring. All memory follows from them and is taken at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// Operations that fit between two submissions; a power of two up to 32768. More cost an extra system
    /// call.
    pub sq_entries: u32,
    /// Completions that fit between two turns; a power of two from `sq_entries` to 65536. More are kept by
    /// the kernel, slowly, and end the multishot receives that brought them.
    pub cq_entries: u32,
    /// Slots for direct descriptors, so sockets at a time. The kernel refuses more than the soft file limit.
    pub sockets_max: u32,
    /// Receive buffers shared by all sockets; a power of two up to 32768.
    pub recv_buffers: u16,
    /// Bytes of one receive buffer: the most that one completion brings.
    pub recv_buffer_bytes: u32,
    /// Accepts kept posted for each listener: connections taken per turn without another system call.
    pub accepts: u32,
}

/// The kernel's limits (`IORING_MAX_ENTRIES`, `IORING_MAX_CQ_ENTRIES`, `IORING_MAX_FIXED_FILES`, buffer
/// ring).
const SQ_ENTRIES_MAX: u32 = 32_768;
const CQ_ENTRIES_MAX: u32 = 2 * SQ_ENTRIES_MAX;
const SOCKETS_MAX: u32 = 1 << 20;
const RECV_BUFFERS_MAX: u16 = 1 << 15;
/// Two linked operations must fit, with room for one more.
const SQ_ENTRIES_MIN: u32 = 4;

impl Default for RingConfig {
    fn default() -> Self {
        RingConfig {
            sq_entries: 4096,
            cq_entries: 65_536,
            sockets_max: 16_384,
            recv_buffers: 1024,
            recv_buffer_bytes: 2048,
            accepts: 64,
        }
    }
}

impl RingConfig {
    /// Says in words which size is impossible.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if !self.sq_entries.is_power_of_two() || !(SQ_ENTRIES_MIN..=SQ_ENTRIES_MAX).contains(&self.sq_entries)
        {
            return Err("sq_entries must be a power of two from 4 to 32768");
        }
        if !self.cq_entries.is_power_of_two()
            || !(self.sq_entries..=CQ_ENTRIES_MAX).contains(&self.cq_entries)
        {
            return Err("cq_entries must be a power of two from sq_entries to 65536");
        }
        if !(1..=SOCKETS_MAX).contains(&self.sockets_max) {
            return Err("sockets_max must be from 1 to 1048576");
        }
        if !self.recv_buffers.is_power_of_two() || self.recv_buffers > RECV_BUFFERS_MAX {
            return Err("recv_buffers must be a power of two up to 32768");
        }
        if self.recv_buffer_bytes == 0 || self.accepts == 0 {
            return Err("recv_buffer_bytes and accepts must not be zero");
        }
        Ok(())
    }
}

/// What happened since the ring was made. Numbers only grow, except the two that say so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls of `io_uring_enter`, all of them: what to show as the number of system calls.
    pub enters: u64,
    /// The part of `enters` that happened because the submission queue was full, or because one did not bring all that had
    /// happened; never to be added to it.
    pub enters_extra: u64,
    /// Operations handed to the kernel.
    pub submitted: u64,
    /// Completions taken from the kernel, internal ones included.
    pub completions: u64,
    /// Turns that found the completion queue overflowed.
    pub cq_overflows: u64,
    /// Receives that found no free buffer and were parked.
    pub recv_starved: u64,
    /// Multishot receives that ended although the socket was fine, so with data and `armed: false`.
    pub recv_disarmed: u64,
    /// Doorbells that did not arrive, because the target ring is gone or out of memory.
    pub doorbells_failed: u64,
    /// Receives parked now. Goes down again.
    pub recv_parked: u32,
    /// Receive buffers the caller holds now. Goes down again.
    pub recv_buffers_out: u32,
    /// Operations that own a buffer in flight now, posted accepts and the waker included. Goes down again.
    pub in_flight: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_the_kernel_would_refuse_are_refused_in_words() {
        let good = RingConfig::default();
        assert_eq!(good.check(), Ok(()));
        let bad = [
            RingConfig { sq_entries: 100, ..good },
            RingConfig { sq_entries: 2, ..good },
            RingConfig { sq_entries: 65_536, ..good },
            RingConfig { cq_entries: 2048, ..good },
            RingConfig { cq_entries: 131_072, ..good },
            RingConfig { sockets_max: 0, ..good },
            RingConfig { recv_buffers: 1000, ..good },
            RingConfig { recv_buffers: 0, ..good },
            RingConfig { recv_buffer_bytes: 0, ..good },
            RingConfig { accepts: 0, ..good },
        ];
        for config in bad {
            assert!(config.check().is_err(), "{config:?}");
        }
    }
}
