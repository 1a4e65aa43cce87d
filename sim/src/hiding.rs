//! Who makes itself invisible, and what others are told of it.
//!
//! `invisible_is_unseen`: whoever looks after a user was told that it is invisible is not shown it as online, nor any other time than that of
//! when it became so; and once all is calm nobody is told that it has come.

use std::cell::Cell;
use std::collections::BTreeMap;

use protocol::command::Command;
use protocol::event::{ErrorCode, Presence};
use protocol::ids::{RequestId, UserId};

use crate::Rng;

/// What one client has asked for on its connection, and what it knows of itself.
#[derive(Default)]
pub(crate) struct Hiding {
    /// Where anybody is invisible.
    pub(crate) dice: Option<Rng>,
    asked: BTreeMap<RequestId, usize>,
    is_on: bool,
}

impl Hiding {
    /// Becomes invisible, or visible again, as the dice have it.
    pub(crate) fn act(&mut self, id: RequestId, user: &UserId, all: &mut Invisibles) -> Option<Command> {
        let rng = self.dice.as_mut()?;
        if !rng.one_in(10) {
            return None;
        }
        let on = rng.one_in(2);
        self.asked.insert(id, all.asked(user, on));
        Some(Command::Invisible { on })
    }

    /// A connection begins: who is told nothing is visible.
    pub(crate) fn begin(&mut self) {
        self.asked.clear();
        self.is_on = false;
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.asked.is_empty()
    }

    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    pub(crate) fn told(&mut self, user: &UserId, on: bool, all: &Invisibles) {
        assert!(all.was_asked(user, on), "{user} is told that it is invisible: {on}");
        self.is_on = on;
    }

    /// A command is done: whether it was one of these.
    pub(crate) fn done(&mut self, id: RequestId, user: &UserId, all: &mut Invisibles) -> bool {
        let asked = self.asked.remove(&id);
        if let Some(number) = asked {
            self.is_on = all.done(user, number);
        }
        asked.is_some()
    }

    pub(crate) fn refused(
        &mut self,
        id: Option<RequestId>,
        code: ErrorCode,
        user: &UserId,
        all: &mut Invisibles,
    ) {
        if let Some(number) = id.and_then(|id| self.asked.remove(&id))
            && !code.retryable()
        {
            all.refused(user, number);
        }
    }
}

/// One that was asked for; by the clock of what was asked for and answered, and in milliseconds since 1970.
struct Asked {
    on: bool,
    at: u64,
    done_at: Option<u64>,
    refused: bool,
    asked_ms: u64,
    done_ms: Option<u64>,
}

/// Who is invisible for certain, and how often it was asked to be anything.
pub(crate) type Hidden = BTreeMap<UserId, usize>;

/// All that was asked for.
#[derive(Default)]
pub(crate) struct Invisibles {
    of: BTreeMap<UserId, Vec<Asked>>,
    now: u64,
    /// Milliseconds since 1970.
    pub(crate) now_ms: u64,
    /// What was told late has been told by now.
    pub(crate) is_calm: bool,
    /// Times that one who is invisible was looked for.
    pub(crate) seen: Cell<u64>,
}

impl Invisibles {
    fn asked(&mut self, user: &UserId, on: bool) -> usize {
        self.now += 1;
        let asked = self.of.entry(user.clone()).or_default();
        let (asked_ms, done_ms) = (self.now_ms, None);
        asked.push(Asked { on, at: self.now, done_at: None, refused: false, asked_ms, done_ms });
        asked.len() - 1
    }

    fn done(&mut self, user: &UserId, number: usize) -> bool {
        self.now += 1;
        let asked = &mut self.of.get_mut(user).expect("it was asked for")[number];
        (asked.done_at, asked.done_ms) = (Some(self.now), Some(self.now_ms));
        asked.on
    }

    fn refused(&mut self, user: &UserId, number: usize) {
        self.of.get_mut(user).expect("it was asked for")[number].refused = true;
    }

    fn was_asked(&self, user: &UserId, on: bool) -> bool {
        self.all_asked(user).iter().any(|asked| asked.on == on)
    }

    /// Whether a user was ever to be invisible.
    pub(crate) fn may_hide(&self, user: &UserId) -> bool {
        self.of.contains_key(user)
    }

    fn all_asked(&self, user: &UserId) -> &[Asked] {
        self.of.get(user).map_or(&[], Vec::as_slice)
    }

    /// What may be so now: what was done is past when something else is that was asked for later.
    fn may_be(&self, user: &UserId) -> impl Iterator<Item = &Asked> {
        let asked = self.all_asked(user);
        let newest = asked.iter().filter(|one| one.done_at.is_some()).map(|one| one.at).max();
        let stands = move |one: &&Asked| {
            !one.refused && one.done_at.is_none_or(|done| newest.is_none_or(|at| at <= done))
        };
        asked.iter().filter(stands)
    }

    fn is_hidden(&self, user: &UserId) -> bool {
        let is_known = self.all_asked(user).iter().any(|one| one.done_at.is_some());
        is_known && self.may_be(user).all(|one| one.on)
    }

    /// Who is invisible for certain.
    pub(crate) fn all(&self) -> Hidden {
        let hidden = self.of.iter().filter(|(user, _)| self.is_hidden(user));
        hidden.map(|(user, asked)| (user.clone(), asked.len())).collect()
    }

    /// What a look that was asked for while these were invisible says of one user.
    pub(crate) fn check_viewed(&self, presence: &Presence, hidden: &Hidden) {
        if hidden.get(&presence.user) == Some(&self.all_asked(&presence.user).len()) {
            self.seen.set(self.seen.get() + 1);
            self.check_away(presence);
        }
    }

    /// What is told of one who is invisible.
    pub(crate) fn check_away(&self, presence: &Presence) {
        let Presence { user, online, last_seen } = presence;
        assert!(!online, "invisible_is_unseen: {user} is shown");
        let became = |one: &Asked| {
            let done_ms = one.done_ms.unwrap_or(self.now_ms);
            one.on && last_seen.is_some_and(|seen| one.asked_ms <= seen.0 && seen.0 <= done_ms)
        };
        let is_then = self.all_asked(user).iter().any(became);
        assert!(is_then, "invisible_is_unseen: {user} was seen at {last_seen:?}");
    }

    /// When one is told to be gone because it is invisible: not before it asked for that.
    pub(crate) fn gone_from(&self, presence: &Presence) -> Option<u64> {
        let seen = presence.last_seen?.0;
        let became =
            |one: &&Asked| one.on && one.asked_ms <= seen && seen <= one.done_ms.unwrap_or(self.now_ms);
        self.all_asked(&presence.user).iter().find(became).map(|_| seen)
    }

    /// What is told of who comes and goes.
    pub(crate) fn check_told(&self, presence: &Presence) {
        if self.is_calm && self.is_hidden(&presence.user) {
            self.check_away(presence);
        }
    }

    /// At rest: what one is told of itself is what may be.
    pub(crate) fn check(&self, user: &UserId, on: bool) {
        let is_known = self.all_asked(user).iter().any(|one| one.done_at.is_some());
        let is_one = (!is_known && !on) || self.may_be(user).any(|one| one.on == on);
        assert!(is_one, "settings_are_kept: {user} was told that it is invisible: {on}");
    }
}
