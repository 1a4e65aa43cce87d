//! What was delivered: what a device has acknowledged, told to who looks, once it is on disk, and never back.

#![forbid(unsafe_code)]

mod support;

use protocol::command::{Command, Connect, Create, HistoryPolicy, Members, Request};
use protocol::event::{Reached, ServerFrame};
use protocol::ids::{ConversationId, DeviceId, MessageId, Seq, UserId};
use protocol::record::StreamKind;
use router::conversation::Pace;
use router::mail::SessionId;
use router::places::{created_conversation, direct_conversation};

use storage_log::Geometry;
use storage_log::format::BLOCK_BYTES_MIN;
use support::{Chat, NOW, answer, id_of, send, user};

/// How long positions are gathered, in milliseconds.
const GATHERED: u64 = 1_000;

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

/// Records of positions that were written.
fn written(chat: &Chat) -> usize {
    let mut count = 0;
    chat.read_back(&mut |record| count += usize::from(record.stream().kind.0 == StreamKind::Positions as u8));
    count
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
    let before = written(&chat);
    ack(&mut chat, bob, two.clone());
    assert_eq!(told(&mut chat, alice), []);
    assert_eq!(written(&chat), before);
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
    chat.users.disconnect(bob);
    chat.command(alice, Command::View { conversation });
    assert_eq!(told(&mut chat, alice), [reached("bob", 0, 2)], "she does, within a second");
    chat.forget();
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
    let before = chat.reads.len();
    chat.command(alice, Command::View { conversation });
    ack(&mut chat, bob, four);
    assert_eq!(told(&mut chat, alice), [reached("bob", 0, 4)]);
    assert!(chat.reads.len() > before);
}

