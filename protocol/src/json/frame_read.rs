//! What a server sent, read by a client from JSON. Unknown fields are ignored.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;

use super::conversations::{RawListed, read_list};
use super::found::{RawHit, read_found};
use super::value::Parsed;
use crate::{
    command::{MessageKind, Retention, Role},
    event::{
        AmendedEvent, AmendedForm, ErrorCode, ErrorReply, FoundEnd, FrameFault, Gap, Head, ListEnd,
        MemberEntry, MemberEvent, MessageEvent, OkReply, PageItem, Presence, Reached, Reaction, ServerFrame,
        Welcome, WireLimits,
    },
    ids::{ConversationId, MessageId, RequestId, Seq, UnixMillis, UserId},
};

/// All fields any frame may have.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Raw<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
    added: Vec<Parsed<UserId>>,
    at: Option<u64>,
    before: Option<String>,
    by: Option<Parsed<UserId>>,
    code: Option<u16>,
    conversation: Option<Parsed<ConversationId>>,
    #[serde(borrow)]
    conversations: Option<Vec<RawListed<'a>>>,
    after: Option<String>,
    #[serde(borrow)]
    cursor: Option<Cow<'a, str>>,
    deleted: bool,
    delivered: Option<u64>,
    edited_at: Option<u64>,
    features: Vec<String>,
    from: Option<u64>,
    heartbeat_ms: Option<u64>,
    hits: Option<Vec<RawHit>>,
    id: Option<u64>,
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
    last_seen: Option<u64>,
    limits: Option<BTreeMap<String, serde_json::Value>>,
    media: Option<String>,
    members: Option<Vec<RawMember<'a>>>,
    mentions: Vec<Parsed<UserId>>,
    message: Option<String>,
    message_id: Option<Parsed<MessageId>>,
    #[serde(borrow)]
    messages: Option<Vec<Raw<'a>>>,
    more: bool,
    now: Option<u64>,
    on: Option<bool>,
    online: Option<bool>,
    partial: bool,
    presence: Option<Vec<RawPresence>>,
    read: Option<u64>,
    receipts: Vec<RawReceipt>,
    reactions: Vec<RawReaction>,
    reason: String,
    reconnect_in_ms: Option<u64>,
    removed: Vec<Parsed<UserId>>,
    reply_to: Option<u64>,
    reset: bool,
    retention: Option<RawRetention>,
    retry_after_ms: Option<u64>,
    roles: Option<super::value::Roles>,
    sender: Option<Parsed<UserId>>,
    seq: Option<u64>,
    session: Option<String>,
    store: Option<String>,
    target: Option<u64>,
    text: Option<String>,
    title: Option<String>,
    to: Option<u64>,
    user: Option<Parsed<UserId>>,
}

#[derive(Clone, Copy, Deserialize)]
pub(super) struct RawRetention {
    days: Option<u32>,
    last: Option<u32>,
}

impl RawRetention {
    pub(super) const fn read(self) -> Retention {
        Retention { days: self.days, last: self.last }
    }
}

#[derive(Deserialize)]
struct RawReaction {
    emoji: String,
    users: Vec<Parsed<UserId>>,
}

#[derive(Deserialize)]
struct RawReceipt {
    user: Parsed<UserId>,
    #[serde(default)]
    read: u64,
    #[serde(default)]
    delivered: u64,
}

#[derive(Deserialize)]
struct RawPresence {
    user: Parsed<UserId>,
    online: bool,
    last_seen: Option<u64>,
}

#[derive(Deserialize)]
struct RawMember<'a> {
    user: Parsed<UserId>,
    #[serde(borrow)]
    role: Cow<'a, str>,
    visible_from: u64,
}

