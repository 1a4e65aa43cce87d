//! Commands in the binary form, both ways.

use super::{
    HeaderError, op,
    payload::{
        BlockV1, ConnectV1, CreateV1, CursorV1, DeleteV1, EditV1, HistoryV1, InvisibleV1, LeaveV1,
        ListMembersV1, ListV1, MembersV1, MuteV1, PositionV1, PushTokenV1, ReactV1, ReadV1, RefreshV1,
        RetentionV1, RoleV1, SearchV1, SendV1, SetRetentionV1, TitleV1, TypingV1, ViewV1,
    },
    read, read_header, write,
};
use crate::{
    check::{self, Fault},
    command::{
        Command, Connect, Create, Edit, HistoryPolicy, HistoryRange, Members, MessageKind, PushToken, React,
        Request, Role, Search, Send, Target, Token,
    },
    event::Refusal,
    ids::{ConversationId, DeviceId, MessageId, RequestId, Seq, UnixMillis, UserId},
    limits,
    record::NameV1,
};

/// Reads one command: `bytes` is the payload of a binary WebSocket message, at most 64 KiB.
pub fn decode_request(bytes: &[u8]) -> Result<Request, Refusal> {
    if bytes.len() > limits::FRAME_BYTES_MAX {
        return Err(Fault::frame_too_large().into_refusal(None));
    }
    let header = read_header(bytes).map_err(|error| match error {
        HeaderError::Foreign => Fault::frame("the header is not one of this version").into_refusal(None),
        HeaderError::Malformed { id } => {
            Fault::frame("the header does not fit the frame").into_refusal(RequestId::new(u64::from(id)))
        }
    })?;
    let id = RequestId::new(u64::from(header.id));
    let decoded = match (header.id, id) {
        (0, _) | (_, Some(_)) => decode_command(header.op, header.payload),
        (_, None) => Err(Fault::field("id", "is out of range")),
    };
    let request = decoded.map(|command| Request { id, command });
    request
        .and_then(|request| check::request(&request).map(|()| request))
        .map_err(|fault| fault.into_refusal(id))
}

fn decode_command(op: u8, payload: &[u8]) -> Result<Command, Fault> {
    match op {
        op::ACK => {
            let CursorV1 { cursor } = shape(read(payload))?;
            Ok(Command::Ack { cursor: text("cursor", cursor)? })
        }
        op::BLOCK => read_block(&shape(read(payload))?),
        op::CONNECT => read_connect(shape(read(payload))?),
        op::CONVERSATIONS => {
            let ListV1 { after, limit } = shape(read(payload))?;
            Ok(Command::Conversations { after: text_if("after", after)?, limit })
        }
        op::CREATE => read_create(shape(read(payload))?),
        op::DELETE => {
            let DeleteV1 { conversation, seq, message_id } = shape(read(payload))?;
            let conversation = self::conversation(conversation)?;
            Ok(Command::Delete { conversation, seq: Seq(seq), message_id: self::message_id(message_id) })
        }
        op::EDIT => read_edit(shape(read(payload))?),
        op::HISTORY => read_history(&shape::<HistoryV1>(read(payload))?),
        op::INVISIBLE => read_invisible(&shape(read(payload))?),
        op::LEAVE => {
            let LeaveV1 { conversation, message_id } = shape(read(payload))?;
            let conversation = self::conversation(conversation)?;
            Ok(Command::Leave { conversation, message_id: self::message_id(message_id) })
        }
        op::LIST_MEMBERS => {
            let ListMembersV1 { conversation } = shape(read(payload))?;
            Ok(Command::ListMembers { conversation: self::conversation(conversation)? })
        }
        op::MEMBERS => read_members(shape(read(payload))?),
        op::MUTE => read_mute(&shape(read(payload))?),
        op::PING => {
            let CursorV1 { cursor } = shape(read(payload))?;
            Ok(Command::Ping { cursor: text_if("cursor", cursor)? })
        }
        op::PUSH_TOKEN => {
            let PushTokenV1 { token } = shape(read(payload))?;
            Ok(Command::PushToken { token: text_if("token", token)?.map(PushToken::new) })
        }
        op::REACT => read_react(shape(read(payload))?),
        op::READ => {
            let ReadV1 { conversation, seq } = shape(read(payload))?;
            Ok(Command::Read { conversation: self::conversation(conversation)?, seq: Seq(seq) })
        }
        op::REFRESH => {
            let RefreshV1 { token } = shape(read(payload))?;
            Ok(Command::Refresh { token: self::token(token)? })
        }
        op::RETENTION => read_retention(&shape(read(payload))?),
        op::SEARCH => read_search(shape(read(payload))?),
        op::SEND => read_send(shape(read(payload))?),
        op::TITLE => read_title(shape(read(payload))?),
        op::TYPING => {
            let TypingV1 { conversation, on } = shape(read(payload))?;
            Ok(Command::Typing { conversation: self::conversation(conversation)?, on: flag("on", on)? })
        }
        op::UNVIEW => Ok(Command::Unview { conversation: viewed(payload)? }),
        op::VIEW => Ok(Command::View { conversation: viewed(payload)? }),
        _ => Err(Fault::unknown_op()),
    }
}

