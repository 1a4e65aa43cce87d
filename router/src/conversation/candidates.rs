//! The owner's part of a search: what the index names is read from the log, and only what its user may see now is given out.
//!
//! **Invariant**: what a search shows is what `history` would show in the same moment. The index says where to look, and nothing else.

use bytes::Bytes;
use protocol::ids::{ConversationId, Seq, UserId};
use protocol::limits::PAGE_BYTES_MAX;
use protocol::record::{StoredBody, StreamKind as Kind};
use storage_log::{Log, Lookup, Page};

use super::ConversationSide;
use super::folding::stored;
use super::jobs::Purpose;
use super::pages::Tried;
use crate::mail::{Linked, Reply, Request, SessionId};
use crate::places::{ShardId, conversation_stream};

/// One message.
const ONE: Page = Page { items_max: 1, bytes_max: PAGE_BYTES_MAX };

/// Messages that may answer a search, while they are read.
pub(super) struct CandidatesPage {
    session: SessionId,
    shard: ShardId,
    user: UserId,
    places: Vec<(ConversationId, Seq)>,
}

impl ConversationSide {
    pub(super) fn begin_candidates(&mut self, request: Request, tried: Tried, log: &mut Log) {
        let Request::Candidates { session, shard, user, places, has_waited, .. } = &request else {
            unreachable!("the caller matched");
        };
        let mut conversations: Vec<ConversationId> = places.iter().map(|(of, _)| *of).collect();
        conversations.sort_unstable();
        conversations.dedup();
        if self.read_states(user, &conversations, || request.clone(), &tried, log).is_none() {
            return;
        }
        // As in a list: a membership that a crash may undo is waited for once.
        let newest = conversations.iter().filter_map(|conversation| self.slots.get(conversation));
        let newest = newest.map(|slot| slot.position).max().unwrap_or(0);
        if !log.durable().covers(newest) && log.is_healthy() && !has_waited {
            let mut request = request;
            if let Request::Candidates { has_waited, .. } = &mut request {
                *has_waited = true;
            }
            return self.wait_until_durable(newest, request);
        }
        let visible = places.iter().filter(|(of, seq)| self.is_visible(user, *of, *seq, log));
        let lookup = |(of, seq): &(ConversationId, Seq)| {
            Lookup::before(log, conversation_stream(*of, Kind::Messages), seq.0 + 1, seq.0, ONE)
        };
        let lookups = visible.map(lookup).collect();
        let page =
            CandidatesPage { session: *session, shard: *shard, user: user.clone(), places: places.clone() };
        self.start(Purpose::Candidates(Box::new(page)), lookups, log);
    }

    /// Whether a user may read a sequence of a conversation whose state is in memory.
    fn is_visible(&self, user: &UserId, conversation: ConversationId, seq: Seq, log: &Log) -> bool {
        if !self.is_shown(user, conversation, log) {
            return false;
        }
        let state = self.loaded(conversation).expect("it is shown");
        let visible_from = state.member(user).expect("likewise").visible_from;
        (visible_from..=Seq(self.durable_head(conversation, log).seq)).contains(&seq)
    }

    pub(super) fn finish_candidates(
        &mut self,
        page: &CandidatesPage,
        mut records: Vec<Linked>,
        is_cut: bool,
        log: &Log,
    ) {
        self.conceal(&mut records, log);
        let is = |linked: &Linked, place: &(ConversationId, Seq)| (linked.conversation, linked.seq) == *place;
        // What did not fit is always the last.
        let last = records.last().filter(|_| is_cut);
        let end = last.and_then(|last| page.places.iter().position(|place| is(last, place)));
        let end = end.map_or(page.places.len(), |last| last + 1);
        let mut partial = false;
        let answer = |place: &(ConversationId, Seq)| {
            let (conversation, seq) = *place;
            // Who has left meanwhile is not told of it; of all others something may be missing.
            let is_loaded = self.is_shown(&page.user, conversation, log);
            partial |= !is_loaded && self.may_be_shown(&page.user, conversation);
            if !self.is_visible(&page.user, conversation, seq, log) {
                return None;
            }
            let linked = records.iter().find(|linked| is(linked, place))?;
            partial |= linked.record.is_none();
            linked.record.clone().filter(is_there)
        };
        let found = page.places[..end].iter().map(answer).collect();
        let (session, log) = (page.session, self.log);
        self.outputs.push_back((page.shard, Reply::Candidates { session, log, records: found, partial }));
    }

    pub(super) fn give_up_candidates(&mut self, page: &CandidatesPage) {
        let (session, log, records) = (page.session, self.log, vec![None; page.places.len()]);
        self.outputs.push_back((page.shard, Reply::Candidates { session, log, records, partial: true }));
    }
}

/// Whether a record, in its present form, is a message that was not taken back.
fn is_there(record: &Bytes) -> bool {
    match stored(record).map(|stored| stored.body) {
        Some(StoredBody::Message(_)) => true,
        Some(StoredBody::Folded(form)) => form.deleted == 0,
        _ => false,
    }
}
