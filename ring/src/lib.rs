//! The fence: sockets and files over io_uring, and the only crate of this workspace with unsafe code.
//!
//! One [`Ring`] belongs to one thread. The thread queues operations (`send`, `recv_multishot`,
//! `write_through` and so on), calls [`Ring::turn`] once per loop, and gets back [`Completion`]s. Nothing
//! else happens: no callbacks, no futures, no threads of its own.
//!
//! What it deliberately does not do:
//!
//! * It knows nothing about chat: bytes go in, bytes come out.
//! * It decides nothing: it does not retry a failed or short send, close a socket, or order operations. (The
//!   one exception: a receive that found no free buffer is armed again by the ring when there is one, because
//!   only the ring knows when that is.)
//! * It has no timers. The caller keeps its deadlines and passes the nearest one to `turn`.
//! * It never blocks but in `turn`, and there at most as long as it was told.
//!
//! Invariants:
//!
//! * **The kernel borrows by ownership.** Whatever the kernel reads or writes (bytes to send, file buffers,
//!   receive buffers, address buffers) is owned by the ring from the call until the completion that hands it
//!   back. A safe caller has no way to touch or free it in between. Dropping a ring cancels what is in flight
//!   and waits for it; memory whose operation would not end is leaked on purpose, never freed.
//! * **Every operation completes exactly once**, a multishot receive as often as data comes and then once
//!   with `armed: false` or without data. Nothing is lost when the submission queue is full (an extra enter)
//!   or the completion queue overflows (the kernel keeps the rest); both are counted.
//! * **A receive buffer is in exactly one place**: with the kernel, or with the caller as a [`RecvBuffer`].
//! * **One enter per turn**: submit, wait and collect are a single system call; [`Counters`] proves it.
//! * **Nothing per idle connection**: an armed receive costs eight bytes here, in a table made at start.
//!
//! Beside the ring stand the few calls of a thread-per-core server that also need unsafe code: [`bind`] and
//! [`pin_to_core`].
//!
//! The layout of a completion's 64-bit `user_data` is in `operation.rs`; the start-up demands are in
//! `probe.rs`.

mod address;
mod buffers;
mod completion;
mod config;
mod dispatch;
mod enter;
mod errno;
mod file_buffer;
mod files;
mod host;
mod ids;
mod lent;
mod listeners;
mod operation;
mod probe;
mod receives;
mod ring;
mod sockets;
mod waker;

pub use buffers::RecvBuffer;
pub use completion::{Completion, Received};
pub use config::{Counters, RingConfig};
pub use errno::Errno;
pub use file_buffer::FileBuffer;
pub use host::{ListenOptions, bind, is_free, pin_to_core, share_port};
pub use ids::{FileId, ListenerId, RingAddress, Socket, Token};
pub use probe::{Missing, StartError, probe};
pub use ring::Ring;
pub use waker::Waker;
