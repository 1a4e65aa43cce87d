//! Who of this shard's users is invisible: asked of the owner of a user's settings when the user comes, and when somebody begins to look at
//! one who is not here and was not seen to leave.
//!
//! Until that is known a user is shown neither as here nor as away. Of who is visible nothing is kept. What changes while it is asked for
//! comes from the same owner, in the order in which it became durable, so what comes last is so.

use std::collections::{BTreeSet, VecDeque};

use protocol::event::ServerFrame;
use protocol::ids::{UnixMillis, UserId};

use super::UserSide;
use super::outbox::NEWS_BYTES_MAX;
use super::presence::{Hidden, Known, PresenceBoard};
use super::session::ToldBefore;
use crate::mail::{Asker, Request, SIGHTINGS, SessionId, Sighting};
use crate::places::ShardId;

/// After how long what could not be read is asked for again, in microseconds: its log is damaged and not served, or its node is about to end.
const RETRY_MICROS: u64 = 10_000_000;

/// Users of whom it is asked for again. Beyond it one is asked for when it comes or is looked at next; until then it is shown to nobody.
const RETRIES_MAX: usize = 65_536;

/// Sessions that ask for what they had put off, in one turn: some ten microseconds' work, as that of others that go by many.
const WOKEN_PER_TURN: usize = 256;

/// For the owner of some users' settings.
#[derive(Default)]
struct Queue {
    /// Somebody waits for these.
    soon: VecDeque<UserId>,
    /// And these have only come: as many as come at once.
    later: VecDeque<UserId>,
    under_way: usize,
}

/// Whose sightings are asked for.
pub(super) struct Asks {
    /// By the shard that is asked.
    queues: Vec<Queue>,
    /// In all of these.
    waiting: usize,
    under_way: BTreeSet<UserId>,
    /// To be asked for again, and when.
    retries: VecDeque<(u64, UserId)>,
    /// Nobody is asked for who has only come, and no page.
    is_paused: bool,
}

impl Asks {
    pub(super) fn new(shards: u16) -> Self {
        Self {
            queues: (0..shards).map(|_| Queue::default()).collect(),
            waiting: 0,
            under_way: BTreeSet::new(),
            retries: VecDeque::new(),
            is_paused: false,
        }
    }

    /// Questions that are not answered yet.
    pub(super) fn under_way(&self) -> u32 {
        self.under_way.len() as u32
    }

    /// Whether this side stands still.
    pub(super) fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// The next one for a shard, if it may be asked another.
    fn pop(&mut self, shard: usize) -> Option<UserId> {
        let queue = &mut self.queues[shard];
        if queue.under_way == SIGHTINGS {
            return None;
        }
        let later = if self.is_paused { None } else { Some(&mut queue.later) };
        let user = queue.soon.pop_front().or_else(|| later?.pop_front())?;
        self.waiting -= 1;
        Some(user)
    }
}

impl PresenceBoard {
    pub(super) fn is_invisible(&self, user: &UserId) -> bool {
        matches!(self.hidden.get(user), Some(Hidden::Since(_)))
    }

    /// Whether it is known whether a user who is here is invisible.
    pub(super) fn is_settled(&self, user: &UserId) -> bool {
        !matches!(self.hidden.get(user), Some(Hidden::Left(_) | Hidden::Unknown | Hidden::Unread))
    }

    /// Whether it still has to be asked for how a user stands.
    fn wants(&self, user: &UserId, is_here: bool) -> bool {
        match self.hidden.get(user) {
            Some(Hidden::Left(_) | Hidden::Unknown | Hidden::Unread) => true,
            Some(Hidden::Since(_)) => false,
            None => {
                let is_known = is_here || self.last_seen.contains_key(user);
                let known = self.watchers.get(user).map(|watched| watched.known);
                !is_known && matches!(known, Some(Known::No | Known::Unread))
            }
        }
    }
}

impl UserSide {
    /// Asks nothing more for those who have only come, nor for any session: another process goes on with them, and asks itself.
    pub fn pause(&mut self) {
        self.end_writing();
        self.asks_of_sightings.is_paused = true;
    }

    /// Goes on after [`UserSide::pause`].
    pub fn unpause(&mut self) {
        self.resume_writing();
        self.asks_of_sightings.is_paused = false;
        std::mem::take(&mut self.late_answers).into_iter().for_each(|answer| self.handle_index(answer));
        self.waking = Some(0);
    }

    /// After a pause every session asks for what it had put off: some in each turn, as all of a shard at once would keep it from what has come.
    pub(super) fn wake_some(&mut self) {
        if self.asks_of_sightings.is_paused {
            return;
        }
        let Some(from) = self.waking.take() else { return };
        let upto = self.sessions.capacity().min(from + WOKEN_PER_TURN);
        for slot in from..upto {
            if let Some(session) = self.sessions.get(slot) {
                self.ask_pages(SessionId { slot: slot as u32, generation: session.generation });
            }
        }
        self.waking = (upto < self.sessions.capacity()).then_some(upto);
    }

    /// Whether sessions are still to ask for what they had put off: the next turn is due then.
    #[must_use]
    pub fn is_waking(&self) -> bool {
        self.waking.is_some() && !self.asks_of_sightings.is_paused
    }

    pub(super) fn ask_soon(&mut self, user: &UserId) {
        let asks = &mut self.asks_of_sightings;
        asks.queues[self.places.settings_owner_of(user).index()].soon.push_back(user.clone());
        asks.waiting += 1;
    }

    pub(super) fn ask_later(&mut self, user: &UserId) {
        let asks = &mut self.asks_of_sightings;
        asks.queues[self.places.settings_owner_of(user).index()].later.push_back(user.clone());
        asks.waiting += 1;
    }

