//! What takes records from the log to be answered: loading a state, looking up an old id, pages.
//!
//! A job that finds everything in memory ends at once, in the same turn; else it ends when its last read has come.

use protocol::command::HistoryRange;
use protocol::event::ErrorCode;
use protocol::ids::{ConversationId, Seq, UnixMillis, UserId};
use protocol::limits::PAGE_BYTES_MAX;
use protocol::record::{ArchivedMembershipV1, Portable, Stored, StoredBody, StreamKind as Kind};
use storage_log::{Log, Lookup, Page, StreamId};

use super::amend::form_of;
use super::candidates::CandidatesPage;
use super::catching_up::CatchUp;
use super::counting::Search;
use super::fetch::{Fetch, Read, Step};
use super::folding::hide_amendments;
use super::large::Roster;
use super::listing::{ListPage, Memberships};
use super::pages::Tried;
use super::recent::{AHEAD_MAX, FORGOTTEN_AGE, Known, command_of};
use super::retention::{is_stub, take_gone};
use super::state::Conversation;
use super::{ConversationSide, Loaded};
use crate::mail::{Asker, Knows, Linked, Reply, Request, SessionId, Store, Surveyed};
use crate::places::{Places, ShardId, conversation_stream};

/// One page of catching up or of a survey.
pub(super) const PAGE: Page = Page { items_max: 256, bytes_max: PAGE_BYTES_MAX };

/// Records read at a time while an old id is looked up.
const LOOK_UP_PAGE: Page = Page { items_max: 64, bytes_max: PAGE_BYTES_MAX };

pub(super) struct Job {
    purpose: Purpose,
    pub(super) fetch: Fetch,
    /// Segments that had moved when it began: it may hold places of all that moved later.
    pub(super) begun: u64,
}

pub(super) enum Purpose {
    /// Where what stands in an inbox before where a device is does so,
    Acked {
        user: UserId,
    },
    /// and those of these records that are not known any more.
    AckedRecords {
        user: UserId,
    },
    /// A message that is to be amended.
    Amend {
        store: Box<Store>,
        now: UnixMillis,
    },
    Candidates(Box<CandidatesPage>),
    /// Where what is kept of a conversation begins.
    Counting(Box<Search>),
    CatchUp(Box<CatchUp>),
    /// How many messages a conversation has up to a sequence that was read.
    Count {
        asker: Asker,
        user: UserId,
        conversation: ConversationId,
        seq: Seq,
    },
    /// Who is in a group, and what is kept of a conversation, after a start.
    Enlist {
        conversation: ConversationId,
    },
    Feed {
        feed: Feed,
        /// It was looked behind this sequence.
        from: u64,
    },
    /// What follows the positions that were read.
    Fold {
        conversation: ConversationId,
        until: Seq,
    },
    /// Sequences from `lowest` to below `below`, as far as a page holds them.
    History {
        asker: Asker,
        conversation: ConversationId,
        newest_first: bool,
        lowest: u64,
        below: u64,
        visible_from: Seq,
    },
    List(Box<ListPage>),
    /// Which groups may be large, and of which conversations something may be set, after a start.
    Enlisted,
    Memberships(Box<Memberships>),
    Load {
        conversation: ConversationId,
    },
    LookUp {
        store: Box<Store>,
        clock: u64,
    },
    /// How far the members of a conversation have read it.
    Positions {
        conversation: ConversationId,
    },
    /// What a user has set.
    Settings {
        user: UserId,
    },
    /// When a user was last seen.
    Sighting {
        user: UserId,
        shard: ShardId,
    },
    Verify {
        store: Box<Store>,
        now: UnixMillis,
    },
    Survey {
        session: SessionId,
        shard: ShardId,
        user: Vec<u8>,
        memberships: StreamId,
        after: u64,
    },
}

/// Records of one conversation beyond a sequence, as they were asked for.
pub(super) struct Feed {
    session: SessionId,
    shard: ShardId,
    conversation: ConversationId,
    after: Seq,
    until: u64,
    visible_from: Seq,
}

