//! A new binary takes over from a running one: listeners, logs and every live connection, and nobody is disconnected.
//!
//! ```text
//!  old  start it ── hello ─► grant ─ seated ─► quiet ─ ahead ─► pause ─ all at rest ─► describe ─► yours ── ready ─► exit 0
//!  new          config, keys    threads, rings    logs are read           their ends      sockets       begins its run
//! ```
//!
//! Until `pause` the old process serves as if nothing were. From then on nothing is received or sent, for as long as it takes; what peers
//! send meanwhile waits in their sockets. Until `yours` the new process changes nothing that is handed over: no socket, no log, no list. So whatever it dies or is
//! silent of before, the old one goes on, and has lost nothing but that time. Saying `yours` is the point of no return: from then on the
//! old process touches nothing, and a new one that dies is a crash like any other; the old one ends with 1, so that a service manager starts
//! again, and clients come back with their cursors.
//!
//! | file | what it does |
//! |---|---|
//! | `wire.rs` | messages and descriptors between the two |
//! | `passenger.rs` | a connection as it travels |
//! | `leaving.rs` | the old process's part |
//! | `successor.rs` | the new process's part |
//!
//! **Invariant:** the lock of the data directory belongs to the open file, which both have: nobody else gets it in between.

pub mod leaving;
pub mod passenger;
pub mod successor;
pub mod wire;

use std::time::Duration;

/// Says to a new process that its standard input is the way to the one before.
pub const UPGRADE_VARIABLE: &str = "GATEHOUSE_UPGRADE";

/// What an operator is told where the two do not understand each other.
pub(crate) const UNEXPECTED: &str =
    "the other process says what this version does not expect here: restart the node instead";

/// From the start of a new process to its first words, and to having its threads.
pub const START_MAX: Duration = Duration::from_secs(10);

/// How long segments that are being made or written anew are waited for, while everybody is served.
pub const BACKGROUND_MAX: Duration = Duration::from_secs(10);

/// How long the new process may read the logs back, while everybody is served. No segment is made meanwhile, and one that was made ahead
/// holds 256 MiB.
pub const READ_AHEAD_MAX: Duration = Duration::from_secs(30);

/// From the pause until nothing is under way any more. Batches take milliseconds; a disk that takes longer is not to be waited for.
pub const REST_MAX: Duration = Duration::from_secs(1);

/// From there until the new process has everything. Clients wait; beyond this they are served by the old one again.
pub const PREPARE_MAX: Duration = Duration::from_secs(5);

/// From `yours` until the new process serves. There is no way back; beyond this the old one ends, so that somebody looks.
pub const READY_MAX: Duration = Duration::from_secs(30);
