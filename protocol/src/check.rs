//! What a command must satisfy beyond its shape. One place for both wire forms, so that they cannot
//! differ in what they accept.
//!
//! Invariant: a [`Fault`] holds constant text only, so nothing a client sent can come back in an error;
//! except the name of an unknown field, and that only if it looks like one of ours.

use std::{borrow::Cow, collections::HashSet};

use crate::{
    command::{
        Command, Connect, Create, Edit, HistoryRange, Members, MessageKind, PushToken, React, Request,
        Retention, Search, Send,
    },
    event::{ErrorCode, Refusal},
    ids::{MessageId, RequestId, Seq, UserId},
    limits,
};

/// One thing wrong with a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: ErrorCode,
    /// A field of the protocol, or empty when the whole frame is meant.
    pub(crate) field: Cow<'static, str>,
    pub(crate) reason: &'static str,
}

impl Fault {
    pub(crate) const fn field(field: &'static str, reason: &'static str) -> Self {
        Self { code: ErrorCode::BadField, field: Cow::Borrowed(field), reason }
    }

    /// A user or a device that cannot be one; or no text at all.
    pub(crate) const fn name(field: &'static str) -> Self {
        const { assert!(limits::ID_BYTES_MAX == 64) };
        Self::field(field, "is no id: a text of 1 to 64 bytes of UTF-8, without control characters")
    }

    pub(crate) const fn frame(reason: &'static str) -> Self {
        Self { code: ErrorCode::BadFrame, field: Cow::Borrowed(""), reason }
    }

    /// A token that no verifier needs to see. Answered like any other that is not valid.
    pub(crate) const fn token() -> Self {
        Self { code: ErrorCode::BadToken, field: Cow::Borrowed("token"), reason: "is not valid" }
    }

    pub(crate) const fn too_large(field: &'static str) -> Self {
        Self { code: ErrorCode::TooLarge, field: Cow::Borrowed(field), reason: "is too long" }
    }

    pub(crate) const fn frame_too_large() -> Self {
        Self { code: ErrorCode::TooLarge, field: Cow::Borrowed(""), reason: "the frame is too long" }
    }

    pub(crate) const fn unknown_op() -> Self {
        const REASON: &str = "is not one this server knows";
        Self { code: ErrorCode::UnknownOp, field: Cow::Borrowed("op"), reason: REASON }
    }

    /// A misspelt field is named, because that is what the developer needs; anything that does not look
    /// like a misspelt field may be content and is not.
    pub(crate) fn unknown_field(name: &str) -> Self {
        const NAME_BYTES_MAX: usize = 24;
        let is_name = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if is_name && (1..=NAME_BYTES_MAX).contains(&name.len()) {
            let field = Cow::Owned(name.to_owned());
            Self { code: ErrorCode::BadField, field, reason: "is not a field of this protocol" }
        } else {
            Self { code: ErrorCode::BadField, field: Cow::Borrowed(""), reason: "a field is unknown" }
        }
    }

    pub(crate) fn into_refusal(self, id: Option<RequestId>) -> Refusal {
        let message = match &*self.field {
            "" => self.reason.to_owned(),
            field => format!("`{field}` {}", self.reason),
        };
        Refusal { id, code: self.code, message }
    }
}

