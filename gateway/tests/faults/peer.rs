//! A client of either form, as values: frames come out as lines, and as the bytes that they came in.
//!
//! A peer writes down the payload of every frame that it gets, so that what must not be told is looked for in all that was told.

use std::collections::VecDeque;

use protocol::{
    command::{Command, Connect, HistoryRange, Request, Token},
    event::{AmendedForm, ErrorCode, PageItem, Reaction, ServerFrame},
    ids::{ConversationId, DeviceId, RequestId, UserId},
    session::Input,
    upgrade::Form,
};

use crate::{
    node::Node,
    raw::{REQUEST, Raw, head},
    wire::masked,
};

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;

/// A session that speaks one form and remembers every byte that it was told.
pub(crate) struct Peer {
    raw: Raw,
    form: Form,
    next_request: u32,
    /// The payloads of all frames since this was last emptied.
    pub(crate) heard: Vec<Vec<u8>>,
    /// Frames that came while another was waited for.
    pub(crate) unread: VecDeque<ServerFrame>,
    /// As `welcome` gave it.
    pub(crate) cursor: Option<String>,
}

impl Peer {
    /// A session of `user`, whose device is named after the form; at the head without a cursor.
    pub(crate) fn connect(node: &Node, user: &str, form: Form, cursor: Option<String>) -> Self {
        let mut raw = Raw::connect(node.listen);
        let subprotocol = format!("Sec-WebSocket-Protocol: {}", form.subprotocol());
        raw.write(&head(&[REQUEST.as_slice(), &[&subprotocol]].concat()));
        assert!(raw.head().starts_with("HTTP/1.1 101 "));
        let (heard, unread) = (Vec::new(), VecDeque::new());
        let mut peer = Self { raw, form, next_request: 1, heard, unread, cursor: None };
        let connect = Connect {
            token: Token::new(&node.token(user)),
            device: DeviceId::new(form.subprotocol()).expect("a name"),
            cursor,
            positions: None,
        };
        let ServerFrame::Welcome(welcome) = peer.ask(Command::Connect(connect)) else {
            panic!("it is not let in");
        };
        assert!(!welcome.reset && welcome.features.iter().any(|feature| feature == "amend"));
        peer.cursor = welcome.cursor;
        peer
    }

    /// Sends a command and waits for its reply.
    pub(crate) fn ask(&mut self, command: Command) -> ServerFrame {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        let mut payload = Vec::new();
        Request { id: Some(id), command }.encode(self.form, &mut payload);
        self.raw.write(&masked(if self.form == Form::Json { TEXT } else { BINARY }, &payload));
        loop {
            let frame = self.receive();
            if replies_to(&frame) == Some(id) {
                return frame;
            }
            self.unread.push_back(frame);
        }
    }

    /// The reply to a storing command: its sequence, or why not.
    pub(crate) fn store(&mut self, command: Command) -> Result<u64, ErrorCode> {
        match self.ask(command) {
            ServerFrame::Ok(ok) => Ok(ok.seq.expect("a place").0),
            ServerFrame::Error(error) => Err(error.code),
            other => panic!("{other:?} is no answer"),
        }
    }

    fn receive(&mut self) -> ServerFrame {
        let mut frames = Vec::new();
        while frames.is_empty() {
            let (first, payload) = self.raw.frame();
            let input = match first {
                TEXT => Input::Text(str::from_utf8(&payload).expect("text")),
                BINARY => Input::Binary(&payload),
                other => panic!("a frame that begins with {other:#x}"),
            };
            ServerFrame::from_input(&input, &mut frames).expect("it reads");
            self.heard.push(payload);
        }
        let mut frames = VecDeque::from(frames);
        let first = frames.pop_front().expect("there is one");
        // Several records may stand in one binary frame.
        frames.into_iter().rev().for_each(|frame| self.unread.push_front(frame));
        first
    }

