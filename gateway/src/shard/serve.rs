//! From bytes to commands: the upgrade, `connect`, and everything after.

use std::net::{IpAddr, SocketAddr};

use protocol::command::{Command, Connect, Request};
use protocol::event::{CloseCode, ErrorCode, Refusal};
use protocol::ids::RequestId;
use protocol::session::{End, Frames, Input, Session, SessionLimits};
use protocol::upgrade::{HttpRefusal, Upgrade, UpgradePolicy};
use ring::{RecvBuffer, Socket};
use router::user::refusal;

use super::connection::{Connection, Stage};
use super::peer::{Peer, Refused};
use super::revoke::{NO_TOKEN, refused};
use super::{Action, ConnectionId, Listener, ReceiveEnd, Shard, echo};
use crate::auth::{TokenError, Verified};
use crate::mailbox::Move;
use crate::metrics::RefusedReason;

/// What is said to who sends another command first.
const NO_CONNECT: &str = "the first command is connect";
/// And to who asks on and on, and reads no answers.
const TOO_MANY: &str = "too many commands under way";

/// What unauthenticated peers may make a shard hold.
const STRANGER_BYTES_MAX: usize = 16 << 20;

/// One thing that came out of the bytes, free of them.
enum Step {
    Ended(End),
    Echo { opcode: protocol::ws::Opcode, payload: Vec<u8> },
    Nothing,
    Passed,
    PeerClosed(CloseCode),
    Proxied(Option<IpAddr>),
    Request(Result<Request, Refusal>),
    Upgraded(Box<Upgrade>),
}

impl Shard {
    pub(super) fn handle_accepted(&mut self, listener: Listener, socket: Socket, peer: SocketAddr) {
        let second = self.second() as u32;
        let address = peer.ip().to_canonical();
        let is_proxy = listener == Listener::Chat && self.is_proxy(address);
        let (stage, codec) = match listener {
            Listener::Chat if is_proxy => {
                (Stage::Arriving { bearer: None }, Session::proxied(&SessionLimits::CONNECT))
            }
            Listener::Chat => (Stage::Arriving { bearer: None }, Session::server(&SessionLimits::CONNECT)),
            Listener::Echo => (Stage::Echo, Session::server(&echo::LIMITS)),
        };
        let counted = match self.refuses() {
            Some(refused) => Err(refused),
            None if is_proxy || listener == Listener::Echo => Ok(None),
            None => self.count_peer(address),
        };
        let (counted, refused) =
            counted.map_or_else(|refused| (None, Some(refused)), |counted| (counted, None));
        let mut connection = Connection::new(socket, stage, codec, second);
        if listener == Listener::Chat {
            self.note_accepted();
            connection.is_handshake = refused.is_none();
            if connection.is_handshake {
                self.admission.begin();
            }
        }
        let id = self.connections.insert(connection);
        // Whoever reads that it was accepted finds it among the connections, or gone.
        self.metrics.connections.set(self.connections.count() as u64);
        self.metrics.accepted_total.increment();
        self.connections.set_peer(id, Some(Peer { address, counted }));
        self.schedule(id);
        if let Some((reason, refusal)) = refused {
            let connection = self.connections.find(id).expect("just inserted");
            connection.codec.refuse(refusal);
            self.metrics.refused_total(reason).increment();
            self.flush(id);
        } else {
            self.rearm(id);
        }
    }

    /// Why no connection is served now, and what its peer is told.
    fn refuses(&self) -> Option<Refused> {
        let (counted, reason) =
            if self.connections.count() >= self.config.connections_max as usize || self.drain.is_some() {
                (RefusedReason::Full, "this node takes no more connections")
            } else if self.state.is_short_of_memory() {
                (RefusedReason::Memory, "this node has no memory for more connections")
            } else {
                return None;
            };
        Some((counted, HttpRefusal { status: 503, reason }))
    }

    /// Asks for more bytes, if the connection should be read.
    pub(super) fn rearm(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        let read = match connection.stage {
            Stage::Arriving { .. } | Stage::Live { .. } | Stage::Echo | Stage::Ending => {
                !connection.codec.is_closed()
            }
            Stage::Leaving(_) | Stage::Moving { .. } => false,
        };
        if read && !connection.receiving && !connection.is_ending() && !self.paused {
            connection.receiving = true;
            // Nothing may be armed when the descriptor moves.
            let once = matches!(connection.stage, Stage::Arriving { .. });
            let socket = connection.socket;
            self.actions.push(Action::Receive { connection: id, socket, once });
        }
    }

