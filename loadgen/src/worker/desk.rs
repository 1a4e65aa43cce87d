//! What all users of a worker share: the plan, names of rooms, the book, the tally, the history.

use std::{collections::HashMap, rc::Rc};

use anyhow::Context as _;
use protocol::ids::ConversationId;

use super::{
    history::History,
    tally::{Outage, Tally},
    user::Pending,
};
use crate::{
    clock::Moment,
    link::WorkerConfig,
    plan::{Plan, RoomIndex},
    random::Random,
    verify::{Book, Kind},
};

pub(super) struct Desk {
    pub(super) config: WorkerConfig,
    pub(super) plan: Rc<Plan>,
    pub(super) rooms: RoomNames,
    pub(super) book: Book,
    pub(super) tally: Tally,
    pub(super) outage: Outage,
    pub(super) history: Option<History>,
    pub(super) random: Random,
    /// Sends the node wants later: when, whose (place among the users of this worker), what.
    pub(super) retries: Vec<(Moment, usize, Pending)>,
    /// The start of the schedule.
    pub(super) start: Option<Moment>,
    /// How far everybody has to read, once told.
    pub(super) heads: Option<Vec<(RoomIndex, u64)>>,
    pub(super) finishing: bool,
    /// The last thing that went wrong with a connection, for people.
    pub(super) last_fault: Option<String>,
}

impl Desk {
    pub(super) fn new(config: WorkerConfig) -> anyhow::Result<Self> {
        let plan = Rc::new(Plan::new(&config.tag, config.users, config.mix));
        let history = config.history.as_deref().map(History::create).transpose()?;
        let rooms = RoomNames { ids: vec![None; plan.rooms.len()], by_id: HashMap::new() };
        Ok(Self {
            config,
            plan,
            rooms,
            book: Book::default(),
            tally: Tally::default(),
            outage: Outage::default(),
            history,
            random: Random::from_system()?,
            retries: Vec::new(),
            start: None,
            heads: None,
            finishing: false,
            last_fault: None,
        })
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

    /// Ends the history. One that could not be written whole is none, and the run says so.
    pub(super) fn close_history(&mut self) -> anyhow::Result<()> {
        self.history.take().map_or(Ok(()), History::close).context("the history could not be written")
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
