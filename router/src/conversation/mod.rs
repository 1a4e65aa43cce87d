//! The conversation side: order, membership and storage of the conversations of one log.
//!
//! Commands of one conversation are handled strictly one after the other: while its state is being loaded or an old id
//! is being looked up, what arrives waits in its bounded queue. Nothing leaves here before the log has said that it is
//! durable.

mod acked;
mod amend;
mod blocking;
mod blocks;
mod candidates;
mod catching_up;
mod counting;
mod damage;
mod enlisting;
mod erasure;
mod fetch;
mod folding;
mod fronts;
mod gathering;
mod jobs;
mod kept;
mod large;
mod listing;
mod membership;
mod pages;
mod positions;
mod push;
mod reading;
mod recent;
mod retention;
mod runs;
mod settings;
mod sightings;
mod slots;
mod state;
mod unjudged;
mod viewers;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use protocol::event::ErrorCode;
use protocol::ids::{ConversationId, Seq, UnixMillis, UserId};
use protocol::record::{FormV1, Schema, StreamKind as Kind};
use slab::Slab;
use storage_log::{Answer, Draft, Durable, Head, Location, Log, Stored};

use crate::mail::{Asker, Deliver, Reply, Request, Store};
use crate::places::{Places, ShardId, conversation_stream};
use acked::Acked;
use blocks::Blocks;
use damage::Damages;
use folding::hide;
use fronts::{Fronts, shows_messages};
use gathering::Gathering;
use jobs::Job;
use kept::Kept;
use large::{LargeGroups, Roster};
use pages::WaitingPages;
use push::Pushes;
use settings::SettingsTable;
use sightings::Unwritten;
use slots::{Entrant, Loaded, Slot};
use state::{Audience, Conversation, Plan};
use viewers::Viewers;

pub use erasure::{Erased, Subject};
pub use fetch::{Read, ReadPlace};
pub use push::PushDue;
pub use recent::Recent;
pub use unjudged::Unjudged;

/// Conversations whose state is kept in memory per log: about 1 KB for two members with what they have read. Others load again from the
/// log, which is a read or two for each.
const LOADED_MAX: usize = 200_000;

/// Members of all of these: about 200 bytes each beyond the first two. Large groups count as what they are.
const LOADED_MEMBERS_MAX: usize = 1_000_000;

/// When to try again after `busy`.
const BUSY_RETRY_MS: u64 = 100;

/// When to try again while the disk is full.
const FULL_RETRY_MS: u64 = 2_000;

/// An answer that waits for its record to be durable.
struct Waiting {
    position: u64,
    shard: ShardId,
    reply: Reply,
    /// Absent when the same command came again.
    delivery: Option<Delivery>,
}

struct Delivery {
    key: recent::Key,
    asked_micros: u64,
    location: Location,
    audience: Arc<Audience>,
    /// Who is told only that there was one.
    hidden_from: Option<Arc<Audience>>,
    amended: Option<(ConversationId, Seq)>,
    conversation: ConversationId,
    /// 1 for a message.
    messages: u64,
    /// Who has to learn of the head when coming back, where that changes.
    roster: Option<Roster>,
    /// How much of the conversation is kept, where that may change.
    kept: Option<Kept>,
}

