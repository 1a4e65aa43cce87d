//! What was delivered: what a device has acknowledged, told to who looks, once it is on disk, and never back.

#![forbid(unsafe_code)]

mod support;

use protocol::command::{Command, Connect, Create, HistoryPolicy, Request};
use protocol::event::{Reached, ServerFrame};
use protocol::ids::{ConversationId, DeviceId, MessageId, Seq, UserId};
use protocol::limits::HEARTBEAT_MILLIS;
use router::mail::SessionId;
use router::places::direct_conversation;

use support::{Chat, NOW, answer, id_of, send, user};

/// How long positions are gathered, in milliseconds.
const GATHERED: u64 = 1_000;

/// The same where nobody looks.
const GATHERED_UNSEEN: u64 = HEARTBEAT_MILLIS;

/// Alice and bob are here, and she looks.
fn looking() -> (Chat, SessionId, SessionId, ConversationId) {
    looking_in(Chat::new())
}

fn looking_in(mut chat: Chat) -> (Chat, SessionId, SessionId, ConversationId) {
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    let (bob, _) = chat.connect("bob", None);
    let conversation = direct_conversation(&user("alice"), &user("bob"));
    say(&mut chat, alice, 1);
    chat.command(alice, Command::View { conversation });
    (chat, alice, bob, conversation)
}

fn say(chat: &mut Chat, session: SessionId, number: u8) {
    answer(&chat.command(session, send("bob", "hello", id_of(NOW.0, number)))).expect("stored");
}

/// The cursor that a session has by now.
fn cursor(chat: &mut Chat, session: SessionId) -> String {
    let frames = chat.command(session, Command::Ping { cursor: None });
    let cursor = frames.into_iter().find_map(|frame| match frame {
        ServerFrame::Pong { cursor, .. } => cursor,
        _ => None,
    });
    cursor.expect("a pong")
}

fn ack(chat: &mut Chat, session: SessionId, cursor: String) {
    let ack = Request { id: None, command: Command::Ack { cursor } };
    chat.users.handle_command(session, ack, chat.clock).expect("no command under way");
}

/// What comes of what was acknowledged, once it has been gathered.
fn told(chat: &mut Chat, session: SessionId) -> Vec<(UserId, Reached)> {
    let mut frames = chat.exchange(session);
    chat.wait(GATHERED);
    frames.extend(chat.exchange(session));
    let receipts = frames.into_iter().filter_map(|frame| match frame {
        ServerFrame::Receipt { user, reached, .. } => Some((user, reached)),
        _ => None,
    });
    receipts.collect()
}

fn reached(name: &str, read: u64, delivered: u64) -> (UserId, Reached) {
    (user(name), Reached { read: Seq(read), delivered: Seq(delivered) })
}

#[test]
fn what_a_device_acknowledges_is_delivered_and_no_more_than_that() {
    let (mut chat, alice, bob, conversation) = looking();
    say(&mut chat, alice, 2);
    let two = cursor(&mut chat, bob);
    say(&mut chat, alice, 3);
    ack(&mut chat, bob, two.clone());
    assert_eq!(told(&mut chat, alice), [reached("bob", 0, 2)], "one record says both");
    // The same again, or something before, is no news and no record.
    let before = chat.log.durable().position();
    ack(&mut chat, bob, two.clone());
    assert_eq!(told(&mut chat, alice), []);
    assert_eq!(chat.log.durable().position(), before);
    chat.request(bob, Command::Read { conversation, seq: Seq(1) });
    assert_eq!(told(&mut chat, alice), [reached("bob", 1, 2)]);
    let three = cursor(&mut chat, bob);
    chat.request(bob, Command::Ping { cursor: Some(three) });
    assert_eq!(told(&mut chat, alice), [reached("bob", 1, 3)]);
    ack(&mut chat, bob, two);
    assert_eq!(told(&mut chat, alice), [], "never back");
    // Who has read it has it, whatever was acknowledged.
    say(&mut chat, alice, 4);
    chat.request(bob, Command::Read { conversation, seq: Seq(4) });
    assert_eq!(told(&mut chat, alice), [reached("bob", 4, 4)]);
}

