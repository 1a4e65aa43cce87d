//! What a server sends, as JSON.

use std::borrow::Cow;

use super::{conversations::write_list, found::write_found, object::Object, request::write_roles};
use crate::{
    command::{MessageKind, Retention, Role},
    event::{
        AmendedEvent, AmendedForm, ErrorReply, Gap, Head, MemberEntry, MemberEvent, MessageEvent, OkReply,
        PageItem, Presence, Reached, Reaction, ServerFrame, Welcome,
    },
    ids::{RequestId, Seq, UserId},
    record::{
        AmendmentKind, ArchivedAmendmentV1, ArchivedFormV1, ArchivedMemberV1, ArchivedMembershipV1,
        ArchivedMessageV1, ArchivedNameV1, Ext, Portable, ReactionGroup, SCHEMA_ERASED, SCHEMA_GONE, Stored,
        StoredBody, StoredItem, reaction_groups,
    },
};

/// Appends `frame` as one JSON object.
pub fn encode_frame(frame: &ServerFrame, out: &mut Vec<u8>) {
    match frame {
        ServerFrame::Amended(event) => write_amended(event, out),
        ServerFrame::Conversations { id, conversations, end } => write_list(*id, conversations, end, out),
        ServerFrame::CaughtUp { cursor, partial } => {
            let mut object = Object::op(out, "caught_up");
            object.text("cursor", cursor);
            if *partial {
                object.boolean("partial", true);
            }
            object.end();
        }
        ServerFrame::Cursor { cursor } => {
            let mut object = Object::op(out, "cursor");
            object.text("cursor", cursor);
            object.end();
        }
        ServerFrame::Drain { reconnect_in_ms, reason } => {
            let mut object = Object::op(out, "drain");
            object.number("reconnect_in_ms", *reconnect_in_ms).text("reason", reason);
            object.end();
        }
        ServerFrame::Error(error) => write_error(error, out),
        ServerFrame::Found { id, hits, end } => write_found(*id, hits, end, out),
        ServerFrame::Gap(gap) => write_gap(gap, out),
        ServerFrame::Heads { conversations, more } => {
            let mut object = Object::op(out, "heads");
            object.list("conversations", conversations, write_head).boolean("more", *more);
            object.end();
        }
        ServerFrame::Invisible { on } => write_invisible(*on, out),
        ServerFrame::Member(event) => write_member(event, out),
        ServerFrame::MembersPage { id, members, retention } => {
            write_members_page(*id, members, *retention, out);
        }
        ServerFrame::Message(event) => write_message(event, out),
        ServerFrame::Ok(ok) => write_ok(ok, out),
        ServerFrame::Page { id, messages, more } => {
            let mut object = reply(out, "page", *id);
            object.list("messages", messages, write_item);
            object.boolean("more", *more);
            object.end();
        }
        ServerFrame::Pong { id, now, cursor } => {
            let mut object = reply(out, "pong", *id);
            object.number("now", now.0).text_if("cursor", cursor.as_deref());
            object.end();
        }
        ServerFrame::Presence(presence) => {
            let mut object = Object::op(out, "presence");
            write_presence(presence, &mut object);
            object.end();
        }
        ServerFrame::Typing { conversation, user, on } => {
            let mut object = Object::op(out, "typing");
            object.uuid("conversation", &conversation.0).text("user", user.as_str()).boolean("on", *on);
            object.end();
        }
        ServerFrame::Receipt { conversation, user, reached } => {
            let mut object = Object::op(out, "receipt");
            object.uuid("conversation", &conversation.0);
            write_reached(user, *reached, &mut object);
            object.end();
        }
        ServerFrame::Viewed { id, presence, receipts } => write_viewed(*id, presence, receipts, out),
        ServerFrame::Welcome(welcome) => write_welcome(welcome, out),
    }
}

fn write_invisible(on: bool, out: &mut Vec<u8>) {
    let mut object = Object::op(out, "invisible");
    object.boolean("on", on);
    object.end();
}

pub(super) fn write_item(item: &PageItem, out: &mut Vec<u8>) {
    match item {
        PageItem::Amended(event) => write_amended(event, out),
        PageItem::Gap(gap) => write_gap(gap, out),
        PageItem::Member(event) => write_member(event, out),
        PageItem::Message(event) => write_message(event, out),
    }
}

