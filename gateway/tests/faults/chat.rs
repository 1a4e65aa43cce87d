//! A client that keeps to the protocol, with tungstenite's codec and ours for nothing.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use protocol::ids::{MessageId, UnixMillis};
use serde_json::{Value, json};
use tungstenite::{Error, Message, WebSocket, client::IntoClientRequest, protocol::WebSocketConfig};

use crate::node::{Node, PATIENCE};

/// How long a client waits at most where it is told when to come again: several letters may be told so, one after the other. Who came again at once, some ten
/// thousand times a second, had the cores that what it waits for is made with.
const AGAIN_MILLIS: u64 = 5;

/// What came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Received {
    /// A close frame, and its code.
    Closed(u16),
    /// A JSON frame.
    Frame(Value),
    /// The end of the connection.
    Gone,
}

/// A stream that goes on where it was interrupted. A process that was stopped and continued hears of it in whatever call it waits in,
/// if the socket has a timeout: signal(7), "Interruption of system calls by stop signals".
struct Undisturbed(TcpStream);

impl Undisturbed {
    fn again<T>(&mut self, mut call: impl FnMut(&mut TcpStream) -> io::Result<T>) -> io::Result<T> {
        loop {
            match call(&mut self.0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}

impl Read for Undisturbed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.again(|stream| stream.read(into))
    }
}

impl Write for Undisturbed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.again(|stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.again(TcpStream::flush)
    }
}

/// A session.
pub(crate) struct Chat {
    socket: WebSocket<Undisturbed>,
    next_id: u64,
    /// Frames that came while another was waited for.
    unread: VecDeque<Value>,
    /// The answer to `connect`.
    pub(crate) welcome: Value,
}

impl Chat {
    /// A session of `user` on the device `device`, at the head.
    #[track_caller]
    pub(crate) fn connect(node: &Node, user: &str, device: &str) -> Self {
        Self::connect_with(node, &node.token(user), json!({ "device": device }))
    }

    /// A session with more fields in its `connect`.
    #[track_caller]
    pub(crate) fn connect_with(node: &Node, token: &str, mut fields: Value) -> Self {
        fields["token"] = token.into();
        let mut chat = Self::open(node);
        let mut welcome = chat.ask("connect", fields);
        assert_eq!(welcome["op"], "welcome", "{welcome}");
        chat.welcome = welcome.take();
        chat
    }

    /// A WebSocket on which nothing was said yet.
    #[track_caller]
    pub(crate) fn open(node: &Node) -> Self {
        let stream = TcpStream::connect(node.listen).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket of ours");
        stream.set_nodelay(true).expect("a socket of ours");
        let request = format!("ws://{}/v1/connect", node.listen).into_client_request().expect("a URL");
        let config = WebSocketConfig::default().read_buffer_size(16 << 10).write_buffer_size(0);
        let (socket, _) = tungstenite::client::client_with_config(request, Undisturbed(stream), Some(config))
            .expect("it takes the upgrade");
        Self { socket, next_id: 1, unread: VecDeque::new(), welcome: Value::Null }
    }

    /// Sends a command and says under which id.
    #[track_caller]
    pub(crate) fn send(&mut self, op: &str, fields: Value) -> u64 {
        self.try_send(op, fields).expect("it reads")
    }

    /// The same to a peer that may be gone.
    pub(crate) fn try_send(&mut self, op: &str, mut fields: Value) -> Result<u64, Error> {
        let id = self.next_id;
        self.next_id += 1;
        fields["op"] = op.into();
        fields["id"] = id.into();
        self.socket.send(Message::text(fields.to_string()))?;
        Ok(id)
    }

