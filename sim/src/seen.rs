//! When users were last seen, held against what who looks is told of those who have gone, in this run and in earlier ones.
//!
//! `last_seen_is_kept`: it is when the last session ended, where that was not in a crash nor right before one; else it is that at the latest,
//! and earlier by no more than a node promises.
//!
//! `no_flap`: nobody is told that one has gone who was not away for grace, in that run of the node and without coming in between: the time
//! that is told says which absence it is.

use std::cell::Cell;
use std::collections::BTreeMap;

use protocol::event::Presence;
use protocol::ids::{UnixMillis, UserId};

use crate::node::{LAST_SEEN_ERROR_MILLIS, PRESENCE_GRACE_MILLIS};

/// How long it takes at most until what is due is on the disk, in milliseconds: look-ups, mail and a batch.
pub(crate) const SETTLED_MS: u64 = 300;

/// How long a shard that has nothing to do sleeps, in milliseconds.
const SLEEP_MS: u64 = 1_000;

/// How a process has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Crashed,
    /// A log had stopped.
    Failed,
    Orderly,
}

/// A time in one run in which a user had no session.
struct Away {
    run: u32,
    since: u64,
    until: Option<u64>,
    /// The run began with it: when it was last here is of before.
    is_of_before: bool,
}

impl Away {
    /// From when on it may be told, in milliseconds since 1970, if by now that is so. Who may be on the way back is awaited for grace, also
    /// after a start.
    fn told_from(&self, now: u64) -> Option<u64> {
        let from = self.since + PRESENCE_GRACE_MILLIS;
        (from <= self.until.unwrap_or(now)).then_some(from)
    }
}

/// One user.
#[derive(Default)]
struct Truth {
    /// In their order: those of each run begin with what its first turn found.
    aways: Vec<Away>,
    is_here: bool,
    /// Since when it is or was here.
    since: u64,
    /// When it was last here.
    last: u64,
    /// Not before that is what is kept; `None`: nobody knows.
    not_before: Option<u64>,
    /// Times that it has gone,
    goings: usize,
    /// and the run in which it last did.
    run: u32,
}

/// Who has gone, and how often.
pub(crate) type Gone = BTreeMap<UserId, usize>;

/// All users.
#[derive(Default)]
pub(crate) struct Seen {
    of: BTreeMap<UserId, Truth>,
    pub(crate) run: u32,
    /// Something is not written in this world that would be elsewhere: a disk is full, or an index rots.
    pub(crate) is_lossy: bool,
    /// Times that somebody was told of one who had gone in an earlier run, exactly; and not so.
    pub(crate) told: Cell<(u64, u64)>,
}

impl Seen {
    /// Whether a user has a session, after a turn of its home.
    pub(crate) fn note(&mut self, user: &UserId, is_here: bool, now: UnixMillis) {
        let run = self.run;
        let truth = self.of.entry(user.clone()).or_default();
        if truth.aways.last().is_none_or(|away| away.run != run) {
            truth.aways.push(Away { run, since: now.0, until: None, is_of_before: true });
        }
        match (truth.is_here, is_here) {
            (false, true) => {
                truth.since = now.0;
                truth.aways.last_mut().expect("one of this run").until = Some(now.0);
            }
            (true, false) => {
                truth.aways.push(Away { run, since: now.0, until: None, is_of_before: false });
                (truth.last, truth.not_before, truth.run) = (now.0, Some(now.0), run);
                truth.goings += 1;
            }
            _ => {}
        }
        truth.is_here = is_here;
    }

    /// The process is gone. What it had not written is lost, unless it ended in order.
    pub(crate) fn end_run(&mut self, now: UnixMillis, end: End) {
        self.run += 1;
        for truth in self.of.values_mut() {
            let was_here = std::mem::take(&mut truth.is_here);
            if let Some(away) = truth.aways.last_mut() {
                away.until.get_or_insert(now.0);
            }
            if was_here {
                (truth.last, truth.run) = (now.0, self.run - 1);
                truth.goings += 1;
            }
            let is_of_this = truth.run + 1 == self.run;
            let is_late = truth.last + SETTLED_MS > now.0 && is_of_this;
            if end == End::Failed && is_of_this {
                truth.not_before = None;
            } else if was_here || (is_late && end == End::Crashed) {
                let is_known = truth.since + SETTLED_MS < truth.last;
                let error = LAST_SEEN_ERROR_MILLIS + SETTLED_MS + SLEEP_MS;
                truth.not_before = is_known.then(|| truth.last.saturating_sub(error));
            }
        }
    }

    /// Who is not here.
    pub(crate) fn gone(&self) -> Gone {
        let gone = self.of.iter().filter(|(_, truth)| !truth.is_here && truth.goings > 0);
        gone.map(|(user, truth)| (user.clone(), truth.goings)).collect()
    }

    /// Whether one who was never invisible may be told to have gone, by a node's run, and from when on: `no_flap`.
    pub(crate) fn gone_from(&self, presence: &Presence, run: u32, now: u64) -> Option<u64> {
        let seen = presence.last_seen.map(|seen| seen.0);
        let is_it = |away: &&Away| match seen {
            // Of before it is held against what is kept, by a look.
            _ if away.is_of_before => seen.is_none_or(|seen| seen < away.since),
            // What was written of it may have found no room: then it is what was written before.
            Some(seen) if self.is_lossy => seen <= away.since,
            None => self.is_lossy,
            seen => seen == Some(away.since),
        };
        self.aways(&presence.user, run).filter(is_it).find_map(|away| away.told_from(now))
    }

    /// The same of one who may have been invisible when it left, which changes what time is told.
    pub(crate) fn away_from(&self, user: &UserId, run: u32, now: u64) -> Option<u64> {
        self.aways(user, run).find_map(|away| away.told_from(now))
    }

    /// Since when a user may be told to be here, by a node's run: it came then.
    pub(crate) fn here_from(&self, user: &UserId, run: u32) -> Option<u64> {
        self.aways(user, run).next()?.until
    }

    /// When one who was invisible before a run may be told to be away: who comes at a start is awaited.
    pub(crate) fn awaited_until(&self, user: &UserId, run: u32) -> Option<u64> {
        self.aways(user, run).next().map(|away| away.since + PRESENCE_GRACE_MILLIS)
    }

    fn aways(&self, user: &UserId, run: u32) -> impl Iterator<Item = &Away> {
        let aways = self.of.get(user).into_iter().flat_map(|truth| &truth.aways);
        aways.filter(move |away| away.run == run)
    }

    /// What a look that was asked for when these had gone says of one user.
    pub(crate) fn check_viewed(&self, presence: &Presence, gone: &Gone) {
        let Presence { user, online, last_seen } = presence;
        let Some(truth) = self.of.get(user) else { return };
        if truth.is_here || *online || gone.get(user) != Some(&truth.goings) {
            return;
        }
        let seen = last_seen.map_or(0, |seen| seen.0);
        let earliest = truth.not_before.filter(|_| !self.is_lossy).unwrap_or(0);
        assert!(
            earliest <= seen && seen <= truth.last,
            "last_seen_is_kept: {user} was seen at {seen}, and not from {earliest} to {}",
            truth.last
        );
        let (exact, near) = self.told.get();
        let is_exact = earliest == truth.last;
        if truth.run < self.run && !self.is_lossy {
            self.told.set((exact + u64::from(is_exact), near + u64::from(!is_exact)));
        }
    }
}