    pub(super) fn handle_received(&mut self, id: ConnectionId, mut buffer: RecvBuffer, armed: bool) {
        let second = self.second() as u32;
        let mut was_live = false;
        if let Some(connection) = self.connections.find(id) {
            was_live = matches!(connection.stage, Stage::Live { .. });
            connection.receiving = armed;
            connection.heard = second;
            if !connection.is_ending() {
                self.handle_bytes(id, buffer.bytes_mut());
            }
        }
        self.actions.push(Action::Recycle(buffer));
        self.rearm(id);
        match self.connections.find(id) {
            Some(connection) if was_live && matches!(connection.stage, Stage::Ending) => {
                self.take_goodbye(id);
            }
            _ => {
                self.flush(id);
                self.close_if_quiet(id);
            }
        }
    }

    pub(super) fn handle_receive_ended(&mut self, id: ConnectionId, end: ReceiveEnd) {
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        connection.receiving = false;
        match end {
            ReceiveEnd::Disarmed => self.rearm(id),
            ReceiveEnd::Gone => {
                self.end_session(id, CloseCode::ABNORMAL);
                self.begin_shutdown(id);
                self.close_if_quiet(id);
            }
        }
    }

    /// Handles all frames in `bytes`; what is left of a frame stays in the codec.
    pub(super) fn handle_bytes(&mut self, id: ConnectionId, bytes: &mut [u8]) {
        let mut rest = bytes;
        loop {
            let Some(connection) = self.connections.find(id) else {
                return;
            };
            let whole = !connection.codec.is_mid_message();
            let (consumed, step) = next_step(connection, &self.config.policy, rest);
            if whole && connection.codec.is_mid_message() {
                connection.held_mut().message_since = (self.clock.micros / 1_000_000) as u32;
                self.schedule_sooner(id);
            }
            self.recount(id);
            if self.is_over_a_sum(id) {
                self.metrics.refused_total(RefusedReason::NoBuffer).increment();
                return self.end(id, CloseCode::OVERLOAD, "too much is held for connections like this one");
            }
            rest = &mut rest[consumed..];
            self.answer_echo_pings(id);
            let nothing = matches!(step, Step::Nothing);
            self.handle_step(id, step);
            if let Some(Connection { stage: Stage::Leaving(moved), .. }) = self.connections.find(id) {
                moved.leftover.extend_from_slice(rest);
                return;
            }
            if nothing {
                return;
            }
        }
    }

    fn handle_step(&mut self, id: ConnectionId, step: Step) {
        match step {
            Step::Nothing | Step::Passed => {}
            Step::Ended(end) => {
                let reason = match end {
                    End::NotProxied(_) => Some(RefusedReason::NoProxyHeader),
                    End::Refused(HttpRefusal { status: 403, .. }) => Some(RefusedReason::Origin),
                    End::Refused(_) => Some(RefusedReason::BadRequest),
                    End::Violation(_) => None,
                };
                reason.inspect(|reason| self.metrics.refused_total(*reason).increment());
                self.handle_end(id, end.close_code());
            }
            Step::Echo { opcode, payload } => self.echo(id, opcode, &payload),
            Step::PeerClosed(code) => self.handle_end(id, code),
            Step::Proxied(source) => self.handle_proxied(id, source),
            Step::Upgraded(upgrade) => {
                if let Some(Connection { stage: Stage::Arriving { bearer }, .. }) = self.connections.find(id)
                {
                    *bearer = upgrade.bearer;
                }
            }
            Step::Request(request) => self.handle_request_of(id, request),
        }
    }

    /// The peer has closed, or has broken the protocol and is told so.
    fn handle_end(&mut self, id: ConnectionId, code: CloseCode) {
        self.count_close(code);
        match self.connections.find(id) {
            Some(Connection { stage: Stage::Echo, .. }) => self.finish_echo(id),
            _ => self.end_session(id, code),
        }
        let second = self.second() as u32;
        if let Some(connection) = self.connections.find(id) {
            connection.since = second;
            self.schedule_sooner(id);
        }
    }