/// All conversations of one log.
pub struct ConversationSide {
    places: Arc<Places>,
    log: u16,
    slots: HashMap<ConversationId, Slot, foldhash::fast::RandomState>,
    /// Members of all of `slots`.
    loaded_members: usize,
    /// All of `slots`, and when each was asked for when it was looked at last.
    loaded: VecDeque<(ConversationId, u64)>,
    recent: Recent,
    /// Commands that are stored and not durable: nobody can read them yet. Bounded by what the log lets wait.
    undurable: HashMap<recent::Key, recent::Known, foldhash::fast::RandomState>,
    /// What is being amended, as it will be, and the position with which that is durable. Bounded as the above.
    amended: HashMap<(ConversationId, Seq), (u64, FormV1), foldhash::fast::RandomState>,
    waiting: VecDeque<Waiting>,
    /// Messages that were appended and will not become durable, as the log has stopped.
    lost: Vec<(ConversationId, u64)>,
    large: LargeGroups,
    fronts: Fronts,
    /// The newest time that it was told: what is not kept any more stays so if a clock goes back. See `latest`.
    now: UnixMillis,
    viewers: Viewers,
    gathering: Gathering,
    pushes: Pushes,
    settings: SettingsTable,
    sightings: Unwritten,
    acked: Acked,
    /// Pages that have waited for what a start reads. Bounded by the page credits.
    held: VecDeque<Request>,
    /// Pages by a membership that is not durable yet, and the position that makes it so. Bounded by the page credits.
    early: VecDeque<(u64, Request)>,
    jobs: Slab<Job>,
    /// Segments that have moved.
    moved: u64,
    /// Conversations whose job has ended and that have something pending.
    resumed: VecDeque<ConversationId>,
    /// Conversations whose positions were read, and into which what follows is to be folded.
    unfolded: VecDeque<ConversationId>,
    pages: WaitingPages,
    outputs: VecDeque<(ShardId, Reply)>,
    reads: VecDeque<Read>,
    blocks: Blocks,
    damages: Damages,
    /// Shared with whoever writes segments anew.
    erased: Arc<Erased>,
    /// Jobs that wait for an index file to be made again, by the base of its segment. Bounded as jobs are: by credits, and one a
    /// conversation.
    stalled: VecDeque<(u64, Job)>,
    clock: u64,
    /// Messages stored since the start; for the metrics.
    pub messages_stored: u64,
}

impl ConversationSide {
    /// The conversations of log number `log`; `recent` holds the ids that recovery read.
    #[must_use]
    pub fn new(places: Arc<Places>, log: u16, recent: Recent) -> Self {
        Self {
            viewers: Viewers::new(places.clone(), log),
            gathering: Gathering::default(),
            pushes: Pushes::default(),
            settings: SettingsTable::default(),
            sightings: Unwritten::default(),
            acked: Acked::default(),
            places,
            log,
            slots: HashMap::default(),
            loaded_members: 0,
            loaded: VecDeque::new(),
            recent,
            undurable: HashMap::default(),
            amended: HashMap::default(),
            waiting: VecDeque::new(),
            lost: Vec::new(),
            large: LargeGroups::new(),
            fronts: Fronts::default(),
            now: UnixMillis(0),
            held: VecDeque::new(),
            early: VecDeque::new(),
            jobs: Slab::new(),
            moved: 0,
            resumed: VecDeque::new(),
            unfolded: VecDeque::new(),
            pages: WaitingPages::default(),
            outputs: VecDeque::new(),
            reads: VecDeque::new(),
            blocks: Blocks::default(),
            damages: Damages::default(),
            erased: Arc::default(),
            stalled: VecDeque::new(),
            clock: 0,
            messages_stored: 0,
        }
    }

    /// Takes a request from a user's home.
    pub fn handle_request(&mut self, request: Request, now: UnixMillis, log: &mut Log) {
        let now = self.latest(now);
        self.begin_enlisting(log);
        if self.large.loading.is_some() && shows_messages(&request) {
            self.large.wait(request);
        } else {
            self.admit(request, now, log);
        }
        self.resume(now, log);
    }

    /// Begins with a request, whatever it waited for.
    fn admit(&mut self, request: Request, now: UnixMillis, log: &mut Log) {
        if let Request::Signals { log: number, shard, signals } = request {
            self.handle_signals(shard, signals, log);
            return self.outputs.push_back((shard, Reply::SignalsTaken { log: number }));
        }
        if let Request::Seen { shard, seen, .. } = request {
            return self.handle_seen(shard, seen, now, log);
        }
        if settings::is_of_a_user(&request) {
            self.handle_settings(request, now, log);
            return self.resume(now, log);
        }
        match conversation_of(&request) {
            None => self.start_page(request, log),
            Some(conversation) => {
                self.enter(conversation, Entrant::Request(Box::new(request)), now, log);
            }
        }
    }

    /// The time by which all is done here: it does not go back with the clock. What was stored by an earlier one than that by which it is
    /// judged what is in front could stand there at once.
    pub(super) fn latest(&mut self, now: UnixMillis) -> UnixMillis {
        self.now = self.now.max(now);
        self.now
    }

