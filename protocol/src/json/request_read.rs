//! Commands in JSON, read by a server. A field that does not belong to its operation is refused.
//!
//! First all fields of a frame are read, whatever the operation, then the operation takes those that it has ([`OPS`]): so no key has to
//! come before another. What a field must be is said here, what a command must satisfy beyond that in [`crate::check`].

use std::borrow::Cow;

use serde::de::DeserializeSeed;

use super::{
    fields::{Field, Fields, FieldsSeed, Glimpse, GlimpseSeed},
    value::Lenient,
};
use crate::{
    check::{self, Fault},
    command::{
        Command, Connect, Create, Edit, HistoryPolicy, HistoryRange, Members, MessageKind, PushToken, React,
        Request, Retention, Search, Send, Target, Token,
    },
    event::Refusal,
    ids::{RequestId, Seq, UnixMillis},
    limits,
};

/// An operation and the fields that may stand beside it (`op` always may).
struct Operation {
    name: &'static str,
    fields: &'static [Field],
    build: fn(&mut Fields<'_>) -> Result<Command, Fault>,
}

const OPS: [Operation; 24] = {
    use Field::*;
    [
        Operation { name: "ack", fields: &[Cursor], build: build_ack },
        Operation { name: "block", fields: &[Id, User, On, MessageId], build: build_block },
        Operation { name: "connect", fields: &[Id, Token, Device, Cursor, Positions], build: build_connect },
        Operation { name: "conversations", fields: &[Id, After, Limit], build: build_conversations },
        Operation { name: "create", fields: &[Id, Title, Members, History, MessageId], build: build_create },
        Operation { name: "delete", fields: &[Id, Conversation, Seq, MessageId], build: build_delete },
        Operation { name: "edit", fields: &[Id, Conversation, Seq, Text, MessageId], build: build_edit },
        Operation {
            name: "history",
            fields: &[Id, Conversation, Before, After, Limit],
            build: build_history,
        },
        Operation { name: "invisible", fields: &[Id, On], build: build_invisible },
        Operation { name: "leave", fields: &[Id, Conversation, MessageId], build: build_leave },
        Operation {
            name: "members",
            fields: &[Id, Conversation, Add, Remove, Roles, List, MessageId],
            build: build_members,
        },
        Operation { name: "mute", fields: &[Id, Conversation, Until], build: build_mute },
        Operation { name: "ping", fields: &[Id, Cursor], build: build_ping },
        Operation { name: "push_token", fields: &[Id, Token], build: build_push_token },
        Operation {
            name: "react",
            fields: &[Id, Conversation, Seq, Emoji, On, MessageId],
            build: build_react,
        },
        Operation { name: "read", fields: &[Id, Conversation, Seq], build: build_read },
        Operation { name: "refresh", fields: &[Id, Token], build: build_refresh },
        Operation {
            name: "retention",
            fields: &[Id, Conversation, Days, Last, MessageId],
            build: build_retention,
        },
        Operation { name: "search", fields: &[Id, Query, Conversation, Before, Limit], build: build_search },
        Operation {
            name: "send",
            fields: &[Id, To, Conversation, Kind, Text, Media, ReplyTo, Mentions, MessageId],
            build: build_send,
        },
        Operation { name: "title", fields: &[Id, Conversation, Title, MessageId], build: build_title },
        Operation { name: "typing", fields: &[Conversation, On], build: build_typing },
        Operation { name: "unview", fields: &[Id, Conversation], build: build_unview },
        Operation { name: "view", fields: &[Id, Conversation], build: build_view },
    ]
};

/// Reads one command. `text` is the payload of a text frame, at most 64 KiB.
///
/// The refusal carries the command's id where it can be read, even from a frame that is otherwise
/// damaged, so that the client learns which of its commands was wrong.
pub fn decode_request(text: &str) -> Result<Request, Refusal> {
    if text.len() > limits::FRAME_BYTES_MAX {
        return Err(Fault::frame_too_large().into_refusal(None));
    }
    parse(text).map_err(|fault| explain(text, fault))
}

fn parse(text: &str) -> Result<Request, Fault> {
    let mut fields = Fields::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = FieldsSeed(&mut fields).deserialize(&mut deserializer).and_then(|()| deserializer.end());
    if let Err(error) = read {
        return Err(match (error.classify(), fields.current) {
            (serde_json::error::Category::Data, Some(field)) => match field {
                Field::Device | Field::To | Field::User => Fault::name(field.name()),
                _ => Fault::field(field.name(), "has the wrong type or form"),
            },
            (serde_json::error::Category::Data, None) => Fault::frame("the frame is not a JSON object"),
            _ => Fault::frame("the frame is not valid JSON"),
        });
    }
    let op = find_op(fields.op.as_deref())?;
    if let Some(fault) = fields.fault.take() {
        return Err(fault);
    }
    let allowed = op.fields.iter().fold(Field::Op.bit(), |bits, field| bits | field.bit());
    // `id` is judged with the whole request, because `ack` and `typing` have none.
    if let Some(name) = first_name(fields.given & !allowed & !Field::Id.bit()) {
        return Err(Fault::field(name, "does not belong to this op"));
    }
    let id = match fields.id {
        Some(id) => Some(RequestId::new(id).ok_or(Fault::field("id", "is out of range"))?),
        None => None,
    };
    let request = Request { id, command: (op.build)(&mut fields)? };
    check::request(&request)?;
    Ok(request)
}

/// Looks at a refused frame once more for its id, and for an operation we do not have: that explains
/// any other fault.
fn explain(text: &str, fault: Fault) -> Refusal {
    let mut glimpse = Glimpse::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    // What could be read before an error is all there is to learn.
    let _ = GlimpseSeed(&mut glimpse).deserialize(&mut deserializer);
    let fault = match find_op(glimpse.op.as_deref()) {
        Err(unknown) if glimpse.op.is_some() => unknown,
        _ => fault,
    };
    fault.into_refusal(glimpse.id.flatten().and_then(RequestId::new))
}

fn find_op(name: Option<&str>) -> Result<&'static Operation, Fault> {
    let name = name.ok_or(Fault::field("op", "is missing"))?;
    OPS.iter().find(|op| op.name == name).ok_or_else(Fault::unknown_op)
}

