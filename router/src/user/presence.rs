//! Who of this shard's users is online, told to the owners of the logs that watch them.
//!
//! A user is online with a session, and for [`UserLimits::presence_grace_millis`] after the last one: who changes the network is not
//! told to have left.

use std::collections::{BTreeSet, VecDeque};

use hashbrown::HashMap;
use protocol::event::Presence;
use protocol::ids::{UnixMillis, UserId};

use super::UserSide;
use super::session::ToldBefore;
use super::signals::Untold;
use crate::mail::{Clock, SessionId, Sighting, Standing};
use crate::places::LOGS_MAX;

/// Users of whom this shard knows when they were last online, beside those who are and those of whom that is not written yet. About 6 MB.
const LAST_SEEN_MAX: usize = 65_536;

/// Ends that are of before and may be kept, beside as many as stand: so they are looked through once in so many.
const WRITTEN_SLACK: usize = 1_024;

/// From when one process stands still until the next one begins, in milliseconds, at most: more than an upgrade lets it take.
const PAUSE_MILLIS_MAX: u64 = 60_000;

/// What is known of a watched user who is not here and was not seen to leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Known {
    /// Nothing: it has to be asked for.
    #[default]
    No,
    Sighted(Sighting),
    /// It cannot be read now.
    Unread,
}

/// A user whom logs watch.
#[derive(Default)]
pub(super) struct Watched {
    /// A bit each.
    logs: u64,
    pub(super) known: Known,
}

/// When a user left who was not invisible.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    clock: Clock,
    /// The unit in which its sighting was written before.
    written: u16,
}

/// Why a user who has a session is not shown as online.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hidden {
    /// It has just come, and may be invisible: that is asked for.
    Unknown,
    /// The same, and it has gone again: then.
    Left(Clock),
    /// It is invisible, since then.
    Since(UnixMillis),
    /// Whether it is cannot be read now.
    Unread,
}

/// How this process began.
#[derive(Clone, Copy, Debug)]
enum Beginning {
    /// Its first turn is to come.
    Ahead,
    /// With nobody: who is not here may be on the way back until grace has passed.
    Empty(Clock),
    /// With the sessions of another process, where viewers knew of everybody who was away, and the disk of those who had just left; or not, in
    /// the first seconds of a run or where the disk took nothing.
    WithSessions { since: Clock, absent_known: bool },
}

/// Presence of one shard's users.
pub(super) struct PresenceBoard {
    grace_micros: u64,
    pub(super) clock: Clock,
    beginning: Beginning,
    pub(super) watchers: HashMap<UserId, Watched, foldhash::fast::RandomState>,
    /// Those of who have come that others do not see: nobody else of them, so most users have no entry.
    pub(super) hidden: HashMap<UserId, Hidden, foldhash::fast::RandomState>,
    /// When the last session of a user ended: the newest of those who are not here, and were not invisible.
    pub(super) last_seen: HashMap<UserId, Left, foldhash::fast::RandomState>,
    /// The same in the order of the ends, with those that have come back: of those that are to be written,
    pub(super) ends: VecDeque<(u64, UserId)>,
    /// and of those that are.
    written: VecDeque<(u64, UserId)>,
    /// Who is watched, not here, and still held to be, and until when: each once, however often they are watched anew.
    graces: BTreeSet<(u64, UserId)>,
    pub(super) untold: Vec<Untold>,
    /// When it was last heard that the disk did not take when somebody was last seen.
    lost: Option<u64>,
    /// The node goes away: nobody is told that its users do.
    leaving: bool,
}

impl PresenceBoard {
    pub(super) fn new(logs: u16, grace_millis: u64) -> Self {
        assert!(logs <= LOGS_MAX, "each has a bit in what is known of a watched user");
        Self {
            grace_micros: grace_millis * 1_000,
            clock: Clock::default(),
            beginning: Beginning::Ahead,
            watchers: HashMap::default(),
            hidden: HashMap::default(),
            last_seen: HashMap::default(),
            ends: VecDeque::new(),
            written: VecDeque::new(),
            graces: BTreeSet::new(),
            untold: (0..logs).map(|_| Untold::default()).collect(),
            lost: None,
            leaving: false,
        }
    }

    /// When this shard first knew the time.
    fn begun(&self) -> Clock {
        match self.beginning {
            Beginning::Ahead => self.clock,
            Beginning::Empty(since) | Beginning::WithSessions { since, .. } => since,
        }
    }

