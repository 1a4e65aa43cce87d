//! What a log answers that is not served: nothing that could be taken for an answer.

use protocol::event::ErrorCode;

use super::{Asker, Reply, Request};
use crate::places::ShardId;

impl Request {
    /// The answer of a log that was refused at start: its conversations are unavailable, positions in it stay.
    #[must_use]
    pub fn into_unavailable(self) -> (ShardId, Reply) {
        let refused = |asker: Asker, is_page| {
            let (code, message) =
                (ErrorCode::Unavailable, "this conversation's log is damaged and not served");
            (asker.shard, Reply::Refused { asker, is_page, code, message, retry_after_ms: Some(10_000) })
        };
        match self {
            Self::Store(store) => refused(store.asker, false),
            Self::Block { asker, .. }
            | Self::Mute { asker, .. }
            | Self::Read { asker, .. }
            | Self::Set { asker, .. } => refused(asker, false),
            Self::PushTokens { shard, call, .. } => (shard, Reply::PushTokens { call, tokens: None }),
            Self::Seen { log, shard, .. } => (shard, Reply::SeenTaken { log, are_lost: true }),
            Self::Sighting { shard, user, .. } => (shard, Reply::Sighting { user, found: None }),
            Self::Settings { session, shard, .. } => (shard, Reply::Settings { session, mutes: None }),
            Self::History { asker, .. }
            | Self::ListMembers { asker, .. }
            | Self::MaySearch { asker, .. }
            | Self::View { asker, .. } => refused(asker, true),
            Self::Candidates { session, shard, log, places, .. } => {
                let records = vec![None; places.len()];
                (shard, Reply::Candidates { session, log, records, partial: true })
            }
            Self::Signals { log, shard, .. } => (shard, Reply::SignalsTaken { log }),
            Self::CatchUp { session, shard, log, after, .. } => {
                // Without a position: from the beginning once it is served again, as nobody can say where it stands.
                let end = after.unwrap_or(0);
                let (records, heads, reads) = (Vec::new(), Vec::new(), Vec::new());
                let (at_head, partial) = (true, true);
                (shard, Reply::CaughtUp { session, log, records, heads, reads, end, at_head, partial })
            }
            Self::List { session, shard, log, conversations, .. } => {
                let items = vec![None; conversations.len()];
                (shard, Reply::Listed { session, log, items, partial: true })
            }
            Self::Memberships { session, shard, log, .. } => {
                let (found, more_after) = (Vec::new(), None);
                (shard, Reply::Memberships { session, log, found, more_after, partial: true })
            }
            Self::Reads { session, shard, log, .. } => {
                (shard, Reply::Reads { session, log, states: Vec::new() })
            }
            Self::Survey { session, shard, log, .. } => {
                let conversations = Vec::new();
                // From the beginning, since nobody can say where it stands: told twice is better than never.
                let (position, partial) = (0, true);
                (shard, Reply::Surveyed { session, log, conversations, more_after: None, position, partial })
            }
            Self::Feed { session, shard, log, conversation, .. } => {
                let (gone, records, more_after) = (None, Vec::new(), None);
                (shard, Reply::Fed { session, log, conversation, gone, records, more_after })
            }
        }
    }
}
