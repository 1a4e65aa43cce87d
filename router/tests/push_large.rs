//! Whom a message of a large group has not reached: who has acknowledged what it was given or told is not called, and nobody is passed over who was
//! neither.

#![forbid(unsafe_code)]

mod support;

use protocol::command::{Command, Create, HistoryPolicy, HistoryRange, Request, Send, Target};
use protocol::event::ServerFrame;
use protocol::ids::{ConversationId, UserId};
use router::conversation::Unjudged;
use router::mail::SessionId;
use router::places::created_conversation;

use support::{Chat, NOW, answer, id_of, send, user};

/// How long a message waits for its reader, in milliseconds.
const WAIT: u64 = 3_000;

/// Members of a group that is just large.
const MEMBERS: usize = 100;

/// Alice, who has made a large group of bob and many who are never here.
fn group() -> (Chat, SessionId, ConversationId) {
    let mut chat = Chat::new();
    let (alice, group) = group_in(&mut chat);
    (chat, alice, group)
}

fn group_in(chat: &mut Chat) -> (SessionId, ConversationId) {
    chat.side.begin_pushes(Unjudged::nothing());
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    let group = make(chat, alice, TITLE, 50);
    judge(chat);
    (alice, group)
}

const TITLE: &str = "all of us";

fn make(chat: &mut Chat, alice: SessionId, title: &str, number: u8) -> ConversationId {
    let others = (2..MEMBERS).map(|number| user(&format!("m{number}")));
    let members: Vec<UserId> = others.chain([user("bob")]).collect();
    let (title, history, id) = (title.to_owned(), HistoryPolicy::All, id_of(NOW.0, number));
    let create = Create { title, members, history, message_id: id };
    answer(&chat.command(alice, Command::Create(create))).expect("made");
    created_conversation(&user("alice"), id.expect("an id"))
}

fn say_in(chat: &mut Chat, session: SessionId, group: ConversationId) -> u64 {
    let Command::Send(to_bob) = send("bob", "hello", None) else { unreachable!() };
    let target = Target::Conversation(group);
    let seq = answer(&chat.command(session, Command::Send(Send { target, ..to_bob }))).expect("stored");
    judge(chat);
    seq
}

fn judge(chat: &mut Chat) {
    let (micros, now) = (chat.clock.micros, chat.clock.unix);
    chat.side.judge_pushes(micros, now, &mut chat.log);
    while let Some(read) = chat.side.poll_read() {
        chat.answer_read(read);
    }
}

/// Who is called of a group after so many milliseconds.
fn called(chat: &mut Chat, group: ConversationId, millis: u64) -> Vec<String> {
    chat.wait(millis);
    judge(chat);
    let calls = chat.take_calls().into_iter();
    let of_group = calls.filter(|due| due.conversation == group);
    of_group.map(|due| due.user.as_str().to_owned()).collect()
}

/// That all are called who are never here, and bob or not.
#[track_caller]
fn assert_called(chat: &mut Chat, group: ConversationId, millis: u64, bob: bool) {
    let called = called(chat, group, millis);
    let is_called = called.iter().any(|name| name == "bob");
    assert_eq!((is_called, called.len()), (bob, MEMBERS - 2 + usize::from(bob)), "{called:?}");
}

fn cursors(frames: &[ServerFrame]) -> Vec<String> {
    let cursors = frames.iter().filter_map(|frame| match frame {
        ServerFrame::Cursor { cursor } | ServerFrame::CaughtUp { cursor, .. } => Some(cursor.clone()),
        ServerFrame::Pong { cursor, .. } => cursor.clone(),
        _ => None,
    });
    cursors.collect()
}

/// The cursor that a session has by now.
fn cursor(chat: &mut Chat, session: SessionId) -> String {
    cursors(&chat.command(session, Command::Ping { cursor: None })).pop().expect("a pong")
}

fn ack(chat: &mut Chat, session: SessionId, cursor: String) {
    let ack = Request { id: None, command: Command::Ack { cursor } };
    chat.users.handle_command(session, ack, chat.clock).expect("no command under way");
    chat.exchange(session);
}

#[test]
fn who_was_given_it_and_acknowledges_is_not_called_and_who_says_nothing_is() {
    let (mut chat, alice, group) = group();
    let (bob, _) = chat.connect("bob", None);
    let before = cursor(&mut chat, bob);
    say_in(&mut chat, alice, group);
    ack(&mut chat, bob, before);
    assert_called(&mut chat, group, WAIT, true);

    chat.wait(20_000);
    say_in(&mut chat, alice, group);
    let newest = cursor(&mut chat, bob);
    ack(&mut chat, bob, newest);
    // A change of it, as of its members, makes it anew in memory, and its record stands behind the message.
    let (conversation, title) = (group, "some of us".to_owned());
    answer(&chat.command(alice, Command::Title { conversation, title, message_id: None })).expect("changed");
    assert_called(&mut chat, group, WAIT, false);
}

/// What is acknowledged later than it was said by then, and what comes behind it.
#[test]
fn each_message_is_acknowledged_for_itself() {
    let (mut chat, alice, group) = group();
    let (bob, _) = chat.connect("bob", None);
    say_in(&mut chat, alice, group);
    chat.wait(WAIT - 500);
    let first = cursor(&mut chat, bob);
    ack(&mut chat, bob, first);
    say_in(&mut chat, alice, group);
    assert_called(&mut chat, group, 500, false);
    // The others rest; of the second he has said nothing.
    assert_eq!(called(&mut chat, group, WAIT), ["bob"]);
}

