//! What the owners of the logs are told of this shard's users: how they stand, who types, which views have ended, and what devices have
//! acknowledged. It is kept by whom it is of, so it is the newest, and goes one mail at a time to each log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use protocol::ids::{ConversationId, UserId};

use super::UserSide;
use super::presence::PresenceBoard;
use crate::mail::{Given, Request, SessionId, Signal};

/// Signals in one mail.
const SIGNALS_PER_MAIL: usize = 256;

/// Devices that have come to one log, until that is told: a crowd of which each turn tells 256; 3 MB.
const CAME_MAX: usize = 65_536;

/// Who types in how many conversations of one log, until that is told. Beyond it the next is not told at all.
pub(super) const TYPING_MAX: usize = 1_024;

/// What a log has not been told yet.
#[derive(Default)]
pub(super) struct Untold {
    /// Users whose standing it has to know, as it then is.
    pub(super) standings: BTreeSet<UserId>,
    pub(super) typing: BTreeMap<(ConversationId, UserId), bool>,
    pub(super) unviewed: VecDeque<(ConversationId, SessionId)>,
    /// What devices have acknowledged,
    acked: BTreeMap<UserId, Given>,
    /// and come with, who may have said so when they were here last. Of at most [`CAME_MAX`]; who comes beyond that is passed over.
    came: VecDeque<(UserId, Given)>,
    /// A mail is on its way.
    under_way: bool,
}

impl Untold {
    fn is_empty(&self) -> bool {
        self.standings.is_empty()
            && self.typing.is_empty()
            && self.unviewed.is_empty()
            && self.acked.is_empty()
            && self.came.is_empty()
    }
}

impl PresenceBoard {
    /// A device has acknowledged something of a log.
    pub(super) fn note_acked(&mut self, log: usize, user: &UserId, new: Given) {
        let given = self.untold[log].acked.entry(user.clone()).or_insert(new);
        *given = given.and(new);
    }

    /// A device has come with something of a log.
    pub(super) fn note_came_with(&mut self, log: usize, user: &UserId, given: Given) {
        let came = &mut self.untold[log].came;
        if came.len() < CAME_MAX {
            came.push_back((user.clone(), given));
        }
    }
}

impl UserSide {
    /// The mail before has been read: the next may go.
    pub(super) fn handle_signals_taken(&mut self, log: u16) {
        self.presence.untold[usize::from(log)].under_way = false;
    }

    /// Logs that are to be told something, or have not said yet that they read what they were told.
    pub(super) fn signals_under_way(&self) -> u32 {
        self.presence.untold.iter().filter(|untold| untold.under_way || !untold.is_empty()).count() as u32
    }

    /// Mails what is untold: one mail at a time to each log.
    pub(super) fn send_signals(&mut self) {
        for log in 0..self.presence.untold.len() {
            let untold = &self.presence.untold[log];
            if untold.under_way || untold.is_empty() {
                continue;
            }
            let signals = self.take_signals(log);
            if signals.is_empty() {
                continue;
            }
            self.presence.untold[log].under_way = true;
            let (log, shard) = (log as u16, self.shard);
            self.mail.push_back((self.places.owner_of(log), Request::Signals { log, shard, signals }));
        }
    }

    fn take_signals(&mut self, log: usize) -> Vec<Signal> {
        let mut signals = Vec::new();
        while signals.len() < SIGNALS_PER_MAIL {
            let untold = &mut self.presence.untold[log];
            let signal = if let Some((conversation, session)) = untold.unviewed.pop_front() {
                Signal::Unviewed { conversation, session }
            } else if let Some(user) = untold.standings.pop_first() {
                match self.presence.standing(&user, self.users.contains_key(&user)) {
                    Some(standing) => {
                        let is_as_before = self.is_as_before(&user, standing);
                        Signal::Stands { user, standing, is_as_before }
                    }
                    None => {
                        self.ask_soon(&user);
                        continue;
                    }
                }
            } else if let Some(((conversation, user), on)) = untold.typing.pop_first() {
                Signal::Typing { conversation, user, on }
            } else if let Some((user, given)) = untold.acked.pop_first().or_else(|| untold.came.pop_front()) {
                Signal::Acked { user, given }
            } else {
                break;
            };
            signals.push(signal);
        }
        signals
    }
}
