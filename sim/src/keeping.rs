//! Members who set how much of a conversation is kept, in some worlds: a model of it, from the records alone, and what clients may be told by that.
//!
//! `kept_is_exact`: nobody who asks is given what was in front when the question was put, nobody is told that something is gone which is not,
//! and what is unread is what is kept of it; whatever crashes, and whatever is written anew.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::command::{Command, Retention};
use protocol::event::{AmendedEvent, AmendedForm};
use protocol::ids::{ConversationId, MessageId};

use crate::Rng;
use crate::oracle::{Oracle, Truth};

type Place = (ConversationId, u64);

/// Since when somebody was owed an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Since {
    /// By the clock of what was acknowledged.
    pub(crate) forms: u64,
    /// Milliseconds since 1970.
    pub(crate) ms: u64,
}

impl Since {
    /// Before anything was set.
    pub(crate) const NEVER: Self = Self { forms: 0, ms: 0 };
}

/// What is in front: sequences below this one, and what was stored before this time.
type Front = (u64, u64);

/// What was set, as the log has it.
#[derive(Default)]
pub(crate) struct Keeping {
    /// How long a day is; 0 where nobody sets anything.
    pub(crate) day_ms: u64,
    /// By conversation: at which sequence, when, and what.
    of: BTreeMap<ConversationId, Vec<(u64, u64, Retention)>>,
    /// When a record became durable, in milliseconds since 1970.
    entered: BTreeMap<Place, u64>,
    /// Times that somebody was told that something is gone by a setting.
    pub(crate) told: u64,
}

/// How long a day is in a world with these dice: some of it pass while it is busy.
pub(crate) fn day(dice: &mut Rng) -> Duration {
    Duration::from_millis(dice.between(150, 700))
}

/// What one sets, as its dice have it.
pub(crate) fn act(
    dice: &mut Rng,
    known: impl Iterator<Item = ConversationId>,
    message_id: impl FnOnce(&mut Rng) -> MessageId,
) -> Option<Command> {
    if !dice.one_in(14) {
        return None;
    }
    let known: Vec<ConversationId> = known.collect();
    if known.is_empty() {
        return None;
    }
    let conversation = *dice.pick(&known);
    let days = |dice: &mut Rng| Some(dice.between(1, 4) as u32);
    let last =
        |dice: &mut Rng| Some(if dice.one_in(2) { dice.between(1, 9) } else { dice.between(9, 60) } as u32);
    let retention = match dice.below(6) {
        0 => Retention::default(),
        1 | 2 => Retention { days: None, last: last(dice) },
        3 | 4 => Retention { days: days(dice), last: None },
        _ => Retention { days: days(dice), last: last(dice) },
    };
    let message_id = Some(message_id(dice));
    Some(Command::Retention { conversation, retention, message_id })
}

impl Keeping {
    /// A record is durable.
    pub(crate) fn enter(&mut self, place: Place, truth: &Truth, now: u64) {
        if self.day_ms == 0 {
            return;
        }
        self.entered.entry(place).or_insert(now);
        let Some(retention) = truth.retention else { return };
        let of = self.of.entry(place.0).or_default();
        if of.last().is_none_or(|(last, ..)| *last < place.1) {
            of.push((place.1, truth.at, retention));
        }
    }

    /// What is in front where this is the newest sequence, at a time: each setting has left what it left when the next one came.
    fn front(&self, conversation: ConversationId, head: u64, now: u64) -> Front {
        let of = self.of.get(&conversation).map_or(&[][..], Vec::as_slice);
        let mut front = (0, 0);
        for (number, (seq, _, Retention { days, last })) in of.iter().enumerate() {
            if *seq > head {
                break;
            }
            let next = of.get(number + 1).filter(|(next, ..)| *next <= head);
            let (newest, until) = next.map_or((head, now), |(next, at, _)| (next - 1, *at));
            let below = last.map_or(0, |last| (newest + 1).saturating_sub(last.into()));
            let before = days.map_or(0, |days| until.saturating_sub(u64::from(days) * self.day_ms));
            front = (front.0.max(below), front.1.max(before));
        }
        front
    }

    fn newest(&self, conversation: ConversationId, before_ms: u64) -> u64 {
        let of = self.entered.range((conversation, 0)..=(conversation, u64::MAX)).rev();
        of.filter(|(_, entered)| **entered < before_ms).map(|((_, seq), _)| *seq).next().unwrap_or(0)
    }

