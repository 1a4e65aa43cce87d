//! What a search has found, both ways.

use serde::Deserialize;

use super::{frame::reply, object::Object, value::Parsed};
use crate::{
    event::{FoundEnd, Hit, ServerFrame},
    ids::{ConversationId, RequestId, Seq},
};

#[derive(Deserialize)]
pub(super) struct RawHit {
    conversation: Parsed<ConversationId>,
    seq: u64,
    snippet: String,
}

pub(super) fn write_found(id: RequestId, hits: &[Hit], end: &FoundEnd, out: &mut Vec<u8>) {
    let mut object = reply(out, "page", id);
    object.list("hits", hits, |hit, out| {
        let mut object = Object::new(out);
        object
            .uuid("conversation", &hit.conversation.0)
            .number("seq", hit.seq.0)
            .text("snippet", &hit.snippet);
        object.end();
    });
    object.boolean("more", end.more).text_if("before", end.before.as_deref());
    if end.partial {
        object.boolean("partial", true);
    }
    object.end();
}

pub(super) fn read_found(id: RequestId, hits: Vec<RawHit>, end: FoundEnd) -> ServerFrame {
    let hit = |raw: RawHit| Hit { conversation: raw.conversation.0, seq: Seq(raw.seq), snippet: raw.snippet };
    ServerFrame::Found { id, hits: hits.into_iter().map(hit).collect(), end }
}
