//! Sessions of the chat, as the other clients here: conversations in each of which some messages at a time are under way.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use gateway::auth::{Issuer, Keys};
use gateway::config::{Config, Layers};
use protocol::command::{Command, Connect, Create, HistoryPolicy, MessageKind, Request, Send, Target, Token};
use protocol::event::ServerFrame;
use protocol::ids::{DeviceId, MessageId, RequestId, UnixMillis, UserId};
use protocol::session::{Input, Session, SessionLimits};
use protocol::upgrade::{Form, UpgradePolicy};
use protocol::ws::Opcode;
use protocol::{binary, json};
use router::places::created_conversation;

use super::client::{Party, connect_from};

/// Payload of a message: as much as the bare servers are sent.
const TEXT_BYTES: usize = 64;

/// How long tokens are good: longer than anything here runs.
const TTL: Duration = Duration::from_secs(3600);

/// Who lets sessions in.
pub struct Door {
    address: SocketAddr,
    /// Where sessions come from; the system's choice unless named.
    source: Option<Ipv4Addr>,
    issuer: Issuer,
    form: Form,
}

impl Door {
    /// The door of a node that made its own key in `data`, for sessions of this form.
    ///
    /// # Errors
    /// When there is no key.
    pub fn new(address: SocketAddr, data: &Path, form: Form) -> io::Result<Self> {
        let flags = vec![("data", data.display().to_string())];
        let config = Config::load(&Layers { flags, ..Layers::default() });
        let config = config.map_err(|errors| io::Error::other(format!("{errors:?}")))?;
        let keys = Keys::load(&config).map_err(io::Error::other)?;
        let issuer = keys.issuer.ok_or_else(|| io::Error::other("the node has no key of its own"))?;
        Ok(Self { address, source: None, issuer, form })
    }

    /// The same for sessions that come from this address.
    #[must_use]
    pub fn from_source(self, source: Ipv4Addr) -> Self {
        Self { source: Some(source), ..self }
    }

    /// A session of `user`.
    ///
    /// # Errors
    /// When the node does not let it in.
    pub(super) fn enter(&self, user: &UserId) -> io::Result<Peer> {
        let socket = connect_from(self.source, self.address)?;
        socket.set_nodelay(true)?;
        let host = self.address.to_string();
        let codec = Session::client(&SessionLimits::CLIENT, self.form, &host, UpgradePolicy::PATH, None, 1);
        let mut peer = Peer { socket, codec, form: self.form, tally: Tally::default() };
        peer.write()?;
        peer.read_until(|tally| tally.is_connected)?;
        let token = Token::new(&self.issuer.issue(user, TTL, now())).expect("our own");
        let device = DeviceId::new("bench").expect("a name");
        let connect = Connect { token: Some(token), device, cursor: None, positions: None };
        peer.ask(Command::Connect(connect), 1)?;
        peer.read_until(|tally| tally.is_welcome)?;
        Ok(peer)
    }
}

/// What a peer was told since it was last asked.
#[derive(Clone, Default, Debug)]
pub(super) struct Tally {
    is_connected: bool,
    is_welcome: bool,
    answers: usize,
    messages: usize,
    pub(super) pongs: usize,
    /// The newest.
    pub(super) cursor: Option<String>,
}

/// One session.
pub(super) struct Peer {
    pub(super) socket: TcpStream,
    codec: Session,
    form: Form,
    pub(super) tally: Tally,
}

impl Peer {
    pub(super) fn ask(&mut self, command: Command, times: usize) -> io::Result<()> {
        let (mut payload, mut out) = (Vec::new(), Vec::new());
        for _ in 0..times {
            let mut command = command.clone();
            if let Command::Send(send) = &mut command {
                send.message_id = Some(message_id());
            }
            let request = Request { id: Some(RequestId(1)), command };
            payload.clear();
            let opcode = match self.form {
                Form::Json => {
                    json::encode_request(&request, &mut payload);
                    Opcode::Text
                }
                Form::Binary => {
                    binary::encode_request(&request, &mut payload);
                    Opcode::Binary
                }
            };
            self.codec.encode_message(opcode, &payload, &mut out);
        }
        self.socket.write_all(&out)
    }

    fn write(&mut self) -> io::Result<()> {
        let mut out = Vec::new();
        self.codec.poll_control(&mut out);
        self.socket.write_all(&out)
    }

    fn read_until(&mut self, is_there: impl Fn(&Tally) -> bool) -> io::Result<()> {
        while !is_there(&self.tally) {
            self.read()?;
        }
        Ok(())
    }

