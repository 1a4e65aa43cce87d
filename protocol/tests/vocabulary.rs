//! Ids, codes and the meaning of binary commands.

#![forbid(unsafe_code)]

mod samples;

use protocol::{
    binary,
    command::{Command, Edit, React, Request},
    event::{CloseCode, ErrorCode},
    ids::{ConversationId, DeviceId, IdError, MessageId, RequestId, Seq, UnixMillis, UserId},
    record::AmendmentKind,
    ws::Violation,
};

#[test]
fn names_are_checked() {
    for (text, expected) in [
        ("", Err(IdError::Missing)),
        ("a", Ok(())),
        ("\u{1f980}", Ok(())),
        ("a b", Ok(())),
        ("a\nb", Err(IdError::Malformed)),
        ("a\u{7f}", Err(IdError::Malformed)),
        ("a\u{9f}", Err(IdError::Malformed)),
        (&"x".repeat(64), Ok(())),
        (&"x".repeat(65), Err(IdError::TooLong)),
        (&"ß".repeat(33), Err(IdError::TooLong)),
    ] {
        assert_eq!(UserId::new(text).map(|user| assert_eq!(user.as_str(), text)), expected, "{text:?}");
        assert_eq!(DeviceId::new(text).map(|device| assert_eq!(device.as_str(), text)), expected);
    }
    // Raw bytes: neither case nor normalisation makes two ids one.
    assert!(samples::user("A") < samples::user("a"));
    assert_ne!(samples::user("\u{e9}"), samples::user("e\u{301}"));
}

#[test]
fn uuids_have_one_text() {
    let text = "01a0c450-6c7b-7102-8304-05060708090a";
    let id: MessageId = text.parse().expect("canonical");
    assert_eq!(id.to_string(), text);
    assert_eq!(id, samples::message_id());
    assert_eq!(text.to_uppercase().parse(), Ok(id));
    let conversation: ConversationId = text.parse().expect("canonical");
    assert_eq!(conversation.to_string(), text);
    for malformed in ["", "x", "01a0c4506c7b710283040506070809", "{01a0c450-6c7b-7102-8304-05060708090a}"] {
        assert_eq!(malformed.parse::<MessageId>(), Err(IdError::Malformed));
    }
}

#[test]
fn version_7_carries_its_time() {
    for millis in [0, 1, 1_790_000_000_123, (1 << 48) - 1] {
        let id = MessageId::v7(UnixMillis(millis), [0xFF; 10]);
        assert!(id.is_v7());
        assert_eq!(id.unix_ms(), UnixMillis(millis));
    }
    let mut id = samples::message_id();
    id.0[6] = 0x41;
    assert!(!id.is_v7());
}

#[test]
fn request_ids_are_positive() {
    let numbers = [0, 1, (1 << 31) - 1, 1 << 31, u64::MAX];
    let seen = numbers.map(|number| RequestId::new(number).is_some());
    assert_eq!(seen, [false, true, true, false, false]);
}

#[test]
fn codes_say_what_to_do() {
    for code in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_code(code.code()), Some(code));
        assert_eq!(code.retryable(), code.code() / 1000 == 3);
    }
    assert!(ErrorCode::ALL.is_sorted_by_key(|code| code.code()));
    assert_eq!(ErrorCode::from_code(1000), None);
    for code in [CloseCode::DRAIN, CloseCode::STALLED, CloseCode::IDLE, CloseCode::OVERLOAD] {
        assert!(code.resumable() && code.is_sendable());
    }
    for code in [
        CloseCode::BAD_TOKEN,
        CloseCode::EXPIRED,
        CloseCode::REVOKED,
        CloseCode::POLICY,
        CloseCode::REPLACED,
        CloseCode::NORMAL,
    ] {
        assert!(!code.resumable() && code.is_sendable());
    }
    assert!(CloseCode::ABNORMAL.resumable() && !CloseCode::ABNORMAL.is_sendable());
    for violation in
        [Violation::InvalidData, Violation::Protocol("x"), Violation::TooBig, Violation::Unsupported]
    {
        assert!(violation.close_code().is_sendable());
    }
}

#[test]
fn amendments_have_numbers() {
    use AmendmentKind::*;
    let seen = [0, 1, 2, 3, 4, 5].map(AmendmentKind::from_number);
    assert_eq!(seen, [None, Some(Edit), Some(Delete), Some(React), Some(Hidden), None]);
    assert_eq!([Edit, Delete, React, Hidden].map(|kind| kind as u8), [1, 2, 3, 4]);
}

