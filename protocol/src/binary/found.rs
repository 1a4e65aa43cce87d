//! What a search has found, both ways.

use super::{
    frame::{bytes, text, text_if},
    op,
    payload::{FoundV1, HitV1},
    write,
};
use crate::{
    event::{FoundEnd, FrameFault, Hit, ServerFrame},
    ids::{ConversationId, RequestId, Seq},
};

pub(super) fn write_found(id: RequestId, hits: &[Hit], end: &FoundEnd, out: &mut Vec<u8>) {
    let hit =
        |hit: &Hit| HitV1 { conversation: hit.conversation.0, seq: hit.seq.0, snippet: bytes(&hit.snippet) };
    let payload = FoundV1 {
        hits: hits.iter().map(hit).collect(),
        more: u8::from(end.more),
        before: bytes(end.before.as_deref().unwrap_or_default()),
        partial: u8::from(end.partial),
    };
    write(op::FOUND, id.0, &payload, out);
}

pub(super) fn read_found(id: RequestId, raw: FoundV1) -> Result<ServerFrame, FrameFault> {
    let hit = |raw: HitV1| {
        let (conversation, seq) = (ConversationId(raw.conversation), Seq(raw.seq));
        Ok(Hit { conversation, seq, snippet: text(raw.snippet)? })
    };
    let hits = raw.hits.into_iter().map(hit).collect::<Result<_, FrameFault>>()?;
    let end = FoundEnd { more: raw.more != 0, before: text_if(raw.before)?, partial: raw.partial != 0 };
    Ok(ServerFrame::Found { id, hits, end })
}