    /// Takes the disk's answer to a [`Read`]: `None` when it failed. A block answers all who have asked for it meanwhile.
    pub fn handle_read(
        &mut self,
        job: u32,
        place: u32,
        bytes: Option<Vec<u8>>,
        now: UnixMillis,
        log: &mut Log,
    ) {
        let now = self.latest(now);
        let others =
            self.jobs[job as usize].fetch.block().map_or_else(Vec::new, |block| self.blocks.end(block));
        // Each goes on as far as the block leads before the next is given it: there are never many copies.
        for (job, place) in others {
            self.feed(job, place, bytes.clone(), now, log);
        }
        self.feed(job, place, bytes, now, log);
    }

    fn feed(&mut self, job: u32, place: u32, bytes: Option<Vec<u8>>, now: UnixMillis, log: &mut Log) {
        let fetch = &mut self.jobs[job as usize].fetch;
        fetch.feed(place, bytes, log, &mut self.damages);
        if fetch.is_fed() {
            let job = self.jobs.remove(job as usize);
            self.run(job, log);
            self.resume(now, log);
        }
    }

    /// Erases what is stored of a subject up to a position: from now on no reader is given it, live or from the log.
    pub fn erase(&mut self, subject: &Subject, to: u64) {
        Arc::make_mut(&mut self.erased).insert(subject, to);
        // What is being amended in this moment would be amended further from here.
        self.amended.retain(|(conversation, target), (_, form)| {
            !subject.concerns(*conversation, *target, &form.sender)
        });
    }

    /// A segment of the log was written anew, and what is begun from now on finds it where it stands now.
    pub fn note_moved(&mut self) {
        self.moved += 1;
    }

    /// Whether something goes on that was begun before the newest move.
    #[must_use]
    pub fn reads_as_before_move(&self) -> bool {
        let stalled = self.stalled.iter().map(|(_, job)| job);
        self.jobs.iter().map(|(_, job)| job).chain(stalled).any(|job| job.begun < self.moved)
    }

    /// Answers and delivers everything that `durable` covers.
    pub fn handle_durable(&mut self, durable: &Durable, now: UnixMillis, log: &mut Log) {
        assert_eq!(durable.log(), self.log, "a token of this log");
        let now = self.latest(now);
        while self.waiting.front().is_some_and(|waiting| durable.covers(waiting.position)) {
            let waiting = self.waiting.pop_front().expect("looked at");
            self.outputs.push_back((waiting.shard, waiting.reply));
            if let Some(mut delivery) = waiting.delivery {
                self.undurable.remove(&delivery.key);
                self.forget_amended(&delivery, waiting.position);
                self.deliver(&mut delivery, log);
            }
        }
        self.viewers.tell_unblocked(|position| durable.covers(position));
        self.tell_receipts(|position| durable.covers(position));
        while self.early.front().is_some_and(|(position, _)| durable.covers(*position)) {
            let (_, request) = self.early.pop_front().expect("looked at");
            self.handle_request(request, now, log);
        }
    }

    /// The log stopped: what waits for it is told that its outcome is unknown.
    pub fn handle_failed(&mut self) {
        let refusal = (ErrorCode::Unavailable, "the log stopped: send again with the same message_id");
        for waiting in std::mem::take(&mut self.waiting) {
            self.lost
                .extend(waiting.delivery.as_ref().map(|delivery| (delivery.conversation, delivery.messages)));
            if let Reply::Stored { asker, .. }
            | Reply::Done { asker }
            | Reply::Hidden { asker, .. }
            | Reply::Refused { asker, .. } = waiting.reply
            {
                self.refuse(asker, refusal);
            }
        }
        for (_, request) in std::mem::take(&mut self.early) {
            self.refuse_request(&request, refusal);
        }
    }

    /// The next answer or delivery, in the order that the mailbox must keep.
    pub fn poll_output(&mut self) -> Option<(ShardId, Reply)> {
        self.outputs.pop_front()
    }

    /// Views that can be answered are, before what comes later leaves.
    fn answer_views(&mut self) {
        self.outputs.extend(self.viewers.take_answers());
    }

    /// The next news of presence for a shard that has room for them: they are the newest, whenever they leave.
    pub fn poll_news(&mut self, has_room: impl Fn(ShardId) -> bool) -> Option<(ShardId, Reply)> {
        self.viewers.poll_news(has_room)
    }