fn write_members_page(id: RequestId, members: &[MemberEntry], retention: Retention, out: &mut Vec<u8>) {
    let mut object = reply(out, "page", id);
    object.list("members", members, |member, out| {
        let mut object = Object::new(out);
        object
            .text("user", member.user.as_str())
            .text("role", member.role.name())
            .number("visible_from", member.visible_from.0);
        object.end();
    });
    if retention != Retention::default() {
        write_retention(retention, &mut object);
    }
    object.end();
}

/// Absent is not set; without members is that all is kept.
pub(super) fn write_retention(Retention { days, last }: Retention, object: &mut Object<'_>) {
    let mut object = object.object("retention");
    object.number_if("days", days.map(u64::from)).number_if("last", last.map(u64::from));
    object.end();
}

fn write_reached(user: &UserId, reached: Reached, object: &mut Object<'_>) {
    let some = |seq: Seq| (seq > Seq(0)).then_some(seq.0);
    object.text("user", user.as_str());
    object.number_if("read", some(reached.read)).number_if("delivered", some(reached.delivered));
}

fn write_viewed(id: RequestId, presence: &[Presence], receipts: &[(UserId, Reached)], out: &mut Vec<u8>) {
    let mut object = reply(out, "ok", id);
    object.list("presence", presence, |presence, out| {
        let mut object = Object::new(out);
        write_presence(presence, &mut object);
        object.end();
    });
    object.list("receipts", receipts, |(user, reached), out| {
        let mut object = Object::new(out);
        write_reached(user, *reached, &mut object);
        object.end();
    });
    object.end();
}

fn write_presence(presence: &Presence, object: &mut Object<'_>) {
    object
        .text("user", presence.user.as_str())
        .boolean("online", presence.online)
        .number_if("last_seen", presence.last_seen.map(|at| at.0));
}

