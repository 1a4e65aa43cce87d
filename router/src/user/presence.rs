//! Who of this shard's users is online, told to the owners of the logs that watch them, and what its sessions view.
//!
//! A user is online with a session, and for [`UserLimits::presence_grace_millis`] after the last one: who changes the network is not
//! told to have left. What has to be told is kept by whom it is of, so it is the newest, and goes one mail at a time to each log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hashbrown::HashMap;
use protocol::event::{ErrorCode, Presence, Reached, ServerFrame};
use protocol::ids::{ConversationId, RequestId, UserId};
use protocol::limits::VIEWS_MAX;

use super::UserSide;
use super::session::{Held, View};
use super::travel::UNASKED;
use crate::mail::{Clock, Request, SessionId, Signal, Standing};

/// Logs of a store, at most: each has a bit in what is known of a watched user.
const LOGS_MAX: u16 = 64;

/// Users of whom this shard knows when they were last online, beside those who are. About 6 MB.
const LAST_SEEN_MAX: usize = 65_536;

/// Signals in one mail.
const SIGNALS_PER_MAIL: usize = 256;

/// Who types in how many conversations of one log, until that is told. Beyond it the next is not told at all.
const TYPING_MAX: usize = 1_024;

/// What a log has not been told yet.
#[derive(Default)]
struct Untold {
    /// Users whose standing it has to know, as it then is.
    standings: BTreeMap<UserId, ()>,
    typing: BTreeMap<(ConversationId, UserId), bool>,
    unviewed: VecDeque<(ConversationId, SessionId)>,
    /// What devices have acknowledged: after where, and up to where.
    acked: BTreeMap<UserId, (u64, u64)>,
    /// A mail is on its way.
    under_way: bool,
}

impl Untold {
    fn is_empty(&self) -> bool {
        self.standings.is_empty()
            && self.typing.is_empty()
            && self.unviewed.is_empty()
            && self.acked.is_empty()
    }
}

/// Presence of one shard's users.
pub(super) struct PresenceBoard {
    grace_micros: u64,
    clock: Clock,
    /// When this shard first knew the time, in microseconds: until grace has passed, who is not here may be on the way back.
    begun: Option<u64>,
    /// The logs that watch a user, a bit each.
    watchers: HashMap<UserId, u64, foldhash::fast::RandomState>,
    /// When the last session of a user ended: the newest of those who are not here.
    last_seen: HashMap<UserId, Clock, foldhash::fast::RandomState>,
    /// The same in the order of the ends, with those that have come back.
    ends: VecDeque<(u64, UserId)>,
    /// Who is watched, not here, and still held to be, and until when: each once, however often they are watched anew.
    graces: BTreeSet<(u64, UserId)>,
    untold: Vec<Untold>,
    /// The node goes away: nobody is told that its users do.
    leaving: bool,
}

impl PresenceBoard {
    /// A device has acknowledged what stands after a position of a log, up to another.
    pub(super) fn note_acked(&mut self, log: usize, user: &UserId, after: u64, to: u64) {
        let acked = &mut self.untold[log].acked;
        let (from, upto) = acked.get(user).copied().unwrap_or((after, to));
        acked.insert(user.clone(), (from.min(after), upto.max(to)));
    }

    pub(super) fn new(logs: u16, grace_millis: u64) -> Self {
        assert!(logs <= LOGS_MAX, "a store has at most 64 logs");
        Self {
            grace_micros: grace_millis * 1_000,
            clock: Clock::default(),
            begun: None,
            watchers: HashMap::default(),
            last_seen: HashMap::default(),
            ends: VecDeque::new(),
            graces: BTreeSet::new(),
            untold: (0..logs).map(|_| Untold::default()).collect(),
            leaving: false,
        }
    }

    /// Until when a user who is not here is held to be.
    fn grace_until(&self, user: &UserId) -> u64 {
        let begun = self.begun.unwrap_or(self.clock.micros);
        let last_seen = self.last_seen.get(user).map_or(begun, |seen| seen.micros);
        last_seen + self.grace_micros
    }

    fn standing(&self, user: &UserId, is_here: bool) -> Standing {
        let last_seen = self.last_seen.get(user).map(|seen| seen.unix);
        let in_grace = self.clock.micros < self.grace_until(user);
        match last_seen {
            _ if is_here => Standing::Online,
            Some(_) if in_grace => Standing::Online,
            None if in_grace => Standing::Unknown,
            _ => Standing::Offline { last_seen },
        }
    }

    fn tell(&mut self, user: &UserId) {
        let watchers = self.watchers.get(user).copied().unwrap_or(0);
        for (log, untold) in self.untold.iter_mut().enumerate() {
            if watchers & (1 << log) != 0 {
                untold.standings.insert(user.clone(), ());
            }
        }
    }