impl Job {
    /// Whether who waits for it can be told that there is no answer.
    pub(super) fn is_refusable(&self) -> bool {
        match self.purpose {
            Purpose::Acked { .. }
            | Purpose::AckedRecords { .. }
            | Purpose::Amend { .. }
            | Purpose::Candidates(_)
            | Purpose::Count { .. }
            | Purpose::Counting(_)
            | Purpose::Fold { .. }
            | Purpose::History { .. }
            | Purpose::List(_)
            | Purpose::Load { .. }
            | Purpose::Memberships(_)
            | Purpose::LookUp { .. }
            | Purpose::Positions { .. }
            | Purpose::Settings { .. }
            | Purpose::Sighting { .. }
            | Purpose::Verify { .. } => true,
            Purpose::CatchUp { .. }
            | Purpose::Enlist { .. }
            | Purpose::Enlisted
            | Purpose::Feed { .. }
            | Purpose::Survey { .. } => false,
        }
    }
}

impl Purpose {
    /// Whether somebody is shown what is found, or amends it: then it has to be in its present form.
    fn is_shown(&self) -> bool {
        match self {
            Self::Amend { .. }
            | Self::Candidates(_)
            | Self::CatchUp(_)
            | Self::Feed { .. }
            | Self::History { .. }
            | Self::List(_) => true,
            Self::Acked { .. }
            | Self::AckedRecords { .. }
            | Self::Count { .. }
            | Self::Counting(_)
            | Self::Enlist { .. }
            | Self::Enlisted
            | Self::Fold { .. }
            | Self::Load { .. }
            | Self::Memberships(_)
            | Self::LookUp { .. }
            | Self::Positions { .. }
            | Self::Settings { .. }
            | Self::Sighting { .. }
            | Self::Survey { .. }
            | Self::Verify { .. } => false,
        }
    }
}

impl ConversationSide {
    pub(super) fn start(&mut self, purpose: Purpose, lookups: Vec<Lookup>, log: &mut Log) {
        self.run_for(purpose, Fetch::of_lookups(lookups), log);
    }

    pub(super) fn run_for(&mut self, purpose: Purpose, fetch: Fetch, log: &mut Log) {
        let fetch = if purpose.is_shown() { fetch.folded() } else { fetch };
        self.run(Job { purpose, fetch, begun: self.moved }, log);
    }

    /// Goes on with a job as far as memory and what was read lead.
    pub(super) fn run(&mut self, mut job: Job, log: &mut Log) {
        match job.fetch.poll(log, &mut self.damages) {
            Step::Done => self.finish(job, log),
            Step::Read(asked) => {
                let id = self.jobs.insert(job) as u32;
                for (place, what) in asked {
                    let read = Read { job: id, place, what };
                    if self.blocks.is_to_be_read(read) {
                        self.reads.push_back(read);
                    }
                }
            }
            Step::IndexDamaged(place) => self.stalled.push_back((place.base, job)),
        }
    }

