//! What takes records from the log to be answered: loading a state, looking up an old id, pages.
//!
//! A job that finds everything in memory ends at once, in the same turn; else it ends when its last read has come.

use protocol::command::HistoryRange;
use protocol::event::ErrorCode;
use protocol::ids::{ConversationId, Seq, UnixMillis};
use protocol::limits::PAGE_BYTES_MAX;
use protocol::record::{ArchivedMembershipV1, Portable, Stored, StoredBody, StreamKind as Kind};
use storage_log::{Entry, Log, StreamId};

use super::collect::{Collect, Read, page_of};
use super::recent::{FORGOTTEN_AGE, Known, command_of};
use super::state::Conversation;
use super::{ConversationSide, Loaded};
use crate::mail::{Asker, Linked, Reply, Request, SessionId, Store, Surveyed};
use crate::places::{ShardId, conversation_stream};

/// Items of one page of catching up or of a survey.
const ITEMS_MAX: usize = 256;

/// Records read at a time while an old id is looked up.
const LOOK_UP_ITEMS: usize = 64;

pub(super) struct Job {
    purpose: Purpose,
    collect: Collect,
}

impl Job {
    pub(super) fn collect(&mut self) -> &mut Collect {
        &mut self.collect
    }
}

enum Purpose {
    CatchUp { session: SessionId, shard: ShardId, inbox: StreamId },
    Feed { session: SessionId, shard: ShardId, conversation: ConversationId, until: u64, more: bool },
    History { asker: Asker, newest_first: bool, more: bool },
    Load { conversation: ConversationId },
    LookUp { store: Box<Store>, clock: u64 },
    Verify { store: Box<Store>, now: UnixMillis },
    Survey { session: SessionId, shard: ShardId, user: Vec<u8>, memberships: StreamId, after: u64 },
}

impl ConversationSide {
    fn start(&mut self, purpose: Purpose, entries: &[Entry], log: &mut Log) {
        let (collect, asked) = Collect::new(entries, log);
        let job = Job { purpose, collect };
        if asked.is_empty() {
            return self.finish(job, log);
        }
        let id = self.jobs.insert(job) as u32;
        self.reads.extend(asked.into_iter().map(|(place, location)| Read { job: id, place, location }));
    }

    pub(super) fn start_load(&mut self, conversation: ConversationId, log: &mut Log) {
        let newest = log.entries_before(conversation_stream(conversation, Kind::State), u64::MAX).next();
        let slot = self.slots.get_mut(&conversation).expect("entered");
        match newest {
            None => {
                slot.state = Loaded::Absent;
                self.resumed.push_back(conversation);
            }
            Some(entry) => {
                slot.busy = true;
                self.start(Purpose::Load { conversation }, &[entry], log);
            }
        }
    }

    /// An id that memory may know: the records say whether one of them is this command.
    pub(super) fn start_verify(
        &mut self,
        store: Box<Store>,
        candidates: &[u64],
        now: UnixMillis,
        log: &mut Log,
    ) {
        let stream = conversation_stream(store.conversation, Kind::Messages);
        // What is not durable is known by its whole key, and is not this.
        let entry = |seq: &u64| log.entries_after(stream, seq - 1).next().filter(|entry| entry.key == *seq);
        let entries: Vec<Entry> = candidates.iter().filter_map(entry).collect();
        self.slots.get_mut(&store.conversation).expect("entered").busy = true;
        self.start(Purpose::Verify { store, now }, &entries, log);
    }

    /// An id older than memory reaches: look through the conversation's last day, newest first.
    pub(super) fn start_look_up(&mut self, store: Box<Store>, clock: u64, log: &mut Log) {
        let conversation = store.conversation;
        self.slots.get_mut(&conversation).expect("entered").busy = true;
        self.look_up_before(store, clock, u64::MAX, log);
    }

