//! What is true of each client once everything is at rest.

use std::collections::{BTreeMap, BTreeSet};

use gateway::auth::{Issued, TokenId};
use protocol::ids::{ConversationId, UserId};

use super::{BUSY_MICROS, World};
use crate::client::{Client, Times};
use crate::node::Node;
use crate::oracle::{Truth, members_of};

/// How long a session may outlive its token: the wheel turns by seconds, and a client sees the end a little later.
const EXPIRY_SLACK_MS: u64 = 2_500;

/// `slow_is_alone`: how long after it is calm, or after the process began that goes on from then, all others are at rest although one does
/// not read, in microseconds; long before that one is given up. Until a process has begun nobody can be served: how long the one before takes to
/// go, which waits for an answer to its close frames, is a bound of its own.
const ALONE_MICROS: u64 = 7_500_000;

/// `answered_once`: how long one may wait for something while nothing is under way in the node, in microseconds: what passes between a client and
/// its home then is on its way for some milliseconds.
const PASSING_MICROS: u64 = 5_000_000;

impl World {
    /// Nobody waits for what is lost.
    pub(crate) fn check_answered(&mut self, index: usize) {
        let rests = self.is_calm() && self.node.as_ref().is_some_and(|node| self.has_nothing_to_do(node));
        let (now, client) = (self.now, &mut self.clients[index]);
        let Some(link) = &mut client.link else { return };
        if let Some((id, waited)) = link.owed.oldest(now, !rests) {
            let user = &client.user;
            assert!(waited < PASSING_MICROS, "answered_once: {user} waits for {id} since {waited} us");
        }
    }

    /// One that does not read costs nobody else time, and what is kept for it is bounded. How much that is.
    pub(super) fn check_slow_is_alone(&self) -> usize {
        let largest = |node: &Node| node.shards.iter().map(|shard| shard.users().largest_outbox()).max();
        let unread = self.node.as_ref().and_then(largest).unwrap_or(0);
        // Who waits for an index file to be made again waits for minutes.
        let is_late = self.rebuilds == 0 && self.now > self.begun_at.max(BUSY_MICROS) + ALONE_MICROS;
        assert!(self.deaf.is_none() || !is_late, "slow_is_alone: the others are not at rest");
        unread
    }

    /// Whoever is connected at the end may be.
    pub(super) fn check_token(&self, user: &UserId, times: Times) {
        let now = self.unix();
        assert!(times.expires_at + EXPIRY_SLACK_MS > now.0, "{user} is connected without a token");
        let issued = Issued { at: times.issued_at, id: TokenId::NONE };
        assert!(!self.denied.revokes(user, issued, now), "{user} is connected with a token that was revoked");
    }

    /// `members_only`, and nothing owed is missing.
    pub(super) fn check_client(
        &self,
        client: &Client,
        log: &BTreeMap<(ConversationId, u64), Truth>,
        audiences: &BTreeMap<(ConversationId, u64), BTreeSet<UserId>>,
    ) {
        let user = &client.user;
        for (place, truth) in log {
            let mine = audiences[place].contains(user);
            let received = client.received.contains(place);
            assert!(
                mine || !received || self.may_read(place, user, log),
                "members_only: {user} was given {place:?}"
            );
            let headed = client.headed.get(&place.0).is_some_and(|head| place.1 <= *head);
            let left = client.surveyed_at.is_some_and(|surveyed| truth.at <= surveyed)
                && log
                    .range(*place..)
                    .take_while(|((conversation, _), _)| *conversation == place.0)
                    .any(|(_, truth)| truth.removed.contains(user));
            let owed =
                mine && !headed && !left && client.owed_since.is_some_and(|since| truth.at > since + 1);
            assert!(received || !owed, "{user} was never told of {place:?}");
        }
    }

    /// At rest everybody who reads is online, and whoever looks at a conversation knows that of its members.
    pub(super) fn check_presence(
        &self,
        client: &Client,
        log: &BTreeMap<(ConversationId, u64), Truth>,
        direct: &BTreeMap<ConversationId, [UserId; 2]>,
    ) {
        let members = members_of(log, direct);
        let here = |user: &UserId| self.listening().any(|(_, client)| client.user == *user);
        let is_invisible =
            |user: &UserId| self.listening().any(|(_, of)| of.user == *user && of.hiding.is_on());
        let (me, hides) = (&client.user, client.hiding.is_on());
        assert_eq!(hides, is_invisible(me), "settings_are_kept: all devices of {me} are told the same");
        self.oracle.invisibles.check(me, hides);
        let views = client.viewing.views().filter(|of| self.oracle.blocks.who(**of).is_empty());
        for conversation in views {
            let others = members.get(conversation).into_iter().flatten();
            let others = others.filter(|other| **other != client.user && here(other));
            for other in others {
                let known = client.viewing.known(other);
                if is_invisible(other) {
                    known.into_iter().for_each(|known| self.oracle.invisibles.check_away(known));
                } else {
                    let is_online = known.map(|known| known.online);
                    assert_eq!(is_online, Some(true), "presence: {me} sees {other} in {conversation}");
                }
            }
        }
    }

    /// By positions one is fed what came before one joined, where the group says so.
    fn may_read(
        &self,
        place: &(ConversationId, u64),
        user: &UserId,
        log: &BTreeMap<(ConversationId, u64), Truth>,
    ) -> bool {
        log.range(*place..)
            .take_while(|((conversation, _), _)| *conversation == place.0)
            .any(|(_, truth)| truth.added.contains(user))
    }
}
