//! Refusals: the codes, the reply that carries one, and what decoders say of bytes that they cannot read.
//!
//! An `error` ends a command and nothing else. How a connection ends says a close code ([`super::CloseCode`]).

use std::fmt;

use super::CloseCode;
use crate::ids::RequestId;

/// The fields of `error`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReply {
    /// The command refused; absent when its id could not be read.
    pub id: Option<RequestId>,
    /// What kind of refusal.
    pub code: ErrorCode,
    /// For people; names fields, never repeats content. At most 256 bytes.
    pub message: String,
    /// Try again after this many milliseconds, with the same message id.
    pub retry_after_ms: Option<u64>,
}

/// Why a command was refused. The thousands tell whose matter it is: 1 the client's mistake, 2 the state
/// of the world, 3 our limit or our fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Not a command at all.
    BadFrame,
    /// An operation this version does not know.
    UnknownOp,
    /// A field is missing, unknown, of the wrong type or out of range.
    BadField,
    /// A length limit was passed.
    TooLarge,
    /// The token is not valid.
    BadToken,
    /// The token was valid once.
    ExpiredToken,
    /// No such thing, or none this user may know of.
    NotFound,
    /// Not in this conversation.
    NotAMember,
    /// A member, but not in the role for this.
    NotAllowed,
    /// The message id was used for other content.
    Conflict,
    /// A limit on what may exist: group full, too many conversations.
    Limit,
    /// Too fast.
    RateLimited,
    /// A queue is full.
    Busy,
    /// The disk is full.
    StorageFull,
    /// The outcome is unknown: send it again with the same message id.
    Unavailable,
}

impl ErrorCode {
    /// In the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::BadFrame,
        Self::UnknownOp,
        Self::BadField,
        Self::TooLarge,
        Self::BadToken,
        Self::ExpiredToken,
        Self::NotFound,
        Self::NotAMember,
        Self::NotAllowed,
        Self::Conflict,
        Self::Limit,
        Self::RateLimited,
        Self::Busy,
        Self::StorageFull,
        Self::Unavailable,
    ];

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            Self::BadFrame => 1001,
            Self::UnknownOp => 1002,
            Self::BadField => 1003,
            Self::TooLarge => 1004,
            Self::BadToken => 2001,
            Self::ExpiredToken => 2002,
            Self::NotFound => 2003,
            Self::NotAMember => 2004,
            Self::NotAllowed => 2005,
            Self::Conflict => 2006,
            Self::Limit => 2007,
            Self::RateLimited => 3001,
            Self::Busy => 3002,
            Self::StorageFull => 3003,
            Self::Unavailable => 3004,
        }
    }

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadFrame => "bad_frame",
            Self::UnknownOp => "unknown_op",
            Self::BadField => "bad_field",
            Self::TooLarge => "too_large",
            Self::BadToken => "bad_token",
            Self::ExpiredToken => "expired_token",
            Self::NotFound => "not_found",
            Self::NotAMember => "not_a_member",
            Self::NotAllowed => "not_allowed",
            Self::Conflict => "conflict",
            Self::Limit => "limit",
            Self::RateLimited => "rate_limited",
            Self::Busy => "busy",
            Self::StorageFull => "storage_full",
            Self::Unavailable => "unavailable",
        }
    }

    /// Whether the same command may succeed later.
    pub const fn retryable(self) -> bool {
        self.code() >= 3000
    }

    /// The code of a number on the wire.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.code() == code)
    }
}

/// A command that could not be decoded, ready to be answered.
///
/// With an `id` the answer is an `error` reply; without one nothing can be answered and the connection
/// ends with [`Refusal::close_code`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The command's id, where it could be read.
    pub id: Option<RequestId>,
    /// What kind of mistake.
    pub code: ErrorCode,
    /// Names the field, never repeats content.
    pub message: String,
}

impl Refusal {
    /// How the connection ends when there is no id to answer to.
    pub const fn close_code(&self) -> CloseCode {
        match self.code {
            ErrorCode::TooLarge => CloseCode::TOO_BIG,
            _ => CloseCode::UNSUPPORTED,
        }
    }

    /// The reply, for a refusal that has an id.
    pub fn into_reply(self) -> ErrorReply {
        ErrorReply { id: self.id, code: self.code, message: self.message, retry_after_ms: None }
    }
}

/// Why a client could not read what a server sent. The client closes and reconnects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameFault {
    /// What was wrong; constant text.
    pub reason: &'static str,
}

impl fmt::Display for FrameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl std::error::Error for FrameFault {}