    fn look_up_before(&mut self, store: Box<Store>, clock: u64, before: u64, log: &mut Log) {
        let stream = conversation_stream(store.conversation, Kind::Messages);
        let (entries, _) = page_of(log.entries_before(stream, before), LOOK_UP_ITEMS, PAGE_BYTES_MAX);
        self.start(Purpose::LookUp { store, clock }, &entries, log);
    }

    /// Starts a page, whichever it is; a conversation that it needs is loaded.
    pub(super) fn start_page(&mut self, request: Request, log: &mut Log) {
        match request {
            Request::CatchUp { session, shard, inbox, after, .. } => {
                // A session that starts at the head is given nothing and told where that is.
                let entries =
                    after.map(|after| page_of(log.entries_after(inbox, after), ITEMS_MAX, PAGE_BYTES_MAX).0);
                let purpose = Purpose::CatchUp { session, shard, inbox };
                self.start(purpose, &entries.unwrap_or_default(), log);
            }
            Request::Survey { session, shard, user, memberships, after, .. } => {
                let (entries, _) = page_of(log.entries_after(memberships, after), ITEMS_MAX, PAGE_BYTES_MAX);
                let user = user.as_bytes().to_vec();
                self.start(Purpose::Survey { session, shard, user, memberships, after }, &entries, log);
            }
            Request::Feed { session, shard, conversation, after, until, .. } => {
                let stream = conversation_stream(conversation, Kind::Messages);
                let (entries, more) = page_of(log.entries_after(stream, after.0), ITEMS_MAX, PAGE_BYTES_MAX);
                self.start(Purpose::Feed { session, shard, conversation, until, more }, &entries, log);
            }
            Request::History { .. } | Request::ListMembers { .. } => self.start_members_page(request, log),
            Request::Store(_) => unreachable!("stored, not read"),
        }
    }

    /// A page that only members may read.
    fn start_members_page(&mut self, request: Request, log: &mut Log) {
        let (conversation, user) = match &request {
            Request::History { conversation, user, .. } | Request::ListMembers { conversation, user, .. } => {
                (*conversation, user)
            }
            _ => unreachable!("the caller matched"),
        };
        let slot = &self.slots[&conversation];
        if !log.durable().covers(slot.position) {
            // Who reads by a membership that a crash may undo reads what is not theirs.
            let place = self.early.partition_point(|(position, _)| *position <= slot.position);
            return self.early.insert(place, (slot.position, request));
        }
        let Loaded::Yes(state) = &slot.state else {
            return self.refuse_request(&request, (ErrorCode::NotFound, "there is no such conversation"));
        };
        let Some(member) = state.member(user) else {
            return self
                .refuse_request(&request, (ErrorCode::NotAMember, "you are not in this conversation"));
        };
        let visible_from = member.visible_from;
        match request {
            Request::ListMembers { asker, .. } => {
                let members = state.members().iter();
                let members =
                    members.map(|member| (member.user.clone(), member.role, member.visible_from)).collect();
                self.outputs.push_back((asker.shard, Reply::Members { asker, members }));
            }
            Request::History { asker, range, limit, .. } => {
                self.start_history(asker, conversation, range, limit, visible_from, log);
            }
            _ => unreachable!("the caller matched"),
        }
    }

    fn start_history(
        &mut self,
        asker: Asker,
        conversation: ConversationId,
        range: HistoryRange,
        limit: u32,
        visible_from: Seq,
        log: &mut Log,
    ) {
        let stream = conversation_stream(conversation, Kind::Messages);
        let limit = limit as usize;
        let newest_first = !matches!(range, HistoryRange::After(_));
        let (entries, more) = match range {
            HistoryRange::After(after) => {
                let after = after.0.max(visible_from.0 - 1);
                page_of(log.entries_after(stream, after), limit, PAGE_BYTES_MAX)
            }
            HistoryRange::Before(_) | HistoryRange::Latest => {
                let before = if let HistoryRange::Before(before) = range { before.0 } else { u64::MAX };
                let entries =
                    log.entries_before(stream, before).take_while(|entry| entry.key >= visible_from.0);
                page_of(entries, limit, PAGE_BYTES_MAX)
            }
        };
        self.start(Purpose::History { asker, newest_first, more }, &entries, log);
    }

