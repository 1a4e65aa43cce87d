//! What was delivered: from where a device stands in its log to the conversations that the records before that are of.
//!
//! Only what stands in the user's inbox counts, so this is of small conversations. Nobody waits for it: where there is more to do than the limits here,
//! what is passed over is said by the next record that is acknowledged of the same conversation, as that stands behind it. Of large groups nothing is
//! looked for: up to where a member has acknowledged is kept in `large`, for `push` to know whom not to call.

use std::collections::VecDeque;

use protocol::ids::{ConversationId, Seq, UserId};
use protocol::limits::PAGE_BYTES_MAX;
use protocol::record::StreamKind as Kind;
use storage_log::{Log, Lookup, Page};

use super::ConversationSide;
use super::fetch::{Fetch, Found};
use super::jobs::Purpose;
use super::large::Taken;
use super::positions::Due;
use super::slots::{Entrant, Loaded};
use crate::mail::{Linked, Signal};
use crate::places::ShardId;

/// The newest records of an inbox that are looked at for one acknowledgement: what a device is sent between two cursors.
const RECORDS: Page = Page { items_max: 64, bytes_max: PAGE_BYTES_MAX };

/// Conversations of which one acknowledgement says what was delivered, those that moved last first: each may have to be read.
const CONVERSATIONS_MAX: usize = 16;

/// Acknowledgements that are being looked into in one log; and conversations that wait for their turn by them, of which
/// each adds a few. Who comes then is passed over: about 1 MB.
const UNDER_WAY_MAX: usize = 1_024;

/// What becomes of records that are not known any more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// They are read.
    Read,
    /// They stay unknown: who came with a cursor may have said it before, and everybody comes at once.
    PassedOver,
}

/// What is to be found out, and what was.
#[derive(Default)]
pub(super) struct Acked {
    under_way: usize,
    delivered: VecDeque<(ConversationId, UserId, Seq)>,
}

impl ConversationSide {
    /// Takes what a home has to say.
    pub(super) fn handle_signals(&mut self, shard: ShardId, signals: Vec<Signal>, log: &mut Log) {
        for signal in signals {
            match signal {
                Signal::Acked { user, after, to, whole_after, has_come } => {
                    self.note_taken(&user, whole_after, to, log);
                    let first = self.recent.lately.first();
                    match first {
                        _ if !has_come => self.begin_acked(user, after, to, Unknown::Read, log),
                        Some(first) => {
                            let after = after.max(first.saturating_sub(1));
                            self.begin_acked(user, after, to, Unknown::PassedOver, log);
                        }
                        None => {}
                    }
                }
                signal => self.viewers.handle(shard, signal),
            }
        }
        self.answer_views();
    }

    /// A device has been given or told of everything between two positions, of large groups too: only who calls wants to know.
    fn note_taken(&mut self, user: &UserId, after: u64, to: u64, log: &Log) {
        if after < to && self.pushes.is_on() {
            let inbox = self.places.user_stream(user, Kind::Inbox);
            self.large.note_taken(inbox.id, Taken { after, to: to.min(log.durable().position()) });
        }
    }

    fn begin_acked(&mut self, user: UserId, after: u64, to: u64, unknown: Unknown, log: &mut Log) {
        let inbox = self.places.user_stream(&user, Kind::Inbox);
        let is_full = self.acked.under_way.max(self.acked.delivered.len()) >= UNDER_WAY_MAX;
        if is_full || to <= after || !log.has_after(inbox, after) {
            return;
        }
        self.acked.under_way += 1;
        // Nobody is given a cursor beyond what is durable.
        let to = to.min(log.durable().position());
        let lookup = Lookup::before(log, inbox, to + 1, after + 1, RECORDS);
        self.run_for(Purpose::Acked { user, unknown }, Fetch::of_lookups(vec![lookup]).places(), log);
    }

    /// Most are of the last half minute, and then nothing is read.
    pub(super) fn finish_acked_places(
        &mut self,
        user: UserId,
        found: Vec<Found>,
        unknown: Unknown,
        log: &mut Log,
    ) {
        let (mut known, mut others) = (Vec::new(), Vec::new());
        for found in found {
            match self.recent.lately.get(found.key()) {
                Some(record) => known.push(record),
                None => others.push(found),
            }
        }
        self.note_newest(&user, known.into_iter());
        if others.is_empty() || unknown == Unknown::PassedOver {
            self.acked.under_way -= 1;
        } else {
            self.run_for(Purpose::AckedRecords { user }, Fetch::of_found(others), log);
        }
    }

    pub(super) fn finish_acked_records(&mut self, user: &UserId, records: &[Linked]) {
        self.acked.under_way -= 1;
        let whole = records.iter().filter(|linked| linked.record.is_some());
        self.note_newest(user, whole.map(|linked| (linked.conversation, linked.seq)));
    }

    /// The newest record of each conversation says how far that was delivered. The records that moved last come first.
    fn note_newest(&mut self, user: &UserId, records: impl Iterator<Item = (ConversationId, Seq)>) {
        let mut newest: Vec<(ConversationId, Seq)> = Vec::new();
        for (conversation, seq) in records {
            let known = newest.iter().position(|(known, _)| *known == conversation);
            match known {
                Some(known) => newest[known].1 = seq.max(newest[known].1),
                None if newest.len() == CONVERSATIONS_MAX => {}
                None => newest.push((conversation, seq)),
            }
        }
        // Who comes back says again what it said before: where that is known nothing is entered for it.
        newest.retain(|(conversation, seq)| !self.has_reached(*conversation, user, *seq));
        let delivered = newest.into_iter().map(|(conversation, seq)| (conversation, user.clone(), seq));
        self.acked.delivered.extend(delivered);
    }

    /// Whether it is in memory that a user has been given, or has read, this much.
    fn has_reached(&self, conversation: ConversationId, user: &UserId, seq: Seq) -> bool {
        let slot = self.slots.get(&conversation);
        let positions = slot.and_then(|slot| slot.positions.as_ref());
        positions.is_some_and(|positions| positions.reached(user) >= seq)
    }

    /// The next conversation whose turn it is to note what was delivered.
    pub(super) fn poll_delivered(&mut self) -> Option<(ConversationId, Entrant)> {
        let (conversation, user, seq) = self.acked.delivered.pop_front()?;
        Some((conversation, Entrant::Delivered(user, seq)))
    }

    /// Whether it is told what was delivered to a user: to a member of a small conversation.
    pub(super) fn tells_delivered(&self, conversation: ConversationId, user: &UserId) -> bool {
        let state = self.slots.get(&conversation).map(|slot| &slot.state);
        matches!(state, Some(Loaded::Yes(state)) if !state.is_large() && state.member(user).is_some())
    }

    pub(super) fn note_delivered(&mut self, conversation: ConversationId, user: &UserId, seq: Seq) {
        let is_full = self.gathering.is_full();
        let due = if self.viewers.is_viewed(conversation) { Due::Soon } else { Due::Later };
        let slot = self.slots.get_mut(&conversation).expect("entered");
        let positions = slot.positions.as_mut().expect("they were read before");
        let seq = seq.min(positions.folded().0);
        if !is_full && positions.note_delivered(user, seq, due) {
            self.gathering.add(conversation, due);
        }
    }
}