/// Reads one frame. A frame of an operation this client does not know is `Ok(None)`: the protocol lets
/// servers add events.
pub fn decode_frame(text: &str) -> Result<Option<ServerFrame>, FrameFault> {
    let raw: Raw<'_> = serde_json::from_str(text)
        .map_err(|_| FrameFault { reason: "the frame is not a JSON object of the protocol" })?;
    let frame = match &*raw.op {
        "amended" => ServerFrame::Amended(read_amended(raw)?),
        "caught_up" => ServerFrame::CaughtUp { cursor: cursor(&raw)?, partial: raw.partial },
        "cursor" => ServerFrame::Cursor { cursor: cursor(&raw)? },
        "drain" => {
            ServerFrame::Drain { reconnect_in_ms: need(raw.reconnect_in_ms)?, reason: raw.reason.clone() }
        }
        "error" => ServerFrame::Error(read_error(&raw)?),
        "gap" => ServerFrame::Gap(read_gap(&raw)?),
        "heads" => read_heads(&raw)?,
        "invisible" => ServerFrame::Invisible { on: need(raw.on)? },
        "member" => ServerFrame::Member(read_member(raw)?),
        "message" => ServerFrame::Message(read_message(raw)?),
        "ok" if raw.presence.is_some() => read_viewed(raw)?,
        "ok" => ServerFrame::Ok(OkReply {
            id: request_id(&raw)?,
            conversation: raw.conversation.map(|id| id.0),
            seq: raw.seq.map(Seq),
            message_id: raw.message_id.map(|id| id.0),
            at: raw.at.map(UnixMillis),
        }),
        "page" => read_page(raw)?,
        "pong" => ServerFrame::Pong {
            id: request_id(&raw)?,
            now: UnixMillis(need(raw.now)?),
            cursor: raw.cursor.map(Cow::into_owned),
        },
        "presence" => ServerFrame::Presence(Presence {
            user: need(raw.user)?.0,
            online: need(raw.online)?,
            last_seen: raw.last_seen.map(UnixMillis),
        }),
        "receipt" => ServerFrame::Receipt {
            conversation: need(raw.conversation)?.0,
            user: need(raw.user)?.0,
            reached: Reached {
                read: Seq(raw.read.unwrap_or_default()),
                delivered: Seq(raw.delivered.unwrap_or_default()),
            },
        },
        "typing" => ServerFrame::Typing {
            conversation: need(raw.conversation)?.0,
            user: need(raw.user)?.0,
            on: need(raw.on)?,
        },
        "welcome" => ServerFrame::Welcome(Box::new(read_welcome(raw)?)),
        "" => return Err(FrameFault { reason: "the frame has no op" }),
        _ => return Ok(None),
    };
    Ok(Some(frame))
}

pub(super) fn need<T>(value: Option<T>) -> Result<T, FrameFault> {
    value.ok_or(FrameFault { reason: "the frame lacks a field" })
}

fn request_id(raw: &Raw<'_>) -> Result<RequestId, FrameFault> {
    need(raw.id.and_then(RequestId::new))
}

fn cursor(raw: &Raw<'_>) -> Result<String, FrameFault> {
    need(raw.cursor.as_deref().map(str::to_owned))
}

fn users(list: Vec<Parsed<UserId>>) -> Vec<UserId> {
    list.into_iter().map(|user| user.0).collect()
}

fn reactions(list: Vec<RawReaction>) -> Vec<Reaction> {
    list.into_iter().map(|raw| Reaction { emoji: raw.emoji, users: users(raw.users) }).collect()
}

fn read_amended(raw: Raw<'_>) -> Result<AmendedEvent, FrameFault> {
    Ok(AmendedEvent {
        conversation: need(raw.conversation)?.0,
        seq: Seq(need(raw.seq)?),
        message_id: need(raw.message_id)?.0,
        at: UnixMillis(need(raw.at)?),
        by: need(raw.by)?.0,
        target: Seq(need(raw.target)?),
        form: match raw.text {
            _ if raw.deleted => AmendedForm::Deleted,
            None => AmendedForm::Hidden,
            Some(text) => {
                let (edited_at, reactions) = (raw.edited_at.map(UnixMillis), reactions(raw.reactions));
                AmendedForm::Shown { text, edited_at, reactions }
            }
        },
    })
}

fn read_error(raw: &Raw<'_>) -> Result<ErrorReply, FrameFault> {
    Ok(ErrorReply {
        id: raw.id.and_then(RequestId::new),
        code: need(raw.code.and_then(ErrorCode::from_code))?,
        message: raw.message.clone().unwrap_or_default(),
        retry_after_ms: raw.retry_after_ms,
    })
}

fn read_gap(raw: &Raw<'_>) -> Result<Gap, FrameFault> {
    Ok(Gap {
        conversation: need(raw.conversation.as_ref())?.0,
        from: Seq(need(raw.from)?),
        to: Seq(need(raw.to)?),
        reason: raw.reason.clone(),
    })
}

fn read_heads(raw: &Raw<'_>) -> Result<ServerFrame, FrameFault> {
    let conversations = need(raw.conversations.as_ref())?
        .iter()
        .map(|head| Head {
            conversation: head.conversation.0,
            head: Seq(head.head),
            read: Seq(head.read),
            unread: head.unread,
        })
        .collect();
    Ok(ServerFrame::Heads { conversations, more: raw.more })
}

