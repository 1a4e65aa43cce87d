//! Who is let in, and when: connections are taken while there is room for their handshakes, and the others wait.
//!
//! | limit | beyond it |
//! |---|---|
//! | handshakes in progress | no connection is taken until one of them has ended: the listener's backlog holds the others, in their order. Whoever takes longer than [`PATIENCE_SECONDS`] meanwhile is let go with 408 |
//! | new connections a second | the same, until the next is due |
//! | sockets of the table | the same, until one is closed. It is met before the table is full, by those who are being refused |
//! | connections of the node | 503 with `Retry-After` |
//! | memory | the same |
//!
//! What passes in a moment is waited for: a client that waits costs neither side anything, and one that is refused dials
//! again. What may last is said.
//!
//! Invariant: the ring never has more accepts posted than there is room for, so no limit is passed, not by one.

use super::connection::{Connection, Stage};
use super::{Action, ConnectionId, Shard};
use crate::layout::SPARE_SOCKETS;
use crate::metrics::{PauseReason, RefusedReason};

/// Connections taken at a time, at most: what the ring is given room for in one turn. Some more than it posts accepts.
const ROOM_MAX: u32 = 128;

/// How long a handshake may take while others wait for its place, in seconds. Without that it may take 10 s.
///
/// So peers that connect and say nothing hold each place for this long and a second at most, and keep nobody out for longer
/// unless they come faster than all places are freed: 1,024 of a shard in 3 s.
pub(super) const PATIENCE_SECONDS: u64 = 2;

/// Sockets beyond those of connections that are kept for moves which arrive; the rest of [`SPARE_SOCKETS`] is for those
/// who are told that there is no room.
const MOVING_SOCKETS: u32 = SPARE_SOCKETS / 2;

/// After the system had no descriptor or no memory for a connection: how long none is taken, in seconds.
const RAN_OUT_SECONDS: u64 = 1;

/// What is looked at before a connection is taken.
pub(super) struct Admission {
    handshakes_max: u32,
    /// Accepted connections without a session.
    handshakes: u32,
    rate: Rate,
    /// The second from which on the system is asked again.
    closed_until: u64,
    /// What the ring was told, less what came since.
    granted: u32,
    /// The second in which a handshake was last waited for.
    pressed: Option<u64>,
    paused: Option<PauseReason>,
}

impl Admission {
    pub(super) fn new(handshakes_max: u32, connects_per_second_max: u32) -> Self {
        Self {
            handshakes_max,
            handshakes: 0,
            rate: Rate::new(connects_per_second_max),
            closed_until: 0,
            granted: 0,
            pressed: None,
            paused: None,
        }
    }

    /// Accepted connections that have shown no token yet.
    pub(super) fn handshakes(&self) -> u32 {
        self.handshakes
    }

    /// Whether somebody may have waited for a handshake to end, in this second or the last.
    pub(super) fn is_pressed(&self, second: u64) -> bool {
        self.pressed.is_some_and(|pressed| pressed + 1 >= second)
    }

    /// How long until the next connection may be taken, if that alone is waited for, in microseconds.
    pub(super) fn wait_micros(&self) -> Option<u64> {
        (self.paused == Some(PauseReason::Rate)).then(|| self.rate.wait_micros())
    }

    pub(super) fn begin(&mut self) {
        self.handshakes += 1;
    }

    pub(super) fn end(&mut self) {
        self.handshakes -= 1;
    }
}

/// New connections a second, in millionths of one: counted up by the turn's clock, counted down by each that comes.
struct Rate {
    per_second: u64,
    millionths: u64,
    micros: u64,
}

impl Rate {
    fn new(per_second: u32) -> Self {
        let per_second = u64::from(per_second);
        Self { per_second, millionths: Self::most(per_second), micros: 0 }
    }

    /// What may come at once after a pause: those of a tenth of a second.
    const fn most(per_second: u64) -> u64 {
        let tenth = per_second * 100_000;
        if tenth < 1_000_000 { 1_000_000 } else { tenth }
    }

    fn pass(&mut self, micros: u64) {
        let passed = micros.saturating_sub(self.micros);
        self.micros = micros;
        let earned = passed.saturating_mul(self.per_second);
        self.millionths = self.millionths.saturating_add(earned).min(Self::most(self.per_second));
    }

    fn take(&mut self) {
        self.millionths = self.millionths.saturating_sub(1_000_000);
    }

    fn connections(&self) -> u32 {
        (self.millionths / 1_000_000) as u32
    }

