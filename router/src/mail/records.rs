//! Records on their way to a reader, and what is said in the place of those that are not kept.

use bytes::Bytes;
use protocol::ids::{ConversationId, Seq};
use protocol::record::{ArchivedMembershipV1, Ext, Portable, Schema, Stored, StoredBody};

/// A stored record as it leaves its log: `[portable part | payload]`, counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Linked {
    /// Its position in the log; in its conversation, if it is a gap there.
    pub position: u64,
    /// Its conversation,
    pub conversation: ConversationId,
    /// and its sequence there, which the index knows also of what is damaged.
    pub seq: Seq,
    /// The bytes, or `None` when the disk no longer has them as they were: a gap.
    pub record: Option<Bytes>,
}

impl Linked {
    /// The change of members that it is, if it stands behind some records that are not linked: its reader is told of a head before it.
    pub(crate) fn standing_alone(&self) -> Option<(Portable, &ArchivedMembershipV1)> {
        let bytes = self.record.as_ref()?;
        let portable = Portable::parse(bytes).ok()?;
        if portable.schema != Schema::Membership as u16 {
            return None;
        }
        let StoredBody::Membership(event) = Stored::with_checked_sum(portable, bytes).ok()?.body else {
            return None;
        };
        Ext::new(&event.ext).unlinked_from().map(|_| (portable, event))
    }
}

/// Sequences of a conversation that are not kept any more: a gap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gone {
    /// Which.
    pub conversation: ConversationId,
    /// The first of them,
    pub from: Seq,
    /// and the last.
    pub to: Seq,
}
