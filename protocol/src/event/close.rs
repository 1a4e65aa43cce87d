//! Close codes: why a connection ends, and whether its client should come back.

use std::fmt;

/// A close code (RFC 6455, section 7.4). Of ours, 4000..4100 mean "come back" and 4100..4200 "do not,
/// without a change".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// 1000: done.
    pub const NORMAL: Self = Self(1000);
    /// 1001: the page or the process goes away.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the WebSocket protocol was broken.
    pub const PROTOCOL: Self = Self(1002);
    /// 1003: a frame that is no command.
    pub const UNSUPPORTED: Self = Self(1003);
    /// 1005: never sent; stands for a close frame without a code.
    pub const NO_STATUS: Self = Self(1005);
    /// 1006: never sent; stands for an end without a close frame.
    pub const ABNORMAL: Self = Self(1006);
    /// 1007: text that is not UTF-8.
    pub const INVALID_DATA: Self = Self(1007);
    /// 1009: a message above the limit.
    pub const TOO_BIG: Self = Self(1009);
    /// 1011: our fault.
    pub const INTERNAL: Self = Self(1011);
    /// 4000: the node is going away.
    pub const DRAIN: Self = Self(4000);
    /// 4001: nothing was taken from us for too long.
    pub const STALLED: Self = Self(4001);
    /// 4002: nothing was heard for too long.
    pub const IDLE: Self = Self(4002);
    /// 4003: a limit of the node or of the session.
    pub const OVERLOAD: Self = Self(4003);
    /// 4100: the token is not valid.
    pub const BAD_TOKEN: Self = Self(4100);
    /// 4101: the token has expired.
    pub const EXPIRED: Self = Self(4101);
    /// 4102: the user or token was revoked.
    pub const REVOKED: Self = Self(4102);
    /// 4103: against the node's policy.
    pub const POLICY: Self = Self(4103);
    /// 4104: a newer session of the same device took over.
    pub const REPLACED: Self = Self(4104);

    /// Whether a client should reconnect and resume. True for 40xx and for ends that say nothing about
    /// the client (1001, 1006, 1011, 1012, 1013).
    pub const fn resumable(self) -> bool {
        matches!(self.0, 4000..=4099 | 1001 | 1006 | 1011 | 1012 | 1013)
    }

    /// Whether the code may stand in a close frame: 1000..=1003, 1007..=1014, 3000..=4999
    /// (RFC 6455, section 7.4, and the IANA registry).
    pub const fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
