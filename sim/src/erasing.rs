//! Operators who erase what users have sent, in some worlds: what they were promised, and what clients may be told from then on.
//!
//! `erased_is_gone`: a while after an erasure was answered, nobody is given what it concerns, whatever crashes and whatever is written
//! anew; and only what it concerns is told as erased.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway::erasures::ask::{ErasureAsk, LogLeft};
use gateway::shard::{Event, OwnedLog};
use protocol::event::{AmendedEvent, AmendedForm, Gap};
use protocol::ids::{ConversationId, UnixMillis, UserId};
use router::Places;
use router::conversation::Subject;

use crate::Rng;
use crate::keeping::Since;
use crate::oracle::Oracle;
use crate::world::{BUSY_MICROS, Item, World};

/// What was on its way to a client when an erasure was answered arrives within this, in milliseconds: one that reads now and then stops
/// for 800 at a time.
const ARRIVAL_MS: u64 = 2_500;

/// One erasure of a user.
#[derive(Clone, Debug)]
pub(crate) struct Erased {
    user: UserId,
    mark: u64,
    /// Up to which position, by log, as far as the shards have answered.
    logs: BTreeMap<u16, u64>,
    /// Since when it is promised: all have, and it is on the disk.
    promised: Option<UnixMillis>,
}

/// Everything that was asked for.
#[derive(Clone, Default, Debug)]
pub(crate) struct Erasures(Vec<Erased>);

impl Erasures {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As a start does: a log is erased no further than it goes, and what was not promised is forgotten.
    pub(crate) fn put_in_force(&mut self, begun: u64, owned: &mut OwnedLog) {
        for erased in self.0.iter_mut().filter(|erased| erased.promised.is_some()) {
            let to = erased.logs.get_mut(&owned.number()).expect("all logs have answered");
            *to = begun.min(*to);
            owned.erase(erased.mark, &Subject::User(erased.user.clone()), *to);
        }
    }

    fn note(&mut self, left: &LogLeft, places: &Places, now: UnixMillis) {
        if let Some(erased) = self.0.iter_mut().find(|erased| erased.mark == left.mark) {
            erased.logs.insert(left.log, left.to);
            if erased.logs.len() == usize::from(places.logs) {
                erased.promised.get_or_insert(now);
            }
        }
    }
}

/// When somebody erases something, in a world with these dice: early, so that much is read later.
pub(crate) fn times(rng: &mut Rng) -> Vec<u64> {
    (0..rng.between(1, 4)).map(|_| rng.below(BUSY_MICROS / 2)).collect()
}

impl World {
    /// Has a user erased whom the dice name: each shard hears of it when it does.
    pub(crate) fn erase(&mut self) {
        let Some(rng) = &mut self.erasing else {
            return;
        };
        let user = rng.pick(&self.users).clone();
        let delays: Vec<u64> = self.arrived.iter().map(|_| rng.below(600)).collect();
        if self.node.is_none() {
            return;
        }
        let newest = self.oracle.erasures.0.last().map_or(0, |newest| newest.mark);
        let mark = self.unix().0.max(newest + 1);
        let new = Some((mark, Subject::User(user.clone())));
        self.oracle.erasures.0.push(Erased { user, mark, logs: BTreeMap::new(), promised: None });
        for (shard, delay) in delays.into_iter().enumerate() {
            self.event(shard, delay, Event::Erase(ErasureAsk { new: new.clone(), pending: Vec::new() }));
        }
    }

    /// A shard has put an erasure in force in its logs.
    pub(crate) fn note_erased(&mut self, left: &[LogLeft]) {
        let (places, now) = (Arc::clone(&self.places), self.unix());
        left.iter().for_each(|left| self.oracle.erasures.note(left, &places, now));
    }

    /// Has something erased now and then, if this is such a world.
    pub(crate) fn begin_erasing(&mut self) {
        let times = self.erasing.as_mut().map(times);
        times.into_iter().flatten().for_each(|at| self.later(at, Item::Erase));
    }
}

impl Oracle {
    /// Whether an erasure may concern a record; of one whose position nobody has seen, or a log that did not answer, it may.
    pub(crate) fn may_be_erased(&self, place: (ConversationId, u64)) -> bool {
        let author = self.author_of(place);
        self.erasures.0.iter().filter(|erased| author == Some(&erased.user)).any(|erased| {
            let reached = self.positions.get(&place).and_then(|(log, at)| Some((erased.logs.get(log)?, at)));
            reached.is_none_or(|(to, position)| position <= to)
        })
    }

    /// Who has sent what a record says: of an amendment the message that it amends.
    fn author_of(&self, place: (ConversationId, u64)) -> Option<&UserId> {
        let truth = self.durable.get(&place)?;
        match &truth.amends {
            Some((target, _)) => self.author_of((place.0, *target)),
            None => truth.text.as_ref().map(|_| &truth.sender),
        }
    }

    /// Somebody was told that the content of a record was erased: then it was.
    pub(crate) fn told_erased(&mut self, gap: &Gap, now: u64) -> (ConversationId, u64) {
        let place = (gap.conversation, gap.from.0);
        assert_eq!(gap.from, gap.to, "one gap a sequence");
        let may_be = self.may_be_erased(place) || self.amends_front(place, now);
        assert!(may_be, "erased_is_gone: {place:?} was told as erased, and was not");
        self.erased += 1;
        place
    }

    /// The same of an amendment; one that is hidden says nothing.
    pub(crate) fn check_amended(&self, event: &AmendedEvent, now: UnixMillis) {
        if event.form != AmendedForm::Hidden {
            self.check_not_erased((event.conversation, event.seq.0), now);
        }
    }

    /// `erased_is_gone`: nobody is given what was erased before it was asked for.
    pub(crate) fn check_not_erased_since(&self, place: (ConversationId, u64), since: Since) {
        let Some((log, position)) = self.positions.get(&place) else {
            return;
        };
        let author = self.author_of(place);
        let is_of_it = |erased: &&Erased| {
            author == Some(&erased.user) && erased.logs.get(log).is_some_and(|to| position <= to)
        };
        let is_past = |erased: &&Erased| erased.promised.is_some_and(|promised| promised.0 < since.ms);
        let erased = self.erasures.0.iter().filter(is_of_it).find(is_past);
        assert!(erased.is_none(), "erased_is_gone: {place:?} is given away, in spite of {erased:?}");
    }

    /// `erased_is_gone`: nobody is given at `now` what was erased before.
    pub(crate) fn check_not_erased(&self, place: (ConversationId, u64), now: UnixMillis) {
        let Some((log, position)) = self.positions.get(&place) else {
            return;
        };
        let author = self.author_of(place);
        for erased in &self.erasures.0 {
            let is_of_it =
                author == Some(&erased.user) && erased.logs.get(log).is_some_and(|to| position <= to);
            let is_late = erased.promised.is_some_and(|promised| promised.0 + ARRIVAL_MS < now.0);
            assert!(
                !(is_of_it && is_late),
                "erased_is_gone: {place:?} is given away at {}, in spite of {erased:?}",
                now.0
            );
        }
    }
}
