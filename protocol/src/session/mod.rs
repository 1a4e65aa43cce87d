//! One connection, from its first byte to its last, for both sides and without I/O.
//!
//! ```text
//!  Proxied --PROXY header--> Upgrading --101--> Open --close()--> Closing --peer's close--> Closed
//!     |                          |                |----peer's close, answered------------------^
//!     |--refused-----------------|--refused-------|----violation, told to the peer-------------^
//! ```
//!
//! Bytes go in by [`Session::handle_bytes`]; what has to go out ahead of any data comes from
//! [`Session::poll_control`]. Time is the caller's: a deadline for the upgrade, for a message that does
//! not end ([`Session::is_mid_message`]) and for the peer's close.
//!
//! Invariant: one close frame at most is sent, and nothing after it; between calls an open, quiet
//! session holds no heap memory.
//!
//! What goes in and comes out is in `input`, all before the first frame in `upgrading`; frames, control frames and the close are here.

mod input;
mod upgrading;

use std::fmt;

use crate::{
    command::Token,
    event::CloseCode,
    limits,
    upgrade::{ClientRequest, Form, HttpRefusal, UpgradePolicy},
    ws::{self, Decoder, Message, Opcode, Role, Violation, encode_close, encode_frame},
};
use upgrading::Upgrading;

pub use input::{End, Frames, Handled, Input, SessionLimits};

/// One side of one connection. At most 64 bytes.
pub struct Session {
    decoder: Decoder,
    upgrading: Option<Box<Upgrading>>,
    pending: Option<Box<Pending>>,
    /// State of the mask generator, clients only.
    mask_state: u64,
    role: Role,
    form: Form,
    frames: Frames,
    phase: Phase,
}

const _: () = assert!(size_of::<Session>() <= 64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A PROXY header has to come first.
    Proxied,
    Upgrading,
    Open,
    /// Our close frame is out or waits; the peer's is awaited.
    Closing,
    /// Nothing more is read.
    Closed,
}

/// What has to go out ahead of data.
#[derive(Default)]
struct Pending {
    /// A request, a response or a refusal.
    http: Vec<u8>,
    /// The payload of the newest ping.
    pong: Option<Vec<u8>>,
    /// The payload of our close frame.
    close: Option<Vec<u8>>,
}

impl Session {
    /// A server's side, waiting for the request.
    pub const fn server(limits: &SessionLimits) -> Self {
        Self::new(Role::Server, Form::Json, limits, 0)
    }

    /// A server's side whose peer is a proxy, which says first whose connection it is.
    pub const fn proxied(limits: &SessionLimits) -> Self {
        let mut session = Self::server(limits);
        session.phase = Phase::Proxied;
        session
    }

    /// A client's side. Its request waits in [`Session::poll_control`].
    ///
    /// `seed` makes masks and nonce. Masks guard proxies against scripts (RFC 6455, section 10.3), so a
    /// client that runs scripts of others seeds it from the system's random source.
    pub fn client(
        limits: &SessionLimits,
        form: Form,
        host: &str,
        path: &str,
        bearer: Option<&Token>,
        seed: u64,
    ) -> Self {
        let mut session = Self::new(Role::Client, form, limits, seed);
        let mut nonce = [0; 16];
        for chunk in nonce.as_chunks_mut::<4>().0 {
            *chunk = session.next_mask();
        }
        let request = ClientRequest { host, path, form, bearer, nonce };
        session.upgrading = Some(Box::new(Upgrading { key: request.key(), ..Upgrading::default() }));
        session.pending().http = request.request();
        session
    }

    const fn new(role: Role, form: Form, limits: &SessionLimits, mask_state: u64) -> Self {
        let decoder = Decoder::new(role, limits.decoder());
        let (frames, phase) = (limits.frames, Phase::Upgrading);
        Self { decoder, upgrading: None, pending: None, mask_state, role, form, frames, phase }
    }

