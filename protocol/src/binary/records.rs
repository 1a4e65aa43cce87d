//! Events that are stored records, both ways: messages and changes of members.
//!
//! A server never writes one from here: it sends the bytes it has stored.

use super::frame::{MEANING, bytes, text, text_if, user};
use crate::{
    command::{MessageKind, Role},
    event::{FrameFault, MemberEvent, MessageEvent, PageItem},
    ids::{MessageId, Seq, UserId},
    json::unknown_gap,
    limits,
    record::{
        ArchivedMemberV1, ArchivedMembershipV1, ArchivedMessageV1, ArchivedNameV1, Body, MemberV1,
        MembershipV1, MessageV1, NameV1, Portable, RecordError, Stored, StoredBody,
    },
};

pub(super) fn message_record(event: &MessageEvent) -> Vec<u8> {
    let body = MessageV1 {
        message_id: event.message_id.0,
        kind: event.kind as u8,
        sender: event.sender.as_bytes().to_vec(),
        text: bytes(&event.text),
        media: bytes(event.media.as_deref().unwrap_or_default()),
        reply_to: event.reply_to.map_or(0, |seq| seq.0),
        mentions: event.mentions.iter().map(NameV1::new).collect(),
        content_hash: 0,
        ext: Vec::new(),
    };
    Body::Message(body).record(event.conversation, event.seq, event.at, 0)
}

pub(super) fn member_record(event: &MemberEvent) -> Vec<u8> {
    let body = MembershipV1 {
        message_id: event.message_id.0,
        by: event.by.as_bytes().to_vec(),
        added: event.added.iter().map(|user| MemberV1::new(user, Role::Member, event.seq)).collect(),
        removed: event.removed.iter().map(NameV1::new).collect(),
        roles: event.roles.iter().map(|(user, role)| MemberV1::new(user, *role, Seq(0))).collect(),
        title_set: u8::from(event.title.is_some()),
        title: bytes(event.title.as_deref().unwrap_or_default()),
        created: 0,
        content_hash: 0,
        ext: Vec::new(),
    };
    Body::Membership(body).record(event.conversation, event.seq, event.at, 0)
}

/// Records one after the other, each padded to 16 bytes; the last one's padding may be missing.
pub(super) fn read_records(mut bytes: &[u8]) -> Result<Vec<PageItem>, FrameFault> {
    let mut items = Vec::new();
    while !bytes.is_empty() {
        let item = match Stored::parse(bytes) {
            Ok(stored) => {
                let padded = stored.portable.padded_bytes().min(bytes.len());
                bytes = &bytes[padded..];
                read_record(&stored)?
            }
            Err(RecordError::Unsupported) => {
                return Err(FrameFault { reason: "a record is of another version" });
            }
            Err(RecordError::Damaged | RecordError::Short) => {
                return Err(FrameFault { reason: "a record is damaged" });
            }
        };
        items.push(item);
    }
    Ok(items)
}

fn read_record(stored: &Stored<'_>) -> Result<PageItem, FrameFault> {
    Ok(match stored.body {
        StoredBody::Membership(body) => PageItem::Member(read_membership(&stored.portable, body)?),
        StoredBody::Message(body) => PageItem::Message(read_message(&stored.portable, body)?),
        StoredBody::State(_) | StoredBody::Unknown => PageItem::Gap(unknown_gap(&stored.portable)),
    })
}

fn read_message(portable: &Portable, body: &ArchivedMessageV1) -> Result<MessageEvent, FrameFault> {
    let reply_to: u64 = body.reply_to.into();
    Ok(MessageEvent {
        conversation: portable.conversation,
        seq: portable.seq,
        message_id: MessageId(body.message_id),
        sender: user(&body.sender)?,
        kind: MessageKind::from_number(body.kind).ok_or(MEANING)?,
        text: text(body.text.to_vec())?,
        at: portable.at,
        media: text_if(body.media.to_vec())?,
        reply_to: (reply_to != 0).then_some(Seq(reply_to)),
        mentions: read_names(&body.mentions)?,
    })
}

fn read_membership(portable: &Portable, body: &ArchivedMembershipV1) -> Result<MemberEvent, FrameFault> {
    let role =
        |member: &ArchivedMemberV1| Ok((user(&member.user)?, Role::from_number(member.role).ok_or(MEANING)?));
    let title = text(body.title.to_vec())?;
    Ok(MemberEvent {
        conversation: portable.conversation,
        seq: portable.seq,
        message_id: MessageId(body.message_id),
        at: portable.at,
        by: user(&body.by)?,
        added: body.added.iter().map(|member| user(&member.user)).collect::<Result<_, _>>()?,
        removed: read_names(&body.removed)?,
        roles: body.roles.iter().map(role).collect::<Result<_, FrameFault>>()?,
        title: (body.title_set != 0).then_some(title),
    })
}

fn read_names(names: &[ArchivedNameV1]) -> Result<Vec<UserId>, FrameFault> {
    names.iter().map(|name| user(&name.name)).collect()
}

const _: () = assert!(limits::RECORD_ALIGN == super::HEADER_BYTES);