    pub(super) fn finish(&mut self, job: Job, log: &mut Log) {
        let mut records = job.collect.finish();
        match job.purpose {
            Purpose::CatchUp { session, shard, inbox } => {
                self.finish_catch_up(session, shard, inbox, records, log)
            }
            Purpose::Feed { session, shard, conversation, until, more } => {
                let read = records.len();
                let last = records.last().map(|last| last.seq);
                records.retain(|record| record.position <= until);
                let more_after = if more && records.len() == read { last } else { None };
                let fed = Reply::Fed { session, log: self.log, conversation, records, more_after };
                self.outputs.push_back((shard, fed));
            }
            Purpose::History { asker, newest_first, more } => {
                if newest_first {
                    records.reverse();
                }
                self.outputs.push_back((asker.shard, Reply::History { asker, records, newest_first, more }));
            }
            Purpose::Load { conversation } => self.finish_load(conversation, &records),
            Purpose::LookUp { store, clock } => self.finish_look_up(store, clock, &records, log),
            Purpose::Verify { store, now } => self.finish_verify(store, &records, now, log),
            Purpose::Survey { session, shard, user, memberships, after } => {
                // As with catching up, the end is judged now: a change that became durable meanwhile is in the next page.
                let last = records.last().map_or(after, |last| last.position);
                let more_after = log.entries_after(memberships, last).next().map(|_| last);
                let conversations =
                    records.iter().filter_map(|record| surveyed(record, &user, log)).collect();
                let partial = records.iter().any(|record| record.record.is_none());
                let (position, log) = (log.durable().position(), self.log);
                let reply = Reply::Surveyed { session, log, conversations, more_after, position, partial };
                self.outputs.push_back((shard, reply));
            }
        }
    }

    /// The durable head is read now, when the answer is put behind every Deliver at or below it: that is what makes the
    /// switch to live exact.
    fn finish_catch_up(
        &mut self,
        session: SessionId,
        shard: ShardId,
        inbox: StreamId,
        records: Vec<Linked>,
        log: &Log,
    ) {
        let head = log.durable().position();
        let last = records.last().map(|last| last.position);
        let at_head = last.is_none_or(|last| log.entries_after(inbox, last).next().is_none());
        let end = if at_head { head } else { last.unwrap_or(head) };
        let reply = Reply::CaughtUp { session, log: self.log, records, end, at_head, partial: false };
        self.outputs.push_back((shard, reply));
    }

    fn finish_load(&mut self, conversation: ConversationId, records: &[Linked]) {
        let state = records.first().and_then(|linked| linked.record.as_ref()).and_then(|bytes| {
            let stored = Stored::with_checked_sum(Portable::parse(bytes).ok()?, bytes).ok()?;
            let StoredBody::State(state) = stored.body else {
                return None;
            };
            Conversation::read(&self.places, state)
        });
        let slot = self.slots.get_mut(&conversation).expect("a busy conversation is kept");
        slot.busy = false;
        if let Some(state) = state {
            slot.state = Loaded::Yes(state);
            return self.resumed.push_back(conversation);
        }
        // One failed read is no verdict: what waits is told, and who asks next has it read again.
        for request in std::mem::take(&mut slot.pending) {
            let refusal = (ErrorCode::Unavailable, "this conversation's state cannot be read from the disk");
            self.refuse_request(&request, refusal);
        }
    }

    /// Nothing older has to be asked: either one of the candidates is this command, or only its fingerprint was the same.
    fn finish_verify(&mut self, store: Box<Store>, records: &[Linked], now: UnixMillis, log: &mut Log) {
        let Some(store) = self.answer_if_stored(store, records, log) else {
            return;
        };
        self.end_look_up(&store);
        if let Some(store) = self.judge_age(store, now, log) {
            self.store(store, now, log, true);
        }
    }

