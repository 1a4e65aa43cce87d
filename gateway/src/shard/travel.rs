//! Standing still, so that another process can go on with what this shard has; and going on with what another had.
//!
//! A shard that pauses takes no connections and no bytes, sends nothing more to sessions, and lets what is under way come to its end. Once
//! all shards are at rest, a connection is its descriptor and what [`Shard::describe`] says of it. Nothing is given away by that: a shard
//! that resumes goes on as if it had not paused.

use protocol::command::Request;
use protocol::session::{Session, SessionLimits};
use protocol::ws::encode_frame;
use ring::Socket;
use router::mail::Clock;
use router::user::Outbox;

use super::connection::{Connection, Stage};
use super::peer::Peer;
use super::revoke::refused;
use super::{Action, ConnectionId, Shard};
use crate::auth::TokenError;
use crate::upgrade::passenger::{Passenger, PassengerStage};
use crate::upgrade::successor::Boarded;

impl Shard {
    /// Begins nothing that goes on behind the sessions: no segment is made, indexed or written anew.
    pub fn hold_background(&mut self, held: bool) {
        self.background_held = held;
    }

    /// Stands still from now on. The driver cancels what waits in the ring. One that drains does not: it has no listeners any more, and
    /// goes on saying goodbye.
    pub(super) fn begin_pause(&mut self) {
        if !self.paused && self.drain.is_none() {
            self.paused = true;
            self.users.pause();
            self.actions.push(Action::Pause);
        }
    }

    /// Goes on: everybody is listened to again, and sent what waits.
    pub(super) fn resume(&mut self) {
        if !std::mem::take(&mut self.paused) {
            return;
        }
        self.users.unpause();
        self.actions.push(Action::Unpause { is_draining: self.drain.is_some() });
        for id in self.connections.ids() {
            self.rearm(id);
            self.flush(id);
            self.close_if_quiet(id);
        }
    }

    /// Whether it stands still, or is about to.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether a shard that pauses has nothing under way any more: nothing in its ring, no question unanswered, no batch unwritten. Another
    /// shard may still ask it something.
    #[must_use]
    pub fn is_settled(&mut self) -> bool {
        let asks = self.users.requests_under_way() > 0
            || !self.users.has_written()
            || self.pushing.asks()
            || self.mail.has_notes()
            || self.mail.has_mail();
        let revokes = !self.sweeps.is_empty();
        if !self.paused
            || asks
            || revokes
            || self.crowd.has_arrivals_or_partings()
            || self.moves.are_under_way()
        {
            return false;
        }
        self.logs_are_settled() && self.connections.all().all(|connection| !is_busy(connection))
    }

    /// Connections that go on elsewhere, with their descriptors here. Those that are ending, and those of the echo service, do not.
    pub fn travellers(&mut self) -> Vec<(ConnectionId, Socket)> {
        let ids = self.connections.ids();
        let travels = |id: &ConnectionId| {
            let connection = self.connections.find(*id)?;
            let stays = connection.is_ending() || connection.codec.is_closed();
            let is_ours = matches!(connection.stage, Stage::Arriving { .. } | Stage::Live { .. });
            (is_ours && !stays).then_some((*id, connection.socket))
        };
        ids.iter().filter_map(travels).collect()
    }

