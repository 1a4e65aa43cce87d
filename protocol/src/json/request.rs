//! Commands in JSON, as a client writes them.

use super::object::Object;
use crate::{
    command::{
        Command, Connect, Create, Edit, HistoryRange, Members, PushToken, React, Request, Retention, Role,
        Search, Send, Target, Token,
    },
    ids::UserId,
};

/// Appends `request` as one JSON object. What [`super::decode_request`] reads from it equals `request` when that
/// keeps the limits.
pub fn encode_request(request: &Request, out: &mut Vec<u8>) {
    let mut object = Object::op(out, request.command.op());
    object.number_if("id", request.id.map(|id| u64::from(id.0)));
    match &request.command {
        Command::Ack { cursor } => {
            object.text("cursor", cursor);
        }
        Command::Block { user, on, .. } => {
            object.text("user", user.as_str()).boolean("on", *on);
        }
        Command::Connect(connect) => write_connect(connect, &mut object),
        Command::Conversations { after, limit } => {
            object.text_if("after", after.as_deref()).number("limit", u64::from(*limit));
        }
        Command::Create(create) => write_create(create, &mut object),
        Command::Delete { conversation, seq, .. } | Command::Read { conversation, seq } => {
            object.uuid("conversation", &conversation.0).number("seq", seq.0);
        }
        Command::Edit(edit) => write_edit(edit, &mut object),
        Command::History { conversation, range, limit } => {
            object.uuid("conversation", &conversation.0);
            match range {
                HistoryRange::After(seq) => object.number("after", seq.0),
                HistoryRange::Before(seq) => object.number("before", seq.0),
                HistoryRange::Latest => &mut object,
            }
            .number("limit", u64::from(*limit));
        }
        Command::Invisible { on } => {
            object.boolean("on", *on);
        }
        Command::ListMembers { conversation } => {
            object.uuid("conversation", &conversation.0).boolean("list", true);
        }
        Command::Members(members) => write_members(members, &mut object),
        Command::Mute { conversation, until } => {
            object.uuid("conversation", &conversation.0).number("until", until.0);
        }
        Command::Ping { cursor } => {
            object.text_if("cursor", cursor.as_deref());
        }
        Command::PushToken { token } => write_push_token(token.as_ref(), &mut object),
        Command::React(react) => write_react(react, &mut object),
        Command::Refresh { token } => {
            object.text("token", token.as_str());
        }
        Command::Retention { conversation, retention, .. } => {
            object.uuid("conversation", &conversation.0);
            write_kept(*retention, &mut object);
        }
        Command::Search(search) => write_search(search, &mut object),
        Command::Send(send) => write_send(send, &mut object),
        Command::Title { conversation, title, .. } => {
            object.uuid("conversation", &conversation.0).text("title", title);
        }
        Command::Typing { conversation, on } => {
            object.uuid("conversation", &conversation.0).boolean("on", *on);
        }
        Command::Leave { conversation, .. }
        | Command::Unview { conversation }
        | Command::View { conversation } => {
            object.uuid("conversation", &conversation.0);
        }
    }
    object.uuid_if("message_id", request.command.message_id().as_ref().map(|id| &id.0));
    object.end();
}

fn write_create(Create { title, members, history, .. }: &Create, object: &mut Object<'_>) {
    let members = members.iter().map(UserId::as_str);
    object.text("title", title).texts("members", members).text("history", history.name());
}

fn write_kept(Retention { days, last }: Retention, object: &mut Object<'_>) {
    object.number_if("days", days.map(u64::from)).number_if("last", last.map(u64::from));
}

fn write_push_token(token: Option<&PushToken>, object: &mut Object<'_>) {
    match token {
        Some(token) => object.text("token", token.as_str()),
        None => object.null("token"),
    };
}

fn write_edit(edit: &Edit, object: &mut Object<'_>) {
    object.uuid("conversation", &edit.conversation.0).number("seq", edit.seq.0).text("text", &edit.text);
}

fn write_react(react: &React, object: &mut Object<'_>) {
    object
        .uuid("conversation", &react.conversation.0)
        .number("seq", react.seq.0)
        .text("emoji", &react.emoji)
        .boolean("on", react.on);
}

fn write_connect(connect: &Connect, object: &mut Object<'_>) {
    object
        .text_if("token", connect.token.as_ref().map(Token::as_str))
        .text("device", connect.device.as_str())
        .text_if("cursor", connect.cursor.as_deref());
    if let Some(positions) = &connect.positions {
        object.list("positions", positions, |(conversation, seq), out| {
            let mut position = Object::new(out);
            position.uuid("conversation", &conversation.0).number("seq", seq.0);
            position.end();
        });
    }
}

fn write_members(members: &Members, object: &mut Object<'_>) {
    object
        .uuid("conversation", &members.conversation.0)
        .texts_if("add", members.add.iter().map(UserId::as_str))
        .texts_if("remove", members.remove.iter().map(UserId::as_str));
    write_roles(&members.roles, object);
}

/// `roles`, left out when empty.
pub(super) fn write_roles(roles: &[(UserId, Role)], object: &mut Object<'_>) {
    if roles.is_empty() {
        return;
    }
    let mut pairs = object.object("roles");
    for (user, role) in roles {
        pairs.text_under(user.as_str(), role.name());
    }
    pairs.end();
}

fn write_search(search: &Search, object: &mut Object<'_>) {
    object
        .text("query", &search.query)
        .uuid_if("conversation", search.conversation.as_ref().map(|id| &id.0))
        .text_if("before", search.before.as_deref())
        .number("limit", u64::from(search.limit));
}

fn write_send(send: &Send, object: &mut Object<'_>) {
    match &send.target {
        Target::Conversation(conversation) => object.uuid("conversation", &conversation.0),
        Target::User(user) => object.text("to", user.as_str()),
    }
    .text("kind", send.kind.name())
    .text("text", &send.text)
    .text_if("media", send.media.as_deref())
    .number_if("reply_to", send.reply_to.map(|seq| seq.0))
    .texts_if("mentions", send.mentions.iter().map(UserId::as_str));
}
