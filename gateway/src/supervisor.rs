//! What the service manager is told (sd_notify(3)): that the node serves, that it stops, and that every shard turns.
//!
//! A shard turns at least once a second, whatever happens; one that does not is stuck, and then the manager is no longer
//! told that all is well: systemd kills the node after `WatchdogSec` and starts it again. Without `NOTIFY_SOCKET` in the
//! environment nobody is told anything.

use std::env;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;

use crate::metrics::ShardMetrics;

/// The way to the service manager, if there is one.
pub struct Supervisor {
    manager: Option<(UnixDatagram, SocketAddr)>,
    shards: Vec<Arc<ShardMetrics>>,
    /// Of each shard, how often it had turned when the manager was last told.
    turns: Vec<u64>,
}

impl Supervisor {
    /// Tells `manager` of `shards`.
    #[must_use]
    pub fn new(manager: Option<SocketAddr>, shards: Vec<Arc<ShardMetrics>>) -> Self {
        let manager = manager.and_then(|address| Some((UnixDatagram::unbound().ok()?, address)));
        let turns = vec![0; shards.len()];
        Self { manager, shards, turns }
    }

    /// The node serves.
    pub fn ready(&self) {
        self.tell("READY=1\nSTATUS=serving");
    }

    /// The node drains.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=draining");
    }

    /// Says that all is well if every shard has turned since this was last said.
    pub fn feed_watchdog(&mut self) {
        if self.manager.is_none() {
            return;
        }
        let turns: Vec<u64> = self.shards.iter().map(|shard| shard.ring_enters_total.value()).collect();
        if turns.iter().zip(&self.turns).all(|(now, then)| now != then) {
            self.turns = turns;
            self.tell("WATCHDOG=1");
        }
    }

    /// While it drains, shards end one after the other: the manager's stop timeout watches then.
    pub fn feed_watchdog_anyway(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, state: &str) {
        if let Some((socket, address)) = &self.manager {
            // A manager that does not listen is not our failure.
            let _ = socket.send_to_addr(state.as_bytes(), address);
        }
    }
}

/// Tells the service manager, if there is one, that from now on another process is the service.
pub fn tell_main_process(pid: u32) {
    let supervisor = Supervisor::new(manager_of_environment(), Vec::new());
    supervisor.tell(&format!("MAINPID={pid}"));
}

/// Where `NOTIFY_SOCKET` says that the manager listens: a path, or a name in the abstract space when it begins with `@`.
#[must_use]
pub fn manager_of_environment() -> Option<SocketAddr> {
    let name = env::var_os("NOTIFY_SOCKET")?;
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name).ok(),
        None => SocketAddr::from_pathname(&name).ok(),
    }
}
