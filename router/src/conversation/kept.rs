//! How much of a conversation is kept: what its members have set, and what that comes to.
//!
//! What is not kept is always the front: what stands before a sequence, or was stored before a time. It only ever moves on: what was set
//! before has left a front behind that no later setting takes back, whether it is still on the disk or not.

use protocol::command::Retention;
use protocol::ids::{Seq, UnixMillis};
use protocol::record::Ext;

use crate::places::Places;

/// What stands before the first of both is not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Front {
    /// The first sequence that may be kept,
    pub(crate) seq: Seq,
    /// and the first time.
    pub(crate) at: UnixMillis,
}

impl Front {
    /// Whether a record is not kept: it stands in front of what is.
    pub(super) fn has(&self, seq: Seq, at: UnixMillis) -> bool {
        seq < self.seq || at < self.at
    }
}

/// What is set of one conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) retention: Retention,
    /// What was set before has left nothing before this.
    front: Front,
}

impl Kept {
    /// As the state of a conversation says it.
    pub(super) fn of(ext: Ext<'_>) -> Self {
        let (seq, at) = ext.front();
        Self { retention: ext.retention().unwrap_or_default(), front: Front { seq, at } }
    }

    /// Whether all is kept, and was at all times.
    pub(super) fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// What is kept of a conversation with this head, at `now`.
    pub(super) fn front(&self, places: &Places, head: Seq, now: UnixMillis) -> Front {
        let Retention { days, last } = self.retention;
        let seq = last.map_or(0, |last| (head.0 + 1).saturating_sub(last.into()));
        // All stands behind the first.
        let seq = if seq > 1 { seq } else { 0 };
        let at =
            days.map_or(0, |days| now.0.saturating_sub((places.retention_day * days).as_millis() as u64));
        Front { seq: self.front.seq.max(Seq(seq)), at: self.front.at.max(UnixMillis(at)) }
    }

    /// The additions of the state `ext` with another setting, by the record `seq` that is stored `at`.
    pub(super) fn change(
        &self,
        places: &Places,
        ext: &[u8],
        retention: Retention,
        (seq, at): (Seq, UnixMillis),
    ) -> Vec<u8> {
        let Front { seq, at } = self.front(places, Seq(seq.0 - 1), at);
        let is_some = retention != Retention::default();
        let ext = Ext::new(ext).with_retention(is_some.then_some(retention));
        Ext::new(&ext).with_front((seq, at))
    }
}