    /// Sends any text.
    #[track_caller]
    pub(crate) fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).expect("it reads");
    }

    /// Sends a command and waits for its reply.
    #[track_caller]
    pub(crate) fn ask(&mut self, op: &str, fields: Value) -> Value {
        let id = self.send(op, fields);
        self.reply(id)
    }

    /// Sends a letter, and again as long as the answer is `busy`: a segment takes a moment to be made.
    #[track_caller]
    pub(crate) fn ask_to_store(&mut self, letter: &Value) -> Value {
        let reply = self.ask("send", letter.clone());
        self.ask_again(reply, letter)
    }

    /// The same of a letter that was sent before, and had this answer.
    #[track_caller]
    pub(crate) fn ask_again(&mut self, mut reply: Value, letter: &Value) -> Value {
        while verdict(&reply) == "3002 busy" {
            wait_as_told(&reply);
            reply = self.ask("send", letter.clone());
        }
        reply
    }

    /// The reply to the command `id`.
    #[track_caller]
    pub(crate) fn reply(&mut self, id: u64) -> Value {
        self.wait_for(|frame| frame["id"] == id)
    }

    /// The reply to the command `id`, which waits for a disk: as often as nothing comes for as long as a client may be silent it says its
    /// heartbeat, that is answered, and `goes_on` is asked whether the wait does.
    #[track_caller]
    pub(crate) fn reply_from_disk(&mut self, id: u64, mut goes_on: impl FnMut()) -> Value {
        loop {
            if let Some(place) = self.unread.iter().position(|frame| frame["id"] == id) {
                return self.unread.remove(place).expect("it stands there");
            }
            match self.receive_in_time() {
                Some(Received::Frame(frame)) => self.unread.push_back(frame),
                Some(ended) => panic!("{ended:?} instead of a frame; before it: {:?}", self.unread),
                None => {
                    self.is_fine();
                    goes_on();
                }
            }
        }
    }

    /// The next event of this operation.
    #[track_caller]
    pub(crate) fn event(&mut self, op: &str) -> Value {
        self.wait_for(|frame| frame["op"] == op && frame["id"].is_null())
    }

    /// The frames that came while others were waited for.
    pub(crate) fn take_events(&mut self) -> Vec<Value> {
        self.unread.drain(..).collect()
    }

    #[track_caller]
    fn wait_for(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(place) = self.unread.iter().position(&wanted) {
            return self.unread.remove(place).expect("it stands there");
        }
        loop {
            match self.receive() {
                Received::Frame(frame) if wanted(&frame) => return frame,
                Received::Frame(frame) => self.unread.push_back(frame),
                ended => panic!("{ended:?} instead of a frame; before it: {:?}", self.unread),
            }
        }
    }

    /// What comes next, of what has not been asked for yet.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Received {
        if let Some(frame) = self.unread.pop_front() {
            return Received::Frame(frame);
        }
        self.receive()
    }

    #[track_caller]
    fn receive(&mut self) -> Received {
        self.receive_in_time().expect("nothing comes any more")
    }

    /// `None` when nothing has come for as long as anything may take, the disk aside.
    fn receive_in_time(&mut self) -> Option<Received> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    return Some(Received::Frame(serde_json::from_str(&text).expect("it sends JSON")));
                }
                Ok(Message::Close(frame)) => {
                    return Some(Received::Closed(frame.map_or(1005, |frame| frame.code.into())));
                }
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => {
                    // Shown when the test fails.
                    eprintln!("a connection ended without a close frame: {error}");
                    return Some(Received::Gone);
                }
            }
        }
    }

    /// Everything that comes until the close frame or the end, each shown to `react` first, and how it ended.
    #[track_caller]
    pub(crate) fn until_closed(
        &mut self,
        mut react: impl FnMut(&mut Self, &Value),
    ) -> (Vec<Value>, Received) {
        let mut frames = Vec::new();
        loop {
            match self.next() {
                Received::Frame(frame) => {
                    react(self, &frame);
                    frames.push(frame);
                }
                ended => return (frames, ended),
            }
        }
    }

    /// A text to a user, with an id; the `ok`.
    #[track_caller]
    pub(crate) fn tell(&mut self, user: &str, text: &str) -> Value {
        let ok = self.ask("send", json!({ "to": user, "kind": "text", "text": text }));
        assert_eq!(ok["op"], "ok", "{ok}");
        ok
    }

    /// All items of a conversation, oldest first, page by page.
    #[track_caller]
    pub(crate) fn history(&mut self, conversation: &Value) -> Vec<Value> {
        let mut items: Vec<Value> = Vec::new();
        loop {
            // An item is a message, or a gap.
            let seq = |item: &Value| item["seq"].as_u64().or(item["to"].as_u64()).expect("a sequence");
            let after = items.last().map_or(0, seq);
            let fields = json!({ "conversation": conversation, "after": after, "limit": 200 });
            let mut page = self.ask("history", fields);
            assert_eq!(page["op"], "page", "{page}");
            items.append(page["messages"].as_array_mut().expect("a list"));
            if page["more"] == false {
                return items;
            }
        }
    }

    /// That nothing bad happened to this session: it is asked and answers.
    #[track_caller]
    pub(crate) fn is_fine(&mut self) {
        let pong = self.ask("ping", json!({}));
        assert_eq!(pong["op"], "pong", "{pong}");
    }
}

/// What may be left over of what was done to a node, in bytes: what an allocator keeps for the next, and first uses of this and that.
pub(crate) const LEFT_BYTES_MAX: u64 = 32 << 20;

/// Does something to a node that nobody else is connected to, beside a witness who did nothing wrong: that one is answered all
/// the same, and when all that was opened is closed, the node holds what it held before, by its own gauges and by its memory.
#[track_caller]
pub(crate) fn undisturbed(node: &Node, work: impl FnOnce()) {
    let mut witness = Chat::connect(node, "bystander", "b");
    let before = node.resident_bytes();
    work();
    witness.is_fine();
    for (gauge, level) in [("connections", 1), ("sessions", 1), ("mail_requests", 0), ("mail_replies", 0)] {
        node.wait_for_metric(gauge, level);
    }
    let after = node.resident_bytes();
    assert!(after < before + LEFT_BYTES_MAX, "{before} bytes have become {after}");
    witness.is_fine();
}

/// An id for a command, by a server's clock.
pub(crate) fn message_id(now: &Value) -> String {
    let mut random = [0; 10];
    getrandom::fill(&mut random).expect("randomness");
    MessageId::v7(UnixMillis(now.as_u64().expect("a time")), random).to_string()
}

/// Waits before what was refused is asked for again.
#[track_caller]
pub(crate) fn wait_as_told(refusal: &Value) {
    let millis = refusal["retry_after_ms"].as_u64().expect("when to come again");
    thread::sleep(Duration::from_millis(millis.min(AGAIN_MILLIS)));
}

/// `code name` of an error reply; the operation of any other frame.
pub(crate) fn verdict(frame: &Value) -> String {
    match frame["op"].as_str() {
        Some("error") => format!("{} {}", frame["code"], frame["name"].as_str().expect("a name")),
        other => other.expect("an operation").to_owned(),
    }
}
