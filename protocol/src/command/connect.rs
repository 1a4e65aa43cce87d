//! What a session shows and brings: the fields of `connect`, and the two secrets that a device has.
//!
//! A bearer token opens a session, a push token calls a device. Neither is ever shown by `Debug`, so neither can reach a log.

use std::fmt;

use crate::ids::{ConversationId, DeviceId, Seq};

/// The fields of `connect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// Absent when it came in the `Authorization` header of the upgrade.
    pub token: Option<Token>,
    /// Which device, tab or app instance this is.
    pub device: DeviceId,
    /// Where the client stopped, 1..=512 bytes. Never together with `positions`.
    pub cursor: Option<String>,
    /// The last sequence the client knows of each conversation (0: none), each conversation once,
    /// at most 500.
    pub positions: Option<Vec<(ConversationId, Seq)>>,
}

/// A bearer token, at most 8 KiB of visible ASCII. Never shown by `Debug`, so that it cannot reach a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// `None` unless 1..=8192 bytes of visible ASCII.
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=crate::limits::TOKEN_BYTES_MAX).contains(&text.len());
        (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Self(text.to_owned()))
    }

    /// The token itself, for the verifier and for the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(redacted, {} bytes)", self.0.len())
    }
}

/// What a push service calls a device by: a token, or a subscription as JSON. Whoever has it can call the device, so `Debug` never shows
/// it, and it cannot reach a log.
#[derive(Clone, PartialEq, Eq)]
pub struct PushToken(String);

impl PushToken {
    /// Takes it as it is. Its bounds are those of the command that brings it.
    pub const fn new(token: String) -> Self {
        Self(token)
    }

    /// The token itself, for the disk, the wire and the pusher.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PushToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PushToken(redacted, {} bytes)", self.0.len())
    }
}
