//! What one shard knows of revoked tokens: a plain copy of its own, asked at each `connect` and `refresh`.
//!
//! Nothing is shared with the control plane, which keeps the list and sends what is added.
//!
//! Invariant: a token that any revocation of the list concerns is refused until that one's time is over.

use std::fmt;

use hashbrown::HashMap;
use protocol::ids::{UnixMillis, UserId};

use super::revocation::{Revocation, Span, Subject};
use super::token::Issued;
use super::token_id::TokenId;

/// Revoked tokens, as a shard looks them up.
#[derive(Clone, Default)]
pub struct DenyList {
    everyone: Option<Span>,
    tokens: HashMap<TokenId, Span, foldhash::fast::RandomState>,
    users: HashMap<UserId, Span, foldhash::fast::RandomState>,
}

impl DenyList {
    /// Adds a revocation.
    pub fn insert(&mut self, revocation: &Revocation) {
        let span = revocation.span;
        let kept = match &revocation.subject {
            Subject::Everyone => self.everyone.get_or_insert(span),
            Subject::Token(jti) => self.tokens.entry(TokenId::of(jti)).or_insert(span),
            Subject::User(user) => self.users.entry(user.clone()).or_insert(span),
        };
        *kept = kept.merged(span);
    }

    /// Forgets what is over at `now`, and what is revoked with everybody's.
    pub fn prune(&mut self, now: UnixMillis) {
        let is_kept = |span: &Span| now.0 / 1000 < span.until;
        self.everyone = self.everyone.filter(is_kept);
        self.tokens.retain(|_, span| is_kept(span));
        let everyone = self.everyone;
        self.users.retain(|_, span| is_kept(span) && !everyone.is_some_and(|every| every.covers(*span)));
    }

    /// Whether a token of `user` is revoked at `now`.
    #[must_use]
    pub fn revokes(&self, user: &UserId, issued: Issued, now: UnixMillis) -> bool {
        let spans = [self.everyone.as_ref(), self.users.get(user), self.tokens.get(&issued.id)];
        spans.into_iter().flatten().any(|span| span.revokes(issued, now.0 / 1000))
    }
}

impl<'r> FromIterator<&'r Revocation> for DenyList {
    fn from_iter<I: IntoIterator<Item = &'r Revocation>>(revocations: I) -> Self {
        let mut list = Self::default();
        revocations.into_iter().for_each(|revocation| list.insert(revocation));
        list
    }
}

impl fmt::Debug for DenyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DenyList({} users, {} tokens)", self.users.len(), self.tokens.len())
    }
}
