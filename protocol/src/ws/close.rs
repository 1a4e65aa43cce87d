//! The body of a close frame (RFC 6455, section 5.5.1): empty, or a code and a reason.

use super::{Message, Violation};
use crate::{event::CloseCode, limits};

/// Reads the payload of a close frame.
pub(super) fn read_close(payload: &[u8]) -> Result<Message<'_>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok(Message::Close { code: None, reason: "" }),
            _ => Err(Violation::Protocol("the close code is cut")),
        };
    };
    let code = CloseCode(u16::from_be_bytes(*code));
    if !code.is_sendable() {
        return Err(Violation::Protocol("the close code may not be sent"));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| Violation::InvalidData)?;
    Ok(Message::Close { code: Some(code), reason })
}

/// The payload of a close frame, at most 125 bytes: `reason` is cut at a character if it is longer.
/// [`CloseCode::NO_STATUS`] makes an empty payload.
pub fn encode_close(code: CloseCode, reason: &str) -> Vec<u8> {
    if code == CloseCode::NO_STATUS {
        return Vec::new();
    }
    debug_assert!(code.is_sendable(), "close code {code} is not for the wire");
    let end = reason.floor_char_boundary(limits::CLOSE_REASON_BYTES_MAX);
    let mut payload = code.0.to_be_bytes().to_vec();
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    payload
}