    /// What is to be known of a connection where it goes on. It stays here as it is.
    pub fn describe(&mut self, id: ConnectionId) -> Option<Passenger> {
        let peer = self.connections.peer(id).map(|peer| peer.address);
        let connection = self.connections.find(id)?;
        // What is polled here is sent from there: by the shard, if it resumes.
        if connection.codec.has_control() {
            connection.poll_control();
        }
        let control = connection.held().map_or(&[][..], |held| &held.control);
        let (form, is_open) = (connection.codec.form(), connection.codec.is_open());
        let (is_proxied, replay) = (connection.codec.is_proxied(), connection.codec.replay());
        let (stage, received) = match &connection.stage {
            Stage::Arriving { bearer } => {
                let outbox = connection.held().map(|held| held.outbox.unsent(control));
                let unsent = outbox.unwrap_or_default();
                (PassengerStage::Arriving { bearer: bearer.clone(), unsent }, replay)
            }
            Stage::Live { session, expires_at, issued } => {
                let mut session = self.users.describe(*session, control)?;
                let mut received = Vec::new();
                let asked = std::mem::take(&mut session.asked);
                asked.iter().for_each(|request| write_request(request, form, &mut received));
                received.extend(replay);
                let (expires_at, issued, session) = (*expires_at, *issued, Box::new(session));
                (PassengerStage::Live { expires_at, issued, session }, received)
            }
            _ => return None,
        };
        Some(Passenger { form, is_open, is_proxied, peer, received, stage })
    }

    /// Goes on with what another process had, of which the connections follow. Called before the first turn.
    pub fn go_on(&mut self, clock: Clock, absent_known: bool) {
        self.clock = clock;
        self.users.go_on(clock, absent_known);
    }

    /// Goes on with a connection of another process. Called before the first turn.
    pub fn take_over(&mut self, boarded: Boarded) {
        let clock = self.clock;
        let Boarded { passenger, socket, counted } = boarded;
        let Passenger { form, is_open, is_proxied, peer, mut received, stage } = passenger;
        let is_live = matches!(stage, PassengerStage::Live { .. });
        let limits = if is_live { SessionLimits::OPEN } else { SessionLimits::CONNECT };
        let codec = match (is_open, is_proxied) {
            (true, _) => Session::resumed(form, &limits),
            (false, true) => Session::proxied(&limits),
            (false, false) => Session::server(&limits),
        };
        let second = self.second() as u32;
        let arriving = Stage::Arriving { bearer: None };
        let id = self.connections.insert(Connection::new(socket, arriving, codec, second));
        self.connections.set_peer(id, peer.map(|address| Peer { address, counted }));
        match stage {
            PassengerStage::Arriving { bearer, unsent } => {
                let connection = self.connections.find(id).expect("just inserted");
                connection.stage = Stage::Arriving { bearer };
                connection.is_handshake = true;
                if !unsent.is_empty() {
                    connection.held_mut().outbox = Outbox::resumed(unsent);
                }
                self.admission.begin();
            }
            PassengerStage::Live { expires_at, issued, session } => {
                let session = self.users.resume(id.pack(), &session, clock);
                let connection = self.connections.find(id).expect("just inserted");
                connection.stage = Stage::Live { session, expires_at, issued };
            }
        }
        self.schedule(id);
        self.end_if_denied(id);
        if !received.is_empty() {
            self.handle_bytes(id, &mut received);
        }
        self.rearm(id);
        self.flush(id);
    }
}

impl Shard {
    /// A revocation whose sessions were not all closed when this one was told of.
    fn end_if_denied(&mut self, id: ConnectionId) {
        let Some(Stage::Live { session, issued, .. }) = self.connections.find(id).map(|found| &found.stage)
        else {
            return;
        };
        let (session, issued) = (*session, *issued);
        let user = self.users.user_of(session);
        if user.is_some_and(|user| self.denied.revokes(user, issued, self.clock.unix)) {
            let (_, close, message) = refused(TokenError::Revoked);
            self.end(id, close, message);
        }
    }
}

/// Whether something of a connection is with the ring. One that leaves for another shard and does not read stays behind.
fn is_busy(connection: &Connection) -> bool {
    let is_leaving = matches!(connection.stage, Stage::Leaving(_));
    matches!(connection.stage, Stage::Moving { .. })
        || connection.receiving
        || (connection.sending && !is_leaving)
}

/// A request as its client sends it.
fn write_request(request: &Request, form: protocol::upgrade::Form, out: &mut Vec<u8>) {
    let mut payload = Vec::new();
    request.encode(form, &mut payload);
    encode_frame(form.opcode(), &payload, Some([0; 4]), out);
}