    fn forget_oldest(&mut self) {
        while self.last_seen.len() > LAST_SEEN_MAX
            && let Some((micros, user)) = self.ends.pop_front()
        {
            if self.last_seen.get(&user).is_some_and(|seen| seen.micros == micros) {
                self.last_seen.remove(&user);
            }
        }
        // Of those who come and go many ends are of before.
        if self.ends.len() > 2 * LAST_SEEN_MAX {
            let last_seen = &self.last_seen;
            self.ends.retain(|(micros, user)| last_seen.get(user).is_some_and(|seen| seen.micros == *micros));
        }
    }
}

impl UserSide {
    /// Takes the time of a turn. Whoever has been away for longer than grace is told to have left.
    pub fn begin_turn(&mut self, clock: Clock) {
        let board = &mut self.presence;
        board.clock = clock;
        board.begun.get_or_insert(clock.micros);
        while self.presence.graces.first().is_some_and(|(until, _)| *until <= clock.micros) {
            let (_, user) = self.presence.graces.pop_first().expect("looked at");
            let has_left = self.presence.grace_until(&user) <= clock.micros;
            if has_left && !self.users.contains_key(&user) {
                self.presence.tell(&user);
            }
        }
    }

    /// The node goes away, and its users with it: nobody is told that they leave.
    pub fn leave(&mut self) {
        self.presence.leaving = true;
    }

    /// The first session of a user began.
    pub(super) fn note_come(&mut self, user: &UserId) {
        let was_away = self.presence.clock.micros >= self.presence.grace_until(user)
            || !self.presence.last_seen.contains_key(user);
        self.presence.last_seen.remove(user);
        if was_away {
            self.presence.tell(user);
        }
    }

    /// The last session of a user ended.
    pub(super) fn note_gone(&mut self, user: &UserId) {
        let board = &mut self.presence;
        if board.leaving {
            return;
        }
        let clock = board.clock;
        board.last_seen.insert(user.clone(), clock);
        board.ends.push_back((clock.micros, user.clone()));
        board.forget_oldest();
        if board.watchers.contains_key(user) {
            board.graces.insert((clock.micros + board.grace_micros, user.clone()));
        }
    }

    /// A log wants to know how users stand, or not any more.
    pub(super) fn handle_watch(&mut self, log: u16, watched: Vec<UserId>, unwatched: &[UserId]) {
        for user in unwatched {
            let Some(watchers) = self.presence.watchers.get_mut(user) else { continue };
            *watchers &= !(1 << log);
            if *watchers == 0 {
                self.presence.watchers.remove(user);
            }
            self.presence.untold[usize::from(log)].standings.remove(user);
        }
        for user in watched {
            let until = self.presence.grace_until(&user);
            if !self.users.contains_key(&user) && self.presence.clock.micros < until {
                self.presence.graces.insert((until, user.clone()));
            }
            self.presence.untold[usize::from(log)].standings.insert(user.clone(), ());
            *self.presence.watchers.entry(user).or_default() |= 1 << log;
        }
    }

    /// The mail before has been read: the next may go.
    pub(super) fn handle_signals_taken(&mut self, log: u16) {
        self.presence.untold[usize::from(log)].under_way = false;
    }

    /// Logs that have not said yet that they read what they were told.
    pub(super) fn signals_under_way(&self) -> u32 {
        self.presence.untold.iter().filter(|untold| untold.under_way).count() as u32
    }