    /// Whether it began with the sessions of another process.
    fn goes_on(&self) -> bool {
        matches!(self.beginning, Beginning::WithSessions { .. })
    }

    /// Until when a user who is not here is held to be.
    fn grace_until(&self, user: &UserId) -> u64 {
        if let Some(left) = self.last_seen.get(user) {
            return left.clock.micros + self.grace_micros;
        }
        match self.watchers.get(user).map(|watched| watched.known) {
            Some(Known::Sighted(Sighting { invisible_since: None, last_seen: Some(left), .. }))
                if self.knew_absent() =>
            {
                self.awaited_until(left)
            }
            _ => self.begun().micros + self.grace_micros,
        }
    }

    /// The same of one who left the process before: grace goes on where it was, or it would begin anew with each upgrade.
    fn awaited_until(&self, left: UnixMillis) -> u64 {
        let begun = self.begun();
        let passed = begun.unix.0.saturating_sub(left.0) * 1_000;
        begun.micros + self.grace_micros.saturating_sub(passed)
    }

    /// How a user is shown; `None`: that has to be asked for first.
    pub(super) fn standing(&self, user: &UserId, is_here: bool) -> Option<Standing> {
        if is_here {
            return match self.hidden.get(user) {
                None => Some(Standing::Online),
                Some(Hidden::Since(since)) => Some(self.away(Some(*since))),
                Some(Hidden::Unread) => Some(Standing::Unknown),
                Some(Hidden::Left(_) | Hidden::Unknown) => None,
            };
        }
        if let Some(Left { clock: seen, .. }) = self.last_seen.get(user) {
            let in_grace = self.clock.micros < seen.micros + self.grace_micros;
            let last_seen = Some(seen.unix);
            return Some(if in_grace { Standing::Online } else { Standing::Offline { last_seen } });
        }
        match self.watchers.get(user)?.known {
            Known::No => None,
            Known::Sighted(Sighting { invisible_since: Some(since), .. }) => Some(self.away(Some(since))),
            Known::Sighted(Sighting { last_seen, .. }) if self.is_awaited(last_seen) => {
                Some(Standing::Online)
            }
            Known::Sighted(Sighting { last_seen, .. }) => Some(self.away(last_seen)),
            Known::Unread => Some(Standing::Unknown),
        }
    }

    /// Whether a user left the process before, and is held to be here for as long as that one would have.
    fn is_awaited(&self, last_seen: Option<UnixMillis>) -> bool {
        self.goes_on() && last_seen.is_some_and(|left| self.clock.micros < self.awaited_until(left))
    }

    /// Whether a user who is away was surely shown so in the process before already: grace had passed before that one stood still, and its own
    /// first seconds as well.
    fn was_away(&self, user: &UserId, last_seen: Option<UnixMillis>) -> bool {
        let Beginning::WithSessions { since, absent_known: true } = self.beginning else { return false };
        let known = self.watchers.get(user).map(|watched| watched.known);
        let is_invisible = self.is_invisible(user)
            || matches!(known, Some(Known::Sighted(Sighting { invisible_since: Some(_), .. })));
        // Who becomes invisible is shown as away at once.
        let until = if is_invisible { 0 } else { self.grace_micros / 1_000 + PAUSE_MILLIS_MAX };
        last_seen.is_none_or(|seen| seen.0 + until < since.unix.0)
    }

    /// Whether the process that this one goes on with knew of everybody who was away.
    fn knew_absent(&self) -> bool {
        matches!(self.beginning, Beginning::WithSessions { absent_known: true, .. })
    }

    /// Whether it is known of everybody who left before this process until when grace lasts.
    fn waits_for_nobody(&self) -> bool {
        self.knew_absent() || self.clock.micros >= self.begun().micros + self.grace_micros
    }

    /// Whether viewers know of everybody who is away by now, and the disk of everybody who is not told to be yet.
    pub(super) fn knows_absent(&self) -> bool {
        let is_lost = self.lost.is_some_and(|lost| self.clock.micros < lost + self.grace_micros);
        self.waits_for_nobody() && !is_lost
    }

    /// Of somebody who has left the disk does not have when that was: the next process may take whoever left within grace by now for one who was
    /// away long before, and was shown so.
    pub(super) fn note_lost(&mut self) {
        self.lost = Some(self.clock.micros);
    }