    /// What is in front now, of what is durable.
    fn front_now(&self, conversation: ConversationId, now: u64) -> Front {
        self.front(conversation, self.newest(conversation, u64::MAX), now)
    }
}

impl Oracle {
    /// Now.
    pub(crate) fn since(&self) -> Since {
        Since { forms: self.forms.now(), ms: self.reads.now }
    }

    fn is_in(&self, front: Front, place: Place) -> bool {
        place.1 < front.0 || self.durable.get(&place).is_some_and(|truth| truth.at < front.1)
    }

    /// Whether by what is set a record need not be there any more.
    pub(crate) fn is_in_front(&self, place: Place, now: u64) -> bool {
        self.keeping.day_ms > 0 && self.is_in(self.keeping.front_now(place.0, now), place)
    }

    /// The same of what a record amends.
    pub(crate) fn amends_front(&self, place: Place, now: u64) -> bool {
        let target = self.durable.get(&place).and_then(|truth| truth.amends.as_ref());
        target.is_some_and(|(target, _)| self.is_in_front((place.0, *target), now))
    }

    /// Whether nobody need know any more by which command a record was made.
    pub(crate) fn is_forgotten(&self, place: Place, now: u64) -> bool {
        self.is_in_front(place, now) || self.amends_front(place, now)
    }

    /// `kept_is_exact`: somebody is given a record who has asked for it then.
    pub(crate) fn check_kept(&self, place: Place, since: Option<Since>) {
        let Some(Since { ms, .. }) = since.filter(|_| self.keeping.day_ms > 0) else { return };
        let front = self.keeping.front(place.0, self.keeping.newest(place.0, ms), ms);
        // A setting that was under way by then may have come in time to keep it.
        assert!(
            !self.is_in(front, place) || !self.is_in_front(place, self.reads.now),
            "kept_is_exact: {place:?} is given away: {front:?} was in front at {ms}"
        );
    }

    /// The same of what an amendment says of its message: also live, when the amendment itself has pushed that out.
    pub(crate) fn check_amended_kept(&self, event: &AmendedEvent, since: Option<Since>) {
        if event.form == AmendedForm::Hidden || self.keeping.day_ms == 0 {
            return;
        }
        let target = (event.conversation, event.target.0);
        self.check_kept(target, since);
        let front = self.keeping.front(event.conversation, event.seq.0, event.at.0);
        assert!(!self.is_in(front, target), "kept_is_exact: {event:?} says what is in front: {front:?}");
    }

    /// The messages of a user's that are unread up to a head: at least so many, and at most.
    pub(crate) fn unread_beyond(
        &self,
        conversation: ConversationId,
        read: u64,
        head: u64,
        since: Option<Since>,
    ) -> (u64, u64) {
        let at_head = self.durable.get(&(conversation, head)).map_or(0, |truth| truth.at);
        // Who answers knows that head, and what was durable when it was asked.
        let known = self.keeping.front(conversation, head, at_head);
        let before = match since {
            Some(Since::NEVER) => (0, 0),
            Some(Since { ms, .. }) => {
                let asked = self.keeping.front(conversation, self.keeping.newest(conversation, ms), ms);
                (known.0.max(asked.0), known.1.max(asked.1))
            }
            None => known,
        };
        let now = self.keeping.front_now(conversation, self.reads.now);
        let beyond = self.durable.range((conversation, read + 1)..=(conversation, head.max(read + 1)));
        let beyond: Vec<Place> = beyond
            .filter(|(place, truth)| place.1 <= head && truth.text.is_some())
            .map(|(place, _)| *place)
            .collect();
        let count = |front: Front| beyond.iter().filter(|place| !self.is_in(front, **place)).count() as u64;
        (count(now), count(before))
    }

    /// The first sequence of which all from there on is kept now.
    pub(crate) fn kept_from(&self, conversation: ConversationId) -> u64 {
        let front = self.keeping.front_now(conversation, self.reads.now);
        let of = self.durable.range((conversation, 0)..=(conversation, u64::MAX));
        of.map(|(place, _)| *place).find(|place| !self.is_in(front, *place)).map_or(u64::MAX, |(_, seq)| seq)
    }
}
