//! What the operator is told of connections that are refused or have to wait, and the watch over memory.
//!
//! Shards count; five times a second their counts are looked at here, on the control plane's thread. Of each matter there is a
//! line at once and then one a minute at most, with what to do.

use std::sync::Arc;
use std::time::Duration;

use crate::memory::{Gauge, Memory};
use crate::metrics::{PauseReason, RefusedReason, ShardMetrics};
use crate::state::NodeState;

/// How often it looks.
pub const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Looks between two lines about the same matter: a minute.
const LOOKS_A_LINE: u32 = 300;

/// One matter that is told.
struct Matter {
    what: What,
    told: u64,
    /// Looks until it may be told again.
    wait: u32,
}

#[derive(Clone, Copy)]
enum What {
    Paused(PauseReason),
    Refused(RefusedReason),
}

/// All that is told, and what was told of it.
pub struct Gatekeeper {
    state: Arc<NodeState>,
    shards: Vec<Arc<ShardMetrics>>,
    gauge: Gauge,
    matters: [Matter; 10],
}

impl Gatekeeper {
    /// One that has told nothing yet.
    #[must_use]
    pub fn new(state: Arc<NodeState>, shards: Vec<Arc<ShardMetrics>>, gauge: Gauge) -> Self {
        let matters = [
            What::Refused(RefusedReason::Full),
            What::Refused(RefusedReason::Memory),
            What::Refused(RefusedReason::System),
            What::Refused(RefusedReason::Displaced),
            What::Refused(RefusedReason::IpConnections),
            What::Refused(RefusedReason::IpConnects),
            What::Refused(RefusedReason::NoProxyHeader),
            What::Paused(PauseReason::Handshakes),
            What::Paused(PauseReason::Rate),
            What::Paused(PauseReason::Sockets),
        ];
        Self { state, shards, gauge, matters: matters.map(|what| Matter { what, told: 0, wait: 0 }) }
    }

    /// Looks, and tells. The matters that were told, for tests.
    pub fn look(&mut self) -> Vec<&'static str> {
        if let Some(memory) = self.gauge.read() {
            self.judge(memory);
        }
        let mut told = Vec::new();
        for matter in &mut self.matters {
            let total = self.shards.iter().map(|shard| matter.what.count(shard)).sum::<u64>();
            matter.wait = matter.wait.saturating_sub(1);
            if total > matter.told && matter.wait == 0 {
                tracing::warn!(times = total - matter.told, "{}", matter.what.words());
                told.push(matter.what.name());
                (matter.told, matter.wait) = (total, LOOKS_A_LINE);
            }
        }
        told
    }

    fn judge(&self, memory: Memory) {
        let was_short = self.state.is_short_of_memory();
        let is_short = self.gauge.is_short(memory, was_short);
        if is_short != was_short {
            self.state.set_short_of_memory(is_short);
            let (left_mib, reserve_mib) = (memory.left >> 20, self.gauge.reserve(memory) >> 20);
            if is_short {
                tracing::warn!(
                    left_mib,
                    reserve_mib,
                    "short of memory: new connections are refused with 503, those that are there are served; give \
                     the node more memory, or lower `connections_max`"
                );
            } else {
                tracing::info!(left_mib, "memory suffices again: new connections are taken");
            }
        }
    }
}

impl What {
    fn count(self, shard: &ShardMetrics) -> u64 {
        match self {
            Self::Paused(reason) => shard.accept_pauses_total(reason).value(),
            Self::Refused(reason) => shard.refused_total(reason).value(),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Paused(reason) => reason.name(),
            Self::Refused(reason) => reason.name(),
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Refused(RefusedReason::Full) => {
                "connections were refused with 503: the node has as many as it may; raise `connections_max`, or send \
                 clients elsewhere"
            }
            Self::Refused(RefusedReason::Memory) => {
                "connections were refused with 503 for want of memory; give the node more, or lower `connections_max`"
            }
            Self::Refused(RefusedReason::System) => {
                "the system had no descriptor or memory for connections, and reset them; raise fs.file-max, or look \
                 what else takes them"
            }
            Self::Refused(RefusedReason::IpConnections) => {
                "connections were refused with 429 because their address has `ip_connections_max` already; GATEHOUSE_LOG=debug \
                 names it. If many users share it, raise the limit; if it is a proxy's, put it into `proxies`"
            }
            Self::Refused(RefusedReason::IpConnects) => {
                "connections were refused with 429 because more than `ip_connects_per_second` came from their address; \
                 GATEHOUSE_LOG=debug names it. If many users share it, raise the limit; if it is a proxy's, put it into `proxies`"
            }
            Self::Refused(RefusedReason::NoProxyHeader) => {
                "connections from `proxies` were refused with 400 because they did not begin with a PROXY header; have the proxy \
                 send it (send-proxy-v2, proxy_protocol on), or take its address out of `proxies`"
            }
            Self::Refused(_) => {
                "handshakes were given up after 2 s because others waited: if these are attackers, keep them out \
                 before the node; if it is a crowd on slow lines, raise `handshakes_max`"
            }
            Self::Paused(PauseReason::Handshakes) => {
                "connections had to wait because `handshakes_max` were in progress; they are served in their order"
            }
            Self::Paused(PauseReason::Rate) => {
                "connections had to wait because `connects_per_second_max` had come; they are served in their order"
            }
            Self::Paused(_) => {
                "connections had to wait for sockets: those of the node are taken, and others are being refused"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matter_is_told_at_once_and_then_once_a_minute_while_it_goes_on() {
        let metrics: Arc<ShardMetrics> = Arc::default();
        let state = Arc::new(NodeState::new(1));
        let mut keeper = Gatekeeper::new(state, vec![metrics.clone()], Gauge::of_this_process(Some(0)));
        assert!(keeper.look().is_empty());
        metrics.refused_total(RefusedReason::Full).increment();
        assert_eq!(keeper.look(), ["full"]);
        for look in 1..=LOOKS_A_LINE {
            metrics.refused_total(RefusedReason::Full).increment();
            let due = look == LOOKS_A_LINE;
            assert_eq!(!keeper.look().is_empty(), due, "{look}");
        }
        metrics.accept_pauses_total(PauseReason::Rate).increment();
        assert_eq!(keeper.look(), ["rate"], "one matter does not hold up another");
        (0..2 * LOOKS_A_LINE).for_each(|_| drop(keeper.look()));
        metrics.refused_total(RefusedReason::Full).increment();
        assert_eq!(keeper.look(), ["full"]);
    }
}