#[test]
fn it_is_known_after_a_start_and_whoever_looks_later_is_told() {
    let (mut chat, alice, bob, conversation) = looking();
    chat.command(alice, Command::Unview { conversation });
    say(&mut chat, alice, 2);
    let two = cursor(&mut chat, bob);
    ack(&mut chat, bob, two);
    assert_eq!(told(&mut chat, alice), [], "she does not look");
    chat.wait(GATHERED_UNSEEN);
    chat.exchange(bob);
    chat.forget();
    chat.users.disconnect(bob);
    let frames = chat.command(alice, Command::View { conversation });
    let receipts = frames.into_iter().find_map(|frame| match frame {
        ServerFrame::Viewed { receipts, .. } => Some(receipts),
        _ => None,
    });
    assert_eq!(receipts, Some(vec![reached("alice", 2, 2), reached("bob", 0, 2)]));
}

#[test]
fn a_device_that_comes_back_acknowledges_what_it_was_given_since() {
    let (mut chat, alice, bob, _) = looking();
    let one = cursor(&mut chat, bob);
    chat.users.disconnect(bob);
    say(&mut chat, alice, 2);
    say(&mut chat, alice, 3);
    // Another's cursor says nothing of bob.
    let hers = cursor(&mut chat, alice);
    let (bob, frames) = chat.connect("bob", Some(one));
    let caught_up = frames.into_iter().find_map(|frame| match frame {
        ServerFrame::CaughtUp { cursor, .. } => Some(cursor),
        _ => None,
    });
    ack(&mut chat, bob, hers);
    assert_eq!(told(&mut chat, alice).iter().filter(|(who, _)| *who == user("bob")).count(), 0);
    ack(&mut chat, bob, caught_up.expect("caught up"));
    assert_eq!(told(&mut chat, alice), [reached("bob", 0, 3)]);
}

#[test]
fn what_was_delivered_lately_is_known_without_reading_it_again() {
    let mut chat = Chat::with_tail(1);
    chat.disk_reads = true;
    let (mut chat, alice, bob, conversation) = looking_in(chat);
    let one = cursor(&mut chat, bob);
    ack(&mut chat, bob, one);
    assert_eq!(told(&mut chat, alice), [reached("bob", 0, 1)]);
    let before = chat.reads.len();
    say(&mut chat, alice, 2);
    say(&mut chat, alice, 3);
    let three = cursor(&mut chat, bob);
    ack(&mut chat, bob, three);
    assert_eq!(told(&mut chat, alice), [reached("bob", 0, 3)]);
    assert_eq!(chat.reads.len(), before, "a heartbeat reads nothing");
    // What was delivered before a start is read.
    say(&mut chat, alice, 4);
    let four = cursor(&mut chat, bob);
    say(&mut chat, alice, 5);
    chat.forget();
    chat.command(alice, Command::View { conversation });
    let before = chat.reads.len();
    ack(&mut chat, bob, four);
    assert_eq!(told(&mut chat, alice), [reached("bob", 0, 4)]);
    assert!(chat.reads.len() > before);
}

#[test]
fn an_acknowledgement_of_many_conversations_says_it_of_those_that_moved_last() {
    let (mut chat, alice, bob, _) = looking();
    let names: Vec<String> = (0..40).map(|number| format!("friend-{number}")).collect();
    for name in &names {
        let (friend, _) = chat.connect(name, None);
        answer(&chat.command(friend, send("bob", "hello", None))).expect("stored");
    }
    say(&mut chat, alice, 2);
    let all = cursor(&mut chat, bob);
    let before = chat.log.durable().position();
    ack(&mut chat, bob, all);
    assert_eq!(told(&mut chat, alice), [reached("bob", 0, 2)]);
    assert_eq!(chat.log.durable().position(), before + 1, "nobody looks at the others");
    chat.wait(GATHERED_UNSEEN);
    chat.exchange(bob);
    assert_eq!(chat.log.durable().position(), before + 16, "the work of one acknowledgement is bounded");
}

