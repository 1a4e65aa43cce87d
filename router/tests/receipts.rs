//! How far somebody has read: answered at once, written once a second, told once it is on disk, never back.

#![forbid(unsafe_code)]

mod support;

use protocol::command::{Command, Create, HistoryPolicy, Members};
use protocol::event::{ErrorCode, ServerFrame};
use protocol::ids::{ConversationId, Seq, UserId};
use router::conversation::Pace;
use router::mail::SessionId;
use router::places::{created_conversation, direct_conversation};
use storage_log::Geometry;
use storage_log::format::BLOCK_BYTES_MIN;

use support::{Chat, NOW, answer, id_of, send, user};

/// How long positions are gathered, in milliseconds.
const GATHERED: u64 = 1_000;

/// Alice has sent five messages to bob, and both are here.
fn talked() -> (Chat, SessionId, SessionId, ConversationId) {
    talked_in(Chat::new())
}

fn talked_in(mut chat: Chat) -> (Chat, SessionId, SessionId, ConversationId) {
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    let (bob, _) = chat.connect("bob", None);
    for number in 1..=5 {
        answer(&chat.command(alice, send("bob", "hello", id_of(NOW.0, number)))).expect("stored");
    }
    (chat, alice, bob, direct_conversation(&user("alice"), &user("bob")))
}

fn read(conversation: ConversationId, seq: u64) -> Command {
    Command::Read { conversation, seq: Seq(seq) }
}

/// Who has read up to where, as `frames` tell it.
fn receipts(frames: &[ServerFrame]) -> Vec<(UserId, u64)> {
    let receipts = frames.iter().filter_map(|frame| match frame {
        ServerFrame::Receipt { user, reached, .. } => Some((user.clone(), reached.read.0)),
        _ => None,
    });
    receipts.collect()
}

/// What the answer to a `view` says of who has read how far.
fn viewed(frames: &[ServerFrame]) -> Vec<(UserId, u64)> {
    let answer = frames.iter().find_map(|frame| match frame {
        ServerFrame::Viewed { receipts, .. } => Some(receipts),
        _ => None,
    });
    let answer = answer.unwrap_or_else(|| panic!("no view: {frames:?}"));
    answer.iter().map(|(user, reached)| (user.clone(), reached.read.0)).collect()
}

/// That a command was answered with a bare `ok`.
#[track_caller]
fn assert_done(frames: &[ServerFrame]) {
    let is_done = |frame: &ServerFrame| matches!(frame, ServerFrame::Ok(ok) if ok.seq.is_none());
    assert_eq!(frames.iter().filter(|frame| is_done(frame)).count(), 1, "{frames:?}");
}

/// What finds no room in an outbox is kept, the newest of each: nobody says it again.
#[test]
fn a_session_that_does_not_read_is_told_the_newest_receipt_when_it_does() {
    let (mut chat, alice, bob, conversation) = talked();
    chat.command(alice, Command::View { conversation });
    let (carol, _) = chat.connect("carol", None);
    for number in 0..8_u8 {
        chat.request(carol, send("alice", &"x".repeat(16_000), id_of(NOW.0, 100 + number)));
    }
    while chat.carry_mail() | chat.write() | chat.carry_replies() {}
    for seq in [2, 4] {
        chat.request(bob, read(conversation, seq));
        chat.wait(GATHERED);
        while chat.carry_mail() | chat.write() | chat.carry_replies() {}
    }
    assert_eq!(receipts(&chat.exchange(alice)), [(user("bob"), 4)]);
    // What she does not look at any more she is not told.
    for number in 0..8_u8 {
        chat.request(carol, send("alice", &"x".repeat(16_000), id_of(NOW.0, 200 + number)));
    }
    while chat.carry_mail() | chat.write() | chat.carry_replies() {}
    chat.request(bob, read(conversation, 5));
    chat.wait(GATHERED);
    while chat.carry_mail() | chat.write() | chat.carry_replies() {}
    chat.request(alice, Command::Unview { conversation });
    assert!(receipts(&chat.exchange(alice)).is_empty());
}

