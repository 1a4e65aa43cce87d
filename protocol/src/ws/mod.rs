//! The WebSocket codec (RFC 6455), both roles, on bytes alone.
//!
//! No extensions are spoken, so every reserved bit is a violation. Nothing is allocated for a frame that
//! is whole in the input, and never more than twice what has arrived for one that is not: a declared
//! length buys no memory.
//!
//! Invariant: a [`Message::Text`] is valid UTF-8, a close code that is handed out was allowed to be sent.

mod close;
mod decoder;
mod header;
mod mask;
mod utf8;

use std::fmt;

pub use close::encode_close;
pub use decoder::{Decoded, Decoder, DecoderLimits};
pub use header::{FrameHead, Opcode, encode_frame, frame_header, read_header};
pub use mask::unmask;
pub use utf8::Utf8;

use crate::event::CloseCode;

/// Which end of the connection this is. Clients mask what they send, servers do not (section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends masked, receives unmasked.
    Client,
    /// Sends unmasked, receives masked.
    Server,
}

/// One whole message or control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Opcode 2.
    Binary(&'a [u8]),
    /// Opcode 8. No code when the frame was empty.
    Close {
        /// Allowed by [`CloseCode::is_sendable`].
        code: Option<CloseCode>,
        /// At most 123 bytes.
        reason: &'a str,
    },
    /// Opcode 9, at most 125 bytes.
    Ping(&'a [u8]),
    /// Opcode 10, at most 125 bytes.
    Pong(&'a [u8]),
    /// Opcode 1.
    Text(&'a str),
}

/// How the peer broke the WebSocket protocol. One variant per close code; the text is for logs and for
/// the reason of the close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Text that is not UTF-8.
    InvalidData,
    /// A frame that may not be sent, or not now.
    Protocol(&'static str),
    /// A message above the limit in bytes or fragments.
    TooBig,
    /// A kind of data frame that was not agreed on.
    Unsupported,
}

impl Violation {
    /// Total: what the peer is told (section 7.4.1).
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::InvalidData => CloseCode::INVALID_DATA,
            Self::Protocol(_) => CloseCode::PROTOCOL,
            Self::TooBig => CloseCode::TOO_BIG,
            Self::Unsupported => CloseCode::UNSUPPORTED,
        }
    }

    /// At most 123 bytes, constant.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::InvalidData => "text is not UTF-8",
            Self::Protocol(reason) => reason,
            Self::TooBig => "the message is too big",
            Self::Unsupported => "this kind of frame was not agreed on",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Violation {}