/// Appends the reply to `history` made from records as they are stored.
pub fn encode_page(id: RequestId, items: &[StoredItem<'_>], more: bool, out: &mut Vec<u8>) {
    let mut object = reply(out, "page", id);
    object.list("messages", items, |item, out| match item {
        StoredItem::Gap(gap) => write_gap(gap, out),
        StoredItem::Record(stored) => write_json(stored, out),
    });
    object.boolean("more", more);
    object.end();
}

/// One `message`, `amended` or `member` event made from a record. A record that is none of them becomes a
/// `gap`, so that no sequence is skipped in silence.
pub fn render_json(stored: &Stored<'_>) -> Vec<u8> {
    // Names and envelope take about 256 bytes; the text is most of the payload.
    let mut out = Vec::with_capacity(stored.bytes().len() + 256);
    write_json(stored, &mut out);
    out
}

/// Appends what [`render_json`] makes.
pub fn write_json(stored: &Stored<'_>, out: &mut Vec<u8>) {
    match stored.body {
        StoredBody::Amendment(body) => write_stored_amendment(&stored.portable, body, out),
        StoredBody::Folded(form) => write_stored_form(&stored.portable, form, out),
        StoredBody::Membership(body) => write_stored_membership(&stored.portable, body, out),
        StoredBody::Message(body) => write_stored_message(&stored.portable, body, out),
        StoredBody::Positions(_)
        | StoredBody::Settings(_)
        | StoredBody::Sighting(_)
        | StoredBody::State(_)
        | StoredBody::Taken(_)
        | StoredBody::Unknown => write_gap(&unknown_gap(&stored.portable), out),
    }
}

/// What a reader is told about a record it cannot be shown.
pub(crate) fn unknown_gap(portable: &Portable) -> Gap {
    let (conversation, seq) = (portable.conversation, portable.seq);
    let reason = match portable.schema {
        SCHEMA_ERASED => "erased",
        SCHEMA_GONE => "not kept any more",
        _ => "unknown record",
    };
    Gap { conversation, from: seq, to: seq, reason: reason.to_owned() }
}

fn write_stored_message(portable: &Portable, body: &ArchivedMessageV1, out: &mut Vec<u8>) {
    let mut object = Object::op(out, "message");
    object
        .uuid("conversation", &portable.conversation.0)
        .number("seq", portable.seq.0)
        .uuid("message_id", &body.message_id)
        .text("sender", &text(&body.sender))
        .text("kind", MessageKind::from_number(body.kind).unwrap_or(MessageKind::Text).name())
        .text("text", &text(&body.text))
        .number("at", portable.at.0);
    if !body.media.is_empty() {
        object.text("media", &text(&body.media));
    }
    object.number_if("reply_to", (body.reply_to != 0).then_some(body.reply_to.into()));
    if !body.mentions.is_empty() {
        write_names(&mut object, "mentions", body.mentions.iter());
    }
    object.end();
}

/// A message that was amended. Of a deleted one nothing else is written, whatever the bytes say.
fn write_stored_form(portable: &Portable, form: &ArchivedFormV1, out: &mut Vec<u8>) {
    let is_deleted = form.deleted != 0;
    let content = if is_deleted { Cow::Borrowed("") } else { text(&form.text) };
    let mut object = Object::op(out, "message");
    object
        .uuid("conversation", &portable.conversation.0)
        .number("seq", portable.seq.0)
        .uuid("message_id", &form.message_id)
        .text("sender", &text(&form.sender))
        .text("kind", MessageKind::from_number(form.kind).unwrap_or(MessageKind::Text).name())
        .text("text", &content)
        .number("at", portable.at.0);
    if is_deleted {
        object.boolean("deleted", true);
        return object.end();
    }
    if !form.media.is_empty() {
        object.text("media", &text(&form.media));
    }
    object.number_if("reply_to", (form.reply_to != 0).then_some(form.reply_to.into()));
    if !form.mentions.is_empty() {
        write_names(&mut object, "mentions", form.mentions.iter());
    }
    object.number_if("edited_at", (form.edited_at != 0).then_some(form.edited_at.into()));
    if !form.reactions.is_empty() {
        object.list("reactions", reaction_groups(form), write_group);
    }
    object.end();
}

fn write_stored_amendment(portable: &Portable, body: &ArchivedAmendmentV1, out: &mut Vec<u8>) {
    let mut object = Object::op(out, "amended");
    object
        .uuid("conversation", &portable.conversation.0)
        .number("seq", portable.seq.0)
        .uuid("message_id", &body.message_id)
        .number("at", portable.at.0)
        .text("by", &text(&body.by))
        .number("target", body.target.into());
    let form = &body.form;
    if form.deleted != 0 {
        object.boolean("deleted", true);
    } else if body.change != AmendmentKind::Hidden as u8 {
        object
            .text("text", &text(&form.text))
            .number_if("edited_at", (form.edited_at != 0).then_some(form.edited_at.into()))
            .list("reactions", reaction_groups(form), write_group);
    }
    object.end();
}

fn write_group(group: ReactionGroup<'_>, out: &mut Vec<u8>) {
    let mut object = Object::new(out);
    object.text("emoji", &text(group.emoji)).list("users", group.users, |user, out| {
        super::object::write_text(out, &text(user));
    });
    object.end();
}

fn write_stored_membership(portable: &Portable, body: &ArchivedMembershipV1, out: &mut Vec<u8>) {
    let mut object = Object::op(out, "member");
    object
        .uuid("conversation", &portable.conversation.0)
        .number("seq", portable.seq.0)
        .uuid("message_id", &body.message_id)
        .number("at", portable.at.0)
        .text("by", &text(&body.by));
    if !body.added.is_empty() {
        object.list("added", body.added.iter(), |member: &ArchivedMemberV1, out| {
            super::object::write_text(out, &text(&member.user));
        });
    }
    if !body.removed.is_empty() {
        write_names(&mut object, "removed", body.removed.iter());
    }
    if !body.roles.is_empty() {
        let mut roles = object.object("roles");
        for member in body.roles.iter() {
            roles.text_under(
                &text(&member.user),
                Role::from_number(member.role).unwrap_or(Role::Member).name(),
            );
        }
        roles.end();
    }
    if body.title_set != 0 {
        object.text("title", &text(&body.title));
    }
    if let Some(retention) = Ext::new(&body.ext).retention() {
        write_retention(retention, &mut object);
    }
    object.end();
}

fn write_names<'a>(object: &mut Object<'_>, name: &str, names: impl Iterator<Item = &'a ArchivedNameV1>) {
    object.list(name, names, |item, out| super::object::write_text(out, &text(&item.name)));
}

/// Stored text was checked when it came in; should a disk say otherwise, a reader sees U+FFFD.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

pub(super) fn reply<'o>(out: &'o mut Vec<u8>, op: &'static str, id: RequestId) -> Object<'o> {
    let mut object = Object::op(out, op);
    object.number("id", u64::from(id.0));
    object
}