/// It was found out of each conversation, and written: for as many as there were deliveries, and nobody looked.
#[test]
fn an_acknowledgement_costs_nothing_where_nobody_looks() {
    let (mut chat, alice, bob, _) = looking();
    let names: Vec<String> = (0..40).map(|number| format!("friend-{number}")).collect();
    let mut friends = Vec::new();
    for name in &names {
        let (friend, _) = chat.connect(name, None);
        answer(&chat.command(friend, send("bob", "hello", None))).expect("stored");
        friends.push(friend);
    }
    say(&mut chat, alice, 2);
    let all = cursor(&mut chat, bob);
    let before = written(&chat);
    ack(&mut chat, bob, all);
    assert_eq!(told(&mut chat, alice), [reached("bob", 0, 2)]);
    assert_eq!(written(&chat), before + 1);
    // Whoever looks later learns it.
    for (name, friend) in names.iter().zip(friends) {
        let conversation = direct_conversation(&user(name), &user("bob"));
        chat.command(friend, Command::View { conversation });
        assert_eq!(told(&mut chat, friend), [reached("bob", 0, 1)], "{name}");
    }
    assert_eq!(written(&chat), before + 41);
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

/// What nobody has looked at is known after a stop, and after a crash as it was some minutes before.
#[test]
fn what_was_acknowledged_while_nobody_looked_is_known_after_a_start() {
    for pace in [Pace::AtOnce, Pace::Leaving, Pace::Usual] {
        let (mut chat, alice, bob, conversation) = looking();
        chat.command(alice, Command::Unview { conversation });
        say(&mut chat, alice, 2);
        let two = cursor(&mut chat, bob);
        ack(&mut chat, bob, two);
        let before = chat.log.durable().position();
        assert_eq!(told(&mut chat, alice), []);
        chat.pace = pace;
        // Each of the parts has its turn within ten minutes, whatever stands in it.
        let seconds = if pace == Pace::Usual { 600 } else { 2 };
        for _ in 0..seconds {
            chat.wait(1_000);
            chat.exchange(alice);
        }
        assert!(chat.log.durable().position() > before, "{pace:?}");
        chat.pace = Pace::Usual;
        chat.restart();
        let (alice, _) = chat.connect("alice", None);
        chat.command(alice, Command::View { conversation });
        assert_eq!(told(&mut chat, alice), [reached("bob", 0, 2)], "{pace:?}");
        // What is acknowledged in this run goes on from that, and neither is lost.
        chat.command(alice, Command::Unview { conversation });
        let (bob, _) = chat.connect("bob", None);
        say(&mut chat, alice, 3);
        let three = cursor(&mut chat, bob);
        ack(&mut chat, bob, three);
        chat.pace = Pace::AtOnce;
        assert_eq!(told(&mut chat, alice), []);
        chat.pace = Pace::Usual;
        chat.restart();
        let (alice, _) = chat.connect("alice", None);
        chat.command(alice, Command::View { conversation });
        assert_eq!(told(&mut chat, alice), [reached("bob", 0, 3)], "{pace:?}");
    }
}

/// Who has been away is behind by more than was said lately: how far, is read.
#[test]
fn a_member_who_is_behind_has_what_it_acknowledged_and_no_more() {
    let mut chat = Chat::with_tail(1);
    chat.disk_reads = true;
    let (mut chat, alice, bob, conversation) = looking_in(chat);
    chat.command(alice, Command::Unview { conversation });
    (2..6).for_each(|number| say(&mut chat, alice, number));
    let five = cursor(&mut chat, bob);
    ack(&mut chat, bob, five);
    chat.exchange(bob);
    chat.users.disconnect(bob);
    (6..46).for_each(|number| say(&mut chat, alice, number));
    chat.command(alice, Command::View { conversation });
    assert_eq!(told(&mut chat, alice), [reached("bob", 0, 5)], "forty records before the newest");
    let before = chat.reads.len();
    chat.command(alice, Command::Unview { conversation });
    chat.command(alice, Command::View { conversation });
    assert_eq!(told(&mut chat, alice), []);
    assert!(chat.reads.len() > before, "whether there is more is looked for once more");
    // Of who is further behind than is looked for nothing is said until it says more.
    chat.command(alice, Command::Unview { conversation });
    let (bob, _) = chat.connect("bob", None);
    say(&mut chat, alice, 46);
    let newest = cursor(&mut chat, bob);
    ack(&mut chat, bob, newest);
    chat.exchange(bob);
    (47..=110).for_each(|number| say(&mut chat, alice, number));
    chat.command(alice, Command::View { conversation });
    assert_eq!(told(&mut chat, alice), [], "64 records");
    let newest = cursor(&mut chat, bob);
    ack(&mut chat, bob, newest);
    assert_eq!(told(&mut chat, alice), [reached("bob", 0, 110)]);
}

/// Whoever is added has the record by which that was done, and nothing before it, though its device has acknowledged what stands behind.
#[test]
fn who_was_added_was_given_nothing_of_what_stood_before() {
    let (mut chat, alice, bob, conversation) = looking();
    chat.command(alice, Command::Unview { conversation });
    let id = MessageId::v7(NOW, [1; 10]);
    let (title, members, history) = ("all of us".to_owned(), vec![user("carol")], HistoryPolicy::All);
    let create = Create { title, members, history, message_id: Some(id) };
    answer(&chat.command(alice, Command::Create(create))).expect("stored");
    let conversation = created_conversation(&user("alice"), id);
    let change = |chat: &mut Chat, add: &[&str], remove: &[&str], number| {
        let users = |names: &[&str]| names.iter().map(|name| user(name)).collect();
        let (add, remove, roles) = (users(add), users(remove), Vec::new());
        let change = Members { conversation, add, remove, roles, message_id: id_of(NOW.0, number) };
        answer(&chat.command(alice, Command::Members(change))).expect("stored");
    };
    change(&mut chat, &["dave"], &[], 200);
    say(&mut chat, alice, 2);
    let late = cursor(&mut chat, bob);
    ack(&mut chat, bob, late);
    chat.exchange(bob);
    change(&mut chat, &["bob"], &[], 201);
    chat.command(alice, Command::View { conversation });
    assert_eq!(told(&mut chat, alice), [], "bob has acknowledged what stands behind the first two");
    change(&mut chat, &["erin"], &[], 202);
    let joined = cursor(&mut chat, bob);
    ack(&mut chat, bob, joined);
    assert_eq!(told(&mut chat, alice), [reached("bob", 0, 4)]);
    // The same while she looks.
    change(&mut chat, &[], &["bob"], 203);
    change(&mut chat, &["frank"], &[], 204);
    say(&mut chat, alice, 3);
    let late = cursor(&mut chat, bob);
    ack(&mut chat, bob, late);
    chat.exchange(bob);
    change(&mut chat, &["bob"], &[], 205);
    assert_eq!(told(&mut chat, alice).iter().filter(|(who, _)| *who == user("bob")).count(), 0);
}

#[test]
fn who_begins_to_look_does_not_wait_for_another_acknowledgement() {
    let (mut chat, alice, bob, conversation) = looking();
    chat.command(alice, Command::Unview { conversation });
    say(&mut chat, alice, 2);
    let two = cursor(&mut chat, bob);
    ack(&mut chat, bob, two);
    assert_eq!(told(&mut chat, alice), []);
    chat.command(alice, Command::View { conversation });
    assert_eq!(told(&mut chat, alice), [reached("bob", 0, 2)], "within a second");
}

/// An older device came back and went: what the newer one had said was forgotten, and nobody was told of it.
#[test]
fn a_device_that_is_behind_takes_nothing_from_another_one() {
    let (mut chat, alice, phone, conversation) = looking();
    let early = cursor(&mut chat, phone);
    chat.command(alice, Command::Unview { conversation });
    (2..12).for_each(|number| say(&mut chat, alice, number));
    chat.users.disconnect(phone);
    let (tablet, _) = chat.connect("bob", None);
    (12..22).for_each(|number| say(&mut chat, alice, number));
    let late = cursor(&mut chat, tablet);
    ack(&mut chat, tablet, late);
    chat.exchange(tablet);
    let device = DeviceId::new("phone").expect("a name");
    let connect = Connect { token: None, device, cursor: Some(early), positions: None };
    let phone = chat.begin_with("bob", connect);
    chat.users.disconnect(phone);
    chat.exchange(alice);
    chat.command(alice, Command::View { conversation });
    assert_eq!(told(&mut chat, alice), [reached("bob", 0, 21)]);
}

/// In a large group a device that was away is told the head, and has none of what was said. The group became small since.
#[test]
fn what_was_said_while_a_group_was_large_is_not_delivered_by_its_head() {
    let mut chat = Chat::new();
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    let (bob, _) = chat.connect("bob", None);
    let id = MessageId::v7(NOW, [1; 10]);
    let names = (0..98).map(|number| format!("m{number}")).chain(["bob".to_owned()]);
    let members: Vec<UserId> = names.map(|name| user(&name)).collect();
    let (title, history) = ("all of us".to_owned(), HistoryPolicy::All);
    let create = Create { title, members, history, message_id: Some(id) };
    answer(&chat.command(alice, Command::Create(create))).expect("stored");
    let conversation = created_conversation(&user("alice"), id);
    let before = cursor(&mut chat, bob);
    chat.users.disconnect(bob);
    let retitle = |number: u8| Command::Title {
        conversation,
        title: format!("title {number}"),
        message_id: id_of(NOW.0, number),
    };
    (2..6).for_each(|number| _ = answer(&chat.command(alice, retitle(number))).expect("stored"));
    say(&mut chat, alice, 9);
    let (bob, frames) = chat.connect("bob", Some(before));
    let caught_up = frames.into_iter().find_map(|frame| match frame {
        ServerFrame::CaughtUp { cursor, .. } => Some(cursor),
        _ => None,
    });
    ack(&mut chat, bob, caught_up.expect("caught up"));
    chat.exchange(bob);
    chat.users.disconnect(bob);
    let (remove, roles) = (vec![user("m0")], Vec::new());
    let change = Members { conversation, add: Vec::new(), remove, roles, message_id: id_of(NOW.0, 10) };
    assert_eq!(answer(&chat.command(alice, Command::Members(change))), Ok(6));
    chat.command(alice, Command::View { conversation });
    let of_bob =
        |frames: Vec<(UserId, Reached)>| frames.into_iter().filter(|(who, _)| *who == user("bob")).count();
    assert_eq!(of_bob(told(&mut chat, alice)), 0, "it was told the head");
}

/// A node that goes away waits for nothing that a full disk does not take, and one that goes on after all has it taken then.
#[test]
fn what_a_full_disk_did_not_take_is_written_once_it_does() {
    for pace in [Pace::AtOnce, Pace::Leaving] {
        let geometry =
            Geometry { segment_bytes: 64 << 10, batch_bytes_max: 16 << 10, block_bytes: BLOCK_BYTES_MIN };
        let mut chat = Chat::with_geometry(1, geometry);
        chat.disk_reads = true;
        let (mut chat, alice, _, conversation) = looking_in(chat);
        chat.command(alice, Command::Unview { conversation });
        let names: Vec<String> = (0..40).map(|number| format!("friend-{number}")).collect();
        let friends: Vec<SessionId> = names.iter().map(|name| chat.connect(name, None).0).collect();
        for name in &names {
            answer(&chat.command(alice, send(name, "hello", None))).expect("stored");
        }
        chat.disk_is_full = true;
        for length in [4 << 10, 1] {
            while answer(&chat.command(alice, send("dave", &"x".repeat(length), None))).is_ok() {
                chat.wait(10);
            }
        }
        for friend in friends {
            let all = cursor(&mut chat, friend);
            ack(&mut chat, friend, all);
        }
        chat.pace = pace;
        for _ in 0..3 {
            chat.exchange(alice);
            chat.wait(1_000);
        }
        assert!(!chat.side.is_waiting(), "{pace:?}: it may go away");
        chat.disk_is_full = false;
        chat.pace = Pace::Usual;
        let before = chat.log.durable().position();
        for _ in 0..600 {
            chat.exchange(alice);
            chat.wait(1_000);
        }
        assert!(chat.log.durable().position() > before, "{pace:?}: there was no room for all of them");
        chat.restart();
        let (alice, _) = chat.connect("alice", None);
        for name in &names {
            let conversation = direct_conversation(&user("alice"), &user(name));
            chat.command(alice, Command::View { conversation });
            assert_eq!(told(&mut chat, alice), [reached(name, 0, 1)], "{pace:?}");
            chat.command(alice, Command::Unview { conversation });
        }
    }
}

/// One acknowledgement of a user whom very many look at is found out in parts, without another one.
#[test]
fn what_a_user_in_very_many_conversations_acknowledges_is_told_in_all_of_them() {
    let (mut chat, _, bob, _) = looking();
    let friends: Vec<(SessionId, ConversationId)> = (0..600)
        .map(|number| {
            let name = format!("friend-{number}");
            let (friend, _) = chat.connect(&name, None);
            chat.wait(10);
            answer(&chat.command(friend, send("bob", "hello", None))).expect("stored");
            let conversation = direct_conversation(&user(&name), &user("bob"));
            chat.command(friend, Command::View { conversation });
            chat.exchange(bob);
            (friend, conversation)
        })
        .collect();
    let all = cursor(&mut chat, bob);
    ack(&mut chat, bob, all);
    for _ in 0..3 {
        chat.exchange(bob);
        chat.wait(GATHERED);
    }
    // The answer to a view has what is on disk by then.
    for (friend, conversation) in friends {
        let frames = chat.command(friend, Command::View { conversation });
        let is_told = |frame: &ServerFrame| matches!(frame, ServerFrame::Viewed { receipts, .. } if receipts.contains(&reached("bob", 0, 1)));
        assert!(frames.iter().any(is_told), "{frames:?}");
    }
}