fn read_member(raw: Raw<'_>) -> Result<MemberEvent, FrameFault> {
    Ok(MemberEvent {
        conversation: need(raw.conversation)?.0,
        seq: Seq(need(raw.seq)?),
        message_id: need(raw.message_id)?.0,
        at: UnixMillis(need(raw.at)?),
        by: need(raw.by)?.0,
        added: users(raw.added),
        removed: users(raw.removed),
        roles: raw.roles.map_or(Ok(Vec::new()), |roles| need(roles.0.ok()))?,
        title: raw.title,
        retention: raw.retention.map(RawRetention::read),
    })
}

fn read_message(raw: Raw<'_>) -> Result<MessageEvent, FrameFault> {
    Ok(MessageEvent {
        conversation: need(raw.conversation)?.0,
        seq: Seq(need(raw.seq)?),
        message_id: need(raw.message_id)?.0,
        sender: need(raw.sender)?.0,
        kind: need(raw.kind.as_deref().and_then(MessageKind::from_name))?,
        text: need(raw.text)?,
        at: UnixMillis(need(raw.at)?),
        media: raw.media,
        reply_to: raw.reply_to.map(Seq),
        mentions: users(raw.mentions),
        edited_at: raw.edited_at.map(UnixMillis),
        deleted: raw.deleted,
        reactions: reactions(raw.reactions),
    })
}

fn read_page(raw: Raw<'_>) -> Result<ServerFrame, FrameFault> {
    let id = request_id(&raw)?;
    if let Some(members) = raw.members {
        let entry = |member: RawMember<'_>| {
            Ok(MemberEntry {
                user: member.user.0,
                role: need(Role::from_name(&member.role))?,
                visible_from: Seq(member.visible_from),
            })
        };
        let members = members.into_iter().map(entry).collect::<Result<_, FrameFault>>()?;
        let retention = raw.retention.map(RawRetention::read).unwrap_or_default();
        return Ok(ServerFrame::MembersPage { id, members, retention });
    }
    let more = raw.more;
    if let Some(conversations) = raw.conversations {
        return read_list(id, conversations, ListEnd { more, after: raw.after, partial: raw.partial });
    }
    if let Some(hits) = raw.hits {
        return Ok(read_found(id, hits, FoundEnd { more, before: raw.before, partial: raw.partial }));
    }
    let messages = need(raw.messages)?.into_iter().map(read_item).collect::<Result<_, FrameFault>>()?;
    Ok(ServerFrame::Page { id, messages, more })
}

pub(super) fn read_item(raw: Raw<'_>) -> Result<PageItem, FrameFault> {
    match &*raw.op {
        "amended" => Ok(PageItem::Amended(read_amended(raw)?)),
        "gap" => Ok(PageItem::Gap(read_gap(&raw)?)),
        "member" => Ok(PageItem::Member(read_member(raw)?)),
        "message" => Ok(PageItem::Message(read_message(raw)?)),
        _ => Err(FrameFault { reason: "the page holds an unknown item" }),
    }
}

fn read_viewed(raw: Raw<'_>) -> Result<ServerFrame, FrameFault> {
    let id = request_id(&raw)?;
    let one = |raw: RawPresence| {
        let RawPresence { user, online, last_seen } = raw;
        Presence { user: user.0, online, last_seen: last_seen.map(UnixMillis) }
    };
    let reached =
        |receipt: &RawReceipt| Reached { read: Seq(receipt.read), delivered: Seq(receipt.delivered) };
    let receipts = raw.receipts.iter().map(|receipt| (receipt.user.0.clone(), reached(receipt))).collect();
    Ok(ServerFrame::Viewed { id, presence: need(raw.presence)?.into_iter().map(one).collect(), receipts })
}

fn read_welcome(raw: Raw<'_>) -> Result<Welcome, FrameFault> {
    let id = request_id(&raw)?;
    let mut limits = WireLimits::default();
    for (name, value) in raw.limits.unwrap_or_default() {
        let value = value.as_u64().and_then(|value| u32::try_from(value).ok());
        if let (Some(value), Some(slot)) = (value, limits.slot(&name)) {
            *slot = value;
        }
    }
    Ok(Welcome {
        id,
        user: need(raw.user)?.0,
        session: need(raw.session)?,
        store: need(raw.store)?,
        cursor: raw.cursor.map(Cow::into_owned),
        now: UnixMillis(need(raw.now)?),
        heartbeat_ms: need(raw.heartbeat_ms)?,
        limits,
        features: raw.features,
        reset: raw.reset,
    })
}
