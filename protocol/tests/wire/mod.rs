//! Frames by hand and a server session to send them to.
#![allow(dead_code, reason = "each test takes what it needs")]

use protocol::{
    session::{Frames, Input, Session, SessionLimits},
    upgrade::UpgradePolicy,
};

/// What an echo server allows, as the Autobahn suite expects it.
pub(crate) const ECHO: SessionLimits =
    SessionLimits { message_bytes_max: 16 << 20, fragments_max: 1 << 20, frames: Frames::Any };

pub(crate) const UPGRADE: &[u8] = b"GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Any frame at all: `first` and the length byte's upper bit as given, masked as a client does.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xFFFF => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// A server session past its upgrade, with the response taken.
pub(crate) fn open_server(limits: &SessionLimits) -> Session {
    let mut session = Session::server(limits);
    let mut request = UPGRADE.to_vec();
    let handled = session.handle_bytes(&UpgradePolicy::ANY, &mut request).expect("the sample is a request");
    assert!(matches!(handled.input, Some(Input::Upgraded(_))));
    assert_eq!(handled.consumed, UPGRADE.len());
    session.poll_control(&mut Vec::new());
    assert!(session.is_open() && session.held_bytes() == 0);
    session
}

/// Echoes what comes in, piece by piece, and writes down everything that goes out, one line a frame.
pub(crate) fn echo(session: &mut Session, pieces: &[Vec<u8>]) -> Vec<String> {
    let mut out = Vec::new();
    'pieces: for piece in pieces {
        let mut piece = piece.clone();
        let mut at = 0;
        loop {
            let reply = match session.handle_bytes(&UpgradePolicy::ANY, &mut piece[at..]) {
                Err(_) => break 'pieces,
                Ok(handled) => {
                    at += handled.consumed;
                    match handled.input {
                        None => break,
                        Some(Input::Text(text)) => {
                            Some((protocol::ws::Opcode::Text, text.as_bytes().to_vec()))
                        }
                        Some(Input::Binary(bytes)) => Some((protocol::ws::Opcode::Binary, bytes.to_vec())),
                        Some(_) => None,
                    }
                }
            };
            session.poll_control(&mut out);
            if let Some((opcode, payload)) = reply
                && session.is_open()
            {
                session.encode_message(opcode, &payload, &mut out);
            }
        }
        assert_eq!(at, piece.len(), "without a report all input is taken");
    }
    session.poll_control(&mut out);
    transcript(&out)
}

/// `text hello`, `pong 5 bytes`, `close 1002`: what a server sent.
pub(crate) fn transcript(mut bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    while let [first, second, rest @ ..] = bytes {
        assert!(first & 0xF0 == 0x80 && second & 0x80 == 0, "a server sends whole, unmasked frames");
        let (length, rest) = match second {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            127 => (u64::from_be_bytes(rest[..8].try_into().expect("eight")) as usize, &rest[8..]),
            short => (usize::from(*short), rest),
        };
        let (payload, rest) = rest.split_at(length);
        lines.push(match first & 15 {
            1 => format!("text {}", shorten(payload)),
            2 => format!("binary {}", shorten(payload)),
            10 => format!("pong {}", shorten(payload)),
            8 if payload.is_empty() => "close".to_owned(),
            8 => format!("close {}", u16::from_be_bytes([payload[0], payload[1]])),
            opcode => panic!("a server never sends opcode {opcode} here"),
        });
        bytes = rest;
    }
    assert!(bytes.is_empty(), "no stray bytes");
    lines
}

pub(crate) fn shorten(payload: &[u8]) -> String {
    match str::from_utf8(payload) {
        Ok(text) if payload.len() <= 64 && !text.contains(char::is_control) => text.to_owned(),
        _ => format!("{} bytes", payload.len()),
    }
}
