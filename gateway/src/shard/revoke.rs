//! Taking tokens back: sessions that are there are closed, `connect` and `refresh` are refused.
//!
//! A token is judged where it is shown and again where its session begins, so none slips through between the two while
//! its connection moves: a revocation is in this shard's list before its sessions are looked at, and a session that
//! begins later is judged by the list.

use protocol::event::{CloseCode, ErrorCode};
use protocol::ids::RequestId;
use router::user::refusal;

use super::connection::{Connection, Stage};
use super::{Action, ConnectionId, Shard};
use crate::auth::{Revocation, Subject, TokenError, TokenId, Verified, Verifier};
use crate::metrics::RefusedReason;

/// Sessions closed in one turn, the rest in the next ones. A goodbye is a frame and a send, so a turn with 256 of them is
/// as long as one in which 256 readers are given a message; 20,000 sessions are gone after 80 turns.
const CLOSES_PER_TURN: usize = 256;

/// Connections looked at in one turn: a memory access each, less than a millisecond in all.
const LOOKS_PER_TURN: usize = 4_096;

/// A revocation whose sessions are being closed.
pub(super) struct Sweep {
    revocation: Revocation,
    /// The next slot to be looked at.
    next: u32,
    closed: u64,
}

/// What a turn may still do.
struct Budget {
    closes: usize,
    looks: usize,
}

impl Shard {
    pub(super) fn handle_revoke(&mut self, revocation: Revocation) {
        self.denied.insert(&revocation);
        self.denied.prune(self.clock.unix);
        self.sweeps.push_back(Sweep { revocation, next: 0, closed: 0 });
    }

    /// Tokens that were good under the keys of before are judged again when they are shown.
    pub(super) fn handle_keys(&mut self, verifier: Verifier) {
        self.verifier = verifier;
        self.tokens.forget();
    }

    /// Closes what revocations concern, oldest first, and says how many there were.
    pub(super) fn continue_sweeps(&mut self) {
        let mut budget = Budget { closes: CLOSES_PER_TURN, looks: LOOKS_PER_TURN };
        while let Some(mut sweep) = self.sweeps.pop_front() {
            if !self.sweep(&mut sweep, &mut budget) {
                return self.sweeps.push_front(sweep);
            }
            self.actions.push(Action::Revoked { closed: sweep.closed });
        }
    }

    /// Whether it came to the end.
    fn sweep(&mut self, sweep: &mut Sweep, budget: &mut Budget) -> bool {
        let Sweep { revocation, next, closed } = sweep;
        if budget.looks == 0 || budget.closes == 0 {
            return false;
        }
        let id = match &revocation.subject {
            Subject::Everyone => None,
            Subject::Token(jti) => Some(TokenId::of(jti)),
            Subject::User(user) => {
                // A handful at most, all of them here or none.
                let connections: Vec<u64> = self.users.connections_of(user).collect();
                for connection in connections {
                    let ended = self.end_if_revoked(ConnectionId::unpack(connection), revocation, None);
                    *closed += u64::from(ended);
                    budget.closes = budget.closes.saturating_sub(1);
                    budget.looks = budget.looks.saturating_sub(1);
                }
                return true;
            }
        };
        while (*next as usize) < self.connections.slots() {
            if budget.looks == 0 || budget.closes == 0 {
                return false;
            }
            budget.looks -= 1;
            if let Some((connection, _)) = self.connections.in_slot(*next)
                && self.end_if_revoked(connection, revocation, id)
            {
                budget.closes -= 1;
                *closed += 1;
            }
            *next += 1;
        }
        true
    }

    /// Ends a session whose token is one of these; with `id`, only the one token.
    fn end_if_revoked(
        &mut self,
        connection: ConnectionId,
        revocation: &Revocation,
        id: Option<TokenId>,
    ) -> bool {
        let Some(Connection { stage: Stage::Live { issued, .. }, .. }) = self.connections.find(connection)
        else {
            return false;
        };
        let revoked =
            u64::from(issued.at) < revocation.span.issued_before && id.is_none_or(|id| issued.id == id);
        if revoked {
            self.end(connection, CloseCode::REVOKED, refused(TokenError::Revoked).2);
        }
        revoked
    }

    /// Judges a token: by its signature and times, from memory where possible, and by what was revoked since.
    pub(super) fn judge(&mut self, token: &str) -> Result<Verified, TokenError> {
        let verified = self.tokens.check(&self.verifier, token, self.clock.unix)?;
        if self.is_revoked(&verified) { Err(TokenError::Revoked) } else { Ok(verified) }
    }

    pub(super) fn is_revoked(&self, verified: &Verified) -> bool {
        self.denied.revokes(&verified.user, verified.issued, self.clock.unix)
    }

    /// For the operator: whose token it was that is not taken. What is wrong with it, where it is the token, was said by who read it.
    pub(super) fn say_refused(&self, id: ConnectionId, message: &str) {
        let peer = self.connections.peer(id).map(|peer| tracing::field::display(peer.address));
        tracing::debug!(shard = self.id.0, peer, "a token is refused: {message}");
    }

    /// Answers a `connect` whose token is not taken, and ends the connection.
    pub(super) fn refuse_token(&mut self, id: ConnectionId, number: RequestId, refused: Refused) {
        let (code, close, message) = refused;
        self.say_refused(id, message);
        if let Some(connection) = self.connections.find(id) {
            let form = connection.codec.form();
            connection.push(refusal(form, number, code, message));
            self.metrics.refused_total(RefusedReason::Token).increment();
            self.end(id, close, message);
        }
    }
}

/// What a client is told of a token that is not taken: the error, the close code, and the words of both.
pub(super) type Refused = (ErrorCode, CloseCode, &'static str);

/// A `connect` without any.
pub(super) const NO_TOKEN: Refused = (
    ErrorCode::BadToken,
    CloseCode::BAD_TOKEN,
    "there is no token: send it as `token`, or in the header `Authorization: Bearer`",
);

/// By what is wrong with it.
pub(super) fn refused(error: TokenError) -> Refused {
    match error {
        TokenError::Bad => (ErrorCode::BadToken, CloseCode::BAD_TOKEN, "the token is not valid"),
        TokenError::Expired => (ErrorCode::ExpiredToken, CloseCode::EXPIRED, "the token has expired"),
        TokenError::Unknown => {
            (ErrorCode::Unavailable, CloseCode::OVERLOAD, "the key of the token is being fetched: come back")
        }
        TokenError::Revoked => (ErrorCode::BadToken, CloseCode::REVOKED, "the token was revoked"),
    }
}
