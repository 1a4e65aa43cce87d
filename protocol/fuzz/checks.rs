//! What must hold for any bytes at all. Shared by the fuzz targets and, over their seeds and over noise,
//! by a test on stable.
#![forbid(unsafe_code)]
#![allow(dead_code, reason = "each target takes one")]

use protocol::{
    binary,
    event::{ErrorCode, Refusal},
    json, limits,
    proxy::read_proxy_header,
    record::{Amendment, PORTABLE_BYTES, Portable, RecordError, Stored, StoredBody},
    session::{Input, Session, SessionLimits},
    upgrade::{Origins, UpgradePolicy, parse_upgrade},
    ws::{Decoder, DecoderLimits, Message, Role, Violation},
};

/// Frames: how they are cut does not matter, memory follows what arrived, limits hold.
pub(crate) fn header(bytes: &[u8]) {
    for role in [Role::Server, Role::Client] {
        let whole = frames(bytes, role, bytes.len().max(1));
        for step in [1, 3, 14] {
            assert_eq!(frames(bytes, role, step), whole, "cut every {step} bytes");
        }
    }
}

/// Messages by kind and length, and the violation at the end.
fn frames(bytes: &[u8], role: Role, step: usize) -> (Vec<(char, usize)>, Option<Violation>) {
    const LIMITS: DecoderLimits = DecoderLimits { message_bytes_max: 4096, fragments_max: 64 };
    let mut decoder = Decoder::new(role, LIMITS);
    let mut seen = Vec::new();
    let mut bytes = bytes.to_vec();
    for piece in bytes.chunks_mut(step) {
        let mut at = 0;
        loop {
            let decoded = match decoder.decode(&mut piece[at..]) {
                Ok(decoded) => decoded,
                Err(violation) => return (seen, Some(violation)),
            };
            at += decoded.consumed;
            seen.push(match decoded.message {
                None => break,
                Some(Message::Binary(payload)) => ('b', payload.len()),
                Some(Message::Close { reason, .. }) => ('c', reason.len()),
                Some(Message::Ping(payload)) => ('i', payload.len()),
                Some(Message::Pong(payload)) => ('o', payload.len()),
                Some(Message::Text(text)) => ('t', text.len()),
            });
        }
        assert_eq!(at, piece.len());
        assert!(decoder.held_bytes() < 512 + 2 * 4096);
    }
    (seen, None)
}

/// A request is taken or refused, and a refusal says nothing of it.
pub(crate) fn upgrade(bytes: &[u8]) {
    for origins in [Origins::Unset, Origins::List(vec!["https://good.example".to_owned()])] {
        for path in [Some(UpgradePolicy::PATH), None] {
            let policy = UpgradePolicy { path, origins: origins.clone() };
            match parse_upgrade(bytes, &policy) {
                Ok(None) => assert!(bytes.len() <= limits::HTTP_HEAD_BYTES_MAX),
                Ok(Some((upgrade, consumed))) => {
                    assert!(consumed <= bytes.len() && consumed <= limits::HTTP_HEAD_BYTES_MAX);
                    assert!(path.is_none_or(|path| path == upgrade.path));
                    let response = upgrade.response();
                    assert_eq!(
                        response.iter().filter(|byte| **byte == b'\n').count(),
                        5 + usize::from(upgrade.form_offered)
                    );
                }
                Err(refusal) => assert!(refusal.response().starts_with(b"HTTP/1.1 ")),
            }
        }
    }
}

/// A command that is taken comes back the same from both forms.
pub(crate) fn json_command(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match json::decode_request(text) {
        Ok(request) => comes_back(&request),
        Err(refusal) => is_answerable(&refusal),
    }
    let _ = json::decode_frame(text);
}

/// As [`json_command`]; and the same bytes as frames of a server, and as records.
pub(crate) fn binary_command(bytes: &[u8]) {
    match binary::decode_request(bytes) {
        Ok(request) => comes_back(&request),
        Err(refusal) => is_answerable(&refusal),
    }
    let mut seen = Vec::new();
    if binary::decode_frames(bytes, &mut seen).is_ok() {
        for frame in &seen {
            let mut again = Vec::new();
            json::encode_frame(frame, &mut again);
            let text = str::from_utf8(&again).expect("JSON is UTF-8");
            assert!(json::decode_frame(text).is_ok(), "{text}");
        }
    }
    if let Ok(stored) = Stored::parse(bytes) {
        record(stored);
    }
    // The sums keep damage from ever reaching a payload, so that is looked at under new ones too.
    if let Ok(mut portable) = Portable::parse(bytes) {
        let end = bytes.len().min(PORTABLE_BYTES + portable.payload_bytes as usize);
        let payload = &bytes[PORTABLE_BYTES..end];
        portable.seal(payload);
        match Stored::parse(&[portable.encode().as_slice(), payload].concat()) {
            Ok(stored) => record(stored),
            Err(error) => assert_eq!(error, RecordError::Damaged),
        }
    }
}