/// Everything that can be judged without state.
pub(crate) fn request(request: &Request) -> Result<(), Fault> {
    match (&request.command, request.id) {
        (command, Some(_)) if !command.has_reply() => {
            return Err(Fault::field("id", "does not belong to this op"));
        }
        (command, None) if !command.has_reply() => {}
        (_, None) => return Err(Fault::field("id", "is missing")),
        (_, Some(RequestId(id))) if RequestId::new(u64::from(id)).is_none() => {
            return Err(Fault::field("id", "is out of range"));
        }
        (_, Some(_)) => {}
    }
    match &request.command {
        Command::Ack { cursor } => check_cursor(cursor),
        Command::Block { message_id, .. } => check_message_id(*message_id),
        Command::Connect(connect) => check_connect(connect),
        Command::Conversations { after, limit } => {
            after.as_deref().map_or(Ok(()), |after| check_opaque("after", after, limits::AFTER_BYTES_MAX))?;
            check_limit(*limit, limits::CONVERSATIONS_MAX)
        }
        Command::Create(create) => check_create(create),
        Command::Delete { seq, message_id, .. } => {
            check_seq("seq", *seq, 1)?;
            check_message_id(*message_id)
        }
        Command::Edit(edit) => check_edit(edit),
        Command::History { range, limit, .. } => check_history(*range, *limit),
        Command::Leave { message_id, .. } => check_message_id(*message_id),
        Command::Invisible { .. }
        | Command::ListMembers { .. }
        | Command::Refresh { .. }
        | Command::Typing { .. }
        | Command::Unview { .. }
        | Command::View { .. } => Ok(()),
        Command::Members(members) => check_members(members),
        Command::Mute { until, .. } => check_until(until.0),
        Command::Ping { cursor } => cursor.as_deref().map_or(Ok(()), check_cursor),
        Command::PushToken { token } => token.as_ref().map_or(Ok(()), check_push_token),
        Command::React(react) => check_react(react),
        Command::Read { seq, .. } => check_seq("seq", *seq, 1),
        Command::Retention { retention, message_id, .. } => {
            check_retention(*retention)?;
            check_message_id(*message_id)
        }
        Command::Search(search) => check_search(search),
        Command::Send(send) => check_send(send),
        Command::Title { title, message_id, .. } => {
            check_title(title)?;
            check_message_id(*message_id)
        }
    }
}

fn check_until(until: u64) -> Result<(), Fault> {
    if until > limits::INTEGER_MAX {
        return Err(Fault::field("until", "is out of range"));
    }
    Ok(())
}

fn check_retention(Retention { days, last }: Retention) -> Result<(), Fault> {
    for (field, value, max) in
        [("days", days, limits::RETENTION_DAYS_MAX), ("last", last, limits::RETENTION_LAST_MAX)]
    {
        if value.is_some_and(|value| !(1..=max).contains(&value)) {
            return Err(Fault::field(field, "is out of range"));
        }
    }
    Ok(())
}

fn check_push_token(token: &PushToken) -> Result<(), Fault> {
    check_line("token", token.as_str(), limits::PUSH_TOKEN_BYTES_MAX)
}

fn check_connect(connect: &Connect) -> Result<(), Fault> {
    if let Some(cursor) = &connect.cursor {
        check_cursor(cursor)?;
        if connect.positions.is_some() {
            return Err(Fault::field("positions", "cannot stand beside `cursor`"));
        }
    }
    let positions = connect.positions.as_deref().unwrap_or_default();
    if positions.len() > limits::POSITIONS_MAX {
        return Err(Fault::too_large("positions"));
    }
    let mut seen = HashSet::with_capacity(positions.len());
    for (conversation, seq) in positions {
        if !seen.insert(conversation) {
            return Err(Fault::field("positions", "names a conversation twice"));
        }
        check_seq("positions", *seq, 0)?;
    }
    Ok(())
}

/// Whatever stands in a query is words.
fn check_search(search: &Search) -> Result<(), Fault> {
    check_line("query", &search.query, limits::QUERY_BYTES_MAX)?;
    if let Some(before) = &search.before {
        check_opaque("before", before, limits::BEFORE_BYTES_MAX)?;
    }
    check_limit(search.limit, limits::HITS_MAX)
}

fn check_send(send: &Send) -> Result<(), Fault> {
    if send.text.len() > limits::TEXT_BYTES_MAX {
        return Err(Fault::too_large("text"));
    }
    match (&send.media, send.kind) {
        (Some(_), MessageKind::Text) => return Err(Fault::field("media", "does not belong to this kind")),
        (None, MessageKind::File | MessageKind::Image) => return Err(Fault::field("media", "is missing")),
        (None, MessageKind::Text) if send.text.is_empty() => return Err(Fault::field("text", "is empty")),
        (None, MessageKind::Text) => {}
        (Some(media), MessageKind::File | MessageKind::Image) => {
            check_line("media", media, limits::MEDIA_BYTES_MAX)?;
        }
    }
    if let Some(seq) = send.reply_to {
        check_seq("reply_to", seq, 1)?;
    }
    if send.mentions.len() > limits::MENTIONS_MAX {
        return Err(Fault::too_large("mentions"));
    }
    check_message_id(send.message_id)
}