/// The binary form refuses by the same rules, with the id where there is one.
#[test]
fn binary_commands_are_judged_alike() {
    #[track_caller]
    fn check(bytes: &[u8], expected: &str) {
        let refusal = binary::decode_request(bytes).expect_err("none of these is a command");
        let id = refusal.id.map_or("-".to_owned(), |id| id.to_string());
        assert_eq!(format!("{id} {} {}", refusal.code.name(), refusal.message), expected);
    }
    let encode = |id, command| {
        let mut bytes = Vec::new();
        binary::encode_request(&Request { id: RequestId::new(id), command }, &mut bytes);
        bytes
    };
    let ping = encode(5, Command::Ping { cursor: None });
    let damaged = |at: usize, byte: u8| {
        let mut bytes = ping.clone();
        bytes[at] = byte;
        bytes
    };
    check(b"", "- bad_frame the header is not one of this version");
    check(&damaged(0, b'X'), "- bad_frame the header is not one of this version");
    check(&damaged(2, 2), "- bad_frame the header is not one of this version");
    check(&damaged(3, 99), "5 unknown_op `op` is not one this server knows");
    check(&damaged(3, 2), "5 bad_token `token` is not valid");
    check(
        &damaged(3, 3),
        "5 bad_frame the payload is not one of this op: section 3 of docs/BINARY.md says how one is laid out",
    );
    check(&damaged(4, 0), "- bad_field `id` is missing");
    check(&damaged(7, 0x80), "- bad_field `id` is out of range");
    check(&damaged(8, 0), "5 bad_frame the header does not fit the frame");
    check(&damaged(12, 1), "5 bad_frame the header does not fit the frame");
    check(
        &damaged(20, 255),
        "5 bad_frame the payload is not one of this op: section 3 of docs/BINARY.md says how one is laid out",
    );
    check(&encode(5, Command::Ack { cursor: "x".to_owned() }), "5 bad_field `id` does not belong to this op");
    check(&encode(0, Command::Ack { cursor: String::new() }), "- bad_field `cursor` is empty");
    let nowhere = Command::ListMembers { conversation: ConversationId([0; 16]) };
    check(&encode(5, nowhere), "5 bad_field `conversation` is missing");
    let send = |change: fn(&mut protocol::command::Send)| {
        let mut send = samples::send_full();
        change(&mut send);
        encode(5, Command::Send(send))
    };
    check(&send(|send| send.media = None), "5 bad_field `media` is missing");
    check(&send(|send| send.text = "x".repeat(16_385)), "5 too_large `text` is too long");
    check(&send(|send| send.reply_to = Some(Seq(u64::MAX))), "5 bad_field `reply_to` is out of range");
    let other = "5 bad_field `message_id` is not a UUID of version 7";
    check(&send(|send| send.message_id = Some(MessageId([1; 16]))), other);
    amendments_are_judged_alike(check, encode);
}

fn amendments_are_judged_alike(check: fn(&[u8], &str), encode: impl Fn(u64, Command) -> Vec<u8>) {
    let (conversation, seq) = (samples::CONVERSATION, Seq(1));
    let delete = |seq| Command::Delete { conversation, seq: Seq(seq), message_id: None };
    check(&encode(5, delete(0)), "5 bad_field `seq` is out of range");
    check(&encode(5, delete(u64::MAX)), "5 bad_field `seq` is out of range");
    let edit = Edit { conversation, seq, text: "x".repeat(16_385), message_id: None };
    check(&encode(5, Command::Edit(edit.clone())), "5 too_large `text` is too long");
    let nowhere = Edit { conversation: ConversationId([0; 16]), text: String::new(), ..edit };
    check(&encode(5, Command::Edit(nowhere)), "5 bad_field `conversation` is missing");
    let react =
        |emoji: &str| React { conversation, seq, emoji: emoji.to_owned(), on: true, message_id: None };
    let react = |emoji: &str| encode(5, Command::React(react(emoji)));
    check(&react(""), "5 bad_field `emoji` is empty");
    check(&react("\u{9f}"), "5 bad_field `emoji` contains a control character");
    check(&react(&"x".repeat(65)), "5 too_large `emoji` is too long");
    // `on` stands before the message id, at the end.
    let mut neither = react("x");
    let on = neither.len() - 17;
    neither[on] = 2;
    check(&neither, "5 bad_field `on` has the wrong type or form");
}
