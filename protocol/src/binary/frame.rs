//! What a server sends in the binary form, both ways.

use super::{
    conversations::{read_list, write_list},
    found::{read_found, write_found},
    op,
    payload::{
        CaughtUpV1, CursorV1, DrainV1, ErrorV1, GapV1, HeadV1, HeadsV1, InvisibleV1, IsTypingV1, LimitsV1,
        MembersPageV1, OkV1, PageV1, PongV1, PresenceV1, ReadByV1, ReceiptV1, RetentionV1, ViewedV1,
        WelcomeV1,
    },
    read, read_header,
    records::{amended_record, item_record, member_record, message_record, read_records},
    write,
};
use crate::{
    command::{Retention, Role},
    event::{
        ErrorCode, ErrorReply, FrameFault, Gap, Head, MemberEntry, OkReply, PageItem, Presence, Reached,
        ServerFrame, Welcome, WireLimits,
    },
    ids::{ConversationId, MessageId, RequestId, Seq, UnixMillis, UserId},
    record::{MemberV1, NameV1, Portable, RecordError, StoredItem},
};

/// Appends `frame`.
///
/// Messages, amendments and membership events become records here, without what only the store knows (their message
/// count and content hash are 0): for tests and simulators. A server sends the bytes it has stored.
pub fn encode_frame(frame: &ServerFrame, out: &mut Vec<u8>) {
    match frame {
        ServerFrame::Amended(event) => out.extend_from_slice(&amended_record(event)),
        ServerFrame::Conversations { id, conversations, end } => write_list(*id, conversations, end, out),
        ServerFrame::CaughtUp { cursor, partial } => {
            let payload = CaughtUpV1 { cursor: bytes(cursor), partial: u8::from(*partial) };
            write(op::CAUGHT_UP, 0, &payload, out);
        }
        ServerFrame::Cursor { cursor } => write(op::CURSOR, 0, &CursorV1 { cursor: bytes(cursor) }, out),
        ServerFrame::Drain { reconnect_in_ms, reason } => {
            let payload = DrainV1 { reconnect_in_ms: *reconnect_in_ms, reason: bytes(reason) };
            write(op::DRAIN, 0, &payload, out);
        }
        ServerFrame::Error(error) => {
            let payload = ErrorV1 {
                code: error.code.code(),
                message: bytes(&error.message),
                retry_after_ms: error.retry_after_ms.unwrap_or(0),
            };
            write(op::ERROR, error.id.map_or(0, |id| id.0), &payload, out);
        }
        ServerFrame::Found { id, hits, end } => write_found(*id, hits, end, out),
        ServerFrame::Gap(gap) => write(op::GAP, 0, &gap_payload(gap), out),
        ServerFrame::Heads { conversations, more } => {
            let conversations = conversations.iter().map(head_payload).collect();
            write(op::HEADS, 0, &HeadsV1 { conversations, more: u8::from(*more) }, out);
        }
        ServerFrame::Invisible { on } => write(op::IS_INVISIBLE, 0, &invisible_payload(*on), out),
        ServerFrame::Member(event) => out.extend_from_slice(&member_record(event)),
        ServerFrame::MembersPage { id, members, retention } => {
            write(op::MEMBERS_PAGE, id.0, &members_payload(members, *retention), out);
        }
        ServerFrame::Message(event) => out.extend_from_slice(&message_record(event)),
        ServerFrame::Ok(ok) => {
            let payload = OkV1 {
                conversation: ok.conversation.map_or(NO_ID, |id| id.0),
                seq: ok.seq.map_or(0, |seq| seq.0),
                message_id: ok.message_id.map_or(NO_ID, |id| id.0),
                at: ok.at.map_or(0, |at| at.0),
            };
            write(op::OK, ok.id.0, &payload, out);
        }
        ServerFrame::Page { id, messages, more } => write_page(*id, messages, *more, out),
        ServerFrame::Pong { id, now, cursor } => {
            let payload = PongV1 { now: now.0, cursor: bytes(cursor.as_deref().unwrap_or_default()) };
            write(op::PONG, id.0, &payload, out);
        }
        ServerFrame::Presence(presence) => write(op::PRESENCE, 0, &presence_payload(presence), out),
        ServerFrame::Typing { conversation, user, on } => {
            let (user, on) = (bytes(user.as_str()), u8::from(*on));
            write(op::IS_TYPING, 0, &IsTypingV1 { conversation: conversation.0, user, on }, out);
        }
        ServerFrame::Receipt { conversation, user, reached } => {
            write(op::RECEIPT, 0, &receipt_payload(*conversation, user, *reached), out);
        }
        ServerFrame::Viewed { id, presence, receipts } => {
            let presence = presence.iter().map(presence_payload).collect();
            let read = receipts.iter().map(|(user, reached)| {
                let (user, seq, delivered) = (bytes(user.as_str()), reached.read.0, reached.delivered.0);
                ReadByV1 { user, seq, delivered }
            });
            let read = read.collect();
            write(op::VIEWED, id.0, &ViewedV1 { presence, read }, out);
        }
        ServerFrame::Welcome(welcome) => write_welcome(welcome, out),
    }
}

