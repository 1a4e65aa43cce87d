//! What a conversation has lost to retention is always its front: a page that begins behind it says so.

use protocol::ids::{ConversationId, Seq};
use protocol::record::Portable;
use storage_log::SCHEMA_GONE;

use crate::mail::{Gone, Linked};

/// The sequences that a page was asked for and that nothing is kept of: takes from `records`, ascending, the last of which only the
/// number is kept and all before it, and says which are missing from `lowest` on. `below`: where the page ends when there is none.
pub(super) fn take_gone(
    conversation: ConversationId,
    records: &mut Vec<Linked>,
    lowest: u64,
    below: u64,
) -> Option<Gone> {
    let stubs = records.iter().rposition(is_stub).map_or(0, |last| last + 1);
    let newest_stub = records.drain(..stubs).next_back().map(|linked| linked.seq.0 + 1);
    let first = records.first().map(|linked| linked.seq.0).or(newest_stub).unwrap_or(below);
    (lowest < first).then(|| Gone { conversation, from: Seq(lowest), to: Seq(first - 1) })
}

/// Whether only the number of a record is kept, and nothing of what stands before it.
pub(super) fn is_stub(linked: &Linked) -> bool {
    let portable = linked.record.as_ref().and_then(|bytes| Portable::parse(bytes).ok());
    portable.is_some_and(|portable| portable.schema == SCHEMA_GONE)
}