fn write_welcome(welcome: &Welcome, out: &mut Vec<u8>) {
    let mut object = reply(out, "welcome", welcome.id);
    object
        .text("user", welcome.user.as_str())
        .text("session", &welcome.session)
        .text("store", &welcome.store)
        .text_if("cursor", welcome.cursor.as_deref())
        .number("now", welcome.now.0)
        .number("heartbeat_ms", welcome.heartbeat_ms);
    let mut limits = object.object("limits");
    for (name, value) in welcome.limits.named() {
        limits.number(name, u64::from(value));
    }
    limits.end();
    object.texts("features", welcome.features.iter().map(String::as_str)).boolean("reset", welcome.reset);
    object.end();
}

fn write_ok(ok: &OkReply, out: &mut Vec<u8>) {
    let mut object = reply(out, "ok", ok.id);
    object
        .uuid_if("conversation", ok.conversation.as_ref().map(|id| &id.0))
        .number_if("seq", ok.seq.map(|seq| seq.0))
        .uuid_if("message_id", ok.message_id.as_ref().map(|id| &id.0))
        .number_if("at", ok.at.map(|at| at.0));
    object.end();
}

fn write_error(error: &ErrorReply, out: &mut Vec<u8>) {
    let mut object = Object::op(out, "error");
    object
        .number_if("id", error.id.map(|id| u64::from(id.0)))
        .number("code", u64::from(error.code.code()))
        .text("name", error.code.name())
        .text("message", &error.message)
        .number_if("retry_after_ms", error.retry_after_ms);
    object.end();
}

fn write_message(event: &MessageEvent, out: &mut Vec<u8>) {
    let mut object = Object::op(out, "message");
    object
        .uuid("conversation", &event.conversation.0)
        .number("seq", event.seq.0)
        .uuid("message_id", &event.message_id.0)
        .text("sender", event.sender.as_str())
        .text("kind", event.kind.name())
        .text("text", &event.text)
        .number("at", event.at.0)
        .text_if("media", event.media.as_deref())
        .number_if("reply_to", event.reply_to.map(|seq| seq.0))
        .texts_if("mentions", event.mentions.iter().map(UserId::as_str))
        .number_if("edited_at", event.edited_at.map(|at| at.0));
    if event.deleted {
        object.boolean("deleted", true);
    }
    if !event.reactions.is_empty() {
        object.list("reactions", &event.reactions, write_reaction);
    }
    object.end();
}

fn write_amended(event: &AmendedEvent, out: &mut Vec<u8>) {
    let mut object = Object::op(out, "amended");
    object
        .uuid("conversation", &event.conversation.0)
        .number("seq", event.seq.0)
        .uuid("message_id", &event.message_id.0)
        .number("at", event.at.0)
        .text("by", event.by.as_str())
        .number("target", event.target.0);
    match &event.form {
        AmendedForm::Deleted => {
            object.boolean("deleted", true);
        }
        AmendedForm::Hidden => {}
        AmendedForm::Shown { text, edited_at, reactions } => {
            object.text("text", text).number_if("edited_at", edited_at.map(|at| at.0)).list(
                "reactions",
                reactions,
                write_reaction,
            );
        }
    }
    object.end();
}

fn write_reaction(reaction: &Reaction, out: &mut Vec<u8>) {
    let mut object = Object::new(out);
    object.text("emoji", &reaction.emoji).texts("users", reaction.users.iter().map(UserId::as_str));
    object.end();
}

fn write_member(event: &MemberEvent, out: &mut Vec<u8>) {
    let mut object = Object::op(out, "member");
    object
        .uuid("conversation", &event.conversation.0)
        .number("seq", event.seq.0)
        .uuid("message_id", &event.message_id.0)
        .number("at", event.at.0)
        .text("by", event.by.as_str())
        .texts_if("added", event.added.iter().map(UserId::as_str))
        .texts_if("removed", event.removed.iter().map(UserId::as_str));
    write_roles(&event.roles, &mut object);
    object.text_if("title", event.title.as_deref());
    if let Some(retention) = event.retention {
        write_retention(retention, &mut object);
    }
    object.end();
}

fn write_gap(gap: &Gap, out: &mut Vec<u8>) {
    let mut object = Object::op(out, "gap");
    object
        .uuid("conversation", &gap.conversation.0)
        .number("from", gap.from.0)
        .number("to", gap.to.0)
        .text("reason", &gap.reason);
    object.end();
}

fn write_head(head: &Head, out: &mut Vec<u8>) {
    let mut object = Object::new(out);
    object
        .uuid("conversation", &head.conversation.0)
        .number("head", head.head.0)
        .number("read", head.read.0)
        .number("unread", head.unread);
    object.end();
}
