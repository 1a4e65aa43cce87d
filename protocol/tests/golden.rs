//! The wire, byte for byte: `tests/golden/` holds every command, frame and record in both forms, for
//! us and for writers of other clients. `UPDATE_GOLDEN=1` writes it anew; a change there is a change of
//! the protocol.

#![forbid(unsafe_code)]

mod samples;

use std::{fs, path::PathBuf};

use protocol::{
    binary,
    command::Request,
    event::ServerFrame,
    ids::Seq,
    json, limits,
    record::{
        AmendmentKind, Body, Ext, FormV1, MessageV1, Portable, RecordError, Stored, StoredBody, StoredItem,
    },
    session::Input,
    upgrade::Form,
};
use samples::{CONVERSATION, NOW};

#[track_caller]
fn check_golden(folder: &str, name: &str, extension: &str, bytes: &[u8]) {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(&path).expect("the folder can be made");
        fs::write(path.join(format!("{name}.{extension}")), bytes).expect("the file can be written");
    }
    path.push(format!("{name}.{extension}"));
    let expected = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(
        String::from_utf8_lossy(&expected),
        String::from_utf8_lossy(bytes),
        "{}: the wire has changed",
        path.display()
    );
    assert_eq!(expected, bytes, "{}: the wire has changed", path.display());
}

fn input(form: Form, bytes: &[u8]) -> Input<'_> {
    match form {
        Form::Binary => Input::Binary(bytes),
        Form::Json => Input::Text(str::from_utf8(bytes).expect("JSON is UTF-8")),
    }
}

#[test]
fn commands_are_as_they_were_and_come_back() {
    for (name, request) in samples::commands() {
        for (form, extension) in [(Form::Json, "json"), (Form::Binary, "bin")] {
            let mut bytes = Vec::new();
            request.encode(form, &mut bytes);
            check_golden("commands", name, extension, &bytes);
            let back = Request::from_input(&input(form, &bytes)).expect("this is a message");
            assert_eq!(back.as_ref(), Ok(&request), "{name}.{extension}");

            // Over dirty memory: what was there before stays, what is new is the same.
            let mut dirty = vec![0xAA; 100];
            request.encode(form, &mut dirty);
            assert_eq!(dirty[..100], [0xAA; 100]);
            assert_eq!(dirty[100..], bytes);
        }
    }
}

#[test]
fn frames_are_as_they_were_and_come_back() {
    for (name, frame) in samples::frames() {
        for (form, extension) in [(Form::Json, "json"), (Form::Binary, "bin")] {
            let mut bytes = Vec::new();
            frame.encode(form, &mut bytes);
            check_golden("frames", name, extension, &bytes);
            let mut back = Vec::new();
            ServerFrame::from_input(&input(form, &bytes), &mut back).expect("what was written can be read");
            assert_eq!(back, std::slice::from_ref(&frame), "{name}.{extension}");
        }
    }
}

