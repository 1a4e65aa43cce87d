//! What a session takes, what comes out of it, and how it ends because of its peer.

use std::{fmt, net::IpAddr};

use crate::{
    event::CloseCode,
    limits,
    upgrade::{HttpRefusal, Upgrade},
    ws::{DecoderLimits, Violation},
};

/// What one peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Largest message, in bytes.
    pub message_bytes_max: u32,
    /// Most frames of one message.
    pub fragments_max: u32,
    /// Which data frames are taken.
    pub frames: Frames,
}

impl SessionLimits {
    /// Until `connect` was accepted.
    pub const CONNECT: Self = Self {
        message_bytes_max: limits::CONNECT_BYTES_MAX as u32,
        fragments_max: limits::FRAGMENTS_MAX,
        frames: Frames::OfForm,
    };
    /// From then on.
    pub const OPEN: Self = Self { message_bytes_max: limits::FRAME_BYTES_MAX as u32, ..Self::CONNECT };
    /// What a client takes from a server.
    pub const CLIENT: Self = Self { message_bytes_max: limits::EVENT_BYTES_MAX as u32, ..Self::CONNECT };

    pub(super) const fn decoder(self) -> DecoderLimits {
        DecoderLimits { message_bytes_max: self.message_bytes_max, fragments_max: self.fragments_max }
    }
}

/// Which data frames a session takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// Text and binary, whatever was agreed: for echo servers.
    Any,
    /// Text in the JSON form, binary in the binary form; the other is a violation (1003).
    OfForm,
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// A binary message.
    Binary(&'a [u8]),
    /// Client: the server has taken the upgrade.
    Connected,
    /// The peer closes. If this side had not, its answer waits in [`super::Session::poll_control`].
    PeerClosed {
        /// [`CloseCode::NO_STATUS`] when the peer gave none.
        code: CloseCode,
    },
    /// A ping. Its pong waits in [`super::Session::poll_control`]; of several only the newest is answered.
    Ping,
    /// A pong.
    Pong,
    /// Server behind a proxy: it has said whose connection this is; `None` is its own.
    Proxied(Option<IpAddr>),
    /// A text message.
    Text(&'a str),
    /// Server: the request was taken; the 101 waits in [`super::Session::poll_control`].
    Upgraded(Box<Upgrade>),
}

/// What one call to [`super::Session::handle_bytes`] came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Handled<'a> {
    /// Bytes taken from the front.
    pub consumed: usize,
    /// `None`: everything was taken and there is nothing to report.
    pub input: Option<Input<'a>>,
}

/// Why a session ends because of its peer. What the peer is told waits in [`super::Session::poll_control`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Server behind a proxy: what came is no PROXY header.
    NotProxied(HttpRefusal),
    /// The upgrade was refused: by this server, or, at a client, by the other one.
    Refused(HttpRefusal),
    /// The WebSocket protocol was broken.
    Violation(Violation),
}

impl End {
    /// The close code by which this end is known. A refused upgrade has no close frame.
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::NotProxied(_) | Self::Refused(_) => CloseCode::ABNORMAL,
            Self::Violation(violation) => violation.close_code(),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotProxied(refusal) | Self::Refused(refusal) => fmt::Display::fmt(refusal, f),
            Self::Violation(violation) => fmt::Display::fmt(violation, f),
        }
    }
}

impl std::error::Error for End {}
