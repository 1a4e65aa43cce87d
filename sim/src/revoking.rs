//! Tokens that are taken back, in some worlds.

use gateway::auth::{FOR_EVER, Revocation, Span, Subject};
use gateway::shard::Event;
use protocol::ids::UserId;

use crate::world::{Item, World};

impl World {
    /// Takes tokens back, of one user or of all: on the disk at once, at each shard when it hears of it.
    pub(crate) fn revoke(&mut self, user: Option<UserId>) {
        let issued_before = self.unix().0 / 1_000 + 1;
        let Some(rng) = &mut self.revoking else {
            return;
        };
        let subject = match user {
            Some(user) => Subject::User(user),
            None if rng.one_in(4) => Subject::Everyone,
            None => Subject::User(rng.pick(&self.users).clone()),
        };
        let delays: Vec<u64> = self.arrived.iter().map(|_| rng.below(600)).collect();
        let revocation = Revocation { subject, span: Span { issued_before, until: FOR_EVER } };
        self.denied.insert(&revocation);
        if self.node.is_some() {
            for (shard, delay) in delays.into_iter().enumerate() {
                self.event(shard, delay, Event::Revoke(revocation.clone()));
            }
        }
    }

    /// Now and then a token is taken back while its connection is between two shards.
    pub(crate) fn revoke_moving(&mut self, pipe: usize) {
        let calm = self.is_calm();
        if let Some(rng) = &mut self.revoking
            && !calm
            && rng.one_in(8)
        {
            let user = self.clients[self.net.pipes[pipe].client].user.clone();
            self.later(0, Item::Revoke(Some(user)));
        }
    }
}