fn viewed(payload: &[u8]) -> Result<ConversationId, Fault> {
    let ViewV1 { conversation } = shape(read(payload))?;
    self::conversation(conversation)
}

fn read_invisible(raw: &InvisibleV1) -> Result<Command, Fault> {
    Ok(Command::Invisible { on: flag("on", raw.on)? })
}

fn read_block(raw: &BlockV1) -> Result<Command, Fault> {
    let (user, on) = (user("user", &raw.user)?, flag("on", raw.on)?);
    Ok(Command::Block { user, on, message_id: message_id(raw.message_id) })
}

fn read_connect(raw: ConnectV1) -> Result<Command, Fault> {
    if raw.positions_given > 1 || (raw.positions_given == 0 && !raw.positions.is_empty()) {
        return Err(Fault::field("positions", "has the wrong type or form"));
    }
    let positions = raw.positions.iter().map(|at| (ConversationId(at.conversation), Seq(at.seq))).collect();
    Ok(Command::Connect(Connect {
        token: if raw.token.is_empty() { None } else { Some(token(raw.token)?) },
        device: DeviceId::new(&text("device", raw.device)?).map_err(|_| Fault::name("device"))?,
        cursor: text_if("cursor", raw.cursor)?,
        positions: (raw.positions_given == 1).then_some(positions),
    }))
}

fn read_create(raw: CreateV1) -> Result<Command, Fault> {
    Ok(Command::Create(Create {
        title: text("title", raw.title)?,
        members: users("members", &raw.members)?,
        history: HistoryPolicy::from_number(raw.history)
            .ok_or(Fault::field("history", "is not a known policy"))?,
        message_id: message_id(raw.message_id),
    }))
}

fn read_edit(raw: EditV1) -> Result<Command, Fault> {
    Ok(Command::Edit(Edit {
        conversation: conversation(raw.conversation)?,
        seq: Seq(raw.seq),
        text: text("text", raw.text)?,
        message_id: message_id(raw.message_id),
    }))
}

fn read_react(raw: ReactV1) -> Result<Command, Fault> {
    Ok(Command::React(React {
        conversation: conversation(raw.conversation)?,
        seq: Seq(raw.seq),
        emoji: text("emoji", raw.emoji)?,
        on: flag("on", raw.on)?,
        message_id: message_id(raw.message_id),
    }))
}

fn read_history(raw: &HistoryV1) -> Result<Command, Fault> {
    let range = match (raw.direction, raw.seq) {
        (0, 0) => HistoryRange::Latest,
        (1, before) => HistoryRange::Before(Seq(before)),
        (2, after) => HistoryRange::After(Seq(after)),
        _ => return Err(Fault::field("before", "has the wrong type or form")),
    };
    Ok(Command::History { conversation: conversation(raw.conversation)?, range, limit: raw.limit })
}

fn read_mute(raw: &MuteV1) -> Result<Command, Fault> {
    Ok(Command::Mute { conversation: conversation(raw.conversation)?, until: UnixMillis(raw.until) })
}

