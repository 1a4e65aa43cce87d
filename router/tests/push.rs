//! Whom a message has not reached, as the owner of its log finds it: who is to be called, when, and who is not.

#![forbid(unsafe_code)]

mod support;

use protocol::command::{Command, Create, HistoryPolicy, Members, Request};
use protocol::event::ServerFrame;
use protocol::ids::{ConversationId, Seq};
use router::mail::SessionId;
use router::places::direct_conversation;

use support::{Chat, answer, send, user};

/// How long a message waits for its reader, and one who was called for the next call, in milliseconds.
const WAIT: u64 = 3_000;
const REST: u64 = 10_000;

/// Alice, who has said something to bob.
fn said() -> (Chat, SessionId, ConversationId) {
    let mut chat = Chat::new();
    chat.side.begin_pushes();
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    say(&mut chat, alice);
    judge(&mut chat);
    (chat, alice, direct_conversation(&user("alice"), &user("bob")))
}

fn say(chat: &mut Chat, session: SessionId) {
    answer(&chat.command(session, send("bob", "hello", None))).expect("stored");
}

fn judge(chat: &mut Chat) {
    let (micros, now) = (chat.clock.micros, chat.clock.unix);
    chat.side.judge_pushes(micros, now, &mut chat.log);
    while let Some(read) = chat.side.poll_read() {
        chat.answer_read(read);
    }
}

/// Who is called after so many milliseconds: who, up to which message, how many.
fn called(chat: &mut Chat, millis: u64) -> Vec<(String, u64, u64)> {
    chat.wait(millis);
    judge(chat);
    let calls = std::iter::from_fn(|| chat.side.poll_push());
    calls.map(|due| (due.user.as_str().to_owned(), due.seq.0, due.count)).collect()
}

fn bob(seq: u64, count: u64) -> Vec<(String, u64, u64)> {
    vec![("bob".to_owned(), seq, count)]
}

#[test]
fn who_has_nothing_is_called_after_three_seconds_and_the_sender_is_not() {
    let (mut chat, ..) = said();
    assert_eq!(called(&mut chat, WAIT - 1), []);
    assert_eq!(called(&mut chat, 1), bob(1, 1));
    assert_eq!(called(&mut chat, REST * 3), [], "once for a message");
}

/// A session is no reader: its radio may be dead.
#[test]
fn who_is_connected_and_says_nothing_is_called_and_who_acknowledges_or_reads_is_not() {
    let (mut chat, alice, conversation) = said();
    let (session, _) = chat.connect("bob", None);
    assert_eq!(called(&mut chat, WAIT), bob(1, 1));
    chat.wait(REST);

    say(&mut chat, alice);
    judge(&mut chat);
    let frames = [chat.exchange(session), chat.command(session, Command::Ping { cursor: None })].concat();
    let cursor = frames.into_iter().find_map(|frame| match frame {
        ServerFrame::Pong { cursor, .. } => cursor,
        _ => None,
    });
    let ack = Request { id: None, command: Command::Ack { cursor: cursor.expect("a pong") } };
    chat.users.handle_command(session, ack, chat.clock).expect("no command under way");
    chat.exchange(session);
    assert_eq!(called(&mut chat, WAIT), [], "a device has it");

    say(&mut chat, alice);
    judge(&mut chat);
    chat.command(session, Command::Read { conversation, seq: Seq(3) });
    assert_eq!(called(&mut chat, WAIT), [], "it was read");
}

#[test]
fn what_comes_within_ten_seconds_of_a_call_waits_for_their_end_and_is_one_call() {
    let (mut chat, alice, conversation) = said();
    assert_eq!(called(&mut chat, WAIT), bob(1, 1));
    for seq in 2..=4 {
        say(&mut chat, alice);
        judge(&mut chat);
        assert_eq!(called(&mut chat, 1_000), [], "{seq}");
    }
    assert_eq!(called(&mut chat, REST - 3_001), [], "within 10 s");
    assert_eq!(called(&mut chat, 1), bob(4, 4));
    // What waits for the end of them and is read before it is no call.
    say(&mut chat, alice);
    judge(&mut chat);
    assert_eq!(called(&mut chat, WAIT), []);
    let (session, _) = chat.connect("bob", None);
    chat.command(session, Command::Read { conversation, seq: Seq(5) });
    assert_eq!(called(&mut chat, REST), []);
}