    /// Right after a start who went away before it may be on the way back; of who is invisible that is held too, or it would be told that
    /// they are not. Likewise where a process goes on with sessions, and it is not known who has just left.
    fn away(&self, last_seen: Option<UnixMillis>) -> Standing {
        let is_of_before = last_seen.is_none_or(|seen| seen < self.begun().unix);
        if is_of_before && !self.waits_for_nobody() {
            return Standing::Unknown;
        }
        Standing::Offline { last_seen }
    }

    pub(super) fn tell(&mut self, user: &UserId) {
        let watchers = self.watchers.get(user).map_or(0, |watched| watched.logs);
        for (log, untold) in self.untold.iter_mut().enumerate() {
            if watchers & (1 << log) != 0 {
                untold.standings.insert(user.clone());
            }
        }
    }

    /// A user who was not invisible has gone.
    pub(super) fn note_left(&mut self, user: &UserId, clock: Clock, written: u16) {
        self.last_seen.insert(user.clone(), Left { clock, written });
        self.ends.push_back((clock.micros, user.clone()));
        let last_seen = Some(clock.unix);
        self.know(user, Known::Sighted(Sighting { invisible_since: None, last_seen, is_whole: true }));
        if self.watchers.contains_key(user) && !self.leaving {
            self.graces.insert((clock.micros + self.grace_micros, user.clone()));
        }
    }

    fn is_end(&self, micros: u64, user: &UserId) -> Option<UnixMillis> {
        self.last_seen.get(user).filter(|left| left.clock.micros == micros).map(|left| left.clock.unix)
    }

    /// When the next user was last seen for whom grace has passed, or who is not waited for; `Some(None)` of one who has come back.
    pub(super) fn next_end(&self, is_ending: bool) -> Option<Option<UnixMillis>> {
        let (micros, user) = self.ends.front()?;
        let is_due = is_ending || micros + self.grace_micros <= self.clock.micros;
        is_due.then(|| self.is_end(*micros, user))
    }

    /// In how many microseconds grace has passed for one who has left.
    pub(super) fn end_in_micros(&self) -> Option<u64> {
        let (micros, _) = self.ends.front()?;
        Some((micros + self.grace_micros).saturating_sub(self.clock.micros))
    }

    /// The user of [`PresenceBoard::next_end`], which is written from now on.
    pub(super) fn take_end(&mut self) -> UserId {
        let (micros, user) = self.ends.pop_front().expect("there was one");
        self.written.push_back((micros, user.clone()));
        self.forget_oldest();
        user
    }

    /// Keeps what is known of a user while somebody watches it.
    pub(super) fn know(&mut self, user: &UserId, known: Known) {
        let Some(watched) = self.watchers.get_mut(user) else { return };
        watched.known = known;
        let until = self.grace_until(user);
        if self.goes_on() && self.clock.micros < until {
            self.graces.insert((until, user.clone()));
        }
    }

    fn forget_oldest(&mut self) {
        while self.last_seen.len() > LAST_SEEN_MAX
            && let Some((micros, user)) = self.written.pop_front()
        {
            if self.is_end(micros, &user).is_some() {
                self.last_seen.remove(&user);
            }
        }
        // Of those who come and go many ends are of before, each of which holds a name: no more than those that stand.
        if self.written.len() > 2 * self.last_seen.len() + WRITTEN_SLACK {
            let last_seen = &self.last_seen;
            let stands = |(micros, user): &(u64, UserId)| {
                last_seen.get(user).is_some_and(|left| left.clock.micros == *micros)
            };
            self.written.retain(stands);
            self.written.shrink_to(self.written.len() + WRITTEN_SLACK);
        }
    }
}

impl UserSide {
    /// This shard goes on with sessions of another process, of which a view that comes along knows who is there. Before the first turn.
    /// `absent_known` is what [`UserSide::knows_absent`] said there.
    pub fn go_on(&mut self, clock: Clock, absent_known: bool) {
        let board = &mut self.presence;
        board.clock = clock;
        board.beginning = Beginning::WithSessions { since: clock, absent_known };
    }

    /// Whether those who view something have been told of everybody who is away, for the process that goes on with them.
    #[must_use]
    pub fn knows_absent(&self) -> bool {
        self.presence.knows_absent()
    }

