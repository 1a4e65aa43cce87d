//! The runtime that every thread with sockets runs: one ring, whose completions wait until the thread asks for them.
//!
//! Without that a message for a socket interrupts whatever the thread is doing, at once: an interrupt to another core for
//! each message, paid by whoever sends it (the node that is measured), and by the thread that is torn out of its work. A
//! third of a worker's time went there, and a seventh of the node's.
//!
//! So a thread whose tasks are always ready would receive nothing: what completes comes when there is nothing to run, and every task comes to
//! wait. Where the generator is to be as busy as it can (`compare`: each pair sends again as soon as it is answered) all pairs would go in
//! step then, wave by wave, and wait for each other: 0.87 of the messages, and three times the p99. There it works at once.

use std::io;

use anyhow::Context;
use monoio::time::TimeDriver;
use monoio::{IoUringDriver, Runtime, RuntimeBuilder};
use monoio_ring::IoUring;

/// When the kernel does its part of what completes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completions {
    /// When the thread has nothing to run, and asks.
    Deferred,
    /// As it comes.
    AtOnce,
}

/// Makes the runtime of the calling thread, which is the only one that may use it.
///
/// `entries` are the operations of one submission; more are submitted in between.
///
/// # Errors
/// When the system allows no ring.
pub(crate) fn start(
    entries: u32,
    completions: Completions,
) -> anyhow::Result<Runtime<TimeDriver<IoUringDriver>>> {
    // `IORING_SETUP_DEFER_TASKRUN` is of Linux 6.1; an older one refuses it, and is measured with by interrupts.
    build(entries, completions)
        .or_else(|error| match error.kind() {
            io::ErrorKind::InvalidInput => build(entries, Completions::AtOnce),
            _ => Err(error),
        })
        .context("io_uring is not available: loadgen needs Linux 5.6 or later, and io_uring_disabled=0")
}

fn build(entries: u32, completions: Completions) -> io::Result<Runtime<TimeDriver<IoUringDriver>>> {
    let mut ring = IoUring::builder();
    if completions == Completions::Deferred {
        ring.setup_single_issuer().setup_defer_taskrun();
    }
    RuntimeBuilder::<IoUringDriver>::new().uring_builder(ring).with_entries(entries).enable_timer().build()
}
