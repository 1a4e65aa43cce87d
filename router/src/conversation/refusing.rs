//! Refusing: what who asked is told instead of an answer, and when to try again.
//!
//! Who asked under a number is told a code and words. A part that a user's home puts together with those of other logs is answered as not
//! known instead, so that the home shows the rest. Requests that never wait for a conversation do not come here.

use protocol::event::ErrorCode;

use super::ConversationSide;
use super::state::Refusal;
use crate::mail::{Asker, Reply, Request};

/// When to try again after `busy`.
const BUSY_RETRY_MS: u64 = 100;

/// When to try again while the disk is full.
const FULL_RETRY_MS: u64 = 2_000;

/// For a page, and for what may be sent twice without harm.
pub(super) const STOPPED: Refusal = (ErrorCode::Unavailable, "the log stopped: ask again");

/// For a command that may be stored or not: with its id it is stored once.
pub(super) const OUTCOME_UNKNOWN: Refusal =
    (ErrorCode::Unavailable, "the log stopped: send again with the same message_id");

impl ConversationSide {
    pub(super) fn refuse(&mut self, asker: Asker, refusal: Refusal) {
        self.push_refusal(asker, false, refusal);
    }

    pub(super) fn push_refusal(&mut self, asker: Asker, is_page: bool, (code, message): Refusal) {
        let retry_after_ms = match code {
            ErrorCode::StorageFull => Some(FULL_RETRY_MS),
            ErrorCode::Busy | ErrorCode::Unavailable => Some(BUSY_RETRY_MS),
            _ => None,
        };
        self.outputs
            .push_back((asker.shard, Reply::Refused { asker, is_page, code, message, retry_after_ms }));
    }

    pub(super) fn refuse_request(&mut self, request: &Request, refusal: Refusal) {
        match request {
            Request::Store(store) => self.refuse(store.asker, refusal),
            Request::Block { asker, .. }
            | Request::Mute { asker, .. }
            | Request::Read { asker, .. }
            | Request::Set { asker, .. } => {
                self.refuse(*asker, refusal);
            }
            Request::Settings { session, shard, .. } => {
                self.outputs.push_back((*shard, Reply::Settings { session: *session, mutes: None }));
            }
            Request::Sighting { shard, user, .. } => {
                self.outputs.push_back((*shard, Reply::Sighting { user: user.clone(), found: None }));
            }
            Request::PushTokens { shard, call, .. } => {
                self.outputs.push_back((*shard, Reply::PushTokens { call: *call, tokens: None }));
            }
            Request::List { session, shard, log, conversations, .. } => {
                let (session, log, items) = (*session, *log, vec![None; conversations.len()]);
                self.outputs.push_back((*shard, Reply::Listed { session, log, items, partial: true }));
            }
            Request::History { asker, .. }
            | Request::ListMembers { asker, .. }
            | Request::MaySearch { asker, .. }
            | Request::View { asker, .. } => {
                self.push_refusal(*asker, true, refusal);
            }
            Request::Candidates { session, shard, log, places, .. } => {
                let (session, log, records) = (*session, *log, vec![None; places.len()]);
                self.outputs.push_back((*shard, Reply::Candidates { session, log, records, partial: true }));
            }
            Request::CatchUp { .. }
            | Request::Feed { .. }
            | Request::Memberships { .. }
            | Request::Reads { .. }
            | Request::Seen { .. }
            | Request::Signals { .. }
            | Request::Survey { .. } => {
                unreachable!("no conversation holds these back")
            }
        }
    }
}