#[test]
fn a_receipt_is_told_to_viewers_and_to_ones_own_sessions_once_it_is_durable() {
    let (mut chat, alice, bob, conversation) = talked();
    let (carol, _) = chat.connect("carol", None);
    // Who has sent the newest has read what is before it.
    assert_eq!(viewed(&chat.command(alice, Command::View { conversation })), [(user("alice"), 5)]);
    let before = chat.log.durable().position();
    // Three in a second are one record and one receipt.
    for seq in [2, 3, 5] {
        assert_done(&chat.command(bob, read(conversation, seq)));
    }
    chat.wait(GATHERED - 1);
    assert!(receipts(&chat.exchange(alice)).is_empty(), "it is not on disk");
    assert_eq!(chat.log.durable().position(), before);
    chat.wait(1);
    while chat.carry_mail() | chat.write() | chat.carry_replies() {}
    assert_eq!(chat.log.durable().position(), before + 1);
    assert_eq!(receipts(&chat.take(alice)), [(user("bob"), 5)]);
    assert_eq!(receipts(&chat.take(bob)), [(user("bob"), 5)]);
    assert_eq!(receipts(&chat.take(carol)), []);
}

#[test]
fn a_view_is_not_followed_by_an_older_receipt_of_ones_own() {
    let (mut chat, alice, bob, conversation) = talked();
    chat.command(alice, Command::View { conversation });
    assert_done(&chat.command(bob, read(conversation, 3)));
    chat.wait(GATHERED);
    assert!(chat.write(), "it is on disk, and nobody was told yet");
    chat.request(bob, send("alice", "hello", None));
    chat.carry_mail();
    chat.write();
    chat.request(bob, Command::View { conversation });
    let frames = chat.exchange(bob);
    let told = frames.iter().filter_map(|frame| match frame {
        ServerFrame::Viewed { receipts, .. } => {
            receipts.iter().find(|(who, _)| *who == user("bob")).map(|(_, reached)| reached.read.0)
        }
        ServerFrame::Receipt { user: who, reached, .. } if *who == user("bob") => Some(reached.read.0),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [6, 6]);
}

#[test]
fn reading_goes_forward_only_and_no_further_than_there_is_something() {
    let (mut chat, alice, bob, conversation) = talked();
    chat.command(alice, Command::View { conversation });
    let settle = |chat: &mut Chat| {
        chat.exchange(alice);
        chat.wait(GATHERED);
        receipts(&chat.exchange(alice))
    };
    assert_done(&chat.command(bob, read(conversation, 4)));
    assert_eq!(settle(&mut chat), [(user("bob"), 4)]);
    assert_done(&chat.command(bob, read(conversation, 3)));
    assert_eq!(settle(&mut chat), [], "read before");
    assert_eq!(answer(&chat.command(bob, read(conversation, 6))), Err(ErrorCode::BadField));
    let (eve, _) = chat.connect("eve", None);
    assert_eq!(answer(&chat.command(eve, read(conversation, 1))), Err(ErrorCode::NotAMember));
    assert_eq!(answer(&chat.command(eve, read(ConversationId([9; 16]), 1))), Err(ErrorCode::NotFound));
    assert_done(&chat.command(bob, read(conversation, 5)));
    assert_eq!(settle(&mut chat), [(user("bob"), 5)]);
}

#[test]
fn who_joins_late_reads_from_there_and_a_restart_forgets_nothing() {
    let (mut chat, alice, _, _) = talked();
    let id = id_of(NOW.0, 50);
    let (title, history) = ("a group".to_owned(), HistoryPolicy::Joined);
    let create = Create { title, members: vec![user("bob")], history, message_id: id };
    answer(&chat.command(alice, Command::Create(create))).expect("stored");
    let conversation = created_conversation(&user("alice"), id.expect("an id"));
    let (add, remove, roles) = (vec![user("carol")], vec![], vec![]);
    let join = Command::Members(Members { conversation, add, remove, roles, message_id: None });
    assert_eq!(answer(&chat.command(alice, join)), Ok(2));
    let (carol, _) = chat.connect("carol", None);
    assert_eq!(answer(&chat.command(carol, read(conversation, 1))), Err(ErrorCode::BadField));
    assert_done(&chat.command(carol, read(conversation, 2)));
    assert_done(&chat.command(alice, read(conversation, 1)));
    chat.wait(GATHERED);
    chat.exchange(alice);
    let expected = [(user("alice"), 1), (user("carol"), 2)];
    assert_eq!(viewed(&chat.command(alice, Command::View { conversation })), expected);
    chat.forget();
    assert_eq!(viewed(&chat.command(carol, Command::View { conversation })), expected);
    // And goes on from there.
    assert_done(&chat.command(alice, read(conversation, 2)));
    chat.exchange(carol);
    chat.wait(GATHERED);
    assert_eq!(receipts(&chat.exchange(carol)), [(user("alice"), 2)]);
}

/// Nobody was promised that it is kept, and a node on a full disk has to be able to stop.
#[test]
fn what_was_read_on_a_full_disk_does_not_hold_a_node_that_goes_away() {
    let geometry =
        Geometry { segment_bytes: 32 << 10, batch_bytes_max: 16 << 10, block_bytes: BLOCK_BYTES_MIN };
    let (mut chat, alice, bob, conversation) = talked_in(Chat::with_geometry(64 << 20, geometry));
    (chat.disk_is_full, chat.disk_reads) = (true, true);
    let mut message = 10;
    while answer(&chat.command(alice, send("bob", &"x".repeat(2_000), id_of(NOW.0, message)))).is_ok() {
        message += 1;
    }
    // What is left of the segment takes some.
    for seq in 1..=12 {
        assert_done(&chat.command(bob, read(conversation, seq)));
        chat.wait(GATHERED);
        chat.exchange(bob);
    }
    assert!(chat.side.is_waiting(), "there is no room for the newest");
    chat.wait(GATHERED);
    for pace in [Pace::Leaving, Pace::AtOnce] {
        chat.side.write_positions(chat.clock.micros, chat.clock.unix, pace, &mut chat.log);
        while let Some(batch) = chat.log.poll_write(0) {
            chat.handle_written(batch);
        }
        chat.carry_replies();
    }
    assert!(!chat.side.is_waiting());
    // It did not go away, as an upgrade was refused: once there is room again, what was read is written.
    chat.exchange(bob);
    assert!(chat.side.is_waiting());
    chat.disk_is_full = false;
    let mut told = Vec::new();
    for _ in 0..2 {
        chat.wait(GATHERED);
        told.extend(receipts(&chat.exchange(bob)));
    }
    assert_eq!(told, [(user("bob"), 12)]);
    assert!(!chat.side.is_waiting());
    // And what is read from then on.
    assert_done(&chat.command(bob, read(conversation, 13)));
    chat.exchange(bob);
    chat.wait(GATHERED);
    assert_eq!(receipts(&chat.exchange(bob)), [(user("bob"), 13)]);
}

/// What somebody does who has left, or did before, is nothing to those who look now.
#[test]
fn nothing_is_told_of_who_is_no_member_any_more() {
    let (mut chat, alice, bob, _) = talked();
    let id = id_of(NOW.0, 50);
    let (title, history) = ("a group".to_owned(), HistoryPolicy::All);
    let members = vec![user("bob"), user("carol")];
    let create = Create { title, members, history, message_id: id };
    answer(&chat.command(alice, Command::Create(create))).expect("stored");
    let conversation = created_conversation(&user("alice"), id.expect("an id"));
    chat.command(alice, Command::View { conversation });
    // It is not written yet when he leaves.
    assert_done(&chat.command(bob, read(conversation, 1)));
    answer(&chat.command(bob, Command::Leave { conversation, message_id: None })).expect("left");
    chat.exchange(alice);
    chat.wait(GATHERED);
    assert_eq!(receipts(&chat.exchange(alice)), [], "he had gone before it was on disk");
    assert_eq!(viewed(&chat.command(alice, Command::View { conversation })), []);
    // Nor who begins to look.
    chat.command(alice, Command::Unview { conversation });
    assert_eq!(viewed(&chat.command(alice, Command::View { conversation })), []);
    // He had read it all the same: whoever takes him back sees that.
    let (add, remove, roles) = (vec![user("bob")], vec![], vec![]);
    let join = Command::Members(Members { conversation, add, remove, roles, message_id: None });
    answer(&chat.command(alice, join)).expect("stored");
    chat.command(alice, Command::Unview { conversation });
    assert_eq!(viewed(&chat.command(alice, Command::View { conversation })), [(user("bob"), 1)]);
}