    /// A millisecond at least: so often is often enough.
    fn wait_micros(&self) -> u64 {
        (1_000_000 - self.millionths.min(1_000_000)).div_ceil(self.per_second).max(1_000)
    }
}

impl Shard {
    /// How many connections may come now. The driver tells the ring before the first turn, [`Action::Admit`] from then on.
    pub fn admits(&mut self) -> u32 {
        let (room, _) = self.room();
        self.admission.granted = room;
        room
    }

    /// A connection came that was let in.
    pub(super) fn note_accepted(&mut self) {
        self.admission.granted = self.admission.granted.saturating_sub(1);
        // What passed before it came earned nothing beyond what a pause may: counted behind it, it would let the next one come too soon.
        self.admission.rate.pass(self.clock.micros);
        self.admission.rate.take();
    }

    /// The system has no descriptor or no memory left for a connection; the peer's end was reset.
    pub(super) fn handle_not_accepted(&mut self) {
        self.metrics.refused_total(RefusedReason::System).increment();
        self.admission.granted = 0;
        self.admission.closed_until = self.second() + RAN_OUT_SECONDS + 1;
    }

    /// Gives room for more, and counts when there is none.
    pub(super) fn continue_admission(&mut self) {
        if self.drain.is_some() {
            // Nobody is let in any more, so nobody waits for that.
            self.admission.paused = None;
            return;
        }
        self.admission.rate.pass(self.clock.micros);
        let (room, reason) = self.room();
        if reason == Some(PauseReason::Handshakes) {
            self.admission.pressed = Some(self.second());
        }
        if let Some(reason) = reason
            && self.admission.paused != Some(reason)
        {
            self.metrics.accept_pauses_total(reason).increment();
        }
        self.admission.paused = reason;
        // Less is never told: what the ring has is in the count already.
        if room > self.admission.granted {
            self.admission.granted = room;
            self.actions.push(Action::Admit { room });
        }
    }

    /// Room for connections, and what there is none for.
    fn room(&self) -> (u32, Option<PauseReason>) {
        let admission = &self.admission;
        let slots = self.config.connections_max + SPARE_SOCKETS - MOVING_SOCKETS;
        let sockets = slots.saturating_sub(self.connections.count() as u32 + self.arriving());
        let handshakes = admission.handshakes_max.saturating_sub(admission.handshakes);
        let system = if self.second() < admission.closed_until { 0 } else { ROOM_MAX };
        let rooms = [
            (sockets, PauseReason::Sockets),
            (system, PauseReason::System),
            (handshakes, PauseReason::Handshakes),
            (admission.rate.connections(), PauseReason::Rate),
        ];
        let room = rooms.iter().fold(ROOM_MAX, |least, (room, _)| least.min(*room));
        (room, rooms.iter().find(|(room, _)| *room == 0).map(|(_, reason)| *reason))
    }

    /// Counts a handshake that has ended: it became a session, moved, or was given up.
    pub(super) fn note_handshake(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.find(id)
            && connection.is_handshake
            && !connection.is_stranger()
        {
            connection.is_handshake = false;
            self.admission.end();
        }
    }
}

/// Whether a handshake has to go so that another can begin.
pub(super) fn is_too_slow(connection: &Connection, admission: &Admission, second: u64) -> bool {
    // Who has shown a token waits for this node.
    connection.is_handshake
        && matches!(connection.stage, Stage::Arriving { .. })
        && !connection.codec.is_closed()
        && admission.is_pressed(second)
        && u64::from(connection.since) + PATIENCE_SECONDS <= second
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_gives_what_its_clock_has_earned_and_no_more() {
        let mut rate = Rate::new(50);
        assert_eq!(rate.connections(), 5, "a tenth of a second's at once");
        (0..5).for_each(|_| rate.take());
        assert_eq!((rate.connections(), rate.wait_micros()), (0, 20_000));
        rate.pass(19_999);
        assert_eq!((rate.connections(), rate.wait_micros()), (0, 1_000));
        rate.pass(20_000);
        assert_eq!(rate.connections(), 1);
        rate.pass(1 << 60);
        assert_eq!(rate.connections(), 5);
        rate.pass(0);
        assert_eq!(rate.connections(), 5, "a clock that goes back takes nothing");

        let mut slowest = Rate::new(1);
        slowest.take();
        (1..=1_000).for_each(|turn| slowest.pass(turn * 999));
        assert_eq!(slowest.connections(), 0, "999 ms in turns of less than one");
        slowest.pass(1_000_000);
        assert_eq!(slowest.connections(), 1, "nothing is lost to rounding");
    }
}
