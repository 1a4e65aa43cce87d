//! The echo service: every data message comes back, through the same codec and the same sends as chat.
//!
//! For conformance suites and floor measurements. Any path, no token; bounded by message, by fragments and in all.

use protocol::session::{Frames, SessionLimits};
use protocol::upgrade::{Origins, UpgradePolicy};
use protocol::ws::Opcode;

use super::connection::Stage;
use super::{ConnectionId, Shard};

/// Messages up to 16 MiB in up to 65,536 fragments, text and binary, and the empty one that some libraries end with.
pub(super) const LIMITS: SessionLimits =
    SessionLimits { message_bytes_max: 16 << 20, fragments_max: 65_537, frames: Frames::Any };

/// What the echo service of one node holds, over all its connections.
const HELD_BYTES_MAX: usize = 256 << 20;

/// Answers to pings held for one connection; beyond it only the newest ping is answered.
const CONTROL_BYTES_MAX: usize = 16 << 10;

static POLICY: UpgradePolicy = UpgradePolicy { path: None, origins: Origins::Unset };

pub(super) fn policy() -> &'static UpgradePolicy {
    &POLICY
}

impl Shard {
    pub(super) fn echo(&mut self, id: ConnectionId, opcode: Opcode, payload: &[u8]) {
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        if !connection.codec.is_open() {
            return;
        }
        let mut frame = Vec::with_capacity(payload.len() + 10);
        connection.codec.encode_message(opcode, payload, &mut frame);
        connection.held_mut().outbox.push(frame.into(), false);
        self.recount(id);
    }

    /// Whether this shard's part of the echo service holds more than it may.
    pub(super) fn is_echo_full(&self) -> bool {
        self.echo_bytes > HELD_BYTES_MAX / usize::from(self.places.shards)
    }

    /// The peer has ended an echo connection: it still gets all its messages back, and the close behind them.
    pub(super) fn finish_echo(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        let mut close = Vec::new();
        connection.codec.poll_control(&mut close);
        connection.held_mut().outbox.push(close.into(), false);
    }

    /// The echo service answers every ping, as its users count them; of a flood only the newest.
    pub(super) fn answer_echo_pings(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.find(id)
            && matches!(connection.stage, Stage::Echo)
            && connection.codec.is_open()
            && connection.codec.has_control()
            && connection.held().is_none_or(|held| held.control.len() < CONTROL_BYTES_MAX)
        {
            connection.poll_control();
        }
    }
}
