//! The list of a user's conversations, both ways.

use std::borrow::Cow;

use serde::Deserialize;

use super::{
    frame::{reply, write_item, write_json, write_retention},
    frame_read::{Raw, RawRetention, need, read_item},
    object::Object,
    value::Parsed,
};
use crate::{
    command::Retention,
    event::{FrameFault, ListEnd, ListedConversation, ListedKind, PageItem, ServerFrame},
    ids::{ConversationId, RequestId, Seq, UnixMillis, UserId},
    record::StoredListed,
};

/// What a server sends of one conversation, in `heads` or in the list.
#[derive(Deserialize)]
pub(super) struct RawListed<'a> {
    pub(super) conversation: Parsed<ConversationId>,
    pub(super) head: u64,
    pub(super) read: u64,
    pub(super) unread: u64,
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
    title: Option<String>,
    peer: Option<Parsed<UserId>>,
    members_count: Option<u32>,
    muted_until: Option<u64>,
    #[serde(default)]
    blocked: bool,
    retention: Option<RawRetention>,
    #[serde(borrow)]
    last: Option<Box<Raw<'a>>>,
}

pub(super) fn write_list(
    id: RequestId,
    conversations: &[ListedConversation],
    end: &ListEnd,
    out: &mut Vec<u8>,
) {
    write(id, conversations, end, out, |listed, out| {
        write_listed(listed, out, |object| {
            if let Some(last) = &listed.last {
                object.value("last", |out| write_item(last, out));
            }
        });
    });
}

/// Appends the reply to `conversations` made from records as they are stored.
pub fn encode_list(id: RequestId, conversations: &[StoredListed<'_>], end: &ListEnd, out: &mut Vec<u8>) {
    write(id, conversations, end, out, |stored, out| {
        write_listed(stored.listed, out, |object| {
            if let Some(last) = &stored.last {
                object.value("last", |out| write_json(last, out));
            }
        });
    });
}

fn write<T>(
    id: RequestId,
    conversations: &[T],
    end: &ListEnd,
    out: &mut Vec<u8>,
    one: impl FnMut(&T, &mut Vec<u8>),
) {
    let mut object = reply(out, "page", id);
    object.list("conversations", conversations, one);
    object.boolean("more", end.more).text_if("after", end.after.as_deref());
    if end.partial {
        object.boolean("partial", true);
    }
    object.end();
}

fn write_listed(listed: &ListedConversation, out: &mut Vec<u8>, last: impl FnOnce(&mut Object<'_>)) {
    let mut object = Object::new(out);
    object.uuid("conversation", &listed.conversation.0).text("kind", listed.kind.name());
    match &listed.kind {
        ListedKind::Direct { peer } => object.text("peer", peer.as_str()),
        ListedKind::Group { title } => object.text("title", title),
    };
    object
        .number("members_count", u64::from(listed.members_count))
        .number("head", listed.head.0)
        .number("read", listed.read.0)
        .number("unread", listed.unread)
        .number_if("muted_until", listed.muted_until.map(|until| until.0));
    if listed.blocked {
        object.boolean("blocked", true);
    }
    if listed.retention != Retention::default() {
        write_retention(listed.retention, &mut object);
    }
    last(&mut object);
    object.end();
}

pub(super) fn read_list(
    id: RequestId,
    conversations: Vec<RawListed<'_>>,
    end: ListEnd,
) -> Result<ServerFrame, FrameFault> {
    let conversations = conversations.into_iter().map(read_listed).collect::<Result<_, FrameFault>>()?;
    Ok(ServerFrame::Conversations { id, conversations, end })
}

fn read_listed(raw: RawListed<'_>) -> Result<ListedConversation, FrameFault> {
    let kind = match &*need(raw.kind)? {
        ListedKind::DIRECT => ListedKind::Direct { peer: need(raw.peer)?.0 },
        ListedKind::GROUP => ListedKind::Group { title: need(raw.title)? },
        _ => return Err(FrameFault { reason: "the page holds a conversation of an unknown kind" }),
    };
    let last: Option<PageItem> = raw.last.map(|last| read_item(*last)).transpose()?;
    Ok(ListedConversation {
        conversation: raw.conversation.0,
        kind,
        members_count: need(raw.members_count)?,
        head: Seq(raw.head),
        read: Seq(raw.read),
        unread: raw.unread,
        blocked: raw.blocked,
        retention: raw.retention.map(RawRetention::read).unwrap_or_default(),
        muted_until: raw.muted_until.map(UnixMillis),
        last,
    })
}