/// Its device knows that there is something to read, and has stored that it does.
#[test]
fn who_was_told_the_head_and_acknowledges_is_not_called() {
    let (mut chat, alice, group) = group();
    let (bob, _) = chat.connect("bob", None);
    let before = cursor(&mut chat, bob);
    chat.users.disconnect(bob);
    let seq = say_in(&mut chat, alice, group);
    let (bob, frames) = chat.connect("bob", Some(before));
    let heads = frames.iter().filter_map(|frame| match frame {
        ServerFrame::Heads { conversations, .. } => Some(conversations),
        _ => None,
    });
    assert_eq!(
        heads.flatten().map(|head| (head.conversation, head.head.0)).collect::<Vec<_>>(),
        [(group, seq)]
    );
    let caught_up = cursors(&frames).pop().expect("caught up");
    ack(&mut chat, bob, caught_up);
    assert_called(&mut chat, group, WAIT, false);
}

/// A page of catching up names no group that has moved on behind its end: its cursor is beyond a message of which its reader knows nothing.
#[test]
fn a_cursor_from_the_middle_of_catching_up_proves_nothing_of_it() {
    for dies in [true, false] {
        let (mut chat, alice, group) = group();
        let (bob, _) = chat.connect("bob", None);
        let before = cursor(&mut chat, bob);
        chat.users.disconnect(bob);
        // A page has less than 256 records, and a user may store 200 things at once.
        let talk = |chat: &mut Chat, times: usize| {
            for _ in 0..times {
                chat.wait(10);
                answer(&chat.command(alice, send("bob", "hello", None))).expect("stored");
            }
        };
        talk(&mut chat, 100);
        say_in(&mut chat, alice, group);
        talk(&mut chat, 160);
        say_in(&mut chat, alice, group);
        let (bob, frames) = chat.connect("bob", Some(before));
        let all = cursors(&frames);
        let middle = all.first().expect("one rides with the first page").clone();
        assert_ne!(Some(&middle), all.last());
        ack(&mut chat, bob, if dies { middle } else { all.last().expect("caught up").clone() });
        assert_called(&mut chat, group, WAIT - 160 * 10, dies);
    }
}

/// Its acknowledgement was lost with the process, and the cursor that it comes back with says the same.
#[test]
fn who_comes_back_with_a_cursor_beyond_it_is_not_called_after_a_start() {
    let (mut chat, alice, group) = group();
    let (bob, _) = chat.connect("bob", None);
    // A cursor says by fours how much was given.
    (0..4).for_each(|_| _ = answer(&chat.command(alice, send("bob", "hello", None))).expect("stored"));
    let before = cursor(&mut chat, bob);
    say_in(&mut chat, alice, group);
    let newest = cursor(&mut chat, bob);
    for (cursor, is_called) in [(before, true), (newest, false)] {
        let mut unjudged = Unjudged::behind(Some(0), chat.clock.unix.0);
        chat.read_back(&mut |record| unjudged.observe(record));
        chat.restart();
        chat.side.begin_pushes(unjudged);
        judge(&mut chat);
        chat.connect("bob", Some(cursor));
        assert_called(&mut chat, group, WAIT, is_called);
    }
}

/// Then its head is told to nobody who catches up, and a cursor from behind that says nothing of it.
#[test]
fn of_a_group_whose_state_cannot_be_read_nothing_was_told() {
    let mut chat = Chat::with_tail(1);
    chat.disk_reads = true;
    let (alice, group) = group_in(&mut chat);
    make(&mut chat, alice, "others", 51);
    let (bob, _) = chat.connect("bob", None);
    // A cursor says by fours how much was given.
    (0..4).for_each(|_| _ = answer(&chat.command(alice, send("bob", "hello", None))).expect("stored"));
    let before = cursor(&mut chat, bob);
    chat.users.disconnect(bob);
    say_in(&mut chat, alice, group);
    // The newest batch is in memory whatever the disk does.
    answer(&chat.command(alice, send("carol", "hello", None))).expect("stored");
    let mut unjudged = Unjudged::behind(Some(0), chat.clock.unix.0);
    chat.read_back(&mut |record| unjudged.observe(record));
    chat.restart();
    chat.side.begin_pushes(unjudged);
    let title = TITLE.as_bytes();
    chat.bad_byte = chat.written.windows(title.len()).rposition(|bytes| bytes == title);
    judge(&mut chat);
    let (bob, frames) = chat.connect("bob", Some(before));
    assert!(matches!(frames.last(), Some(ServerFrame::CaughtUp { partial: true, .. })), "{frames:?}");
    let caught_up = cursors(&frames).pop().expect("caught up");
    ack(&mut chat, bob, caught_up.clone());
    chat.users.disconnect(bob);
    // Once it can be read, who stands at the head by then is told nothing of it: so what a later cursor says ends where that one began.
    chat.bad_byte = None;
    let (alice, _) = chat.connect("alice", None);
    let range = HistoryRange::Latest;
    chat.command(alice, Command::History { conversation: group, range, limit: 1 });
    let (bob, frames) = chat.connect("bob", Some(caught_up));
    assert!(matches!(frames.last(), Some(ServerFrame::CaughtUp { partial: false, .. })), "{frames:?}");
    (0..4).for_each(|_| _ = answer(&chat.command(alice, send("bob", "hello", None))).expect("stored"));
    let later = cursor(&mut chat, bob);
    chat.users.disconnect(bob);
    chat.connect("bob", Some(later));
    assert_called(&mut chat, group, WAIT, true);
}