fn write_page(id: RequestId, messages: &[PageItem], more: bool, out: &mut Vec<u8>) {
    let mut page = PageV1 { records: Vec::new(), gaps: Vec::new(), more: u8::from(more) };
    for item in messages {
        match item {
            PageItem::Gap(gap) => page.gaps.push(gap_payload(gap)),
            record => page.records.extend(item_record(record).into_iter().flatten()),
        }
    }
    write(op::PAGE, id.0, &page, out);
}

/// Appends the reply to `history` made from records as they are stored.
pub fn encode_page(id: RequestId, items: &[StoredItem<'_>], more: bool, out: &mut Vec<u8>) {
    let mut page = PageV1 { records: Vec::new(), gaps: Vec::new(), more: u8::from(more) };
    for item in items {
        match item {
            StoredItem::Gap(gap) => page.gaps.push(gap_payload(gap)),
            StoredItem::Record(stored) => stored.write_padded(&mut page.records),
        }
    }
    write(op::PAGE, id.0, &page, out);
}

/// 16 zero bytes: no id.
const NO_ID: [u8; 16] = [0; 16];

pub(super) fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn gap_payload(gap: &Gap) -> GapV1 {
    let Gap { conversation, from, to, reason } = gap;
    GapV1 { conversation: conversation.0, from: from.0, to: to.0, reason: bytes(reason) }
}

fn members_payload(members: &[MemberEntry], retention: Retention) -> MembersPageV1 {
    let member = |entry: &MemberEntry| MemberV1::new(&entry.user, entry.role, entry.visible_from);
    MembersPageV1 { members: members.iter().map(member).collect(), retention: RetentionV1::of(retention) }
}

fn invisible_payload(on: bool) -> InvisibleV1 {
    InvisibleV1 { on: u8::from(on) }
}

fn receipt_payload(conversation: ConversationId, user: &UserId, reached: Reached) -> ReceiptV1 {
    let (read, delivered) = (reached.read.0, reached.delivered.0);
    ReceiptV1 { conversation: conversation.0, user: bytes(user.as_str()), read, delivered }
}

fn presence_payload(presence: &Presence) -> PresenceV1 {
    PresenceV1 {
        user: bytes(presence.user.as_str()),
        online: u8::from(presence.online),
        last_seen: presence.last_seen.map_or(0, |at| at.0),
    }
}

fn head_payload(head: &Head) -> HeadV1 {
    HeadV1 { conversation: head.conversation.0, head: head.head.0, read: head.read.0, unread: head.unread }
}

fn write_welcome(welcome: &Welcome, out: &mut Vec<u8>) {
    let WireLimits {
        frame_bytes,
        text_bytes,
        page_bytes,
        history_items,
        members,
        title_bytes,
        commands_in_flight,
        positions,
        mentions,
        conversations,
    } = welcome.limits;
    let payload = WelcomeV1 {
        user: welcome.user.as_bytes().to_vec(),
        session: bytes(&welcome.session),
        store: bytes(&welcome.store),
        cursor: bytes(welcome.cursor.as_deref().unwrap_or_default()),
        now: welcome.now.0,
        heartbeat_ms: welcome.heartbeat_ms,
        limits: LimitsV1 {
            frame_bytes,
            text_bytes,
            page_bytes,
            history_items,
            members,
            title_bytes,
            commands_in_flight,
            positions,
            mentions,
            conversations,
        },
        features: welcome.features.iter().map(|feature| NameV1 { name: bytes(feature) }).collect(),
        reset: u8::from(welcome.reset),
    };
    write(op::WELCOME, welcome.id.0, &payload, out);
}

/// Reads one binary WebSocket message of a server: one frame, or any number of records. Appends what it
/// holds to `frames`, in order; frames of operations this client does not know are left out.
pub fn decode_frames(bytes: &[u8], frames: &mut Vec<ServerFrame>) -> Result<(), FrameFault> {
    if Portable::parse(bytes) != Err(RecordError::Damaged)
        && Portable::parse(bytes) != Err(RecordError::Short)
    {
        for item in read_records(bytes)? {
            frames.push(match item {
                PageItem::Amended(event) => ServerFrame::Amended(event),
                PageItem::Gap(gap) => ServerFrame::Gap(gap),
                PageItem::Member(event) => ServerFrame::Member(event),
                PageItem::Message(event) => ServerFrame::Message(event),
            });
        }
        return Ok(());
    }
    let header = read_header(bytes).map_err(|_| FrameFault { reason: "the frame has no header of ours" })?;
    let id = RequestId::new(u64::from(header.id));
    frames.extend(decode_frame(header.op, id, header.payload)?);
    Ok(())
}

fn decode_frame(op: u8, id: Option<RequestId>, payload: &[u8]) -> Result<Option<ServerFrame>, FrameFault> {
    let answered = id.ok_or(FrameFault { reason: "the reply has no id" });
    let frame = match op {
        op::CAUGHT_UP => {
            let CaughtUpV1 { cursor, partial } = shape(read(payload))?;
            ServerFrame::CaughtUp { cursor: text(cursor)?, partial: partial != 0 }
        }
        op::CURSOR => {
            let CursorV1 { cursor } = shape(read(payload))?;
            ServerFrame::Cursor { cursor: text(cursor)? }
        }
        op::DRAIN => {
            let DrainV1 { reconnect_in_ms, reason } = shape(read(payload))?;
            ServerFrame::Drain { reconnect_in_ms, reason: text(reason)? }
        }
        op::ERROR => {
            let raw: ErrorV1 = shape(read(payload))?;
            ServerFrame::Error(ErrorReply {
                id,
                code: ErrorCode::from_code(raw.code).ok_or(MEANING)?,
                message: text(raw.message)?,
                retry_after_ms: (raw.retry_after_ms != 0).then_some(raw.retry_after_ms),
            })
        }
        op::FOUND => read_found(answered?, shape(read(payload))?)?,
        op::GAP => ServerFrame::Gap(read_gap(shape(read(payload))?)?),
        op::HEADS => {
            let HeadsV1 { conversations, more } = shape(read(payload))?;
            ServerFrame::Heads {
                conversations: conversations.iter().map(read_head).collect(),
                more: more != 0,
            }
        }
        op::IS_INVISIBLE => read_invisible(&shape(read(payload))?),
        op::LIST_PAGE => read_list(answered?, shape(read(payload))?)?,
        op::MEMBERS_PAGE => {
            let MembersPageV1 { members, retention } = shape(read(payload))?;
            let members = members.iter().map(read_entry).collect::<Result<_, _>>()?;
            ServerFrame::MembersPage { id: answered?, members, retention: retention.read() }
        }
        op::OK => {
            let raw: OkV1 = shape(read(payload))?;
            ServerFrame::Ok(OkReply {
                id: answered?,
                conversation: (raw.conversation != NO_ID).then_some(ConversationId(raw.conversation)),
                seq: (raw.seq != 0).then_some(Seq(raw.seq)),
                message_id: (raw.message_id != NO_ID).then_some(MessageId(raw.message_id)),
                at: (raw.at != 0).then_some(UnixMillis(raw.at)),
            })
        }
        op::PAGE => read_page(answered?, shape(read(payload))?)?,
        op::PONG => {
            let PongV1 { now, cursor } = shape(read(payload))?;
            ServerFrame::Pong { id: answered?, now: UnixMillis(now), cursor: text_if(cursor)? }
        }
        op::PRESENCE => ServerFrame::Presence(read_presence(&shape(read(payload))?)?),
        op::IS_TYPING => {
            let raw: IsTypingV1 = shape(read(payload))?;
            let conversation = ConversationId(raw.conversation);
            ServerFrame::Typing { conversation, user: user(&raw.user)?, on: raw.on != 0 }
        }
        op::RECEIPT => read_receipt(&shape(read(payload))?)?,
        op::VIEWED => read_viewed(answered?, &shape(read(payload))?)?,
        op::WELCOME => ServerFrame::Welcome(Box::new(read_welcome(answered?, shape(read(payload))?)?)),
        _ => return Ok(None),
    };
    Ok(Some(frame))
}

pub(super) const MEANING: FrameFault = FrameFault { reason: "the payload holds a value of no meaning" };

fn shape<T>(value: Option<T>) -> Result<T, FrameFault> {
    value.ok_or(FrameFault { reason: "the payload is not one of this op" })
}

pub(super) fn text(bytes: Vec<u8>) -> Result<String, FrameFault> {
    String::from_utf8(bytes).map_err(|_| FrameFault { reason: "a text is not UTF-8" })
}

pub(super) fn text_if(bytes: Vec<u8>) -> Result<Option<String>, FrameFault> {
    if bytes.is_empty() { Ok(None) } else { text(bytes).map(Some) }
}

pub(super) fn user(bytes: &[u8]) -> Result<UserId, FrameFault> {
    str::from_utf8(bytes).ok().and_then(|text| UserId::new(text).ok()).ok_or(MEANING)
}

fn read_gap(raw: GapV1) -> Result<Gap, FrameFault> {
    let reason = text(raw.reason)?;
    Ok(Gap { conversation: ConversationId(raw.conversation), from: Seq(raw.from), to: Seq(raw.to), reason })
}

fn read_invisible(raw: &InvisibleV1) -> ServerFrame {
    ServerFrame::Invisible { on: raw.on != 0 }
}

fn read_receipt(raw: &ReceiptV1) -> Result<ServerFrame, FrameFault> {
    let conversation = ConversationId(raw.conversation);
    let reached = Reached { read: Seq(raw.read), delivered: Seq(raw.delivered) };
    Ok(ServerFrame::Receipt { conversation, user: user(&raw.user)?, reached })
}

fn read_viewed(id: RequestId, raw: &ViewedV1) -> Result<ServerFrame, FrameFault> {
    let presence = raw.presence.iter().map(read_presence).collect::<Result<_, _>>()?;
    let receipts = raw.read.iter().map(|by| {
        let reached = Reached { read: Seq(by.seq), delivered: Seq(by.delivered) };
        Ok((user(&by.user)?, reached))
    });
    let receipts = receipts.collect::<Result<_, _>>()?;
    Ok(ServerFrame::Viewed { id, presence, receipts })
}

fn read_presence(raw: &PresenceV1) -> Result<Presence, FrameFault> {
    let last_seen = (raw.last_seen != 0).then_some(UnixMillis(raw.last_seen));
    Ok(Presence { user: user(&raw.user)?, online: raw.online != 0, last_seen })
}

fn read_head(raw: &HeadV1) -> Head {
    Head {
        conversation: ConversationId(raw.conversation),
        head: Seq(raw.head),
        read: Seq(raw.read),
        unread: raw.unread,
    }
}

fn read_entry(raw: &MemberV1) -> Result<MemberEntry, FrameFault> {
    let role = Role::from_number(raw.role).ok_or(MEANING)?;
    Ok(MemberEntry { user: user(&raw.user)?, role, visible_from: Seq(raw.visible_from) })
}

/// Records and gaps, merged by the sequence at which they stand.
fn read_page(id: RequestId, raw: PageV1) -> Result<ServerFrame, FrameFault> {
    let mut messages = read_records(&raw.records)?;
    for gap in raw.gaps {
        messages.push(PageItem::Gap(read_gap(gap)?));
    }
    messages.sort_by_key(|item| match item {
        PageItem::Amended(event) => event.seq,
        PageItem::Gap(gap) => gap.from,
        PageItem::Member(event) => event.seq,
        PageItem::Message(event) => event.seq,
    });
    Ok(ServerFrame::Page { id, messages, more: raw.more != 0 })
}

fn read_welcome(id: RequestId, raw: WelcomeV1) -> Result<Welcome, FrameFault> {
    let features = raw.features.into_iter().map(|feature| text(feature.name));
    let limits = raw.limits;
    Ok(Welcome {
        id,
        user: user(&raw.user)?,
        session: text(raw.session)?,
        store: text(raw.store)?,
        cursor: text_if(raw.cursor)?,
        now: UnixMillis(raw.now),
        heartbeat_ms: raw.heartbeat_ms,
        limits: WireLimits {
            frame_bytes: limits.frame_bytes,
            text_bytes: limits.text_bytes,
            page_bytes: limits.page_bytes,
            history_items: limits.history_items,
            members: limits.members,
            title_bytes: limits.title_bytes,
            commands_in_flight: limits.commands_in_flight,
            positions: limits.positions,
            mentions: limits.mentions,
            conversations: limits.conversations,
        },
        features: features.collect::<Result<_, _>>()?,
        reset: raw.reset != 0,
    })
}