/// An empty text is for whoever knows the message's kind to judge.
fn check_edit(edit: &Edit) -> Result<(), Fault> {
    check_seq("seq", edit.seq, 1)?;
    if edit.text.len() > limits::TEXT_BYTES_MAX {
        return Err(Fault::too_large("text"));
    }
    check_message_id(edit.message_id)
}

fn check_react(react: &React) -> Result<(), Fault> {
    check_seq("seq", react.seq, 1)?;
    check_line("emoji", &react.emoji, limits::EMOJI_BYTES_MAX)?;
    check_message_id(react.message_id)
}

fn check_create(create: &Create) -> Result<(), Fault> {
    check_title(&create.title)?;
    check_users("members", create.members.iter())?;
    if create.members.is_empty() {
        return Err(Fault::field("members", "is empty"));
    }
    check_message_id(create.message_id)
}

fn check_members(members: &Members) -> Result<(), Fault> {
    let Members { add, remove, roles, message_id, .. } = members;
    if add.is_empty() && remove.is_empty() && roles.is_empty() {
        return Err(Fault::field("add", "is missing, and so are `remove`, `roles` and `list`"));
    }
    let added = check_users("add", add.iter())?;
    if check_users("remove", remove.iter())?.iter().any(|user| added.contains(user)) {
        return Err(Fault::field("remove", "names a user of `add`"));
    }
    check_users("roles", roles.iter().map(|(user, _)| user))?;
    check_message_id(*message_id)
}

fn check_history(range: HistoryRange, limit: u32) -> Result<(), Fault> {
    match range {
        HistoryRange::After(seq) => check_seq("after", seq, 0)?,
        HistoryRange::Before(seq) => check_seq("before", seq, 1)?,
        HistoryRange::Latest => {}
    }
    check_limit(limit, limits::HISTORY_ITEMS_MAX)
}

fn check_limit(limit: u32, items_max: u32) -> Result<(), Fault> {
    if (1..=items_max).contains(&limit) { Ok(()) } else { Err(Fault::field("limit", "is out of range")) }
}

fn check_users<'a>(
    field: &'static str,
    users: impl ExactSizeIterator<Item = &'a UserId>,
) -> Result<HashSet<&'a UserId>, Fault> {
    if users.len() > limits::MEMBERS_MAX {
        return Err(Fault::too_large(field));
    }
    let mut seen = HashSet::with_capacity(users.len());
    for user in users {
        if !seen.insert(user) {
            return Err(Fault::field(field, "names a user twice"));
        }
    }
    Ok(seen)
}

fn check_seq(field: &'static str, seq: Seq, min: u64) -> Result<(), Fault> {
    if (min..=limits::INTEGER_MAX).contains(&seq.0) {
        Ok(())
    } else {
        Err(Fault::field(field, "is out of range"))
    }
}

fn check_message_id(message_id: Option<MessageId>) -> Result<(), Fault> {
    match message_id {
        Some(id) if !id.is_v7() => Err(Fault::field("message_id", "is not a UUID of version 7")),
        _ => Ok(()),
    }
}

fn check_title(title: &str) -> Result<(), Fault> {
    check_line("title", title, limits::TITLE_BYTES_MAX)
}

fn check_cursor(cursor: &str) -> Result<(), Fault> {
    check_opaque("cursor", cursor, limits::CURSOR_BYTES_MAX)
}

/// Something that only this server understands.
fn check_opaque(field: &'static str, text: &str, bytes_max: usize) -> Result<(), Fault> {
    check_line(field, text, bytes_max)?;
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(Fault::field(field, "is malformed"))
    }
}

/// One line of text: not empty, bounded, no control characters.
fn check_line(field: &'static str, text: &str, bytes_max: usize) -> Result<(), Fault> {
    if text.is_empty() {
        return Err(Fault::field(field, "is empty"));
    }
    if text.len() > bytes_max {
        return Err(Fault::too_large(field));
    }
    if text.chars().any(char::is_control) {
        return Err(Fault::field(field, "contains a control character"));
    }
    Ok(())
}