/// A record is text in JSON, the same as in the binary form if a client takes that, and makes other records.
fn record(stored: Stored<'_>) {
    let text = json::render_json(&stored);
    let text = str::from_utf8(&text).expect("JSON is UTF-8");
    let mut seen = Vec::new();
    if binary::decode_frames(stored.bytes(), &mut seen).is_ok() {
        let frame = json::decode_frame(text).expect("what was written can be read");
        assert_eq!(seen, frame.as_slice());
    }
    stands_in(stored);
}

/// What is served in place of an amendment, and of its target, are records of their places.
fn stands_in(stored: Stored<'_>) {
    let Some(amendment) = Amendment::of(stored) else { return };
    let target = Portable { seq: amendment.target(), ..stored.portable };
    let substitute = amendment.substitute(&target);
    let substitute = Stored::parse(&substitute).expect("what was written can be read");
    assert!(matches!(substitute.body, StoredBody::Folded(_)));
    for record in [amendment.hidden(), amendment.with_form(amendment.form().deleted())] {
        let record = Stored::parse(&record).expect("what was written can be read");
        assert!(matches!(record.body, StoredBody::Amendment(_)));
        assert_eq!((record.portable.seq, record.portable.at), (stored.portable.seq, stored.portable.at));
    }
}

fn comes_back(request: &protocol::command::Request) {
    let mut bytes = Vec::new();
    json::encode_request(request, &mut bytes);
    // Escapes make text longer, and may make it too long.
    if bytes.len() <= limits::FRAME_BYTES_MAX {
        let text = str::from_utf8(&bytes).expect("JSON is UTF-8");
        assert_eq!(json::decode_request(text).as_ref(), Ok(request));
    }
    let mut bytes = Vec::new();
    binary::encode_request(request, &mut bytes);
    if bytes.len() <= limits::FRAME_BYTES_MAX {
        assert_eq!(binary::decode_request(&bytes).as_ref(), Ok(request));
    }
}

fn is_answerable(refusal: &Refusal) {
    assert!(refusal.message.len() <= limits::ERROR_MESSAGE_BYTES_MAX);
    // The client's mistake, or a token that no verifier needs to see.
    let code = refusal.code.code();
    assert!(code <= ErrorCode::TooLarge.code() || refusal.code == ErrorCode::BadToken);
}

/// A PROXY header is read the same however it is cut, and is no longer than it may be; what is read again from its bytes alone is the same.
pub(crate) fn proxy(bytes: &[u8]) {
    let read = read_proxy_header(bytes);
    match read {
        Ok(None) => assert!(bytes.len() < limits::PROXY_HEADER_BYTES_MAX),
        Ok(Some(header)) => {
            assert!(header.bytes <= bytes.len() && header.bytes <= limits::PROXY_HEADER_BYTES_MAX);
            assert_eq!(read_proxy_header(&bytes[..header.bytes]), read);
            (0..header.bytes).for_each(|end| assert_eq!(read_proxy_header(&bytes[..end]), Ok(None)));
        }
        Err(refusal) => assert_eq!(refusal.status, 400),
    }
    for step in [1, 5, bytes.len().max(1)] {
        let mut session = Session::proxied(&SessionLimits::CONNECT);
        let mut bytes = bytes.to_vec();
        let heard =
            bytes.chunks_mut(step).find_map(|piece| match session.handle_bytes(&UpgradePolicy::ANY, piece) {
                Err(_) => Some(None),
                Ok(handled) => handled.input.map(|input| match input {
                    Input::Proxied(source) => Some(source),
                    other => panic!("{other:?}"),
                }),
            });
        match read {
            Ok(None) => assert_eq!(heard, None),
            Ok(Some(header)) => assert_eq!(heard, Some(Some(header.source))),
            Err(_) => assert_eq!(heard, Some(None)),
        }
    }
}
