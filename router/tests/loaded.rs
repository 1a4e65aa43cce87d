//! Which conversations are kept in memory: those that are asked for.

#![forbid(unsafe_code)]

mod support;

use protocol::command::{Command, Create, HistoryPolicy};
use protocol::ids::{ConversationId, MessageId, UserId};
use router::mail::SessionId;
use router::places::{created_conversation, direct_conversation};

use support::{Chat, NOW, answer, id_of, send, user};

/// More conversations than are kept.
const OTHERS: u32 = 210_000;

/// Asks for the members of a conversation, and says how often the disk was read for that.
fn reads_for(chat: &mut Chat, session: SessionId, conversation: ConversationId) -> usize {
    let before = chat.reads.len();
    chat.command(session, Command::ListMembers { conversation });
    chat.reads.len() - before
}

/// Ten thousand groups of 99 are more than two hundred thousand conversations of two.
#[test]
fn groups_make_room_for_each_other_by_their_members() {
    let mut chat = Chat::with_tail(1);
    chat.disk_reads = true;
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    let members: Vec<UserId> = (1..99).map(|number| user(&format!("m{number}"))).collect();
    let create = |chat: &mut Chat, number: u32| {
        let mut random = [1; 10];
        random[6..].copy_from_slice(&number.to_be_bytes());
        let id = MessageId::v7(NOW, random);
        let (title, history) = ("all of us".to_owned(), HistoryPolicy::All);
        let create = Create { title, members: members.clone(), history, message_id: Some(id) };
        answer(&chat.command(alice, Command::Create(create))).expect("stored");
        created_conversation(&user("alice"), id)
    };
    let (first, kept) = (create(&mut chat, 0), create(&mut chat, 1));
    for number in 2..10_200 {
        create(&mut chat, number);
        if number.is_multiple_of(2_500) {
            assert_eq!(reads_for(&mut chat, alice, kept), 0, "after {number} others");
        }
    }
    assert_eq!(reads_for(&mut chat, alice, kept), 0);
    assert!(reads_for(&mut chat, alice, first) > 0);
}

#[test]
fn what_is_asked_for_now_and_then_stays_and_what_is_not_makes_room() {
    let mut chat = Chat::with_tail(1);
    chat.disk_reads = true;
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    for (number, peer) in (0..).zip(["bob", "carol"]) {
        answer(&chat.command(alice, send(peer, "hello", id_of(NOW.0, number)))).expect("stored");
    }
    // The newest batch is in memory whoever asks.
    answer(&chat.command(alice, send("dave", "hello", id_of(NOW.0, 2)))).expect("stored");
    let [with_bob, with_carol] =
        ["bob", "carol"].map(|peer| direct_conversation(&user("alice"), &user(peer)));
    assert_eq!(reads_for(&mut chat, alice, with_bob), 0, "it is in memory as it was made");
    for number in 0..OTHERS {
        let mut other = [7; 16];
        other[..4].copy_from_slice(&number.to_be_bytes());
        reads_for(&mut chat, alice, ConversationId(other));
        if number.is_multiple_of(OTHERS / 4) {
            assert_eq!(reads_for(&mut chat, alice, with_bob), 0, "after {number} others");
        }
    }
    assert_eq!(reads_for(&mut chat, alice, with_bob), 0);
    assert!(reads_for(&mut chat, alice, with_carol) > 0);
    assert_eq!(reads_for(&mut chat, alice, with_carol), 0);
}