fn first_name(bits: u32) -> Option<&'static str> {
    (bits != 0).then(|| Field::from_index(bits.trailing_zeros()).name())
}

fn build_ack(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    Ok(Command::Ack { cursor: required("cursor", owned(&mut fields.cursor))? })
}

fn build_block(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    Ok(Command::Block {
        user: required("user", fields.user.take())?,
        on: required("on", fields.on)?,
        message_id: fields.message_id,
    })
}

fn build_connect(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    Ok(Command::Connect(Connect {
        token: bearer(fields)?,
        device: required("device", fields.device.take())?,
        cursor: owned(&mut fields.cursor),
        positions: fields.positions.take(),
    }))
}

fn build_conversations(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    let after = opaque("after", fields.after.take())?;
    Ok(Command::Conversations { after, limit: read_limit(fields)? })
}

fn build_create(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    let history = required("history", fields.history.take())?;
    Ok(Command::Create(Create {
        title: required("title", owned(&mut fields.title))?,
        members: required("members", fields.members.take())?,
        history: HistoryPolicy::from_name(&history)
            .ok_or(Fault::field("history", "is not a known policy"))?,
        message_id: fields.message_id,
    }))
}

fn build_delete(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    Ok(Command::Delete {
        conversation: required("conversation", fields.conversation)?,
        seq: Seq(required("seq", fields.seq)?),
        message_id: fields.message_id,
    })
}

fn build_edit(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    Ok(Command::Edit(Edit {
        conversation: required("conversation", fields.conversation)?,
        seq: Seq(required("seq", fields.seq)?),
        text: required("text", owned(&mut fields.text))?,
        message_id: fields.message_id,
    }))
}

fn build_history(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    let after = number("after", fields.after.take())?;
    let before = number("before", fields.before.take())?;
    let range = match (before, after) {
        (Some(_), Some(_)) => return Err(Fault::field("before", "cannot stand beside `after`")),
        (Some(before), None) => HistoryRange::Before(Seq(before)),
        (None, Some(after)) => HistoryRange::After(Seq(after)),
        (None, None) => HistoryRange::Latest,
    };
    Ok(Command::History {
        conversation: required("conversation", fields.conversation)?,
        range,
        limit: read_limit(fields)?,
    })
}

fn build_leave(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    let conversation = required("conversation", fields.conversation)?;
    Ok(Command::Leave { conversation, message_id: fields.message_id })
}

fn build_members(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    let conversation = required("conversation", fields.conversation)?;
    match fields.list {
        Some(true) => {
            let changes = [Field::Add, Field::MessageId, Field::Remove, Field::Roles];
            let bits = changes.iter().fold(0, |bits, field| bits | field.bit());
            match first_name(fields.given & bits) {
                Some(name) => Err(Fault::field(name, "cannot stand beside `list`")),
                None => Ok(Command::ListMembers { conversation }),
            }
        }
        Some(false) => Err(Fault::field("list", "can only be true")),
        None => Ok(Command::Members(Members {
            conversation,
            add: std::mem::take(&mut fields.add),
            remove: std::mem::take(&mut fields.remove),
            roles: std::mem::take(&mut fields.roles),
            message_id: fields.message_id,
        })),
    }
}