fn read_members(raw: MembersV1) -> Result<Command, Fault> {
    let roles = raw.roles.iter().map(|pair| {
        let role = Role::from_number(pair.role).ok_or(Fault::field("roles", "is not a known role"))?;
        Ok((user("roles", &pair.user)?, role))
    });
    Ok(Command::Members(Members {
        conversation: conversation(raw.conversation)?,
        add: users("add", &raw.add)?,
        remove: users("remove", &raw.remove)?,
        roles: roles.collect::<Result<_, Fault>>()?,
        message_id: message_id(raw.message_id),
    }))
}

fn read_retention(raw: &SetRetentionV1) -> Result<Command, Fault> {
    let (conversation, retention) = (conversation(raw.conversation)?, raw.retention.read());
    Ok(Command::Retention { conversation, retention, message_id: message_id(raw.message_id) })
}

fn read_search(raw: SearchV1) -> Result<Command, Fault> {
    Ok(Command::Search(Search {
        query: text("query", raw.query)?,
        conversation: (raw.conversation != NO_ID).then_some(ConversationId(raw.conversation)),
        before: text_if("before", raw.before)?,
        limit: raw.limit,
    }))
}

fn read_send(raw: SendV1) -> Result<Command, Fault> {
    let target = match (raw.to.as_slice(), raw.conversation) {
        ([], id) => Target::Conversation(conversation(id)?),
        (to, NO_ID) => Target::User(user("to", to)?),
        _ => return Err(Fault::field("to", "cannot stand beside `conversation`")),
    };
    Ok(Command::Send(Send {
        target,
        kind: MessageKind::from_number(raw.kind).ok_or(Fault::field("kind", "is not a known kind"))?,
        text: text("text", raw.text)?,
        media: text_if("media", raw.media)?,
        reply_to: (raw.reply_to != 0).then_some(Seq(raw.reply_to)),
        mentions: users("mentions", &raw.mentions)?,
        message_id: message_id(raw.message_id),
    }))
}

fn read_title(raw: TitleV1) -> Result<Command, Fault> {
    let (conversation, title) = (conversation(raw.conversation)?, text("title", raw.title)?);
    Ok(Command::Title { conversation, title, message_id: message_id(raw.message_id) })
}

/// 16 zero bytes: no id.
const NO_ID: [u8; 16] = [0; 16];

fn shape<T>(value: Option<T>) -> Result<T, Fault> {
    value.ok_or(Fault::frame(
        "the payload is not one of this op: section 3 of docs/BINARY.md says how one is laid out",
    ))
}

fn conversation(id: [u8; 16]) -> Result<ConversationId, Fault> {
    if id == NO_ID { Err(Fault::field("conversation", "is missing")) } else { Ok(ConversationId(id)) }
}

fn message_id(id: [u8; 16]) -> Option<MessageId> {
    (id != NO_ID).then_some(MessageId(id))
}

fn flag(field: &'static str, number: u8) -> Result<bool, Fault> {
    match number {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Fault::field(field, "has the wrong type or form")),
    }
}

fn text(field: &'static str, bytes: Vec<u8>) -> Result<String, Fault> {
    String::from_utf8(bytes).map_err(|_| Fault::field(field, "is not UTF-8"))
}

fn text_if(field: &'static str, bytes: Vec<u8>) -> Result<Option<String>, Fault> {
    if bytes.is_empty() { Ok(None) } else { text(field, bytes).map(Some) }
}

fn token(bytes: Vec<u8>) -> Result<Token, Fault> {
    Token::new(&text("token", bytes)?).ok_or(Fault::token())
}

fn user(field: &'static str, bytes: &[u8]) -> Result<UserId, Fault> {
    let text = str::from_utf8(bytes).map_err(|_| Fault::name(field))?;
    UserId::new(text).map_err(|_| Fault::name(field))
}

/// Bounded before anything is copied; the finer bounds are checked with the whole request.
fn users(field: &'static str, names: &[NameV1]) -> Result<Vec<UserId>, Fault> {
    if names.len() > limits::MEMBERS_MAX {
        return Err(Fault::too_large(field));
    }
    names.iter().map(|name| user(field, &name.name)).collect()
}