    /// One read of what is there. `false` when it is nothing yet.
    pub(super) fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 16 << 10];
        let count = match self.socket.read(&mut buffer) {
            Ok(0) => return Err(io::Error::other("the node ended a session")),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut rest = &mut buffer[..count];
        let mut frames = Vec::new();
        loop {
            let handled = self.codec.handle_bytes(&UpgradePolicy::ANY, rest);
            let handled = handled.map_err(|end| io::Error::other(format!("{end:?}")))?;
            match handled.input {
                None => break,
                Some(Input::Connected) => self.tally.is_connected = true,
                Some(Input::Text(text)) => {
                    frames.extend(json::decode_frame(text).map_err(|fault| io::Error::other(fault.reason))?);
                }
                Some(Input::Binary(bytes)) => {
                    binary::decode_frames(bytes, &mut frames)
                        .map_err(|fault| io::Error::other(fault.reason))?;
                }
                Some(Input::PeerClosed { code }) => {
                    return Err(io::Error::other(format!("the node said {code:?}")));
                }
                Some(_) => {}
            }
            let consumed = handled.consumed;
            rest = &mut rest[consumed..];
        }
        frames.iter().try_for_each(|frame| self.tally.note(frame))?;
        Ok(true)
    }
}

impl Tally {
    fn note(&mut self, frame: &ServerFrame) -> io::Result<()> {
        match frame {
            ServerFrame::Welcome(welcome) => {
                self.is_welcome = true;
                self.cursor.clone_from(&welcome.cursor);
            }
            ServerFrame::CaughtUp { cursor, .. } | ServerFrame::Cursor { cursor } => {
                self.cursor = Some(cursor.clone());
            }
            ServerFrame::Pong { cursor, .. } => {
                self.pongs += 1;
                self.cursor = cursor.clone().or(self.cursor.take());
            }
            ServerFrame::Ok(_) => self.answers += 1,
            ServerFrame::Message(_) => self.messages += 1,
            ServerFrame::Error(error) => return Err(io::Error::other(format!("{error:?}"))),
            _ => {}
        }
        Ok(())
    }
}

/// A conversation of which the first member sends and the others are given what it sends.
pub struct Talk {
    members: Vec<Peer>,
    send: Send,
    /// Messages under way.
    depth: usize,
    /// Members that have been told all of them.
    told: usize,
}

impl Talk {
    /// A conversation of so many members whose names begin with `name`, of which the first one sends `depth` messages at once: two
    /// talk directly, more are a group.
    ///
    /// # Errors
    /// When the node does not let them.
    ///
    /// # Panics
    /// When `name` is none that users can have.
    pub fn begin(door: &Door, name: &str, members: usize, depth: usize) -> io::Result<Self> {
        let name = |member: usize| UserId::new(&format!("{name}-{member}")).expect("a name");
        let members = (0..members).map(|member| door.enter(&name(member)));
        let mut members = members.collect::<io::Result<Vec<_>>>()?;
        let target = if members.len() == 2 { Target::User(name(1)) } else { group(&mut members, name)? };
        let text = "x".repeat(TEXT_BYTES);
        let kind = MessageKind::Text;
        let send =
            Send { target, kind, text, media: None, reply_to: None, mentions: Vec::new(), message_id: None };
        members.iter_mut().try_for_each(|peer| peer.socket.set_nonblocking(true))?;
        Ok(Self { members, send, depth, told: usize::MAX })
    }
}

/// All of them in one group.
fn group(members: &mut [Peer], name: impl Fn(usize) -> UserId) -> io::Result<Target> {
    let id = message_id();
    let conversation = created_conversation(&name(0), id);
    let others = (1..members.len()).map(name).collect();
    let history = HistoryPolicy::Joined;
    let create = Create { title: "bench".into(), members: others, history, message_id: Some(id) };
    members[0].ask(Command::Create(create), 1)?;
    members[0].read_until(|tally| tally.answers == 1)?;
    Ok(Target::Conversation(conversation))
}

impl Party for Talk {
    fn send(&mut self) -> io::Result<()> {
        self.told = 0;
        for peer in &mut self.members {
            (peer.tally.answers, peer.tally.messages) = (0, 0);
        }
        self.members[0].ask(Command::Send(self.send.clone()), self.depth)
    }

    fn is_waiting(&self) -> bool {
        self.told < self.members.len()
    }

    fn read(&mut self) -> io::Result<bool> {
        while let Some(peer) = self.members.get_mut(self.told) {
            let told = if self.told == 0 { peer.tally.answers } else { peer.tally.messages };
            if told == self.depth {
                self.told += 1;
            } else if !peer.read()? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A UUIDv7 (RFC 9562, section 5.7) that this process makes once.
fn message_id() -> MessageId {
    static MADE: AtomicU64 = AtomicU64::new(0);
    // Scattered as random ones are (Steele, Lea and Flood, SplitMix): neighbours would be looked up too cheaply.
    let made = MADE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    let mixed = (made ^ (made >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mut random = [0; 10];
    random[..8].copy_from_slice(&(mixed ^ (mixed >> 27)).to_be_bytes());
    MessageId::v7(now(), random)
}

fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixMillis(since.as_millis() as u64)
}