    fn handle_request_of(&mut self, id: ConnectionId, request: Result<Request, Refusal>) {
        let connection = self.connections.find(id).expect("the caller found it");
        if let Stage::Live { session, .. } = connection.stage {
            match self.peer_may_ask(id, session, &request) {
                Ok(true) => {}
                Ok(false) => return,
                Err(code) => return self.end(id, code, TOO_MANY),
            }
        }
        let connection = self.connections.find(id).expect("the caller found it");
        let result = match (&connection.stage, request) {
            (
                Stage::Live { session, .. },
                Ok(Request { id: Some(number), command: Command::Refresh { token } }),
            ) => {
                let session = *session;
                return self.refresh(id, session, number, token.as_str());
            }
            (Stage::Live { session, .. }, Ok(request)) => {
                let session = *session;
                self.users.handle_command(session, request, self.clock)
            }
            (Stage::Live { session, .. }, Err(refusal)) if refusal.id.is_some() => {
                let session = *session;
                self.users.handle_refusal(session, refusal, self.clock)
            }
            (
                Stage::Arriving { .. },
                Ok(Request { id: Some(number), command: Command::Connect(connect) }),
            ) => {
                return self.connect(id, number, connect);
            }
            (Stage::Arriving { .. }, Ok(request)) => {
                if let Some(number) = request.id {
                    let form = connection.codec.form();
                    connection.push(refusal(form, number, ErrorCode::BadField, NO_CONNECT));
                }
                return self.end(id, CloseCode::POLICY, NO_CONNECT);
            }
            (Stage::Arriving { .. }, Err(Refusal { id: Some(number), code: ErrorCode::BadToken, .. })) => {
                return self.refuse_token(id, number, refused(TokenError::Bad));
            }
            (Stage::Arriving { .. }, Err(Refusal { id: Some(number), code, message })) => {
                let form = connection.codec.form();
                connection.push(refusal(form, number, code, &message));
                return self.end(id, CloseCode::POLICY, &message);
            }
            // There is no `id` to answer to: what is wrong goes along with the close.
            (_, Err(refusal)) => return self.end(id, refusal.close_code(), &refusal.message),
            (_, Ok(_)) => Ok(()),
        };
        if let Err(code) = result {
            self.end(id, code, TOO_MANY);
        }
    }

    /// Judges the token and starts the session, here or at the user's home.
    fn connect(&mut self, id: ConnectionId, number: RequestId, mut connect: Connect) {
        let connection = self.connections.find(id).expect("the caller found it");
        let Stage::Arriving { bearer } = &mut connection.stage else {
            unreachable!("the caller looked");
        };
        let Some(token) = connect.token.take().or_else(|| bearer.take()) else {
            return self.refuse_token(id, number, NO_TOKEN);
        };
        let verified = match self.judge(token.as_str()) {
            Ok(verified) => verified,
            Err(error) => return self.refuse_token(id, number, refused(error)),
        };
        if self.places.home_of(&verified.user) == self.id {
            return self.begin_session(id, verified, number, connect);
        }
        let connection = self.connections.find(id).expect("the caller found it");
        let codec = Session::server(&SessionLimits::CONNECT);
        let leftover = Vec::new();
        let moved = Move { migration: 0, codec, verified, id: number, connect, leftover, peer: None };
        connection.stage = Stage::Leaving(Box::new(moved));
    }

    /// The user is at home: the session begins.
    pub(super) fn begin_session(
        &mut self,
        id: ConnectionId,
        verified: Verified,
        number: RequestId,
        connect: Connect,
    ) {
        let Verified { user, expires_at, issued } = verified;
        let peer = self.connections.peer(id).map(|peer| tracing::field::display(peer.address));
        let (name, device) = (user.as_str(), connect.device.as_str());
        tracing::debug!(shard = self.id.0, user = name, device, peer, "session begins");
        let connection = self.connections.find(id).expect("the caller found it");
        let form = connection.codec.form();
        match self.users.connect(id.pack(), user, form, number, connect, self.clock.unix) {
            Ok(session) => {
                connection.stage = Stage::Live { session, expires_at: expires_at.0, issued };
                connection.codec.admit(&SessionLimits::OPEN);
                self.schedule_sooner(id);
            }
            Err(refused) => {
                tracing::debug!(
                    shard = self.id.0,
                    peer,
                    code = refused.close.0,
                    "session ends: its user has too many"
                );
                connection.push(refused.frame);
                self.end(id, refused.close, "this user has too many sessions");
            }
        }
        // At once: the older connection's session is gone, and a send that ends in this turn is not that session's.
        self.close_ended();
    }

