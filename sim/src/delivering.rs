//! What devices have acknowledged is told to who looks, in worlds in which somebody does.
//!
//! `delivered_is_owed`: a world is not at rest before everybody who looks at a small conversation knows that what another member's device has
//! acknowledged was delivered; as long as it is one of the newest records there, which is all that is promised.

use std::collections::BTreeMap;

use protocol::ids::{ConversationId, RequestId, Seq, UserId};

use crate::client::Client;
use crate::world::{World, direct_of};

/// Records behind the newest one within which an acknowledgement is looked for: a few fewer than the 64 that a node looks through.
const NEWEST: u64 = 60;

/// How far a device has been given each conversation.
type Given = BTreeMap<ConversationId, u64>;

/// What one device has acknowledged.
#[derive(Default)]
pub(crate) struct Acknowledging {
    /// What was given on connections that begin one behind the other; of one that began elsewhere nothing of before counts,
    heard: Given,
    /// and what of that by the time of its cursor.
    given: Given,
    /// Connected with positions, which claim less: what is given on this connection does not count.
    is_surveyed: bool,
    /// With which pings.
    asked: BTreeMap<RequestId, Given>,
    /// Their answers have come: from a process, and from no other.
    answered: Given,
    run: u32,
    /// Pings at rest, on this connection.
    pings: u8,
}

/// At rest one ping brings a cursor of all there is, and another takes it back.
const PINGS: u8 = 2;

impl Acknowledging {
    /// A connection begins, to a process.
    pub(crate) fn begin(&mut self, run: u32) {
        if self.run != run {
            self.answered.clear();
        }
        (self.run, self.pings) = (run, 0);
        self.asked.clear();
    }

    /// It was welcomed, behind its cursor or not.
    pub(crate) fn welcomed(&mut self, is_fresh: bool, is_surveyed: bool) {
        if is_fresh || is_surveyed {
            self.heard.clear();
            self.given.clear();
        }
        self.is_surveyed = is_surveyed;
    }

    pub(crate) fn received(&mut self, (conversation, seq): (ConversationId, u64)) {
        if !self.is_surveyed {
            let heard = self.heard.entry(conversation).or_default();
            *heard = seq.max(*heard);
        }
    }

    /// Whether it pings once more: one after the other.
    pub(crate) fn pings(&mut self) -> bool {
        let is_next = self.pings < PINGS && self.asked.is_empty();
        self.pings += u8::from(is_next);
        is_next
    }

    /// All of it has gone out and was answered.
    fn is_done(&self) -> bool {
        self.pings == PINGS && self.asked.is_empty()
    }

    /// A cursor came, behind all of that.
    pub(crate) fn took_cursor(&mut self) {
        self.given.clone_from(&self.heard);
    }

    /// That cursor goes back with a ping.
    pub(crate) fn asked(&mut self, id: RequestId) {
        self.asked.insert(id, self.given.clone());
    }

    pub(crate) fn answered(&mut self, id: RequestId) {
        for (conversation, seq) in self.asked.remove(&id).into_iter().flatten() {
            let answered = self.answered.entry(conversation).or_default();
            *answered = seq.max(*answered);
        }
    }
}

impl World {
    /// Whether everybody who looks knows what was delivered; how much of that there is.
    pub(crate) fn has_told_delivered(&self) -> Option<u64> {
        let is_sure =
            self.oracle.keep_ms.is_none() && self.oracle.keeping.day_ms == 0 && !self.oracle.has_rotted;
        if !is_sure || !self.oracle.erasures.is_empty() {
            return Some(0);
        }
        let is_done = |client: &Client| !client.looks_at_rest() || client.acknowledging.is_done();
        if !self.listening().all(|(_, client)| is_done(client)) {
            return None;
        }
        let small = self.small_conversations();
        let acknowledged = |(conversation, user): (&ConversationId, &UserId)| {
            let devices = self
                .clients
                .iter()
                .filter(|of| of.user == *user && of.acknowledging.run == self.oracle.seen.run);
            devices.filter_map(|device| device.acknowledging.answered.get(conversation)).max().copied()
        };
        let mut owed = 0;
        for (_, viewer) in self.listening() {
            let views = viewer.viewing.views().filter_map(|of| Some((of, small.get(of)?)));
            for (conversation, members) in views {
                let others = members.iter().filter(|(user, _)| **user != viewer.user);
                for (user, since) in others {
                    let acknowledged = acknowledged((conversation, user)).unwrap_or(0);
                    let message = self.newest_for(*conversation, user, acknowledged);
                    let Some(seq) = message.filter(|seq| seq >= since) else {
                        continue;
                    };
                    if seq + NEWEST < self.head_of(*conversation) {
                        continue;
                    }
                    if viewer.viewing.delivered_to(*conversation, user) < Seq(seq) {
                        return None;
                    }
                    owed += 1;
                }
            }
        }
        Some(owed)
    }

    /// The conversations that never fanned out on read, and in which nobody blocks anybody: their members, each with the sequence since which it is
    /// one.
    fn small_conversations(&self) -> BTreeMap<ConversationId, BTreeMap<UserId, u64>> {
        let direct = direct_of(&self.users);
        let mut small: BTreeMap<ConversationId, Option<BTreeMap<UserId, u64>>> = BTreeMap::new();
        for ((conversation, seq), truth) in &self.oracle.durable {
            let begin = || {
                let two = direct.get(conversation).into_iter().flatten();
                Some(two.map(|user| (user.clone(), 0)).collect())
            };
            let of = small.entry(*conversation).or_insert_with(begin);
            if let Some(members) = of {
                members.extend(truth.added.iter().map(|user| (user.clone(), *seq)));
                members.retain(|user, _| !truth.removed.contains(user));
                if members.len() > self.places.small_group_members_max {
                    *of = None;
                }
            }
        }
        small.retain(|of, _| self.oracle.blocks.who(*of).is_empty());
        small.into_iter().filter_map(|(of, members)| Some((of, members?))).collect()
    }

    /// The newest message up to a sequence that another has said, unless the user has said something since: that says itself how far its sender has
    /// come.
    fn newest_for(&self, conversation: ConversationId, user: &UserId, up_to: u64) -> Option<u64> {
        let of = self.oracle.durable.range((conversation, 0)..=(conversation, u64::MAX));
        let mut messages = of.filter(|(_, truth)| truth.text.is_some());
        let own = messages.clone().rfind(|(_, truth)| truth.sender == *user).map_or(0, |((_, seq), _)| *seq);
        let others = messages.rfind(|((_, seq), truth)| *seq <= up_to && truth.sender != *user);
        others.map(|((_, seq), _)| *seq).filter(|seq| *seq > own)
    }

    fn head_of(&self, conversation: ConversationId) -> u64 {
        let of = self.oracle.durable.range((conversation, 0)..=(conversation, u64::MAX));
        of.last().map_or(0, |((_, seq), _)| *seq)
    }
}