    /// Mails as many questions as may be under way.
    pub(super) fn ask_sightings(&mut self) {
        if self.asks_of_sightings.waiting == 0 {
            return;
        }
        let me = self.shard;
        for shard in 0..self.asks_of_sightings.queues.len() {
            while let Some(user) = self.asks_of_sightings.pop(shard) {
                let is_here = self.users.contains_key(&user);
                let is_wanted = self.presence.wants(&user, is_here);
                let asks = &mut self.asks_of_sightings;
                if is_wanted && asks.under_way.insert(user.clone()) {
                    asks.queues[shard].under_way += 1;
                    let is_whole = !is_here;
                    self.mail
                        .push_back((ShardId(shard as u16), Request::Sighting { shard: me, user, is_whole }));
                }
            }
        }
    }

    /// What could not be read some time ago is asked for again.
    pub(super) fn ask_again(&mut self, micros: u64) {
        while let Some((_, user)) = self.asks_of_sightings.retries.pop_front_if(|(at, _)| *at <= micros) {
            self.ask_later(&user);
        }
    }

    /// The owner of a user's settings has answered.
    pub(super) fn handle_sighting(&mut self, from: ShardId, user: UserId, found: Option<Sighting>) {
        let asks = &mut self.asks_of_sightings;
        asks.under_way.remove(&user);
        asks.queues[from.index()].under_way -= 1;
        match found {
            Some(sighting) => self.settle(&user, sighting),
            None => self.note_unread(user),
        }
    }

    fn note_unread(&mut self, user: UserId) {
        let board = &mut self.presence;
        if matches!(board.hidden.get(&user), Some(Hidden::Left(_))) {
            board.hidden.remove(&user);
        } else if let Some(hidden) = board.hidden.get_mut(&user).filter(|hidden| **hidden == Hidden::Unknown)
        {
            *hidden = Hidden::Unread;
        }
        board.know(&user, Known::Unread);
        board.tell(&user);
        let again = board.clock.micros + RETRY_MICROS;
        let retries = &mut self.asks_of_sightings.retries;
        if retries.len() < RETRIES_MAX {
            retries.push_back((again, user));
        }
    }

    /// What is kept of a user is known now.
    pub(super) fn settle(&mut self, user: &UserId, sighting: Sighting) {
        let board = &mut self.presence;
        if sighting.is_whole {
            board.know(user, Known::Sighted(sighting));
        }
        match (board.hidden.get(user).copied(), sighting.invisible_since) {
            (Some(Hidden::Unknown | Hidden::Unread), Some(since)) => {
                board.hidden.insert(user.clone(), Hidden::Since(since));
                for id in self.sessions_of(user) {
                    if self.session(id).is_some_and(|session| session.told == ToldBefore::Nothing) {
                        self.tell_if_invisible(id);
                    }
                }
            }
            (Some(Hidden::Unknown | Hidden::Unread), None) => {
                self.unhide(user);
                self.note_here(user);
            }
            (Some(Hidden::Left(clock)), since) => {
                self.unhide(user);
                if since.is_none() {
                    self.presence.note_left(user, clock, self.this_unit());
                }
            }
            (Some(Hidden::Since(_)) | None, _) => {}
        }
        self.presence.tell(user);
    }

    /// It has become durable that a user is invisible, since then, or is not any more.
    pub(super) fn handle_hidden(&mut self, asker: &Asker, user: UserId, since: Option<UnixMillis>) {
        self.push_done(asker.session, asker.id);
        let was_invisible = self.presence.is_invisible(&user);
        match (self.users.contains_key(&user), since) {
            (true, Some(since)) => _ = self.presence.hidden.insert(user.clone(), Hidden::Since(since)),
            (true, None) if self.presence.hidden.contains_key(&user) => {
                self.unhide(&user);
                self.note_here(&user);
                for slot in &self.users[&user].slots {
                    let told = &mut self.sessions[*slot as usize].told;
                    if *told == ToldBefore::AllThatIsSo {
                        *told = ToldBefore::Otherwise;
                    }
                }
            }
            (true, None) => {}
            (false, Some(_)) => {
                self.unhide(&user);
                self.presence.last_seen.remove(&user);
            }
            // It was invisible until it left, so when it was last seen is written down.
            (false, None) => {}
        }
        let known = since.map_or(Known::No, |since| Known::Sighted(Sighting::hidden(since)));
        self.presence.know(&user, known);
        self.presence.tell(&user);
        if was_invisible != since.is_some() {
            let others = self.sessions_of(&user).into_iter().filter(|id| *id != asker.session);
            others.collect::<Vec<_>>().into_iter().for_each(|id| self.tell_of_itself(id, since.is_some()));
        }
    }

    fn unhide(&mut self, user: &UserId) {
        let hidden = &mut self.presence.hidden;
        hidden.remove(user);
        // After a crowd has come there are few again.
        if hidden.capacity() > 1_024 && hidden.len() < hidden.capacity() / 4 {
            hidden.shrink_to(2 * hidden.len());
        }
    }

    /// Tells a session that its user is invisible, if that is so: behind its `welcome`.
    pub(super) fn tell_if_invisible(&mut self, id: SessionId) {
        let Some(user) = self.user_of(id) else { return };
        if self.presence.is_invisible(user) {
            self.tell_of_itself(id, true);
        }
    }

    fn tell_of_itself(&mut self, id: SessionId, on: bool) {
        let outbox_bytes_max = self.limits.outbox_bytes_max;
        let Some(session) = self.session(id).filter(|session| session.greeting.is_none()) else { return };
        if session.outbox.has_room(NEWS_BYTES_MAX, outbox_bytes_max) {
            self.push_event(id, &ServerFrame::Invisible { on });
        } else {
            session.viewing.get_or_insert_default().late_invisible = true;
        }
    }
}