    pub(super) fn start_load(&mut self, conversation: ConversationId, log: &mut Log) {
        let stream = conversation_stream(conversation, Kind::State);
        let slot = self.slots.get_mut(&conversation).expect("entered");
        match log.last(stream) {
            None => {
                slot.state = Loaded::Absent;
                self.resumed.push_back(conversation);
            }
            Some(location) => {
                slot.busy = true;
                let fetch = Fetch::of_last(log, stream, location);
                self.run_for(Purpose::Load { conversation }, fetch, log);
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
        let only = Page { items_max: 1, ..LOOK_UP_PAGE };
        let lookup = |seq: &u64| Lookup::before(log, stream, seq + 1, *seq, only);
        let lookups = candidates.iter().map(lookup).collect();
        self.slots.get_mut(&store.conversation).expect("entered").busy = true;
        self.start(Purpose::Verify { store, now }, lookups, log);
    }

    /// An id older than memory reaches: look through the conversation's last day, newest first.
    pub(super) fn start_look_up(&mut self, store: Box<Store>, clock: u64, log: &mut Log) {
        let conversation = store.conversation;
        self.slots.get_mut(&conversation).expect("entered").busy = true;
        self.look_up_before(store, clock, u64::MAX, log);
    }

    fn look_up_before(&mut self, store: Box<Store>, clock: u64, before: u64, log: &mut Log) {
        let stream = conversation_stream(store.conversation, Kind::Messages);
        let lookup = Lookup::before(log, stream, before, 0, LOOK_UP_PAGE);
        self.start(Purpose::LookUp { store, clock }, vec![lookup], log);
    }

    /// Reads the message that a command amends, in its present form.
    pub(super) fn start_amend(&mut self, store: Box<Store>, target: Seq, now: UnixMillis, log: &mut Log) {
        let stream = conversation_stream(store.conversation, Kind::Messages);
        self.slots.get_mut(&store.conversation).expect("entered").busy = true;
        let only = Page { items_max: 1, ..LOOK_UP_PAGE };
        let lookup = Lookup::before(log, stream, target.0 + 1, target.0, only);
        self.start(Purpose::Amend { store, now }, vec![lookup], log);
    }

    /// Starts a page, whichever it is; a conversation that it needs is loaded.
    pub(super) fn start_page(&mut self, request: Request, log: &mut Log) {
        self.begin_page(request, Tried::default(), log);
    }

    /// The same, of one that may have been begun before.
    pub(super) fn begin_page(&mut self, request: Request, tried: Tried, log: &mut Log) {
        match request {
            Request::CatchUp { .. } => self.begin_catching_up(request, tried, log),
            Request::Candidates { .. } => self.begin_candidates(request, tried, log),
            Request::List { .. } => self.begin_list(request, tried, log),
            Request::Memberships { .. } => self.begin_memberships(request, log),
            Request::Reads { .. } => self.answer_reads(request, &tried, log),
            Request::Survey { session, shard, user, memberships, after, .. } => {
                let lookup = Lookup::after(log, memberships, after, PAGE);
                let user = user.as_bytes().to_vec();
                let purpose = Purpose::Survey { session, shard, user, memberships, after };
                self.start(purpose, vec![lookup], log);
            }
            Request::Feed { session, shard, conversation, after, until, visible_from, .. } => {
                // From the last that is not kept on, so that it is told how far that is.
                let from = self.begins_from(conversation, log).0.saturating_sub(2);
                let feed = Feed { session, shard, conversation, after, until, visible_from };
                self.feed_from(after.0.max(from), feed, log);
            }
            Request::History { .. }
            | Request::ListMembers { .. }
            | Request::MaySearch { .. }
            | Request::View { .. } => {
                self.start_members_page(request, log);
            }
            Request::Block { .. }
            | Request::Mute { .. }
            | Request::Read { .. }
            | Request::PushTokens { .. }
            | Request::Seen { .. }
            | Request::Set { .. }
            | Request::Settings { .. }
            | Request::Sighting { .. }
            | Request::Signals { .. }
            | Request::Store(_) => {
                unreachable!("nothing is read for these")
            }
        }
    }

    /// A page that only members may read.
    fn start_members_page(&mut self, request: Request, log: &mut Log) {
        let (conversation, user) = match &request {
            Request::History { conversation, user, .. }
            | Request::ListMembers { conversation, user, .. }
            | Request::MaySearch { conversation, user, .. }
            | Request::View { conversation, user, .. } => (*conversation, user),
            _ => unreachable!("the caller matched"),
        };
        let slot = &self.slots[&conversation];
        if !log.durable().covers(slot.position) {
            if !log.is_healthy() {
                let words = "the log stopped: what this would be read by may not be stored";
                return self.refuse_request(&request, (ErrorCode::Unavailable, words));
            }
            // Who reads by a membership that a crash may undo reads what is not theirs.
            return self.wait_until_durable(slot.position, request);
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
                let retention = state.kept().retention;
                self.outputs.push_back((asker.shard, Reply::Members { asker, members, retention }));
            }
            Request::MaySearch { asker, .. } => {
                self.outputs.push_back((asker.shard, Reply::MaySearch { asker, visible_from }));
            }
            Request::View { asker, user, knows, .. } => {
                let begun = log.runs().last().map_or(0, |run| run.first_position);
                // Its members, or whether one blocks the other, may have changed since: its viewer was told of those of before.
                let knows = if slot.position > begun { Knows::Nothing } else { knows };
                let positions = slot.positions.as_ref();
                let reached = positions.map(|positions| positions.durable_receipts()).unwrap_or_default();
                match self.viewers.view(asker, user, conversation, knows, state, reached) {
                    Ok(()) => {
                        self.hasten(conversation);
                        self.answer_views();
                    }
                    Err(refusal) => self.push_refusal(asker, true, refusal),
                }
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
        let page = Page { items_max: limit as usize, bytes_max: PAGE_BYTES_MAX };
        let below = log.durable_head(stream).seq + 1;
        let begin = self.begins_from(conversation, log).0;
        let (newest_first, lowest, below) = match range {
            HistoryRange::After(after) => {
                let lowest = visible_from.0.max(after.0.saturating_add(1));
                (false, lowest, lowest.max(begin))
            }
            HistoryRange::Before(before) => (true, visible_from.0, below.min(before.0)),
            HistoryRange::Latest => (true, visible_from.0, below),
        };
        let lookup = if newest_first {
            Lookup::before(log, stream, below, lowest.max(begin), page)
        } else {
            Lookup::after(log, stream, below - 1, page)
        };
        let purpose = Purpose::History { asker, conversation, newest_first, lowest, below, visible_from };
        self.start(purpose, vec![lookup], log);
    }

    fn feed_from(&mut self, from: u64, feed: Feed, log: &mut Log) {
        let stream = conversation_stream(feed.conversation, Kind::Messages);
        self.start(Purpose::Feed { feed, from }, vec![Lookup::after(log, stream, from, PAGE)], log);
    }

    fn finish_feed(&mut self, feed: Feed, from: u64, mut records: Vec<Linked>, more: bool, log: &mut Log) {
        let Feed { session, shard, conversation, after, until, visible_from } = feed;
        let read = records.len();
        let last = records.last().map(|last| last.seq);
        records.retain(|record| record.position <= until);
        if records.is_empty() && from > after.0 {
            // What is kept begins beyond that position: how far what is not kept goes below it, say those that were passed over.
            return self.feed_from(after.0, feed, log);
        }
        let more_after = if more && records.len() == read { last } else { None };
        self.conceal(&mut records, log);
        hide_amendments(&mut records, visible_from);
        let gone = take_gone(conversation, &mut records, after.0 + 1, after.0 + 1);
        let fed = Reply::Fed { session, log: self.log, conversation, gone, records, more_after };
        self.outputs.push_back((shard, fed));
    }

    pub(super) fn finish(&mut self, job: Job, log: &mut Log) {
        if let Purpose::Acked { user } = job.purpose {
            return self.finish_acked_places(user, job.fetch.into_found(), log);
        }
        let (mut records, more) = job.fetch.finish();
        match job.purpose {
            Purpose::Acked { .. } => unreachable!("it has no records"),
            Purpose::AckedRecords { user } => self.finish_acked_records(&user, &records),
            Purpose::CatchUp(page) => self.finish_catching_up(*page, records, log),
            Purpose::Count { asker, user, conversation, seq } => {
                self.finish_count(asker, &user, conversation, seq, &records);
            }
            Purpose::Fold { conversation, until } => self.finish_fold(conversation, until, &records),
            Purpose::Amend { store, now } => {
                self.conceal(&mut records, log);
                self.finish_amend(store, records.first(), now, log);
            }
            Purpose::Feed { feed, from } => self.finish_feed(feed, from, records, more, log),
            Purpose::History { asker, conversation, newest_first, lowest, below, visible_from } => {
                let (mut more, mut lowest) = (more, lowest);
                self.conceal(&mut records, log);
                if newest_first {
                    records.reverse();
                    // Nothing is below a stub; what is below the page is for the next one.
                    more &= !records.iter().any(is_stub);
                    lowest = records.first().filter(|_| more).map_or(lowest, |first| first.seq.0);
                }
                hide_amendments(&mut records, visible_from);
                let gone = take_gone(conversation, &mut records, lowest, below);
                let history = Reply::History { asker, gone, records, newest_first, more };
                self.outputs.push_back((asker.shard, history));
            }
            Purpose::Counting(search) => self.finish_counting(search, &records, log),
            Purpose::Enlist { conversation } => self.finish_enlist(conversation, &records, log),
            Purpose::Candidates(page) => self.finish_candidates(&page, records, more, log),
            Purpose::List(page) => self.finish_list_page(&page, records, more, log),
            Purpose::Enlisted => self.finish_list(&records, more, log),
            Purpose::Memberships(page) => self.finish_memberships(&page, &records, log),
            Purpose::Load { conversation } => self.finish_load(conversation, &records, log),
            Purpose::Positions { conversation } => self.finish_positions(conversation, &records),
            Purpose::Settings { user } => self.finish_settings(&user, &records),
            Purpose::Sighting { user, shard } => self.finish_sighting(user, shard, &records),
            Purpose::LookUp { store, clock } => self.finish_look_up(store, clock, &records, log),
            Purpose::Verify { store, now } => self.finish_verify(store, &records, now, log),
            Purpose::Survey { session, shard, user, memberships, after } => {
                // As with catching up, the end is judged now: a change that became durable meanwhile is in the next page.
                let last = records.last().map_or(after, |last| last.position);
                let more_after = log.has_after(memberships, last).then_some(last);
                let conversations =
                    records.iter().filter_map(|record| self.surveyed(record, &user, log)).collect();
                let partial = records.iter().any(|record| record.record.is_none());
                let (position, log) = (log.durable().position(), self.log);
                let reply = Reply::Surveyed { session, log, conversations, more_after, position, partial };
                self.outputs.push_back((shard, reply));
            }
        }
    }

    /// Ends a job whose answer is not known now.
    pub(super) fn give_up(&mut self, job: Job, log: &Log) {
        let refusal = (ErrorCode::Unavailable, "the disk does not say now: ask again in a minute");
        match job.purpose {
            Purpose::Acked { user } | Purpose::AckedRecords { user } => self.finish_acked_records(&user, &[]),
            Purpose::Count { asker, conversation, .. } => self.give_up_count(asker, conversation, refusal),
            Purpose::Counting(search) => self.give_up_counting(&search, refusal),
            Purpose::History { asker, .. } => self.push_refusal(asker, true, refusal),
            Purpose::Candidates(page) => self.give_up_candidates(&page),
            Purpose::List(page) => self.give_up_list_page(&page),
            Purpose::Memberships(page) => self.give_up_memberships(&page),
            Purpose::Load { conversation } => self.finish_load(conversation, &[], log),
            Purpose::Fold { conversation, .. } | Purpose::Positions { conversation } => {
                self.give_up_positions(conversation, refusal);
            }
            Purpose::Settings { user } => self.finish_settings(&user, &[]),
            Purpose::Sighting { user, shard } => self.answer_sighting(user, shard, None),
            Purpose::Amend { store, .. } | Purpose::LookUp { store, .. } | Purpose::Verify { store, .. } => {
                self.end_look_up(&store);
                self.refuse(store.asker, refusal);
            }
            Purpose::CatchUp { .. }
            | Purpose::Enlist { .. }
            | Purpose::Enlisted
            | Purpose::Feed { .. }
            | Purpose::Survey { .. } => unreachable!("these are not refused"),
        }
    }

    fn finish_load(&mut self, conversation: ConversationId, records: &[Linked], log: &Log) {
        let state = state_of(&self.places, records);
        if let Some(state) = &state
            && self.large.misses(conversation)
        {
            let roster = Some(Roster::of(&self.places, state));
            self.large.load(conversation, roster, log.durable().position());
        }
        if let Some(state) = &state
            && self.fronts.misses(conversation)
        {
            self.fronts.set(conversation, state.kept(), false);
        }
        self.slots.get_mut(&conversation).expect("a busy conversation is kept").busy = false;
        if let (Some(state), Some(record)) = (state, records.first()) {
            self.know(conversation, state);
            self.slots.get_mut(&conversation).expect("it is kept").position = record.position;
            return self.resumed.push_back(conversation);
        }
        let slot = self.slots.get_mut(&conversation).expect("a busy conversation is kept");
        // One failed read is no verdict: what waits is told, and who asks next has it read again.
        for entrant in std::mem::take(&mut slot.pending) {
            let refusal = (ErrorCode::Unavailable, "this conversation's state cannot be read from the disk");
            self.refuse_entrant(conversation, &entrant, refusal);
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
        // What was stored more than a minute before the id was made is not this command, nor is anything older.
        let made = store.message_id.unix_ms().0.saturating_sub(AHEAD_MAX.as_millis() as u64);
        match oldest {
            Some((seq, at)) if seq > 1 && at >= made && at + (FORGOTTEN_AGE.as_millis() as u64) > clock => {
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

    fn finish_amend(&mut self, store: Box<Store>, message: Option<&Linked>, now: UnixMillis, log: &mut Log) {
        self.end_look_up(&store);
        match form_of(message) {
            Ok(form) => self.amend(&store, form, now, log),
            Err(refusal) => self.refuse(store.asker, refusal),
        }
    }

    /// What a record in a user's stream of memberships says about one conversation.
    fn surveyed(&self, linked: &Linked, user: &[u8], log: &Log) -> Option<Surveyed> {
        let (conversation, visible_from) = membership_of(linked, user)?;
        let head = self.durable_head(conversation, log);
        let position = linked.position;
        Some(Surveyed {
            position,
            conversation,
            head: Seq(head.seq),
            message_count: head.message_count,
            visible_from,
        })
    }

    fn end_look_up(&mut self, store: &Store) {
        self.slots.get_mut(&store.conversation).expect("a busy conversation is kept").busy = false;
        self.resumed.push_back(store.conversation);
    }
}

/// The state that was read, if it could be.
pub(super) fn state_of(places: &Places, records: &[Linked]) -> Option<Conversation> {
    let bytes = records.first()?.record.as_ref()?;
    let stored = Stored::with_checked_sum(Portable::parse(bytes).ok()?, bytes).ok()?;
    let StoredBody::State(state) = stored.body else {
        return None;
    };
    let number = stored.portable.seq.0;
    Some(Conversation { number, ..Conversation::read(places, state)? })
}

fn at_of(record: &[u8]) -> Option<u64> {
    Portable::parse(record).ok().map(|portable| portable.at.0)
}

/// Of which conversation a record in a user's stream of memberships is, and from where on the user is in it then.
pub(super) fn membership_of(linked: &Linked, user: &[u8]) -> Option<(ConversationId, Option<Seq>)> {
    let bytes = linked.record.as_ref()?;
    let portable = Portable::parse(bytes).ok()?;
    let visible_from = match Stored::with_checked_sum(portable, bytes).ok()?.body {
        StoredBody::Membership(body) => joined_from(body, user),
        _ => Some(Seq(1)),
    };
    Some((portable.conversation, visible_from))
}

/// A record in the stream of memberships either adds the user, and says from where, or takes it out.
fn joined_from(body: &ArchivedMembershipV1, user: &[u8]) -> Option<Seq> {
    let added = body.added.iter().find(|member| member.user.as_slice() == user)?;
    Some(Seq(added.visible_from.to_native()))
}
