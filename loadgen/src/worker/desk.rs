//! What all users of a worker share: the plan, names of rooms, the book, the tally, the history.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
};

use anyhow::Context as _;
use protocol::{event::ServerFrame, ids::ConversationId};

use super::{
    amending::Amending,
    attention::Watching,
    churning::Churning,
    history::History,
    in_flight::Pending,
    searching::Searching,
    tally::{Outage, Tally},
};
use crate::{
    clock::Moment,
    latency::Latencies,
    link::{NewestChange, Pace, ToWorker, WorkerConfig},
    plan::{Plan, RoomIndex, RoomKind, UserIndex},
    random::Random,
    verify::{Book, Kind},
};

pub(super) struct Desk {
    pub(super) config: WorkerConfig,
    pub(super) plan: Rc<Plan>,
    pub(super) rooms: RoomNames,
    pub(super) book: Book,
    pub(super) amending: Amending,
    pub(super) watching: Watching,
    pub(super) churning: Churning,
    pub(super) searching: Searching,
    pub(super) tally: Tally,
    pub(super) outage: Outage,
    pub(super) history: Option<History>,
    pub(super) random: Random,
    /// Of what arrives, between its bytes and its handling: empty in between.
    pub(super) frames: Vec<ServerFrame>,
    /// Sends the node wants later: when, whose (place among the users of this worker), what.
    pub(super) retries: Vec<(Moment, usize, Pending)>,
    /// The start of the schedule.
    pub(super) start: Option<Moment>,
    /// The schedule ends before this number.
    pub(super) messages_due: u64,
    /// Who is on the way, and how far a step of a storm is.
    pub(super) muster: Muster,
    /// How everybody reads,
    pub(super) pace: Pace,
    /// and since when. What was said before may still come out of a socket whose other end has gone.
    paced_at: Moment,
    /// When the newest heartbeat or `connect` was asked that has an answer.
    pub(super) answered: Moment,
    /// How far everybody has to read, once told.
    pub(super) heads: Option<Vec<(RoomIndex, u64)>>,
    /// And who joined or left last.
    pub(super) changes: Vec<NewestChange>,
    pub(super) finishing: bool,
    /// What is to be done next, where that is said step by step.
    pub(super) orders: VecDeque<ToWorker>,
    /// When the first attempt to connect failed behind the last one that did not.
    pub(super) dials_fail_since: Option<Moment>,
    /// The node has said something since the last tick.
    pub(super) is_heard: bool,
    /// The node has gone away, says the controller.
    pub(super) is_abandoned: bool,
    /// The last thing that went wrong with a connection, for people.
    pub(super) last_fault: Option<String>,
}

impl Desk {
    pub(super) fn new(config: WorkerConfig) -> anyhow::Result<Self> {
        let plan = Plan::with_crowd(&config.tag, config.users, config.crowd, config.mix);
        let plan = Rc::new(plan.with_changes(config.comings.churn > 0));
        let messages_due = config.load.messages();
        let history = config.history.as_deref().map(History::create).transpose()?;
        let rooms = RoomNames { ids: vec![None; plan.rooms_count() as usize], by_id: HashMap::new() };
        Ok(Self {
            config,
            plan,
            rooms,
            book: Book::default(),
            amending: Amending::default(),
            watching: Watching::default(),
            churning: Churning::default(),
            searching: Searching::default(),
            tally: Tally::default(),
            outage: Outage::default(),
            history,
            random: Random::from_system()?,
            frames: Vec::new(),
            retries: Vec::new(),
            start: None,
            messages_due,
            muster: Muster::default(),
            pace: Pace::Full,
            paced_at: Moment::default(),
            answered: Moment::default(),
            heads: None,
            changes: Vec::new(),
            finishing: false,
            orders: VecDeque::new(),
            dials_fail_since: None,
            is_heard: false,
            is_abandoned: false,
            last_fault: None,
        })
    }

    /// Everybody reads like this from now on.
    pub(super) const fn set_pace(&mut self, pace: Pace, now: Moment) {
        (self.pace, self.paced_at) = (pace, now);
    }

    /// Whether who is connected hears the node, and not only what it had said before: something is answered that was asked since everybody reads
    /// like this.
    pub(super) fn hears_the_node(&self) -> bool {
        self.answered >= self.paced_at
    }

    /// The rooms of these kinds that users of this worker make.
    pub(super) fn own_rooms(&self, kinds: &[RoomKind]) -> Vec<RoomIndex> {
        let is_own = |room: &RoomIndex| {
            let room = self.plan.room(*room);
            kinds.contains(&room.kind) && self.config.owns(room.maker())
        };
        self.plan.rooms().filter(is_own).collect()
    }

    /// The node says that this room has this id. What it said before stands.
    pub(super) fn learn(&mut self, room: RoomIndex, conversation: ConversationId) {
        let known = self.rooms.ids[room.0 as usize];
        let owner = self.rooms.by_id.get(&conversation).copied();
        match (known, owner) {
            (None, None) => {
                self.rooms.ids[room.0 as usize] = Some(conversation);
                self.rooms.by_id.insert(conversation, room);
            }
            (Some(known), Some(owner)) if known == conversation && owner == room => {}
            _ => self.tally.violations.add(Kind::Recipient, || {
                format!("room {} is {known:?} and {conversation}, which is {owner:?}", room.0)
            }),
        }
    }

    /// A command of `user` will not be sent: its answer is waited for by nobody.
    pub(super) fn give_up(&mut self, user: UserIndex, pending: &Pending) {
        self.note_unamended(pending);
        self.churning.end_if(pending);
        self.tally.give_up(&self.plan.name(user));
    }

    /// Ends the history. One that could not be written whole is none, and the run says so.
    pub(super) fn close_history(&mut self) -> anyhow::Result<()> {
        self.history.take().map_or(Ok(()), History::close).context("the history could not be written")
    }
}

/// Users of this worker that come and go together.
#[derive(Default)]
pub(super) struct Muster {
    /// Everybody is to be away: whose connection ends does not come back, and it is nobody's fault.
    pub(super) is_over: bool,
    /// Tasks of users: each ends when its user is to be away.
    pub(super) tasks: u32,
    /// Users that have a session.
    pub(super) welcomed: u32,
    /// Users that are caught up.
    pub(super) live: u32,
    /// When the step that goes on began.
    pub(super) from: Moment,
    /// When the last user was done with it.
    pub(super) last: Moment,
    /// How long each took.
    pub(super) took: Latencies,
}

impl Muster {
    /// A step begins at `from`.
    pub(super) fn begin(&mut self, from: Moment) {
        self.from = from;
        self.last = from;
        self.took.take_buckets();
    }

    /// A user is done with the step.
    pub(super) fn count(&mut self, now: Moment) {
        self.last = self.last.max(now);
        self.took.record(now.since(self.from));
    }
}

/// The node's names of the rooms.
pub(super) struct RoomNames {
    ids: Vec<Option<ConversationId>>,
    by_id: HashMap<ConversationId, RoomIndex>,
}

impl RoomNames {
    pub(super) fn id(&self, room: RoomIndex) -> Option<ConversationId> {
        self.ids[room.0 as usize]
    }

    pub(super) fn room(&self, conversation: ConversationId) -> Option<RoomIndex> {
        self.by_id.get(&conversation).copied()
    }
}