    /// Whether those who view a user knew of this standing in the process before.
    pub(super) fn is_as_before(&self, user: &UserId, standing: Standing) -> bool {
        match standing {
            Standing::Offline { last_seen } => self.presence.was_away(user, last_seen),
            Standing::Online => match self.users.get(user) {
                Some(here) => {
                    let told = |slot: &u32| self.sessions[*slot as usize].told;
                    here.slots.iter().any(|slot| told(slot) == ToldBefore::AllThatIsSo)
                }
                // Within grace, and not seen to leave here.
                None => !self.presence.last_seen.contains_key(user),
            },
            Standing::Unknown => false,
        }
    }

    /// Takes the time of a turn. Whoever has been away for longer than grace is told to have left.
    pub fn begin_turn(&mut self, clock: Clock) {
        let board = &mut self.presence;
        board.clock = clock;
        if let Beginning::Ahead = board.beginning {
            board.beginning = Beginning::Empty(clock);
        }
        while self.presence.graces.first().is_some_and(|(until, _)| *until <= clock.micros) {
            let (_, user) = self.presence.graces.pop_first().expect("looked at");
            let has_left = self.presence.grace_until(&user) <= clock.micros;
            if has_left && (!self.users.contains_key(&user) || self.presence.hidden.contains_key(&user)) {
                self.presence.tell(&user);
            }
        }
        self.ask_again(clock.micros);
        self.walk_sessions(clock.micros);
        self.wake_some();
        self.give_up_asks();
    }

    /// The node goes away, and its users with it: nobody is told that they leave, and it is written that they do.
    pub fn leave(&mut self) {
        self.presence.leaving = true;
        self.end_writing();
    }

    /// The first session of a user began. Who was seen to leave was not invisible, and has changed nothing of that without a session; of
    /// others it has to be known first.
    pub(super) fn note_come(&mut self, user: &UserId) {
        self.mark_written(user, self.this_unit());
        let board = &mut self.presence;
        if let Some(Left { clock: seen, written }) = board.last_seen.remove(user) {
            if board.clock.micros < seen.micros + board.grace_micros {
                return self.note_back(user, written);
            }
            board.tell(user);
            return self.note_here(user);
        }
        board.hidden.insert(user.clone(), Hidden::Unknown);
        match board.watchers.get(user).map(|watched| watched.known) {
            Some(Known::Sighted(sighting)) => self.settle(user, sighting),
            _ => self.ask_later(user),
        }
    }

    /// The last session of a user ended.
    pub(super) fn note_gone(&mut self, user: &UserId, written: u16) {
        let board = &mut self.presence;
        let clock = board.clock;
        match board.hidden.remove(user) {
            None => board.note_left(user, clock, written),
            Some(Hidden::Unknown) => {
                board.hidden.insert(user.clone(), Hidden::Left(clock));
                self.ask_soon(user);
            }
            // Nobody is told, as nobody was told that it was here.
            Some(Hidden::Since(since)) => {
                board.know(user, Known::Sighted(Sighting::hidden(since)));
            }
            Some(Hidden::Left(_) | Hidden::Unread) => {}
        }
    }

    /// A log wants to know how users stand, or not any more.
    pub(super) fn handle_watch(&mut self, log: u16, watched: Vec<UserId>, unwatched: &[UserId]) {
        for user in unwatched {
            let Some(watched) = self.presence.watchers.get_mut(user) else { continue };
            watched.logs &= !(1 << log);
            if watched.logs == 0 {
                self.presence.watchers.remove(user);
            }
            self.presence.untold[usize::from(log)].standings.remove(user);
        }
        for user in watched {
            let until = self.presence.grace_until(&user);
            let is_seen = self.users.contains_key(&user) && !self.presence.hidden.contains_key(&user);
            if !is_seen && self.presence.clock.micros < until {
                self.presence.graces.insert((until, user.clone()));
            }
            self.presence.untold[usize::from(log)].standings.insert(user.clone());
            self.presence.watchers.entry(user).or_default().logs |= 1 << log;
        }
    }

    /// Those that may be told something: nothing comes before the `welcome`, and how far its user has read is for who comes to ask.
    pub(super) fn welcomed_sessions_of(&self, user: &UserId) -> Vec<SessionId> {
        let is_welcomed = |id: &SessionId| self.sessions[id.slot as usize].greeting.is_none();
        self.sessions_of(user).into_iter().filter(is_welcomed).collect()
    }

    pub(super) fn sessions_of(&self, user: &UserId) -> Vec<SessionId> {
        let slots = self.users.get(user).into_iter().flat_map(|present| &present.slots);
        let session =
            |slot: &u32| SessionId { slot: *slot, generation: self.sessions[*slot as usize].generation };
        slots.map(session).collect()
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