/// A device that lost its connection before it said what it has, and one whose word went with the process, say it by the cursor that they
/// come with.
#[test]
fn who_comes_with_a_cursor_has_been_given_what_stands_before_it() {
    let mut chat = Chat::with_tail(1);
    chat.disk_reads = true;
    let (mut chat, alice, bob, conversation) = looking_in(chat);
    chat.command(alice, Command::Unview { conversation });
    say(&mut chat, alice, 2);
    let two = cursor(&mut chat, bob);
    chat.users.disconnect(bob);
    let (bob, _) = chat.connect("bob", Some(two));
    chat.command(alice, Command::View { conversation });
    assert_eq!(told(&mut chat, alice), [reached("bob", 0, 2)]);

    chat.command(alice, Command::Unview { conversation });
    say(&mut chat, alice, 3);
    let three = cursor(&mut chat, bob);
    ack(&mut chat, bob, three.clone());
    assert_eq!(told(&mut chat, bob), [], "it was taken, and is not on disk");
    chat.restart();
    chat.remember();
    let (alice, _) = chat.connect("alice", None);
    chat.connect("bob", Some(three));
    chat.command(alice, Command::View { conversation });
    assert_eq!(told(&mut chat, alice), [reached("bob", 0, 3)]);
}

/// Two devices of a user come at once: nobody was given what stands between what the two were.
#[test]
fn what_two_devices_were_given_is_not_put_together_over_what_neither_was() {
    let (mut chat, alice, phone, conversation) = looking();
    (2..12).for_each(|number| say(&mut chat, alice, number));
    let early = cursor(&mut chat, phone);
    chat.users.disconnect(phone);
    (12..42).for_each(|number| say(&mut chat, alice, number));
    let begin = |device: &str, cursor| {
        let device = DeviceId::new(device).expect("a name");
        Connect { token: None, device, cursor: Some(cursor), positions: None }
    };
    let (tablet, _) = chat.connect("bob", None);
    let (carol, _) = chat.connect("carol", None);
    for _ in 0..10 {
        answer(&chat.command(carol, send("bob", "hello", None))).expect("stored");
    }
    let late = cursor(&mut chat, tablet);
    chat.users.disconnect(tablet);
    chat.begin_with("bob", begin("phone", early));
    chat.begin_with("bob", begin("tablet", late));
    let told = told(&mut chat, alice);
    assert_eq!(told, [reached("bob", 0, 11)], "of {conversation}");
}

/// Its cursor stands behind what it was never given.
#[test]
fn a_device_that_began_at_the_head_has_been_given_nothing_of_what_stood_before() {
    let (mut chat, alice, bob, conversation) = looking();
    chat.users.disconnect(bob);
    (2..12).for_each(|number| say(&mut chat, alice, number));
    let (tablet, _) = chat.connect("bob", None);
    let newest = cursor(&mut chat, tablet);
    chat.users.disconnect(tablet);
    let (tablet, _) = chat.connect("bob", Some(newest));
    assert_eq!(told(&mut chat, alice), [], "nothing of {conversation} was given to it");
    // What it was given since then it says, in parts as small as a cursor's.
    (12..22).for_each(|number| say(&mut chat, alice, number));
    let newest = cursor(&mut chat, tablet);
    chat.users.disconnect(tablet);
    chat.connect("bob", Some(newest));
    assert_eq!(told(&mut chat, alice), [reached("bob", 0, 21)]);
}

/// A device of bob that comes with positions and acknowledges all that it is sent then.
fn comes_knowing(chat: &mut Chat, positions: Vec<(ConversationId, Seq)>) {
    let device = DeviceId::new("tablet").expect("a name");
    let connect = Connect { token: None, device, cursor: None, positions: Some(positions) };
    let tablet = chat.begin_with("bob", connect);
    let frames = chat.exchange(tablet);
    let caught_up = frames.into_iter().find_map(|frame| match frame {
        ServerFrame::CaughtUp { cursor, .. } => Some(cursor),
        _ => None,
    });
    ack(chat, tablet, caught_up.expect("all there is"));
}

/// What it acknowledged was no news: it stood at its place from the beginning.
#[test]
fn a_device_that_comes_with_positions_acknowledges_what_it_is_fed() {
    let (mut chat, alice, bob, conversation) = looking();
    chat.users.disconnect(bob);
    (2..12).for_each(|number| say(&mut chat, alice, number));
    comes_knowing(&mut chat, vec![(conversation, Seq(1))]);
    assert_eq!(told(&mut chat, alice), [reached("bob", 0, 11)]);
}