#[test]
fn records_are_as_they_were_and_come_back() {
    for (name, body) in samples::bodies() {
        let record = body.record(CONVERSATION, Seq(43), NOW, 17);
        check_golden("records", name, "bin", &record);
        assert_eq!(record.len() % 16, 0);
        let stored = Stored::parse(&record).expect("what was written can be read");
        assert_eq!(stored.portable.encode(), record[..64]);
        assert_eq!((stored.portable.seq, stored.portable.at), (Seq(43), NOW));
        assert_eq!(stored.portable.message_count, 17);
        assert_eq!(stored.portable.padded_bytes(), record.len());
        match stored.body {
            StoredBody::Amendment(amendment) => assert_eq!(&*amendment.by, b"bob"),
            StoredBody::Folded(form) => assert_eq!(&*form.sender, b"alice"),
            StoredBody::Message(message) => assert_eq!(&*message.sender, b"alice"),
            StoredBody::Membership(membership) => assert_eq!(membership.added.len(), 1),
            StoredBody::Positions(positions) => assert_eq!(&*positions.positions[0].user, b"bob"),
            StoredBody::Settings(settings) => {
                assert_eq!(settings.mutes[0].conversation, CONVERSATION.0);
                let tokens = Ext::new(&settings.ext).push_tokens();
                let is_push = name == "settings_push";
                assert_eq!(tokens, if is_push { samples::push_tokens().to_vec() } else { Vec::new() });
                let since = Ext::new(&settings.ext).invisible_since();
                assert_eq!(since, (name == "settings_invisible").then_some(NOW));
            }
            StoredBody::Sighting(sighting) => assert_eq!(sighting.at.to_native(), NOW.0),
            StoredBody::State(state) => assert_eq!(&*state.creator, b"alice"),
            StoredBody::Taken(taken) => assert_eq!(taken.users[1].to.to_native(), 4_000),
            StoredBody::Unknown => panic!("{name} has a schema of ours"),
        }
        let is_shown = !matches!(
            stored.body,
            StoredBody::Positions(_)
                | StoredBody::Settings(_)
                | StoredBody::Sighting(_)
                | StoredBody::State(_)
                | StoredBody::Taken(_)
        );
        if is_shown {
            check_golden("records", name, "json", &json::render_json(&stored));
        }
    }
}

/// What a JSON client sees of a record is what a binary client sees of it.
#[test]
fn both_forms_of_a_record_say_the_same() {
    for (name, body) in samples::bodies() {
        let record = body.record(CONVERSATION, Seq(43), NOW, 17);
        let stored = Stored::parse(&record).expect("what was written can be read");
        let mut pages = [Vec::new(), Vec::new()];
        for (form, seen) in [Form::Json, Form::Binary].into_iter().zip(&mut pages) {
            let mut bytes = Vec::new();
            stored.encode(form, &mut bytes);
            ServerFrame::from_input(&input(form, &bytes), seen).expect("a record can be read");
            let gap = samples::gap();
            let items = [StoredItem::Gap(&gap), StoredItem::Record(stored)];
            let mut bytes = Vec::new();
            ServerFrame::encode_page(form, protocol::ids::RequestId(3), &items, true, &mut bytes);
            ServerFrame::from_input(&input(form, &bytes), seen).expect("a page can be read");
        }
        assert_eq!(pages[0], pages[1], "{name}");
        assert_eq!(pages[0].len(), 2);
    }
}

#[test]
fn several_records_stand_in_one_binary_message() {
    let mut bytes = Vec::new();
    let frames: Vec<_> = samples::frames()
        .into_iter()
        .map(|(_, frame)| frame)
        .filter(|frame| {
            matches!(frame, ServerFrame::Amended(_) | ServerFrame::Message(_) | ServerFrame::Member(_))
        })
        .collect();
    frames.iter().for_each(|frame| frame.encode(Form::Binary, &mut bytes));
    let mut back = Vec::new();
    binary::decode_frames(&bytes, &mut back).expect("what was written can be read");
    assert_eq!(back, frames);
}

/// Every truncation of every encoding is refused, none panics, and none passes for something else.
#[test]
fn truncations_are_refused() {
    for (name, request) in samples::commands() {
        for form in [Form::Json, Form::Binary] {
            let mut bytes = Vec::new();
            request.encode(form, &mut bytes);
            for end in 0..bytes.len() {
                let Ok(text) = str::from_utf8(&bytes[..end]) else { continue };
                let result = match form {
                    Form::Json => json::decode_request(text),
                    Form::Binary => binary::decode_request(&bytes[..end]),
                };
                assert!(result.is_err(), "{name} cut at {end}");
            }
        }
    }
    for (name, frame) in samples::frames() {
        let mut bytes = Vec::new();
        frame.encode(Form::Binary, &mut bytes);
        for end in 0..bytes.len() {
            let mut frames = Vec::new();
            let result = binary::decode_frames(&bytes[..end], &mut frames);
            // Only the padding of a record may be missing.
            assert!(result.is_err() || frames == [frame.clone()], "{name} cut at {end}");
        }
    }
    for (name, body) in samples::bodies() {
        let record = body.record(CONVERSATION, Seq(43), NOW, 17);
        let whole = 64 + Portable::parse(&record).expect("whole").payload_bytes as usize;
        for end in 0..whole {
            let error = Stored::parse(&record[..end]).err();
            assert_eq!(error, Some(RecordError::Short), "{name} cut at {end}");
        }
    }
}

