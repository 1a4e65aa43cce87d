//! Commands whose ids are older than memory reaches: whether they were stored before is looked up in the log.

#![forbid(unsafe_code)]

mod support;

use protocol::event::{ErrorCode, ServerFrame};
use protocol::ids::MessageId;
use router::mail::SessionId;
use support::{Chat, NOW, answer, id_of, send};

const HOUR: u64 = 3_600_000;

/// Alice and bob have said two hundred things, an hour ago; memory knows of none of them.
fn an_hour_later() -> (Chat, SessionId, SessionId) {
    let mut chat = Chat::with_tail(1);
    chat.disk_reads = true;
    let [alice, bob] = ["alice", "bob"].map(|name| chat.connect(name, None).0);
    for number in 1..=199 {
        answer(&chat.command(bob, send("alice", "earlier", id_of(NOW.0, number)))).expect("stored");
    }
    chat.wait(HOUR);
    assert_eq!(answer(&chat.command(bob, send("alice", "now", new_id(200)))), Ok(200));
    (chat, alice, bob)
}

fn old_id(number: u8) -> Option<MessageId> {
    id_of(NOW.0, number)
}

fn new_id(number: u8) -> Option<MessageId> {
    id_of(NOW.0 + HOUR, number)
}

/// What each storing command came to, in the order in which they were answered.
fn answers(frames: &[ServerFrame]) -> Vec<Result<u64, ErrorCode>> {
    let is_answer = |frame: &&ServerFrame| matches!(frame, ServerFrame::Ok(_) | ServerFrame::Error(_));
    frames.iter().filter(is_answer).map(|frame| answer(std::slice::from_ref(frame))).collect()
}

/// All that there is to do but to read the disk.
fn go_on_without_the_disk(chat: &mut Chat) {
    while chat.carry_mail() | chat.write() | chat.carry_replies() {}
}

/// Of a busy group thousands of records are gone through for each command that a phone has kept while it was off, and whoever spoke there
/// meanwhile waited for all of that.
#[test]
fn who_comes_back_with_old_commands_holds_up_nobody_else_and_has_them_in_order() {
    let (mut chat, alice, bob) = an_hour_later();
    for (text, id) in [("first", old_id(1)), ("second", old_id(2)), ("third", new_id(3))] {
        chat.request(alice, send("bob", text, id));
    }
    go_on_without_the_disk(&mut chat);
    chat.request(alice, send("bob", "fourth", new_id(4)));
    chat.request(bob, send("alice", "meanwhile", new_id(5)));
    go_on_without_the_disk(&mut chat);
    assert_eq!(answers(&chat.take(bob)), [Ok(201)]);
    assert_eq!(answers(&chat.take(alice)), []);
    assert_eq!(answers(&chat.exchange(alice)), [Ok(202), Ok(203), Ok(204), Ok(205)]);
}

/// The same where all of it waits for the state of the conversation first.
#[test]
fn what_came_with_an_old_command_before_the_conversation_was_read_waits_behind_it_too() {
    let (mut chat, alice, bob) = an_hour_later();
    chat.remember();
    for (text, id) in [("first", old_id(1)), ("second", new_id(2)), ("third", old_id(3))] {
        chat.request(alice, send("bob", text, id));
    }
    chat.request(bob, send("alice", "meanwhile", new_id(4)));
    let bobs = loop {
        go_on_without_the_disk(&mut chat);
        let bobs = answers(&chat.take(bob));
        if !bobs.is_empty() {
            break bobs;
        }
        let read = chat.side.poll_read().expect("bob waits for something");
        chat.answer_read(read);
    };
    assert_eq!((bobs, answers(&chat.take(alice))), (vec![Ok(201)], vec![]));
    assert_eq!(answers(&chat.exchange(alice)), [Ok(202), Ok(203), Ok(204)]);
}

#[test]
fn an_old_command_that_comes_twice_at_once_is_stored_once() {
    let (mut chat, alice, _) = an_hour_later();
    for text in ["once", "once", "other"] {
        chat.request(alice, send("bob", text, old_id(1)));
    }
    // What is refused is refused at once, and what is stored is answered when it is durable.
    assert_eq!(answers(&chat.exchange(alice)), [Err(ErrorCode::Conflict), Ok(201), Ok(201)]);
}

/// It may have been stored, so it is not stored; what came behind it is another matter.
#[test]
fn who_cannot_be_told_about_an_old_command_goes_on_with_the_next() {
    let (mut chat, alice, _) = an_hour_later();
    chat.disk_reads = false;
    chat.request(alice, send("bob", "perhaps again", old_id(1)));
    chat.request(alice, send("bob", "new", new_id(2)));
    assert_eq!(answers(&chat.exchange(alice)), [Err(ErrorCode::Unavailable), Ok(201)]);
    chat.disk_reads = true;
    assert_eq!(answer(&chat.command(alice, send("bob", "perhaps again", old_id(1)))), Ok(202));
}