/// Appends `request` as one binary frame. What [`decode_request`] reads from it equals `request` when that
/// keeps the limits.
pub fn encode_request(request: &Request, out: &mut Vec<u8>) {
    let id = request.id.map_or(0, |id| id.0);
    let no_id = |message_id: Option<MessageId>| message_id.map_or(NO_ID, |id| id.0);
    match &request.command {
        Command::Ack { cursor } => write(op::ACK, id, &cursor_payload(Some(cursor)), out),
        Command::Block { user, on, message_id } => {
            let (user, message_id) = (user.as_bytes().to_vec(), no_id(*message_id));
            write(op::BLOCK, id, &BlockV1 { user, on: u8::from(*on), message_id }, out);
        }
        Command::Connect(connect) => write_connect(id, connect, out),
        Command::Conversations { after, limit } => {
            let after = cursor_payload(after.as_deref()).cursor;
            write(op::CONVERSATIONS, id, &ListV1 { after, limit: *limit }, out);
        }
        Command::Create(create) => write_create(id, create, out),
        Command::Delete { conversation, seq, message_id } => {
            let (conversation, message_id) = (conversation.0, no_id(*message_id));
            write(op::DELETE, id, &DeleteV1 { conversation, seq: seq.0, message_id }, out);
        }
        Command::Edit(edit) => write_edit(id, edit, out),
        Command::History { conversation, range, limit } => {
            write_history(id, *conversation, *range, *limit, out);
        }
        Command::Leave { conversation, message_id } => {
            let payload = LeaveV1 { conversation: conversation.0, message_id: no_id(*message_id) };
            write(op::LEAVE, id, &payload, out);
        }
        Command::ListMembers { conversation } => {
            write(op::LIST_MEMBERS, id, &ListMembersV1 { conversation: conversation.0 }, out);
        }
        Command::Invisible { on } => write(op::INVISIBLE, id, &InvisibleV1 { on: u8::from(*on) }, out),
        Command::Members(members) => write_members(id, members, out),
        Command::Mute { conversation, until } => {
            write(op::MUTE, id, &MuteV1 { conversation: conversation.0, until: until.0 }, out);
        }
        Command::Ping { cursor } => write(op::PING, id, &cursor_payload(cursor.as_deref()), out),
        Command::PushToken { token } => {
            let token = token.as_ref().map_or(Vec::new(), |token| token.as_str().as_bytes().to_vec());
            write(op::PUSH_TOKEN, id, &PushTokenV1 { token }, out);
        }
        Command::React(react) => write_react(id, react, out),
        Command::Read { conversation, seq } => {
            write(op::READ, id, &ReadV1 { conversation: conversation.0, seq: seq.0 }, out);
        }
        Command::Refresh { token } => {
            write(op::REFRESH, id, &RefreshV1 { token: token.as_str().as_bytes().to_vec() }, out);
        }
        Command::Retention { conversation, retention, message_id } => {
            let (retention, message_id) = (RetentionV1::of(*retention), no_id(*message_id));
            let payload = SetRetentionV1 { conversation: conversation.0, retention, message_id };
            write(op::RETENTION, id, &payload, out);
        }
        Command::Search(search) => write_search(id, search, out),
        Command::Send(send) => write_send(id, send, out),
        Command::Title { conversation, title, message_id } => {
            let title = title.as_bytes().to_vec();
            let payload = TitleV1 { conversation: conversation.0, title, message_id: no_id(*message_id) };
            write(op::TITLE, id, &payload, out);
        }
        Command::Typing { conversation, on } => {
            write(op::TYPING, id, &TypingV1 { conversation: conversation.0, on: u8::from(*on) }, out);
        }
        Command::Unview { conversation } => {
            write(op::UNVIEW, id, &ViewV1 { conversation: conversation.0 }, out);
        }
        Command::View { conversation } => {
            write(op::VIEW, id, &ViewV1 { conversation: conversation.0 }, out);
        }
    }
}