/// No flipped bit of a record goes unseen.
#[test]
fn flipped_bits_are_seen() {
    let (_, body) = samples::bodies().swap_remove(0);
    let record = body.record(CONVERSATION, Seq(43), NOW, 17);
    let whole = 64 + Portable::parse(&record).expect("whole").payload_bytes as usize;
    for bit in 0..whole * 8 {
        let mut flipped = record.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Stored::parse(&flipped).is_err(), "bit {bit}");
    }
}

#[test]
fn a_payload_does_not_fit_another_header() {
    let (_, body) = samples::bodies().swap_remove(0);
    let payload = body.payload();
    let record = body.record(CONVERSATION, Seq(43), NOW, 17);
    let other = Portable { seq: Seq(44), ..Portable::parse(&record).expect("whole") };
    assert_eq!(other.check_payload(&payload), Err(RecordError::Damaged));
}

/// The message that grows most on its way to JSON still fits what a client takes.
#[test]
fn the_largest_event_fits() {
    let mut send = samples::send_full();
    send.text = "\0".repeat(limits::TEXT_BYTES_MAX);
    send.media = Some("\"".repeat(limits::MEDIA_BYTES_MAX));
    send.mentions = vec![samples::user(&"\\".repeat(limits::ID_BYTES_MAX)); limits::MENTIONS_MAX];
    let sender = samples::user(&"\"".repeat(limits::ID_BYTES_MAX));
    let record = Body::Message(MessageV1::from_send(&send, &sender, samples::message_id())).record(
        CONVERSATION,
        Seq(u64::MAX),
        NOW,
        u64::MAX,
    );
    let stored = Stored::parse(&record).expect("what was written can be read");
    let StoredBody::Message(message) = stored.body else { panic!("this is a message") };
    let event = json::render_json(&stored).len();
    assert!((limits::FRAME_BYTES_MAX..=limits::EVENT_BYTES_MAX).contains(&event), "{event}");
    assert!(record.len() <= limits::FRAME_BYTES_MAX);

    // With as many reactions as there may be, each with an emoji of its own.
    let form = FormV1::of_message(message, NOW).edited(&send.text, NOW);
    let form = (0..limits::REACTIONS_MAX).fold(form, |form, number| {
        let emoji = format!("{number:\"<width$}", width = limits::EMOJI_BYTES_MAX);
        form.with_reaction(&sender, &emoji, true).expect("no more than there may be")
    });
    for target in [41, 43] {
        let amendment = samples::amendment(AmendmentKind::Edit, target, form.clone());
        let record = Body::Amendment(amendment).record(CONVERSATION, Seq(43), NOW, u64::MAX);
        let stored = Stored::parse(&record).expect("what was written can be read");
        let event = json::render_json(&stored).len();
        assert!((limits::EVENT_BYTES_MAX / 2..=limits::EVENT_BYTES_MAX).contains(&event), "{event}");
        assert!(stored.portable.payload_bytes as usize <= limits::RECORD_PAYLOAD_BYTES_MAX);
    }
}

/// Stored beside messages for ever, so never changed.
#[test]
fn content_hashes_are_as_they_were() {
    let hashes: Vec<_> = samples::commands()
        .iter()
        .filter(|(_, request)| request.command.content_hash() != 0)
        .map(|(name, request)| format!("{name} {:016x}\n", request.command.content_hash()))
        .collect();
    check_golden("commands", "content_hashes", "txt", hashes.concat().as_bytes());
}
