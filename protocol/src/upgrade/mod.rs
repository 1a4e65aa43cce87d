//! The HTTP/1.1 upgrade that opens a WebSocket (RFC 6455, section 4; RFC 9112 for the syntax).
//!
//! Strict where proxies and attackers disagree: one `Host`, no body, no folded lines, no bare line feeds,
//! exact paths and origins. Every pass over the head is linear, and the end of the head is looked for
//! only in bytes that are new.
//!
//! Invariant: nothing a peer sent comes back in a refusal.

mod client;
mod head;
mod server;

use std::fmt;

pub use client::{ClientRequest, check_response};
pub use head::HeadScan;
pub(crate) use server::parse_head;
pub use server::parse_upgrade;

use crate::{command::Token, limits, ws::Opcode};

/// The two forms of the protocol, named by their WebSocket subprotocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// `chat.v1.bin`: binary frames.
    Binary,
    /// `chat.v1.json`: text frames. Also for clients that name no subprotocol.
    Json,
}

impl Form {
    /// The name in `Sec-WebSocket-Protocol`, compared exactly.
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Binary => "chat.v1.bin",
            Self::Json => "chat.v1.json",
        }
    }

    /// The opcode of the data frames that carry it.
    pub const fn opcode(self) -> Opcode {
        match self {
            Self::Binary => Opcode::Binary,
            Self::Json => Opcode::Text,
        }
    }

    /// The form of a subprotocol.
    pub fn from_subprotocol(name: &str) -> Option<Self> {
        [Self::Binary, Self::Json].into_iter().find(|form| form.subprotocol() == name)
    }
}

/// What a server takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradePolicy {
    /// The one path, compared byte by byte; `None` for any, as an echo server has it.
    pub path: Option<&'static str>,
    /// Which web pages may connect.
    pub origins: Origins,
}

impl UpgradePolicy {
    /// The path of protocol version 1.
    pub const PATH: &'static str = "/v1/connect";

    /// Any path; pages from this machine only. What a client gives, which judges no request.
    pub const ANY: Self = Self { path: None, origins: Origins::Unset };
}

/// Which web pages may connect. Programs that are no browsers send no `Origin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Exactly these, each as a browser writes it (`https://chat.example.org`), and programs without
    /// an origin.
    List(Vec<String>),
    /// Nothing was configured: programs without an origin, and pages from this very machine.
    Unset,
}

impl Origins {
    /// Whether a request with this `Origin` may pass. Compared byte by byte: scheme, host and port are
    /// all part of it, and `null` matches only itself.
    pub fn allows(&self, origin: Option<&str>) -> bool {
        match (self, origin) {
            (_, None) => true,
            (Self::List(list), Some(origin)) => list.iter().any(|allowed| allowed == origin),
            (Self::Unset, Some(origin)) => is_loopback(origin),
        }
    }
}

/// `http(s)://` and localhost, 127.0.0.1 or [::1], with any port.
fn is_loopback(origin: &str) -> bool {
    let Some(authority) = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) else {
        return false;
    };
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|host| match authority.strip_prefix(host) {
        Some("") => true,
        Some(port) => port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok()),
        None => false,
    })
}

/// A request that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// Without the query.
    pub path: String,
    /// The form the connection will speak.
    pub form: Form,
    /// The client named the form, so the response does too.
    pub form_offered: bool,
    /// The web page, if one.
    pub origin: Option<String>,
    /// From `Authorization: Bearer`.
    pub bearer: Option<Token>,
    /// `Sec-WebSocket-Key`: 24 bytes of base64, checked.
    pub key: [u8; 24],
}

impl Upgrade {
    /// The 101 response, complete.
    pub fn response(&self) -> Vec<u8> {
        let accept = tungstenite::handshake::derive_accept_key(&self.key);
        let mut response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n"
        );
        if self.form_offered {
            response.push_str("Sec-WebSocket-Protocol: ");
            response.push_str(self.form.subprotocol());
            response.push_str("\r\n");
        }
        response.push_str("\r\n");
        response.into_bytes()
    }
}

/// Why a request was not taken. Answered once, then the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpRefusal {
    /// One of [`HttpRefusal::STATUSES`].
    pub status: u16,
    /// The body: constant text.
    pub reason: &'static str,
}

impl HttpRefusal {
    /// Every status a refusal may have, with its phrase.
    pub const STATUSES: [(u16, &'static str); 11] = [
        (400, "Bad Request"),
        (403, "Forbidden"),
        (404, "Not Found"),
        (405, "Method Not Allowed"),
        (408, "Request Timeout"),
        (414, "URI Too Long"),
        (426, "Upgrade Required"),
        (429, "Too Many Requests"),
        (431, "Request Header Fields Too Large"),
        (503, "Service Unavailable"),
        (505, "HTTP Version Not Supported"),
    ];

    /// The handshake deadline has passed.
    pub const TIMEOUT: Self = Self { status: 408, reason: "the request took too long" };
    /// The node has no room.
    pub const OVERLOAD: Self = Self { status: 503, reason: "the server is full, come back later" };

    pub(crate) const fn bad(reason: &'static str) -> Self {
        Self { status: 400, reason }
    }

    const HEAD_TOO_LARGE: Self = Self { status: 431, reason: "the request head is too large" };
    const TARGET_TOO_LONG: Self = Self { status: 414, reason: "the request target is too long" };

    /// The whole HTTP/1.1 response; the connection is closed after it.
    pub fn response(&self) -> Vec<u8> {
        let known = Self::STATUSES.iter().find(|(status, _)| *status == self.status);
        let (status, phrase) = *known.expect("refusals have one of the statuses above");
        let extra = match status {
            405 => "Allow: GET\r\n",
            426 => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            429 | 503 => "Retry-After: 5\r\n",
            _ => "",
        };
        let (reason, length) = (self.reason, self.reason.len() + 1);
        format!(
            "HTTP/1.1 {status} {phrase}\r\nConnection: close\r\nContent-Type: text/plain\r\n\
             Content-Length: {length}\r\n{extra}\r\n{reason}\n"
        )
        .into_bytes()
    }
}

impl fmt::Display for HttpRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.reason)
    }
}

impl std::error::Error for HttpRefusal {}

/// Whether a comma-separated header value holds `token`, without regard to case (RFC 9110, section 5.6.1).
fn list_holds(value: &[u8], token: &str) -> bool {
    value.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Whether `text` is a token (RFC 9110, section 5.6.2).
fn is_token(text: &[u8]) -> bool {
    !text.is_empty()
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

const _: () = assert!(limits::HTTP_TARGET_BYTES_MAX > UpgradePolicy::PATH.len());
