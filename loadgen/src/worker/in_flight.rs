//! What a user has asked for and has no answer to yet.

use protocol::{command::Command, ids::MessageId};

use super::searching::Quest;
use crate::{clock::Moment, plan::RoomIndex};

/// A storing command that waits for its answer.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) message_id: MessageId,
    pub(super) room: RoomIndex,
    /// `None` for what is not part of the schedule.
    pub(super) due: Option<Moment>,
    pub(super) command: Command,
    /// When it was first written.
    pub(super) sent_at: Option<Moment>,
    pub(super) in_history: bool,
}

impl Pending {
    /// Whether it changes who is in a group.
    pub(super) const fn is_change(&self) -> bool {
        matches!(self.command, Command::Leave { .. } | Command::Members(_))
    }
}

pub(super) enum Asked {
    Connect,
    /// What is visible of a conversation to who has just joined, or left by a sequence.
    Look {
        room: RoomIndex,
        left: Option<u64>,
    },
    /// Of the group that is being read.
    Page,
    Ping,
    /// How far somebody has read, and when what it answers was delivered.
    Read {
        room: RoomIndex,
        seq: u64,
        due: Option<Moment>,
    },
    Search(Box<Quest>),
    Store(Pending),
    View(RoomIndex),
}

/// One question on its way.
pub(super) struct Flight {
    id: u32,
    /// When it was written on this connection.
    pub(super) asked_at: Moment,
    pub(super) asked: Asked,
}

/// What has no answer yet, oldest first: few, so looked through. Whoever waits for nothing holds no memory for it.
#[derive(Default)]
pub(super) struct InFlight(Vec<Flight>);

impl InFlight {
    /// Under `id`, which is higher than those before.
    pub(super) fn insert(&mut self, id: u32, asked_at: Moment, asked: Asked) {
        self.0.push(Flight { id, asked_at, asked });
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Asked> {
        self.take(id).map(|flight| flight.asked)
    }

    /// The same, with when it was asked.
    pub(super) fn take(&mut self, id: u32) -> Option<Flight> {
        let place = self.0.iter().position(|flight| flight.id == id)?;
        let flight = self.0.remove(place);
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
        Some(flight)
    }

    /// Searches that have no answer; one that comes later is nobody's.
    pub(super) fn take_searches(&mut self) -> Vec<Quest> {
        let searches = self.0.extract_if(.., |flight| matches!(flight.asked, Asked::Search(_)));
        let quests = searches.filter_map(|flight| match flight.asked {
            Asked::Search(quest) => Some(*quest),
            _ => None,
        });
        quests.collect()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Asked> {
        self.0.iter().map(|flight| &flight.asked)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What was asked for on a connection that has ended, newest first.
    pub(super) fn drain_back(&mut self) -> impl Iterator<Item = Asked> {
        std::mem::take(&mut self.0).into_iter().rev().map(|flight| flight.asked)
    }
}
