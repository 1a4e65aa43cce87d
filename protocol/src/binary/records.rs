//! Events that are stored records, both ways: messages, what amends them, and changes of members.
//!
//! A server never writes one from here: it sends the bytes it has stored.

use super::frame::{MEANING, bytes, text, text_if, user};
use crate::{
    command::{MessageKind, Role},
    event::{AmendedEvent, AmendedForm, FrameFault, MemberEvent, MessageEvent, PageItem, Reaction},
    ids::{MessageId, Seq, UnixMillis, UserId},
    json::unknown_gap,
    limits,
    record::{
        AmendmentKind, AmendmentV1, ArchivedAmendmentV1, ArchivedFormV1, ArchivedMemberV1,
        ArchivedMembershipV1, ArchivedMessageV1, ArchivedNameV1, Body, Ext, FormV1, MemberV1, MembershipV1,
        MessageV1, NameV1, Portable, ReactionV1, RecordError, Stored, StoredBody, reaction_groups,
    },
};

pub(super) fn message_record(event: &MessageEvent) -> Vec<u8> {
    if event.deleted || event.edited_at.is_some() || !event.reactions.is_empty() {
        return folded_record(event);
    }
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

fn folded_record(event: &MessageEvent) -> Vec<u8> {
    let form = FormV1 {
        message_id: event.message_id.0,
        kind: event.kind as u8,
        sender: event.sender.as_bytes().to_vec(),
        text: bytes(&event.text),
        media: bytes(event.media.as_deref().unwrap_or_default()),
        reply_to: event.reply_to.map_or(0, |seq| seq.0),
        mentions: event.mentions.iter().map(NameV1::new).collect(),
        at: event.at.0,
        edited_at: event.edited_at.map_or(0, |at| at.0),
        deleted: u8::from(event.deleted),
        reactions: reactions(&event.reactions),
        ext: Vec::new(),
    };
    let body = AmendmentV1 {
        message_id: event.message_id.0,
        by: form.sender.clone(),
        change: if event.deleted { AmendmentKind::Delete } else { AmendmentKind::Edit } as u8,
        target: event.seq.0,
        form,
        ..AmendmentV1::default()
    };
    Body::Amendment(body).record(event.conversation, event.seq, event.at, 0)
}

pub(super) fn amended_record(event: &AmendedEvent) -> Vec<u8> {
    let (change, form) = match &event.form {
        AmendedForm::Deleted => (AmendmentKind::Delete, FormV1 { deleted: 1, ..FormV1::default() }),
        AmendedForm::Hidden => (AmendmentKind::Hidden, FormV1::default()),
        AmendedForm::Shown { text, edited_at, reactions } => {
            let (text, reactions) = (bytes(text), self::reactions(reactions));
            let edited_at = edited_at.map_or(0, |at| at.0);
            (AmendmentKind::Edit, FormV1 { text, edited_at, reactions, ..FormV1::default() })
        }
    };
    let body = AmendmentV1 {
        message_id: event.message_id.0,
        by: event.by.as_bytes().to_vec(),
        change: change as u8,
        target: event.target.0,
        form,
        ..AmendmentV1::default()
    };
    Body::Amendment(body).record(event.conversation, event.seq, event.at, 0)
}

fn reactions(groups: &[Reaction]) -> Vec<ReactionV1> {
    let of_group = |group: &Reaction| {
        let emoji = group.emoji.clone();
        group.users.clone().into_iter().map(move |user| ReactionV1::new(&user, &emoji))
    };
    groups.iter().flat_map(of_group).collect()
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
        ext: Ext::default().with_retention(event.retention),
    };
    Body::Membership(body).record(event.conversation, event.seq, event.at, 0)
}

/// The record that an item of a page is; none of a gap.
pub(super) fn item_record(item: &PageItem) -> Option<Vec<u8>> {
    match item {
        PageItem::Amended(event) => Some(amended_record(event)),
        PageItem::Gap(_) => None,
        PageItem::Member(event) => Some(member_record(event)),
        PageItem::Message(event) => Some(message_record(event)),
    }
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
        StoredBody::Amendment(body) => PageItem::Amended(read_amendment(&stored.portable, body)?),
        StoredBody::Folded(form) => PageItem::Message(read_form(&stored.portable, form)?),
        StoredBody::Membership(body) => PageItem::Member(read_membership(&stored.portable, body)?),
        StoredBody::Message(body) => PageItem::Message(read_message(&stored.portable, body)?),
        StoredBody::Positions(_)
        | StoredBody::Settings(_)
        | StoredBody::Sighting(_)
        | StoredBody::State(_)
        | StoredBody::Taken(_)
        | StoredBody::Unknown => PageItem::Gap(unknown_gap(&stored.portable)),
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
        edited_at: None,
        deleted: false,
        reactions: Vec::new(),
    })
}

/// Of a deleted message nothing is taken but that, as in JSON.
fn read_form(portable: &Portable, form: &ArchivedFormV1) -> Result<MessageEvent, FrameFault> {
    let event = MessageEvent {
        conversation: portable.conversation,
        seq: portable.seq,
        message_id: MessageId(form.message_id),
        sender: user(&form.sender)?,
        kind: MessageKind::from_number(form.kind).ok_or(MEANING)?,
        text: String::new(),
        at: portable.at,
        media: None,
        reply_to: None,
        mentions: Vec::new(),
        edited_at: None,
        deleted: form.deleted != 0,
        reactions: Vec::new(),
    };
    if event.deleted {
        return Ok(event);
    }
    let reply_to: u64 = form.reply_to.into();
    Ok(MessageEvent {
        text: text(form.text.to_vec())?,
        media: text_if(form.media.to_vec())?,
        reply_to: (reply_to != 0).then_some(Seq(reply_to)),
        mentions: read_names(&form.mentions)?,
        edited_at: read_edited_at(form),
        reactions: read_reactions(form)?,
        ..event
    })
}

fn read_amendment(portable: &Portable, body: &ArchivedAmendmentV1) -> Result<AmendedEvent, FrameFault> {
    let form = &body.form;
    Ok(AmendedEvent {
        conversation: portable.conversation,
        seq: portable.seq,
        message_id: MessageId(body.message_id),
        at: portable.at,
        by: user(&body.by)?,
        target: Seq(body.target.into()),
        form: if form.deleted != 0 {
            AmendedForm::Deleted
        } else if body.change == AmendmentKind::Hidden as u8 {
            AmendedForm::Hidden
        } else {
            let (text, edited_at) = (text(form.text.to_vec())?, read_edited_at(form));
            AmendedForm::Shown { text, edited_at, reactions: read_reactions(form)? }
        },
    })
}

fn read_edited_at(form: &ArchivedFormV1) -> Option<UnixMillis> {
    let at: u64 = form.edited_at.into();
    (at != 0).then_some(UnixMillis(at))
}

fn read_reactions(form: &ArchivedFormV1) -> Result<Vec<Reaction>, FrameFault> {
    let groups = reaction_groups(form).into_iter().map(|group| {
        let users = group.users.into_iter().map(user).collect::<Result<_, _>>()?;
        Ok(Reaction { emoji: text(group.emoji.to_vec())?, users })
    });
    groups.collect()
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
        retention: Ext::new(&body.ext).retention(),
    })
}

fn read_names(names: &[ArchivedNameV1]) -> Result<Vec<UserId>, FrameFault> {
    names.iter().map(|name| user(&name.name)).collect()
}

const _: () = assert!(limits::RECORD_ALIGN == super::HEADER_BYTES);