    fn finish_look_up(&mut self, store: Box<Store>, clock: u64, records: &[Linked], log: &mut Log) {
        let Some(store) = self.answer_if_stored(store, records, log) else {
            return;
        };
        let oldest = records.last().and_then(|linked| Some((linked.seq.0, at_of(linked.record.as_ref()?)?)));
        match oldest {
            Some((seq, at)) if seq > 1 && at + (FORGOTTEN_AGE.as_millis() as u64) > clock => {
                self.look_up_before(store, clock, seq, log);
            }
            _ => {
                self.end_look_up(&store);
                self.store(store, UnixMillis(clock), log, true);
            }
        }
    }

    /// Gives the command back if it is in none of the records; ends the look-up if it is, or if one cannot be read.
    fn answer_if_stored(
        &mut self,
        store: Box<Store>,
        records: &[Linked],
        log: &mut Log,
    ) -> Option<Box<Store>> {
        for linked in records {
            let Some((at, (user, message_id, content_hash))) =
                linked.record.as_ref().and_then(|bytes| Some((at_of(bytes)?, command_of(bytes)?)))
            else {
                continue;
            };
            if user == store.user.as_bytes() && message_id == store.message_id.0 {
                let known = Known { seq: linked.seq.0, at, position: linked.position, content_hash };
                self.end_look_up(&store);
                self.answer_again(&store, known, log);
                return None;
            }
        }
        if records.iter().any(|linked| linked.record.is_none()) {
            // It may be the one that is looked for, and stored twice it must not be.
            self.end_look_up(&store);
            let refusal = (ErrorCode::Unavailable, "the disk does not say whether this was stored before");
            self.refuse(store.asker, refusal);
            return None;
        }
        Some(store)
    }

    fn end_look_up(&mut self, store: &Store) {
        self.slots.get_mut(&store.conversation).expect("a busy conversation is kept").busy = false;
        self.resumed.push_back(store.conversation);
    }
}

fn at_of(record: &[u8]) -> Option<u64> {
    Portable::parse(record).ok().map(|portable| portable.at.0)
}

/// What a record in a user's stream of memberships says about one conversation.
fn surveyed(linked: &Linked, user: &[u8], log: &Log) -> Option<Surveyed> {
    let bytes = linked.record.as_ref()?;
    let portable = Portable::parse(bytes).ok()?;
    let visible_from = match Stored::with_checked_sum(portable, bytes).ok()?.body {
        StoredBody::Membership(body) => joined_from(body, user),
        _ => Some(Seq(1)),
    };
    let stream = conversation_stream(portable.conversation, Kind::Messages);
    let (head, message_count) = durable_head(stream, log);
    let (position, conversation) = (linked.position, portable.conversation);
    Some(Surveyed { position, conversation, head: Seq(head), message_count, visible_from })
}

/// Sequence of the newest durable record of a conversation, and the messages up to there.
fn durable_head(stream: StreamId, log: &Log) -> (u64, u64) {
    let newest = log.head(stream);
    let Some(entry) = log.entries_before(stream, u64::MAX).next() else {
        return (0, 0);
    };
    // What is being written is a few messages at most; where the durable head is no longer in memory they are taken off.
    let below = newest.message_count.saturating_sub(newest.seq - entry.key);
    let counted = log.recent(entry.location).map_or(below, |record| record.message_count());
    (entry.key, if entry.key == newest.seq { newest.message_count } else { counted })
}

/// A record in the stream of memberships either adds the user, and says from where, or takes it out.
fn joined_from(body: &ArchivedMembershipV1, user: &[u8]) -> Option<Seq> {
    let added = body.added.iter().find(|member| member.user.as_slice() == user)?;
    Some(Seq(added.visible_from.to_native()))
}