fn build_invisible(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    Ok(Command::Invisible { on: required("on", fields.on)? })
}

fn build_mute(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    Ok(Command::Mute {
        conversation: required("conversation", fields.conversation)?,
        until: UnixMillis(required("until", fields.until)?),
    })
}

fn build_ping(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    Ok(Command::Ping { cursor: owned(&mut fields.cursor) })
}

fn build_push_token(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    let token = required("token", fields.token.take())?;
    Ok(Command::PushToken { token: token.map(|token| PushToken::new(token.into_owned())) })
}

fn build_react(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    Ok(Command::React(React {
        conversation: required("conversation", fields.conversation)?,
        seq: Seq(required("seq", fields.seq)?),
        emoji: required("emoji", owned(&mut fields.emoji))?,
        on: required("on", fields.on)?,
        message_id: fields.message_id,
    }))
}

fn build_read(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    Ok(Command::Read {
        conversation: required("conversation", fields.conversation)?,
        seq: Seq(required("seq", fields.seq)?),
    })
}

fn build_refresh(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    Ok(Command::Refresh { token: required("token", bearer(fields)?)? })
}

fn build_retention(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    // A number that does not fit is above the limit, and refused as such.
    let number = |given: Option<u64>| given.map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    Ok(Command::Retention {
        conversation: required("conversation", fields.conversation)?,
        retention: Retention { days: number(fields.days), last: number(fields.last) },
        message_id: fields.message_id,
    })
}

fn build_search(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    Ok(Command::Search(Search {
        query: required("query", owned(&mut fields.query))?,
        conversation: fields.conversation,
        before: opaque("before", fields.before.take())?,
        limit: read_limit(fields)?,
    }))
}

fn build_send(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    let target = match (fields.to.take(), fields.conversation) {
        (Some(_), Some(_)) => return Err(Fault::field("to", "cannot stand beside `conversation`")),
        (Some(user), None) => Target::User(user),
        (None, Some(conversation)) => Target::Conversation(conversation),
        (None, None) => return Err(Fault::field("conversation", "is missing, and so is `to`")),
    };
    let kind = required("kind", fields.kind.take())?;
    Ok(Command::Send(Send {
        target,
        kind: MessageKind::from_name(&kind).ok_or(Fault::field("kind", "is not a known kind"))?,
        text: required("text", owned(&mut fields.text))?,
        media: owned(&mut fields.media),
        reply_to: fields.reply_to.map(Seq),
        mentions: std::mem::take(&mut fields.mentions),
        message_id: fields.message_id,
    }))
}

fn build_title(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    Ok(Command::Title {
        conversation: required("conversation", fields.conversation)?,
        title: required("title", owned(&mut fields.title))?,
        message_id: fields.message_id,
    })
}

fn build_typing(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    Ok(Command::Typing {
        conversation: required("conversation", fields.conversation)?,
        on: required("on", fields.on)?,
    })
}

fn build_unview(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    Ok(Command::Unview { conversation: required("conversation", fields.conversation)? })
}

fn build_view(fields: &mut Fields<'_>) -> Result<Command, Fault> {
    Ok(Command::View { conversation: required("conversation", fields.conversation)? })
}

/// A number that does not fit is above the limit, and refused as such.
fn read_limit(fields: &Fields<'_>) -> Result<u32, Fault> {
    Ok(u32::try_from(required("limit", fields.limit)?).unwrap_or(u32::MAX))
}

/// A field that is a number here and a text elsewhere.
fn number(field: &'static str, given: Option<Lenient<'_>>) -> Result<Option<u64>, Fault> {
    match given {
        None => Ok(None),
        Some(Lenient::Number(number)) => Ok(Some(number)),
        Some(_) => Err(Fault::field(field, "has the wrong type or form")),
    }
}

/// The other way round.
fn opaque(field: &'static str, given: Option<Lenient<'_>>) -> Result<Option<String>, Fault> {
    match given {
        None => Ok(None),
        Some(Lenient::Text(text)) => Ok(Some(text.into_owned())),
        Some(_) => Err(Fault::field(field, "has the wrong type or form")),
    }
}

fn required<T>(field: &'static str, value: Option<T>) -> Result<T, Fault> {
    value.ok_or(Fault::field(field, "is missing"))
}

fn owned(text: &mut Option<Cow<'_, str>>) -> Option<String> {
    text.take().map(Cow::into_owned)
}

/// A token of a session, which is not null.
fn bearer(fields: &mut Fields<'_>) -> Result<Option<Token>, Fault> {
    match fields.token.take() {
        None => Ok(None),
        Some(None) => Err(Fault::field("token", "has the wrong type or form")),
        Some(Some(text)) => Token::new(&text).ok_or(Fault::token()).map(Some),
    }
}