fn write_history(id: u32, conversation: ConversationId, range: HistoryRange, limit: u32, out: &mut Vec<u8>) {
    let (direction, seq) = match range {
        HistoryRange::Latest => (0, 0),
        HistoryRange::Before(seq) => (1, seq.0),
        HistoryRange::After(seq) => (2, seq.0),
    };
    write(op::HISTORY, id, &HistoryV1 { conversation: conversation.0, direction, seq, limit }, out);
}

fn write_connect(id: u32, connect: &Connect, out: &mut Vec<u8>) {
    let positions = connect.positions.as_deref().unwrap_or_default().iter();
    let payload = ConnectV1 {
        token: connect.token.as_ref().map_or(Vec::new(), |token| token.as_str().as_bytes().to_vec()),
        device: connect.device.as_bytes().to_vec(),
        cursor: cursor_payload(connect.cursor.as_deref()).cursor,
        positions_given: u8::from(connect.positions.is_some()),
        positions: positions
            .map(|(conversation, seq)| PositionV1 { conversation: conversation.0, seq: seq.0 })
            .collect(),
    };
    write(op::CONNECT, id, &payload, out);
}

fn write_create(id: u32, create: &Create, out: &mut Vec<u8>) {
    let payload = CreateV1 {
        title: create.title.as_bytes().to_vec(),
        members: names(&create.members),
        history: create.history as u8,
        message_id: create.message_id.map_or(NO_ID, |id| id.0),
    };
    write(op::CREATE, id, &payload, out);
}

fn write_edit(id: u32, edit: &Edit, out: &mut Vec<u8>) {
    let payload = EditV1 {
        conversation: edit.conversation.0,
        seq: edit.seq.0,
        text: edit.text.as_bytes().to_vec(),
        message_id: edit.message_id.map_or(NO_ID, |id| id.0),
    };
    write(op::EDIT, id, &payload, out);
}

fn write_react(id: u32, react: &React, out: &mut Vec<u8>) {
    let payload = ReactV1 {
        conversation: react.conversation.0,
        seq: react.seq.0,
        emoji: react.emoji.as_bytes().to_vec(),
        on: u8::from(react.on),
        message_id: react.message_id.map_or(NO_ID, |id| id.0),
    };
    write(op::REACT, id, &payload, out);
}

fn write_members(id: u32, members: &Members, out: &mut Vec<u8>) {
    let roles = members.roles.iter();
    let payload = MembersV1 {
        conversation: members.conversation.0,
        add: names(&members.add),
        remove: names(&members.remove),
        roles: roles
            .map(|(user, role)| RoleV1 { user: user.as_bytes().to_vec(), role: *role as u8 })
            .collect(),
        message_id: members.message_id.map_or(NO_ID, |id| id.0),
    };
    write(op::MEMBERS, id, &payload, out);
}

fn write_search(id: u32, search: &Search, out: &mut Vec<u8>) {
    let payload = SearchV1 {
        query: search.query.as_bytes().to_vec(),
        conversation: search.conversation.map_or(NO_ID, |id| id.0),
        before: cursor_payload(search.before.as_deref()).cursor,
        limit: search.limit,
    };
    write(op::SEARCH, id, &payload, out);
}

fn write_send(id: u32, send: &Send, out: &mut Vec<u8>) {
    let (conversation, to) = match &send.target {
        Target::Conversation(conversation) => (conversation.0, Vec::new()),
        Target::User(user) => (NO_ID, user.as_bytes().to_vec()),
    };
    let payload = SendV1 {
        conversation,
        to,
        kind: send.kind as u8,
        text: send.text.as_bytes().to_vec(),
        media: send.media.as_deref().unwrap_or_default().as_bytes().to_vec(),
        reply_to: send.reply_to.map_or(0, |seq| seq.0),
        mentions: names(&send.mentions),
        message_id: send.message_id.map_or(NO_ID, |id| id.0),
    };
    write(op::SEND, id, &payload, out);
}

fn cursor_payload(cursor: Option<&str>) -> CursorV1 {
    CursorV1 { cursor: cursor.unwrap_or_default().as_bytes().to_vec() }
}

fn names(users: &[UserId]) -> Vec<NameV1> {
    users.iter().map(NameV1::new).collect()
}
