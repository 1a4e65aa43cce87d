//! The list of a user's conversations, both ways: what is known of each, and the newest records one after the other.

use super::{
    frame::{MEANING, bytes, text, text_if, user},
    op,
    payload::{ListPageV1, ListedV1, RetentionV1},
    records::{item_record, read_records},
    write,
};
use crate::{
    event::{FrameFault, ListEnd, ListedConversation, ListedKind, ServerFrame},
    ids::{ConversationId, RequestId, Seq, UnixMillis},
    record::StoredListed,
};

pub(super) fn write_list(
    id: RequestId,
    conversations: &[ListedConversation],
    end: &ListEnd,
    out: &mut Vec<u8>,
) {
    let mut records = Vec::new();
    let listed = conversations.iter().map(|listed| {
        let last = listed.last.as_ref().and_then(item_record);
        records.extend_from_slice(last.as_deref().unwrap_or_default());
        listed_payload(listed, last.is_some())
    });
    let listed = listed.collect();
    write_page(id, listed, records, end, out);
}

/// Appends the reply to `conversations` made from records as they are stored.
pub fn encode_list(id: RequestId, conversations: &[StoredListed<'_>], end: &ListEnd, out: &mut Vec<u8>) {
    let mut records = Vec::new();
    let listed = conversations.iter().map(|stored| {
        if let Some(last) = &stored.last {
            last.write_padded(&mut records);
        }
        listed_payload(stored.listed, stored.last.is_some())
    });
    let listed = listed.collect();
    write_page(id, listed, records, end, out);
}

fn write_page(
    id: RequestId,
    conversations: Vec<ListedV1>,
    records: Vec<u8>,
    end: &ListEnd,
    out: &mut Vec<u8>,
) {
    let page = ListPageV1 {
        conversations,
        records,
        more: u8::from(end.more),
        after: bytes(end.after.as_deref().unwrap_or_default()),
        partial: u8::from(end.partial),
    };
    write(op::LIST_PAGE, id.0, &page, out);
}

fn listed_payload(listed: &ListedConversation, has_last: bool) -> ListedV1 {
    let (kind, name) = match &listed.kind {
        ListedKind::Direct { peer } => (DIRECT, peer.as_str()),
        ListedKind::Group { title } => (GROUP, title.as_str()),
    };
    ListedV1 {
        conversation: listed.conversation.0,
        kind,
        name: bytes(name),
        members_count: listed.members_count,
        head: listed.head.0,
        read: listed.read.0,
        unread: listed.unread,
        has_last: u8::from(has_last),
        blocked: u8::from(listed.blocked),
        retention: RetentionV1::of(listed.retention),
        muted_until: listed.muted_until.map_or(0, |until| until.0),
    }
}

const DIRECT: u8 = 1;
const GROUP: u8 = 2;

pub(super) fn read_list(id: RequestId, page: ListPageV1) -> Result<ServerFrame, FrameFault> {
    let mut records = read_records(&page.records)?.into_iter();
    let listed = page.conversations.into_iter().map(|raw| {
        Ok(ListedConversation {
            conversation: ConversationId(raw.conversation),
            kind: match raw.kind {
                DIRECT => ListedKind::Direct { peer: user(&raw.name)? },
                GROUP => ListedKind::Group { title: text(raw.name)? },
                _ => return Err(MEANING),
            },
            members_count: raw.members_count,
            head: Seq(raw.head),
            read: Seq(raw.read),
            unread: raw.unread,
            blocked: raw.blocked != 0,
            retention: raw.retention.read(),
            muted_until: (raw.muted_until != 0).then_some(UnixMillis(raw.muted_until)),
            last: if raw.has_last == 0 { None } else { Some(records.next().ok_or(MEANING)?) },
        })
    });
    let conversations = listed.collect::<Result<_, FrameFault>>()?;
    let end = ListEnd { more: page.more != 0, after: text_if(page.after)?, partial: page.partial != 0 };
    Ok(ServerFrame::Conversations { id, conversations, end })
}