    /// The next `count` items that are pushed, a line each.
    pub(crate) fn told(&mut self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        while lines.len() < count {
            let frame = self.unread.pop_front().unwrap_or_else(|| self.receive());
            lines.extend(pushed(frame));
        }
        lines
    }

    /// Everything that is pushed up to `caught_up`.
    pub(crate) fn caught_up(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.unread.pop_front().unwrap_or_else(|| self.receive()) {
                ServerFrame::CaughtUp { partial, .. } => {
                    assert!(!partial);
                    return lines;
                }
                frame => lines.extend(pushed(frame)),
            }
        }
    }

    /// A page, a line each, and whether there is more.
    pub(crate) fn page(&mut self, conversation: ConversationId, range: HistoryRange) -> (Vec<String>, bool) {
        match self.ask(Command::History { conversation, range, limit: 200 }) {
            ServerFrame::Page { messages, more, .. } => (messages.iter().map(line).collect(), more),
            other => panic!("{other:?} is no page"),
        }
    }

    pub(crate) fn history(&mut self, conversation: ConversationId) -> Vec<String> {
        self.page(conversation, HistoryRange::Latest).0
    }

    /// That these words were in no frame since `heard` was emptied.
    #[track_caller]
    pub(crate) fn never_heard(&self, words: &str) {
        let holds = |payload: &Vec<u8>| payload.windows(words.len()).any(|part| part == words.as_bytes());
        assert!(!self.heard.is_empty() && !self.heard.iter().any(holds), "{words}");
    }
}

fn replies_to(frame: &ServerFrame) -> Option<RequestId> {
    match frame {
        ServerFrame::Error(error) => error.id,
        ServerFrame::Ok(ok) => Some(ok.id),
        ServerFrame::Page { id, .. } => Some(*id),
        ServerFrame::Welcome(welcome) => Some(welcome.id),
        _ => None,
    }
}

fn pushed(frame: ServerFrame) -> Option<String> {
    let item = match frame {
        ServerFrame::Amended(event) => PageItem::Amended(event),
        ServerFrame::Gap(gap) => PageItem::Gap(gap),
        ServerFrame::Member(event) => PageItem::Member(event),
        ServerFrame::Message(event) => PageItem::Message(event),
        _ => return None,
    };
    Some(line(&item))
}

/// `1 alice: text (edited) [+ bob]`, `2 alice amended 1: deleted`.
fn line(item: &PageItem) -> String {
    let shown = |text: &str, is_edited: bool, reactions: &[Reaction]| {
        let all = reactions.iter().map(|reaction| {
            let users: Vec<_> = reaction.users.iter().map(UserId::as_str).collect();
            format!(" [{} {}]", reaction.emoji, users.join(" "))
        });
        format!("{text}{}{}", if is_edited { " (edited)" } else { "" }, all.collect::<String>())
    };
    match item {
        PageItem::Amended(event) => {
            let form = match &event.form {
                AmendedForm::Deleted => "deleted".to_owned(),
                AmendedForm::Hidden => "hidden".to_owned(),
                AmendedForm::Shown { text, edited_at, reactions } => {
                    shown(text, edited_at.is_some(), reactions)
                }
            };
            format!("{} {} amended {}: {form}", event.seq, event.by, event.target)
        }
        PageItem::Gap(gap) => format!("gap {}..={}: {}", gap.from, gap.to, gap.reason),
        PageItem::Member(event) => format!("{} {} changed members", event.seq, event.by),
        PageItem::Message(event) if event.deleted => {
            assert_eq!(
                (event.text.as_str(), event.edited_at, event.reactions.as_slice()),
                ("", None, [].as_slice())
            );
            format!("{} {}: deleted", event.seq, event.sender)
        }
        PageItem::Message(event) => {
            let form = shown(&event.text, event.edited_at.is_some(), &event.reactions);
            format!("{} {}: {form}", event.seq, event.sender)
        }
    }
}