    fn refresh(
        &mut self,
        id: ConnectionId,
        session: router::mail::SessionId,
        number: RequestId,
        token: &str,
    ) {
        match self.users.begin_refresh(session, number, self.clock) {
            Ok(true) => {}
            Ok(false) => return,
            Err(code) => return self.end(id, code, TOO_MANY),
        }
        let error = match self.judge(token) {
            Ok(verified) if self.users.user_of(session) == Some(&verified.user) => {
                let connection = self.connections.find(id).expect("the caller found it");
                let (expires_at, issued) = (verified.expires_at.0, verified.issued);
                connection.stage = Stage::Live { session, expires_at, issued };
                self.schedule_sooner(id);
                return self.users.finish_refresh(session, number);
            }
            Ok(_) => TokenError::Bad,
            // The one that it has is good for a while yet.
            Err(TokenError::Unknown) => return self.users.put_off_refresh(session, number),
            Err(error) => error,
        };
        let (_, close, message) = refused(error);
        self.say_refused(id, message);
        self.end(id, close, message);
    }

    /// Keeps the sums of what is held for peers without a session and by the echo service.
    pub(super) fn recount(&mut self, id: ConnectionId) {
        self.note_handshake(id);
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        let held = connection.codec.held_bytes();
        let counted = if connection.is_stranger() { held } else { 0 };
        let echoed = match (&connection.stage, connection.held()) {
            (Stage::Echo, sent) => held + sent.map_or(0, |sent| sent.outbox.held_bytes()),
            _ => 0,
        };
        let before = connection.held().map_or((0, 0), |held| (held.counted as usize, held.echoed as usize));
        if before != (counted, echoed) {
            let held = connection.held_mut();
            (held.counted, held.echoed) = (counted as u32, echoed as u32);
        }
        connection.drop_held_if_empty();
        self.stranger_bytes = self.stranger_bytes + counted - before.0;
        self.echo_bytes = self.echo_bytes + echoed - before.1;
    }

    /// Whether a sum is too large that this connection is part of. Sessions are part of none.
    fn is_over_a_sum(&mut self, id: ConnectionId) -> bool {
        match self.connections.find(id) {
            Some(connection) if connection.is_stranger() => self.stranger_bytes > STRANGER_BYTES_MAX,
            Some(Connection { stage: Stage::Echo, .. }) => self.is_echo_full(),
            _ => false,
        }
    }

    pub(super) fn count_close(&mut self, code: CloseCode) {
        self.metrics.closes_total(code).increment();
    }
}

/// Takes the next thing from the front of `bytes` and frees it of them.
fn next_step(connection: &mut Connection, policy: &UpgradePolicy, bytes: &mut [u8]) -> (usize, Step) {
    let echo = matches!(connection.stage, Stage::Echo);
    let policy = if echo { echo::policy() } else { policy };
    match connection.codec.handle_bytes(policy, bytes) {
        Err(end) => (0, Step::Ended(end)),
        Ok(handled) => {
            let step = match handled.input {
                None => Step::Nothing,
                Some(Input::Binary(payload)) if echo => {
                    Step::Echo { opcode: protocol::ws::Opcode::Binary, payload: payload.to_vec() }
                }
                Some(Input::Text(text)) if echo => {
                    Step::Echo { opcode: protocol::ws::Opcode::Text, payload: text.as_bytes().to_vec() }
                }
                Some(input @ (Input::Binary(_) | Input::Text(_))) => {
                    Step::Request(Request::from_input(&input).expect("a message"))
                }
                Some(Input::PeerClosed { code }) => Step::PeerClosed(code),
                Some(Input::Proxied(source)) => Step::Proxied(source),
                Some(Input::Upgraded(upgrade)) => Step::Upgraded(upgrade),
                Some(Input::Ping | Input::Pong | Input::Connected) => Step::Passed,
            };
            (handled.consumed, step)
        }
    }
}

const _: () = assert!(matches!(echo::LIMITS.frames, Frames::Any));