#[test]
fn a_device_that_is_only_told_a_head_acknowledges_nothing_before_it() {
    let (mut chat, alice, bob, conversation) = looking();
    chat.users.disconnect(bob);
    let (carol, _) = chat.connect("carol", None);
    for number in 2..12 {
        say(&mut chat, alice, number);
        say(&mut chat, carol, number);
    }
    let of_carol = direct_conversation(&user("carol"), &user("bob"));
    comes_knowing(&mut chat, vec![(of_carol, Seq(1))]);
    assert_eq!(told(&mut chat, alice), [], "of {conversation} the device has nothing");
}

/// The members of a group say what they have one after the other: that was a record of all of them for nearly each.
#[test]
fn what_nobody_looks_at_is_written_once_for_many_who_say_it() {
    let (mut chat, alice, bob, conversation) = looking();
    chat.command(alice, Command::Unview { conversation });
    let before = chat.log.durable().position();
    for number in 2..8 {
        say(&mut chat, alice, number);
        let newest = cursor(&mut chat, bob);
        ack(&mut chat, bob, newest);
        assert_eq!(told(&mut chat, alice), []);
    }
    assert_eq!(chat.log.durable().position(), before + 6, "the messages");
    chat.wait(GATHERED_UNSEEN);
    chat.exchange(bob);
    assert_eq!(chat.log.durable().position(), before + 7);
    // Once it is written there is nothing to write.
    chat.wait(GATHERED_UNSEEN);
    chat.exchange(bob);
    assert_eq!(chat.log.durable().position(), before + 7);
}

/// A conversation with something to write cannot be forgotten: a quarter of the members that are kept in memory may wait, and 2,525 groups of 99 have as
/// many.
#[test]
fn where_too_many_members_wait_the_oldest_conversation_waits_no_longer() {
    let mut chat = Chat::new();
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    let (bob, _) = chat.connect("bob", None);
    let names = (0..97).map(|number| format!("m{number}")).chain(["bob".to_owned()]);
    let members: Vec<UserId> = names.map(|name| user(&name)).collect();
    let make_and_ack = |chat: &mut Chat, number: u16| {
        let mut random = [1; 10];
        random[8..].copy_from_slice(&number.to_be_bytes());
        let id = MessageId::v7(NOW, random);
        let (title, history) = ("all of us".to_owned(), HistoryPolicy::All);
        let create = Create { title, members: members.clone(), history, message_id: Some(id) };
        answer(&chat.command(alice, Command::Create(create))).expect("stored");
        let newest = cursor(chat, bob);
        ack(chat, bob, newest);
        chat.exchange(bob);
    };
    let before = chat.log.durable().position();
    for number in 0..2_525 {
        make_and_ack(&mut chat, number);
    }
    assert_eq!(chat.log.durable().position(), before + 5_050, "the groups, two records each");
    make_and_ack(&mut chat, 2_525);
    assert_eq!(
        chat.log.durable().position(),
        before + 5_053,
        "one group more, and what bob has of the first"
    );
    chat.wait(GATHERED_UNSEEN);
    chat.exchange(bob);
    assert_eq!(chat.log.durable().position(), before + 7_578, "what he has of the others");
}

#[test]
fn who_begins_to_look_or_reads_does_not_wait_for_what_could_wait() {
    let (mut chat, alice, bob, conversation) = looking();
    chat.command(alice, Command::Unview { conversation });
    say(&mut chat, alice, 2);
    let two = cursor(&mut chat, bob);
    ack(&mut chat, bob, two);
    assert_eq!(told(&mut chat, alice), []);
    chat.command(alice, Command::View { conversation });
    assert_eq!(told(&mut chat, alice), [reached("bob", 0, 2)], "within a second");
    chat.command(alice, Command::Unview { conversation });
    say(&mut chat, alice, 3);
    let three = cursor(&mut chat, bob);
    ack(&mut chat, bob, three);
    assert_eq!(told(&mut chat, alice), []);
    let before = chat.log.durable().position();
    chat.request(bob, Command::Read { conversation, seq: Seq(1) });
    told(&mut chat, alice);
    assert_eq!(chat.log.durable().position(), before + 1, "what was read is on disk within a second");
}
