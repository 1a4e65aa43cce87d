//! The echo service: every data message comes back, through the same codec and the same sends as chat.
//!
//! For conformance suites and floor measurements. Any path, no token; bounded by message, by fragments and in all.

use protocol::event::CloseCode;
use protocol::session::{Frames, SessionLimits};
use protocol::upgrade::{Origins, UpgradePolicy};
use protocol::ws::Opcode;

use super::connection::Stage;
use super::{ConnectionId, Shard};

/// Messages up to 16 MiB in up to 65,536 fragments, text and binary.
pub(super) const LIMITS: SessionLimits =
    SessionLimits { message_bytes_max: 16 << 20, fragments_max: 65_536, frames: Frames::Any };

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
        let share = HELD_BYTES_MAX / usize::from(self.places.shards);
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        if !connection.codec.is_open() {
            return;
        }
        let mut frame = Vec::with_capacity(payload.len() + 10);
        connection.codec.encode_message(opcode, payload, &mut frame);
        self.echo_bytes += frame.len();
        connection.own_outbox().push(frame.into(), false);
        if self.echo_bytes > share {
            self.end(id, CloseCode::OVERLOAD, "the echo service holds too much");
        }
    }

    /// The echo service answers every ping, as its users count them; of a flood only the newest.
    pub(super) fn answer_echo_pings(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.find(id)
            && matches!(connection.stage, Stage::Echo)
            && connection.control.len() < CONTROL_BYTES_MAX
        {
            connection.codec.poll_control(&mut connection.control);
        }
    }
}
