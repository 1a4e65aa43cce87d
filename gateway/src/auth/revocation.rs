//! What an operator takes back: the tokens of a user, one token, or all, up to a time.
//!
//! One JSON object says it, in a request to the admin server and in the file that outlives a restart.
//!
//! Invariant: merging only ever adds. Whatever was revoked before, by either of two revocations of one
//! subject, is revoked by what they merge to, so the order in which they arrive does not matter.

use std::fmt;

use protocol::ids::UserId;
use serde::{Deserialize, Deserializer, Serialize};

use super::token::{ISSUED_AHEAD_MAX, Issued, SECONDS_MAX};

/// Longest `jti` that can be revoked, in bytes: far above a UUID, and a bound for what is kept.
pub const JTI_BYTES_MAX: usize = 256;

/// The end of what has none, in seconds since 1970.
pub const FOR_EVER: u64 = u64::MAX;

/// Whose tokens are revoked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// All tokens.
    Everyone,
    /// The token with this `jti`.
    Token(String),
    /// The tokens of this user.
    User(UserId),
}

/// Which tokens of a subject, and for how long; both in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Tokens issued earlier are revoked. [`FOR_EVER`] of one token: whenever it was issued.
    pub issued_before: u64,
    /// From then on the revocation is forgotten. [`FOR_EVER`]: never.
    pub until: u64,
}

impl Span {
    /// Everything that either revokes, and perhaps more: the later of both bounds.
    #[must_use]
    pub fn merged(self, other: Self) -> Self {
        Self {
            issued_before: self.issued_before.max(other.issued_before),
            until: self.until.max(other.until),
        }
    }

    /// Whether `other` revokes nothing that this does not, of the same tokens.
    pub(crate) fn covers(self, other: Self) -> bool {
        self.merged(other) == self
    }

    /// Whether a token of the subject is revoked at `now`, in seconds since 1970.
    pub(super) fn revokes(self, issued: Issued, now: u64) -> bool {
        u64::from(issued.at) < self.issued_before && now < self.until
    }
}

/// Whose tokens, which of them, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Whose.
    pub subject: Subject,
    /// Which, and for how long.
    pub span: Span,
}

impl Revocation {
    /// Reads what is asked for at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// What is wrong with it, in words for whoever asked.
    pub fn asked(body: &[u8], now: u64) -> Result<Self, String> {
        // A list of the fields' values would pass for an object of them.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err("this is not a revocation: it must be a JSON object".to_owned());
        }
        let mut entry: Entry =
            serde_json::from_slice(body).map_err(|error| format!("this is not a revocation: {error}"))?;
        // No token that is taken was issued later than this.
        let issued_before_max = now + ISSUED_AHEAD_MAX.as_secs() + 1;
        if entry.issued_before.is_some_and(|before| before > issued_before_max) {
            return Err(
                "`issued_before` lies in the future; times are seconds since 1970, and tokens that are not issued \
                 yet cannot be revoked"
                    .to_owned(),
            );
        }
        if entry.until.is_some_and(|until| until <= now) {
            return Err("`until` has passed already; times are seconds since 1970".to_owned());
        }
        if entry.user.is_some() && entry.jti.is_none() {
            // Up to now: `iat` counts in seconds, and this one is not over.
            entry.issued_before.get_or_insert(now + 1);
        }
        entry.check()
    }

    /// The same as it is written.
    pub(crate) fn entry(&self) -> Entry {
        let Span { issued_before, until } = self.span;
        let (user, jti) = match &self.subject {
            Subject::Everyone => (None, None),
            Subject::Token(jti) => (None, Some(jti.clone())),
            Subject::User(user) => (Some(user.to_string()), None),
        };
        let given = |seconds| (seconds != FOR_EVER).then_some(seconds);
        Entry { user, jti, issued_before: given(issued_before), until: given(until) }
    }
}

impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Span { issued_before, until } = self.span;
        match &self.subject {
            Subject::Everyone => write!(f, "all tokens issued before {issued_before}")?,
            Subject::Token(jti) => write!(f, "the token with jti {jti}")?,
            Subject::User(user) => write!(f, "tokens of {user} issued before {issued_before}")?,
        }
        if until == FOR_EVER { Ok(()) } else { write!(f, ", until {until}") }
    }
}

/// A revocation as it is written. What is not given is not there: a `null` is refused, because
/// `{"user": null, "issued_before": …}` of a script that lost the name would revoke everybody.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    issued_before: Option<u64>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
}

fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl Entry {
    /// The revocation that this says.
    pub(crate) fn check(self) -> Result<Revocation, String> {
        let Self { user, jti, issued_before, until } = self;
        for (name, seconds) in [("issued_before", issued_before), ("until", until)] {
            if seconds.is_some_and(|seconds| seconds >= SECONDS_MAX as u64) {
                return Err(format!("`{name}` lies behind the year 9999; times are seconds since 1970"));
            }
        }
        let (subject, issued_before) = match (user, jti, issued_before) {
            (Some(user), None, Some(before)) => {
                let user = UserId::new(&user).map_err(|error| format!("`user` is none: {error}"))?;
                (Subject::User(user), before)
            }
            (None, Some(jti), None) => (Subject::Token(check_jti(jti)?), FOR_EVER),
            (None, None, Some(before)) => (Subject::Everyone, before),
            _ => {
                return Err(
                    "give one of: `user`, `user` and `issued_before`, `jti`, `issued_before`; each may \
                            have an `until`"
                        .to_owned(),
                );
            }
        };
        Ok(Revocation { subject, span: Span { issued_before, until: until.unwrap_or(FOR_EVER) } })
    }
}

fn check_jti(jti: String) -> Result<String, String> {
    if jti.is_empty() || jti.len() > JTI_BYTES_MAX || jti.chars().any(char::is_control) {
        return Err(format!(
            "`jti` must be 1..={JTI_BYTES_MAX} bytes without control characters; other tokens can be revoked by \
             `user`"
        ));
    }
    // It would be kept, and said in the log.
    if jti.starts_with("eyJ") && jti.matches('.').count() == 2 {
        return Err("`jti` holds a whole token: give the claim `jti` in it".to_owned());
    }
    Ok(jti)
}
