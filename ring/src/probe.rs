//! What the kernel must be able to do, asked at start and answered in words.
//!
//! The demands: the set-up flags below (the youngest, `NO_SQARRAY`, is of Linux 6.6), the operations in
//! `OPERATIONS` (the youngest, `FIXED_FD_INSTALL`, is of Linux 6.8), provided buffer rings and registered
//! ring descriptors. A feature that only saves something (`NO_IOWAIT`) is used when it is there.

use std::fmt;
use std::io;

use io_uring::{IoUring, Probe, opcode};

use crate::RingConfig;

/// Something this machine cannot or may not do. `Display` is one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What is missing.
    pub feature: &'static str,
    /// What to change so that it is there.
    pub remedy: &'static str,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not available: {}", self.feature, self.remedy)
    }
}

impl std::error::Error for Missing {}

/// Why a ring could not be made.
#[derive(Debug)]
pub enum StartError {
    /// A size that no kernel takes; the text says which and why.
    Config(&'static str),
    /// A limit of this process is too low for the configured sizes.
    Limit {
        /// What ran out, and what to raise.
        remedy: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// The kernel cannot do it, whatever the sizes.
    Missing(Missing),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Config(problem) => f.write_str(problem),
            StartError::Limit { remedy, error } => write!(f, "{remedy} ({error})"),
            StartError::Missing(missing) => missing.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl From<Missing> for StartError {
    fn from(missing: Missing) -> Self {
        StartError::Missing(missing)
    }
}

/// Tells whether rings can be made here, by making a small one on this thread and dropping it.
pub fn probe() -> Result<(), Missing> {
    let config = RingConfig {
        sq_entries: 8,
        cq_entries: 16,
        sockets_max: 1,
        recv_buffers: 1,
        recv_buffer_bytes: 1,
        accepts: 1,
    };
    match crate::Ring::new(config) {
        Ok(_) => Ok(()),
        Err(StartError::Missing(missing)) => Err(missing),
        // So small a ring meets a limit only if there is nothing left at all.
        Err(StartError::Config(remedy) | StartError::Limit { remedy, .. }) => {
            Err(Missing { feature: "a small io_uring instance", remedy })
        }
    }
}

/// The operations the crate submits, with the names to report.
const OPERATIONS: [(u8, &str); 11] = [
    (opcode::Accept::CODE, "IORING_OP_ACCEPT"),
    (opcode::AsyncCancel::CODE, "IORING_OP_ASYNC_CANCEL"),
    (opcode::Close::CODE, "IORING_OP_CLOSE"),
    (opcode::FixedFdInstall::CODE, "IORING_OP_FIXED_FD_INSTALL"),
    (opcode::Fsync::CODE, "IORING_OP_FSYNC"),
    (opcode::MsgRingData::CODE, "IORING_OP_MSG_RING"),
    (opcode::Read::CODE, "IORING_OP_READ"),
    (opcode::Recv::CODE, "IORING_OP_RECV"),
    (opcode::Send::CODE, "IORING_OP_SEND"),
    (opcode::Shutdown::CODE, "IORING_OP_SHUTDOWN"),
    (opcode::Write::CODE, "IORING_OP_WRITE"),
];

/// Makes the kernel's part of a ring and checks what it can do.
pub(crate) fn build(sq_entries: u32, cq_entries: u32) -> Result<IoUring, StartError> {
    let ring = IoUring::builder()
        .setup_cqsize(cq_entries)
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_no_sqarray()
        .dontfork()
        .build(sq_entries)
        .map_err(|error| setup_error(error, io_uring_disabled()))?;
    check(&ring)?;
    Ok(ring)
}

fn check(ring: &IoUring) -> Result<(), Missing> {
    let features = ring.params();
    let needed = [
        (features.is_feature_nodrop(), "IORING_FEAT_NODROP"),
        (features.is_feature_ext_arg(), "IORING_FEAT_EXT_ARG"),
        (features.is_feature_submit_stable(), "IORING_FEAT_SUBMIT_STABLE"),
        (features.is_feature_skip_cqe_on_success(), "IORING_FEAT_CQE_SKIP"),
    ];
    let mut probe = Probe::new();
    let probed = ring.submitter().register_probe(&mut probe);
    probed.map_err(|_| too_old("IORING_REGISTER_PROBE"))?;
    let operations = OPERATIONS.iter().map(|(code, name)| (probe.is_supported(*code), *name));
    let missing = needed.into_iter().chain(operations).find(|(there, _)| !there);
    missing.map_or(Ok(()), |(_, name)| Err(too_old(name)))
}

pub(crate) fn too_old(feature: &'static str) -> Missing {
    Missing { feature, remedy: "the kernel is too old; run Linux 6.8 or newer" }
}

/// `kernel.io_uring_disabled`, if the kernel has it.
fn io_uring_disabled() -> Option<u8> {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    text.trim().parse().ok()
}

fn setup_error(error: io::Error, disabled: Option<u8>) -> StartError {
    let missing = |remedy| StartError::Missing(Missing { feature: "io_uring", remedy });
    match error.raw_os_error() {
        Some(libc::EPERM) if disabled.is_some_and(|value| value > 0) => missing(
            "it is switched off; set sysctl kernel.io_uring_disabled=0, or with 1 run in the group \
             kernel.io_uring_group",
        ),
        Some(libc::EPERM | libc::EACCES) => missing(
            "a security policy forbids it; allow io_uring_setup, io_uring_enter and io_uring_register in the \
             seccomp profile of the container or service",
        ),
        Some(libc::ENOSYS) => missing(
            "the kernel has none, or a seccomp profile hides it; run Linux 6.8 or newer with CONFIG_IO_URING=y \
             and a profile that allows io_uring",
        ),
        Some(libc::EINVAL) => StartError::Missing(too_old("io_uring with DEFER_TASKRUN and NO_SQARRAY")),
        Some(libc::ENOMEM) => StartError::Limit {
            remedy: "not enough memory for the ring; raise the locked memory limit (LimitMEMLOCK) or choose \
                     smaller queues",
            error,
        },
        _ => StartError::Limit { remedy: "the ring needs a file descriptor; raise LimitNOFILE", error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_remedy() {
        let say = |code, disabled| setup_error(io::Error::from_raw_os_error(code), disabled).to_string();
        assert!(say(libc::EPERM, Some(2)).contains("sysctl kernel.io_uring_disabled=0"));
        assert!(say(libc::EPERM, Some(0)).contains("seccomp"));
        assert!(say(libc::EPERM, None).contains("seccomp"));
        assert!(say(libc::ENOSYS, None).contains("CONFIG_IO_URING"));
        assert!(say(libc::EINVAL, None).contains("too old"));
        assert!(say(libc::ENOMEM, None).contains("LimitMEMLOCK"));
        assert!(say(libc::EMFILE, None).contains("LimitNOFILE"));
    }
}