/// Judged with what was 3 s old, the newer message waits its own 3 s.
#[test]
fn a_message_that_comes_while_another_waits_is_given_its_own_time() {
    let (mut chat, alice, conversation) = said();
    assert_eq!(called(&mut chat, WAIT - 500), []);
    let (session, _) = chat.connect("bob", None);
    chat.command(session, Command::Read { conversation, seq: Seq(1) });
    say(&mut chat, alice);
    judge(&mut chat);
    assert_eq!(called(&mut chat, 500), [], "the first was read, the second has just come");
    assert_eq!(called(&mut chat, WAIT), bob(2, 1));
}

#[test]
fn in_a_group_those_are_called_who_may_see_it_and_have_not_said_it() {
    let mut chat = Chat::new();
    chat.side.begin_pushes();
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    let create = Create {
        title: "Chess".to_owned(),
        members: vec![user("bob"), user("carol")],
        history: HistoryPolicy::Joined,
        message_id: None,
    };
    let made = chat.command(alice, Command::Create(create));
    let group = made.iter().find_map(|frame| match frame {
        ServerFrame::Ok(ok) => ok.conversation,
        _ => None,
    });
    let conversation = group.expect("made");
    judge(&mut chat);
    assert_eq!(called(&mut chat, WAIT), [], "a change of members calls nobody");
    let Command::Send(to_bob) = send("bob", "hello", None) else { unreachable!() };
    let target = protocol::command::Target::Conversation(conversation);
    answer(&chat.command(alice, Command::Send(protocol::command::Send { target, ..to_bob })))
        .expect("stored");
    judge(&mut chat);
    let members = Members {
        conversation,
        add: vec![user("dave")],
        remove: vec![user("carol")],
        roles: Vec::new(),
        message_id: None,
    };
    chat.command(alice, Command::Members(members));
    assert_eq!(called(&mut chat, WAIT), bob(2, 1), "carol has left, and dave may not see it");
}

#[test]
fn who_blocks_the_other_is_not_called() {
    let (mut chat, ..) = said();
    let (session, _) = chat.connect("bob", None);
    chat.command(session, Command::Block { user: user("alice"), on: true, message_id: None });
    assert_eq!(called(&mut chat, WAIT), []);
}

/// What the calls come to has a bound: conversations stay due meanwhile, and nobody is forgotten.
#[test]
fn while_nobody_takes_the_calls_the_others_stay_due() {
    let mut chat = Chat::new();
    chat.side.begin_pushes();
    chat.wait(0);
    let (mut taken, all) = (0, 1_100);
    for number in 0..all {
        let (alice, _) = chat.connect(&format!("alice-{number}"), None);
        say(&mut chat, alice);
        chat.users.disconnect(alice);
    }
    judge(&mut chat);
    chat.wait(WAIT);
    judge(&mut chat);
    while chat.side.poll_push().is_some() {
        taken += 1;
    }
    assert_eq!(taken, 1_024);
    assert_eq!(called(&mut chat, 0).len(), all - taken);
    assert_eq!(called(&mut chat, REST * 2), []);
}

/// A node that has nobody to call with keeps nothing.
#[test]
fn without_being_asked_for_nobody_is_called() {
    let mut chat = Chat::new();
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    say(&mut chat, alice);
    judge(&mut chat);
    assert_eq!(called(&mut chat, WAIT), []);
    chat.side.begin_pushes();
    assert_eq!(called(&mut chat, WAIT), [], "from then on, not from the beginning");
    say(&mut chat, alice);
    judge(&mut chat);
    assert_eq!(called(&mut chat, WAIT), bob(2, 2));
}

/// Memory holds nothing of it when it is due: it is read.
#[test]
fn positions_that_are_not_in_memory_are_read() {
    let (mut chat, alice, conversation) = said();
    let (session, _) = chat.connect("bob", None);
    chat.command(session, Command::Read { conversation, seq: Seq(1) });
    chat.wait(1_000);
    chat.exchange(session);
    chat.forget();
    chat.side.begin_pushes();
    say(&mut chat, alice);
    judge(&mut chat);
    assert_eq!(called(&mut chat, WAIT), bob(2, 1), "the first was read");
}