    /// Takes bytes from the front of `input` up to the first thing to report. Called again with the rest
    /// until it reports nothing. Payloads are unmasked in `input` itself.
    ///
    /// After an `Err`, and after [`Input::PeerClosed`], what [`Session::poll_control`] gives is sent and
    /// the connection shut down; further input is taken and ignored. `policy` is a server's.
    pub fn handle_bytes<'a>(
        &'a mut self,
        policy: &UpgradePolicy,
        input: &'a mut [u8],
    ) -> Result<Handled<'a>, End> {
        match self.phase {
            Phase::Proxied => self.handle_proxy(input),
            Phase::Upgrading => self.handle_head(policy, input),
            Phase::Open => self.handle_frames(input),
            Phase::Closing => self.handle_closing(input),
            Phase::Closed => {
                self.decoder.release();
                Ok(Handled { consumed: input.len(), input: None })
            }
        }
    }

    /// Appends what has to be sent before any data: request or response, refusal, pong, close.
    /// Idempotent until there is something new.
    pub fn poll_control(&mut self, out: &mut Vec<u8>) {
        let Some(pending) = self.pending.take() else { return };
        out.extend_from_slice(&pending.http);
        if let Some(pong) = pending.pong {
            self.write_frame(Opcode::Pong, &pong, out);
        }
        if let Some(close) = pending.close {
            self.write_frame(Opcode::Close, &close, out);
        }
    }

    /// Whether [`Session::poll_control`] has something.
    pub const fn has_control(&self) -> bool {
        self.pending.is_some()
    }

    /// Queues a close frame, once; data is ignored from here on, in both directions. Before the upgrade
    /// there is nobody to tell, and the session is over: see [`Session::refuse`].
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        match self.phase {
            Phase::Proxied | Phase::Upgrading => self.enter_closed(),
            Phase::Open => {
                self.phase = Phase::Closing;
                self.pending().close = Some(encode_close(code, reason));
            }
            Phase::Closing | Phase::Closed => {}
        }
    }

    /// Queues an HTTP refusal, if the upgrade is not over; then the session is.
    pub fn refuse(&mut self, refusal: HttpRefusal) {
        if self.is_upgrading() {
            self.enter_closed();
            if self.role == Role::Server {
                self.pending().http = refusal.response();
            }
        }
    }

    /// Appends one whole data message as this side sends it. The caller sends data only while
    /// [`Session::is_open`].
    pub fn encode_message(&mut self, opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
        debug_assert!(!opcode.is_control() && self.phase == Phase::Open);
        self.write_frame(opcode, payload, out);
    }

    /// Appends a ping of at most 125 bytes.
    pub fn encode_ping(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        debug_assert!(payload.len() <= limits::CONTROL_BYTES_MAX && self.phase == Phase::Open);
        self.write_frame(Opcode::Ping, payload, out);
    }

    /// New limits, from the next frame on: a session that has shown its token may send more.
    pub const fn admit(&mut self, limits: &SessionLimits) {
        self.decoder.limit(limits.decoder());
        self.frames = limits.frames;
    }

    /// A server's side whose upgrade is done, as [`Session::replay`] of another goes on.
    pub const fn resumed(form: Form, limits: &SessionLimits) -> Self {
        let mut session = Self::new(Role::Server, form, limits, 0);
        session.phase = Phase::Open;
        session
    }

    /// Bytes that bring a new session to where this one is: what it holds of a head, a frame or a message that has not ended. A server's
    /// side goes on in [`Session::proxied`] while it [`Session::is_proxied`], else in [`Session::server`] while it [`Session::is_upgrading`], and
    /// in [`Session::resumed`] while it [`Session::is_open`].
    pub fn replay(&self) -> Vec<u8> {
        match &self.upgrading {
            Some(upgrading) => upgrading.head.clone(),
            None => self.decoder.replay(),
        }
    }

    /// The form agreed on; JSON while the upgrade is under way at a server.
    pub const fn form(&self) -> Form {
        self.form
    }

    /// Data may be sent.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// The request has not been answered yet.
    pub fn is_upgrading(&self) -> bool {
        matches!(self.phase, Phase::Proxied | Phase::Upgrading)
    }

    /// A PROXY header is waited for.
    pub fn is_proxied(&self) -> bool {
        self.phase == Phase::Proxied
    }

    /// Both close frames, or a refusal, or a violation: nothing more is read.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Nothing is left to send or to read: the socket can be shut down once what was polled is out.
    pub fn wants_shutdown(&self) -> bool {
        self.is_closed() && !self.has_control()
    }

    /// A head or a message has begun and not ended: its deadline runs.
    pub fn is_mid_message(&self) -> bool {
        match &self.upgrading {
            Some(upgrading) => !upgrading.head.is_empty(),
            None => !self.decoder.is_idle(),
        }
    }

    /// Heap memory held for this peer, in bytes.
    pub fn held_bytes(&self) -> usize {
        let upgrading = self.upgrading.as_deref().map_or(0, |upgrading| {
            size_of::<Upgrading>() + upgrading.head.capacity() + upgrading.key.capacity()
        });
        let pending = self.pending.as_deref().map_or(0, |pending| {
            let payload = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::capacity);
            size_of::<Pending>() + pending.http.capacity() + payload(&pending.pong) + payload(&pending.close)
        });
        self.decoder.held_bytes() + upgrading + pending
    }

    fn handle_frames<'a>(&'a mut self, input: &'a mut [u8]) -> Result<Handled<'a>, End> {
        let Self { decoder, pending, phase, form, frames, .. } = self;
        let decoded = match decoder.decode(input) {
            Ok(decoded) => decoded,
            Err(violation) => return Err(violated(phase, pending, violation)),
        };
        let input = match decoded.message {
            None => None,
            Some(Message::Binary(_)) if *frames == Frames::OfForm && *form == Form::Json => {
                return Err(violated(phase, pending, Violation::Unsupported));
            }
            Some(Message::Text(_)) if *frames == Frames::OfForm && *form == Form::Binary => {
                return Err(violated(phase, pending, Violation::Unsupported));
            }
            Some(Message::Binary(payload)) => Some(Input::Binary(payload)),
            Some(Message::Text(text)) => Some(Input::Text(text)),
            Some(Message::Pong(_)) => Some(Input::Pong),
            Some(Message::Ping(payload)) => {
                pending.get_or_insert_default().pong = Some(payload.to_vec());
                Some(Input::Ping)
            }
            Some(Message::Close { code, .. }) => {
                let code = code.unwrap_or(CloseCode::NO_STATUS);
                *phase = Phase::Closed;
                pending.get_or_insert_default().close = Some(encode_close(code, ""));
                Some(Input::PeerClosed { code })
            }
        };
        Ok(Handled { consumed: decoded.consumed, input })
    }

    /// Only the peer's close frame is looked for. A violation now ends the wait: the peer was told
    /// a code already.
    fn handle_closing<'a>(&'a mut self, input: &'a mut [u8]) -> Result<Handled<'a>, End> {
        let mut consumed = 0;
        while consumed < input.len() {
            match self.decoder.decode(&mut input[consumed..]) {
                Ok(ws::Decoded { message: Some(Message::Close { code, .. }), consumed: last }) => {
                    self.phase = Phase::Closed;
                    let code = code.unwrap_or(CloseCode::NO_STATUS);
                    return Ok(Handled {
                        consumed: consumed + last,
                        input: Some(Input::PeerClosed { code }),
                    });
                }
                Ok(decoded) => consumed += decoded.consumed,
                Err(_) => {
                    self.phase = Phase::Closed;
                    break;
                }
            }
        }
        Ok(Handled { consumed: input.len(), input: None })
    }

    fn enter_closed(&mut self) {
        self.phase = Phase::Closed;
        self.upgrading = None;
        self.pending = None;
    }

    fn pending(&mut self) -> &mut Pending {
        self.pending.get_or_insert_default()
    }

    fn write_frame(&mut self, opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
        let mask = match self.role {
            Role::Client => Some(self.next_mask()),
            Role::Server => None,
        };
        encode_frame(opcode, payload, mask, out);
    }

    /// The next four bytes of splitmix64.
    fn next_mask(&mut self) -> [u8; 4] {
        self.mask_state = self.mask_state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.mask_state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) as u32).to_le_bytes()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, form, phase, .. } = self;
        write!(f, "Session({role:?}, {form:?}, {phase:?}, holds {} bytes)", self.held_bytes())
    }
}

/// Ends a session whose peer broke the protocol: it is told why, and nothing more is read.
fn violated(phase: &mut Phase, pending: &mut Option<Box<Pending>>, violation: Violation) -> End {
    *phase = Phase::Closed;
    let close = encode_close(violation.close_code(), violation.reason());
    pending.get_or_insert_default().close = Some(close);
    End::Violation(violation)
}