    /// Mails what is untold: one mail at a time to each log.
    pub(super) fn send_signals(&mut self) {
        for log in 0..self.presence.untold.len() {
            let untold = &self.presence.untold[log];
            if untold.under_way || untold.is_empty() {
                continue;
            }
            let signals = self.take_signals(log);
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
            } else if let Some((user, ())) = untold.standings.pop_first() {
                let standing = self.presence.standing(&user, self.users.contains_key(&user));
                Signal::Stands { user, standing }
            } else if let Some(((conversation, user), on)) = untold.typing.pop_first() {
                Signal::Typing { conversation, user, on }
            } else if let Some((user, (after, to))) = untold.acked.pop_first() {
                Signal::Acked { user, after, to }
            } else {
                break;
            };
            signals.push(signal);
        }
        signals
    }

    pub(super) fn view(
        &mut self,
        id: SessionId,
        number: RequestId,
        conversation: ConversationId,
        clock: Clock,
    ) {
        let Some((asker, user)) = self.asker(id, number, clock) else { return };
        let Some(session) = self.session(id) else { return };
        let views = &mut session.viewing.get_or_insert_default().views;
        let place = views.iter().position(|view| view.conversation == conversation);
        match place {
            Some(place) => views[place].asked = Some(number),
            None if views.len() >= VIEWS_MAX => {
                let words = "a session views at most 8 conversations: end one first";
                return self.refuse(id, number, ErrorCode::Limit, words);
            }
            None => views.push(View { conversation, asked: Some(number) }),
        }
        // The end of an earlier view that has not left yet would end this one.
        let log = usize::from(self.places.log_of(conversation));
        self.presence.untold[log].unviewed.retain(|unviewed| *unviewed != (conversation, id));
        self.hold(id, Held::Page(Request::View { asker, user, conversation }));
    }

    pub(super) fn unview(&mut self, id: SessionId, number: RequestId, conversation: ConversationId) {
        if let Some(viewing) = self.session(id).and_then(|session| session.viewing.as_mut())
            && viewing.views.extract_if(.., |view| view.conversation == conversation).count() > 0
        {
            self.end_view(id, conversation);
        }
        self.push_done(id, number);
    }

    pub(super) fn end_view(&mut self, id: SessionId, conversation: ConversationId) {
        let log = usize::from(self.places.log_of(conversation));
        self.presence.untold[log].unviewed.push_back((conversation, id));
    }

    pub(super) fn type_in(&mut self, id: SessionId, conversation: ConversationId, on: bool) {
        let Some(user) = self.session(id).map(|session| session.user.clone()) else { return };
        let typing = &mut self.presence.untold[usize::from(self.places.log_of(conversation))].typing;
        if typing.len() < TYPING_MAX || typing.contains_key(&(conversation, user.clone())) {
            typing.insert((conversation, user), on);
        }
    }

    /// The answer to a `view`, unless it was ended meanwhile: then the log has not heard of that.
    pub(super) fn handle_viewed(
        &mut self,
        id: SessionId,
        number: RequestId,
        conversation: ConversationId,
        presence: &[Presence],
        receipts: &[(UserId, Reached)],
    ) {
        self.page_arrived(id);
        let viewing = self.session(id).and_then(|session| session.viewing.as_mut());
        let mut views = viewing.into_iter().flat_map(|viewing| &mut viewing.views);
        match views.find(|view| view.conversation == conversation) {
            Some(view) => view.asked = view.asked.filter(|asked| *asked != number),
            None => self.end_view(id, conversation),
        }
        if number == UNASKED {
            return;
        }
        self.push_reply(
            id,
            &ServerFrame::Viewed { id: number, presence: presence.to_vec(), receipts: receipts.to_vec() },
        );
    }

    /// Something was refused that may have been a `view`. An earlier one of the same may have been granted: the log is told that it has
    /// ended, or nobody would.
    pub(super) fn forget_view(&mut self, id: SessionId, number: RequestId) {
        let Some(viewing) = self.session(id).and_then(|session| session.viewing.as_mut()) else { return };
        let refused: Vec<View> = viewing.views.extract_if(.., |view| view.asked == Some(number)).collect();
        for view in refused {
            self.end_view(id, view.conversation);
        }
    }

    pub(super) fn sessions_of(&self, user: &UserId) -> Vec<SessionId> {
        let slots = self.users.get(user).into_iter().flat_map(|present| &present.slots);
        let session =
            |slot: &u32| SessionId { slot: *slot, generation: self.sessions[*slot as usize].generation };
        slots.map(session).collect()
    }

    /// News of somebody. A session that does not read is told the newest presence once it does, and of all else nothing.
    pub(super) fn handle_telling(&mut self, sessions: &[SessionId], event: &ServerFrame) {
        for id in sessions {
            let outbox_bytes_max = self.limits.outbox_bytes_max;
            let Some(session) = self.session(*id) else { continue };
            let has_late = session.viewing.as_ref().is_some_and(|viewing| !viewing.late.is_empty());
            match event {
                _ if !has_late && session.outbox.has_room(outbox_bytes_max) => {
                    self.counters.presence += 1;
                    self.push_event(*id, event);
                }
                ServerFrame::Presence(presence) => {
                    let viewing = session.viewing.get_or_insert_default();
                    viewing.late.retain(|late| late.user != presence.user);
                    viewing.late.push(presence.clone());
                }
                _ => {}
            }
        }
    }

    /// An outbox is empty: what was kept for it goes first.
    pub(super) fn push_late(&mut self, id: SessionId) {
        let Some(viewing) = self.session(id).and_then(|session| session.viewing.as_mut()) else { return };
        for presence in std::mem::take(&mut viewing.late) {
            self.counters.presence += 1;
            self.push_event(id, &ServerFrame::Presence(presence));
        }
    }
}

impl Standing {
    /// As it is told; `None` while it is not known.
    pub(crate) fn told(self, user: UserId) -> Option<Presence> {
        match self {
            Self::Offline { last_seen } => Some(Presence { user, online: false, last_seen }),
            Self::Online => Some(Presence { user, online: true, last_seen: None }),
            Self::Unknown => None,
        }
    }

    /// `None` while it is not known.
    pub(crate) fn is_online(self) -> Option<bool> {
        match self {
            Self::Offline { .. } => Some(false),
            Self::Online => Some(true),
            Self::Unknown => None,
        }
    }
}