    /// Whether news wait for room at some shard: then look again soon.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.viewers.has_any_news()
    }

    /// What to read next from the disk.
    pub fn poll_read(&mut self) -> Option<Read> {
        self.reads.pop_front()
    }

    /// The next record that was found damaged, each once: for the operator.
    pub fn poll_damage(&mut self) -> Option<Location> {
        self.damages.poll_news()
    }

    /// Bases of the segments whose index files are not what was written, and which something waits for: they have to be made again,
    /// and [`ConversationSide::handle_index`] is told so.
    pub fn index_damage(&self) -> impl Iterator<Item = u64> + '_ {
        self.stalled.iter().map(|(base, _)| *base)
    }

    /// The index file of the segment at `base` was made again: what waited for it goes on.
    pub fn handle_index(&mut self, base: u64, now: UnixMillis, log: &mut Log) {
        let now = self.latest(now);
        for mut job in self.unstall(base, |_| true) {
            job.fetch.forget_failure();
            self.run(job, log);
        }
        self.resume(now, log);
    }

    /// It cannot be made again now: who asked once is told so, and may ask again. A session that catches up waits on, since it
    /// cannot be told to pass over what it has not read.
    pub fn refuse_stalled(&mut self, base: u64, now: UnixMillis, log: &mut Log) {
        let now = self.latest(now);
        for job in self.unstall(base, Job::is_refusable) {
            self.give_up(job, log);
        }
        self.refuse_held();
        self.resume(now, log);
    }

    fn unstall(&mut self, base: u64, wanted: fn(&Job) -> bool) -> Vec<Job> {
        // Asked in every turn while something waits: what stays is not moved.
        let mut taken = Vec::new();
        while let Some(place) = self.stalled.iter().position(|(of, job)| *of == base && wanted(job)) {
            taken.extend(self.stalled.remove(place).map(|(_, job)| job));
        }
        taken
    }

    /// The newest durable record of a conversation, and the messages up to it: exactly, also while newer ones are being written.
    pub(super) fn durable_head(&self, conversation: ConversationId, log: &Log) -> Head {
        let stream = conversation_stream(conversation, Kind::Messages);
        let (head, durable) = (log.head(stream), log.durable_head(stream));
        if durable.seq == head.seq {
            return head;
        }
        let deliveries = self.waiting.iter().filter_map(|waiting| waiting.delivery.as_ref());
        let coming = deliveries.map(|delivery| (delivery.conversation, delivery.messages));
        let coming = coming.chain(self.lost.iter().copied()).filter(|(of, _)| *of == conversation);
        let coming: u64 = coming.map(|(_, messages)| messages).sum();
        Head { seq: durable.seq, message_count: head.message_count - coming }
    }

    /// Whether something waits for durability.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
            || !self.early.is_empty()
            || !self.gathering.is_empty()
            || !self.sightings.is_empty()
    }

    fn deliver(&mut self, delivery: &mut Delivery, log: &Log) {
        let record = log.recent(delivery.location).expect("the newest batch is in memory");
        let position = record.position();
        match delivery.roster.take() {
            Some(roster) => self.large.change(delivery.conversation, roster, position),
            None => self.large.note_head(delivery.conversation, position),
        }
        self.viewers.note_members(delivery.conversation, record.portable());
        self.outputs.extend(self.viewers.take_answers());
        self.fold_durable(delivery.conversation, record.seq(), record.portable());
        self.acked.note_durable(position, delivery.conversation, Seq(record.seq()));
        if delivery.messages > 0 {
            self.pushes.note_message(delivery.conversation, Seq(record.seq()), position);
        }
        self.note_kept(delivery.conversation, delivery.kept.take());
        let (seq, at) = (Seq(record.seq()), UnixMillis(record.at()));
        let front = self.front_then(delivery.conversation, seq, at);
        let bytes = self.erased.delivered_behind(position, record.portable(), front);
        self.deliver_to(&delivery.audience, position, &bytes, delivery.asked_micros);
        if let Some(hidden_from) = &delivery.hidden_from {
            self.deliver_to(hidden_from, position, &hide(&bytes), delivery.asked_micros);
        }
    }

    fn deliver_to(&mut self, audience: &Audience, position: u64, record: &Bytes, asked_micros: u64) {
        for (shard, users) in &audience.shards {
            let (record, users) = (record.clone(), users.clone());
            let deliver = Deliver { log: self.log, position, record, users, asked_micros };
            self.outputs.push_back((*shard, Reply::Deliver(deliver)));
        }
    }

    /// Stores a command, unless it was stored before or must not be.
    fn store(&mut self, mut store: Box<Store>, now: UnixMillis, log: &mut Log, looked_up: bool) {
        let key = self.recent.key(store.conversation, &store.user, store.message_id);
        let head = log.head(conversation_stream(store.conversation, Kind::Messages)).seq;
        if store.idempotent && !looked_up {
            if let Some(known) = self.undurable.get(&key).copied() {
                return self.answer_again(&store, known, log);
            }
            let candidates = self.recent.candidates(key, head);
            if !candidates.is_empty() {
                return self.start_verify(store, &candidates, now, log);
            }
            match self.judge_age(store, now, log) {
                Some(new) => store = new,
                None => return,
            }
        }
        if let Some(target) = store.change.target() {
            return self.find_amended(store, target, now, log);
        }
        let next = (Seq(head + 1), UnixMillis(log.clock(now.0)));
        match state::plan(&self.places, &store, self.loaded(store.conversation), next) {
            Err(refusal) => self.refuse(store.asker, refusal),
            Ok(None) => {
                // What made it so may be under way.
                let position = self.slots[&store.conversation].position;
                self.done_when_durable(store.asker, position, log);
            }
            Ok(Some(plan)) => match self.judge_roster(&store, &plan) {
                Err(refusal) => self.refuse(store.asker, refusal),
                Ok(()) => _ = self.append(&store, plan, now, log),
            },
        }
    }

    fn judge_roster(&self, store: &Store, plan: &Plan) -> Result<(), state::Refusal> {
        plan.roster.as_ref().map_or(Ok(()), |roster| self.large.judge(store.conversation, roster))
    }

    /// Appends what was planned, or says why not. The position that it becomes durable with.
    fn append(&mut self, store: &Store, mut plan: Plan, now: UnixMillis, log: &mut Log) -> Option<u64> {
        let head = log.head(conversation_stream(store.conversation, Kind::Messages)).seq;
        if let Some(after) = &mut plan.after {
            after.number = self.loaded(store.conversation).map_or(0, |before| before.number).max(head) + 1;
        }
        let refusal = match append(log, store.conversation, head, &plan, now) {
            Answer::Stored(stored) => {
                self.stored(store, plan, head + 1, stored);
                self.keep_positions_near(store.conversation, head + 1, log);
                return Some(stored.last_position);
            }
            Answer::Busy => (ErrorCode::Busy, "the disk is behind"),
            Answer::Full => (ErrorCode::StorageFull, "the disk is full"),
            Answer::Conflict { .. } => unreachable!("one writer, and the head was just asked for"),
            Answer::Unavailable => {
                (ErrorCode::Unavailable, "the log stopped: send again with the same message_id")
            }
        };
        self.refuse(store.asker, refusal);
        None
    }

    /// An id that memory does not know: gives the command back if it is new, refuses one of the future, and has one that
    /// may have been forgotten looked up.
    fn judge_age(&mut self, store: Box<Store>, now: UnixMillis, log: &mut Log) -> Option<Box<Store>> {
        let clock = log.clock(now.0);
        let claimed = store.message_id.unix_ms().0;
        if claimed > clock + recent::AHEAD_MAX.as_millis() as u64 {
            let refusal = (
                ErrorCode::BadField,
                "`message_id` is ahead of the server's clock: see `now` of the `welcome`",
            );
            self.refuse(store.asker, refusal);
            return None;
        }
        if self.recent.may_have_forgotten(claimed, clock) {
            self.start_look_up(store, clock, log);
            return None;
        }
        Some(store)
    }

    fn stored(&mut self, store: &Store, plan: Plan, seq: u64, stored: Stored) {
        let key = self.recent.key(store.conversation, &store.user, store.message_id);
        let position = stored.last_position;
        let known = recent::Known { seq, at: stored.at, position, content_hash: store.content_hash };
        self.recent.insert(key, seq, stored.at);
        self.undurable.insert(key, known);
        let reply = stored_reply(store, known, (seq == 1).then(|| store.user.clone()));
        let (asked_micros, location) = (store.asker.asked_micros, stored.location);
        let Plan { after, audience, hidden_from, messages, roster, .. } = plan;
        self.messages_stored += messages;
        let conversation = store.conversation;
        // What it was before counts as the command found it: that may be under way too, or not be read yet after a start.
        let was_all = || self.loaded(conversation).is_none_or(|before| before.kept().is_all());
        let kept = after.as_ref().map(Conversation::kept).filter(|kept| !kept.is_all() || !was_all());
        let amended = store.change.target().map(|target| (conversation, target));
        let delivery = Some(Delivery {
            key,
            asked_micros,
            location,
            audience,
            hidden_from,
            amended,
            conversation,
            messages,
            roster,
            kept,
        });
        self.waiting.push_back(Waiting { position, shard: store.asker.shard, reply, delivery });
        if let Some(after) = after {
            self.know(store.conversation, after);
            self.slots.get_mut(&store.conversation).expect("entered").position = position;
        }
    }

    /// The same command again: answered when what it stored is durable.
    fn answer_again(&mut self, store: &Store, known: recent::Known, log: &Log) {
        if known.content_hash != store.content_hash {
            let refusal = (ErrorCode::Conflict, "this message_id was used for other content");
            return self.refuse(store.asker, refusal);
        }
        let (shard, reply) = (store.asker.shard, stored_reply(store, known, None));
        if log.durable().covers(known.position) {
            self.outputs.push_back((shard, reply));
        } else if log.is_healthy() {
            let place = self.waiting.partition_point(|waiting| waiting.position <= known.position);
            self.waiting.insert(place, Waiting { position: known.position, shard, reply, delivery: None });
        } else {
            self.refuse(
                store.asker,
                (ErrorCode::Unavailable, "the log stopped: send again with the same message_id"),
            );
        }
    }

    fn refuse(&mut self, asker: Asker, refusal: state::Refusal) {
        self.push_refusal(asker, false, refusal);
    }

    fn push_refusal(&mut self, asker: Asker, is_page: bool, (code, message): state::Refusal) {
        let retry_after_ms = match code {
            ErrorCode::StorageFull => Some(FULL_RETRY_MS),
            ErrorCode::Busy | ErrorCode::Unavailable => Some(BUSY_RETRY_MS),
            _ => None,
        };
        self.outputs
            .push_back((asker.shard, Reply::Refused { asker, is_page, code, message, retry_after_ms }));
    }

    fn refuse_request(&mut self, request: &Request, refusal: state::Refusal) {
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

fn conversation_of(request: &Request) -> Option<ConversationId> {
    match request {
        Request::Store(store) => Some(store.conversation),
        Request::Block { conversation, .. }
        | Request::History { conversation, .. }
        | Request::ListMembers { conversation, .. }
        | Request::MaySearch { conversation, .. }
        | Request::Mute { conversation, .. }
        | Request::Read { conversation, .. }
        | Request::View { conversation, .. } => Some(*conversation),
        Request::Candidates { .. }
        | Request::CatchUp { .. }
        | Request::Feed { .. }
        | Request::List { .. }
        | Request::Memberships { .. }
        | Request::PushTokens { .. }
        | Request::Reads { .. }
        | Request::Seen { .. }
        | Request::Set { .. }
        | Request::Settings { .. }
        | Request::Sighting { .. }
        | Request::Signals { .. }
        | Request::Survey { .. } => None,
    }
}

fn append(log: &mut Log, conversation: ConversationId, head: u64, plan: &Plan, now: UnixMillis) -> Answer {
    let stream = conversation_stream(conversation, Kind::Messages);
    let (event, links) = (plan.event.payload(), plan.links(stream, head + 1));
    let event = Draft {
        stream,
        expected_head: head,
        messages: plan.messages,
        schema: plan.event.schema() as u16,
        payload: &event,
        links: &links,
    };
    let Some(after) = &plan.after else {
        return log.append(&[event], now.0);
    };
    let payload = after.body().payload();
    log.append(&[event, state_draft(conversation, after, &payload)], now.0)
}

/// The record of a state, under its number.
fn state_draft<'p>(conversation: ConversationId, state: &Conversation, payload: &'p [u8]) -> Draft<'p> {
    Draft {
        stream: conversation_stream(conversation, Kind::State),
        expected_head: state.number - 1,
        messages: 0,
        schema: Schema::State as u16,
        payload,
        links: &[],
    }
}

fn stored_reply(store: &Store, known: recent::Known, begun_by: Option<UserId>) -> Reply {
    Reply::Stored {
        asker: store.asker,
        conversation: store.conversation,
        seq: Seq(known.seq),
        message_id: store.message_id,
        at: UnixMillis(known.at),
        begun_by,
    }
}
